//! What is written in a service account token (`pkg/serviceaccount/claims.go`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use umbra_apimachinery::user::UserInfo;

use super::service_account::BoundObject;
use crate::peer::CREDENTIAL_ID;
use crate::service_account;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    #[serde(default)]
    pub(super) kid: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) aud: Audiences,
    pub(super) exp: i64,
    #[serde(default)]
    pub(super) iat: i64,
    pub(super) iss: String,
    #[serde(default)]
    pub(super) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(super) kubernetes: KubernetesClaims,
    #[serde(default)]
    pub(super) nbf: i64,
    pub(super) sub: String,
}

/// RFC 7519, 4.1.3: one audience may stand without a list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Audiences {
    Many(Vec<String>),
    One(String),
}

impl Audiences {
    pub(super) fn to_vec(&self) -> Vec<String> {
        match self {
            Self::Many(audiences) => audiences.clone(),
            Self::One(audience) => vec![audience.clone()],
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KubernetesClaims {
    pub(super) namespace: String,
    pub(super) serviceaccount: BoundObject,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pod: Option<BoundObject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<BoundObject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<BoundObject>,
}

impl Claims {
    /// `ServiceAccountInfo.UserInfo` of Kubernetes.
    pub(super) fn user(&self) -> UserInfo {
        let claims = &self.kubernetes;
        let account = &claims.serviceaccount;
        let mut user = service_account::user_info(&claims.namespace, &account.name, &account.uid);
        let mut add = |key: &str, value: &str| {
            if !value.is_empty() {
                user.extra.insert(key.to_owned(), vec![value.to_owned()]);
            }
        };
        if let Some(pod) = &claims.pod {
            add("authentication.kubernetes.io/pod-name", &pod.name);
            add("authentication.kubernetes.io/pod-uid", &pod.uid);
        }
        if let Some(node) = &claims.node {
            add("authentication.kubernetes.io/node-name", &node.name);
            add("authentication.kubernetes.io/node-uid", &node.uid);
        }
        if !self.jti.is_empty() {
            add(CREDENTIAL_ID, &format!("JTI={}", self.jti));
        }
        user
    }
}

pub(super) fn unverified_claims(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (_header, claims, _signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    decode(claims)
}

pub(super) fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok()
}
