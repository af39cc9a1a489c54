//! The audit log of replicas behind a kube-apiserver.

use std::collections::BTreeMap;

use serde_json::Value;
use umbra_e2e::aggregated::Aggregated;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::identity::{self, Credential};
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use super::scene::GUEST;

const USER: &str = "audit-paula";

/// The events that the replicas have printed, by request.
fn events(hub: &Aggregated) -> BTreeMap<String, Vec<Value>> {
    let mut requests: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    let printed = hub.output();
    let lines = printed.lines().filter(|line| line.starts_with('{'));
    for event in lines.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if event["apiVersion"] == "audit.k8s.io/v1" {
            let id = event["auditID"].as_str().expect("every request has an id").to_owned();
            requests.entry(id).or_default().push(event);
        }
    }
    requests
}

#[test]
fn replicas_write_down_who_did_what_where() {
    let Some(world) = World::shared() else { return };
    let item = Item::open("children.audit.aggregated");
    let spare = World::spare();
    let hub = Aggregated::start(world.programs, "audited", &["--audit-log-path", "-"]);
    hub.join(GUEST, &spare.name, &spare.kubeconfig()).expect_success();
    hub.wait_for_child(GUEST);
    let root = hub.root();
    root.ok(format!(
        "create clusterrolebinding {USER} --clusterrole=umbra-editor --user={USER}"
    ));
    let direct = spare.kubectl();
    direct.ok("create namespace audited");
    direct.ok(format!(
        "create clusterrolebinding {USER} --clusterrole=cluster-admin --user={USER}"
    ));
    let authority = identity::authority(hub.folder());
    let credential = Credential::Certificate(identity::certificate(&authority, USER, &[]));
    let user = hub.user(USER, &credential);
    let child = user.server(&hub.cluster_url(GUEST)).namespace("audited");
    wait::until("the user may enter", wait::DEADLINE, || {
        let outcome = child.run("get namespace audited");
        match outcome.succeeded() {
            true => Ok(()),
            false => Err(outcome.to_string()),
        }
    });
    child.ok("create configmap seen --from-literal=a=b");
    child.ok("get configmap seen -o name");
    child.fails("get configmap absent");
    child.ok("delete configmap seen");
    let view = user.server(&hub.view_url());
    view.ok("get configmaps -n kube-system -o name");

    let (id, events) = wait::until("everything is written down", wait::DEADLINE, || {
        let all = events(&hub);
        let complete = |verb: &str, name: &str, code: u64, root: &str| {
            let found = all.iter().find(|(_, events)| {
                events.iter().any(|event| {
                    let object = &event["objectRef"];
                    event["stage"] == "ResponseComplete"
                        && event["user"]["username"] == USER
                        && event["verb"] == verb
                        && object["resource"] == "configmaps"
                        && object["name"].as_str().unwrap_or_default() == name
                        && event["responseStatus"]["code"] == code
                        && !event["annotations"][root].is_null()
                })
            });
            found.map(|(id, events)| (id.clone(), events.clone()))
        };
        let cluster = "umbra.dev/cluster";
        let wanted = [
            ("create", "", 201, cluster),
            ("get", "seen", 200, cluster),
            ("get", "absent", 404, cluster),
            ("delete", "seen", 200, cluster),
            ("list", "", 200, "umbra.dev/view"),
        ];
        for (verb, name, code, root) in wanted {
            if complete(verb, name, code, root).is_none() {
                return Err(format!("{verb} {name} {code} is missing in {all:#?}"));
            }
        }
        Ok(complete("delete", "seen", 200, cluster).expect("it was there"))
    });
    assert_eq!(events[0]["objectRef"]["namespace"], "audited", "{events:?}");
    assert_eq!(events[0]["annotations"]["umbra.dev/cluster"], GUEST);
    assert!(!id.is_empty());
    let all = self::events(&hub);
    for events in all.values() {
        let ended = events
            .iter()
            .filter(|event| event["stage"] == "ResponseComplete")
            .count();
        assert!(ended <= 1, "written down twice: {events:#?}");
        // kube-apiserver itself asks for discovery and OpenAPI, and for nothing in a cluster.
        let annotations = &events[0]["annotations"];
        let inside = !annotations["umbra.dev/cluster"].is_null() || !annotations["umbra.dev/view"].is_null();
        let who = events[0]["user"]["username"].as_str().unwrap_or_default();
        let machine = who.contains("front-proxy") || who.contains("aggregator");
        assert!(!(inside && machine), "{who}: {events:?}");
    }
    let of_user = all
        .values()
        .filter(|events| events[0]["user"]["username"] == USER)
        .count();
    item.pass(&format!("{of_user} requests of the user, each once"));
    hub.leave(GUEST).expect_success();
    direct.ok(format!("delete clusterrolebinding {USER}"));
    direct.ok("delete namespace audited --timeout=90s");
}
