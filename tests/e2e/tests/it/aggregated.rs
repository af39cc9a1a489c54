//! The hub behind a real kube-apiserver: its users, its permissions, its aggregation layer, and umbra behind it with the
//! rights of an installation.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use umbra_auth::certificates::{CertificateAuthority, ClientSubject};
use umbra_e2e::aggregated::Aggregated;
use umbra_e2e::any_hub::AnyHub as _;
use umbra_e2e::http;
use umbra_e2e::identity;
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::streams::{self, Protocol};
use crate::{deploy, deployment};

/// How long the watch lives that has to live long, in seconds; 100 in the long form.
const WATCH_VARIABLE: &str = "AGGREGATED_WATCH_SECONDS";

/// Lets a user of the hub, whom the children know by another name, enter the view and edit a namespace of every child.
#[track_caller]
fn admit(hub: &Aggregated, world: &World, namespace: &str, user: &str, there: &str) {
    let binding = format!("{namespace}-{}", user.replace(':', "-"));
    hub.cluster.kubectl().ok(format!(
        "create clusterrolebinding {binding} --clusterrole=umbra-editor --user={user}"
    ));
    for child in &world.children {
        let kubectl = child.kubectl().namespace(namespace);
        kubectl.ok(format!(
            "create rolebinding {binding} --clusterrole=edit --user={there}"
        ));
    }
}

#[track_caller]
fn namespaces(world: &World, namespace: &str) {
    crate::namespace_everywhere(world, namespace);
}

#[test]
fn umbras_kinds_are_native_to_the_hub() {
    let Some(hub) = Aggregated::shared() else { return };
    let item = Item::open("aggregated.kinds");
    let kubectl = hub.cluster.kubectl();
    let table = kubectl.ok("get managedclusters");
    assert!(table.contains("north") && table.contains("south"), "{table}");
    let short = kubectl.ok("get mcl,umbra");
    assert!(
        short.contains("view.umbra.dev/all") && short.contains("fleet.umbra.dev/all"),
        "{short}"
    );
    let explained = kubectl.ok("explain managedclusters.spec.sync");
    assert!(explained.contains("exclude"), "{explained}");
    assert!(
        kubectl
            .ok("api-resources --api-group=umbra.dev")
            .contains("managedclusters")
    );
    assert!(
        kubectl
            .ok("get --raw /openapi/v2")
            .contains("dev.umbra.v1alpha1.ManagedCluster")
    );

    let view = "{apiVersion: umbra.dev/v1alpha1, kind: View, metadata: {name: native}, spec: {clusterNames: [north]}}";
    kubectl.ok_with(view, "apply --server-side -f -");
    kubectl.ok("label view native a=b");
    assert_eq!(kubectl.path("view native", "{.metadata.labels.a}"), "b");
    let wrong = kubectl.run_with(
        &view.replace("clusterNames: [north]", "clusterNames: north"),
        "apply -f -",
    );
    assert!(wrong.stderr.contains("clusterNames"), "{wrong}");

    // Owners are followed by the hub's own garbage collector.
    let uid = kubectl.path("view native", "{.metadata.uid}");
    let owned = format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: owned, namespace: default, ownerReferences:
        [{{apiVersion: umbra.dev/v1alpha1, kind: View, name: native, uid: {uid}}}]}}}}"
    );
    // Of a namespaced object the owner may be cluster-scoped.
    kubectl.apply(&owned);
    kubectl.ok("delete view native --cascade=foreground --timeout=90s");
    wait::for_text(
        "the ConfigMap that the view owned is gone",
        || kubectl.path("configmap owned", "{.metadata.name}"),
        |text| text.contains("NotFound"),
    );
    item.pass("table, explain, apply, garbage collection");
}

