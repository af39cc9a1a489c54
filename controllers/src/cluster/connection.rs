//! How a cluster is reached: what its ManagedCluster and its Secret say, as a [`ChildConfig`].

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use umbra_api::SYSTEM_NAMESPACE;
use umbra_api::cluster::{Connection, ConnectionMode, Identity, ManagedCluster};
use umbra_child::kubeconfig::{Kubeconfig, Selected};
use umbra_child::tunnel::Tunnels;
use umbra_child::{Authorization, ChildConfig, Limits};
use umbra_registry::directory::identity_of;

use crate::cluster::endpoints;
use crate::cluster::kubeconfigs::{Kubeconfigs, StoredKubeconfig};

/// Why a cluster is not connected: the reason and the message of its condition `Reachable`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

impl Problem {
    /// Whether it may be the credential alone, and the connection as good as before with another one: also where it may not read
    /// which cluster it is, which the one before may.
    pub(super) fn is_of_credential(&self) -> bool {
        let wrong = umbra_child::Failure::WrongCluster.reason();
        ![INVALID, EXEC_REFUSED, crate::cluster::facts::VERSION_UNSUPPORTED, wrong].contains(&self.reason)
    }
}

/// The reasons of the condition `Reachable` that concern what the hub was told.
const INVALID: &str = "InvalidConnection";
const NO_CREDENTIALS: &str = "NoCredentials";
const EXEC_REFUSED: &str = "ExecCredentialsRefused";

/// Whether kubeconfigs of Secrets may have the hub run programs (`exec`) and read files with tokens (`tokenFile`). Who may write
/// those Secrets then runs what they like on the hub's machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalCredentials {
    /// They may not.
    #[default]
    Refused,
    /// They may.
    Allowed,
}

/// Everything that a connection depends on; where two are equal there is nothing to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wanted {
    connection: Connection,
    identity: Identity,
    /// `None` where an agent holds the credential.
    kubeconfig: Option<Arc<StoredKubeconfig>>,
    local: LocalCredentials,
}

impl Wanted {
    /// What `cluster` asks for.
    ///
    /// # Errors
    /// Where it does not say enough, or what it names is missing.
    pub(super) fn of(
        cluster: &ManagedCluster,
        kubeconfigs: &Kubeconfigs,
        local: LocalCredentials,
    ) -> Result<Self, Problem> {
        let connection = &cluster.spec.connection;
        if connection.mode == ConnectionMode::Tunnel {
            return Ok(Self {
                connection: Connection {
                    // Who may join is of no concern to who has joined.
                    tunnel: None,
                    ..connection.clone()
                },
                identity: cluster.spec.identity.clone(),
                kubeconfig: None,
                local,
            });
        }
        let Some(reference) = &connection.credentials_secret_ref else {
            let message = format!(
                "spec.connection.credentialsSecretRef is missing; name a Secret of the namespace {SYSTEM_NAMESPACE} whose key \
                 kubeconfig holds the credential, or register the cluster with `umbra join`"
            );
            return Err(Problem::new(NO_CREDENTIALS, message));
        };
        if !reference.namespace.is_empty() && reference.namespace != SYSTEM_NAMESPACE {
            let message = format!(
                "spec.connection.credentialsSecretRef.namespace: credentials are only taken from the namespace \
                 {SYSTEM_NAMESPACE}, not from {}",
                reference.namespace
            );
            return Err(Problem::new(INVALID, message));
        }
        let Some(kubeconfig) = kubeconfigs.get(&reference.name) else {
            let message = format!(
                "the Secret {SYSTEM_NAMESPACE}/{} does not exist or has no key kubeconfig; create it, or register the cluster \
                 again with `umbra join`",
                reference.name
            );
            return Err(Problem::new(NO_CREDENTIALS, message));
        };
        Ok(Self {
            connection: connection.clone(),
            identity: cluster.spec.identity.clone(),
            kubeconfig: Some(Arc::clone(kubeconfig)),
            local,
        })
    }

    /// Whether both ask for the same connection, with another credential at most.
    pub(super) fn same_connection(&self, other: &Self) -> bool {
        self.connection == other.connection
    }

