//! One connection of a watch to one member.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    Event, EventType, KeyValue, ResponseHeader, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::Core;
use super::connection::LONGEST_ANSWER;
use super::failure::{Kind, describe, is_denied, kind};
use super::keys::{number, revision};
use super::member::{AttemptError, Member, WatchConnection};
use super::progress::{Means, REQUEST_INTERVAL};
use super::version::Version;
use super::watch::Watcher;
use crate::{Entry, Error, Revision, WatchEvent};

/// The number that etcd gives to answers which concern all watches of a stream.
const ALL_WATCHES: i64 = -1;

/// Why a connection of a watch has ended.
pub(super) enum SessionEnd {
    /// The watch cannot go on.
    Fatal(Error),
    /// The member, or the way to it, has failed.
    Lost(String),
    /// The member gives no sign of life.
    Silent(Box<WatchConnection>),
    /// The reader is behind.
    Full,
}

/// An open stream.
struct Stream {
    member: Arc<Member>,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    /// The number of the watch in this stream.
    id: i64,
    means: Means,
    /// How many events of the revision of the position this stream has shown.
    shown: usize,
}

impl Watcher {
    /// Follows one member as long as that works.
    pub(super) async fn session(&mut self, member: usize) -> SessionEnd {
        let member = Arc::clone(&self.core.connection.members[member]);
        let deadline = self.core.options.request_deadline.min(self.patience);
        let connection = match tokio::time::timeout(deadline, member.watch_connection()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return self.failed(&member, &AttemptError::Etcd(error)).await,
            Err(_) => return SessionEnd::Lost("there is no connection in time".to_owned()),
        };
        let stream = match tokio::time::timeout(deadline, self.open(&member, &connection)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(end)) => return end,
            Err(_) => return SessionEnd::Silent(Box::new(connection)),
        };
        self.connected = true;
        self.progress.restart(stream.means);
        self.receive(stream, connection).await
    }

    /// Opens the stream, and makes sure that it continues what was delivered.
    async fn open(&mut self, member: &Arc<Member>, connection: &WatchConnection) -> Result<Stream, SessionEnd> {
        let (means, id) = self.means(member, connection).await?;
        // Where nothing can have happened yet, the watch begins after the position, and etcd delivers at once. Otherwise it
        // begins with it: etcd says then if the position has been compacted.
        let mut live = !self.connected && self.position.revision >= self.core.connection.known();
        loop {
            let start = if live {
                self.position.revision.next()
            } else {
                self.position.revision
            };
            let (stream, header) = self.create(member, connection, start, means).await?;
            self.same_cluster(member, &header)?;
            if id.is_some_and(|id| header.member_id() != id) {
                // The connection was replaced meanwhile, by one that leads to another member behind the same address.
                return Err(SessionEnd::Lost("another member has answered".to_owned()));
            }
            let current = self.core.connection.note(Some(&header));
            if live && current > self.position.revision {
                live = false;
                continue;
            }
            if current < self.position.revision {
                make_sure_of(self.position.revision, &self.core).await?;
            }
            return Ok(stream);
        }
    }

    /// Asks the member for its version, on the connection that the watch will have. Answers with its number, too, if it
    /// says anything.
    async fn means(
        &mut self,
        member: &Arc<Member>,
        connection: &WatchConnection,
    ) -> Result<(Means, Option<u64>), SessionEnd> {
        let status = match connection.client.clone().status().await {
            Ok(status) => status,
            // etcd 3.6 tells its version to root alone.
            Err(error) if is_denied(&error) => return Ok((Means::OwnKey, None)),
            Err(error) => return Err(self.failed(member, &AttemptError::Etcd(error)).await),
        };
        let facts = member.learn(&status);
        self.core.decide_on_progress();
        let means = match facts.version {
            Some(version) if Version::progress_on_request(version) => Means::Answers,
            _ => Means::OwnKey,
        };
        Ok((means, Some(facts.id)))
    }

    /// Makes sure that it is still the cluster that the watch began in: the revisions of another one mean nothing.
    fn same_cluster(&mut self, member: &Member, header: &ResponseHeader) -> Result<(), SessionEnd> {
        let cluster = *self.cluster.get_or_insert(header.cluster_id());
        if cluster == header.cluster_id() {
            return Ok(());
        }
        Err(SessionEnd::Fatal(Error::unavailable(format!(
            "etcd at {} is another cluster than the one that the watch began in",
            member.endpoint
        ))))
    }

    /// Creates the watch. Answers with what the member signs it with, too.
    async fn create(
        &mut self,
        member: &Arc<Member>,
        connection: &WatchConnection,
        start: Revision,
        means: Means,
    ) -> Result<(Stream, ResponseHeader), SessionEnd> {
        let core = &self.core;
        let end = match means {
            Means::Answers => core.keys.end(&self.prefix),
            Means::OwnKey => {
                let mut end = core.progress_key(&self.prefix);
                end.push(0);
                end
            }
        };
        let options = WatchOptions::new()
            .with_range(end)
            .with_start_revision(number(start).max(1))
            .with_prev_key()
            .with_progress_notify()
            .with_fragment();
        let key = core.keys.locate(&self.prefix);
        let created = async {
            let mut client = connection
                .client
                .watch_client()
                .max_decoding_message_size(LONGEST_ANSWER);
            let (requests, mut responses) = client.watch(key, Some(options)).await?.split();
            let created = responses.message().await?;
            Ok((requests, responses, created))
        };
        let (requests, responses, created) = match created.await {
            Ok(created) => created,
            Err(error) => return Err(self.failed(member, &AttemptError::Etcd(error)).await),
        };
        let Some(mut created) = created else {
            return Err(SessionEnd::Lost("the stream has ended".to_owned()));
        };
        if created.canceled() {
            return Err(self.cancelled(member, &created).await);
        }
        let Some(header) = created.take_header() else {
            return Err(SessionEnd::Lost("the answer has no header".to_owned()));
        };
        let stream = Stream {
            member: Arc::clone(member),
            requests,
            responses,
            id: created.watch_id(),
            means,
            shown: 0,
        };
        Ok((stream, header))
    }

    /// Delivers what comes, until the connection ends.
    async fn receive(&mut self, mut stream: Stream, connection: WatchConnection) -> SessionEnd {
        let (core, prefix, requests) = (
            Arc::clone(&self.core),
            Arc::clone(&self.prefix),
            Arc::clone(&self.requests),
        );
        let heartbeat = core.options.heartbeat;
        let mut heard = Instant::now();
        let mut asked: Option<Instant> = None;
        let mut next_request = Instant::now();
        loop {
            let awaited = self.progress.is_awaited() && stream.means == Means::Answers;
            let sign_of_life = asked.map_or(heard + heartbeat, |asked| asked + self.patience);
            tokio::select! {
                message = stream.responses.message() => {
                    (heard, asked) = (Instant::now(), None);
                    let taken = match message {
                        Ok(Some(response)) => self.take(&mut stream, &response).await,
                        Ok(None) => Err(SessionEnd::Lost("the stream has ended".to_owned())),
                        Err(error) => Err(SessionEnd::Lost(describe(&error))),
                    };
                    if let Err(end) = taken {
                        return end;
                    }
                }
                () = requests.requested() => self.progress.request(),
                () = self.progress.next_goal(&core, &prefix, stream.means) => next_request = Instant::now(),
                () = tokio::time::sleep_until(next_request), if awaited => {
                    ask(&mut stream.requests).await;
                    next_request = Instant::now() + REQUEST_INTERVAL;
                }
                () = tokio::time::sleep_until(sign_of_life) => {
                    if asked.is_some() {
                        return SessionEnd::Silent(Box::new(connection));
                    }
                    asked = Some(Instant::now());
                    ask(&mut stream.requests).await;
                }
            }
            if let Err(end) = self.answer_requests() {
                return end;
            }
        }
    }

    /// Answers requests for progress, if their goal is reached.
    fn answer_requests(&mut self) -> Result<(), SessionEnd> {
        if self.progress.is_reached(self.position) {
            let revision = self.position.revision;
            self.send(WatchEvent::Progress { revision })?;
            self.progress.answered();
        }
        Ok(())
    }

    /// Takes one response.
    async fn take(&mut self, stream: &mut Stream, response: &WatchResponse) -> Result<(), SessionEnd> {
        let current = self.core.connection.note(response.header());
        if response.canceled() || response.compact_revision() > 0 {
            return Err(self.cancelled(&stream.member, response).await);
        }
        (self.patience, self.authenticated) = (self.core.options.heartbeat, false);
        for event in response.events() {
            self.take_event(stream, event)?;
        }
        // Progress of this watch alone comes in turn with its events in every version.
        let means_something =
            response.watch_id() == stream.id || (response.watch_id() == ALL_WATCHES && stream.means == Means::Answers);
        if response.events().is_empty() && !response.created() && means_something {
            self.position.advance(current);
        }
        Ok(())
    }

    /// Delivers an event, unless it has been delivered before.
    fn take_event(&mut self, stream: &mut Stream, event: &Event) -> Result<(), SessionEnd> {
        let Some(changed) = event.kv() else {
            return Err(damaged("an event without a key"));
        };
        let at = revision(changed.mod_revision());
        if at < self.position.revision {
            return Ok(());
        }
        if at == self.position.revision {
            let Some(delivered) = self.position.delivered else {
                return Ok(());
            };
            if stream.shown < delivered {
                stream.shown += 1;
                return Ok(());
            }
        } else {
            stream.shown = 0;
        }
        if changed.key() == self.core.progress_key(&self.prefix) {
            self.position.advance(at);
            return self.answer_requests();
        }
        if let Some(event) = self.event(event, changed)? {
            self.send(event)?;
        }
        self.position.deliver(at);
        stream.shown += 1;
        Ok(())
    }

    /// The event as the store tells it; `None` for a key that is not one of the store's.
    fn event(&self, event: &Event, changed: &KeyValue) -> Result<Option<WatchEvent>, SessionEnd> {
        let Some(key) = self.core.keys.key(changed.key()) else {
            return Ok(None);
        };
        let key: Arc<str> = Arc::from(key);
        let at = revision(changed.mod_revision());
        let previous = event.prev_kv().map(|previous| entry(Arc::clone(&key), previous));
        Ok(Some(match (event.event_type(), previous) {
            (EventType::Put, None) if changed.create_revision() != changed.mod_revision() => {
                return Err(self.overtaken(at));
            }
            (EventType::Put, previous) => WatchEvent::Put {
                entry: entry(key, changed),
                previous,
            },
            (EventType::Delete, Some(previous)) => WatchEvent::Delete {
                key,
                previous,
                revision: at,
            },
            (EventType::Delete, None) => return Err(self.overtaken(at)),
        }))
    }

    /// What was there before an event has been compacted: so has everything before it.
    fn overtaken(&self, at: Revision) -> SessionEnd {
        SessionEnd::Fatal(Error::Compacted {
            requested: self.position.complete_until(),
            oldest: self.core.connection.compacted().max(at),
        })
    }

    fn send(&self, event: WatchEvent) -> Result<(), SessionEnd> {
        match self.events.try_send(event) {
            Ok(()) => Ok(()),
            // Where nobody reads any more, the task ends as soon as it waits.
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => Err(SessionEnd::Full),
        }
    }

    /// What follows from the end of a watch that etcd has announced.
    async fn cancelled(&mut self, member: &Arc<Member>, response: &WatchResponse) -> SessionEnd {
        if response.compact_revision() > 0 {
            let oldest = revision(response.compact_revision());
            self.core.connection.note_compacted(oldest);
            return SessionEnd::Fatal(Error::Compacted {
                requested: self.position.complete_until(),
                oldest,
            });
        }
        let reason = response.cancel_reason();
        // etcd 3.4 says of an old token that permission is denied.
        if ["auth token", "auth store", "user name is empty", "permission denied"]
            .iter()
            .any(|text| reason.contains(text))
        {
            return self.not_permitted(member, reason).await;
        }
        SessionEnd::Lost(format!("the watch was cancelled: {reason}"))
    }

    /// What follows from a failure.
    async fn failed(&mut self, member: &Arc<Member>, error: &AttemptError) -> SessionEnd {
        match error {
            AttemptError::Etcd(error) if matches!(kind(error), Kind::StaleCredentials | Kind::Refused) => {
                self.not_permitted(member, &describe(error)).await
            }
            error => SessionEnd::Lost(error.describe()),
        }
    }

    /// Gets a new token once, and ends the watch if that does not help.
    async fn not_permitted(&mut self, member: &Arc<Member>, reason: &str) -> SessionEnd {
        if self.authenticated || self.core.options.credentials.is_none() {
            return SessionEnd::Fatal(Error::unavailable(format!(
                "etcd at {} refuses the watch: {reason}",
                member.endpoint
            )));
        }
        self.authenticated = true;
        member.forget_watch_connections().await;
        SessionEnd::Lost(reason.to_owned())
    }
}

/// A member is behind the position of a watch: it lags, or the cluster has lost its past, for example by being restored.
async fn make_sure_of(position: Revision, core: &Core) -> Result<(), SessionEnd> {
    match core.read_current_revision().await {
        Ok(current) if current < position => Err(SessionEnd::Fatal(Error::FutureRevision {
            requested: position,
            current,
        })),
        Ok(_) => Ok(()),
        Err(error) => Err(SessionEnd::Lost(error.to_string())),
    }
}

/// Asks for progress. A stream that takes no request within this time is as good as silent.
async fn ask(requests: &mut WatchRequestSender) {
    let _ = tokio::time::timeout(Duration::from_secs(1), requests.request_progress()).await;
}

fn entry(key: Arc<str>, read: &KeyValue) -> Entry {
    Entry {
        key,
        value: Bytes::copy_from_slice(read.value()),
        create_revision: revision(read.create_revision()),
        revision: revision(read.mod_revision()),
    }
}

fn damaged(what: &str) -> SessionEnd {
    SessionEnd::Fatal(Error::Damaged {
        message: format!("etcd has sent {what}").into(),
    })
}
