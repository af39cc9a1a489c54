//! What a write does to ownership, and what an apply does to an object.
//!
//! Every manager's fields are taken as fields of the version at hand: an object has one version here, so the
//! conversions between versions that Go interleaves have nothing to do.
//!
//! Source: `structured-merge-diff/v6/merge/update.go`.

use serde_json::{Map, Value};

use super::compare::{Comparison, compare};
use super::conflict::{Conflict, Conflicts};
use super::field_set::{to_field_set, to_field_set_with_empty_lists};
use super::managed_fields::{ManagedFields, ManagerEntry, ManagerIdentifier};
use super::merge::merge;
use super::node::Node;
use super::path::Path;
use super::reconcile::reconcile;
use super::remove::{Keep, remove_items_keeping};
use super::set::Set;
use super::value::equal;

/// The rules of one kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Updater<'a> {
    /// The schema of the kind.
    pub(super) node: Node<'a>,
    /// Fields that the storage resets: whatever is said of them, nobody gets to own them here.
    pub(super) reset_fields: &'a Set,
}

impl Updater<'_> {
    /// A write that is no apply. What it changed is taken from its owners and returned: it belongs to the writer.
    pub(super) fn update(&self, live: &Value, new: &Value, managers: &mut ManagedFields) -> Set {
        self.reconcile_managers(managers);
        let comparison = self.compare(live, new);
        take_conflicts(managers, &comparison, None);
        release(managers, &comparison.removed, None);
        comparison.changed()
    }

    /// A configuration laid over an object. Answers the new object, `None` where it is the same.
    ///
    /// # Errors
    ///
    /// The fields that others own and that would change, unless it is forced.
    pub(super) fn apply(
        &self,
        live: &Value,
        config: &Value,
        managers: &mut ManagedFields,
        manager: &ManagerIdentifier,
        api_version: &str,
        force: bool,
    ) -> Result<Option<Value>, Conflicts> {
        self.reconcile_managers(managers);
        let merged = merge(live.clone(), config, self.node);
        let set = to_field_set(config, self.node).recursive_difference(self.reset_fields);
        let last = managers.entries.remove(manager);
        let entry = ManagerEntry {
            set,
            api_version: api_version.to_owned(),
            time: last.as_ref().and_then(|last| last.time),
        };
        let no_longer_applied = last
            .as_ref()
            .is_some_and(|last| !last.set.difference(&entry.set).is_empty());
        managers.entries.insert(manager.clone(), entry);
        let new = match last {
            // Where everything is applied again, nothing can go.
            Some(last) if no_longer_applied => self.prune(merged, config, managers, &last.set),
            _ => merged,
        };
        let changed = !same_object(live, &new);
        if changed {
            let comparison = self.compare(live, &new);
            let conflicts = take_conflicts(managers, &comparison, Some(manager));
            if !force && !conflicts.0.is_empty() {
                return Err(conflicts);
            }
            release(managers, &comparison.removed, Some(manager));
        }
        managers.entries.retain(|_, entry| !entry.set.is_empty());
        Ok(changed.then_some(new))
    }

    fn compare(&self, live: &Value, new: &Value) -> Comparison {
        compare(live, new, self.node).excluding(self.reset_fields)
    }

    fn reconcile_managers(&self, managers: &mut ManagedFields) {
        for entry in managers.entries.values_mut() {
            if let Some(set) = reconcile(&entry.set, self.node) {
                entry.set = set;
            }
        }
    }

    /// Takes out of `merged` what the manager applied the last time (`last`), does not apply now, and nobody else owns.
    fn prune(&self, merged: Value, config: &Value, managers: &ManagedFields, last: &Set) -> Value {
        let node = self.node;
        // With empty lists: a struct that has but one of those is there, and stays with who owns it.
        let fields = |value: &Value| to_field_set_with_empty_lists(value, node).with_declared_parents(node);
        // What is emptied on the way still counts as there, as null does in Go.
        let fields_without = |gone: &Set| {
            let pruned = remove_items_keeping(&merged, node, gone, Keep::All);
            pruned.map_or_else(Set::new, |pruned| fields(&pruned))
        };
        let merged_set = fields(&merged);
        let last = last.with_declared_parents(node);
        let pruned_set = fields_without(&last);

        // Back come the fields that somebody owns.
        let managed = managers.all_fields();
        let gone = merged_set.difference(&pruned_set.union(&managed.with_declared_parents(node)));
        let pruned_set = fields_without(&gone);

        // And the fields that nobody owns but that went together with what they were in.
        let gone = merged_set.difference(&pruned_set).intersection(&last);
        if gone.is_empty() {
            return merged;
        }
        let pruned = remove_items_keeping(&merged, node, &gone, Keep::Of(&managed));
        // What is empty in the configuration was not empty in `merged` and may be gone now.
        merge(pruned.unwrap_or_else(|| Value::Object(Map::new())), config, node)
    }
}

/// Takes from all managers but one what changed, and says what that was.
fn take_conflicts(managers: &mut ManagedFields, comparison: &Comparison, but: Option<&ManagerIdentifier>) -> Conflicts {
    let changed = comparison.changed();
    let mut conflicts = Vec::new();
    if changed.is_empty() {
        return Conflicts(conflicts);
    }
    for (manager, entry) in &mut managers.entries {
        if Some(manager) == but {
            continue;
        }
        let lost = entry.set.intersection(&changed);
        if lost.is_empty() {
            continue;
        }
        entry.set = entry.set.difference(&lost);
        lost.for_each(|path| {
            conflicts.push(Conflict {
                manager: manager.clone(),
                path: Path(path.to_vec()),
            });
        });
    }
    Conflicts(conflicts)
}

/// Takes from all managers but one what is gone.
fn release(managers: &mut ManagedFields, removed: &Set, but: Option<&ManagerIdentifier>) {
    for (manager, entry) in &mut managers.entries {
        if Some(manager) != but && !removed.is_empty() {
            entry.set = entry.set.difference(removed);
        }
    }
    managers.entries.retain(|_, entry| !entry.set.is_empty());
}

/// Whether two objects are the same but for `metadata.managedFields`, which is only written at the end.
pub(super) fn same_object(left: &Value, right: &Value) -> bool {
    let (Value::Object(left), Value::Object(right)) = (left, right) else {
        return equal(left, right);
    };
    same_map(left, right, |name, left, right| match (name, left, right) {
        ("metadata", Value::Object(left), Value::Object(right)) => {
            let managed = |map: &Map<String, Value>| usize::from(map.contains_key("managedFields"));
            left.len() - managed(left) == right.len() - managed(right)
                && left
                    .iter()
                    .filter(|(name, _)| *name != "managedFields")
                    .all(|(name, left)| right.get(name).is_some_and(|right| equal(left, right)))
        }
        _ => equal(left, right),
    })
}

fn same_map(
    left: &Map<String, Value>,
    right: &Map<String, Value>,
    same: impl Fn(&str, &Value, &Value) -> bool,
) -> bool {
    left.len() == right.len()
        && left
            .iter()
            .all(|(name, left)| right.get(name).is_some_and(|right| same(name, left, right)))
}
