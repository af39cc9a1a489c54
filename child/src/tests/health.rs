//! Probes and the circuit.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{Authorization, ChildError, Children, Health, Lane, ProbeConfig, Secret};

#[tokio::test]
async fn probes_open_the_circuit_and_close_it_again() {
    // Answers with what this says: 0 is healthy.
    let failing = Arc::new(AtomicUsize::new(0));
    let switch = Arc::clone(&failing);
    let server = Server::start(Speaks::default(), move |_| {
        let failing = switch.load(Ordering::SeqCst);
        async move {
            let status = if failing == 0 {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            text(status, "")
        }
    })
    .await;
    let children = Children::new(ProbeConfig {
        interval: Duration::from_millis(10),
        failures: 3,
        ..ProbeConfig::default()
    });
    let child = children.insert(server.config()).await.expect("a child");
    let mut health = child.health();
    soon(health.wait_for(|health| *health == Health::Reachable))
        .await
        .expect("probed");
    failing.store(1, Ordering::SeqCst);
    soon(health.wait_for(|health| matches!(health, Health::Unreachable { .. })))
        .await
        .expect("probed");
    for lane in [Lane::Requests, Lane::Streams] {
        let error = soon(child.send_on(lane, get("/api")))
            .await
            .expect_err("the circuit is open");
        let ChildError::Unreachable { cluster, reason, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(&**cluster, "c1");
        assert!(reason.contains("503"), "{reason}");
    }
    failing.store(0, Ordering::SeqCst);
    soon(health.wait_for(|health| *health == Health::Reachable))
        .await
        .expect("probed");
    soon(child.send(get("/api"))).await.expect("the circuit is closed");

    // New credentials keep the handle; another place is another one.
    let mut config = server.config();
    config.credentials.authorization = Authorization::Token(Secret::new("new"));
    children.insert(config.clone()).await.expect("a child");
    assert!(
        children
            .get("c1")
            .expect("there")
            .credentials()
            .current()
            .await
            .expect("credentials")
            .header
            .is_some()
    );
    assert_eq!(children.all().len(), 1);
    config.server = "https://127.0.0.1:1/".parse().expect("a URL");
    children.insert(config).await.expect("a child");
    assert_eq!(children.get("c1").expect("there").config().server.port(), Some(1));
    assert!(children.remove("c1").await);
    assert!(!children.remove("c1").await);
    soon(children.close()).await;
}
