//! The processes of umbra behind a kube-apiserver.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::cluster::Cluster;
use crate::environment::{self, Programs};
use crate::hub::umbra;
use crate::identity::{self, Context, Credential};
use crate::process::Process;
use crate::wait;

/// One process of umbra.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) process: Mutex<Process>,
}

impl Replica {
    pub(crate) fn process(&self) -> MutexGuard<'_, Process> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait_until_it_serves(&self) {
        wait::until(&format!("{} serves", self.name), wait::DEADLINE, || {
            let mut process = self.process();
            if process.stderr().contains("umbra serves on") {
                return Ok(());
            }
            assert!(process.ended().is_none(), "umbra serve ended\n{}", process.output());
            Err(process.output())
        });
    }
}

/// Runs umbra as the service account of an installation.
pub(crate) fn serve(programs: &Programs, cluster: &Cluster, name: &str, port: u16, flags: &[&str]) -> Process {
    let mut command = command(programs, cluster, name, port);
    command.args(flags);
    Process::start_logged(command, &cluster.folder().join(format!("umbra-{name}.log")))
}

/// umbra as the service account of an installation.
pub(crate) fn command(programs: &Programs, cluster: &Cluster, name: &str, port: u16) -> Command {
    let folder = environment::folder(name);
    let kubeconfig = folder.join("kubeconfig");
    let token = cluster
        .kubectl()
        .ok("create token umbra -n umbra-system --duration=24h")
        .trim()
        .to_owned();
    identity::write_kubeconfig(
        &kubeconfig,
        &[Context {
            name: "umbra",
            server: cluster.server().to_owned(),
            authority_pem: identity::authority(cluster.folder()).certificate_pem(),
            credential: &Credential::Token(token),
        }],
    );
    let mut command = umbra(programs);
    command
        .arg("serve")
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(["--etcd-servers", cluster.etcd(), "--etcd-prefix", "/umbra-hub"])
        .args(["--replica-name", name])
        .args(["--bind-address", "127.0.0.1", "--secure-port", &port.to_string()]);
    command
}
