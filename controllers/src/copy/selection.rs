//! Which resources of a cluster are copied, and in which version.

use std::collections::BTreeSet;

use umbra_api::cluster::Sync;
use umbra_apimachinery::discovery::{Discovery, ResourceDescriptor};
use umbra_apimachinery::gvk::GroupResource;

/// Not copied unless `include` names them: secrets and what grants access, and what changes so often, or is kept so
/// briefly, that a copy costs more than it is worth. `componentstatuses` answers lists but no watches.
const NOT_COPIED: [(&str, &str); 8] = [
    ("", "secrets"),
    ("", "events"),
    ("events.k8s.io", "events"),
    ("coordination.k8s.io", "leases"),
    ("coordination.k8s.io", "leasecandidates"),
    ("", "componentstatuses"),
    ("certificates.k8s.io", "certificatesigningrequests"),
    ("metrics.k8s.io", "*"),
];

/// The resources to copy: each group resource once, in the version that the cluster prefers among those that can be
/// listed and watched.
#[must_use]
pub(super) fn copied_resources<'a>(discovery: &'a Discovery, sync: &Sync) -> Vec<&'a ResourceDescriptor> {
    let mut seen = BTreeSet::new();
    discovery
        .resources()
        .filter(|resource| resource.serves("list") && resource.serves("watch"))
        .filter(|resource| is_copied(&resource.group_resource(), sync))
        .filter(|resource| seen.insert(resource.group_resource()))
        .collect()
}

/// What a cluster's own `spec.sync` and the hub's say together: each adds to the other, and what either excludes is not copied.
/// So nobody who may write a ManagedCluster brings to the hub what its operator keeps from it.
#[must_use]
pub(crate) fn everywhere(hub: &Sync, own: &Sync) -> Sync {
    let both = |own: &[String], hub: &[String]| own.iter().chain(hub).cloned().collect();
    Sync {
        include: both(&own.include, &hub.include),
        exclude: both(&own.exclude, &hub.exclude),
    }
}

/// Whether a text is a pattern of resources: `resource.group`, `*.group`, `resource` of the core group, or `*`.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    let part = |part: &str| {
        let good = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
        !part.is_empty() && part.chars().all(good)
    };
    let (resource, group) = text.split_once('.').unwrap_or((text, "core"));
    (resource == "*" || part(resource)) && group.split('.').all(part)
}

fn is_copied(resource: &GroupResource, sync: &Sync) -> bool {
    let named = |patterns: &[String]| patterns.iter().any(|pattern| pattern_matches(pattern, resource));
    let by_default = !NOT_COPIED
        .iter()
        .any(|(group, name)| *group == resource.group && (*name == "*" || *name == resource.resource));
    (by_default || named(&sync.include)) && !named(&sync.exclude)
}

/// `pods`, `deployments.apps`, `*.apps`, or `*` for everything.
fn pattern_matches(pattern: &str, resource: &GroupResource) -> bool {
    if pattern == "*" {
        return true;
    }
    let pattern = GroupResource::parse(pattern);
    pattern.group == resource.group && (pattern.resource == "*" || pattern.resource == resource.resource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use umbra_apimachinery::gvk::GroupVersionResource;

    fn discovery(resources: &[(&str, &str, &str)]) -> Discovery {
        let mut discovery = Discovery::new();
        for (group, version, resource) in resources {
            discovery.insert(ResourceDescriptor {
                resource: GroupVersionResource::new(*group, *version, *resource),
                verbs: vec!["list".into(), "watch".into()],
                ..ResourceDescriptor::default()
            });
        }
        discovery
    }

    fn names(discovery: &Discovery, sync: &Sync) -> Vec<String> {
        copied_resources(discovery, sync)
            .iter()
            .map(|one| one.resource.to_string())
            .collect()
    }

    #[test]
    fn everything_that_can_be_watched_but_what_is_secret_or_fleeting() {
        let discovery = discovery(&[
            ("", "v1", "pods"),
            ("", "v1", "secrets"),
            ("autoscaling", "v2", "horizontalpodautoscalers"),
            ("autoscaling", "v1", "horizontalpodautoscalers"),
            ("metrics.k8s.io", "v1", "pods"),
        ]);
        assert_eq!(
            names(&discovery, &Sync::default()),
            ["v1, Resource=pods", "autoscaling/v2, Resource=horizontalpodautoscalers"]
        );
    }

    #[test]
    fn a_cluster_can_include_and_exclude() {
        let discovery = discovery(&[("", "v1", "pods"), ("", "v1", "secrets"), ("apps", "v1", "deployments")]);
        let sync = Sync {
            include: vec!["secrets".into()],
            exclude: vec!["*.apps".into()],
        };
        assert_eq!(names(&discovery, &sync), ["v1, Resource=pods", "v1, Resource=secrets"]);
        let sync = Sync {
            include: vec!["*".into()],
            exclude: vec!["*".into()],
        };
        assert!(names(&discovery, &sync).is_empty());
    }

    #[test]
    fn the_hub_adds_to_what_a_cluster_says_and_its_exclusions_stay() {
        let discovery = discovery(&[("", "v1", "pods"), ("", "v1", "secrets"), ("apps", "v1", "deployments")]);
        let hub = Sync {
            include: vec!["secrets".into()],
            exclude: vec!["*.apps".into()],
        };
        let copied = |own: &Sync| names(&discovery, &everywhere(&hub, own));
        assert_eq!(copied(&Sync::default()), ["v1, Resource=pods", "v1, Resource=secrets"]);
        let own = Sync {
            include: vec!["deployments.apps".into()],
            exclude: vec!["pods".into()],
        };
        assert_eq!(copied(&own), ["v1, Resource=secrets"]);
    }

    #[test]
    fn patterns_are_told_from_other_texts() {
        for good in [
            "*",
            "pods",
            "*.apps",
            "deployments.apps",
            "*.metrics.k8s.io",
            "a-b.example.com",
        ] {
            assert!(is_pattern(good), "{good}");
        }
        for bad in ["", "Pods", "pods/status", "*.", "*.*", "apps.*", "a b", ".apps"] {
            assert!(!is_pattern(bad), "{bad}");
        }
    }
}
