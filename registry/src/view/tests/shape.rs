//! What a view serves where its clusters serve different things.

use umbra_api::root::ViewAuthorization;
use umbra_child::Identity;

use super::super::shape::{Clusters, Member, Served, Shape, Source};
use super::tenants::settled;
use super::*;

const ALL: [&str; 3] = ["get", "list", "watch"];

fn offer(name: &str, version: &str, kind: &str, namespaced: bool) -> ResourceDescriptor {
    ResourceDescriptor {
        resource: GroupResource::parse(name).with_version(version),
        kind: kind.to_owned(),
        namespaced,
        verbs: ALL.map(str::to_owned).to_vec(),
        ..ResourceDescriptor::default()
    }
}

fn api(resources: &[ResourceDescriptor], copied: &[&str]) -> ClusterApi {
    let mut discovery = Discovery::new();
    for resource in resources {
        discovery.insert(resource.clone());
    }
    ClusterApi {
        discovery: Arc::new(discovery),
        copied: copied.iter().map(|name| GroupResource::parse(name)).collect(),
    }
}

/// A cluster that was registered at that second of the hour.
fn member(registered: i64, resources: &[ResourceDescriptor], copied: &[&str]) -> Member {
    Member {
        api: Some(Arc::new(api(resources, copied))),
        identity: Identity::default(),
        registered: jiff::Timestamp::from_second(registered).ok(),
    }
}

fn shape(members: &[(&str, Member)]) -> Shape {
    let clusters: Clusters = members
        .iter()
        .map(|(name, member)| ((*name).to_owned(), member.clone()))
        .collect();
    Shape::new(clusters, ViewAuthorization::default())
}

fn served(shape: &Shape, name: &str, version: &str) -> Arc<Served> {
    let name = GroupResource::parse(name).with_version(version);
    Arc::clone(shape.served(&name).unwrap())
}

/// Kind, clusters, and clusters that are left out.
fn form(shape: &Shape, name: &str) -> (String, Vec<String>, Vec<String>) {
    let one = served(shape, name, "v1");
    let clusters = one.clusters.keys().cloned().collect();
    (
        one.descriptor.kind.clone(),
        clusters,
        one.left_out.iter().cloned().collect(),
    )
}

fn told(shape: &Shape) -> Vec<String> {
    let resources = shape.discovery.resources();
    resources.map(|one| one.resource.to_string()).collect()
}

#[test]
fn a_view_serves_the_union_and_watches_what_is_copied() {
    let hpas = "horizontalpodautoscalers.autoscaling";
    let hpa = |version| offer(hpas, version, "HorizontalPodAutoscaler", true);
    let mut pods = offer("pods", "v1", "Pod", true);
    let east = [
        pods.clone(),
        offer("secrets", "v1", "Secret", true),
        hpa("v2"),
        hpa("v1"),
    ];
    pods.verbs.push("delete".to_owned());
    let west = [pods, offer("things.x.io", "v1", "Thing", true)];
    let clusters: Clusters = [
        ("east".to_owned(), member(1, &east, &["pods", hpas])),
        ("new".to_owned(), Member::default()),
        ("west".to_owned(), member(2, &west, &["things.x.io"])),
    ]
    .into();
    let shape = Shape::new(clusters.clone(), ViewAuthorization::default());
    assert!(shape.is_of(&clusters));
    assert_eq!(
        told(&shape),
        [
            "v1, Resource=pods",
            "v1, Resource=secrets",
            "autoscaling/v2, Resource=horizontalpodautoscalers",
            "autoscaling/v1, Resource=horizontalpodautoscalers",
            "x.io/v1, Resource=things"
        ]
    );
    let pods = served(&shape, "pods", "v1");
    assert_eq!(pods.copied().collect::<Vec<_>>(), ["east"]);
    assert_eq!(pods.live().collect::<Vec<_>>(), ["west"]);
    assert!(pods.descriptor.serves("watch") && pods.descriptor.serves("delete"));
    assert!(!served(&shape, "secrets", "v1").descriptor.serves("watch"));
    assert_eq!(served(&shape, hpas, "v2").clusters["east"], Source::Copies);
    assert_eq!(served(&shape, hpas, "v1").clusters["east"], Source::OtherVersion);
    let mut renamed = clusters.clone();
    renamed.get_mut("new").unwrap().identity.user_prefix = "corp:".to_owned();
    assert!(!shape.is_of(&renamed));
    let mut registered_anew = clusters.clone();
    registered_anew.get_mut("west").unwrap().registered = None;
    assert!(!shape.is_of(&registered_anew));
    let mut fewer = clusters;
    fewer.remove("new");
    assert!(!shape.is_of(&fewer));
}

