//! Metrics of the HTTP front, in a registry that others add theirs to.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
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

/// The metrics of the HTTP front. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<RequestLabels, Counter>,
    duration: Family<DurationLabels, Histogram>,
    in_flight: Family<KindLabels, Gauge>,
    stalled: Counter<u64, AtomicU64>,
}

/// What is known of a request when it is done.
#[derive(Debug)]
pub(crate) struct Finished<'a> {
    pub(crate) root: &'static str,
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
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
        // 1 ms to 65 s, doubling: from a cached read to a request at its deadline.
        let duration =
            Family::new_with_constructor((|| Histogram::new(exponential_buckets(0.001, 2.0, 17))) as fn() -> Histogram);
        let in_flight = Family::default();
        let stalled = Counter::default();
        {
            let mut registry = registry.lock();
            registry.register("apiserver_requests", "Requests that were answered", requests.clone());
            let help = "Seconds until the answer began, watches and connections left out";
            registry.register("apiserver_request_duration_seconds", help, duration.clone());
            registry.register("apiserver_current_requests", "Requests being served", in_flight.clone());
            let help = "Watches that ended because their clients stopped reading";
            registry.register("apiserver_stalled_watches", help, stalled.clone());
        }
        Self {
            registry,
            requests,
            duration,
            in_flight,
            stalled,
        }
    }

    /// The registry, for others to add theirs.
    #[must_use]
    pub fn registry(&self) -> &Arc<Mutex<Registry>> {
        &self.registry
    }

    pub(crate) fn finished(&self, finished: &Finished<'_>, long_running: bool) {
        let labels = RequestLabels {
            root: finished.root,
            verb: finished.verb.to_owned(),
            group: finished.group.to_owned(),
            resource: finished.resource.to_owned(),
            code: finished.code,
        };
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

    /// Counts a request until the guard is dropped.
    pub(crate) fn begin(&self, request_kind: &'static str) -> InFlightGuard {
        let gauge = self.in_flight.get_or_create(&KindLabels { request_kind }).clone();
        gauge.inc();
        InFlightGuard(gauge)
    }

    pub(crate) fn stalled(&self, count: usize) {
        self.stalled.inc_by(count as u64);
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