    /// The connection. What the spec says wins over the kubeconfig, as far as [`refuse_detours`] lets it.
    ///
    /// # Errors
    /// Where the kubeconfig or a field of the spec cannot be used.
    pub(super) fn config(&self, cluster: &ManagedCluster, tunnels: Option<&Tunnels>) -> Result<ChildConfig, Problem> {
        let name = cluster.metadata.name.as_deref().unwrap_or_default();
        let Some(stored) = &self.kubeconfig else {
            return tunnelled(cluster, name, tunnels);
        };
        let secret = self.connection.credentials_secret_ref.as_ref();
        let origin = format!("Secret {SYSTEM_NAMESPACE}/{}", secret.map_or("", |one| &one.name));
        let unusable = |error: &dyn std::fmt::Display| Problem::new(INVALID, format!("{origin}: {error}"));
        let kubeconfig = Kubeconfig::parse(&stored.text, "key kubeconfig").map_err(|error| unusable(&error))?;
        let context = stored.context.as_deref();
        let selected = kubeconfig.select(context).map_err(|error| unusable(&error))?;
        refuse_files(&selected, self.local).map_err(|message| unusable(&message))?;
        let mut config = ChildConfig::from_kubeconfig(name, &kubeconfig, context).map_err(|error| unusable(&error))?;
        refuse_programs(&config, self.local, &origin)?;
        let stored = config.clone();
        let connection = &self.connection;
        let field = |name: &str, error: &dyn std::fmt::Display| {
            Problem::new(INVALID, format!("spec.connection.{name}: {error}"))
        };
        if !connection.server.is_empty() {
            config.server = connection.server.parse().map_err(|error| field("server", &error))?;
        }
        if !connection.ca_data.is_empty() {
            let pem = BASE64
                .decode(&connection.ca_data)
                .map_err(|error| field("caData", &error))?;
            config.certificate_authority = Some(pem);
            config.insecure_skip_tls_verify = false;
        }
        if !connection.tls_server_name.is_empty() {
            config.tls_server_name = Some(connection.tls_server_name.clone());
        }
        if !connection.proxy_url.is_empty() {
            config.proxy_url = Some(
                connection
                    .proxy_url
                    .parse()
                    .map_err(|error| field("proxyURL", &error))?,
            );
        }
        refuse_detours(&stored, &config, &origin)?;
        let proxy = config.proxy_url.as_ref();
        config.alternatives = endpoints::alternatives(&connection.endpoints, (&kubeconfig, &selected), &stored, proxy)
            .map_err(|message| field("endpoints", &message))?;
        config.limits = limits(connection);
        config.identity = identity_of(cluster);
        Ok(config)
    }
}

/// A cluster whose agent opens the connection. The name of the server is only shown: the agent knows its own API server.
fn tunnelled(cluster: &ManagedCluster, name: &str, tunnels: Option<&Tunnels>) -> Result<ChildConfig, Problem> {
    let unusable = |message: String| Problem::new(INVALID, format!("spec.connection.mode: {message}"));
    let tunnels =
        tunnels.ok_or_else(|| unusable("this hub serves no tunnels; use Direct and a credential".to_owned()))?;
    let server = format!("https://{name}.tunnel")
        .parse()
        .map_err(|error| unusable(format!("{name} cannot be the name of a server: {error}")))?;
    let mut config = ChildConfig::new(name, server);
    config.connector = Some(tunnels.connector(name));
    config.limits = limits(&cluster.spec.connection);
    config.identity = identity_of(cluster);
    Ok(config)
}

/// A credential goes to the server it was stored for and to nobody else: who may write ManagedClusters but no Secrets must
/// not have it sent to a server of their own, nor through a proxy of their own that the hub would take for the server.
fn refuse_detours(stored: &ChildConfig, config: &ChildConfig, origin: &str) -> Result<(), Problem> {
    let address = |config: &ChildConfig| config.server.as_str().trim_end_matches('/').to_owned();
    if address(stored) != address(config) {
        let message = format!(
            "spec.connection.server: {} is not the server that the credential is for; the kubeconfig of {origin} names \
             {}: change it there, too",
            address(config),
            address(stored)
        );
        return Err(Problem::new(INVALID, message));
    }
    let trusts_as_stored = !config.insecure_skip_tls_verify
        && stored.certificate_authority == config.certificate_authority
        && stored.tls_server_name == config.tls_server_name;
    if stored.proxy_url != config.proxy_url && !trusts_as_stored {
        let message = format!(
            "spec.connection.proxyURL: a proxy other than that of the kubeconfig needs a server that is verified as the \
             kubeconfig of {origin} says; put caData, tlsServerName and the proxy there instead"
        );
        return Err(Problem::new(INVALID, message));
    }
    Ok(())
}

