//! What the hub has let callers watch, for as long as there is room.
//!
//! A permission that changes leaves no trace in the revisions of the store. A watch that goes on from a revision at which
//! its caller saw something else would never get what has come into sight, nor be told of what has gone out of it. So every
//! list remembers what a watch of the same would show, and a watch from before that has changed is refused (410).
//!
//! It is the memory of one process: a client that lists at one replica and watches at another in the seconds in which its
//! permissions change is told by no one, and sees what has come into sight when it lists again. It never sees what it may
//! not: that is judged anew for every watch.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use umbra_auth::rbac::Visibility;
use umbra_storage::Revision;

/// How many are remembered: 8,192, as many as reviews (`AccessReviewOptions`), of some hundred bytes each.
const CAPACITY: usize = 8_192;

/// What callers could watch.
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    entries: HashMap<String, Entry>,
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    visibility: Arc<Visibility>,
    since: Revision,
    used: u64,
}

impl Memory {
    /// Since when that is what is visible, 0 where nothing else is remembered; `None` where something else is.
    pub(super) fn since(&self, key: &str, visibility: &Arc<Visibility>) -> Option<Revision> {
        let state = &mut *self.0.lock();
        state.uses += 1;
        match state.entries.get_mut(key) {
            Some(entry) => {
                entry.used = state.uses;
                (entry.visibility == *visibility).then_some(entry.since)
            }
            None => {
                state.insert(key, visibility, Revision(0));
                Some(Revision(0))
            }
        }
    }

    /// From that revision on, this is what is visible.
    pub(super) fn changed(&self, key: &str, visibility: &Arc<Visibility>, since: Revision) {
        let state = &mut *self.0.lock();
        state.uses += 1;
        state.insert(key, visibility, since);
    }
}

impl State {
    fn insert(&mut self, key: &str, visibility: &Arc<Visibility>, since: Revision) {
        if self.entries.len() >= CAPACITY && !self.entries.contains_key(key) {
            self.forget_half();
        }
        let entry = Entry {
            visibility: Arc::clone(visibility),
            since,
            used: self.uses,
        };
        self.entries.insert(key.to_owned(), entry);
    }

    /// Forgets those that were used longest ago. Half of them at once, so that it costs little for each that comes.
    fn forget_half(&mut self) {
        let mut uses: Vec<u64> = self.entries.values().map(|entry| entry.used).collect();
        let middle = uses.len() / 2;
        let (_, oldest_kept, _) = uses.select_nth_unstable(middle);
        let oldest_kept = *oldest_kept;
        self.entries.retain(|_, entry| entry.used >= oldest_kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> Arc<Visibility> {
        Arc::new(Visibility {
            namespaces: ["shop".to_owned()].into(),
            ..Visibility::default()
        })
    }

    #[test]
    fn a_change_is_noticed_and_dated() {
        let memory = Memory::default();
        let all = Arc::new(Visibility::everything());
        assert_eq!(memory.since("tina", &shop()), Some(Revision(0)));
        assert_eq!(memory.since("tina", &shop()), Some(Revision(0)));
        assert_eq!(memory.since("tina", &all), None);
        memory.changed("tina", &all, Revision(7));
        assert_eq!(memory.since("tina", &all), Some(Revision(7)));
        assert_eq!(memory.since("otto", &all), Some(Revision(0)));
    }

    #[test]
    fn those_used_last_are_kept() {
        let memory = Memory::default();
        for number in 0..CAPACITY {
            memory.changed(&number.to_string(), &shop(), Revision(1));
        }
        assert_eq!(memory.since("0", &shop()), Some(Revision(1)));
        memory.changed("one more", &shop(), Revision(1));
        assert!(memory.0.lock().entries.len() <= CAPACITY / 2 + 1);
        assert_eq!(memory.since("0", &shop()), Some(Revision(1)));
        assert_eq!(memory.since("1", &shop()), Some(Revision(0)), "forgotten");
    }
}
