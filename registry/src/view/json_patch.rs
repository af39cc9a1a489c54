//! JSON patches (RFC 6902) of the objects of a view, as their child understands them.
//!
//! A patch is made for what the view shows, where names, labels and revisions differ from the child's. So what an operation
//! writes into these, or tests there, is put into the form of the child; a `test` of the cluster's label is answered here.
//!
//! Of metadata the view does not show everything (`managedFields`), so a `test` of all of it, or of the whole object, becomes
//! one of each member that it names. In what the view has shown these include the revision, which tells of every change.
//!
//! Paths are read as kube-apiserver reads them (`gopkg.in/evanphx/json-patch.v4`, `findObject`): what comes before the first
//! slash counts for nothing.

use serde_json::{Map, Value, json};
use umbra_apimachinery::names::CLUSTER_LABEL;

use super::body::{BodyError, BodyTranslator};

#[cfg(test)]
mod tests;

/// What a path means, as far as the view shows it in another form than the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Object,
    Metadata,
    Name,
    Revision,
    Labels,
    ClusterLabel,
    Owners,
    Owner,
    OwnerName,
    /// The same in both.
    Elsewhere,
}

impl Place {
    fn of(path: &str) -> Self {
        let tokens: Vec<String> = path.split('/').skip(1).map(unescape).collect();
        let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
        match tokens.as_slice() {
            [] => Self::Object,
            ["metadata"] => Self::Metadata,
            ["metadata", "name"] => Self::Name,
            ["metadata", "resourceVersion"] => Self::Revision,
            ["metadata", "labels"] => Self::Labels,
            ["metadata", "labels", CLUSTER_LABEL] => Self::ClusterLabel,
            ["metadata", "ownerReferences"] => Self::Owners,
            ["metadata", "ownerReferences", _] => Self::Owner,
            ["metadata", "ownerReferences", _, "name"] => Self::OwnerName,
            _ => Self::Elsewhere,
        }
    }

    fn is_of_owners(self) -> bool {
        matches!(self, Self::Owners | Self::Owner | Self::OwnerName)
    }

    /// Whether what is copied or moved here from `from` is in the terms of the child, where it is done.
    fn takes_from(self, from: Self) -> bool {
        match self {
            Self::Object | Self::Metadata | Self::Revision => from == self,
            _ => !self.is_of_owners() || from.is_of_owners(),
        }
    }
}

/// RFC 6901 §4.
fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

impl BodyTranslator<'_> {
    /// The operations of a JSON patch. What makes no sense is left to the child to refuse.
    ///
    /// # Errors
    /// For names and labels of another cluster, revisions that are not the present one, and changes of where the object is.
    pub(super) fn json_patch(&self, operations: &mut Vec<Value>) -> Result<(), BodyError> {
        let mut translated = Vec::with_capacity(operations.len());
        for operation in operations.drain(..) {
            self.operation(operation, &mut translated)?;
        }
        *operations = translated;
        Ok(())
    }

    fn operation(&self, mut operation: Value, translated: &mut Vec<Value>) -> Result<(), BodyError> {
        let text = |field: &str| operation[field].as_str().map(str::to_owned);
        let (Some(op), Some(path)) = (text("op"), text("path")) else {
            translated.push(operation);
            return Ok(());
        };
        if let (Some(from), "copy" | "move") = (text("from"), op.as_str()) {
            return self.transfer(&from, &path, operation, translated);
        }
        let (place, writes_or_tests) = (Place::of(&path), matches!(op.as_str(), "add" | "replace" | "test"));
        if place == Place::ClusterLabel {
            let is_it = writes_or_tests && operation["value"] == self.cluster;
            return if is_it { Ok(()) } else { Err(BodyError::LabelChanged) };
        }
        let is_test = op == "test";
        if let Some(value) = operation.get_mut("value").filter(|_| writes_or_tests) {
            self.value(place, is_test, value)?;
            match (place, value) {
                (Place::Object, Value::Object(members)) if is_test => {
                    test_object(std::mem::take(members), translated);
                    return Ok(());
                }
                (Place::Metadata, Value::Object(members)) if is_test => {
                    test_metadata(std::mem::take(members), translated);
                    return Ok(());
                }
                (Place::Labels, value) if is_test => null_for_none(value),
                _ => {}
            }
        }
        translated.push(operation);
        Ok(())
    }

    fn value(&self, place: Place, is_test: bool, value: &mut Value) -> Result<(), BodyError> {
        match (place, value) {
            (Place::Object, value) => self.object(value),
            (Place::Metadata, value) => self.metadata(value),
            (Place::Name, Value::String(name)) => {
                let child_name = self.child_name(name);
                *name = if is_test {
                    child_name?
                } else {
                    child_name.map_err(|_| BodyError::NameChanged)?
                };
                Ok(())
            }
            (Place::Revision, value) => self.revision(value),
            (Place::Labels, value) => self.labels(value),
            (Place::Owners, value) => self.owners(value),
            (Place::Owner, value) => match value.get_mut("name") {
                Some(name) => self.owner_name(name),
                None => Ok(()),
            },
            (Place::OwnerName, value) => self.owner_name(value),
            (Place::Name | Place::ClusterLabel | Place::Elsewhere, _) => Ok(()),
        }
    }

    /// A `copy` or a `move`.
    fn transfer(&self, from: &str, path: &str, operation: Value, translated: &mut Vec<Value>) -> Result<(), BodyError> {
        let (source, place) = (Place::of(from), Place::of(path));
        match (source, place) {
            (Place::ClusterLabel, Place::ClusterLabel) => Ok(()),
            // The child has no such label, but its value is known.
            (Place::ClusterLabel, _) if operation["op"] == "copy" => {
                let add = json!({"op": "add", "path": path, "value": self.cluster});
                self.operation(add, translated)
            }
            (Place::ClusterLabel, _) | (_, Place::ClusterLabel) => Err(BodyError::LabelChanged),
            _ if place.takes_from(source) => {
                translated.push(operation);
                Ok(())
            }
            _ => Err(BodyError::Taken {
                path: path.to_owned(),
                from: from.to_owned(),
            }),
        }
    }
}

fn test_object(members: Map<String, Value>, translated: &mut Vec<Value>) {
    for (name, value) in members {
        match (name.as_str(), value) {
            ("metadata", Value::Object(metadata)) => test_metadata(metadata, translated),
            (name, value) => translated.push(test(&format!("/{}", escape(name)), &value)),
        }
    }
}

fn test_metadata(members: Map<String, Value>, translated: &mut Vec<Value>) {
    for (name, mut value) in members {
        if name == "labels" {
            null_for_none(&mut value);
        }
        translated.push(test(&format!("/metadata/{}", escape(&name)), &value));
    }
}

fn test(path: &str, value: &Value) -> Value {
    json!({"op": "test", "path": path, "value": value})
}

/// An object without labels has no empty list of them, and what is not there is equal to null (`Patch.test`).
fn null_for_none(labels: &mut Value) {
    if labels.as_object().is_some_and(Map::is_empty) {
        *labels = Value::Null;
    }
}
