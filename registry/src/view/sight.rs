//! Who sees what: the RBAC of each child, judged for the identity that the caller has there, or what the hub says
//! ([`super::permissions`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::time::Instant;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::user::{MASTERS, UserInfo};
use umbra_auth::rbac::{RbacIndex, Visibility};
use umbra_child::Identity;
use umbra_child::identity::{IdentityError, impersonation_headers};
use umbra_storage::Revision;

use super::permissions::HubPermissions;
use super::services::ViewServices;
use crate::copies::cache::CopyExtra;
use crate::copies::key::cluster_prefix;
use crate::directory::identity_of;
use crate::generic::store::storage_status;

/// Who decides in a view.
#[derive(Debug, Clone)]
pub(super) enum Authority {
    /// Each child, for its copies.
    Children,
    /// The hub, for all.
    Hub(Arc<dyn HubPermissions>),
}

/// Where a caller may do one thing with one resource: the clusters in which anything of it is allowed. Equal values allow
/// the same, which is how a watch learns that its permissions have changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sight(pub(super) BTreeMap<String, Arc<Visibility>>);

/// A verb on a resource, as RBAC knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act<'a> {
    pub(super) verb: &'a str,
    pub(super) group: &'a str,
    /// With the subresource, as `pods/log`.
    pub(super) resource: &'a str,
}

/// What of a resource a request is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent<'a> {
    /// Whether the resource is.
    pub(super) namespaced: bool,
    /// `None` for all.
    pub(super) namespace: Option<&'a str>,
    /// As the children know it; `None` for all.
    pub(super) name: Option<&'a str>,
}

/// What a caller wants to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) user: &'a UserInfo,
    pub(super) act: Act<'a>,
    pub(super) extent: Extent<'a>,
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
        let policies = self.policies.state();
        self.visibility_by(policies.clusters.get(cluster).map(AsRef::as_ref), user, cluster, act)
    }

    /// Whether `user` has come to see anything of a cluster in sight after `revision`, or may have. Judged by what is the same
    /// since then: what that shows was to be seen then.
    pub(super) fn sees_more_since(&self, revision: Revision, sight: &Sight, user: &UserInfo, act: Act<'_>) -> bool {
        let policies = self.policies.state();
        sight.0.iter().any(|(cluster, seen)| {
            let unchanged = policies.unchanged_since(cluster, revision);
            unchanged.is_some_and(|policy| self.visibility_by(Some(&policy), user, cluster, act) != **seen)
        })
    }

    fn visibility_by(&self, policy: Option<&RbacIndex>, user: &UserInfo, cluster: &str, act: Act<'_>) -> Visibility {
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
        match policy {
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
            (!visibility.is_nothing()).then(|| (cluster.clone(), Arc::new(visibility)))
        });
        Sight(seen.collect())
    }

    /// What the caller may do in each of these clusters, says who decides. Cancel safe.
    ///
    /// # Errors
    /// 500 where the hub decides and cannot be asked, 403 where it would have to be asked too much.
    pub(super) async fn judge(
        &self,
        authority: &Authority,
        question: Question<'_>,
        clusters: &[&String],
        deadline: Instant,
    ) -> Result<Sight, Status> {
        let Authority::Hub(hub) = authority else {
            return Ok(self.sight(question.user, clusters.iter().copied(), question.act));
        };
        let visibility = match question.whole(&**hub).await? {
            Some(visibility) => visibility,
            None => {
                let namespaces = self.namespaces(question.act, clusters, deadline).await?;
                question.among(&**hub, &namespaces).await?
            }
        };
        Ok(Sight::everywhere(clusters, visibility))
    }

    /// The namespaces of these clusters, as far as copies tell: those that are copied themselves, and those that have
    /// copies of the resource. Finding the latter takes a look at one copy for each.
    ///
    /// # Errors
    /// 504 where the copies are not loaded in time.
    pub(super) async fn namespaces(
        &self,
        act: Act<'_>,
        clusters: &[&String],
        deadline: Instant,
    ) -> Result<BTreeSet<String>, Status> {
        let namespaces = GroupResource::new("", "namespaces");
        let cache = self.copies.cache(&namespaces);
        cache.ready(deadline).await.map_err(|error| storage_status(&error))?;
        let snapshot = cache.snapshot();
        let mut found = BTreeSet::new();
        for cluster in clusters {
            let copies = snapshot.range(&cluster_prefix(&namespaces, cluster), None);
            found.extend(copies.map(|copy| CopyExtra::child_name(copy).to_owned()));
        }
        let resource = act.resource.split('/').next().unwrap_or_default();
        let resource = GroupResource::new(act.group, resource);
        if !self.is_copied(&resource, clusters) {
            return Ok(found);
        }
        let cache = self.copies.cache(&resource);
        cache.ready(deadline).await.map_err(|error| storage_status(&error))?;
        let snapshot = cache.snapshot();
        for cluster in clusters {
            let prefix = cluster_prefix(&resource, cluster);
            let mut after = None;
            // A cluster in which the resource has no namespaces adds none.
            let next = |after: Option<&str>| snapshot.range(&prefix, after).next();
            while let Some(copy) = next(after.as_deref()).filter(|copy| !copy.namespace.is_empty()) {
                // The character after the slash that ends a namespace: behind all of its objects.
                after = Some(format!("{prefix}{}0", copy.namespace));
                if !found.contains(&*copy.namespace) {
                    found.insert(copy.namespace.to_string());
                }
            }
        }
        Ok(found)
    }

    fn is_copied(&self, resource: &GroupResource, clusters: &[&String]) -> bool {
        let catalog = self.catalog.state();
        clusters.iter().any(|cluster| {
            let entry = catalog.clusters.get(*cluster);
            entry.is_some_and(|entry| entry.api.copied.contains(resource))
        })
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

impl Sight {
    /// The same in all of these clusters.
    pub(super) fn everywhere(clusters: &[&String], visibility: Visibility) -> Self {
        if visibility.is_nothing() {
            return Self::default();
        }
        let visibility = Arc::new(visibility);
        let seen = clusters.iter();
        Self(
            seen.map(|cluster| ((*cluster).clone(), Arc::clone(&visibility)))
                .collect(),
        )
    }

    /// Whether an object of a cluster is in sight.
    pub(super) fn allows(&self, cluster: &str, namespace: &str, name: &str) -> bool {
        self.0.get(cluster).is_some_and(|seen| seen.allows(namespace, name))
    }
}

/// Whether a request about a collection is allowed: of a namespace or of all, possibly for one name alone. A collection of
/// all namespaces is allowed where anything in it is.
pub(super) fn allows_collection(visibility: &Visibility, extent: Extent<'_>) -> bool {
    let Extent {
        namespaced,
        namespace,
        name,
    } = extent;
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
        let allows = |visibility: &Visibility, namespaced, namespace, name| {
            let extent = Extent {
                namespaced,
                namespace,
                name,
            };
            allows_collection(visibility, extent)
        };
        assert!(allows(&by_name, true, None, Some("web")) && !allows(&by_name, true, None, None));
        let shop = Visibility {
            namespaces: ["shop".to_owned()].into(),
            ..Visibility::default()
        };
        assert!(allows(&shop, true, None, None) && allows(&shop, true, Some("shop"), None));
        assert!(!allows(&shop, true, Some("bank"), None));
        assert!(
            !allows(&shop, false, None, None),
            "a role in a namespace grants nothing beyond it"
        );
        assert!(!allows_object(&shop, "", "node-1", false));
    }
}
