//! What every answer carries, and what is written down, counted and held until it has been sent.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, HeaderValue};
use http::{Method, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use umbra_apimachinery::request::RootName;
use umbra_registry::resource::Body;

use super::arrival::{AUDIT_ID, Arrival};
use crate::audit::event::Outcome;
use crate::audit::{AuditLog, Pending};
use crate::inflight::Permit;
use crate::metrics::{Finished, InFlightGuard};
use crate::respond::{add_warnings, empty};
use crate::service::ApiServer;
use crate::watchdog::Guarded;

/// What is written down as the status of a request whose client went: no server sends it, and nginx made it known.
const CLIENT_GONE: u16 = 499;

/// Writes down a request whose client goes before its answer has begun, which ends the request where it is: it may have been
/// done all the same.
pub(super) struct Unanswered<'a> {
    /// `None` where nothing is to be written, or the answer does it.
    pub(super) log: Option<&'a AuditLog>,
    pub(super) arrival: &'a Arrival,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(log) = self.log.take() {
            let outcome = Outcome {
                code: CLIENT_GONE,
                reason: String::new(),
                message: "the client went before the answer began; what it asked for may have been done".to_owned(),
            };
            // Written as it is dropped.
            drop(log.answered(self.arrival.subject(), outcome, false, false));
        }
    }
}

/// What is held until the answer is sent.
pub(super) struct Guards {
    #[expect(dead_code, reason = "counts as long as it lives")]
    pub(super) counted: InFlightGuard,
    #[expect(dead_code, reason = "admits the next request when it goes")]
    pub(super) permit: Option<Permit>,
    #[expect(dead_code, reason = "is written into the audit log when it goes")]
    pub(super) pending: Arc<OnceLock<Pending>>,
}

/// What is sent, and what is held meanwhile.
pub(crate) struct Held {
    body: Body,
    _guards: Guards,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// A short answer, which is given up where its client does not read it: it has a place that others wait for.
struct Watched(Arc<Guarded<Held>>);

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.is_read();
        let frame = match self.0.source().as_mut() {
            Some(held) => ready!(Pin::new(held).poll_frame(context)),
            None => Some(Err("nobody has read the answer for too long".into())),
        };
        if matches!(frame, Some(Ok(_))) {
            self.0.waits_for_reader();
        }
        Poll::Ready(frame)
    }

    fn size_hint(&self) -> SizeHint {
        let source = self.0.source();
        source.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }

    /// One that was given up has not ended: it breaks off.
    fn is_end_stream(&self) -> bool {
        self.0.source().as_ref().is_some_and(HttpBody::is_end_stream)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl ApiServer {
    /// Puts on what every answer carries, and writes down what became of the request.
    pub(super) fn finish(&self, arrival: &Arrival, mut response: Response<Body>, guards: Guards) -> Response<Body> {
        let headers = response.headers_mut();
        headers.insert(AUDIT_ID, arrival.audit_id.clone());
        let private = HeaderValue::from_static("no-cache, private");
        headers.entry(CACHE_CONTROL).or_insert(private);
        add_warnings(headers, &arrival.warnings.take());
        let code = response.status().as_u16();
        let duration = arrival.started.elapsed();
        let finished = Finished {
            root: arrival.root_kind(),
            verb: known_verb(&arrival.info.verb),
            group: &arrival.info.group,
            resource: &arrival.info.resource,
            cluster: match arrival.root().root {
                RootName::Cluster(name) if arrival.entered.get().is_some() => Some(name),
                _ => None,
            },
            code,
            duration,
        };
        self.metrics().finished(&finished, arrival.long_running);
        log(arrival, code, duration);
        if arrival.method == Method::HEAD {
            return response.map(|_| empty());
        }
        response.map(|body| {
            let held = Held { body, _guards: guards };
            if arrival.long_running || held.is_end_stream() {
                return held.boxed_unsync();
            }
            let watched = self.unread().guard(held, arrival.connection.clone());
            watched.waits_for_reader();
            Watched(watched).boxed_unsync()
        })
    }
}

/// Methods are chosen by clients; labels are not.
fn known_verb(verb: &str) -> &str {
    match verb {
        "get" | "list" | "watch" | "proxy" | "create" | "update" | "patch" | "delete" | "deletecollection" | "post"
        | "put" | "head" | "options" => verb,
        _ => "other",
    }
}

fn log(arrival: &Arrival, code: u16, duration: Duration) {
    let user = arrival.user.get().map_or("", |user| user.name.as_str());
    let (method, path) = (&arrival.method, arrival.path.as_str());
    let root = arrival.root_kind();
    let milliseconds = duration.as_secs_f64() * 1e3;
    let audit = arrival.audit_id.to_str().unwrap_or_default();
    if code >= 500 {
        tracing::warn!(%method, path, root, user, code, milliseconds, audit, "request failed");
    } else {
        tracing::debug!(%method, path, root, user, code, milliseconds, audit, "request");
    }
}
