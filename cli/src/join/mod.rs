//! `umbra join`: any cluster of the user's kubeconfig becomes a child of the hub.
//!
//! Everything that can be checked is checked before anything is written, and what was written is taken back where a later
//! step fails or the user interrupts.

pub(crate) mod child;
pub(crate) mod clock;
pub(crate) mod hub;
mod rehearsal;
mod tunnel;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use kube::Client;
use umbra_api::cluster::{ManagedCluster, condition};
use umbra_apimachinery::names::is_dns1123_label;
use umbra_child::kubeconfig::{Kubeconfig, default_paths};

use crate::duration::duration;
use crate::progress::Progress;
use crate::registration::{Administrators, Registration, binding_name, create, wait_until_ready, write_secret};
use crate::signals::interrupted;
use crate::terminal::one_line;
use child::ChildCluster;

/// What `umbra join` takes.
#[derive(Args)]
pub(crate) struct JoinArguments {
    /// What to call the cluster on the hub: the part after @ in names, and the value of the label umbra.dev/cluster.
    #[arg(value_name = "NAME", value_parser = cluster_name)]
    name: String,
    /// The context of the kubeconfig that reaches the cluster.
    #[arg(
        long,
        value_name = "CONTEXT",
        required = false,
        required_unless_present = "tunnel",
        conflicts_with = "tunnel",
        default_value_if("tunnel", "true", "")
    )]
    context: String,
    /// The kubeconfig that has the context [default: $KUBECONFIG or ~/.kube/config].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig of the hub, as `umbra up` writes it [default: ~/.umbra/kubeconfig].
    #[arg(long, env = "UMBRA_HUB_KUBECONFIG", value_name = "FILE")]
    hub_kubeconfig: Option<PathBuf>,
    /// A label of the ManagedCluster, by which views, fleets and placements select it; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Do not make the hub's administrators administrators of the cluster. Without this flag a ClusterRoleBinding umbra:admins:UID
    /// binds the group umbra:admins, which a hub of `umbra up` gives to its administrator, or where the hub has users of its own,
    /// the user of the hub's kubeconfig.
    #[arg(long)]
    no_admin_binding: bool,
    /// The hub runs with --allow-exec-credentials, too: join a cluster behind a kube-apiserver's hub with a kubeconfig whose
    /// credential a program prints.
    #[arg(long, conflicts_with = "tunnel")]
    allow_exec_credentials: bool,
    /// How long the hub may take to reach and copy the cluster.
    #[arg(long, default_value = "60s", value_name = "DURATION", value_parser = duration)]
    timeout: Duration,
    // The last, because its heading is that of all flags after it.
    #[command(flatten)]
    tunnel: tunnel::TunnelArguments,
}

