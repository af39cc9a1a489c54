//! The store, as umbra itself judges it by `/readyz`.
//!
//! A standalone hub is asked directly. Behind a kube-apiserver its proxy leads to `/readyz` of every pod; where that is no way,
//! a list without a resource version is evidence, because it is answered only after the store was asked.

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;

use super::asking::{Answer, Hub, Read};
use super::finding::Finding;

const STORE: &str = "store";
/// The port of a pod that says nothing else.
const PORT: i32 = 6443;

/// Asks every pod of umbra, and for a list where it is `available` through kube-apiserver.
pub(super) async fn aggregated(hub: &Hub, pods: &Read<Vec<Pod>>, available: bool) -> Vec<Finding> {
    let pods = match pods {
        Read::There(pods) => pods.as_slice(),
        Read::Missing | Read::Unknown(_) => &[],
    };
    let running = pods.iter().filter(|pod| {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
    });
    let asked = running.map(|pod| async move {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let path = format!(
            "/api/v1/namespaces/{}/pods/https:{name}:{}/proxy/readyz?verbose",
            hub.namespace,
            port(pod)
        );
        judge_ready(&format!("pod {name}"), hub.fetch(&path).await)
    });
    let path = format!("/apis/{}/managedclusters?limit=1", umbra_api::API_VERSION);
    let (list, mut findings) = tokio::join!(hub.fetch(&path), join_all(asked));
    findings.push(if available {
        judge_list(list)
    } else {
        Finding::not_checked(STORE, "umbra does not answer through kube-apiserver: see api-service")
    });
    findings
}

/// Asks a standalone hub, and for the reason where something fails.
pub(super) async fn standalone(hub: &Hub) -> Vec<Finding> {
    let answer = hub.fetch("/readyz?verbose").await;
    let failed = answer.as_ref().map(|answer| failed(&answer.text)).unwrap_or_default();
    let finding = judge_ready("the hub", answer);
    let mut findings = Vec::new();
    for check in failed {
        if let Ok(why) = hub.fetch(&format!("/readyz/{check}")).await {
            let why = why.text.trim().trim_start_matches("internal server error: ").to_owned();
            findings.push(Finding::wrong(STORE, format!("{check}: {why}"), advice(&check)));
        }
    }
    if findings.is_empty() {
        findings.push(finding);
    }
    findings
}

/// Where a pod serves.
fn port(pod: &Pod) -> i32 {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
    ports
        .find(|port| port.name.as_deref() == Some("https"))
        .map_or(PORT, |port| port.container_port)
}

/// The checks that fail in an answer of `/readyz?verbose`.
fn failed(text: &str) -> Vec<String> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("[-]"));
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(check, _)| check.to_owned())
        .collect()
}

fn judge_ready(who: &str, answer: Result<Answer, String>) -> Finding {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return Finding::not_checked(STORE, format!("{who}: {why}")),
    };
    let checks: Vec<&str> = answer
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("[+]")?.strip_suffix(" ok"))
        .collect();
    let failed = failed(&answer.text);
    if let Some(first) = failed.first() {
        let message = format!("{who} is not ready: {} failed", failed.join(", "));
        return Finding::wrong(STORE, message, advice(first));
    }
    if answer.code != 200 || checks.is_empty() {
        return Finding::not_checked(STORE, format!("{who} answers {}: {}", answer.code, answer.message()));
    }
    let checks: Vec<&str> = checks.into_iter().filter(|check| *check != "ping").collect();
    Finding::ok(STORE, format!("{who} is ready ({} answers)", checks.join(", ")))
}

fn advice(check: &str) -> &'static str {
    match check {
        "etcd" => {
            "look whether the members of --etcd-servers (ConfigMap umbra) answer: etcdctl endpoint health; umbra's log says why it cannot use them"
        }
        "store" => "look at the disk of the data directory; umbra's log says what fails",
        "shutdown" => "it is being stopped; wait for the one that comes after it",
        _ => "umbra's log says why",
    }
}

fn judge_list(answer: Result<Answer, String>) -> Finding {
    match answer {
        Ok(answer) if answer.code == 200 => Finding::ok(
            STORE,
            "a list is answered through kube-apiserver, up to date with the store",
        ),
        Ok(answer) if matches!(answer.code, 401 | 403) => {
            Finding::not_checked(STORE, format!("a list: {}", answer.message()))
        }
        Ok(answer) => Finding::wrong(
            STORE,
            format!(
                "a list through kube-apiserver is answered with {}: {}",
                answer.code,
                answer.message()
            ),
            "where api-service is ok, umbra cannot read its store: see umbra's log",
        ),
        Err(why) => Finding::wrong(
            STORE,
            format!("a list through kube-apiserver is not answered: {why}"),
            "where api-service is ok, umbra cannot read its store: see umbra's log",
        ),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::finding::Level;
    use super::*;

    fn answer(code: u16, text: &str) -> Result<Answer, String> {
        Ok(Answer {
            code,
            headers: HeaderMap::new(),
            text: text.to_owned(),
        })
    }

    #[test]
    fn readiness_names_what_fails() {
        let good = judge_ready("pod a", answer(200, "[+]ping ok\n[+]etcd ok\nreadyz check passed\n"));
        assert_eq!(
            (good.level, good.message.as_str()),
            (Level::Ok, "pod a is ready (etcd answers)")
        );
        let bad = judge_ready(
            "pod a",
            answer(
                500,
                "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n",
            ),
        );
        assert_eq!(
            (bad.level, bad.message.as_str()),
            (Level::Wrong, "pod a is not ready: etcd failed")
        );
        assert!(bad.advice.unwrap().contains("etcdctl"));
        let refused = answer(403, r#"{"kind":"Status","message":"pods is forbidden"}"#);
        let refused = judge_ready("pod a", refused);
        assert_eq!(
            (refused.level, refused.message.as_str()),
            (Level::NotChecked, "pod a answers 403: pods is forbidden")
        );
        assert_eq!(judge_ready("a", Err("no route".to_owned())).level, Level::NotChecked);
    }

    #[test]
    fn a_list_that_fails_is_wrong_unless_it_is_refused() {
        assert_eq!(judge_list(answer(200, "{}")).level, Level::Ok);
        assert_eq!(judge_list(answer(403, "{}")).level, Level::NotChecked);
        assert_eq!(judge_list(answer(503, "etcd has no leader")).level, Level::Wrong);
        assert_eq!(judge_list(Err("no answer".to_owned())).level, Level::Wrong);
    }
}
