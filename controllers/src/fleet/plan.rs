//! Keeps the stored renderings of a template as schedule and rendering want them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use umbra_admission::overrides::Override;
use umbra_admission::{AdmissionError, NamespaceState};
use umbra_api::placement::{OnConflict, OnRemove};
use umbra_api::rendering::{
    OverrideReference, Rendering, RenderingSpec, RenderingStatus, TemplateReference, condition,
};
use umbra_apimachinery::gvk::{GroupResource, GroupVersionKind};
use umbra_apimachinery::metadata::ObjectAccess;
use umbra_apimachinery::status::Status;
use umbra_registry::copies::key::{CopyKey, copy_key};
use umbra_registry::fleet::cache::is_deleting;
use umbra_registry::fleet::names::WITHDRAW_FINALIZER;
use umbra_registry::fleet::{PlacementObject, TemplateKey};

use super::controller::Inner;
use super::queue::Outcome;
use super::render::{KindInCluster, RenderRequest, Rendered, render, replicas_of};
use super::schedule::{self, FleetCluster};
use super::state::{FleetState, PlacementKey, RenderingKey, fleet_clusters, places};
use super::status::set_condition;
use super::write::Place;

/// Renderings of one template that are written at a time.
const WRITES: usize = 16;

/// What a cluster is to get of a template.
#[derive(Debug, Clone)]
enum Wanted {
    /// What it has: the placement cannot be scheduled.
    AsItIs,
    /// A rendering.
    Rendering {
        /// `None` for a namespace that comes along.
        placement: Option<PlacementKey>,
        replicas: Option<i64>,
        on_conflict: OnConflict,
        on_remove: OnRemove,
    },
}

/// Everything that rendering one template needs.
struct Plan<'a> {
    key: &'a TemplateKey,
    template: Arc<Value>,
    clusters: BTreeMap<String, FleetCluster>,
    overrides: Arc<[Arc<Override>]>,
}

/// The resource of renderings.
pub(super) fn renderings() -> GroupResource {
    GroupResource::new(umbra_api::GROUP, "renderings")
}

impl Inner {
    /// Makes, changes and withdraws the renderings of a template.
    pub(super) async fn plan(&self, key: &TemplateKey) -> Result<Outcome, Status> {
        let state = self.state().await?;
        let template = state.template(key);
        if key.is_namespace()
            && let Some(namespace) = template.as_ref().filter(|one| is_deleting(one))
        {
            self.empty_namespace(&state, namespace).await?;
        }
        let clusters = fleet_clusters(&self.directory.state(), self.api.name());
        let existing = state.renderings_of(key);
        let wanted = self.wanted(&state, key, template.as_deref(), &clusters, &existing);
        for (cluster, rendering) in &existing {
            if !wanted.contains_key(cluster) && rendering.metadata.deletion_timestamp.is_none() {
                self.delete_rendering(rendering).await?;
            }
        }
        let plan = Plan {
            template: template.unwrap_or_else(|| Arc::new(bare_namespace(&key.name))),
            overrides: overrides_in_force(&state),
            clusters,
            key,
        };
        let work = wanted.into_iter().filter_map(|(cluster, wanted)| {
            let existing = existing.get(&cluster).cloned();
            // One that is on its way out has to be gone before there is another.
            let goes = existing
                .as_ref()
                .is_some_and(|one| one.metadata.deletion_timestamp.is_some());
            (!goes).then_some((cluster, wanted, existing))
        });
        let results: Vec<Result<Outcome, Status>> = futures::stream::iter(work)
            .map(|(cluster, wanted, existing)| self.keep(&plan, cluster, wanted, existing))
            .buffer_unordered(WRITES)
            .collect()
            .await;
        // One that failed does not keep the others from being written.
        let outcomes = results.into_iter().collect::<Result<Vec<Outcome>, Status>>()?;
        let retry = outcomes.contains(&Outcome::Retry);
        Ok(if retry { Outcome::Retry } else { Outcome::Done })
    }

