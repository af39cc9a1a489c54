//! An agent in front of a hub that has its own ways.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use umbra_auth::certificates::{CertificateAuthority, ClientSubject};
use umbra_auth::tls::{ReloadableServingCertificate, server_config};
use umbra_auth::tokens::sha256_hex;

use super::identity::Kept;
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A hub that renews certificates, and whose authorities change.
struct Hub {
    serving: ReloadableServingCertificate,
    agents: CertificateAuthority,
    /// What it says of its own authorities.
    told: String,
    /// The request that was sent last.
    request: ArcSwap<String>,
    /// How often it was asked for a tunnel.
    tunnels: AtomicUsize,
    /// Whether it opens tunnels, in which it says nothing, and never answers who renews.
    is_stuck: bool,
    /// How often it was asked to renew.
    renewals: AtomicUsize,
    /// Ends the tunnels that are open.
    cut: Notify,
}

fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::create(name, HOUR).unwrap()
}

fn serving(authority: &CertificateAuthority) -> (Vec<u8>, Vec<u8>) {
    let issued = authority.issue_serving(&["127.0.0.1".to_owned()], HOUR).unwrap();
    (issued.certificate_pem.into(), issued.key_pem.into())
}

impl Hub {
    fn new(authority: &CertificateAuthority, told: &CertificateAuthority, is_stuck: bool) -> Arc<Self> {
        let (chain, key) = serving(authority);
        Arc::new(Self {
            serving: ReloadableServingCertificate::from_pem(&chain, &key).unwrap(),
            agents: self::authority("agents"),
            told: told.certificate_pem().to_owned(),
            request: ArcSwap::default(),
            tunnels: AtomicUsize::new(0),
            is_stuck,
            renewals: AtomicUsize::new(0),
            cut: Notify::new(),
        })
    }

    /// Opens a tunnel, which stays until it is cut.
    fn open(self: &Arc<Self>, mut request: Request<Incoming>, tasks: &TaskTracker) -> Response<Full<Bytes>> {
        let (upgrade, hub) = (hyper::upgrade::on(&mut request), Arc::clone(self));
        tasks.spawn(async move {
            let Ok(stream) = upgrade.await else { return };
            hub.cut.notified().await;
            drop(stream);
        });
        let protocol = umbra_child::tunnel::PROTOCOL;
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        let response = response.header("connection", "Upgrade").header("upgrade", protocol);
        response.body(Full::default()).unwrap()
    }

    fn sign(&self, request: &str, lifetime: Duration) -> String {
        let subject = ClientSubject {
            user: "umbra:agent:east".to_owned(),
            ..ClientSubject::default()
        };
        self.agents.sign_client_request(request, &subject, lifetime).unwrap()
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>, tasks: TaskTracker) -> Response<Full<Bytes>> {
        let answer = |code: u16, body: &Value| {
            let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            response
        };
        if request.uri().path().ends_with("/tunnel") {
            self.tunnels.fetch_add(1, Ordering::Relaxed);
            if self.is_stuck {
                return self.open(request, &tasks);
            }
            return answer(
                503,
                &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503, "message": "not now"}),
            );
        }
        if request.method() == Method::PATCH {
            self.renewals.fetch_add(1, Ordering::Relaxed);
            if self.is_stuck {
                std::future::pending::<()>().await;
            }
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let patch: Value = serde_json::from_slice(&body).unwrap();
            let text = patch["spec"]["request"].as_str().unwrap().to_owned();
            self.request.store(Arc::new(text));
        }
        let request = self.request.load_full();
        answer(
            200,
            &json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ClusterJoinRequest", "metadata": {"name": "east-1"},
                "spec": {"clusterName": "east", "request": *request},
                "status": {"certificate": self.sign(&request, HOUR), "requestHash": sha256_hex(request.as_bytes()),
                    "hubCertificateAuthority": self.told}}),
        )
    }

    /// Serves in a task until `stop`. Gives its URL.
    async fn start(self: &Arc<Self>, stop: &CancellationToken, tasks: &TaskTracker) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        tasks.spawn(Arc::clone(self).serve(listener, stop.clone()));
        url
    }

    /// Serves until `stop`.
    async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server_config(&self.serving).unwrap()));
        let tasks = TaskTracker::new();
        let accept = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (hub, acceptor, stop) = (Arc::clone(&self), acceptor.clone(), stop.clone());
                let streams = tasks.clone();
                let served = async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        let answer = Arc::clone(&hub).answer(request, streams.clone());
                        async move { Ok::<_, Infallible>(answer.await) }
                    });
                    let http = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                    let _ = http.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                };
                tasks.spawn(async move { stop.run_until_cancelled(served).await });
            }
        };
        stop.run_until_cancelled(accept).await;
        tasks.close();
        tasks.wait().await;
    }
}

