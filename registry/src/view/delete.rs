//! Deleting a collection: in each cluster that the selectors admit and where the caller may delete anything.
//!
//! All clusters are asked, several at once, and the failure of one keeps the others from nothing. Clients look at the code of
//! the answer alone (`DeleteCollection` of client-go drops the list), so an answer of 200 says that every cluster has done it,
//! and any other says which have not, and which have. As with kube-apiserver, what was deleted before a failure stays deleted.
//!
//! Where the caller may not delete, nothing is sent: the copies of the cluster's RBAC say so. While there are none yet, the
//! cluster itself is asked, as the caller. What is left out though the caller sees it is warned of.
//!
//! Deviations from kube-apiserver: a page (`limit`) can be deleted of one cluster alone, and states of the past (`continue`,
//! `resourceVersionMatch=Exact`, a precondition of a revision) cannot be named, because no revision is one in every cluster.

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::table::ListMetadata;
use umbra_storage::CachedObject;
use url::form_urlencoded;

use super::answer::{Awaits, patience_with_copies};
use super::exchange::{Asked, object_path};
use super::incomplete::incomplete;
use super::live::{Received, malformed};
use super::resource::ViewResource;
use super::selection::ViewSelection;
use super::sight::{Extent, Sight, allows_collection};
use super::target::Target;
use super::write::is_being_deleted;
use crate::child_errors::{cluster_resource, read_only};
use crate::copies::cache::CopyExtra;
use crate::request::{RequestContext, ResourceVersionMatch};
use crate::resource::{Object, ObjectList, WriteOutcome, WriteRequest};

/// How many clusters are asked at once, as for lists of what is not copied. One that does not answer holds its place until the
/// deadline, or until its circuit opens.
const AT_ONCE: usize = 64;
/// Parameters that mean something else in the child: selectors, and revisions and tokens of the hub.
const OWN_PARAMETERS: [&str; 6] = [
    "labelSelector",
    "fieldSelector",
    "resourceVersion",
    "resourceVersionMatch",
    "limit",
    "continue",
];

/// A cluster to delete in.
struct Place {
    target: Target,
    /// Whether the copies of its RBAC allow it. Where there are none yet, only the cluster knows.
    is_allowed: bool,
}

/// What became of a deletion, by cluster, in their order.
#[derive(Default)]
struct Outcome {
    /// What was deleted.
    done: Vec<(Target, Received)>,
    /// What went wrong.
    failures: Vec<(String, Status)>,
    /// What clusters said that allow nothing, as far as only they know.
    refusals: Vec<(String, Status)>,
}

impl ViewResource {
    /// Deletes what is selected in all clusters.
    pub(super) async fn delete_collection(
        &self,
        context: &RequestContext,
        request: &WriteRequest,
    ) -> Result<WriteOutcome, Status> {
        let namespace = request.namespace.as_deref();
        let selection = ViewSelection::parse(&request.list_options)?;
        let name = selection.name().unwrap_or_default();
        self.demand(context, "deletecollection", "", namespace, name).await?;
        self.warn_of_left_out(context, |cluster| selection.admits(cluster));
        let places = self.places(context, namespace, &selection).await?;
        if places.is_empty() {
            return Ok(WriteOutcome::Collection(ObjectList::default()));
        }
        refuse_the_past(request, places.len())?;
        let Outcome {
            done,
            failures,
            refusals,
        } = self.delete_everywhere(context, request, &selection, places).await;
        for (cluster, status) in refusals {
            let what = self.group_resource();
            let left_out = format!("{what} of cluster \"{cluster}\" are left out: {status}");
            context.warnings.add(left_out);
        }
        if done.is_empty() && failures.is_empty() {
            return Err(self.forbidden_by_children(context, "deletecollection", "", namespace.unwrap_or_default(), ""));
        }
        let list = self.collected(context, request, done, failures).await?;
        Ok(WriteOutcome::Collection(list))
    }

    /// What was deleted, once the copies tell, too.
    ///
    /// # Errors
    /// What tells of the failures, where there are any.
    async fn collected(
        &self,
        context: &RequestContext,
        request: &WriteRequest,
        done: Vec<(Target, Received)>,
        mut failures: Vec<(String, Status)>,
    ) -> Result<ObjectList, Status> {
        if !request.options.dry_run {
            let until = Instant::now() + patience_with_copies(context);
            self.await_deletions(&done, until).await;
        }
        let mut items = Vec::new();
        let mut clusters = Vec::with_capacity(done.len());
        for (target, received) in done {
            let namespace = request.namespace.as_deref();
            match self.deleted_objects(context, namespace, &target, received).await {
                Ok(objects) => {
                    items.extend(objects);
                    clusters.push(target.cluster);
                }
                Err(status) => failures.push((target.cluster, status)),
            }
        }
        if !failures.is_empty() {
            return Err(incomplete(&self.group_resource(), failures, &clusters));
        }
        Ok(ObjectList {
            metadata: ListMetadata::default(),
            items,
        })
    }

