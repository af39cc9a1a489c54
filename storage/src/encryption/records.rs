//! Which keys the stored values may be encrypted with, written down in the store itself.
//!
//! `/umbra/encryption/keys/{name}` exists from before the first value is written with that key until after the last one is
//! gone. Its value is encrypted with the key, so a key of the right name with another secret is found out at the start, and
//! not at the first object. `/umbra/encryption/rewritten` says for which policy every value has been looked at.

use std::sync::Arc;

use bytes::Bytes;

use super::Encrypted;
use super::key::EncryptionKey;
use super::policy::{DecryptError, EncryptionPolicy};
use super::value::{Stored, parse};
use crate::{Entry, Error, Precondition, RangeRequest, Result, Store};

/// Where the records of keys are.
pub(super) const KEYS: &str = "/umbra/encryption/keys/";
/// Where it says for which policy everything has been rewritten.
pub(super) const REWRITTEN: &str = "/umbra/encryption/rewritten";
/// What the record of a key says.
const RECORD: &[u8] = b"values of this store may be encrypted with this key";

/// A key that the store needs and that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFault {
    /// It is not there.
    Missing(Arc<str>),
    /// It has another secret.
    Wrong(Arc<str>),
}

/// Why a store cannot be used with a policy.
#[derive(Debug, thiserror::Error)]
pub enum EncryptedOpenError {
    /// Keys are missing or wrong.
    #[error("{}", describe(.faults, .configured))]
    Keys {
        /// Which ones.
        faults: Vec<KeyFault>,
        /// The names of those that there are, for people.
        configured: String,
    },
    /// The store did not answer.
    #[error("the records of encryption keys cannot be read or written")]
    Store(#[from] Error),
}

fn describe(faults: &[KeyFault], configured: &str) -> String {
    let describe = |fault: &KeyFault| match fault {
        KeyFault::Missing(name) => {
            format!("values are encrypted with the key {name:?}, which is not configured ({configured})")
        }
        KeyFault::Wrong(name) => {
            format!("the secret of the key {name:?} is not the one that values are encrypted with")
        }
    };
    let faults: Vec<String> = faults.iter().map(describe).collect();
    faults.join("; ")
}

impl Encrypted {
    /// Encrypts what goes into `store`, after making sure that the keys are there with which its values are encrypted, and
    /// writing down those that will be used.
    ///
    /// Cancel safe; a cancelled call may leave records behind.
    ///
    /// # Errors
    /// All keys that are missing or wrong; or that the store does not answer.
    pub async fn open(store: Arc<dyn Store>, policy: EncryptionPolicy) -> Result<Self, EncryptedOpenError> {
        let encrypted = Self::new(store, policy);
        let records = encrypted.store.range(RangeRequest::prefix(KEYS)).await?.entries;
        encrypted.verify(&records)?;
        encrypted.forget_other_policies().await?;
        for key in encrypted.policy.writing_keys() {
            let path = path(key.name());
            if records.iter().any(|record| *record.key == *path) {
                continue;
            }
            let value = encrypted.record(key, &path)?;
            match encrypted.store.put(&path, value, Precondition::Absent).await {
                Ok(_) => {}
                // Another process was faster; it may have another secret.
                Err(Error::Conflict {
                    current: Some(record), ..
                }) => encrypted.verify(&[record])?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(encrypted)
    }

    fn verify(&self, records: &[Entry]) -> Result<(), EncryptedOpenError> {
        let faults: Vec<KeyFault> = records.iter().filter_map(|record| self.fault(record)).collect();
        if faults.is_empty() {
            return Ok(());
        }
        Err(EncryptedOpenError::Keys {
            faults,
            configured: self.policy.names(),
        })
    }

    fn fault(&self, record: &Entry) -> Option<KeyFault> {
        let name: Arc<str> = record.key.strip_prefix(KEYS)?.into();
        let Stored::Sealed { key, .. } = parse(&record.value) else {
            return Some(KeyFault::Wrong(name));
        };
        let names_itself = key == &*name;
        match self.policy.decrypt(&record.key, &record.value) {
            Ok(text) if text == RECORD && names_itself => None,
            Err(DecryptError::MissingKey { .. }) => Some(KeyFault::Missing(name)),
            _ => Some(KeyFault::Wrong(name)),
        }
    }

    fn record(&self, key: &EncryptionKey, path: &str) -> Result<Bytes> {
        let sealed = key.seal(path, RECORD);
        sealed.map_err(|_| Error::unavailable("the operating system gives no random bytes to encrypt with"))
    }

    /// Before anything is written under this policy, what says that everything has been rewritten for another one goes.
    async fn forget_other_policies(&self) -> Result<()> {
        let rewritten = self.store.get(REWRITTEN).await?.entry;
        let other = rewritten.filter(|entry| entry.value != self.policy.fingerprint());
        match other {
            None => Ok(()),
            Some(entry) => match self
                .store
                .delete(REWRITTEN, Precondition::Revision(entry.revision))
                .await
            {
                Ok(_) | Err(Error::Conflict { .. }) => Ok(()),
                Err(error) => Err(error),
            },
        }
    }

    /// Whether every value has been looked at for this policy.
    pub(super) async fn is_rewritten(&self) -> Result<bool> {
        let rewritten = self.store.get(REWRITTEN).await?.entry;
        Ok(rewritten.is_some_and(|entry| entry.value == self.policy.fingerprint()))
    }

    /// Writes down that every value has been looked at for this policy.
    pub(super) async fn set_rewritten(&self) -> Result<()> {
        let fingerprint = self.policy.fingerprint();
        self.store
            .put(REWRITTEN, fingerprint.into(), Precondition::None)
            .await?;
        Ok(())
    }

    /// The records of keys that nothing is written with any more.
    pub(super) async fn retired_keys(&self) -> Result<Vec<Entry>> {
        let mut records = self.store.range(RangeRequest::prefix(KEYS)).await?.entries;
        records.retain(|record| self.policy.writing_keys().all(|key| *path(key.name()) != *record.key));
        Ok(records)
    }
}

/// The names of the keys with which values of `store` may be encrypted.
///
/// # Errors
/// Those of the store.
pub async fn keys_in_use(store: &dyn Store) -> Result<Vec<String>> {
    let records = store.range(RangeRequest::prefix(KEYS)).await?.entries;
    let names = records.iter().filter_map(|record| record.key.strip_prefix(KEYS));
    Ok(names.map(str::to_owned).collect())
}

fn path(name: &str) -> String {
    format!("{KEYS}{name}")
}
