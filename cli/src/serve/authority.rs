//! The hub's own authority for serving certificates, which all replicas share: a Secret of the hub cluster.
//!
//! The Secret has the keys `tls.crt` and `tls.key` (the authority that signs now), and `ca.crt`: everything that is to be
//! trusted. Whoever finds no Secret makes one; two that do so at once notice by the hub's answer, and use the first. The same for
//! renewing.
//!
//! An authority is renewed in two steps, so that nothing is signed by one that somebody does not trust yet: the next one is
//! published as `next.crt` and `next.key`, and in `ca.crt` beside the present one, which goes on signing; [`Purpose::published`]
//! later it takes over, and the one before stays in `ca.crt` until the next renewal. An authority that has ended is replaced at once.
//!
//! Deleting the Secret makes all certificates of its authority worthless within a minute or two.

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
    /// For how long the next authority is published before it signs, so that everybody who has to trust it has heard of it.
    published: Duration,
}

/// The authority of serving certificates.
pub(super) const SERVING: Purpose = Purpose {
    secret: "umbra-serving",
    of: "the serving certificate",
    // Agents hear of it when they renew, within a week (`LONGEST` in `crate::agent::identity`); three more are for those that are
    // away. It leaves three of the four months of [`RENEWAL`].
    published: Duration::from_secs(30 * 24 * 60 * 60),
};
/// The authority of the agents of tunnels, and of replicas to each other.
pub(super) const AGENTS: Purpose = Purpose {
    secret: "umbra-agents",
    of: "agents",
    // Replicas hear of it within a minute or two; the rest is for those that cannot ask for a while.
    published: Duration::from_secs(60 * 60),
};
/// When the authority in it ends, as RFC 3339.
const ENDS: &str = "umbra.dev/authority-ends";
/// When the next authority was published, as RFC 3339.
const NEXT_SINCE: &str = "umbra.dev/next-authority-since";
/// The keys.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const TRUSTED: &str = "ca.crt";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";
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
        let Some((shared, mut secret, what)) = Self::step(purpose, now, &present, &read)? else {
            return Ok(Some(read));
        };
        secret.metadata.resource_version = present.metadata.resource_version;
        let replaced = secrets.replace(purpose.secret, &PostParams::default(), &secret).await;
        let renewed = unless_conflict(replaced).context("it cannot be renewed")?;
        if renewed.is_some() {
            tracing::info!(secret = purpose.secret, "the authority of {} {what}", purpose.of);
        }
        Ok(renewed.map(|_| shared))
    }

    /// What is to be written instead of `present`, and what that does; `None` where it stays.
    fn step(
        purpose: &Purpose,
        now: Timestamp,
        present: &Secret,
        read: &Self,
    ) -> Result<Option<(Self, Secret, &'static str)>> {
        if time(present, ENDS).is_some_and(|ends| ends <= now) {
            let (shared, secret) = Self::create(purpose, now, Some(read))?;
            return Ok(Some((shared, secret, "had ended and has been replaced")));
        }
        if present
            .data
            .as_ref()
            .is_some_and(|data| data.contains_key(NEXT_CERTIFICATE))
        {
            let next = CertificateAuthority::from_pem(text(present, NEXT_CERTIFICATE)?, text(present, NEXT_KEY)?)
                .context("delete it, and another one is made")?;
            let since = time(present, NEXT_SINCE).unwrap_or(now);
            if now < since + jiff::SignedDuration::try_from(purpose.published)? {
                return Ok(None);
            }
            let (shared, secret) = Self::signing(purpose, since, next, Some(read))?;
            return Ok(Some((shared, secret, "has been renewed")));
        }
        if is_good(present, now) {
            return Ok(None);
        }
        let (shared, secret) = Self::publish(now, present, read, &new_authority(purpose, now)?)?;
        Ok(Some((shared, secret, "is being renewed: the next one is published")))
    }

    /// `present` with the next authority beside the one that signs.
    fn publish(now: Timestamp, present: &Secret, read: &Self, next: &CertificateAuthority) -> Result<(Self, Secret)> {
        let mut secret = present.clone();
        let trusted = format!("{}{}", read.authority.certificate_pem(), next.certificate_pem());
        secret.data.get_or_insert_default().extend(data(&[
            (TRUSTED, &trusted),
            (NEXT_CERTIFICATE, next.certificate_pem()),
            (NEXT_KEY, next.key_pem()),
        ]));
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.insert(NEXT_SINCE.to_owned(), now.to_string());
        Ok((Self::read(&secret)?, secret))
    }

    fn read(secret: &Secret) -> Result<Self> {
        let authority = CertificateAuthority::from_pem(text(secret, CERTIFICATE)?, text(secret, KEY)?)
            .context("delete it, and another one is made")?;
        let trusted = text(secret, TRUSTED)?.as_bytes().to_vec();
        Ok(Self { authority, trusted })
    }

    fn create(purpose: &Purpose, now: Timestamp, before: Option<&Self>) -> Result<(Self, Secret)> {
        Self::signing(purpose, now, new_authority(purpose, now)?, before)
    }

    /// The Secret of an authority that was made at `made` and signs from now on, and is trusted beside the one before.
    fn signing(
        purpose: &Purpose,
        made: Timestamp,
        authority: CertificateAuthority,
        before: Option<&Self>,
    ) -> Result<(Self, Secret)> {
        let mut trusted = authority.certificate_pem().to_owned();
        if let Some(before) = before {
            trusted.push_str(before.authority.certificate_pem());
        }
        let ends = made + jiff::SignedDuration::try_from(LIFETIME)?;
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
            data: Some(data(&[
                (CERTIFICATE, authority.certificate_pem()),
                (KEY, authority.key_pem()),
                (TRUSTED, &trusted),
            ])),
            ..Secret::default()
        };
        let trusted = trusted.into_bytes();
        Ok((Self { authority, trusted }, secret))
    }
}

