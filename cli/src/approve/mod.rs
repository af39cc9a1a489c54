//! `umbra approve` and `umbra deny`: a person decides about ClusterJoinRequests.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use umbra_api::join_request::{ClusterJoinRequest, condition};

use crate::join::hub;

/// As whom it is written.
const FIELD_MANAGER: &str = "umbra-approve";

/// What `umbra approve` and `umbra deny` take.
#[derive(Args)]
pub(crate) struct ApproveArguments {
    /// The ClusterJoinRequest, or the cluster: then all its requests about which nobody has decided, or to deny, all.
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
}

/// Decides.
///
/// # Errors
/// What the hub says, and where there is no such request.
pub(crate) async fn run(arguments: ApproveArguments, decision: Decision) -> Result<()> {
    let (hub, _) = hub::connect(arguments.hub_kubeconfig.as_deref()).await?;
    let api: Api<ClusterJoinRequest> = Api::all(hub);
    let all = api
        .list(&ListParams::default())
        .await
        .context("the requests cannot be listed")?;
    let name = &arguments.name;
    let meant: Vec<ClusterJoinRequest> = all
        .items
        .into_iter()
        .filter(|one| one.name_any() == *name || one.spec.cluster_name == *name && is_open(one, decision))
        .collect();
    if meant.is_empty() {
        bail!("there is no ClusterJoinRequest {name}, and no cluster {name} has one to decide about");
    }
    for request in meant {
        decide(&api, &request, decision, &arguments.message).await?;
        let verb = match decision {
            Decision::Approve => "approved",
            Decision::Deny => "denied",
        };
        eprintln!(
            "{} of cluster {} is {verb}",
            request.name_any(),
            request.spec.cluster_name
        );
    }
    Ok(())
}

fn is_open(request: &ClusterJoinRequest, decision: Decision) -> bool {
    match decision {
        Decision::Approve => !request.has(condition::APPROVED) && !request.has(condition::DENIED),
        Decision::Deny => !request.has(condition::DENIED),
    }
}

async fn decide(
    api: &Api<ClusterJoinRequest>,
    request: &ClusterJoinRequest,
    decision: Decision,
    message: &str,
) -> Result<()> {
    let name = request.name_any();
    if decision == Decision::Approve && request.has(condition::DENIED) {
        bail!("{name} has been denied; delete it, and the agent asks again");
    }
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
        .with_context(|| format!("{name} cannot be written; it may just have changed: try again"))?;
    Ok(())
}
