//! A hub whose objects are in a real etcd.

use std::process::Command;

use rustix::process::Signal;
use tokio::runtime::Runtime;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::environment;
use umbra_e2e::hub::{self, Hub};
use umbra_e2e::kubectl::{Kubectl, Outcome};
use umbra_e2e::wait;
use umbra_show::Item;
use umbra_storage::contract::etcd_servers::{EtcdServers, EtcdVersion};

use crate::fleet::{examples, wait_for_path};
use crate::sorted_lines;

/// The simulated children.
const CHILDREN: [&str; 3] = ["east", "west", "edge"];
/// What is in the Secret, in base64.
const HIDDEN: &str = "aGlkZGVuIGZyb20gZXRjZA==";

#[test]
fn a_hub_on_etcd_serves_restarts_and_recovers() {
    let Some(programs) = environment::programs() else {
        return;
    };
    let runtime = Runtime::new().unwrap();
    let Some(mut servers) = runtime.block_on(EtcdServers::start(1, EtcdVersion::V36)) else {
        return;
    };
    let item = Item::open("storage.etcd-hub");
    let endpoints = servers.endpoints().join(",");
    let hub = Hub::start(programs, &["--demo", "--etcd-servers", &endpoints]);
    for child in CHILDREN {
        hub.wait_for_child(child);
    }
    assert!(
        !hub.folder().join("store.redb").exists(),
        "nothing is stored beside etcd"
    );
    let view = hub.view();
    wait::for_text(
        "pods of all three",
        || view.ok("get pods -A"),
        |pods| CHILDREN.iter().all(|child| pods.contains(&format!("@{child}"))) && pods.contains("Running"),
    );
    watch_a_scaling(&view);
    hub.fleet().ok(["apply", "-f", &examples()]);
    for (child, replicas) in [("east", "2"), ("west", "4"), ("edge", "2")] {
        let kubectl = hub.child(child).namespace("default");
        wait_for_path(&kubectl, "deploy web", "{.status.readyReplicas}", replicas);
    }

    hub.root().apply(&format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: hidden}}\ndata: {{text: {HIDDEN}}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: open}}\nbinaryData: {{text: {HIDDEN}}}\n"
    ));
    let found = runtime.block_on(keys_with(&servers, HIDDEN));
    assert_eq!(found, ["/umbra-hub/umbra/hub/core/configmaps/default/open"]);

    restart(&hub);
    outage(&hub, &runtime, &mut servers);

    let (status, process) = hub.stop();
    assert!(status.success(), "{}", process.output());
    servers.kill(0);
    let mut command: Command = hub::umbra(programs);
    command
        .args([
            "up",
            "--listen",
            "127.0.0.1:0",
            "--etcd-servers",
            &endpoints,
            "--data-dir",
        ])
        .arg(hub.folder());
    let error = Outcome::of(command, "").expect_failure();
    for word in ["--etcd-servers", &endpoints] {
        assert!(error.contains(word), "{word:?} is not in: {error}");
    }
    item.pass("3 children, view, fleet, a Secret encrypted, a restart, and an outage of etcd");
}

/// That a watch of the view sees what somebody scales.
fn watch_a_scaling(view: &Kubectl) {
    let shop = view.namespace("shop");
    let watch = shop.start("get deploy web@east -w -o jsonpath={.spec.replicas}{\"\\n\"}");
    wait::until("the watch begins", wait::DEADLINE, || {
        if watch.stdout().is_empty() {
            Err(watch.output())
        } else {
            Ok(())
        }
    });
    shop.ok("scale deploy/web@east --replicas=5");
    wait::until("the watch sees five replicas", wait::DEADLINE, || {
        if watch.stdout().lines().any(|line| line == "5") {
            Ok(())
        } else {
            Err(watch.output())
        }
    });
    watch.signal(Signal::TERM);
}

fn restart(hub: &Hub) {
    let deployments = |hub: &Hub| sorted_lines(&hub.view().ok("get deploy -A -o name"));
    let before = deployments(hub);
    hub.kill();
    hub.start_again();
    for child in CHILDREN {
        hub.wait_for_child(child);
    }
    wait::until("the same Deployments", wait::DEADLINE, || {
        let after = deployments(hub);
        if after == before { Ok(()) } else { Err(after.join("\n")) }
    });
    assert_eq!(hub.root().path("secret hidden", "{.data.text}"), HIDDEN);
}

/// etcd goes and comes back.
fn outage(hub: &Hub, runtime: &Runtime, servers: &mut EtcdServers) {
    let (root, view) = (hub.root(), hub.view());
    servers.kill(0);
    let (reason, _) = wait::for_text(
        "/readyz/etcd fails",
        || root.run("get --raw /readyz/etcd").to_string(),
        |text| text.contains("internal server error"),
    );
    assert!(
        reason.contains(&servers.endpoints()[0]),
        "it names the endpoint: {reason}"
    );
    assert!(!root.run("get --raw /readyz").succeeded());
    // What may be out of date comes from the cache, once something has been read through it.
    let path = "/apis/umbra.dev/v1alpha1/views/all/proxy/apis/apps/v1/deployments?resourceVersion=0";
    let cached = root.ok(["get", "--raw", path]);
    assert!(
        CHILDREN.iter().all(|child| cached.contains(&format!("@{child}"))),
        "{cached}"
    );
    // A client tries again and again otherwise, as it is told to.
    let refused = root.run("create configmap during --from-literal=a=b --request-timeout=15s");
    assert!(!refused.succeeded(), "{refused}");

    runtime.block_on(servers.restart(0));
    wait::until("/readyz is well again", wait::DEADLINE, || {
        let outcome = root.run("get --raw /readyz");
        if outcome.succeeded() {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    root.ok("create configmap after --from-literal=a=b");
    view.namespace("shop").ok("scale deploy/web@east --replicas=3");
    wait_for_path(&view.namespace("shop"), "deploy web@east", "{.spec.replicas}", "3");
}

/// The keys whose values contain a text.
async fn keys_with(servers: &EtcdServers, text: &str) -> Vec<String> {
    let mut client = servers.client(0).await.expect("etcd runs");
    let options = etcd_client::GetOptions::new().with_prefix();
    let response = client.get("/umbra-hub", Some(options)).await.expect("etcd answers");
    let found = response.kvs().iter().filter(|entry| {
        let needle = text.as_bytes();
        entry.value().windows(needle.len()).any(|part| part == needle)
    });
    found
        .map(|entry| String::from_utf8_lossy(entry.key()).into_owned())
        .collect()
}
