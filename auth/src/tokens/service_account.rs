//! Service account tokens: JSON web tokens (RFC 7519) that a hub signs for its own service accounts, in the form that
//! Kubernetes uses (`pkg/serviceaccount/{jwt,claims}.go`).
//!
//! Deviations: the only algorithm is ES256, and there are no legacy tokens (without expiry or audience). The objects that
//! a token may be bound to besides its service account are named in it, but whether they still exist is not asked.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivatePkcs8KeyDer, UnixTime};
use serde::{Deserialize, Serialize};
use umbra_apimachinery::user::UserInfo;

use super::claims::{Audiences, Claims, Header, KubernetesClaims, decode, unverified_claims};
use super::{TokenAuthenticator, TokenError};
use crate::service_account;

/// How far clocks may be apart, in seconds (go-jose's `jwt.DefaultLeeway`).
const LEEWAY: i64 = 60;

/// A key that cannot sign tokens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an ECDSA P-256 key in PKCS #8 PEM: {0}")]
pub struct SigningKeyError(String);

/// Signs tokens, and names its key as Kubernetes does.
pub struct TokenSigner {
    key: EcdsaKeyPair,
    key_id: String,
}

impl std::fmt::Debug for TokenSigner {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSigner")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl TokenSigner {
    /// A new key as PEM, for [`Self::from_pem`].
    ///
    /// # Errors
    /// Where the system gives no randomness.
    pub fn generate_pem() -> Result<String, SigningKeyError> {
        let key = rcgen::KeyPair::generate().map_err(|error| SigningKeyError(error.to_string()))?;
        Ok(key.serialize_pem())
    }

    /// Reads a key.
    ///
    /// # Errors
    /// Where it is not an ECDSA P-256 key.
    pub fn from_pem(pem: &str) -> Result<Self, SigningKeyError> {
        let der =
            PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| SigningKeyError(error.to_string()))?;
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der())
            .map_err(|error| SigningKeyError(error.to_string()))?;
        let public: PublicKeyX509Der<'_> = key
            .public_key()
            .as_der()
            .map_err(|error| SigningKeyError(error.to_string()))?;
        let key_id = URL_SAFE_NO_PAD.encode(digest(&SHA256, public.as_ref()));
        Ok(Self { key, key_id })
    }

    fn sign(&self, claims: &Claims) -> String {
        let header = Header {
            alg: "ES256".to_owned(),
            kid: self.key_id.clone(),
        };
        let encode = |json: Vec<u8>| URL_SAFE_NO_PAD.encode(json);
        let header = encode(serde_json::to_vec(&header).expect("strings serialize"));
        let claims = encode(serde_json::to_vec(claims).expect("strings and numbers serialize"));
        let signed = format!("{header}.{claims}");
        let signature = self
            .key
            .sign(&SystemRandom::new(), signed.as_bytes())
            .expect("signing fails only where the system gives no randomness");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Another object that a token is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BoundObject {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its UID.
    #[serde(default)]
    pub uid: String,
}

/// Whom a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServiceAccountSubject {
    /// The namespace of the service account.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: another service account of the same name cannot use the token.
    pub uid: String,
    /// The pod that runs as the service account.
    pub pod: Option<BoundObject>,
    /// The secret that holds the token.
    pub secret: Option<BoundObject>,
    /// The node of the pod, or on its own.
    pub node: Option<BoundObject>,
}

/// Tells which service accounts exist.
pub trait ServiceAccounts: Send + Sync {
    /// The UID of a service account; `None` where there is none, or it is being deleted.
    fn uid(&self, namespace: &str, name: &str) -> Option<String>;
}

impl<F: Fn(&str, &str) -> Option<String> + Send + Sync> ServiceAccounts for F {
    fn uid(&self, namespace: &str, name: &str) -> Option<String> {
        self(namespace, name)
    }
}

/// Issues and judges service account tokens.
pub struct ServiceAccountTokens {
    issuer: String,
    audiences: Vec<String>,
    signer: TokenSigner,
    /// Keys that tokens may still be signed with, besides the signer's.
    former: Vec<TokenSigner>,
    accounts: Arc<dyn ServiceAccounts>,
}

