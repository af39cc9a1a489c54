//! How an agent gets a certificate: the first with a token, the others with the one it has.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use http::Method;
use serde_json::json;
use tokio::time::Instant;
use umbra_api::join_request::{ClusterJoinRequest, condition};
use umbra_auth::tokens::sha256_hex;
use umbra_child::version::check_version;
use umbra_child::{Authorization, Child, ChildConfig, ChildError, ClientCertificate, CredentialsConfig, Secret};

use super::AgentArguments;
use super::health::Health;
use super::identity::{Identity, Kept};
use super::own::OwnCluster;
use super::state::{Saved, State};
use crate::join::clock;

const PATH: &str = "/apis/umbra.dev/v1alpha1/clusterjoinrequests";
/// How often the hub is asked whether the certificate is there: at first, and when a person has to approve it.
const SOON: Duration = Duration::from_millis(250);
const LATER: Duration = Duration::from_secs(5);
/// For how long it is asked often.
const EAGER: Duration = Duration::from_secs(5);
/// How long the hub may take to renew; nobody has to approve it.
const RENEWAL: Duration = Duration::from_secs(30);

/// Gets certificates.
pub(super) struct Joiner {
    cluster: String,
    own: OwnCluster,
    state: State,
    hub: ChildConfig,
    token: Option<std::path::PathBuf>,
    health: Health,
}

impl Joiner {
    /// What the flags say.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub(super) fn new(arguments: &AgentArguments, own: &OwnCluster, health: Health) -> Result<Self> {
        let mut hub = ChildConfig::new("hub", arguments.hub.clone());
        if let Some(path) = &arguments.hub_ca_file {
            let pem =
                std::fs::read(path).with_context(|| format!("--hub-ca-file {} cannot be read", path.display()))?;
            hub.certificate_authority = Some(pem);
        }
        hub.tls_server_name.clone_from(&arguments.hub_tls_server_name);
        hub.proxy_url.clone_from(&arguments.proxy_url);
        // Says now what could not be used later.
        Child::new(hub.clone()).context("--hub, --hub-ca-file, --hub-tls-server-name or --proxy-url cannot be used")?;
        Ok(Self {
            cluster: arguments.cluster.clone(),
            own: own.clone(),
            state: State::new(arguments, own.child())?,
            hub,
            token: arguments.bootstrap_token_file.clone(),
            health,
        })
    }

    fn hub_as(&self, credentials: CredentialsConfig) -> Result<Child> {
        Ok(Child::new(ChildConfig {
            credentials,
            ..self.hub.clone()
        })?)
    }

    fn identity(&self, kept: Kept) -> Result<Identity> {
        let hub = self.hub_as(CredentialsConfig {
            certificate: Some(ClientCertificate {
                certificate: kept.certificate.clone(),
                key: Secret::new(&*kept.key),
            }),
            authorization: Authorization::None,
        })?;
        Identity::new(kept, hub)
    }

    /// The identity that is kept, or else a new one: waits until it has been approved.
    ///
    /// # Errors
    /// Where the hub or the own cluster cannot be reached, or the request was denied. May be called again.
    pub(super) async fn obtain(&mut self) -> Result<Identity> {
        let kept = self.state.load().await?;
        if let Some(kept) = kept.clone().filter(Kept::is_good) {
            return self.identity(kept);
        }
        let Some(token) = self.token.clone() else {
            bail!(
                "there is no certificate that is good, and no --bootstrap-token-file to ask for one; run `umbra join {} --tunnel` \
                 and give the agent the new token",
                self.cluster
            );
        };
        // Where a certificate was there and has expired, its request counts no more either.
        let wanted = match kept {
            Some(kept) if kept.certificate.is_empty() && !kept.name.is_empty() => kept,
            _ => {
                let new = Kept::new(&self.cluster)?;
                if self.state.save(&new).await? == Saved::Overtaken {
                    bail!("another agent has begun to join at the same time");
                }
                new
            }
        };
        let hub = self.hub_as(CredentialsConfig {
            certificate: None,
            authorization: Authorization::TokenFile(token),
        })?;
        let obtained = self.ask(&hub, &wanted).await;
        self.health.unapproved(false);
        hub.close().await;
        match obtained {
            Ok(kept) => self.keep(kept).await,
            Err(error) => {
                if error.downcast_ref::<Denied>().is_some() {
                    // The next one is another request.
                    self.state.save(&Kept::default()).await?;
                }
                Err(error)
            }
        }
    }

    async fn ask(&self, hub: &Child, wanted: &Kept) -> Result<Kept> {
        let facts = self.own.facts().await.context("the agent's own cluster")?;
        // The hub would refuse it later, after somebody has approved it.
        check_version(&facts.version)?;
        self.health.turn();
        match clock::check(hub, "the hub").await {
            Ok(None) => {}
            Ok(Some(warning)) => eprintln!("warning: {warning}"),
            Err(error) => return Err(error.downcast().map_or_else(|own| own, explained)),
        }
        let request = json!({
            "apiVersion": umbra_api::API_VERSION,
            "kind": "ClusterJoinRequest",
            "metadata": {"name": wanted.name},
            "spec": {"clusterName": self.cluster, "clusterUID": facts.uid, "version": facts.version,
                "request": wanted.request},
        });
        match hub
            .request_json(Method::POST, PATH, "application/json", request.to_string())
            .await
        {
            Ok(_) => eprintln!("asked the hub to join: ClusterJoinRequest {}", wanted.name),
            Err(ChildError::Status { code, .. }) if code.as_u16() == 409 => {}
            Err(error) => return Err(explained(error)),
        }
        issued(hub, wanted, None, &self.health).await
    }

    /// Keeps what was issued, or takes what another agent was faster to keep.
    async fn keep(&mut self, kept: Kept) -> Result<Identity> {
        match self.state.save(&kept).await? {
            Saved::Yes => self.identity(kept),
            Saved::Overtaken => {
                let other = self.state.load().await?.filter(Kept::is_good);
                self.identity(other.unwrap_or(kept))
            }
        }
    }

    /// A certificate for another key, by the present one; or that which another agent of the cluster has got meanwhile.
    ///
    /// # Errors
    /// Where the hub cannot be reached or does not issue it in time.
    pub(super) async fn renew(&mut self, present: &Identity) -> Result<Identity> {
        if let Some(kept) = self.state.load().await?
            && kept.is_good()
            && kept != present.kept
        {
            return self.identity(kept);
        }
        let wanted = present.kept.with_new_key(&self.cluster)?;
        let path = format!("{PATH}/{}", wanted.name);
        let patch = json!({"spec": {"request": wanted.request}}).to_string();
        present
            .hub()
            .request_json(Method::PATCH, &path, "application/merge-patch+json", patch)
            .await
            .map_err(explained)?;
        let kept = issued(present.hub(), &wanted, Some(RENEWAL), &self.health).await?;
        self.keep(kept).await
    }

    /// Another identity because the hub keeps refusing `present`: that which another agent of the cluster has got, or one that is
    /// asked for anew. Where the hub refuses that too, `present` stays what is kept: nothing better is to be had.
    ///
    /// # Errors
    /// Where there is none, now.
    pub(super) async fn rejoin(&mut self, present: &Identity) -> Result<Identity> {
        if self.state.load().await?.is_none_or(|kept| kept == present.kept) {
            if self.token.is_none() {
                bail!("there is no --bootstrap-token-file to ask for one");
            }
            self.state.save(&Kept::default()).await?;
        }
        let obtained = self.obtain().await;
        let refused = obtained.as_ref().is_err_and(is_refused);
        if refused && !self.state.load().await?.is_some_and(|kept| kept.is_good()) {
            self.state.save(&present.kept).await?;
        }
        obtained
    }
}

