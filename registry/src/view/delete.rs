//! Deleting a collection: in each cluster that the selectors admit and where the caller may delete anything.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use umbra_apimachinery::status::{Reason, Status};
use umbra_apimachinery::table::ListMetadata;
use umbra_storage::CachedObject;
use url::form_urlencoded;

use super::answer::Awaits;
use super::exchange::{Asked, object_path};
use super::live::{Received, malformed};
use super::resource::ViewResource;
use super::selection::ViewSelection;
use super::sight::allows_collection;
use super::target::Target;
use super::write::PATIENCE;
use crate::child_errors::read_only;
use crate::copies::cache::{CopyExtra, is_as_new};
use crate::request::RequestContext;
use crate::resource::{Object, ObjectList, WriteOutcome, WriteRequest};

/// How long the answer waits for the copies, in all.
const CATCH_UP: Duration = Duration::from_secs(2);
/// Parameters that mean something else in the child: selectors, and revisions and tokens of the hub.
const OWN_PARAMETERS: [&str; 6] = [
    "labelSelector",
    "fieldSelector",
    "resourceVersion",
    "resourceVersionMatch",
    "limit",
    "continue",
];

impl ViewResource {
    /// Deletes what is selected, cluster after cluster. The first failure ends it: what has been deleted until then stays
    /// deleted, as when kube-apiserver fails half-way.
    pub(super) async fn delete_collection(
        &self,
        context: &RequestContext,
        request: &WriteRequest,
    ) -> Result<WriteOutcome, Status> {
        let namespace = request.namespace.as_deref();
        let selection = ViewSelection::parse(&request.list_options)?;
        let name = selection.name().unwrap_or_default();
        self.demand(context, "deletecollection", "", namespace, name).await?;
        let targets = self.targets_of_collection(context, namespace, &selection)?;
        let mut items = Vec::new();
        for target in &targets {
            let deleted = self.delete_in(context, request, &selection, target).await;
            let deleted = deleted.map_err(|status| in_cluster(status, &target.cluster))?;
            items.extend(deleted);
        }
        Ok(WriteOutcome::Collection(ObjectList {
            metadata: ListMetadata::default(),
            items,
        }))
    }

    fn targets_of_collection(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        selection: &ViewSelection,
    ) -> Result<Vec<Target>, Status> {
        let descriptor = &self.served.descriptor;
        let act = self.act("deletecollection", &descriptor.resource.resource);
        let admitted = self.served.clusters.keys().filter(|cluster| selection.admits(cluster));
        let sight = self.services.sight(&context.user, admitted, act);
        let allowed = sight
            .0
            .into_iter()
            .filter(|(_, seen)| allows_collection(seen, self.extent(namespace, selection)));
        let targets = allowed
            .map(|(cluster, _)| self.target(&cluster, ""))
            .collect::<Result<Vec<_>, _>>()?;
        if targets.is_empty() {
            let place = namespace.unwrap_or_default();
            return Err(self.forbidden_by_children(context, "deletecollection", "", place, ""));
        }
        match targets
            .iter()
            .find(|target| self.services.is_read_only(&target.cluster))
        {
            Some(target) => Err(read_only(&target.cluster)),
            None => Ok(targets),
        }
    }

    async fn delete_in(
        &self,
        context: &RequestContext,
        request: &WriteRequest,
        selection: &ViewSelection,
        target: &Target,
    ) -> Result<Vec<Object>, Status> {
        let namespace = request.namespace.as_deref();
        let kept = form_urlencoded::parse(request.query.as_bytes());
        let kept = kept.filter(|(name, _)| !OWN_PARAMETERS.contains(&&**name));
        let query = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(kept)
            .append_pair("labelSelector", &selection.child_labels())
            .append_pair("fieldSelector", &selection.child_fields(&target.cluster))
            .finish();
        let path = object_path(&self.served.descriptor.resource, namespace, "", "");
        let asked = Asked {
            method: http::Method::DELETE,
            path: format!("{path}?{query}"),
            accept: "application/json",
            content_type: if request.body.is_empty() {
                ""
            } else {
                "application/json"
            }
            .to_owned(),
            body: request.body.clone(),
        };
        let answer = self
            .services
            .exchange(context, &target.cluster, asked, PATIENCE)
            .await?;
        let kind = self.served.descriptor.group_version_kind();
        let received = Received::list(&answer.body, &kind).map_err(|error| malformed(&target.cluster, &error))?;
        let waits_until = Instant::now()
            + if request.options.dry_run {
                Duration::ZERO
            } else {
                CATCH_UP
            };
        let mut objects = Vec::with_capacity(received.objects.len());
        for (json, _) in received.objects {
            let json = bytes::Bytes::from(json.get().to_owned());
            self.await_deletion(namespace, target, &json, waits_until).await;
            objects.push(self.object(context, namespace, target, &json, Awaits::Nothing).await?);
        }
        Ok(objects)
    }

    /// Waits until the copy of an object that was deleted is gone, or says that the object is being deleted.
    async fn await_deletion(&self, namespace: Option<&str>, target: &Target, json: &[u8], until: Instant) {
        let patience = until.saturating_duration_since(Instant::now());
        if !target.is_copied() || patience.is_zero() {
            return;
        }
        let object: Value = serde_json::from_slice(json).unwrap_or_default();
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        let key = self.key(&target.cluster, namespace, text("name"));
        let gone = |copy: Option<&CachedObject<CopyExtra>>| {
            copy.is_none_or(|copy| {
                let is_later = is_as_new(&copy.extra.child_revision, text("resourceVersion"));
                *copy.extra.uid != *text("uid") || (is_later && !text("deletionTimestamp").is_empty())
            })
        };
        let copies = &self.services.copies;
        copies.wait_until(&self.group_resource(), &key, patience, gone).await;
    }
}

fn in_cluster(status: Status, cluster: &str) -> Status {
    if status.is(Reason::ServiceUnavailable) || status.message.contains(cluster) {
        return status;
    }
    Status {
        message: format!("cluster \"{cluster}\": {}", status.message),
        ..status
    }
}
