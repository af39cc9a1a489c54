//! How much of the memory the answers to one request may take.

use std::collections::HashMap;

use bytes::Bytes;
use hyper::body::Body;
use parking_lot::Mutex;
use umbra_child::{Uncollected, collect_with};

/// What the answers for one list may have together, in bytes: about 40,000 objects of the size of a pod (6.7 KB) with what is
/// printed of them. Memory grows by doubling while an answer is read, an answer is there a second time while it is taken apart,
/// one after another, and its objects are kept; so a list holds three times as much at most, and its own answer comes on top.
pub(super) const LONGEST_LIST: usize = 256 << 20;
/// What one object may have, in bytes. etcd takes 1.5 MiB with a request; escaped in JSON, where a byte may become six
/// (`\u0000`), that is 9 MiB, and the rest is for what is printed of it and for servers that store elsewhere.
pub(super) const LONGEST_OBJECT: usize = 16 << 20;

/// What the answers to one request may have together, and those of one cluster.
#[derive(Debug)]
pub(super) struct Budget {
    total: usize,
    each: usize,
    /// What a client can do that asks for more.
    advice: &'static str,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Whether anything was refused because all of it was in use.
    has_run_out: bool,
    in_all: usize,
    of_clusters: HashMap<String, usize>,
}

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread<E> {
    /// Its end did not come.
    #[error("the answer broke off")]
    BrokenOff(#[source] E),
    /// There is no room for it.
    #[error("the answer is too long: there is room for {} MiB{advice}", room >> 20)]
    TooLong {
        /// In bytes; what the clusters have together, where that is used up.
        room: usize,
        /// What to do.
        advice: &'static str,
    },
}

/// What is asked for in pieces, by those for whom all of it is too much.
const SELECT: &str = "; select clusters (umbra.dev/cluster) or a namespace";

/// What there is, and what to do where that is too little.
impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "there is room for {} MiB{}", self.total >> 20, self.advice)
    }
}

impl Budget {
    pub(super) fn new(total: usize, each: usize, advice: &'static str) -> Self {
        Self {
            total,
            each,
            advice,
            held: Mutex::default(),
        }
    }

    /// For one list of so many clusters. Where they are several one has half at most: what it says beyond that costs it its own
    /// place, and not that of the others.
    pub(super) fn of_list(clusters: usize) -> Self {
        let each = if clusters > 1 { LONGEST_LIST / 2 } else { LONGEST_LIST };
        Self::new(LONGEST_LIST, each, SELECT)
    }

    /// For one object of each cluster.
    pub(super) fn of_objects() -> Self {
        Self::new(LONGEST_LIST, LONGEST_OBJECT, "")
    }

    /// For one answer of so many bytes.
    pub(super) fn of_one(longest: usize) -> Self {
        Self::new(longest, longest, "")
    }

    /// Whether there was too little for all answers together.
    pub(super) fn has_run_out(&self) -> bool {
        self.held.lock().has_run_out
    }

    /// Reads a body of a cluster to its end. What was read of one that fails, or of one that is not waited for, is free again.
    ///
    /// # Errors
    /// Where it breaks off, or there is no room for it.
    pub(super) async fn collect<B>(&self, cluster: &str, body: B) -> Result<Bytes, Unread<B::Error>>
    where
        B: Body<Data = Bytes>,
    {
        let mut taken = Taken {
            budget: self,
            cluster,
            bytes: 0,
        };
        let collected = collect_with(body, |length| taken.take(length)).await;
        let bytes = collected.map_err(|why| match why {
            Uncollected::Broken(error) => Unread::BrokenOff(error),
            Uncollected::NoRoom(room) => Unread::TooLong {
                room,
                advice: self.advice,
            },
        })?;
        // It stays taken: what is made of the answer is as long.
        taken.bytes = 0;
        Ok(bytes)
    }
}

/// What one answer has taken, given back when this is dropped.
struct Taken<'a> {
    budget: &'a Budget,
    cluster: &'a str,
    bytes: usize,
}

impl Taken<'_> {
    /// Takes room for more.
    ///
    /// # Errors
    /// How much there is, where that is not enough.
    fn take(&mut self, bytes: usize) -> Result<(), usize> {
        let Budget { total, each, .. } = *self.budget;
        let mut held = self.budget.held.lock();
        let of_cluster = held.of_clusters.get(self.cluster).copied().unwrap_or_default();
        if of_cluster + bytes > each {
            return Err(each);
        }
        if held.in_all + bytes > total {
            held.has_run_out = true;
            return Err(total);
        }
        held.in_all += bytes;
        match held.of_clusters.get_mut(self.cluster) {
            Some(of_cluster) => *of_cluster += bytes,
            None => drop(held.of_clusters.insert(self.cluster.to_owned(), bytes)),
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut held = self.budget.held.lock();
        held.in_all -= self.bytes;
        if let Some(of_cluster) = held.of_clusters.get_mut(self.cluster) {
            *of_cluster -= self.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use umbra_apimachinery::names::CLUSTER_LABEL;

    use super::*;

    /// Reads an answer that comes in these pieces.
    async fn read(budget: &Budget, cluster: &str, pieces: &[usize]) -> Result<usize, Unread<Infallible>> {
        let frames = pieces
            .iter()
            .map(|length| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; *length]))));
        let body = StreamBody::new(stream::iter(frames));
        Ok(budget.collect(cluster, body).await?.len())
    }

    #[tokio::test]
    async fn answers_share_what_there_is() {
        let budget = Budget::new(100, 60, SELECT);
        assert_eq!(read(&budget, "east", &[20, 20]).await.unwrap(), 40);
        let refused = read(&budget, "east", &[10, 11]).await.unwrap_err();
        assert!(refused.to_string().contains(CLUSTER_LABEL), "{refused}");
        // What was refused takes nothing.
        assert_eq!(read(&budget, "east", &[20]).await.unwrap(), 20);
        assert!(!budget.has_run_out());
        assert!(read(&budget, "west", &[61]).await.is_err());
        assert!(!budget.has_run_out(), "that is more than one may have");
        assert!(read(&budget, "west", &[41]).await.is_err());
        assert!(budget.has_run_out());
        assert_eq!(read(&budget, "west", &[30]).await.unwrap(), 30);
        assert_eq!(read(&budget, "north", &[]).await.unwrap(), 0);
        assert_eq!(read(&budget, "north", &[10]).await.unwrap(), 10);
        assert!(read(&budget, "north", &[1]).await.is_err());
    }

    #[tokio::test]
    async fn what_breaks_off_takes_nothing() {
        let budget = Budget::of_one(10);
        let frames = [Ok(Frame::data(Bytes::from_static(b"12345"))), Err("gone")];
        let broken = budget.collect("east", StreamBody::new(stream::iter(frames))).await;
        assert!(matches!(broken, Err(Unread::BrokenOff("gone"))), "{broken:?}");
        assert_eq!(read(&budget, "east", &[10]).await.unwrap(), 10);
    }
}
