//! Credentials that are renewed, well and badly, and the Events that tell of a cluster.

use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use umbra_child::kubeconfig::{Kubeconfig, User};
use umbra_show::Item;

use super::*;

impl Hub {
    async fn replace_secret(&self, kubeconfig: &Kubeconfig) {
        let kubeconfig = ByteString(kubeconfig.to_yaml().into_bytes());
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let patch = Patch::Merge(json!({"data": {"kubeconfig": kubeconfig}}));
        secrets
            .patch("east-kubeconfig", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Waits for an Event of that reason about the cluster; gives its type and how often it happened.
    async fn event(&self, reason: &str, count: i32) -> String {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        eventually(&format!("{count} × {reason}"), async || {
            let found = events.list(&ListParams::default()).await.unwrap().items;
            let about = |one: &Event| {
                one.involved_object.name.as_deref() == Some("east")
                    && one.involved_object.kind.as_deref() == Some("ManagedCluster")
            };
            let found = found
                .into_iter()
                .find(|one| about(one) && one.reason.as_deref() == Some(reason))?;
            (found.count == Some(count)).then_some(found.type_.unwrap_or_default())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_does_not_work_ends_no_connection() {
    let item = Item::open("children.credentials");
    let hub = Hub::start(Arc::new(Embedded::in_memory())).await;
    let folder = tempfile::tempdir().unwrap();
    let data = Data::Path(folder.path().join("east"));
    let child = simulated(&hub, data.clone()).await;
    hub.create_secret(&child).await;
    hub.create_cluster().await;
    hub.condition(condition::READY, "True", "Ready").await;
    assert_eq!(hub.event("Reachable", 1).await, "Normal");
    let connected = hub.children.get("east").unwrap();

    let good = child.kubeconfig();
    let mut bad = good.clone();
    bad.users[0].user = User {
        token: Some("wrong".to_owned()),
        ..User::default()
    };
    hub.replace_secret(&bad).await;
    let kept = hub.condition(condition::REACHABLE, "True", "NewCredentialsFail").await;
    let conditions = kept.status.unwrap().conditions;
    assert!(conditions[0].message.contains("401"), "{}", conditions[0].message);
    let _: serde_json::Value = connected.get_json("/api/v1/namespaces/kube-system").await.unwrap();

    // The program is named and not run.
    let mut program = good.clone();
    program.users[0].user = serde_json::from_value(json!({"exec": {"command": "/bin/false",
        "apiVersion": "client.authentication.k8s.io/v1"}}))
    .unwrap();
    hub.replace_secret(&program).await;
    hub.condition(condition::REACHABLE, "False", "ExecCredentialsRefused")
        .await;
    assert_eq!(hub.event("ExecCredentialsRefused", 1).await, "Warning");
    assert!(hub.children.get("east").is_none());

    hub.replace_secret(good).await;
    hub.condition(condition::READY, "True", "Ready").await;
    assert_eq!(hub.event("Reachable", 2).await, "Normal");
    child.shut_down().await;
    assert_eq!(hub.event("ConnectionRefused", 1).await, "Warning");
    hub.stop().await;
    item.pass(
        "a refused credential left the connection of the one before; an exec plugin was not run; Events tell of both",
    );
}
