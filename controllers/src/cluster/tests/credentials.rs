//! Credentials that are renewed, well and badly, and the Events that tell of a cluster.

use std::path::Path;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use umbra_child::kubeconfig::{Kubeconfig, User};
use umbra_show::Item;

use super::*;

impl Hub {
    async fn replace_secret(&self, kubeconfig: &Kubeconfig) {
        let kubeconfig = ByteString(kubeconfig.to_yaml().into_bytes());
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), SYSTEM_NAMESPACE);
        let patch = Patch::Merge(json!({"data": {"kubeconfig": kubeconfig}}));
        secrets
            .patch("east-kubeconfig", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    /// Waits for an Event of that reason about the cluster; gives its type and how often it happened.
    async fn event(&self, reason: &str, count: i32) -> String {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        eventually(&format!("{count} × {reason}"), async || {
            let found = events.list(&ListParams::default()).await.unwrap().items;
            let about = |one: &Event| {
                one.involved_object.name.as_deref() == Some("east")
                    && one.involved_object.kind.as_deref() == Some("ManagedCluster")
            };
            let found = found
                .into_iter()
                .find(|one| about(one) && one.reason.as_deref() == Some(reason))?;
            (found.count == Some(count)).then_some(found.type_.unwrap_or_default())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_does_not_work_ends_no_connection() {
    let item = Item::open("children.credentials");
    let hub = Hub::start(Arc::new(Embedded::in_memory())).await;
    let folder = tempfile::tempdir().unwrap();
    let data = Data::Path(folder.path().join("east"));
    let child = simulated(&hub, data.clone()).await;
    hub.create_secret(&child).await;
    hub.create_cluster().await;
    hub.condition(condition::READY, "True", "Ready").await;
    assert_eq!(hub.event("Reachable", 1).await, "Normal");
    let connected = hub.children.get("east").unwrap();

    let good = child.kubeconfig();
    let mut bad = good.clone();
    bad.users[0].user = User {
        token: Some("wrong".to_owned()),
        ..User::default()
    };
    hub.replace_secret(&bad).await;
    let kept = hub.condition(condition::REACHABLE, "True", "NewCredentialsFail").await;
    let conditions = kept.status.unwrap().conditions;
    assert!(conditions[0].message.contains("401"), "{}", conditions[0].message);
    assert_eq!(hub.event("NewCredentialsFail", 1).await, "Warning");
    let _: serde_json::Value = connected.get_json("/api/v1/namespaces/kube-system").await.unwrap();

    // The program is named and not run.
    let mut program = good.clone();
    program.users[0].user = serde_json::from_value(json!({"exec": {"command": "/bin/false",
        "apiVersion": "client.authentication.k8s.io/v1"}}))
    .unwrap();
    hub.replace_secret(&program).await;
    hub.condition(condition::REACHABLE, "False", "ExecCredentialsRefused")
        .await;
    assert_eq!(hub.event("ExecCredentialsRefused", 1).await, "Warning");
    assert!(hub.children.get("east").is_none());

    hub.replace_secret(good).await;
    hub.condition(condition::READY, "True", "Ready").await;
    assert_eq!(hub.event("Reachable", 2).await, "Normal");
    child.shut_down().await;
    assert_eq!(hub.event("ConnectionRefused", 1).await, "Warning");
    hub.stop().await;
    item.pass(
        "a refused credential left the connection of the one before; an exec plugin was not run; Events tell of both",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_another_server_no_longer_wants_the_one_before() {
    let item = Item::open("children.credentials.moved");
    let hub = Hub::start(Arc::new(Embedded::in_memory())).await;
    let child = simulated(&hub, Data::InMemory).await;
    hub.create_secret(&child).await;
    hub.create_cluster().await;
    hub.condition(condition::READY, "True", "Ready").await;

    // Bound and closed again: nobody listens there.
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = free.local_addr().unwrap();
    drop(free);
    let good = child.kubeconfig();
    let mut moved = good.clone();
    moved.clusters[0].cluster.server = format!("https://{nowhere}");
    hub.replace_secret(&moved).await;
    let lost = hub.condition(condition::REACHABLE, "False", "ConnectionRefused").await;
    let message = lost.status.unwrap().conditions[0].message.clone();
    assert!(message.contains(&nowhere.to_string()), "{message}");
    assert!(hub.children.get("east").is_none(), "nothing goes to the server before");
    assert!(!hub.keys("/umbra/copies/core/pods/east/").await.is_empty());
    hub.replace_secret(good).await;
    hub.condition(condition::READY, "True", "Ready").await;

    // The same for an authority that is not trusted any more.
    let mut distrusted = good.clone();
    distrusted.clusters[0].cluster.certificate_authority_data = Some(BASE64.encode(authority().0.pem()));
    hub.replace_secret(&distrusted).await;
    hub.condition(condition::REACHABLE, "False", "TLS").await;
    assert!(hub.children.get("east").is_none());
    hub.replace_secret(good).await;
    hub.condition(condition::READY, "True", "Ready").await;
    hub.stop().await;
    item.pass("another server and another authority in the Secret end the connection before them, and the copies stay");
}

/// A certificate authority, and what signs with it.
fn authority() -> (Certificate, Issuer<'static, KeyPair>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap(), Issuer::new(params, key))
}

/// A user with a token that works and a certificate that ends after so many days.
fn ending_in(days: u32, token: &str) -> User {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let mut params = CertificateParams::new(vec!["hub".to_owned()]).unwrap();
    let now = SystemTime::now();
    params.not_before = (now - DAY).into();
    params.not_after = (now + days * DAY).into();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority().1).unwrap();
    User {
        client_certificate_data: Some(BASE64.encode(certificate.pem())),
        client_key_data: Some(BASE64.encode(key.serialize_pem())),
        token: Some(token.to_owned()),
        ..User::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_that_ends_is_told_of_7_days_ahead() {
    let item = Item::open("children.credentials.expiry");
    let hub = Hub::start(Arc::new(Embedded::in_memory())).await;
    let child = simulated(&hub, Data::InMemory).await;
    hub.create_secret(&child).await;
    hub.create_cluster().await;
    hub.condition(condition::READY, "True", "Ready").await;
    for (days, status, reason) in [(8, "False", "Valid"), (6, "True", "ExpiresSoon")] {
        let mut kubeconfig = child.kubeconfig().clone();
        kubeconfig.users[0].user = ending_in(days, child.token());
        hub.replace_secret(&kubeconfig).await;
        hub.condition(condition::CREDENTIALS_EXPIRING, status, reason).await;
        eventually("the status says when it ends", async || {
            let ends = hub.clusters().get("east").await.unwrap().status?.credentials_expire?;
            let left = ends.0.as_second() - jiff::Timestamp::now().as_second();
            (left / (24 * 3600) == i64::from(days) - 1).then_some(())
        })
        .await;
    }
    assert_eq!(hub.event("ExpiresSoon", 1).await, "Warning");
    hub.stop().await;
    item.pass("8 days: Valid; 6 days: CredentialsExpiring and a Warning; status.credentialsExpire says when");
}

/// A user whose program prints the token that the file `token` of `folder` has. When it runs first it takes longer than a cluster
/// may to say who it is.
fn slow_program(folder: &Path) -> User {
    let script = r#"[ -e "$0/runs" ] || first=yes
        echo >> "$0/runs"
        [ -z "$first" ] || sleep 11
        printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",
            "status":{"token":"%s","expirationTimestamp":"%s"}}' "$(cat "$0/token")" "$1""#;
    let ends = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48);
    let exec = json!({"apiVersion": "client.authentication.k8s.io/v1", "command": "/bin/sh",
        "args": ["-c", script, folder, ends.to_string()], "interactiveMode": "Never"});
    serde_json::from_value(json!({"exec": exec})).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_allowed_may_be_slow_and_runs_again_after_401() {
    let item = Item::open("children.credentials.program");
    let store = Arc::new(Embedded::in_memory());
    let hub = Hub::with(store, Leases::sole(), LocalCredentials::Allowed).await;
    let child = simulated(&hub, Data::InMemory).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "wrong").unwrap();
    let mut kubeconfig = child.kubeconfig().clone();
    kubeconfig.users[0].user = slow_program(folder.path());
    hub.create_secret(&child).await;
    hub.replace_secret(&kubeconfig).await;
    hub.create_cluster().await;
    hub.condition(condition::REACHABLE, "False", "CredentialsRefused").await;
    // Nobody tells the hub.
    std::fs::write(folder.path().join("token"), child.token()).unwrap();
    hub.condition(condition::READY, "True", "Ready").await;
    // It ends within 7 days, and nobody has to do anything.
    let told = hub
        .condition(condition::CREDENTIALS_EXPIRING, "False", "RenewedByItself")
        .await;
    assert!(told.status.unwrap().credentials_expire.is_some());
    hub.stop().await;
    item.pass(
        "a program of 11 s is waited for; its token refused, it ran again by itself; its end is nobody's concern",
    );
}
