//! What a hub has for the agents of clusters that are reached through tunnels.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use umbra_auth::certificates::CertificateAuthority;
use umbra_controllers::join::JoinController;
use umbra_registry::hub::agents::{AgentAuthenticator, AgentAuthority, Agents, HubTrust};

use super::base::{Base, Shared};
use crate::duration::duration;
use crate::up::data_dir::DataDir;

/// What agents of tunnels get.
#[derive(Args, Debug, Clone)]
#[command(next_help_heading = "Tunnels")]
pub(crate) struct TunnelArguments {
    /// How long the certificate of an agent lasts. It is renewed after some third of that time, or after a week; the rest is for a
    /// hub that is away, because an agent whose certificate has expired needs another token. How long it lasts says nothing of how
    /// soon it can be taken back: that is at once, by its ClusterJoinRequest.
    #[arg(
        long,
        env = "UMBRA_AGENT_CERTIFICATE_LIFETIME",
        default_value = "168h",
        value_name = "DURATION",
        value_parser = lifetime
    )]
    pub(crate) agent_certificate_lifetime: Duration,
}

/// Less would be spent on renewing.
const SHORTEST: Duration = Duration::from_secs(30);

fn lifetime(text: &str) -> Result<Duration, String> {
    let lifetime = duration(text)?;
    if lifetime < SHORTEST {
        return Err(format!("it has to be {} s or more", SHORTEST.as_secs()));
    }
    Ok(lifetime)
}

/// How long the authority of a standalone hub lasts: as long as its other one.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// The authority of the agents of a standalone hub, kept in its data directory.
///
/// # Errors
/// Where it cannot be read or made.
pub(crate) fn authority(data: &DataDir, lifetime: Duration) -> Result<AgentAuthority> {
    let folder = data.agents();
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let authority = CertificateAuthority::load_or_create(&folder, "umbra-agents", AUTHORITY_LIFETIME)
        .with_context(|| format!("cannot read the authority of agents in {}", folder.display()))?;
    let trusted = authority.certificate_pem().as_bytes().to_vec();
    Ok(AgentAuthority::new(authority, &trusted, lifetime)?)
}

/// What serves agents in the hub root.
pub(crate) fn agents(shared: &Shared, authority: &AgentAuthority) -> Agents {
    Agents {
        directory: Arc::clone(&shared.directory),
        tunnels: shared.tunnels.clone(),
        authority: authority.clone(),
    }
}

/// What knows agents, before anything else is asked about a request.
pub(crate) fn authenticator(shared: &Shared, authority: &AgentAuthority) -> Arc<AgentAuthenticator> {
    let directory = Arc::clone(&shared.directory);
    Arc::new(AgentAuthenticator::new(authority.bundle().clone(), directory))
}

/// Decides about ClusterJoinRequests and signs, until the hub ends. Agents verify the hub by `trust`.
pub(crate) fn decide(base: &Base, shared: &Shared, authority: AgentAuthority, trust: HubTrust, client: kube::Client) {
    let controller = JoinController::new(Arc::clone(&shared.directory), authority, trust, client);
    base.tracker.spawn(controller.run(base.cancel.clone()));
}
