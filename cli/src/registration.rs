//! What makes a cluster a child on the hub: a ManagedCluster, and a Secret with its credential that goes with it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use umbra_api::cluster::{ManagedCluster, condition};
use umbra_api::{ADMINISTRATORS, SYSTEM_NAMESPACE};
use umbra_child::kubeconfig::Kubeconfig;

/// The field manager of what `umbra join` writes.
const FIELD_MANAGER: &str = "umbra-join";
/// Reasons of `Reachable` that no waiting mends: programs are not run on this hub, the cluster is too old
/// (`umbra_controllers::cluster`).
const FINAL: [&str; 2] = ["ExecCredentialsRefused", "VersionUnsupported"];
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
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let cluster = clusters
        .patch(name, &parameters, &Patch::Apply(registration.cluster()?))
        .await
        .with_context(|| format!("the ManagedCluster {name} cannot be written"))?;
    write_secret(hub, registration, &cluster).await?;
    Ok(cluster)
}

/// Makes the ManagedCluster, where there is none of that name.
///
/// # Errors
/// What the hub says. [`kube::Error::Api`] with the code 409 where the name is taken.
pub(crate) async fn create(hub: &Client, registration: &Registration, dry_run: bool) -> Result<ManagedCluster> {
    let clusters: Api<ManagedCluster> = Api::all(hub.clone());
    let cluster: ManagedCluster = serde_json::from_value(registration.cluster()?)?;
    let parameters = PostParams {
        dry_run,
        field_manager: Some(FIELD_MANAGER.to_owned()),
    };
    Ok(clusters.create(&parameters, &cluster).await?)
}

/// Writes the credential, which goes with `owner`.
///
/// # Errors
/// What the hub says.
pub(crate) async fn write_secret(hub: &Client, registration: &Registration, owner: &ManagedCluster) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(hub.clone(), SYSTEM_NAMESPACE);
    let secret_name = secret_name(&registration.name);
    secrets
        .patch(
            &secret_name,
            &PatchParams::apply(FIELD_MANAGER).force(),
            &Patch::Apply(registration.secret(owner)),
        )
        .await
        .with_context(|| format!("the Secret {secret_name} cannot be written"))?;
    Ok(())
}

/// Whether a Secret is the credential of a cluster of that name, of this registration or of one before.
pub(crate) fn is_credential_of(secret: &Secret, cluster: &str) -> bool {
    secret.owner_references().iter().any(|owner| {
        owner.kind == ManagedCluster::kind(&()) && owner.api_version == umbra_api::API_VERSION && owner.name == cluster
    })
}

impl Registration {
    fn cluster(&self) -> Result<Value> {
        let selected = self.kubeconfig.select(None)?;
        Ok(json!({
            "apiVersion": umbra_api::API_VERSION,
            "kind": ManagedCluster::kind(&()),
            "metadata": {"name": self.name, "labels": self.labels},
            "spec": {"connection": {
                "server": selected.cluster.server,
                "credentialsSecretRef": {"namespace": SYSTEM_NAMESPACE, "name": secret_name(&self.name)},
            }},
        }))
    }

    fn secret(&self, owner: &ManagedCluster) -> Value {
        let data = BTreeMap::from([("kubeconfig", ByteString(self.kubeconfig.to_yaml().into_bytes()))]);
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": secret_name(&self.name), "ownerReferences": [{
                "apiVersion": umbra_api::API_VERSION,
                "kind": ManagedCluster::kind(&()),
                "name": self.name,
                "uid": owner.uid().unwrap_or_default(),
            }]},
            "type": "Opaque",
            "data": data,
        })
    }
}

/// Waits until the cluster is `Ready`; tells `progress` how it stands.
///
/// # Errors
/// With the reason of the hub where the cluster is not ready after `patience`, and at once where it never will be.
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
        let find = |kind: &str| status.and_then(|status| status.conditions.iter().find(|one| one.type_ == kind));
        let ready = find(condition::READY);
        if let Some(refused) = find(condition::REACHABLE).filter(|one| FINAL.contains(&one.reason.as_str())) {
            bail!("the hub cannot use cluster {name}: {}", refused.message);
        }
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
