//! `umbra serve`: the hub behind a kube-apiserver, as the API server of an APIService.
//!
//! It has the same store, copies and controllers as a standalone hub ([`crate::hub::base`]). What differs: the hub cluster
//! says who clients are and what they may do, holds the credentials of children, and has everything that is not Umbra's own.

mod agents;
mod authority;
mod certificate;
mod clients;
mod flags;
mod keys;
mod limits;
mod plan;
mod replicas;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use umbra_apimachinery::user::{MASTERS, UserInfo};
use umbra_apiserver::audit::AuditLog;
use umbra_apiserver::server::Server;
use umbra_apiserver::{ApiServer, Delegated};
use umbra_auth::delegation::{AccessReviews, DelegatedAuthorizer, HubReviewer, TokenReviews};
use umbra_auth::tls::server_config_with;
use umbra_auth::trust::{ClientTrust, TrustKeeper};
use umbra_child::tunnel::Tunnels;
use umbra_child::{Children, ProbeConfig};
use umbra_controllers::cluster::ensure_roots;
use umbra_controllers::lease::{Leases, Membership, Timing};
use umbra_registry::hub::agents::HubTrust;
use umbra_registry::hub::aggregated::{self, AggregatedDependencies};
use umbra_registry::hub::roots::Fleets;

use crate::hub::base::{Base, CONTROLLERS, Controllers, Shared, version};
use crate::hub::{self, HubStore};
pub(crate) use flags::ServeArguments;
use plan::Plan;

