//! The serving certificate: whether kube-apiserver trusts it, and how long it lasts.
//!
//! The numbers are those of `umbra serve`, which renews an authority of its own 120 days before its end and a serving certificate
//! 10 days before. Later than that, nobody has renewed it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, ServiceReference};

use super::api_service::{NAME, reference};
use super::asking::Read;
use super::finding::Finding;
use super::x509::{Certificate, Shown, days_until, shown};

const CERTIFICATES: &str = "certificates";
/// The Secret with the authority; absent where certificates are given as files.
pub(super) const SECRET: &str = "umbra-serving";
/// Fewer days than this, and an authority has not been renewed when it should have been.
const AUTHORITY_DAYS: i64 = 110;
/// The same for a serving certificate.
const SERVING_DAYS: i64 = 9;

/// The addresses at which the Service may be reached from here: within the hub cluster all of them, from outside mostly none.
fn addresses(service: &Service, at: &ServiceReference) -> Vec<(String, u16)> {
    let (namespace, name, port) = reference(at);
    let Ok(port) = u16::try_from(port) else {
        return Vec::new();
    };
    let spec = service.spec.clone().unwrap_or_default();
    if let Some(external) = spec.external_name {
        return vec![(external, port)];
    }
    let address = spec.cluster_ip.filter(|address| address != "None");
    let names = [Some(format!("{name}.{namespace}.svc")), address];
    names.into_iter().flatten().map(|host| (host, port)).collect()
}

/// Lets umbra show its certificate, where it can be reached from here.
pub(super) async fn served(api_service: &APIService, service: &Read<Service>) -> Option<Shown> {
    let spec = api_service.spec.as_ref()?;
    let at = spec.service.as_ref()?;
    let Read::There(service) = service else { return None };
    let trusted = spec
        .ca_bundle
        .as_ref()
        .and_then(|bundle| Certificate::from_pem(&bundle.0).ok());
    let trusted = trusted.unwrap_or_default();
    let (namespace, name, _) = reference(at);
    let name = format!("{name}.{namespace}.svc");
    for (host, port) in addresses(service, at) {
        if let Ok(shown) = shown((&host, port), &name, &trusted).await {
            return Some(shown);
        }
    }
    None
}

/// What there is to say about the certificates of an installation.
pub(super) fn judge(
    api_service: &APIService,
    secret: &Read<Secret>,
    served: Option<&Shown>,
    now: Timestamp,
) -> Vec<Finding> {
    let spec = api_service.spec.clone().unwrap_or_default();
    let mut findings = Vec::new();
    if spec.insecure_skip_tls_verify == Some(true) {
        findings.push(Finding::warning(
            CERTIFICATES,
            format!("APIService {NAME} has insecureSkipTLSVerify: kube-apiserver sends requests to whoever answers"),
            "remove insecureSkipTLSVerify and give a caBundle; umbra does both itself where it may patch the APIService",
        ));
    }
    let bundle = match &spec.ca_bundle {
        Some(bundle) => Certificate::from_pem(&bundle.0),
        None if spec.insecure_skip_tls_verify == Some(true) => return findings,
        None => {
            let message = format!("APIService {NAME} has no caBundle: kube-apiserver trusts nobody");
            findings.push(Finding::wrong(CERTIFICATES, message, writes_itself()));
            return findings;
        }
    };
    match &bundle {
        Ok(bundle) => findings.extend(authority(bundle, secret, now)),
        Err(error) => {
            let message = format!("the caBundle of APIService {NAME} is no PEM with certificates: {error:#}");
            findings.push(Finding::wrong(CERTIFICATES, message, writes_itself()));
        }
    }
    findings.push(match served {
        Some(shown) => serving(shown, now),
        None => Finding::not_checked(
            CERTIFICATES,
            "umbra's own port is not reachable from here, so its certificate is judged by whether kube-apiserver takes it (api-service)",
        ),
    });
    findings
}

fn writes_itself() -> String {
    format!(
        "umbra writes the caBundle itself within a minute, if a replica runs and may patch the APIService (see rbac). With --tls-cert-file, \
         patch APIService {NAME} with the authority of that certificate"
    )
}

