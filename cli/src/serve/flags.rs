//! The flags of `umbra serve`, named as those of kube-apiserver where it has the same.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use umbra_auth::tls::TlsVersion;

use crate::duration::duration;
use crate::hub::{AuditArguments, StorageArguments, TunnelArguments};

/// What `umbra serve` takes. Each flag can be given as a variable of the environment, too.
#[derive(Args, Debug, Clone)]
pub(crate) struct ServeArguments {
    /// The kubeconfig of the hub cluster: where credentials of children are, and the APIService [default: the service account
    /// of the pod].
    #[arg(long, env = "UMBRA_KUBECONFIG", value_name = "FILE", help_heading = "Hub cluster")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Let kubeconfigs in Secrets of umbra-system run exec plugins, and read files with tokens, where umbra runs. Whoever may
    /// write those Secrets then runs what they like there.
    #[arg(long, help_heading = "Hub cluster")]
    pub(super) allow_exec_credentials: bool,
    /// The APIService that the hub cluster reaches this server by; its caBundle is kept up to date unless --tls-cert-file is
    /// given.
    #[arg(
        long,
        env = "UMBRA_API_SERVICE",
        default_value = "v1alpha1.umbra.dev",
        value_name = "NAME",
        help_heading = "Hub cluster"
    )]
    pub(super) api_service: String,
    /// Where this server keeps what is its own: the embedded store, unless objects are stored in etcd.
    #[arg(
        long,
        env = "UMBRA_DATA_DIR",
        default_value = "/var/lib/umbra",
        value_name = "DIR",
        help_heading = "Hub cluster"
    )]
    pub(super) data_dir: PathBuf,
    /// What this replica is called in the leases by which replicas on one etcd divide the work [default: the host's name].
    #[arg(long, env = "UMBRA_REPLICA_NAME", value_name = "NAME", help_heading = "Hub cluster")]
    pub(super) replica_name: Option<String>,
    /// Where other replicas on the same etcd reach this one, to use the tunnels that end here: the address of the pod
    /// [default: --bind-address, where it is one].
    #[arg(
        long,
        env = "UMBRA_ADVERTISE_ADDRESS",
        value_name = "ADDRESS",
        help_heading = "Hub cluster"
    )]
    pub(super) advertise_address: Option<IpAddr>,
    #[command(flatten)]
    pub(super) serving: ServingArguments,
    #[command(flatten)]
    pub(super) limits: LimitArguments,
    #[command(flatten)]
    pub(super) controllers: ControllerArguments,
    #[command(flatten)]
    pub(super) authentication: AuthenticationArguments,
    #[command(flatten)]
    pub(super) authorization: AuthorizationArguments,
    #[command(flatten)]
    pub(super) tunnels: TunnelArguments,
    #[command(flatten)]
    pub(super) audit: AuditArguments,
    // The last, because its heading is that of all flags after it.
    #[command(flatten)]
    pub(super) storage: StorageArguments,
}

/// Where and how to listen.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Serving")]
pub(super) struct ServingArguments {
    /// The address to listen on; 0.0.0.0 is all of this machine, and :: all including those of IPv6.
    #[arg(long, env = "UMBRA_BIND_ADDRESS", default_value = "0.0.0.0", value_name = "ADDRESS")]
    pub(super) bind_address: IpAddr,
    /// The port to listen on, with TLS.
    #[arg(
        long,
        env = "UMBRA_SECURE_PORT",
        default_value_t = 6443,
        value_name = "PORT",
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(super) secure_port: u16,
    /// The serving certificate and what leads to its authority, as PEM; read again when it changes [default: one of an
    /// authority of the hub's own, which is kept in the Secret umbra-system/umbra-serving and renewed by itself].
    #[arg(long, env = "UMBRA_TLS_CERT_FILE", value_name = "FILE")]
    pub(super) tls_cert_file: Option<PathBuf>,
    /// The key of --tls-cert-file, as PEM.
    #[arg(long, env = "UMBRA_TLS_PRIVATE_KEY_FILE", value_name = "FILE")]
    pub(super) tls_private_key_file: Option<PathBuf>,
    /// The oldest version of TLS that is spoken: VersionTLS12 or VersionTLS13.
    #[arg(
        long,
        env = "UMBRA_TLS_MIN_VERSION",
        default_value = "VersionTLS12",
        value_name = "VERSION",
        value_parser = tls_version
    )]
    pub(super) tls_min_version: TlsVersion,
    /// The cipher suites of TLS 1.2 that may be used, by their names at IANA [default: all that are safe]. Those of TLS 1.3 are
    /// always offered.
    #[arg(long, env = "UMBRA_TLS_CIPHER_SUITES", value_delimiter = ',', value_name = "NAMES")]
    pub(super) tls_cipher_suites: Option<Vec<String>>,
    /// Speak HTTP/1.1 alone.
    #[arg(long, env = "UMBRA_DISABLE_HTTP2_SERVING")]
    pub(super) disable_http2_serving: bool,
    /// How long requests still come in after readiness fails: as long as a Service takes to send them elsewhere.
    #[arg(
        long,
        env = "UMBRA_SHUTDOWN_DELAY_DURATION",
        default_value = "0s",
        value_name = "DURATION",
        value_parser = duration
    )]
    pub(super) shutdown_delay_duration: Duration,
}

