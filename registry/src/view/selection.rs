//! Label and field selectors of a view: those of Kubernetes, in which the label `umbra.dev/cluster` and qualified names
//! pick clusters.

use umbra_apimachinery::gvk::GroupResource;
use umbra_apimachinery::names::{CLUSTER_LABEL, QualifiedName};
use umbra_apimachinery::selector::fields::escape;
use umbra_apimachinery::selector::{FieldSelectorError, Requirement, Selector};
use umbra_apimachinery::status::Status;
use umbra_storage::CachedObject;

use crate::copies::cache::CopyExtra;
use crate::copies::translate::selectable_fields;
use crate::generic::read::Selection;
use crate::request::ListOptions;

/// The field that names the object.
const NAME: &str = "metadata.name";
const NAMESPACE: &str = "metadata.namespace";
/// Fields whose values are names of objects of the same cluster, which a client copies from what a view shows: kubectl
/// finds the events of an object and the pods of a node by them.
const REFERENCES: [&str; 4] = [NAME, "spec.nodeName", "involvedObject.name", "regarding.name"];

/// What a list, a watch or a delete of a collection selects.
#[derive(Debug, Clone)]
pub(super) struct ViewSelection {
    labels: Selector,
    fields: Vec<Term>,
}

/// One condition on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    field: String,
    /// As the child knows it.
    value: String,
    /// The cluster that a qualified value names.
    cluster: Option<String>,
    equals: bool,
}

impl ViewSelection {
    /// Reads the selectors of a request.
    ///
    /// # Errors
    /// 400 for what cannot be read.
    pub(super) fn parse(options: &ListOptions) -> Result<Self, Status> {
        let Selection { labels, fields } = Selection::parse(options, |_| true)?;
        let fields = fields.terms().iter().map(|term| {
            let qualified = QualifiedName::parse(&term.value).filter(|_| REFERENCES.contains(&term.field.as_str()));
            Term {
                field: term.field.clone(),
                value: qualified.map_or(term.value.as_str(), |name| name.name).to_owned(),
                cluster: qualified.map(|name| name.cluster.to_owned()),
                equals: term.equals,
            }
        });
        Ok(Self {
            labels,
            fields: fields.collect(),
        })
    }

    /// Makes sure that copies of a resource can be selected by all the fields named.
    ///
    /// # Errors
    /// 400 for the first that they cannot be selected by.
    pub(super) fn restrict_to(&self, resource: &GroupResource) -> Result<(), Status> {
        let supported = |field: &str| {
            [NAME, NAMESPACE].contains(&field)
                || selectable_fields(resource)
                    .iter()
                    .any(|path| path.iter().copied().eq(field.split('.')))
        };
        match self.fields.iter().find(|term| !supported(&term.field)) {
            None => Ok(()),
            Some(term) => {
                let field = term.field.clone();
                Err(Status::bad_request(
                    FieldSelectorError::Unsupported { field }.to_string(),
                ))
            }
        }
    }

    /// Whether anything of a cluster can be selected.
    pub(super) fn admits(&self, cluster: &str) -> bool {
        !self.labels.is_nothing()
            && self
                .cluster_requirements()
                .all(|requirement| requirement.matches(Some(cluster)))
            && self
                .fields
                .iter()
                .filter(|term| term.equals)
                .filter_map(|term| term.cluster.as_deref())
                .all(|named| named == cluster)
    }

    /// The name, as the children know it, that everything selected has.
    pub(super) fn name(&self) -> Option<&str> {
        let named = self.fields.iter().find(|term| term.equals && term.field == NAME);
        named.map(|term| term.value.as_str())
    }

    /// Whether a copy is selected.
    pub(super) fn selects(&self, object: &CachedObject<CopyExtra>) -> bool {
        self.labels.matches(|key| object.labels.get(key))
            && self.fields.iter().all(|term| {
                let value = match term.field.as_str() {
                    NAME => CopyExtra::child_name(object),
                    NAMESPACE => &object.namespace,
                    other => object.fields.get(other).unwrap_or_default(),
                };
                let there = term
                    .cluster
                    .as_deref()
                    .is_none_or(|named| *named == *object.extra.row.cluster());
                (there && value == term.value) == term.equals
            })
    }

    /// Whether every object of every cluster is selected.
    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_empty()
    }

    /// The label selector to send to a cluster that is admitted.
    pub(super) fn child_labels(&self) -> String {
        let others = self.labels.requirements().iter();
        let others = others.filter(|requirement| requirement.key() != CLUSTER_LABEL);
        Selector::new(others.cloned().collect()).to_string()
    }

    /// The field selector to send to a cluster that is admitted.
    pub(super) fn child_fields(&self, cluster: &str) -> String {
        let there = |term: &&Term| term.cluster.as_deref().is_none_or(|named| named == cluster);
        let terms = self.fields.iter().filter(there).map(|term| {
            let operator = if term.equals { "=" } else { "!=" };
            format!("{}{operator}{}", term.field, escape(&term.value))
        });
        terms.collect::<Vec<_>>().join(",")
    }

    fn cluster_requirements(&self) -> impl Iterator<Item = &Requirement> {
        let all = self.labels.requirements().iter();
        all.filter(|requirement| requirement.key() == CLUSTER_LABEL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(labels: &str, fields: &str) -> ViewSelection {
        let options = ListOptions {
            label_selector: labels.to_owned(),
            field_selector: fields.to_owned(),
            ..ListOptions::default()
        };
        ViewSelection::parse(&options).unwrap()
    }

    #[test]
    fn labels_and_names_pick_clusters() {
        let by_label = selection("umbra.dev/cluster in (east,west),app=web", "");
        assert!(by_label.admits("east") && !by_label.admits("north"));
        assert_eq!(by_label.child_labels(), "app=web");
        let by_name = selection("", "metadata.name=web@east");
        assert!(by_name.admits("east") && !by_name.admits("west"));
        assert_eq!(
            (by_name.name(), by_name.child_fields("east").as_str()),
            (Some("web"), "metadata.name=web")
        );
        assert!(selection("", "metadata.name=web").admits("west"));
    }

    #[test]
    fn what_a_term_of_another_cluster_excludes_is_not_there() {
        let all_but_one = selection("", "metadata.name!=web@east,status.phase=Running");
        assert!(all_but_one.admits("east") && all_but_one.admits("west"));
        assert_eq!(
            all_but_one.child_fields("east"),
            "metadata.name!=web,status.phase=Running"
        );
        assert_eq!(all_but_one.child_fields("west"), "status.phase=Running");
        assert_eq!(all_but_one.name(), None);
    }

    #[test]
    fn copies_are_selected_by_the_fields_they_have() {
        let pods = GroupResource::new("", "pods");
        assert!(
            selection("", "spec.nodeName=n1@east,metadata.namespace=a")
                .restrict_to(&pods)
                .is_ok()
        );
        let unsupported = selection("", "spec.nope=1").restrict_to(&pods).unwrap_err();
        assert_eq!(
            (unsupported.code, unsupported.message.as_str()),
            (400, "field label not supported: spec.nope")
        );
    }
}
