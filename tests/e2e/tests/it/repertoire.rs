//! kubectl's repertoire against a child, through a hub that dials it and through a tunnel: the same commands side by side, and
//! what goes on for minutes beside them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::process::Process;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::streams::{self, Protocol};
use crate::ways::Ways;
use crate::{cluster_root, pod_of, sorted_lines};

/// How many seconds a log is followed; 180 in the long form.
const LOG_SECONDS: &str = "REPERTOIRE_LOG_SECONDS";
/// How many seconds a watch, and an exec in which nothing happens, live; 600 in the long form.
const WATCH_SECONDS: &str = "REPERTOIRE_WATCH_SECONDS";
/// Connections through one port-forward at once.
const FORWARDED: u64 = 50;
/// Bytes there and back on each of them.
const FORWARDED_BYTES: usize = 256 * 1024;
/// Bytes of the value of a large ConfigMap; kube-apiserver takes 1 MiB.
const LARGE: usize = 1_000_000;

/// A pod with a shell in a terminal, to attach to.
const SHELL: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec: {containers: [{name: main, image: busybox, command: [sh], stdin: true, tty: true}]}
";

/// What a metrics server serves, as custom resources: kubectl asks for the same paths.
const METRICS: &str = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: nodes.metrics.k8s.io
  annotations: {api-approved.kubernetes.io: 'unapproved, for a test'}
spec:
  group: metrics.k8s.io
  names: {plural: nodes, kind: NodeMetrics}
  scope: Cluster
  versions:
  - name: v1beta1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: pods.metrics.k8s.io
  annotations: {api-approved.kubernetes.io: 'unapproved, for a test'}
spec:
  group: metrics.k8s.io
  names: {plural: pods, kind: PodMetrics}
  scope: Namespaced
  versions:
  - name: v1beta1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

