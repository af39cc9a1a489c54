//! Making what a request uses of what is configured: reading files, running programs.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use base64::Engine as _;
use http::HeaderValue;

use super::{Authorization, ClientCertificate, CredentialsConfig, Expiry, LEEWAY, expiry};
use crate::{error::CredentialsError, exec};

/// How long a token read from a file is used.
const TOKEN_FILE_PERIOD: Duration = Duration::from_secs(60);

/// What was made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// The `Authorization` header, marked sensitive.
    pub(super) header: Option<HeaderValue>,
    /// The client certificate.
    pub(super) certificate: Option<Arc<ClientCertificate>>,
    /// When it must be made again; `None`: never.
    pub(super) expires: Option<SystemTime>,
    /// When it ends, where it says so.
    pub(super) expiry: Option<Expiry>,
}

/// Makes credentials of the configuration.
///
/// # Errors
/// When a file cannot be read or a plugin fails.
pub(super) async fn make(config: &CredentialsConfig) -> Result<Made, CredentialsError> {
    let mut certificate = config.certificate.clone();
    let mut expires = None;
    // Certificates of the configuration are nobody's to renew.
    let ends = |at: Option<SystemTime>, renewed| at.map(|at| Expiry { at, renewed });
    let of_certificate = |one: &ClientCertificate| expiry::of_certificate(&one.certificate);
    let mut expiry = ends(certificate.as_ref().and_then(of_certificate), false);
    let header = match &config.authorization {
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
    Ok(Made {
        header,
        certificate: certificate.map(Arc::new),
        expires,
        expiry,
    })
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
