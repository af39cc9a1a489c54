//! The agent's own cluster: its API server, and who the cluster is.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde::Deserialize;
use umbra_child::kubeconfig::Kubeconfig;
use umbra_child::{Authorization, Child, ChildConfig, CredentialsConfig};
use url::Url;

use super::AgentArguments;

/// Where a pod finds its service account (`k8s.io/client-go/rest.InClusterConfig`).
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The agent's own cluster.
#[derive(Debug, Clone)]
pub(super) struct OwnCluster {
    child: Child,
}

/// Who it is.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The UID of its namespace `kube-system`.
    pub(super) uid: String,
    pub(super) version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    git_version: String,
}

#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    uid: String,
}

impl OwnCluster {
    /// The cluster of the kubeconfig, or of the pod. Nothing is asked yet.
    ///
    /// # Errors
    /// Where neither can be used.
    pub(super) fn new(arguments: &AgentArguments) -> Result<Self> {
        let config = match &arguments.kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::load(path).map_err(|error| anyhow!("--kubeconfig: {error}"))?;
                ChildConfig::from_kubeconfig(&arguments.cluster, &kubeconfig, arguments.context.as_deref())
                    .map_err(|error| anyhow!("--kubeconfig {}: {error}", path.display()))?
            }
            None => in_cluster(&arguments.cluster, Path::new(SERVICE_ACCOUNT))
                .context("--kubeconfig is missing, and this is no pod with a service account")?,
        };
        Ok(Self {
            child: Child::new(config)?,
        })
    }

    /// Its API server, with the agent's credential.
    pub(super) fn child(&self) -> &Child {
        &self.child
    }

    /// Asks it who it is.
    ///
    /// # Errors
    /// Where it does not answer or does not let the agent know.
    pub(super) async fn facts(&self) -> Result<Facts> {
        let version: Version = self.child.get_json("/version").await?;
        let namespace: Named = self.child.get_json("/api/v1/namespaces/kube-system").await?;
        Ok(Facts {
            uid: namespace.metadata.uid,
            version: version.git_version,
        })
    }
}

fn in_cluster(cluster: &str, folder: &Path) -> Result<ChildConfig> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("the variable {name} is not set"));
    let (host, port) = (
        variable("KUBERNETES_SERVICE_HOST")?,
        variable("KUBERNETES_SERVICE_PORT")?,
    );
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let server: Url = format!("https://{host}:{port}").parse()?;
    let file = |name: &str| -> PathBuf { folder.join(name) };
    let authority = file("ca.crt");
    let mut config = ChildConfig::new(cluster, server);
    config.certificate_authority =
        Some(std::fs::read(&authority).with_context(|| format!("cannot read {}", authority.display()))?);
    config.credentials = CredentialsConfig {
        certificate: None,
        // Read again every minute, and when it is refused: the kubelet renews it.
        authorization: Authorization::TokenFile(file("token")),
    };
    Ok(config)
}
