//! The authority of agents, which all replicas share: a Secret of the hub cluster, as that of the serving certificate.

use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_registry::hub::agents::AgentAuthority;

use super::authority::{AGENTS, SharedAuthority};

/// How often it is looked whether the authority was renewed, or its Secret deleted, which takes the certificates of all agents
/// back. The next authority is published for much longer before it signs.
const PERIOD: Duration = Duration::from_secs(60);

/// The authority, whose certificates last for `lifetime`, kept up to date in a task of `tracker` until `cancel`.
///
/// # Errors
/// Where the hub cluster does not let this server read and write the Secret.
pub(super) async fn authority(
    hub: &kube::Client,
    lifetime: Duration,
    tracker: &TaskTracker,
    cancel: CancellationToken,
) -> Result<AgentAuthority> {
    let shared = SharedAuthority::load(hub, &AGENTS).await?;
    let authority = AgentAuthority::new(shared.authority, &shared.trusted, lifetime)?;
    let (hub, kept) = (hub.clone(), authority.clone());
    let following = async move {
        loop {
            tokio::time::sleep(PERIOD.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
            match SharedAuthority::load(&hub, &AGENTS).await {
                Ok(shared) => {
                    if let Err(error) = kept.replace(shared.authority, &shared.trusted) {
                        tracing::warn!(%error, "the authority of agents is not kept up to date");
                    }
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "the authority of agents is not kept up to date");
                }
            }
        }
    };
    tracker.spawn(async move { cancel.run_until_cancelled(following).await });
    Ok(authority)
}
