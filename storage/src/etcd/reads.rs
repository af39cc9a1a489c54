//! Reads. All of them are linearizable: etcd's serializable reads, which any member answers from what it has, are never
//! asked for.

use std::time::Duration;

use etcd_client::{GetOptions, KvClient, WatchOptions};

use super::Core;
use super::connection::RequestError;
use super::keys::{number, revision};
use crate::{Entry, Error, GetResponse, RangeRequest, RangeResponse, Result, Revision};

/// How many entries are asked for at a time: 1,000 pods of 4.7 KB are 4.7 MB, which etcd reads under one lock.
const PAGE: usize = 1_000;

/// How often a read of the present begins anew because its state was compacted between two pages.
const FRESH_STARTS: usize = 3;

/// How long etcd is asked which revision is the oldest.
const OLDEST_DEADLINE: Duration = Duration::from_secs(2);

/// One range as etcd is asked for it.
struct Range {
    start: Vec<u8>,
    end: Vec<u8>,
    /// 0: now.
    revision: i64,
}

/// The answer to one page.
struct Page {
    entries: Vec<Entry>,
    /// The last key read, whether it is one of the store's or not.
    last: Option<Vec<u8>>,
    header: Revision,
    /// How many keys follow.
    remaining: u64,
}

impl Core {
    pub(super) async fn read_key(&self, key: &str) -> Result<GetResponse> {
        let located = self.keys.locate(key);
        let answer = self.connection.read(|mut client: KvClient| {
            let located = located.clone();
            async move { client.get(located, None).await }
        });
        let mut answer = answer.await.map_err(RequestError::unexpected)?;
        Ok(GetResponse {
            revision: self.connection.note(answer.header()),
            entry: answer.take_kvs().pop().and_then(|read| self.keys.entry(read)),
        })
    }

    pub(super) async fn read_current_revision(&self) -> Result<Revision> {
        let nothing = self.keys.own("", "");
        let answer = self.connection.read(|mut client: KvClient| {
            let nothing = nothing.clone();
            async move { client.get(nothing, None).await }
        });
        let answer = answer.await.map_err(RequestError::unexpected)?;
        Ok(self.connection.note(answer.header()))
    }

    pub(super) async fn read_range(&self, request: RangeRequest) -> Result<RangeResponse> {
        if request.revision == Some(Revision(0)) {
            // etcd would take it for now.
            return Err(self.compacted(Revision(0)).await);
        }
        for _ in 0..FRESH_STARTS {
            match (self.read_pages(&request).await, request.revision) {
                (Ok(response), _) => return Ok(response),
                (Err(RequestError::Compacted), None) => {}
                (Err(RequestError::Compacted), Some(requested)) => return Err(self.compacted(requested).await),
                (Err(RequestError::FutureRevision), Some(requested)) => {
                    let current = self.read_current_revision().await?;
                    return Err(Error::FutureRevision { requested, current });
                }
                (Err(error), _) => return Err(error.unexpected()),
            }
        }
        Err(Error::unavailable("etcd is compacted faster than it can be read"))
    }

    async fn read_pages(&self, request: &RangeRequest) -> Result<RangeResponse, RequestError> {
        let mut range = self.range(request);
        let mut entries = Vec::new();
        loop {
            let missing = match request.limit {
                0 => PAGE,
                limit => PAGE.min(limit - entries.len()),
            };
            let page = self.read_page(&range, missing).await?;
            let revision = request.revision.unwrap_or(match range.revision {
                0 => page.header,
                first => revision(first),
            });
            entries.extend(page.entries);
            let full = request.limit > 0 && entries.len() == request.limit;
            match page.last {
                Some(last) if page.remaining > 0 && !full => {
                    range.start = after(last);
                    range.revision = number(revision);
                }
                _ => {
                    return Ok(RangeResponse {
                        entries,
                        revision,
                        more: page.remaining > 0,
                        remaining: request.count_remaining.then_some(page.remaining),
                    });
                }
            }
        }
    }

    fn range(&self, request: &RangeRequest) -> Range {
        let mut start = self.keys.locate(&request.prefix);
        if let Some(key) = &request.start_after {
            start = start.max(after(self.keys.locate(key)));
        }
        let end = self.keys.end(&request.prefix);
        Range {
            // Beyond the end there is nothing to read but the revision.
            start: start.min(end.clone()),
            end,
            revision: request.revision.map_or(0, number),
        }
    }

    async fn read_page(&self, range: &Range, limit: usize) -> Result<Page, RequestError> {
        let mut options = GetOptions::new()
            .with_revision(range.revision)
            .with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
        if range.start < range.end {
            options = options.with_range(range.end.clone());
        }
        let answer = self.connection.read(|mut client: KvClient| {
            let (start, options) = (range.start.clone(), options.clone());
            async move { client.get(start, Some(options)).await }
        });
        let mut answer = answer.await?;
        let read = answer.take_kvs();
        let count = u64::try_from(answer.count()).unwrap_or_default();
        Ok(Page {
            header: self.connection.note(answer.header()),
            remaining: count.saturating_sub(read.len() as u64),
            last: read.last().map(|read| read.key().to_vec()),
            entries: read.into_iter().filter_map(|read| self.keys.entry(read)).collect(),
        })
    }

    /// The error for a revision that has been compacted.
    pub(super) async fn compacted(&self, requested: Revision) -> Error {
        if self.connection.compacted() <= requested
            && let Some(oldest) = self.ask_for_oldest(requested).await
        {
            self.connection.note_compacted(oldest);
        }
        Error::Compacted {
            requested,
            oldest: self.connection.compacted().max(requested.next()),
        }
    }

    /// Asks which revision is the oldest. Reads do not say it, but a watch that is to begin before it does.
    async fn ask_for_oldest(&self, requested: Revision) -> Option<Revision> {
        let (_, member) = self.connection.in_turn().next()?;
        let asked = async {
            let mut connection = member.watch_connection().await?;
            let options = WatchOptions::new().with_start_revision(number(requested).max(1));
            let mut watch = connection.client.watch(self.keys.own("", ""), Some(options)).await?;
            while let Some(response) = watch.message().await? {
                if response.compact_revision() > 0 {
                    return Ok(Some(revision(response.compact_revision())));
                }
            }
            Ok::<_, etcd_client::Error>(None)
        };
        tokio::time::timeout(OLDEST_DEADLINE, asked).await.ok()?.ok()?
    }
}

/// The first key after `key`.
fn after(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}