#[test]
fn users_of_the_hub_see_and_change_children_through_the_aggregation_layer() {
    let Some(hub) = Aggregated::shared() else { return };
    let Some(world) = World::shared() else { return };
    let (lists, connects) = (Item::open("aggregated.view"), Item::open("aggregated.exec"));
    let namespace = "aggregated-view";
    namespaces(&world, namespace);
    for child in &world.children {
        deploy(&child.kubectl().namespace(namespace), "web", 1);
    }
    admit(&hub, &world, namespace, "carol", "carol");
    let robot = format!("system:serviceaccount:{namespace}:robot");
    hub.cluster.kubectl().ok(["create", "namespace", namespace]);
    // No service account of the hub is one of a child.
    admit(&hub, &world, namespace, &robot, &format!("hub:{robot}"));
    let carol = hub.certificate_user("carol", &["developers"]);
    let robot = hub.token_user(namespace, "robot");

    for user in [&carol, &robot] {
        let view = user.context("view").namespace(namespace);
        let (table, _) = wait::for_text(
            "both pods",
            || view.run("get pods").to_string(),
            |table| table.matches("Running").count() == 2,
        );
        assert!(
            table.contains("CLUSTER") && table.contains("@north") && table.contains("@south"),
            "{table}"
        );
        let refused = user.context("view").fails("get pods -n kube-system");
        assert!(refused.contains("Forbidden"), "{refused}");
    }
    let me = carol.context("north").ok("auth whoami -o json");
    assert!(me.contains("\"carol\"") && me.contains("developers"), "{me}");
    lists.pass("a client certificate and a token, 2 children");

    let south = carol.context("south").namespace(namespace);
    let view = carol.context("view").namespace(namespace);
    south.apply(TALKER);
    south.ok("wait pod/talker --for=condition=Ready --timeout=90s");
    for (kubectl, pod) in [(&south, "talker"), (&view, "talker@south")] {
        streams::logs(kubectl, pod);
        for protocol in Protocol::ALL {
            let kubectl = protocol.of(kubectl);
            streams::exec(&kubectl, pod);
            streams::terminal(&kubectl, pod);
            streams::forward(&kubectl, &format!("pod/{pod}"));
        }
    }
    connects.pass("logs -f, exec, exec -it, port-forward; cluster and view");
}

/// A pod whose process says something every now and then, with a port.
const TALKER: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.2; done"]
    ports: [{containerPort: 80}]
"#;

#[test]
fn a_watch_through_either_replica_lives_long_and_delivers() {
    let Some(hub) = Aggregated::exclusive() else { return };
    let Some(world) = World::shared() else { return };
    let item = Item::open("aggregated.watch");
    let namespace = "aggregated-watch";
    namespaces(&world, namespace);
    admit(&hub, &world, namespace, "wanda", "wanda");
    let wanda = hub.certificate_user("wanda", &[]);
    let view = wanda.context("view").namespace(namespace);
    let north = world.children[0].kubectl().namespace(namespace);
    let seconds: u64 = std::env::var(WATCH_VARIABLE)
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(3);
    let mut shortest = Duration::MAX;
    for replica in 0..hub.replicas() {
        hub.lead_to(Some(replica));
        let begun = Instant::now();
        let mut watch = wait::until("the watch", wait::DEADLINE, || {
            // The API server finds out at the first request that its connection has ended.
            let outcome = view.run("get configmaps -o name");
            if !outcome.stdout.contains("kube-root-ca.crt@south") {
                return Err(outcome.to_string());
            }
            Ok(view.start("get configmaps -w --no-headers -o custom-columns=NAME:.metadata.name"))
        });
        watch.wait_for("the beginning", |text| text.contains("kube-root-ca.crt@south"));
        north.ok(format!("create configmap early-{replica}"));
        watch.wait_for("the first event", |text| {
            text.contains(&format!("early-{replica}@north"))
        });
        let quiet = Duration::from_secs(seconds).saturating_sub(begun.elapsed());
        // Nothing happens for as long as somebody wants to know that nothing ends it.
        std::thread::sleep(quiet);
        view.ok(format!("create configmap late-{replica}@south"));
        watch.wait_for("the last event", |text| text.contains(&format!("late-{replica}@south")));
        shortest = shortest.min(begun.elapsed());
        watch.stop();
    }
    hub.lead_to(None);
    item.pass(&format!("each of 2 replicas delivers after {} s", shortest.as_secs()));
}

