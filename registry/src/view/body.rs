//! Puts what a client of a view writes into the form of the child: the name loses its cluster, the cluster's label
//! goes, and revisions of the hub become the child's.

use serde_json::{Value, json};
use umbra_apimachinery::names::{CLUSTER_LABEL, QualifiedName};

/// A body that makes no sense for the cluster it is sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    /// The body names another cluster than the path.
    #[error("{field} names the cluster {named:?}, but the request is for {cluster:?}")]
    OtherCluster {
        /// Where.
        field: &'static str,
        /// The cluster named there.
        named: String,
        /// The cluster of the request.
        cluster: String,
    },
    /// The cluster's label is to be changed: objects cannot move.
    #[error(
        "the label {CLUSTER_LABEL} says where an object is and cannot be changed; create the object in the other cluster instead"
    )]
    LabelChanged,
    /// The name is to be changed.
    #[error("metadata.name cannot be changed")]
    NameChanged,
    /// A JSON patch takes what only the view or only the child knows from somewhere else in the object.
    #[error("{path} cannot be taken from {from:?} in a view; give its value")]
    Taken {
        /// Where to.
        path: String,
        /// Where from.
        from: String,
    },
    /// The revision is not that of the present copy.
    #[error("the object has been modified; please apply your changes to the latest version and try again")]
    Modified,
}

/// Whom a body is for, and how to translate what it says.
pub(super) struct BodyTranslator<'a> {
    /// The cluster.
    pub(super) cluster: &'a str,
    /// Gives the child's revision where its argument is the revision of the present copy.
    pub(super) child_revision: &'a dyn Fn(&str) -> Option<String>,
}

impl BodyTranslator<'_> {
    /// An object, or a patch that looks like one (merge, strategic, apply).
    pub(super) fn object(&self, body: &mut Value) -> Result<(), BodyError> {
        let own_name = body["metadata"]["name"].as_str().and_then(QualifiedName::parse);
        if let Some((qualified, bare)) = own_name.map(|name| (name.to_string(), name.name.to_owned())) {
            unqualify_repetitions(body, &qualified, &bare);
        }
        match body.get_mut("metadata") {
            Some(metadata) => self.metadata(metadata),
            None => Ok(()),
        }
    }

    /// The metadata of an object.
    pub(super) fn metadata(&self, metadata: &mut Value) -> Result<(), BodyError> {
        if let Some(Value::String(name)) = metadata.get_mut("name") {
            *name = self.child_name(name)?;
        }
        if let Some(revision) = metadata.get_mut("resourceVersion") {
            self.revision(revision)?;
        }
        if let Some(owners) = metadata.get_mut("ownerReferences") {
            self.owners(owners)?;
        }
        if let Some(labels) = metadata.get_mut("labels") {
            self.labels(labels)?;
        }
        Ok(())
    }

    /// A revision that the object is to be at. None, or 0, is any.
    pub(super) fn revision(&self, revision: &mut Value) -> Result<(), BodyError> {
        if let Some(text) = revision.as_str().filter(|text| !matches!(*text, "" | "0")) {
            *revision = (self.child_revision)(text).ok_or(BodyError::Modified)?.into();
        }
        Ok(())
    }

    /// References to owners. The child's garbage collector looks for them by name, and deletes what has none.
    pub(super) fn owners(&self, owners: &mut Value) -> Result<(), BodyError> {
        let owners = owners.as_array_mut().into_iter().flatten();
        owners
            .filter_map(|owner| owner.get_mut("name"))
            .try_for_each(|name| self.owner_name(name))
    }

    /// The name of an owner.
    pub(super) fn owner_name(&self, name: &mut Value) -> Result<(), BodyError> {
        if let Value::String(name) = name {
            *name = self.bare_name("metadata.ownerReferences", name)?;
        }
        Ok(())
    }

    /// The labels of an object.
    pub(super) fn labels(&self, labels: &mut Value) -> Result<(), BodyError> {
        match labels.as_object_mut().and_then(|labels| labels.remove(CLUSTER_LABEL)) {
            Some(Value::String(named)) if named != self.cluster => Err(self.other_cluster("metadata.labels", &named)),
            Some(Value::Null) => Err(BodyError::LabelChanged),
            _ => Ok(()),
        }
    }

    /// The preconditions of `DeleteOptions`.
    pub(super) fn delete_options(&self, body: &mut Value) -> Result<(), BodyError> {
        let Some(revision) = body.pointer_mut("/preconditions/resourceVersion") else {
            return Ok(());
        };
        if let Some(text) = revision.as_str() {
            *revision = json!((self.child_revision)(text).ok_or(BodyError::Modified)?);
        }
        Ok(())
    }

    /// The name in the child.
    pub(super) fn child_name(&self, name: &str) -> Result<String, BodyError> {
        self.bare_name("metadata.name", name)
    }

    fn bare_name(&self, field: &'static str, name: &str) -> Result<String, BodyError> {
        match QualifiedName::parse(name) {
            Some(qualified) if qualified.cluster == self.cluster => Ok(qualified.name.to_owned()),
            Some(qualified) => Err(self.other_cluster(field, qualified.cluster)),
            None => Ok(name.to_owned()),
        }
    }

    fn other_cluster(&self, field: &'static str, named: &str) -> BodyError {
        BodyError::OtherCluster {
            field,
            named: named.to_owned(),
            cluster: self.cluster.to_owned(),
        }
    }
}

