//! The writer: the one thread that changes the database.
//!
//! Writes queue up; the writer takes all that wait, makes one transaction of them, and answers after one `fsync`. Under
//! load the queue fills while the disk works, so the batches grow by themselves and no timer is needed.

use std::sync::Arc;

use redb::Database;
use tokio::sync::{mpsc, oneshot};

use super::failure::Failure;
use super::hub::Hub;
use super::transaction::{Marks, Transaction};
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
    /// Finish what is queued, then end.
    Close,
}

/// The state of the writer's thread.
pub(super) struct Writer {
    database: Arc<Database>,
    hub: Arc<Hub>,
    commands: mpsc::Receiver<Command>,
    marks: Marks,
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
    }
}

impl Writer {
    pub(super) fn new(database: Arc<Database>, hub: Arc<Hub>, commands: mpsc::Receiver<Command>, marks: Marks) -> Self {
        Self {
            database,
            hub,
            commands,
            marks,
        }
    }

    /// Serves commands until all senders are gone or the store is closed.
    pub(super) fn run(mut self) {
        loop {
            let first = if self.marks.sweep_pending() && self.hub.failure().is_none() {
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
                Command::Compact { .. } => {}
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
        if self.hub.failure().is_some() {
            // Dropping the commands tells whoever waits to look at the failure.
            return;
        }
        let result = self.transact(commands, &mut outcome).map_err(|failure| {
            let error = failure.into_error("writing");
            let reason = describe(&error);
            tracing::error!(reason, "the store cannot be written to any more");
            self.hub
                .fail(Error::unavailable(format!("an earlier write failed: {reason}")));
            error
        });
        if result.is_ok() {
            self.hub.publish(&outcome.events, Revision(self.marks.revision));
            self.hub.set_compacted(Revision(self.marks.compacted));
        }
        outcome.reply(result.err().as_ref());
    }

    fn transact(&mut self, commands: Vec<Command>, outcome: &mut Outcome) -> Result<(), Failure> {
        // First of all note whom to answer, so that a failure reaches everybody.
        let mut work = Vec::with_capacity(commands.len());
        for command in commands {
            match command {
                Command::Write { operations, reply } => {
                    outcome.writes.push((reply, Vec::with_capacity(operations.len())));
                    work.push(Work::Write(outcome.writes.len() - 1, operations));
                }
                Command::Compact { revision, reply } => {
                    outcome.compactions.push((reply, Ok(())));
                    work.push(Work::Compact(outcome.compactions.len() - 1, revision));
                }
                Command::Close => {}
            }
        }
        if work.is_empty() && !self.marks.sweep_pending() {
            return Ok(());
        }
        let write = self.database.begin_write()?;
        let mut transaction = Transaction::open(&write, self.marks)?;
        for item in work {
            match item {
                Work::Write(index, operations) => {
                    let answers = &mut outcome.writes[index].1;
                    for operation in &operations {
                        let answer = transaction.apply(operation)?;
                        answers.push(answer.map(|event| {
                            let revision = event.revision();
                            outcome.events.push(event);
                            revision
                        }));
                    }
                }
                Work::Compact(index, revision) => outcome.compactions[index].1 = transaction.compact(revision),
            }
        }
        transaction.sweep()?;
        let marks = transaction.marks;
        if transaction.finish()? {
            write.commit()?;
        } else {
            write.abort()?;
        }
        self.marks = marks;
        Ok(())
    }
}

/// A command without the way to answer it.
enum Work {
    Write(usize, Vec<Operation>),
    Compact(usize, Revision),
}

impl Outcome {
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

/// The error and its sources in one line.
fn describe(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
