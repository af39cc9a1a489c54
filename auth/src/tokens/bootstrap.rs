//! Bootstrap tokens: with one, the agent of one cluster may ask to join, and nothing else.
//!
//! A token is `umbra-bootstrap.{cluster}.{secret}`, where the secret is 32 random bytes in base64url. The hub keeps its
//! SHA-256 alone: with that much randomness a slow hash would add nothing.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Bytes of randomness.
const SECRET: usize = 32;

/// A token that was presented or made.
#[derive(Clone)]
pub struct BootstrapToken {
    cluster: String,
    text: String,
}

impl std::fmt::Debug for BootstrapToken {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BootstrapToken")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl BootstrapToken {
    /// A new token for `cluster`, which begins with `prefix`; `None` where the operating system gives no random bytes.
    #[must_use]
    pub fn generate(prefix: &str, cluster: &str) -> Option<Self> {
        let mut secret = [0; SECRET];
        aws_lc_rs::rand::fill(&mut secret).ok()?;
        Some(Self {
            cluster: cluster.to_owned(),
            text: format!("{prefix}{cluster}.{}", URL_SAFE_NO_PAD.encode(secret)),
        })
    }

    /// A token that was presented; `None` where it does not begin with `prefix` or is malformed.
    #[must_use]
    pub fn parse(prefix: &str, text: &str) -> Option<Self> {
        let (cluster, secret) = text.strip_prefix(prefix)?.rsplit_once('.')?;
        let long_enough = URL_SAFE_NO_PAD.decode(secret).is_ok_and(|bytes| bytes.len() == SECRET);
        (long_enough && !cluster.is_empty()).then(|| Self {
            cluster: cluster.to_owned(),
            text: text.to_owned(),
        })
    }

    /// The cluster that it says it is for.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The token itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> String {
        sha256_hex(self.text.as_bytes())
    }

    /// Whether it is the token whose hash was kept. Takes as long whatever the hash.
    #[must_use]
    pub fn matches(&self, hash: &str) -> bool {
        !hash.is_empty() && verify_slices_are_equal(self.hash().as_bytes(), hash.as_bytes()).is_ok()
    }
}

/// The SHA-256 of some bytes, in hexadecimal.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_its_cluster_and_no_other() {
        let token = BootstrapToken::generate("p.", "east").unwrap();
        let parsed = BootstrapToken::parse("p.", token.expose()).unwrap();
        assert_eq!(parsed.cluster(), "east");
        assert!(parsed.matches(&token.hash()));
        let other = BootstrapToken::generate("p.", "east").unwrap();
        assert!(!other.matches(&token.hash()) && !token.matches(""));
        // The name is part of what is hashed.
        let renamed = BootstrapToken::parse("p.", &token.expose().replace("east", "west")).unwrap();
        assert_eq!(renamed.cluster(), "west");
        assert!(!renamed.matches(&token.hash()));
        for malformed in ["", "p.", "p.east", "p.east.", "p.east.AAAA", "q.east.AAAA"] {
            assert!(BootstrapToken::parse("p.", malformed).is_none(), "{malformed}");
        }
        assert!(!format!("{token:?}").contains(token.expose()));
    }
}
