//! The hub's own authority for serving certificates, which all replicas share: a Secret of the hub cluster.
//!
//! The Secret has the keys `tls.crt` and `tls.key` (the authority that signs now), and `ca.crt`: everything that a client
//! should trust, which is the authority and, for a while, the one before. Whoever finds no Secret makes one; two that do so
//! at once notice by the hub's answer, and use the first. The same for renewing.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Error};
use umbra_api::SYSTEM_NAMESPACE;
use umbra_auth::certificates::CertificateAuthority;

/// One of the hub's own authorities.
#[derive(Debug)]
pub(super) struct Purpose {
    /// The Secret.
    secret: &'static str,
    /// What it is the authority of.
    of: &'static str,
}

/// The authority of serving certificates.
pub(super) const SERVING: Purpose = Purpose {
    secret: "umbra-serving",
    of: "the serving certificate",
};
/// The authority of the agents of tunnels, and of replicas to each other.
pub(super) const AGENTS: Purpose = Purpose {
    secret: "umbra-agents",
    of: "agents",
};
/// When the authority in it ends, as RFC 3339.
const ENDS: &str = "umbra.dev/authority-ends";
/// The keys.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const TRUSTED: &str = "ca.crt";
/// How long an authority lasts. It is renewed [`RENEWAL`] before its end.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// A third of it: a hub that is off for months still comes back with an authority that is good.
const RENEWAL: Duration = Duration::from_secs(365 * 24 * 60 * 60 / 3);
/// How often it is tried again when another replica writes the Secret at the same time.
const ATTEMPTS: usize = 5;

/// The authority, and what clients should trust.
#[derive(Debug)]
pub(super) struct SharedAuthority {
    pub(super) authority: CertificateAuthority,
    pub(super) trusted: Vec<u8>,
}

impl SharedAuthority {
    /// What is in the Secret, which is made where it is not there, and renewed where it is time to.
    ///
    /// # Errors
    /// Where the hub does not let this server read and write the Secret, and where somebody has put something else there.
    pub(super) async fn load(hub: &kube::Client, purpose: &Purpose) -> Result<Self> {
        let secrets: Api<Secret> = Api::namespaced(hub.clone(), SYSTEM_NAMESPACE);
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::try_load(&secrets, purpose, Timestamp::now()).await {
                Ok(Some(shared)) => return Ok(shared),
                // Somebody else was faster; what they wrote counts.
                Ok(None) => {}
                Err(error) => {
                    last = Some(error);
                    break;
                }
            }
        }
        let error = last.unwrap_or_else(|| anyhow::anyhow!("other replicas keep writing it"));
        Err(error.context(format!(
            "the authority of {}, in Secret {SYSTEM_NAMESPACE}/{} of the hub cluster, cannot be used",
            purpose.of, purpose.secret
        )))
    }

    async fn try_load(secrets: &Api<Secret>, purpose: &Purpose, now: Timestamp) -> Result<Option<Self>> {
        let Some(present) = secrets.get_opt(purpose.secret).await.context("it cannot be read")? else {
            let (shared, secret) = Self::create(purpose, now, None)?;
            let created = secrets.create(&PostParams::default(), &secret).await;
            return Ok(unless_conflict(created)
                .context("it cannot be created")?
                .map(|_| shared));
        };
        let read = Self::read(&present)?;
        if is_good(&present, now) {
            return Ok(Some(read));
        }
        let (shared, mut secret) = Self::create(purpose, now, Some(&read))?;
        secret.metadata.resource_version = present.metadata.resource_version;
        let replaced = secrets.replace(purpose.secret, &PostParams::default(), &secret).await;
        let renewed = unless_conflict(replaced).context("it cannot be renewed")?;
        if renewed.is_some() {
            tracing::info!(
                secret = purpose.secret,
                "the authority of {} has been renewed",
                purpose.of
            );
        }
        Ok(renewed.map(|_| shared))
    }

    fn read(secret: &Secret) -> Result<Self> {
        let text = |key: &str| {
            let value = secret.data.as_ref().and_then(|data| data.get(key));
            let value = value.with_context(|| format!("it has no key {key}; delete it, and another one is made"))?;
            std::str::from_utf8(&value.0).with_context(|| format!("its key {key} is not PEM"))
        };
        let authority = CertificateAuthority::from_pem(text(CERTIFICATE)?, text(KEY)?)
            .context("delete it, and another one is made")?;
        Ok(Self {
            authority,
            trusted: text(TRUSTED)?.as_bytes().to_vec(),
        })
    }

    fn create(purpose: &Purpose, now: Timestamp, before: Option<&Self>) -> Result<(Self, Secret)> {
        let authority = CertificateAuthority::create(&format!("{}@{}", purpose.secret, now.as_second()), LIFETIME)?;
        let mut trusted = authority.certificate_pem().to_owned();
        if let Some(before) = before {
            trusted.push_str(before.authority.certificate_pem());
        }
        let ends = now + jiff::SignedDuration::try_from(LIFETIME)?;
        let data = [
            (CERTIFICATE, authority.certificate_pem()),
            (KEY, authority.key_pem()),
            (TRUSTED, &trusted),
        ];
        let secret = Secret {
            metadata: kube::api::ObjectMeta {
                name: Some(purpose.secret.to_owned()),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/managed-by".to_owned(),
                    "umbra".to_owned(),
                )])),
                annotations: Some(BTreeMap::from([(ENDS.to_owned(), ends.to_string())])),
                ..kube::api::ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(
                data.into_iter()
                    .map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())))
                    .collect(),
            ),
            ..Secret::default()
        };
        let trusted = trusted.into_bytes();
        Ok((Self { authority, trusted }, secret))
    }
}

