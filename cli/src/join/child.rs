//! The cluster that joins or leaves, as its own kubeconfig reaches it.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use http::{Method, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use umbra_api::ADMINISTRATORS;
use umbra_child::kubeconfig::Kubeconfig;
use umbra_child::version::check_version;
use umbra_child::{Child, ChildConfig, ChildError, RequestDeadline, empty};

use super::{clock, rehearsal};
use crate::registration::{Administrators, administrators_binding};

/// How long a cluster may take to answer when it is looked at first.
pub(super) const ANSWER: Duration = Duration::from_secs(15);
pub(crate) const BINDINGS: &str = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const JSON: &str = "application/json";

/// A cluster that answers.
pub(crate) struct ChildCluster {
    child: Child,
    /// The UID of its namespace `kube-system`.
    pub(crate) uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
}

impl ChildCluster {
    /// Reaches the cluster `name` through the only context of `kubeconfig`, which the user calls `context`.
    ///
    /// # Errors
    /// Where it does not answer, does not accept the credential, or is too old.
    pub(crate) async fn reach(name: &str, context: &str, kubeconfig: &Kubeconfig) -> Result<Self> {
        let config = ChildConfig::from_kubeconfig(name, kubeconfig, None)?;
        let server = config.server.clone();
        let child = Child::new(config)?;
        let explained = |error: &ChildError| explain(error, context, server.as_str());
        let version: Version = get(&child, "/version").await.map_err(|error| explained(&error))?;
        check_version(&version.git_version)?;
        let namespace: Value = match get(&child, "/api/v1/namespaces/kube-system").await {
            Ok(namespace) => namespace,
            Err(ChildError::Status { code, message, .. }) => bail!(
                "context {context:?} may not read the namespace kube-system, whose UID identifies the cluster ({code}: {message}); \
                 use the credential of an administrator"
            ),
            Err(error) => return Err(explained(&error)),
        };
        let uid = namespace["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
        Ok(Self { child, uid })
    }

    /// A warning about the cluster's clock, where there is one to give.
    ///
    /// # Errors
    /// Where it is too far from the one here.
    pub(crate) async fn check_clock(&self) -> Result<Option<String>> {
        clock::check(&self.child, "the cluster").await
    }

    /// What the credential may not do that the hub does with it, each as a sentence.
    ///
    /// # Errors
    /// Where the cluster does not say.
    pub(crate) async fn missing_permissions(&self) -> Result<Vec<String>> {
        let checks = [
            (
                "",
                "users",
                "impersonate",
                "requests of the hub's users will be refused",
            ),
            (
                "",
                "groups",
                "impersonate",
                "requests of the hub's users will be refused",
            ),
            ("*", "*", "list", "what it may not list is not copied"),
            ("*", "*", "watch", "what it may not watch is not copied"),
            ("*", "*", "create", "fleets can place only what it may create"),
            ("*", "*", "patch", "fleets can place only what it may patch"),
        ];
        let mut missing = Vec::new();
        for (group, resource, verb, consequence) in checks {
            let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": {"group": group, "resource": resource, "verb": verb}}});
            let answer = self
                .child
                .request_json(Method::POST, REVIEWS, JSON, review.to_string())
                .await?;
            let answer: Value =
                serde_json::from_slice(&answer).context("the cluster's access review cannot be read")?;
            if answer["status"]["allowed"] != true {
                let what = if resource == "*" { "everything" } else { resource };
                missing.push(format!("the credential may not {verb} {what}: {consequence}"));
            }
        }
        Ok(missing)
    }

    /// Tries [`Self::bind_administrators`] without a trace. Whoever may not give away what they do not have themselves
    /// (`k8s.io/kubernetes/pkg/registry/rbac/validation`) hears of it here, too.
    ///
    /// # Errors
    /// Where the cluster would refuse.
    pub(crate) async fn rehearse_binding(&self, administrators: &Administrators) -> Result<()> {
        let path = format!("{BINDINGS}?dryRun=All");
        match self
            .bind(&path, &format!("{ADMINISTRATORS}:rehearsal"), administrators)
            .await
        {
            // A webhook that knows no dry runs; what it says to the binding itself shows then.
            Err(ChildError::Status { code, .. }) if code.as_u16() == 400 => Ok(()),
            bound => bound_or_explained(ADMINISTRATORS, bound),
        }
    }

    /// Makes the hub's administrators administrators of the cluster, by the binding of that name.
    ///
    /// # Errors
    /// Where the cluster refuses.
    pub(crate) async fn bind_administrators(&self, name: &str, administrators: &Administrators) -> Result<()> {
        bound_or_explained(name, self.bind(BINDINGS, name, administrators).await)
    }

    async fn bind(&self, path: &str, name: &str, administrators: &Administrators) -> Result<(), ChildError> {
        let binding = administrators_binding(name, administrators).to_string();
        self.child
            .request_json(Method::POST, path, JSON, binding)
            .await
            .map(drop)
    }

    /// Takes that back, where Umbra made it. Whether there was something to take back.
    ///
    /// # Errors
    /// Where the cluster refuses or does not answer.
    pub(crate) async fn unbind_administrators(&self, name: &str) -> Result<bool> {
        let path = format!("{BINDINGS}/{name}");
        match get::<Value>(&self.child, &path).await {
            Ok(binding) if is_ours(&binding) => {}
            Ok(_) => return Ok(false),
            Err(ChildError::Status { code, .. }) if code.as_u16() == 404 => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let deleted = self.child.request_json(Method::DELETE, &path, JSON, "").await;
        deleted.with_context(|| format!("the ClusterRoleBinding {name} cannot be deleted"))?;
        Ok(true)
    }

    /// The cluster's API.
    pub(crate) fn api(&self) -> &Child {
        &self.child
    }

    /// Ends the connections.
    pub(crate) async fn close(&self) {
        self.child.close().await;
    }
}

/// What may go wrong later with a credential that works here.
///
/// # Errors
/// Where the kubeconfig has no context.
pub(crate) fn doubts(kubeconfig: &Kubeconfig) -> Result<Vec<String>> {
    let selected = kubeconfig.select(None)?;
    let mut doubts = Vec::new();
    if selected.cluster.insecure_skip_tls_verify {
        doubts.push("the cluster's certificate is not verified (insecure-skip-tls-verify)".to_owned());
    }
    if let Some(program) = rehearsal::program(kubeconfig)? {
        doubts.push(format!(
            "the credential is printed by the program {program}, which the hub runs; it has to be installed where the hub runs"
        ));
    }
    Ok(doubts)
}

/// Reads what is at a path.
///
/// # Errors
/// What the cluster says; a cluster that does not within [`ANSWER`] is one that does not answer.
pub(crate) async fn get<T: serde::de::DeserializeOwned>(child: &Child, path: &str) -> Result<T, ChildError> {
    let mut request = Request::get(path).header(http::header::ACCEPT, JSON).body(empty())?;
    request.extensions_mut().insert(RequestDeadline(ANSWER));
    let bytes = child.request_bytes(request).await?;
    serde_json::from_slice(&bytes).map_err(|source| ChildError::Json {
        cluster: child.name().clone(),
        source,
    })
}

/// Whether a name is one segment of a path (`k8s.io/apimachinery/pkg/api/validation/path`, and what ends a path).
pub(crate) fn is_segment(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '%', '?', '#', '\\']) && !name.contains(char::is_control)
}

