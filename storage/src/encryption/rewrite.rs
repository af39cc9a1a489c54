//! Bringing what is stored to what the policy asks for.
//!
//! Every value is looked at once per policy. One that would be written otherwise now, with another key or in plain, is
//! written again if it has not changed meanwhile; whoever changes it meanwhile writes it as the policy asks. When all are
//! done, a key that nothing is written with any more is still needed for as long as the store keeps the states before.
//! After that its record goes, and it can be taken off the configuration.

use std::time::Duration;

use rand::RngExt;

use super::Encrypted;
use super::resource::ROOT;
use crate::{Entry, Error, Operation, Precondition, RangeRequest, Result, Revision};

/// How fast to go.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RewriteOptions {
    /// Values that are read, and written, at once. Default: 256; of 4.7 KB each they are a megabyte.
    pub page: usize,
    /// The time between two pages. Default: 50 ms, so 5,000 values are looked at per second: a store with 500,000 in 100 s.
    pub pause: Duration,
    /// Values written per second at most. Default: 1,000, a tenth of what the embedded store takes.
    pub writes_per_second: u32,
    /// How often to look whether the store has given up the states from before. Default: 30 s, as often as it compacts.
    pub history_interval: Duration,
    /// How long to wait before the first try again after the store failed; it doubles up to a minute, and is spread by
    /// half. Default: 1 s.
    pub retry: Duration,
}

impl Default for RewriteOptions {
    fn default() -> Self {
        Self {
            page: 256,
            pause: Duration::from_millis(50),
            writes_per_second: 1_000,
            history_interval: Duration::from_secs(30),
            retry: Duration::from_secs(1),
        }
    }
}

/// The longest time between two tries.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// How it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RewriteEvent {
    /// Another page has been looked at, and some of it written again.
    Progress {
        /// Values looked at since the start.
        examined: u64,
        /// Values written again since the start.
        rewritten: u64,
    },
    /// A value cannot be read with the keys that there are, for this reason; it stays as it is, and no key is given up.
    Unreadable(String),
    /// Everything is as the policy asks.
    Complete {
        /// Values looked at.
        examined: u64,
        /// Values written again.
        rewritten: u64,
    },
    /// Everything is as the policy asks, except for the states before now, for which these keys are needed as long as the
    /// store keeps them.
    Waiting {
        /// The names of the keys.
        keys: Vec<String>,
    },
    /// Nothing that can be read needs this key any more: it can be taken off the configuration.
    Retired {
        /// The name of the key.
        key: String,
    },
    /// The store failed, for this reason; it is tried again.
    Interrupted(String),
}

#[derive(Debug, Default)]
struct Pass {
    examined: u64,
    rewritten: u64,
    /// Values that changed meanwhile, or may have.
    contended: u64,
    unreadable: u64,
    /// The last key that is done.
    after: Option<String>,
}

impl Encrypted {
    /// Rewrites everything that is stored otherwise than the policy asks, and tells how it goes. Returns at once where all
    /// has been done before, and else when it is done and the old keys are retired, or when values cannot be read. The
    /// store may fail meanwhile.
    ///
    /// Cancel safe: what is done stays done.
    pub async fn rewrite(&self, options: &RewriteOptions, mut tell: impl FnMut(RewriteEvent) + Send) {
        let mut pass = Pass::default();
        let mut failures = 0;
        loop {
            match self.rewrite_all(options, &mut pass, &mut tell).await {
                Ok(()) => return,
                Err(error) => {
                    tell(RewriteEvent::Interrupted(error.to_string()));
                    tokio::time::sleep(retry_after(options.retry, failures)).await;
                    failures += 1;
                }
            }
        }
    }

    async fn rewrite_all(
        &self,
        options: &RewriteOptions,
        pass: &mut Pass,
        tell: &mut (impl FnMut(RewriteEvent) + Send),
    ) -> Result<()> {
        if self.is_rewritten().await? && self.retired_keys().await?.is_empty() {
            return Ok(());
        }
        loop {
            self.pass(options, pass, tell).await?;
            if pass.unreadable > 0 {
                return Ok(());
            }
            if pass.contended == 0 {
                break;
            }
            pass.contended = 0;
            pass.after = None;
            tokio::time::sleep(options.pause).await;
        }
        tell(RewriteEvent::Complete {
            examined: pass.examined,
            rewritten: pass.rewritten,
        });
        let revision = self.store.current_revision().await?;
        self.set_rewritten().await?;
        self.retire_keys(options, revision, tell).await
    }

