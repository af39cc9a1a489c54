//! Keeps the copies of one resource of one cluster: list, compare, watch.
//!
//! A list is compared with the copies that are there, and only what differs is written, so a child that reconnects
//! causes events for what changed in the meantime and nothing else. Copies are removed only after a complete list, or
//! for an event that says so: a child that fails never loses its copies.

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
    pub(crate) state: watch::Sender<ResourceState>,
    /// Told after every write, where others have to know.
    pub(crate) written: Option<Arc<Notify>>,
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
        let mut revision = None;
        loop {
            match self.step(&mut revision, &mut failures).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    if matches!(&error, CopyError::Source(source) if source.is_expired()) {
                        revision = None;
                    }
                    self.report(&error);
                    tokio::time::sleep(retry::pause(failures)).await;
                }
            }
        }
    }

    /// A list where there is no revision to watch from, and then one watch.
    async fn step(&self, revision: &mut Option<String>, failures: &mut u32) -> Result<(), CopyError> {
        if revision.is_none() {
            *revision = Some(self.list().await?);
            *failures = 0;
            self.state.send_replace(ResourceState {
                synced: true,
                ..ResourceState::default()
            });
        }
        let from = revision.clone().expect("a list gives a revision");
        self.watch(&from, revision).await
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

    /// Follows one watch to its end, which is no error; `revision` follows what has been written.
    async fn watch(&self, from: &str, revision: &mut Option<String>) -> Result<(), CopyError> {
        let query =
            format!("watch=true&allowWatchBookmarks=true&resourceVersion={from}&timeoutSeconds={WATCH_SECONDS}");
        let path = self.path(&query);
        let mut lines = self.source.watch(&path, ACCEPT).await?.ready_chunks(BATCH);
        let mut reader = EventReader::default();
        loop {
            let chunk = match tokio::time::timeout(WATCH_SILENCE, lines.next()).await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => return Ok(()),
                Err(_) => return Ok(()),
            };
            self.apply(chunk, &mut reader, revision, &path).await?;
        }
    }

    /// Writes a run of events; those before an error are written too.
    async fn apply(
        &self,
        lines: Vec<Result<Bytes, SourceError>>,
        reader: &mut EventReader,
        revision: &mut Option<String>,
        path: &str,
    ) -> Result<(), CopyError> {
        let mut operations = Vec::with_capacity(lines.len());
        let mut reached = None;
        let mut failure = None;
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
            let (deleted, object) = match event {
                Ok(Received::Put(object)) => (false, object),
                Ok(Received::Deleted(object)) => (true, object),
                Ok(Received::Bookmark(at)) => {
                    reached = Some(at);
                    continue;
                }
                Ok(Received::Error(status)) => {
                    failure = Some(SourceError::Status(Box::new(status)));
                    break;
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            let Some((key, translated)) = self.translate(&object, columns) else {
                continue;
            };
            reached = Some(translated.envelope.header.child_revision.clone());
            operations.push(if deleted {
                Operation::delete(key, Precondition::None)
            } else {
                Operation::put(key, translated.envelope.encode(), Precondition::None)
            });
        }
        self.write(operations).await?;
        if let Some(reached) = reached.filter(|reached| !reached.is_empty()) {
            *revision = Some(reached);
        }
        failure.map_or(Ok(()), |failure| Err(failure.into()))
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