/// Whether trying the same again would be of no use.
fn is_refused(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Denied>().is_some() || error.downcast_ref::<Refused>().is_some()
}

/// The hub does not let the agent ask.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// The hub has said no.
#[derive(Debug, thiserror::Error)]
#[error("the hub has denied ClusterJoinRequest {name}: {message}")]
struct Denied {
    name: String,
    message: String,
}

/// Waits until the certificate for `wanted` is there.
async fn issued(hub: &Child, wanted: &Kept, patience: Option<Duration>, health: &Health) -> Result<Kept> {
    let path = format!("{PATH}/{}", wanted.name);
    let hash = sha256_hex(wanted.request.as_bytes());
    let began = Instant::now();
    let mut told = false;
    loop {
        health.turn();
        let request: ClusterJoinRequest = hub.get_json(&path).await.map_err(explained)?;
        let status = request.status.clone().unwrap_or_default();
        if request.has(condition::DENIED) {
            let denied = status.conditions.into_iter().find(|one| one.type_ == condition::DENIED);
            return Err(Denied {
                name: wanted.name.clone(),
                message: denied.map_or(String::new(), |one| one.message),
            }
            .into());
        }
        if status.request_hash == hash && !status.certificate.is_empty() {
            return Ok(Kept {
                certificate: status.certificate,
                ..wanted.clone()
            });
        }
        if patience.is_some_and(|patience| began.elapsed() > patience) {
            bail!("the hub has not issued the certificate in time");
        }
        let waiting = began.elapsed() > EAGER;
        if waiting && !told {
            eprintln!("waiting until somebody approves it: umbra approve {}", wanted.name);
            told = true;
            health.unapproved(true);
        }
        tokio::time::sleep(if waiting { LATER } else { SOON }).await;
    }
}

fn explained(error: ChildError) -> anyhow::Error {
    match error {
        ChildError::CredentialsRefused { .. } => {
            Refused("the hub does not accept the token: it may have expired or been revoked".to_owned()).into()
        }
        ChildError::Status { code, .. } if code.as_u16() == 403 => Refused(error.to_string()).into(),
        // Its message has its causes in it.
        error => anyhow!("{error}"),
    }
}
