//! Sets that were written under another schema.
//!
//! Where a list or map became atomic since, who owned anything in it owns it as a whole. The other way round needs
//! nothing: what was atomic is treated as if it had always been granular.
//!
//! Source: `structured-merge-diff/v6/typed/reconcile_schema.go`.

use super::node::{ListRule, Node, Shape};
use super::path::PathElement;
use super::set::Set;

/// The set under the schema of today; `None` where it is the same.
#[must_use]
pub fn reconcile(set: &Set, node: Node<'_>) -> Option<Set> {
    if !can_change(node) {
        return None;
    }
    let mut changed = false;
    let mut out = Set::new();
    for (element, is_member, below) in set.entries() {
        let field = element_node(node, element);
        let collapses = below.is_some() && is_atomic(field);
        if is_member || collapses {
            out.insert_member(element.clone());
        }
        changed |= collapses;
        let Some(below) = below.filter(|_| !collapses) else {
            continue;
        };
        match reconcile(below, field) {
            Some(below) => {
                changed = true;
                out.insert_children(element.clone(), below);
            }
            None => out.insert_children(element.clone(), below.clone()),
        }
    }
    changed.then_some(out)
}

/// How a walk without a value takes a place.
fn shape(node: Node<'_>) -> Option<Shape> {
    node.shapes_for(None).first()
}

fn can_change(node: Node<'_>) -> bool {
    match shape(node) {
        Some(Shape::Map) => !node.is_deduced_map(),
        Some(Shape::List) => true,
        Some(Shape::Scalar) | None => false,
    }
}

fn is_atomic(node: Node<'_>) -> bool {
    match shape(node) {
        Some(Shape::Map) => !node.is_deduced_map() && node.map_is_atomic(),
        Some(Shape::List) => node.list_rule() == ListRule::Atomic,
        Some(Shape::Scalar) | None => false,
    }
}

fn element_node<'a>(node: Node<'a>, element: &PathElement) -> Node<'a> {
    match (shape(node), element) {
        (Some(Shape::Map), PathElement::Field(name)) => node.field(name),
        (Some(Shape::List), _) => node.items(),
        _ => Node::Nothing,
    }
}
