//! The hub itself: whether it answers, what it is, and whether its clock is right.

use jiff::Timestamp;
use serde_json::Value;

use super::asking::Hub;
use super::clock;
use super::finding::Finding;

const HUB: &str = "hub";
/// The group of APIServices: who has it is a kube-apiserver.
const AGGREGATION: &str = "apiregistration.k8s.io";

/// What kind of hub it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// A kube-apiserver, with umbra behind it.
    Aggregated,
    /// `umbra up`.
    Standalone,
}

/// Asks for version and groups; without a mode, nothing else can be checked.
pub(super) async fn check(hub: &Hub) -> (Vec<Finding>, Option<Mode>) {
    let sent = Timestamp::now();
    let (version, groups) = tokio::join!(hub.fetch("/version"), hub.fetch("/apis"));
    let received = Timestamp::now();
    let (version, groups) = match (version, groups) {
        (Ok(version), Ok(groups)) => (version, groups),
        (Err(error), _) | (_, Err(error)) => return (vec![unreachable(&hub.server, &error)], None),
    };
    for answer in [&version, &groups] {
        if answer.code != 200 {
            return (vec![refused(&hub.server, answer.code, &answer.message())], None);
        }
    }
    let (finding, mode) = judge(&hub.server, &version.text, &groups.text);
    let mut findings = vec![finding];
    if let Some(ahead) = clock::ahead(&version.headers, sent, received) {
        let difference = clock::judge("clock", "the hub", "this machine", ahead);
        findings.push(difference.unwrap_or_else(|| Finding::ok("clock", "the hub's is that of this machine")));
    }
    (findings, mode)
}

fn unreachable(server: &str, error: &str) -> Finding {
    Finding::wrong(
        HUB,
        format!("{server} does not answer: {error}"),
        "see whether that is the hub's address and `kubectl version` gets an answer; another context is named with --context",
    )
}

fn refused(server: &str, code: u16, message: &str) -> Finding {
    let message = format!("{server} answers {code}: {message}");
    let advice = match code {
        401 => "the credential of this context may have expired: log in again, or name another context with --context",
        403 => "this user may not even find out what the hub serves; use a context of an administrator",
        _ => "look at the log of the hub's API server",
    };
    Finding::wrong(HUB, message, advice)
}

/// What answers: by its version and the groups it has.
fn judge(server: &str, version: &str, groups: &str) -> (Finding, Option<Mode>) {
    let version: Value = serde_json::from_str(version).unwrap_or_default();
    let groups: Value = serde_json::from_str(groups).unwrap_or_default();
    let has = |name: &str| {
        let groups = groups["groups"].as_array();
        groups.is_some_and(|groups| groups.iter().any(|group| group["name"] == name))
    };
    let version = version["gitVersion"].as_str().unwrap_or("an unknown version");
    if has(AGGREGATION) {
        let message = format!("kube-apiserver {version} answers at {server}");
        return (Finding::ok(HUB, message), Some(Mode::Aggregated));
    }
    if has(umbra_api::GROUP) {
        let message = format!("a standalone hub, {version}, answers at {server}");
        return (Finding::ok(HUB, message), Some(Mode::Standalone));
    }
    let finding = Finding::wrong(
        HUB,
        format!("what answers at {server} ({version}) is no hub and cannot become one"),
        "name the kubeconfig and the context of the hub with --kubeconfig and --context",
    );
    (finding, None)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn hubs_are_told_by_their_groups() {
        let version = r#"{"gitVersion":"v1.36.3"}"#;
        let mode = |groups: &str| judge("https://h", version, groups).1;
        let both = r#"{"groups":[{"name":"umbra.dev"},{"name":"apiregistration.k8s.io"}]}"#;
        assert_eq!(mode(both), Some(Mode::Aggregated));
        assert_eq!(
            mode(r#"{"groups":[{"name":"apiregistration.k8s.io"}]}"#),
            Some(Mode::Aggregated)
        );
        assert_eq!(mode(r#"{"groups":[{"name":"umbra.dev"}]}"#), Some(Mode::Standalone));
        assert_eq!(mode("hello"), None);
        let (finding, _) = judge("https://h", "", "");
        assert_eq!(finding.level, Level::Wrong);
    }

    #[test]
    fn what_refuses_says_what_to_do() {
        assert!(refused("s", 401, "no").advice.unwrap().contains("--context"));
        assert!(refused("s", 500, "no").advice.unwrap().contains("log"));
    }
}
