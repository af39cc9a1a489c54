//! The RBAC of each child, from the copies of its RBAC objects: who may see what there, decided in process.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use umbra_auth::rbac::{RbacIndex, RbacKind, RbacObject};
use umbra_storage::Revision;

use crate::copies::envelope::Envelope;
use crate::copies::key::CopyKey;
use crate::mirror::MirrorState;

/// Where the copies of RBAC objects are.
pub const RBAC_COPIES: &str = "/umbra/copies/rbac.authorization.k8s.io/";

/// The policy of each cluster.
#[derive(Debug, Clone, Default)]
pub struct ChildPolicies {
    /// By name of the cluster.
    pub clusters: BTreeMap<String, Arc<RbacIndex>>,
    /// When the objects of a cluster's policy were last made or changed.
    written: BTreeMap<String, Arc<Written>>,
}

/// The revisions of the objects of one policy.
#[derive(Debug, Clone, Default)]
struct Written {
    /// By key in the mirror.
    objects: BTreeMap<String, Revision>,
    last: Revision,
}

impl ChildPolicies {
    /// What a cluster's policy grants by objects that are as they were at `revision`: that was granted then, too. `None` where
    /// all of them are. Removing an object grants nothing, so those that are gone do not count.
    #[must_use]
    pub fn unchanged_since(&self, cluster: &str, revision: Revision) -> Option<RbacIndex> {
        let written = self.written.get(cluster).filter(|written| written.last > revision)?;
        let mut index = RbacIndex::clone(self.clusters.get(cluster)?);
        for (key, _) in written.objects.iter().filter(|(_, written)| **written > revision) {
            if let Some((kind, key)) = split(key) {
                index.remove(kind, key.namespace.unwrap_or_default(), key.name);
            }
        }
        Some(index)
    }
}

impl MirrorState for ChildPolicies {
    fn put(&mut self, path: &str, value: &Bytes, revision: Revision) {
        let Some((kind, key)) = split(path) else { return };
        let object = Envelope::decode(value).ok().and_then(|copy| {
            let mut object: serde_json::Value = serde_json::from_slice(&copy.object(revision.0)).ok()?;
            // Rules refer to each other by the names they have in the child.
            object["metadata"]["name"] = key.name.into();
            RbacObject::from_json(kind, &serde_json::to_vec(&object).ok()?).ok()
        });
        let written = self.written.entry(key.cluster.to_owned()).or_default();
        let written = Arc::make_mut(written);
        written.objects.insert(path.to_owned(), revision);
        written.last = revision.max(written.last);
        let index = Arc::make_mut(self.clusters.entry(key.cluster.to_owned()).or_default());
        match object {
            Some(object) => index.upsert(object),
            // An object that cannot be read grants nothing.
            None => {
                tracing::warn!(
                    cluster = key.cluster,
                    name = key.name,
                    "an RBAC object cannot be read; it grants nothing"
                );
                index.remove(kind, key.namespace.unwrap_or_default(), key.name);
            }
        }
    }

    fn remove(&mut self, path: &str) {
        let Some((kind, key)) = split(path) else { return };
        if let Some(written) = self.written.get_mut(key.cluster) {
            Arc::make_mut(written).objects.remove(path);
        }
        if let Some(index) = self.clusters.get_mut(key.cluster) {
            Arc::make_mut(index).remove(kind, key.namespace.unwrap_or_default(), key.name);
        }
    }
}

fn split(key: &str) -> Option<(RbacKind, CopyKey<'_>)> {
    let (resource, rest) = key.split_once('/')?;
    Some((RbacKind::from_resource(resource)?, CopyKey::parse(rest)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::copies::translate::to_view;
    use serde_json::json;
    use umbra_apimachinery::gvk::GroupResource;
    use umbra_apimachinery::user::UserInfo;

    #[test]
    fn a_tenant_sees_what_the_child_grants() {
        let mut policies = ChildPolicies::default();
        let mut put = |resource: &str, namespace: &str, object: serde_json::Value| {
            let resource = GroupResource::new("rbac.authorization.k8s.io", resource);
            let translated = to_view(object.to_string().as_bytes(), "east", &resource, None).unwrap();
            let key = format!("{}/east/{namespace}/{}", resource.resource, translated.name);
            policies.put(&key, &translated.envelope.encode(), Revision(7));
        };
        put(
            "roles",
            "shop",
            json!({"kind": "Role", "metadata": {"name": "reader", "namespace": "shop"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]}),
        );
        put(
            "rolebindings",
            "shop",
            json!({"kind": "RoleBinding", "metadata": {"name": "t", "namespace": "shop"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "tina"}],
            "roleRef": {"kind": "Role", "apiGroup": "rbac.authorization.k8s.io", "name": "reader"}}),
        );
        let tina = UserInfo::new("tina", ["system:authenticated"]);
        let seen = policies.clusters["east"].visible(&tina, "list", "", "pods");
        assert!(!seen.all_namespaces);
        assert_eq!(seen.namespaces.iter().collect::<Vec<_>>(), ["shop"]);
        let tinas = |index: &RbacIndex| index.visible(&tina, "list", "", "pods");
        assert!(policies.unchanged_since("east", Revision(7)).is_none(), "all of it");
        assert!(tinas(&policies.unchanged_since("east", Revision(6)).unwrap()).is_nothing());
        assert!(policies.unchanged_since("west", Revision(6)).is_none());
        policies.remove("rolebindings/east/shop/t");
        assert!(
            policies.clusters["east"]
                .visible(&tina, "list", "", "pods")
                .is_nothing()
        );
    }
}
