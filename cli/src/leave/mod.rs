//! `umbra leave`: takes a child out of the hub, and what Umbra made in the child out of the child.
//!
//! A cluster that the hub dials is cleaned after it has left, with the credential that was stored, or that of a context that is
//! given: until then the hub would place again what is deleted. So is one with a tunnel where a context is given. Without one it
//! is cleaned through its tunnel, before it leaves, as the user of the hub who runs this; the agent itself is the last to go. What
//! cannot be cleaned does not keep a cluster from leaving; it is said, with how to remove it.
//!
//! Deleting the ManagedCluster with kubectl takes the cluster out of the hub alone: whoever deletes an object on the hub need not
//! be allowed to do anything in the cluster, and a GitOps tool that prunes is not to remove what runs there.

mod agent;
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};
use umbra_api::SYSTEM_NAMESPACE;
use umbra_api::cluster::{ConnectionMode, ManagedCluster};
use umbra_child::kubeconfig::Kubeconfig;

use crate::join::child::ChildCluster;
use crate::join::{hub, load};
use crate::progress::Progress;
use crate::registration::binding_name;
use crate::up::data_dir::HUB_CONTEXT;
use agent::Agent;
use report::{Cleaned, Removal};

/// What `umbra leave` takes.
#[derive(Args)]
pub(crate) struct LeaveArguments {
    /// The name of the cluster on the hub.
    #[arg(value_name = "NAME")]
    name: String,
    /// The context that reaches the cluster, to clean it up with [default: the credential that the hub has; of a cluster with a
    /// tunnel, that tunnel, as you].
    #[arg(long, value_name = "CONTEXT")]
    context: Option<String>,
    /// The kubeconfig that has the context [default: $KUBECONFIG or ~/.kube/config].
    #[arg(long, value_name = "FILE", requires = "context")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig of the hub, as `umbra up` writes it [default: ~/.umbra/kubeconfig].
    #[arg(long, env = "UMBRA_HUB_KUBECONFIG", value_name = "FILE")]
    hub_kubeconfig: Option<PathBuf>,
    /// Leave what fleets have placed in the cluster there.
    #[arg(long)]
    keep_objects: bool,
}

/// Takes the cluster out.
///
/// # Errors
/// What keeps it from leaving, and what to do.
pub(crate) async fn run(arguments: LeaveArguments) -> Result<()> {
    let name = &arguments.name;
    let keep_objects = arguments.keep_objects;
    let mut progress = Progress::new();
    progress.step("looking for the hub");
    let (hub, hub_path) = hub::connect(arguments.hub_kubeconfig.as_deref()).await?;
    let cluster = &find(&hub, name).await?;

    let given = match &arguments.context {
        None => None,
        Some(context) => {
            progress.step(format!("looking at cluster {context:?}"));
            let kubeconfig = load(arguments.kubeconfig.as_deref(), context)?;
            // Before anything is changed.
            let child = reach(cluster, &kubeconfig).await?;
            Some((child, kubeconfig))
        }
    };
    let through_tunnel = given.is_none() && cluster.spec.connection.mode == ConnectionMode::Tunnel;
    // The credential goes with the cluster, and is needed after it.
    let stored = match &given {
        None => stored(&hub, cluster).await,
        Some((_, kubeconfig)) => Some(kubeconfig.clone()),
    };
    let context = stored.as_ref().map_or("CONTEXT", |one| one.current_context.as_str());

    let mut cleaned = Cleaned::default();
    if through_tunnel {
        progress.step(format!("removing what Umbra made in {name}, through its tunnel"));
        let reached = async { reach(cluster, &tunnel(&hub_path, name)?).await }.await;
        let reached = reached.context("its tunnel cannot be used; name a context that reaches it with --context");
        clean(reached, cluster, keep_objects, true, &mut cleaned).await;
    }
    progress.step(format!("removing {name} and its copies from the hub"));
    hub::unregister(&hub, name, |text| progress.detail(text)).await?;
    if !through_tunnel {
        progress.step(format!("removing what Umbra made in {name}"));
        let reached = match (given, &stored) {
            (Some((child, _)), _) => Ok(child),
            (None, Some(stored)) => reach(cluster, stored).await,
            (None, None) => Err(anyhow!("its credential is not on the hub, and no --context was given")),
        };
        clean(reached, cluster, keep_objects, false, &mut cleaned).await;
    }
    progress.finish();
    report::write(&mut std::io::stdout().lock(), cluster, &cleaned, context, keep_objects)?;
    Ok(())
}

