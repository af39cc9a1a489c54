//! Installing: what the manifests and the chart say, what a real API server thinks of it, and umbra as its pod runs it, with the
//! service account, the configuration and the rights that the chart gives it.

mod helm;
mod pod;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use umbra_e2e::cluster::Cluster;
use umbra_e2e::environment;
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_show::Item;

use helm::Helm;
use pod::{API_SERVICE, Installed};

/// Within how long kube-apiserver reaches umbra once both are there. It tries again after at most 30 s.
const AVAILABLE: Duration = Duration::from_secs(35);

fn folder(name: &str) -> PathBuf {
    umbra_e2e::aggregated::manifests().join("..").join(name)
}

/// Objects by kind, namespace and name.
type Objects = BTreeMap<(String, String, String), Value>;

/// The objects of a text in YAML. Left out is what Helm alone needs: that it keeps the namespace, and the checksum by which
/// pods start again when their configuration changes.
#[track_caller]
fn objects(text: &str) -> Objects {
    let mut objects = Objects::new();
    for document in text.split("\n---").map(|document| document.trim_start_matches("---")) {
        let parsed: Value = serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{error}: {document}"));
        if parsed.is_null() {
            continue;
        }
        let part = |pointer: &str| {
            parsed
                .pointer(pointer)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let key = (part("/kind"), part("/metadata/namespace"), part("/metadata/name"));
        let mut object = parsed.clone();
        without_annotation(&mut object, "/metadata", "helm.sh/resource-policy");
        without_annotation(&mut object, "/spec/template/metadata", "checksum/configuration");
        assert!(objects.insert(key.clone(), object).is_none(), "{key:?} is there twice");
    }
    objects
}

fn without_annotation(object: &mut Value, metadata: &str, name: &str) {
    let Some(metadata) = object.pointer_mut(metadata).and_then(Value::as_object_mut) else {
        return;
    };
    if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(name);
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

#[test]
fn the_chart_says_what_the_manifests_say() {
    let Some(programs) = environment::programs() else {
        return;
    };
    let helm = Helm::new(programs, Path::new("/nonexistent"));
    let kubectl = Kubectl::new(programs, Path::new("/nonexistent"));
    for (name, arguments) in [("base", &[][..]), ("trial", &["--set=etcd.trial=true"][..])] {
        let path = folder(name);
        let wanted = objects(&kubectl.ok(["kustomize", &path.to_string_lossy()]));
        let said = objects(&helm.template(arguments));
        assert!(wanted.len() > 15, "{name}: {:?}", wanted.keys());
        let keys = |objects: &Objects| objects.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&said), keys(&wanted), "{name}");
        for (key, object) in &wanted {
            assert_eq!(&said[key], object, "{name}: {key:?}");
        }
    }
    let chart = folder("chart");
    helm.run(&["lint", "--strict", &chart.to_string_lossy()])
        .expect_success();
    for (wrong, told) in [
        (&["--set=replicas=0"][..], "replicas"),
        (&["--set=imagee.tag=1"][..], "imagee"),
        (&["--set=etcd.servers="][..], "etcd.servers is missing"),
        (
            &["--set=podDisruptionBudget.minAvailable=1"][..],
            "minAvailable and maxUnavailable",
        ),
    ] {
        let path = chart.to_string_lossy();
        let refused = helm
            .run(&[&["template", "umbra", &path][..], wrong].concat())
            .expect_failure();
        assert!(refused.contains(told), "{refused}");
    }
}

/// Everything that can be said, said.
const FULL: &str = r#"
image: {repository: registry.example.com/umbra, digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", pullPolicy: Always, pullSecrets: [pull]}
replicas: 5
etcd: {servers: "https://etcd-0:2379,https://etcd-1:2379", secretName: certificates, prefix: /hub}
tls: {secretName: serving}
configuration: {UMBRA_REQUEST_TIMEOUT: 30s, UMBRA_SYNC_EXCLUDE: "*.apps"}
extraArgs: [--log=info]
extraEnv: [{name: HTTPS_PROXY, value: "http://proxy:3128"}]
extraVolumes: [{name: more, emptyDir: {}}]
extraVolumeMounts: [{name: more, mountPath: /more}]
resources: {limits: {memory: 1Gi}}
affinity: {}
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: control-plane, operator: Exists}]
topologySpreadConstraints:
- {maxSkew: 1, topologyKey: zone, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app.kubernetes.io/name: umbra}}}
priorityClassName: system-cluster-critical
podAnnotations: {a: b}
podLabels: {c: d}
podDisruptionBudget: {minAvailable: 1, maxUnavailable: null}
service: {port: 8443, annotations: {a: b}}
apiService: {annotations: {cert-manager.io/inject-ca-from: umbra-system/umbra}}
serviceAccount: {annotations: {a: b}}
"#;