/// Whether an authority need not be renewed yet. One that does not say is renewed.
fn is_good(secret: &Secret, now: Timestamp) -> bool {
    let annotations = secret.metadata.annotations.as_ref();
    let ends: Option<Timestamp> = annotations
        .and_then(|annotations| annotations.get(ENDS))
        .and_then(|text| text.parse().ok());
    let renewal = jiff::SignedDuration::try_from(RENEWAL).expect("four months are a duration");
    ends.is_some_and(|ends| now + renewal < ends)
}

/// `None` where somebody else has written first.
fn unless_conflict<T>(written: Result<T, Error>) -> Result<Option<T>, Error> {
    match written {
        Err(Error::Api(status)) if status.code == 409 => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewed_authority_is_trusted_beside_the_one_before() {
        let now = Timestamp::now();
        let (first, secret) = SharedAuthority::create(&SERVING, now, None).unwrap();
        assert!(is_good(&secret, now));
        let months = jiff::SignedDuration::from_hours(24 * 250);
        assert!(!is_good(&secret, now + months));
        let read = SharedAuthority::read(&secret).unwrap();
        assert_eq!(read.authority.certificate_pem(), first.authority.certificate_pem());

        let (second, secret) = SharedAuthority::create(&SERVING, now + months, Some(&read)).unwrap();
        let trusted = String::from_utf8(second.trusted.clone()).unwrap();
        assert_eq!(
            trusted,
            format!(
                "{}{}",
                second.authority.certificate_pem(),
                first.authority.certificate_pem()
            )
        );
        assert_ne!(second.authority.certificate_pem(), first.authority.certificate_pem());
        assert_eq!(SharedAuthority::read(&secret).unwrap().trusted, second.trusted);
        let (third, _) = SharedAuthority::create(&SERVING, now + months, Some(&second)).unwrap();
        assert_eq!(String::from_utf8(third.trusted).unwrap().matches("BEGIN").count(), 2);
    }

    #[test]
    fn a_secret_of_somebody_else_is_not_overwritten() {
        let error = SharedAuthority::read(&Secret::default()).unwrap_err();
        assert!(format!("{error:#}").contains("has no key tls.crt"), "{error:#}");
    }
}
