//! What is encrypted, with which key.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;

use super::key::EncryptionKey;
use super::resource::{Pattern, StoredResource};
use super::value::{ESCAPED, MAGIC, Stored, parse};

/// Umbra's kinds that hold parts of other objects, or all of them: a rendering is the object that a cluster gets, and a
/// patch may set anything. They are treated as Secrets are, if no resource of a configuration means them.
const HOLDS_OTHERS: [&str; 3] = ["renderings", "overrides", "clusteroverrides"];
/// The group of those kinds.
const GROUP: &str = "umbra.dev";

/// Which keys there are, and what is encrypted with them.
#[derive(Debug)]
pub struct EncryptionPolicy {
    keys: Vec<EncryptionKey>,
    rules: Vec<Rule>,
}

/// What holds for some resources.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    /// Which ones.
    pub(super) resources: Vec<Pattern>,
    /// The index of the key that values are written with; `None`: they are written in plain.
    pub(super) write: Option<usize>,
    /// Whether values may be plain when they are read.
    pub(super) read_plain: bool,
}

/// Why a stored value cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    /// The key is not there.
    #[error(
        "is encrypted with the key {name:?}, which is not configured ({configured}); add that key to the providers of the \
         encryption configuration"
    )]
    MissingKey {
        /// The name of the key.
        name: Arc<str>,
        /// The names of those that are, for people.
        configured: Arc<str>,
    },
    /// The key does not open it.
    #[error(
        "cannot be decrypted with the key {name:?}: either the secret of that key is not the one that encrypted it, or the \
         value was changed, or moved here from another place"
    )]
    Refused {
        /// The name of the key.
        name: Arc<str>,
    },
    /// It is plain where it must not be.
    #[error(
        "is not encrypted, and the encryption configuration does not allow that; where it comes from a time without \
         encryption, add `identity: {{}}` as the last provider"
    )]
    Plain,
    /// It is written in a way that this program does not know.
    #[error("is encrypted in a way that this program does not know, or damaged; was it written by a newer umbra?")]
    Unknown,
}

impl EncryptionPolicy {
    /// Rules in the order of their precedence, which name keys by their index.
    pub(super) fn new(keys: Vec<EncryptionKey>, mut rules: Vec<Rule>) -> Self {
        let of = |rules: &[Rule], group, resource| {
            let stored = Some(StoredResource { group, resource });
            rules.iter().find(|rule| rule.matches(stored)).cloned()
        };
        let secrets = of(&rules, "", "secrets").filter(|rule| rule.write.is_some());
        let model = secrets.or_else(|| rules.iter().find(|rule| rule.write.is_some()).cloned());
        let missing = HOLDS_OTHERS.iter().filter(|kind| of(&rules, GROUP, kind).is_none());
        let resources: Vec<Pattern> = missing
            .map(|kind| Pattern::Resource {
                group: GROUP.to_owned(),
                resource: (*kind).to_owned(),
            })
            .collect();
        if let Some(model) = model.filter(|_| !resources.is_empty()) {
            rules.push(Rule { resources, ..model });
        }
        Self { keys, rules }
    }

    /// Encrypts the values of all keys, whether they are objects or not.
    #[cfg(test)]
    pub(super) fn everything(keys: Vec<EncryptionKey>, read_plain: bool) -> Self {
        let rule = Rule {
            resources: vec![Pattern::Everything],
            write: Some(0),
            read_plain,
        };
        Self {
            keys,
            rules: vec![rule],
        }
    }

    /// All keys.
    #[must_use]
    pub fn keys(&self) -> &[EncryptionKey] {
        &self.keys
    }

    /// Whether new values of a resource are encrypted.
    #[must_use]
    pub fn encrypts(&self, resource: StoredResource<'_>) -> bool {
        let mut rules = self.rules.iter();
        rules
            .find(|rule| rule.matches(Some(resource)))
            .is_some_and(|rule| rule.write.is_some())
    }

