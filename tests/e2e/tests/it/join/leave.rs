//! A cluster with a tunnel leaves, and its agent with it.

use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use super::agents::Agents;
use super::scene::GUEST;
use super::{difference, inventory};
use crate::fleet::placement;

const NAMESPACE: &str = "left";

#[test]
fn a_tunnelled_cluster_takes_its_agent_with_it() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("children.leave");
    let spare = World::spare();
    let direct = spare.kubectl();
    direct.ok(["create", "namespace", NAMESPACE]);
    wait::until("the namespace is complete", wait::DEADLINE, || {
        let there = direct
            .namespace(NAMESPACE)
            .run("get configmap kube-root-ca.crt serviceaccount/default");
        match direct
            .namespace(NAMESPACE)
            .run("get configmap/kube-root-ca.crt serviceaccount/default")
            .succeeded()
        {
            true => Ok(()),
            false => Err(there.to_string()),
        }
    });
    let own = direct.namespace(NAMESPACE);
    let before = inventory(&spare);
    let agents = Agents::new(&world, &spare);
    let nothing_left = |how: &str| {
        wait::until(&format!("{how}: nothing is left"), wait::DEADLINE, || {
            let after = inventory(&spare);
            match after == before {
                true => Ok(()),
                false => Err(difference(&before, &after)),
            }
        });
        assert_eq!(
            agents.hub.root().ok("get managedclusters,clusterjoinrequests -o name"),
            "",
            "{how}"
        );
    };

    // Through the tunnel, with something that a fleet goes on placing.
    agents.join_and_apply(&[]);
    let mut agent = agents.agent();
    agents.hub.wait_for_child(GUEST);
    let fleet = agents.hub.fleet().namespace(NAMESPACE);
    fleet.ok(["create", "namespace", NAMESPACE]);
    fleet.ok("create configmap placed --from-literal=a=b");
    fleet.apply(&placement(
        "all",
        "ConfigMap",
        "  clusterNames: [guest]\n  onConflict: Adopt",
    ));
    let is_placed = || {
        wait::until("it is placed", wait::DEADLINE, || {
            let placed = own.run("get configmap placed");
            match placed.succeeded() {
                true => Ok(()),
                false => Err(placed.to_string()),
            }
        });
    };
    is_placed();
    // What stays as its placement says, and what is not the fleet's although it carries its label.
    fleet.ok("create secret generic stays --from-literal=a=b");
    fleet.apply(&placement(
        "some",
        "Secret",
        "  clusterNames: [guest]\n  onRemove: Orphan",
    ));
    wait::until("it is placed, too", wait::DEADLINE, || {
        let placed = own.run("get secret stays");
        match placed.succeeded() {
            true => Ok(()),
            false => Err(placed.to_string()),
        }
    });
    own.ok("create configmap foreign");
    own.ok("label configmap foreign umbra.dev/fleet=all");

    // Whoever may do everything but delete the cluster does nothing.
    let refused = agents.leave_as("visitor").expect_failure();
    assert!(
        refused.contains("the ManagedCluster guest cannot be deleted") && refused.contains("forbidden"),
        "{refused}"
    );
    own.ok("get configmap placed");
    direct.ok("get namespace umbra-agent");
    assert_eq!(
        agents
            .hub
            .root()
            .path("managedcluster guest", r"{.metadata.annotations.umbra\.dev/leaving}"),
        ""
    );

    let left = agents.leave(&[]).expect_success();
    for expected in [
        "guest has left",
        "deleted from the cluster: ConfigMap left/placed",
        "kept in the cluster: Secret left/stays, as onRemove",
        "Namespace umbra-agent with the agent",
    ] {
        assert!(left.contains(expected), "{expected}: {left}");
    }
    assert!(!left.contains("warning") && !left.contains("foreign"), "{left}");
    agent.process.stop();
    assert_eq!(
        own.path("secret stays", "{.metadata.labels}{.metadata.annotations}"),
        ""
    );
    own.ok("delete configmap foreign");
    own.ok("delete secret stays");
    fleet.ok("delete placement some");
    nothing_left("through the tunnel");

    // Without a tunnel: it leaves all the same, and says what there is to do, which does it.
    agents.join_and_apply(&[]);
    let left = agents.leave(&[]).expect_success();
    assert!(
        left.contains("its tunnel cannot be used") && left.contains("--context"),
        "{left}"
    );
    let commands = left
        .lines()
        .filter_map(|line| line.trim().strip_prefix("kubectl --context CONTEXT "));
    let commands: Vec<String> = commands.map(str::to_owned).collect();
    assert_eq!(commands.len(), 3, "{left}");
    for command in commands {
        direct.ok(&command);
    }
    nothing_left("by hand");

    // With a context; not with that of another cluster, and then nothing has been done.
    agents.join_and_apply(&[]);
    let mut agent = agents.agent();
    agents.hub.wait_for_child(GUEST);
    is_placed();
    agent.process.stop();
    let north = &world.children[0];
    let other = north.kubeconfig();
    let refused = agents
        .leave(&["--context", &north.name, "--kubeconfig", &other.to_string_lossy()])
        .expect_failure();
    assert!(refused.contains("another cluster answers there"), "{refused}");
    agents.hub.root().ok("get managedcluster guest");
    let its = spare.kubeconfig();
    let with_context = ["--context", &spare.name, "--kubeconfig", &its.to_string_lossy()];
    let left = agents.leave(&with_context).expect_success();
    assert!(
        left.contains("Namespace umbra-agent with the agent")
            && left.contains("deleted from the cluster: ConfigMap left/placed")
            && !left.contains("warning"),
        "{left}"
    );
    nothing_left("with a context");

    // An agent of another hub is not touched; deleting the ManagedCluster leaves the cluster alone.
    agents.join_and_apply(&[]);
    let namespace = "namespace umbra-agent";
    direct.ok("annotate namespace umbra-agent umbra.dev/registration=another --overwrite");
    let left = agents.leave(&with_context).expect_success();
    assert!(left.contains("stop it where it runs"), "{left}");
    assert_eq!(direct.path(namespace, "{.status.phase}"), "Active");
    // Of one that does not say whose it is, there are the commands.
    direct.ok("annotate namespace umbra-agent umbra.dev/registration-");
    agents.join_and_apply(&[]);
    direct.ok("annotate namespace umbra-agent umbra.dev/registration-");
    let left = agents.leave(&with_context).expect_success();
    let commands: Vec<String> = left
        .lines()
        .filter_map(|line| line.trim().strip_prefix(&format!("kubectl --context {} ", spare.name)))
        .map(str::to_owned)
        .collect();
    assert_eq!(commands.len(), 2, "{left}");
    assert_eq!(direct.path(namespace, "{.status.phase}"), "Active");
    for command in commands {
        direct.ok(&command);
    }
    nothing_left("an agent without a registration");
    agents.join_and_apply(&[]);
    agents.hub.root().ok("delete managedcluster guest --timeout=60s");
    assert_eq!(direct.path(namespace, "{.status.phase}"), "Active");
    direct.ok("delete namespace umbra-agent --timeout=90s");
    direct.ok("delete clusterrole,clusterrolebinding umbra:agent:read umbra:agent:impersonate umbra:agent:place");
    direct.ok("delete clusterrolebinding -l app.kubernetes.io/managed-by=umbra");
    direct.ok(["delete", "namespace", NAMESPACE, "--timeout=90s"]);
    item.pass("0 objects left through the tunnel, by what it says, with a context; another hub's agent stays");
}