impl std::fmt::Debug for ServiceAccountTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServiceAccountTokens")
            .field("issuer", &self.issuer)
            .field("audiences", &self.audiences)
            .field("signer", &self.signer)
            .finish_non_exhaustive()
    }
}

impl ServiceAccountTokens {
    /// `issuer` names the hub in its tokens; a token has to be for one of `audiences`, which are also what it is for
    /// where nobody says otherwise.
    #[must_use]
    pub fn new(
        issuer: impl Into<String>,
        audiences: Vec<String>,
        signer: TokenSigner,
        accounts: Arc<dyn ServiceAccounts>,
    ) -> Self {
        Self {
            issuer: issuer.into(),
            audiences,
            signer,
            former: Vec::new(),
            accounts,
        }
    }

    /// Also believes tokens that were signed with these keys, so that keys can be exchanged.
    #[must_use]
    pub fn with_former_keys(mut self, keys: Vec<TokenSigner>) -> Self {
        self.former = keys;
        self
    }

    /// A new token that is valid from `now` for `lifetime`. Empty `audiences` are those of the hub.
    #[must_use]
    pub fn issue(
        &self,
        subject: &ServiceAccountSubject,
        audiences: &[String],
        lifetime: Duration,
        now: UnixTime,
    ) -> String {
        let now = seconds(now);
        let audiences = if audiences.is_empty() {
            &self.audiences
        } else {
            audiences
        };
        self.signer.sign(&Claims {
            aud: Audiences::Many(audiences.to_vec()),
            exp: now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)),
            iat: now,
            nbf: now,
            iss: self.issuer.clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            sub: service_account::username(&subject.namespace, &subject.name),
            kubernetes: KubernetesClaims {
                namespace: subject.namespace.clone(),
                serviceaccount: BoundObject {
                    name: subject.name.clone(),
                    uid: subject.uid.clone(),
                },
                pod: subject.pod.clone(),
                secret: subject.secret.clone(),
                node: subject.node.clone(),
            },
        })
    }

    fn verify(&self, token: &str, claims: &Claims) -> Result<(), TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Invalid)?;
        let header: Header = signed
            .split_once('.')
            .and_then(|(header, _)| decode(header))
            .ok_or(TokenError::Invalid)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Invalid)?;
        if header.alg != "ES256" {
            return Err(TokenError::Signature);
        }
        let verified = std::iter::once(&self.signer)
            .chain(&self.former)
            .filter(|signer| header.kid.is_empty() || signer.key_id == header.kid)
            .any(|signer| {
                let public = signer.key.public_key();
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public)
                    .verify(signed.as_bytes(), &signature)
                    .is_ok()
            });
        if !verified {
            return Err(TokenError::Signature);
        }
        let found = claims.aud.to_vec();
        if !found.iter().any(|audience| self.audiences.contains(audience)) {
            return Err(TokenError::Audience {
                found,
                expected: self.audiences.clone(),
            });
        }
        Ok(())
    }

    fn check_account(&self, claims: &KubernetesClaims) -> Result<(), TokenError> {
        let account = &claims.serviceaccount;
        let uid = self.accounts.uid(&claims.namespace, &account.name);
        if uid.is_none_or(|uid| uid != account.uid) {
            return Err(TokenError::Deleted {
                namespace: claims.namespace.clone(),
                name: account.name.clone(),
            });
        }
        Ok(())
    }
}

impl TokenAuthenticator for ServiceAccountTokens {
    fn authenticate_token(&self, token: &str, now: UnixTime) -> Result<Option<UserInfo>, TokenError> {
        // Read before the signature is checked only to tell whose token it is; nothing is believed yet.
        let Some(claims) = unverified_claims(token).filter(|claims| claims.iss == self.issuer) else {
            return Ok(None);
        };
        self.verify(token, &claims)?;
        let now = seconds(now);
        if claims.exp.saturating_add(LEEWAY) < now {
            return Err(TokenError::Expired);
        }
        if claims.nbf.max(claims.iat).saturating_sub(LEEWAY) > now {
            return Err(TokenError::NotYetValid);
        }
        self.check_account(&claims.kubernetes)?;
        Ok(Some(claims.user()))
    }
}

