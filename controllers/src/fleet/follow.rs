//! What a change of the fleet, of its clusters or of their copies gives to do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use umbra_admission::overrides::{OverrideIdentity, OverrideKind};
use umbra_api::rendering::Rendering;
use umbra_apimachinery::gvk::GroupResource;
use umbra_registry::copies::catalog::{Catalog, ClusterApi};
use umbra_registry::copies::key::{CopyKey, resource_prefix};
use umbra_registry::copies::retry;
use umbra_registry::fleet::cache::is_deleting;
use umbra_registry::fleet::printer::is_applied;
use umbra_registry::fleet::{FleetObject, OverrideObject, PlacementObject, TemplateKey};
use umbra_storage::cache::{EventKind, WatchFrom};
use umbra_storage::{CacheEvent, Snapshot};

use super::controller::{Inner, Task};
use super::dispatch::applied_condition;
use super::schedule::FleetCluster;
use super::state::{PlacementKey, RenderingKey, fleet_clusters, places, template_of};

/// How long status waits for more to happen before it is computed: a rollout changes it many times a second.
const COALESCE: Duration = Duration::from_millis(100);
/// How long the copies of a resource may take to load before it is looked again.
const LOADING: Duration = Duration::from_secs(30);
/// Events that may wait.
const BUFFER: usize = 4_096;

impl Inner {
    pub(super) async fn follow_fleet(self: Arc<Self>) {
        let cache = Arc::clone(self.api.cache());
        let mut failures = 0;
        loop {
            if let Ok((snapshot, mut events)) = cache.snapshot_and_watch(cache.prefix(), WatchFrom::Now, BUFFER) {
                self.look_at_everything(&snapshot);
                while let Some(Ok(event)) = events.next().await {
                    failures = 0;
                    self.look_at(&event);
                }
            }
            // It fell behind, or the cache starts over; either way everything is looked at again.
            failures += 1;
            tokio::time::sleep(retry::pause(failures)).await;
        }
    }

    fn look_at_everything(self: &Arc<Self>, snapshot: &Snapshot<FleetObject>) {
        for object in snapshot {
            match &object.extra {
                FleetObject::Rendering(rendering) => self.rendering_changed(rendering, None),
                other => self.plan_for(other),
            }
        }
    }

    /// What there is to compute for an object that nothing is known of.
    pub(super) fn plan_for(&self, object: &FleetObject) {
        match object {
            FleetObject::Template(key, _) => self.tasks.add(Task::Plan(key.clone())),
            FleetObject::Rendering(rendering) => self.plan_for_rendering(rendering, None),
            FleetObject::Placement(placement) => self.tasks.add(Task::Placement(PlacementKey::of(placement))),
            FleetObject::Override(found) => self.tasks.add(Task::Override(found.identity.clone())),
        }
    }

    fn look_at(self: &Arc<Self>, event: &CacheEvent<FleetObject>) {
        let now = &event.object.extra;
        let before = event.previous.as_ref().map(|previous| &previous.extra);
        let is_gone = event.kind == EventKind::Delete;
        if is_gone {
            // What is left of a namespace in deletion decides when it goes.
            self.wake_namespace(&event.object.namespace);
        }
        match now {
            FleetObject::Template(key, template) => {
                let before = before.and_then(|before| match before {
                    FleetObject::Template(_, template) => Some(&**template),
                    _ => None,
                });
                self.template_changed(key, template, before.filter(|_| !is_gone));
            }
            FleetObject::Rendering(rendering) => {
                let before = before.and_then(|before| match before {
                    FleetObject::Rendering(rendering) => Some(&**rendering),
                    _ => None,
                });
                self.rendering_changed(rendering, before.filter(|_| !is_gone));
                if is_gone {
                    self.stop_dispatching_where_done(&rendering.spec.cluster);
                }
            }
            FleetObject::Placement(placement) => {
                let before = before.and_then(|before| match before {
                    FleetObject::Placement(placement) => Some(&**placement),
                    _ => None,
                });
                self.placement_changed(placement, before.filter(|_| !is_gone));
            }
            FleetObject::Override(found) => {
                let before = before.and_then(|before| match before {
                    FleetObject::Override(found) => Some(&**found),
                    _ => None,
                });
                self.override_changed(found, before.filter(|_| !is_gone));
            }
        }
    }

    fn wake_namespace(&self, namespace: &str) {
        if namespace.is_empty() {
            return;
        }
        let key = TemplateKey::namespace(namespace);
        if self.known().template(&key).is_some_and(|one| is_deleting(&one)) {
            self.tasks.add(Task::Plan(key));
        }
    }

