//! The OpenAPI documents of a view: those of its clusters.
//!
//! Of each group version the view has the document that most of its clusters have, by the hashes that they give; where as many
//! have one as another, that of the cluster registered first. So its index does not change with who happens to answer, as long as
//! most do.
//!
//! Clients keep what they got under a hash for good. A hash is a cluster's own claim, and one cluster must not answer for another:
//! here it carries the name of the cluster (`AB@east`). Who asks for a hash gets the document that it names or, where that is not to
//! be had, is told the hash of another one, never another one under it.
//!
//! A document is asked of one cluster after the other. Each may take half of the time that is left, so that one that is silent keeps
//! no other from being asked; and who has kept others waiting is not asked again for a while
//! ([`crate::child_documents::ChildDocuments::was_silent`]).

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use tokio::time::{Instant, timeout_at};
use umbra_apimachinery::gvk::GroupVersion;
use umbra_apimachinery::status::Status;
use umbra_child::Health;

use super::services::ViewServices;
use super::shape::most;
use crate::child_documents::{DocumentError, DocumentIndex};
use crate::child_errors::{too_late, unusable};
use crate::root::{OpenApi, PublishedDocument};

/// How long clusters may take to say which documents they have; those that have not are left out.
const INDEX_PATIENCE: Duration = Duration::from_secs(5);
/// How long a document may take, in all: the first cluster gets half of it.
const DOCUMENT_PATIENCE: Duration = Duration::from_secs(10);
/// With less time than this nobody is asked: even a document at hand of a child near by takes some milliseconds.
const LEAST: Duration = Duration::from_millis(50);
/// Who has had this long to answer and has not is silent. With less time it says something of who asks, not of the cluster. A
/// request of 5 s, as in `kubectl --request-timeout=5s`, leaves that much.
const FAIR: Duration = Duration::from_secs(2);

/// The documents of these clusters.
#[derive(Debug)]
pub(super) struct ViewOpenApi {
    pub(super) services: Arc<ViewServices>,
    /// The one registered first before the others.
    pub(super) clusters: Vec<String>,
}

/// What clusters say which documents they have.
#[derive(Default)]
struct Indices<'a> {
    /// In the order of the clusters.
    known: Vec<(&'a str, Arc<DocumentIndex>)>,
    /// Why the first of those that are missing is.
    failure: Option<Status>,
}

impl Indices<'_> {
    /// Who has a document of a group version, and the hash of it: first those that have the one that the view has.
    fn offers(&self, version: &GroupVersion) -> Vec<(&str, &str)> {
        let offers = self.known.iter().filter_map(|(cluster, index)| {
            let location = index.get(version)?;
            Some((*cluster, location.hash.as_str()))
        });
        let mut offers: Vec<_> = offers.collect();
        let chosen = most(offers.iter().map(|(_, hash)| *hash)).unwrap_or_default();
        offers.sort_by_key(|(_, hash)| *hash != chosen);
        offers
    }
}

impl ViewOpenApi {
    /// The index of each cluster that has told it by `until`.
    async fn indices(&self, until: Instant) -> Indices<'_> {
        let asked = self.clusters.iter().map(|cluster| async move {
            let documents = &self.services.documents;
            if documents.was_silent(cluster) {
                return (cluster.as_str(), Err(unusable(cluster, "it does not answer")));
            }
            let begun = Instant::now();
            let answer = self.ask(cluster, until, documents.index(cluster)).await;
            if answer.is_err() && Instant::now() >= until && begun.elapsed() >= FAIR {
                documents.note_silence(cluster);
            }
            (cluster.as_str(), answer)
        });
        let mut indices = Indices::default();
        for (cluster, answer) in join_all(asked).await {
            match answer {
                Ok(index) => indices.known.push((cluster, index)),
                Err(status) => drop(indices.failure.get_or_insert(status)),
            }
        }
        indices
    }

    /// What a cluster answers by `until`. What keeps it from answering is for the operator; callers hear which cluster it is.
    async fn ask<T>(
        &self,
        cluster: &str,
        until: Instant,
        question: impl Future<Output = Result<T, DocumentError>>,
    ) -> Result<T, Status> {
        let health = self
            .services
            .children
            .get(cluster)
            .map(|child| child.health().borrow().clone());
        if matches!(health, Some(Health::Unreachable { .. })) {
            return Err(unusable(cluster, "it does not answer"));
        }
        match timeout_at(until, question).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.is_not_served() => Err(Status::no_such_path()),
            Ok(Err(error)) => {
                tracing::debug!(cluster, %error, "a cluster does not give its OpenAPI documents");
                Err(unusable(cluster, "it does not give its OpenAPI documents"))
            }
            Err(_elapsed) => Err(too_late(cluster)),
        }
    }
}

/// The hash of a document of a cluster, in the view; empty where the cluster gives none.
fn qualified(hash: &str, cluster: &str) -> String {
    if hash.is_empty() {
        String::new()
    } else {
        format!("{hash}@{cluster}")
    }
}

fn half_way(until: Instant) -> Instant {
    let now = Instant::now();
    now + until.saturating_duration_since(now) / 2
}

#[async_trait]
impl OpenApi for ViewOpenApi {
    async fn index(&self, deadline: Instant) -> Result<Vec<(GroupVersion, String)>, Status> {
        let indices = self.indices(deadline.min(Instant::now() + INDEX_PATIENCE)).await;
        let versions: BTreeSet<&GroupVersion> = indices.known.iter().flat_map(|(_, index)| index.keys()).collect();
        let all = versions.into_iter().filter_map(|version| {
            let (cluster, hash) = *indices.offers(version).first()?;
            Some((version.clone(), qualified(hash, cluster)))
        });
        Ok(all.collect())
    }

    async fn v3(
        &self,
        version: &GroupVersion,
        hash: Option<&str>,
        deadline: Instant,
    ) -> Result<PublishedDocument, Status> {
        let indices = self
            .indices(half_way(deadline.min(Instant::now() + 2 * INDEX_PATIENCE)))
            .await;
        let mut offers = indices.offers(version);
        // The one that is asked for before the others, which stay in their order.
        offers.sort_by_key(|(cluster, of_cluster)| hash != Some(qualified(of_cluster, cluster).as_str()));
        let mut failure = None;
        let until = deadline.min(Instant::now() + DOCUMENT_PATIENCE);
        let last = offers.len().saturating_sub(1);
        for (position, (cluster, _)) in offers.into_iter().enumerate() {
            if until.saturating_duration_since(Instant::now()) < LEAST {
                break;
            }
            let until = if position == last { until } else { half_way(until) };
            let document = self.services.documents.document(cluster, version);
            match self.ask(cluster, until, document).await {
                Ok(document) => {
                    return Ok(PublishedDocument {
                        hash: qualified(&document.hash, cluster),
                        text: document.text,
                    });
                }
                Err(status) => drop(failure.get_or_insert(status)),
            }
        }
        // Whoever has not told what it has may have it.
        Err(failure.or(indices.failure).unwrap_or_else(Status::no_such_path))
    }

    async fn v2(&self) -> Result<Bytes, Status> {
        Err(Status::no_such_path())
    }
}
