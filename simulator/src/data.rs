//! What a simulated cluster keeps, so that it is the same cluster after a restart.
//!
//! | file | what |
//! |---|---|
//! | `ca.crt`, `ca.key` | the cluster's certificate authority |
//! | `token` | the administrator's bearer token |
//! | `port` | the port the API server listens on |
//! | `store.redb` | the objects |

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use umbra_apimachinery::user::MASTERS;
use umbra_auth::certificates::{
    CertificateAuthority, CertificateError, ClientSubject, IssuedCertificate, write_private,
};
use umbra_child::kubeconfig::{Cluster, Context, Kubeconfig, NamedCluster, NamedContext, NamedUser, User};

use crate::cluster::SimulatorError;

/// Kubeadm's lifetime of an authority.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Kubeadm's lifetime of other certificates. Every start issues new ones.
const CERTIFICATE_LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);

const TOKEN_FILE: &str = "token";
const PORT_FILE: &str = "port";

/// The keys of a cluster, and where they are kept.
#[derive(Debug)]
pub(crate) struct Keys {
    folder: Option<PathBuf>,
    pub(crate) authority: CertificateAuthority,
    pub(crate) token: String,
}

impl Keys {
    /// The keys in `folder`, made where they are missing; or keys that nothing keeps.
    pub(crate) fn open(cluster: &str, folder: Option<&Path>) -> Result<Self, SimulatorError> {
        let name = format!("umbra simulated cluster {cluster}");
        let Some(folder) = folder else {
            let authority = CertificateAuthority::create(&name, AUTHORITY_LIFETIME)?;
            let token = new_token();
            return Ok(Self {
                folder: None,
                authority,
                token,
            });
        };
        std::fs::create_dir_all(folder).map_err(|source| file_error(folder, source))?;
        let authority = CertificateAuthority::load_or_create(folder, &name, AUTHORITY_LIFETIME)?;
        let token = match read(&folder.join(TOKEN_FILE))? {
            Some(token) => token,
            None => {
                let token = new_token();
                write_private(&folder.join(TOKEN_FILE), token.as_bytes())?;
                token
            }
        };
        Ok(Self {
            folder: Some(folder.to_owned()),
            authority,
            token,
        })
    }

    /// Where to listen: `wanted`, on the port of the last time where it leaves the port open.
    pub(crate) fn address(&self, wanted: SocketAddr) -> Result<SocketAddr, SimulatorError> {
        let (0, Some(folder)) = (wanted.port(), &self.folder) else {
            return Ok(wanted);
        };
        let kept = read(&folder.join(PORT_FILE))?;
        // A file that says nothing is written anew.
        let port = kept.and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(SocketAddr::new(wanted.ip(), port))
    }

    /// Keeps the port for the next time.
    pub(crate) fn keep_port(&self, port: u16) -> Result<(), SimulatorError> {
        if let Some(folder) = &self.folder {
            write_private(&folder.join(PORT_FILE), port.to_string().as_bytes())?;
        }
        Ok(())
    }

    /// A certificate for the API server at `address`.
    pub(crate) fn serving_certificate(&self, address: SocketAddr) -> Result<IssuedCertificate, CertificateError> {
        let names = [
            address.ip().to_string(),
            "127.0.0.1".to_owned(),
            "localhost".to_owned(),
            "kubernetes".to_owned(),
            "kubernetes.default.svc".to_owned(),
        ];
        self.authority.issue_serving(&names, CERTIFICATE_LIFETIME)
    }

    /// A kubeconfig of the administrator.
    pub(crate) fn kubeconfig(&self, cluster: &str, address: SocketAddr) -> Result<Kubeconfig, CertificateError> {
        let subject = ClientSubject {
            user: "admin".to_owned(),
            groups: vec![MASTERS.to_owned()],
            uid: String::new(),
        };
        let issued = self.authority.issue_client(&subject, CERTIFICATE_LIFETIME)?;
        let user = format!("{cluster}-admin");
        Ok(Kubeconfig {
            api_version: "v1".to_owned(),
            kind: "Config".to_owned(),
            clusters: vec![NamedCluster {
                name: cluster.to_owned(),
                cluster: Cluster {
                    server: format!("https://{address}"),
                    certificate_authority_data: Some(BASE64.encode(self.authority.certificate_pem())),
                    ..Cluster::default()
                },
            }],
            users: vec![NamedUser {
                name: user.clone(),
                user: User {
                    client_certificate_data: Some(BASE64.encode(issued.certificate_pem)),
                    client_key_data: Some(BASE64.encode(issued.key_pem)),
                    ..User::default()
                },
            }],
            contexts: vec![NamedContext {
                name: cluster.to_owned(),
                context: Context {
                    cluster: cluster.to_owned(),
                    user,
                    namespace: None,
                },
            }],
            current_context: cluster.to_owned(),
        })
    }
}

/// 256 random bits.
fn new_token() -> String {
    let bytes: [u8; 32] = rand::random();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file_error(path: &Path, source: std::io::Error) -> SimulatorError {
    SimulatorError::File {
        path: path.to_owned(),
        source,
    }
}

/// The text of a file; `None` where there is none.
fn read(path: &Path) -> Result<Option<String>, SimulatorError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(path, error)),
    }
}
