//! Puts a standalone hub together: the store, the roots, the controllers, the HTTP front.
//!
//! This is the only place that knows all parts; none of them knows it.

pub(crate) mod agents;
mod audit;
pub(crate) mod base;
mod fleets;
mod storage;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use clap::Args;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use umbra_api::cluster::Sync;
use umbra_apimachinery::gvk::GroupVersionResource;
use umbra_apimachinery::user::{MASTERS, UserInfo};
use umbra_apiserver::ApiServer;
use umbra_apiserver::audit::AuditLog;
use umbra_apiserver::server::{Server, ServerError, ServerOptions};
use umbra_auth::authenticate::Authenticators;
use umbra_auth::tls::{
    CaBundle, CertificateAuthenticator, ReloadableCaBundle, ReloadableServingCertificate, server_config,
};
use umbra_auth::tokens::BearerAuthenticator;
use umbra_auth::tokens::ServiceAccountTokens;
use umbra_child::tunnel::Tunnels;
use umbra_child::{Children, ProbeConfig};
use umbra_controllers::cluster::{LocalCredentials, ensure_defaults};
use umbra_controllers::lease::Leases;
use umbra_registry::builtin::assembly::Cluster;
use umbra_registry::generic::StoreApi;
use umbra_registry::hub::HubDependencies;
use umbra_registry::hub::agents::{Agents, HubTrust};
use umbra_registry::hub::roots::Fleets;

use crate::up::data_dir::DataDir;
pub(crate) use agents::TunnelArguments;
pub(crate) use audit::AuditArguments;
use base::{Base, CONTROLLERS, Controllers, Shared, version};
pub(crate) use storage::{HubStore, StorageArguments};

/// Who issues the hub's service account tokens, and whom they are for.
const ISSUER: &str = "https://umbra.dev/hub";
/// What a standalone hub does its work with.
#[derive(Args)]
pub(crate) struct HubArguments {
    #[command(flatten)]
    tunnels: TunnelArguments,
    #[command(flatten)]
    audit: AuditArguments,
    // The last, because its heading is that of all flags after it.
    #[command(flatten)]
    storage: StorageArguments,
}

/// A hub that serves.
pub(crate) struct Hub {
    address: SocketAddr,
    client: kube::Client,
    server: tokio::task::JoinHandle<()>,
    /// Ends the HTTP front.
    shutdown: CancellationToken,
    /// Ends everything behind it.
    cancel: CancellationToken,
    tracker: TaskTracker,
    children: Children,
    tunnels: Tunnels,
    audit: Option<AuditLog>,
    store: HubStore,
}

impl Hub {
    /// Starts a hub on the keys of `data` and the store that `arguments` mean, listening on `listen`. The store is closed
    /// where the rest fails.
    ///
    /// # Errors
    /// Where the store or the audit log cannot be opened, the port is in use, or the first objects cannot be written.
    pub(crate) async fn start(data: &DataDir, arguments: &HubArguments, listen: SocketAddr) -> Result<Self> {
        let store = HubStore::open(&arguments.storage, data).await?;
        let base = Base::new(store.store());
        match Self::start_on(&base, store.check_name(), data, arguments, listen).await {
            Ok(serving) => {
                store.rewrite(&base.tracker, base.cancel.clone());
                store.hand_out_backups(data, &base.tracker, base.cancel.clone());
                Ok(Self {
                    address: serving.address,
                    client: serving.client,
                    server: serving.server,
                    shutdown: serving.shutdown,
                    cancel: base.cancel,
                    tracker: base.tracker,
                    children: serving.children,
                    tunnels: serving.tunnels,
                    audit: serving.audit,
                    store,
                })
            }
            Err(error) => {
                base.end().await;
                store.close().await;
                Err(error)
            }
        }
    }

