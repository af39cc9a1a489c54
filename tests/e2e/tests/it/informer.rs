//! Informers of client-go on a view, while the replica that copies what they follow is killed: they see every final state,
//! and go on at another replica from where they were.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use serde_json::{Value, json};
use umbra_e2e::aggregated::Aggregated;
use umbra_e2e::informer::{Form, Informer, Protocol, Record, faults};
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_e2e::world::{CHILDREN, World};
use umbra_e2e::writers::Writers;
use umbra_show::Item;

const NAMESPACE: &str = "aggregated-informer";
/// The ConfigMaps of each child.
const OBJECTS: usize = 150;
/// Within how long another replica goes on with what a dead one did.
const TAKEOVER: Duration = Duration::from_secs(15);
/// What the replicas are called, in the order of their numbers.
const REPLICAS: [&str; 2] = ["first", "second"];

/// An informer, and what it is called in what the test says.
struct Follower {
    name: String,
    protocol: Protocol,
    informer: Informer,
}

#[test]
fn an_informer_goes_on_when_the_replica_that_copies_is_killed() {
    // Alone with the children, too: a watch cannot be resumed from before the RBAC of a child was changed.
    let Some(hub) = Aggregated::exclusive() else { return };
    let Some(world) = World::shared() else { return };
    let item = Item::open("aggregated.informer");
    let user = admit(&hub, &world);
    let writers = Writers::start(&world.children, NAMESPACE, OBJECTS);
    let mut followers = start_followers(&world, &user);

    let mut longest = Duration::ZERO;
    let mut moved = 0;
    for replica in both_beginning_with_the_copier_of(&hub, "north") {
        let copied = copied_by(&hub, replica);
        moved += copied.len();
        let killed = now();
        hub.end(replica, Signal::KILL);
        for child in &copied {
            longest = longest.max(wait_until_copied_again(&hub, &followers, child, replica, killed));
        }
        hub.start_again(replica);
        hub.wait_until_available();
    }
    assert!(moved > 0, "no child was copied by a replica that was killed");
    for follower in &followers {
        check(follower);
    }
    let lists = count_lists(&followers);
    for replica in 0..hub.replicas() {
        let ended = now();
        assert!(hub.end(replica, Signal::TERM).success());
        for child in CHILDREN {
            wait_for_events(&followers, child, ended);
        }
        hub.start_again(replica);
        hub.wait_until_available();
    }
    assert_eq!(
        count_lists(&followers),
        lists,
        "no client lists again when replicas end in order"
    );
    let changes = writers.stop();

    let expected = expected(&world);
    let mut resumed = 0;
    for follower in &mut followers {
        wait_for_state(follower, &expected);
        resumed += check(follower);
    }
    item.measure(
        &format!(
            "{changes} changes, 4 informers, {resumed} watches resumed; at most {:.1} s without events",
            longest.as_secs_f64()
        ),
        longest < TAKEOVER,
    );
}

/// A user who may read the namespace in both children, through the view.
#[track_caller]
fn admit(hub: &Aggregated, world: &World) -> Kubectl {
    let user = "informer";
    hub.cluster.kubectl().ok(format!(
        "create clusterrolebinding {NAMESPACE} --clusterrole=umbra-editor --user={user}"
    ));
    for child in &world.children {
        let kubectl = child.kubectl();
        kubectl.ok(["create", "namespace", NAMESPACE]);
        kubectl.ok(format!(
            "create rolebinding {user} --clusterrole=view --user={user} -n {NAMESPACE}"
        ));
    }
    let user = hub.certificate_user(user, &[]);
    let view = user.context("view").namespace(NAMESPACE);
    wait::for_text(
        "the namespaces of both children",
        || view.run("get configmaps -o name").to_string(),
        |text| {
            ["north", "south"]
                .iter()
                .all(|child| text.contains(&format!("kube-root-ca.crt@{child}")))
        },
    );
    user
}