/// What a person can do about a binding that a cluster does not take.
fn bound_or_explained(name: &str, bound: Result<(), ChildError>) -> Result<()> {
    match bound {
        Ok(()) => Ok(()),
        // The name has the registration's UID in it: nobody else's has it.
        Err(ChildError::Status { code, .. }) if code.as_u16() == 409 => Ok(()),
        Err(ChildError::Status { message, .. }) => bail!(
            "the ClusterRoleBinding {name} cannot be created in the cluster: {message}. Use the credential of an \
             administrator, or join with --no-admin-binding and give the hub's users their roles in the cluster yourself"
        ),
        Err(error) => Err(error.into()),
    }
}

/// Whether umbra has made an object.
pub(crate) fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "umbra"
}

/// What a person can do about a cluster that does not answer as it should.
fn explain(error: &ChildError, context: &str, server: &str) -> anyhow::Error {
    match error {
        ChildError::Connect { reason, .. } if reason.contains("certificate") => {
            // What follows names the fields of a ManagedCluster, which there is not yet.
            let reason = reason.split(';').next().unwrap_or_default();
            anyhow!("{server} is not trusted: {reason}. Check certificate-authority and server of context {context:?}")
        }
        ChildError::Connect { reason, .. } => {
            anyhow!(
                "cannot reach the cluster of context {context:?} at {server}: {reason}. Is it running, and is the address right?"
            )
        }
        ChildError::Timeout { after, .. } => {
            anyhow!(
                "the cluster of context {context:?} at {server} does not answer within {} s",
                after.as_secs()
            )
        }
        ChildError::CredentialsRefused { .. } => anyhow!(
            "{server} does not accept the credential of context {context:?} (401 Unauthorized); it may have expired: check that \
             `kubectl --context {context} get namespaces` works"
        ),
        ChildError::Credentials { source, .. } => anyhow!("context {context:?} has no usable credential: {source}"),
        ChildError::Status { code, message, .. } => anyhow!("{server} answers {code}: {message}"),
        ChildError::Json { .. } => anyhow!("{server} does not answer like a Kubernetes API server; check its address"),
        error => anyhow!("the cluster of context {context:?} at {server} cannot be used: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_unverified_certificates_are_doubtful() {
        let config = |cluster: Value, user: Value| {
            let text = json!({"clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x"});
            Kubeconfig::parse(&text.to_string(), "test").unwrap()
        };
        let server = "https://c.test";
        let exec = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "cloud-login"}});
        let found = doubts(&config(
            json!({"server": server, "insecure-skip-tls-verify": true}),
            exec,
        ))
        .unwrap();
        assert!(found.len() == 2 && found[1].contains("cloud-login"), "{found:?}");
        assert!(is_segment("system:a.b") && !is_segment("..") && !is_segment("a/b") && !is_segment("a?b"));
        assert!(
            doubts(&config(json!({"server": server}), json!({"token": "t"})))
                .unwrap()
                .is_empty()
        );
    }
}
