use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use k8s_openapi::api::authorization::v1::SubjectAccessReviewStatus;
use proptest::prelude::*;
use umbra_apimachinery::user::UserInfo;

use super::*;
use crate::delegation::access::{judge, same_question};
use crate::delegation::testing::FakeHub;
use crate::rbac::{Attributes, Decision};

fn authorizer(hub: &Arc<FakeHub>) -> DelegatedAuthorizer {
    let options = AccessReviewOptions {
        patience: patience(),
        ..AccessReviewOptions::default()
    };
    DelegatedAuthorizer::new(
        AlwaysAllow::default(),
        AccessReviews::new(Arc::clone(hub) as _, &options),
    )
}

fn alice() -> UserInfo {
    UserInfo::new("alice", ["dev"])
}

/// Whether to let somebody into a view.
const GATE: Attributes<'static> = Attributes {
    verb: "get",
    group: "umbra.dev",
    resource: "views",
    subresource: "proxy",
    namespace: "",
    name: "all",
    path: "",
    is_resource_request: true,
};

#[tokio::test(start_paused = true)]
async fn permissions_and_refusals_count_for_10_s() {
    let hub = Arc::new(FakeHub::default());
    let authorizer = authorizer(&hub);
    let allowed = async || authorizer.authorize(&alice(), &GATE).await.unwrap().is_allowed();
    assert!(!allowed().await);
    hub.allow("alice", "get");
    tokio::time::advance(SECOND * 9).await;
    assert!(!allowed().await);
    tokio::time::advance(SECOND).await;
    assert!(allowed().await);
    hub.forbid("alice", "get");
    tokio::time::advance(SECOND * 9).await;
    assert!(allowed().await);
    tokio::time::advance(SECOND).await;
    assert!(!allowed().await);
    assert_eq!(hub.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_hub_gives_the_reason() {
    let hub = Arc::new(FakeHub::default());
    hub.allow("alice", "get");
    let authorizer = authorizer(&hub);
    let reason = |reason: &str| reason.to_owned();
    assert_eq!(
        authorizer.decide(&alice(), &GATE).await,
        Decision::Allow {
            reason: reason("RBAC: a binding")
        }
    );
    let create = Attributes { verb: "create", ..GATE };
    assert_eq!(
        authorizer.decide(&alice(), &create).await,
        Decision::NoOpinion {
            reason: reason("no binding")
        }
    );
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_judge_is_not_allowed() {
    let hub = Arc::new(FakeHub::default());
    hub.allow("alice", "get");
    hub.fail_with(&[500; 10]);
    let authorizer = authorizer(&hub);
    let error = authorizer.authorize(&alice(), &GATE).await.unwrap_err();
    assert_eq!(error.status().code, 500);
    let decision = authorizer.decide(&alice(), &GATE).await;
    assert_eq!(
        decision,
        Decision::NoOpinion {
            reason: "the hub answers 500 to a Review: no".to_owned()
        }
    );
    // It is no refusal that anybody would remember.
    assert!(authorizer.decide(&alice(), &GATE).await.is_allowed());
    assert_eq!(authorizer.statistics().failed, 2);
}

#[tokio::test(start_paused = true)]
async fn who_asks_the_same_at_once_shares_one_review() {
    let hub = Arc::new(FakeHub::thinking(SECOND));
    hub.allow("alice", "get");
    let authorizer = authorizer(&hub);
    let (user, view) = (alice(), VirtualGroup::View.of("apps"));
    let deployments = Attributes::resource("list", &view, "deployments", "shop", "");
    let asked = (0..100).map(|index| authorizer.decide(&user, if index % 2 == 0 { &GATE } else { &deployments }));
    let decisions = join_all(asked).await;
    let allowed = decisions.iter().filter(|decision| decision.is_allowed()).count();
    assert_eq!((allowed, hub.calls()), (50, 2));
}

#[tokio::test(start_paused = true)]
async fn masters_and_probes_need_no_hub() {
    let hub = Arc::new(FakeHub::default());
    let authorizer = authorizer(&hub);
    let nobody = UserInfo::anonymous();
    assert!(
        authorizer
            .decide(&nobody, &Attributes::path("get", "/livez"))
            .await
            .is_allowed()
    );
    let master = UserInfo::new("root", ["system:masters"]);
    assert!(authorizer.decide(&master, &GATE).await.is_allowed());
    assert_eq!(hub.calls(), 0);
    assert!(
        !authorizer
            .decide(&nobody, &Attributes::path("get", "/metrics"))
            .await
            .is_allowed()
    );
    assert_eq!(hub.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let hub = Arc::new(FakeHub::default());
    hub.allow("alice", "get");
    let options = AccessReviewOptions {
        capacity: 3,
        ..AccessReviewOptions::default()
    };
    let reviews = AccessReviews::new(Arc::clone(&hub) as _, &options);
    for name in 0..20 {
        let name = name.to_string();
        for verb in ["get", "list"] {
            let attributes = Attributes {
                verb,
                name: &name,
                ..GATE
            };
            reviews.authorize(&alice(), &attributes).await.unwrap();
        }
    }
    assert_eq!(reviews.sizes(), (3, 3, 0));
}

#[test]
fn an_answer_is_read_as_kube_apiserver_reads_it() {
    let read = |allowed, denied, reason: &str, error: &str| {
        judge(SubjectAccessReviewStatus {
            allowed,
            denied: Some(denied),
            reason: Some(reason.to_owned()),
            evaluation_error: Some(error.to_owned()),
        })
    };
    let (allow, refuse) = (
        |reason: &str| Decision::Allow {
            reason: reason.to_owned(),
        },
        |reason: &str| Decision::NoOpinion {
            reason: reason.to_owned(),
        },
    );
    assert_eq!(read(true, false, "why", "no role \"x\""), allow("why"));
    assert_eq!(read(false, true, "why not", ""), refuse("why not"));
    assert_eq!(read(true, true, "both", ""), refuse("both"));
    assert_eq!(read(false, false, "", "no role \"x\""), refuse("no role \"x\""));
    assert_eq!(judge(SubjectAccessReviewStatus::default()), refuse(""));
}

/// Texts that are easily confused, and often the same.
fn text() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "aa", "ab", "b", "a\0", ","]).prop_map(str::to_owned)
}

fn user() -> impl Strategy<Value = UserInfo> {
    let texts = || prop::collection::vec(text(), 0..3);
    let extra = prop::collection::btree_map(text(), texts(), 0..2);
    (text(), text(), texts(), extra).prop_map(|(name, uid, groups, extra): (_, _, _, BTreeMap<_, _>)| UserInfo {
        name,
        uid,
        groups,
        extra,
        machine: None,
    })
}

fn attributes() -> impl Strategy<Value = (bool, Vec<String>)> {
    (any::<bool>(), prop::collection::vec(text(), 7))
}

fn borrowed((is_resource_request, texts): &(bool, Vec<String>)) -> Attributes<'_> {
    Attributes {
        verb: &texts[0],
        group: &texts[1],
        resource: &texts[2],
        subresource: &texts[3],
        namespace: &texts[4],
        name: &texts[5],
        path: &texts[6],
        is_resource_request: *is_resource_request,
    }
}

proptest! {
    /// An answer is remembered for the question that was sent, for all of it, and for nothing else.
    #[test]
    fn different_questions_have_different_keys(
        one in (user(), attributes()),
        change in 0usize..15,
        other in (user(), attributes()),
    ) {
        let mut changed = one.clone();
        match change {
            0 => changed.0.name = other.0.name,
            1 => changed.0.uid = other.0.uid,
            2 => changed.0.groups = other.0.groups,
            3 => changed.0.extra = other.0.extra,
            4 => changed.1.0 = other.1.0,
            // The same letters in other places.
            12 => changed.0.uid.insert_str(0, &changed.0.name.split_off(changed.0.name.len() / 2)),
            13 => changed.0.groups = vec![changed.0.groups.concat()],
            14 => changed.1.1.rotate_left(1),
            change => changed.1.1[change - 5].clone_from(&other.1.1[change - 5]),
        }
        let (keys, specs) = same_question((&one.0, &borrowed(&one.1)), (&changed.0, &borrowed(&changed.1)));
        prop_assert_eq!(keys, specs);
    }
}