#[test]
fn tenants_write_in_a_fleet_what_their_namespace_on_the_hub_lets_them() {
    let Some(hub) = Aggregated::shared() else { return };
    let Some(world) = World::shared() else { return };
    let item = Item::open("aggregated.fleet");
    let (ours, theirs) = ("aggregated-ours", "aggregated-theirs");
    let root = hub.cluster.kubectl();
    root.apply("{apiVersion: umbra.dev/v1alpha1, kind: Fleet, metadata: {name: team}, spec: {}}");
    let administrator = root.server(&hub.root_url("fleets", "team"));
    for namespace in [ours, theirs] {
        root.ok(["create", "namespace", namespace]);
        wait::until("a namespace in the fleet", wait::DEADLINE, || {
            let outcome = administrator.run(["create", "namespace", namespace]);
            if outcome.succeeded() {
                Ok(())
            } else {
                Err(outcome.to_string())
            }
        });
    }
    root.ok("create clusterrole team-gate --verb=get,create,update,patch,delete --resource=fleets.umbra.dev/proxy");
    let robot = format!("system:serviceaccount:{ours}:tom-robot");
    for (number, user) in ["tom", &robot].into_iter().enumerate() {
        let user = format!("--user={user}");
        root.ok(format!(
            "create clusterrolebinding team-gate-{number} --clusterrole=team-gate {user}"
        ));
        // The hub aggregates umbra's rules into its own role `edit`.
        root.ok(format!(
            "create rolebinding tom-{number} --clusterrole=edit {user} -n {ours}"
        ));
    }
    let mut refusals = 0;
    for tom in [hub.certificate_user("tom", &[]), hub.token_user(ours, "tom-robot")] {
        refusals += works_in_its_namespace(&world, &tom.context("fleet"), ours, theirs);
    }
    item.pass(&format!(
        "certificate and token: placed in 2 children, {refusals} refusals"
    ));
}

