//! ClusterJoinRequests: approves those that the rules approve, signs those that are approved, and takes old ones away.
//!
//! | module | concern |
//! |---|---|
//! | `decide` | what is to be done with one request; pure |
//! | this | follows the requests and does it |
//!
//! **The rule.** A request that came with the bootstrap token of a cluster is approved for exactly that cluster, unless
//! `spec.connection.tunnel.approval` is `Manual` or the cluster has been seen with another UID of its namespace
//! `kube-system`: then it is denied, because another cluster asks. Nor does a token approve anything for a cluster that has a
//! request that was denied: who was thrown out does not come back by itself. Everything else waits for a person
//! (`umbra approve`).
//!
//! **A token is for one request.** Before a request is approved by its token, the ManagedCluster is made to say so
//! (`umbra_api::join_request::BOOTSTRAP_TOKEN_USED`); from then on the token makes no more requests and approves none. The agents
//! of one Deployment share the request and what was issued for it, so they need no more; whoever finds the token afterwards gets
//! nothing for it; and where somebody was faster than the agent, the agent's failure shows it. `umbra join NAME --tunnel` makes
//! another. The same where a person decides: the token of a request that was approved or denied was for that request, and a denied
//! agent does not come back by it. A token that was replaced approves nothing, also of what was asked for with it before.
//!
//! **A request is for one ManagedCluster.** It counts for none that is younger than the request, and where its token was for
//! another of the name, or its cluster is gone, it goes, whatever was decided about it.
//!
//! Every replica does all of this: each write names the revision that was read, so what one has done another finds done.

mod decide;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use umbra_api::cluster::ManagedCluster;
use umbra_api::join_request::{BOOTSTRAP_TOKEN_USED, ClusterJoinRequest};
use umbra_auth::certificates::validity_of_pem;
use umbra_auth::tokens::sha256_hex;
use umbra_registry::copies::retry;
use umbra_registry::directory::Directory;
use umbra_registry::hub::agents::{AgentAuthority, AgentIdentity, HubTrust};
use umbra_registry::mirror::Mirror;

use decide::{Action, decide};

/// As whom the controller writes.
const FIELD_MANAGER: &str = "umbra-join-controller";
/// How often requests are looked at without a change, to take old ones away.
const PERIOD: Duration = Duration::from_secs(60);

/// Decides and signs.
pub struct JoinController {
    directory: Arc<Mirror<Directory>>,
    authority: AgentAuthority,
    trust: HubTrust,
    api: Api<ClusterJoinRequest>,
    clusters: Api<ManagedCluster>,
    /// Failures in a row, by name.
    failures: BTreeMap<String, u32>,
}

impl std::fmt::Debug for JoinController {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinController").finish_non_exhaustive()
    }
}

impl JoinController {
    /// A controller of the requests in `directory`, which signs by `authority`, tells agents of `trust`, and writes to the hub root
    /// as `client`.
    #[must_use]
    pub fn new(directory: Arc<Mirror<Directory>>, authority: AgentAuthority, trust: HubTrust, client: Client) -> Self {
        Self {
            directory,
            authority,
            trust,
            api: Api::all(client.clone()),
            clusters: Api::all(client),
            failures: BTreeMap::new(),
        }
    }

