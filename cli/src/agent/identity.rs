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
/// No certificate is renewed later than this, however long it lasts: by renewing an agent hears what the hub is to be verified by, and
/// the hub says so for a month before it matters (`crate::serve::authority`).
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

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
    /// The authorities by which the hub is to be verified, as it said with the certificate, as PEM; empty where it said nothing.
    pub(super) hub_certificate_authority: String,
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
            ..Self::default()
        })
    }

    /// The same request with another key.
    ///
    /// # Errors
    /// Where no key can be made.
    pub(super) fn with_new_key(&self, cluster: &str) -> Result<Self> {
        Ok(Self {
            name: self.name.clone(),
            hub_certificate_authority: self.hub_certificate_authority.clone(),
            ..Self::new(cluster)?
        })
    }

    /// Nothing but what the hub is to be verified by: what counts also for whoever asks again.
    pub(super) fn forgotten(&self) -> Self {
        Self {
            hub_certificate_authority: self.hub_certificate_authority.clone(),
            ..Self::default()
        }
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
    /// What the hub is verified by; `None` for the authorities of this machine.
    trusted: Option<Vec<u8>>,
    renew_at: Instant,
}

impl std::fmt::Debug for Kept {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity of a certificate, with which `hub` is reached and verified by `trusted`. It is to be renewed after a third of the
    /// time it has left, a fifth more or less, so that agents do not come together: what is then left is for a hub that is away. Not
    /// of its whole time, which begins before it was issued, for the sake of clocks that are late.
    ///
    /// # Errors
    /// Where the certificate cannot be read.
    pub(super) fn new(kept: Kept, hub: Child, trusted: Option<Vec<u8>>) -> Result<Self> {
        let (_, until) = validity_of_pem(&kept.certificate).context("the certificate of the hub cannot be read")?;
        let left = Duration::from_secs(u64::try_from(until.saturating_sub(Timestamp::now().as_second())).unwrap_or(0));
        Ok(Self {
            kept,
            hub,
            trusted,
            renew_at: Instant::now() + renew_after(left, rand::rng().random_range(0.8..1.2)),
        })
    }

    /// The hub, as this identity.
    pub(super) fn hub(&self) -> &Child {
        &self.hub
    }

    /// What the hub is verified by.
    pub(super) fn trusted(&self) -> Option<&[u8]> {
        self.trusted.as_deref()
    }

    pub(super) fn renew_at(&self) -> Instant {
        self.renew_at
    }

    /// Tries to renew again a while from now.
    pub(super) fn renew_later(&mut self) {
        self.renew_at = Instant::now() + RENEW_AGAIN.mul_f64(rand::rng().random_range(0.5..1.0));
    }
}

/// After how long a certificate is renewed that counts for `left`. `part` is about 1.
fn renew_after(left: Duration, part: f64) -> Duration {
    (left / 3).mul_f64(part).min(LONGEST.mul_f64(part.min(1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_renewed_while_there_is_time_for_a_hub_that_is_away() {
        let day = Duration::from_secs(24 * 60 * 60);
        assert_eq!(renew_after(3 * day, 1.0), day);
        for part in [0.8, 1.0, 1.2] {
            assert!(7 * day - renew_after(7 * day, part) > 4 * day, "{part}");
            // The next authority of a hub is heard of long before it signs.
            assert!(renew_after(365 * day, part) <= 7 * day && renew_after(365 * day, part) > 5 * day);
        }
        assert_eq!(renew_after(Duration::ZERO, 1.2), Duration::ZERO);
    }

    #[test]
    fn what_the_hub_is_verified_by_outlives_the_certificate() {
        let mut kept = Kept::new("east").unwrap();
        kept.certificate = "pem".to_owned();
        kept.hub_certificate_authority = "authorities".to_owned();
        assert_eq!(
            kept.with_new_key("east").unwrap().hub_certificate_authority,
            "authorities"
        );
        let forgotten = kept.forgotten();
        assert_eq!(forgotten.hub_certificate_authority, "authorities");
        assert!(forgotten.name.is_empty() && forgotten.key.is_empty() && forgotten.certificate.is_empty());
        // What an earlier agent has kept says nothing of it.
        let earlier: Kept = serde_json::from_str(r#"{"name":"n","request":"r","key":"k","certificate":"c"}"#).unwrap();
        assert_eq!(earlier.hub_certificate_authority, "");
    }
}
