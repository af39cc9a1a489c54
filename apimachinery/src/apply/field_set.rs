//! The set of fields that a configuration names.
//!
//! Source: `structured-merge-diff/v6/typed/tofieldset.go`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::node::{ListRule, Node, Shape};
use super::path::PathElement;
use super::set::Set;

/// Every leaf and every item of a list that `value` has. Of items that are there more than once only the item itself
/// is named, nothing in it. An associative list without items is not named: it is nobody's.
#[must_use]
pub fn to_field_set(value: &Value, node: Node<'_>) -> Set {
    let mut set = Set::new();
    Walker { empty_lists: false }.walk(value, node, &mut set);
    set
}

/// As [`to_field_set`], and all associative lists without items: everything that is there at all.
pub(super) fn to_field_set_with_empty_lists(value: &Value, node: Node<'_>) -> Set {
    let mut set = Set::new();
    Walker { empty_lists: true }.walk(value, node, &mut set);
    set
}

#[derive(Clone, Copy)]
struct Walker {
    empty_lists: bool,
}

impl Walker {
    /// Adds what is below `value` to `below`; answers whether `value` itself is named.
    fn walk(self, value: &Value, node: Node<'_>, below: &mut Set) -> bool {
        match (node.shape_for(value), value) {
            (Some(Shape::Scalar) | None, _) => true,
            (Some(Shape::List), _) if node.list_rule() == ListRule::Atomic => true,
            (Some(Shape::Map), _) if node.map_is_atomic() => true,
            (Some(Shape::List), Value::Array(items)) => {
                self.walk_items(items, node, below);
                self.empty_lists && items.is_empty()
            }
            (Some(Shape::Map), Value::Object(map)) => {
                self.walk_fields(map, node, below);
                false
            }
            (Some(Shape::List | Shape::Map), _) => false,
        }
    }

    fn walk_fields(self, map: &serde_json::Map<String, Value>, node: Node<'_>, below: &mut Set) {
        for (name, value) in map {
            let mut inner = Set::new();
            let is_leaf = self.walk(value, node.field(name), &mut inner);
            let is_empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
            let element = PathElement::field(name);
            // An entry of a map exists by itself; a declared field only through what is in it.
            if is_leaf || is_empty || !node.declares(name) {
                below.insert_member(element.clone());
            }
            below.insert_children(element, inner);
        }
    }

    fn walk_items(self, items: &[Value], node: Node<'_>, below: &mut Set) {
        let mut times: BTreeMap<PathElement, (usize, &Value)> = BTreeMap::new();
        for item in items {
            // What has no key was refused by validation; in what was stored it is nobody's.
            if let Ok(element) = node.item_element(item) {
                times.entry(element).or_insert((0, item)).0 += 1;
            }
        }
        for (element, (times, item)) in times {
            below.insert_member(element.clone());
            if times == 1 {
                let mut inner = Set::new();
                self.walk(item, node.items(), &mut inner);
                below.insert_children(element, inner);
            }
        }
    }
}
