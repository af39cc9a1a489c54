//! `managedclusters/{cluster}/tunnel`: where agents open tunnels, and other replicas streams of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::{MachineCredential, UserInfo};
use umbra_child::tunnel::{PROTOCOL, STREAM_PROTOCOL, Tunnels};
use umbra_child::{Io, empty, upgrade};

use super::{AgentAuthority, AgentIdentity, Agents, Machine};
use crate::directory::Directory;
use crate::generic::subresource::Connector;
use crate::mirror::Mirror;
use crate::request::RequestContext;
use crate::resource::Body;

/// How long the connection may take to switch protocols after the 101.
const SWITCH: Duration = Duration::from_secs(10);
/// After how many seconds an agent may try again for which there is no room: a tunnel whose agent is gone is noticed within 15.
const FULL_RETRY: u32 = 15;
/// What is copied at once between a replica and a tunnel, in bytes: some frames of either.
const BUFFER: usize = 64 << 10;

/// Answers agents and replicas.
pub(in super::super) struct OpenTunnels {
    agents: Agents,
    tracker: TaskTracker,
    cancelled: CancellationToken,
}

impl OpenTunnels {
    pub(in super::super) fn new(agents: Agents, tracker: TaskTracker, cancelled: CancellationToken) -> Self {
        Self {
            agents,
            tracker,
            cancelled,
        }
    }

    fn open_tunnel(&self, agent: AgentIdentity, user: &UserInfo, upgraded: OnUpgrade) -> Result<(), Status> {
        let tunnels = &self.agents.tunnels;
        let slot = tunnels
            .reserve(&agent.cluster, &agent.request_uid)
            .map_err(|full| Status::failure(Reason::TooManyRequests, full.to_string()).retry_after(FULL_RETRY))?;
        let Some(MachineCredential::Agent { certificate, expires }) = user.machine.clone() else {
            return Err(Status::internal("an agent without a certificate"));
        };
        let validity = Validity {
            agent,
            certificate,
            expires,
            directory: Arc::clone(&self.agents.directory),
            authority: self.agents.authority.clone(),
        };
        tunnels.hold(slot, switched(upgraded), validity.ends());
        Ok(())
    }

    async fn open_stream(&self, cluster: &str, upgraded: OnUpgrade) -> Result<(), Status> {
        let unavailable = |message: String| Status::failure(Reason::ServiceUnavailable, message).retry_after(1);
        let tunnels: &Tunnels = &self.agents.tunnels;
        let stream = tunnels
            .open(cluster)
            .await
            .map_err(|error| unavailable(error.to_string()))?
            .ok_or_else(|| unavailable(format!("no tunnel of cluster {cluster} ends here")))?;
        let cancelled = self.cancelled.clone();
        self.tracker.spawn(async move {
            let spliced = async {
                let mut replica = switched(upgraded).await?;
                let mut stream = stream;
                tokio::io::copy_bidirectional_with_sizes(&mut replica, &mut stream, BUFFER, BUFFER).await
            };
            if let Some(Err(error)) = cancelled.run_until_cancelled(spliced).await {
                tracing::debug!(%error, "a stream for another replica broke off");
            }
        });
        Ok(())
    }
}

async fn switched(upgraded: OnUpgrade) -> io::Result<Box<dyn Io>> {
    let upgraded = tokio::time::timeout(SWITCH, upgraded)
        .await
        .map_err(io::Error::other)?
        .map_err(io::Error::other)?;
    Ok(Box::new(TokioIo::new(upgraded)))
}

/// What a tunnel depends on for as long as it lives.
pub(super) struct Validity {
    pub(super) agent: AgentIdentity,
    /// As DER.
    pub(super) certificate: Arc<[u8]>,
    /// In seconds since the epoch.
    pub(super) expires: i64,
    pub(super) directory: Arc<Mirror<Directory>>,
    pub(super) authority: AgentAuthority,
}

impl Validity {
    /// Waits until the agent's certificate does not count any more, and says why. Cancel safe.
    pub(super) async fn ends(self) -> String {
        let expired = async {
            let left = self.expires - Timestamp::now().as_second();
            tokio::time::sleep(Duration::from_secs(u64::try_from(left).unwrap_or_default())).await;
            "the certificate has expired".to_owned()
        };
        tokio::select! {
            reason = expired => reason,
            reason = self.is_taken_away() => reason,
        }
    }

    async fn is_taken_away(&self) -> String {
        let (mut changes, mut authorities) = (self.directory.subscribe(), self.authority.subscribe());
        loop {
            changes.mark_unchanged();
            authorities.mark_unchanged();
            if let Some(fault) = self.agent.fault(&self.directory.state()) {
                return fault;
            }
            if !self.authority.believes(&self.certificate) {
                return "the authority that issued the certificate is not trusted any more".to_owned();
            }
            let changed = tokio::select! {
                changed = changes.changed() => changed,
                changed = authorities.changed() => changed,
            };
            if changed.is_err() {
                return "the hub does not know any more what is allowed".to_owned();
            }
        }
    }
}

fn asks_for(headers: &HeaderMap, protocol: &str) -> bool {
    upgrade::is_requested(headers) && headers.get(UPGRADE).is_some_and(|asked| asked == protocol)
}

fn agreed(protocol: &'static str) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    response
}

#[async_trait]
impl Connector for OpenTunnels {
    /// Only machines get here with a chance: who else may `get managedclusters/tunnel` has no cluster to speak for.
    async fn connect(&self, context: &RequestContext, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        if context.info.subresource != "tunnel" {
            return Err(Status::no_such_path());
        }
        let machine = Machine::of(&context.user)?;
        let protocol = match &machine {
            Some(Machine::Replica) => STREAM_PROTOCOL,
            _ => PROTOCOL,
        };
        let upgraded = request.extensions_mut().remove::<OnUpgrade>();
        let Some(upgraded) = upgraded.filter(|_| asks_for(request.headers(), protocol)) else {
            let message = format!("tunnels are asked for over HTTP/1.1 with Upgrade: {protocol}");
            return Err(Status::bad_request(message));
        };
        match machine {
            Some(Machine::Agent(agent)) if agent.cluster == context.info.name => {
                self.open_tunnel(agent, &context.user, upgraded)?;
            }
            Some(Machine::Replica) => self.open_stream(&context.info.name, upgraded).await?,
            _ => {
                let message = "tunnels are for the agents of clusters; run `umbra join NAME --tunnel`";
                return Err(Status::failure(Reason::Forbidden, message));
            }
        }
        Ok(agreed(protocol))
    }
}
