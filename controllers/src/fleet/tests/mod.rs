//! The controllers over a store in memory and scripted clusters.

mod clusters;
mod hub;
mod life;
mod replicas;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use umbra_apimachinery::gvk::GroupVersionResource;
use umbra_apimachinery::status::Reason;
use umbra_registry::root::Api;
use umbra_storage::Store;

use clusters::Clusters;
use hub::{Hub, eventually, put_cluster, world};
use life::{Life, MortalStore};

const WEB: &str = "/apis/apps/v1/namespaces/shop/deployments/web";
const SHOP: &str = "/api/v1/namespaces/shop";
const PLACEMENT: (&str, Option<&str>, &str) = ("placements.umbra.dev", Some("shop"), "web");

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": "web"}}})
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "registry.example/web:1"}]},
            },
        },
    })
}

#[expect(clippy::needless_pass_by_value, reason = "called with literals")]
fn placement(changes: Value) -> Value {
    let mut placement = json!({
        "apiVersion": "umbra.dev/v1alpha1", "kind": "Placement", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"resources": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}]},
    });
    for (field, value) in changes.as_object().unwrap() {
        placement["spec"][field] = value.clone();
    }
    placement
}

#[expect(clippy::needless_pass_by_value, reason = "called with literals")]
fn override_(kind: &str, name: &str, patches: Value) -> Value {
    let mut object = json!({
        "apiVersion": "umbra.dev/v1alpha1", "kind": kind, "metadata": {"name": name},
        "spec": {"resources": [{"apiVersion": "apps/v1", "kind": "Deployment"}], "patches": patches},
    });
    if kind == "Override" {
        object["metadata"]["namespace"] = "shop".into();
    }
    object
}

fn registry() -> Value {
    let image = "${cluster.name}.registry.example/web:1";
    let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}]);
    override_(
        "ClusterOverride",
        "registry",
        json!([{"type": "JSONPatch", "value": patch}]),
    )
}

fn replicas(count: i64) -> Value {
    override_(
        "Override",
        "replicas",
        json!([{"type": "MergePatch", "value": {"spec": {"replicas": count}}}]),
    )
}

async fn hub(names: &[&str]) -> (Hub, Arc<Clusters>) {
    let (store, clusters) = world(names).await;
    let hub = Hub::start(store, Arc::clone(&clusters), CancellationToken::new()).await;
    (hub, clusters)
}