fn seconds(time: UnixTime) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::CREDENTIAL_ID;

    fn at(second: u64) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(second))
    }

    fn signer() -> TokenSigner {
        TokenSigner::from_pem(&TokenSigner::generate_pem().unwrap()).unwrap()
    }

    fn tokens(signer: TokenSigner) -> ServiceAccountTokens {
        let accounts = |namespace: &str, name: &str| match (namespace, name) {
            ("shop", "default") => Some("u1".to_owned()),
            _ => None,
        };
        ServiceAccountTokens::new("https://hub", vec!["hub".to_owned()], signer, Arc::new(accounts))
    }

    fn subject(name: &str, uid: &str) -> ServiceAccountSubject {
        ServiceAccountSubject {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
            ..ServiceAccountSubject::default()
        }
    }

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn a_token_proves_its_service_account() {
        let tokens = tokens(signer());
        let subject = ServiceAccountSubject {
            pod: Some(BoundObject {
                name: "web".to_owned(),
                uid: "p1".to_owned(),
            }),
            ..subject("default", "u1")
        };
        let token = tokens.issue(&subject, &[], HOUR, at(1_000_000));
        let user = tokens.authenticate_token(&token, at(1_000_100)).unwrap().unwrap();
        assert_eq!(user.name, "system:serviceaccount:shop:default");
        assert_eq!(user.uid, "u1");
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:shop"]);
        assert_eq!(user.extra["authentication.kubernetes.io/pod-name"], ["web"]);
        assert!(user.extra[CREDENTIAL_ID][0].starts_with("JTI="));
    }

    #[test]
    fn time_audience_and_existence_are_checked() {
        let tokens = tokens(signer());
        let default = subject("default", "u1");
        let token = tokens.issue(&default, &[], HOUR, at(1_000_000));
        let judge = |token: &str, second| tokens.authenticate_token(token, at(second)).unwrap_err();
        assert_eq!(judge(&token, 1_003_661), TokenError::Expired);
        assert!(
            tokens.authenticate_token(&token, at(1_003_660)).is_ok(),
            "within the leeway"
        );
        assert_eq!(judge(&token, 999_000), TokenError::NotYetValid);
        let foreign = tokens.issue(&default, &["vault".to_owned()], HOUR, at(1_000_000));
        assert!(matches!(judge(&foreign, 1_000_000), TokenError::Audience { .. }));
        for gone in [subject("default", "u0"), subject("gone", "u1")] {
            let token = tokens.issue(&gone, &[], HOUR, at(1_000_000));
            assert!(matches!(judge(&token, 1_000_000), TokenError::Deleted { .. }));
        }
    }

    #[test]
    fn forgeries_are_refused_and_foreign_tokens_ignored() {
        let key = TokenSigner::generate_pem().unwrap();
        let own = tokens(TokenSigner::from_pem(&key).unwrap());
        let token = own.issue(&subject("default", "u1"), &[], HOUR, at(1_000_000));
        let other = tokens(signer());
        let judge = |token: &str| other.authenticate_token(token, at(1_000_000));
        assert_eq!(judge(&token), Err(TokenError::Signature), "signed by an unknown key");

        let [header, claims, signature] = token.split('.').collect::<Vec<_>>()[..] else {
            panic!("a token has three parts")
        };
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        assert!(judge(&format!("{none}.{claims}.")).is_err());
        let mut altered = URL_SAFE_NO_PAD.decode(claims).unwrap();
        let position = altered.windows(4).position(|window| window == b"\"u1\"").unwrap();
        altered[position + 2] = b'2';
        let altered = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(altered));
        assert_eq!(
            own.authenticate_token(&altered, at(1_000_000)),
            Err(TokenError::Signature)
        );

        for foreign in ["", "abc", "a.b.c", "e30.e30.e30", "a.b.c.d"] {
            assert_eq!(judge(foreign), Ok(None), "{foreign:?}");
        }

        let former = TokenSigner::from_pem(&key).unwrap();
        let rotated = tokens(signer()).with_former_keys(vec![former]);
        assert!(rotated.authenticate_token(&token, at(1_000_000)).unwrap().is_some());
    }
}
