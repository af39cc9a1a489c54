//! What machines may do on the hub root. Everybody else is judged as without this.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;
use umbra_apimachinery::discovery::Discovery;
use umbra_apimachinery::gvk::GroupVersionResource;
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::UserInfo;

use super::Machine;
use super::throttle::Throttle;
use crate::directory::Directory;
use crate::generic::authorization::{attributes, forbidden};
use crate::mirror::Mirror;
use crate::request::RequestContext;
use crate::resource::Resource;
use crate::root::{Api, OpenApi};

/// The hub root, where machines have their own permissions and no others.
pub(in super::super) struct AgentGate {
    api: Arc<dyn Api>,
    directory: Arc<Mirror<Directory>>,
    writes: Throttle,
}

impl AgentGate {
    pub(in super::super) fn new(api: Arc<dyn Api>, directory: Arc<Mirror<Directory>>) -> Self {
        Self {
            api,
            directory,
            writes: Throttle::default(),
        }
    }

    /// Refuses writes of a machine that come too often.
    fn throttle(&self, machine: &Machine, info: &RequestInfo) -> Result<(), Status> {
        if info.verb == "get" {
            return Ok(());
        }
        let identity = match machine {
            Machine::Agent(agent) => format!("agent/{}", agent.request_uid),
            Machine::Bootstrapper { cluster, .. } => format!("bootstrapper/{cluster}"),
            Machine::Replica => return Ok(()),
        };
        self.writes.take(&identity, Instant::now()).map_err(|wait| {
            let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(1);
            let message = format!("this agent writes too often; try again in {seconds} s");
            Status::failure(Reason::TooManyRequests, message).retry_after(seconds)
        })
    }
}

/// Whether a machine may do it, and where not, why.
pub(super) fn decide(machine: &Machine, info: &RequestInfo, directory: &Directory) -> Result<(), String> {
    let asked = (info.verb.as_str(), info.resource.as_str(), info.subresource.as_str());
    let own_group = info.is_resource_request && info.group == umbra_api::GROUP;
    let request = directory.join_requests.get(&info.name);
    let allowed = own_group
        && match (machine, asked) {
            (Machine::Agent(agent), ("get", "managedclusters", "tunnel")) => info.name == agent.cluster,
            (Machine::Agent(agent), ("get" | "patch", "clusterjoinrequests", "")) => info.name == agent.request,
            (Machine::Replica, ("get", "managedclusters", "tunnel")) => true,
            (Machine::Bootstrapper { .. }, ("create", "clusterjoinrequests", "")) => true,
            (Machine::Bootstrapper { cluster, .. }, ("get", "clusterjoinrequests", "")) => {
                // Where there is none, or none yet, 404 says no more than that.
                request.is_none_or(|request| request.spec.cluster_name == *cluster)
            }
            _ => false,
        };
    match machine {
        Machine::Agent(agent) if allowed => agent.fault(directory).map_or(Ok(()), Err),
        _ if allowed => Ok(()),
        _ => Err(
            "agents may do nothing but join, renew their certificate and open tunnels of their own cluster".to_owned(),
        ),
    }
}

#[async_trait]
impl Api for AgentGate {
    async fn authorize(&self, user: &UserInfo, info: &RequestInfo) -> Result<(), Status> {
        match Machine::of(user)? {
            None => self.api.authorize(user, info).await,
            Some(machine) => {
                decide(&machine, info, &self.directory.state())
                    .map_err(|reason| forbidden(user, &attributes(info), &reason))?;
                self.throttle(&machine, info)
            }
        }
    }

    fn discovery(&self) -> Arc<Discovery> {
        self.api.discovery()
    }

    fn resource(&self, resource: &GroupVersionResource) -> Option<Arc<dyn Resource>> {
        self.api.resource(resource)
    }

    fn openapi(&self) -> Arc<dyn OpenApi> {
        self.api.openapi()
    }

    async fn review(&self, context: &RequestContext, body: &Bytes) -> Option<Result<Bytes, Status>> {
        self.api.review(context, body).await
    }

    fn version(&self) -> Bytes {
        self.api.version()
    }
}