    /// Runs until `cancel`.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut changes = self.directory.subscribe();
        let running = async {
            loop {
                changes.mark_unchanged();
                let failed = self.look().await;
                let pause = failed.map_or(PERIOD, retry::pause);
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(pause) => {}
                }
            }
        };
        cancel.run_until_cancelled(running).await;
    }

    /// Looks at all requests. Gives how often the worst of them has failed in a row.
    async fn look(&mut self) -> Option<u32> {
        let directory = self.directory.state();
        self.failures
            .retain(|name, _| directory.join_requests.contains_key(name));
        for (name, request) in &directory.join_requests {
            match self.act(&directory, request).await {
                Ok(()) => drop(self.failures.remove(name)),
                Err(error) => {
                    *self.failures.entry(name.clone()).or_default() += 1;
                    tracing::warn!(name, error, "a ClusterJoinRequest cannot be dealt with");
                }
            }
        }
        self.failures.values().max().copied()
    }

    async fn act(&self, directory: &Directory, request: &ClusterJoinRequest) -> Result<(), String> {
        let name = request.name_any();
        match decide(directory, request, Timestamp::now()) {
            Action::Nothing => Ok(()),
            Action::UseToken { hash } => self.use_token(directory, request, &hash).await,
            Action::Decide {
                cluster_uid,
                condition,
                reason,
                message,
            } => {
                tracing::info!(name, condition, reason, message, "a ClusterJoinRequest is decided");
                let status = json!({"conditions": [{"type": condition, "status": "True", "reason": reason, "message": message,
                    "lastTransitionTime": now(), "observedGeneration": request.metadata.generation}],
                    "managedClusterUID": cluster_uid});
                self.write(request, status).await
            }
            Action::Sign { cluster_uid } => {
                let identity = AgentIdentity {
                    cluster: request.spec.cluster_name.clone(),
                    cluster_uid: cluster_uid.clone(),
                    request: name,
                    request_uid: request.uid().unwrap_or_default(),
                };
                let pem = &request.spec.request;
                let certificate = self.authority.sign(pem, &identity).map_err(|error| error.to_string())?;
                let (_, until) = validity_of_pem(&certificate).map_err(|error| error.to_string())?;
                let expires = Timestamp::from_second(until).map_err(|error| error.to_string())?;
                let trust = Some(self.trust.pem()).filter(|pem| !pem.is_empty());
                let status = json!({"certificate": certificate, "requestHash": sha256_hex(pem.as_bytes()),
                    "expires": expires.to_string(), "managedClusterUID": cluster_uid,
                    "hubCertificateAuthority": trust});
                self.write(request, status).await
            }
            Action::Delete(why) => {
                tracing::info!(name, why, "a ClusterJoinRequest is deleted");
                let parameters = DeleteParams {
                    preconditions: Some(Preconditions {
                        uid: request.uid(),
                        resource_version: request.resource_version(),
                    }),
                    ..DeleteParams::default()
                };
                settled(self.api.delete(&name, &parameters).await.map(drop))
            }
        }
    }

    /// Written with the revision that was read, so that of two requests with one token one alone gets it.
    async fn use_token(&self, directory: &Directory, request: &ClusterJoinRequest, hash: &str) -> Result<(), String> {
        let name = &request.spec.cluster_name;
        let cluster = directory
            .clusters
            .get(name)
            .and_then(|cluster| cluster.resource_version());
        let (Some(version), Some(uid)) = (cluster, request.uid()) else {
            return Err(format!("ManagedCluster {name} has no revision"));
        };
        tracing::info!(name, request = request.name_any(), "a bootstrap token is used");
        let annotations = json!({BOOTSTRAP_TOKEN_USED: format!("{hash}/{uid}")});
        let patch = json!({"metadata": {"resourceVersion": version, "annotations": annotations}});
        settled(
            self.clusters
                .patch(name, &parameters(), &Patch::Merge(patch))
                .await
                .map(drop),
        )
    }

    async fn write(&self, request: &ClusterJoinRequest, status: Value) -> Result<(), String> {
        let patch = json!({"metadata": {"resourceVersion": request.resource_version()}, "status": status});
        let patched = self
            .api
            .patch_status(&request.name_any(), &parameters(), &Patch::Merge(patch))
            .await;
        settled(patched.map(drop))
    }
}

fn parameters() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Where somebody else was faster, the next look says how it is now.
fn settled(written: Result<(), kube::Error>) -> Result<(), String> {
    match written {
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map_err(|error| error.to_string()),
    }
}

/// As Kubernetes writes times.
fn now() -> String {
    umbra_apimachinery::age::rfc3339(Timestamp::now())
}