#[test]
fn what_kubernetes_defines_no_cluster_defines() {
    let odd = member(1, &[offer("pods", "v1", "Trap", false)], &["pods"]);
    let good = member(2, &[offer("pods", "v1", "Pod", true)], &["pods"]);
    let two = shape(&[("aaa", odd.clone()), ("aab", odd.clone()), ("east", good)]);
    assert_eq!(
        form(&two, "pods"),
        ("Pod".into(), vec!["east".into()], vec!["aaa".into(), "aab".into()])
    );
    assert!(told(&shape(&[("aaa", odd)])).is_empty());
}

#[test]
fn most_clusters_decide_and_then_the_one_registered_first() {
    let thing = |kind, namespaced| [offer("things.x.io", "v1", kind, namespaced)];
    let member = |registered, kind, namespaced| member(registered, &thing(kind, namespaced), &["things.x.io"]);
    let decided = |members: &[(&str, Member)]| form(&shape(members), "things.x.io");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    // The majority, whoever was first, by name or by time.
    let (odd, east, west) = (
        member(1, "Trap", true),
        member(2, "Thing", true),
        member(3, "Thing", true),
    );
    assert_eq!(
        decided(&[("aaa", odd), ("east", east.clone()), ("west", west.clone())]),
        ("Thing".into(), names(&["east", "west"]), names(&["aaa"]))
    );
    // A scope counts as a kind does.
    let joined = member(9, "Thing", false);
    assert_eq!(
        decided(&[("aaa", joined.clone()), ("east", east.clone()), ("west", west)]),
        ("Thing".into(), names(&["east", "west"]), names(&["aaa"]))
    );
    // One against one: who was there first.
    assert_eq!(
        decided(&[("aaa", joined), ("east", east)]),
        ("Thing".into(), names(&["east"]), names(&["aaa"]))
    );
    // In the same second: whose name comes first.
    assert_eq!(
        decided(&[("b", member(5, "Bee", true)), ("a", member(5, "Ant", true))]),
        ("Ant".into(), names(&["a"]), names(&["b"]))
    );
}

#[test]
fn who_joins_changes_neither_names_nor_preferences() {
    let subresource = |kind: &str| SubresourceDescriptor {
        name: "scale".to_owned(),
        kind: GroupVersionKind::new("autoscaling", "v1", kind),
        verbs: vec!["get".to_owned()],
    };
    let good = ResourceDescriptor {
        short_names: vec!["th".to_owned()],
        subresources: vec![subresource("Scale")],
        ..offer("things.x.io", "v1", "Thing", true)
    };
    let pods = offer("pods", "v1", "Pod", true);
    let deployments = offer("deployments.apps", "v1", "Deployment", true);
    let all = [pods.clone(), deployments.clone(), good.clone()];
    let before = shape(&[("east", member(1, &all, &[])), ("west", member(2, &all, &[]))]);
    let odd = ResourceDescriptor {
        short_names: vec!["po".to_owned()],
        subresources: vec![subresource("Trap")],
        ..good
    };
    let trap = [
        offer("deployments.trap.io", "v1", "Deployment", true),
        offer("things.x.io", "v9", "Thing", true),
        odd,
        pods,
        deployments,
    ];
    let after = shape(&[
        ("aaa", member(3, &trap, &[])),
        ("east", member(1, &all, &[])),
        ("west", member(2, &all, &[])),
    ]);
    let told_before = told(&before);
    assert_eq!(
        told(&after),
        [
            &told_before[..],
            &[
                "x.io/v9, Resource=things".to_owned(),
                "trap.io/v1, Resource=deployments".to_owned()
            ]
        ]
        .concat()
    );
    let descriptor = |shape| served(shape, "things.x.io", "v1").descriptor.clone();
    assert_eq!(descriptor(&after), descriptor(&before));
}

#[test]
fn what_comes_from_elsewhere_is_noticed() {
    let thing = |kind: &str| [offer("things.x.io", "v1", kind, true)];
    let copied = ["things.x.io"];
    let (odd, good) = (member(1, &thing("Trap"), &copied), member(2, &thing("Thing"), &copied));
    let before = shape(&[("aaa", odd.clone()), ("east", good.clone())]);
    assert!(
        shape(&[("aaa", odd.clone()), ("east", good.clone())])
            .moved(&before)
            .is_empty()
    );
    let after = shape(&[("aaa", odd), ("east", good.clone()), ("west", good.clone())]);
    // Those who come are noticed as members.
    let moved = |after: &Shape, before: &Shape| -> Vec<String> {
        let moved = after.moved(before).into_iter();
        moved
            .map(|(resource, cluster)| format!("{} {cluster}", resource.resource))
            .collect()
    };
    assert_eq!(moved(&after, &before), ["things aaa", "things east"]);
    let live = member(2, &thing("Thing"), &[]);
    let after = shape(&[("east", live)]);
    let before = shape(&[("east", good)]);
    assert_eq!(moved(&after, &before), ["things east"]);
}

