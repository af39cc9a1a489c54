//! Tunnels of a hub of several replicas: any of them reaches a cluster whose tunnel ends at another.

use std::time::Instant;

use rustix::process::Signal;
use umbra_e2e::aggregated::Aggregated;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::environment;
use umbra_e2e::hub::umbra;
use umbra_e2e::process::Process;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use super::says_within;

#[test]
fn every_replica_reaches_a_cluster_whose_tunnel_ends_at_another() {
    let Some(aggregated) = Aggregated::exclusive() else {
        return;
    };
    let item = Item::open("children.tunnel.replicas");
    let spare = World::spare();
    let folder = environment::folder("agent-of-replicas");
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    std::fs::write(file("ca.crt"), aggregated.authority_pem()).expect("written");
    let administrator = aggregated.kubeconfig();
    let administrator = administrator.to_string_lossy();
    let url = |replica| format!("https://127.0.0.1:{}", aggregated.replica_port(replica));
    let run = |arguments: &[&str]| {
        let mut command = umbra(aggregated.programs());
        command.args(arguments);
        umbra_e2e::kubectl::Outcome::of(command, "").expect_success()
    };
    let token = run(&[
        "join",
        "far",
        "--tunnel",
        "--token-only",
        "--agent-hub",
        &url(0),
        "--hub-kubeconfig",
        &administrator,
    ]);
    std::fs::write(file("token"), token).expect("written");
    let agent_of = |replica: usize, state: &str| {
        let mut command = umbra(aggregated.programs());
        command
            .args([
                "agent",
                "--hub",
                &url(replica),
                "--cluster",
                "far",
                "--hub-ca-file",
                &file("ca.crt"),
            ])
            .args(["--bootstrap-token-file", &file("token"), "--state-dir", &file(state)])
            .arg("--kubeconfig")
            .arg(spare.kubeconfig());
        Process::start_logged(command, &environment::folder("agent-log").join("agent.log"))
    };
    // The hub's administrator is nobody in the cluster before.
    spare
        .kubectl()
        .ok("create clusterrolebinding far --clusterrole=cluster-admin --user=kubernetes-admin");
    let through = |replica: usize| {
        aggregated.lead_to(Some(replica));
        let root = aggregated.root().server(&aggregated.root_url("managedclusters", "far"));
        wait::until("the cluster answers", wait::DEADLINE, || {
            let outcome = root.run("get --raw /api/v1/namespaces/kube-system");
            if outcome.succeeded() {
                Ok(())
            } else {
                Err(outcome.to_string())
            }
        });
        root
    };
    let agent = agent_of(0, "kept");
    through(0);
    let root = through(1);
    // Also what is no request and answer.
    root.ok("create namespace far");
    let mut watch = root.start("get configmaps -n far -w -o name");
    root.ok("create configmap seen -n far");
    watch.wait_for("the event", |output| output.contains("configmap/seen"));
    watch.signal(Signal::KILL);

    // The replica with the tunnel dies: the agent's next one is elsewhere.
    let elsewhere = agent_of(1, "kept");
    aggregated.lead_to(None);
    aggregated.end(0, Signal::KILL);
    let began = Instant::now();
    through(1);
    let moved = began.elapsed();
    aggregated.start_again(0);
    through(0);

    // Whoever deletes the authority takes back all that it has issued, also from tunnels that are there.
    aggregated.root().ok("delete secret umbra-agents -n umbra-system");
    // A replica looks once or twice a minute; then the agent is refused five times, with pauses of up to 30 s.
    for agent in [&elsewhere, &agent] {
        says_within(wait::DEADLINE * 2, agent, "the hub keeps refusing the certificate");
    }
    agent.signal(Signal::KILL);
    drop(elsewhere);
    aggregated.lead_to(None);
    run(&["leave", "far", "--hub-kubeconfig", &administrator]);
    spare.kubectl().ok("delete namespace far --timeout=90s");
    spare.kubectl().ok("delete clusterrolebinding far");
    item.pass(&format!(
        "both ways; {:.1} s after kill -9 of the one with the tunnel; refused once the authority is gone",
        moved.as_secs_f64()
    ));
}
