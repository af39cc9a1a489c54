//! What the hub authenticates to a child with, kept fresh.
//!
//! A credential is a client certificate, an `Authorization` header, or both, as a user of a kubeconfig. Tokens in files
//! are read again every minute (`transport.NewCachedFileTokenSource` of client-go), exec plugins run again shortly before
//! what they returned expires, and both at once after the child answered 401. [`Credentials::replace`] puts new ones in
//! place; requests under way end on their connections, later ones use connections of the new certificate.
//!
//! All who need a credential that is being made wait for one making of it, and share its failure: however many requests come,
//! one program runs. It does not end with who has asked for it first, so that a program that takes longer than a request may
//! is done for the next one. Nobody who replaces or looks at credentials waits for it.

mod expiry;
mod make;
#[cfg(test)]
mod tests;

pub use expiry::Expiry;

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use http::HeaderValue;
use parking_lot::Mutex;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use self::make::{Made, make};
use crate::{error::CredentialsError, exec::ExecConfig};

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
pub struct Credentials {
    state: Mutex<State>,
}

/// A making that whoever needs its outcome drives.
type Making = Shared<BoxFuture<'static, Result<Made, Arc<CredentialsError>>>>;

struct State {
    config: Arc<CredentialsConfig>,
    /// Counts the configurations, so that what was made of an earlier one is known.
    version: u64,
    current: Current,
    /// Whether `current` counts: it was made of `config` and has not been refused.
    fresh: bool,
    /// When `current` must be made again; `None`: never.
    expires: Option<SystemTime>,
    /// When `current` ends, where it says so.
    expiry: Option<Expiry>,
    /// What will be `current`.
    making: Option<Making>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Credentials")
            .field("config", &state.config)
            .field("expires", &state.expires)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Credentials as configured. Nothing is read or run yet.
    #[must_use]
    pub fn new(config: CredentialsConfig) -> Self {
        Self {
            state: Mutex::new(State {
                config: Arc::new(config),
                version: 0,
                current: Current::default(),
                fresh: false,
                expires: None,
                expiry: None,
                making: None,
            }),
        }
    }

    /// What to use now, made afresh where it has expired. Cancel safe: what is being made goes on being made.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or a plugin fails.
    pub(crate) async fn current(&self) -> Result<Current, Arc<CredentialsError>> {
        loop {
            let (version, making) = {
                let mut state = self.state.lock();
                if state.is_fresh() {
                    return Ok(state.current.clone());
                }
                (state.version, state.making())
            };
            let made = making.clone().await;
            let mut state = self.state.lock();
            if state.version != version {
                // Made of a configuration that has been replaced meanwhile.
                continue;
            }
            // The first of those who have waited takes it in for all.
            if state.making.as_ref().is_some_and(|present| present.ptr_eq(&making)) {
                state.making = None;
                if let Ok(made) = &made {
                    state.take_in(made.clone());
                }
            }
            return made.map(|_| state.current.clone());
        }
    }

    /// Says that the child refused `used` (401). The next request makes new ones. Returns whether trying again makes
    /// sense: credentials are renewed from outside, or another request has renewed them meanwhile.
    pub(crate) fn refused(&self, used: &Current) -> bool {
        let mut state = self.state.lock();
        if state.current.header != used.header || state.current.generation != used.generation {
            return true;
        }
        let renewable = matches!(
            state.config.authorization,
            Authorization::TokenFile(_) | Authorization::Exec(_)
        );
        if renewable {
            state.fresh = false;
        }
        renewable
    }

    /// Forgets what was read from files and plugins, so that the next request reads it again.
    pub fn reload(&self) {
        self.state.lock().fresh = false;
    }

    /// Replaces the configuration, for requests from now on. Files are read and plugins run when the next request comes.
    pub fn replace(&self, config: CredentialsConfig) {
        let mut state = self.state.lock();
        if *state.config == config {
            return;
        }
        state.config = Arc::new(config);
        state.version += 1;
        (state.fresh, state.making) = (false, None);
    }

    /// When the credentials that were used last end, where they say so; `None` also before their first use.
    #[must_use]
    pub fn expiry(&self) -> Option<Expiry> {
        self.state.lock().expiry
    }
}

impl State {
    fn is_fresh(&self) -> bool {
        let ends = |expires: SystemTime| SystemTime::now() + LEEWAY >= expires;
        self.fresh && !self.expires.is_some_and(ends)
    }

    /// What is being made, begun where nothing is.
    fn making(&mut self) -> Making {
        let config = &self.config;
        let making = self.making.get_or_insert_with(|| {
            let config = Arc::clone(config);
            async move { make(&config).await.map_err(Arc::new) }.boxed().shared()
        });
        making.clone()
    }

    fn take_in(&mut self, made: Made) {
        let Made {
            header,
            certificate,
            expires,
            expiry,
        } = made;
        let changed = self.current.certificate != certificate;
        self.current = Current {
            header,
            certificate,
            generation: self.current.generation + u64::from(changed),
        };
        (self.expires, self.expiry, self.fresh) = (expires, expiry, true);
    }
}
