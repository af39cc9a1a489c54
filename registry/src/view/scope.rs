//! Which copies a list or a watch of a view is about.

use std::sync::Arc;

use umbra_apimachinery::gvk::GroupResource;
use umbra_storage::CachedObject;

use super::selection::ViewSelection;
use super::sight::{Sight, allows_object};
use crate::copies::cache::CopyExtra;
use crate::copies::key::{cluster_prefix, resource_prefix};
use crate::generic::read::Scope;
use crate::resource::Object;

/// The copies that the caller may see and has selected.
#[derive(Debug, Clone)]
pub(super) struct ViewScope {
    base: String,
    prefix: String,
    namespace: Option<String>,
    selection: ViewSelection,
    is_named: bool,
    sight: Arc<Sight>,
}

impl ViewScope {
    /// The copies of `resource` in `namespace`, or in all, that are within `sight` and selected. `sight` has no cluster
    /// whose copies are of another version.
    pub(super) fn new(
        resource: &GroupResource,
        namespace: Option<&str>,
        selection: ViewSelection,
        sight: Arc<Sight>,
    ) -> Self {
        let base = resource_prefix(resource);
        let prefix = match (sight.0.len(), sight.0.keys().next(), namespace) {
            (1, Some(cluster), Some(namespace)) => format!("{}{namespace}/", cluster_prefix(resource, cluster)),
            (1, Some(cluster), None) => cluster_prefix(resource, cluster),
            _ => base.clone(),
        };
        Self {
            base,
            prefix,
            namespace: namespace.map(str::to_owned),
            is_named: selection.name().is_some(),
            selection,
            sight,
        }
    }
}

impl Scope<CopyExtra> for ViewScope {
    fn base(&self) -> &str {
        &self.base
    }

    fn prefix(&self) -> &str {
        &self.prefix
    }

    fn selects(&self, object: &CachedObject<CopyExtra>) -> bool {
        let visible = |cluster: &str| {
            self.sight.0.get(cluster).is_some_and(|seen| {
                allows_object(seen, &object.namespace, CopyExtra::child_name(object), self.is_named)
            })
        };
        self.namespace
            .as_deref()
            .is_none_or(|wanted| *wanted == *object.namespace)
            && visible(object.extra.row.cluster())
            && self.selection.selects(object)
    }

    fn selects_everything(&self) -> bool {
        self.selection.is_everything()
    }

    fn object(&self, object: &CachedObject<CopyExtra>) -> Object {
        Object {
            json: object.bytes.clone(),
            row: Some(Arc::clone(&object.extra.row)),
        }
    }
}
