//! How the hub cluster is reached.

use std::path::Path;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Clients of the hub cluster, each with its own permissions.
pub(super) struct Clients {
    /// Reads credentials of children and the APIService.
    pub(super) hub: kube::Client,
    /// Reviews tokens, and reads whose certificates count.
    pub(super) authentication: kube::Client,
    /// Reviews permissions.
    pub(super) authorization: kube::Client,
}

impl Clients {
    /// Clients of these kubeconfigs, or of the pod's service account; adds what is wrong with them to `faults`. Nothing is
    /// asked yet.
    pub(super) async fn new(
        hub: Option<&Path>,
        authentication: Option<&Path>,
        authorization: Option<&Path>,
        faults: &mut Vec<String>,
    ) -> Option<Self> {
        let common = match hub {
            Some(path) => config("--kubeconfig", path, faults).await,
            None => in_cluster(faults),
        };
        let authentication = match authentication {
            Some(path) => config("--authentication-kubeconfig", path, faults).await,
            None => common.clone(),
        };
        let authorization = match authorization {
            Some(path) => config("--authorization-kubeconfig", path, faults).await,
            None => common.clone(),
        };
        Some(Self {
            hub: client("the hub cluster", common?, faults)?,
            authentication: client("authentication", reviewing(authentication?), faults)?,
            authorization: client("authorization", reviewing(authorization?), faults)?,
        })
    }
}

/// Whoever reviews tries again by itself, within a deadline.
fn reviewing(mut config: Config) -> Config {
    config.default_retry = false;
    config
}

async fn config(flag: &str, path: &Path, faults: &mut Vec<String>) -> Option<Config> {
    let read = match Kubeconfig::read_from(path) {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await,
        Err(error) => Err(error),
    };
    read.map_err(|error| {
        let error = anyhow::Error::new(error);
        faults.push(format!("{flag} {} cannot be used: {error:#}", path.display()));
    })
    .ok()
}

fn in_cluster(faults: &mut Vec<String>) -> Option<Config> {
    Config::incluster()
        .map_err(|error| {
            let error = anyhow::Error::new(error);
            faults.push(format!(
                "--kubeconfig is missing, and this is no pod with a service account: {error:#}"
            ));
        })
        .ok()
}

fn client(what: &str, config: Config, faults: &mut Vec<String>) -> Option<kube::Client> {
    kube::Client::try_from(config)
        .map_err(|error| {
            let error = anyhow::Error::new(error);
            faults.push(format!("no client for {what}: {error:#}"));
        })
        .ok()
}
