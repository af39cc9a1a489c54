//! The writer: the one thread that changes the database.
//!
//! Writes queue up; the writer takes all that wait, makes one transaction of them, and answers after one `fsync`. Under
//! load the queue fills while the disk works, so the batches grow by themselves and no timer is needed.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::failure::Failure;
use super::hub::Hub;
use super::medium::Medium;
use super::recovery::{Received, Trouble};
use super::slot::{Generation, Slot};
use super::tables::Marks;
use super::transaction::Transaction;
use crate::{Error, Operation, Result, Revision, WatchEvent};

/// Bytes of keys and values after which a transaction takes no further request: about 0.1 s of a disk that writes
/// 300 MB/s. One request may exceed it.
const TRANSACTION_BYTES: usize = 32 << 20;
/// Operations after which a transaction takes no further request: about 0.1 s of work at 10 µs each.
const TRANSACTION_OPERATIONS: usize = 10_000;

/// Where the outcomes of a request go; an error outside is that of all its operations.
pub(super) type WriteReply = oneshot::Sender<Result<Vec<Result<Revision>>>>;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Command {
    /// Make some writes.
    Write {
        operations: Vec<Operation>,
        reply: WriteReply,
    },
    /// Compact.
    Compact {
        revision: Revision,
        reply: oneshot::Sender<Result<()>>,
    },
    /// A reader found the database of this generation unusable.
    Reopen { generation: Generation, failure: Failure },
    /// Finish what is queued, then end.
    Close,
}

/// The state of the writer's thread.
pub(super) struct Writer {
    pub(super) slot: Arc<Slot>,
    pub(super) hub: Arc<Hub>,
    pub(super) medium: Arc<dyn Medium>,
    pub(super) cache_bytes: usize,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) marks: Marks,
    /// Why nothing is written now, if so.
    pub(super) trouble: Option<Trouble>,
    /// Attempts to write or to recover that have failed since the last write.
    pub(super) failures: u32,
    /// Acknowledged writes are gone from the file.
    pub(super) lost: bool,
    /// The database in the slot is for reading alone, until the medium takes writes.
    pub(super) read_only: bool,
    /// For waiting with a deadline, once there is trouble.
    pub(super) timer: Option<tokio::runtime::Runtime>,
}

/// What one transaction has to answer once it is durable.
#[derive(Default)]
struct Outcome {
    writes: Vec<(WriteReply, Vec<Result<Revision>>)>,
    compactions: Vec<(oneshot::Sender<Result<()>>, Result<()>)>,
    events: Vec<WatchEvent>,
}

impl Drop for Writer {
    /// Also when the thread panics, so that nobody waits for it.
    fn drop(&mut self) {
        self.hub.close();
        self.slot.close(|| self.medium.release());
    }
}

impl Writer {
    pub(super) fn new(
        slot: Arc<Slot>,
        hub: Arc<Hub>,
        medium: Arc<dyn Medium>,
        cache_bytes: usize,
        commands: mpsc::Receiver<Command>,
        marks: Marks,
    ) -> Self {
        Self {
            slot,
            hub,
            medium,
            cache_bytes,
            commands,
            marks,
            trouble: None,
            failures: 0,
            lost: false,
            read_only: false,
            timer: None,
        }
    }

    /// Serves commands until all senders are gone or the store is closed.
    pub(super) fn run(mut self) {
        loop {
            let first = if let Some(trouble) = &self.trouble {
                let pause = trouble.pause();
                match self.receive_in_trouble(pause) {
                    Received::Command(command) => Some(command),
                    Received::Due => {
                        self.try_again();
                        continue;
                    }
                    Received::Closed => break,
                }
            } else if self.marks.sweep_pending() {
                match self.commands.try_recv() {
                    Ok(command) => Some(command),
                    Err(mpsc::error::TryRecvError::Empty) => None,
                    Err(mpsc::error::TryRecvError::Disconnected) => break,
                }
            } else {
                match self.commands.blocking_recv() {
                    Some(command) => Some(command),
                    None => break,
                }
            };
            let commands = self.gather(first);
            self.serve(commands);
        }
    }

    /// Takes what is waiting, up to the size of a transaction.
    fn gather(&mut self, first: Option<Command>) -> Vec<Command> {
        let mut commands = Vec::new();
        let (mut operations, mut bytes) = (0, 0);
        let mut next = first;
        while let Some(command) = next {
            match &command {
                Command::Write { operations: new, .. } => {
                    operations += new.len();
                    bytes += new.iter().map(Operation::size).sum::<usize>();
                }
                Command::Compact { .. } | Command::Reopen { .. } => {}
                // What is queued already is still served; nothing more gets in.
                Command::Close => self.commands.close(),
            }
            commands.push(command);
            if operations >= TRANSACTION_OPERATIONS || bytes >= TRANSACTION_BYTES {
                break;
            }
            next = self.commands.try_recv().ok();
        }
        commands
    }

