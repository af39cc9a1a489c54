//! What `umbra up` keeps in its data directory.
//!
//! | file | what |
//! |---|---|
//! | `ca.crt`, `ca.key` | the hub's certificate authority, 10 years |
//! | `agents/ca.crt`, `agents/ca.key` | the authority of the agents of tunnels, 10 years |
//! | `kubeconfig` | contexts `umbra`, `umbra-view`, `umbra-fleet` with the administrator's client certificate, 1 year, renewed by itself |
//! | `service-account.key` | signs service account tokens |
//! | `store.redb` | the embedded store, unless objects are kept in etcd |
//! | `encryption.yaml` | the keys with which Secrets in the store are encrypted, unless another file is named |
//!
//! The serving certificate is issued at every start and kept in memory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use umbra_apimachinery::request::RootName;
use umbra_apimachinery::user::MASTERS;
use umbra_auth::certificates::{CertificateAuthority, ClientSubject, IssuedCertificate, write_private};
use umbra_auth::tokens::TokenSigner;
use umbra_child::kubeconfig::{Cluster, Context, Kubeconfig, NamedCluster, NamedContext, NamedUser, User};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Kubeadm's lifetime of an authority: replacing one means touching every kubeconfig.
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Kubeadm's lifetime of an administrator's certificate. Every start issues a new one.
const ADMIN_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// A hub that runs longer than this without a restart is out of date anyway.
const SERVING_LIFETIME: Duration = DAY.saturating_mul(397);

/// The context of the hub itself.
pub(crate) const HUB_CONTEXT: &str = "umbra";
/// The context of the view of all clusters.
pub(crate) const VIEW_CONTEXT: &str = "umbra-view";
/// The context of the fleet of all clusters.
pub(crate) const FLEET_CONTEXT: &str = "umbra-fleet";

/// The user of the kubeconfig.
const ADMIN: &str = "umbra-admin";

/// A data directory with its keys.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    authority: CertificateAuthority,
}

impl DataDir {
    /// Opens the directory; makes it, and the authority, at the first start.
    ///
    /// # Errors
    /// Where the directory cannot be made or its files cannot be read.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        create_private(path).with_context(|| {
            format!(
                "cannot use {} as data directory; choose another one with --data-dir",
                path.display()
            )
        })?;
        let authority = CertificateAuthority::load_or_create(path, "umbra", CA_LIFETIME)
            .with_context(|| format!("cannot read the certificate authority in {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            authority,
        })
    }

    /// The hub's certificate authority.
    pub(crate) fn authority(&self) -> &CertificateAuthority {
        &self.authority
    }

    /// Where the authority of the agents of tunnels is.
    pub(crate) fn agents(&self) -> PathBuf {
        self.path.join("agents")
    }

    /// Where the store is.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("store.redb")
    }

    /// Where the keys are with which values in the store are encrypted, unless another file is named.
    pub(crate) fn encryption_key_file(&self) -> PathBuf {
        self.path.join("encryption.yaml")
    }

    /// Where the kubeconfig is.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// The key that signs service account tokens, made at the first start.
    ///
    /// # Errors
    /// Where it cannot be read or written.
    pub(crate) fn token_signer(&self) -> Result<TokenSigner> {
        let path = self.path.join("service-account.key");
        let pem = match std::fs::read_to_string(&path) {
            Ok(pem) => pem,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let pem = TokenSigner::generate_pem()?;
                write_private(&path, pem.as_bytes())?;
                pem
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        TokenSigner::from_pem(&pem).with_context(|| format!("{} is no signing key", path.display()))
    }

    /// A certificate for a server at `address`, also good for `localhost`.
    ///
    /// # Errors
    /// Where it cannot be issued.
    pub(crate) fn serving_certificate(&self, address: SocketAddr) -> Result<IssuedCertificate> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let ip = address.ip();
        if !ip.is_unspecified() && !ip.is_loopback() {
            names.push(ip.to_string());
        }
        Ok(self.authority.issue_serving(&names, SERVING_LIFETIME)?)
    }

    /// Writes the kubeconfig for a hub that listens on `address`, with a new certificate for its administrator.
    ///
    /// # Errors
    /// Where it cannot be issued or written.
    pub(crate) fn write_kubeconfig(&self, address: SocketAddr) -> Result<Kubeconfig> {
        let subject = ClientSubject {
            user: ADMIN.to_owned(),
            groups: vec![MASTERS.to_owned(), umbra_api::ADMINISTRATORS.to_owned()],
            uid: String::new(),
        };
        let certificate = self.authority.issue_client(&subject, ADMIN_LIFETIME)?;
        let config = kubeconfig(&base_url(address), self.authority.certificate_pem(), &certificate);
        write_private(&self.kubeconfig(), config.to_yaml().as_bytes())
            .with_context(|| format!("cannot write {}", self.kubeconfig().display()))?;
        Ok(config)
    }
}

