//! One request to a child as the calling user, read to its end.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT, WARNING};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;
use umbra_apimachinery::gvk::GroupVersionResource;
use umbra_apimachinery::status::Status;
use umbra_child::proxy::{self, ProxyOptions};
use umbra_child::{ChildError, RequestDeadline, full};

use super::budget::{Budget, LONGEST_LIST, LONGEST_OBJECT, Unread};
use super::services::ViewServices;
use crate::child_errors::{answered, child_status_in_view, too_late, unusable};
use crate::request::RequestContext;

/// How much of an answer that is no Status is shown.
const SHOWN: usize = 500;

/// What a name in a path may have unescaped.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'@');

/// A request to a child.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: String,
    pub(super) accept: &'static str,
    /// Empty for none.
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

/// What bounds a question: when it has to be answered, and what the answer may take of the memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds<'a> {
    pub(super) until: Instant,
    pub(super) budget: &'a Budget,
}

impl Bounds<'_> {
    /// The same, from now on for so long at most.
    pub(super) fn and(self, patience: Duration) -> Self {
        let until = self.until.min(Instant::now() + patience);
        Self { until, ..self }
    }
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) status: Status,
    /// Whether any other question to the cluster would take as long, and come to the same: it cannot be reached, or has said
    /// nothing in time. What it has answered, whatever its code, is no such failure.
    pub(super) is_lost: bool,
}

impl Unanswered {
    fn lost(status: Status) -> Self {
        Self { status, is_lost: true }
    }

    fn on_the_way(error: &ChildError) -> Self {
        let is_lost = matches!(
            error,
            ChildError::Unreachable { .. }
                | ChildError::Connect { .. }
                | ChildError::WrongCluster { .. }
                | ChildError::Credentials { .. }
                | ChildError::CredentialsRefused { .. }
                | ChildError::Timeout { .. }
        );
        Self {
            status: child_status_in_view(error),
            is_lost,
        }
    }
}

impl From<Status> for Unanswered {
    fn from(status: Status) -> Self {
        Self { status, is_lost: false }
    }
}

impl From<Unanswered> for Status {
    fn from(unanswered: Unanswered) -> Self {
        unanswered.status
    }
}

/// A successful answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) code: StatusCode,
    pub(super) body: Bytes,
}

impl Asked {
    /// A read.
    pub(super) fn get(path: String, accept: &'static str) -> Self {
        Self {
            method: Method::GET,
            path,
            accept,
            content_type: String::new(),
            body: Bytes::new(),
        }
    }

    fn request(self, context: &RequestContext, deadline: Instant) -> Result<Request<umbra_child::Body>, http::Error> {
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(ACCEPT, self.accept);
        if let Ok(agent) = HeaderValue::from_str(&context.user_agent)
            && !agent.is_empty()
        {
            request = request.header(USER_AGENT, agent);
        }
        if !self.content_type.is_empty() {
            request = request.header(CONTENT_TYPE, self.content_type);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        request.extension(RequestDeadline(left)).body(full(self.body))
    }
}

/// The path of an object or, with an empty name, a collection. Everything in it is escaped.
pub(super) fn object_path(
    resource: &GroupVersionResource,
    namespace: Option<&str>,
    name: &str,
    subresource: &str,
) -> String {
    let namespace = namespace.map(escape);
    let mut path = format!("/{}", resource.path(namespace.as_deref()));
    for part in [name, subresource].into_iter().filter(|part| !part.is_empty()) {
        path.push('/');
        path.push_str(&escape(part));
    }
    path
}

/// A segment of a path, escaped.
pub(super) fn escape(segment: &str) -> String {
    utf8_percent_encode(segment, SEGMENT).to_string()
}

impl ViewServices {
    /// Sends a request to a cluster as the calling user and reads the answer; the cluster's warnings become ours.
    ///
    /// # Errors
    /// What kept it from being answered, and what is answered with anything but 2xx.
    pub(super) async fn exchange(
        &self,
        context: &RequestContext,
        cluster: &str,
        asked: Asked,
        patience: Duration,
    ) -> Result<Answer, Status> {
        // A collection that was deleted is a list.
        let longest = match asked.method {
            Method::DELETE => LONGEST_LIST,
            _ => LONGEST_OBJECT,
        };
        let bounds = Bounds {
            until: context.deadline_of_children(),
            budget: &Budget::of_one(longest),
        };
        let answer = self.exchange_within(context, cluster, asked, bounds.and(patience));
        Ok(answer.await?)
    }

    /// The same within these bounds, which several questions may share.
    ///
    /// # Errors
    /// Those of [`Self::exchange`].
    pub(super) async fn exchange_within(
        &self,
        context: &RequestContext,
        cluster: &str,
        asked: Asked,
        bounds: Bounds<'_>,
    ) -> Result<Answer, Unanswered> {
        let child = self.child(cluster).map_err(Unanswered::lost)?;
        let request = asked.request(context, bounds.until).map_err(|error| {
            Status::bad_request(format!("the request cannot be sent to cluster {cluster}: {error}"))
        })?;
        let options = ProxyOptions {
            prefix: context.prefix.to_string(),
        };
        let response = proxy::forward(&child, request, &context.user, &options)
            .await
            .map_err(|error| Unanswered::on_the_way(&error))?;
        let code = response.status();
        relay_warnings(context, response.headers());
        let body = bounds.budget.collect(cluster, response.into_body());
        let body = tokio::time::timeout_at(bounds.until, body).await;
        let body = body
            .map_err(|_| Unanswered::lost(too_late(cluster)))?
            .map_err(|unread| {
                if let Unread::BrokenOff(error) = &unread {
                    tracing::debug!(cluster, %error, "an answer broke off");
                }
                unusable(cluster, unread)
            })?;
        if code.is_success() {
            return Ok(Answer { code, body });
        }
        let text: String = String::from_utf8_lossy(&body).trim().chars().take(SHOWN).collect();
        let otherwise = format!("cluster {cluster} answered {code}: {text}");
        Err(answered(code, &body, &otherwise).into())
    }
}

/// Takes over `Warning: 299 - "text"` headers (RFC 9111 obsoleted them; Kubernetes uses them, KEP-1693).
fn relay_warnings(context: &RequestContext, headers: &HeaderMap) {
    for warning in headers.get_all(WARNING) {
        if let Some(text) = warning.to_str().ok().and_then(warning_text) {
            context.warnings.add(text);
        }
    }
}

fn warning_text(header: &str) -> Option<String> {
    let quoted = header.strip_prefix("299 ")?.split_once(' ')?.1.strip_prefix('"')?;
    let mut text = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => text.push(characters.next()?),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(
            warning_text(r#"299 - "say \"hello\"" "date""#).as_deref(),
            Some(r#"say "hello""#)
        );
        assert_eq!(warning_text("299 - unquoted"), None);
        assert_eq!(warning_text("199 - \"other\""), None);
    }

    #[test]
    fn paths_are_escaped() {
        let roles = GroupVersionResource::new("rbac.authorization.k8s.io", "v1", "roles");
        assert_eq!(
            object_path(&roles, Some("shop"), "system:a b", "status"),
            "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles/system:a%20b/status"
        );
        assert_eq!(
            object_path(&roles, None, "", ""),
            "/apis/rbac.authorization.k8s.io/v1/roles"
        );
    }
}