async fn find(hub: &Client, name: &str) -> Result<ManagedCluster> {
    let mut clusters = hub::clusters(hub).await?;
    if let Some(found) = clusters
        .iter()
        .position(|one| one.metadata.name.as_deref() == Some(name))
    {
        return Ok(clusters.swap_remove(found));
    }
    let known: Vec<&str> = clusters.iter().filter_map(|one| one.metadata.name.as_deref()).collect();
    match known.is_empty() {
        true => bail!("there is no cluster {name} on the hub; none has joined"),
        false => bail!("there is no cluster {name} on the hub; it has {}", known.join(", ")),
    }
}

/// The kubeconfig of the cluster's Secret; `None` where there is none that can be read.
async fn stored(hub: &Client, cluster: &ManagedCluster) -> Option<Kubeconfig> {
    let reference = cluster.spec.connection.credentials_secret_ref.as_ref()?;
    let secrets: Api<Secret> = Api::namespaced(hub.clone(), SYSTEM_NAMESPACE);
    let secret = secrets.get_opt(&reference.name).await.ok()??;
    let text = String::from_utf8(secret.data?.remove("kubeconfig")?.0).ok()?;
    Kubeconfig::parse(&text, "the stored kubeconfig").ok()
}

/// A kubeconfig that leads to the cluster through the hub, as the user of the hub's kubeconfig.
fn tunnel(hub_path: &Path, name: &str) -> Result<Kubeconfig> {
    let file = Kubeconfig::load(hub_path)?;
    let own = file.contexts.iter().any(|context| context.name == HUB_CONTEXT);
    let mut through = file.flatten(own.then_some(HUB_CONTEXT))?;
    for cluster in &mut through.clusters {
        let server = cluster.cluster.server.trim_end_matches('/');
        cluster.cluster.server = format!("{server}/apis/umbra.dev/v1alpha1/managedclusters/{name}/proxy");
    }
    Ok(through)
}

/// Reaches the cluster, if that is still the one that joined.
async fn reach(cluster: &ManagedCluster, kubeconfig: &Kubeconfig) -> Result<ChildCluster> {
    let child = ChildCluster::reach(&cluster.name_any(), &kubeconfig.current_context, kubeconfig).await?;
    let recorded = cluster.status.as_ref().map_or("", |status| status.uid.as_str());
    if !recorded.is_empty() && recorded != child.uid {
        child.close().await;
        bail!(
            "another cluster answers there: its namespace kube-system has the UID {}, not {recorded}",
            child.uid
        );
    }
    Ok(child)
}

/// Removes what Umbra made in the child, and writes down how far that came.
async fn clean(
    reached: Result<ChildCluster>,
    cluster: &ManagedCluster,
    keep_objects: bool,
    through_tunnel: bool,
    cleaned: &mut Cleaned,
) {
    let outcome = match reached {
        Ok(child) => {
            let outcome = remove(&child, cluster, keep_objects, through_tunnel, cleaned).await;
            child.close().await;
            outcome
        }
        Err(error) => Err(error),
    };
    cleaned.failed = outcome.err();
}

async fn remove(
    child: &ChildCluster,
    cluster: &ManagedCluster,
    keep_objects: bool,
    through_tunnel: bool,
    cleaned: &mut Cleaned,
) -> Result<()> {
    let agent = Agent::find(child.api(), &cluster.uid().unwrap_or_default()).await?;
    if let Some(agent) = &agent {
        agent.stop_placing(child.api()).await?;
    }
    if !keep_objects {
        (cleaned.placed, cleaned.namespaces) = child.delete_placed().await?;
    }
    let binding = binding_name(cluster);
    match &agent {
        Some(agent) => {
            agent.delete(child.api(), &binding).await?;
            // Through its own tunnel nobody sees it go.
            cleaned.agent = match through_tunnel || !agent.gone(child.api()).await {
                true => Removal::Begun,
                false => Removal::Done,
            };
        }
        // Last: through a tunnel it is by this binding that anything may be done.
        None => cleaned.binding = child.unbind_administrators(&binding).await?,
    }
    Ok(())
}