fn new_authority(purpose: &Purpose, now: Timestamp) -> Result<CertificateAuthority> {
    let name = format!("{}@{}", purpose.secret, now.as_second());
    Ok(CertificateAuthority::create(&name, LIFETIME)?)
}

fn data(values: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
    let value = |text: &str| ByteString(text.as_bytes().to_vec());
    values
        .iter()
        .map(|(key, text)| ((*key).to_owned(), value(text)))
        .collect()
}

fn text<'a>(secret: &'a Secret, key: &str) -> Result<&'a str> {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    let value = value.with_context(|| format!("it has no key {key}; delete it, and another one is made"))?;
    std::str::from_utf8(&value.0).with_context(|| format!("its key {key} is not PEM"))
}

fn time(secret: &Secret, annotation: &str) -> Option<Timestamp> {
    secret.metadata.annotations.as_ref()?.get(annotation)?.parse().ok()
}

/// Whether an authority need not be renewed yet. One that does not say is renewed.
fn is_good(secret: &Secret, now: Timestamp) -> bool {
    let renewal = jiff::SignedDuration::try_from(RENEWAL).expect("four months are a duration");
    time(secret, ENDS).is_some_and(|ends| now + renewal < ends)
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

        // First it is published, and the present one goes on signing.
        let renewed = now + months;
        let (published, secret, _) = SharedAuthority::step(&SERVING, renewed, &secret, &read)
            .unwrap()
            .expect("a step");
        assert_eq!(published.authority.certificate_pem(), first.authority.certificate_pem());
        assert_eq!(pems(&published), 2);
        let read = SharedAuthority::read(&secret).unwrap();
        assert_eq!(read.trusted, published.trusted);
        // Agents hear of it once a week, or sooner.
        let soon = renewed + jiff::SignedDuration::from_hours(29 * 24);
        assert!(SharedAuthority::step(&SERVING, soon, &secret, &read).unwrap().is_none());

        // Then it signs, and the one before is trusted still.
        let later = renewed + jiff::SignedDuration::from_hours(31 * 24);
        let (second, secret, _) = SharedAuthority::step(&SERVING, later, &secret, &read)
            .unwrap()
            .expect("a step");
        assert_ne!(second.authority.certificate_pem(), first.authority.certificate_pem());
        let trusted = String::from_utf8(second.trusted.clone()).unwrap();
        let next = second.authority.certificate_pem();
        assert_eq!(trusted, format!("{next}{}", first.authority.certificate_pem()));
        assert!(
            String::from_utf8(published.trusted).unwrap().contains(next),
            "it was trusted before"
        );
        assert!(is_good(&secret, later) && time(&secret, NEXT_SINCE).is_none());
        let read = SharedAuthority::read(&secret).unwrap();
        assert!(
            SharedAuthority::step(&SERVING, later, &secret, &read)
                .unwrap()
                .is_none()
        );
        assert_eq!(pems(&read), 2);
    }

    #[test]
    fn an_authority_that_has_ended_is_replaced_at_once() {
        let now = Timestamp::now();
        let (first, secret) = SharedAuthority::create(&AGENTS, now, None).unwrap();
        let late = now + jiff::SignedDuration::try_from(LIFETIME).unwrap();
        let (second, _, _) = SharedAuthority::step(&AGENTS, late, &secret, &first)
            .unwrap()
            .expect("a step");
        assert_ne!(second.authority.certificate_pem(), first.authority.certificate_pem());
    }

    fn pems(shared: &SharedAuthority) -> usize {
        std::str::from_utf8(&shared.trusted).unwrap().matches("BEGIN").count()
    }

    #[test]
    fn a_secret_of_somebody_else_is_not_overwritten() {
        let error = SharedAuthority::read(&Secret::default()).unwrap_err();
        assert!(format!("{error:#}").contains("has no key tls.crt"), "{error:#}");
    }
}
