//! Who sees what: the RBAC of each child, judged for the identity that the caller has there.

use std::collections::BTreeMap;

use umbra_apimachinery::user::{MASTERS, UserInfo};
use umbra_auth::rbac::Visibility;
use umbra_child::Identity;
use umbra_child::identity::{IdentityError, impersonation_headers};

use super::services::ViewServices;
use crate::directory::identity_of;

/// Where a caller may do one thing with one resource: the clusters in which anything of it is allowed. Equal values allow
/// the same, which is how a watch learns that its permissions have changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sight(pub(super) BTreeMap<String, Visibility>);

/// A verb on a resource, as RBAC knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act<'a> {
    pub(super) verb: &'a str,
    pub(super) group: &'a str,
    /// With the subresource, as `pods/log`.
    pub(super) resource: &'a str,
}

/// The caller as a child sees it: exactly what is sent there, read back.
///
/// # Errors
/// Where the caller cannot be impersonated there.
pub(super) fn identity_in(user: &UserInfo, identity: &Identity) -> Result<UserInfo, IdentityError> {
    let headers = impersonation_headers(user, identity)?;
    let texts = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            .collect()
    };
    let name = texts("impersonate-user").pop().unwrap_or_default();
    Ok(UserInfo::new(name, texts("impersonate-group")))
}

impl ViewServices {
    /// What `user` may do in a cluster.
    pub(super) fn visibility(&self, user: &UserInfo, cluster: &str, act: Act<'_>) -> Visibility {
        let Some(registered) = self.cluster(cluster) else {
            return Visibility::default();
        };
        let identity = identity_of(&registered);
        let Ok(user) = identity_in(user, &identity) else {
            return Visibility::default();
        };
        // Above RBAC in every kube-apiserver, where it gets there.
        if identity.forward_system_groups && user.in_group(MASTERS) {
            return Visibility::everything();
        }
        match self.policies.state().clusters.get(cluster) {
            Some(policy) => policy.visible(&user, act.verb, act.group, act.resource),
            None => Visibility::default(),
        }
    }

    /// What `user` may do in each of these clusters.
    pub(super) fn sight<'a>(
        &self,
        user: &UserInfo,
        clusters: impl IntoIterator<Item = &'a String>,
        act: Act<'_>,
    ) -> Sight {
        let seen = clusters.into_iter().filter_map(|cluster| {
            let visibility = self.visibility(user, cluster, act);
            (!visibility.is_nothing()).then(|| (cluster.clone(), visibility))
        });
        Sight(seen.collect())
    }

    /// Which of these clusters' RBAC is not known yet, for messages.
    pub(super) fn without_policy<'a>(&self, clusters: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
        let policies = self.policies.state();
        clusters
            .into_iter()
            .filter(|cluster| !policies.clusters.contains_key(*cluster))
            .map(String::as_str)
            .collect()
    }
}

/// Whether a request about a collection is allowed: of a namespace or of all, possibly for one name alone. A collection of
/// all namespaces is allowed where anything in it is.
pub(super) fn allows_collection(
    visibility: &Visibility,
    namespaced: bool,
    namespace: Option<&str>,
    name: Option<&str>,
) -> bool {
    match namespace {
        _ if visibility.all_namespaces => true,
        Some(namespace) => visibility.allows(namespace, name.unwrap_or_default()),
        None if !namespaced => name.is_some_and(|name| visibility.names.contains(name)),
        None => {
            !visibility.namespaces.is_empty()
                || name.is_some_and(|name| {
                    visibility.names.contains(name)
                        || visibility.namespaced_names.values().any(|names| names.contains(name))
                })
        }
    }
}

/// Whether an object may be seen. Grants by name count only for requests that name the object.
pub(super) fn allows_object(visibility: &Visibility, namespace: &str, name: &str, is_named: bool) -> bool {
    visibility.all_namespaces
        || (!namespace.is_empty() && visibility.namespaces.contains(namespace))
        || (is_named && visibility.allows(namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_judged_is_what_is_sent() {
        let user = UserInfo::new("jane", ["dev", "system:masters", "system:authenticated"]);
        let seen = identity_in(&user, &Identity::default()).unwrap();
        assert_eq!(seen, UserInfo::new("jane", ["system:authenticated", "dev"]));
        let prefixed = Identity {
            user_prefix: "corp:".into(),
            ..Identity::default()
        };
        assert_eq!(identity_in(&user, &prefixed).unwrap().name, "corp:jane");
        assert!(identity_in(&UserInfo::anonymous(), &Identity::default()).is_err());
    }

    #[test]
    fn grants_by_name_are_for_requests_that_name() {
        let by_name = Visibility {
            names: ["web".to_owned()].into(),
            ..Visibility::default()
        };
        assert!(allows_object(&by_name, "shop", "web", true));
        assert!(!allows_object(&by_name, "shop", "web", false));
        assert!(allows_collection(&by_name, true, None, Some("web")) && !allows_collection(&by_name, true, None, None));
        let shop = Visibility {
            namespaces: ["shop".to_owned()].into(),
            ..Visibility::default()
        };
        assert!(allows_collection(&shop, true, None, None) && allows_collection(&shop, true, Some("shop"), None));
        assert!(!allows_collection(&shop, true, Some("bank"), None));
        assert!(
            !allows_collection(&shop, false, None, None),
            "a role in a namespace grants nothing beyond it"
        );
        assert!(!allows_object(&shop, "", "node-1", false));
    }
}
