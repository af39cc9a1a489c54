//! What the hub authenticates to a child with, kept fresh.
//!
//! A credential is a client certificate, an `Authorization` header, or both, as a user of a kubeconfig. Tokens in files
//! are read again every minute (`transport.NewCachedFileTokenSource` of client-go), exec plugins run again shortly before
//! what they returned expires, and both at once after the child answered 401. [`Credentials::replace`] puts new ones in
//! place; requests under way end on their connections, later ones use connections of the new certificate.

mod expiry;

pub use expiry::Expiry;

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::Engine as _;
use http::HeaderValue;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{sync::Mutex, time::Instant};

use crate::{
    error::CredentialsError,
    exec::{self, ExecConfig},
};

/// How long a token read from a file is used.
const TOKEN_FILE_PERIOD: Duration = Duration::from_secs(60);
/// How long before its expiry a credential is replaced. Clocks differ and requests take a while.
const LEEWAY: Duration = Duration::from_secs(10);

/// Text that no log and no debug output shows.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A client certificate chain and its key, PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The certificate, and intermediates behind it.
    pub certificate: String,
    /// The private key: PKCS#8, PKCS#1 or SEC1.
    pub key: Secret,
}

impl ClientCertificate {
    /// Chain and key for TLS.
    pub(crate) fn parse(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), CredentialsError> {
        let certificate = |message: String| CredentialsError::Certificate(message);
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| certificate(format!("the certificate is not PEM: {error}")))?;
        if chain.is_empty() {
            return Err(certificate("there is no CERTIFICATE block in the PEM".into()));
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.expose().as_bytes())
            .map_err(|error| certificate(format!("the key is not PEM: {error}")))?;
        Ok((chain, key))
    }
}

/// What the `Authorization` header is made of.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Authorization {
    /// There is none.
    #[default]
    None,
    /// A bearer token.
    Token(Secret),
    /// A bearer token in a file that somebody else renews.
    TokenFile(PathBuf),
    /// A user name and a password.
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// What a program prints; may also be a client certificate.
    Exec(Box<ExecConfig>),
}

/// A user of a kubeconfig, with files read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CredentialsConfig {
    /// The client certificate, if there is one.
    pub certificate: Option<ClientCertificate>,
    /// The `Authorization` header.
    pub authorization: Authorization,
}

/// What one request or one connection uses.
#[derive(Clone, Default)]
pub(crate) struct Current {
    /// The `Authorization` header, marked sensitive.
    pub(crate) header: Option<HeaderValue>,
    /// The client certificate.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
    /// Changes whenever `certificate` does.
    pub(crate) generation: u64,
}

/// Live credentials of one child.
#[derive(Debug)]
pub struct Credentials {
    state: Mutex<State>,
}

struct State {
    config: CredentialsConfig,
    current: Current,
    /// When `current` must be made again; `None`: never.
    expires: Option<SystemTime>,
    /// When `current` ends, where it says so.
    expiry: Option<Expiry>,
    /// When `current` was made; `None`: not yet, or it was refused.
    made: Option<Instant>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("config", &self.config)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Credentials as configured. Nothing is read or run yet.
    #[must_use]
    pub fn new(config: CredentialsConfig) -> Self {
        Self {
            state: Mutex::new(State {
                config,
                current: Current::default(),
                expires: None,
                expiry: None,
                made: None,
            }),
        }
    }

    /// What to use now, made afresh where it has expired.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or a plugin fails.
    pub(crate) async fn current(&self) -> Result<Current, CredentialsError> {
        let mut state = self.state.lock().await;
        let fresh = state.made.is_some() && state.expires.is_none_or(|expires| SystemTime::now() + LEEWAY < expires);
        if !fresh {
            make(&mut state).await?;
        }
        Ok(state.current.clone())
    }

    /// Says that the child refused `used` (401). The next request makes new ones. Returns whether trying again makes
    /// sense: credentials are renewed from outside, or another request has renewed them meanwhile.
    pub(crate) async fn refused(&self, used: Option<&HeaderValue>) -> bool {
        let mut state = self.state.lock().await;
        if state.current.header.as_ref() != used {
            return true;
        }
        let renewable = matches!(
            state.config.authorization,
            Authorization::TokenFile(_) | Authorization::Exec(_)
        );
        if renewable {
            state.made = None;
        }
        renewable
    }

    /// Forgets what was read from files and plugins, so that the next request reads it again.
    pub async fn reload(&self) {
        self.state.lock().await.made = None;
    }

    /// Replaces the configuration, for requests from now on. Files are read and plugins run when the next request comes.
    pub async fn replace(&self, config: CredentialsConfig) {
        let mut state = self.state.lock().await;
        state.config = config;
        state.made = None;
    }

    /// When the credentials that were used last end, where they say so; `None` also before their first use.
    pub async fn expiry(&self) -> Option<Expiry> {
        self.state.lock().await.expiry
    }
}