/// Somebody who may edit `ours` and nothing else; how often they were refused.
#[track_caller]
fn works_in_its_namespace(world: &World, tom: &Kubectl, ours: &str, theirs: &str) -> usize {
    let template = deployment("web", 2);
    let placement = crate::fleet::placement("web", "Deployment", "");
    wait::until("the tenant's permission", wait::DEADLINE, || {
        let outcome = tom
            .namespace(ours)
            .run_with(&format!("{template}---\n{placement}"), "apply -f -");
        if outcome.succeeded() {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    for child in &world.children {
        crate::fleet::wait_for_path(&child.kubectl().namespace(ours), "deploy web", "{.spec.replicas}", "2");
    }
    assert_eq!(tom.namespace(ours).ok("auth can-i create deployments").trim(), "yes");
    assert!(tom.namespace(theirs).fails("auth can-i create deployments").is_empty());
    let refusals = [
        tom.namespace(theirs).run_with(&template, "apply -f -"),
        tom.namespace(theirs).run("get deployments"),
        tom.run("get deployments -A"),
        tom.namespace(ours).run("create clusteroverride a"),
        tom.run("delete namespace aggregated-ours"),
    ];
    for refused in &refusals {
        assert!(!refused.succeeded(), "{refused}");
    }
    let refused = tom.namespace(theirs).fails("get deployments");
    assert!(refused.contains("apps.fleet.umbra.dev"), "{refused}");
    tom.namespace(ours).ok("delete placement web");
    for child in &world.children {
        crate::fleet::wait_until_gone(&child.kubectl().namespace(ours), "deploy web");
    }
    refusals.len()
}

#[test]
fn whoever_has_the_role_joins_a_cluster_and_is_its_administrator() {
    // Alone: placements of other tests are for all clusters.
    let Some(hub) = Aggregated::exclusive() else { return };
    let item = Item::open("aggregated.join");
    let spare = World::spare();
    let root = hub.cluster.kubectl();
    root.ok("create clusterrolebinding paula --clusterrole=umbra-administrator --user=paula");
    root.ok("create rolebinding paula -n umbra-system --role=umbra-administrator --user=paula");
    let paula = hub.certificate_user("paula", &[]);
    for allowed in ["create secrets -n umbra-system", "list managedclusters.umbra.dev"] {
        wait::for_text(
            "paula's permission",
            || paula.run(format!("auth can-i {allowed}")).stdout,
            |answer| answer.trim() == "yes",
        );
    }
    let (theirs, own) = (spare.kubeconfig(), paula.kubeconfig().to_string_lossy());
    let (theirs, own) = (theirs.to_string_lossy(), own.as_ref());
    let from = [
        "--context",
        &spare.name,
        "--kubeconfig",
        &theirs,
        "--hub-kubeconfig",
        own,
    ];
    hub.umbra(&[&["join", "joined"], from.as_slice()].concat())
        .expect_success();

    let seen = paula
        .context("view")
        .ok("get namespaces -l umbra.dev/cluster=joined -o name");
    assert!(seen.contains("namespace/kube-system@joined"), "{seen}");
    paula
        .server(&hub.cluster_url("joined"))
        .ok("create configmap made -n default");
    assert_eq!(
        spare.kubectl().path("configmap made -n default", "{.metadata.name}"),
        "made"
    );
    spare.kubectl().ok("delete configmap made -n default");
    // Not even the administrator of the hub, whom nobody has let in.
    let refused = hub.child("joined").fails("get secrets -A");
    assert!(refused.contains("Forbidden"), "{refused}");

    hub.umbra(&["leave", "joined", "--hub-kubeconfig", own])
        .expect_success();
    let left = spare.kubectl().ok("get clusterrolebindings -o name");
    assert!(!left.contains("umbra:admins"), "{left}");
    item.pass("by a role, not system:masters; nobody else gets in");
}

/// A front proxy's or a user's word, sent to umbra itself, past the hub's API server: the status and who umbra takes it for.
struct Past<'a> {
    hub: &'a Aggregated,
    authority: String,
}

const WHO: &str = "/apis/umbra.dev/v1alpha1/managedclusters/north/proxy/apis/authentication.k8s.io/v1";
const CLUSTERS: &str = "GET /apis/umbra.dev/v1alpha1/managedclusters";
const ADMIN: [(&str, &str); 2] = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")];

impl Past<'_> {
    #[track_caller]
    fn status(&self, authority: Option<&CertificateAuthority>, name: &str, headers: &[(&str, &str)]) -> u16 {
        let certificate = authority.map(|authority| identity::certificate(authority, name, &[]));
        self.answer(certificate.as_ref(), CLUSTERS, headers).status
    }

    #[track_caller]
    fn answer(
        &self,
        certificate: Option<&umbra_auth::certificates::IssuedCertificate>,
        request: &str,
        headers: &[(&str, &str)],
    ) -> http::Answer {
        http::request(self.hub.port(), &self.authority, certificate, request, headers)
    }
}

#[test]
fn nobody_is_believed_but_the_hub() {
    let Some(hub) = Aggregated::shared() else { return };
    let (item, gates) = (Item::open("aggregated.spoof"), Item::open("aggregated.gates"));
    let past = Past {
        hub: &hub,
        authority: hub.authority_pem(),
    };
    let read = |file: &str| {
        let path = hub.cluster.folder().join("pki").join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let proxies = CertificateAuthority::from_pem(&read("front-proxy-ca.crt"), &read("front-proxy-ca.key"))
        .expect("the authority of the cluster's front proxies");
    let users = identity::authority(hub.cluster.folder());
    let day = Duration::from_secs(24 * 60 * 60);
    let stranger = CertificateAuthority::create("front-proxy-ca", day).expect("an authority");

    assert_eq!(
        past.status(Some(&proxies), "front-proxy-client", &ADMIN),
        200,
        "the front proxy"
    );
    assert_eq!(past.status(None, "", &ADMIN), 401, "no certificate");
    assert_eq!(
        past.status(Some(&stranger), "front-proxy-client", &ADMIN),
        401,
        "another authority"
    );
    assert_eq!(
        past.status(Some(&proxies), "somebody", &ADMIN),
        401,
        "a wrong common name"
    );
    assert_eq!(
        past.status(Some(&users), "front-proxy-client", &ADMIN),
        403,
        "a user of that name"
    );
    assert_eq!(
        past.status(Some(&proxies), "front-proxy-client", &[]),
        401,
        "a proxy for nobody"
    );
    assert_eq!(
        past.status(None, "", &[("Authorization", "Bearer guess")]),
        401,
        "a wrong token"
    );
    let subject = ClientSubject {
        user: "admin".to_owned(),
        groups: vec!["system:masters".to_owned()],
        uid: String::new(),
    };
    let good = users.issue_client(&subject, day).expect("a certificate");
    assert_eq!(past.answer(Some(&good), CLUSTERS, &[]).status, 200, "an administrator");
    let brief = users.issue_client(&subject, Duration::ZERO).expect("a certificate");
    // Good to the end of the second it was issued in.
    wait::until("the end of a certificate", wait::DEADLINE, || {
        match past.answer(Some(&brief), CLUSTERS, &[]).status {
            401 => Ok(()),
            status => Err(status.to_string()),
        }
    });

    // A token is good until it is revoked, and 10 s after.
    let kubectl = hub.cluster.kubectl();
    kubectl.ok("create serviceaccount leaver -n default");
    kubectl.ok("create clusterrolebinding leaver --clusterrole=umbra-editor --serviceaccount=default:leaver");
    let token = format!("Bearer {}", kubectl.ok("create token leaver -n default").trim());
    let with_token = || past.answer(None, CLUSTERS, &[("Authorization", &token)]).status;
    wait::until("the token's permission", wait::DEADLINE, || match with_token() {
        200 => Ok(()),
        status => Err(status.to_string()),
    });
    kubectl.ok("delete serviceaccount leaver -n default");
    wait::until("the refusal of a revoked token", wait::DEADLINE, || {
        match with_token() {
            401 => Ok(()),
            status => Err(status.to_string()),
        }
    });
    item.pass("8 wrong credentials refused, a revoked token too");

    // Whoever may not enter is refused by the hub's API server, and past it by umbra.
    let mallory = hub.certificate_user("mallory", &[]);
    for context in ["view", "fleet", "north"] {
        let refused = mallory.context(context).fails("get pods");
        assert!(refused.contains("Forbidden"), "{context}: {refused}");
    }
    let certificate = identity::certificate(&users, "mallory", &[]);
    for root in ["views/all", "fleets/all", "managedclusters/north"] {
        let request = format!("GET /apis/umbra.dev/v1alpha1/{root}/proxy/api/v1/pods");
        let answer = past.answer(Some(&certificate), &request, &[]);
        assert_eq!(answer.status, 403, "{root}: {}", answer.text);
        let answer = past.answer(Some(&certificate), &request, &[("Impersonate-User", "admin")]);
        assert_eq!(answer.status, 403, "{root}: {}", answer.text);
    }
    // What a user sends of a proxy's headers does not reach a child.
    let answer = past.answer(Some(&good), &format!("GET {WHO}"), &[("X-Remote-User", "mallory")]);
    assert_eq!(answer.status, 200, "{}", answer.text);
    gates.pass("3 roots, by the hub and by umbra");
}

/// Within how long another replica goes on with what a dead one did.
const TAKEOVER: Duration = Duration::from_secs(15);

#[test]
fn another_replica_goes_on_when_one_is_killed() {
    let Some(hub) = Aggregated::exclusive() else { return };
    let Some(world) = World::shared() else { return };
    let (item, stop) = (Item::open("aggregated.replicas"), Item::open("aggregated.stop"));
    let namespace = "aggregated-replicas";
    namespaces(&world, namespace);
    let view = hub.view().namespace(namespace);
    let authority = hub.authority_pem();
    let mut longest = Duration::ZERO;
    // Each once: whichever copies a child and plans a fleet, it is among them.
    for replica in 0..hub.replicas() {
        hub.end(replica, Signal::KILL);
        longest = longest.max(goes_on(&world, &view, namespace, &format!("killed-{replica}")));
        hub.start_again(replica);
        hub.wait_until_available();
    }
    let ended = hub.end(0, Signal::TERM);
    assert!(ended.success(), "{ended}\n{}", hub.output());
    let moved = goes_on(&world, &view, namespace, "ended");
    hub.start_again(0);
    hub.wait_until_available();
    stop.pass(&format!("goes on after {:.1} s", moved.as_secs_f64()));
    assert_eq!(hub.authority_pem(), authority, "the authority is the same");
    item.measure(
        &format!("{:.1} s after kill -9, each of 2 replicas", longest.as_secs_f64()),
        longest < TAKEOVER,
    );
}

/// Changes something in every child, and waits until the view has it: everything, and nothing twice. How long that took.
#[track_caller]
fn goes_on(world: &World, view: &Kubectl, namespace: &str, name: &str) -> Duration {
    let begun = Instant::now();
    for child in &world.children {
        let kubectl = child.kubectl().namespace(namespace);
        kubectl.ok(["create", "configmap", name]);
    }
    let expected = world
        .children
        .each_ref()
        .map(|child| format!("configmap/{name}@{}", child.name));
    wait::until("what has happened meanwhile", wait::DEADLINE, || {
        let seen = crate::sorted_lines(&view.run("get configmaps -o name").stdout);
        let found = seen.iter().filter(|line| line.contains(name));
        if found.eq(expected.iter()) {
            Ok(())
        } else {
            Err(seen.join("\n"))
        }
    });
    begun.elapsed()
}

#[test]
fn the_manifests_are_valid_to_a_real_api_server() {
    let Some(hub) = Aggregated::shared() else { return };
    let item = Item::open("aggregated.manifests");
    let base = umbra_e2e::aggregated::manifests();
    let mut objects = 0;
    for folder in [base.clone(), base.join("../trial")] {
        let applied = hub.cluster.kubectl().ok([
            "apply",
            "--server-side",
            "--dry-run=server",
            "--validate=strict",
            "--force-conflicts",
            "-k",
            &folder.to_string_lossy(),
        ]);
        objects += applied.lines().count();
        assert!(
            applied.contains("deployment.apps/umbra serverside-applied"),
            "{applied}"
        );
    }
    item.pass(&format!("{objects} objects of base and trial"));
}