/// An informer and a reflector in each protocol. Over HTTP/1.1 each has a connection of its own, over HTTP/2 one for all.
#[track_caller]
fn start_followers(world: &World, user: &Kubectl) -> Vec<Follower> {
    let mut followers = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        for form in [Form::Informer, Form::Reflector] {
            followers.push(Follower {
                name: format!("{form:?} over {protocol:?}"),
                protocol,
                informer: Informer::start(world.programs, user, "view", NAMESPACE, form, protocol),
            });
        }
    }
    for follower in &mut followers {
        follower.informer.wait_until_synced();
    }
    followers
}

/// The name of the replica that holds the lease of a child, with what its life has added to it; empty where nobody does.
#[track_caller]
fn copier(hub: &Aggregated, child: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let key = format!("/umbra-hub/umbra/leases/held/clusters/{child}");
    let found = runtime.expect("a runtime").block_on(async {
        let mut client = etcd_client::Client::connect([hub.cluster.etcd()], None).await?;
        client.get(key, None).await
    });
    let found = found.expect("etcd answers");
    let value = found.kvs().first().map(|entry| entry.value()).unwrap_or_default();
    let text = String::from_utf8_lossy(value);
    let holder = text
        .split_once(r#""holder":""#)
        .and_then(|(_, rest)| rest.split_once('"'));
    holder.map(|(holder, _)| holder.to_owned()).unwrap_or_default()
}

fn is_copied_by(hub: &Aggregated, child: &str, replica: usize) -> bool {
    copier(hub, child).starts_with(REPLICAS[replica])
}

#[track_caller]
fn both_beginning_with_the_copier_of(hub: &Aggregated, child: &str) -> [usize; 2] {
    let first = wait::until("somebody copies the child", wait::DEADLINE, || {
        let found = (0..REPLICAS.len()).find(|replica| is_copied_by(hub, child, *replica));
        found.ok_or_else(|| copier(hub, child))
    });
    [first, 1 - first]
}

fn copied_by(hub: &Aggregated, replica: usize) -> Vec<&'static str> {
    let children = CHILDREN.into_iter();
    children.filter(|child| is_copied_by(hub, child, replica)).collect()
}

/// Waits until every follower has seen an event of the child that the other replica has copied. The longest time that
/// anybody was without one.
#[track_caller]
fn wait_until_copied_again(
    hub: &Aggregated,
    followers: &[Follower],
    child: &str,
    killed_replica: usize,
    killed: u64,
) -> Duration {
    wait::until(&format!("{child} is copied by another"), wait::DEADLINE, || {
        if is_copied_by(hub, child, 1 - killed_replica) {
            Ok(())
        } else {
            Err(copier(hub, child))
        }
    });
    let mut longest = 0;
    for times in wait_for_events(followers, child, now()) {
        let around = times.windows(2).filter(|pair| pair[1] > killed);
        longest = around
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
            .max(longest);
    }
    Duration::from_millis(longest)
}

/// Waits until every follower has seen an event of the child after a time. When each has seen events.
#[track_caller]
fn wait_for_events(followers: &[Follower], child: &str, after: u64) -> Vec<Vec<u64>> {
    let mut all = Vec::new();
    for follower in followers {
        let what = format!("{}: an event of {child}", follower.name);
        all.push(wait::until(&what, wait::DEADLINE, || {
            let times = times_of(&follower.informer.records(), child);
            match times.last() {
                Some(last) if *last > after => Ok(times),
                last => Err(format!(
                    "the last one at {last:?}, not after {after}\n{}",
                    follower.informer.log()
                )),
            }
        }));
    }
    all
}

/// How often each follower has asked for everything.
fn count_lists(followers: &[Follower]) -> Vec<usize> {
    let lists = |follower: &Follower| {
        follower
            .informer
            .records()
            .iter()
            .filter(|record| record.is_list())
            .count()
    };
    followers.iter().map(lists).collect()
}

