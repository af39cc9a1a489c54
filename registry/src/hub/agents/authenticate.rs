//! Knows machines by certificates of the agents' authority, and by bootstrap tokens. Nothing else makes a
//! [`MachineCredential`].

use std::sync::Arc;

use rustls_pki_types::UnixTime;
use umbra_api::join_request::{AGENTS, BOOTSTRAP_TOKEN_PREFIX, BOOTSTRAPPERS, REPLICAS, bootstrap_user};
use umbra_apimachinery::user::{MachineCredential, UserInfo};
use umbra_auth::authenticate::{AuthenticationError, Credentials, RequestAuthenticator};
use umbra_auth::certificates::validity;
use umbra_auth::peer::user_of;
use umbra_auth::tls::ReloadableCaBundle;
use umbra_auth::tokens::{BootstrapToken, TokenError, bearer_token};

use super::identity::cluster_fault;
use crate::directory::Directory;
use crate::mirror::Mirror;

/// Knows agents, replicas and bootstrappers. What is none of theirs is for others to judge.
#[derive(Debug)]
pub struct AgentAuthenticator {
    bundle: ReloadableCaBundle,
    directory: Arc<Mirror<Directory>>,
}

impl AgentAuthenticator {
    /// Believes certificates of `bundle`, and tokens whose hashes are in the ManagedClusters of `directory`.
    #[must_use]
    pub fn new(bundle: ReloadableCaBundle, directory: Arc<Mirror<Directory>>) -> Self {
        Self { bundle, directory }
    }

    fn by_certificate(&self, credentials: &Credentials<'_>, now: UnixTime) -> Option<UserInfo> {
        let own = credentials.peer_certificates.first()?;
        self.bundle
            .current()
            .verify_client(credentials.peer_certificates, now)
            .ok()?;
        let mut user = user_of(own).ok()??;
        let (_, expires) = validity(own).ok()?;
        user.machine = Some(match &user.groups[..] {
            [group] if group == AGENTS => MachineCredential::Agent {
                certificate: Arc::from(own.as_ref()),
                expires,
            },
            [group] if group == REPLICAS => MachineCredential::Replica,
            // The authority issues nothing else. Should its key ever be used for more, it is not believed.
            _ => return None,
        });
        Some(user)
    }

    fn by_token(&self, token: &str, now: UnixTime) -> Result<UserInfo, TokenError> {
        let token = BootstrapToken::parse(BOOTSTRAP_TOKEN_PREFIX, token).ok_or(TokenError::Invalid)?;
        let directory = self.directory.state();
        let cluster = directory.clusters.get(token.cluster()).ok_or(TokenError::Invalid)?;
        let settings = cluster.spec.connection.tunnel.as_ref().ok_or(TokenError::Invalid)?;
        let expires = settings.bootstrap_token_expires.as_ref().map(|time| time.0.as_second());
        let in_time =
            expires.is_some_and(|expires| u64::try_from(expires).is_ok_and(|expires| now.as_secs() < expires));
        if !token.matches(&settings.bootstrap_token_hash) || !in_time || cluster_fault(cluster).is_some() {
            return Err(TokenError::Invalid);
        }
        let mut user = UserInfo::new(bootstrap_user(token.cluster()), [BOOTSTRAPPERS]);
        user.uid = cluster.metadata.uid.clone().unwrap_or_default();
        user.machine = Some(MachineCredential::BootstrapToken { hash: token.hash() });
        Ok(user)
    }
}

impl RequestAuthenticator for AgentAuthenticator {
    fn authenticate(
        &self,
        credentials: &Credentials<'_>,
        now: UnixTime,
    ) -> Result<Option<UserInfo>, AuthenticationError> {
        if let Some(user) = self.by_certificate(credentials, now) {
            return Ok(Some(user));
        }
        // A broken token is for whoever judges tokens of other kinds.
        match bearer_token(credentials.headers) {
            Ok(Some(token)) if token.starts_with(BOOTSTRAP_TOKEN_PREFIX) => Ok(Some(self.by_token(&token, now)?)),
            _ => Ok(None),
        }
    }
}
