//! `umbra join` and `umbra leave`: any cluster of a kubeconfig becomes a child, with any credential, and leaves nothing
//! behind.

mod agents;
mod approval;
mod audit;
mod checks;
mod leave;
mod scene;
mod version;

use umbra_e2e::cluster::Cluster;
use umbra_e2e::environment;
use umbra_e2e::identity::{self, Context, Credential};
use umbra_e2e::kubectl::Kubectl;
use umbra_e2e::wait;
use umbra_e2e::world::World;
use umbra_show::Item;

use crate::sorted_lines;

/// Everything in a cluster that joining could leave behind.
fn inventory(cluster: &Cluster) -> Vec<String> {
    let kinds =
        "namespaces,serviceaccounts,secrets,configmaps,roles,rolebindings,clusterroles,clusterrolebindings,crds";
    let columns = "custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name";
    sorted_lines(
        &cluster
            .kubectl()
            .ok(["get", kinds, "-A", "--no-headers", "-o", columns]),
    )
}

/// The token of the cluster's kubeconfig with a token.
fn token(cluster: &Cluster) -> String {
    let kubectl = cluster.kubectl();
    let file = cluster.token_kubeconfig();
    let token = kubectl.with(&format!("--kubeconfig={}", file.display())).ok([
        "config",
        "view",
        "--raw",
        "-o",
        "jsonpath={.users[0].user.token}",
    ]);
    assert!(!token.is_empty());
    token
}

#[test]
fn every_kind_of_credential_joins_and_leaves_nothing_behind() {
    let Some(world) = World::shared() else { return };
    let (joins, leaves) = (Item::open("join"), Item::open("leave"));
    let spare = World::spare();
    // A hub of its own: the placements of other tests are for all clusters.
    let hub = world.another_hub();

    // The context's name is the same in both files, and in the third, whose credential a program prints.
    let authority = identity::authority(spare.folder());
    let credential = format!(
        r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"{}"}}}}"#,
        token(&spare)
    );
    let exec = identity::write_kubeconfig(
        &environment::folder("exec").join("kubeconfig"),
        &[Context {
            name: &spare.name,
            server: spare.server().to_owned(),
            authority_pem: authority.certificate_pem(),
            credential: &Credential::Exec {
                command: "echo".to_owned(),
                args: vec![credential],
            },
        }],
    );
    let credentials = [
        ("certificate", spare.kubeconfig()),
        ("token", spare.token_kubeconfig()),
        ("exec", exec),
    ];
    let before = inventory(&spare);
    let hub_secrets = || sorted_lines(&hub.root().ok("get secrets -A -o name"));
    let secrets_before = hub_secrets();
    for (kind, kubeconfig) in &credentials {
        let (file, hub_file) = (kubeconfig.to_string_lossy(), hub.kubeconfig());
        let mut command = vec![
            "join",
            "guest",
            "--context",
            &spare.name,
            "--kubeconfig",
            &file,
            "--hub-kubeconfig",
        ];
        let hub_file = hub_file.to_string_lossy();
        command.push(&hub_file);
        if *kind == "exec" {
            // What a hub behind a kube-apiserver has to be told, too.
            command.push("--allow-exec-credentials");
        }
        let joined = hub.umbra(&command).expect_success();
        hub.wait_for_child("guest");
        let listed = hub.root().ok("get managedclusters");
        assert!(
            listed
                .lines()
                .any(|line| line.starts_with("guest") && line.contains("True")),
            "{kind}: {listed}"
        );
        assert_ne!(
            hub_secrets(),
            secrets_before,
            "{kind}: the credential is a Secret on the hub"
        );
        // What it suggests works, for whoever joined.
        let suggested: Vec<&str> = joined
            .lines()
            .filter_map(|line| line.trim().strip_prefix("kubectl "))
            .collect();
        assert_eq!(suggested.len(), 2, "{kind}: {joined}");
        let kubectl = Kubectl::new(world.programs, &hub.kubeconfig());
        kubectl.ok(suggested[0]);
        assert!(kubectl.ok(suggested[1]).contains("guest"), "{kind}: {joined}");
        // Copied, and live.
        let copies = hub.view().ok("get namespaces -l umbra.dev/cluster=guest -o name");
        assert!(copies.contains("namespace/kube-system@guest"), "{kind}: {copies}");
        assert_eq!(
            sorted_lines(&hub.child("guest").ok("get namespaces -o name")),
            sorted_lines(&spare.kubectl().ok("get namespaces -o name")),
            "{kind}"
        );

        hub.leave("guest").expect_success();
        let gone = hub.root().fails("get managedcluster guest");
        assert!(gone.contains("NotFound"), "{kind}: {gone}");
        assert_eq!(hub_secrets(), secrets_before, "{kind}: no Secret is left on the hub");
        wait::until(&format!("{kind}: no copies are left"), wait::DEADLINE, || {
            // A view without clusters has no resources either.
            let left = hub
                .view()
                .run("get namespaces,clusterroles,pods -A -l umbra.dev/cluster=guest -o name");
            if left.stdout.is_empty() && (left.succeeded() || left.stderr.contains("NotFound")) {
                Ok(())
            } else {
                Err(left.to_string())
            }
        });
        wait::until(&format!("{kind}: nothing is left in the child"), wait::DEADLINE, || {
            let after = inventory(&spare);
            if after == before {
                Ok(())
            } else {
                Err(difference(&before, &after))
            }
        });
    }
    joins.pass("client certificate, token, exec");
    leaves.pass("0 objects left on the hub, 0 in the child");
}

fn difference(before: &[String], after: &[String]) -> String {
    let new = after
        .iter()
        .filter(|line| !before.contains(line))
        .map(|line| format!("+ {line}"));
    let gone = before
        .iter()
        .filter(|line| !after.contains(line))
        .map(|line| format!("- {line}"));
    new.chain(gone).collect::<Vec<_>>().join("\n")
}
