//! `umbra leave`: takes a child out of the hub, and what Umbra made in the child out of the child.
//!
//! Nothing is changed before the hub has said, by a dry run, that the cluster may leave. What fleets have placed is known by their
//! renderings, which are read before they go with the cluster: each object is looked at in the cluster, and deleted only where it
//! is that of its rendering; what `onRemove: Orphan` says, namespaces and CustomResourceDefinitions stay.
//!
//! A cluster that the hub dials is cleaned after it has left, with the credential that was stored, or that of a context that is
//! given: until then the hub would place again what is deleted. So is one with a tunnel where a context is given. Without one it
//! is cleaned through its tunnel, before it leaves: the fleets themselves withdraw
//! ([`umbra_controllers::fleet::leaving`]), whoever runs this deletes what they could not, as a user of the hub, and the agent
//! itself is the last to go. What cannot be cleaned does not keep a cluster from leaving, nor the rest from being cleaned; it is
//! said, with how to remove it.
//!
//! Deleting the ManagedCluster with kubectl takes the cluster out of the hub alone: whoever deletes an object on the hub need not
//! be allowed to do anything in the cluster, and a GitOps tool that prunes is not to remove what runs there.

mod agent;
mod objects;
mod placed;
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};
use umbra_api::SYSTEM_NAMESPACE;
use umbra_api::cluster::{ConnectionMode, ManagedCluster};
use umbra_child::Child;
use umbra_child::kubeconfig::Kubeconfig;

use crate::join::child::ChildCluster;
use crate::join::{hub, load};
use crate::progress::Progress;
use crate::registration::binding_name;
use crate::up::data_dir::HUB_CONTEXT;
use agent::{Agent, Found};
use placed::Placed;
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

    hub::rehearse_unregister(&hub, name).await?;
    let mut cleaned = Cleaned::default();
    let placed = match keep_objects {
        true => Placed::default(),
        false => {
            progress.step("looking at what fleets have placed");
            Placed::read(&hub, name).await
        }
    };
    if through_tunnel {
        progress.step(format!("removing what Umbra made in {name}, through its tunnel"));
        let reached = async { reach(cluster, &tunnel(&hub_path, name)?).await }.await;
        match reached {
            Err(error) => {
                let what = "its tunnel cannot be used; name a context that reaches it with --context";
                cleaned.unreached(error.context(what), &placed);
            }
            Ok(child) => {
                if !keep_objects {
                    withdraw(&hub, child.api(), name, &placed, &progress, &mut cleaned).await;
                }
                remove(&child, cluster, true, &mut cleaned).await;
                child.close().await;
            }
        }
    }
    progress.step(format!("removing {name} and its copies from the hub"));
    let left = hub::unregister(&hub, name, |text| progress.detail(text)).await;
    if left.is_err() {
        progress.finish();
        report::write_cleaned(&mut std::io::stdout().lock(), cluster, &cleaned)?;
        return left;
    }
    if !through_tunnel {
        progress.step(format!("removing what Umbra made in {name}"));
        let reached = match (given, &stored) {
            (Some((child, _)), _) => Ok(child),
            (None, Some(stored)) => reach(cluster, stored).await,
            (None, None) => Err(anyhow!("its credential is not on the hub, and no --context was given")),
        };
        match reached {
            Err(error) => cleaned.unreached(error, &placed),
            Ok(child) => {
                objects::take_out(child.api(), &placed.renderings, &mut cleaned).await;
                remove(&child, cluster, false, &mut cleaned).await;
                child.close().await;
            }
        }
    }
    cleaned.unknown = !placed.unread.is_empty();
    cleaned.failed.extend(placed.unread);
    progress.finish();
    report::write(&mut std::io::stdout().lock(), cluster, &cleaned, context)?;
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

/// Takes what fleets have placed out of a cluster that they still reach, and writes down how far that came.
async fn withdraw(
    hub: &Client,
    child: &Child,
    name: &str,
    placed: &Placed,
    progress: &Progress,
    cleaned: &mut Cleaned,
) {
    let withdrawn = async {
        placed::withdraw(hub, name).await?;
        placed::withdrawn(hub, name, placed, |text| progress.detail(text)).await
    };
    match withdrawn.await {
        Err(error) => {
            cleaned.failed.push(error);
            objects::remain(&placed.renderings, cleaned);
        }
        Ok(left) => {
            objects::were_withdrawn(&placed::gone(&placed.renderings, &left), cleaned);
            objects::take_out(child, &left, cleaned).await;
        }
    }
}

/// Takes out agent and binding, and writes down how far that came.
async fn remove(child: &ChildCluster, cluster: &ManagedCluster, through_tunnel: bool, cleaned: &mut Cleaned) {
    let binding = binding_name(cluster);
    let found = match Agent::find(child.api(), &cluster.uid().unwrap_or_default()).await {
        Ok(found) => found,
        Err(error) => {
            cleaned.failed.push(error);
            cleaned.agent_left = true;
            Found::Other
        }
    };
    if let Found::Own(agent) = &found {
        match agent.delete(child.api(), &binding).await {
            Ok(()) => {
                // Through its own tunnel nobody sees it go.
                let gone = !through_tunnel && agent.gone(child.api()).await;
                cleaned.agent = if gone { Removal::Done } else { Removal::Begun };
            }
            Err(error) => {
                cleaned.failed.push(error);
                (cleaned.agent_left, cleaned.binding_left) = (true, true);
            }
        }
        return;
    }
    cleaned.agent_unnamed = matches!(found, Found::Unnamed);
    // Last: through a tunnel it is by this binding that anything may be done.
    match child.unbind_administrators(&binding).await {
        Ok(deleted) => cleaned.binding = deleted,
        Err(error) => {
            cleaned.failed.push(error);
            cleaned.binding_left = true;
        }
    }
}