/// Makes the current credentials from the configuration.
async fn make(state: &mut State) -> Result<(), CredentialsError> {
    let mut certificate = state.config.certificate.clone();
    let mut expires = None;
    // Certificates of the configuration are nobody's to renew.
    let ends = |at: Option<SystemTime>, renewed| at.map(|at| Expiry { at, renewed });
    let of_certificate = |one: &ClientCertificate| expiry::of_certificate(&one.certificate);
    let mut expiry = ends(certificate.as_ref().and_then(of_certificate), false);
    let header = match &state.config.authorization {
        Authorization::None => None,
        Authorization::Token(token) => {
            expiry = Expiry::sooner(expiry, ends(expiry::of_token(token.expose()), false));
            Some(bearer(token.expose())?)
        }
        Authorization::Basic { username, password } => Some(basic(username, password.expose())?),
        Authorization::TokenFile(path) => {
            let token = tokio::fs::read_to_string(path)
                .await
                .map_err(|source| CredentialsError::TokenFile {
                    path: path.display().to_string(),
                    source,
                })?;
            expires = Some(SystemTime::now() + TOKEN_FILE_PERIOD + LEEWAY);
            expiry = Expiry::sooner(expiry, ends(expiry::of_token(token.trim()), true));
            Some(bearer(token.trim())?)
        }
        Authorization::Exec(plugin) => {
            let answer = exec::run(plugin).await?;
            expires = answer.expires;
            if answer.certificate.is_some() {
                expiry = None;
            }
            let token = answer.token.as_ref().and_then(|token| expiry::of_token(token.expose()));
            let printed = answer.certificate.as_ref().and_then(of_certificate);
            expiry = Expiry::sooner(expiry, ends(answer.expires.or(token).or(printed), true));
            certificate = answer.certificate.or(certificate);
            answer.token.as_ref().map(|token| bearer(token.expose())).transpose()?
        }
    };
    let before = state.current.certificate.as_deref();
    let generation = state.current.generation + u64::from(before != certificate.as_ref());
    state.current = Current {
        header,
        certificate: certificate.map(Arc::new),
        generation,
    };
    (state.expires, state.expiry) = (expires, expiry);
    state.made = Some(Instant::now());
    Ok(())
}

fn bearer(token: &str) -> Result<HeaderValue, CredentialsError> {
    if token.is_empty() {
        return Err(CredentialsError::Token);
    }
    sensitive(&format!("Bearer {token}"))
}

fn basic(username: &str, password: &str) -> Result<HeaderValue, CredentialsError> {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    sensitive(&format!("Basic {pair}"))
}

fn sensitive(text: &str) -> Result<HeaderValue, CredentialsError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| CredentialsError::Token)?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn header(credentials: &Credentials) -> String {
        let current = credentials.current().await.expect("credentials");
        current.header.expect("a header").to_str().expect("text").to_owned()
    }

    fn with(authorization: Authorization) -> Credentials {
        Credentials::new(CredentialsConfig {
            certificate: None,
            authorization,
        })
    }

    #[tokio::test]
    async fn static_credentials_are_not_worth_a_second_try() {
        let credentials = with(Authorization::Token(Secret::new("t0ken")));
        assert_eq!(header(&credentials).await, "Bearer t0ken");
        let used = credentials.current().await.expect("credentials").header;
        assert!(!credentials.refused(used.as_ref()).await);
        let basic = with(Authorization::Basic {
            username: "a".into(),
            password: Secret::new("b"),
        });
        assert_eq!(header(&basic).await, "Basic YTpi");
    }

    #[tokio::test]
    async fn a_token_file_is_read_again_after_401() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        std::fs::write(&path, "one\n").expect("written");
        let credentials = with(Authorization::TokenFile(path.clone()));
        assert_eq!(header(&credentials).await, "Bearer one");
        std::fs::write(&path, "two\n").expect("written");
        assert_eq!(header(&credentials).await, "Bearer one");
        let used = credentials.current().await.expect("credentials").header;
        assert!(credentials.refused(used.as_ref()).await);
        assert_eq!(header(&credentials).await, "Bearer two");
        // Somebody else was refused with what has been replaced already: worth another try, but not another read.
        std::fs::write(&path, "three\n").expect("written");
        assert!(credentials.refused(used.as_ref()).await);
        assert_eq!(header(&credentials).await, "Bearer two");
        std::fs::remove_file(&path).expect("removed");
        credentials.reload().await;
        let error = credentials.current().await.err().expect("the file is gone").to_string();
        assert!(error.contains("token file"), "{error}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = CredentialsConfig {
            certificate: None,
            authorization: Authorization::Token(Secret::new("t0ken")),
        };
        assert!(!format!("{config:?} {:?}", Credentials::new(config.clone())).contains("t0ken"));
    }

    #[tokio::test]
    async fn a_replaced_certificate_changes_the_generation() {
        let certificate = |text: &str| CredentialsConfig {
            certificate: Some(ClientCertificate {
                certificate: text.into(),
                key: Secret::new("key"),
            }),
            authorization: Authorization::None,
        };
        let credentials = Credentials::new(certificate("a"));
        let first = credentials.current().await.expect("credentials").generation;
        credentials.replace(certificate("a")).await;
        assert_eq!(credentials.current().await.expect("credentials").generation, first);
        credentials.replace(certificate("b")).await;
        assert_eq!(credentials.current().await.expect("credentials").generation, first + 1);
    }
}
