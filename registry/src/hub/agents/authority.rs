//! The authority that issues the certificates of agents and replicas. It issues no others, and counts for no others.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch;
use umbra_api::join_request::REPLICAS;
use umbra_auth::certificates::{CertificateAuthority, CertificateError, ClientSubject, IssuedCertificate};
use umbra_auth::reserved::REPLICA;
use umbra_auth::tls::{CaBundle, ReloadableCaBundle, TlsError};

use super::AgentIdentity;

/// Why an authority cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the bundle of the agents' authority cannot be used")]
pub struct AuthorityError(#[from] TlsError);

/// By what agents are to verify this hub, as PEM: they are told with each certificate that is issued, because what their manifest
/// says of it is as old as the manifest. Clones are the same. Empty where somebody else cares for the hub's certificate.
#[derive(Debug, Clone, Default)]
pub struct HubTrust(Arc<ArcSwap<String>>);

impl HubTrust {
    /// Tells `pem` from now on.
    pub fn replace(&self, pem: &str) {
        if *self.pem() != pem {
            self.0.store(Arc::new(pem.to_owned()));
        }
    }

    /// What is told now.
    #[must_use]
    pub fn pem(&self) -> Arc<String> {
        self.0.load_full()
    }
}

/// The authority of agents. Clones are the same.
#[derive(Debug, Clone)]
pub struct AgentAuthority {
    authority: Arc<ArcSwap<CertificateAuthority>>,
    bundle: ReloadableCaBundle,
    trusted: Arc<ArcSwap<Vec<u8>>>,
    changes: watch::Sender<()>,
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
            changes: watch::Sender::default(),
            lifetime,
        })
    }

    /// Issues by `authority` and believes certificates of those in `trusted` from now on; nothing happens where that is so
    /// already.
    ///
    /// # Errors
    /// Where `trusted` cannot be read; everything then stays as it is.
    pub fn replace(&self, authority: CertificateAuthority, trusted: &[u8]) -> Result<(), AuthorityError> {
        let same =
            **self.trusted.load() == trusted && self.authority.load().certificate_pem() == authority.certificate_pem();
        if same {
            return Ok(());
        }
        self.bundle.replace(CaBundle::from_pem(trusted)?);
        self.trusted.store(Arc::new(trusted.to_vec()));
        self.authority.store(Arc::new(authority));
        self.changes.send_replace(());
        Ok(())
    }

    /// Is told of every change of what is issued by or believed.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Whether a certificate, as DER, counts by the authorities that are trusted now. One of an authority that was taken away
    /// does not.
    #[must_use]
    pub fn believes(&self, certificate: &[u8]) -> bool {
        let chain = [CertificateDer::from(certificate)];
        self.bundle.current().verify_client(&chain, UnixTime::now()).is_ok()
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
