//! `umbra up`: a standalone hub, on the embedded store or on etcd.

pub(crate) mod data_dir;
mod demo;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use umbra_child::kubeconfig::{Kubeconfig, default_paths, merge_into};

use crate::hub::{Hub, HubArguments};
use crate::progress::Progress;
use data_dir::DataDir;

/// What `umbra up` takes.
#[derive(Args)]
pub(crate) struct UpArguments {
    /// Where the store, the keys and the kubeconfig are kept [default: ~/.umbra].
    #[arg(long, env = "UMBRA_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen.
    #[arg(
        long,
        env = "UMBRA_LISTEN",
        default_value = "127.0.0.1:7443",
        value_name = "ADDRESS:PORT"
    )]
    listen: SocketAddr,
    /// Add three simulated children (east, west, edge) with sample workloads.
    #[arg(long)]
    demo: bool,
    /// Add the contexts to your own kubeconfig too ($KUBECONFIG or ~/.kube/config).
    #[arg(long)]
    merge_kubeconfig: bool,
    #[command(flatten)]
    hub: HubArguments,
}

/// Runs until Ctrl-C or SIGTERM.
///
/// # Errors
/// Whatever keeps the hub from starting.
pub(crate) async fn run(arguments: UpArguments) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be received")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be received")?;
    let start = start(&arguments);
    let running = tokio::select! {
        running = start => running?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("stopping; another Ctrl-C stops at once");
    tokio::select! {
        () = running.stop() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

struct Running {
    hub: Hub,
    demo: Option<demo::Demo>,
}

impl Running {
    /// The hub goes first, so that it does not see its children fail.
    async fn stop(self) {
        self.hub.stop().await;
        if let Some(demo) = self.demo {
            demo.stop().await;
        }
    }
}

async fn start(arguments: &UpArguments) -> Result<Running> {
    let mut progress = Progress::new();
    let path = match &arguments.data_dir {
        Some(path) => path.clone(),
        None => home()
            .context("there is no home directory; say where to keep data with --data-dir")?
            .join(".umbra"),
    };
    progress.step(format!("opening {}", path.display()));
    let data = DataDir::open(&path)?;
    progress.step("starting the hub");
    let hub = Hub::start(&data, &arguments.hub, arguments.listen).await?;
    let kubeconfig = data.write_kubeconfig(hub.address())?;
    let merged = if arguments.merge_kubeconfig {
        Some(merge(&kubeconfig)?)
    } else {
        None
    };
    let demo = if arguments.demo {
        Some(demo::start(&path, &hub, &mut progress).await?)
    } else {
        None
    };
    progress.finish();
    announce(&hub, &data, merged.as_ref(), demo.is_some());
    Ok(Running { hub, demo })
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
}

/// Adds the contexts to the first file that kubectl would use. The current context stays whose it is: a command that was
/// meant for one cluster must not reach another because a hub was started.
fn merge(kubeconfig: &Kubeconfig) -> Result<PathBuf> {
    let paths = default_paths(std::env::var_os("KUBECONFIG").as_deref(), home().as_deref());
    let path = paths
        .into_iter()
        .next()
        .context("there is no kubeconfig to add the contexts to; set KUBECONFIG")?;
    let additions = Kubeconfig {
        current_context: String::new(),
        ..kubeconfig.clone()
    };
    merge_into(&path, &additions).with_context(|| format!("the contexts are not added to {}", path.display()))?;
    Ok(path)
}

fn announce(hub: &Hub, data: &DataDir, merged: Option<&PathBuf>, demo: bool) {
    eprintln!("umbra is up on {}", data_dir::base_url(hub.address()));
    match merged {
        Some(path) => eprintln!("contexts umbra, umbra-view and umbra-fleet are in {}", path.display()),
        None => eprintln!("\n  export KUBECONFIG={}\n", data.kubeconfig().display()),
    }
    eprintln!("try:");
    let lines: &[&str] = if demo { &demo::TRY } else { &TRY };
    for line in lines {
        eprintln!("  {line}");
    }
    eprintln!("\nCtrl-C stops it.");
}

/// What to try on a hub without children.
const TRY: [&str; 3] = [
    "umbra join NAME --context CONTEXT        # makes a cluster of your kubeconfig a child",
    "kubectl --context umbra get managedclusters",
    "kubectl --context umbra-view get pods -A",
];
