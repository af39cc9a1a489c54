//! Between the form of an object in its child and the form in which a view shows it.
//!
//! In a view the name is qualified, as are the names of owners, the label `umbra.dev/cluster` is there, the revision is the
//! hub's and `managedFields` are left out; everything else is the child's, byte for byte.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;
use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::names::{CLUSTER_LABEL, QualifiedName};
use umbra_apimachinery::raw::{RawMap, RawObjectWriter};
use umbra_apimachinery::table::ColumnDefinition;

use crate::copies::cells::Cells;
use crate::copies::envelope::{Envelope, Header};

/// An object that cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// The text is no JSON object.
    #[error("the object is not well-formed JSON")]
    Malformed(#[source] serde_json::Error),
    /// There is no metadata, or no name in it.
    #[error("the object has no metadata.name")]
    NoName,
}

/// A child's object in the form of a view, and where it belongs.
#[derive(Debug)]
pub struct Translated {
    /// The namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// The name in the child.
    pub name: String,
    /// What is stored.
    pub envelope: Envelope,
}

/// The fields beside name and namespace that selectors of a resource may use (the `SelectableFields` functions of
/// `k8s.io/kubernetes/pkg/registry/*/*/strategy.go`), as paths of members.
#[must_use]
pub fn selectable_fields(resource: &GroupResource) -> &'static [&'static [&'static str]] {
    match (resource.group.as_str(), resource.resource.as_str()) {
        ("", "pods") => &[
            &["spec", "nodeName"],
            &["spec", "restartPolicy"],
            &["spec", "schedulerName"],
            &["spec", "serviceAccountName"],
            &["status", "phase"],
            &["status", "podIP"],
            &["status", "nominatedNodeName"],
        ],
        ("", "namespaces") => &[&["status", "phase"]],
        ("", "nodes") => &[&["spec", "unschedulable"]],
        ("", "secrets") => &[&["type"]],
        ("", "replicationcontrollers") | ("apps", "replicasets") => &[&["status", "replicas"]],
        ("batch", "jobs") => &[&["status", "successful"]],
        _ => &[],
    }
}

/// Puts a child's object into the form of a view. `row` is what the child printed of it.
///
/// # Errors
/// Where the object is malformed or has no name.
pub fn to_view(
    json: &[u8],
    cluster: &str,
    resource: &GroupResource,
    row: Option<(&[ColumnDefinition], Vec<Value>)>,
) -> Result<Translated, TranslateError> {
    let object = RawMap::parse(json).map_err(TranslateError::Malformed)?;
    let metadata = object.object("metadata").ok_or(TranslateError::NoName)?;
    let text = |field: &str| {
        metadata
            .string(field)
            .map(std::borrow::Cow::into_owned)
            .unwrap_or_default()
    };
    let (name, namespace) = (text("name"), text("namespace"));
    if name.is_empty() {
        return Err(TranslateError::NoName);
    }
    let qualified = QualifiedName { name: &name, cluster }.to_string();
    let mut labels: BTreeMap<String, String> = metadata
        .get("labels")
        .and_then(|labels| serde_json::from_str(labels.get()).ok())
        .unwrap_or_default();
    labels.insert(CLUSTER_LABEL.to_owned(), cluster.to_owned());

    let (written, gap) = write(
        &object,
        &metadata,
        QualifiedName { name: &name, cluster },
        &labels,
        json.len(),
    );
    let header = Header {
        child_revision: text("resourceVersion"),
        uid: text("uid"),
        gap,
        labels,
        fields: fields(&object, resource),
        created: text("creationTimestamp"),
        cells: row
            .map(|(columns, cells)| Cells::new(&qualify_cells(columns, cells, &qualified)))
            .unwrap_or_default(),
    };
    Ok(Translated {
        namespace,
        name,
        envelope: Envelope::new(header, written),
    })
}

/// Writes the object anew; gives its text and where the revision goes.
fn write(
    object: &RawMap<'_>,
    metadata: &RawMap<'_>,
    name: QualifiedName<'_>,
    labels: &BTreeMap<String, String>,
    size: usize,
) -> (Vec<u8>, usize) {
    // The name and the label grow it; the smallest allocation that surely holds both saves a second one.
    let mut text =
        RawObjectWriter::with_capacity(size + name.name.len() + 3 * name.cluster.len() + CLUSTER_LABEL.len());
    for field in ["kind", "apiVersion"] {
        if let Some(value) = object.get(field) {
            text.raw(field, value.get().as_bytes());
        }
    }
    let mut inner = RawObjectWriter::with_capacity(512);
    inner.member("name", &name.to_string());
    for (field, value) in metadata.unique() {
        match field {
            "name" | "labels" | "managedFields" | "resourceVersion" => {}
            "ownerReferences" => inner.raw(field, &qualified_owners(value, name.cluster)),
            _ => inner.raw(field, value.get().as_bytes()),
        }
    }
    inner.member("labels", labels);
    inner.raw("resourceVersion", b"\"\"");
    let inner_gap = inner.position() - 1;
    let inner = inner.finish();
    text.raw("metadata", &inner);
    let gap = text.position() - inner.len() + inner_gap;
    for (field, value) in object.unique() {
        if !matches!(field, "kind" | "apiVersion" | "metadata") {
            text.raw(field, value.get().as_bytes());
        }
    }
    (text.finish(), gap)
}

