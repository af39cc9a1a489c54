//! Benchmarks: what Umbra's budgets are measured with. One subcommand per layer.
//!
//! A benchmark yields figures ([`figure::Figure`]): the median and the spread of several runs, after a warm-up. Those with a
//! bound are recorded for `make show-…`; nothing here fails because a machine is slow or busy. The machine is described
//! ([`machine`]) at the top of what is printed, because a figure without it says nothing.
//!
//! What has to be measured in a process of its own, such as resident memory, runs in a child of this program (`storage::worker`).

mod chart;
mod children;
mod figure;
mod machine;
mod output;
mod pods;
mod report;
mod storage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// As in the `umbra` binary: figures about memory would say nothing with another allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures what Umbra's budgets are about.
#[derive(Debug, Parser)]
#[command(name = "umbra-bench", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the store and the watch cache.
    Storage(storage::StorageArguments),
    /// Measure reaching a child: directly, through Umbra, and through `kubectl proxy`, side by side.
    Children(children::ChildrenArguments),
    /// What `storage` runs in processes of their own.
    #[command(hide = true)]
    Worker(storage::worker::WorkerArguments),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Storage(arguments) => storage::run(arguments),
        Command::Children(arguments) => children::run(&arguments),
        Command::Worker(arguments) => storage::worker::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(format_args!("umbra-bench: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
