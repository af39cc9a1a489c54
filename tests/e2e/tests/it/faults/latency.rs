//! How long requests to the child without a fault take, while others ask the children that have one.
//!
//! What is compared is measured in turns, without faults and with them, by the same client over the same connection at the same
//! rate: a shared machine is busy now and then, and what it does meets either kind of turn. Of each kind the median of its turns
//! counts, so that one turn in which the machine was busy decides nothing. Faults that have just begun and the making of new
//! connections are in what is measured: it is then that a hub has most to do.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::GroupVersionKind;
use tokio::runtime::Runtime;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::world::World;

use super::all_recover;
use super::scene::{CASES, OTHER, Scene};

/// Requests of a turn: ten of them are above the 99th percentile.
const REQUESTS: usize = 1000;
/// Between the beginnings of two requests, which is far from what the hub can do: what waits, waits for somebody else.
const EVERY: Duration = Duration::from_millis(5);
/// How many requests go to each of the other children in a second meanwhile.
const PERIOD: Duration = Duration::from_millis(500);
/// How long those wait at most.
const PATIENCE: Duration = Duration::from_secs(4);
/// How many times the 99th percentile may be what it was before.
const BOUND: f64 = 2.0;

/// Turns of each kind: `FAULTS_ROUNDS`, 1 by default, which decides nothing on a machine that others share.
fn rounds() -> usize {
    let given = std::env::var("FAULTS_ROUNDS").ok().and_then(|text| text.parse().ok());
    given.unwrap_or(1).max(1)
}

/// One turn, in milliseconds.
#[derive(Debug, Clone, Copy)]
struct Turn {
    p50: f64,
    p99: f64,
}

/// All turns.
#[derive(Debug, Default)]
pub(super) struct Latency {
    before: Vec<Turn>,
    during: Vec<Turn>,
}

impl Latency {
    /// Measures in turns. Leaves the faults of the last one as they are; gives when they began.
    pub(super) fn measure(scene: &Scene, world: &World) -> (Self, Instant) {
        let asking = Asking::new(&scene.hub.kubeconfig(), &scene.hub.cluster_url(OTHER));
        let (mut all, mut began) = (Self::default(), Instant::now());
        // The first turn warms what is warm in all others, and counts for nothing.
        asking.turn(scene);
        for round in 0..rounds() {
            if round > 0 {
                scene.end(world);
                all_recover(scene, Instant::now());
            }
            all.before.push(asking.turn(scene));
            scene.begin(world);
            began = Instant::now();
            all.during.push(asking.turn(scene));
        }
        (all, began)
    }

    /// All in words, and whether it is within its bound.
    pub(super) fn judged(&self) -> (String, bool) {
        let p99 = |turns: &[Turn]| median(turns.iter().map(|turn| turn.p99));
        let p50 = |turns: &[Turn]| median(turns.iter().map(|turn| turn.p50));
        let ratio = p99(&self.during) / p99(&self.before);
        let each = |turns: &[Turn]| {
            let shown: Vec<String> = turns.iter().map(|turn| format!("{:.2}", turn.p99)).collect();
            shown.join(" ")
        };
        let figure = format!(
            "{ratio:.2}×: p99 {:.2} ms, {:.2} before ({} turns: {}; before: {}); p50 {:.2}, {:.2}",
            p99(&self.during),
            p99(&self.before),
            self.during.len(),
            each(&self.during),
            each(&self.before),
            p50(&self.during),
            p50(&self.before),
        );
        (figure, ratio <= BOUND)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() % 2 {
        0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

/// The client that is measured.
struct Asking {
    runtime: Runtime,
    namespaces: Api<DynamicObject>,
}

impl Asking {
    fn new(kubeconfig: &Path, url: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let client = runtime.block_on(async {
            let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
            let options = KubeConfigOptions {
                context: Some("umbra".to_owned()),
                ..KubeConfigOptions::default()
            };
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await;
            let mut config = config.expect("a configuration");
            config.cluster_url = url.parse().expect("a URL");
            Client::try_from(config).expect("a client")
        });
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Namespace"));
        Self {
            namespaces: Api::all_with(client, &resource),
            runtime,
        }
    }

    /// Sends requests to the child without a fault, each of which has to succeed; as many others as ever go to the children that
    /// may have one.
    fn turn(&self, scene: &Scene) -> Turn {
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
            let measured = self.runtime.block_on(self.sequence());
            done.store(true, Ordering::SeqCst);
            measured
        })
    }

    async fn sequence(&self) -> Turn {
        let mut measured = Vec::with_capacity(REQUESTS);
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for _ in 0..REQUESTS {
            ticks.tick().await;
            let began = Instant::now();
            let answer = self.namespaces.get("default").await;
            measured.push(began.elapsed());
            answer.unwrap_or_else(|error| panic!("a child without a fault answers: {error}"));
        }
        measured.sort_unstable();
        let percentile = |percent: usize| measured[(REQUESTS * percent / 100).min(REQUESTS - 1)].as_secs_f64() * 1000.0;
        Turn {
            p50: percentile(50),
            p99: percentile(99),
        }
    }
}
