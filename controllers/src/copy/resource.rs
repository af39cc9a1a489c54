//! Keeps the copies of one resource of one cluster: list, compare, watch.
//!
//! A list is compared with the copies that are there, and only what differs is written, so a child that reconnects
//! causes events for what changed in the meantime and nothing else. Copies are removed only after a complete list, or
//! for an event that says so: a child that fails never loses its copies.
//!
//! Who begins to copy goes on from where the last one stopped (see `position`), also in another process, and lists only where
//! that is not known, or where the child no longer knows it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use umbra_apimachinery::discovery::ResourceDescriptor;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::table::ColumnDefinition;
use umbra_registry::copies::catalog::columns_key;
use umbra_registry::copies::envelope::Envelope;
use umbra_registry::copies::key::{CopyKey, cluster_prefix, copy_key};
use umbra_registry::copies::retry;
use umbra_registry::copies::translate::{Translated, to_view};
use umbra_storage::{Operation, Precondition, RangeRequest, Store};

use crate::copy::page::{ACCEPT, EventReader, Page, Received, ReceivedObject};
use crate::copy::position::{Positions, Replay};
use crate::copy::source::{Source, SourceError};

/// Objects a page: what kubectl and client-go's pager ask for.
const PAGE: usize = 500;
/// Events that are written together at most: a batch costs one fsync, and 256 objects of a few KB stay far below the
/// store's limits.
const BATCH: usize = 256;
/// How long the child lets a watch live. Shorter than the half hour to an hour that API servers choose by themselves,
/// so that a connection that died unnoticed costs at most this.
const WATCH_SECONDS: u64 = 600;
/// A watch that sends neither event nor bookmark for this long is begun anew from where it was. That is no failure: API servers
/// promise no bookmarks on a resource that nothing happens to. It only bounds how long a watch that the server has forgotten
/// goes unnoticed; connections that are dead are noticed by their pings.
const WATCH_SILENCE: Duration = Duration::from_secs(180);
/// What a child knows of the past it sends at once; when nothing has come for this long, the past is over.
const REPLAY_SILENCE: Duration = Duration::from_secs(1);

/// How the copies of one resource stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceState {
    /// Whether a complete list has been copied and the watch goes on from it.
    pub synced: bool,
    /// Whether the hub may not read the resource or the cluster no longer serves it, so that waiting will not help.
    pub refused: bool,
    /// Why the copies are not up to date.
    pub message: String,
}

/// Why copying stopped.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("the hub's store failed")]
    Store(#[source] umbra_storage::Error),
}

/// Copies one resource of one cluster.
pub(crate) struct ResourceCopy {
    pub(crate) cluster: Arc<str>,
    pub(crate) resource: ResourceDescriptor,
    pub(crate) source: Arc<dyn Source>,
    pub(crate) store: Arc<dyn Store>,
    /// How far each resource of the cluster has been copied.
    pub(crate) positions: Arc<Positions>,
    pub(crate) state: watch::Sender<ResourceState>,
    /// Told after every write, where others have to know.
    pub(crate) written: Option<Arc<Notify>>,
}

/// How far copying has come.
#[derive(Default)]
struct Progress {
    /// The revision to watch from; `None` where a list is needed.
    revision: Option<String>,
    /// While events come that may have been copied before.
    replay: Option<Replay>,
}

/// What is to be written of a run of events.
#[derive(Default)]
struct Run {
    operations: Vec<Operation>,
    /// How far the run came.
    reached: Option<String>,
    failure: Option<SourceError>,
}

impl ResourceCopy {
    /// Copies until `cancel`.
    pub(crate) async fn run(self, cancel: CancellationToken) {
        tokio::select! {
            () = cancel.cancelled() => {}
            () = self.run_on() => {}
        }
    }

