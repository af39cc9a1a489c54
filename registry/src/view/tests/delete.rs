//! What is said of deletions, and of other writes, when copies or clusters are late or missing.

use parking_lot::Mutex;

use super::super::answer::Awaits;
use super::super::exchange::Answer;
use super::super::resource::ViewResource;
use super::*;

/// As [`Fixture::resource`] gives it, for what a request does not reach by itself.
fn view_resource(fixture: &Fixture, name: &str) -> ViewResource {
    let api = fixture.api();
    let resource = GroupResource::parse(name).with_version("v1");
    let served = Arc::clone(api.shape.served(&resource).unwrap());
    ViewResource {
        services: api.services,
        view: api.name,
        shape: api.shape,
        authority: api.authority,
        hub: api.hub,
        served,
        printed: Mutex::default(),
        layout: Mutex::default(),
    }
}

fn within(time: Duration) -> RequestContext {
    RequestContext {
        deadline: Instant::now() + time,
        ..reader("ann")
    }
}

/// A client that is told nothing of a write in time does it again.
#[tokio::test]
async fn a_late_copy_leaves_time_to_answer() {
    let fixture = Fixture::new().await.with_pods().await;
    let copy = get(&fixture, "ann", "shop", "web-1@east").await.unwrap();
    let pods = view_resource(&fixture, "pods");
    pods.present_copies(&reader("ann")).await.unwrap();
    let target = pods.target("east", "web-1").unwrap();
    let answered = Answer {
        code: http::StatusCode::OK,
        body: pod("shop", "web-1", "8").to_string().into(),
    };
    // From here on time passes only where nothing else is to be done.
    tokio::time::pause();
    let context = within(Duration::from_secs(1));
    for awaits in [Awaits::Object, Awaits::ObjectOrEnd] {
        let outcome = pods.outcome(&context, Some("shop"), &target, &answered, awaits);
        let outcome = tokio::time::timeout_at(context.deadline, outcome).await;
        let WriteOutcome::Done(written) = outcome.expect("there is time left to answer").unwrap() else {
            panic!("no object")
        };
        assert_eq!(revision(&written), revision(&copy), "the one that there is");
    }
}
