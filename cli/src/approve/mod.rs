//! `umbra approve` and `umbra deny`: a person decides about ClusterJoinRequests.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use umbra_api::cluster::ManagedCluster;
use umbra_api::join_request::{ClusterJoinRequest, condition};

use crate::join::hub;
use crate::terminal::one_line;

/// As whom it is written.
const FIELD_MANAGER: &str = "umbra-approve";
/// How often a denial is written against an agent that changes its request.
const TRIES: usize = 20;

/// What `umbra approve` and `umbra deny` take.
#[derive(Args)]
pub(crate) struct ApproveArguments {
    /// The ClusterJoinRequest, or the cluster: then the one request of it about which nobody has decided, or to deny, all.
    #[arg(value_name = "NAME")]
    name: String,
    /// The kubeconfig of the hub, as `umbra up` writes it [default: ~/.umbra/kubeconfig].
    #[arg(long, env = "UMBRA_HUB_KUBECONFIG", value_name = "FILE")]
    hub_kubeconfig: Option<PathBuf>,
    /// Why, for whoever looks at the request later.
    #[arg(long, value_name = "TEXT", default_value = "")]
    message: String,
}

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The agent may have the certificate.
    Approve,
    /// It may not, or not any more.
    Deny,
}

impl Decision {
    fn condition(self) -> &'static str {
        match self {
            Self::Approve => condition::APPROVED,
            Self::Deny => condition::DENIED,
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Approve => "approved",
            Self::Deny => "denied",
        }
    }
}

