//! What the components of a cluster say: their log, and the audit log of the aggregation layer.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::cluster::Cluster;

/// What has been written since it was begun.
#[derive(Debug)]
pub struct LogWindow {
    log: PathBuf,
    audit: PathBuf,
    log_start: usize,
    audit_start: usize,
}

/// A request through the aggregation layer, when its answer began or ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditedRequest {
    /// `list`, `watch`, `get`, …
    pub verb: String,
    /// The resource, without a subresource.
    pub resource: String,
    /// The subresource, or empty.
    pub subresource: String,
    /// Path and query.
    pub uri: String,
    /// The program, and which part of it.
    pub user_agent: String,
    /// The status of the answer.
    pub code: u64,
    /// `ResponseStarted` of what lasts, `ResponseComplete`, or `Panic` where the answer was broken off.
    pub stage: String,
}

impl LogWindow {
    /// From now on.
    ///
    /// # Panics
    /// Where a log cannot be read.
    #[must_use]
    #[track_caller]
    pub fn begin(cluster: &Cluster) -> Self {
        let mut window = Self::whole(cluster);
        window.log_start = read(&window.log, 0).len();
        window.audit_start = read(&window.audit, 0).len();
        window
    }

    /// From the start of the cluster on.
    #[must_use]
    pub fn whole(cluster: &Cluster) -> Self {
        let folder = cluster.folder().join("log");
        Self {
            log: folder.join("cluster.log"),
            audit: folder.join("audit.log"),
            log_start: 0,
            audit_start: 0,
        }
    }

    /// Warnings and errors, with all their lines.
    ///
    /// # Panics
    /// Where the log cannot be read.
    #[must_use]
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        complaints(&read(&self.log, self.log_start))
    }

    /// The requests through the aggregation layer.
    ///
    /// # Panics
    /// Where the audit log cannot be read.
    #[must_use]
    #[track_caller]
    pub fn requests(&self) -> Vec<AuditedRequest> {
        let text = read(&self.audit, self.audit_start);
        // The last line may not be complete yet.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        complete.lines().map(audited).collect()
    }
}

#[track_caller]
fn read(path: &PathBuf, start: usize) -> String {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&bytes[start.min(bytes.len())..]).into_owned()
}

#[track_caller]
fn audited(line: &str) -> AuditedRequest {
    let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let text = |pointer: &str| {
        event
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    AuditedRequest {
        verb: text("/verb"),
        resource: text("/objectRef/resource"),
        subresource: text("/objectRef/subresource"),
        uri: text("/requestURI"),
        user_agent: text("/userAgent"),
        code: event
            .pointer("/responseStatus/code")
            .and_then(Value::as_u64)
            .unwrap_or_default(),
        stage: text("/stage"),
    }
}

/// The entries of a log in klog's format that are warnings or worse. An entry begins with its level, the month and the day,
/// such as `E1121`, and goes on to the next.
#[must_use]
pub fn complaints(log: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut complains = false;
    for line in log.lines() {
        match level(line) {
            Some(level) => {
                complains = matches!(level, b'W' | b'E' | b'F');
                if complains {
                    found.push(line.to_owned());
                }
            }
            None if complains => {
                if let Some(entry) = found.last_mut() {
                    entry.push('\n');
                    entry.push_str(line);
                }
            }
            None => {}
        }
    }
    found
}

fn level(line: &str) -> Option<u8> {
    let [level @ (b'I' | b'W' | b'E' | b'F'), date @ ..] = line.as_bytes() else {
        return None;
    };
    let is_date = date.len() > 4 && date[..4].iter().all(u8::is_ascii_digit) && date[4] == b' ';
    is_date.then_some(*level)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"I1121 08:20:19.159476    1452 handler.go:304] Adding GroupVersion umbra.dev v1alpha1 to ResourceManager
E1121 08:20:19.167301    1452 controller.go:157] "Unhandled Error" err=<
	Error updating APIService "v1alpha1.umbra.dev" with err: failed to download v1alpha1.umbra.dev
 > logger="UnhandledError"
I1121 08:20:19.716828    1452 controller.go:1] and so on
	of what is no complaint
W1121 08:20:19.167278    1452 handler_proxy.go:100] no RequestInfo found in the context
Error: this is no entry of its own
"#;

    #[test]
    fn complaints_are_whole_entries() {
        let found = complaints(LOG);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("E1121") && found[0].contains("failed to download"));
        assert!(found[0].ends_with("logger=\"UnhandledError\""));
        assert!(found[1].starts_with("W1121") && found[1].ends_with("of its own"));
        assert_eq!(complaints(""), Vec::<String>::new());
    }

    #[test]
    fn audited_requests_say_who_asked_for_what() {
        let line = r#"{"kind":"Event","stage":"ResponseStarted","requestURI":"/apis/umbra.dev/v1alpha1/views?watch=true","verb":"watch","user":{"username":"admin"},"userAgent":"kube-controller-manager/v1.36.3 metadata-informers","objectRef":{"resource":"views","apiGroup":"umbra.dev"},"responseStatus":{"metadata":{},"code":200}}"#;
        let expected = AuditedRequest {
            verb: "watch".to_owned(),
            resource: "views".to_owned(),
            subresource: String::new(),
            uri: "/apis/umbra.dev/v1alpha1/views?watch=true".to_owned(),
            user_agent: "kube-controller-manager/v1.36.3 metadata-informers".to_owned(),
            code: 200,
            stage: "ResponseStarted".to_owned(),
        };
        assert_eq!(audited(line), expected);
    }
}
