//! Real clusters: etcd, kube-apiserver, controllers and a kubelet stand-in, as `tests/kube` builds them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::environment::{self, Programs};
use crate::kubectl::Kubectl;
use crate::process::Process;

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its name, and that of the context in its kubeconfig.
    pub name: String,
    folder: PathBuf,
    server: String,
    etcd: String,
    kubectl: Kubectl,
    process: Mutex<Process>,
}

/// A little more than a cluster gives itself to start (`startDeadline` in `tests/kube/cmd/cluster`): what it says then is why it
/// has not.
const START: Duration = Duration::from_secs(200);

impl Cluster {
    /// Starts a cluster; it is usable when this returns.
    ///
    /// # Panics
    /// Where it does not become usable.
    #[must_use]
    pub fn start(programs: &Programs, name: &str) -> Self {
        let folder = environment::folder(name);
        let mut command = Command::new(&programs.cluster);
        command
            .arg("--name")
            .arg(name)
            .arg("--dir")
            .arg(&folder)
            .arg("--exit-with-stdin");
        let mut process = Process::start(command, None);
        let line = process.wait_for_within(START, "readiness", |text| text.contains('\n'));
        let ready: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let server = ready["server"].as_str().expect("a ready cluster has a URL").to_owned();
        let etcd = ready["etcd"].as_str().unwrap_or_default().to_owned();
        let kubectl = Kubectl::new(programs, &folder.join("kubeconfig"));
        Self {
            name: name.to_owned(),
            folder,
            server,
            etcd,
            kubectl,
            process: Mutex::new(process),
        }
    }

    /// Its kubeconfig: the administrator with a client certificate.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// A kubeconfig of the administrator with a bearer token.
    #[must_use]
    pub fn token_kubeconfig(&self) -> PathBuf {
        self.folder.join("token.kubeconfig")
    }

    /// The folder with its authority.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The URL of its API server.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The URL of its etcd.
    #[must_use]
    pub fn etcd(&self) -> &str {
        &self.etcd
    }

    /// The number of its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .id()
    }

    /// kubectl as its administrator, directly.
    #[must_use]
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// Makes it stop answering, without closing a connection, as long as what is returned lives.
    #[must_use]
    pub fn pause(&self) -> Pause<'_> {
        self.signal(Signal::STOP);
        Pause { cluster: self }
    }

    fn signal(&self, signal: Signal) {
        self.process
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .signal(signal);
    }
}

/// A cluster that does not answer.
#[derive(Debug)]
pub struct Pause<'a> {
    cluster: &'a Cluster,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.cluster.signal(Signal::CONT);
    }
}
