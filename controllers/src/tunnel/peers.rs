//! Says which tunnels end here, and reaches those that end elsewhere.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::header::{CONNECTION, UPGRADE};
use http::{Request, StatusCode};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use umbra_auth::certificates::{CertificateError, IssuedCertificate};
use umbra_child::tunnel::{Peers, STREAM_PROTOCOL, Tunnels};
use umbra_child::{Authorization, Child, ChildConfig, ClientCertificate, CredentialsConfig, Io, Secret, empty};
use umbra_registry::copies::retry;
use umbra_registry::hub::agents::AgentAuthority;
use umbra_registry::mirror::Mirror;
use umbra_storage::{Precondition, Store};

use super::record::{RECORDS, Record, Records, Seen};
use super::{REPLICA_NAME, Timing};

/// How long a replica may take to give a stream: a handshake and a round trip inside one cluster.
const OPEN: Duration = Duration::from_secs(4);
/// How long certificates of replicas last, and how often others are issued.
const LIFETIME: Duration = Duration::from_secs(48 * 60 * 60);
const RENEWAL: Duration = Duration::from_secs(16 * 60 * 60);

/// What this replica shows to others, and proves itself to them with.
#[derive(Debug)]
pub struct ReplicaCertificates {
    /// Shown to whoever asks for [`REPLICA_NAME`].
    pub server: IssuedCertificate,
    client: IssuedCertificate,
}

impl ReplicaCertificates {
    /// New certificates of the agents' authority.
    ///
    /// # Errors
    /// Where they cannot be issued.
    pub fn issue(authority: &AgentAuthority) -> Result<Self, CertificateError> {
        Ok(Self {
            server: authority.issue_replica_server(REPLICA_NAME, LIFETIME)?,
            client: authority.issue_replica_client(LIFETIME)?,
        })
    }
}

/// The other replicas, as this one knows them.
pub struct ReplicaPeers {
    store: Arc<dyn Store>,
    tunnels: Tunnels,
    authority: AgentAuthority,
    timing: Timing,
    identity: String,
    address: String,
    addresses: ArcSwap<BTreeMap<Arc<str>, Vec<String>>>,
    client: ArcSwap<ClientCertificate>,
    /// By address.
    replicas: Mutex<BTreeMap<String, Child>>,
}

impl std::fmt::Debug for ReplicaPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaPeers")
            .field("identity", &self.identity)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn client(certificates: &ReplicaCertificates) -> ClientCertificate {
    ClientCertificate {
        certificate: certificates.client.certificate_pem.clone(),
        key: Secret::new(&*certificates.client.key_pem),
    }
}