    /// Looks at everything after what is done already.
    async fn pass(
        &self,
        options: &RewriteOptions,
        pass: &mut Pass,
        tell: &mut (impl FnMut(RewriteEvent) + Send),
    ) -> Result<()> {
        loop {
            let request = RangeRequest {
                prefix: ROOT.to_owned(),
                start_after: pass.after.clone(),
                limit: options.page,
                ..RangeRequest::default()
            };
            let page = self.store.range(request).await?;
            let last = page.entries.last().map(|entry| entry.key.to_string());
            let examined = page.entries.len() as u64;
            let stale = self.stale(page.entries, pass, tell)?;
            let writes = u32::try_from(stale.len()).unwrap_or(u32::MAX);
            self.write_again(stale, pass).await?;
            pass.examined += examined;
            if last.is_some() {
                pass.after = last;
            }
            if writes > 0 {
                tell(RewriteEvent::Progress {
                    examined: pass.examined,
                    rewritten: pass.rewritten,
                });
            }
            if !page.more {
                return Ok(());
            }
            let pace = Duration::from_secs(1) * writes / options.writes_per_second.max(1);
            tokio::time::sleep(options.pause.max(pace)).await;
        }
    }

    /// What has to be written again, as it was read.
    fn stale(
        &self,
        entries: Vec<Entry>,
        pass: &mut Pass,
        tell: &mut (impl FnMut(RewriteEvent) + Send),
    ) -> Result<Vec<Operation>> {
        let mut operations = Vec::new();
        for mut entry in entries {
            // The records of this module are encrypted under rules of their own.
            if entry.key.starts_with(RECORDS) || !self.policy.is_stale(&entry.key, &entry.value) {
                continue;
            }
            match self.decrypt(&mut entry) {
                Ok(()) => {
                    let value = self.encrypt_value(&entry.key, entry.value)?;
                    operations.push(Operation::put(entry.key, value, Precondition::Revision(entry.revision)));
                }
                Err(error) => {
                    pass.unreadable += 1;
                    tell(RewriteEvent::Unreadable(error.to_string()));
                }
            }
        }
        Ok(operations)
    }

    async fn write_again(&self, operations: Vec<Operation>, pass: &mut Pass) -> Result<()> {
        if operations.is_empty() {
            return Ok(());
        }
        for outcome in self.store.batch(operations).await {
            match outcome {
                Ok(_) => pass.rewritten += 1,
                Err(Error::Conflict { .. } | Error::NotFound { .. }) => pass.contended += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until the states before `revision` are gone, and removes the records of keys that nothing needs then.
    async fn retire_keys(
        &self,
        options: &RewriteOptions,
        revision: Revision,
        tell: &mut (impl FnMut(RewriteEvent) + Send),
    ) -> Result<()> {
        let retired = self.retired_keys().await?;
        if retired.is_empty() {
            return Ok(());
        }
        let name = |record: &Entry| record.key.rsplit('/').next().unwrap_or_default().to_owned();
        tell(RewriteEvent::Waiting {
            keys: retired.iter().map(name).collect(),
        });
        while !self.is_compacted(revision).await? {
            tokio::time::sleep(options.history_interval).await;
        }
        for record in retired {
            let precondition = Precondition::Revision(record.revision);
            match self.store.delete(&record.key, precondition).await {
                Ok(_) => tell(RewriteEvent::Retired { key: name(&record) }),
                // Another process has removed it, or uses it again.
                Err(Error::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn is_compacted(&self, revision: Revision) -> Result<bool> {
        let request = RangeRequest::prefix(RECORDS).at(revision).limit(1);
        match self.store.range(request).await {
            Ok(_) => Ok(false),
            Err(Error::Compacted { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Where the records of this module are.
const RECORDS: &str = "/umbra/encryption/";

fn retry_after(first: Duration, failures: u32) -> Duration {
    let doubled = first
        .saturating_mul(2_u32.saturating_pow(failures.min(16)))
        .min(LONGEST_RETRY);
    doubled.mul_f64(rand::rng().random_range(0.5..1.0))
}
