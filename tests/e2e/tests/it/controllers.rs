//! The hub's own controllers beside umbra: the namespace controller, the garbage collector and the quota controller of
//! kube-controller-manager ask every API of the cluster, umbra's too, and work as long as all of them answer as they should.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use umbra_e2e::aggregated::Aggregated;
use umbra_e2e::cluster_log::{AuditedRequest, LogWindow};
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_show::Item;

/// For how long the controllers are watched, in seconds; 600 in the long form. Without it, for one round of work.
const SECONDS_VARIABLE: &str = "AGGREGATED_CONTROLLERS_SECONDS";
/// What the metadata informers of the garbage collector call themselves.
const INFORMERS: &str = "metadata-informers";
/// What the controllers are called that ask for the resources of every group.
const CONTROLLERS: [&str; 4] = [
    INFORMERS,
    "namespace-controller",
    "generic-garbage-collector",
    "resourcequota-controller",
];

#[test]
fn the_hubs_controllers_run_beside_umbra_without_complaints() {
    let Some(hub) = Aggregated::shared() else { return };
    let item = Item::open("aggregated.controllers");
    let begun = Instant::now();
    let window = LogWindow::begin(&hub.cluster);
    let seconds = std::env::var(SECONDS_VARIABLE)
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    let duration = Duration::from_secs(seconds.unwrap_or_default());

    let watched = wait_for_informers(&hub);
    let followed = LogWindow::begin(&hub.cluster);
    let mut rounds = 0;
    loop {
        round(hub.cluster.kubectl(), rounds);
        rounds += 1;
        if begun.elapsed() >= duration {
            break;
        }
    }

    let complaints: Vec<String> = window.complaints().into_iter().filter(|entry| is_ours(entry)).collect();
    assert!(
        complaints.is_empty(),
        "{} complaints, the first:\n{}",
        complaints.len(),
        complaints[0]
    );
    let wrong: Vec<AuditedRequest> = followed
        .requests()
        .into_iter()
        .filter(|request| is_refused(request) || is_relist(request))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    item.pass(&format!(
        "{} s, {rounds} rounds of work, informers on {}",
        begun.elapsed().as_secs(),
        watched.into_iter().collect::<Vec<_>>().join(", ")
    ));
}

/// What the controllers have to do: a quota that is counted, owners among umbra's kinds whose dependents go with them, and a
/// namespace that ends with its content.
#[track_caller]
fn round(kubectl: &Kubectl, number: usize) {
    let namespace = format!("aggregated-controllers-{number}");
    kubectl.ok(["create", "namespace", &namespace]);
    let inside = kubectl.namespace(&namespace);
    inside.ok("create quota few --hard=count/configmaps=5,count/secrets=1");
    for kind in ["View", "Fleet"] {
        owner_and_dependent(kubectl, &inside, kind, &format!("controllers-{number}"));
    }
    inside.ok("create configmap left");
    // Every namespace has kube-root-ca.crt.
    wait::for_text(
        "the quota has counted",
        || inside.path("resourcequota few", r"{.status.used.count/configmaps}"),
        |used| used == "2",
    );
    let refused =
        inside.run("create secret generic one").succeeded() && inside.run("create secret generic two").succeeded();
    assert!(!refused, "the quota has let a second Secret pass");
    kubectl.ok(["delete", "namespace", &namespace, "--timeout=90s"]);
}

/// That the garbage collector follows owners of a kind of umbra's: it deletes in the foreground, so it has to see the owner
/// wait for its dependents, and end it when they are gone.
#[track_caller]
fn owner_and_dependent(kubectl: &Kubectl, inside: &Kubectl, kind: &str, name: &str) {
    kubectl.apply(&format!(
        "{{apiVersion: umbra.dev/v1alpha1, kind: {kind}, metadata: {{name: {name}}}, spec: {{clusterNames: [north]}}}}"
    ));
    let resource = kind.to_lowercase();
    let uid = kubectl.path([resource.as_str(), name], "{.metadata.uid}");
    let dependent = format!("of-{resource}");
    inside.apply(&format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {dependent}, ownerReferences:
        [{{apiVersion: umbra.dev/v1alpha1, kind: {kind}, name: {name}, uid: {uid}, blockOwnerDeletion: true}}]}}}}"
    ));
    kubectl.ok(["delete", &resource, name, "--cascade=foreground", "--timeout=90s"]);
    // The collector follows two servers: where it has not heard of the dependent when it deletes the owner, it goes afterwards.
    wait::for_text(
        "what it owned is gone",
        || inside.run(["get", "configmap", dependent.as_str()]).to_string(),
        |text| text.contains("NotFound"),
    );
}

