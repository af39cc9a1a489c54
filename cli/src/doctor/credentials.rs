//! How long the hub's credentials for children last: what a kubeconfig says of it, which is when its client certificate or its
//! token ends. A program that gives credentials renews them by itself.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use umbra_child::kubeconfig::Kubeconfig;

use super::finding::Finding;
use super::x509::{Certificate, days_until};

const CREDENTIALS: &str = "credentials";
/// Fewer days than this are worth a warning: time to issue another one without haste.
const DAYS: i64 = 14;

/// The hub's credential for one child.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) cluster: String,
    /// When it ends, if it does; or why that is not known.
    pub(super) expiry: Result<Option<Timestamp>, String>,
}

/// When the credential of a kubeconfig ends, where it says so.
pub(super) fn ends(kubeconfig: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(kubeconfig).ok()?;
    let config = Kubeconfig::parse(text, "the stored kubeconfig").ok()?;
    let user = config.select(None).ok()?.user;
    let certificate = user.client_certificate_data.as_ref().and_then(|data| {
        let pem = base64::engine::general_purpose::STANDARD.decode(data.trim()).ok()?;
        Some(Certificate::from_pem(&pem).ok()?.first()?.ends)
    });
    certificate.or_else(|| token_ends(user.token.as_deref()?))
}

/// The claim `exp` of a JSON web token (RFC 7519, 4.1.4). Only read, not verified.
fn token_ends(token: &str) -> Option<Timestamp> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    Timestamp::from_second(claims["exp"].as_i64()?).ok()
}

/// What there is to say of all of them.
pub(super) fn gather(credentials: Vec<Credential>, now: Timestamp) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut hidden, mut known, mut first) = (None, 0_usize, None::<(i64, String)>);
    for Credential { cluster, expiry } in credentials {
        let ends = match expiry {
            Ok(Some(ends)) => ends,
            Ok(None) => continue,
            Err(why) => {
                hidden.get_or_insert(why);
                continue;
            }
        };
        known += 1;
        let days = days_until(ends, now);
        let advice = format!(
            "put a new kubeconfig into the key kubeconfig of the Secret that ManagedCluster {cluster} names; the hub sees it at once"
        );
        match days {
            ..0 => findings.push(Finding::wrong(
                CREDENTIALS,
                format!("the hub's credential for {cluster} ended on {ends}"),
                advice,
            )),
            0..DAYS => findings.push(Finding::warning(
                CREDENTIALS,
                format!("the hub's credential for {cluster} ends in {days} days"),
                advice,
            )),
            _ => {
                if first.as_ref().is_none_or(|(least, _)| days < *least) {
                    first = Some((days, cluster));
                }
            }
        }
    }
    if let Some((days, cluster)) = first.filter(|_| findings.is_empty()) {
        let message = format!("of {known} that end, that for {cluster} is the first, in {days} days");
        findings.push(Finding::ok(CREDENTIALS, message));
    }
    if let Some(why) = hidden {
        findings.push(Finding::not_checked(
            CREDENTIALS,
            format!("when the hub's credentials for children end: {why}"),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};
    use umbra_auth::certificates::{CertificateAuthority, ClientSubject};

    use super::super::finding::{Level, levels};
    use super::*;

    fn kubeconfig(user: &Value) -> Vec<u8> {
        let config = json!({"current-context": "x", "clusters": [{"name": "c", "cluster": {"server": "https://c"}}],
            "users": [{"name": "u", "user": user}], "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}]});
        config.to_string().into_bytes()
    }

    #[test]
    fn certificates_and_tokens_say_when_they_end() {
        let authority = CertificateAuthority::create("a", Duration::from_secs(1_000_000)).unwrap();
        let subject = ClientSubject {
            user: "hub".to_owned(),
            groups: Vec::new(),
            uid: String::new(),
        };
        let issued = authority
            .issue_client(&subject, Duration::from_secs(86_400 * 3))
            .unwrap();
        let data = STANDARD.encode(&issued.certificate_pem);
        let end = ends(&kubeconfig(&json!({"client-certificate-data": data}))).unwrap();
        assert!((2..=3).contains(&days_until(end, Timestamp::now())));

        let claims = URL_SAFE_NO_PAD.encode(r#"{"exp":1700000000}"#);
        let end = ends(&kubeconfig(&json!({"token": format!("e30.{claims}.x")}))).unwrap();
        assert_eq!(end.as_second(), 1_700_000_000);
        assert_eq!(ends(&kubeconfig(&json!({"token": "opaque"}))), None);
        assert_eq!(
            ends(&kubeconfig(&json!({"exec": {"apiVersion": "v1", "command": "login"}}))),
            None
        );
        assert_eq!(ends(b"hello"), None);
    }

    #[test]
    fn those_that_end_soon_are_told_one_by_one() {
        let now: Timestamp = "2026-11-21T08:00:00Z".parse().unwrap();
        let credential = |cluster: &str, expiry: Result<Option<&str>, &str>| Credential {
            cluster: cluster.to_owned(),
            expiry: expiry
                .map(|end| end.map(|end| end.parse().unwrap()))
                .map_err(str::to_owned),
        };
        let far = || credential("far", Ok(Some("2027-11-21T08:00:00Z")));
        let findings = gather(vec![far(), credential("never", Ok(None))], now);
        assert_eq!(
            findings[0].message,
            "of 1 that end, that for far is the first, in 365 days"
        );
        let soon = credential("soon", Ok(Some("2026-11-25T08:00:00Z")));
        let over = credential("over", Ok(Some("2026-11-20T08:00:00Z")));
        let hidden = || credential("hidden", Err("you may not"));
        let findings = gather(vec![far(), soon, over, hidden(), hidden()], now);
        assert_eq!(levels(&findings), [Level::Warning, Level::Wrong, Level::NotChecked]);
        assert!(findings[1].message.contains("for over ended"), "{findings:?}");
    }
}
