//! Who sends a request: whom its credentials prove, and whom that user acts as.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderMap, Request};
use rustls::pki_types::{CertificateDer, UnixTime};
use umbra_apimachinery::request::{RequestInfo, RootName};
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::UserInfo;
use umbra_auth::authenticate::{AuthenticationError, Authenticators, Credentials, RequestAuthenticator};
use umbra_auth::delegation::{DelegatedAuthenticator, TokenReviews};
use umbra_auth::impersonate;
use umbra_auth::trust::ClientTrust;
use umbra_registry::resource::Body;
use umbra_registry::root::Root;

use super::arrival::Arrival;
use crate::service::ApiServer;

/// The certificates that a connection's client presented, its own first; not verified beyond that it holds the key. A
/// request extension that only the listener sets.
#[derive(Debug, Clone, Default)]
pub struct PeerCertificates(pub Arc<[CertificateDer<'static>]>);

/// Who sends a request from within this process. Nothing outside of this crate can make one.
#[derive(Debug, Clone)]
pub(crate) struct Identity(pub(crate) Arc<UserInfo>);

/// Finds out who sends a request.
#[async_trait]
pub trait Authenticate: Send + Sync {
    /// The sender; `None` is somebody who presents no credentials. Cancel safe.
    ///
    /// # Errors
    /// Where credentials are presented and prove nothing (401), or nobody could judge them (500). The text goes to the log.
    async fn authenticate(
        &self,
        peer: &PeerCertificates,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<UserInfo>>, AuthenticationError>;

    /// Removes headers by which front proxies name users, where they have other names than usual. Called for every request
    /// once it is authenticated; the usual ones are removed after that anyway.
    fn strip(&self, _headers: &mut HeaderMap) {}
}

#[async_trait]
impl Authenticate for Authenticators {
    async fn authenticate(
        &self,
        peer: &PeerCertificates,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<UserInfo>>, AuthenticationError> {
        let credentials = Credentials {
            peer_certificates: &peer.0,
            headers,
        };
        Ok(Self::authenticate(self, &credentials, UnixTime::now())?.map(Arc::new))
    }
}

/// What an aggregated server knows of its clients: whom it trusts, and whom it asks about tokens.
#[derive(Debug)]
pub struct Delegated {
    authenticator: DelegatedAuthenticator,
    trust: ClientTrust,
}

impl Delegated {
    /// Believes front proxies and client certificates as `trust` says, and `tokens` about bearer tokens.
    #[must_use]
    pub fn new(trust: ClientTrust, tokens: Option<Arc<TokenReviews>>) -> Self {
        Self {
            authenticator: DelegatedAuthenticator::new(trust.authenticators(), tokens),
            trust,
        }
    }

    /// Asks `first` before all others.
    #[must_use]
    pub fn preceded_by(mut self, first: Arc<dyn RequestAuthenticator>) -> Self {
        self.authenticator = self.authenticator.preceded_by(first);
        self
    }
}

#[async_trait]
impl Authenticate for Delegated {
    async fn authenticate(
        &self,
        peer: &PeerCertificates,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<UserInfo>>, AuthenticationError> {
        let credentials = Credentials {
            peer_certificates: &peer.0,
            headers,
        };
        self.authenticator.authenticate(&credentials, UnixTime::now()).await
    }

    fn strip(&self, headers: &mut HeaderMap) {
        self.trust.strip(headers);
    }
}

impl ApiServer {
    /// Who sends the request.
    ///
    /// # Errors
    /// 401 where nobody is proven, 500 where nobody could judge.
    pub(super) async fn authenticated(
        &self,
        arrival: &Arrival,
        request: &mut Request<Body>,
    ) -> Result<Arc<UserInfo>, Status> {
        if let Some(Identity(user)) = request.extensions_mut().remove() {
            return Ok(user);
        }
        let peer = request
            .extensions_mut()
            .remove::<PeerCertificates>()
            .unwrap_or_default();
        match self.authenticate().authenticate(&peer, request.headers()).await {
            Ok(Some(user)) => Ok(user),
            Ok(None) if arrival.is_public() => Ok(Arc::new(UserInfo::anonymous())),
            Ok(None) => Err(Status::failure(Reason::Unauthorized, "Unauthorized")),
            Err(error) => {
                tracing::info!(path = arrival.path, %error, "a request was not authenticated");
                Err(error.status())
            }
        }
    }

    /// Lets the sender act as somebody else, where the hub allows it to impersonate all that it asks for.
    ///
    /// # Errors
    /// 400 where the headers make no sense, 403 where the hub refuses.
    pub(super) async fn impersonated(&self, user: Arc<UserInfo>, headers: &HeaderMap) -> Result<Arc<UserInfo>, Status> {
        let wanted = impersonate::parse(headers).map_err(|error| error.status())?;
        let Some(wanted) = wanted else { return Ok(user) };
        let Root::Api(hub) = self.roots().root(RootName::Hub).await? else {
            return Err(Status::failure(
                Reason::Forbidden,
                "the hub decides on no impersonation",
            ));
        };
        for check in &wanted.checks {
            let attributes = check.attributes();
            let info = RequestInfo {
                is_resource_request: true,
                verb: attributes.verb.to_owned(),
                group: attributes.group.to_owned(),
                resource: attributes.resource.to_owned(),
                subresource: attributes.subresource.to_owned(),
                namespace: attributes.namespace.to_owned(),
                name: attributes.name.to_owned(),
                ..RequestInfo::default()
            };
            hub.authorize(&user, &info).await?;
        }
        Ok(Arc::new(wanted.user))
    }
}
