use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::join_all;

use super::*;
use crate::authenticate::AuthenticationError;
use crate::delegation::testing::{FakeHub, status};

fn reviews(hub: &Arc<FakeHub>) -> TokenReviews {
    with(hub, TokenReviewOptions::default())
}

fn with(hub: &Arc<FakeHub>, options: TokenReviewOptions) -> TokenReviews {
    let options = TokenReviewOptions {
        patience: Patience {
            concurrency: options.patience.concurrency,
            ..patience()
        },
        ..options
    };
    TokenReviews::new(Arc::clone(hub) as _, options)
}

async fn name(reviews: &TokenReviews, token: &str) -> Result<String, String> {
    let judged = reviews.authenticate_token(token).await;
    judged.map(|user| user.name.clone()).map_err(|error| error.to_string())
}

#[tokio::test(start_paused = true)]
async fn a_revoked_token_is_refused_when_its_answer_has_expired() {
    let hub = Arc::new(FakeHub::default());
    hub.issue("t", "alice", &[]);
    let reviews = reviews(&hub);
    let user = reviews.authenticate_token("t").await.unwrap();
    assert_eq!(user.groups, ["system:authenticated"]);
    hub.revoke("t");
    tokio::time::advance(SECOND * 9).await;
    assert_eq!(
        name(&reviews, "t").await,
        Ok("alice".to_owned()),
        "it is remembered for 10 s"
    );
    tokio::time::advance(SECOND).await;
    let refused = name(&reviews, "t").await;
    assert_eq!(refused, Err("the token is refused: [invalid bearer token]".to_owned()));
    assert_eq!(hub.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_for_a_moment() {
    let hub = Arc::new(FakeHub::default());
    let reviews = reviews(&hub);
    for _ in 0..50 {
        assert!(name(&reviews, "t").await.is_err());
    }
    assert_eq!(hub.calls(), 1);
    hub.issue("t", "alice", &[]);
    tokio::time::advance(SECOND).await;
    assert_eq!(name(&reviews, "t").await, Ok("alice".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn who_asks_the_same_at_once_shares_one_review() {
    let hub = Arc::new(FakeHub::thinking(SECOND));
    hub.issue("t", "alice", &[]);
    hub.issue("u", "bob", &[]);
    let reviews = reviews(&hub);
    let tokens = ["t", "u"].into_iter().cycle().take(100);
    let names = join_all(tokens.map(|token| name(&reviews, token))).await;
    assert!(names.iter().step_by(2).all(|name| *name == Ok("alice".to_owned())));
    assert!(
        names
            .iter()
            .skip(1)
            .step_by(2)
            .all(|name| *name == Ok("bob".to_owned()))
    );
    assert_eq!(hub.calls(), 2);
    let statistics = reviews.statistics();
    assert_eq!((statistics.asked, statistics.shared, statistics.failed), (2, 98, 0));
}

#[tokio::test(start_paused = true)]
async fn a_review_lives_as_long_as_anybody_waits() {
    let hub = Arc::new(FakeHub::thinking(SECOND));
    hub.issue("t", "alice", &[]);
    let reviews = reviews(&hub);
    let mut first = name(&reviews, "t").boxed();
    let mut second = name(&reviews, "t").boxed();
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    assert_eq!(second.await, Ok("alice".to_owned()));
    assert_eq!((hub.calls(), reviews.sizes()), (1, (1, 0, 0)));

    let mut only = name(&reviews, "other").boxed();
    assert!((&mut only).now_or_never().is_none());
    assert_eq!(reviews.sizes(), (1, 0, 1));
    drop(only);
    assert_eq!(reviews.sizes(), (1, 0, 0), "nobody waits, nobody asks");
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_stumbles_is_asked_again() {
    let hub = Arc::new(FakeHub::default());
    hub.issue("t", "alice", &[]);
    hub.fail_with(&[500, 503, 504]);
    hub.failures.lock().push_back(ReviewError::Unreachable {
        review: "Review",
        source: "connection reset".into(),
    });
    let begun = tokio::time::Instant::now();
    assert_eq!(name(&reviews(&hub), "t").await, Ok("alice".to_owned()));
    assert_eq!(hub.calls(), 5);
    // 500 ms and half as much more each time.
    let waited = begun.elapsed().as_millis();
    assert!((4062..=4066).contains(&waited), "{waited} ms of simulated time");
}

#[tokio::test(start_paused = true)]
async fn five_attempts_are_enough_and_some_errors_need_no_second() {
    let hub = Arc::new(FakeHub::default());
    hub.fail_with(&[500; 10]);
    let reviews = reviews(&hub);
    let refused = reviews.authenticate_token("t").await.unwrap_err();
    assert!(refused.is_unjudged());
    assert_eq!(
        refused.to_string(),
        "the bearer token cannot be judged: the hub answers 500 to a Review: no"
    );
    assert_eq!(hub.calls(), 5);

    hub.failures.lock().clear();
    hub.fail_with(&[403]);
    let refused = reviews.authenticate_token("t").await.unwrap_err();
    assert!(refused.to_string().contains("system:auth-delegator"), "{refused}");
    assert_eq!(
        hub.calls(),
        6,
        "the first failure was not remembered, and this one is final"
    );
    // An outage that is over is over at once.
    hub.issue("t", "alice", &[]);
    assert_eq!(name(&reviews, "t").await, Ok("alice".to_owned()));
    assert_eq!(reviews.statistics().failed, 2);
}

#[tokio::test(start_paused = true)]
async fn the_hub_is_left_alone_as_long_as_it_wants() {
    let hub = Arc::new(FakeHub::default());
    hub.issue("t", "alice", &[]);
    hub.failures.lock().push_back(status(429, Some(SECOND * 3)));
    let begun = tokio::time::Instant::now();
    assert_eq!(name(&reviews(&hub), "t").await, Ok("alice".to_owned()));
    assert!(begun.elapsed() >= SECOND * 3);
    // Longer than anybody waits: that is no answer.
    hub.failures.lock().push_back(status(429, Some(SECOND * 60)));
    let begun = tokio::time::Instant::now();
    assert!(reviews(&hub).authenticate_token("t").await.unwrap_err().is_unjudged());
    assert!(begun.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_says_nothing_is_waited_for_10_s() {
    let hub = Arc::new(FakeHub::thinking(SECOND * 3600));
    let reviews = reviews(&hub);
    let begun = tokio::time::Instant::now();
    let refused = reviews.authenticate_token("t").await.unwrap_err();
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert!(refused.is_unjudged());
    assert_eq!(
        refused.to_string(),
        "the bearer token cannot be judged: the hub has not answered a TokenReview within 10 s"
    );
    assert_eq!(reviews.sizes(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn guesses_displace_no_good_token_and_memory_is_bounded() {
    let hub = Arc::new(FakeHub::default());
    let reviews = with(
        &hub,
        TokenReviewOptions {
            capacity: 3,
            ..TokenReviewOptions::default()
        },
    );
    for token in ["a", "b", "c"] {
        hub.issue(token, token, &[]);
        name(&reviews, token).await.unwrap();
    }
    for guess in 0..100 {
        assert!(name(&reviews, &guess.to_string()).await.is_err());
    }
    assert_eq!((reviews.sizes(), hub.calls()), ((3, 3, 0), 103));
    for token in ["a", "b", "c"] {
        name(&reviews, token).await.unwrap();
    }
    assert_eq!(hub.calls(), 103);
    // One more good one displaces the oldest.
    hub.issue("d", "d", &[]);
    for token in ["d", "c", "b"] {
        name(&reviews, token).await.unwrap();
    }
    assert_eq!((reviews.sizes().0, hub.calls()), (3, 104));
    name(&reviews, "a").await.unwrap();
    assert_eq!(hub.calls(), 105);
}

#[tokio::test(start_paused = true)]
async fn so_many_reviews_at_once_and_no_more() {
    let hub = Arc::new(FakeHub::thinking(SECOND));
    let options = TokenReviewOptions {
        patience: Patience {
            concurrency: 4,
            ..patience()
        },
        ..TokenReviewOptions::default()
    };
    let reviews = with(&hub, options);
    let tokens: Vec<String> = (0..20).map(|token| token.to_string()).collect();
    join_all(tokens.iter().map(|token| name(&reviews, token))).await;
    assert_eq!((hub.calls(), hub.most_under_way()), (20, 4));
}

#[tokio::test(start_paused = true)]
async fn tokens_for_others_are_refused() {
    let hub = Arc::new(FakeHub::default());
    hub.issue("mine", "alice", &["other", "umbra"]);
    hub.issue("other", "bob", &["other"]);
    hub.issue("unaware", "carol", &[]);
    let limited = with(
        &hub,
        TokenReviewOptions {
            audiences: vec!["umbra".to_owned()],
            ..TokenReviewOptions::default()
        },
    );
    assert_eq!(name(&limited, "mine").await, Ok("alice".to_owned()));
    for token in ["other", "unaware"] {
        let refused = limited.authenticate_token(token).await.unwrap_err();
        let expected = matches!(
            refused,
            AuthenticationError::Token(crate::tokens::TokenError::Audience { .. })
        );
        assert!(expected, "{refused}");
        assert!(!refused.is_unjudged());
    }
    assert_eq!(name(&reviews(&hub), "other").await, Ok("bob".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_token_of_nobody_is_refused() {
    let hub = Arc::new(FakeHub::default());
    hub.issue("t", "", &[]);
    let refused = name(&reviews(&hub), "t").await.unwrap_err();
    assert_eq!(refused, "the token is refused: the hub names no user for it");
}

#[tokio::test(start_paused = true)]
async fn the_hub_makes_nobody_a_machine_of_umbra() {
    let hub = Arc::new(FakeHub::default());
    hub.issue("t", "umbra:bootstrap:east", &[]);
    let refused = name(&reviews(&hub), "t").await.unwrap_err();
    assert!(refused.contains("belongs to machines"), "{refused}");
}
