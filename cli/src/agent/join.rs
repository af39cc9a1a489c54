//! How an agent gets a certificate: the first with a token, the others with the one it has.

use std::path::PathBuf;
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
    /// Without authorities and credentials.
    hub: ChildConfig,
    hub_ca_file: Option<PathBuf>,
    token: Option<PathBuf>,
    health: Health,
}

impl Joiner {
    /// What the flags say.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub(super) fn new(arguments: &AgentArguments, own: &OwnCluster, health: Health) -> Result<Self> {
        let mut hub = ChildConfig::new("hub", arguments.hub.clone());
        hub.tls_server_name.clone_from(&arguments.hub_tls_server_name);
        hub.proxy_url.clone_from(&arguments.proxy_url);
        let joiner = Self {
            cluster: arguments.cluster.clone(),
            own: own.clone(),
            state: State::new(arguments, own.child())?,
            hub,
            hub_ca_file: arguments.hub_ca_file.clone(),
            token: arguments.bootstrap_token_file.clone(),
            health,
        };
        // Says now what could not be used later.
        let trusted = joiner.trusted("")?;
        joiner
            .hub_as(CredentialsConfig::default(), trusted)
            .context("--hub, --hub-ca-file, --hub-tls-server-name or --proxy-url cannot be used")?;
        Ok(joiner)
    }

    /// What the hub is verified by now: the file, as it is now, and beside it what the hub has `told`. Without the file, the
    /// authorities of this machine alone: then the hub's certificate is of one that they know.
    fn trusted(&self, told: &str) -> Result<Option<Vec<u8>>> {
        let Some(path) = &self.hub_ca_file else {
            return Ok(None);
        };
        let mut pem =
            std::fs::read(path).with_context(|| format!("--hub-ca-file {} cannot be read", path.display()))?;
        if !told.is_empty() {
            pem.push(b'\n');
            pem.extend_from_slice(told.as_bytes());
        }
        Ok(Some(pem))
    }

    fn hub_as(&self, credentials: CredentialsConfig, trusted: Option<Vec<u8>>) -> Result<Child> {
        Ok(Child::new(ChildConfig {
            credentials,
            certificate_authority: trusted,
            ..self.hub.clone()
        })?)
    }

    fn identity(&self, kept: Kept) -> Result<Identity> {
        let credentials = CredentialsConfig {
            certificate: Some(ClientCertificate {
                certificate: kept.certificate.clone(),
                key: Secret::new(&*kept.key),
            }),
            authorization: Authorization::None,
        };
        let trusted = self.trusted(&kept.hub_certificate_authority)?;
        let hub = self.hub_as(credentials, trusted.clone())?;
        Identity::new(kept, hub, trusted)
    }

    /// `present`, which verifies the hub by the file as it is now. Where that cannot be used, it stays as it is.
    pub(super) async fn with_present_authorities(&self, present: Identity) -> Identity {
        let other = match self.trusted(&present.kept.hub_certificate_authority) {
            Ok(now) if now.as_deref() == present.trusted() => return present,
            Ok(_) => self.identity(present.kept.clone()),
            Err(error) => Err(error),
        };
        match other {
            Ok(other) => {
                eprintln!("--hub-ca-file has changed; the hub is verified by what it says now");
                present.hub().close().await;
                other
            }
            Err(error) => {
                eprintln!("the hub is verified as before: {error:#}");
                present
            }
        }
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
        let told = kept.as_ref().map(Kept::forgotten).unwrap_or_default();
        // Where a certificate was there and has expired, its request counts no more either.
        let wanted = match kept {
            Some(kept) if kept.certificate.is_empty() && !kept.name.is_empty() => kept,
            _ => {
                let new = Kept {
                    hub_certificate_authority: told.hub_certificate_authority.clone(),
                    ..Kept::new(&self.cluster)?
                };
                if self.state.save(&new).await? == Saved::Overtaken {
                    bail!("another agent has begun to join at the same time");
                }
                new
            }
        };
        let credentials = CredentialsConfig {
            certificate: None,
            authorization: Authorization::TokenFile(token),
        };
        let hub = self.hub_as(credentials, self.trusted(&told.hub_certificate_authority)?)?;
        let obtained = self.ask(&hub, &wanted).await;
        self.health.unapproved(false);
        hub.close().await;
        match obtained {
            Ok(kept) => self.keep(kept).await,
            Err(error) => {
                if error.downcast_ref::<Denied>().is_some() {
                    // The next one is another request.
                    self.state.save(&told).await?;
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
            Err(error) => {
                return Err(error
                    .downcast()
                    .map_or_else(|own| own, |error| Credential::Token.explained(error)));
            }
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
            Err(error) => return Err(Credential::Token.explained(error)),
        }
        issued(hub, Credential::Token, wanted, None, &self.health).await
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
    ///
    /// # Cancel safety
    /// Where it is dropped before it has ended, what the hub has issued may be lost; the present certificate counts as before, and
    /// renewing begins again.
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
            .map_err(|error| Credential::Certificate.explained(error))?;
        let kept = issued(
            present.hub(),
            Credential::Certificate,
            &wanted,
            Some(RENEWAL),
            &self.health,
        )
        .await?;
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
            self.state.save(&present.kept.forgotten()).await?;
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
async fn issued(
    hub: &Child,
    credential: Credential,
    wanted: &Kept,
    patience: Option<Duration>,
    health: &Health,
) -> Result<Kept> {
    let path = format!("{PATH}/{}", wanted.name);
    let hash = sha256_hex(wanted.request.as_bytes());
    let began = Instant::now();
    let mut told = false;
    loop {
        health.turn();
        let request: ClusterJoinRequest = hub.get_json(&path).await.map_err(|error| credential.explained(error))?;
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
                hub_certificate_authority: status.hub_certificate_authority,
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

/// With what the agent asks.
#[derive(Debug, Clone, Copy)]
enum Credential {
    Token,
    Certificate,
}

impl Credential {
    fn explained(self, error: ChildError) -> anyhow::Error {
        match (error, self) {
            (ChildError::CredentialsRefused { .. }, Self::Token) => {
                Refused("the hub does not accept the token: it may have expired or been revoked".to_owned()).into()
            }
            (ChildError::CredentialsRefused { .. }, Self::Certificate) => {
                let message = "the hub does not accept the agent's certificate: it may have expired, or its authority been replaced";
                Refused(message.to_owned()).into()
            }
            (error @ ChildError::Status { code, .. }, _) if code.as_u16() == 403 => Refused(error.to_string()).into(),
            // Its message has its causes in it.
            (error, _) => anyhow!("{error}"),
        }
    }
}