    fn serve(&mut self, commands: Vec<Command>) {
        let mut outcome = Outcome::default();
        let (work, broken) = outcome.enlist(commands);
        if let Some(trouble) = &self.trouble {
            outcome.reply(Some(&trouble.error.clone()));
            return;
        }
        if let Some((generation, failure)) = broken
            && generation == self.slot.generation()
        {
            self.fail(&failure);
            // Of the transaction nothing has happened yet: whoever waits may try again.
            outcome.reply(Some(&Error::unavailable(
                "it has just been opened again after a failure",
            )));
            return;
        }
        if work.is_empty() && !self.marks.sweep_pending() {
            return;
        }
        let mut stage = Stage::Before;
        match Failure::guard(|| self.transact(&work, &mut outcome, &mut stage)) {
            Ok(marks) => {
                self.marks = marks;
                self.failures = 0;
                self.hub.publish(&outcome.events, Revision(marks.revision));
                self.hub.set_compacted(Revision(marks.compacted));
                outcome.reply(None);
            }
            Err(failure) => self.settle(&failure, stage, outcome),
        }
    }

    /// Recovers from a failed transaction, and tells those who wait what has become of it.
    fn settle(&mut self, failure: &Failure, stage: Stage, outcome: Outcome) {
        let opened = self.fail(failure);
        match stage {
            Stage::Committing(marks) if opened && marks == self.marks => outcome.reply(None),
            Stage::Committing(_) if !opened => {
                outcome.reply(Some(&failure.to_error("writing", self.medium.path())));
            }
            Stage::Before | Stage::Committing(_) => {
                let reason = failure.explain("writing", self.medium.path());
                outcome.reply(Some(&Error::unavailable(reason)));
            }
        }
    }

    /// Makes one transaction of the work; answers with the marks after it.
    fn transact(&self, work: &[Work], outcome: &mut Outcome, stage: &mut Stage) -> Result<Marks, Failure> {
        let write = self.slot.begin_write()?;
        let mut transaction = Transaction::open(&write, self.marks)?;
        let path = self.medium.path();
        for item in work {
            match item {
                Work::Write(index, operations) => {
                    let answers = &mut outcome.writes[*index].1;
                    for operation in operations {
                        let answer = transaction.apply(operation, path)?;
                        answers.push(answer.map(|event| {
                            let revision = event.revision();
                            outcome.events.push(event);
                            revision
                        }));
                    }
                }
                Work::Compact(index, revision) => outcome.compactions[*index].1 = transaction.compact(*revision),
            }
        }
        transaction.sweep()?;
        if let Some(damage) = &transaction.damage {
            self.hub.damage(&damage.to_error("writing", path));
        }
        let marks = transaction.marks;
        if transaction.finish()? {
            *stage = Stage::Committing(marks);
            write.commit()?;
        } else {
            write.abort()?;
        }
        Ok(marks)
    }
}

/// How far a transaction has come.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// It changes nothing if it fails.
    Before,
    /// If it fails, it may have taken place all the same: then these are the marks of the file.
    Committing(Marks),
}

/// A command without the way to answer it.
enum Work {
    Write(usize, Vec<Operation>),
    Compact(usize, Revision),
}

impl Outcome {
    /// Notes whom to answer, first of all, so that a failure reaches everybody. Answers with what to do, and the database
    /// that a reader has found unusable.
    fn enlist(&mut self, commands: Vec<Command>) -> (Vec<Work>, Option<(Generation, Failure)>) {
        let mut work = Vec::with_capacity(commands.len());
        let mut broken = None;
        for command in commands {
            match command {
                Command::Write { operations, reply } => {
                    self.writes.push((reply, Vec::with_capacity(operations.len())));
                    work.push(Work::Write(self.writes.len() - 1, operations));
                }
                Command::Compact { revision, reply } => {
                    self.compactions.push((reply, Ok(())));
                    work.push(Work::Compact(self.compactions.len() - 1, revision));
                }
                Command::Reopen { generation, failure } => broken = Some((generation, failure)),
                Command::Close => {}
            }
        }
        (work, broken)
    }

    /// Answers everybody: with their own outcomes, or with the failure of the transaction.
    fn reply(self, failure: Option<&Error>) {
        for (reply, answers) in self.writes {
            // Whoever has gone away does not want the answer.
            let _ = reply.send(failure.map_or(Ok(answers), |error| Err(error.clone())));
        }
        for (reply, answer) in self.compactions {
            let _ = reply.send(failure.map_or(answer, |error| Err(error.clone())));
        }
    }
}