/// Whether the trusted authorities are the right ones, and good.
fn authority(bundle: &[Certificate], secret: &Read<Secret>, now: Timestamp) -> Vec<Finding> {
    let current = match secret.known(CERTIFICATES, &format!("Secret {SECRET}")) {
        Err(finding) => return [finding].into_iter().chain(expiry(bundle, now)).collect(),
        // Certificates are given as files: who gives them writes the caBundle.
        Ok(None) => return expiry(bundle, now).into_iter().collect(),
        Ok(Some(secret)) => secret
            .data
            .as_ref()
            .and_then(|data| data.get("tls.crt"))
            .map(|pem| Certificate::from_pem(&pem.0)),
    };
    let Some(Ok([current, ..])) = current.as_ref().map(|read| read.as_deref()) else {
        return vec![Finding::wrong(
            CERTIFICATES,
            format!("Secret {SECRET} has no certificate in its key tls.crt"),
            format!(
                "delete the Secret {SECRET}: umbra makes another one, which agents trust once it is in their Secret umbra-agent-bootstrap"
            ),
        )];
    };
    if !bundle.iter().any(|trusted| trusted.der == current.der) {
        let message = format!(
            "the caBundle of APIService {NAME} is not the authority in Secret {SECRET}: kube-apiserver does not trust umbra"
        );
        return vec![Finding::wrong(CERTIFICATES, message, writes_itself())];
    }
    expiry(std::slice::from_ref(current), now).into_iter().collect()
}

/// How long the authority lasts that lasts longest.
fn expiry(authorities: &[Certificate], now: Timestamp) -> Option<Finding> {
    let last = authorities.iter().max_by_key(|one| one.ends)?;
    let days = days_until(last.ends, now);
    let advice = format!(
        "see umbra's log why it does not renew Secret {SECRET}; deleting the Secret lets umbra make another one, which the agents of \
         tunnels trust once it is in their Secret umbra-agent-bootstrap"
    );
    Some(if days < 0 {
        Finding::wrong(
            CERTIFICATES,
            format!("the authority of the serving certificate ended on {}", last.ends),
            advice,
        )
    } else if days < AUTHORITY_DAYS {
        let message = format!("the authority of the serving certificate ends in {days} days and has not been renewed");
        Finding::warning(CERTIFICATES, message, advice)
    } else {
        Finding::ok(
            CERTIFICATES,
            format!("the authority that kube-apiserver trusts lasts {days} days"),
        )
    })
}

/// What a client that trusts the caBundle says of the certificate that umbra shows.
fn serving(shown: &Shown, now: Timestamp) -> Finding {
    let days = days_until(shown.certificate.ends, now);
    let subject = &shown.certificate.subject;
    if let Some(refused) = &shown.refused {
        let message =
            format!("the certificate that umbra shows ({subject}) is not one that the APIService trusts: {refused}");
        return Finding::wrong(CERTIFICATES, message, writes_itself());
    }
    if days < SERVING_DAYS {
        let message = format!("the certificate that umbra shows ends in {days} days and has not been renewed");
        return Finding::warning(
            CERTIFICATES,
            message,
            "see umbra's log why, or renew the file of --tls-cert-file",
        );
    }
    Finding::ok(
        CERTIFICATES,
        format!("the certificate that umbra shows is trusted, and lasts {days} days"),
    )
}

