//! Umbra as its pod runs it: with the files of a service account where a pod has them, and the variables of the ConfigMap.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use umbra_e2e::cluster::Cluster;
use umbra_e2e::environment::{self, Programs};
use umbra_e2e::hub::umbra;
use umbra_e2e::identity;
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::process::Process;
use umbra_e2e::wait;

/// A cluster where the chart is installed, and umbra runs as in a pod.
pub(super) struct Installed {
    pub(super) cluster: Cluster,
    /// What a pod finds in /var/run/secrets/kubernetes.io/serviceaccount.
    pub(super) account: PathBuf,
    port: u16,
    pub(super) umbra: Process,
    pub(super) begun: Instant,
}

impl Installed {
    pub(super) fn kubectl(&self) -> &Kubectl {
        self.cluster.kubectl()
    }

    /// Starts umbra with the variables of the installed ConfigMap, and a service account's files where a pod has them.
    pub(super) fn start(programs: &Programs, cluster: Cluster) -> Self {
        let account = environment::folder("serviceaccount");
        let authority = identity::authority(cluster.folder());
        std::fs::write(account.join("ca.crt"), authority.certificate_pem()).expect("the folder is there");
        std::fs::write(account.join("namespace"), "umbra-system").expect("the folder is there");
        let kubectl = cluster.kubectl();
        // A token that can be revoked.
        kubectl.ok("create secret generic boot -n umbra-system");
        let token = "create token umbra -n umbra-system --bound-object-kind=Secret --bound-object-name=boot";
        std::fs::write(account.join("token"), kubectl.ok(token).trim()).expect("the folder is there");
        let variables = kubectl.json("get configmap umbra -n umbra-system -o json");
        let (host, port) = address(cluster.server());
        let mut command = Command::new("unshare");
        // Whoever is not root is so in a namespace of users, where that is allowed.
        command.arg(if rustix::process::geteuid().is_root() {
            "-m"
        } else {
            "-rm"
        });
        command
            .args(["sh", "-c", IN_A_POD])
            .arg(&account)
            .arg(&programs.umbra)
            .arg("serve");
        for (name, value) in variables["data"].as_object().expect("the ConfigMap has data") {
            command.env(name, value.as_str().expect("the values of a ConfigMap are texts"));
        }
        let own = environment::free_port();
        command
            .envs(
                umbra(programs)
                    .get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .env_remove("KUBECONFIG")
            .env("KUBERNETES_SERVICE_HOST", host)
            .env("KUBERNETES_SERVICE_PORT", port)
            .env("UMBRA_BIND_ADDRESS", "127.0.0.1")
            .env("UMBRA_SECURE_PORT", own.to_string())
            .env("UMBRA_DATA_DIR", environment::folder("installed").join("data"))
            .env("UMBRA_SHUTDOWN_DELAY_DURATION", "0s")
            .env("UMBRA_LOG", "warn,umbra_apiserver=debug")
            .env("NO_COLOR", "1");
        let log = cluster.folder().join("umbra.log");
        let mut installed = Self {
            umbra: Process::start_logged(command, &log),
            cluster,
            account,
            port: own,
            begun: Instant::now(),
        };
        wait::until("umbra serves", wait::DEADLINE, || {
            let text = installed.umbra.stderr();
            if text.contains("umbra serves on") {
                return Ok(());
            }
            assert!(installed.umbra.ended().is_none(), "umbra serve ended\n{text}");
            Err(text)
        });
        installed
    }

    /// Leads kube-apiserver to umbra on this machine, as the addresses of pods would.
    pub(super) fn lead_here(&self) {
        let service = json!({"spec": {
            "type": "ExternalName", "externalName": "localhost", "clusterIP": null, "clusterIPs": null, "selector": null,
        }});
        let api_service = json!({"spec": {"service": {"port": self.port}}});
        let kubectl = self.kubectl().namespace("umbra-system");
        kubectl.ok(["patch", "service", "umbra", "--type=merge", "-p", &service.to_string()]);
        kubectl.ok([
            "patch",
            "apiservice",
            API_SERVICE,
            "--type=merge",
            "-p",
            &api_service.to_string(),
        ]);
    }

    #[track_caller]
    pub(super) fn wait_for_available(&self, wanted: &str) -> Duration {
        let begun = Instant::now();
        let path = r#"{.status.conditions[?(@.type=="Available")].status}"#;
        wait::for_text(
            &format!("the APIService is available: {wanted}"),
            || self.kubectl().path(["apiservice", API_SERVICE], path),
            |text| text == wanted,
        );
        begun.elapsed()
    }

    /// How often `user` was answered `code` for `path`.
    pub(super) fn answered(&self, user: &str, path: &str, code: u16) -> usize {
        let (user, path, code) = (
            format!("user=\"{user}\""),
            format!("path=\"{path}\""),
            format!("code={code} "),
        );
        let log = self.umbra.stderr();
        let lines = log.lines().filter(|line| line.contains(&user) && line.contains(&path));
        lines.filter(|line| line.contains(&code)).count()
    }
}

pub(super) const API_SERVICE: &str = "v1alpha1.umbra.dev";

/// In a namespace of mounts: puts the files where a pod has them, without touching those of the machine, and becomes umbra.
const IN_A_POD: &str = r#"set -eu
mount -t tmpfs tmpfs "$(readlink -f /var/run)"
mkdir -p /var/run/secrets/kubernetes.io
ln -s "$0" /var/run/secrets/kubernetes.io/serviceaccount
exec "$@""#;

/// Host and port of a URL.
fn address(url: &str) -> (String, String) {
    let (host, port) = url
        .trim_start_matches("https://")
        .trim_end_matches('/')
        .rsplit_once(':')
        .unwrap_or_else(|| panic!("{url} has no port"));
    (host.to_owned(), port.to_owned())
}