    async fn start_on(
        base: &Base,
        store_check: &'static str,
        data: &DataDir,
        arguments: &HubArguments,
        listen: SocketAddr,
    ) -> Result<Serving> {
        let audit = arguments.audit.start(&base.tracker)?;
        let children = Children::new(ProbeConfig::default());
        let shared = Shared::load(base, &children).await?;
        let authority = agents::authority(data, arguments.tunnels.agent_certificate_lifetime)?;
        let (hub, tokens) = base.hub(data, agents::agents(&shared, &authority)).await?;
        let fleets: Fleets = Arc::new(ArcSwap::from_pointee(BTreeMap::new()));
        let roots = shared.roots(hub, &fleets);
        let authenticators = authenticators(data, tokens)?.preceded_by(agents::authenticator(&shared, &authority));
        let api = ApiServer::builder(Arc::new(roots), Arc::new(authenticators))
            .checks(base.checks(store_check))
            .audit(audit.clone())
            .build();
        let server = Server::bind(listen, tls(data, listen)?, api.clone(), ServerOptions::default())
            .await
            .map_err(|error| explain_listening(&error))?;
        let address = server.local_address();

        let client = kube::Client::new(api.in_process(UserInfo::new(CONTROLLERS, [MASTERS])), "default");
        ensure_defaults(&client)
            .await
            .context("the objects every hub has cannot be created")?;
        let trust = HubTrust::default();
        trust.replace(data.authority().certificate_pem());
        agents::decide(base, &shared, authority, trust, client.clone());
        let tunnels = shared.tunnels.clone();
        base.run_controllers(Controllers {
            client: client.clone(),
            credentials: client.clone(),
            // Whoever writes Secrets of a standalone hub administers it, on a machine of their own.
            local: LocalCredentials::Allowed,
            shared,
            fleets,
            sync: Sync::default(),
            leases: Leases::sole(),
        });
        let shutdown = CancellationToken::new();
        Ok(Serving {
            address,
            client,
            server: base.tracker.spawn(server.run(shutdown.clone())),
            shutdown,
            children,
            tunnels,
            audit,
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of the hub root that may do everything.
    pub(crate) fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Ends requests in flight cleanly, then everything behind them, and closes the store.
    pub(crate) async fn stop(self) {
        self.tunnels.drain();
        self.shutdown.cancel();
        if let Err(error) = self.server.await {
            tracing::error!(%error, "the HTTP front did not end well");
        }
        self.cancel.cancel();
        self.children.close().await;
        self.tunnels.close().await;
        if let Some(log) = &self.audit {
            log.end();
        }
        self.tracker.close();
        self.tracker.wait().await;
        self.store.close().await;
    }
}

/// What of a hub serves.
struct Serving {
    address: SocketAddr,
    client: kube::Client,
    server: tokio::task::JoinHandle<()>,
    shutdown: CancellationToken,
    children: Children,
    tunnels: Tunnels,
    audit: Option<AuditLog>,
}

impl Base {
    /// The hub root of a standalone hub, and what issues and judges the tokens of its service accounts.
    async fn hub(&self, data: &DataDir, agents: Agents) -> Result<(Cluster, Arc<ServiceAccountTokens>)> {
        let accounts: Arc<OnceLock<Arc<StoreApi>>> = Arc::default();
        let tokens = Arc::new(service_account_tokens(data, &accounts)?);
        let hub = umbra_registry::hub::start(HubDependencies {
            store: Arc::clone(&self.store),
            tokens: Arc::clone(&tokens),
            agents,
            version: version(),
            tracker: self.tracker.clone(),
            cancelled: self.cancel.clone(),
        })
        .await
        .context("the hub's own API does not start")?;
        accounts.get_or_init(|| Arc::clone(&hub.api));
        Ok((hub, tokens))
    }
}

fn authenticators(data: &DataDir, tokens: Arc<ServiceAccountTokens>) -> Result<Authenticators> {
    let authority = ReloadableCaBundle::new(CaBundle::from_pem(data.authority().certificate_pem().as_bytes())?);
    Ok(Authenticators::new(vec![
        Arc::new(CertificateAuthenticator::new(authority)),
        Arc::new(BearerAuthenticator::new(vec![tokens])),
    ]))
}

fn tls(data: &DataDir, listen: SocketAddr) -> Result<rustls::ServerConfig> {
    let serving = data.serving_certificate(listen)?;
    let certificate =
        ReloadableServingCertificate::from_pem(serving.certificate_pem.as_bytes(), serving.key_pem.as_bytes())?;
    Ok(server_config(&certificate)?)
}

/// The error of listening, with the flag that is about it.
fn explain_listening(error: &ServerError) -> anyhow::Error {
    match error {
        ServerError::AddressInUse { .. } => anyhow::anyhow!("{error} with --listen"),
        other @ ServerError::Bind { .. } => anyhow::anyhow!("{other} (--listen)"),
    }
}

fn service_account_tokens(data: &DataDir, hub: &Arc<OnceLock<Arc<StoreApi>>>) -> Result<ServiceAccountTokens> {
    let hub = Arc::clone(hub);
    let resource = GroupVersionResource::new("", "v1", "serviceaccounts");
    let uid = move |namespace: &str, name: &str| {
        let accounts = hub.get()?.store(&resource)?;
        let key = accounts.keys().key(Some(namespace), name);
        let account = accounts.cache().snapshot().get(&key).cloned()?;
        let account: serde_json::Value = serde_json::from_slice(&account.bytes).ok()?;
        let metadata = &account["metadata"];
        metadata["deletionTimestamp"]
            .is_null()
            .then(|| metadata["uid"].as_str().map(str::to_owned))
            .flatten()
    };
    Ok(ServiceAccountTokens::new(
        ISSUER,
        vec![ISSUER.to_owned()],
        data.token_signer()?,
        Arc::new(uid),
    ))
}
