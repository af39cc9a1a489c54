//! Who machines are, what they may, and what they may write.

mod admission;
mod credentials;

use std::sync::Arc;

use serde_json::{Value, json};
use umbra_api::join_request::{AGENTS, BOOTSTRAPPERS, REPLICAS, agent_user, bootstrap_user};
use umbra_apimachinery::request::RequestInfo;
use umbra_apimachinery::user::{MachineCredential, UserInfo};
use umbra_auth::reserved;

use super::gate::decide;
use super::{AgentIdentity, Machine};
use crate::directory::Directory;

fn cluster(change: impl FnOnce(&mut Value)) -> Value {
    let mut cluster = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ManagedCluster",
        "metadata": {"name": "east", "uid": "m1"}, "spec": {"connection": {"mode": "Tunnel"}}});
    change(&mut cluster);
    cluster
}

fn request(change: impl FnOnce(&mut Value)) -> Value {
    let condition = json!({"type": "Approved", "status": "True", "reason": "r", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let mut request = json!({"apiVersion": "umbra.dev/v1alpha1", "kind": "ClusterJoinRequest",
        "metadata": {"name": "east-1", "uid": "r1"}, "spec": {"clusterName": "east", "request": "csr"},
        "status": {"conditions": [condition]}});
    change(&mut request);
    request
}

fn directory(cluster: &Value, request: &Value) -> Directory {
    let mut directory = Directory::default();
    let cluster = Arc::new(serde_json::from_value(cluster.clone()).unwrap());
    directory.clusters.insert("east".to_owned(), cluster);
    let request = Arc::new(serde_json::from_value(request.clone()).unwrap());
    directory.join_requests.insert("east-1".to_owned(), request);
    directory
}

fn agent() -> AgentIdentity {
    AgentIdentity {
        cluster: "east".to_owned(),
        cluster_uid: "m1".to_owned(),
        request: "east-1".to_owned(),
        request_uid: "r1".to_owned(),
    }
}

/// A user who has proved itself with `credential`, or not at all.
fn user(name: &str, groups: &[&str], uid: &str, credential: Option<MachineCredential>) -> UserInfo {
    let mut user = UserInfo::new(name, groups.iter().copied());
    user.uid = uid.to_owned();
    user.machine = credential;
    user
}

fn certificate() -> MachineCredential {
    MachineCredential::Agent {
        certificate: Arc::from(&b"der"[..]),
        expires: 0,
    }
}

fn token() -> MachineCredential {
    MachineCredential::BootstrapToken { hash: "h".to_owned() }
}

#[test]
fn machines_are_who_their_certificates_and_tokens_say() {
    let of = |name: &str, uid: &str, credential| Machine::of(&user(name, &[], uid, Some(credential)));
    assert_eq!(
        of("umbra:agent:east", "m1/east-1/r1", certificate()).unwrap(),
        Some(Machine::Agent(agent()))
    );
    let bootstrapper = Machine::Bootstrapper {
        cluster: "east".to_owned(),
        token: "h".to_owned(),
    };
    assert_eq!(of("umbra:bootstrap:east", "m1", token()).unwrap(), Some(bootstrapper));
    assert_eq!(
        of("umbra:replica", "", MachineCredential::Replica).unwrap(),
        Some(Machine::Replica)
    );
    // A machine by its credential with the name of none: refused, rather than judged as a person.
    for (name, uid, credential) in [
        ("alice", "", certificate()),
        ("umbra:agent:east", "m1", certificate()),
        ("umbra:agent:east", "m1/east-1/r1/x", certificate()),
        ("umbra:agent:", "m1/east-1/r1", certificate()),
        ("alice", "", token()),
    ] {
        assert_eq!(of(name, uid, credential).unwrap_err().code, 403, "{name} {uid}");
    }
}

#[test]
fn names_and_groups_make_nobody_a_machine() {
    for (name, group, uid) in [
        ("umbra:agent:east", AGENTS, "m1/east-1/r1"),
        ("umbra:bootstrap:east", BOOTSTRAPPERS, "m1"),
        ("umbra:replica", REPLICAS, ""),
    ] {
        let claimed = user(name, &[group, "system:authenticated"], uid, None);
        assert_eq!(Machine::of(&claimed).unwrap(), None, "{name}");
        // What the hub calls its machines is what nobody else may be called.
        assert!(reserved::is_user(name) && reserved::is_group(group), "{name}");
    }
    assert!(reserved::is_user(&agent_user("x")) && reserved::is_user(&bootstrap_user("x")));
}

#[test]
fn a_certificate_counts_while_everything_it_was_issued_for_is_there() {
    let good = directory(&cluster(|_| {}), &request(|_| {}));
    assert_eq!(agent().fault(&good), None);
    let denied = |request: &mut Value| {
        let mut denied = request["status"]["conditions"][0].clone();
        denied["type"] = "Denied".into();
        request["status"]["conditions"].as_array_mut().unwrap().push(denied);
    };
    let deleting = |object: &mut Value| object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let cases: [(Value, Value, &str); 8] = [
        (
            cluster(|one| one["metadata"]["uid"] = "m2".into()),
            request(|_| {}),
            "earlier",
        ),
        (
            cluster(|one| one["spec"]["connection"]["mode"] = "Direct".into()),
            request(|_| {}),
            "mode",
        ),
        (cluster(deleting), request(|_| {}), "being deleted"),
        (
            cluster(|_| {}),
            request(|one| one["metadata"]["uid"] = "r2".into()),
            "has been deleted",
        ),
        (
            cluster(|_| {}),
            request(|one| one["spec"]["clusterName"] = "west".into()),
            "has been deleted",
        ),
        (
            cluster(|_| {}),
            request(|one| one["status"] = json!({})),
            "not approved",
        ),
        (cluster(|_| {}), request(denied), "not approved"),
        (cluster(|_| {}), request(deleting), "has been deleted"),
    ];
    for (cluster, request, expected) in cases {
        let fault = agent().fault(&directory(&cluster, &request)).expect(expected);
        assert!(fault.contains(expected), "{expected}: {fault}");
    }
    assert!(agent().fault(&Directory::default()).is_some());
}

fn bootstrapper(cluster: &str) -> Machine {
    Machine::Bootstrapper {
        cluster: cluster.to_owned(),
        token: "h".to_owned(),
    }
}

#[test]
fn machines_may_do_what_they_are_there_for_and_nothing_else() {
    let directory = directory(&cluster(|_| {}), &request(|_| {}));
    let asked = |method: &str, path: &str| RequestInfo::parse(method, path, "");
    let below = |path: &str| format!("/apis/umbra.dev/v1alpha1/{path}");
    let machines = [
        Machine::Agent(agent()),
        bootstrapper("east"),
        bootstrapper("west"),
        Machine::Replica,
    ];
    for (method, path, allowed) in [
        ("GET", below("managedclusters/east/tunnel"), [true, false, false, true]),
        ("GET", below("managedclusters/west/tunnel"), [false, false, false, true]),
        ("POST", below("managedclusters/east/tunnel"), [false; 4]),
        ("GET", below("clusterjoinrequests/east-1"), [true, true, false, false]),
        (
            "PATCH",
            below("clusterjoinrequests/east-1"),
            [true, false, false, false],
        ),
        ("PUT", below("clusterjoinrequests/east-1"), [false; 4]),
        ("DELETE", below("clusterjoinrequests/east-1"), [false; 4]),
        ("PATCH", below("clusterjoinrequests/east-1/status"), [false; 4]),
        ("PATCH", below("clusterjoinrequests/west-1"), [false; 4]),
        ("POST", below("clusterjoinrequests"), [false, true, true, false]),
        ("GET", below("clusterjoinrequests"), [false; 4]),
        ("DELETE", below("clusterjoinrequests"), [false; 4]),
        ("GET", below("managedclusters/east"), [false; 4]),
        ("GET", below("managedclusters"), [false; 4]),
        ("GET", "/api/v1/namespaces/umbra-system/secrets".to_owned(), [false; 4]),
        ("GET", "/apis".to_owned(), [false; 4]),
        ("GET", "/metrics".to_owned(), [false; 4]),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews".to_owned(),
            [false; 4],
        ),
    ] {
        let decided = machines
            .each_ref()
            .map(|machine| decide(machine, &asked(method, &path), &directory).is_ok());
        assert_eq!(decided, allowed, "{method} {path}");
    }
    // A certificate that does not count any more opens nothing.
    let gone = Directory::default();
    assert!(
        decide(
            &machines[0],
            &asked("GET", &below("managedclusters/east/tunnel")),
            &gone
        )
        .is_err()
    );
}
