//! `serviceaccounts/token`: what `kubectl create token` asks for (`authentication.k8s.io/v1` TokenRequest).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use jiff::Timestamp;
use rustls_pki_types::UnixTime;
use serde_json::{Value, json};
use umbra_apimachinery::age::rfc3339;
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::Status;
use umbra_auth::tokens::{ServiceAccountSubject, ServiceAccountTokens};

use crate::generic::subresource::SubresourceHandler;
use crate::request::RequestContext;

/// What a token lives where nobody says otherwise (`defaultExpirationSeconds` of TokenRequest).
const DEFAULT_SECONDS: u64 = 3600;
/// No shorter (`minTokenAgeSeconds` in `pkg/registry/core/serviceaccount/storage/token.go`).
const SHORTEST_SECONDS: u64 = 600;
/// No longer: a year. Kubernetes refuses more than 2^32 seconds; a hub's tokens cannot be revoked one by one.
const LONGEST_SECONDS: u64 = 365 * 24 * 3600;

/// Issues tokens of service accounts.
#[derive(Debug)]
pub struct IssueTokens {
    tokens: Arc<ServiceAccountTokens>,
}

impl IssueTokens {
    /// Issues what `tokens` signs.
    #[must_use]
    pub fn new(tokens: Arc<ServiceAccountTokens>) -> Self {
        Self { tokens }
    }
}

#[async_trait]
impl SubresourceHandler for IssueTokens {
    async fn create(&self, _context: &RequestContext, object: &Value, mut body: Value) -> Result<Value, Status> {
        if !body["spec"]["boundObjectRef"].is_null() {
            return Err(Status::bad_request(
                "tokens of the hub cannot be bound to other objects",
            ));
        }
        let asked = body["spec"]["expirationSeconds"].as_u64().unwrap_or(DEFAULT_SECONDS);
        if asked < SHORTEST_SECONDS {
            let message = format!("spec.expirationSeconds: {asked} is too short; ask for at least {SHORTEST_SECONDS}");
            return Err(Status::bad_request(message));
        }
        let lifetime = Duration::from_secs(asked.min(LONGEST_SECONDS));
        let audiences: Vec<String> = serde_json::from_value(body["spec"]["audiences"].clone()).unwrap_or_default();
        let subject = ServiceAccountSubject {
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            ..ServiceAccountSubject::default()
        };
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let token = self
            .tokens
            .issue(&subject, &audiences, lifetime, UnixTime::since_unix_epoch(now));
        body["spec"]["expirationSeconds"] = json!(lifetime.as_secs());
        let expires = Timestamp::now() + jiff::SignedDuration::try_from(lifetime).map_err(Status::internal)?;
        body["status"] = json!({"token": token, "expirationTimestamp": rfc3339(expires)});
        Ok(body)
    }
}
