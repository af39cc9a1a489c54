//! The database that reads go to. After a failure another one takes its place, opened on the same medium.
//!
//! To drop a database invalidates its read transactions: they fail with an interruption and are begun again on the next
//! one. So a reader never sees pages that the next database uses for something else.

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use super::failure::Failure;
use crate::{Error, Result};

/// How long a read waits for a database that is being opened again: opening takes milliseconds, where the disk works.
const PATIENCE: Duration = Duration::from_secs(5);

/// Holds the database while there is one.
#[derive(Debug)]
pub(super) struct Slot {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    content: Content,
    /// Rises whenever a database is put in.
    generation: u64,
    /// It has been closed, and the database too.
    released: bool,
}

#[derive(Debug)]
enum Content {
    Database(Database),
    /// It has been taken out and another one is being opened.
    Empty,
    /// It could not be opened again so far.
    Failed(Error),
    Closed,
}

/// Identifies a database that was in the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

impl Slot {
    pub(super) fn new(database: Database) -> Self {
        Self {
            state: Mutex::new(State {
                content: Content::Database(database),
                generation: 0,
                released: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Begins to read, on a database later than `after`. Waits for one for some seconds. The inner error is the
    /// database's.
    pub(super) fn begin_read(
        &self,
        after: Option<Generation>,
    ) -> Result<(Generation, Result<ReadTransaction, Failure>)> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        loop {
            match &state.content {
                Content::Database(database) if after.is_none_or(|after| after.0 < state.generation) => {
                    let begun = Failure::guard(|| Ok(database.begin_read()?));
                    return Ok((Generation(state.generation), begun));
                }
                Content::Database(_) | Content::Empty => {}
                Content::Failed(error) => return Err(error.clone()),
                Content::Closed => return Err(Error::unavailable("it has been closed")),
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                return Err(Error::unavailable("it is being opened again after a failure"));
            }
        }
    }

    /// Begins to write; for the writer alone.
    pub(super) fn begin_write(&self) -> Result<WriteTransaction, Failure> {
        match &self.state.lock().content {
            // Nobody waits for the lock meanwhile: there is one writer, so that this never waits for another one.
            Content::Database(database) => super::open::begin(database),
            _ => Err(Failure::Database(redb::Error::DatabaseClosed)),
        }
    }

    /// Which database is there, or was last.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.state.lock().generation)
    }

    /// Whether this database is still there.
    pub(super) fn holds(&self, generation: Generation) -> bool {
        let state = self.state.lock();
        matches!(state.content, Content::Database(_)) && state.generation == generation.0
    }

    /// Whether a database is there.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state.lock().content, Content::Database(_))
    }

    /// Takes the database out and closes it. Readers wait for the next.
    pub(super) fn empty(&self) {
        self.replace(Content::Empty);
    }

    /// Puts a database in.
    pub(super) fn put(&self, database: Database) {
        self.state.lock().generation += 1;
        self.replace(Content::Database(database));
    }

    /// Lets readers know why there is none.
    pub(super) fn fail(&self, error: Error) {
        self.replace(Content::Failed(error));
    }

    /// Closes the database for good, then lets go of what is below it.
    pub(super) fn close(&self, release: impl FnOnce()) {
        self.replace(Content::Closed);
        release();
        self.state.lock().released = true;
        self.changed.notify_all();
    }

    /// Blocks until [`close`](Self::close) has been called and is done.
    pub(super) fn wait_until_closed(&self) {
        let mut state = self.state.lock();
        while !state.released {
            self.changed.wait(&mut state);
        }
    }

    fn replace(&self, content: Content) {
        let previous = {
            let mut state = self.state.lock();
            if matches!(state.content, Content::Closed) {
                return;
            }
            self.changed.notify_all();
            std::mem::replace(&mut state.content, content)
        };
        // Closing writes, and may panic where the database has panicked before.
        if let Err(failure) = Failure::guard(|| {
            drop(previous);
            Ok::<_, Failure>(())
        }) {
            tracing::warn!(%failure, "the database did not close well");
        }
    }
}