    fn wanted(
        &self,
        state: &FleetState,
        key: &TemplateKey,
        template: Option<&Value>,
        clusters: &BTreeMap<String, FleetCluster>,
        existing: &BTreeMap<String, Arc<Rendering>>,
    ) -> BTreeMap<String, Wanted> {
        let mut wanted = BTreeMap::new();
        if let Some(template) = template.filter(|template| !is_deleting(template)) {
            let placements = state.placements();
            let selecting = placements.iter().filter(|placement| {
                placement.metadata.deletion_timestamp.is_none() && places(placement, key, template)
            });
            for placement in selecting {
                for (cluster, one) in self.scheduled(placement, template, clusters, existing) {
                    wanted.entry(cluster).or_insert(one);
                }
            }
        }
        if key.is_namespace() {
            for cluster in clusters_with_content(state, &key.name) {
                if clusters.contains_key(&cluster) {
                    wanted.entry(cluster).or_insert(Wanted::Rendering {
                        placement: None,
                        replicas: None,
                        on_conflict: OnConflict::Fail,
                        on_remove: OnRemove::Orphan,
                    });
                }
            }
        }
        wanted
    }

    /// What one placement wants of a template.
    fn scheduled(
        &self,
        placement: &PlacementObject,
        template: &Value,
        clusters: &BTreeMap<String, FleetCluster>,
        existing: &BTreeMap<String, Arc<Rendering>>,
    ) -> Vec<(String, Wanted)> {
        let key = PlacementKey::of(placement);
        let own = existing
            .iter()
            .filter(|(_, one)| PlacementKey::of_rendering(one).as_ref() == Some(&key));
        let current: BTreeSet<String> = own.map(|(cluster, _)| cluster.clone()).collect();
        let divided = schedule::select(&placement.spec, self.api.name(), clusters, &current).and_then(|selected| {
            Ok(match replicas_of(template) {
                Some(replicas) => {
                    let divided = schedule::divide(replicas, &selected, &placement.spec.replicas)?;
                    divided
                        .into_iter()
                        .map(|(cluster, share)| (cluster, Some(share)))
                        .collect()
                }
                None => selected.into_iter().map(|cluster| (cluster, None)).collect::<Vec<_>>(),
            })
        });
        match divided {
            Ok(divided) => divided
                .into_iter()
                .map(|(cluster, replicas)| {
                    let wanted = Wanted::Rendering {
                        placement: Some(key.clone()),
                        replicas,
                        on_conflict: placement.spec.on_conflict,
                        on_remove: placement.spec.on_remove,
                    };
                    (cluster, wanted)
                })
                .collect(),
            // What runs goes on, except where the cluster has left the fleet.
            Err(_) => {
                let stays = current.into_iter().filter(|cluster| clusters.contains_key(cluster));
                stays.map(|cluster| (cluster, Wanted::AsItIs)).collect()
            }
        }
    }

    /// Makes or changes one rendering.
    async fn keep(
        &self,
        plan: &Plan<'_>,
        cluster: String,
        wanted: Wanted,
        existing: Option<Arc<Rendering>>,
    ) -> Result<Outcome, Status> {
        let Wanted::Rendering {
            placement,
            replicas,
            on_conflict,
            on_remove,
        } = wanted
        else {
            return Ok(Outcome::Done);
        };
        let rendered = self.render(plan, &cluster, replicas).await;
        let rendering_key = RenderingKey::new(plan.key, &cluster);
        let template = &plan.template;
        let mut spec = RenderingSpec {
            template: TemplateReference {
                api_version: template["apiVersion"].as_str().unwrap_or_default().to_owned(),
                kind: template["kind"].as_str().unwrap_or_default().to_owned(),
                resource: plan.key.resource.to_string(),
                namespace: plan.key.namespace.clone().unwrap_or_default(),
                name: plan.key.name.clone(),
                uid: template.uid().to_owned(),
                generation: template["metadata"]["generation"].as_i64(),
            },
            cluster,
            placement: placement.map(|placement| placement.reference()),
            object: json!({}),
            overrides: Vec::new(),
            on_conflict,
            on_remove,
        };
        match &rendered {
            Ok(rendered) => {
                spec.object = rendered.object.clone();
                spec.overrides = rendered.overrides.clone();
            }
            Err(_) => {
                if let Some(existing) = &existing {
                    // The last good one stays in force, and it says what it was made of.
                    let last = &existing.spec;
                    spec.object = last.object.clone();
                    spec.overrides = last.overrides.clone();
                    spec.template = last.template.clone();
                }
            }
        }
        self.store_rendering(&rendering_key, spec, existing.as_deref()).await?;
        let was_failing = existing.as_ref().is_some_and(|one| is_failing(one));
        match rendered {
            Err(error) => self.report_failure(&rendering_key, existing.as_deref(), &error).await,
            Ok(_) if was_failing => self.report_success(existing.as_deref()).await.map(|()| Outcome::Done),
            // Dispatching says so together with what it says itself.
            Ok(_) => Ok(Outcome::Done),
        }
    }