/// The arguments of kubectl that have the server judge what `flag` names, in the place of what Helm has installed, and change
/// nothing.
fn dry_run<'a>(flag: &'a str, of: &'a str) -> [&'a str; 8] {
    let (server_side, dry_run) = ("--server-side", "--dry-run=server");
    let manager = "--field-manager=helm";
    [
        "apply",
        server_side,
        dry_run,
        manager,
        "--force-conflicts",
        "--validate=strict",
        flag,
        of,
    ]
}

/// Has a real API server judge everything that can be installed, where umbra is installed already. How many objects that were.
#[track_caller]
fn dry_runs(kubectl: &Kubectl, helm: &Helm) -> usize {
    let mut objects = 0;
    let mut judged = |applied: String| {
        objects += applied.lines().count();
        assert!(
            applied.contains("deployment.apps/umbra serverside-applied"),
            "{applied}"
        );
    };
    for name in ["base", "trial"] {
        judged(kubectl.ok(dry_run("-k", &folder(name).to_string_lossy())));
    }
    let full = environment::folder("values").join("full.yaml");
    std::fs::write(&full, FULL).expect("the folder is there");
    let full = full.to_string_lossy();
    for arguments in [
        &[][..],
        &["--set=etcd.trial=true,etcd.trialImage=etcd:1"],
        &["--values", &full],
    ] {
        judged(kubectl.ok_with(&helm.template(arguments), dry_run("-f", "-")));
    }
    objects
}

/// All that Helm has made, of the kinds that the chart has.
#[track_caller]
fn made_by_helm(kubectl: &Kubectl) -> Vec<String> {
    let kinds = "namespaces,serviceaccounts,configmaps,services,deployments,statefulsets,networkpolicies,poddisruptionbudgets,\
                 roles,rolebindings,clusterroles,clusterrolebindings,apiservices";
    let listed = kubectl.ok([
        "get",
        kinds,
        "-A",
        "-l",
        "app.kubernetes.io/managed-by=Helm",
        "-o",
        "name",
    ]);
    crate::sorted_lines(&listed)
}

#[test]
fn helm_installs_what_runs_in_a_pod_and_kube_apiserver_reaches() {
    let Some(programs) = environment::programs() else {
        return;
    };
    let (manifests, chart, in_cluster, aggregator) = (
        Item::open("aggregated.manifests"),
        Item::open("aggregated.chart"),
        Item::open("aggregated.in-cluster"),
        Item::open("aggregated.aggregator"),
    );
    let cluster = Cluster::start(programs, "installed");
    let helm = Helm::new(programs, &cluster.kubeconfig());
    let etcd = format!(
        "--set=etcd.servers={},etcd.prefix=/installed,etcd.secretName=",
        cluster.etcd()
    );
    let notes = helm.release("install", &[&etcd]);
    assert!(notes.contains("kubectl get apiservice"), "{notes}");
    let made = made_by_helm(cluster.kubectl());
    let count = objects(&helm.template(&[])).len();
    assert_eq!(made.len(), count, "{made:#?}");

    let mut installed = Installed::start(programs, cluster);
    let kubectl = installed.kubectl().clone();
    let trusted = |kubectl: &Kubectl| kubectl.path(["apiservice", API_SERVICE], "{.spec.caBundle}");
    let bundle = trusted(&kubectl);
    assert!(
        bundle.len() > 100,
        "umbra has told the APIService whom to trust: {bundle}"
    );
    helm.release(
        "upgrade",
        &[&etcd, "--set=replicas=2,configuration.UMBRA_REQUEST_TIMEOUT=30s"],
    );
    let deployment = kubectl.namespace("umbra-system");
    assert_eq!(deployment.path("deployment umbra", "{.spec.replicas}"), "2");
    assert_eq!(
        deployment.path("configmap umbra", "{.data.UMBRA_REQUEST_TIMEOUT}"),
        "30s"
    );
    assert_eq!(trusted(&kubectl), bundle, "an upgrade leaves what umbra wrote");

    let objects = dry_runs(&kubectl, &helm);
    manifests.pass(&format!(
        "{objects} objects of base, trial and 3 sets of values of the chart"
    ));

    installed.lead_here();
    let reached = installed.wait_for_available("True");
    let started = installed.begun.elapsed();
    // What it serves is asked for at the same event.
    wait::until("its kinds are known", wait::DEADLINE, || {
        let outcome = kubectl.run("get managedclusters");
        outcome.succeeded().then_some(()).ok_or_else(|| outcome.to_string())
    });
    in_cluster.pass(&format!(
        "serves and is reached {:.0} s after its start; {}",
        started.as_secs_f64(),
        token_rotates(&installed)
    ));
    aggregator.measure(&polls(&installed, reached), reached < AVAILABLE);

    installed.umbra.signal(Signal::TERM);
    let status = installed.umbra.wait(wait::DEADLINE);
    assert!(status.success(), "{status}\n{}", installed.umbra.output());
    installed.wait_for_available("False");

    helm.run(&["uninstall", "umbra", "--namespace=default"])
        .expect_success();
    assert_eq!(made_by_helm(&kubectl), ["namespace/umbra-system"], "it is kept");
    assert!(
        kubectl
            .ok("get secrets -n umbra-system -o name")
            .contains("secret/umbra-serving")
    );
    // The namespace is of this release still; this time it goes, too.
    helm.release("install", &[&etcd, "--set=namespace.keep=false"]);
    helm.run(&["uninstall", "umbra", "--namespace=default"])
        .expect_success();
    wait::until("everything is gone", wait::DEADLINE, || match made_by_helm(&kubectl) {
        left if left.is_empty() => Ok(()),
        left => Err(left.join(" ")),
    });
    let there = helm.run(&["list", "--all-namespaces", "--short"]).expect_success();
    assert_eq!(there.trim(), "");
    chart.pass(&format!(
        "equal to base and trial; install, upgrade and uninstall of {count} objects, nothing left"
    ));
}

