//! Reaching a child side by side: directly, through Umbra's cluster root, and through `kubectl proxy`.
//!
//! Real programs on this machine: a kube-apiserver with its etcd and controllers in one process, a standalone hub, and an
//! unmodified kubectl. One user with the same rights sends the same request on each way. Runs take turns, so that whatever else the
//! machine does meets all ways alike, and what is compared comes from the same turn. The load itself takes its share of the
//! processors: with two cores, throughput is what remains when clients, hub and child share them.
//!
//! A request through Umbra is made in the user's name (`Impersonate-User`), so that the child decides: what kube-apiserver spends
//! on that is part of what is measured.

mod load;
mod process;

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::cluster::Cluster;
use umbra_e2e::environment::{self, Programs};
use umbra_e2e::hub::Hub;
use umbra_e2e::identity::{self, Context, Credential};
use umbra_e2e::process::Process;

use self::load::{Answers, Target};
use crate::figure::{Bound, Figure, Unit};
use crate::machine::Machine;
use crate::output::say;
use crate::report::{self, Items};

/// What to measure, and how. UMBRA_BIN names the umbra to measure, built with `--release`, and KUBE_BIN the folder that
/// tests/kube/build.sh has filled.
#[derive(Debug, Args)]
pub(crate) struct ChildrenArguments {
    /// How often each way has its turn; what counts is the median.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,
    /// How long a turn takes.
    #[arg(long, default_value_t = 4, value_name = "SECONDS")]
    seconds: u64,
    /// How long the log is that is streamed, in MiB.
    #[arg(long, default_value_t = 1024, value_name = "MIB")]
    log: u64,
    /// Write machine and figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Connections of a load that shows what a request costs, and of one that shows what the ways can carry.
const CONNECTIONS: [usize; 2] = [1, 64];

/// What a proxied request may take more than a direct one, half of the time and 99 of 100 times, and what share of the direct
/// requests come through: design, section 10.
const P50: &str = "children.bench.p50";
const P99: &str = "children.bench.p99";
const THROUGHPUT: &str = "children.bench.throughput";
/// What Umbra spends on a request, beside `kubectl proxy`.
const CPU: &str = "children.bench.cpu";
/// What share of the bytes of a direct log stream come through.
const LOG: &str = "children.bench.log";

/// The object that is asked for.
const OBJECT: &str = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";

/// A way to the child.
struct Way {
    name: &'static str,
    target: Target,
    /// The process between the client and the child.
    between: Option<u32>,
}

/// What runs.
struct Ground {
    child: Cluster,
    // Ended when dropped.
    _hub: Hub,
    _proxy: Process,
    /// Direct, through Umbra, through `kubectl proxy`.
    ways: [Way; 3],
}

/// What one turn of one way gave.
struct Turn {
    answers: Answers,
    /// Seconds of the processor that a request took: in the process between, and in the child.
    between: f64,
    child: f64,
}

/// Measures.
///
/// # Errors
/// Where the programs are not there, or a request is not answered with 200.
pub(crate) fn run(arguments: &ChildrenArguments) -> anyhow::Result<()> {
    let programs = environment::programs().context("UMBRA_BIN and KUBE_BIN have to name programs")?;
    let machine = Machine::look(&std::env::temp_dir())?;
    machine.print();
    let mut items = Items::open(&[P50, P99, THROUGHPUT, CPU, LOG]);
    let ground = Ground::make(programs)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut figures = Vec::new();
    for connections in CONNECTIONS {
        say(format_args!("\nGET of one object, {connections} connections"));
        let turns = runtime.block_on(ground.turns(connections, arguments))?;
        figures.extend(requests(connections, &turns));
    }
    say(format_args!("\nA log of {} MiB", arguments.log));
    figures.extend(ground.log(&runtime, arguments)?);
    for figure in &figures {
        items.take(figure);
    }
    if let Some(path) = &arguments.json {
        report::write(path, &machine, &figures)?;
    }
    Ok(())
}

impl Ground {
    fn make(programs: &Programs) -> anyhow::Result<Self> {
        let child = Cluster::start(programs, "child");
        let hub = Hub::start(programs, &[]);
        hub.join("child", "child", &child.kubeconfig()).expect_success();
        hub.wait_for_child("child");
        child
            .kubectl()
            .ok("create clusterrolebinding bench --clusterrole=view --user=bench");
        let root = hub.root();
        root.ok("create clusterrole bench --verb=get --resource=managedclusters.umbra.dev/proxy");
        root.ok("create clusterrolebinding bench --clusterrole=bench --user=bench");

        let [on_child, on_hub] = [child.folder(), hub.folder()].map(identity::authority);
        let certificate = identity::certificate(&on_child, "bench", &[]);
        let kubeconfig = environment::folder("bench").join("kubeconfig");
        let direct = Target::https(child.server(), on_child.certificate_pem(), &certificate)?;
        let credential = Credential::Certificate(certificate);
        let context = Context {
            name: "bench",
            server: child.server().to_owned(),
            authority_pem: on_child.certificate_pem(),
            credential: &credential,
        };
        identity::write_kubeconfig(&kubeconfig, &[context]);
        let mut command = Command::new(&programs.kubectl);
        command.arg("--kubeconfig").arg(&kubeconfig).args(["proxy", "--port=0"]);
        let mut proxy = Process::start(command, None);
        let line = proxy.wait_for("the port", |text| text.contains("Starting to serve on "));
        let address = line
            .rsplit("Starting to serve on ")
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        let through = identity::certificate(&on_hub, "bench", &[]);
        let ways = [
            Way {
                name: "direct",
                target: direct,
                between: None,
            },
            Way {
                name: "umbra",
                target: Target::https(&hub.cluster_url("child"), on_hub.certificate_pem(), &through)?,
                between: Some(hub.id()),
            },
            Way {
                name: "kubectl proxy",
                target: Target::http(&format!("http://{address}"))?,
                between: Some(proxy.id()),
            },
        ];
        Ok(Self {
            child,
            _hub: hub,
            _proxy: proxy,
            ways,
        })
    }

