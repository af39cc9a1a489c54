//! Who the front proxy is: the ConfigMap in which kube-apiserver says it, and by which umbra believes kube-apiserver about users.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;

use super::asking::Read;
use super::finding::Finding;
use super::x509::{Certificate, days_until};

const FRONT_PROXY: &str = "front-proxy";
/// The ConfigMap, in `kube-system`.
pub(super) const NAME: &str = "extension-apiserver-authentication";
/// The authorities of front proxies.
const AUTHORITY: &str = "requestheader-client-ca-file";
/// Fewer days than this are worth a warning: kube-apiserver has to be restarted with others.
const DAYS: i64 = 30;

/// Whether kube-apiserver says who it is.
pub(super) fn judge(config: &Read<ConfigMap>, now: Timestamp) -> Vec<Finding> {
    let advice = "give kube-apiserver --requestheader-client-ca-file, --requestheader-allowed-names, --proxy-client-cert-file and \
                  --proxy-client-key-file: https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/";
    let config = match config.known(FRONT_PROXY, &format!("ConfigMap kube-system/{NAME}")) {
        Ok(Some(config)) => config,
        Ok(None) => {
            let message = format!("there is no ConfigMap kube-system/{NAME}: kube-apiserver does not say who it is");
            return vec![Finding::wrong(FRONT_PROXY, message, advice)];
        }
        Err(finding) => return vec![finding],
    };
    let value = |key: &str| config.data.as_ref().and_then(|data| data.get(key)).map(String::as_str);
    let Some(pem) = value(AUTHORITY) else {
        let message = format!("ConfigMap kube-system/{NAME} has no {AUTHORITY}: umbra cannot know kube-apiserver");
        return vec![Finding::wrong(FRONT_PROXY, message, advice)];
    };
    let authorities = match Certificate::from_pem(pem.as_bytes()) {
        Ok(authorities) => authorities,
        Err(error) => {
            let message = format!("{AUTHORITY} in ConfigMap kube-system/{NAME} is not PEM: {error:#}");
            return vec![Finding::wrong(FRONT_PROXY, message, advice)];
        }
    };
    let last = authorities
        .iter()
        .map(|one| days_until(one.ends, now))
        .max()
        .unwrap_or_default();
    if last < 0 {
        let message = format!("the authority of the front proxy ended {} days ago", -last);
        return vec![Finding::wrong(
            FRONT_PROXY,
            message,
            "issue another one, and restart kube-apiserver with it",
        )];
    }
    let names: Vec<String> = value("requestheader-allowed-names")
        .and_then(|names| serde_json::from_str(names).ok())
        .unwrap_or_default();
    let mut findings = Vec::new();
    if last < DAYS {
        findings.push(Finding::warning(
            FRONT_PROXY,
            format!("the authority of the front proxy ends in {last} days"),
            "issue another one, and restart kube-apiserver with it",
        ));
    }
    if names.is_empty() {
        findings.push(Finding::warning(
            FRONT_PROXY,
            "every certificate of the front proxy's authority may say who users are: there are no allowed names",
            "give kube-apiserver --requestheader-allowed-names with the common name of its proxy certificate",
        ));
    }
    if findings.is_empty() {
        let message = format!(
            "umbra knows kube-apiserver as {}, for {last} more days",
            names.join(", ")
        );
        findings.push(Finding::ok(FRONT_PROXY, message));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::SignedDuration;
    use serde_json::json;
    use umbra_auth::certificates::CertificateAuthority;

    use super::super::finding::{Level, levels};
    use super::*;

    #[test]
    fn who_the_front_proxy_is_has_to_be_said() {
        let now = Timestamp::now();
        let authority = CertificateAuthority::create("front", Duration::from_secs(100 * 24 * 60 * 60)).unwrap();
        let pem = authority.certificate_pem();
        let judge = |pem: Option<&str>, names: &str, days: i64| {
            let data = json!({"data": {AUTHORITY: pem, "requestheader-allowed-names": names}});
            let data = match pem {
                Some(_) => data,
                None => json!({"data": {}}),
            };
            let config = Read::There(serde_json::from_value(data).unwrap());
            levels(&judge(&config, now + SignedDuration::from_hours(24 * days)))
        };
        assert_eq!(judge(Some(pem), r#"["front-proxy-client"]"#, 0), [Level::Ok]);
        assert_eq!(judge(Some(pem), "[]", 0), [Level::Warning]);
        assert_eq!(judge(Some(pem), "[]", 80), [Level::Warning, Level::Warning]);
        assert_eq!(judge(Some(pem), r#"["x"]"#, 101), [Level::Wrong]);
        assert_eq!(judge(Some("hello"), "[]", 0), [Level::Wrong]);
        assert_eq!(judge(None, "[]", 0), [Level::Wrong]);
        assert_eq!(levels(&super::judge(&Read::Missing, now)), [Level::Wrong]);
        assert_eq!(
            levels(&super::judge(&Read::Unknown("no".to_owned()), now)),
            [Level::NotChecked]
        );
    }
}