/// When there were events of a child.
fn times_of(records: &[Record], child: &str) -> Vec<u64> {
    let suffix = format!("@{child}");
    let events = records
        .iter()
        .filter(|record| record.is_event() && record.key.ends_with(&suffix));
    events.map(|record| record.time).collect()
}

/// Milliseconds since 1970, as the informers tell the time.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later");
    u64::try_from(since.as_millis()).expect("it is not much later")
}

/// What the children have, as the view names it, by key.
fn expected(world: &World) -> BTreeMap<String, Value> {
    let mut expected = BTreeMap::new();
    for child in &world.children {
        let list = child.kubectl().namespace(NAMESPACE).json("get configmaps");
        for mut object in list["items"].as_array().cloned().unwrap_or_default() {
            let name = format!(
                "{}@{}",
                object["metadata"]["name"].as_str().unwrap_or_default(),
                child.name
            );
            object["metadata"]["name"] = json!(name);
            object["metadata"]["labels"]["umbra.dev/cluster"] = json!(child.name);
            expected.insert(format!("{NAMESPACE}/{name}"), comparable(object));
        }
    }
    expected
}

/// The object without what is the view's own, or left out there.
fn comparable(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("resourceVersion");
        metadata.remove("managedFields");
    }
    object
}

#[track_caller]
fn wait_for_state(follower: &mut Follower, expected: &BTreeMap<String, Value>) {
    let name = follower.name.clone();
    wait::until(&format!("{name}: the children's final state"), wait::DEADLINE, || {
        let state = follower.informer.state();
        let state: BTreeMap<_, _> = state
            .into_iter()
            .map(|(key, object)| (key, comparable(object)))
            .collect();
        if state == *expected {
            return Ok(());
        }
        let differs = |(key, object): &(&String, &Value)| expected.get(*key) != Some(*object);
        let wrong: Vec<_> = state.iter().filter(differs).take(3).collect();
        let missing: Vec<_> = expected
            .keys()
            .filter(|key| !state.contains_key(*key))
            .take(3)
            .collect();
        Err(format!(
            "{} objects for {}; wrong: {wrong:?}; missing: {missing:?}",
            state.len(),
            expected.len()
        ))
    });
}

/// That it was told a history of each object, and went on without listing again. How often it did.
///
/// Over HTTP/2 client-go itself lists once for each watch that is cut: kube-apiserver ends the stream of a client whose
/// aggregated server dies with `INTERNAL_ERROR`, and a reflector takes an error that it does not know for the end of its
/// history (`watch` in `k8s.io/client-go/tools/cache/reflector.go`, `receive` in `k8s.io/apimachinery/pkg/watch`;
/// kubernetes/kubernetes#129683). No server can do anything about that. Then it says from where it asks, and every other
/// reason to list is a failure.
#[track_caller]
fn check(follower: &Follower) -> usize {
    let (name, log) = (&follower.name, follower.informer.log());
    let records = follower.informer.records();
    let found = faults(&records);
    assert!(
        found.is_empty(),
        "{name}: {} faults: {:?}",
        found.len(),
        &found[..found.len().min(3)]
    );
    let requests: Vec<&Record> = records.iter().filter(|record| record.kind == "REQUEST").collect();
    let refused = requests.iter().find(|request| request.status != 200);
    assert_eq!(refused, None, "{name}: {log}");
    let (lists, resumed): (Vec<&Record>, Vec<&Record>) = requests.iter().partition(|request| request.is_list());
    let cut = match follower.protocol {
        Protocol::Http1 => 0,
        Protocol::Http2 => log.matches("INTERNAL_ERROR; received from peer").count(),
    };
    assert_eq!(lists.len(), 1 + cut, "{name}: {lists:?}\n{log}");
    for list in &lists[1..] {
        let from = list
            .query
            .split('&')
            .any(|part| part.starts_with("resourceVersion=") && part.len() > 16);
        assert!(from, "{name} begins anew: {list:?}");
    }
    assert!(cut + resumed.len() > 0, "{name}: no watch was cut; nothing was shown");
    resumed.len()
}