/// Owners are in the same cluster; who follows a reference in the view has to find the owner there by its name.
fn qualified_owners(owners: &RawValue, cluster: &str) -> Vec<u8> {
    let Ok(owners) = serde_json::from_str::<Vec<RawMap<'_>>>(owners.get()) else {
        return owners.get().as_bytes().to_vec();
    };
    let owners = owners.iter().map(|owner| {
        let mut written = RawObjectWriter::default();
        for (field, value) in owner.iter() {
            match owner.string(field) {
                Some(name) if field == "name" => {
                    written.member(field, &QualifiedName { name: &name, cluster }.to_string());
                }
                _ => written.raw(field, value.get().as_bytes()),
            }
        }
        written.finish()
    });
    let mut list = vec![b'['];
    for (index, owner) in owners.enumerate() {
        if index > 0 {
            list.push(b',');
        }
        list.extend_from_slice(&owner);
    }
    list.push(b']');
    list
}

fn fields(object: &RawMap<'_>, resource: &GroupResource) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    for path in selectable_fields(resource) {
        let value = match path {
            [one] => object.get(one),
            [outer, inner] => object.object(outer).and_then(|outer| outer.get(inner)),
            _ => None,
        };
        // Strings are compared by their content, all else by how it is written; absent is empty, and that is how the
        // Go conversion functions of the kinds above print theirs.
        let text =
            value.map(|value| serde_json::from_str::<String>(value.get()).unwrap_or_else(|_| value.get().into()));
        fields.insert(path.join("."), text.unwrap_or_default());
    }
    fields
}

/// The cell that identifies the object shows the name that the next command can use.
fn qualify_cells(columns: &[ColumnDefinition], mut cells: Vec<Value>, qualified: &str) -> Vec<Value> {
    for (column, cell) in columns.iter().zip(&mut cells) {
        if column.format == "name" {
            *cell = Value::from(qualified);
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view(object: &Value) -> Translated {
        let pods = GroupResource::new("", "pods");
        to_view(object.to_string().as_bytes(), "east", &pods, None).unwrap()
    }

    #[test]
    fn names_and_labels_are_the_views_and_the_rest_is_the_childs() {
        let translated = view(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-1", "namespace": "shop", "uid": "u", "resourceVersion": "7", "labels": {"app": "web"},
                "managedFields": [{"manager": "x"}], "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
            "status": {"phase": "Running"},
        }));
        assert_eq!(
            (translated.namespace.as_str(), translated.name.as_str()),
            ("shop", "web-1")
        );
        let header = &translated.envelope.header;
        assert_eq!((header.child_revision.as_str(), header.uid.as_str()), ("7", "u"));
        assert_eq!(header.fields["spec.nodeName"], "n1");
        assert_eq!(header.fields["status.phase"], "Running");
        let shown: Value = serde_json::from_slice(&translated.envelope.object(99)).unwrap();
        assert_eq!(
            shown,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": "web-1@east", "namespace": "shop", "uid": "u", "resourceVersion": "99",
                    "labels": {"app": "web", "umbra.dev/cluster": "east"},
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                },
                "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
                "status": {"phase": "Running"},
            })
        );
    }

    #[test]
    fn owners_can_be_followed_in_the_view() {
        let owner =
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "o", "controller": true});
        let translated =
            view(&json!({"kind": "Pod", "metadata": {"name": "web-1", "ownerReferences": [owner, owner]}}));
        let shown: Value = serde_json::from_slice(&translated.envelope.object(1)).unwrap();
        let qualified =
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web@east", "uid": "o", "controller": true});
        assert_eq!(shown["metadata"]["ownerReferences"], json!([qualified, qualified]));
    }

    /// Keys and judgements go by the last of several members, and so must every reader of the copy.
    #[test]
    fn a_child_cannot_say_two_things_at_once() {
        let json = r#"{"kind":"Pod","spec":{"a":1},"metadata":{"name":"x","namespace":"bank"},
            "metadata":{"namespace":"bank","name":"web@west","uid":"1","name":"web","labels":{"umbra.dev/cluster":"west"},
            "namespace":"shop","uid":"2","labels":{"umbra.dev/cluster":"north"}},"spec":{"a":2}}"#;
        let translated = to_view(json.as_bytes(), "east", &GroupResource::new("", "pods"), None).unwrap();
        assert_eq!(
            (translated.namespace.as_str(), translated.name.as_str()),
            ("shop", "web")
        );
        let shown = translated.envelope.object(9);
        assert_eq!(
            std::str::from_utf8(&shown).unwrap(),
            r#"{"kind":"Pod","metadata":{"name":"web@east","namespace":"shop","uid":"2","labels":{"umbra.dev/cluster":"east"},"resourceVersion":"9"},"spec":{"a":2}}"#
        );
    }

    #[test]
    fn the_identifying_cell_is_qualified() {
        let columns = [ColumnDefinition::string("Other", ""), ColumnDefinition::name()];
        let pod = json!({"kind": "Pod", "metadata": {"name": "a"}}).to_string();
        let pods = GroupResource::new("", "pods");
        let translated = to_view(
            pod.as_bytes(),
            "east",
            &pods,
            Some((&columns, vec![json!("a"), json!("a")])),
        )
        .unwrap();
        assert_eq!(translated.envelope.header.cells.json(), r#"["a","a@east"]"#);
    }

    #[test]
    fn what_has_no_name_is_refused() {
        let pods = GroupResource::new("", "pods");
        assert!(matches!(
            to_view(b"{}", "east", &pods, None),
            Err(TranslateError::NoName)
        ));
        assert!(matches!(
            to_view(b"[", "east", &pods, None),
            Err(TranslateError::Malformed(_))
        ));
    }
}
