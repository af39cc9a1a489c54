//! The flags of `umbra agent`.

use std::path::PathBuf;

use clap::Args;
use url::Url;

/// What `umbra agent` takes. Each flag can be given as a variable of the environment, too.
#[derive(Args, Debug, Clone)]
pub(crate) struct AgentArguments {
    /// The hub's own address, not that of a kube-apiserver in front of it.
    #[arg(long, env = "UMBRA_HUB", value_name = "URL")]
    pub(super) hub: Url,
    /// What the cluster is called on the hub.
    #[arg(long, env = "UMBRA_CLUSTER", value_name = "NAME")]
    pub(super) cluster: String,
    /// The authorities that the hub's certificate is verified against, as PEM, beside those that the hub has said with the present
    /// certificate; read again when it changes [default: those of this machine alone].
    #[arg(long, env = "UMBRA_HUB_CA_FILE", value_name = "FILE")]
    pub(super) hub_ca_file: Option<PathBuf>,
    /// The name that the hub's certificate has to be for, where it is not the host of --hub.
    #[arg(long, env = "UMBRA_HUB_TLS_SERVER_NAME", value_name = "NAME")]
    pub(super) hub_tls_server_name: Option<String>,
    /// The proxy on the way to the hub.
    #[arg(long, env = "HTTPS_PROXY", value_name = "URL", hide_env_values = true)]
    pub(super) proxy_url: Option<Url>,
    /// A token with which the agent may ask to join: the bootstrap token of `umbra join NAME --tunnel`, or one of a user of the
    /// hub who may create ClusterJoinRequests. Not needed once the agent has joined.
    #[arg(long, env = "UMBRA_BOOTSTRAP_TOKEN_FILE", value_name = "FILE")]
    pub(super) bootstrap_token_file: Option<PathBuf>,
    /// The kubeconfig of the agent's own cluster [default: the service account of the pod].
    #[arg(long, env = "UMBRA_KUBECONFIG", value_name = "FILE")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// The context of --kubeconfig [default: its current one].
    #[arg(long, env = "UMBRA_CONTEXT", value_name = "CONTEXT", requires = "kubeconfig")]
    pub(super) context: Option<String>,
    /// The Secret of the agent's own cluster that keeps key and certificate, for all agents of the cluster; it is made where it
    /// is not there.
    #[arg(
        long,
        env = "UMBRA_STATE_SECRET",
        value_name = "NAMESPACE/NAME",
        conflicts_with = "state_dir"
    )]
    pub(super) state_secret: Option<String>,
    /// The directory that keeps key and certificate. Without this and --state-secret each start needs a new token.
    #[arg(long, env = "UMBRA_STATE_DIR", value_name = "DIR")]
    pub(super) state_dir: Option<PathBuf>,
    /// Answer /livez (the agent's loop turns) and /readyz (a tunnel is up) at this port of all addresses, over plain HTTP
    /// [default: nowhere].
    #[arg(long, env = "UMBRA_HEALTH_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) health_port: Option<u16>,
}
