//! What the writer does when the database has failed: it opens it again, by itself, until it works.
//!
//! After a failed write the database refuses everything. The first thing is therefore to open it again at once, so that
//! reads go on (on a disk that takes no writes at all, from what is in the file: `overlay`), and to look whether the transaction that failed is in the file: a transaction is there as a whole or not at
//! all. If it is, its events are delivered and its callers hear that it has succeeded; if it is not, they hear that nothing
//! has changed. Only where the file cannot be opened do they hear that the outcome is unknown; then it is settled, and its
//! events delivered, when the file can be opened. No revision is given out twice: the next one follows what the file has.
//!
//! Then writes are refused with the reason, and [`Store::ready`](crate::Store::ready) fails with it, until the medium takes
//! a probe. That is tried again and again with a pause that doubles, up to [`PAUSES`], with jitter; the pause only begins
//! anew after a write has succeeded, so that a disk that fails with every write is not asked more often than that. A system
//! call that hangs cannot be cut short; the writer is a thread of its own, reads wait for a database for some seconds
//! (`slot`), and requests have deadlines of their own.

use std::time::{Duration, Instant};

use rand::RngExt;
use redb::ReadableDatabase;

use super::OpenError;
use super::failure::{Failure, explain_io};
use super::open::{open_on, open_read_only};
use super::read::Reader;
use super::tables::Marks;
use super::writer::{Command, Writer};
use crate::{Error, Revision};

/// The pause before the first and between later attempts: a moment for what is transient, and little enough for whoever
/// frees space and waits. Each is drawn between half of it and all.
const PAUSES: (Duration, Duration) = if cfg!(test) {
    // Tests go through hundreds of failures.
    (Duration::from_millis(1), Duration::from_millis(20))
} else {
    (Duration::from_millis(100), Duration::from_secs(5))
};

/// Why the writer does not write, and when it looks again.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) error: Error,
    next: Instant,
    /// Trying again would not help.
    permanent: bool,
}

impl Trouble {
    /// How long until the next attempt.
    pub(super) fn pause(&self) -> Option<Duration> {
        (!self.permanent).then(|| self.next.saturating_duration_since(Instant::now()))
    }
}

impl Writer {
    /// Takes the database out of use after a failure and opens it again. Answers whether that has worked; then the marks are
    /// those of the file.
    pub(super) fn fail(&mut self, failure: &Failure) -> bool {
        let reason = failure.explain("writing", self.medium.path());
        tracing::error!(reason, "the store has failed; it is opened again");
        let error = if failure.is_damage() {
            Error::Damaged { message: reason.into() }
        } else {
            Error::unavailable(reason)
        };
        self.refuse(error);
        self.slot.empty();
        // Readers of what was taken out look again.
        self.hub.fail(self.trouble_error());
        let opened = self.reopen();
        if opened {
            // A disk that works again, as after a hiccup, is not waited for.
            self.probe();
        }
        opened
    }

    /// Looks whether the store works again.
    pub(super) fn try_again(&mut self) {
        if self.slot.is_open() && !self.read_only {
            self.probe();
        } else if !self.read_only || self.works() {
            // What serves reads meanwhile is only given up where there is hope.
            self.slot.empty();
            if self.reopen() {
                self.probe();
            }
        }
    }

    /// Waits for a command until the next attempt is due.
    pub(super) fn receive_in_trouble(&mut self, pause: Option<Duration>) -> Received {
        let Some(pause) = pause else {
            return self
                .commands
                .blocking_recv()
                .map_or(Received::Closed, Received::Command);
        };
        let runtime = self.timer.get_or_insert_with(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime of this thread needs nothing but memory")
        });
        let commands = &mut self.commands;
        match runtime.block_on(async { tokio::time::timeout(pause, commands.recv()).await }) {
            Ok(Some(command)) => Received::Command(command),
            Ok(None) => Received::Closed,
            Err(_) => Received::Due,
        }
    }

    fn reopen(&mut self) -> bool {
        self.read_only = false;
        match open_on(&*self.medium, self.cache_bytes, true) {
            Ok((database, marks)) => self.take_up(database, marks),
            Err(error) => {
                self.refuse(reopening_error(&error));
                self.serve_reads();
                false
            }
        }
    }

    /// Lets reads go on where the medium can be read at least. A write whose outcome is unknown must not be seen before it
    /// is certain: where it is in the file, reads wait too.
    fn serve_reads(&mut self) {
        match open_read_only(&*self.medium, self.cache_bytes) {
            Ok((database, marks)) if marks.revision == self.hub.published().0 => {
                self.read_only = true;
                self.slot.put(database);
            }
            _ => self.slot.fail(self.trouble_error()),
        }
    }

    /// Goes on with a database that has been opened again: delivers what has been committed without anybody having been
    /// told.
    fn take_up(&mut self, database: redb::Database, marks: Marks) -> bool {
        if let Err(error) = self.deliver(&database, marks) {
            self.refuse(error);
            self.slot.fail(self.trouble_error());
            return false;
        }
        self.marks = marks;
        self.hub.set_compacted(Revision(marks.compacted));
        self.slot.put(database);
        true
    }

    fn deliver(&mut self, database: &redb::Database, marks: Marks) -> Result<(), Error> {
        let published = self.hub.published();
        if marks.revision < published.0 {
            self.lost = true;
            return Err(Error::Damaged {
                message: format!(
                    "{} is at revision {}, but revision {published} had been acknowledged; stop the hub, and restore a backup unless the file can be had back",
                    self.medium.path().display(),
                    marks.revision
                )
                .into(),
            });
        }
        let mut after = published;
        let until = Revision(marks.revision);
        while after < until {
            let replay = Failure::guard(|| {
                let transaction = database.begin_read()?;
                Reader::begin(&transaction)?.replay("", after, until)
            });
            let replay = replay.map_err(|failure| failure.to_error("reading", self.medium.path()))??;
            self.hub.publish(&replay.events, replay.until);
            after = replay.until;
        }
        Ok(())
    }

    /// Lets writes in again if the medium takes them.
    fn probe(&mut self) {
        if self.works() {
            if self.trouble.take().is_some() {
                tracing::info!(path = %self.medium.path().display(), "the store works again");
            }
            self.hub.recover();
        }
    }

    /// Whether the medium takes writes; if not, they are refused with the reason for longer.
    fn works(&mut self) -> bool {
        let probed = self.medium.probe();
        if let Err(error) = &probed {
            self.refuse(Error::unavailable(explain_io(error, "writing", self.medium.path())));
        }
        probed.is_ok()
    }

    /// Refuses writes for `error` until the next attempt.
    fn refuse(&mut self, error: Error) {
        self.hub.fail(error.clone());
        let longest = PAUSES.0.saturating_mul(1 << self.failures.min(16)).min(PAUSES.1);
        let pause = rand::rng().random_range(longest / 2..=longest);
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(Trouble {
            error,
            next: Instant::now() + pause,
            permanent: self.lost,
        });
    }

    fn trouble_error(&self) -> Error {
        let trouble = self.trouble.as_ref();
        trouble.map_or_else(|| Error::unavailable("it has failed"), |trouble| trouble.error.clone())
    }
}

/// What a writer in trouble gets.
pub(super) enum Received {
    Command(Command),
    /// It is time to try again.
    Due,
    Closed,
}

fn reopening_error(error: &OpenError) -> Error {
    match error {
        OpenError::Damaged { .. } | OpenError::NotAStore { .. } => Error::Damaged {
            message: error.to_string().into(),
        },
        other => Error::unavailable(other.to_string()),
    }
}
