//! What has been witnessed of a store, and whether it survives a crash.

use std::collections::BTreeMap;

use futures::StreamExt;

use crate::{Entry, RangeRequest, Revision, Store, WatchEvent};

/// A change that somebody was told of: its key, and its value unless it was a deletion.
type Change = (String, Option<String>);

/// Everything that somebody was told of a store: in answers to writes, and in watches.
#[derive(Debug, Default)]
pub(crate) struct Witnessed {
    changes: BTreeMap<u64, Change>,
    newest: u64,
}

impl Witnessed {
    /// Somebody was told that the store is at this revision.
    pub(crate) fn revision(&mut self, revision: u64) {
        self.newest = self.newest.max(revision);
    }

    /// Somebody was told of this change.
    ///
    /// # Errors
    /// Somebody else was told of another one at the same revision.
    pub(crate) fn change(&mut self, revision: u64, key: &str, value: Option<&str>) -> Result<(), String> {
        self.revision(revision);
        let change = (key.to_owned(), value.map(str::to_owned));
        match self.changes.insert(revision, change.clone()) {
            Some(other) if other != change => Err(format!("{revision} is {change:?} and {other:?}")),
            _ => Ok(()),
        }
    }

    /// How many changes somebody was told of.
    pub(crate) fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether all of it is in the store, whose history begins at `oldest` and has a change at every revision since. What
    /// the store holds counts as witnessed afterwards.
    ///
    /// # Errors
    /// What is not.
    pub(crate) async fn verify(&mut self, store: &dyn Store, oldest: Revision) -> Result<(), String> {
        let text = |error: crate::Error| error.to_string();
        let present = store.range(RangeRequest::default()).await.map_err(text)?;
        if present.revision.0 < self.newest {
            return Err(format!(
                "the store is at {}, and {} had been seen",
                present.revision, self.newest
            ));
        }
        let start = store.range(RangeRequest::default().at(oldest)).await.map_err(text)?;
        let start: BTreeMap<_, _> = start
            .entries
            .into_iter()
            .map(|entry| (entry.key.clone(), entry))
            .collect();
        self.survive_compaction(&start, oldest)?;

        let mut state = start;
        let mut log = BTreeMap::new();
        let mut watch = store.watch("", oldest).await.map_err(text)?;
        for expected in oldest.0 + 1..=present.revision.0 {
            let event = watch.next().await.ok_or("the watch has ended")?.map_err(text)?;
            if event.revision().0 != expected {
                return Err(format!("the log has {} where {expected} should be", event.revision()));
            }
            let (change, before, previous) = match event {
                WatchEvent::Put { entry, previous } => {
                    let change = change_of(&entry);
                    (change, state.insert(entry.key.clone(), entry), previous)
                }
                WatchEvent::Delete { key, previous, .. } => {
                    ((key.to_string(), None), state.remove(&key), Some(previous))
                }
                WatchEvent::Progress { .. } => return Err("progress that nobody asked for".to_owned()),
            };
            if before != previous {
                return Err(format!(
                    "{change:?} at {expected} replaces {previous:?}, and {before:?} was there"
                ));
            }
            log.insert(expected, change);
        }
        if !state.into_values().eq(present.entries.iter().cloned()) {
            return Err("the log does not lead to the present".to_owned());
        }
        for (revision, change) in self.changes.range(oldest.0 + 1..) {
            if log.get(revision) != Some(change) {
                return Err(format!(
                    "{change:?} at {revision} is {:?} in the log",
                    log.get(revision)
                ));
            }
        }
        self.newest = present.revision.0;
        self.changes = log;
        self.changes
            .extend(present.entries.iter().map(|entry| (entry.revision.0, change_of(entry))));
        Ok(())
    }

    /// What lies before the history that is kept is still there, or something later has taken its place.
    fn survive_compaction(&self, start: &BTreeMap<std::sync::Arc<str>, Entry>, oldest: Revision) -> Result<(), String> {
        let mut latest = BTreeMap::new();
        for (revision, (key, value)) in self.changes.range(..=oldest.0) {
            latest.insert(key, (revision, value));
        }
        for (key, (revision, value)) in latest {
            let found = start.get(key.as_str());
            let survives = match (found, value) {
                (Some(entry), Some(_)) if entry.revision.0 == *revision => change_of(entry).1 == *value,
                (Some(entry), _) => entry.revision.0 > *revision,
                // Deleted since, at a revision that nobody was told of; there is none at the very end.
                (None, Some(_)) => *revision < oldest.0,
                (None, None) => true,
            };
            if !survives {
                return Err(format!(
                    "{key} was {value:?} at {revision}, and at {oldest} it is {found:?}"
                ));
            }
        }
        Ok(())
    }
}

fn change_of(entry: &Entry) -> Change {
    let value = String::from_utf8_lossy(&entry.value).trim_start_matches('0').to_owned();
    (entry.key.to_string(), Some(value))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::fault::Fault;
    use super::super::reference::Reference;
    use super::*;
    use crate::Precondition;

    /// Writes to a store that then crashes, and verifies what is left of it.
    async fn crash(fault: Option<Fault>, compact: bool) -> Result<(), String> {
        let store = Arc::new(Reference::new(fault));
        let mut witnessed = Witnessed::default();
        for (key, value) in [("/a", "1"), ("/b", "2"), ("/a", "3")] {
            let revision = store.put(key, value.into(), Precondition::None).await.unwrap();
            witnessed.change(revision.0, key, Some(value))?;
        }
        let deletion = store.delete("/b", Precondition::None).await.unwrap();
        witnessed.change(deletion.0, "/b", None)?;
        let last = store.put("/c", "4".into(), Precondition::None).await.unwrap();
        witnessed.change(last.0, "/c", Some("4"))?;
        let mut oldest = Revision::INITIAL;
        if compact {
            oldest = Revision(last.0 - 1);
            store.compact(oldest).await.unwrap();
        }
        let store = store.crashed();
        witnessed.verify(&store, oldest).await?;
        // Nothing new has happened: it holds again.
        witnessed.verify(&store, oldest).await
    }

    #[tokio::test]
    async fn a_lost_write_is_noticed() {
        for compact in [false, true] {
            assert_eq!(crash(None, compact).await, Ok(()));
            let error = crash(Some(Fault::LastWriteIsNotDurable), compact).await.unwrap_err();
            assert!(error.contains("had been seen"), "{error}");
        }
        assert!(crash(Some(Fault::CompactionForgetsTheOld), true).await.is_err());
    }

    #[tokio::test]
    async fn what_was_seen_and_is_not_there_is_noticed() {
        let store = Reference::new(None);
        let revision = store.put("/a", "1".into(), Precondition::None).await.unwrap();
        let mut witnessed = Witnessed::default();
        witnessed.change(revision.0, "/a", Some("2")).unwrap();
        assert!(witnessed.change(revision.0, "/a", Some("3")).is_err());
        assert!(witnessed.verify(&store, Revision::INITIAL).await.is_err());
    }
}
