//! The audit log: who asked for what, when, and what became of it.
//!
//! Every request is written down as one line of JSON, an `Event` of `audit.k8s.io/v1` of the level `Metadata`, when its answer
//! has ended; a long-running one also when it arrives and when its answer begins. Requests that go on to a child are
//! written as what they are there ([`event`]).
//!
//! Requests never wait for the log. Events wait in a queue of [`QUEUE`]; what finds it full is dropped and counted, in
//! metrics and in the process's own log. [`AuditWriter::run`] empties the queue when the server ends.
//!
//! Deliberate deviations from kube-apiserver: there is no policy, the level is `Metadata` for all; probes of health are left
//! out; short requests have no `RequestReceived`; writing is never waited for (`--audit-log-mode=batch` there).

pub(crate) mod event;
mod file;
mod lines;
mod request;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::event::Event;
pub use self::file::Rotation;
use self::file::{RotatingFile, Sink};
pub(crate) use self::request::{Pending, source_ips};

/// Events that wait to be written: kube-apiserver's `--audit-log-batch-buffer-size`. One takes about 1 KB.
const QUEUE: usize = 10_000;
/// Events that are written at once.
const BATCH: usize = 400;
/// How often the process's own log speaks of events that are lost.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// Where the audit log goes.
#[derive(Debug, Clone)]
pub enum Destination {
    /// To standard output.
    StandardOutput,
    /// Into a file.
    File(PathBuf, Rotation),
}

/// Why there is no audit log.
#[derive(Debug, thiserror::Error)]
#[error("the audit log {path} cannot be written: {source}", path = path.display())]
pub struct AuditError {
    path: PathBuf,
    #[source]
    source: std::io::Error,
}

/// The end of the audit log that requests are handed to. Clones are the same log.
#[derive(Debug, Clone)]
pub struct AuditLog {
    queue: mpsc::Sender<Event>,
    lost: Arc<Lost>,
    written: Counter,
    ended: CancellationToken,
}

/// The end of the audit log that writes.
#[derive(Debug)]
pub struct AuditWriter {
    queue: mpsc::Receiver<Event>,
    sink: Sink,
    lost: Arc<Lost>,
    written: Counter,
    ended: CancellationToken,
}

/// What could not be written.
#[derive(Debug, Default)]
struct Lost {
    /// Since the process's own log spoke of it.
    unreported: AtomicU64,
    /// All of it.
    all: Counter,
}

impl Lost {
    fn add(&self, events: usize) {
        self.unreported.fetch_add(events as u64, Ordering::Relaxed);
        self.all.inc_by(events as u64);
    }
}

impl AuditLog {
    /// Opens the destination. Nothing is written until the writer runs.
    ///
    /// # Errors
    /// Where a file cannot be opened for writing, or there is no standard output.
    pub fn open(destination: Destination) -> Result<(Self, AuditWriter), AuditError> {
        let (path, sink) = match destination {
            Destination::StandardOutput => ("(standard output)".into(), Sink::standard_output()),
            Destination::File(path, rotation) => {
                let file = RotatingFile::open(&path, rotation);
                (path, file.map(Sink::File))
            }
        };
        let sink = sink.map_err(|source| AuditError { path, source })?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let log = Self {
            queue: sender,
            lost: Arc::default(),
            written: Counter::default(),
            ended: CancellationToken::new(),
        };
        let writer = AuditWriter {
            queue: receiver,
            sink,
            lost: Arc::clone(&log.lost),
            written: log.written.clone(),
            ended: log.ended.clone(),
        };
        Ok((log, writer))
    }

    /// Makes the writer end once it has written what waits. For when no more requests come; what comes after that is lost.
    pub fn end(&self) {
        self.ended.cancel();
    }

    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Events of the audit log that were written";
        registry.register("apiserver_audit_events", help, self.written.clone());
        let help = "Events of the audit log that were lost, because the queue was full or writing failed";
        registry.register("apiserver_audit_lost_events", help, self.lost.all.clone());
    }

    /// Hands over an event; never waits.
    pub(crate) fn submit(&self, event: Event) {
        if self.queue.try_send(event).is_err() {
            self.lost.add(1);
        }
    }
}

