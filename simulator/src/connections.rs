//! Connections to pods: logs are made up ([`crate::log`]), everything else is refused, as nothing runs.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use umbra_apimachinery::age;
use umbra_apimachinery::gvk::{GroupResource, GroupVersion};
use umbra_apimachinery::metadata::ObjectAccess as _;
use umbra_apimachinery::status::{Reason, Status};
use umbra_registry::generic::subresource::Connector;
use umbra_registry::generic::{ResourceStore, StoreApi};
use umbra_registry::request::RequestContext;
use umbra_registry::resource::Body;

use crate::log::Log;

/// The connections that are answered, if only by saying why not.
pub(crate) const CONNECTIONS: [&str; 4] = ["attach", "exec", "log", "portforward"];

/// Lines that are sent at once.
const CHUNK: i64 = 256;

/// How long a follower of a log that ended early may go on before it is noticed.
const CHECK: Duration = Duration::from_secs(1);

/// Answers connections to pods.
pub(crate) struct PodConnections {
    api: Weak<StoreApi>,
}

impl PodConnections {
    pub(crate) fn new(api: Weak<StoreApi>) -> Self {
        Self { api }
    }
}

#[async_trait]
impl Connector for PodConnections {
    async fn connect(&self, context: &RequestContext, request: Request<Body>) -> Result<Response<Body>, Status> {
        let info = &context.info;
        let api = self.api.upgrade();
        let pods = api.and_then(|api| api.store(&GroupVersion::new("", "v1").resource("pods")));
        let pods = pods.ok_or_else(Status::no_such_path)?;
        let key = pods.keys().key(info.namespace(), &info.name);
        let pod = pod(&pods, &key).ok_or_else(|| Status::not_found(&GroupResource::new("", "pods"), &info.name))?;
        if info.subresource != "log" {
            return Err(not_simulated(&info.subresource, &info.name));
        }
        let options = LogOptions::parse(request.uri().query().unwrap_or_default())?;
        let log = log(&pod, &options)?;
        let follower = Follower {
            next: 0,
            end: 0,
            bytes_left: options.limit_bytes.unwrap_or(u64::MAX),
            log,
            options,
            pods,
            key,
            uid: pod.uid().to_owned(),
        };
        Ok(follower.response())
    }
}

fn pod(pods: &ResourceStore, key: &str) -> Option<Value> {
    let snapshot = pods.cache().snapshot();
    serde_json::from_slice(&snapshot.get(key)?.bytes).ok()
}

/// 501 with the reason.
fn not_simulated(what: &str, pod: &str) -> Status {
    let message = format!(
        "{what} of pod {pod:?} is not possible: this cluster is simulated and no container runs in it; use a real cluster \
         for {what}"
    );
    Status {
        code: 501,
        reason: "NotImplemented".to_owned(),
        ..Status::failure(Reason::InternalError, message)
    }
}

/// `v1.PodLogOptions`, as far as they mean something here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct LogOptions {
    container: String,
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail_lines: Option<i64>,
    limit_bytes: Option<u64>,
    since: Option<Timestamp>,
}

impl LogOptions {
    fn parse(query: &str) -> Result<Self, Status> {
        let mut options = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace('+', " ");
            let value = percent_decode_str(&value).decode_utf8_lossy();
            let wrong = || Status::bad_request(format!("the parameter {name} cannot be {value:?}"));
            let flag = || matches!(&*value, "true" | "1");
            match name {
                "container" => options.container = value.into_owned(),
                "follow" => options.follow = flag(),
                "previous" => options.previous = flag(),
                "timestamps" => options.timestamps = flag(),
                "tailLines" => options.tail_lines = Some(value.parse().map_err(|_| wrong())?),
                "limitBytes" => options.limit_bytes = Some(value.parse().map_err(|_| wrong())?),
                "sinceSeconds" => {
                    let seconds = SignedDuration::from_secs(value.parse().map_err(|_| wrong())?);
                    options.since = Timestamp::now().saturating_sub(seconds).ok();
                }
                "sinceTime" => options.since = Some(age::parse(&value).ok_or_else(wrong)?),
                _ => {}
            }
        }
        Ok(options)
    }
}

/// The container that is meant (`LogLocation` in `pkg/registry/core/pod/strategy.go`).
fn container<'a>(pod: &'a Value, wanted: &str) -> Result<&'a Value, Status> {
    let all = |field: &str| pod["spec"][field].as_array().map_or(&[][..], Vec::as_slice);
    let containers = all("containers");
    let default = pod
        .annotation("kubectl.kubernetes.io/default-container")
        .unwrap_or_default();
    let wanted = if wanted.is_empty() { default } else { wanted };
    if wanted.is_empty() {
        if let [only] = containers {
            return Ok(only);
        }
        let names: Vec<&str> = containers.iter().filter_map(|one| one["name"].as_str()).collect();
        let names = names.join(" ");
        let name = pod.name();
        return Err(Status::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: [{names}]"
        )));
    }
    let mut candidates = containers.iter().chain(all("initContainers"));
    let found = candidates.find(|one| one["name"] == wanted);
    found.ok_or_else(|| Status::bad_request(format!("container {wanted} is not valid for pod {}", pod.name())))
}

