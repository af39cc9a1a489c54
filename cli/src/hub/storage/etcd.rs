//! The flags about etcd.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use umbra_storage::etcd::{EtcdCredentials, EtcdIdentity, EtcdOptions, EtcdTls};

/// The variable that the password may come from; not a flag, because everybody on the machine reads those.
const PASSWORD_VARIABLE: &str = "UMBRA_ETCD_PASSWORD";

/// How to reach etcd.
#[derive(Args, Debug, Clone)]
pub(super) struct EtcdArguments {
    /// Keep objects in this etcd cluster instead of the data directory: URLs of its members, separated by commas.
    #[arg(long, env = "UMBRA_ETCD_SERVERS", value_delimiter = ',', value_name = "URL,...")]
    etcd_servers: Vec<String>,
    /// The certificates of the authorities that etcd's own certificates come from, in PEM.
    #[arg(long, env = "UMBRA_ETCD_CAFILE", value_name = "FILE")]
    etcd_cafile: Option<PathBuf>,
    /// The certificate that the hub shows to etcd, in PEM.
    #[arg(long, env = "UMBRA_ETCD_CERTFILE", value_name = "FILE")]
    etcd_certfile: Option<PathBuf>,
    /// The key of that certificate, in PEM.
    #[arg(long, env = "UMBRA_ETCD_KEYFILE", value_name = "FILE")]
    etcd_keyfile: Option<PathBuf>,
    /// What all keys in etcd begin with [default: /umbra-hub]. Hubs that share a cluster need different ones.
    #[arg(long, env = "UMBRA_ETCD_PREFIX", value_name = "PREFIX")]
    etcd_prefix: Option<String>,
    /// The user of etcd, where it has authentication enabled.
    #[arg(long, env = "UMBRA_ETCD_USER", value_name = "NAME")]
    etcd_user: Option<String>,
    /// The file with that user's password. The variable UMBRA_ETCD_PASSWORD may hold the password instead.
    #[arg(long, env = "UMBRA_ETCD_PASSWORD_FILE", value_name = "FILE")]
    etcd_password_file: Option<PathBuf>,
}

impl EtcdArguments {
    /// Whether objects are to be kept in etcd.
    pub(super) fn is_given(&self) -> bool {
        !self.etcd_servers.is_empty()
    }

    /// What they come down to; `None` where no servers are named. Adds what is wrong with them to `faults`.
    pub(super) fn options(&self, history: Duration, faults: &mut Vec<String>) -> Option<EtcdOptions> {
        if self.etcd_servers.is_empty() {
            faults.extend(self.without_servers());
            return None;
        }
        let secure = self.check_servers(faults);
        let mut options = EtcdOptions::new(self.etcd_servers.iter().map(|server| server.trim_end_matches('/')));
        options.history = Some(history);
        options.compaction_interval = options.compaction_interval.min(history);
        if let Some(prefix) = &self.etcd_prefix {
            if !prefix.starts_with('/') || prefix.ends_with('/') {
                faults.push(format!(
                    "--etcd-prefix {prefix} has to begin with a slash, and to end without one"
                ));
            }
            options.prefix.clone_from(prefix);
        }
        options.tls = self.tls(secure, faults);
        options.credentials = self.credentials(faults);
        Some(options)
    }

    /// Whether all servers are asked over TLS.
    fn check_servers(&self, faults: &mut Vec<String>) -> bool {
        let servers = &self.etcd_servers;
        let secure = servers.iter().filter(|server| server.starts_with("https://")).count();
        for server in servers {
            if !server.starts_with("https://") && !server.starts_with("http://") {
                faults.push(format!(
                    "--etcd-servers has {server:?}, which begins with neither https:// nor http://"
                ));
            }
        }
        if secure > 0
            && let Some(plain) = servers.iter().find(|server| server.starts_with("http://"))
        {
            faults.push(format!(
                "--etcd-servers has {plain}, which is not encrypted, beside others that are"
            ));
        }
        secure > 0
    }

    fn without_servers(&self) -> impl Iterator<Item = String> {
        let given = [
            ("--etcd-cafile", self.etcd_cafile.is_some()),
            ("--etcd-certfile", self.etcd_certfile.is_some()),
            ("--etcd-keyfile", self.etcd_keyfile.is_some()),
            ("--etcd-prefix", self.etcd_prefix.is_some()),
            ("--etcd-user", self.etcd_user.is_some()),
            ("--etcd-password-file", self.etcd_password_file.is_some()),
        ];
        let useless = given.into_iter().filter(|(_, given)| *given);
        useless.map(|(flag, _)| format!("{flag} is of no use without --etcd-servers"))
    }

    fn tls(&self, secure: bool, faults: &mut Vec<String>) -> Option<EtcdTls> {
        let files = [
            ("--etcd-cafile", &self.etcd_cafile),
            ("--etcd-certfile", &self.etcd_certfile),
            ("--etcd-keyfile", &self.etcd_keyfile),
        ];
        if secure && self.etcd_cafile.is_none() {
            faults.push("--etcd-cafile is missing: with https:// the certificates of etcd are verified".to_owned());
        }
        let [ca, certificate, key] = files.map(|(flag, path)| {
            let path = path.as_deref()?;
            if !secure {
                faults.push(format!("{flag} is of no use where --etcd-servers has no https://"));
            }
            read(flag, path, faults)
        });
        match (&self.etcd_certfile, &self.etcd_keyfile) {
            (Some(_), None) => {
                faults.push("--etcd-keyfile is missing: --etcd-certfile is of no use without".to_owned());
            }
            (None, Some(_)) => {
                faults.push("--etcd-certfile is missing: --etcd-keyfile is of no use without".to_owned());
            }
            _ => {}
        }
        let identity = certificate.zip(key);
        Some(EtcdTls {
            ca: ca?,
            identity: identity.map(|(certificate, key)| EtcdIdentity { certificate, key }),
        })
    }

    fn credentials(&self, faults: &mut Vec<String>) -> Option<EtcdCredentials> {
        let from_file = self.etcd_password_file.as_deref();
        let password = match from_file {
            Some(path) => read("--etcd-password-file", path, faults).and_then(|bytes| String::from_utf8(bytes).ok()),
            None => std::env::var(PASSWORD_VARIABLE)
                .ok()
                .filter(|password| !password.is_empty()),
        };
        match (&self.etcd_user, password) {
            (Some(user), Some(password)) => Some(EtcdCredentials {
                user: user.clone(),
                // Editors end a file with a line end.
                password: password.trim_end_matches(['\r', '\n']).to_owned(),
            }),
            (Some(_), None) if from_file.is_none() => {
                faults.push(format!(
                    "--etcd-user needs a password, from --etcd-password-file or the variable {PASSWORD_VARIABLE}"
                ));
                None
            }
            (None, _) if from_file.is_some() => {
                faults.push("--etcd-password-file is of no use without --etcd-user".to_owned());
                None
            }
            _ => None,
        }
    }
}

fn read(flag: &str, path: &Path, faults: &mut Vec<String>) -> Option<Vec<u8>> {
    match std::fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            faults.push(format!("{flag} {} cannot be read: {error}", path.display()));
            None
        }
    }
}