#[test]
fn kubectl_does_through_the_hub_what_it_does_directly() {
    let Some(world) = World::shared() else { return };
    let items = [
        Item::open("children.repertoire.direct"),
        Item::open("children.repertoire.tunnel"),
    ];
    let spare = World::spare();
    let ways = Ways::start(&world, &spare);
    let direct = spare.kubectl();
    direct.apply(METRICS);
    direct.ok("wait crd/nodes.metrics.k8s.io crd/pods.metrics.k8s.io --for=condition=Established --timeout=60s");
    let namespaces = ["repertoire-direct", "repertoire-tunnel"];
    // Both at once: minutes go by in either.
    std::thread::scope(|scope| {
        let hubs = ways.hubs();
        let shown: Vec<_> = std::iter::zip(items, std::iter::zip(hubs, namespaces))
            .map(|(item, (hub, namespace))| {
                let way = Way {
                    through: hub.child("guest").namespace(namespace),
                    direct: direct.namespace(namespace),
                    namespace,
                };
                scope.spawn(move || item.pass(&way.show(hub.administrator())))
            })
            .collect();
        for shown in shown {
            shown.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    direct.ok(["delete", "namespace", namespaces[0], namespaces[1], "--wait=false"]);
    direct.ok("delete crd nodes.metrics.k8s.io pods.metrics.k8s.io");
    ways.end();
}

/// A cluster as a hub shows it, and the cluster itself, with a namespace for what is done.
struct Way {
    through: Kubectl,
    direct: Kubectl,
    namespace: &'static str,
}

impl Way {
    /// All of it, and what was seen.
    fn show(&self, administrator: &str) -> String {
        self.direct.ok(["create", "namespace", self.namespace]);
        cluster_root::read(&self.through, &self.direct, administrator);
        cluster_root::write(&self.through, &self.direct);
        cluster_root::connect(&self.through);
        let long = Long::start(self);
        self.type_in_terminals();
        self.forward_in_parallel();
        self.write_large();
        self.read_raw();
        self.look_at_usage();
        self.serve_on_this_machine();
        self.wait_for_changes();
        long.end(self)
    }

    /// A person at a terminal: exec -it and attach -it, the window is resized, exec ends with the shell's exit code.
    fn type_in_terminals(&self) {
        let talker = pod_of(&self.direct, "talker");
        self.through.apply(SHELL);
        self.through.ok("wait pod/shell --for=condition=Ready --timeout=90s");
        for (protocol, columns) in std::iter::zip(Protocol::ALL, [100, 110]) {
            let kubectl = protocol.of(&self.through);
            let mut exec = kubectl.terminal(["exec", "-it", &talker, "--", "sh"], (31, columns));
            type_in_terminal(&mut exec, columns);
            exec.write("exit 7\n");
            assert_eq!(exec.wait(wait::DEADLINE).code(), Some(7), "{}", exec.output());
            let mut attach = kubectl.terminal(["attach", "-it", "shell"], (31, columns));
            type_in_terminal(&mut attach, columns);
        }
    }

    /// Many connections through one port-forward, with as many bytes in both directions on each.
    fn forward_in_parallel(&self) {
        for protocol in Protocol::ALL {
            let mut forward = protocol.of(&self.through).start("port-forward pod/echo :7000");
            let port = streams::forwarded_port(&mut forward);
            std::thread::scope(|scope| {
                let connections: Vec<_> = (0..FORWARDED)
                    .map(|number| scope.spawn(move || there_and_back(port, number)))
                    .collect();
                for (number, connection) in connections.into_iter().enumerate() {
                    let back = connection
                        .join()
                        .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                    assert!(back.is_ok(), "{number}: {back:?}\n{}", forward.output());
                }
            });
            forward.stop();
        }
    }

    /// An object about as large as kube-apiserver takes, and one that is too large in the eyes of the child.
    fn write_large(&self) {
        for (seed, command) in [
            "create -f -",
            "replace -f -",
            "apply --server-side --force-conflicts -f -",
        ]
        .into_iter()
        .enumerate()
        {
            let text = letters(seed as u64, LARGE);
            self.through.ok_with(&config_map("large", &text), command);
            for kubectl in [&self.through, &self.direct] {
                let read = kubectl.path("configmap large", "{.data.text}");
                assert!(read == text, "after {command}: {} bytes", read.len());
            }
        }
        // Client-side apply writes it down once more as an annotation, which no child takes.
        let refused = |kubectl: &Kubectl| {
            let outcome = kubectl.run_with(&config_map("annotated", &letters(9, LARGE)), "apply -f -");
            outcome.expect_failure()
        };
        let said = refused(&self.through);
        assert!(said.contains("metadata.annotations: Too long"), "{said}");
        assert_eq!(said, refused(&self.direct));
    }

    /// Paths that are no objects, of the API server and of what stands behind it. It refuses to be a proxy to a node on loopback,
    /// in its own words.
    fn read_raw(&self) {
        let node = self.direct.path("nodes", "{.items[0].metadata.name}");
        let raw = |kubectl: &Kubectl, path: &str| kubectl.run(["get", "--raw", path]);
        for path in [
            "/version",
            "/livez/ping",
            "/apis/apps/v1",
            "/apis/custom.metrics.k8s.io/v1beta1",
            "/api/v1/nodes/nobody/proxy/healthz",
            &format!("/api/v1/nodes/{node}/proxy/healthz"),
            &format!("/api/v1/nodes/{node}/proxy/metrics/resource"),
        ] {
            let (through, direct) = (raw(&self.through, path), raw(&self.direct, path));
            assert_eq!(
                (through.code, through.stdout, through.stderr),
                (direct.code, direct.stdout, direct.stderr),
                "{path}"
            );
        }
        let metrics = raw(&self.through, "/metrics").expect_success();
        assert!(
            metrics.contains("\napiserver_request_total{"),
            "{} bytes",
            metrics.len()
        );
        let log = format!(
            "/api/v1/namespaces/{}/pods/{}/log?limitBytes=7",
            self.namespace,
            pod_of(&self.direct, "talker")
        );
        assert_eq!(raw(&self.through, &log).expect_success(), "tick 1\n");
    }

    /// What a metrics server would serve, as kubectl prints it and as it comes.
    fn look_at_usage(&self) {
        let node = self.direct.path("nodes", "{.items[0].metadata.name}");
        let talker = pod_of(&self.direct, "talker");
        let usage = json!({"cpu": "250m", "memory": "64Mi"});
        let (timestamp, window) = ("2026-01-01T00:00:00Z", "30s");
        let of_node = json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "NodeMetrics", "metadata": {"name": node},
            "timestamp": timestamp, "window": window, "usage": usage});
        let of_pod = json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics", "metadata": {"name": talker},
            "timestamp": timestamp, "window": window, "containers": [{"name": "main", "usage": usage}]});
        for metrics in [of_node, of_pod] {
            self.through
                .ok_with(&metrics.to_string(), "apply --server-side --force-conflicts -f -");
        }
        for command in ["top nodes", "top pods", "top pods --containers"] {
            let through = self.through.ok(command);
            assert!(through.contains("250m"), "{through}");
            assert_eq!(through, self.direct.ok(command), "{command}");
        }
        let raw = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", self.namespace);
        let items = |kubectl: &Kubectl| {
            let list: Value = serde_json::from_str(&kubectl.ok(["get", "--raw", &raw])).expect("a list");
            list["items"].clone()
        };
        assert_eq!(items(&self.through), items(&self.direct));
    }

    /// `kubectl proxy`, and what speaks to it without credentials.
    fn serve_on_this_machine(&self) {
        let mut proxy = self.through.start("proxy --port=0 --append-server-path");
        let line = proxy.wait_for("the port", |text| {
            text.contains("Starting to serve on ") && text.ends_with('\n')
        });
        let address = line.trim().rsplit(' ').next().expect("a line has words").to_owned();
        let beyond = self.through.server(&format!("http://{address}"));
        let names = |kubectl: &Kubectl| sorted_lines(&kubectl.ok("get serviceaccounts -o name"));
        assert_eq!(names(&beyond), names(&self.direct));
        let mut watch = beyond.start(["get", "configmaps", "--watch", "-o", "name"]);
        watch.wait_for("what is there", |text| text.contains("configmap/large\n"));
        beyond.ok("create configmap proxied --from-literal=a=b");
        watch.wait_for("what is new", |text| text.contains("configmap/proxied\n"));
        let talker = pod_of(&self.direct, "talker");
        assert!(beyond.ok(["logs", &talker]).starts_with("tick 1\n"));
        beyond.ok("delete configmap proxied");
    }

    /// `kubectl wait` for what is not yet so.
    fn wait_for_changes(&self) {
        for (awaited, change) in [
            ("--for=create", "create configmap awaited --from-literal=is=begun"),
            (
                "--for=jsonpath={.data.is}=done",
                r#"patch configmap awaited -p {"data":{"is":"done"}}"#,
            ),
            ("--for=delete", "delete configmap awaited"),
        ] {
            let mut wait = self
                .through
                .start(["wait", "configmap/awaited", awaited, "--timeout=80s"]);
            self.direct.ok(change);
            let status = wait.wait(wait::DEADLINE);
            assert!(status.success(), "{awaited}: {}", wait.output());
        }
        self.through
            .ok("wait pod -l app=talker --for=condition=Ready --timeout=60s");
        let said = self.through.fails("wait pod/echo --for=delete --timeout=1s");
        assert!(said.contains("timed out waiting"), "{said}");
    }
}

