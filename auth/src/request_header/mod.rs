//! Whom a front proxy speaks for: the `X-Remote-*` headers of kube-apiserver's aggregation layer.
//!
//! They are believed only over a client certificate of the requestheader authority whose common name is allowed
//! (`k8s.io/apiserver/pkg/authentication/request/headerrequest` and `…/x509.Verifier`). From everybody else, and after
//! use, they have to be removed before anything is forwarded: [`ReloadableRequestHeaderTrust::strip`] removes those that
//! are configured, [`strip_identity_headers`] everything by which a request claims an identity.
//!
//! Authority, allowed names and header names are one value that is exchanged as a whole, so that no request is judged by
//! the authority of one configuration and the names of another. (kube-apiserver follows them with two controllers.)
//!
//! Deviations: a key of an extra attribute whose decoded bytes are not UTF-8 stays encoded; an empty header name is an
//! error also in the ConfigMap.

mod names;

use std::sync::Arc;

use arc_swap::ArcSwap;
use http::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderName};
use rustls_pki_types::UnixTime;
use umbra_apimachinery::user::UserInfo;

pub use names::{HeaderNameError, IdentityHeaders};
pub(crate) use names::{text, unescape_key};

use crate::authenticate::{AuthenticationError, Credentials, RequestAuthenticator};
use crate::impersonate;
use crate::peer::Subject;
use crate::tls::CaBundle;

/// Which headers carry what, and who may send them. The keys of the ConfigMap
/// `kube-system/extension-apiserver-authentication`, and flags of the same names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeaderOptions {
    /// Common names that a front proxy may have; empty allows every certificate of the authority.
    pub allowed_names: Vec<String>,
    /// Headers with the user, of which the first that is not empty counts.
    pub username_headers: Vec<String>,
    /// Headers with the UID, of which the first that is not empty counts.
    pub uid_headers: Vec<String>,
    /// Headers with groups, all of whose values count.
    pub group_headers: Vec<String>,
    /// Beginnings of headers with extra attributes; what follows is the key, percent-encoded.
    pub extra_header_prefixes: Vec<String>,
}

impl Default for RequestHeaderOptions {
    /// As `NewDelegatingAuthenticationOptions`: the headers of the aggregation layer, without the UID. Proxies older than
    /// Kubernetes 1.32 pass a UID header on that their clients made up; newer ones publish its name in the ConfigMap.
    fn default() -> Self {
        Self {
            allowed_names: Vec::new(),
            username_headers: vec!["X-Remote-User".to_owned()],
            uid_headers: Vec::new(),
            group_headers: vec!["X-Remote-Group".to_owned()],
            extra_header_prefixes: vec!["X-Remote-Extra-".to_owned()],
        }
    }
}

/// Which front proxies are believed, and by which headers.
#[derive(Debug, Clone)]
pub struct RequestHeaderTrust {
    bundle: CaBundle,
    allowed_names: Vec<String>,
    headers: IdentityHeaders,
}

impl RequestHeaderTrust {
    /// Believes proxies that an authority of `bundle` vouches for, within `options`.
    ///
    /// # Errors
    /// All names in `options` that no header can have.
    pub fn new(bundle: CaBundle, options: &RequestHeaderOptions) -> Result<Self, Vec<HeaderNameError>> {
        Ok(Self {
            bundle,
            allowed_names: options.allowed_names.clone(),
            headers: IdentityHeaders::new(options)?,
        })
    }

    /// Believes nobody.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            bundle: CaBundle::default(),
            allowed_names: Vec::new(),
            headers: IdentityHeaders::default(),
        }
    }
}

/// A trust in front proxies that can be exchanged while requests are judged by it. Cloning shares it.
#[derive(Debug, Clone)]
pub struct ReloadableRequestHeaderTrust(Arc<ArcSwap<RequestHeaderTrust>>);

impl ReloadableRequestHeaderTrust {
    /// Starts with `trust`.
    #[must_use]
    pub fn new(trust: RequestHeaderTrust) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(trust)))
    }

    /// Judges every later request by `trust`, also on connections that exist.
    pub fn replace(&self, trust: RequestHeaderTrust) {
        self.0.store(Arc::new(trust));
    }

    /// Removes the headers by which a front proxy names a user, those that are configured and the standard ones. To be
    /// called for every request once it is authenticated, whoever sent it.
    pub fn strip(&self, headers: &mut HeaderMap) {
        self.0.load().headers.strip(headers);
    }
}

/// Authenticates what a front proxy forwards.
#[derive(Debug)]
pub struct RequestHeaderAuthenticator {
    trust: ReloadableRequestHeaderTrust,
}

impl RequestHeaderAuthenticator {
    /// Believes whom `trust` believes at the moment of each request.
    #[must_use]
    pub fn new(trust: ReloadableRequestHeaderTrust) -> Self {
        Self { trust }
    }
}

impl RequestAuthenticator for RequestHeaderAuthenticator {
    fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: UnixTime,
    ) -> Result<Option<UserInfo>, AuthenticationError> {
        let Some(own) = credentials.peer_certificates.first() else {
            return Ok(None);
        };
        let trust = self.trust.0.load();
        if trust.bundle.is_empty() {
            return Ok(None);
        }
        trust
            .bundle
            .verify_client(credentials.peer_certificates, now)
            .map_err(|source| AuthenticationError::Certificate { source })?;
        if !trust.allowed_names.is_empty() {
            let subject = Subject::of(own).map_err(|source| AuthenticationError::Peer { source })?;
            if !trust.allowed_names.contains(&subject.common_name) {
                return Err(AuthenticationError::ProxyNotAllowed {
                    common_name: subject.common_name,
                });
            }
        }
        Ok(trust.headers.user(credentials.headers))
    }
}

/// Removes everything by which a request claims an identity: `Authorization`, cookies, `X-Remote-*` and `Impersonate-*`,
/// and the token among WebSocket subprotocols. To be called before a request is forwarded anywhere. Where the headers of
/// front proxies have other names, [`ReloadableRequestHeaderTrust::strip`] has to be called too.
pub fn strip_identity_headers(headers: &mut HeaderMap) {
    headers.remove(AUTHORIZATION);
    headers.remove(COOKIE);
    IdentityHeaders::default().strip(headers);
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| impersonate::is_impersonation_header(name))
        .cloned()
        .collect();
    for name in claims {
        headers.remove(name);
    }
    crate::tokens::remove_bearer_protocol(headers);
}

#[cfg(test)]
mod tests;
