//! What an etcd store is told.

use std::fmt;
use std::time::Duration;

use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};

use super::ConnectError;

/// How to reach an etcd cluster, and how to use it.
#[derive(Debug, Clone)]
pub struct EtcdOptions {
    /// The members: URLs with `http` or `https`, such as `https://etcd-0:2379`. All of one cluster.
    pub endpoints: Vec<String>,
    /// What every key begins with in etcd. Default: `/umbra-hub`. Hubs that share a cluster differ in it, and a user that
    /// may read and write `/umbra-hub…` may do all that the store needs but compact, which etcd allows everybody.
    pub prefix: String,
    /// For `https` endpoints.
    pub tls: Option<EtcdTls>,
    /// Where the cluster has authentication enabled, if it does not know its users by their client certificates.
    pub credentials: Option<EtcdCredentials>,
    /// How long states stay readable at least; `None` leaves compaction to somebody else. Default: 10 minutes, as the
    /// embedded store, twice what kube-apiserver keeps: long enough for a client that is away for a few minutes.
    pub history: Option<Duration>,
    /// How often to compact. Default: 1 minute, so that history is between 10 and 11 minutes long; a compaction costs etcd
    /// one walk over its index.
    pub compaction_interval: Duration,
    /// How long [`Etcd::connect`](super::Etcd::connect) tries. Default: 10 s, ten times the time in which etcd elects a
    /// leader.
    pub connect_deadline: Duration,
    /// How long one request may take, all attempts together. Default: 10 s; etcd itself gives up after 5 s and two
    /// election timeouts (7 s), so its own answer comes first where there is one.
    pub request_deadline: Duration,
    /// How often to ping a connection that is in use. Default: 10 s, twice the least that etcd allows
    /// (`--grpc-keepalive-min-time`, 5 s) before it ends a connection for too many pings.
    pub keepalive_interval: Duration,
    /// How long the answer to a ping may take. Default: 5 s.
    pub keepalive_timeout: Duration,
    /// How long a watch may be silent until its server is asked for a sign of life, and how long that may take at first.
    /// Default: 5 s, so that the loss of a member is noticed after 10 s at the latest.
    pub heartbeat: Duration,
    /// How many events may wait for the reader of one watch. Default: 1,000, which is 4.7 MB of typical pods. When they
    /// are more, the watch is taken up again from etcd's history once half of them have been read.
    pub watch_buffer: usize,
    /// How many writes of one batch are under way at a time. Default: 64: etcd syncs its log once for all proposals that
    /// arrive meanwhile, and 64 of the largest requests it takes (1.5 MiB) are 96 MiB.
    pub write_concurrency: usize,
}

impl EtcdOptions {
    /// The defaults, for these endpoints.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            prefix: "/umbra-hub".to_owned(),
            tls: None,
            credentials: None,
            history: Some(Duration::from_mins(10)),
            compaction_interval: Duration::from_mins(1),
            connect_deadline: Duration::from_secs(10),
            request_deadline: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(5),
            heartbeat: Duration::from_secs(5),
            watch_buffer: 1_000,
            write_concurrency: 64,
        }
    }

    /// Looks for what cannot work, before anything is sent.
    pub(super) fn validate(&self) -> Result<(), ConnectError> {
        let invalid = |reason: String| Err(ConnectError::Invalid { reason });
        if self.endpoints.is_empty() {
            return invalid("there is no endpoint: name at least one, such as https://etcd-0:2379".to_owned());
        }
        for endpoint in &self.endpoints {
            let secure = endpoint.starts_with("https://");
            if !secure && !endpoint.starts_with("http://") {
                return invalid(format!(
                    "endpoint {endpoint:?} begins with neither http:// nor https://"
                ));
            }
            if secure && self.tls.is_none() {
                return invalid(format!(
                    "endpoint {endpoint} needs the certificate of the authority of its server"
                ));
            }
            if !secure && self.tls.is_some() {
                return invalid(format!(
                    "endpoint {endpoint} is not encrypted, but certificates are given: use https://, or leave them out"
                ));
            }
        }
        if !self.prefix.starts_with('/') || self.prefix.ends_with('/') {
            return invalid(format!(
                "prefix {:?} has to begin with a slash and not to end with one, such as /umbra-hub",
                self.prefix
            ));
        }
        if self.watch_buffer == 0 || self.write_concurrency == 0 {
            return invalid("a watch needs room for an event, and a batch for a write".to_owned());
        }
        Ok(())
    }

    /// The same for the client library. Pings go out only while a request or a watch is open: etcd takes those that come
    /// on an idle connection for an attack and ends it (`PermitWithoutStream` is off).
    pub(super) fn client(&self) -> ConnectOptions {
        let mut options = ConnectOptions::new()
            .with_keep_alive(self.keepalive_interval, self.keepalive_timeout)
            .with_keep_alive_while_idle(false)
            .with_connect_timeout(self.keepalive_timeout)
            .with_require_leader(true);
        if let Some(tls) = &self.tls {
            options = options.with_tls(tls.client());
        }
        if let Some(EtcdCredentials { user, password }) = &self.credentials {
            options = options.with_user(user, password).with_auto_token_refresh(true);
        }
        options
    }
}

/// TLS to etcd: everything as PEM.
#[derive(Clone)]
pub struct EtcdTls {
    /// The certificates of the authorities one of which has signed the servers' certificates.
    pub ca: Vec<u8>,
    /// What the servers ask clients for.
    pub identity: Option<EtcdIdentity>,
}

/// A client certificate with its key, as PEM.
#[derive(Clone)]
pub struct EtcdIdentity {
    /// The certificate, followed by those between it and the authority.
    pub certificate: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
}

impl EtcdTls {
    fn client(&self) -> TlsOptions {
        let options = TlsOptions::new().ca_certificate(Certificate::from_pem(&self.ca));
        match &self.identity {
            Some(identity) => options.identity(Identity::from_pem(&identity.certificate, &identity.key)),
            None => options,
        }
    }
}

impl fmt::Debug for EtcdTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EtcdTls")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for EtcdIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EtcdIdentity").finish_non_exhaustive()
    }
}

/// A user of etcd.
#[derive(Clone)]
pub struct EtcdCredentials {
    /// The name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for EtcdCredentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EtcdCredentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