    async fn render(
        &self,
        plan: &Plan<'_>,
        cluster: &str,
        replicas: Option<i64>,
    ) -> Result<Rendered, Box<AdmissionError>> {
        let info = Arc::clone(&plan.clusters[cluster].info);
        let template = &plan.template;
        let kind = GroupVersionKind::parse(
            template["apiVersion"].as_str().unwrap_or_default(),
            template["kind"].as_str().unwrap_or_default(),
        );
        render(RenderRequest {
            template,
            cluster: info,
            replicas,
            overrides: Arc::clone(&plan.overrides),
            kind: self.kind_in(cluster, &kind).await,
            namespace: self.namespace_in(cluster, plan.key.namespace.as_deref()),
        })
        .map_err(Box::new)
    }

    async fn kind_in(&self, cluster: &str, kind: &GroupVersionKind) -> KindInCluster {
        let catalog = self.catalog.state();
        let Some(entry) = catalog.clusters.get(cluster) else {
            return KindInCluster::Unavailable(format!("it is not known yet what cluster {cluster} serves"));
        };
        if entry.api.discovery.kind(kind).is_none() {
            return KindInCluster::NotServed;
        }
        match self.api.documents().type_schema(cluster, kind).await {
            Ok(Some(schema)) => KindInCluster::Known(schema),
            Ok(None) => KindInCluster::WithoutSchema,
            Err(status) => KindInCluster::Unavailable(status.message),
        }
    }

    /// The state of a namespace in a cluster, as far as copies tell. One that is missing comes along.
    fn namespace_in(&self, cluster: &str, namespace: Option<&str>) -> NamespaceState {
        let Some(namespace) = namespace else {
            return NamespaceState::NotNamespaced;
        };
        let resource = GroupResource::new("", "namespaces");
        let key = CopyKey {
            cluster,
            namespace: None,
            name: namespace,
        };
        let snapshot = self.copies.cache(&resource).snapshot();
        let copy = snapshot.get(&copy_key(&resource, key));
        match copy.and_then(|copy| copy.fields.get("status.phase")) {
            Some("Terminating") => NamespaceState::Terminating,
            _ => NamespaceState::Active,
        }
    }

    async fn store_rendering(
        &self,
        rendering_key: &RenderingKey,
        spec: RenderingSpec,
        existing: Option<&Rendering>,
    ) -> Result<(), Status> {
        let place = Place {
            resource: &renderings(),
            namespace: Some(&rendering_key.namespace),
            name: &rendering_key.name,
        };
        let mut rendering = Rendering {
            metadata: ObjectMeta {
                name: Some(rendering_key.name.clone()),
                namespace: Some(rendering_key.namespace.clone()),
                finalizers: Some(vec![WITHDRAW_FINALIZER.to_owned()]),
                ..ObjectMeta::default()
            },
            spec,
            status: None,
        };
        match existing {
            None => self.writer.create(place, &to_json(&rendering)?).await,
            Some(existing) if existing.spec == rendering.spec => Ok(()),
            Some(existing) => {
                // With its resourceVersion: what was read is what is changed.
                rendering.metadata = existing.metadata.clone();
                self.writer.update(place, &to_json(&rendering)?).await
            }
        }
    }

