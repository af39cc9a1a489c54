//! A simulated cluster: starting it, and what is known of it when it runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_apimachinery::gvk::{GroupVersion, GroupVersionKind};
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::user::{MASTERS, UserInfo};
use umbra_apiserver::ApiServer;
use umbra_apiserver::server::{Server, ServerError, ServerOptions};
use umbra_auth::authenticate::Authenticators;
use umbra_auth::certificates::CertificateError;
use umbra_auth::tls::{
    CaBundle, CertificateAuthenticator, ReloadableCaBundle, ReloadableServingCertificate, TlsError, server_config,
};
use umbra_auth::tokens::{BearerAuthenticator, StaticTokens};
use umbra_child::kubeconfig::Kubeconfig;
use umbra_registry::generic::StoreApi;
use umbra_storage::embedded::{self, OpenError};
use umbra_storage::{Embedded, Store};

use crate::controllers::{self, node, writes};
use crate::data::Keys;
use crate::kinds;

/// What a simulated cluster says of its version where nothing else is wanted.
pub const DEFAULT_VERSION: &str = "v1.36.0-umbra-simulator";

/// How long requests may take to finish when the cluster ends; there is nobody to wait for longer in a demo.
const GRACE: Duration = Duration::from_secs(2);

/// Where a cluster keeps its objects and keys.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Data {
    /// Nowhere: they end with it.
    #[default]
    InMemory,
    /// In this folder, which is made where it is missing. A cluster that is started on it again is the same cluster: same
    /// UID, same objects, same authority, same port.
    Path(PathBuf),
}

/// What a cluster is to be like.
#[derive(Debug, Clone)]
pub struct Options {
    /// The name: in the kubeconfig, and in the names of nodes.
    pub name: String,
    /// The version that `/version` and nodes tell. Default: [`DEFAULT_VERSION`].
    pub kubernetes_version_label: String,
    /// How many nodes there are at the first start. Default: 3.
    pub nodes: usize,
    /// Where objects and keys are kept. Default: in memory.
    pub data: Data,
    /// Where to listen. Port 0 is the port of the last start, or a free one at the first. Default: 127.0.0.1:0.
    pub listen: SocketAddr,
}

impl Options {
    /// A cluster of that name with the defaults.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kubernetes_version_label: DEFAULT_VERSION.to_owned(),
            nodes: 3,
            data: Data::default(),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        }
    }
}