    /// Where to delete; nowhere, where no cluster can be selected.
    ///
    /// # Errors
    /// 403 where nothing at all is allowed, or something is in a cluster that can only be read.
    async fn places(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        selection: &ViewSelection,
    ) -> Result<Vec<Place>, Status> {
        let extent = self.extent(namespace, selection);
        let act = self.act("deletecollection", &self.served.descriptor.resource.resource);
        let all = self.served.clusters.keys();
        let admitted: Vec<&String> = all.clone().filter(|cluster| selection.admits(cluster)).collect();
        let forbidden =
            || self.forbidden_by_children(context, "deletecollection", "", namespace.unwrap_or_default(), "");
        let allows = |sight: &Sight, cluster: &str| {
            let seen = sight.0.get(cluster);
            seen.is_some_and(|seen| allows_collection(seen, extent))
        };
        if admitted.is_empty() {
            // As for lists: an empty answer for those who may ask at all.
            let sight = self.services.sight(&context.user, all.clone(), act);
            let is_allowed = all.clone().any(|cluster| allows(&sight, cluster));
            return if is_allowed { Ok(Vec::new()) } else { Err(forbidden()) };
        }
        // Before the RBAC is looked at, so that what is copied in between counts for both.
        let unknown = self.services.without_policy(admitted.iter().copied());
        let sight = self.services.sight(&context.user, admitted.iter().copied(), act);
        let mut places = Vec::new();
        let mut left_out = Vec::new();
        for cluster in admitted {
            let is_allowed = allows(&sight, cluster);
            let may_be_allowed = unknown.contains(&cluster.as_str()) && !self.services.is_read_only(cluster);
            if !is_allowed && !may_be_allowed {
                left_out.push(cluster);
                continue;
            }
            let target = self.target(cluster, "")?;
            places.push(Place { target, is_allowed });
        }
        if places.is_empty() {
            return Err(forbidden());
        }
        let mut clusters = places.iter().map(|place| &place.target.cluster);
        if let Some(cluster) = clusters.find(|cluster| self.services.is_read_only(cluster)) {
            return Err(read_only(cluster));
        }
        self.warn_of_forbidden(context, &left_out, extent).await;
        Ok(places)
    }

    /// Warns of clusters that show the caller what it may not delete.
    async fn warn_of_forbidden(&self, context: &RequestContext, left_out: &[&String], extent: Extent<'_>) {
        // What cannot be judged is not seen either.
        let seen = self.sight(context, left_out, "list", extent).await.unwrap_or_default();
        let seen = seen.0.iter().filter(|(_, visible)| allows_collection(visible, extent));
        for (cluster, _) in seen {
            let what = self.group_resource();
            context.warnings.add(format!(
                "{what} of cluster \"{cluster}\" are left out: you may not delete collections of them there"
            ));
        }
    }

    /// Asks all clusters, and puts down what came of it.
    async fn delete_everywhere(
        &self,
        context: &RequestContext,
        request: &WriteRequest,
        selection: &ViewSelection,
        places: Vec<Place>,
    ) -> Outcome {
        // One for all, so that time remains to say what the first have done when the last have not been asked.
        let until = context.deadline_of_children();
        let mut asked = Vec::with_capacity(places.len());
        for place in places {
            asked.push(async move {
                let deleted = self.delete_in(context, request, selection, &place.target, until).await;
                (place, deleted)
            });
        }
        let mut answers: Vec<_> = stream::iter(asked).buffer_unordered(AT_ONCE).collect().await;
        answers.sort_unstable_by(|(one, _), (other, _)| one.target.cluster.cmp(&other.target.cluster));
        let mut outcome = Outcome::default();
        for (Place { target, is_allowed }, deleted) in answers {
            match deleted {
                Ok(received) => outcome.done.push((target, received)),
                Err(status) if !is_allowed && status.code == Reason::Forbidden.code() => {
                    outcome.refusals.push((target.cluster, status));
                }
                Err(status) => outcome.failures.push((target.cluster, status)),
            }
        }
        outcome
    }