    /// A template is new, has changed (`before`), or is gone.
    fn template_changed(&self, key: &TemplateKey, template: &Value, before: Option<&Value>) {
        let aspect = |one: &Value| {
            let metadata = &one["metadata"];
            ["generation", "labels", "annotations", "deletionTimestamp"].map(|field| metadata[field].clone())
        };
        if before.is_some_and(|before| aspect(before) == aspect(template)) {
            // Its status, which comes from here.
            return;
        }
        self.tasks.add(Task::Plan(key.clone()));
        for placement in self.known().placements() {
            if places(&placement, key, template) || before.is_some_and(|before| places(&placement, key, before)) {
                self.tasks
                    .add_after(Task::Placement(PlacementKey::of(&placement)), COALESCE);
            }
        }
    }

    fn placement_changed(&self, placement: &PlacementObject, before: Option<&PlacementObject>) {
        let aspect = |one: &PlacementObject| (one.spec.clone(), one.metadata.deletion_timestamp.clone());
        if before.is_some_and(|before| aspect(before) == aspect(placement)) {
            return;
        }
        self.tasks.add(Task::Placement(PlacementKey::of(placement)));
        for (key, template) in self.known().templates() {
            if places(placement, key, template) || before.is_some_and(|before| places(before, key, template)) {
                self.tasks.add(Task::Plan(key.clone()));
            }
        }
    }

    fn override_changed(&self, found: &OverrideObject, before: Option<&OverrideObject>) {
        let aspect = |one: &OverrideObject| (one.metadata.generation, one.metadata.deletion_timestamp.clone());
        if before.is_some_and(|before| aspect(before) == aspect(found)) {
            return;
        }
        self.tasks.add_after(Task::Override(found.identity.clone()), COALESCE);
        for (key, _) in self.known().templates() {
            let in_reach =
                found.identity.kind == OverrideKind::ClusterOverride || found.identity.namespace == key.namespace;
            if in_reach {
                self.tasks.add(Task::Plan(key.clone()));
            }
        }
    }

    /// A rendering is new, has changed (`before`), or is gone.
    fn rendering_changed(self: &Arc<Self>, rendering: &Rendering, before: Option<&Rendering>) {
        let template = template_of(&rendering.spec.template);
        let cluster = &rendering.spec.cluster;
        let aspect = |one: &Rendering| (one.metadata.generation, one.metadata.deletion_timestamp.clone());
        if before.is_none_or(|before| aspect(before) != aspect(rendering)) {
            self.watch_copies(&template.resource);
            self.wants_dispatch(cluster, RenderingKey::of(rendering));
        }
        // Content waits for its namespace, and says why where there is trouble.
        let applied = |one: &Rendering| (is_applied(one), applied_condition(one).cloned());
        if template.is_namespace() && before.is_none_or(|before| applied(before) != applied(rendering)) {
            self.wake_content(&template.name, cluster);
        }
        self.plan_for_rendering(rendering, before);
    }

    /// What a rendering that is new, has changed (`before`), or is gone, gives to compute.
    fn plan_for_rendering(&self, rendering: &Rendering, before: Option<&Rendering>) {
        let template = template_of(&rendering.spec.template);
        if before.is_none() {
            // New or gone: there may be another to make, and its namespace comes along.
            self.tasks.add(Task::Plan(template.clone()));
            if let Some(namespace) = &template.namespace {
                self.tasks.add(Task::Plan(TemplateKey::namespace(namespace)));
            }
        }
        self.tasks.add_after(Task::Template(template), COALESCE);
        for one in [Some(rendering), before].into_iter().flatten() {
            if let Some(placement) = PlacementKey::of_rendering(one) {
                self.tasks.add_after(Task::Placement(placement), COALESCE);
            }
            for identity in overrides_of(one) {
                self.tasks.add_after(Task::Override(identity), COALESCE);
            }
        }
    }

    /// What waits for a namespace in a cluster.
    fn wake_content(self: &Arc<Self>, namespace: &str, cluster: &str) {
        for rendering in self.known().renderings_in(namespace) {
            if rendering.spec.cluster == cluster && !is_applied(&rendering) {
                self.wants_dispatch(cluster, RenderingKey::of(&rendering));
            }
        }
    }

    /// Follows the copies of a resource, once.
    fn watch_copies(self: &Arc<Self>, resource: &GroupResource) {
        if self.watched.lock().insert(resource.clone()) {
            let resource = resource.clone();
            self.spawn(|inner| async move { inner.follow_copies(&resource).await });
        }
    }

