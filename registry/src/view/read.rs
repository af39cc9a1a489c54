//! Reads from copies.

use std::sync::Arc;

use futures::{StreamExt as _, stream};
use umbra_apimachinery::gvk::GroupVersionResource;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::UserInfo;
use umbra_storage::Snapshot;

use super::resource::ViewResource;
use super::scope::ViewScope;
use super::selection::ViewSelection;
use super::services::{Changes, ViewServices};
use super::shape::{Served, Shape, Source};
use super::sight::{Act, Sight, allows_collection};
use super::target::Target;
use crate::copies::cache::CopyExtra;
use crate::copies::policy::ChildPolicies;
use crate::generic::store::storage_status;
use crate::generic::{read, watch};
use crate::request::{GetOptions, ListOptions, RequestContext};
use crate::resource::{Event, EventStream, Object, ObjectList};

impl ViewResource {
    /// The object of that name: its copy, or what the child says.
    pub(super) async fn get_object(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
        options: &GetOptions,
    ) -> Result<Object, Status> {
        let target = self.resolve(context, namespace, name).await?;
        if let Some(found) = target.found {
            return Ok(found);
        }
        if target.is_copied() {
            self.get_copy(context, namespace, &target, options).await
        } else {
            self.get_live(context, namespace, &target).await
        }
    }

    async fn get_copy(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        target: &Target,
        options: &GetOptions,
    ) -> Result<Object, Status> {
        let resource = self.group_resource();
        let act = self.act("get", &resource.resource);
        let place = self.rbac_namespace(namespace, &target.name);
        let visibility = self.services.visibility(&context.user, &target.cluster, act);
        if !visibility.allows(place, &target.name) {
            return Err(self.forbidden(context, "get", "", place, &target.qualified()));
        }
        self.services.warn_of_unreachable(context, [&target.cluster]);
        let revision = match options.resource_version {
            Some(revision) => revision,
            None => self.current_revision().await?,
        };
        let cache = self.services.copies.cache(&resource);
        let key = self.key(&target.cluster, namespace, &target.name);
        let copy = read::get(&cache, &key, revision, context.deadline).await?;
        let copy = copy.ok_or_else(|| Status::not_found(&resource, &target.qualified()))?;
        Ok(Object {
            json: copy.bytes.clone(),
            row: Some(Arc::clone(&copy.extra.row)),
        })
    }