/// Revokes the token that umbra began with, and waits until umbra has read the next one: as long as it asks the hub with the old
/// one, it cannot say who may do what. How long that took.
#[track_caller]
fn token_rotates(installed: &Installed) -> String {
    let kubectl = installed.kubectl();
    kubectl.ok("create clusterrole prober --verb=get --resource=views.umbra.dev");
    kubectl.ok("create clusterrolebinding prober --clusterrole=prober --group=probers");
    let mut number = 0;
    // Each time somebody of whom nothing is remembered.
    let mut probe = || {
        number += 1;
        kubectl.run([
            "get",
            "view",
            "all",
            "-o",
            "name",
            "--as-group=probers",
            &format!("--as=prober-{number}"),
        ])
    };
    wait::until("the permission of the probers", wait::DEADLINE, || {
        let outcome = probe();
        if outcome.succeeded() {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    let old = std::fs::read_to_string(installed.account.join("token")).expect("the token was written");
    let next = kubectl.ok("create token umbra -n umbra-system");
    // As the kubelet does: the new file takes the place of the old one.
    let written = installed.account.join("token.next");
    std::fs::write(&written, next.trim()).expect("the folder is there");
    std::fs::rename(&written, installed.account.join("token")).expect("both are in one folder");
    kubectl.ok("delete secret boot -n umbra-system");
    let begun = Instant::now();
    let programs = environment::programs().expect("they were there before");
    let with_old = Kubectl::new(programs, Path::new("/dev/null"))
        .with(&format!("--server={}", installed.cluster.server()))
        .with("--insecure-skip-tls-verify")
        .with(&format!("--token={old}"));
    wait::until("the old token is refused", wait::DEADLINE, || {
        let outcome = with_old.run("get --raw /api");
        if outcome.to_string().contains("Unauthorized") {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    wait::until("umbra has the new token", wait::DEADLINE, || {
        let outcome = probe();
        if outcome.succeeded() {
            Ok(())
        } else {
            Err(outcome.to_string())
        }
    });
    format!("a revoked token was replaced within {} s", begun.elapsed().as_secs())
}

/// Waits until the aggregation layer has asked again for what it knows, and was told that nothing has changed.
#[track_caller]
fn polls(installed: &Installed, reached: Duration) -> String {
    let discovery = || installed.answered("system:kube-aggregator", "/apis", 304);
    let schemas = || installed.answered("system:aggregator", "/openapi/v2", 304);
    // Once a minute each.
    wait::until("304 for discovery and schemas", wait::DEADLINE, || {
        match (discovery(), schemas()) {
            (1.., 1..) => Ok(()),
            seen => Err(format!("{seen:?}")),
        }
    });
    let whole = [
        installed.answered("system:kube-aggregator", "/apis", 200),
        installed.answered("system:aggregator", "/openapi/v2", 200),
    ];
    assert!(whole.iter().all(|count| *count >= 1), "{whole:?}");
    format!(
        "Available after {:.0} s; /apis {} × 200, {} × 304; /openapi/v2 {} × 200, {} × 304",
        reached.as_secs_f64(),
        whole[0],
        discovery(),
        whole[1],
        schemas()
    )
}