    /// For each run, one turn of each way.
    async fn turns(&self, connections: usize, arguments: &ChildrenArguments) -> anyhow::Result<Vec<[Turn; 3]>> {
        let time = Duration::from_secs(arguments.seconds);
        let mut turns = Vec::new();
        // The first run warms up.
        for run in 0..=arguments.runs {
            let [direct, umbra, proxy] = &self.ways;
            let turn = [
                self.turn(direct, connections, time).await?,
                self.turn(umbra, connections, time).await?,
                self.turn(proxy, connections, time).await?,
            ];
            if run > 0 {
                turns.push(turn);
            }
        }
        Ok(turns)
    }

    async fn turn(&self, way: &Way, connections: usize, time: Duration) -> anyhow::Result<Turn> {
        let used = || -> anyhow::Result<[f64; 2]> {
            let between = way.between.map_or(Ok(0.0), process::cpu_seconds)?;
            Ok([between, process::cpu_seconds(self.child.id())?])
        };
        let before = used()?;
        let answers = load::run(&way.target, OBJECT, connections, time).await;
        let answers = answers.with_context(|| way.name)?;
        let after = used()?;
        let each = |index: usize| (after[index] - before[index]) / answers.count as f64;
        Ok(Turn {
            answers,
            between: each(0),
            child: each(1),
        })
    }