    pub(super) async fn list_copies(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<ObjectList, Status> {
        let selection = self.selection(options)?;
        let sight = self.collection_sight(context, "list", namespace, &selection)?;
        self.warn_of_what_is_missing(context, &selection, &sight);
        let resource = self.group_resource();
        let scope = ViewScope::new(&resource, namespace, selection, Arc::new(sight));
        let cache = self.services.copies.cache(&resource);
        let store = self.services.copies.store();
        read::list(store.as_ref(), &cache, &scope, options, context.deadline).await
    }

    pub(super) async fn watch_copies(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<EventStream, Status> {
        let selection = self.selection(options)?;
        // Before anything is judged, so that no change is missed.
        let changes = self.services.changes();
        let policies = self.services.policies.state();
        let sight = Arc::new(self.collection_sight(context, "watch", namespace, &selection)?);
        self.refuse_outdated(options, &sight)?;
        self.warn_of_what_is_missing(context, &selection, &sight);
        let resource = self.group_resource();
        let mut judge = Judge {
            services: Arc::clone(&self.services),
            view: Arc::clone(&self.view),
            shape: Arc::clone(&self.shape),
            policies,
            resource: self.served.descriptor.resource.clone(),
            user: Arc::clone(&context.user),
            selection: selection.clone(),
            sight: Arc::clone(&sight),
        };
        if !judge.still_right() {
            return Err(Judge::outdated());
        }
        let scope = ViewScope::new(&resource, namespace, selection, sight);
        let cache = self.services.copies.cache(&resource);
        let store = self.services.copies.store();
        let events = watch::watch(store.as_ref(), &cache, scope, options, context.deadline).await?;
        Ok(until_changed(events, changes, judge))
    }

    /// The copies of all clusters, not older than the store is now.
    pub(super) async fn present_copies(&self, context: &RequestContext) -> Result<Snapshot<CopyExtra>, Status> {
        let cache = self.services.copies.cache(&self.group_resource());
        // Who has seen a present copy waits for it to change: in the cache, which must have it therefore.
        let ready = cache.ready(context.deadline).await;
        ready.map_err(|error| storage_status(&error))?;
        let state = cache.present(cache.prefix(), context.deadline).await;
        state.map_err(|error| storage_status(&error))
    }

    async fn current_revision(&self) -> Result<u64, Status> {
        let current = self.services.copies.store().current_revision().await;
        current
            .map(|revision| revision.0)
            .map_err(|error| storage_status(&error))
    }

    fn selection(&self, options: &ListOptions) -> Result<ViewSelection, Status> {
        let selection = ViewSelection::parse(options)?;
        selection.restrict_to(&self.group_resource())?;
        Ok(selection)
    }

    /// What the caller sees of the copies that can be selected.
    ///
    /// # Errors
    /// 403 where nothing at all is allowed of what is asked for.
    fn collection_sight(
        &self,
        context: &RequestContext,
        verb: &str,
        namespace: Option<&str>,
        selection: &ViewSelection,
    ) -> Result<Sight, Status> {
        let resource = self.group_resource();
        let sight = sight_of(
            &self.services,
            &self.served,
            &context.user,
            self.act(verb, &resource.resource),
            selection,
        );
        // Where no cluster can be selected, the answer is empty for those who may ask at all.
        let judged = if self.served.copied().any(|cluster| selection.admits(cluster)) {
            sight.clone()
        } else {
            let act = self.act(verb, &resource.resource);
            self.services.sight(&context.user, self.served.copied(), act)
        };
        let namespaced = self.served.descriptor.namespaced;
        let allowed = |visibility| allows_collection(visibility, namespaced, namespace, selection.name());
        if judged.0.values().any(allowed) {
            Ok(sight)
        } else {
            Err(self.forbidden(context, verb, "", namespace.unwrap_or_default(), ""))
        }
    }

    /// 410 for a watch that goes on from before the RBAC of a cluster it shows was changed: what may be seen since then
    /// would never come, because it has not changed itself.
    fn refuse_outdated(&self, options: &ListOptions, sight: &Sight) -> Result<(), Status> {
        let Some(revision) = options.resource_version.filter(|revision| *revision > 0) else {
            return Ok(());
        };
        if options.send_initial_events == Some(true) {
            return Ok(());
        }
        let policies = self.services.policies.state();
        let changed = sight.0.keys().filter_map(|cluster| policies.changed.get(cluster)).max();
        match changed {
            Some(changed) if changed.0 > revision => Err(Status::expired(format!(
                "too old resource version: {revision} ({changed}): what you may see of the clusters may have changed since"
            ))),
            _ => Ok(()),
        }
    }

    /// Warns of clusters that are asked about and whose state is old or not shown.
    fn warn_of_what_is_missing(&self, context: &RequestContext, selection: &ViewSelection, sight: &Sight) {
        self.services.warn_of_unreachable(context, sight.0.keys());
        for (cluster, source) in self.served.clusters.iter().filter(|(name, _)| selection.admits(name)) {
            let version = self.served.descriptor.resource.group_version();
            let name = self.group_resource();
            match source {
                Source::Copies => {}
                Source::OtherVersion => context.warnings.add(format!(
                    "{name} of cluster \"{cluster}\" are left out: they are copied in another version than {version}"
                )),
                Source::Live => context.warnings.add(format!(
                    "{name} of cluster \"{cluster}\" are left out: they are not copied (spec.sync of the ManagedCluster)"
                )),
            }
        }
    }
}

fn sight_of(
    services: &ViewServices,
    served: &Served,
    user: &UserInfo,
    act: Act<'_>,
    selection: &ViewSelection,
) -> Sight {
    let admitted = served.copied().filter(|cluster| selection.admits(cluster));
    services.sight(user, admitted, act)
}

/// Knows what a watch was begun with, and whether that is still right.
struct Judge {
    services: Arc<ViewServices>,
    view: Arc<str>,
    shape: Arc<Shape>,
    policies: Arc<ChildPolicies>,
    resource: GroupVersionResource,
    user: Arc<UserInfo>,
    selection: ViewSelection,
    sight: Arc<Sight>,
}

impl Judge {
    /// Most changes are of something else, such as the time of a cluster's last probe: then nothing is judged.
    fn still_right(&mut self) -> bool {
        let Some(shape) = self.services.shape(&self.view) else {
            return false;
        };
        let policies = self.services.policies.state();
        if Arc::ptr_eq(&shape, &self.shape) && Arc::ptr_eq(&policies, &self.policies) {
            return true;
        }
        let Some(served) = shape.served(&self.resource) else {
            return false;
        };
        let act = Act {
            verb: "watch",
            group: &self.resource.group,
            resource: &self.resource.resource,
        };
        let is_right = sight_of(&self.services, served, &self.user, act, &self.selection) == *self.sight;
        self.shape = shape;
        self.policies = policies;
        is_right
    }

    fn outdated() -> Status {
        Status::expired("the clusters of the view, or what you may see of them, have changed; list again")
    }
}

/// The events until the caller's sight changes. Then 410: the client lists again, sees what it may see now and forgets the
/// rest. Changes are looked at before events, so that an event which is no longer to be seen is not sent after them.
fn until_changed(events: EventStream, changes: Changes, judge: Judge) -> EventStream {
    let begun = Some((events, changes, judge));
    Box::pin(stream::unfold(begun, |state| async move {
        let (mut events, mut changes, mut judge) = state?;
        loop {
            tokio::select! {
                biased;
                () = changes.next() => {
                    if !judge.still_right() {
                        let status = Judge::outdated();
                        return Some((Event::Error(Box::new(status)), None));
                    }
                }
                event = events.next() => return event.map(|event| (event, Some((events, changes, judge)))),
            }
        }
    }))
}