/// Where clients on this machine reach a server that listens on `address`.
pub(crate) fn base_url(address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        format!("https://127.0.0.1:{}", address.port())
    } else {
        format!("https://{address}")
    }
}

fn kubeconfig(url: &str, authority_pem: &str, certificate: &IssuedCertificate) -> Kubeconfig {
    let roots = [
        (HUB_CONTEXT, RootName::Hub),
        (VIEW_CONTEXT, RootName::View(umbra_api::ALL)),
        (FLEET_CONTEXT, RootName::Fleet(umbra_api::ALL)),
    ];
    let authority = BASE64.encode(authority_pem);
    let cluster = |root: RootName<'_>| Cluster {
        server: format!("{url}{}", root.prefix()),
        certificate_authority_data: Some(authority.clone()),
        ..Cluster::default()
    };
    let context = |name: &str| Context {
        cluster: name.to_owned(),
        user: ADMIN.to_owned(),
        ..Context::default()
    };
    Kubeconfig {
        api_version: "v1".to_owned(),
        kind: "Config".to_owned(),
        clusters: roots
            .map(|(name, root)| NamedCluster {
                name: name.to_owned(),
                cluster: cluster(root),
            })
            .into(),
        users: vec![NamedUser {
            name: ADMIN.to_owned(),
            user: User {
                client_certificate_data: Some(BASE64.encode(&certificate.certificate_pem)),
                client_key_data: Some(BASE64.encode(&certificate.key_pem)),
                ..User::default()
            },
        }],
        contexts: roots
            .map(|(name, _)| NamedContext {
                name: name.to_owned(),
                context: context(name),
            })
            .into(),
        current_context: HUB_CONTEXT.to_owned(),
    }
}

/// Private keys are in there: nobody else may look.
fn create_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
    if !path.exists() {
        return std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    }
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_dir() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::NotADirectory,
            "it is not a directory",
        ));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others on this machine can look into the data directory");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_finds_the_authority_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        let address: SocketAddr = "127.0.0.1:7443".parse().unwrap();
        let first = DataDir::open(&path).unwrap();
        let config = first.write_kubeconfig(address).unwrap();
        let again = DataDir::open(&path).unwrap();
        assert_eq!(first.authority().certificate_pem(), again.authority().certificate_pem());
        assert_eq!(Kubeconfig::load(&again.kubeconfig()).unwrap(), config);
        let server = &config.select(Some(VIEW_CONTEXT)).unwrap().cluster.server;
        assert_eq!(server, "https://127.0.0.1:7443/apis/umbra.dev/v1alpha1/views/all/proxy");
        assert!(first.token_signer().is_ok() && again.token_signer().is_ok());
    }

    #[test]
    fn a_file_is_no_data_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = format!("{:#}", DataDir::open(file.path()).unwrap_err());
        assert!(error.contains("--data-dir"), "{error}");
    }
}