/// Why a cluster cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// A file could not be read or written.
    #[error("cannot access {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Certificates could not be issued or kept.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// TLS could not be set up.
    #[error("cannot set up TLS for a simulated cluster")]
    Tls(#[from] TlsError),
    /// The store could not be opened.
    #[error("cannot open the store of a simulated cluster")]
    Open(#[from] OpenError),
    /// The port cannot be had. The port of the last start is in the file `port` of the data folder; a hub knows the
    /// cluster by it.
    #[error(transparent)]
    Listen(#[from] ServerError),
    /// What every cluster has could not be made.
    #[error("cannot set up a simulated cluster: {}", .0.message)]
    SetUp(Box<Status>),
}

impl From<Status> for SimulatorError {
    fn from(status: Status) -> Self {
        Self::SetUp(Box::new(status))
    }
}

/// A running simulated cluster. Dropping it ends nothing; cancelling the token that it was started with does, or
/// [`SimulatedCluster::shut_down`].
#[derive(Debug)]
pub struct SimulatedCluster {
    name: String,
    address: SocketAddr,
    kubeconfig: Kubeconfig,
    token: String,
    uid: String,
    api: Arc<StoreApi>,
    cancelled: CancellationToken,
    ended: CancellationToken,
}

impl SimulatedCluster {
    /// Starts a cluster, whose tasks belong to `tracker` and end when `cancelled`. It serves when this returns.
    ///
    /// # Errors
    /// See [`SimulatorError`].
    pub async fn start(
        options: Options,
        tracker: &TaskTracker,
        cancelled: CancellationToken,
    ) -> Result<Self, SimulatorError> {
        let folder = match &options.data {
            Data::InMemory => None,
            Data::Path(path) => Some(path.as_path()),
        };
        let keys = Keys::open(&options.name, folder)?;
        let embedded = match folder {
            None => Embedded::in_memory(),
            Some(folder) => Embedded::open(folder.join("store.redb"), embedded::Options::default()).await?,
        };
        // Tasks of this cluster alone, so that its store is closed after all of them, and its failure ends them.
        let (tasks, cancelled) = (TaskTracker::new(), cancelled.child_token());
        let ended = CancellationToken::new();
        tracker.spawn(close_when_cancelled(
            embedded.clone(),
            tasks.clone(),
            cancelled.clone(),
            ended.clone(),
        ));
        let started = Self::start_on(&options, &keys, &embedded, &tasks, &cancelled, &ended).await;
        if started.is_err() {
            cancelled.cancel();
            ended.cancelled().await;
        }
        started
    }

    async fn start_on(
        options: &Options,
        keys: &Keys,
        embedded: &Embedded,
        tasks: &TaskTracker,
        cancelled: &CancellationToken,
        ended: &CancellationToken,
    ) -> Result<Self, SimulatorError> {
        let store: Arc<dyn Store> = Arc::new(embedded.clone());
        let version = &options.kubernetes_version_label;
        let api = kinds::serve(&options.name, version, &store, tasks, cancelled).await?;
        make_nodes(&api, options).await?;
        controllers::start(&api, keys.authority.certificate_pem(), tasks, cancelled)?;
        let server = listen(options.listen, keys, &api).await?;
        let address = server.local_address();
        keys.keep_port(address.port())?;
        tasks.spawn(server.run(cancelled.clone()));
        Ok(Self {
            name: options.name.clone(),
            address,
            kubeconfig: keys.kubeconfig(&options.name, address)?,
            token: keys.token.clone(),
            uid: uid(&api).await?,
            api,
            cancelled: cancelled.clone(),
            ended: ended.clone(),
        })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the API server listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A kubeconfig of an administrator (`system:masters`) with a client certificate, everything inline. Its context and
    /// cluster are called as the cluster is.
    #[must_use]
    pub fn kubeconfig(&self) -> &Kubeconfig {
        &self.kubeconfig
    }

    /// A bearer token of an administrator.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The UID of the namespace `kube-system`, which is the identity of the cluster.
    #[must_use]
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Creates those of `objects` that are missing, in order, and says how many that were. What is there stays as it is.
    ///
    /// # Errors
    /// The first refusal. What was made before it stays.
    pub async fn create_missing(&self, objects: &[Value]) -> Result<usize, Status> {
        let mut created = 0;
        for object in objects {
            let text = |field: &str| object[field].as_str().unwrap_or_default();
            let kind = GroupVersionKind::parse(text("apiVersion"), text("kind"));
            let store = self.api.store_of_kind(&kind);
            let store = store.ok_or_else(|| Status::bad_request(format!("no such kind: {kind}")))?;
            created += usize::from(writes::create_missing(&store, object).await?);
        }
        Ok(created)
    }

    /// Ends the cluster and waits until its store is closed. Cancel safe: the end goes on.
    pub async fn shut_down(&self) {
        self.cancelled.cancel();
        self.ended.cancelled().await;
    }
}

async fn close_when_cancelled(
    store: Embedded,
    tasks: TaskTracker,
    cancelled: CancellationToken,
    ended: CancellationToken,
) {
    cancelled.cancelled().await;
    tasks.close();
    tasks.wait().await;
    store.close().await;
    ended.cancel();
}

async fn listen(wanted: SocketAddr, keys: &Keys, api: &Arc<StoreApi>) -> Result<Server, SimulatorError> {
    let address = keys.address(wanted)?;
    let bundle = CaBundle::from_pem(keys.authority.certificate_pem().as_bytes())?;
    let mut tokens = StaticTokens::new();
    tokens.insert(&keys.token, UserInfo::new("admin", [MASTERS]));
    let authenticators = Authenticators::new(vec![
        Arc::new(CertificateAuthenticator::new(ReloadableCaBundle::new(bundle))),
        Arc::new(BearerAuthenticator::new(vec![Arc::new(tokens)])),
    ]);
    let roots = Arc::new(kinds::OnlyRoot(Arc::clone(api)));
    let server = ApiServer::builder(roots, Arc::new(authenticators)).build();
    let certificate = keys.serving_certificate(address)?;
    let certificate =
        ReloadableServingCertificate::from_pem(certificate.certificate_pem.as_bytes(), certificate.key_pem.as_bytes())?;
    let options = ServerOptions {
        grace: GRACE,
        ..ServerOptions::default()
    };
    Ok(Server::bind(address, server_config(&certificate)?, server, options).await?)
}

/// Makes the nodes at the first start. Later what people made of them stays.
async fn make_nodes(api: &StoreApi, options: &Options) -> Result<(), Status> {
    let store = api.store(&GroupVersion::new("", "v1").resource("nodes"));
    let store = store.ok_or_else(Status::no_such_path)?;
    if !store.cache().snapshot().is_empty() {
        return Ok(());
    }
    for index in 0..options.nodes {
        let mut object = node::object(&options.name, index);
        writes::create_missing(&store, &object).await?;
        object["status"] = node::status(&object, index, &options.kubernetes_version_label, Timestamp::now());
        writes::update(&store, "status", &object).await?;
    }
    Ok(())
}

async fn uid(api: &StoreApi) -> Result<String, Status> {
    let store = api.store(&GroupVersion::new("", "v1").resource("namespaces"));
    let uid = match store {
        Some(store) => store.stored_uid(None, "kube-system").await?,
        None => None,
    };
    uid.ok_or_else(|| Status::failure(Reason::NotFound, "the namespace kube-system is missing"))
}
