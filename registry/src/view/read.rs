//! Reads from copies.

use std::sync::Arc;

use serde_json::json;
use umbra_apimachinery::status::Status;
use umbra_auth::rbac::Visibility;
use umbra_storage::{Revision, Snapshot};

use super::resource::ViewResource;
use super::scope::ViewScope;
use super::selection::ViewSelection;
use super::shape::Source;
use super::sight::{Authority, Extent, Sight, allows_collection};
use super::target::Target;
use super::vigil::{self, Vigil, Watched};
use crate::copies::cache::CopyExtra;
use crate::generic::store::storage_status;
use crate::generic::{read, watch};
use crate::request::{GetOptions, ListOptions, RequestContext};
use crate::resource::{EventStream, Object, ObjectList};

impl ViewResource {
    /// The object of that name: its copy, or what the child says.
    pub(super) async fn get_object(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        name: &str,
        options: &GetOptions,
    ) -> Result<Object, Status> {
        let target = self.resolve_to_read(context, namespace, name).await?;
        if let Some(found) = target.found {
            return Ok(found);
        }
        if target.is_copied() {
            return self.get_copy(context, namespace, &target, options).await;
        }
        self.demand(context, "get", "", namespace, &target.name).await?;
        self.get_live(context, namespace, &target).await
    }

    async fn get_copy(
        &self,
        context: &RequestContext,
        namespace: Option<&str>,
        target: &Target,
        options: &GetOptions,
    ) -> Result<Object, Status> {
        let resource = self.group_resource();
        let place = self.rbac_namespace(namespace, &target.name);
        let sight = self
            .sight_of_object(context, [&target.cluster], place, &target.name)
            .await?;
        if !sight.allows(&target.cluster, place, &target.name) {
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
        let (sight, ()) = tokio::join!(
            self.collection_sight(context, "list", namespace, &selection),
            self.remember_watch(context, namespace, &selection),
        );
        let sight = sight?;
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
        let sight = self.collection_sight(context, "watch", namespace, &selection).await?;
        let sight = Arc::new(sight);
        let extent = self.extent(namespace, &selection);
        self.refuse_outdated(context, options, &selection, (&sight, extent))
            .await?;
        self.warn_of_what_is_missing(context, &selection, &sight);
        let resource = self.group_resource();
        let mut vigil = Vigil::new(
            self,
            context,
            Watched {
                extent,
                selection: &selection,
                sight: &sight,
                policies,
            },
        );
        vigil.still_right().await?;
        let scope = ViewScope::new(&resource, namespace, selection, sight);
        let cache = self.services.copies.cache(&resource);
        let store = self.services.copies.store();
        let events = watch::watch(store.as_ref(), &cache, scope, options, context.deadline).await?;
        Ok(vigil::until_changed(events, changes, vigil))
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
    async fn collection_sight(
        &self,
        context: &RequestContext,
        verb: &str,
        namespace: Option<&str>,
        selection: &ViewSelection,
    ) -> Result<Sight, Status> {
        let extent = self.extent(namespace, selection);
        let admitted: Vec<&String> = self.served.copied().filter(|name| selection.admits(name)).collect();
        let sight = self.sight(context, &admitted, verb, extent).await?;
        // Where no cluster can be selected, the answer is empty for those who may ask at all.
        let judged = if admitted.is_empty() {
            let copied: Vec<&String> = self.served.copied().collect();
            self.sight(context, &copied, verb, extent).await?
        } else {
            sight.clone()
        };
        let allowed = |visibility: &Arc<Visibility>| allows_collection(visibility, extent);
        if judged.0.values().any(allowed) {
            Ok(sight)
        } else {
            Err(self.forbidden(context, verb, "", namespace.unwrap_or_default(), ""))
        }
    }

    /// 410 for a watch that goes on from before what its caller may see was changed: what may be seen since then would
    /// never come, because it has not changed itself.
    async fn refuse_outdated(
        &self,
        context: &RequestContext,
        options: &ListOptions,
        selection: &ViewSelection,
        (sight, extent): (&Sight, Extent<'_>),
    ) -> Result<(), Status> {
        let visible_since = match self.authority {
            Authority::Children => Revision(0),
            Authority::Hub(_) => self.visible_since(context, sight, extent).await?,
        };
        let Some(revision) = options.resource_version.filter(|revision| *revision > 0) else {
            return Ok(());
        };
        if options.send_initial_events == Some(true) {
            return Ok(());
        }
        let decided_since = self.services.authority_changed(&self.view);
        let act = self.act("watch", &self.served.descriptor.resource.resource);
        let sees_more = || {
            let asks_children = matches!(self.authority, Authority::Children);
            asks_children
                && self
                    .services
                    .sees_more_since(Revision(revision), sight, &context.user, act)
        };
        let other_clusters = || {
            let resource = &self.served.descriptor.resource;
            self.services
                .membership_changed_since(&self.view, resource, Revision(revision), |name| selection.admits(name))
        };
        if visible_since.max(decided_since).0 > revision || other_clusters() || sees_more() {
            return Err(Status::expired(format!(
                "too old resource version: {revision}: what you may see of the clusters may have changed since"
            )));
        }
        Ok(())
    }

    /// Remembers at a list what a watch would show, where the hub decides. What goes wrong here goes wrong again when
    /// somebody watches.
    async fn remember_watch(&self, context: &RequestContext, namespace: Option<&str>, selection: &ViewSelection) {
        if matches!(self.authority, Authority::Children) {
            return;
        }
        let extent = self.extent(namespace, selection);
        let admitted: Vec<&String> = self.served.copied().filter(|name| selection.admits(name)).collect();
        let remembered = async {
            let sight = self.sight(context, &admitted, "watch", extent).await?;
            self.visible_since(context, &sight, extent).await
        };
        if let Err(status) = remembered.await {
            tracing::debug!(%status, "what a watch would show is not known");
        }
    }

    /// Since when the hub has let the caller watch this, as far as it is remembered.
    async fn visible_since(
        &self,
        context: &RequestContext,
        sight: &Sight,
        extent: Extent<'_>,
    ) -> Result<Revision, Status> {
        // The same in every cluster.
        let visibility = sight.0.values().next().cloned().unwrap_or_default();
        let user = &context.user;
        let key = json!([
            *self.view,
            self.group_resource().to_string(),
            extent.namespace,
            extent.name,
            user.name,
            user.uid,
            user.groups,
            user.extra,
        ]);
        let key = key.to_string();
        if let Some(since) = self.services.memory.since(&key, &visibility) {
            return Ok(since);
        }
        let now = Revision(self.current_revision().await?);
        self.services.memory.changed(&key, &visibility, now);
        Ok(now)
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