/// What requests may take.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArguments {
    /// How many short reads are served at a time.
    #[arg(
        long,
        env = "UMBRA_MAX_REQUESTS_INFLIGHT",
        default_value_t = 400,
        value_name = "NUMBER"
    )]
    pub(super) max_requests_inflight: usize,
    /// How many short writes are served at a time.
    #[arg(
        long,
        env = "UMBRA_MAX_MUTATING_REQUESTS_INFLIGHT",
        default_value_t = 200,
        value_name = "NUMBER"
    )]
    pub(super) max_mutating_requests_inflight: usize,
    /// When a short request has to be answered; watches, logs and connections are none.
    #[arg(
        long,
        env = "UMBRA_REQUEST_TIMEOUT",
        default_value = "60s",
        value_name = "DURATION",
        value_parser = duration
    )]
    pub(super) request_timeout: Duration,
    /// After how many seconds the server ends a watch whose client names no time, up to twice as many.
    #[arg(
        long,
        env = "UMBRA_MIN_REQUEST_TIMEOUT",
        default_value_t = 1800,
        value_name = "SECONDS"
    )]
    pub(super) min_request_timeout: u64,
    /// How large an object may be that is written to the hub, a view or a fleet, in bytes; --etcd-servers have a limit of their
    /// own.
    #[arg(
        long,
        env = "UMBRA_MAX_REQUEST_BODY_BYTES",
        default_value_t = 3 * 1024 * 1024,
        value_name = "BYTES"
    )]
    pub(super) max_request_body_bytes: usize,
    /// How many requests and watches one HTTP/2 connection takes at a time [default: 1000].
    #[arg(long, env = "UMBRA_HTTP2_MAX_STREAMS_PER_CONNECTION", value_name = "NUMBER")]
    pub(super) http2_max_streams_per_connection: Option<u32>,
    /// How likely a request of HTTP/2 makes its client open another connection, so that load spreads over replicas; 0 to 0.02
    /// [default: 0, because a kube-apiserver in front does not always bear it].
    #[arg(long, env = "UMBRA_GOAWAY_CHANCE", value_name = "CHANCE")]
    pub(super) goaway_chance: Option<f64>,
}

/// What is copied, and who does the work.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Controllers")]
pub(super) struct ControllerArguments {
    /// What is copied of every child, beside what is by default and what its ManagedCluster includes: `secrets`,
    /// `deployments.apps`, `*.apps`, `*`.
    #[arg(long, env = "UMBRA_SYNC_INCLUDE", value_delimiter = ',', value_name = "PATTERNS")]
    pub(super) sync_include: Vec<String>,
    /// What is copied of no child, whatever its ManagedCluster or --sync-include say.
    #[arg(long, env = "UMBRA_SYNC_EXCLUDE", value_delimiter = ',', value_name = "PATTERNS")]
    pub(super) sync_exclude: Vec<String>,
    /// Only answer requests; copying children and planning and dispatching fleets is left to other replicas on the same etcd.
    #[arg(long, env = "UMBRA_SERVE_ONLY")]
    pub(super) serve_only: bool,
}