impl AuditWriter {
    /// Writes until [`AuditLog::end`], or until nobody has the log any more, and then what still waits.
    pub async fn run(mut self) {
        let ended = self.ended.clone();
        let mut complaints = tokio::time::interval(COMPLAINT_INTERVAL);
        complaints.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut open = true;
        loop {
            let mut batch = Vec::with_capacity(BATCH);
            tokio::select! {
                () = ended.cancelled(), if open => {
                    open = false;
                    self.queue.close();
                }
                _ = complaints.tick() => self.complain(),
                count = self.queue.recv_many(&mut batch, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self = match self.write(batch).await {
                        Some(writer) => writer,
                        None => return,
                    };
                }
            }
        }
        self.complain();
    }

    /// Writes a batch where blocking does no harm. `None` when the process ends meanwhile.
    async fn write(mut self, batch: Vec<Event>) -> Option<Self> {
        let writing = tokio::task::spawn_blocking(move || {
            let mut lines = Vec::with_capacity(batch.len() * 1024);
            for event in &batch {
                event.write_line(&mut lines);
            }
            match self.sink.write(&lines) {
                Ok(()) => {
                    self.written.inc_by(batch.len() as u64);
                }
                Err(error) => {
                    let lost = batch.len().saturating_sub(error.written);
                    tracing::error!(%error, events = lost, "the audit log cannot be written");
                    self.written.inc_by(error.written as u64);
                    self.lost.add(lost);
                }
            }
            self
        });
        writing.await.ok()
    }

    fn complain(&self) {
        let lost = self.lost.unreported.swap(0, Ordering::Relaxed);
        if lost > 0 {
            tracing::error!(events = lost, "events of the audit log were lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::Value;

    use super::event::{Stage, tests::subject};
    use super::*;

    fn event(number: usize) -> Event {
        Event {
            subject: Arc::new(subject(&format!("/api/v1/namespaces/shop/pods/web-{number}"))),
            stage: Stage::ResponseComplete,
            at: Timestamp::UNIX_EPOCH,
            outcome: None,
        }
    }

    fn opened(path: &std::path::Path) -> (AuditLog, AuditWriter) {
        let rotation = Rotation {
            max_size: u64::MAX,
            max_backups: 0,
            max_age: Duration::ZERO,
        };
        AuditLog::open(Destination::File(path.to_owned(), rotation)).unwrap()
    }

    #[tokio::test]
    async fn what_waits_is_written_at_the_end_and_what_has_no_place_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.log");
        let (log, writer) = opened(&path);
        for number in 0..QUEUE + 7 {
            log.submit(event(number));
        }
        assert_eq!(log.lost.all.get(), 7);
        log.end();
        writer.run().await;
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), QUEUE);
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["objectRef"]["name"], format!("web-{}", QUEUE - 1));
        assert_eq!(log.written.get(), QUEUE as u64);
        log.submit(event(0));
        assert_eq!(log.lost.all.get(), 8);
    }

    #[tokio::test]
    async fn a_full_disk_loses_events_and_nothing_else() {
        let (log, writer) = opened(std::path::Path::new("/dev/full"));
        log.submit(event(1));
        log.end();
        writer.run().await;
        assert_eq!((log.written.get(), log.lost.all.get()), (0, 1));
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let rotation = Rotation {
            max_size: 1,
            max_backups: 0,
            max_age: Duration::ZERO,
        };
        let error = AuditLog::open(Destination::File("/proc/audit.log".into(), rotation)).unwrap_err();
        assert!(error.to_string().contains("/proc/audit.log"), "{error}");
    }
}
