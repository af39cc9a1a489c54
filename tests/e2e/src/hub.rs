//! Hubs: `umbra up`, and the commands beside it.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::environment::{self, Programs};
use crate::kubectl::{Kubectl, Outcome};
use crate::process::Process;
use crate::wait;

/// A hub.
#[derive(Debug)]
pub struct Hub {
    programs: Programs,
    folder: PathBuf,
    port: u16,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    process: Option<Process>,
}

impl Hub {
    /// Starts a hub with an empty data directory; it is ready when this returns.
    ///
    /// # Panics
    /// Where it does not become ready.
    #[must_use]
    pub fn start(programs: &Programs, flags: &[&str]) -> Self {
        Self::start_with(programs, flags, &[])
    }

    /// Starts a hub with an empty data directory and variables in its environment; it is ready when this returns.
    ///
    /// # Panics
    /// Where it does not become ready.
    #[must_use]
    pub fn start_with(programs: &Programs, flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut hub = Self {
            programs: programs.clone(),
            folder: environment::folder("hub"),
            port: environment::free_port(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            process: None,
        };
        hub.start_again();
        hub
    }

    /// Starts it after it was stopped or killed, with the same data, address and flags.
    ///
    /// # Panics
    /// Where it runs or does not become ready.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the hub runs");
        let listen = format!("127.0.0.1:{}", self.port);
        let mut command = umbra(&self.programs);
        command
            .arg("up")
            .arg("--data-dir")
            .arg(&self.folder)
            .args(["--listen", &listen])
            .args(&self.flags)
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        let mut process = Process::start_logged(command, &self.folder.with_extension("log"));
        let kubectl = self.kubectl();
        wait::until("the hub is ready", wait::DEADLINE, || {
            assert!(process.ended().is_none(), "umbra up ended\n{}", process.output());
            if !self.kubeconfig().exists() {
                return Err(process.output());
            }
            let outcome = kubectl.run("get --raw /readyz");
            if outcome.succeeded() {
                Ok(())
            } else {
                Err(format!("{outcome}\n{}", process.output()))
            }
        });
        self.process = Some(process);
    }

    /// The URL of the hub root.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The URL of the root of one child.
    #[must_use]
    pub fn cluster_url(&self, cluster: &str) -> String {
        format!("{}/apis/umbra.dev/v1alpha1/managedclusters/{cluster}/proxy", self.url())
    }

    /// The URL of the view of all children.
    #[must_use]
    pub fn view_url(&self) -> String {
        format!("{}/apis/umbra.dev/v1alpha1/views/all/proxy", self.url())
    }

    /// The URL of the fleet of all children.
    #[must_use]
    pub fn fleet_url(&self) -> String {
        format!("{}/apis/umbra.dev/v1alpha1/fleets/all/proxy", self.url())
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The kubeconfig that the hub writes.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.programs, &self.kubeconfig())
    }

    /// kubectl as the administrator, on the hub root.
    #[must_use]
    pub fn root(&self) -> Kubectl {
        self.kubectl().context("umbra")
    }

    /// kubectl as the administrator, on the view of all children.
    #[must_use]
    pub fn view(&self) -> Kubectl {
        self.kubectl().context("umbra-view")
    }

    /// kubectl as the administrator, on the fleet of all children.
    #[must_use]
    pub fn fleet(&self) -> Kubectl {
        self.kubectl().context("umbra-fleet")
    }

    /// kubectl as the administrator, on the root of one child.
    #[must_use]
    pub fn child(&self, cluster: &str) -> Kubectl {
        self.root().server(&self.cluster_url(cluster))
    }

    /// Runs `umbra` with arguments to its end.
    ///
    /// # Panics
    /// Where it does not end.
    #[track_caller]
    pub fn umbra(&self, arguments: &[&str]) -> Outcome {
        let mut command = umbra(&self.programs);
        command.args(arguments);
        Outcome::of(command, "")
    }

    /// `umbra join NAME --context CONTEXT --kubeconfig FILE --hub-kubeconfig …`.
    ///
    /// # Panics
    /// Where it does not end.
    #[track_caller]
    pub fn join(&self, name: &str, context: &str, kubeconfig: &Path) -> Outcome {
        let kubeconfig = kubeconfig.to_string_lossy();
        let hub = self.kubeconfig();
        self.umbra(&[
            "join",
            name,
            "--context",
            context,
            "--kubeconfig",
            &kubeconfig,
            "--hub-kubeconfig",
            &hub.to_string_lossy(),
        ])
    }

    /// `umbra leave NAME --hub-kubeconfig …`.
    ///
    /// # Panics
    /// Where it does not end.
    #[track_caller]
    pub fn leave(&self, name: &str) -> Outcome {
        self.umbra(&["leave", name, "--hub-kubeconfig", &self.kubeconfig().to_string_lossy()])
    }

    /// Waits until a child is ready: reachable, and copied.
    ///
    /// # Panics
    /// After [`wait::DEADLINE`].
    #[track_caller]
    pub fn wait_for_child(&self, name: &str) {
        let root = self.root();
        wait::for_text(
            &format!("{name} is ready"),
            || root.path(["managedcluster", name], r#"{.status.conditions}"#),
            |text| {
                let conditions: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
                conditions
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| one["type"] == "Ready" && one["status"] == "True"))
            },
        );
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    /// Where it does not run.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("the hub runs");
        process.signal(Signal::KILL);
        process.wait(wait::DEADLINE);
    }

    /// Stops it with SIGTERM, and returns the process for its output and status.
    ///
    /// # Panics
    /// Where it does not run or does not stop.
    #[track_caller]
    pub fn stop(&mut self) -> (std::process::ExitStatus, Process) {
        let mut process = self.process.take().expect("the hub runs");
        (process.stop(), process)
    }

    /// Sends what Ctrl-C sends, and returns the process.
    ///
    /// # Panics
    /// Where it does not run.
    #[track_caller]
    pub fn interrupt(&mut self) -> Process {
        let process = self.process.take().expect("the hub runs");
        process.signal(Signal::INT);
        process
    }

    /// What it has printed.
    #[must_use]
    pub fn output(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::output)
    }

    /// What it has printed to standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.process.as_ref().map_or_else(String::new, Process::stdout)
    }
}

/// `umbra` with a home directory of its own.
#[must_use]
pub fn umbra(programs: &Programs) -> Command {
    let mut command = Command::new(&programs.umbra);
    command
        .env("HOME", environment::home())
        .env_remove("KUBECONFIG")
        .env_remove("RUST_LOG");
    command
}
