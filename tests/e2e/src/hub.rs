//! Standalone hubs: `umbra up`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::Signal;

use crate::any_hub::{AnyHub, Door};
use crate::environment::{self, Programs};
use crate::identity;
use crate::kubectl::Kubectl;
use crate::process::Process;
use crate::wait;

/// A standalone hub.
#[derive(Debug)]
pub struct Hub {
    programs: Programs,
    folder: PathBuf,
    port: u16,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    process: Mutex<Option<Process>>,
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
        let hub = Self {
            programs: programs.clone(),
            folder: environment::folder("hub"),
            port: environment::free_port(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            process: Mutex::default(),
        };
        hub.start_again();
        hub
    }

    /// Starts it after it was stopped or killed, with the same data, address and flags.
    ///
    /// # Panics
    /// Where it runs or does not become ready.
    pub fn start_again(&self) {
        let mut running = self.process();
        assert!(running.is_none(), "the hub runs");
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
        *running = Some(process);
    }

    /// The number of its process.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process().as_ref().expect("the hub runs").id()
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

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kubectl(&self) -> Kubectl {
        Kubectl::new(&self.programs, &self.kubeconfig())
    }

    /// Kills it with SIGKILL.
    ///
    /// # Panics
    /// Where it does not run.
    #[track_caller]
    pub fn kill(&self) {
        let mut process = self.process().take().expect("the hub runs");
        process.signal(Signal::KILL);
        process.wait(wait::DEADLINE);
    }

    /// Stops it with SIGTERM, and returns the process for its output and status.
    ///
    /// # Panics
    /// Where it does not run or does not stop.
    #[track_caller]
    pub fn stop(&self) -> (std::process::ExitStatus, Process) {
        let mut process = self.process().take().expect("the hub runs");
        (process.stop(), process)
    }

    /// Sends what Ctrl-C sends, and returns the process.
    ///
    /// # Panics
    /// Where it does not run.
    #[track_caller]
    pub fn interrupt(&self) -> Process {
        let process = self.process().take().expect("the hub runs");
        process.signal(Signal::INT);
        process
    }

    /// What it has printed.
    #[must_use]
    pub fn output(&self) -> String {
        self.process().as_ref().map_or_else(String::new, Process::output)
    }

    /// What it has printed to standard output.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.process().as_ref().map_or_else(String::new, Process::stdout)
    }
}

impl AnyHub for Hub {
    fn programs(&self) -> &Programs {
        &self.programs
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// As the hub writes it.
    fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    fn administrator(&self) -> &'static str {
        "umbra-admin"
    }

    fn doors(&self) -> Vec<Door> {
        vec![Door {
            name: "the hub",
            port: self.port,
            authority_pem: identity::authority(&self.folder).certificate_pem().to_owned(),
        }]
    }

    fn root(&self) -> Kubectl {
        self.kubectl().context("umbra")
    }

    /// By the context that the hub writes.
    fn view(&self) -> Kubectl {
        self.kubectl().context("umbra-view")
    }

    /// By the context that the hub writes.
    fn fleet(&self) -> Kubectl {
        self.kubectl().context("umbra-fleet")
    }

    fn crash(&self) {
        self.kill();
    }

    fn recover(&self) {
        self.start_again();
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
