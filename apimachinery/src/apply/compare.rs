//! What changed between two objects, as sets of fields.
//!
//! Source: `structured-merge-diff/v6/typed/compare.go`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::node::{ListRule, Node, Shape};
use super::path::PathElement;
use super::set::Set;
use super::value::equal;

/// The differences of two objects. No path is in more than one set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// What only the old object has.
    pub removed: Set,
    /// What both have and is not the same.
    pub modified: Set,
    /// What only the new object has.
    pub added: Set,
}

impl Comparison {
    /// Whether nothing changed. Another order of the items of an associative list is no change.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Without these fields and everything below them.
    #[must_use]
    pub fn excluding(self, fields: &Set) -> Self {
        if fields.is_empty() {
            return self;
        }
        Self {
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            added: self.added.recursive_difference(fields),
        }
    }

    /// What the new object says otherwise than the old.
    #[must_use]
    pub fn changed(&self) -> Set {
        self.modified.union(&self.added)
    }

    /// Takes over what was found at `element` and below it.
    fn attach(&mut self, element: PathElement, change: Change, below: Self) {
        if change.removed {
            self.removed.insert_member(element.clone());
        }
        if change.modified {
            self.modified.insert_member(element.clone());
        }
        if change.added {
            self.added.insert_member(element.clone());
        }
        self.removed.insert_children(element.clone(), below.removed);
        self.modified.insert_children(element.clone(), below.modified);
        self.added.insert_children(element, below.added);
    }
}

/// What happened to a value itself, in contrast to what is in it.
#[derive(Debug, Clone, Copy, Default)]
struct Change {
    removed: bool,
    modified: bool,
    added: bool,
}

impl Change {
    /// The change of a value that is there on one side only.
    fn presence(old: Option<&Value>, new: Option<&Value>) -> Self {
        Self {
            removed: new.is_none(),
            modified: false,
            added: old.is_none(),
        }
    }

    /// The change of a value that is replaced as a whole.
    fn leaf(old: Option<&Value>, new: Option<&Value>) -> Self {
        let modified = matches!((old, new), (Some(old), Some(new)) if !equal(old, new));
        Self {
            modified,
            ..Self::presence(old, new)
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            removed: self.removed || other.removed,
            modified: self.modified || other.modified,
            added: self.added || other.added,
        }
    }

    fn is_none(self) -> bool {
        !(self.removed || self.modified || self.added)
    }
}

/// Compares two objects of one kind.
#[must_use]
pub fn compare(old: &Value, new: &Value, node: Node<'_>) -> Comparison {
    let mut comparison = Comparison::default();
    walk(Some(old), Some(new), node, &mut comparison);
    comparison
}

/// Adds what changed below to `below`; answers what changed here. One side is there at least.
fn walk(old: Option<&Value>, new: Option<&Value>, node: Node<'_>, below: &mut Comparison) -> Change {
    let (old_shapes, new_shapes) = (node.shapes_for(old), node.shapes_for(new));
    if new.is_none() {
        return walk_as(old_shapes.first(), old, new, node, below);
    }
    let change = walk_as(new_shapes.first(), old, new, node, below);
    if old.is_none() || old_shapes == new_shapes {
        return change;
    }
    // The value changed its shape: what was there is gone with all that was in it.
    change.or(walk_as(old_shapes.first(), old, new, node, below))
}

fn walk_as(
    shape: Option<Shape>,
    old: Option<&Value>,
    new: Option<&Value>,
    node: Node<'_>,
    below: &mut Comparison,
) -> Change {
    match shape {
        Some(Shape::Map) => {
            let (before, after) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            let nothing = before.is_none_or(Map::is_empty) && after.is_none_or(Map::is_empty);
            if nothing || node.map_is_atomic() {
                return Change::leaf(old, new);
            }
            walk_fields(before, after, node, below);
            Change::presence(old, new)
        }
        Some(Shape::List) => {
            let before = old.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let after = new.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let nothing = before.is_empty() && after.is_empty();
            if nothing || node.list_rule() == ListRule::Atomic {
                return Change::leaf(old, new);
            }
            walk_items(before, after, node, below);
            Change::presence(old, new)
        }
        Some(Shape::Scalar) | None => Change::leaf(old, new),
    }
}

fn walk_fields(
    old: Option<&Map<String, Value>>,
    new: Option<&Map<String, Value>>,
    node: Node<'_>,
    below: &mut Comparison,
) {
    for (name, before) in old.into_iter().flatten() {
        let after = new.and_then(|new| new.get(name));
        walk_field(name, Some(before), after, node, below);
    }
    for (name, after) in new.into_iter().flatten() {
        if !old.is_some_and(|old| old.contains_key(name)) {
            walk_field(name, None, Some(after), node, below);
        }
    }
}

fn walk_field(name: &str, old: Option<&Value>, new: Option<&Value>, node: Node<'_>, below: &mut Comparison) {
    let mut inner = Comparison::default();
    let change = walk(old, new, node.field(name), &mut inner);
    // Most fields do not change: no element is made for them.
    if !(change.is_none() && inner.is_same()) {
        below.attach(PathElement::field(name), change, inner);
    }
}

/// The items that share an element, on both sides.
#[derive(Default)]
struct Pair<'a> {
    old: Vec<&'a Value>,
    new: Vec<&'a Value>,
}

fn walk_items(old: &[Value], new: &[Value], node: Node<'_>, below: &mut Comparison) {
    let mut pairs: BTreeMap<PathElement, Pair<'_>> = BTreeMap::new();
    for item in old {
        if let Ok(element) = node.item_element(item) {
            pairs.entry(element).or_default().old.push(item);
        }
    }
    for item in new {
        if let Ok(element) = node.item_element(item) {
            pairs.entry(element).or_default().new.push(item);
        }
    }
    for (element, pair) in pairs {
        let mut inner = Comparison::default();
        let change = walk_pair(&pair, node.items(), &mut inner);
        below.attach(element, change, inner);
    }
}

/// Items that are there once are compared; items that are there more than once are one value as a whole.
fn walk_pair(pair: &Pair<'_>, node: Node<'_>, below: &mut Comparison) -> Change {
    match (pair.old.as_slice(), pair.new.as_slice()) {
        (old @ ([] | [_]), new @ ([] | [_])) => walk(old.first().copied(), new.first().copied(), node, below),
        (old @ [_, _, ..], new @ [_, _, ..]) => {
            let same = old.len() == new.len() && old.iter().zip(new).all(|(old, new)| equal(old, new));
            Change {
                modified: !same,
                ..Change::default()
            }
        }
        // No longer more than once: what is left counts as new, the marker of the duplicates as gone.
        ([_, _, ..], new) => {
            let change = new.first().map(|new| walk(None, Some(new), node, below));
            Change {
                removed: true,
                ..change.unwrap_or_default()
            }
        }
        // More than once from now on: what was in the single item is gone.
        (old, _) => {
            let change = old.first().map(|old| walk(Some(old), None, node, below));
            Change {
                added: true,
                ..change.unwrap_or_default()
            }
        }
    }
}