async fn replicas_in(clusters: &Clusters, cluster: &str, wanted: i64) {
    eventually(&format!("{cluster} has {wanted} replicas"), async || {
        let object = clusters.object(cluster, WEB)?;
        (object["spec"]["replicas"] == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_placed_reaches_every_cluster_after_its_overrides() {
    let (hub, clusters) = hub(&["east", "west"]).await;
    for object in [namespace(), deployment(), registry(), replicas(7), placement(json!({}))] {
        hub.create(object).await;
    }
    hub.condition(PLACEMENT, "Applied", "True", "Applied").await;
    for cluster in ["east", "west"] {
        let web = clusters.object(cluster, WEB).unwrap();
        let image = web["spec"]["template"]["spec"]["containers"][0]["image"]
            .as_str()
            .unwrap();
        assert_eq!(image, format!("{cluster}.registry.example/web:1"));
        assert_eq!(web["spec"]["replicas"], 7);
        assert_eq!(web["metadata"]["labels"]["umbra.dev/fleet"], "all");
        assert_eq!(
            clusters.object(cluster, SHOP).unwrap()["metadata"]["labels"]["team"],
            "web"
        );
    }
    let rendering = hub
        .get("renderings.umbra.dev", Some("shop"), "web.deployments.apps@east")
        .await
        .unwrap();
    let taken: Vec<&Value> = rendering["spec"]["overrides"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(taken, ["registry", "replicas"]);
    let message = hub
        .condition(
            ("overrides.umbra.dev", Some("shop"), "replicas"),
            "Applied",
            "True",
            "Applied",
        )
        .await;
    assert_eq!(message, "it takes part in 2 renderings");

    hub.delete("overrides.umbra.dev", Some("shop"), "replicas").await;
    replicas_in(&clusters, "east", 4).await;
    replicas_in(&clusters, "west", 4).await;

    let weights = json!({"spec": {"replicas": {"strategy": "Weighted", "weights": {"east": 3, "west": 1}}}});
    hub.patch("placements.umbra.dev", Some("shop"), "web", weights).await;
    replicas_in(&clusters, "east", 3).await;
    replicas_in(&clusters, "west", 1).await;
    eventually("the placement counts replicas", async || {
        let placement = hub.get("placements.umbra.dev", Some("shop"), "web").await?;
        let rows = placement["status"]["clusters"].as_array()?;
        (rows
            .iter()
            .map(|row| row["replicas"].as_i64().unwrap_or_default())
            .collect::<Vec<_>>()
            == [3, 1])
        .then_some(())
    })
    .await;

    for (cluster, ready) in [("east", 2), ("west", 1)] {
        let mut web = clusters.object(cluster, WEB).unwrap();
        web["status"] = json!({"replicas": 3, "readyReplicas": ready});
        clusters.put(cluster, WEB, web).await;
    }
    eventually("the template sums what the clusters say", async || {
        let status = hub.get("deployments.apps", Some("shop"), "web").await?["status"].take();
        (status["replicas"] == 6 && status["readyReplicas"] == 3).then_some(())
    })
    .await;
    hub.stop().await;
}

#[tokio::test]
async fn what_is_not_ours_is_touched_only_where_the_placement_says_so() {
    let (hub, clusters) = hub(&["east", "west"]).await;
    for cluster in ["east", "west"] {
        clusters.put(cluster, SHOP, namespace()).await;
    }
    let mut theirs = deployment();
    theirs["spec"]["replicas"] = 1.into();
    let theirs = clusters.put("east", WEB, theirs).await;
    clusters.put("west", WEB, deployment()).await;
    for object in [namespace(), deployment(), placement(json!({}))] {
        hub.create(object).await;
    }
    let east = ("renderings.umbra.dev", Some("shop"), "web.deployments.apps@east");
    let west = ("renderings.umbra.dev", Some("shop"), "web.deployments.apps@west");
    for rendering in [east, west] {
        let message = hub.condition(rendering, "Applied", "False", "Conflict").await;
        assert!(
            message.contains("does not belong to this fleet") && message.contains("onConflict"),
            "{message}"
        );
    }
    hub.condition(PLACEMENT, "Applied", "False", "Conflict").await;
    assert_eq!(clusters.object("east", WEB).unwrap(), theirs);

    hub.patch(
        "placements.umbra.dev",
        Some("shop"),
        "web",
        json!({"spec": {"onConflict": "AdoptIfSame"}}),
    )
    .await;
    hub.condition(west, "Applied", "True", "Applied").await;
    hub.condition(east, "Applied", "False", "Conflict").await;
    assert_eq!(clusters.object("east", WEB).unwrap(), theirs);

    hub.patch(
        "placements.umbra.dev",
        Some("shop"),
        "web",
        json!({"spec": {"onConflict": "Adopt"}}),
    )
    .await;
    hub.condition(east, "Applied", "True", "Applied").await;
    replicas_in(&clusters, "east", 4).await;
    // The namespaces were there, and still belong to nobody here.
    assert!(clusters.object("east", SHOP).unwrap()["metadata"]["labels"]["umbra.dev/fleet"].is_null());
    hub.stop().await;
}

#[tokio::test]
async fn what_is_withdrawn_goes_and_nothing_else() {
    let (hub, clusters) = hub(&["east", "west"]).await;
    for object in [namespace(), deployment(), placement(json!({}))] {
        hub.create(object).await;
    }
    hub.condition(PLACEMENT, "Applied", "True", "Applied").await;
    // In west somebody has replaced the object by one of their own.
    clusters.remove("west", WEB).await;
    clusters.put("west", WEB, deployment()).await;
    let west = ("renderings.umbra.dev", Some("shop"), "web.deployments.apps@west");
    hub.condition(west, "Applied", "False", "Conflict").await;
    hub.delete("placements.umbra.dev", Some("shop"), "web").await;
    eventually("all renderings are gone", async || {
        let gone = hub.get(west.0, west.1, west.2).await.is_none()
            && hub.get(west.0, west.1, "web.deployments.apps@east").await.is_none()
            && hub.get(west.0, west.1, "shop.namespaces@east").await.is_none();
        gone.then_some(())
    })
    .await;
    assert_eq!(clusters.paths("east"), [SHOP]);
    assert_eq!(clusters.paths("west"), [SHOP, WEB]);
    let shop = clusters.object("east", SHOP).unwrap();
    assert!(shop["metadata"]["labels"]["umbra.dev/fleet"].is_null(), "{shop}");
    hub.stop().await;
}

#[tokio::test]
async fn a_cluster_that_leaves_loses_what_is_to_go_and_nothing_is_placed_again() {
    let (store, clusters) = world(&["east", "west"]).await;
    let hub = Hub::start(Arc::clone(&store), Arc::clone(&clusters), CancellationToken::new()).await;
    let settings =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "namespace": "shop"}});
    let mut kept = placement(json!({"onRemove": "Orphan", "clusterNames": ["east"],
        "resources": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "settings"}]}));
    kept["metadata"]["name"] = json!("kept");
    // Its own namespace is placed, too, and to be deleted.
    let spaces = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ClusterPlacement", "metadata": {"name": "spaces"},
        "spec": {"resources": [{"apiVersion": "v1", "kind": "Namespace", "name": "shop"}]}});
    let only_east = placement(json!({"clusterNames": ["east"]}));
    for object in [namespace(), deployment(), settings, kept, spaces, only_east] {
        hub.create(object).await;
    }
    hub.condition(PLACEMENT, "Applied", "True", "Applied").await;
    hub.condition(
        ("placements.umbra.dev", Some("shop"), "kept"),
        "Applied",
        "True",
        "Applied",
    )
    .await;
    let config = "/api/v1/namespaces/shop/configmaps/settings";
    assert_eq!(clusters.paths("east"), [SHOP, config, WEB]);

    let leaving = json!({"name": "east", "labels": {"region": "eu"}, "annotations": {"umbra.dev/leaving": ""}});
    hub::put_cluster_with(store.as_ref(), leaving).await;
    let renderings = async |cluster: &str| {
        let names = ["web.deployments.apps", "settings.configmaps", "shop.namespaces"];
        let mut found = 0;
        for name in names.map(|name| format!("{name}@{cluster}")) {
            found += usize::from(hub.get("renderings.umbra.dev", Some("shop"), &name).await.is_some());
        }
        found
    };
    eventually("all renderings of the cluster are gone", async || {
        (renderings("east").await == 0).then_some(())
    })
    .await;
    assert_eq!(clusters.paths("east"), [SHOP, config]);
    for path in [SHOP, config] {
        let live = clusters.object("east", path).unwrap();
        assert!(live["metadata"]["labels"]["umbra.dev/fleet"].is_null(), "{live}");
    }

    // One that is deleted without being cleaned keeps everything, although it still answers.
    let before = clusters.paths("west");
    assert!(!before.is_empty() && renderings("west").await > 0);
    let deleted = json!({"name": "west", "labels": {"region": "eu"}, "deletionTimestamp": "2026-01-01T00:00:00Z"});
    hub::put_cluster_with(store.as_ref(), deleted).await;
    eventually("the renderings of the other are gone", async || {
        (renderings("west").await == 0).then_some(())
    })
    .await;
    assert_eq!(clusters.paths("west"), before);
    assert_eq!(
        clusters.object("west", SHOP).unwrap()["metadata"]["labels"]["umbra.dev/fleet"],
        "all"
    );
    hub.stop().await;
}

