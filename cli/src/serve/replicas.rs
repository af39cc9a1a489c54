//! Replicas that use each other's tunnels.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use umbra_auth::tls::ReloadableServingCertificate;
use umbra_child::tunnel::Tunnels;
use umbra_controllers::tunnel::{REPLICA_NAME, ReplicaCertificates, ReplicaPeers};
use umbra_registry::hub::agents::AgentAuthority;

use crate::hub::base::Base;

/// Shows one certificate to other replicas, who ask for it by a name of their own, and what was shown before to all others.
#[derive(Debug)]
struct ByName {
    replica: ReloadableServingCertificate,
    others: Arc<dyn ResolvesServerCert>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match hello.server_name() {
            Some(REPLICA_NAME) => self.replica.resolve(hello),
            _ => self.others.resolve(hello),
        }
    }
}

/// Lets this replica, which others reach at `address`, use the tunnels of the others, and them its own, until the hub ends.
///
/// # Errors
/// Where no certificate can be issued.
pub(super) fn join(
    base: &Base,
    tunnels: &Tunnels,
    authority: &AgentAuthority,
    address: SocketAddr,
    tls: &mut ServerConfig,
) -> Result<()> {
    let certificates = ReplicaCertificates::issue(authority)?;
    let server = &certificates.server;
    let shown = ReloadableServingCertificate::from_pem(server.certificate_pem.as_bytes(), server.key_pem.as_bytes())?;
    tls.cert_resolver = Arc::new(ByName {
        replica: shown.clone(),
        others: Arc::clone(&tls.cert_resolver),
    });
    let peers = ReplicaPeers::new(
        Arc::clone(&base.store),
        tunnels.clone(),
        authority.clone(),
        address,
        &certificates,
    );
    tunnels.set_peers(Arc::clone(&peers) as _);
    base.tracker.spawn(peers.run(base.cancel.clone(), move |server| {
        let replaced = shown.replace(server.certificate_pem.as_bytes(), server.key_pem.as_bytes());
        if let Err(error) = replaced {
            tracing::warn!(%error, "the certificate for other replicas is not renewed");
        }
    }));
    Ok(())
}