/// Joins the cluster.
///
/// # Errors
/// What keeps the cluster from being joined, and what to do.
pub(crate) async fn run(arguments: JoinArguments) -> Result<()> {
    if arguments.tunnel.tunnel {
        let registered = tunnel::Registered {
            name: &arguments.name,
            labels: &arguments.labels,
            hub_kubeconfig: arguments.hub_kubeconfig.as_deref(),
            admin_binding: !arguments.no_admin_binding,
        };
        return tunnel::run(registered, &arguments.tunnel).await;
    }
    let mut progress = Progress::new();
    let flat = load(arguments.kubeconfig.as_deref(), &arguments.context)?;
    progress.step("looking for the hub");
    let (hub, hub_path) = hub::connect(arguments.hub_kubeconfig.as_deref()).await?;
    rehearsal::check_program(&flat, hub::is_standalone(&hub_path)?, arguments.allow_exec_credentials)?;
    let administrators = match arguments.no_admin_binding {
        true => None,
        false => Some(hub::administrators(&hub).await?),
    };

    progress.step(format!("looking at cluster {:?}", arguments.context));
    let child = ChildCluster::reach(&arguments.name, &arguments.context, &flat).await?;
    check_clashes(&hub, &arguments.name, &child.uid).await?;
    let clock = child.check_clock().await?.into_iter().collect();
    let registration = Registration {
        name: arguments.name.clone(),
        labels: arguments.labels.iter().cloned().collect(),
        kubeconfig: flat,
    };
    rehearsal::register(&hub, &registration).await?;
    if let Some(administrators) = &administrators {
        child.rehearse_binding(administrators).await?;
    }
    let warnings = [
        clock,
        child::doubts(&registration.kubeconfig)?,
        child.missing_permissions().await?,
    ]
    .concat();
    for warning in &warnings {
        progress.note(&format!("warning: {warning}"));
    }

    let mut made = Made::default();
    let joining = Joining {
        hub: &hub,
        child: &child,
        registration: &registration,
        administrators: administrators.as_ref(),
        patience: arguments.timeout,
    };
    let joined = tokio::select! {
        joined = joining.run(&mut progress, &mut made) => joined,
        signal = interrupted() => Err(signal.err().unwrap_or_else(|| anyhow!("interrupted"))),
    };
    let result = match joined {
        Ok(cluster) => {
            progress.finish();
            announce(&arguments.name, &cluster, &hub_path)
        }
        Err(error) => {
            if made.registered {
                progress.step("taking back what was written");
            }
            tokio::select! {
                () = made.undo(&arguments.name, &hub, &child) => {}
                _ = interrupted() => eprintln!("warning: not all was taken back; run `umbra leave {}`", arguments.name),
            }
            drop(progress);
            Err(error)
        }
    };
    child.close().await;
    result
}

/// What was written so far.
#[derive(Default)]
struct Made {
    /// The name of the binding in the child.
    binding: Option<String>,
    registered: bool,
}

impl Made {
    /// Takes it back, as far as it can be. What cannot be is said.
    async fn undo(&self, name: &str, hub: &Client, child: &ChildCluster) {
        if self.registered
            && let Err(error) = hub::unregister(hub, name, |_| {}).await
        {
            eprintln!("warning: {error:#}; run `umbra leave {name}`");
        }
        if let Some(binding) = &self.binding
            && let Err(error) = child.unbind_administrators(binding).await
        {
            eprintln!("warning: {error:#}; to remove it in the cluster: kubectl delete clusterrolebinding {binding}");
        }
    }
}

/// The context, with the content of all files in it; of `file`, or of those that kubectl reads.
///
/// # Errors
/// Where there is no such file or context, or the context is not complete.
pub(crate) fn load(file: Option<&Path>, context: &str) -> Result<Kubeconfig> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let paths = match file {
        Some(path) => vec![path.to_owned()],
        None => default_paths(std::env::var_os("KUBECONFIG").as_deref(), home.as_deref()),
    };
    let shown = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ");
    let config = match file {
        Some(path) => Kubeconfig::load(path),
        None => Kubeconfig::load_all(&paths),
    };
    // The messages have their causes in them.
    let config = config
        .map_err(|error| anyhow!("the kubeconfig cannot be read ({error}); name another one with --kubeconfig"))?;
    let flat = config.flatten(Some(context));
    flat.map_err(|error| anyhow!("{shown} cannot be used to reach the cluster: {error}"))
}

/// Refuses a name that is taken, and a cluster that is joined already.
async fn check_clashes(hub: &Client, name: &str, uid: &str) -> Result<()> {
    if hub::uid(hub).await?.as_deref() == Some(uid) {
        bail!(
            "the context leads to the hub itself, which cannot be its own child; name the context of another cluster"
        );
    }
    for cluster in hub::clusters(hub).await? {
        let other = cluster.metadata.name.as_deref().unwrap_or_default();
        let same = cluster.status.as_ref().is_some_and(|status| status.uid == uid);
        let server = &cluster.spec.connection.server;
        match (other == name, same) {
            (true, true) => {
                bail!("this cluster is already joined as {name}; to join it anew run `umbra leave {name}` first")
            }
            (true, false) => bail!(
                "the name {name} is taken by the cluster at {server}; choose another name, or take that cluster out with \
                 `umbra leave {name}`"
            ),
            (false, true) => bail!(
                "this cluster is already joined, as {other}; every object would be shown twice. To rename it run `umbra leave \
                 {other}` first"
            ),
            (false, false) => {}
        }
    }
    Ok(())
}