/// How much is done at once.
fn limits(connection: &Connection) -> Limits {
    let (given, default) = (connection.limits.unwrap_or_default(), Limits::default());
    let either = |given: Option<u32>, default: usize| given.and_then(|one| one.try_into().ok()).unwrap_or(default);
    Limits {
        requests: either(given.requests, default.requests),
        watches: either(given.watches, default.watches),
        streams: either(given.streams, default.streams),
        upgrades: either(given.upgrades, default.upgrades),
    }
}

/// Programs would run where the hub runs, as the hub.
fn refuse_programs(config: &ChildConfig, local: LocalCredentials, origin: &str) -> Result<(), Problem> {
    let Authorization::Exec(exec) = &config.credentials.authorization else {
        return Ok(());
    };
    if local == LocalCredentials::Allowed {
        return Ok(());
    }
    let message = format!(
        "{origin}: its kubeconfig runs the program {} to get a credential, which this hub does not do; store a token or a client \
         certificate, or start the hub with --allow-exec-credentials",
        exec.command
    );
    Err(Problem::new(EXEC_REFUSED, message))
}

/// Files would be the hub's own.
fn refuse_files(selected: &Selected<'_>, local: LocalCredentials) -> Result<(), String> {
    let named = |path: &Option<String>| path.as_deref().is_some_and(|path| !path.is_empty());
    let fields = [
        ("certificate-authority", &selected.cluster.certificate_authority),
        ("client-certificate", &selected.user.client_certificate),
        ("client-key", &selected.user.client_key),
        ("tokenFile", &selected.user.token_file),
    ];
    // What may run programs may read files, and a token in a file is one that somebody renews.
    let refused = |field: &str| local == LocalCredentials::Refused || field != "tokenFile";
    match fields.into_iter().find(|(field, path)| named(path) && refused(field)) {
        None => Ok(()),
        Some((field, _)) => Err(format!(
            "the kubeconfig names a file ({field}), which the hub does not read; store the output of \
             `kubectl config view --minify --flatten`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cluster(connection: &serde_json::Value) -> ManagedCluster {
        serde_json::from_value(json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster",
            "metadata": {"name": "east"}, "spec": {"connection": connection}}))
        .unwrap()
    }

    fn kubeconfigs(user: &serde_json::Value) -> Kubeconfigs {
        let text = json!({"clusters": [{"name": "c", "cluster": {"server": "https://kubeconfig.test"}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}], "current-context": "x"});
        let stored = StoredKubeconfig {
            text: text.to_string(),
            context: None,
        };
        [("s".to_owned(), Arc::new(stored))].into()
    }

    fn config(connection: &serde_json::Value, user: &serde_json::Value) -> Result<ChildConfig, Problem> {
        let cluster = cluster(connection);
        Wanted::of(&cluster, &kubeconfigs(user), LocalCredentials::Refused)?.config(&cluster, None)
    }

    #[test]
    fn programs_run_on_the_hub_only_where_that_is_allowed() {
        let exec = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "cloud-login"}});
        let connection = json!({"credentialsSecretRef": {"name": "s"}});
        let refused = config(&connection, &exec).unwrap_err();
        assert_eq!(refused.reason, EXEC_REFUSED);
        assert!(refused.message.contains("cloud-login"), "{}", refused.message);
        let cluster = cluster(&connection);
        for user in [exec, json!({"tokenFile": "/run/token"})] {
            let wanted = Wanted::of(&cluster, &kubeconfigs(&user), LocalCredentials::Allowed).unwrap();
            wanted.config(&cluster, None).unwrap();
        }
        // Certificates in files are nobody's to renew.
        let files = json!({"client-certificate": "/a", "client-key": "/b"});
        let wanted = Wanted::of(&cluster, &kubeconfigs(&files), LocalCredentials::Allowed).unwrap();
        assert_eq!(wanted.config(&cluster, None).unwrap_err().reason, INVALID);
    }

    #[test]
    fn what_a_credential_may_not_do_is_its_own_fault() {
        for (reason, expected) in [
            ("CredentialsRefused", true),
            ("IdentityUnknown", true),
            ("ConnectionRefused", true),
            ("WrongCluster", false),
            ("VersionUnsupported", false),
            (INVALID, false),
            (EXEC_REFUSED, false),
        ] {
            assert_eq!(Problem::new(reason, "").is_of_credential(), expected, "{reason}");
        }
    }

    #[test]
    fn limits_are_the_specs_or_the_default() {
        let given = json!({"credentialsSecretRef": {"name": "s"}, "limits": {"requests": 7}});
        let limits = config(&given, &json!({"token": "t"})).unwrap().limits;
        assert_eq!((limits.requests, limits.upgrades), (7, Limits::default().upgrades));
    }

    #[test]
    fn the_spec_wins_over_the_kubeconfig() {
        let reference = json!({"name": "s"});
        let plain = config(&json!({"credentialsSecretRef": reference}), &json!({"token": "t"})).unwrap();
        assert_eq!(
            (plain.name.as_str(), plain.server.as_str()),
            ("east", "https://kubeconfig.test/")
        );
        let given = json!({"credentialsSecretRef": reference, "server": "https://kubeconfig.test/",
            "tlsServerName": "inner.test", "caData": BASE64.encode("pem")});
        let given = config(&given, &json!({"token": "t"})).unwrap();
        assert_eq!(given.tls_server_name.as_deref(), Some("inner.test"));
        assert_eq!(given.certificate_authority.as_deref(), Some(&b"pem"[..]));
        let proxied = json!({"credentialsSecretRef": reference, "proxyURL": "http://proxy.test:3128"});
        let proxied = config(&proxied, &json!({"token": "t"})).unwrap();
        assert_eq!(proxied.proxy_url.unwrap().as_str(), "http://proxy.test:3128/");
    }

    #[test]
    fn a_credential_is_sent_nowhere_else() {
        let proxy = "http://evil.test:3128";
        for detour in [
            json!({"server": "https://evil.test"}),
            json!({"server": "https://kubeconfig.test:8443"}),
            json!({"server": "https://kubeconfig.test/elsewhere"}),
            json!({"proxyURL": proxy, "caData": BASE64.encode("pem")}),
            json!({"proxyURL": proxy, "tlsServerName": "evil.test"}),
        ] {
            let mut connection = detour;
            connection["credentialsSecretRef"] = json!({"name": "s"});
            let problem = config(&connection, &json!({"token": "t"})).unwrap_err();
            assert_eq!(problem.reason, INVALID, "{connection}");
            assert!(problem.message.contains("Secret umbra-system/s"), "{}", problem.message);
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let token = json!({"token": "t"});
        for (connection, user, reason, expected) in [
            (json!({}), &token, NO_CREDENTIALS, "credentialsSecretRef is missing"),
            (
                json!({"credentialsSecretRef": {"name": "other"}}),
                &token,
                NO_CREDENTIALS,
                "umbra-system/other",
            ),
            (
                json!({"credentialsSecretRef": {"name": "s", "namespace": "shop"}}),
                &token,
                INVALID,
                "not from shop",
            ),
            (json!({"mode": "Tunnel"}), &token, INVALID, "tunnels"),
            (
                json!({"credentialsSecretRef": {"name": "s"}}),
                &json!({"tokenFile": "/etc/shadow"}),
                INVALID,
                "tokenFile",
            ),
            (
                json!({"credentialsSecretRef": {"name": "s"}, "caData": "?"}),
                &token,
                INVALID,
                "caData",
            ),
        ] {
            let problem = config(&connection, user).unwrap_err();
            assert_eq!(problem.reason, reason);
            assert!(problem.message.contains(expected), "{}", problem.message);
        }
    }
}
