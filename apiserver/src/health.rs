//! `/healthz`, `/livez` and `/readyz` (`k8s.io/apiserver/pkg/server/healthz`).
//!
//! The answer of a whole endpoint tells which checks fail but not why: it is open to everyone. `/readyz/{check}` gives the
//! reason and needs permission.

use std::fmt::Write as _;
use std::sync::Arc;

use http::{Response, StatusCode};
use umbra_apimachinery::status::Status;
use umbra_registry::resource::Body;

use crate::query::Query;
use crate::respond::text;

/// Judges one thing; called for every probe, so it has to be cheap and may not block.
pub type CheckFunction = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// A named condition of health.
#[derive(Clone)]
pub struct Check {
    name: String,
    function: CheckFunction,
}

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Check")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Check {
    /// A check of that name, which fails with the text that `function` gives.
    pub fn new(name: impl Into<String>, function: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self {
            name: name.into(),
            function: Arc::new(function),
        }
    }
}

/// What decides whether the process lives and whether it should get requests.
#[derive(Debug, Clone, Default)]
pub struct Checks {
    /// Fail only where a restart would help.
    pub live: Vec<Check>,
    /// Fail while requests should go elsewhere.
    pub ready: Vec<Check>,
}

/// Whether a path is one that everyone may ask for.
pub(crate) fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/livez" | "/readyz")
}

/// Answers a path of health; `None` where it is none.
pub(crate) fn answer(checks: &Checks, path: &str, query: &Query) -> Option<Result<Response<Body>, Status>> {
    let (endpoint, check) = match path[1..].split_once('/') {
        Some((endpoint, check)) => (endpoint, Some(check)),
        None => (&path[1..], None),
    };
    let checks = match endpoint {
        "livez" => &checks.live,
        "readyz" | "healthz" => &checks.ready,
        _ => return None,
    };
    Some(match check {
        None => Ok(all(endpoint, checks, query)),
        Some(name) => one(checks, name),
    })
}

fn one(checks: &[Check], name: &str) -> Result<Response<Body>, Status> {
    if name == "ping" {
        return Ok(text(StatusCode::OK, "ok"));
    }
    let check = checks.iter().find(|check| check.name == name);
    let check = check.ok_or_else(Status::no_such_path)?;
    Ok(match (check.function)() {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(reason) => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("internal server error: {reason}\n"),
        ),
    })
}

fn all(endpoint: &str, checks: &[Check], query: &Query) -> Response<Body> {
    let mut lines = String::from("[+]ping ok\n");
    let mut failed = Vec::new();
    for check in checks {
        let name = &check.name;
        let written = if query.all("exclude").any(|excluded| excluded == name) {
            writeln!(lines, "[+]{name} excluded: ok")
        } else {
            match (check.function)() {
                Ok(()) => writeln!(lines, "[+]{name} ok"),
                Err(reason) => {
                    failed.push(format!("{name}: {reason}"));
                    writeln!(lines, "[-]{name} failed: reason withheld")
                }
            }
        };
        written.expect("writing to a String never fails");
    }
    if !failed.is_empty() {
        tracing::info!(endpoint, failed = failed.join("; "), "health check failed");
        let body = format!("{lines}{endpoint} check failed\n");
        return text(StatusCode::INTERNAL_SERVER_ERROR, body);
    }
    if query.get("verbose").is_some() {
        text(StatusCode::OK, format!("{lines}{endpoint} check passed\n"))
    } else {
        text(StatusCode::OK, "ok")
    }
}