fn log(pod: &Value, options: &LogOptions) -> Result<Log, Status> {
    let container = container(pod, &options.container)?;
    let name = container["name"].as_str().unwrap_or_default();
    if options.previous {
        let message = format!(
            "previous terminated container {name:?} in pod {:?} not found",
            pod.name()
        );
        return Err(Status::bad_request(message));
    }
    let statuses = ["containerStatuses", "initContainerStatuses"]
        .into_iter()
        .flat_map(|field| pod["status"][field].as_array().into_iter().flatten());
    let state = statuses
        .clone()
        .find(|status| status["name"] == name)
        .map(|status| &status["state"]);
    let time = |pointer: &str| {
        state
            .and_then(|state| state.pointer(pointer)?.as_str())
            .and_then(age::parse)
    };
    let started = time("/running/startedAt").or_else(|| time("/terminated/startedAt"));
    let Some(started) = started else {
        let reason = state
            .and_then(|state| state["waiting"]["reason"].as_str())
            .unwrap_or("ContainerCreating");
        let message = format!(
            "container {name:?} in pod {:?} is waiting to start: {reason}",
            pod.name()
        );
        return Err(Status::bad_request(message));
    };
    Ok(Log {
        pod: format!("{}/{}", pod.namespace(), pod.name()),
        container: name.to_owned(),
        image: container["image"].as_str().unwrap_or_default().to_owned(),
        node: pod["spec"]["nodeName"].as_str().unwrap_or_default().to_owned(),
        started,
        ended: time("/terminated/finishedAt"),
    })
}

/// Somebody who reads a log.
struct Follower {
    /// The line to be sent next, and the end of those that are there.
    next: i64,
    end: i64,
    bytes_left: u64,
    log: Log,
    options: LogOptions,
    pods: Arc<ResourceStore>,
    key: String,
    uid: String,
}

impl Follower {
    fn response(mut self) -> Response<Body> {
        let selected = self
            .log
            .select(self.options.tail_lines, self.options.since, Timestamp::now());
        (self.next, self.end) = (selected.start, selected.end);
        let chunks = stream::unfold(self, |mut follower| async move {
            let chunk = follower.chunk().await?;
            Some((Ok::<_, Infallible>(Frame::data(chunk)), follower))
        });
        let body = StreamBody::new(chunks).map_err(|never| match never {}).boxed_unsync();
        let mut response = Response::new(body);
        let plain = http::HeaderValue::from_static("text/plain");
        response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
        response
    }

    /// The next lines; waits for one where the log is followed. `None` at the end. Cancel safe.
    async fn chunk(&mut self) -> Option<Bytes> {
        while self.next >= self.end {
            if !self.options.follow || !self.goes_on() {
                return None;
            }
            let due = self.log.time(self.next).duration_since(Timestamp::now());
            if due.is_positive() {
                tokio::time::sleep(due.unsigned_abs().min(CHECK)).await;
            }
            self.end = self.log.written(Timestamp::now());
        }
        let now = Timestamp::now();
        let last = self.end.min(self.next + CHUNK);
        let mut text = String::new();
        for line in self.next..last {
            if self.options.timestamps {
                text.push_str(&age::rfc3339(self.log.time(line)));
                text.push(' ');
            }
            text.push_str(&self.log.line(line, now));
        }
        self.next = last;
        let mut chunk = Bytes::from(text);
        chunk.truncate(usize::try_from(self.bytes_left).unwrap_or(usize::MAX));
        self.bytes_left -= chunk.len() as u64;
        (!chunk.is_empty()).then_some(chunk)
    }

    /// Whether the container still writes.
    fn goes_on(&mut self) -> bool {
        let pod = pod(&self.pods, &self.key).filter(|pod| pod.uid() == self.uid);
        let options = LogOptions {
            container: self.log.container.clone(),
            ..LogOptions::default()
        };
        let log = pod.and_then(|pod| log(&pod, &options).ok());
        match log {
            Some(log) if log.started == self.log.started => {
                self.log = log;
                self.end = self.log.written(Timestamp::now());
                self.log.ended.is_none() || self.next < self.end
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn options_are_read_from_the_query() {
        let options =
            LogOptions::parse("container=web&follow=true&tailLines=5&sinceTime=2026-01-01T00%3A00%3A00Z").unwrap();
        assert_eq!(
            (options.container.as_str(), options.follow, options.tail_lines),
            ("web", true, Some(5))
        );
        assert_eq!(options.since, age::parse("2026-01-01T00:00:00Z"));
        assert!(LogOptions::parse("tailLines=x").is_err());
    }

    #[test]
    fn the_container_has_to_be_clear() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        assert_eq!(container(&pod, "").unwrap()["name"], "a");
        pod["spec"]["containers"] = json!([{"name": "a"}, {"name": "b"}]);
        let error = container(&pod, "").unwrap_err();
        assert!(error.message.ends_with("choose one of: [a b]"), "{}", error.message);
        assert_eq!(container(&pod, "b").unwrap()["name"], "b");
        assert!(container(&pod, "c").is_err());
    }

    #[test]
    fn a_container_that_waits_has_no_log() {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"containers": [{"name": "a"}]},
            "status": {"containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
        });
        let error = log(&pod, &LogOptions::default()).unwrap_err();
        assert_eq!(error.code, 400);
        assert!(error.message.contains("ImagePullBackOff"));
    }
}