/// Replaces an object's qualified name where clients repeat it in what they generate: `kubectl create deployment web@east`
/// makes it a label, a selector and the name of the container, `kubectl autoscale` the target of the scaling. Nowhere of these
/// may it have a cluster.
fn unqualify_repetitions(value: &mut Value, qualified: &str, bare: &str) {
    let replace = |value: &mut Value| {
        if value.as_str() == Some(qualified) {
            *value = bare.into();
        }
    };
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match (key.as_str(), &mut *member) {
                    ("labels" | "matchLabels" | "selector", Value::Object(labels)) => {
                        labels.values_mut().for_each(replace);
                    }
                    ("containers", Value::Array(containers)) => {
                        let names = containers.iter_mut().filter_map(|container| container.get_mut("name"));
                        names.for_each(replace);
                    }
                    ("scaleTargetRef", target) => target.get_mut("name").into_iter().for_each(replace),
                    _ => {}
                }
                unqualify_repetitions(member, qualified, bare);
            }
        }
        Value::Array(items) => {
            for item in items {
                unqualify_repetitions(item, qualified, bare);
            }
        }
        _ => {}
    }
}

/// The cluster that an object to be created names: by its name or by its label.
#[must_use]
pub(super) fn named_cluster(body: &Value) -> Option<String> {
    let metadata = &body["metadata"];
    let by_name = |field: &str| {
        metadata[field]
            .as_str()
            .and_then(QualifiedName::parse)
            .map(|name| name.cluster.to_owned())
    };
    let by_label = || metadata["labels"][CLUSTER_LABEL].as_str().map(str::to_owned);
    by_name("name").or_else(by_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translator(revision: &dyn Fn(&str) -> Option<String>) -> BodyTranslator<'_> {
        BodyTranslator {
            cluster: "east",
            child_revision: revision,
        }
    }

    fn revision(text: &str) -> Option<String> {
        (text == "99").then(|| "7".to_owned())
    }

    #[test]
    fn objects_become_the_childs() {
        let mut body = json!({"metadata": {"name": "web@east", "resourceVersion": "99",
            "labels": {"umbra.dev/cluster": "east", "app": "web"}}, "spec": {"a": 1}});
        translator(&revision).object(&mut body).unwrap();
        assert_eq!(
            body,
            json!({"metadata": {"name": "web", "resourceVersion": "7", "labels": {"app": "web"}}, "spec": {"a": 1}})
        );
        let owner = |name: &str| json!({"metadata": {"ownerReferences": [{"name": name, "uid": "u"}]}});
        let mut owned = owner("set@east");
        translator(&revision).object(&mut owned).unwrap();
        assert_eq!(owned, owner("set"));
        let mut bare = json!({"metadata": {"name": "web"}});
        translator(&revision).object(&mut bare).unwrap();
        assert_eq!(bare["metadata"]["name"], "web");
    }

    #[test]
    fn a_name_that_clients_repeat_loses_its_cluster_everywhere() {
        let deployment = |name: &str| {
            json!({"metadata": {"name": name, "labels": {"app": name, "owner": "ann@east"}},
                "spec": {"selector": {"matchLabels": {"app": name}},
                    "template": {"metadata": {"labels": {"app": name}, "annotations": {"a": "web@east"}},
                        "spec": {"containers": [{"name": name, "image": "web@east"}]}}}})
        };
        let scaler = |name: &str| json!({"metadata": {"name": name}, "spec": {"scaleTargetRef": {"name": name}}});
        let service = |name: &str| json!({"metadata": {"name": name}, "spec": {"selector": {"run": name}}});
        for (mut sent, wanted) in [
            (deployment("web@east"), deployment("web")),
            (scaler("web@east"), scaler("web")),
            (service("web@east"), service("web")),
        ] {
            translator(&revision).object(&mut sent).unwrap();
            assert_eq!(sent, wanted);
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let object = |mut body: Value| translator(&revision).object(&mut body);
        assert!(matches!(
            object(json!({"metadata": {"name": "web@west"}})),
            Err(BodyError::OtherCluster { .. })
        ));
        assert_eq!(
            object(json!({"metadata": {"resourceVersion": "98"}})),
            Err(BodyError::Modified)
        );
        let label = |value: Value| object(json!({"metadata": {"labels": {"umbra.dev/cluster": value}}}));
        assert!(matches!(label(json!("west")), Err(BodyError::OtherCluster { .. })));
        assert_eq!(label(Value::Null), Err(BodyError::LabelChanged));
    }

    #[test]
    fn an_object_says_where_it_goes() {
        assert_eq!(
            named_cluster(&json!({"metadata": {"name": "a@east"}})).as_deref(),
            Some("east")
        );
        let by_label = json!({"metadata": {"name": "a", "labels": {"umbra.dev/cluster": "west"}}});
        assert_eq!(named_cluster(&by_label).as_deref(), Some("west"));
        assert_eq!(named_cluster(&json!({"metadata": {"name": "a"}})), None);
    }
}
