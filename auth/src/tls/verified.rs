//! Remembering that a chain of certificates is good.
//!
//! Every request is judged anew, so that a bundle that is exchanged and a certificate that expires count at once, also on
//! connections that exist. Verifying a chain takes 15 to 60 µs, and a front proxy's is the same for all requests of all
//! users. Whether a chain is good depends on the chain, the authorities and the time alone, and on the time only by the
//! validity of its certificates. So a chain that was good is good until the first of them expires: the answer is that of
//! verifying, not one that may be out of date. What its first certificate says of its owner never changes, and is remembered with it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest;
use parking_lot::Mutex;
use rustls::pki_types::{CertificateDer, UnixTime};
use umbra_apimachinery::user::UserInfo;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Chains that are remembered; beyond that, all are forgotten. Only holders of certificates that are trusted add to them.
/// An entry has some 100 bytes and what the certificate says of its owner, which is less than the certificate has.
const CAPACITY: usize = 4096;

/// What is known of a chain.
type Fingerprint = [u8; 32];

/// Chains that lead to the authorities of one bundle. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(super) struct VerifiedChains(Arc<Mutex<HashMap<Fingerprint, Good>>>);

/// When a chain is good, in seconds since the epoch, both included, and whom it belongs to.
#[derive(Debug, Clone, Default)]
struct Good {
    from: u64,
    until: u64,
    owner: Owner,
}

/// Whom the first certificate of a chain belongs to, once somebody has read it.
pub(super) type Owner = Arc<OnceLock<Option<UserInfo>>>;

impl VerifiedChains {
    /// Says what `verify` says, without asking it where the answer is known, and where to look for the owner.
    pub(super) fn verify<E>(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        verify: impl FnOnce() -> Result<(), E>,
    ) -> Result<Owner, E> {
        let fingerprint = fingerprint(chain);
        let second = now.as_secs();
        let known = self.0.lock().get(&fingerprint).cloned();
        if let Some(good) = known
            && (good.from..=good.until).contains(&second)
        {
            return Ok(good.owner);
        }
        verify()?;
        let owner = Owner::default();
        if let Some(until) = first_expiry(chain) {
            let mut chains = self.0.lock();
            if chains.len() >= CAPACITY {
                chains.clear();
            }
            let good = Good {
                from: second,
                until,
                owner: Arc::clone(&owner),
            };
            chains.insert(fingerprint, good);
        }
        Ok(owner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

fn fingerprint(chain: &[CertificateDer<'_>]) -> Fingerprint {
    let mut context = digest::Context::new(&digest::SHA256);
    for certificate in chain {
        context.update(&(certificate.len() as u64).to_be_bytes());
        context.update(certificate);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// When the first certificate of a chain expires, needed or not. `None`, and nothing is remembered, where one cannot be
/// read.
fn first_expiry(chain: &[CertificateDer<'_>]) -> Option<u64> {
    let expiries = chain.iter().map(|certificate| {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        u64::try_from(parsed.validity().not_after.timestamp()).ok()
    });
    expiries.collect::<Option<Vec<u64>>>()?.into_iter().min()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use proptest::prelude::*;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;
    use crate::certificates::{CertificateAuthority, ClientSubject};

    fn chain(lifetime: Duration) -> Vec<CertificateDer<'static>> {
        let authority = CertificateAuthority::create("ca", Duration::from_hours(1)).unwrap();
        let subject = ClientSubject {
            user: "alice".to_owned(),
            ..ClientSubject::default()
        };
        let issued = authority.issue_client(&subject, lifetime).unwrap();
        vec![CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()]
    }

    #[test]
    fn the_first_to_expire_counts_and_garbage_is_not_remembered() {
        let (long, short) = (chain(Duration::from_mins(30)), chain(Duration::from_mins(5)));
        let expiry = |chain: &[CertificateDer<'static>]| first_expiry(chain);
        let both = [long[0].clone(), short[0].clone()];
        assert_eq!(expiry(&both), expiry(&short));
        assert!(expiry(&both) < expiry(&long));
        let garbage = [long[0].clone(), CertificateDer::from(vec![1, 2, 3])];
        assert_eq!(expiry(&garbage), None);
        let verified = VerifiedChains::default();
        verified.verify(&garbage, UnixTime::now(), || Ok::<_, ()>(())).unwrap();
        assert_eq!(verified.len(), 0);
        assert_ne!(fingerprint(&both), fingerprint(&[short[0].clone(), long[0].clone()]));
    }

    #[test]
    fn memory_is_bounded() {
        let verified = VerifiedChains::default();
        let mut full = verified.0.lock();
        for number in 0..CAPACITY as u64 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&number.to_be_bytes());
            full.insert(key, Good::default());
        }
        drop(full);
        let other = chain(Duration::from_mins(5));
        verified.verify(&other, UnixTime::now(), || Ok::<_, ()>(())).unwrap();
        assert_eq!(verified.len(), 1);
    }

    proptest! {
        /// At whatever times it is asked: the answer is that of a verifier that knows when the chain is valid.
        #[test]
        fn the_answer_is_always_that_of_verifying(times in prop::collection::vec(0u64..400, 1..20), begins in 0u64..200) {
            let chain = chain(Duration::from_secs(60));
            let until = first_expiry(&chain).unwrap();
            let begins = until - 200 + begins;
            let verified = VerifiedChains::default();
            let asked = Cell::new(0);
            for time in &times {
                let second = until - 200 + time;
                let truth = (begins..=until).contains(&second);
                let now = UnixTime::since_unix_epoch(Duration::from_secs(second));
                let answer = verified.verify(&chain, now, || {
                    asked.set(asked.get() + 1);
                    if truth { Ok(()) } else { Err(()) }
                });
                prop_assert_eq!(answer.is_ok(), truth);
            }
            let mut earliest = u64::MAX;
            let needed = times.iter().filter(|time| {
                let second = until - 200 + **time;
                let known = (earliest..=until).contains(&second);
                if (begins..=until).contains(&second) && !known {
                    earliest = second;
                }
                !known
            });
            prop_assert_eq!(asked.get(), needed.count(), "nothing is verified that is known");
        }
    }
}
