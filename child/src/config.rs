//! How one child is reached: what a `ManagedCluster` and its Secret say, as values.

use std::sync::Arc;

use url::Url;

use crate::{
    credentials::CredentialsConfig,
    identity::Identity,
    kubeconfig::{Kubeconfig, KubeconfigError},
    transport::Connector,
};

/// How to reach one child, and as whom.
#[derive(Debug, Clone)]
pub struct ChildConfig {
    /// The name of the `ManagedCluster`.
    pub name: String,
    /// Where its API server is: `https://host:port`, optionally with a path that prefixes every request.
    pub server: Url,
    /// PEM certificates that the server's certificate must chain to. `None`: the platform's roots.
    pub certificate_authority: Option<Vec<u8>>,
    /// The name the server's certificate must carry. `None`: the host of `server`.
    pub tls_server_name: Option<String>,
    /// Accept any server certificate. Whoever sits on the path then reads and changes everything.
    pub insecure_skip_tls_verify: bool,
    /// Permit `http://` servers, to which credentials travel in the clear. For tests on loopback.
    pub allow_plaintext: bool,
    /// An HTTP proxy to `CONNECT` through: `http://[user:password@]host:port`.
    pub proxy_url: Option<Url>,
    /// What the hub authenticates with.
    pub credentials: CredentialsConfig,
    /// How the hub's users are called on this child.
    pub identity: Identity,
    /// What opens streams to the child, where it is not dialled: its tunnel.
    pub connector: Option<Arc<dyn Connector>>,
}

impl ChildConfig {
    /// A child at `server` without credentials, verified against the platform's roots.
    #[must_use]
    pub fn new(name: impl Into<String>, server: Url) -> Self {
        Self {
            name: name.into(),
            server,
            certificate_authority: None,
            tls_server_name: None,
            insecure_skip_tls_verify: false,
            allow_plaintext: false,
            proxy_url: None,
            credentials: CredentialsConfig::default(),
            identity: Identity::default(),
            connector: None,
        }
    }

    /// The child that `context` of a kubeconfig points at; the current context when `None`.
    ///
    /// # Errors
    ///
    /// When the context is incomplete, a file it names cannot be read, or it uses what is not supported
    /// (`auth-provider`, `as`).
    pub fn from_kubeconfig(
        name: impl Into<String>,
        kubeconfig: &Kubeconfig,
        context: Option<&str>,
    ) -> Result<Self, KubeconfigError> {
        let selected = kubeconfig.select(context)?;
        let mut config = Self::new(name, selected.server()?);
        config.certificate_authority = selected.certificate_authority()?;
        config.tls_server_name = selected.cluster.tls_server_name.clone().filter(|name| !name.is_empty());
        config.insecure_skip_tls_verify = selected.cluster.insecure_skip_tls_verify;
        config.proxy_url = selected.proxy_url()?;
        config.credentials = selected.credentials()?;
        Ok(config)
    }
}
