//! How far each resource of a cluster has been copied, kept in the store, so that whoever copies next goes on from there
//! instead of listing everything.
//!
//! One record for each cluster, `/umbra/positions/{cluster}`, written now and then: it may lag behind the copies, but is never
//! ahead of them. What the watch delivers a second time is recognised by the copies themselves ([`Replay`]). Copies are
//! erased only after their position is.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use umbra_apimachinery::gvk::GroupResource;
use umbra_storage::{Error, Operation, Precondition, Store};

/// Where positions are.
const POSITIONS: &str = "/umbra/positions/";
/// How often positions are written while they move. Bookmarks move them every minute even where nothing happens: so 200
/// clusters cost 13 writes a second, and who goes on has 15 s of events to look at again.
pub(super) const SAVE_INTERVAL: Duration = Duration::from_secs(15);

/// Where the positions of a cluster are.
pub(super) fn positions_key(cluster: &str) -> String {
    format!("{POSITIONS}{cluster}")
}

/// How far a resource has been copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Position {
    /// The version of the resource that was copied: objects look different in another one.
    pub(super) version: String,
    /// Everything up to this revision of the child is in the copies.
    pub(super) resource_version: u64,
}

type ByResource = BTreeMap<GroupResource, Position>;

/// The positions of one cluster.
#[derive(Debug)]
pub(crate) struct Positions {
    key: String,
    store: Arc<dyn Store>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    positions: ByResource,
    changed: bool,
}

impl Positions {
    pub(super) fn new(cluster: &str, store: Arc<dyn Store>) -> Self {
        Self {
            key: positions_key(cluster),
            store,
            state: Mutex::default(),
        }
    }

    /// Reads what was written last. What cannot be read is as good as nothing: everything is listed.
    pub(super) async fn load(&self) -> Result<(), Error> {
        let found = self.store.get(&self.key).await?.entry;
        let read = found.and_then(|entry| serde_json::from_slice::<Vec<(GroupResource, Position)>>(&entry.value).ok());
        self.state.lock().positions = read.into_iter().flatten().collect();
        Ok(())
    }

    pub(super) fn get(&self, resource: &GroupResource) -> Option<Position> {
        self.state.lock().positions.get(resource).cloned()
    }

    /// Notes that everything up to a revision has been copied. One that is no number (KEP-5504) cannot be gone on from.
    pub(super) fn set(&self, resource: &GroupResource, version: &str, resource_version: &str) {
        let position = resource_version.parse().ok().map(|resource_version| Position {
            version: version.to_owned(),
            resource_version,
        });
        let mut state = self.state.lock();
        if state.positions.get(resource) == position.as_ref() {
            return;
        }
        match position {
            Some(position) => drop(state.positions.insert(resource.clone(), position)),
            None => drop(state.positions.remove(resource)),
        }
        state.changed = true;
    }

    /// Forgets a resource, in the store too: its copies may be erased then.
    pub(super) async fn forget(&self, resource: &GroupResource) -> Result<(), Error> {
        {
            let mut state = self.state.lock();
            if state.positions.remove(resource).is_none() {
                return Ok(());
            }
            state.changed = true;
        }
        self.save().await
    }

    /// Writes the positions, where they have moved.
    pub(super) async fn save(&self) -> Result<(), Error> {
        let positions: Vec<(GroupResource, Position)> = {
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.changed) {
                return Ok(());
            }
            state.positions.clone().into_iter().collect()
        };
        let value = serde_json::to_vec(&positions).expect("positions are texts and numbers");
        let saved = self.store.put(&self.key, value.into(), Precondition::None).await;
        if saved.is_err() {
            self.state.lock().changed = true;
        }
        saved.map(drop)
    }
}