/// What a standalone hub shows. That it is trusted has been seen: it was asked.
pub(super) async fn standalone(server: &str, now: Timestamp) -> Vec<Finding> {
    let Ok(uri) = server.parse::<http::Uri>() else {
        return Vec::new();
    };
    let (Some(host), Some("https")) = (uri.host(), uri.scheme_str()) else {
        return vec![Finding::warning(
            CERTIFICATES,
            "the hub is reached without TLS",
            "use its https address",
        )];
    };
    let host = host.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(443);
    match shown((host, port), host, &[]).await {
        Ok(shown) => {
            let days = days_until(shown.certificate.ends, now);
            // A hub issues one at every start, for 397 days.
            let restart = "restart the hub: it issues another one at every start";
            vec![match days {
                ..0 => Finding::wrong(
                    CERTIFICATES,
                    format!("the hub's certificate ended {} days ago", -days),
                    restart,
                ),
                0..30 => Finding::warning(
                    CERTIFICATES,
                    format!("the hub's certificate ends in {days} days"),
                    restart,
                ),
                _ => Finding::ok(CERTIFICATES, format!("the hub's certificate lasts {days} days")),
            }]
        }
        Err(error) => vec![Finding::not_checked(
            CERTIFICATES,
            format!("the hub's certificate: {error:#}"),
        )],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use jiff::SignedDuration;
    use serde_json::json;
    use umbra_auth::certificates::CertificateAuthority;

    use super::super::finding::{Level, levels};
    use super::*;

    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    fn authority(name: &str) -> CertificateAuthority {
        CertificateAuthority::create(name, YEAR).unwrap()
    }

    fn api_service(bundle: Option<&str>) -> APIService {
        let bundle = bundle.map(|pem| BASE64.encode(pem));
        serde_json::from_value(
            json!({"spec": {"groupPriorityMinimum": 1, "versionPriority": 1, "caBundle": bundle,
            "service": {"name": "umbra", "namespace": "umbra-system"}}}),
        )
        .unwrap()
    }

    fn secret(authority: &CertificateAuthority) -> Read<Secret> {
        let pem = BASE64.encode(authority.certificate_pem());
        Read::There(serde_json::from_value(json!({"data": {"tls.crt": pem}})).unwrap())
    }

    fn served(authority: &CertificateAuthority, refused: Option<&str>) -> Shown {
        Shown {
            certificate: Certificate::from_der(authority.certificate().clone()).unwrap(),
            refused: refused.map(str::to_owned),
        }
    }

    #[test]
    fn the_bundle_has_to_be_the_authority_that_signs() {
        let now = Timestamp::now();
        let (ours, other) = (authority("ours"), authority("other"));
        let judge = |bundle: Option<&str>, secret: &Read<Secret>| {
            let findings = judge(&api_service(bundle), secret, Some(&served(&ours, None)), now);
            (levels(&findings), findings[0].clone())
        };
        let both = format!("{}{}", other.certificate_pem(), ours.certificate_pem());
        assert_eq!(judge(Some(&both), &secret(&ours)).0, [Level::Ok, Level::Ok]);
        let (seen, finding) = judge(Some(other.certificate_pem()), &secret(&ours));
        assert_eq!(seen, [Level::Wrong, Level::Ok]);
        assert!(finding.advice.unwrap().contains("may patch the APIService"));
        assert_eq!(judge(None, &secret(&ours)).0, [Level::Wrong]);
        assert_eq!(judge(Some("hello"), &secret(&ours)).0, [Level::Wrong, Level::Ok]);
        assert_eq!(
            judge(Some(ours.certificate_pem()), &Read::Missing).0,
            [Level::Ok, Level::Ok]
        );
        let hidden = Read::Unknown("you may not".to_owned());
        assert_eq!(
            judge(Some(ours.certificate_pem()), &hidden).0,
            [Level::NotChecked, Level::Ok, Level::Ok]
        );
        let empty = Read::There(Secret::default());
        assert!(
            judge(Some(ours.certificate_pem()), &empty)
                .1
                .advice
                .unwrap()
                .contains("delete")
        );
    }

    #[test]
    fn what_ends_is_told_before_it_does() {
        let now = Timestamp::now();
        let ours = authority("ours");
        let level = |days: i64| {
            let later = now + SignedDuration::from_hours(24 * days);
            levels(&judge(
                &api_service(Some(ours.certificate_pem())),
                &secret(&ours),
                None,
                later,
            ))[0]
        };
        assert_eq!([level(0), level(240)], [Level::Ok; 2]);
        assert_eq!([level(260), level(364)], [Level::Warning; 2]);
        assert_eq!(level(366), Level::Wrong);
    }

    #[test]
    fn what_is_shown_is_judged() {
        let now = Timestamp::now();
        let ours = authority("ours");
        assert_eq!(serving(&served(&ours, Some("UnknownIssuer")), now).level, Level::Wrong);
        let late = now + SignedDuration::from_hours(24 * 360);
        assert_eq!(serving(&served(&ours, None), late).level, Level::Warning);
    }

    #[test]
    fn a_service_is_looked_for_where_it_may_be() {
        let at = ServiceReference {
            name: Some("umbra".to_owned()),
            namespace: Some("n".to_owned()),
            port: None,
        };
        let service = |spec| serde_json::from_value::<Service>(json!({ "spec": spec })).unwrap();
        let plain = addresses(&service(json!({"clusterIP": "10.0.0.1"})), &at);
        assert_eq!(plain, [("umbra.n.svc".to_owned(), 443), ("10.0.0.1".to_owned(), 443)]);
        let external = addresses(
            &service(json!({"type": "ExternalName", "externalName": "localhost"})),
            &at,
        );
        assert_eq!(external, [("localhost".to_owned(), 443)]);
    }
}
