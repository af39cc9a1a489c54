//! An agent in front of a hub that opens no tunnels.

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
}

fn authority(name: &str) -> CertificateAuthority {
    CertificateAuthority::create(name, HOUR).unwrap()
}

fn serving(authority: &CertificateAuthority) -> (Vec<u8>, Vec<u8>) {
    let issued = authority.issue_serving(&["127.0.0.1".to_owned()], HOUR).unwrap();
    (issued.certificate_pem.into(), issued.key_pem.into())
}

impl Hub {
    fn sign(&self, request: &str, lifetime: Duration) -> String {
        let subject = ClientSubject {
            user: "umbra:agent:east".to_owned(),
            ..ClientSubject::default()
        };
        self.agents.sign_client_request(request, &subject, lifetime).unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = |code: u16, body: &Value| {
            let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
            *response.status_mut() = StatusCode::from_u16(code).unwrap();
            response
        };
        if request.uri().path().ends_with("/tunnel") {
            self.tunnels.fetch_add(1, Ordering::Relaxed);
            return answer(
                503,
                &json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503, "message": "not now"}),
            );
        }
        if request.method() == Method::PATCH {
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

    /// Serves until `stop`.
    async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server_config(&self.serving).unwrap()));
        let tasks = TaskTracker::new();
        let accept = async {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (hub, acceptor, stop) = (Arc::clone(&self), acceptor.clone(), stop.clone());
                let served = async move {
                    let Ok(stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let service = service_fn(move |request| {
                        let hub = Arc::clone(&hub);
                        async move { Ok::<_, Infallible>(hub.answer(request).await) }
                    });
                    let http = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
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

fn kept(folder: &Path) -> BTreeMap<String, String> {
    serde_json::from_slice(&std::fs::read(folder.join("agent.json")).unwrap()).unwrap()
}

/// Waits until it is so. What never becomes so ends with the test's run.
async fn until(is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting)
        .await
        .expect("it becomes so");
}

#[tokio::test]
async fn an_agent_without_a_tunnel_renews_and_follows_the_authorities_of_the_hub() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second, third) = (authority("first"), authority("second"), authority("third"));
    let (chain, key) = serving(&first);
    let hub = Arc::new(Hub {
        serving: ReloadableServingCertificate::from_pem(&chain, &key).unwrap(),
        agents: authority("agents"),
        told: second.certificate_pem().to_owned(),
        request: ArcSwap::default(),
        tunnels: AtomicUsize::new(0),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(Arc::clone(&hub).serve(listener, stop.clone()));

    // It has joined, and verifies the hub as its manifest says; it is soon time to renew.
    std::fs::write(folder.path().join("ca.crt"), first.certificate_pem()).unwrap();
    let mut joined = Kept::new("east").unwrap();
    joined.certificate = hub.sign(&joined.request, Duration::from_secs(6));
    std::fs::write(folder.path().join("agent.json"), serde_json::to_vec(&joined).unwrap()).unwrap();
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
