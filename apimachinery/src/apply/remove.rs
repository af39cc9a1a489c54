//! Taking fields out of a value, or everything but them.
//!
//! Deviation: what has nothing left in it is left out, or left empty where somebody owns it as such. Go leaves `null`
//! behind in both cases and relies on the conversion to Go structs to make something of it.
//!
//! Source: `structured-merge-diff/v6/typed/remove.go`.

use serde_json::{Map, Value};

use super::node::{ListRule, Node, Shape};
use super::path::PathElement;
use super::set::Set;

/// `value` without the fields and items of `items`; `None` where nothing is left.
#[must_use]
pub fn remove_items(value: &Value, node: Node<'_>, items: &Set) -> Option<Value> {
    remove(value, node, items, Keep::Nothing)
}

/// What becomes of maps and lists that have nothing left in them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Keep<'a> {
    /// They go too.
    Nothing,
    /// They stay, empty.
    All,
    /// They stay, empty, if they are in this set themselves.
    Of(&'a Set),
}

impl<'a> Keep<'a> {
    fn keeps_field(self, name: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Of(set) => set.has_field(name),
        }
    }

    fn below(self, below: impl FnOnce(&'a Set) -> Option<&'a Set>) -> Self {
        match self {
            Self::Of(set) => below(set).map_or(Self::Nothing, Self::Of),
            other => other,
        }
    }
}

/// As [`remove_items`], but maps and lists may stay when nothing is left in them.
pub(super) fn remove_items_keeping(value: &Value, node: Node<'_>, items: &Set, keep: Keep<'_>) -> Option<Value> {
    remove(value, node, items, keep)
}

fn remove(value: &Value, node: Node<'_>, items: &Set, keep: Keep<'_>) -> Option<Value> {
    match (node.shape_for(value), value) {
        (Some(Shape::Scalar) | None, value) => Some(value.clone()),
        (Some(Shape::Map), Value::Object(map)) if !node.map_is_atomic() => {
            let left: Map<String, Value> = map
                .iter()
                .filter(|(name, _)| !items.has_field(name))
                .filter_map(|(name, value)| Some((name.clone(), remove_from_field(name, value, node, items, keep)?)))
                .collect();
            (!left.is_empty()).then_some(Value::Object(left))
        }
        (Some(Shape::List), Value::Array(list)) if node.list_rule() != ListRule::Atomic => {
            let left: Vec<Value> = list
                .iter()
                .filter_map(|item| remove_from_item(item, node, items, keep))
                .collect();
            (!left.is_empty()).then_some(Value::Array(left))
        }
        // Something inside of what is one value: it goes as a whole.
        (Some(Shape::Map | Shape::List), _) => None,
    }
}

fn remove_from_field(name: &str, value: &Value, map: Node<'_>, items: &Set, keep: Keep<'_>) -> Option<Value> {
    let Some(below) = items.below_field(name) else {
        return Some(value.clone());
    };
    let left = remove(value, map.field(name), below, keep.below(|set| set.below_field(name)));
    left.or_else(|| keep.keeps_field(name).then(|| emptied(value)))
}

fn remove_from_item(item: &Value, list: Node<'_>, items: &Set, keep: Keep<'_>) -> Option<Value> {
    let Ok(element) = list.item_element(item) else {
        return Some(item.clone());
    };
    if items.has_member(&element) {
        return None;
    }
    match items.below(&element) {
        Some(below) => remove(item, list.items(), below, keep.below(|set| set.below(&element))),
        None => Some(item.clone()),
    }
}

/// What is left of `value` when nothing is left in it.
fn emptied(value: &Value) -> Value {
    match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(Vec::new()),
        _ => Value::Null,
    }
}

/// Only the fields and items of `items`, and the keys of the items; `None` where `value` has none of them.
#[must_use]
pub fn extract_items(value: &Value, node: Node<'_>, items: &Set) -> Option<Value> {
    match (node.shape_for(value), value) {
        (Some(Shape::Map), Value::Object(map)) if !map.is_empty() && !node.map_is_atomic() => {
            let kept: Map<String, Value> = map
                .iter()
                .filter_map(|(name, value)| Some((name.clone(), extract_field(name, value, node, items)?)))
                .collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        (Some(Shape::List), Value::Array(list)) if !list.is_empty() && node.list_rule() != ListRule::Atomic => {
            let kept: Vec<Value> = list
                .iter()
                .filter_map(|item| extract_from_item(item, node, items))
                .collect();
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        _ => Some(value.clone()),
    }
}

fn extract_field(name: &str, value: &Value, node: Node<'_>, items: &Set) -> Option<Value> {
    match items.below_field(name) {
        Some(below) => extract_items(value, node.field(name), below),
        None if items.has_field(name) => match value {
            // A map or list of which only the fact that it exists is named.
            Value::Object(map) if !map.is_empty() && !node.field(name).map_is_atomic() => None,
            Value::Array(list) if !list.is_empty() && node.field(name).list_rule() != ListRule::Atomic => None,
            value => Some(value.clone()),
        },
        None => None,
    }
}

fn extract_from_item(item: &Value, list: Node<'_>, items: &Set) -> Option<Value> {
    let element = list.item_element(item).ok()?;
    let below = items.below(&element);
    if below.is_none() && !items.has_member(&element) {
        return None;
    }
    let PathElement::Key(keys) = &element else {
        return Some(item.clone());
    };
    let mut with_keys = below.cloned().unwrap_or_default();
    for key in keys.iter() {
        with_keys.insert_member(PathElement::Field(key.name.clone()));
    }
    extract_items(item, list.items(), &with_keys)
}