    /// The bytes of a log that come through in a second.
    fn log(&self, runtime: &tokio::runtime::Runtime, arguments: &ChildrenArguments) -> anyhow::Result<Vec<Figure>> {
        let lines = arguments.log << 13;
        // Lines of 128 bytes.
        let script = format!("yes {} | head -n {lines}", "x".repeat(127));
        let kubectl = self.child.kubectl();
        kubectl.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: talker, namespace: default}}, spec: {{restartPolicy: Never,
            containers: [{{name: main, image: busybox, command: [sh, -c, '{script}']}}]}}}}"
        ));
        kubectl.ok("wait pod/talker -n default --for=jsonpath={.status.phase}=Succeeded --timeout=300s");
        let mut rates: [Vec<f64>; 3] = Default::default();
        for run in 0..=arguments.runs.min(3) {
            for (way, rates) in self.ways.iter().zip(&mut rates) {
                let read = load::read(&way.target, "/api/v1/namespaces/default/pods/talker/log");
                let (bytes, seconds) = runtime.block_on(read).with_context(|| way.name)?;
                anyhow::ensure!(bytes == lines << 7, "{}: {bytes} bytes of {}", way.name, lines << 7);
                if run > 0 {
                    rates.push(bytes as f64 / seconds);
                }
            }
        }
        let [direct, umbra, proxy] = rates;
        let share = ratios(&umbra, &direct);
        Ok(vec![
            Figure::new("log.direct", "direct", Unit::BytesPerSecond, direct),
            Figure::new("log.umbra", "through Umbra", Unit::BytesPerSecond, umbra),
            Figure::new("log.proxy", "through kubectl proxy", Unit::BytesPerSecond, proxy),
            Figure::new(LOG, "log stream through Umbra, of the direct one", Unit::Ratio, share)
                .bound(Bound::AtLeast(0.85)),
        ])
    }
}

/// The figures of one load.
fn requests(connections: usize, turns: &[[Turn; 3]]) -> Vec<Figure> {
    let each = |way: usize, of: &dyn Fn(&Turn) -> f64| turns.iter().map(|turn| of(&turn[way])).collect::<Vec<_>>();
    let mut figures = Vec::new();
    for (way, name) in ["direct", "through Umbra", "through kubectl proxy"]
        .into_iter()
        .enumerate()
    {
        let what = |figure: &str| format!("{connections} connections, {name}: {figure}");
        figures.push(Figure::new(
            "requests",
            what("requests"),
            Unit::PerSecond("requests"),
            each(way, &|turn| turn.answers.per_second),
        ));
        figures.push(Figure::new(
            "p50",
            what("p50"),
            Unit::Seconds,
            each(way, &|turn| turn.answers.p50),
        ));
        figures.push(Figure::new(
            "p99",
            what("p99"),
            Unit::Seconds,
            each(way, &|turn| turn.answers.p99),
        ));
        figures.push(Figure::new(
            "cpu.child",
            what("CPU of the child"),
            Unit::Seconds,
            each(way, &|turn| turn.child),
        ));
        if way > 0 {
            figures.push(Figure::new(
                "cpu",
                what("CPU between"),
                Unit::Seconds,
                each(way, &|turn| turn.between),
            ));
        }
    }
    let more = |of: &dyn Fn(&Answers) -> f64| -> Vec<f64> {
        turns
            .iter()
            .map(|[direct, umbra, _]| of(&umbra.answers) - of(&direct.answers))
            .collect()
    };
    if connections == 1 {
        let p50 = Figure::new(
            P50,
            "GET through Umbra, p50 over the direct request",
            Unit::Seconds,
            more(&|answers| answers.p50),
        );
        let p99 = Figure::new(
            P99,
            "GET through Umbra, p99 over the direct request",
            Unit::Seconds,
            more(&|answers| answers.p99),
        );
        figures.extend([p50.bound(Bound::AtMost(150e-6)), p99.bound(Bound::AtMost(1e-3))]);
    } else {
        let rates = |way| each(way, &|turn| turn.answers.per_second);
        let share = Figure::new(
            THROUGHPUT,
            "requests through Umbra, of the direct ones",
            Unit::Ratio,
            ratios(&rates(1), &rates(0)),
        );
        let cpu = |way| each(way, &|turn| turn.between);
        let less = Figure::new(
            CPU,
            "CPU of a request in Umbra, of that in kubectl proxy",
            Unit::Ratio,
            ratios(&cpu(1), &cpu(2)),
        );
        figures.extend([share.bound(Bound::AtLeast(0.85)), less.bound(Bound::AtMost(1.0))]);
    }
    figures
}

/// One over another, turn by turn.
fn ratios(of: &[f64], over: &[f64]) -> Vec<f64> {
    of.iter().zip(over).map(|(of, over)| of / over).collect()
}
