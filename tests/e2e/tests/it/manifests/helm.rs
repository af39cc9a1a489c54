//! Helm itself, on the chart.

use std::path::{Path, PathBuf};
use std::process::Command;

use umbra_e2e::environment::{self, Programs};
use umbra_e2e::kubectl::Outcome;

use super::folder;

/// Helm itself, with a kubeconfig.
pub(super) struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Helm {
    pub(super) fn new(programs: &Programs, kubeconfig: &Path) -> Self {
        Self {
            program: programs.kubectl.with_file_name("helm"),
            kubeconfig: kubeconfig.to_owned(),
        }
    }

    pub(super) fn run(&self, arguments: &[&str]) -> Outcome {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("HOME", environment::home())
            .env("KUBECONFIG", &self.kubeconfig);
        Outcome::of(command, "")
    }

    /// What `arguments` make of the chart.
    #[track_caller]
    pub(super) fn template(&self, arguments: &[&str]) -> String {
        let chart = folder("chart");
        let chart = chart.to_string_lossy();
        let all = [&["template", "umbra", &chart][..], arguments].concat();
        self.run(&all).expect_success()
    }

    /// `helm install` or `helm upgrade`.
    #[track_caller]
    pub(super) fn release(&self, verb: &str, arguments: &[&str]) -> String {
        let chart = folder("chart");
        let chart = chart.to_string_lossy();
        let all = [&[verb, "umbra", &chart, "--namespace=default"][..], arguments].concat();
        self.run(&all).expect_success()
    }
}
