//! Who owns the fields of a kind: one field manager for the object and one a subresource.

use std::collections::BTreeMap;

use umbra_apimachinery::apply::{FieldManager, PathElement, Set};
use umbra_apimachinery::schema::TypeSchema;

use super::strategy::Strategy;

/// The field managers of a kind.
#[derive(Debug)]
pub struct FieldManagers {
    main: FieldManager,
    subresources: BTreeMap<String, FieldManager>,
}

impl FieldManagers {
    /// The field managers of that kind.
    #[must_use]
    pub fn new(strategy: &Strategy) -> Self {
        let api_version = strategy.kind().api_version();
        let manager = |subresource: &str, reset: Set| {
            FieldManager::new(strategy.schema.clone(), &api_version, subresource, reset)
        };
        let main_reset = if strategy.has_status() {
            Set::of_fields(&[&["status"]])
        } else {
            Set::new()
        };
        let subresources = strategy.descriptor.subresources.iter().map(|subresource| {
            let reset = match subresource.name.as_str() {
                "status" => all_but_status(strategy.schema.as_ref()),
                _ => Set::new(),
            };
            (subresource.name.clone(), manager(&subresource.name, reset))
        });
        Self {
            main: manager("", main_reset),
            subresources: subresources.collect(),
        }
    }

    /// The manager of a subresource, or of the object itself.
    #[must_use]
    pub fn of(&self, subresource: &str) -> &FieldManager {
        self.subresources.get(subresource).unwrap_or(&self.main)
    }
}

/// What a write of `/status` cannot change: every declared field beside the status, and the labels of the object are
/// kept as the status strategies of Kubernetes keep `metadata` (`GetResetFields` of, for example,
/// `deploymentStatusStrategy`: `spec` and `metadata.labels`).
fn all_but_status(schema: Option<&TypeSchema>) -> Set {
    let mut fields: Vec<PathElement> = vec![PathElement::field("spec")];
    if let Some(schema) = schema {
        let declared = schema.cursor();
        fields = declared
            .schema()
            .properties
            .keys()
            .filter(|name| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "status"))
            .map(|name| PathElement::field(name))
            .collect();
    }
    let mut set = Set::of_fields(&[&["metadata", "labels"]]);
    for field in fields {
        set.insert(&[field]);
    }
    set
}