/// Lets a cluster join in which ann may do everything, and that serves this. Returns when views know.
async fn join(fixture: &Fixture, cluster: &str, api: &ClusterApi) {
    grant(&fixture.store, cluster, "ann", "", &["*"], &["*"], &[]).await;
    put_cluster(&fixture.store, cluster, json!({}), json!({})).await;
    serve(fixture, cluster, api).await;
}

/// Lets a cluster serve this from now on. Returns when views know.
async fn serve(fixture: &Fixture, cluster: &str, api: &ClusterApi) {
    let value = serde_json::to_vec(api).unwrap();
    put(&fixture.store, &api_key(cluster), value.into()).await;
    settled(fixture).await;
}

#[tokio::test]
async fn a_cluster_that_joins_with_other_kinds_hides_nobody_and_ends_no_watch() {
    let fixture = Fixture::new().await.with_pods().await;
    let pods = fixture.resource("pods");
    let mut events = pods.watch(&reader("ann"), None, &ListOptions::default()).await.unwrap();
    let all = list(&fixture, "ann", None, &ListOptions::default()).await.unwrap();
    for _ in &all {
        assert!(matches!(next(&mut events).await, Some(Event::Added(_))));
    }
    let odd = [offer("pods", "v1", "Trap", false), offer("nodes", "v1", "Node", false)];
    join(&fixture, "aaa", &api(&odd, &["pods", "nodes"])).await;
    fixture.copy("pods", "aaa", pod("shop", "trap", "7")).await;
    fixture.copy("pods", "east", pod("shop", "late", "9")).await;
    let event = next(&mut events).await;
    assert!(
        matches!(&event, Some(Event::Added(pod)) if name(pod) == "shop/late@east"),
        "{event:?}"
    );

    let warning = "pods of cluster \"aaa\" are left out: there they are of another kind or scope";
    let context = reader("ann");
    let pods = fixture.resource("pods");
    let listed = pods.list(&context, None, &ListOptions::default()).await.unwrap();
    assert_eq!(listed.items.len(), all.len() + 1);
    assert_eq!(context.warnings.take(), [warning]);
    drop(pods.watch(&context, None, &ListOptions::default()).await.unwrap());
    assert_eq!(context.warnings.take(), [warning]);
    let get = async |name: &str| pods.get(&context, Some("shop"), name, "", &GetOptions::default()).await;
    get("db").await.unwrap();
    assert_eq!(context.warnings.take(), [warning]);
    assert_eq!(get("trap@aaa").await.unwrap_err().code, 404);
    assert_eq!(context.warnings.take(), [warning]);
    // Who asks others is told nothing of it.
    get("db@west").await.unwrap();
    pods.list(&context, None, &labelled("umbra.dev/cluster=east"))
        .await
        .unwrap();
    assert!(context.warnings.take().is_empty());
    // What it has in common with them is shown.
    let nodes = fixture.resource("nodes");
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "resourceVersion": "7"}});
    fixture.copy("nodes", "aaa", node).await;
    let listed = nodes.list(&context, None, &ListOptions::default()).await.unwrap();
    assert_eq!(names(&listed), ["/n1@aaa"]);
    assert!(context.warnings.take().is_empty());
}

#[tokio::test]
async fn a_watch_does_not_go_on_from_before_a_cluster_was_left_out() {
    let fixture = Fixture::new().await;
    let thing = |kind: &str| {
        let offers = [offer("things.x.io", "v1", kind, true), offer("pods", "v1", "Pod", true)];
        api(&offers, &["things.x.io", "pods"])
    };
    join(&fixture, "east", &thing("Thing")).await;
    join(&fixture, "west", &thing("Trap")).await;
    let object = |name: &str| {
        json!({"apiVersion": "x.io/v1", "kind": "Thing",
            "metadata": {"name": name, "namespace": "shop", "resourceVersion": "7"}})
    };
    fixture.copy("things.x.io", "east", object("good")).await;
    fixture.copy("things.x.io", "west", object("odd")).await;
    let context = reader("ann");
    let list = async || {
        let things = fixture.resource("things.x.io");
        things.list(&context, None, &ListOptions::default()).await.unwrap()
    };
    let before = list().await;
    assert_eq!(names(&before), ["shop/good@east"]);
    let pods = fixture.resource("pods");
    let all_pods = pods.list(&context, None, &ListOptions::default()).await.unwrap();
    // West serves the same as east now; what is copied has not changed.
    serve(&fixture, "west", &thing("Thing")).await;
    let resume = |list: &ObjectList| ListOptions {
        resource_version: list.metadata.resource_version.parse().ok(),
        ..ListOptions::default()
    };
    let resumed = resume(&before);
    // What else it has is shown as before.
    let pods = fixture.resource("pods");
    drop(pods.watch(&context, None, &resume(&all_pods)).await.unwrap());
    let things = fixture.resource("things.x.io");
    assert_eq!(things.watch(&context, None, &resumed).await.err().unwrap().code, 410);
    assert_eq!(names(&list().await), ["shop/good@east", "shop/odd@west"]);
}