/// Who clients are.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Authentication")]
pub(super) struct AuthenticationArguments {
    /// A kubeconfig of the hub cluster that may create TokenReviews and read
    /// kube-system/extension-apiserver-authentication [default: as --kubeconfig].
    #[arg(long, env = "UMBRA_AUTHENTICATION_KUBECONFIG", value_name = "FILE")]
    pub(super) authentication_kubeconfig: Option<PathBuf>,
    /// Do not take from the hub cluster whose client certificates count; needs --requestheader-client-ca-file.
    #[arg(long, env = "UMBRA_AUTHENTICATION_SKIP_LOOKUP")]
    pub(super) authentication_skip_lookup: bool,
    /// Start also where the hub cluster does not say whose client certificates count; nobody is known by one until it does.
    #[arg(long, env = "UMBRA_AUTHENTICATION_TOLERATE_LOOKUP_FAILURE")]
    pub(super) authentication_tolerate_lookup_failure: bool,
    /// How long the hub's word on a token counts.
    #[arg(
        long,
        env = "UMBRA_AUTHENTICATION_TOKEN_WEBHOOK_CACHE_TTL",
        default_value = "10s",
        value_name = "DURATION",
        value_parser = duration
    )]
    pub(super) authentication_token_webhook_cache_ttl: Duration,
    /// The authorities whose client certificates name users, as PEM [default: those of the hub cluster].
    #[arg(long, env = "UMBRA_CLIENT_CA_FILE", value_name = "FILE")]
    pub(super) client_ca_file: Option<PathBuf>,
    /// The authorities of front proxies, as PEM [default: those of the hub cluster]. With it count the following flags, and
    /// not what the hub cluster says of them.
    #[arg(long, env = "UMBRA_REQUESTHEADER_CLIENT_CA_FILE", value_name = "FILE")]
    pub(super) requestheader_client_ca_file: Option<PathBuf>,
    /// The common names that front proxies may have; without, all of their authorities.
    #[arg(
        long,
        env = "UMBRA_REQUESTHEADER_ALLOWED_NAMES",
        value_delimiter = ',',
        value_name = "NAMES"
    )]
    pub(super) requestheader_allowed_names: Option<Vec<String>>,
    /// The headers that name the user [default: X-Remote-User].
    #[arg(
        long,
        env = "UMBRA_REQUESTHEADER_USERNAME_HEADERS",
        value_delimiter = ',',
        value_name = "HEADERS"
    )]
    pub(super) requestheader_username_headers: Option<Vec<String>>,
    /// The headers that give the user's UID, such as X-Remote-Uid [default: none].
    #[arg(
        long,
        env = "UMBRA_REQUESTHEADER_UID_HEADERS",
        value_delimiter = ',',
        value_name = "HEADERS"
    )]
    pub(super) requestheader_uid_headers: Option<Vec<String>>,
    /// The headers that give the user's groups [default: X-Remote-Group].
    #[arg(
        long,
        env = "UMBRA_REQUESTHEADER_GROUP_HEADERS",
        value_delimiter = ',',
        value_name = "HEADERS"
    )]
    pub(super) requestheader_group_headers: Option<Vec<String>>,
    /// How headers with more attributes of the user begin [default: X-Remote-Extra-].
    #[arg(
        long,
        env = "UMBRA_REQUESTHEADER_EXTRA_HEADERS_PREFIX",
        value_delimiter = ',',
        value_name = "PREFIXES"
    )]
    pub(super) requestheader_extra_headers_prefix: Option<Vec<String>>,
}

/// What clients may do.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Authorization")]
pub(super) struct AuthorizationArguments {
    /// A kubeconfig of the hub cluster that may create SubjectAccessReviews [default: as --kubeconfig].
    #[arg(long, env = "UMBRA_AUTHORIZATION_KUBECONFIG", value_name = "FILE")]
    pub(super) authorization_kubeconfig: Option<PathBuf>,
    /// Paths that everybody may ask for, as far as they have an identity; `*` at the end stands for what follows.
    #[arg(
        long,
        env = "UMBRA_AUTHORIZATION_ALWAYS_ALLOW_PATHS",
        value_delimiter = ',',
        default_value = "/healthz,/readyz,/livez",
        value_name = "PATHS"
    )]
    pub(super) authorization_always_allow_paths: Vec<String>,
    /// How long a permission counts that the hub cluster has given.
    #[arg(
        long,
        env = "UMBRA_AUTHORIZATION_WEBHOOK_CACHE_AUTHORIZED_TTL",
        default_value = "10s",
        value_name = "DURATION",
        value_parser = duration
    )]
    pub(super) authorization_webhook_cache_authorized_ttl: Duration,
    /// How long a refusal of the hub cluster counts.
    #[arg(
        long,
        env = "UMBRA_AUTHORIZATION_WEBHOOK_CACHE_UNAUTHORIZED_TTL",
        default_value = "10s",
        value_name = "DURATION",
        value_parser = duration
    )]
    pub(super) authorization_webhook_cache_unauthorized_ttl: Duration,
}

fn tls_version(text: &str) -> Result<TlsVersion, String> {
    match text {
        "VersionTLS12" => Ok(TlsVersion::Tls12),
        "VersionTLS13" => Ok(TlsVersion::Tls13),
        _ => Err("it can be VersionTLS12 or VersionTLS13".to_owned()),
    }
}
