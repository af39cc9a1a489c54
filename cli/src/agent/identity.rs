//! Who the agent is to the hub: a key, the certificate for it, and the ClusterJoinRequest that it was issued for.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use umbra_auth::certificates::{CertificateRequest, validity_of_pem};
use umbra_auth::tokens::sha256_hex;
use umbra_child::Child;

/// When renewing is tried again that failed.
const RENEW_AGAIN: Duration = Duration::from_secs(60);

/// What is kept: complete where there is a certificate, else on its way.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Kept {
    /// The name of the ClusterJoinRequest.
    pub(super) name: String,
    /// PKCS #10, as PEM.
    pub(super) request: String,
    /// PKCS #8, as PEM.
    pub(super) key: String,
    /// PEM; empty until the hub has issued it.
    pub(super) certificate: String,
}

impl Kept {
    /// Something new to ask for, for the agents of `cluster`.
    ///
    /// # Errors
    /// Where no key can be made.
    pub(super) fn new(cluster: &str) -> Result<Self> {
        let made = CertificateRequest::create(&umbra_api::join_request::agent_user(cluster))?;
        let hash = sha256_hex(made.request_pem.as_bytes());
        Ok(Self {
            name: format!("{cluster}-{}", &hash[..16]),
            request: made.request_pem,
            key: made.key_pem,
            certificate: String::new(),
        })
    }

    /// The same request with another key.
    ///
    /// # Errors
    /// Where no key can be made.
    pub(super) fn with_new_key(&self, cluster: &str) -> Result<Self> {
        Ok(Self {
            name: self.name.clone(),
            ..Self::new(cluster)?
        })
    }

    /// Whether there is a certificate that is good now.
    pub(super) fn is_good(&self) -> bool {
        let now = Timestamp::now().as_second();
        validity_of_pem(&self.certificate).is_ok_and(|(_, until)| now < until)
    }
}

/// Who the agent is now.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) kept: Kept,
    hub: Child,
    renew_at: Instant,
}

impl std::fmt::Debug for Kept {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity of a certificate, with which `hub` is reached. It is to be renewed after two thirds of the time it has left, a
    /// tenth more or less, so that agents do not come together. Not of its whole time, which begins before it was issued, for the
    /// sake of clocks that are late.
    ///
    /// # Errors
    /// Where the certificate cannot be read.
    pub(super) fn new(kept: Kept, hub: Child) -> Result<Self> {
        let (_, until) = validity_of_pem(&kept.certificate).context("the certificate of the hub cannot be read")?;
        let left = until.saturating_sub(Timestamp::now().as_second()).max(0) as f64;
        Ok(Self {
            kept,
            hub,
            renew_at: Instant::now() + Duration::from_secs_f64(left * rand::rng().random_range(0.6..0.73)),
        })
    }

    /// The hub, as this identity.
    pub(super) fn hub(&self) -> &Child {
        &self.hub
    }

    pub(super) fn renew_at(&self) -> Instant {
        self.renew_at
    }

    /// Tries to renew again a while from now.
    pub(super) fn renew_later(&mut self) {
        self.renew_at = Instant::now() + RENEW_AGAIN.mul_f64(rand::rng().random_range(0.5..1.0));
    }
}
