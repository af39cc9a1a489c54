//! What makes a cluster a child on the hub: a ManagedCluster, and a Secret with its credential that goes with it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;
use umbra_api::cluster::{ManagedCluster, condition};
use umbra_api::{ADMINISTRATORS, SYSTEM_NAMESPACE};
use umbra_child::kubeconfig::Kubeconfig;

/// The field manager of what `umbra join` writes.
const FIELD_MANAGER: &str = "umbra-join";
/// How often a cluster that is not ready yet is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A cluster that is to become a child.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    /// The name on the hub.
    pub(crate) name: String,
    /// A kubeconfig of one context, without references to files.
    pub(crate) kubeconfig: Kubeconfig,
    /// Labels of the ManagedCluster.
    pub(crate) labels: BTreeMap<String, String>,
}

/// The name of the Secret that holds the credential of a cluster.
pub(crate) fn secret_name(cluster: &str) -> String {
    format!("{cluster}-kubeconfig")
}

/// Who of the hub is administrator of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Administrators {
    /// The group [`ADMINISTRATORS`], in which a standalone hub puts its administrators.
    Group,
    /// One user of a hub that has users of its own, by the name that the child knows.
    User(String),
}

/// The name of the binding in a child that joins: that of its registration, so that hubs do not take away each other's.
pub(crate) fn binding_name(cluster: &ManagedCluster) -> String {
    format!("{ADMINISTRATORS}:{}", cluster.uid().unwrap_or_default())
}

/// The binding that makes the hub's administrators those of a child.
pub(crate) fn administrators_binding(name: &str, administrators: &Administrators) -> serde_json::Value {
    let (kind, subject) = match administrators {
        Administrators::Group => ("Group", ADMINISTRATORS),
        Administrators::User(user) => ("User", user.as_str()),
    };
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "umbra"}},
        "subjects": [{"kind": kind, "apiGroup": "rbac.authorization.k8s.io", "name": subject}],
        "roleRef": {"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": "cluster-admin"},
    })
}

/// Writes the ManagedCluster and its Secret; does nothing where both are there as they should be.
///
/// # Errors
/// What the hub says.
pub(crate) async fn register(hub: &Client, registration: &Registration) -> Result<ManagedCluster> {
    let name = &registration.name;
    let clusters: Api<ManagedCluster> = Api::all(hub.clone());
    let secrets: Api<Secret> = Api::namespaced(hub.clone(), SYSTEM_NAMESPACE);
    let secret_name = secret_name(name);
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let selected = registration.kubeconfig.select(None)?;
    let cluster = json!({
        "apiVersion": umbra_api::API_VERSION,
        "kind": ManagedCluster::kind(&()),
        "metadata": {"name": name, "labels": registration.labels},
        "spec": {"connection": {
            "server": selected.cluster.server,
            "credentialsSecretRef": {"namespace": SYSTEM_NAMESPACE, "name": secret_name},
        }},
    });
    let cluster = clusters
        .patch(name, &parameters, &Patch::Apply(cluster))
        .await
        .with_context(|| format!("the ManagedCluster {name} cannot be written"))?;
    let data = BTreeMap::from([("kubeconfig", ByteString(registration.kubeconfig.to_yaml().into_bytes()))]);
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret_name, "ownerReferences": [{
            "apiVersion": umbra_api::API_VERSION,
            "kind": ManagedCluster::kind(&()),
            "name": name,
            "uid": cluster.uid().unwrap_or_default(),
        }]},
        "type": "Opaque",
        "data": data,
    });
    secrets
        .patch(&secret_name, &parameters, &Patch::Apply(secret))
        .await
        .with_context(|| format!("the Secret {secret_name} cannot be written"))?;
    Ok(cluster)
}

/// Waits until the cluster is `Ready`; tells `progress` how it stands.
///
/// # Errors
/// With the reason of the hub where the cluster is not ready after `patience`.
pub(crate) async fn wait_until_ready(
    hub: &Client,
    name: &str,
    patience: Duration,
    progress: impl Fn(&str),
) -> Result<ManagedCluster> {
    let clusters: Api<ManagedCluster> = Api::all(hub.clone());
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let cluster = clusters
            .get(name)
            .await
            .with_context(|| format!("the ManagedCluster {name} cannot be read"))?;
        let status = cluster.status.as_ref();
        let ready = status.and_then(|status| status.conditions.iter().find(|one| one.type_ == condition::READY));
        match ready {
            Some(ready) if ready.status == "True" => return Ok(cluster),
            Some(ready) => progress(&ready.message),
            None => progress("the hub has not looked at it yet"),
        }
        if tokio::time::Instant::now() >= deadline {
            let why = ready.map_or("the hub has not looked at it", |ready| ready.message.as_str());
            bail!("cluster {name} is not ready after {} s: {why}", patience.as_secs());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_registration_has_a_binding_of_its_own() {
        let registered = |uid: &str| {
            let cluster = json!({"apiVersion": umbra_api::API_VERSION, "kind": "ManagedCluster", "metadata": {"name": "east", "uid": uid},
                "spec": {"connection": {"server": "https://east"}}});
            serde_json::from_value::<ManagedCluster>(cluster).unwrap()
        };
        let [one, other] = ["1", "2"].map(|uid| binding_name(&registered(uid)));
        assert_ne!(one, other);
        let group = administrators_binding(&one, &Administrators::Group);
        assert_eq!(
            (&group["metadata"]["name"], &group["subjects"][0]["kind"]),
            (&json!(one), &json!("Group"))
        );
        let user = administrators_binding(&one, &Administrators::User("paula".to_owned()));
        assert_eq!(user["subjects"].as_array().map(Vec::len), Some(1));
        assert_eq!(
            (&user["subjects"][0]["kind"], &user["subjects"][0]["name"]),
            (&json!("User"), &json!("paula"))
        );
        assert_eq!(user["roleRef"]["name"], "cluster-admin");
    }
}