    /// Deletes in one cluster. What it answers is what was there before, as kube-apiserver does.
    async fn delete_in(
        &self,
        context: &RequestContext,
        request: &WriteRequest,
        selection: &ViewSelection,
        target: &Target,
        until: Instant,
    ) -> Result<Received, Status> {
        let patience = until.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            return Err(not_asked(&target.cluster));
        }
        // Others may have taken their time.
        if self.services.is_read_only(&target.cluster) {
            return Err(read_only(&target.cluster));
        }
        let asked = self.question(request, selection, target);
        let answer = self
            .services
            .exchange(context, &target.cluster, asked, patience)
            .await?;
        let kind = self.served.descriptor.group_version_kind();
        Received::list(&answer.body, &kind).map_err(|error| malformed(&target.cluster, &error))
    }

    /// The deletion in the terms of a cluster.
    fn question(&self, request: &WriteRequest, selection: &ViewSelection, target: &Target) -> Asked {
        let kept = form_urlencoded::parse(request.query.as_bytes());
        let kept = kept.filter(|(name, _)| !OWN_PARAMETERS.contains(&&**name));
        let mut query = form_urlencoded::Serializer::new(String::new());
        query
            .extend_pairs(kept)
            .append_pair("labelSelector", &selection.child_labels())
            .append_pair("fieldSelector", &selection.child_fields(&target.cluster));
        if request.list_options.limit > 0 {
            query.append_pair("limit", &request.list_options.limit.to_string());
        }
        let namespace = request.namespace.as_deref();
        let path = object_path(&self.served.descriptor.resource, namespace, "", "");
        let content_type = if request.body.is_empty() {
            ""
        } else {
            "application/json"
        };
        Asked {
            method: http::Method::DELETE,
            path: format!("{path}?{}", query.finish()),
            accept: "application/json",
            content_type: content_type.to_owned(),
            body: request.body.clone(),
        }
    }

    /// Waits until the copies of what was deleted are gone, or say that it is being deleted: what has finalizers or a grace period
    /// stays for a while, and the answer of the child is older than its deletion.
    pub(super) async fn await_deletions(&self, done: &[(Target, Received)], until: Instant) {
        let (resource, copies) = (self.group_resource(), &self.services.copies);
        let copied: Vec<_> = done.iter().filter(|(target, _)| target.is_copied()).collect();
        // Before the copies are loaded, all of them look gone.
        if copied.is_empty() || copies.cache(&resource).ready(until).await.is_err() {
            return;
        }
        for (target, received) in copied {
            for (json, _) in &received.objects {
                let patience = until.saturating_duration_since(Instant::now());
                if patience.is_zero() {
                    return;
                }
                let Identified { metadata: object } = serde_json::from_str(json.get()).unwrap_or_default();
                let key = self.key(&target.cluster, Some(&object.namespace), &object.name);
                let deleted = |copy: Option<&CachedObject<CopyExtra>>| {
                    copy.is_none_or(|copy| *copy.extra.uid != *object.uid || is_being_deleted(&copy.bytes))
                };
                copies.wait_until(&resource, &key, patience, deleted).await;
            }
        }
    }

    async fn deleted_objects(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        target: &Target,
        received: Received,
    ) -> Result<Vec<Object>, Status> {
        let mut objects = Vec::with_capacity(received.objects.len());
        for (json, _) in received.objects {
            let json = Bytes::from(json.get().to_owned());
            let object = self.object(context, namespace, target, &json, Awaits::Nothing);
            objects.push(object.await?);
        }
        Ok(objects)
    }
}

/// Of which object an answer speaks.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Identified {
    metadata: Identity,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Identity {
    name: String,
    namespace: String,
    uid: String,
}

/// 400 for what would delete more than is meant, or something else.
fn refuse_the_past(request: &WriteRequest, clusters: usize) -> Result<(), Status> {
    let options = &request.list_options;
    let refuse = |what: &str| {
        Err(Status::bad_request(format!(
            "a collection of a view cannot be deleted {what}"
        )))
    };
    if options.limit > 0 && clusters > 1 {
        return refuse("by pages (limit) in several clusters; select one by the label umbra.dev/cluster");
    }
    if !options.continue_token.is_empty() {
        return refuse("from a page on (continue); delete the first page again");
    }
    if options.resource_version_match == Some(ResourceVersionMatch::Exact) {
        return refuse("as it was at a revision (resourceVersionMatch=Exact)");
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    if body
        .pointer("/preconditions/resourceVersion")
        .is_some_and(|revision| !revision.is_null())
    {
        return refuse("with a precondition of a resourceVersion; delete the object by its name");
    }
    Ok(())
}

/// 504 for a cluster that was to come after others.
fn not_asked(cluster: &str) -> Status {
    let message = format!("cluster \"{cluster}\" has not been asked: the time of the request is used up");
    Status::failure(Reason::Timeout, message).about(&cluster_resource(), cluster)
}
