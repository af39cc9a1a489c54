//! What the hub's API server decides, and what it means when it does not.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::authorization::v1::{SubjectAccessReviewSpec, SubjectAccessReviewStatus};
use umbra_apimachinery::user::{MASTERS, UserInfo};
use umbra_auth::delegation::{
    AccessReviewOptions, AccessReviews, AlwaysAllow, DelegatedAuthorizer, Patience, ReviewError, Reviewer,
};
use umbra_auth::rbac::Attributes;

use super::judge::{FleetAuthorizer, Judge};
use crate::generic::authorization::Authorizer;

/// A hub that allows one group alone, or answers nothing.
#[derive(Debug)]
struct Hub(Option<&'static str>);

#[async_trait]
impl Reviewer for Hub {
    async fn token_review(&self, _: &TokenReviewSpec) -> Result<TokenReviewStatus, ReviewError> {
        unreachable!("nobody asks about tokens here")
    }

    async fn subject_access_review(
        &self,
        spec: &SubjectAccessReviewSpec,
    ) -> Result<SubjectAccessReviewStatus, ReviewError> {
        let allowed = self.0.ok_or_else(|| ReviewError::Unreadable {
            review: "SubjectAccessReview",
            source: "nonsense".into(),
        })?;
        let asked = spec
            .resource_attributes
            .as_ref()
            .and_then(|asked| asked.group.as_deref());
        Ok(SubjectAccessReviewStatus {
            allowed: asked == Some(allowed),
            ..SubjectAccessReviewStatus::default()
        })
    }
}

fn authorizer(allowed: Option<&'static str>) -> Arc<DelegatedAuthorizer> {
    let options = AccessReviewOptions {
        patience: Patience {
            deadline: Duration::from_millis(50),
            ..Patience::default()
        },
        ..AccessReviewOptions::default()
    };
    let reviews = AccessReviews::new(Arc::new(Hub(allowed)), &options);
    Arc::new(DelegatedAuthorizer::new(AlwaysAllow::default(), reviews))
}

#[tokio::test]
async fn not_to_know_is_not_to_refuse() {
    let gate = Attributes::resource("get", "umbra.dev", "views/proxy", "", "all");
    let code = async |allowed, user: &UserInfo| {
        let judged = authorizer(allowed).judge(user, &gate).await;
        judged.map_err(|status| status.code)
    };
    let alice = UserInfo::new("alice", ["dev"]);
    assert_eq!(code(Some("umbra.dev"), &alice).await, Ok(()));
    assert_eq!(code(Some("apps"), &alice).await, Err(403));
    assert_eq!(code(None, &alice).await, Err(500));
    let root = UserInfo::new("root", [MASTERS]);
    assert_eq!(code(None, &root).await, Ok(()));
}

#[tokio::test]
async fn inside_a_fleet_the_permissions_are_those_for_its_groups() {
    let fleet = FleetAuthorizer(authorizer(Some("apps.fleet.umbra.dev")));
    let alice = UserInfo::new("alice", ["dev"]);
    for (group, expected) in [("apps", true), ("", false), ("apps.fleet.umbra.dev", false)] {
        let attributes = Attributes::resource("create", group, "deployments", "shop", "");
        assert_eq!(fleet.decide(&alice, &attributes).await.allowed, expected, "{group}");
    }
    let rules = fleet.rules(&alice, "shop").await;
    assert!(rules.rules.is_empty() && rules.unresolved[0].contains("kubectl auth can-i"));
}
