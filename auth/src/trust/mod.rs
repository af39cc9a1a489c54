//! Whom an aggregated server believes about clients, and keeping that up to date.
//!
//! Two questions: whose client certificates name users, and whose are front proxies' (and by which headers those name
//! users). The hub publishes both in the ConfigMap `kube-system/extension-apiserver-authentication`; flags with files
//! replace either. The rules are those of `DelegatingAuthenticationOptions.ApplyTo`, `ConfigMapCAController` and
//! `RequestHeaderAuthRequestController` of kube-apiserver: both sources are followed, what cannot be read or is broken
//! changes nothing, and a ConfigMap that goes away takes nothing with it.
//!
//! [`ClientTrust`] is what requests are judged by. [`TrustKeeper`] fills it: once with [`TrustKeeper::load`], before
//! anything is served, and then with [`TrustKeeper::follow`], in a task of its owner.
//!
//! Deviations: files are read again every 5 s instead of being watched, which also sees what a mount replaces as a whole.
//! A broken part of the ConfigMap does not keep the other from being used.

mod config_map;
mod files;
mod keeper;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderMap;

pub use config_map::{CONFIG_MAP_NAME, CONFIG_MAP_NAMESPACE};
pub use files::FollowedFiles;
pub use keeper::{TrustKeeper, TrustOptions};

use crate::authenticate::Authenticators;
use crate::request_header::{
    HeaderNameError, ReloadableRequestHeaderTrust, RequestHeaderAuthenticator, RequestHeaderTrust,
};
use crate::tls::{CaBundle, CertificateAuthenticator, ReloadableCaBundle, TlsError};

/// Why a source of trust cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Authorities that cannot be used.
    #[error("{origin} cannot be used: {source}")]
    Bundle {
        /// Where they come from.
        origin: String,
        /// Why not.
        #[source]
        source: TlsError,
    },
    /// There is not one certificate where authorities should be.
    #[error("{origin} has no CERTIFICATE block")]
    Empty {
        /// Where it should be.
        origin: String,
    },
    /// A key of the ConfigMap is not a JSON list of strings.
    #[error("ConfigMap {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME}, key {key}, is not a list of strings")]
    List {
        /// Which.
        key: &'static str,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A header that no request can have.
    #[error(transparent)]
    HeaderName(#[from] HeaderNameError),
    /// A common name that is empty: it would allow certificates without one.
    #[error("an entry of requestheader-allowed-names is empty")]
    EmptyAllowedName,
    /// The ConfigMap cannot be read.
    #[error(
        "cannot read ConfigMap {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME} of the hub; Role \
         {CONFIG_MAP_NAMESPACE}/extension-apiserver-authentication-reader grants it"
    )]
    ConfigMap {
        /// Why not.
        #[source]
        source: Box<kube::Error>,
    },
    /// The hub does not say what is in the ConfigMap.
    #[error("the hub has not answered within {0} s what is in ConfigMap {CONFIG_MAP_NAMESPACE}/{CONFIG_MAP_NAME}")]
    Deadline(u64),
}

/// Whom to believe about clients, at this moment. Believes nobody until somebody fills it. Cloning shares it.
#[derive(Debug, Clone)]
pub struct ClientTrust {
    client_authorities: ReloadableCaBundle,
    request_header: ReloadableRequestHeaderTrust,
}

impl Default for ClientTrust {
    fn default() -> Self {
        Self {
            client_authorities: ReloadableCaBundle::new(CaBundle::default()),
            request_header: ReloadableRequestHeaderTrust::new(RequestHeaderTrust::nobody()),
        }
    }
}

impl ClientTrust {
    /// Front proxies first, then client certificates: the order of kube-apiserver.
    #[must_use]
    pub fn authenticators(&self) -> Authenticators {
        Authenticators::new(vec![
            Arc::new(RequestHeaderAuthenticator::new(self.request_header.clone())),
            Arc::new(CertificateAuthenticator::new(self.client_authorities.clone())),
        ])
    }

    /// Removes the headers by which a front proxy names a user; see [`ReloadableRequestHeaderTrust::strip`].
    pub fn strip(&self, headers: &mut HeaderMap) {
        self.request_header.strip(headers);
    }

    /// The authorities whose client certificates name users.
    #[must_use]
    pub fn client_authorities(&self) -> &ReloadableCaBundle {
        &self.client_authorities
    }

    /// Which front proxies are believed.
    #[must_use]
    pub fn request_header(&self) -> &ReloadableRequestHeaderTrust {
        &self.request_header
    }
}