/// Whether a complaint is about umbra's group, or about what a group that does not answer spoils.
fn is_ours(entry: &str) -> bool {
    // kube-apiserver says this of every client of an aggregated API that ends a watch.
    if entry.contains("Timeout or abort while handling") {
        return false;
    }
    [
        "umbra",
        "server APIs",
        "PartialObjectMetadata",
        "GroupVersion",
        "discovery",
        "failed to list",
        "failed to watch",
        // Of the garbage collector and of the quota controller, when an informer does not come to have what there is.
        "sync caches",
        "timed out waiting",
    ]
    .iter()
    .any(|word| entry.contains(word))
}

/// Whether one of the controllers was refused something.
fn is_refused(request: &AuditedRequest) -> bool {
    let asks = CONTROLLERS
        .iter()
        .any(|controller| request.user_agent.contains(controller));
    // What a controller has read may be gone when it writes.
    asks && request.code >= 400 && ![404, 409].contains(&request.code)
}

/// Whether an informer asks for everything, which it has had since it began.
fn is_relist(request: &AuditedRequest) -> bool {
    // A watch that began before is in the audit log once more when it ends.
    let begins = request.stage == "ResponseStarted" && request.uri.contains("sendInitialEvents=true");
    request.user_agent.contains(INFORMERS) && (begins || request.verb == "list")
}

/// Waits until the informers of kube-controller-manager follow umbra's kinds, each by a watch that began with what there was.
/// Which kinds these are.
#[track_caller]
fn wait_for_informers(hub: &Aggregated) -> BTreeSet<String> {
    let kinds: BTreeSet<String> = ["clusterjoinrequests", "fleets", "managedclusters", "views"]
        .map(str::to_owned)
        .into();
    wait::until("informers on all kinds", wait::DEADLINE, || {
        let requests = LogWindow::whole(&hub.cluster).requests();
        let streamed = requests.into_iter().filter(|request| {
            request.user_agent.contains(INFORMERS)
                && request.verb == "watch"
                && request.code == 200
                && request.uri.contains("sendInitialEvents=true")
        });
        let watched: BTreeSet<String> = streamed.map(|watch| watch.resource).collect();
        if watched.is_superset(&kinds) {
            Ok(watched)
        } else {
            Err(format!("{watched:?}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As kube-apiserver and its controllers said it while no replica answered.
    #[test]
    fn complaints_about_the_group_are_found() {
        assert!(is_ours(
            "E1121 1 namespace_controller.go] unable to retrieve the complete list of server APIs: umbra.dev/v1alpha1: stale GroupVersion discovery: umbra.dev/v1alpha1"
        ));
        assert!(is_ours(
            r#"E1121 reflector.go] "Failed to watch" err="failed to list *v1.PartialObjectMetadata: the server is currently unable" "#
        ));
        assert!(!is_ours(
            r#"E1121 wrap.go:53] "Timeout or abort while handling" URI="/apis/umbra.dev/v1alpha1/views?watch=true""#
        ));
        // Quota is counted in admission and by its controller, who meet; and a namespace ends with its quota.
        assert!(!is_ours(
            r#"E1121 resource_quota_controller.go:276] "Error processing" err="resourcequotas \"few\" not found""#
        ));
        assert!(is_ours(
            r#"E1121 resource_quota_controller.go:460] "Error" err="timed out waiting for quota monitor sync""#
        ));
        assert!(!is_ours(
            "W1121 logging.go:55] [core] grpc: addrConn.createTransport failed"
        ));
    }
}