#[tokio::test]
async fn a_patch_that_does_not_apply_keeps_the_last_good_object_and_says_so_everywhere() {
    let (hub, clusters) = hub(&["east"]).await;
    for object in [namespace(), deployment(), replicas(7), placement(json!({}))] {
        hub.create(object).await;
    }
    hub.condition(PLACEMENT, "Applied", "True", "Applied").await;
    let patch = json!([{"type": "JSONPatch", "value": [{"op": "replace", "path": "/spec/nothing/here", "value": 1}]}]);
    hub.patch(
        "overrides.umbra.dev",
        Some("shop"),
        "replicas",
        json!({"spec": {"patches": patch}}),
    )
    .await;
    let rendering = ("renderings.umbra.dev", Some("shop"), "web.deployments.apps@east");
    let overridden = ("overrides.umbra.dev", Some("shop"), "replicas");
    for (object, condition) in [(rendering, "Rendered"), (overridden, "Applied"), (PLACEMENT, "Applied")] {
        let message = hub.condition(object, condition, "False", "OverrideFailed").await;
        for part in [
            "Override shop/replicas",
            "Deployment shop/web",
            "cluster east",
            "patch 0",
            "/spec/nothing",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
    }
    assert_eq!(clusters.object("east", WEB).unwrap()["spec"]["replicas"], 7);
    let patch = json!([{"type": "MergePatch", "value": {"spec": {"replicas": 2}}}]);
    hub.patch(
        "overrides.umbra.dev",
        Some("shop"),
        "replicas",
        json!({"spec": {"patches": patch}}),
    )
    .await;
    replicas_in(&clusters, "east", 2).await;
    for object in [overridden, PLACEMENT] {
        hub.condition(object, "Applied", "True", "Applied").await;
    }
    hub.condition(rendering, "Rendered", "True", "Rendered").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_placement_that_matches_no_cluster_says_so_and_leaves_what_runs() {
    let (hub, clusters) = hub(&["east"]).await;
    for object in [namespace(), deployment(), placement(json!({}))] {
        hub.create(object).await;
    }
    hub.condition(PLACEMENT, "Applied", "True", "Applied").await;
    let nowhere = json!({"spec": {"clusterSelector": {"matchLabels": {"region": "mars"}}}});
    hub.patch("placements.umbra.dev", Some("shop"), "web", nowhere).await;
    let message = hub.condition(PLACEMENT, "Scheduled", "False", "NoClusters").await;
    assert!(
        message.contains("no cluster of fleet all matches (clusters: east)"),
        "{message}"
    );
    assert!(clusters.object("east", WEB).is_some());
    put_cluster(hub.store.as_ref(), "east", json!({"region": "mars"})).await;
    hub.condition(PLACEMENT, "Scheduled", "True", "Scheduled").await;

    hub.delete("deployments.apps", Some("shop"), "web").await;
    let message = hub.condition(PLACEMENT, "Applied", "False", "NoTemplates").await;
    assert!(message.contains("Deployment of apps/v1 web"), "{message}");
    eventually("the object is withdrawn with its template", async || {
        clusters.object("east", WEB).is_none().then_some(())
    })
    .await;
    hub.stop().await;
}

#[tokio::test]
async fn drift_is_repaired_and_nothing_else_is_written() {
    let (hub, clusters) = hub(&["east"]).await;
    for object in [namespace(), deployment(), placement(json!({}))] {
        hub.create(object).await;
    }
    hub.condition(PLACEMENT, "Applied", "True", "Applied").await;
    let mut web = clusters.object("east", WEB).unwrap();
    web["spec"]["replicas"] = 9.into();
    clusters.put("east", WEB, web).await;
    replicas_in(&clusters, "east", 4).await;
    // What a cluster adds of itself is none of the fleet's business.
    let writes = clusters.writes.load(Ordering::Relaxed);
    let mut web = clusters.object("east", WEB).unwrap();
    web["spec"]["paused"] = false.into();
    web["status"] = json!({"replicas": 4});
    clusters.put("east", WEB, web).await;
    eventually("the status has arrived", async || {
        let template = hub.get("deployments.apps", Some("shop"), "web").await?;
        (template["status"]["replicas"] == 4).then_some(())
    })
    .await;
    assert_eq!(
        clusters.writes.load(Ordering::Relaxed),
        writes + 1,
        "only the cluster itself has written"
    );
    clusters.remove("east", WEB).await;
    replicas_in(&clusters, "east", 4).await;
    hub.stop().await;
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_reported_and_gets_its_object_later() {
    let (hub, clusters) = hub(&["east", "west"]).await;
    clusters.down.lock().push("west".to_owned());
    for object in [namespace(), deployment(), placement(json!({}))] {
        hub.create(object).await;
    }
    replicas_in(&clusters, "east", 4).await;
    let message = hub.condition(PLACEMENT, "Applied", "False", "ClusterUnreachable").await;
    assert!(
        message.contains("cluster west: unreachable since yesterday"),
        "{message}"
    );
    clusters.down.lock().clear();
    hub.condition(PLACEMENT, "Applied", "True", "Applied").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_namespace_goes_when_what_is_inside_is_withdrawn() {
    let (hub, clusters) = hub(&["east"]).await;
    for object in [namespace(), deployment(), replicas(2), placement(json!({}))] {
        hub.create(object).await;
    }
    hub.condition(PLACEMENT, "Applied", "True", "Applied").await;
    hub.delete("namespaces", None, "shop").await;
    let error = hub.try_create(replicas(3)).await.unwrap_err();
    assert!(
        error.is(Reason::Forbidden) || error.is(Reason::AlreadyExists) || error.is(Reason::NotFound),
        "{error:?}"
    );
    eventually("the namespace is gone", async || {
        hub.get("namespaces", None, "shop").await.is_none().then_some(())
    })
    .await;
    assert!(hub.get("placements.umbra.dev", Some("shop"), "web").await.is_none());
    assert_eq!(clusters.paths("east"), [SHOP]);
    let error = hub.try_create(deployment()).await.unwrap_err();
    assert!(error.is(Reason::NotFound), "{error:?}");
    hub.stop().await;
}

#[tokio::test]
async fn what_cannot_work_is_refused_with_advice() {
    let (hub, _clusters) = hub(&["east"]).await;
    hub.create(namespace()).await;
    let mut pinned = replicas(1);
    pinned["spec"]["rollout"] = "OnNextUpdate".into();
    let error = hub.try_create(pinned).await.unwrap_err();
    assert!(
        error.is(Reason::Invalid) && error.message.contains("spec.rollout"),
        "{error:?}"
    );
    let mut typo = deployment();
    typo["spec"]["replicas"] = "four".into();
    assert!(hub.try_create(typo).await.is_err());

    let renderings = GroupVersionResource::new("umbra.dev", "v1alpha1", "renderings");
    let descriptor = hub.api.discovery().resource(&renderings).cloned().unwrap();
    assert_eq!(descriptor.verbs, ["get", "list", "watch"]);
    let context = umbra_registry::request::RequestContext {
        user: Arc::new(umbra_apimachinery::user::UserInfo::new(
            "tina",
            ["system:authenticated"],
        )),
        info: Arc::default(),
        prefix: "".into(),
        deadline: tokio::time::Instant::now() + std::time::Duration::from_secs(30),
        warnings: umbra_registry::request::Warnings::default(),
        user_agent: "kubectl/v1.36.3".into(),
    };
    let request = umbra_registry::resource::WriteRequest {
        verb: umbra_registry::resource::WriteVerb::Delete,
        namespace: Some("shop".to_owned()),
        name: "web.deployments.apps@east".to_owned(),
        subresource: String::new(),
        body: bytes::Bytes::new(),
        content_type: String::new(),
        options: umbra_registry::request::WriteOptions::default(),
        list_options: umbra_registry::request::ListOptions::default(),
        query: String::new(),
    };
    let error = hub
        .api
        .resource(&renderings)
        .unwrap()
        .write(&context, request)
        .await
        .unwrap_err();
    assert!(
        error.is(Reason::Forbidden) && error.message.contains("change one of those"),
        "{error:?}"
    );
    hub.stop().await;
}

/// Puts what the crash test places; what is there already is left as it is.
async fn place_all(store: &Arc<dyn Store>, clusters: &Arc<Clusters>) {
    let quiet = CancellationToken::new();
    let hub = Hub::start(Arc::clone(store), Arc::clone(clusters), quiet).await;
    for object in [namespace(), deployment(), registry(), replicas(7), placement(json!({}))] {
        hub.create(object).await;
    }
    hub.condition(PLACEMENT, "Applied", "True", "Applied").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_that_is_killed_between_any_two_steps_ends_where_one_that_is_not_does() {
    let names = ["east", "edge", "west"];
    let (store, undisturbed) = world(&names).await;
    place_all(&store, &undisturbed).await;
    let expected = undisturbed.summary();

    let mut writes = 1;
    loop {
        let (store, clusters) = world(&names).await;
        let life = Life::of(writes);
        let mortal: Arc<dyn Store> = Arc::new(MortalStore {
            inner: Arc::clone(&store),
            life: Arc::clone(&life),
        });
        // What users wrote was acknowledged; then the hub comes up, works, and dies.
        seed(&store).await;
        *clusters.life.lock() = Some(Arc::clone(&life));
        let started = Hub::start(mortal, Arc::clone(&clusters), life.over.clone());
        let survivor = match life.over.run_until_cancelled(started).await {
            Some(hub) => {
                let applied = hub.condition(PLACEMENT, "Applied", "True", "Applied");
                let done = life.over.run_until_cancelled(applied).await.is_some();
                done.then_some(hub)
            }
            None => None,
        };
        *clusters.life.lock() = None;
        let survived = survivor.is_some();
        if let Some(hub) = survivor {
            hub.stop().await;
        } else {
            let hub = Hub::start(Arc::clone(&store), Arc::clone(&clusters), CancellationToken::new()).await;
            hub.condition(PLACEMENT, "Applied", "True", "Applied").await;
            hub.stop().await;
        }
        assert_eq!(clusters.summary(), expected, "killed after write {writes}");
        if survived {
            break;
        }
        // Every step at the beginning, where the order matters most, and then every third.
        writes += if writes < 12 { 1 } else { 3 };
    }
    assert!(writes > 12, "the hub made only {writes} writes");
}

/// Stores what users write, without controllers.
async fn seed(store: &Arc<dyn Store>) {
    let hub = Hub::without_controllers(Arc::clone(store)).await;
    for object in [namespace(), deployment(), registry(), replicas(7), placement(json!({}))] {
        hub.create(object).await;
    }
    hub.stop().await;
}
