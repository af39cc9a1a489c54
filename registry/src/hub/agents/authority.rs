//! The authority that issues the certificates of agents and replicas. It issues no others, and counts for no others.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use umbra_api::join_request::REPLICAS;
use umbra_auth::certificates::{CertificateAuthority, CertificateError, ClientSubject, IssuedCertificate};
use umbra_auth::tls::{CaBundle, ReloadableCaBundle, TlsError};

use super::AgentIdentity;

/// The user that replicas are to each other.
const REPLICA: &str = "umbra:replica";

/// Why an authority cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the bundle of the agents' authority cannot be used")]
pub struct AuthorityError(#[from] TlsError);

/// The authority of agents. Clones are the same.
#[derive(Debug, Clone)]
pub struct AgentAuthority {
    authority: Arc<ArcSwap<CertificateAuthority>>,
    bundle: ReloadableCaBundle,
    trusted: Arc<ArcSwap<Vec<u8>>>,
    lifetime: Duration,
}

impl AgentAuthority {
    /// An authority whose certificates last for `lifetime`; those of the authorities in `trusted` (PEM) count.
    ///
    /// # Errors
    /// Where `trusted` cannot be read.
    pub fn new(authority: CertificateAuthority, trusted: &[u8], lifetime: Duration) -> Result<Self, AuthorityError> {
        Ok(Self {
            authority: Arc::new(ArcSwap::from_pointee(authority)),
            bundle: ReloadableCaBundle::new(CaBundle::from_pem(trusted)?),
            trusted: Arc::new(ArcSwap::from_pointee(trusted.to_vec())),
            lifetime,
        })
    }

    /// Issues by another authority from now on.
    ///
    /// # Errors
    /// Where `trusted` cannot be read; everything then stays as it is.
    pub fn replace(&self, authority: CertificateAuthority, trusted: &[u8]) -> Result<(), AuthorityError> {
        self.bundle.replace(CaBundle::from_pem(trusted)?);
        self.trusted.store(Arc::new(trusted.to_vec()));
        self.authority.store(Arc::new(authority));
        Ok(())
    }

    /// Whose certificates count.
    #[must_use]
    pub fn bundle(&self) -> &ReloadableCaBundle {
        &self.bundle
    }

    /// The same as PEM.
    #[must_use]
    pub fn trusted_pem(&self) -> Vec<u8> {
        self.trusted.load().to_vec()
    }

    /// Signs the request of an agent, as PEM. Only its public key is taken from it.
    ///
    /// # Errors
    /// Where it cannot be read, or is not signed with its key.
    pub fn sign(&self, request_pem: &str, identity: &AgentIdentity) -> Result<String, CertificateError> {
        let user = identity.user();
        let subject = ClientSubject {
            user: user.name,
            groups: user.groups,
            uid: user.uid,
        };
        self.authority
            .load()
            .sign_client_request(request_pem, &subject, self.lifetime)
    }

    /// A certificate by which this replica proves itself to the others.
    ///
    /// # Errors
    /// Where it cannot be issued.
    pub fn issue_replica_client(&self, lifetime: Duration) -> Result<IssuedCertificate, CertificateError> {
        let subject = ClientSubject {
            user: REPLICA.to_owned(),
            groups: vec![REPLICAS.to_owned()],
            uid: String::new(),
        };
        self.authority.load().issue_client(&subject, lifetime)
    }

    /// A certificate that this replica shows to the others, which ask for it by `name`.
    ///
    /// # Errors
    /// Where it cannot be issued.
    pub fn issue_replica_server(&self, name: &str, lifetime: Duration) -> Result<IssuedCertificate, CertificateError> {
        self.authority.load().issue_serving(&[name.to_owned()], lifetime)
    }
}
