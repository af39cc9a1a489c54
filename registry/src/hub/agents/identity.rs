//! Who a machine is, as its user says, and whether that still counts.

use umbra_api::cluster::{ConnectionMode, ManagedCluster};
use umbra_api::join_request::{AGENTS, ClusterJoinRequest, agent_user, bootstrap_user, condition};
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::{MachineCredential, UserInfo};

use crate::directory::Directory;

/// An agent, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentIdentity {
    /// The name of the ManagedCluster.
    pub cluster: String,
    /// Its UID.
    pub cluster_uid: String,
    /// The name of the ClusterJoinRequest.
    pub request: String,
    /// Its UID.
    pub request_uid: String,
}

/// Who is no person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Machine {
    /// An agent with a certificate.
    Agent(AgentIdentity),
    /// Who presents the bootstrap token of a cluster.
    Bootstrapper {
        /// The name of the ManagedCluster.
        cluster: String,
        /// The token's SHA-256, in hexadecimal.
        token: String,
    },
    /// Another replica of this hub.
    Replica,
}

impl AgentIdentity {
    /// The UID of the user: what makes a certificate one of this cluster and this request.
    #[must_use]
    pub fn user_uid(&self) -> String {
        format!("{}/{}/{}", self.cluster_uid, self.request, self.request_uid)
    }

    /// The user, as its certificate is issued.
    #[must_use]
    pub fn user(&self) -> UserInfo {
        let mut user = UserInfo::new(agent_user(&self.cluster), [AGENTS]);
        user.uid = self.user_uid();
        user
    }

    /// Why the certificate does not count any more; `None` where it does.
    #[must_use]
    pub fn fault(&self, directory: &Directory) -> Option<String> {
        let name = &self.cluster;
        let Some(cluster) = directory.clusters.get(name) else {
            return Some(format!("there is no ManagedCluster {name}"));
        };
        if let Some(fault) = cluster_fault(cluster) {
            return Some(fault);
        }
        if cluster.metadata.uid.as_deref() != Some(&self.cluster_uid) {
            return Some(format!("the certificate is for an earlier ManagedCluster {name}"));
        }
        let request = directory.join_requests.get(&self.request);
        let same = |request: &ClusterJoinRequest| {
            request.metadata.uid.as_deref() == Some(&self.request_uid)
                && request.metadata.deletion_timestamp.is_none()
                && request.spec.cluster_name == *name
        };
        match request.filter(|request| same(request)) {
            None => Some(format!("the ClusterJoinRequest {} has been deleted", self.request)),
            Some(request) if request.has(condition::DENIED) || !request.has(condition::APPROVED) => {
                Some(format!("the ClusterJoinRequest {} is not approved", self.request))
            }
            Some(_) => None,
        }
    }
}

/// Why no agent may have tunnels of this cluster.
pub(super) fn cluster_fault(cluster: &ManagedCluster) -> Option<String> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    if cluster.metadata.deletion_timestamp.is_some() {
        return Some(format!("the ManagedCluster {name} is being deleted"));
    }
    if cluster.spec.connection.mode != ConnectionMode::Tunnel {
        return Some(format!("spec.connection.mode of ManagedCluster {name} is not Tunnel"));
    }
    None
}

impl Machine {
    /// The machine that `user` is; `None` where it is none. What it has proved itself with decides, and no name or group.
    ///
    /// # Errors
    /// 403 where it is one by its credential and its name is not that of one.
    pub fn of(user: &UserInfo) -> Result<Option<Self>, Status> {
        let machine = match &user.machine {
            None => return Ok(None),
            Some(MachineCredential::Agent { .. }) => agent(user).map(Self::Agent),
            Some(MachineCredential::Replica) => Some(Self::Replica),
            Some(MachineCredential::BootstrapToken { hash }) => {
                let cluster = user.name.strip_prefix(&bootstrap_user(""));
                cluster.map(|cluster| Self::Bootstrapper {
                    cluster: cluster.to_owned(),
                    token: hash.clone(),
                })
            }
        };
        machine.map(Some).ok_or_else(|| {
            let message = format!("the name of User \"{}\" is none of a machine of Umbra", user.name);
            Status::failure(Reason::Forbidden, message)
        })
    }
}

fn agent(user: &UserInfo) -> Option<AgentIdentity> {
    let cluster = user.name.strip_prefix(&agent_user(""))?;
    let mut parts = user.uid.split('/');
    let (cluster_uid, request, request_uid) = (parts.next()?, parts.next()?, parts.next()?);
    let complete = parts.next().is_none()
        && [cluster, cluster_uid, request, request_uid]
            .iter()
            .all(|one| !one.is_empty());
    complete.then(|| AgentIdentity {
        cluster: cluster.to_owned(),
        cluster_uid: cluster_uid.to_owned(),
        request: request.to_owned(),
        request_uid: request_uid.to_owned(),
    })
}