/// What goes on for minutes: a watch and an exec in which nothing happens, and a log that is followed.
struct Long {
    began: Instant,
    watch: Process,
    exec: Process,
    log: Process,
}

impl Long {
    fn start(way: &Way) -> Self {
        way.direct.ok("create configmap watched --from-literal=is=begun");
        let watched = [
            "get",
            "configmap",
            "watched",
            "--watch",
            "-o",
            r#"jsonpath={.data.is}{"\n"}"#,
        ];
        let mut watch = way.through.start(watched);
        watch.wait_for("what is there", |text| text == "begun\n");
        let talker = pod_of(&way.direct, "talker");
        let mut exec = way.through.start(["exec", "-i", &talker, "--", "cat"]);
        exec.write("begun\n");
        exec.wait_for("the echo", |text| text == "begun\n");
        let log = way.through.start(["logs", "-f", &talker]);
        Self {
            began: Instant::now(),
            watch,
            exec,
            log,
        }
    }

    /// Lets the time pass that is asked for, and sees that all of it still goes on.
    fn end(mut self, way: &Way) -> String {
        let log_seconds = seconds(LOG_SECONDS);
        self.let_pass(log_seconds);
        let lines = self.log.stdout().lines().count();
        let log = self.log.wait_for("more lines", |text| {
            text.lines().count() > lines && text.ends_with('\n')
        });
        for (number, line) in log.lines().enumerate() {
            assert_eq!(line, format!("tick {}", number + 1), "each line once, in order");
        }
        let watch_seconds = seconds(WATCH_SECONDS);
        self.let_pass(watch_seconds);
        way.direct
            .ok(["patch", "configmap", "watched", "-p", r#"{"data":{"is":"ended"}}"#]);
        self.watch.wait_for("what has changed", |text| text == "begun\nended\n");
        self.exec.write("ended\n");
        self.exec.wait_for("the echo", |text| text == "begun\nended\n");
        format!(
            "32 commands; log {log_seconds} s, {} lines; watch and idle exec {watch_seconds} s; {FORWARDED} forwarded",
            log.lines().count(),
        )
    }

    /// Not a wait for anything: that so much time passes is what is asked for.
    fn let_pass(&self, seconds: u64) {
        std::thread::sleep(Duration::from_secs(seconds).saturating_sub(self.began.elapsed()));
    }
}

/// What a variable says, or 3.
fn seconds(variable: &str) -> u64 {
    let value = std::env::var(variable).unwrap_or_default();
    if value.is_empty() {
        return 3;
    }
    value
        .parse()
        .unwrap_or_else(|error| panic!("{variable}={value}: {error}"))
}

/// Types commands, before and after the window is resized. What is typed appears, too, so it is spelt otherwise.
#[track_caller]
fn type_in_terminal(terminal: &mut Process, columns: u16) {
    let mut sized = |rows: u16, columns: u16| {
        terminal.resize((rows, columns));
        terminal.write(&format!(
            "until [ \"$(stty size)\" = '{rows} {columns}' ]; do sleep 0.1; done; echo is''sized {rows} {columns}\n"
        ));
        let expected = format!("issized {rows} {columns}");
        terminal.wait_for(&expected, |text| text.contains(&expected));
    };
    sized(31, columns);
    sized(42, columns + 20);
}

/// Sends bytes and reads them back to the end.
fn there_and_back(port: u16, number: u64) -> Result<(), String> {
    let sent = letters(number, FORWARDED_BYTES);
    let said = |what: &str, error: std::io::Error| format!("{what}: {error}");
    let mut socket = TcpStream::connect(("127.0.0.1", port)).map_err(|error| said("connect", error))?;
    socket
        .set_read_timeout(Some(wait::DEADLINE))
        .map_err(|error| said("timeout", error))?;
    let mut back = Vec::with_capacity(sent.len());
    std::thread::scope(|scope| {
        let mut writing = socket.try_clone().map_err(|error| said("clone", error))?;
        let written = scope.spawn({
            let sent = &sent;
            move || {
                writing.write_all(sent.as_bytes())?;
                writing.shutdown(Shutdown::Write)
            }
        });
        let read = socket.read_to_end(&mut back);
        let written = written.join().expect("writing does not panic");
        written.map_err(|error| said("write", error))?;
        read.map_err(|error| said("read", error))
    })?;
    if back == sent.as_bytes() {
        Ok(())
    } else {
        Err(format!("{} bytes came back of {}, or others", back.len(), sent.len()))
    }
}

/// As many letters, that do not compress well and do not begin like HTTP: Knuth's linear congruential generator.
fn letters(seed: u64, count: usize) -> String {
    let mut state = seed.wrapping_add(1);
    std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + u8::try_from((state >> 33) % 26).expect("less than 26"))
    })
    .take(count)
    .collect()
}

fn config_map(name: &str, text: &str) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}}).to_string()
}
