//! What the tests ask of a hub, whatever its form.
//!
//! A hub has two forms: alone, a [`Hub`](crate::hub::Hub), and behind a kube-apiserver, an
//! [`Aggregated`](crate::aggregated::Aggregated). What users do with it is the same in both, so most tests know only [`AnyHub`].

use std::path::{Path, PathBuf};

use crate::aggregated::Aggregated;
use crate::environment::Programs;
use crate::hub::umbra;
use crate::kubectl::{Kubectl, Outcome};
use crate::wait;

/// What the tests ask of a hub, whatever its form.
pub trait AnyHub: std::fmt::Debug + Send + Sync {
    /// The programs.
    fn programs(&self) -> &Programs;
    /// The URL of the hub root.
    fn url(&self) -> String;
    /// The kubeconfig of the administrator.
    fn kubeconfig(&self) -> PathBuf;
    /// The folder with the authority of the users' certificates.
    fn folder(&self) -> &Path;
    /// What the administrator is called, on the hub and in the children.
    fn administrator(&self) -> &'static str;
    /// Where somebody without good intentions could knock.
    fn doors(&self) -> Vec<Door>;
    /// kubectl as the administrator, on the hub root.
    fn root(&self) -> Kubectl;
    /// The hub behind a kube-apiserver, where it is one.
    fn aggregated(&self) -> Option<&Aggregated> {
        None
    }
    /// Kills what serves it with SIGKILL; where several processes do, one or all of them, in turn.
    ///
    /// # Panics
    /// Where it does not run.
    fn crash(&self);
    /// Starts again what was killed; it is ready when this returns.
    ///
    /// # Panics
    /// Where it does not become ready.
    fn recover(&self);

    /// The URL of a root.
    fn root_url(&self, resource: &str, name: &str) -> String {
        format!("{}/apis/umbra.dev/v1alpha1/{resource}/{name}/proxy", self.url())
    }

    /// The URL of the root of one child.
    fn cluster_url(&self, cluster: &str) -> String {
        self.root_url("managedclusters", cluster)
    }

    /// The URL of the view of all children.
    fn view_url(&self) -> String {
        self.root_url("views", "all")
    }

    /// The URL of the fleet of all children.
    fn fleet_url(&self) -> String {
        self.root_url("fleets", "all")
    }

    /// kubectl as the administrator, on the view of all children.
    fn view(&self) -> Kubectl {
        self.root().server(&self.view_url())
    }

    /// kubectl as the administrator, on the fleet of all children.
    fn fleet(&self) -> Kubectl {
        self.root().server(&self.fleet_url())
    }

    /// kubectl as the administrator, on the root of one child.
    fn child(&self, cluster: &str) -> Kubectl {
        self.root().server(&self.cluster_url(cluster))
    }

    /// Runs `umbra` with arguments to its end.
    ///
    /// # Panics
    /// Where it does not end.
    #[track_caller]
    fn umbra(&self, arguments: &[&str]) -> Outcome {
        let mut command = umbra(self.programs());
        command.args(arguments);
        Outcome::of(command, "")
    }

    /// `umbra join NAME --context CONTEXT --kubeconfig FILE --hub-kubeconfig …`.
    ///
    /// # Panics
    /// Where it does not end.
    #[track_caller]
    fn join(&self, name: &str, context: &str, kubeconfig: &Path) -> Outcome {
        let (kubeconfig, hub) = (kubeconfig.to_string_lossy(), self.kubeconfig());
        let files = ["--kubeconfig", &kubeconfig, "--hub-kubeconfig", &hub.to_string_lossy()];
        self.umbra(&[&["join", name, "--context", context], files.as_slice()].concat())
    }

    /// `umbra leave NAME --hub-kubeconfig …`.
    ///
    /// # Panics
    /// Where it does not end.
    #[track_caller]
    fn leave(&self, name: &str) -> Outcome {
        self.umbra(&["leave", name, "--hub-kubeconfig", &self.kubeconfig().to_string_lossy()])
    }

    /// Waits until a child is ready: reachable, and copied.
    ///
    /// # Panics
    /// After [`wait::DEADLINE`].
    #[track_caller]
    fn wait_for_child(&self, name: &str) {
        let root = self.root();
        let path = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
        wait::for_text(
            &format!("{name} is ready"),
            || root.path(["managedcluster", name], path),
            |text| text == "True",
        );
    }
}

/// A port that answers requests to a hub.
#[derive(Debug)]
pub struct Door {
    /// Who answers there.
    pub name: &'static str,
    /// The port of 127.0.0.1.
    pub port: u16,
    /// The authority of its certificate, as PEM.
    pub authority_pem: String,
}
