//! How one child is reached: what a `ManagedCluster` and its Secret say, as values.

use std::{fmt, sync::Arc};

use url::Url;

use crate::{
    credentials::CredentialsConfig,
    identity::Identity,
    kubeconfig::{Kubeconfig, KubeconfigError},
    transport::Connector,
};

/// One address of a child's API server, and what is trusted there.
#[derive(Clone, PartialEq)]
pub struct Endpoint {
    /// `https://host:port`, with the same path as all other endpoints of the child.
    pub server: Url,
    /// PEM certificates that the server's certificate must chain to. `None`: the platform's roots.
    pub certificate_authority: Option<Vec<u8>>,
    /// The name the server's certificate must carry. `None`: the host of `server`.
    pub tls_server_name: Option<String>,
    /// Accept any server certificate.
    pub insecure_skip_tls_verify: bool,
    /// The proxy to go through.
    pub proxy_url: Option<Url>,
}

impl fmt::Debug for Endpoint {
    /// Without the credentials of the proxy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("server", &redacted(&self.server).as_str())
            .field("tls_server_name", &self.tls_server_name)
            .field("insecure_skip_tls_verify", &self.insecure_skip_tls_verify)
            .field(
                "proxy_url",
                &self.proxy_url.as_ref().map(|url| redacted(url).to_string()),
            )
            .finish_non_exhaustive()
    }
}

/// How much the hub does with one child at once. What is above waits for its turn, at most 10 s and at most as many requests
/// as are allowed, and is refused then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Short requests. 400 by default, what kube-apiserver itself allows readers (`--max-requests-inflight`).
    pub requests: usize,
    /// Watches of the hub itself, one for each resource that is copied. 4000 by default.
    pub watches: usize,
    /// What users stream: watches, logs. 4000 by default.
    pub streams: usize,
    /// Sessions of `exec`, `attach` and `port-forward`, each of which has a connection of its own. 512 by default.
    pub upgrades: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: 400,
            watches: 4000,
            streams: 4000,
            upgrades: 512,
        }
    }
}

/// How to reach one child, and as whom.
#[derive(Clone)]
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
    /// A proxy to go through: `http`, `https`, `socks5` or `socks5h`, as `scheme://[user:password@]host:port`.
    pub proxy_url: Option<Url>,
    /// Further endpoints of the same API server, in the order in which they are preferred after `server`.
    pub alternatives: Vec<Endpoint>,
    /// The UID of the child's namespace `kube-system`. Where it is given, every connection is asked for it before anything else
    /// is sent on it, and what answers otherwise gets nothing.
    pub cluster_uid: Option<String>,
    /// How much is done at once.
    pub limits: Limits,
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
            alternatives: Vec::new(),
            cluster_uid: None,
            limits: Limits::default(),
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

    /// All endpoints, the preferred one first.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let first = Endpoint {
            server: self.server.clone(),
            certificate_authority: self.certificate_authority.clone(),
            tls_server_name: self.tls_server_name.clone(),
            insecure_skip_tls_verify: self.insecure_skip_tls_verify,
            proxy_url: self.proxy_url.clone(),
        };
        std::iter::once(first)
            .chain(self.alternatives.iter().cloned())
            .collect()
    }

    /// Whether both lead to the same servers, through the same proxies, and trust them for the same reasons. Credentials, limits
    /// and identities may differ.
    #[must_use]
    pub fn same_endpoints(&self, other: &Self) -> bool {
        self.allow_plaintext == other.allow_plaintext && self.endpoints() == other.endpoints()
    }

    /// Whether both are the same place, reached in the same way.
    pub(crate) fn same_place(&self, other: &Self) -> bool {
        let connectors = match (&self.connector, &other.connector) {
            (None, None) => true,
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            _ => false,
        };
        connectors && self.cluster_uid == other.cluster_uid && self.same_endpoints(other)
    }
}

impl fmt::Debug for ChildConfig {
    /// Without the credentials of proxies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildConfig")
            .field("name", &self.name)
            .field("endpoints", &self.endpoints())
            .field("cluster_uid", &self.cluster_uid)
            .field("limits", &self.limits)
            .field("credentials", &self.credentials)
            .field("identity", &self.identity)
            .field("connector", &self.connector)
            .finish_non_exhaustive()
    }
}

/// A URL without user name and password, for people to see.
#[must_use]
pub fn redacted(url: &Url) -> Url {
    let mut url = url.clone();
    // Refused for URLs that cannot have any.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_proxies_are_not_shown() {
        let mut config = ChildConfig::new("c", "https://jane:s3cret@c.test".parse().unwrap());
        config.proxy_url = Some("socks5://jane:s3cret@p.test:1080".parse().unwrap());
        config.alternatives = config.endpoints();
        let shown = format!("{config:?}");
        assert!(!shown.contains("s3cret") && shown.contains("p.test:1080"), "{shown}");
    }
}
