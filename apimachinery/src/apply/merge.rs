//! A configuration laid over an object.
//!
//! Source: `structured-merge-diff/v6/typed/merge.go`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::node::{ListRule, Node, Shape};
use super::path::PathElement;

/// `live` with everything that `applied` says. Nothing is removed. Items of associative lists come in the order of
/// `applied`, with the items that only `live` has kept between the neighbours they had.
///
/// `applied` has been validated with duplicates refused, so its items are told apart.
#[must_use]
pub fn merge(mut live: Value, applied: &Value, node: Node<'_>) -> Value {
    merge_into(&mut live, applied, node);
    live
}

fn merge_into(live: &mut Value, applied: &Value, node: Node<'_>) {
    match node.shape_for(applied) {
        Some(Shape::Map) => merge_map(live, applied, node),
        Some(Shape::List) => merge_list(live, applied, node),
        Some(Shape::Scalar) | None => *live = applied.clone(),
    }
}

fn merge_map(live: &mut Value, applied: &Value, node: Node<'_>) {
    let nothing_applied = applied.as_object().is_none_or(Map::is_empty);
    let nothing_live = live.as_object().is_none_or(Map::is_empty);
    // Between empty and null the configuration decides.
    if node.map_is_atomic() || (nothing_applied && nothing_live) {
        *live = applied.clone();
        return;
    }
    let (Some(live), Some(applied)) = (live.as_object_mut(), applied.as_object()) else {
        if !nothing_applied {
            *live = applied.clone();
        }
        return;
    };
    for (name, value) in applied {
        match live.get_mut(name) {
            Some(live) => merge_into(live, value, node.field(name)),
            None => {
                live.insert(name.clone(), value.clone());
            }
        }
    }
}

fn merge_list(live: &mut Value, applied: &Value, node: Node<'_>) {
    let new = applied.as_array().map_or(&[][..], Vec::as_slice);
    let old = live.as_array().map_or(0, Vec::len);
    if node.list_rule() == ListRule::Atomic || (old == 0 && new.is_empty()) {
        *live = applied.clone();
        return;
    }
    if new.is_empty() {
        return;
    }
    match live.as_array_mut() {
        Some(items) => *items = ListMerge::new(std::mem::take(items), new, node).run(),
        None => *live = applied.clone(),
    }
}

/// The merge of two associative lists.
///
/// Walking both lists at once: a live item that is not applied stays where it comes, an item of both comes where the
/// configuration has it, and a live item of both is skipped until its turn.
struct ListMerge<'a> {
    node: Node<'a>,
    /// Live items in their order. Items of both are taken out when they are merged.
    live: Vec<(Option<PathElement>, Option<Value>)>,
    /// Where an element is in `live`; `None` where it is there more than once: such items are replaced, not merged.
    live_index: BTreeMap<PathElement, Option<usize>>,
    applied: Vec<(PathElement, &'a Value)>,
    /// Where an element is in `applied`.
    applied_index: BTreeMap<PathElement, usize>,
    /// For every position in `applied`, the first one from there on that `live` has too.
    next_shared: Vec<Option<usize>>,
}

impl<'a> ListMerge<'a> {
    fn new(live: Vec<Value>, applied: &'a [Value], node: Node<'a>) -> Self {
        let live: Vec<_> = live
            .into_iter()
            .map(|item| (node.item_element(&item).ok(), Some(item)))
            .collect();
        let mut live_index = BTreeMap::new();
        for (index, (element, _)) in live.iter().enumerate() {
            if let Some(element) = element {
                live_index
                    .entry(element.clone())
                    .and_modify(|index| *index = None)
                    .or_insert(Some(index));
            }
        }
        let applied: Vec<_> = applied
            .iter()
            .filter_map(|item| Some((node.item_element(item).ok()?, item)))
            .collect();
        let applied_index = applied
            .iter()
            .enumerate()
            .map(|(index, (element, _))| (element.clone(), index))
            .collect();
        let mut next_shared = vec![None; applied.len() + 1];
        for (index, (element, _)) in applied.iter().enumerate().rev() {
            next_shared[index] = if live_index.contains_key(element) {
                Some(index)
            } else {
                next_shared[index + 1]
            };
        }
        Self {
            node,
            live,
            live_index,
            applied,
            applied_index,
            next_shared,
        }
    }

    fn run(mut self) -> Vec<Value> {
        let mut out = Vec::with_capacity(self.live.len().max(self.applied.len()));
        // The position in `applied` up to which its items are in `out`.
        let mut next = 0;
        for index in 0..self.live.len() {
            let element = self.live[index].0.as_ref();
            let turn = element.and_then(|element| self.applied_index.get(element).copied());
            let until = match turn {
                // Only live has it.
                None => {
                    out.extend(self.live[index].1.take());
                    continue;
                }
                // A further duplicate of what was merged: where nothing shared is left, new items take its place.
                Some(turn) if turn < next => match self.next_shared[next] {
                    None => self.applied.len().min(next + 1),
                    Some(_) => continue,
                },
                // The next item that both have; what is only applied and comes before it goes before it.
                Some(turn) if self.next_shared[next] == Some(turn) => turn + 1,
                // Of both, but not in its turn: comes later, where the configuration has it.
                Some(_) => continue,
            };
            for applied in next..until {
                let merged = self.merge_item(applied);
                out.push(merged);
            }
            next = until;
        }
        for applied in next..self.applied.len() {
            let merged = self.merge_item(applied);
            out.push(merged);
        }
        out
    }

    fn merge_item(&mut self, applied: usize) -> Value {
        let (element, item) = &self.applied[applied];
        let live = match self.live_index.get(element) {
            Some(Some(index)) => self.live[*index].1.take(),
            // More than once in live: replaced as if it had been null there.
            Some(None) => Some(Value::Null),
            None => None,
        };
        match live {
            Some(live) => merge(live, item, self.node.items()),
            None => (*item).clone(),
        }
    }
}
