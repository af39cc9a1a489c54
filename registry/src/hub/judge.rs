//! Who may do what on the hub: by its own RBAC objects, or by what the hub's API server says.

use std::sync::Arc;

use async_trait::async_trait;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::UserInfo;
use umbra_auth::delegation::{DelegatedAuthorizer, VirtualGroup};
use umbra_auth::rbac::Attributes;

use crate::generic::authorization::{Authorizer, RbacAuthorizer, Rules, Verdict, forbidden};

/// Decides requests, where not to know is something else than to refuse.
#[async_trait]
pub trait Judge: Send + Sync {
    /// Lets the request pass. Cancel safe.
    ///
    /// # Errors
    /// 403 where it is not allowed, 500 where nobody can say.
    async fn judge(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<(), Status>;
}

#[async_trait]
impl Judge for RbacAuthorizer {
    async fn judge(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<(), Status> {
        let verdict = self.decide(user, attributes).await;
        if verdict.allowed {
            Ok(())
        } else {
            Err(forbidden(user, attributes, &verdict.reason))
        }
    }
}

#[async_trait]
impl Judge for DelegatedAuthorizer {
    async fn judge(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<(), Status> {
        match self.authorize(user, attributes).await {
            Ok(decision) if decision.is_allowed() => Ok(()),
            Ok(decision) => Err(forbidden(user, attributes, decision.reason())),
            Err(error) => Err(error.status()),
        }
    }
}

/// Decides what is done inside a fleet by the hub's permissions for `{group}.fleet.umbra.dev`.
pub(super) struct FleetAuthorizer(pub(super) Arc<DelegatedAuthorizer>);

#[async_trait]
impl Authorizer for FleetAuthorizer {
    async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Verdict {
        let group = VirtualGroup::Fleet.of(attributes.group);
        let decision = self.0.decide(user, &in_group(attributes, &group)).await;
        Verdict {
            allowed: decision.is_allowed(),
            reason: decision.reason().to_owned(),
        }
    }

    /// Reviews answer questions; none lists what there is to allow.
    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules {
            rules: Vec::new(),
            unresolved: vec![
                "the hub decides by its permissions for the groups *.fleet.umbra.dev, which it does not list; ask for one \
                 with `kubectl auth can-i VERB RESOURCE`"
                    .to_owned(),
            ],
        }
    }
}

/// The same request for a resource of another group. Paths stay what they are.
pub(super) fn in_group<'a>(attributes: &Attributes<'a>, group: &'a str) -> Attributes<'a> {
    if attributes.is_resource_request {
        Attributes { group, ..*attributes }
    } else {
        *attributes
    }
}
