//! Where the keys come from, and what a person is told about them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow, bail};
use umbra_auth::certificates::write_private;
use umbra_storage::Store;
use umbra_storage::encryption::{
    Encrypted, EncryptedOpenError, EncryptionPolicy, RewriteEvent, StoredResource, generate, keys_in_use,
};
use zeroize::Zeroizing;

use crate::up::data_dir::DataDir;

/// The resource that is encrypted unless somebody says otherwise.
const SECRETS: StoredResource<'static> = StoredResource {
    group: "",
    resource: "secrets",
};

/// What the keys are taken from.
#[derive(Debug)]
pub(super) struct Provider {
    path: PathBuf,
    /// Whether the file was named by whoever started the hub.
    named: bool,
}

impl Provider {
    /// The file that is named, or the hub's own. Reads it, where it is there, and adds what is wrong with it to `faults`.
    pub(super) fn new(named: Option<&Path>, data: &DataDir, faults: &mut Vec<String>) -> Option<Self> {
        let provider = Self {
            path: named.map_or_else(|| data.encryption_key_file(), Path::to_owned),
            named: named.is_some(),
        };
        match provider.read() {
            Ok(_) => Some(provider),
            Err(error) => {
                faults.push(format!("{error:#}"));
                None
            }
        }
    }

    /// Where the keys are, for people.
    pub(super) fn place(&self) -> String {
        self.path.display().to_string()
    }

    /// What the file says; `None` where the hub's own is not there.
    fn read(&self) -> Result<Option<EncryptionPolicy>> {
        let flag = if self.named {
            " (--encryption-provider-config)"
        } else {
            ""
        };
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.named => return Ok(None),
            Err(error) => bail!("cannot read {}{flag}: {error}", self.path.display()),
        };
        let policy = EncryptionPolicy::parse(&text).map_err(|faults| {
            anyhow!(
                "{}{flag} is no encryption configuration:\n  {faults}",
                self.path.display()
            )
        })?;
        Ok(Some(policy))
    }

    /// Puts encryption before a store.
    ///
    /// # Errors
    /// Where keys that the stored values need are not there, with what to do about it.
    pub(super) async fn open(&self, store: Arc<dyn Store>) -> Result<Encrypted> {
        let policy = match self.read()? {
            Some(policy) => policy,
            None => self.generate(&*store).await?,
        };
        if !policy.encrypts(SECRETS) {
            tracing::warn!(configuration = %self.path.display(), "Secrets are not encrypted at rest");
        }
        Encrypted::open(store, policy)
            .await
            .map_err(|error| self.explain(error))
    }

    /// Makes the hub's own file, unless the store has values that need another one.
    async fn generate(&self, store: &dyn Store) -> Result<EncryptionPolicy> {
        let needed = keys_in_use(store).await.context("the store cannot be read")?;
        if !needed.is_empty() {
            bail!(
                "what this hub stores is encrypted with the key {}, and {} with that key is not there; restore it from a \
                 backup, or name the file that has the key with --encryption-provider-config. Without the key, what is \
                 encrypted cannot be read by anybody",
                needed.join(", "),
                self.path.display()
            );
        }
        let name = format!("key-{:08x}", rand::random::<u32>());
        let no_random = |_| anyhow!("the operating system gives no random bytes to make a key of");
        let text = generate(&name).map_err(no_random)?;
        write_private(&self.path, text.as_bytes()).with_context(|| format!("cannot write {}", self.path.display()))?;
        EncryptionPolicy::parse(&text).context("the file that was just made is not understood")
    }

    fn explain(&self, error: EncryptedOpenError) -> anyhow::Error {
        let EncryptedOpenError::Keys { .. } = &error else {
            return error.into();
        };
        let path = self.path.display();
        anyhow!(
            "what this hub stores cannot be decrypted with the keys in {path}: {error}. Add the key to that file after the \
             first one, with the secret it had (a backup has it); keys may go once the hub has said so"
        )
    }
}

/// Tells how rewriting goes: what somebody waits for to the person who runs the hub, the rest to the log.
pub(super) fn tell(event: &RewriteEvent, place: &str) {
    match event {
        RewriteEvent::Progress { examined, rewritten } => {
            tracing::info!(examined, rewritten, "rewriting what is stored under the current keys");
        }
        RewriteEvent::Complete { examined, rewritten: 0 } => {
            tracing::info!(examined, "everything is stored under the current keys");
        }
        RewriteEvent::Complete { rewritten, .. } => {
            eprintln!(
                "encryption: {rewritten} values were rewritten as {place} says; what they were before may remain in unused parts of the disk"
            );
        }
        RewriteEvent::Waiting { keys } => {
            eprintln!(
                "encryption: {} still needed for the history; do not remove it from {place} yet",
                list(keys)
            );
        }
        RewriteEvent::Retired { key } => {
            eprintln!("encryption: the key {key} is not needed any more and can be removed from {place}");
        }
        RewriteEvent::Unreadable(reason) => tracing::error!(reason, "a stored value cannot be decrypted"),
        RewriteEvent::Interrupted(reason) => {
            tracing::warn!(reason, "rewriting what is stored under the current keys is interrupted");
        }
    }
}

fn list(keys: &[String]) -> String {
    match keys {
        [key] => format!("the key {key} is"),
        keys => format!("the keys {} are", keys.join(", ")),
    }
}