    async fn report_failure(
        &self,
        rendering_key: &RenderingKey,
        existing: Option<&Rendering>,
        error: &AdmissionError,
    ) -> Result<Outcome, Status> {
        let place = Place {
            resource: &renderings(),
            namespace: Some(&rendering_key.namespace),
            name: &rendering_key.name,
        };
        // A rendering that was made just now is not in the state that this task looks at.
        let uid = match existing.and_then(|one| one.metadata.uid.clone()) {
            Some(uid) => uid,
            None => match self.writer.get(place).await? {
                Some(object) => object.uid().to_owned(),
                None => return Ok(Outcome::Done),
            },
        };
        let blamed = error.culprit().map(|by| OverrideReference {
            kind: by.kind.as_str().to_owned(),
            name: by.name.clone(),
        });
        let (reason, message) = (error.reason(), error.to_string());
        self.writer
            .update_status(place, &uid, |status: &mut RenderingStatus| {
                status.failed_override.clone_from(&blamed);
                set_condition(
                    &mut status.conditions,
                    condition::RENDERED,
                    false,
                    reason,
                    &message,
                    None,
                );
                if !status.conditions.iter().any(|one| one.type_ == condition::APPLIED) {
                    let why = "there is nothing to apply yet";
                    set_condition(
                        &mut status.conditions,
                        condition::APPLIED,
                        false,
                        "NotRendered",
                        why,
                        None,
                    );
                }
            })
            .await?;
        tracing::warn!(fleet = self.api.name(), rendering = rendering_key.name, %error, "a template cannot be rendered");
        // Everything that can be wrong changes with an object that wakes this task, but for what a cluster has not said yet.
        let later = matches!(error, AdmissionError::NotValidated { .. });
        Ok(if later { Outcome::Retry } else { Outcome::Done })
    }

    async fn report_success(&self, existing: Option<&Rendering>) -> Result<(), Status> {
        let Some(existing) = existing else { return Ok(()) };
        let key = RenderingKey::of(existing);
        let place = Place {
            resource: &renderings(),
            namespace: Some(&key.namespace),
            name: &key.name,
        };
        let uid = existing.metadata.uid.clone().unwrap_or_default();
        self.writer
            .update_status(place, &uid, |status: &mut RenderingStatus| {
                status.failed_override = None;
                set_rendered(status);
            })
            .await
    }

    pub(super) async fn delete_rendering(&self, rendering: &Rendering) -> Result<(), Status> {
        let key = RenderingKey::of(rendering);
        let place = Place {
            resource: &renderings(),
            namespace: Some(&key.namespace),
            name: &key.name,
        };
        self.writer
            .delete(place, rendering.metadata.uid.as_deref().unwrap_or_default())
            .await
    }
}

/// Says that all stages agreed on the object.
pub(super) fn set_rendered(status: &mut RenderingStatus) {
    let message = "all overrides apply and the cluster's schema agrees";
    set_condition(
        &mut status.conditions,
        condition::RENDERED,
        true,
        "Rendered",
        message,
        None,
    );
}

/// Whether the last attempt to render it failed.
pub(super) fn is_failing(rendering: &Rendering) -> bool {
    let conditions = rendering.status.iter().flat_map(|status| &status.conditions);
    conditions
        .into_iter()
        .any(|one| one.type_ == condition::RENDERED && one.status == "False")
}

/// The overrides that apply: those that are not on their way out and can be read.
fn overrides_in_force(state: &FleetState) -> Arc<[Arc<Override>]> {
    let all = state.overrides();
    let staying = all.iter().filter(|one| one.metadata.deletion_timestamp.is_none());
    staying.filter_map(|one| one.parsed.as_ref().ok().cloned()).collect()
}

/// The clusters that have, or still have, something in a namespace.
fn clusters_with_content(state: &FleetState, namespace: &str) -> BTreeSet<String> {
    let inside = state.renderings_in(namespace).into_iter();
    let inside = inside.filter(|one| one.spec.template.namespace == namespace);
    inside.map(|one| one.spec.cluster.clone()).collect()
}

fn bare_namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn to_json(rendering: &Rendering) -> Result<Value, Status> {
    serde_json::to_value(rendering).map_err(Status::internal)
}
