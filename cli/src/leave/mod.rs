//! `umbra leave`: takes a child out of the hub and leaves nothing behind, neither on the hub nor in the child.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use umbra_api::SYSTEM_NAMESPACE;
use umbra_api::cluster::ManagedCluster;
use umbra_child::kubeconfig::Kubeconfig;
use umbra_registry::fleet::names::FLEET_LABEL;

use crate::join::child::ChildCluster;
use crate::join::hub;
use crate::progress::Progress;
use crate::registration::binding_name;

/// What `umbra leave` takes.
#[derive(Args)]
pub(crate) struct LeaveArguments {
    /// The name of the cluster on the hub.
    #[arg(value_name = "NAME")]
    name: String,
    /// The kubeconfig of the hub, as `umbra up` writes it [default: ~/.umbra/kubeconfig].
    #[arg(long, env = "UMBRA_HUB_KUBECONFIG", value_name = "FILE")]
    hub_kubeconfig: Option<PathBuf>,
    /// Leave what fleets have placed in the cluster there.
    #[arg(long)]
    keep_objects: bool,
}

/// What was done in the child.
#[derive(Default)]
struct Cleaned {
    placed: Vec<String>,
    namespaces: Vec<String>,
    binding: bool,
}

/// Takes the cluster out.
///
/// # Errors
/// What keeps it from leaving, and what to do.
pub(crate) async fn run(arguments: LeaveArguments) -> Result<()> {
    let name = &arguments.name;
    let mut progress = Progress::new();
    progress.step("looking for the hub");
    let (hub, _) = hub::connect(arguments.hub_kubeconfig.as_deref()).await?;
    let clusters = hub::clusters(&hub).await?;
    let Some(cluster) = clusters.iter().find(|one| one.metadata.name.as_ref() == Some(name)) else {
        let known: Vec<&str> = clusters.iter().filter_map(|one| one.metadata.name.as_deref()).collect();
        match known.is_empty() {
            true => bail!("there is no cluster {name} on the hub; none has joined"),
            false => bail!("there is no cluster {name} on the hub; it has {}", known.join(", ")),
        }
    };
    // The credential goes with the cluster, and is needed after it.
    let kubeconfig = stored(&hub, cluster).await;

    progress.step(format!("removing {name} and its copies from the hub"));
    hub::unregister(&hub, name, |text| progress.detail(text)).await?;

    progress.step(format!("removing what Umbra made in {name}"));
    let cleaned = match &kubeconfig {
        Some(kubeconfig) => clean(name, kubeconfig, cluster, arguments.keep_objects).await,
        None => Err(anyhow::anyhow!("its credential is not on the hub")),
    };
    progress.finish();
    say(cluster, cleaned, kubeconfig.as_ref(), arguments.keep_objects)
}

/// The kubeconfig of the cluster's Secret; `None` where there is none that can be read.
async fn stored(hub: &Client, cluster: &ManagedCluster) -> Option<Kubeconfig> {
    let reference = cluster.spec.connection.credentials_secret_ref.as_ref()?;
    let secrets: Api<Secret> = Api::namespaced(hub.clone(), SYSTEM_NAMESPACE);
    let secret = secrets.get_opt(&reference.name).await.ok()??;
    let text = String::from_utf8(secret.data?.remove("kubeconfig")?.0).ok()?;
    Kubeconfig::parse(&text, "the stored kubeconfig").ok()
}

/// Removes what Umbra made in the child, if that is still the cluster that joined.
async fn clean(name: &str, kubeconfig: &Kubeconfig, cluster: &ManagedCluster, keep_objects: bool) -> Result<Cleaned> {
    let child = ChildCluster::reach(name, &kubeconfig.current_context, kubeconfig).await?;
    let recorded = cluster.status.as_ref().map_or("", |status| status.uid.as_str());
    let cleaned = async {
        if !recorded.is_empty() && recorded != child.uid {
            bail!("another cluster answers at its address now");
        }
        let (placed, namespaces) = if keep_objects {
            (Vec::new(), Vec::new())
        } else {
            child.delete_placed().await?
        };
        let binding = child.unbind_administrators(&binding_name(cluster)).await?;
        Ok(Cleaned {
            placed,
            namespaces,
            binding,
        })
    };
    let cleaned = cleaned.await;
    child.close().await;
    cleaned
}

fn say(
    cluster: &ManagedCluster,
    cleaned: Result<Cleaned>,
    kubeconfig: Option<&Kubeconfig>,
    keep_objects: bool,
) -> Result<()> {
    let name = cluster.metadata.name.as_deref().unwrap_or_default();
    let binding = binding_name(cluster);
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{name} has left: its copies and its credential are no longer on the hub"
    )?;
    match cleaned {
        Ok(cleaned) => {
            if cleaned.binding {
                writeln!(out, "deleted from the cluster: ClusterRoleBinding {binding}")?;
            }
            for placed in &cleaned.placed {
                writeln!(out, "deleted from the cluster: {placed}")?;
            }
            for namespace in &cleaned.namespaces {
                writeln!(
                    out,
                    "kept in the cluster: Namespace {namespace}, which a fleet made; delete it if nothing in it is needed"
                )?;
            }
        }
        Err(error) => {
            let context = kubeconfig.map_or("CONTEXT", |one| one.current_context.as_str());
            writeln!(
                out,
                "warning: what Umbra made in the cluster may still be there: {error:#}"
            )?;
            writeln!(out, "to remove it:")?;
            writeln!(out, "  kubectl --context {context} delete clusterrolebinding {binding}")?;
            if !keep_objects {
                writeln!(
                    out,
                    "and what `kubectl --context {context} get all -A -l {FLEET_LABEL}` shows"
                )?;
            }
        }
    }
    Ok(())
}
