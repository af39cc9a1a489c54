//! Metrics of the HTTP front, in a registry that others add theirs to.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Labels of a finished request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    root: &'static str,
    verb: String,
    group: String,
    resource: String,
    code: u16,
}

/// Labels of a request that went on to a child. No resource: clusters times resources are too many.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProxiedLabels {
    cluster: String,
    verb: String,
    code: u16,
}

/// Resources that have a label of their own; those that come later share `other`. All children together have some hundreds.
const RESOURCES: usize = 1000;
const OTHER: &str = "other";

/// Labels of what a request costs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DurationLabels {
    root: &'static str,
    verb: String,
}

/// Labels of requests that are being served.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    request_kind: &'static str,
}

/// The tasks of the runtime that answers the question, as `go_goroutines` of other API servers: what grows and does not shrink
/// again has a leak.
#[derive(Debug)]
struct RuntimeTasks;

impl Collector for RuntimeTasks {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return Ok(());
        };
        let tasks = i64::try_from(runtime.metrics().num_alive_tasks()).unwrap_or(i64::MAX);
        let tasks = ConstGauge::new(tasks);
        let help = "Tasks that have been started and have not ended";
        tasks.encode(encoder.encode_descriptor("runtime_tasks", help, None, tasks.metric_type())?)
    }
}

/// The metrics of the HTTP front. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<RequestLabels, Counter>,
    proxied: Family<ProxiedLabels, Counter>,
    /// Group and resource of what has been answered well.
    resources: Arc<Mutex<HashSet<(String, String)>>>,
    duration: Family<DurationLabels, Histogram>,
    in_flight: Family<KindLabels, Gauge>,
    stalled_watches: Counter<u64, AtomicU64>,
    stalled_answers: Counter<u64, AtomicU64>,
}

/// What is known of a request when it is done.
#[derive(Debug)]
pub(crate) struct Finished<'a> {
    pub(crate) root: &'static str,
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    /// Whose root it was, where it was one that there is.
    pub(crate) cluster: Option<&'a str>,
    pub(crate) code: u16,
    pub(crate) duration: Duration,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Arc::new(Mutex::new(Registry::with_prefix("umbra"))))
    }
}

impl Metrics {
    /// Registers the metrics in a registry.
    #[must_use]
    pub fn new(registry: Arc<Mutex<Registry>>) -> Self {
        let requests = Family::default();
        let proxied = Family::default();
        // 1 ms to 65 s, doubling: from a cached read to a request at its deadline.
        let duration =
            Family::new_with_constructor((|| Histogram::new(exponential_buckets(0.001, 2.0, 17))) as fn() -> Histogram);
        let in_flight = Family::default();
        let stalled_watches = Counter::default();
        let stalled_answers = Counter::default();
        {
            let mut registry = registry.lock();
            registry.register("apiserver_requests", "Requests that were answered", requests.clone());
            let help = "Requests to the roots of clusters that were answered";
            registry.register("apiserver_proxied_requests", help, proxied.clone());
            let help = "Seconds until the answer began, watches and connections left out";
            registry.register("apiserver_request_duration_seconds", help, duration.clone());
            registry.register("apiserver_current_requests", "Requests being served", in_flight.clone());
            let help = "Watches that ended because their clients stopped reading";
            registry.register("apiserver_stalled_watches", help, stalled_watches.clone());
            let help = "Answers to short requests that were given up because their clients stopped reading";
            registry.register("apiserver_stalled_answers", help, stalled_answers.clone());
            registry.register_collector(Box::new(RuntimeTasks));
        }
        Self {
            registry,
            requests,
            proxied,
            resources: Arc::default(),
            duration,
            in_flight,
            stalled_watches,
            stalled_answers,
        }
    }

    /// The registry, for others to add theirs.
    #[must_use]
    pub fn registry(&self) -> &Arc<Mutex<Registry>> {
        &self.registry
    }

    pub(crate) fn finished(&self, finished: &Finished<'_>, long_running: bool) {
        let (group, resource) = self.resource_labels(finished);
        let labels = RequestLabels {
            root: finished.root,
            verb: finished.verb.to_owned(),
            group,
            resource,
            code: finished.code,
        };
        if let Some(cluster) = finished.cluster {
            let labels = ProxiedLabels {
                cluster: cluster.to_owned(),
                verb: finished.verb.to_owned(),
                code: finished.code,
            };
            self.proxied.get_or_create(&labels).inc();
        }
        self.requests.get_or_create(&labels).inc();
        if !long_running {
            let labels = DurationLabels {
                root: finished.root,
                verb: finished.verb.to_owned(),
            };
            let seconds = finished.duration.as_secs_f64();
            self.duration.get_or_create(&labels).observe(seconds);
        }
    }

    /// Paths are chosen by clients, labels are not: a resource has its label once something was answered well there.
    fn resource_labels(&self, finished: &Finished<'_>) -> (String, String) {
        let named = (finished.group.to_owned(), finished.resource.to_owned());
        if finished.resource.is_empty() {
            return (String::new(), String::new());
        }
        let mut known = self.resources.lock();
        if known.contains(&named) {
            return named;
        }
        if finished.code >= 400 {
            return (String::new(), String::new());
        }
        if known.len() >= RESOURCES {
            return (String::new(), OTHER.to_owned());
        }
        known.insert(named.clone());
        named
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn begin(&self, request_kind: &'static str) -> InFlightGuard {
        let gauge = self.in_flight.get_or_create(&KindLabels { request_kind }).clone();
        gauge.inc();
        InFlightGuard(gauge)
    }

    pub(crate) fn stalled(&self, watches: usize, answers: usize) {
        self.stalled_watches.inc_by(watches as u64);
        self.stalled_answers.inc_by(answers as u64);
    }

    /// The text of `/metrics`, in the OpenMetrics format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry.lock())
            .expect("writing to a String never fails");
        text
    }
}

/// One request that is being served.
#[derive(Debug)]
pub(crate) struct InFlightGuard(Gauge);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finish(metrics: &Metrics, resource: &str, code: u16) {
        let finished = Finished {
            root: "cluster",
            verb: "get",
            group: "example.com",
            resource,
            cluster: Some("east"),
            code,
            duration: Duration::from_millis(1),
        };
        metrics.finished(&finished, false);
    }

    #[test]
    fn clients_cannot_make_labels_up() {
        let metrics = Metrics::default();
        for number in 0..RESOURCES + 500 {
            finish(&metrics, &format!("made-up-{number}"), 403);
        }
        assert_eq!(metrics.text().matches("umbra_apiserver_requests_total{").count(), 1);
        finish(&metrics, "widgets", 200);
        finish(&metrics, "widgets", 403);
        let text = metrics.text();
        let of = |code| {
            format!(
                r#"umbra_apiserver_requests_total{{root="cluster",verb="get",group="example.com",resource="widgets",code="{code}"}} 1"#
            )
        };
        assert!(text.contains(&of(200)) && text.contains(&of(403)), "{text}");
        assert!(text.contains(r#"umbra_apiserver_proxied_requests_total{cluster="east",verb="get",code="403"} 1501"#));
        for number in 0..RESOURCES + 500 {
            finish(&metrics, &format!("made-up-{number}"), 200);
        }
        let lines = metrics.text().matches("umbra_apiserver_requests_total{").count();
        assert_eq!(
            lines,
            RESOURCES + 3,
            "those with a name, `other`, and the 403 of none and of one"
        );
    }
}