/// What is written, once everything has been checked.
struct Joining<'a> {
    hub: &'a Client,
    child: &'a ChildCluster,
    registration: &'a Registration,
    administrators: Option<&'a Administrators>,
    patience: Duration,
}

impl Joining<'_> {
    async fn run(&self, progress: &mut Progress, made: &mut Made) -> Result<ManagedCluster> {
        let Self { hub, child, .. } = self;
        let name = &self.registration.name;
        progress.step(format!("registering {name} on the hub"));
        // Also a registration that is half done has to be taken back; one of somebody else has not.
        made.registered = true;
        let cluster = create(hub, self.registration, false).await.map_err(|error| {
            if matches!(error.downcast_ref(), Some(kube::Error::Api(_))) {
                made.registered = false;
            }
            rehearsal::explained(error, name)
        })?;
        write_secret(hub, self.registration, &cluster).await?;
        if let Some(administrators) = self.administrators {
            progress.step("making the hub's administrators administrators of the cluster");
            let binding = made.binding.insert(binding_name(&cluster));
            child.bind_administrators(binding, administrators).await?;
        }
        progress.step(format!("copying {name}"));
        let waited = wait_until_ready(hub, name, self.patience, |text| progress.detail(text)).await;
        match waited {
            Ok(cluster) => Ok(cluster),
            Err(error) => still_copying(hub, name).await.ok_or(error),
        }
    }
}

/// The cluster, where the hub reaches it and is only not done with copying it, which it goes on with.
async fn still_copying(hub: &Client, name: &str) -> Option<ManagedCluster> {
    let clusters: kube::Api<ManagedCluster> = kube::Api::all(hub.clone());
    let cluster = clusters.get(name).await.ok()?;
    hub::condition(&cluster, condition::REACHABLE)
        .is_some_and(|one| one.status == "True")
        .then_some(cluster)
}

fn announce(name: &str, cluster: &ManagedCluster, hub_kubeconfig: &std::path::Path) -> Result<()> {
    let status = cluster.status.clone().unwrap_or_default();
    let copies: i64 = status.resources.iter().map(|one| one.copies).sum();
    let nodes = status.nodes.map_or(String::new(), |nodes| {
        format!(", {nodes} node{}", if nodes == 1 { "" } else { "s" })
    });
    let version = one_line(&status.version);
    let mut out = std::io::stdout().lock();
    match hub::condition(cluster, condition::SYNCED) {
        Some(synced) if synced.status != "True" => {
            writeln!(
                out,
                "{name} has joined (Kubernetes {version}{nodes}); it is still being copied: {}",
                one_line(&synced.message)
            )?;
        }
        _ => writeln!(
            out,
            "{name} has joined: Kubernetes {version}{nodes}, {copies} objects of {} resources are copied",
            status.resources.len()
        )?,
    }
    let [hub, view] = hub::command_lines(hub_kubeconfig)?;
    writeln!(out, "try:")?;
    writeln!(out, "  {view} get pods -A -l umbra.dev/cluster={name}")?;
    writeln!(out, "  {hub} get managedcluster {name}")?;
    Ok(())
}

fn cluster_name(text: &str) -> Result<String, String> {
    if is_dns1123_label(text) {
        return Ok(text.to_owned());
    }
    Err("a name has at most 63 characters of a-z, 0-9 and '-', and begins and ends with one of a-z and 0-9".to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_checked() {
        assert!(cluster_name("east-1").is_ok() && cluster_name("East").is_err() && cluster_name("a.b").is_err());
        assert_eq!(label("region=eu=1"), Ok(("region".to_owned(), "eu=1".to_owned())));
        assert!(label("region").is_err());
    }
}
