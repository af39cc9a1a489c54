//! Encryption at rest: a [`Store`] that encrypts the values of configured resources on their way into another one.
//!
//! [`Encrypted`] stands between the caches and a backend. Above it everything is plain; below it are keys in plain text,
//! values that are not covered as they are, and the others encrypted ([`EncryptionPolicy`] says which, with what key). What
//! comes back, whether from reads, in watches (as it is and as it was before) or with a conflict, is decrypted. What is not
//! encrypted is passed on without being copied or parsed; the cost is a comparison with the ten bytes that every encrypted
//! value begins with.
//!
//! A value names its key, so keys are changed by listing two: the first of a resource's providers encrypts, all keys
//! decrypt. [`Encrypted::rewrite`] brings what is stored to the first key, and says when the other one can go. Until then a
//! hub without that key refuses to start ([`Encrypted::open`]), instead of failing at the first object.
//!
//! What it does not do: hide keys (names of objects), sizes, or what was written before encryption and has not been
//! overwritten on the disk yet; notice that a value was put back to an earlier one of the same key; or, where `identity` is
//! among the providers, notice that a value was replaced by a plain one.

mod configuration;
mod key;
mod policy;
mod records;
mod resource;
mod rewrite;
#[cfg(test)]
mod tests;
mod value;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};

pub use configuration::{ConfigurationError, ConfigurationFault, generate};
pub use key::{EncryptionKey, KeyError, SECRET_BYTES};
pub use policy::{DecryptError, EncryptionPolicy};
pub use records::{EncryptedOpenError, KeyFault, keys_in_use};
pub use resource::StoredResource;
pub use rewrite::{RewriteEvent, RewriteOptions};

use crate::{
    Entry, Error, GetResponse, Guard, Operation, RangeRequest, RangeResponse, Result, Revision, Store, WatchEvent,
    WatchStream,
};

/// Values decrypted before other tasks get their turn. One of 4 KB takes a few microseconds, so this is about a
/// millisecond.
const DECRYPTED_AT_ONCE: usize = 256;

/// A store that encrypts. Cheap to clone: clones are the same store.
#[derive(Debug, Clone)]
pub struct Encrypted {
    store: Arc<dyn Store>,
    policy: Arc<EncryptionPolicy>,
}

impl Encrypted {
    /// Encrypts what goes into `store`. Whether the keys are those of what is there already is not asked; see
    /// [`Encrypted::open`].
    #[must_use]
    pub fn new(store: Arc<dyn Store>, policy: EncryptionPolicy) -> Self {
        Self {
            store,
            policy: Arc::new(policy),
        }
    }

    /// What is encrypted.
    #[must_use]
    pub fn policy(&self) -> &EncryptionPolicy {
        &self.policy
    }

    /// What can be read of an entry.
    fn decrypt(&self, entry: &mut Entry) -> Result<()> {
        decrypt(&self.policy, entry)
    }

    /// The error of a write, with what the store holds instead made readable.
    fn decrypt_error(&self, error: Error) -> Error {
        match error {
            Error::Conflict {
                key,
                current: Some(mut current),
            } => match self.decrypt(&mut current) {
                Ok(()) => Error::Conflict {
                    key,
                    current: Some(current),
                },
                Err(error) => error,
            },
            other => other,
        }
    }

    fn encrypt(&self, operations: Vec<Operation>) -> Result<Vec<Operation>> {
        let encrypt = |operation| match operation {
            Operation::Put {
                key,
                value,
                precondition,
            } => Ok(Operation::Put {
                value: self.encrypt_value(&key, value)?,
                key,
                precondition,
            }),
            delete @ Operation::Delete { .. } => Ok(delete),
        };
        operations.into_iter().map(encrypt).collect()
    }

    fn encrypt_value(&self, key: &str, value: Bytes) -> Result<Bytes> {
        let encrypted = self.policy.encrypt(key, value);
        encrypted.map_err(|_| Error::unavailable("the operating system gives no random bytes to encrypt with"))
    }

    fn decrypt_outcomes(&self, outcomes: Vec<Result<Revision>>) -> Vec<Result<Revision>> {
        let decrypt = |outcome: Result<Revision>| outcome.map_err(|error| self.decrypt_error(error));
        outcomes.into_iter().map(decrypt).collect()
    }
}

fn decrypt(policy: &EncryptionPolicy, entry: &mut Entry) -> Result<()> {
    if policy.passes(&entry.value) {
        return Ok(());
    }
    match policy.decrypt(&entry.key, &entry.value) {
        Ok(value) => entry.value = value,
        Err(reason) => {
            return Err(Error::Encryption {
                key: Arc::clone(&entry.key),
                reason,
            });
        }
    }
    Ok(())
}

#[async_trait]
impl Store for Encrypted {
    async fn get(&self, key: &str) -> Result<GetResponse> {
        let mut response = self.store.get(key).await?;
        if let Some(entry) = &mut response.entry {
            self.decrypt(entry)?;
        }
        Ok(response)
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse> {
        let mut response = self.store.range(request).await?;
        let mut decrypted = 0;
        for entry in &mut response.entries {
            if self.policy.passes(&entry.value) {
                continue;
            }
            self.decrypt(entry)?;
            decrypted += 1;
            if decrypted % DECRYPTED_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        Ok(response)
    }

    async fn batch(&self, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        let count = operations.len();
        match self.encrypt(operations) {
            Ok(operations) => self.decrypt_outcomes(self.store.batch(operations).await),
            Err(error) => vec![Err(error); count],
        }
    }

    async fn batch_while(&self, guard: &Guard, operations: Vec<Operation>) -> Vec<Result<Revision>> {
        let count = operations.len();
        match self.encrypt(operations) {
            Ok(operations) => self.decrypt_outcomes(self.store.batch_while(guard, operations).await),
            Err(error) => vec![Err(error); count],
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        let events = self.store.watch(prefix, after).await?;
        let progress = events.progress_requests();
        let decrypted = Decrypted {
            policy: Arc::clone(&self.policy),
            events: Some(events),
        };
        Ok(WatchStream::new(decrypted, progress))
    }

    async fn current_revision(&self) -> Result<Revision> {
        self.store.current_revision().await
    }

    fn progress_on_request(&self) -> bool {
        self.store.progress_on_request()
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.store.compact(revision).await
    }

    async fn ready(&self) -> Result<()> {
        self.store.ready().await
    }
}

/// The events of a watch with their values decrypted. One that cannot be ends the watch: leaving it out would be worse.
struct Decrypted {
    policy: Arc<EncryptionPolicy>,
    /// `None` after the end.
    events: Option<WatchStream>,
}

impl Decrypted {
    fn decrypt(&self, mut event: WatchEvent) -> Result<WatchEvent> {
        match &mut event {
            WatchEvent::Put { entry, previous } => {
                decrypt(&self.policy, entry)?;
                if let Some(previous) = previous {
                    decrypt(&self.policy, previous)?;
                }
            }
            WatchEvent::Delete { previous, .. } => decrypt(&self.policy, previous)?,
            WatchEvent::Progress { .. } => {}
        }
        Ok(event)
    }
}

impl Stream for Decrypted {
    type Item = Result<WatchEvent>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(events) = &mut self.events else {
            return Poll::Ready(None);
        };
        let item = std::task::ready!(events.poll_next_unpin(context));
        let item = item.map(|event| event.and_then(|event| self.decrypt(event)));
        if !matches!(item, Some(Ok(_))) {
            self.events = None;
        }
        Poll::Ready(item)
    }
}