    /// The keys that values are written with.
    pub(super) fn writing_keys(&self) -> impl Iterator<Item = &EncryptionKey> {
        let writes = |index: &usize| self.rules.iter().any(|rule| rule.write == Some(*index));
        let indexes = (0..self.keys.len()).filter(writes);
        indexes.map(|index| &self.keys[index])
    }

    /// The key of that name.
    pub(super) fn key(&self, name: &str) -> Option<&EncryptionKey> {
        self.keys.iter().find(|key| &**key.name() == name)
    }

    /// What is written with which key, in a line; two policies with the same one leave nothing to rewrite.
    pub(super) fn fingerprint(&self) -> String {
        let mut line = String::new();
        for rule in &self.rules {
            for pattern in &rule.resources {
                write!(line, "{pattern}={} ", self.writer(rule).map_or("", |key| key.name()))
                    .expect("writing to a String never fails");
            }
        }
        line
    }

    /// The value as it is to be stored under `storage_key`. What is not to be encrypted is passed on as it is.
    ///
    /// # Errors
    /// Where there are no random bytes.
    pub(super) fn encrypt(&self, storage_key: &str, value: Bytes) -> Result<Bytes, aws_lc_rs::error::Unspecified> {
        match self.rule(storage_key).and_then(|rule| self.writer(rule)) {
            Some(key) => key.seal(storage_key, &value),
            None if value.starts_with(MAGIC) => Ok([ESCAPED, &value].concat().into()),
            None => Ok(value),
        }
    }

    /// The value that is stored under `storage_key` as it was before it was stored. What was plain is passed on as it is.
    ///
    /// Whatever is encrypted is decrypted, with any of the keys, so that a resource that is no longer to be encrypted can
    /// still be read.
    ///
    /// # Errors
    /// See [`DecryptError`].
    pub(super) fn decrypt(&self, storage_key: &str, value: &Bytes) -> Result<Bytes, DecryptError> {
        let plain = match parse(value) {
            Stored::Plain => value.clone(),
            Stored::Escaped(start) => value.slice(start..),
            Stored::Unknown => return Err(DecryptError::Unknown),
            Stored::Sealed { key: name, sealed } => {
                let key = self.key(name).ok_or_else(|| self.missing(name))?;
                let refused = |_| DecryptError::Refused {
                    name: Arc::clone(key.name()),
                };
                return key.open(storage_key, sealed).map_err(refused);
            }
        };
        if self.rule(storage_key).is_some_and(|rule| !rule.read_plain) {
            return Err(DecryptError::Plain);
        }
        Ok(plain)
    }

    /// Whether [`EncryptionPolicy::decrypt`] would leave a value as it is, seen from its first bytes: most are like that.
    pub(super) fn passes(&self, value: &[u8]) -> bool {
        !value.starts_with(MAGIC) && self.rules.iter().all(|rule| rule.read_plain)
    }

    /// Whether a value would be stored otherwise if it were written now.
    pub(super) fn is_stale(&self, storage_key: &str, value: &[u8]) -> bool {
        let writer = self.rule(storage_key).and_then(|rule| self.writer(rule));
        match (parse(value), writer) {
            (Stored::Sealed { key, .. }, Some(writer)) => key != &**writer.name(),
            (Stored::Plain | Stored::Escaped(_), None) => false,
            _ => true,
        }
    }

    fn rule(&self, storage_key: &str) -> Option<&Rule> {
        let stored = StoredResource::of_key(storage_key);
        self.rules.iter().find(|rule| rule.matches(stored))
    }

    fn writer(&self, rule: &Rule) -> Option<&EncryptionKey> {
        rule.write.map(|index| &self.keys[index])
    }

    fn missing(&self, name: &str) -> DecryptError {
        DecryptError::MissingKey {
            name: name.into(),
            configured: self.names().into(),
        }
    }

    /// The names of all keys, for people.
    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.keys.iter().map(|key| &**key.name()).collect();
        if names.is_empty() {
            "no key is".to_owned()
        } else {
            format!("configured: {}", names.join(", "))
        }
    }
}

impl Rule {
    fn matches(&self, stored: Option<StoredResource<'_>>) -> bool {
        self.resources.iter().any(|pattern| pattern.matches(stored))
    }
}