    async fn run_on(&self) {
        let mut failures = 0;
        let mut progress = Progress::default();
        let mut resumable = true;
        loop {
            match self.step(&mut progress, &mut resumable, &mut failures).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    if matches!(&error, CopyError::Source(source) if source.is_expired()) {
                        progress = Progress::default();
                    }
                    self.report(&error);
                    tokio::time::sleep(retry::pause(failures)).await;
                }
            }
        }
    }

    /// Where there is no revision to watch from, the one where the last copy stopped or a list; and then one watch. What the
    /// last copy has left is tried once.
    async fn step(&self, progress: &mut Progress, resumable: &mut bool, failures: &mut u32) -> Result<(), CopyError> {
        if progress.revision.is_none() {
            let resumed = if *resumable { self.resume().await? } else { None };
            *resumable = false;
            *progress = match resumed {
                Some(resumed) => resumed,
                None => Progress {
                    revision: Some(self.list().await?),
                    replay: None,
                },
            };
            *failures = 0;
        }
        self.watch(progress).await
    }

    /// Where the last copy stopped, if the child still is where it was. A child that has been set back to an earlier state
    /// would be watched from a revision that it has yet to reach, in silence.
    async fn resume(&self) -> Result<Option<Progress>, CopyError> {
        let resource = self.group_resource();
        let Some(position) = self.positions.get(&resource) else {
            return Ok(None);
        };
        if position.version != self.resource.resource.version {
            return Ok(None);
        }
        let path = self.path("limit=1");
        let body = self.source.get(&path, ACCEPT).await?;
        let page = Page::parse(&body).map_err(|source| SourceError::Malformed { path, source })?;
        let now = page.metadata.resource_version.parse().ok();
        let Some(now) = now.filter(|now| *now >= position.resource_version) else {
            return Ok(None);
        };
        self.write_columns(&page.columns).await?;
        let mut present = HashMap::new();
        for (key, revision) in self.present().await? {
            let Ok(revision) = revision.parse() else {
                return Ok(None);
            };
            present.insert(key, revision);
        }
        tracing::debug!(cluster = %self.cluster, %resource, from = position.resource_version, now, "copying goes on");
        Ok(Some(Progress {
            revision: Some(position.resource_version.to_string()),
            replay: Some(Replay::new(present, now)),
        }))
    }

    /// An expired revision says nothing of the copies: they stay as they are until the list that follows.
    fn report(&self, error: &CopyError) {
        let (cluster, resource) = (&self.cluster, self.group_resource());
        let message = match error {
            CopyError::Source(SourceError::Malformed { source, .. }) => format!("{error}: {source}"),
            CopyError::Source(source) => source.to_string(),
            CopyError::Store(source) => format!("{error}: {source}"),
        };
        match error {
            CopyError::Source(source) if source.is_expired() => {
                tracing::debug!(%cluster, %resource, "the watch is too old; listing");
                return;
            }
            // That the cluster does not answer is said once for the cluster, not once for each of its resources.
            CopyError::Source(SourceError::Unreachable(_)) => {
                tracing::debug!(%cluster, %resource, message, "copying is interrupted");
            }
            _ => tracing::warn!(%cluster, %resource, message, "copying is interrupted"),
        }
        let refused = matches!(error, CopyError::Source(source) if source.is_refused());
        self.state.send_replace(ResourceState {
            synced: false,
            refused,
            message,
        });
    }

    fn group_resource(&self) -> GroupResource {
        self.resource.group_resource()
    }

    fn path(&self, query: &str) -> String {
        format!("/{}?includeObject=Object&{query}", self.resource.resource.path(None))
    }

    /// Copies everything there is, page by page; gives the revision to watch from.
    async fn list(&self) -> Result<String, CopyError> {
        let mut stale = self.present().await?;
        let mut token = String::new();
        loop {
            let path = self.path(&format!("limit={PAGE}&continue={token}"));
            let body = self.source.get(&path, ACCEPT).await?;
            let page = Page::parse(&body).map_err(|source| SourceError::Malformed { path, source })?;
            self.write_columns(&page.columns).await?;
            let mut operations = Vec::with_capacity(page.objects.len());
            for object in &page.objects {
                let Some((key, translated)) = self.translate(object, &page.columns) else {
                    continue;
                };
                let before = stale.remove(&key);
                if before.as_deref() != Some(&translated.envelope.header.child_revision) {
                    operations.push(Operation::put(key, translated.envelope.encode(), Precondition::None));
                }
            }
            self.write(operations).await?;
            if page.metadata.continue_token.is_empty() {
                let gone = stale
                    .into_keys()
                    .map(|key| Operation::delete(key, Precondition::None))
                    .collect();
                self.write(gone).await?;
                self.note(&page.metadata.resource_version);
                return Ok(page.metadata.resource_version);
            }
            token = page.metadata.continue_token;
        }
    }

    /// The copies that are there: their keys and the revisions the child gave them.
    async fn present(&self) -> Result<HashMap<String, String>, CopyError> {
        let prefix = cluster_prefix(&self.group_resource(), &self.cluster);
        let mut present = HashMap::new();
        let mut request = RangeRequest::prefix(prefix).limit(PAGE);
        loop {
            let response = self.store.range(request.clone()).await.map_err(CopyError::Store)?;
            for entry in &response.entries {
                // What cannot be read is written anew: no revision of a child is empty.
                let revision = Envelope::decode(&entry.value).map(|copy| copy.header.child_revision);
                present.insert(entry.key.to_string(), revision.unwrap_or_default());
            }
            match response.entries.last() {
                Some(last) if response.more => request = request.at(response.revision).after(&*last.key),
                _ => return Ok(present),
            }
        }
    }

    /// Follows one watch to its end, which is no error; `progress` follows what has been written.
    async fn watch(&self, progress: &mut Progress) -> Result<(), CopyError> {
        let from = progress.revision.as_deref().expect("a watch begins somewhere");
        let query =
            format!("watch=true&allowWatchBookmarks=true&resourceVersion={from}&timeoutSeconds={WATCH_SECONDS}");
        let path = self.path(&query);
        let mut lines = self.source.watch(&path, ACCEPT).await?.ready_chunks(BATCH);
        self.state.send_if_modified(|state| {
            let synced = ResourceState {
                synced: true,
                ..ResourceState::default()
            };
            let changed = *state != synced;
            *state = synced;
            changed
        });
        let mut reader = EventReader::default();
        loop {
            let silence = match progress.replay {
                Some(_) => REPLAY_SILENCE,
                None => WATCH_SILENCE,
            };
            match tokio::time::timeout(silence, lines.next()).await {
                Ok(Some(chunk)) => self.apply(chunk, &mut reader, progress, &path).await?,
                Ok(None) => return Ok(()),
                Err(_) if progress.replay.is_some() => self.finish_replay(progress).await?,
                Err(_) => return Ok(()),
            }
        }
    }

    /// Writes a run of events; those before an error are written too.
    async fn apply(
        &self,
        lines: Vec<Result<Bytes, SourceError>>,
        reader: &mut EventReader,
        progress: &mut Progress,
        path: &str,
    ) -> Result<(), CopyError> {
        let mut run = Run::default();
        for line in lines {
            let columns = reader.columns.clone();
            let event = line.and_then(|line| {
                reader.read(&line).map_err(|source| SourceError::Malformed {
                    path: path.to_owned(),
                    source,
                })
            });
            if let Some(new) = reader.columns.as_ref().filter(|new| Some(*new) != columns.as_ref()) {
                self.write_columns(new).await?;
            }
            let columns = reader.columns.as_deref().unwrap_or_default();
            match event {
                Ok(Received::Put(object)) => self.take(&object, columns, false, progress, &mut run),
                Ok(Received::Deleted(object)) => self.take(&object, columns, true, progress, &mut run),
                Ok(Received::Bookmark(at)) => run.reached = Some(at),
                Ok(Received::Error(status)) => run.failure = Some(SourceError::Status(Box::new(status))),
                Err(error) => run.failure = Some(error),
            }
            if run.failure.is_some() {
                break;
            }
        }
        self.write_or_list(run.operations, progress).await?;
        if let Some(reached) = run.reached.filter(|reached| !reached.is_empty()) {
            let is_past = |replay: &Replay| reached.parse().is_ok_and(|at| replay.ends_at(at));
            let past = progress.replay.as_ref().is_some_and(is_past);
            progress.revision = Some(reached);
            if past {
                self.finish_replay(progress).await?;
            } else {
                self.note_progress(progress);
            }
        }
        run.failure.map_or(Ok(()), |failure| Err(failure.into()))
    }

    /// Takes one event into a run.
    fn take(
        &self,
        object: &ReceivedObject,
        columns: &[ColumnDefinition],
        deleted: bool,
        progress: &mut Progress,
        run: &mut Run,
    ) {
        let Some((key, translated)) = self.translate(object, columns) else {
            return;
        };
        let revision = translated.envelope.header.child_revision.clone();
        let operation = if deleted {
            Operation::delete(key.as_str(), Precondition::None)
        } else {
            Operation::put(key.as_str(), translated.envelope.encode(), Precondition::None)
        };
        match (&mut progress.replay, revision.parse()) {
            (Some(replay), Ok(at)) => run.operations.extend(replay.filter(key, at, operation)),
            _ => run.operations.push(operation),
        }
        run.reached = Some(revision);
    }

    /// Makes the copies that have waited for the end of a replay.
    async fn finish_replay(&self, progress: &mut Progress) -> Result<(), CopyError> {
        if let Some(replay) = &mut progress.replay {
            let waiting = replay.take_waiting();
            self.write_or_list(waiting, progress).await?;
            progress.replay = None;
        }
        self.note_progress(progress);
        Ok(())
    }

    /// Writes. Where that fails, only a list tells what of a replay has been written.
    async fn write_or_list(&self, operations: Vec<Operation>, progress: &mut Progress) -> Result<(), CopyError> {
        let replays = progress.replay.is_some();
        let written = self.write(operations).await;
        if written.is_err() && replays {
            *progress = Progress::default();
        }
        written
    }

    /// Notes how far copying has come. During a replay something may be left to write.
    fn note_progress(&self, progress: &Progress) {
        if let (None, Some(revision)) = (&progress.replay, &progress.revision) {
            self.note(revision);
        }
    }

    fn note(&self, revision: &str) {
        let version = &self.resource.resource.version;
        self.positions.set(&self.group_resource(), version, revision);
    }

    /// An object that cannot be copied is left out, and said so; its neighbours are not its prisoners.
    fn translate(&self, object: &ReceivedObject, columns: &[ColumnDefinition]) -> Option<(String, Translated)> {
        let resource = self.group_resource();
        let row = (!object.cells.is_empty()).then(|| (columns, object.cells.clone()));
        match to_view(object.json.get().as_bytes(), &self.cluster, &resource, row) {
            Ok(translated) => {
                let namespace = self.resource.namespaced.then_some(translated.namespace.as_str());
                let key = copy_key(
                    &resource,
                    CopyKey {
                        cluster: &self.cluster,
                        namespace,
                        name: &translated.name,
                    },
                );
                Some((key, translated))
            }
            Err(error) => {
                tracing::warn!(cluster = %self.cluster, %resource, %error, "an object cannot be copied");
                None
            }
        }
    }

    async fn write_columns(&self, columns: &[ColumnDefinition]) -> Result<(), CopyError> {
        if columns.is_empty() {
            return Ok(());
        }
        let key = columns_key(&self.cluster, &self.group_resource());
        let value: Bytes = serde_json::to_vec(columns).expect("columns are plain data").into();
        let present = self.store.get(&key).await.map_err(CopyError::Store)?;
        if present.entry.is_some_and(|entry| entry.value == value) {
            return Ok(());
        }
        self.write(vec![Operation::put(key, value, Precondition::None)]).await
    }

    /// A delete of what is gone already is as good as done.
    async fn write(&self, operations: Vec<Operation>) -> Result<(), CopyError> {
        if operations.is_empty() {
            return Ok(());
        }
        for outcome in self.store.batch(operations).await {
            match outcome {
                Ok(_) | Err(umbra_storage::Error::NotFound { .. }) => {}
                Err(error) => return Err(CopyError::Store(error)),
            }
        }
        if let Some(written) = &self.written {
            written.notify_one();
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "resource_tests.rs"]
mod tests;
