//! What each override did: the fields that it set and removed, found by comparing the object before and after.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;
use umbra_api::rendering;

use super::model::{OverrideIdentity, Stage};

/// An override that took part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedOverride {
    /// Which override.
    pub by: OverrideIdentity,
    /// Which revision of it.
    pub revision: i64,
    /// In which pass.
    pub stage: Stage,
    /// What it changed, in the order of its patches; empty where everything was so already.
    pub changes: Vec<Change>,
    /// Patches and operations that were left out because they are optional and their path is missing: index of the
    /// patch and of the operation, which is `None` where the whole patch was left out.
    pub skipped: Vec<(usize, Option<usize>)>,
}

/// A field that was set or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The index of the patch, from 0.
    pub patch: usize,
    /// JSON pointer to the field.
    pub path: String,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What happened to a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It has another value, or a value for the first time.
    Set,
    /// It is gone.
    Removed,
}

impl From<&AppliedOverride> for rendering::AppliedOverride {
    /// As the `Rendering` shows it.
    fn from(applied: &AppliedOverride) -> Self {
        let paths: BTreeSet<&str> = applied.changes.iter().map(|change| change.path.as_str()).collect();
        Self {
            kind: applied.by.kind.as_str().to_owned(),
            name: applied.by.name.clone(),
            generation: applied.revision,
            stage: applied.stage.number(),
            paths: paths.into_iter().map(str::to_owned).collect(),
        }
    }
}

/// The patch that a wrong field is blamed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Culprit {
    /// Which override.
    pub by: OverrideIdentity,
    /// Which of its patches, from 0.
    pub patch: usize,
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "patch {} of {}", self.patch, self.by)
    }
}

/// The patch that last wrote `field` (`spec.containers[0].image`), something in it or something around it.
#[must_use]
pub fn culprit(applied: &[AppliedOverride], field: &str) -> Option<Culprit> {
    let field = field.replace(['[', ']'], ".");
    let wanted: Vec<&str> = field.split('.').filter(|part| !part.is_empty()).collect();
    let concerns = |change: &&Change| {
        let written = change.path.split('/').skip(1);
        // Names with dots are several parts in a field, and one in a pointer.
        let written: Vec<&str> = written.flat_map(|part| part.split('.')).collect();
        written.iter().zip(&wanted).all(|(one, other)| one == other)
    };
    applied.iter().rev().find_map(|applied| {
        let change = applied.changes.iter().rev().find(concerns)?;
        Some(Culprit {
            by: applied.by.clone(),
            patch: change.patch,
        })
    })
}

/// Appends what is different in `after`, as changes of the patch with that index.
pub(super) fn compare(before: &Value, after: &Value, patch: usize, changes: &mut Vec<Change>) {
    let mut comparison = Comparison {
        pointer: String::new(),
        patch,
        changes,
    };
    comparison.values(before, after);
}

struct Comparison<'a> {
    pointer: String,
    patch: usize,
    changes: &'a mut Vec<Change>,
}

impl Comparison<'_> {
    fn values(&mut self, before: &Value, after: &Value) {
        match (before, after) {
            _ if before == after => {}
            (Value::Object(before), Value::Object(after)) => {
                for (name, old) in before {
                    self.below(name, |inner| match after.get(name) {
                        Some(new) => inner.values(old, new),
                        None => inner.push(ChangeKind::Removed),
                    });
                }
                for name in after.keys().filter(|name| !before.contains_key(*name)) {
                    self.below(name, |inner| inner.push(ChangeKind::Set));
                }
            }
            (Value::Array(before), Value::Array(after)) => self.lists(before, after),
            _ => self.push(ChangeKind::Set),
        }
    }

    /// Lists of one length are compared element by element, and so is what was added to or taken from the end. Otherwise
    /// elements have moved, and an index says nothing: the list as a whole was set.
    fn lists(&mut self, before: &[Value], after: &[Value]) {
        let common = before.len().min(after.len());
        if before.len() != after.len() && before[..common] != after[..common] {
            return self.push(ChangeKind::Set);
        }
        for (index, (old, new)) in before.iter().zip(after).enumerate() {
            self.below(&index.to_string(), |inner| inner.values(old, new));
        }
        for index in common..after.len() {
            self.below(&index.to_string(), |inner| inner.push(ChangeKind::Set));
        }
        for index in common..before.len() {
            self.below(&index.to_string(), |inner| inner.push(ChangeKind::Removed));
        }
    }

    fn below(&mut self, token: &str, compare: impl FnOnce(&mut Self)) {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
        compare(self);
        self.pointer.truncate(length);
    }

    fn push(&mut self, kind: ChangeKind) {
        self.changes.push(Change {
            patch: self.patch,
            path: self.pointer.clone(),
            kind,
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::overrides::OverrideKind;

    fn changes(before: &Value, after: &Value) -> Vec<(String, ChangeKind)> {
        let mut changes = Vec::new();
        compare(before, after, 0, &mut changes);
        changes.into_iter().map(|change| (change.path, change.kind)).collect()
    }

    #[test]
    fn differences_are_named_as_deep_as_they_are() {
        use ChangeKind::{Removed, Set};
        let before = json!({"a": 1, "b": {"c/d": 1, "e": 2}, "l": [1, {"x": 1}], "m": [1, 2, 3], "n": [1]});
        let after = json!({"a": 1, "b": {"c/d": 2, "f": {"g": 1}}, "l": [1, {"x": 2}], "m": [2, 3], "n": [1, 2]});
        let expected = [
            ("/b/c~1d", Set),
            ("/b/e", Removed),
            ("/b/f", Set),
            ("/l/1/x", Set),
            ("/m", Set),
            ("/n/1", Set),
        ];
        let expected: Vec<_> = expected.map(|(path, kind)| (path.to_owned(), kind)).into();
        assert_eq!(changes(&before, &after), expected);
        assert_eq!(changes(&json!([1, 2]), &json!([1])), [("/1".to_owned(), Removed)]);
        assert_eq!(changes(&before, &before), []);
        assert_eq!(changes(&json!({"a": {}}), &json!({"a": []})), [("/a".to_owned(), Set)]);
    }

    #[test]
    fn the_last_writer_of_a_field_is_to_blame() {
        let applied = |name: &str, patch, path: &str| AppliedOverride {
            by: OverrideIdentity {
                kind: OverrideKind::Override,
                namespace: Some("shop".to_owned()),
                name: name.to_owned(),
            },
            revision: 1,
            stage: Stage::Namespace,
            changes: vec![Change {
                patch,
                path: path.to_owned(),
                kind: ChangeKind::Set,
            }],
            skipped: Vec::new(),
        };
        let all = [
            applied("first", 0, "/spec/containers/0/image"),
            applied("second", 1, "/spec/containers/0"),
            applied("third", 2, "/metadata/labels/app.kubernetes.io~1name"),
        ];
        let blamed = |field: &str| culprit(&all, field).map(|culprit| (culprit.by.name, culprit.patch));
        assert_eq!(blamed("spec.containers[0].image"), Some(("second".to_owned(), 1)));
        assert_eq!(blamed("spec.containers"), Some(("second".to_owned(), 1)));
        assert_eq!(blamed("spec.containers[1].image"), None);
        assert_eq!(blamed("spec.replicas"), None);
    }
}