/// Decides.
///
/// # Errors
/// What the hub says, and where there is no such request.
pub(crate) async fn run(arguments: ApproveArguments, decision: Decision) -> Result<()> {
    let (hub, _) = hub::connect(arguments.hub_kubeconfig.as_deref()).await?;
    let api: Api<ClusterJoinRequest> = Api::all(hub.clone());
    let all = api
        .list(&ListParams::default())
        .await
        .context("the requests cannot be listed")?;
    let meant = meant(all.items, &arguments.name, decision)?;
    if decision == Decision::Approve {
        let clusters: Api<ManagedCluster> = Api::all(hub);
        for request in &meant {
            let name = &request.spec.cluster_name;
            let cluster = clusters.get_opt(name).await;
            let cluster = cluster.with_context(|| format!("ManagedCluster {name} cannot be read"))?;
            is_same_cluster(request, cluster.as_ref())?;
        }
    }
    let mut failed = None;
    for request in meant {
        let described = described(&request);
        match decide(&api, request, decision, &arguments.message).await {
            Ok(()) => eprintln!("{}: {described}", decision.done()),
            // The others are decided all the same.
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

/// The requests that `name` means: of a cluster, those that are open, or one by its own name. Requests are named by whoever makes
/// them, and anybody with a token may ask: so one that is approved has to be the only one that can be meant.
fn meant(all: Vec<ClusterJoinRequest>, name: &str, decision: Decision) -> Result<Vec<ClusterJoinRequest>> {
    let meant: Vec<ClusterJoinRequest> = all
        .into_iter()
        .filter(|one| one.name_any() == name || one.spec.cluster_name == name && is_open(one, decision))
        .collect();
    if meant.is_empty() {
        bail!("there is no ClusterJoinRequest {name}, and no cluster {name} has one to decide about");
    }
    if decision == Decision::Approve && meant.len() > 1 {
        let list: Vec<String> = meant.iter().map(described).collect();
        bail!(
            "{name} may mean {} requests; look which is the right one, deny the others, and approve it by its name:\n- {}",
            meant.len(),
            list.join("\n- ")
        );
    }
    if let Some(denied) = meant.iter().find(|one| one.has(condition::DENIED))
        && decision == Decision::Approve
    {
        bail!(
            "{} has been denied; delete it, and the agent asks again with another token of `umbra join NAME --tunnel`",
            denied.name_any()
        );
    }
    if let [one] = &meant[..]
        && decision == Decision::Approve
        && one.spec.cluster_name != name
        && !name.starts_with(&format!("{}-", one.spec.cluster_name))
    {
        bail!("{name} is a request with a misleading name: {}", described(one));
    }
    Ok(meant)
}

/// Refuses the request of an agent that is in another cluster than that which was seen under the name: approved, it would get what is
/// meant for that one.
fn is_same_cluster(request: &ClusterJoinRequest, cluster: Option<&ManagedCluster>) -> Result<()> {
    let known = cluster.and_then(|cluster| cluster.status.as_ref());
    let known = known.map_or("", |status| status.uid.as_str());
    if !known.is_empty() && known != request.spec.cluster_uid {
        bail!(
            "{} is of another cluster than {}, whose namespace kube-system has the UID {}; deny it, or run `umbra leave {}` first to \
             replace the cluster",
            described(request),
            one_line(&request.spec.cluster_name),
            one_line(known),
            one_line(&request.spec.cluster_name)
        );
    }
    Ok(())
}

/// What a person has to know of a request.
fn described(request: &ClusterJoinRequest) -> String {
    format!(
        "{} for cluster {} (UID {}, Kubernetes {}), asked by {}",
        request.name_any(),
        one_line(&request.spec.cluster_name),
        one_line(&request.spec.cluster_uid),
        one_line(&request.spec.version),
        one_line(&request.spec.username)
    )
}

fn is_open(request: &ClusterJoinRequest, decision: Decision) -> bool {
    match decision {
        Decision::Approve => !request.has(condition::APPROVED) && !request.has(condition::DENIED),
        Decision::Deny => !request.has(condition::DENIED),
    }
}

/// Writes the decision; an agent that changes its request meanwhile does not outrun it.
async fn decide(
    api: &Api<ClusterJoinRequest>,
    mut request: ClusterJoinRequest,
    decision: Decision,
    message: &str,
) -> Result<()> {
    let name = request.name_any();
    for _ in 0..TRIES {
        match write(api, &request, decision, message).await {
            Err(kube::Error::Api(status)) if status.code == 409 && decision == Decision::Deny => {
                request = api.get(&name).await.with_context(|| format!("{name} cannot be read"))?;
            }
            written => return written.with_context(|| format!("{name} cannot be written")),
        }
    }
    bail!("{name} changes all the time; delete it: kubectl delete clusterjoinrequest {name}")
}

async fn write(
    api: &Api<ClusterJoinRequest>,
    request: &ClusterJoinRequest,
    decision: Decision,
    message: &str,
) -> kube::Result<()> {
    let name = request.name_any();
    let present = request.status.iter().flat_map(|status| &status.conditions);
    let mut conditions: Vec<serde_json::Value> = present
        .filter(|one| one.type_ != decision.condition())
        .map(|one| json!(one))
        .collect();
    conditions.push(
        json!({"type": decision.condition(), "status": "True", "reason": "ByPerson", "message": message,
        "lastTransitionTime": umbra_apimachinery::age::rfc3339(Timestamp::now()),
        "observedGeneration": request.metadata.generation}),
    );
    let patch =
        json!({"metadata": {"resourceVersion": request.resource_version()}, "status": {"conditions": conditions}});
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    api.patch_status(&name, &parameters, &Patch::Merge(patch))
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str, cluster: &str, condition: &str) -> ClusterJoinRequest {
        let conditions = if condition.is_empty() {
            json!([])
        } else {
            json!([{"type": condition, "status": "True", "reason": "ByPerson", "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        };
        let request = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ClusterJoinRequest", "metadata": {"name": name},
            "spec": {"clusterName": cluster, "clusterUID": "u", "request": "csr", "username": "umbra:bootstrap:x"},
            "status": {"conditions": conditions}});
        serde_json::from_value(request).unwrap()
    }

    fn approved(all: &[ClusterJoinRequest], name: &str) -> Result<Vec<String>, String> {
        let meant = meant(all.to_vec(), name, Decision::Approve).map_err(|error| error.to_string())?;
        Ok(meant.iter().map(kube::ResourceExt::name_any).collect())
    }

    #[test]
    fn one_is_approved_where_it_is_the_only_one_that_can_be_meant() {
        let one = request("edge-1", "edge", "");
        assert_eq!(approved(std::slice::from_ref(&one), "edge").unwrap(), ["edge-1"]);
        assert_eq!(approved(std::slice::from_ref(&one), "edge-1").unwrap(), ["edge-1"]);
        let planted = [one.clone(), request("edge-2", "edge", "")];
        let refused = approved(&planted, "edge").unwrap_err();
        assert!(
            refused.contains("edge-1 for cluster edge") && refused.contains("edge-2"),
            "{refused}"
        );
        assert_eq!(approved(&planted, "edge-2").unwrap(), ["edge-2"]);
        // What an agent makes up does not write over the terminal.
        let mut hostile = request("edge-3", "edge", "");
        hostile.spec.cluster_uid = "\u{1b}[2K\r\n".repeat(1000);
        let said = described(&hostile);
        assert!(!said.contains(char::is_control) && said.len() < 50_000, "{said:?}");
        // Somebody else's request that is called as a cluster.
        let misleading = [request("edge", "evil", "")];
        assert!(approved(&misleading, "edge").unwrap_err().contains("for cluster evil"));
        assert!(
            approved(&[one, misleading[0].clone()], "edge")
                .unwrap_err()
                .contains("2 requests")
        );
        let denied = [request("edge-1", "edge", condition::DENIED)];
        assert!(approved(&denied, "edge-1").unwrap_err().contains("has been denied"));
        assert!(approved(&denied, "edge").is_err());
    }

    #[test]
    fn an_agent_of_another_cluster_is_not_approved() {
        let cluster = |uid: &str| -> ManagedCluster {
            let cluster = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster", "metadata": {"name": "edge"},
                "spec": {"connection": {"mode": "Tunnel"}}, "status": {"uid": uid}});
            serde_json::from_value(cluster).unwrap()
        };
        let asked = request("edge-1", "edge", "");
        is_same_cluster(&asked, Some(&cluster("u"))).unwrap();
        // Nobody knows it yet.
        is_same_cluster(&asked, Some(&cluster(""))).unwrap();
        is_same_cluster(&asked, None).unwrap();
        let refused = is_same_cluster(&asked, Some(&cluster("v"))).unwrap_err().to_string();
        assert!(
            refused.contains("edge-1 for cluster edge (UID u") && refused.contains("UID v"),
            "{refused}"
        );
    }

    #[test]
    fn all_of_a_cluster_are_denied() {
        let all = vec![
            request("edge-1", "edge", condition::APPROVED),
            request("edge-2", "edge", ""),
            request("west-1", "west", ""),
        ];
        assert_eq!(meant(all, "edge", Decision::Deny).unwrap().len(), 2);
    }
}
