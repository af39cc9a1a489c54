//! The hub's permissions for what is in views.

use async_trait::async_trait;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::UserInfo;
use umbra_auth::delegation::{DelegatedAuthorizer, VirtualGroup};
use umbra_auth::rbac::{Attributes, Decision, PolicyRule, Visibility};

use crate::generic::authorization::{Authorizer, RbacAuthorizer, Rules};
use crate::view::{HubPermissions, PermissionChanges};

/// A standalone hub, which has the RBAC objects.
#[async_trait]
impl HubPermissions for RbacAuthorizer {
    async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<Decision, Status> {
        Ok(self.index().authorize(user, attributes))
    }

    fn visible(&self, user: &UserInfo, verb: &str, group: &str, resource: &str) -> Option<Visibility> {
        Some(self.index().visible(user, verb, group, resource))
    }

    async fn rules(&self, user: &UserInfo, namespace: &str) -> Rules {
        let Rules { rules, unresolved } = Authorizer::rules(self, user, namespace).await;
        Rules {
            rules: rules.into_iter().filter_map(inside_a_view).collect(),
            unresolved,
        }
    }

    fn changes(&self) -> PermissionChanges {
        PermissionChanges::Told(self.subscribe())
    }
}

/// What a rule of the hub is inside a view; `None` where it says nothing about views.
fn inside_a_view(rule: PolicyRule) -> Option<PolicyRule> {
    let groups = rule.api_groups.iter().filter_map(|group| match group.as_str() {
        "*" => Some("*"),
        group => VirtualGroup::View.stands_for(group),
    });
    let api_groups: Vec<String> = groups.map(str::to_owned).collect();
    (!api_groups.is_empty()).then(|| PolicyRule {
        api_groups,
        non_resource_urls: Vec::new(),
        ..rule
    })
}

/// A hub behind a kube-apiserver, which answers reviews.
#[async_trait]
impl HubPermissions for DelegatedAuthorizer {
    async fn decide(&self, user: &UserInfo, attributes: &Attributes<'_>) -> Result<Decision, Status> {
        let decided = self.authorize(user, attributes).await;
        decided.map_err(|error| error.status())
    }

    fn visible(&self, _user: &UserInfo, _verb: &str, _group: &str, _resource: &str) -> Option<Visibility> {
        None
    }

    /// Reviews answer questions; none lists what there is to allow.
    async fn rules(&self, _user: &UserInfo, _namespace: &str) -> Rules {
        Rules {
            rules: Vec::new(),
            unresolved: vec![
                "the hub decides by its permissions for the groups *.view.umbra.dev, which it does not list; ask for one \
                 with `kubectl auth can-i VERB RESOURCE`"
                    .to_owned(),
            ],
        }
    }

    fn changes(&self) -> PermissionChanges {
        PermissionChanges::Asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_views_name_the_groups_themselves() {
        let rule = |groups: &[&str]| PolicyRule {
            api_groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..PolicyRule::default()
        };
        let inside = inside_a_view(rule(&["core.view.umbra.dev", "apps", "apps.view.umbra.dev"])).unwrap();
        assert_eq!(inside.api_groups, ["", "apps"]);
        assert_eq!(inside_a_view(rule(&["*"])).unwrap().api_groups, ["*"]);
        assert!(inside_a_view(rule(&["", "apps", "apps.fleet.umbra.dev"])).is_none());
    }
}
