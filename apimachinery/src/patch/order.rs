//! The order of merged lists in a strategic merge patch.
//!
//! Source: `normalizeElementOrder` and its neighbours in `k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`. The Go
//! code searches lists linearly for every comparison; here positions are looked up, since both lists come from clients.

use std::collections::HashMap;

use serde_json::Value;

/// What makes an element of a merged list the same as another: the value of the merge key, or the element itself where
/// there is no merge key.
pub(super) fn identity(element: &Value, merge_key: Option<&str>) -> Option<String> {
    match merge_key {
        None => Some(element.to_string()),
        Some(key) => element.get(key).map(Value::to_string),
    }
}

/// Where each element first occurs in a list.
pub(super) struct Positions<'a> {
    merge_key: Option<&'a str>,
    first: HashMap<String, usize>,
}

impl<'a> Positions<'a> {
    pub(super) fn new(elements: &[Value], merge_key: Option<&'a str>) -> Self {
        let mut first = HashMap::with_capacity(elements.len());
        for (position, element) in elements.iter().enumerate() {
            if let Some(identity) = identity(element, merge_key) {
                first.entry(identity).or_insert(position);
            }
        }
        Self { merge_key, first }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    pub(super) fn of(&self, element: &Value) -> Option<usize> {
        let identity = identity(element, self.merge_key)?;
        self.first.get(&identity).copied()
    }

    /// The position of the element with that identity.
    pub(super) fn find(&self, identity: &str) -> Option<usize> {
        self.first.get(identity).copied()
    }

    /// Remembers an element that was appended at `position`.
    pub(super) fn insert(&mut self, identity: String, position: usize) {
        self.first.entry(identity).or_insert(position);
    }
}

/// Orders a merged list: elements that `patch_order` names stand as it says, the others as they stood on the server, and
/// the two kinds are interleaved as they stood on the server, as far as that can be.
pub(super) fn arrange(merged: Vec<Value>, patch_order: &Positions<'_>, server_order: &Positions<'_>) -> Vec<Value> {
    let (mut from_patch, mut server_only): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|element| patch_order.of(element).is_some());
    from_patch.sort_by_cached_key(|element| patch_order.of(element));
    server_only.sort_by_cached_key(|element| server_order.of(element).unwrap_or(usize::MAX));

    let mut arranged = Vec::with_capacity(from_patch.len() + server_only.len());
    let mut from_patch = from_patch.into_iter().peekable();
    for element in server_only {
        // Elements of the patch come first unless both are known to the server and it had them the other way round.
        let server_position = server_order.of(&element);
        while let Some(candidate) = from_patch.peek() {
            match (server_position, server_order.of(candidate)) {
                (Some(mine), Some(other)) if mine < other => break,
                _ => arranged.extend(from_patch.next()),
            }
        }
        arranged.push(element);
    }
    arranged.extend(from_patch);
    arranged
}
