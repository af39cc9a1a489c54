//! etcd, for comparison: the same single puts into one member on this machine and this disk, through its own client.
//!
//! A put is a transaction that holds if the key does not exist, as in kube-apiserver and in Umbra's etcd backend.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use etcd_client::{Client, Compare, CompareOp, ConnectOptions, Txn, TxnOp};

use super::puts::{CHART_RUN, CHART_WRITERS, SINGLE_RUN, SINGLE_WRITERS, Singles, single_figures, singles_with};
use super::{Context, Outcome, runtime};
use crate::chart::{Chart, Line};
use crate::output::say;

/// How long etcd may take to start.
const START: Duration = Duration::from_secs(30);
/// Connections that the writers share: one HTTP/2 connection is one task of the server.
const CONNECTIONS: usize = 4;

pub(super) fn run(context: &Context) -> anyhow::Result<Outcome> {
    let folder = context.folder()?;
    let (endpoints, _server) = match &context.arguments.etcd_servers[..] {
        [] => match Server::start(&context.arguments.etcd, folder.path()) {
            Ok(server) => (vec![server.endpoint.clone()], Some(server)),
            Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(is_missing) => {
                say(format_args!(
                    "  SKIPPED: {} is not installed",
                    context.arguments.etcd.display()
                ));
                return Ok(Outcome::default());
            }
            Err(error) => return Err(error),
        },
        given => (given.to_vec(), None),
    };
    let runtime = runtime()?;
    let (clients, version) = runtime.block_on(connect(&endpoints))?;
    let mut generation = 0;
    let mut measure = |writers, duration| -> anyhow::Result<Singles> {
        generation += 1;
        let prefix = format!("/umbra-bench-{}-{generation}", std::process::id());
        runtime.block_on(singles(clients.clone(), prefix, writers, duration))
    };
    let mut outcome = Outcome::default();
    for (name, writers) in [("etcd.single", SINGLE_WRITERS), ("etcd.single.one", 1)] {
        let runs = (0..context.runs())
            .map(|_| measure(writers, SINGLE_RUN))
            .collect::<anyhow::Result<Vec<_>>>()?;
        outcome
            .figures
            .extend(single_figures(name, &format!("etcd {version}: puts"), writers, &runs));
    }
    if context.charts() {
        let mut points = Vec::new();
        for writers in CHART_WRITERS {
            points.push((writers as f64, measure(writers, CHART_RUN)?.rate));
        }
        outcome
            .lines
            .push((Chart::Puts, Line::new(format!("etcd {version}"), points)));
    }
    Ok(outcome)
}

fn is_missing(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound
}

/// Clients, and the version of the server.
async fn connect(endpoints: &[String]) -> anyhow::Result<(Vec<Client>, String)> {
    let start = Instant::now();
    loop {
        match try_connect(endpoints).await {
            Ok(connected) => return Ok(connected),
            Err(error) if start.elapsed() > START => {
                return Err(error).with_context(|| format!("etcd at {} does not answer", endpoints.join(", ")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn try_connect(endpoints: &[String]) -> anyhow::Result<(Vec<Client>, String)> {
    let mut clients = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let options = ConnectOptions::new().with_connect_timeout(Duration::from_secs(2));
        clients.push(Client::connect(endpoints, Some(options)).await?);
    }
    let version = clients[0].status().await?.version().to_owned();
    Ok((clients, version))
}

async fn singles(clients: Vec<Client>, prefix: String, writers: usize, run: Duration) -> anyhow::Result<Singles> {
    let put = move |key: String, value: bytes::Bytes| {
        let mut client = clients[key.bytes().map(usize::from).sum::<usize>() % clients.len()].clone();
        let key = format!("{prefix}{key}");
        async move {
            let absent = Compare::mod_revision(key.clone(), CompareOp::Equal, 0);
            let transaction = Txn::new().when([absent]).and_then([TxnOp::put(key, value, None)]);
            let answer = client.txn(transaction).await?;
            anyhow::ensure!(answer.succeeded(), "a new key existed");
            Ok(())
        }
    };
    singles_with(put, writers, run).await
}

/// An etcd of our own, ended when dropped.
#[derive(Debug)]
struct Server {
    process: Child,
    endpoint: String,
}

impl Server {
    fn start(program: &Path, folder: &Path) -> anyhow::Result<Self> {
        // Free when asked for; whoever takes them in between makes the start fail, and the benchmark be run again.
        let ports = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let [client, peer] = [ports[0].local_addr()?.port(), ports[1].local_addr()?.port()];
        drop(ports);
        let endpoint = format!("http://127.0.0.1:{client}");
        let peers = format!("http://127.0.0.1:{peer}");
        let process = Command::new(program)
            .arg("--data-dir")
            .arg(folder.join("etcd"))
            .args([
                "--name",
                "bench",
                "--listen-client-urls",
                &endpoint,
                "--advertise-client-urls",
                &endpoint,
            ])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args([
                "--initial-cluster",
                &format!("bench={peers}"),
                "--quota-backend-bytes",
                "8589934592",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { process, endpoint })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