/// Events that may have been copied before. Who copied last got further than its position says, and how far is not known; so
/// an event is left out where the copy is as new as the event, and a copy that is not there is made only at the end of the
/// replay: its deletion may be among the events that follow. A copy that has been made and deleted in the meantime does
/// thus not come to life again for a moment.
#[derive(Debug)]
pub(super) struct Replay {
    /// The copies that are there: their keys and the child's revisions.
    present: HashMap<String, u64>,
    /// The revision of the child when the replay began. What is newer cannot have been copied.
    until: u64,
    /// Copies to be made at the end.
    waiting: BTreeMap<String, Operation>,
}

impl Replay {
    pub(super) fn new(present: HashMap<String, u64>, until: u64) -> Self {
        Self {
            present,
            until,
            waiting: BTreeMap::new(),
        }
    }

    /// What is left to write of an event about `key` at a revision of the child.
    pub(super) fn filter(&mut self, key: String, at: u64, operation: Operation) -> Option<Operation> {
        let copied = self.present.get(&key).copied();
        let deletes = matches!(operation, Operation::Delete { .. });
        match copied {
            Some(copied) if copied > at || (copied == at && !deletes) => None,
            Some(_) => {
                if deletes {
                    self.present.remove(&key);
                } else {
                    self.present.insert(key, at);
                }
                Some(operation)
            }
            None => {
                if deletes {
                    self.waiting.remove(&key);
                } else {
                    self.waiting.insert(key, operation);
                }
                None
            }
        }
    }

    /// Whether what comes after this revision is new.
    pub(super) fn ends_at(&self, at: u64) -> bool {
        at >= self.until
    }

    /// What has waited for the end.
    pub(super) fn take_waiting(&mut self) -> Vec<Operation> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_storage::Embedded;

    fn put(key: &str) -> Operation {
        Operation::put(key, "", Precondition::None)
    }

    fn delete(key: &str) -> Operation {
        Operation::delete(key, Precondition::None)
    }

    #[test]
    fn what_has_been_copied_is_left_out_and_what_is_gone_stays_so() {
        let mut replay = Replay::new([("kept".to_owned(), 5), ("made-again".to_owned(), 9)].into(), 20);
        let mut written = |key: &str, at, operation| replay.filter(key.to_owned(), at, operation).is_some();
        assert!(!written("kept", 5, put("kept")));
        assert!(written("kept", 6, put("kept")) && !written("kept", 6, put("kept")));
        assert!(!written("made-again", 8, delete("made-again")));
        // Made and deleted before, or not seen at all: either way there is nothing to write.
        assert!(!written("gone", 10, put("gone")) && !written("gone", 11, delete("gone")));
        assert!(!written("new", 12, put("new")));
        assert!(written("kept", 13, delete("kept")));
        assert!(!written("kept", 14, put("kept")));
        assert!(!replay.ends_at(19) && replay.ends_at(20));
        let left: Vec<String> = replay.take_waiting().iter().map(|one| one.key().to_string()).collect();
        assert_eq!(left, ["kept", "new"]);
    }

    #[tokio::test]
    async fn positions_are_found_again_until_they_are_forgotten() {
        let store: Arc<dyn Store> = Arc::new(Embedded::in_memory());
        let (pods, nodes) = (GroupResource::new("", "pods"), GroupResource::new("", "nodes"));
        let positions = Positions::new("east", Arc::clone(&store));
        positions.set(&pods, "v1", "7");
        positions.set(&nodes, "v1", "not a number");
        positions.save().await.unwrap();
        let revision = store.current_revision().await.unwrap();
        positions.save().await.unwrap();
        assert_eq!(store.current_revision().await.unwrap(), revision, "nothing has moved");
        let again = Positions::new("east", Arc::clone(&store));
        again.load().await.unwrap();
        assert_eq!(again.get(&pods).map(|one| one.resource_version), Some(7));
        assert_eq!(again.get(&nodes), None);
        again.forget(&pods).await.unwrap();
        positions.load().await.unwrap();
        assert_eq!(positions.get(&pods), None);
    }
}
