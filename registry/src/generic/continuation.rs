//! `metadata.continue`: where the next page of a list starts (`k8s.io/apiserver/pkg/storage/continue.go`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use umbra_apimachinery::status::Status;

/// Which state, and after which key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ContinueToken {
    #[serde(rename = "v")]
    version: String,
    /// −1 is the newest state, whatever was seen before.
    #[serde(rename = "rv", default)]
    revision: i64,
    /// The last key of the page before, relative to the base, followed by a NUL: the next possible key.
    #[serde(default)]
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// The revision of a token whose snapshot is gone.
const INCONSISTENT: i64 = -1;

impl ContinueToken {
    /// Goes on after `key` in the state at `revision`, or in the newest state.
    pub(super) fn after(key: &str, base: &str, revision: Option<u64>) -> Self {
        Self {
            version: TOKEN_VERSION.to_owned(),
            revision: revision.map_or(INCONSISTENT, |revision| i64::try_from(revision).unwrap_or(i64::MAX)),
            start: format!("{}\0", key.strip_prefix(base).unwrap_or(key)),
        }
    }

    pub(super) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).expect("a token has only strings and numbers"))
    }

    /// # Errors
    /// 400 for what makes no sense.
    pub(super) fn decode(text: &str) -> Result<Self, Status> {
        let invalid = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let json = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|error| invalid(&error.to_string()))?;
        let token: Self = serde_json::from_slice(&json).map_err(|error| invalid(&error.to_string()))?;
        if token.version != TOKEN_VERSION {
            return Err(invalid("server does not recognize this encoded version"));
        }
        if token.revision == 0 || token.revision < INCONSISTENT {
            return Err(invalid(
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ));
        }
        if !token.start.ends_with('\0') {
            return Err(invalid("encoded start key empty (version meta.k8s.io/v1)"));
        }
        Ok(token)
    }

    /// The revision of the state; `None` for the newest one.
    pub(super) fn revision(&self) -> Option<u64> {
        u64::try_from(self.revision).ok()
    }

    /// The last key of the page before.
    pub(super) fn last_key(&self, base: &str) -> String {
        format!("{base}{}", self.start.trim_end_matches('\0'))
    }
}

/// 410 for a page whose snapshot is gone, with a token that goes on in the newest state
/// (`handleCompactedErrorForPaging` of `k8s.io/apiserver/pkg/storage/etcd3/errors.go`).
pub(super) fn expired_token(after: &str, base: &str) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.metadata.continue_token = ContinueToken::after(after, base, None).encode();
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_are_written() {
        let token = ContinueToken::after("/umbra/hub/core/pods/a/b", "/umbra/hub/core/pods/", Some(7));
        let read = ContinueToken::decode(&token.encode()).unwrap();
        assert_eq!(read, token);
        assert_eq!((read.start.as_str(), read.revision()), ("a/b\0", Some(7)));
        assert_eq!(read.last_key("/umbra/hub/core/pods/"), "/umbra/hub/core/pods/a/b");
        let json = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let newest = ContinueToken::decode(&json(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"a\u0000"}"#)).unwrap();
        assert_eq!(newest.revision(), None);
        for bad in [
            "%".to_owned(),
            json("{}"),
            json(r#"{"v":"meta.k8s.io/v2","rv":1,"start":"a\u0000"}"#),
            json(r#"{"v":"meta.k8s.io/v1","rv":0,"start":"a\u0000"}"#),
            json(r#"{"v":"meta.k8s.io/v1","rv":-2,"start":"a\u0000"}"#),
            json(r#"{"v":"meta.k8s.io/v1","rv":1,"start":""}"#),
        ] {
            assert_eq!(ContinueToken::decode(&bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