/// Runs until SIGTERM or Ctrl-C.
///
/// # Errors
/// Whatever keeps it from serving.
pub(crate) async fn run(arguments: ServeArguments) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be received")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be received")?;
    let running = tokio::select! {
        running = start(arguments) => running?,
        _ = interrupt.recv() => return Ok(()),
        _ = terminate.recv() => return Ok(()),
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    eprintln!("stopping; another signal stops at once");
    tokio::select! {
        () = running.stop() => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn start(arguments: ServeArguments) -> Result<Running> {
    let plan = Plan::new(arguments).await?;
    if plan.storage.needs_shared_keys() {
        keys::fetch(&plan.clients.hub, &plan.data).await?;
    }
    let store = HubStore::open(&plan.storage, &plan.data).await?;
    let base = Base::new(store.store());
    let (listen, data) = (plan.listen, Arc::clone(&plan.data));
    match serve(&base, &store, plan).await {
        Ok(serving) => {
            store.rewrite(&base.tracker, base.cancel.clone());
            store.hand_out_backups(&data, &base.tracker, base.cancel.clone());
            eprintln!("umbra serves on {listen}");
            Ok(Running { base, store, serving })
        }
        Err(error) => {
            base.end().await;
            store.close().await;
            Err(error)
        }
    }
}

/// A server that serves.
struct Running {
    base: Base,
    store: HubStore,
    serving: Serving,
}

/// What of it serves.
struct Serving {
    server: tokio::task::JoinHandle<()>,
    shutdown: CancellationToken,
    children: Children,
    tunnels: Tunnels,
    audit: Option<AuditLog>,
}

impl Running {
    /// Ends requests in flight cleanly, then everything behind them, and closes the store.
    async fn stop(self) {
        self.serving.tunnels.drain();
        self.serving.shutdown.cancel();
        if let Err(error) = self.serving.server.await {
            tracing::error!(%error, "the HTTP front did not end well");
        }
        self.base.cancel.cancel();
        self.serving.children.close().await;
        self.serving.tunnels.close().await;
        if let Some(log) = &self.serving.audit {
            log.end();
        }
        self.base.end().await;
        self.store.close().await;
    }
}

async fn serve(base: &Base, store: &HubStore, plan: Plan) -> Result<Serving> {
    let audit = plan.audit.start(&base.tracker)?;
    let trust = trust(base, &plan).await?;
    let reviewer = |client: &kube::Client| Arc::new(HubReviewer::new(client.clone()));
    let tokens = TokenReviews::new(reviewer(&plan.clients.authentication), plan.tokens);
    let reviews = AccessReviews::new(reviewer(&plan.clients.authorization), &plan.access);
    let authorizer = Arc::new(DelegatedAuthorizer::new(plan.always_allow, reviews));

    let children = Children::new(ProbeConfig::default());
    let shared = Shared::load(base, &children).await?;
    let authority = agents::authority(
        &plan.clients.hub,
        plan.tunnels.agent_certificate_lifetime,
        &base.tracker,
        base.cancel.clone(),
    )
    .await?;
    let hub = aggregated::start(AggregatedDependencies {
        store: Arc::clone(&base.store),
        authorizer,
        agents: hub::agents::agents(&shared, &authority),
        version: version(),
        tracker: base.tracker.clone(),
        cancelled: base.cancel.clone(),
    });
    let hub = hub.await.context("the hub's own API does not start")?;
    let fleets: Fleets = Arc::new(ArcSwap::from_pointee(BTreeMap::new()));
    let roots = shared.roots(hub, &fleets);
    let delegated = Delegated::new(trust, Some(Arc::new(tokens)));
    let delegated = delegated.preceded_by(hub::agents::authenticator(&shared, &authority));
    let api = ApiServer::builder(Arc::new(roots), Arc::new(delegated))
        .checks(base.checks(store.check_name()))
        .in_flight(plan.in_flight.0, plan.in_flight.1)
        .limits(plan.limits)
        .audit(audit.clone())
        .build();
    let agents_trust = HubTrust::default();
    let certificate = certificate::serve(
        plan.certificate,
        &plan.clients.hub,
        plan.listen.ip(),
        &agents_trust,
        &base.tracker,
        base.cancel.clone(),
    );
    let tls = server_config_with(&certificate.await?, &plan.tls)?;
    let mut tls = tls;
    if let Some(address) = plan.advertised.filter(|_| store.is_shared()) {
        replicas::join(base, &shared.tunnels, &authority, address, &mut tls)?;
    }
    let server = Server::bind(plan.listen, tls, api.clone(), plan.server).await;
    let server = server.context("see --bind-address and --secure-port")?;

    let client = kube::Client::new(api.in_process(UserInfo::new(CONTROLLERS, [MASTERS])), "default");
    ensure_roots(&client)
        .await
        .context("the objects every hub has cannot be created")?;
    let leases = if plan.serve_only {
        Leases::none()
    } else {
        leases(base, store, plan.replica_name)?
    };
    hub::agents::decide(base, &shared, authority, agents_trust, client.clone());
    let tunnels = shared.tunnels.clone();
    base.run_controllers(Controllers {
        client,
        credentials: plan.clients.hub,
        local: plan.local_credentials,
        shared,
        fleets,
        sync: plan.sync,
        leases,
    });
    let shutdown = CancellationToken::new();
    Ok(Serving {
        server: base.tracker.spawn(server.run(shutdown.clone())),
        shutdown,
        children,
        tunnels,
        audit,
    })
}

/// Whose certificates and headers count, from then on.
async fn trust(base: &Base, plan: &Plan) -> Result<ClientTrust> {
    let keeper = TrustKeeper::new(plan.trust.clone(), Some(plan.clients.authentication.clone()));
    if let Err(errors) = keeper.load().await {
        let errors = errors
            .into_iter()
            .map(|error| format!("{:#}", anyhow::Error::new(error)));
        let errors = errors.collect::<Vec<_>>().join("\n- ");
        if !plan.tolerate_lookup_failure {
            bail!(
                "it is not known whose client certificates count:\n- {errors}\n--authentication-tolerate-lookup-failure \
                 starts all the same"
            );
        }
        tracing::warn!(errors, "nobody is known by certificate until this is mended");
    }
    let trust = keeper.trust();
    base.tracker.spawn(keeper.follow(base.cancel.clone()));
    Ok(trust)
}

/// A store that is shared may have other replicas on it.
fn leases(base: &Base, store: &HubStore, name: Option<String>) -> Result<Leases> {
    if !store.is_shared() {
        return Ok(Leases::sole());
    }
    // In a pod, its name.
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.unwrap_or_else(host);
    let membership = Membership::new(Arc::clone(&base.store), name.trim(), Timing::default())?;
    let leases = membership.leases();
    base.tracker.spawn(membership.run(base.cancel.clone()));
    Ok(leases)
}