    async fn follow_copies(self: Arc<Self>, resource: &GroupResource) {
        let cache = self.copies.cache(resource);
        let prefix = resource_prefix(resource);
        let mut failures = 0;
        loop {
            // What loads before the cache is ready is no change.
            let loaded = cache.ready(Instant::now() + LOADING).await;
            if loaded.is_ok()
                && let Ok((snapshot, mut events)) = cache.snapshot_and_watch(&prefix, WatchFrom::Now, BUFFER)
            {
                for copy in &snapshot {
                    self.copy_changed(resource, copy.key.strip_prefix(&prefix));
                }
                while let Some(Ok(event)) = events.next().await {
                    failures = 0;
                    self.copy_changed(resource, event.object.key.strip_prefix(&prefix));
                }
            }
            failures += 1;
            tokio::time::sleep(retry::pause(failures)).await;
        }
    }

    fn copy_changed(self: &Arc<Self>, resource: &GroupResource, key: Option<&str>) {
        let Some(copy) = key.and_then(CopyKey::parse) else {
            return;
        };
        let template = TemplateKey {
            resource: resource.clone(),
            namespace: copy.namespace.map(str::to_owned),
            name: copy.name.to_owned(),
        };
        let key = RenderingKey::new(&template, copy.cluster);
        let Some(rendering) = self.known().rendering(&key) else {
            return;
        };
        self.wants_dispatch(copy.cluster, key);
        self.tasks.add_after(Task::Template(template), COALESCE);
        if let Some(placement) = PlacementKey::of_rendering(&rendering) {
            self.tasks.add_after(Task::Placement(placement), COALESCE);
        }
    }

    /// Follows the clusters of the fleet and what they serve.
    pub(super) async fn follow_clusters(self: Arc<Self>) {
        let (mut directory, mut catalog) = (self.directory.subscribe(), self.catalog.subscribe());
        let mut clusters: Option<BTreeMap<String, FleetCluster>> = None;
        let mut served = self.catalog.state();
        loop {
            let now = fleet_clusters(&self.directory.state(), self.api.name());
            let serve_now = self.catalog.state();
            if let Some(before) = &clusters
                && (*before != now || !serves_the_same(&served, &serve_now))
            {
                self.clusters_changed(before, &now, &served, &serve_now);
            }
            clusters = Some(now);
            served = serve_now;
            let changed = tokio::select! {
                changed = directory.changed() => changed,
                changed = catalog.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn clusters_changed(
        self: &Arc<Self>,
        before: &BTreeMap<String, FleetCluster>,
        now: &BTreeMap<String, FleetCluster>,
        served: &Catalog,
        serve_now: &Catalog,
    ) {
        let state = self.known();
        for (key, _) in state.templates() {
            self.tasks.add(Task::Plan(key.clone()));
        }
        for placement in state.placements() {
            self.tasks
                .add_after(Task::Placement(PlacementKey::of(&placement)), COALESCE);
        }
        for rendering in state.renderings() {
            let cluster = &rendering.spec.cluster;
            let changed =
                before.get(cluster) != now.get(cluster) || api_of(served, cluster) != api_of(serve_now, cluster);
            let pending = rendering.metadata.deletion_timestamp.is_some() || !is_applied(&rendering);
            if changed && pending {
                self.wants_dispatch(cluster, RenderingKey::of(&rendering));
            }
        }
        for cluster in before.keys().filter(|cluster| !now.contains_key(*cluster)) {
            self.stop_dispatching_where_done(cluster);
        }
    }
}

fn api_of<'a>(catalog: &'a Catalog, cluster: &str) -> Option<&'a ClusterApi> {
    catalog.clusters.get(cluster).map(|entry| &*entry.api)
}

fn serves_the_same(one: &Catalog, other: &Catalog) -> bool {
    one.clusters.len() == other.clusters.len()
        && one.clusters.iter().all(|(cluster, entry)| {
            let other = other.clusters.get(cluster);
            other.is_some_and(|other| Arc::ptr_eq(&entry.api, &other.api) || entry.api == other.api)
        })
}

/// The overrides that a rendering names.
fn overrides_of(rendering: &Rendering) -> BTreeSet<OverrideIdentity> {
    let identity = |kind: &str, name: &str| match kind {
        "ClusterOverride" => OverrideIdentity {
            kind: OverrideKind::ClusterOverride,
            namespace: None,
            name: name.to_owned(),
        },
        _ => OverrideIdentity {
            kind: OverrideKind::Override,
            namespace: rendering.metadata.namespace.clone(),
            name: name.to_owned(),
        },
    };
    let applied = rendering
        .spec
        .overrides
        .iter()
        .map(|one| identity(&one.kind, &one.name));
    let failed = rendering
        .status
        .as_ref()
        .and_then(|status| status.failed_override.as_ref());
    applied
        .chain(failed.map(|one| identity(&one.kind, &one.name)))
        .collect()
}
