//! The `umbra` binary: hubs, standalone and behind a kube-apiserver, and what joins clusters to them.

mod agent;
mod approve;
mod backup;
mod doctor;
mod duration;
mod hub;
mod join;
mod kubeconfig;
mod leave;
mod progress;
mod registration;
mod restore;
mod serve;
mod signals;
mod terminal;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// One Kubernetes API over many clusters.
#[derive(Parser)]
#[command(name = "umbra", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// What to log to standard error: error, warn, info, debug, trace, or a filter such as `umbra_child=debug,info`.
    #[arg(
        long,
        global = true,
        env = "UMBRA_LOG",
        default_value = "warn,kube_client=off",
        value_name = "FILTER"
    )]
    log: String,
}

#[derive(Subcommand)]
enum Command {
    /// Run a standalone hub, on the embedded store or on etcd.
    Up(up::UpArguments),
    /// Run the hub behind a kube-apiserver, as the API server of its APIService.
    Serve(Box<serve::ServeArguments>),
    /// Make a cluster of a kubeconfig a child of the hub.
    Join(join::JoinArguments),
    /// Let the agent of a cluster have the certificate that it asks for.
    Approve(approve::ApproveArguments),
    /// Refuse it, or take it back: tunnels of the cluster are cut.
    Deny(approve::ApproveArguments),
    /// Run in a cluster that the hub cannot dial, and have the hub reach it through a tunnel.
    Agent(Box<agent::AgentArguments>),
    /// Take a child out of the hub and leave nothing behind.
    Leave(leave::LeaveArguments),
    /// Write contexts that lead to views, fleets and children, with your own credentials.
    Kubeconfig(kubeconfig::KubeconfigArguments),
    /// Look at an installation, and say what is wrong and how to mend it.
    Doctor(doctor::DoctorArguments),
    /// Write everything the hub cannot be made anew without into one file, while it runs or not.
    Backup(backup::BackupArguments),
    /// Make a data directory of a backup.
    Restore(restore::RestoreArguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_new(&arguments.log).unwrap_or_else(|_| EnvFilter::new("warn,kube_client=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .expect("nothing has installed a cryptography provider before main");
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    match runtime.block_on(run(arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", terminal::lines(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Up(arguments) => up::run(arguments).await,
        Command::Serve(arguments) => serve::run(*arguments).await,
        Command::Join(arguments) => join::run(arguments).await,
        Command::Approve(arguments) => approve::run(arguments, approve::Decision::Approve).await,
        Command::Deny(arguments) => approve::run(arguments, approve::Decision::Deny).await,
        Command::Agent(arguments) => agent::run(*arguments).await,
        Command::Leave(arguments) => leave::run(arguments).await,
        Command::Kubeconfig(arguments) => kubeconfig::run(arguments).await,
        Command::Doctor(arguments) => doctor::run(arguments).await,
        Command::Backup(arguments) => backup::run(arguments).await,
        Command::Restore(arguments) => restore::run(arguments).await,
    }
}
