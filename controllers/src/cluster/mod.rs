//! ManagedClusters: connects each one, copies it, and says in its status how that goes.
//!
//! The [`ClusterController`] is level-triggered over two things: the ManagedClusters of the hub, and the Secrets with
//! their credentials. One worker runs for each cluster and is told whenever either changes; what it finds there is all it
//! acts on, so it does not matter what it has missed.
//!
//! A worker takes these steps, and begins again when what it depends on changes:
//! 1. put the finalizer [`FINALIZER`] on the ManagedCluster, so that its copies do not outlive it;
//! 2. make a connection of the spec and the Secret;
//! 3. ask the cluster who it is: the UID of its namespace `kube-system`. Where that is another one than
//!    `status.uid` says, nothing is copied from it and nothing is passed on to it;
//! 4. add it to [`Children`], which probes it and through which users' requests go, and copy it ([`ClusterCopy`]);
//! 5. write what comes of it into the status, and Events about what has changed.
//!
//! Each connection of a child says which cluster it leads to before it carries anything, so neither a request nor a copy gets to
//! another cluster that comes to answer at the same address.
//!
//! # Replicas
//! Every replica connects every cluster, because every replica passes requests on and judges by its own probes whether that
//! is possible; where it is not connected itself, it says what the status says. The one that holds the lease of the cluster
//! ([`crate::lease`]) puts the finalizer, copies, erases and writes the status; the others follow the status. Whoever gets
//! the lease goes on copying where the last holder stopped.
//!
//! Deliberate limits:
//! * Credentials are taken from the namespace `umbra-system` alone, so that who may register a cluster cannot make the
//!   hub use a Secret of somebody else. A kubeconfig there may not name files, which would be the hub's own, nor an exec
//!   plugin, unless [`LocalCredentials`] says so: who may write Secrets in that namespace may then run programs on the hub.
//! * A credential is sent to the server that its kubeconfig names and nowhere else, whatever the spec of a ManagedCluster says.
//! * Another credential for the same connection is taken once it has proved to work; until then the one before is used, so that
//!   a Secret that was renewed wrongly drops no traffic. Taking the Secret away ends the connection.
//!
//! [`ClusterCopy`]: crate::copy::ClusterCopy

mod connection;
mod controller;
mod defaults;
mod endpoints;
mod erase;
mod events;
mod facts;
mod kubeconfigs;
mod reporter;
mod roots;
mod session;
mod status;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use umbra_api::cluster::Sync;
use umbra_child::Children;
use umbra_child::tunnel::Tunnels;
use umbra_registry::child_documents::ChildDocuments;
use umbra_registry::directory::Directory;
use umbra_registry::mirror::Mirror;
use umbra_storage::Store;

pub use connection::LocalCredentials;
pub use controller::ClusterController;
pub use defaults::{ensure_defaults, ensure_roots};

/// Keeps a ManagedCluster until nothing of it is left on the hub.
pub const FINALIZER: &str = "umbra.dev/copies";

/// As whom the controller writes.
const FIELD_MANAGER: &str = "umbra-cluster-controller";

/// What the controller works with.
#[derive(Clone)]
pub struct ClusterControllerParts {
    /// Where copies are written.
    pub store: Arc<dyn Store>,
    /// The ManagedClusters of the hub. Whoever made the mirror follows it.
    pub directory: Arc<Mirror<Directory>>,
    /// Where connected clusters are added. Whoever made the set closes it.
    pub children: Children,
    /// The tunnels of clusters whose agents open the connection; without it, such clusters are refused in their status.
    pub tunnels: Option<Tunnels>,
    /// Forgets clusters that leave.
    pub documents: Arc<ChildDocuments>,
    /// What is copied of every cluster, and what of none, beside what their own specs say ([`crate::copy::everywhere`]).
    pub sync: Sync,
    /// The hub root, as a user who may write ManagedClusters and, unless [`ClusterController::with_credentials`] says otherwise,
    /// read Secrets.
    pub client: kube::Client,
}

impl std::fmt::Debug for ClusterControllerParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterControllerParts").finish_non_exhaustive()
    }
}
