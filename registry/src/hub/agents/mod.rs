//! The agents of clusters that are reached through tunnels: who they are, what they may, and their tunnels.
//!
//! Three kinds of machines talk to the hub about tunnels. None of them is judged by RBAC; each may do exactly this:
//!
//! | who | how it proves it | what it may |
//! |---|---|---|
//! | bootstrapper | the bootstrap token of a cluster | create a ClusterJoinRequest for that cluster, and read it |
//! | agent | a certificate of the agents' authority | open tunnels of its cluster; read its own ClusterJoinRequest and replace the key in it |
//! | replica | a certificate of the agents' authority | open streams of tunnels that end here |
//!
//! Who is a machine says [`umbra_apimachinery::user::UserInfo::machine`], which [`AgentAuthenticator`] sets and nobody else: names and
//! groups, which others can give somebody, make nobody one. What a machine may write is small ([`AdmitJoinRequests`]) and comes no
//! faster than is needed; of tunnels it has no more than there is room for ([`Tunnels::reserve`]).
//!
//! A certificate names the agent's cluster, the UID of the ManagedCluster, and the ClusterJoinRequest it was issued for with
//! its UID. It counts only while all of these are there, the mode is `Tunnel`, the request is approved and not denied, and the
//! authority that issued it is trusted.
//! That is asked for every request and, while a tunnel lives, at every change: so whatever takes one of them away cuts the
//! tunnel, and what comes in its place under the same name lets no old certificate back in.

mod admission;
mod authenticate;
mod authority;
mod gate;
mod identity;
#[cfg(test)]
mod tests;
mod throttle;
mod tunnel;

use std::sync::Arc;

use umbra_child::tunnel::Tunnels;

use crate::directory::Directory;
use crate::mirror::Mirror;

pub use admission::AdmitJoinRequests;
pub use authenticate::AgentAuthenticator;
pub use authority::{AgentAuthority, HubTrust};
pub(super) use gate::AgentGate;
pub use identity::{AgentIdentity, Machine};
pub(super) use tunnel::OpenTunnels;

/// What serves agents.
#[derive(Debug, Clone)]
pub struct Agents {
    /// The clusters, and the requests of their agents.
    pub directory: Arc<Mirror<Directory>>,
    /// The tunnels that end here.
    pub tunnels: Tunnels,
    /// Whose certificates count.
    pub authority: AgentAuthority,
}