/// An agent of this hub whose state is in `folder`; nothing of it asks its own cluster.
fn agent(hub: &str, folder: &Path, stop: &CancellationToken) -> Agent {
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "own",
        "clusters": [{"name": "own", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "own", "user": {"token": "t"}}],
        "contexts": [{"name": "own", "context": {"cluster": "own", "user": "own"}}]});
    std::fs::write(folder.join("kubeconfig"), kubeconfig.to_string()).unwrap();
    let arguments = AgentArguments {
        hub: hub.parse().unwrap(),
        cluster: "east".to_owned(),
        hub_ca_file: Some(folder.join("ca.crt")),
        hub_tls_server_name: None,
        proxy_url: None,
        bootstrap_token_file: None,
        kubeconfig: Some(folder.join("kubeconfig")),
        context: None,
        state_secret: None,
        state_dir: Some(folder.to_owned()),
        health_port: None,
    };
    let (own, health) = (OwnCluster::new(&arguments).unwrap(), Health::new());
    Agent {
        cluster: arguments.cluster.clone(),
        own: own.child().clone(),
        joiner: Joiner::new(&arguments, &own, health.clone()).unwrap(),
        health,
        tasks: TaskTracker::new(),
        stop: stop.clone(),
    }
}

/// What an agent keeps in `folder` that has joined, verifies the hub by `authority`, and has to renew soon.
fn joined(hub: &Hub, authority: &CertificateAuthority, folder: &Path) -> Kept {
    std::fs::write(folder.join("ca.crt"), authority.certificate_pem()).unwrap();
    let mut joined = Kept::new("east").unwrap();
    joined.certificate = hub.sign(&joined.request, Duration::from_secs(6));
    std::fs::write(folder.join("agent.json"), serde_json::to_vec(&joined).unwrap()).unwrap();
    joined
}

fn kept(folder: &Path) -> BTreeMap<String, String> {
    serde_json::from_slice(&std::fs::read(folder.join("agent.json")).unwrap()).unwrap()
}

/// Waits until it is so, for less than a request to a hub may take (60 s): what waits for one that is stuck does not become so.
async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(40), waiting)
        .await
        .expect("it becomes so");
}

#[tokio::test]
async fn an_agent_without_a_tunnel_renews_and_follows_the_authorities_of_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second, third) = (authority("first"), authority("second"), authority("third"));
    let hub = Hub::new(&first, &second, false);
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let url = hub.start(&stop, &tasks).await;
    let joined = joined(&hub, &first, folder.path());
    tasks.spawn(agent(&url, folder.path(), &stop).run());
    until(|| kept(folder.path())["certificate"] != joined.certificate).await;
    assert_eq!(kept(folder.path())["hubCertificateAuthority"], second.certificate_pem());

    // The next authority signs, which is not in the file.
    let shows = |authority: &CertificateAuthority| {
        let (chain, key) = serving(authority);
        hub.serving.replace(&chain, &key).unwrap();
        hub.tunnels.swap(0, Ordering::Relaxed)
    };
    assert!(shows(&second) > 0);
    until(|| hub.tunnels.load(Ordering::Relaxed) > 0).await;
    // One that nobody was told of: the file says so.
    shows(&third);
    std::fs::write(folder.path().join("ca.crt"), third.certificate_pem()).unwrap();
    until(|| hub.tunnels.load(Ordering::Relaxed) > 0).await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn what_ends_a_tunnel_or_the_agent_does_not_wait_for_a_renewal() {
    let folder = tempfile::tempdir().unwrap();
    let first = authority("first");
    let hub = Hub::new(&first, &first, true);
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (ended, agents) = (CancellationToken::new(), TaskTracker::new());
    let url = hub.start(&ended, &tasks).await;
    joined(&hub, &first, folder.path());
    agents.spawn(agent(&url, folder.path(), &stop).run());
    agents.close();

    until(|| hub.renewals.load(Ordering::Relaxed) == 1).await;
    assert_eq!(hub.tunnels.load(Ordering::Relaxed), 1);
    hub.cut.notify_one();
    until(|| hub.tunnels.load(Ordering::Relaxed) == 2).await;
    stop.cancel();
    until(|| agents.is_empty()).await;
    hub.cut.notify_one();
    ended.cancel();
    tasks.close();
    tasks.wait().await;
}
