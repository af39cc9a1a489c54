//! How long requests to the child without a fault take, while others ask the children that have one.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kube::api::{Api, ApiResource, DynamicObject};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use umbra_e2e::any_hub::AnyHub as _;

use super::scene::{CASES, OTHER, Scene};

/// Requests that are measured: twenty of them are above the 99th percentile.
const REQUESTS: usize = 2000;
/// How many requests go to each of the other children in a second meanwhile.
const PERIOD: Duration = Duration::from_millis(500);
/// How long those wait at most.
const PATIENCE: Duration = Duration::from_secs(4);
/// How many times the 99th percentile may be what it was before.
const BOUND: f64 = 2.0;

/// What was measured, sorted.
pub(super) struct Latency(Vec<Duration>);

impl Latency {
    /// Sends requests to the child without a fault, one after the other, each of which has to succeed; as many others as ever go
    /// to the children that may have one.
    pub(super) fn measure(scene: &Scene) -> Self {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for case in &CASES {
                let done = &done;
                scope.spawn(move || {
                    while !done.load(Ordering::SeqCst) {
                        let path = Scene::inside(case.name, "/api/v1/namespaces/default");
                        let began = Instant::now();
                        // Whatever comes of it.
                        let _ = scene.client.get(&path, PATIENCE);
                        std::thread::sleep(PERIOD.saturating_sub(began.elapsed()));
                    }
                });
            }
            let measured = sequence(&scene.hub.kubeconfig(), &scene.hub.cluster_url(OTHER));
            done.store(true, Ordering::SeqCst);
            Self(measured)
        })
    }

    fn percentile(&self, percent: usize) -> Duration {
        self.0[(self.0.len() * percent / 100).min(self.0.len() - 1)]
    }

    /// All in words, and whether this is within its bound of what was before. What was after is told beside it: where both differ
    /// much, the machine had other things to do, and the figure says little.
    pub(super) fn against(&self, before: &Self, after: &Self) -> (String, bool) {
        let [p99, before_p99, after_p99] = [self, before, after].map(|one| one.percentile(99).as_secs_f64() * 1000.0);
        let [p50, before_p50, after_p50] = [self, before, after].map(|one| one.percentile(50).as_secs_f64() * 1000.0);
        let ratio = p99 / before_p99;
        let figure = format!(
            "{ratio:.2}×: p99 {p99:.2} ms, {before_p99:.2} before, {after_p99:.2} after; p50 {p50:.2}, {before_p50:.2}, {after_p50:.2}"
        );
        (figure, ratio <= BOUND)
    }
}

fn sequence(kubeconfig: &Path, url: &str) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
        let options = KubeConfigOptions {
            context: Some("umbra".to_owned()),
            ..KubeConfigOptions::default()
        };
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
        let mut config = config.expect("a configuration");
        config.cluster_url = url.parse().expect("a URL");
        let client = kube::Client::try_from(config).expect("a client");
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace"));
        let namespaces: Api<DynamicObject> = Api::all_with(client, &resource);
        let mut measured = Vec::with_capacity(REQUESTS);
        for _ in 0..REQUESTS {
            let began = Instant::now();
            let answer = namespaces.get("default").await;
            measured.push(began.elapsed());
            answer.unwrap_or_else(|error| panic!("a child without a fault answers: {error}"));
            // Not as fast as possible: the machine has other things to do.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        measured.sort_unstable();
        measured
    })
}
