//! Tokens from a file.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use rustls_pki_types::UnixTime;
use umbra_apimachinery::user::UserInfo;

use super::{TokenAuthenticator, TokenError};

/// A line of a token file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the token file: {reason}")]
pub struct TokenFileError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it. Never contains the token.
    pub reason: &'static str,
}

/// A fixed set of tokens. Only their SHA-256 digests are kept, so that neither a memory dump nor the time of a
/// comparison tells a token.
#[derive(Clone, Default)]
pub struct StaticTokens {
    tokens: Vec<([u8; SHA256_OUTPUT_LEN], UserInfo)>,
}

impl std::fmt::Debug for StaticTokens {
    /// Only whose tokens they are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.tokens.iter().map(|(_, user)| &user.name);
        f.debug_list().entries(names).finish()
    }
}

impl StaticTokens {
    /// No tokens.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Believes `token` to be `user`.
    pub fn insert(&mut self, token: &str, user: UserInfo) {
        self.tokens.push((hash(token), user));
    }

    /// Reads the format of kube-apiserver's `--token-auth-file`: `token,user,uid[,"group1,group2"]` per line. Empty lines
    /// and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// The first line that is not of this format.
    pub fn from_csv(csv: &str) -> Result<Self, TokenFileError> {
        let mut tokens = Self::new();
        for (index, line) in csv.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |reason| TokenFileError {
                line: index + 1,
                reason,
            };
            let mut fields = line.splitn(4, ',').map(str::trim);
            let (Some(token), Some(name), Some(uid)) = (fields.next(), fields.next(), fields.next()) else {
                return Err(wrong("expected token, user and uid"));
            };
            if token.is_empty() || name.is_empty() {
                return Err(wrong("token and user must not be empty"));
            }
            let groups = fields
                .next()
                .unwrap_or_default()
                .trim_matches('"')
                .split(',')
                .map(str::trim);
            let mut user = UserInfo::new(name, groups.filter(|group| !group.is_empty()));
            uid.clone_into(&mut user.uid);
            tokens.insert(token, user);
        }
        Ok(tokens)
    }
}

impl TokenAuthenticator for StaticTokens {
    fn authenticate_token(&self, token: &str, _now: UnixTime) -> Result<Option<UserInfo>, TokenError> {
        let hash = hash(token);
        let found = self
            .tokens
            .iter()
            .find(|(known, _)| verify_slices_are_equal(known, &hash).is_ok());
        Ok(found.map(|(_, user)| user.clone()))
    }
}

fn hash(token: &str) -> [u8; SHA256_OUTPUT_LEN] {
    let digest = digest(&SHA256, token.as_bytes());
    digest.as_ref().try_into().expect("a SHA-256 digest has that length")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file() {
        let file = "# comment\n\nt1,alice,u1,\"dev,ops\"\nt2,bob,\n";
        let tokens = StaticTokens::from_csv(file).unwrap();
        let judge = |token| tokens.authenticate_token(token, UnixTime::now()).unwrap();
        let alice = judge("t1").unwrap();
        assert_eq!((alice.name.as_str(), alice.uid.as_str()), ("alice", "u1"));
        assert_eq!(alice.groups, ["dev", "ops"]);
        assert!(judge("t2").unwrap().groups.is_empty());
        assert_eq!(judge("t3"), None);
        assert_eq!(judge(""), None);
        assert!(!format!("{tokens:?}").contains("t1"));
        assert_eq!(StaticTokens::from_csv("a,b,c\nx,y").unwrap_err().line, 2);
    }
}