impl ReplicaPeers {
    /// The peers of the replica whose own tunnels are `tunnels` and which others reach at `address`. [`ReplicaPeers::run`]
    /// makes it take part.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        tunnels: Tunnels,
        authority: AgentAuthority,
        address: SocketAddr,
        certificates: &ReplicaCertificates,
    ) -> Arc<Self> {
        // Random, because two processes must not write one record.
        let random = RandomState::new();
        let identity = format!("{:016x}{:016x}", random.hash_one(0_u8), random.hash_one(1_u8));
        Arc::new(Self {
            store,
            tunnels,
            authority,
            timing: Timing::default(),
            identity,
            address: address.to_string(),
            addresses: ArcSwap::default(),
            client: ArcSwap::from_pointee(client(certificates)),
            replicas: Mutex::default(),
        })
    }

    /// Takes part until `cancel`, then says that nothing ends here any more. `show` is given every new certificate for the
    /// name [`REPLICA_NAME`].
    pub async fn run(self: Arc<Self>, cancel: CancellationToken, show: impl Fn(&IssuedCertificate) + Send + Sync) {
        let mut failures = 0;
        let taking_part = async {
            loop {
                match Mirror::<Records>::load(Arc::clone(&self.store), RECORDS).await {
                    Ok(records) => {
                        tokio::join!(
                            Arc::clone(&records).follow(cancel.clone()),
                            self.publish(),
                            self.observe(&records),
                            self.renew(&show)
                        );
                    }
                    Err(error) => {
                        failures += 1;
                        tracing::warn!(%error, "the tunnels of other replicas are not known");
                        tokio::time::sleep(retry::pause(failures)).await;
                    }
                }
            }
        };
        cancel.run_until_cancelled(taking_part).await;
        let key = self.key(&self.identity);
        let deleted = timeout(self.timing.period, self.store.delete(&key, Precondition::None)).await;
        if !matches!(deleted, Ok(Ok(_))) {
            tracing::info!("the other replicas notice in a while that no tunnel ends here any more");
        }
    }

    fn key(&self, identity: &str) -> String {
        format!("{RECORDS}{identity}")
    }

    async fn publish(&self) {
        let key = self.key(&self.identity);
        let mut changes = self.tunnels.subscribe();
        loop {
            let record = Record {
                address: self.address.clone(),
                clusters: changes.borrow_and_update().clone(),
            };
            let value = serde_json::to_vec(&record).expect("a record has only string keys");
            let written = self.store.put(&key, value.into(), Precondition::None);
            if !matches!(timeout(self.timing.period, written).await, Ok(Ok(_))) {
                tracing::debug!("the other replicas were not told which tunnels end here");
            }
            let period = self.timing.period.mul_f64(0.8 + 0.2 * random());
            let _ = timeout(period, changes.changed()).await;
        }
    }

    async fn observe(&self, records: &Mirror<Records>) {
        let mut changes = records.subscribe();
        let mut seen = Seen::default();
        loop {
            changes.mark_unchanged();
            let (addresses, gone) = seen.look(&records.state(), &self.identity, Instant::now(), self.timing);
            self.replicas
                .lock()
                .retain(|address, _| addresses.values().any(|all| all.contains(address)));
            self.addresses.store(Arc::new(addresses));
            for (identity, revision) in gone {
                // Somebody else may have been faster.
                let _ = self
                    .store
                    .delete(&self.key(&identity), Precondition::Revision(revision))
                    .await;
            }
            let _ = timeout(self.timing.period, changes.changed()).await;
        }
    }

    /// Issues other certificates before these end, and whenever the authority is another: whoever was reached by what was
    /// believed before is asked anew.
    async fn renew(&self, show: &(impl Fn(&IssuedCertificate) + Send + Sync)) {
        let mut changes = self.authority.subscribe();
        // What came between the first certificates and now.
        changes.mark_changed();
        loop {
            let due = timeout(RENEWAL.mul_f64(0.9 + 0.1 * random()), changes.changed()).await;
            if matches!(due, Ok(Err(_))) {
                // Nobody is left who could change it.
                std::future::pending::<()>().await;
            }
            match ReplicaCertificates::issue(&self.authority) {
                Ok(certificates) => {
                    show(&certificates.server);
                    self.client.store(Arc::new(client(&certificates)));
                }
                Err(error) => tracing::warn!(%error, "the certificates between replicas are not renewed"),
            }
            self.replicas.lock().clear();
        }
    }

    fn replica(&self, address: &str) -> io::Result<Child> {
        let mut replicas = self.replicas.lock();
        if let Some(replica) = replicas.get(address) {
            return Ok(replica.clone());
        }
        let server = format!("https://{address}").parse().map_err(io::Error::other)?;
        let mut config = ChildConfig::new("another replica", server);
        config.certificate_authority = Some(self.authority.trusted_pem());
        config.tls_server_name = Some(REPLICA_NAME.to_owned());
        config.credentials = CredentialsConfig {
            certificate: Some(ClientCertificate::clone(&self.client.load())),
            authorization: Authorization::None,
        };
        let replica = Child::new(config).map_err(io::Error::other)?;
        replicas.insert(address.to_owned(), replica.clone());
        Ok(replica)
    }

    async fn open_at(&self, address: &str, cluster: &str) -> io::Result<Box<dyn Io>> {
        let path = format!("/apis/umbra.dev/v1alpha1/managedclusters/{cluster}/tunnel");
        let request = Request::get(path)
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, STREAM_PROTOCOL)
            .body(empty())
            .map_err(io::Error::other)?;
        let mut response = self
            .replica(address)?
            .upgrade(request)
            .await
            .map_err(io::Error::other)?;
        let code = response.status();
        if code != StatusCode::SWITCHING_PROTOCOLS {
            return Err(io::Error::other(format!("it answered {code}")));
        }
        let upgraded = hyper::upgrade::on(&mut response).await.map_err(io::Error::other)?;
        Ok(Box::new(hyper_util::rt::TokioIo::new(upgraded)))
    }
}

#[async_trait]
impl Peers for ReplicaPeers {
    async fn open(&self, cluster: &str) -> io::Result<Option<Box<dyn Io>>> {
        let addresses = self.addresses.load().get(cluster).cloned().unwrap_or_default();
        let mut failure = None;
        for address in addresses {
            let opened = timeout(OPEN, self.open_at(&address, cluster)).await;
            match opened.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut))) {
                Ok(stream) => return Ok(Some(stream)),
                Err(error) => {
                    let message = format!("the replica at {address} gives no stream of its tunnel: {error}");
                    failure = Some(io::Error::new(error.kind(), message));
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }
}

/// Between 0 and 1. The hasher's keys are random, and each call has new ones.
fn random() -> f64 {
    (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64
}
