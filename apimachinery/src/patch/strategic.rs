//! Strategic merge patch: a merge patch that knows which lists are maps, and takes directives.
//!
//! What merges how is written in the schema as `x-kubernetes-patch-strategy` and `x-kubernetes-patch-merge-key`; kinds
//! whose schema does not say so (custom resources) do not take such patches, and their callers answer 415.
//!
//! | directive | meaning |
//! |---|---|
//! | `$patch: replace` in a map | the map becomes the rest of the patch |
//! | `$patch: delete` in a map | the map becomes empty |
//! | `$patch: delete` in an element | the elements with its merge key go |
//! | `$patch: replace` in an element | the list becomes the other elements of the patch |
//! | `$retainKeys: [...]` | only these fields of the map stay |
//! | `$deleteFromPrimitiveList/f: [...]` | these elements of the list `f` go |
//! | `$setElementOrder/f: [...]` | the list `f` is put into this order |
//!
//! `$patch: merge` is not accepted, as it is not by Kubernetes.
//!
//! Source: `mergeMap` and what it calls in `k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`, with the options of
//! `StrategicMergeMapPatch`. There, directives and `null`s that are left in new values disappear when the result is
//! decoded into a Go struct; here there is no struct, so they are taken out explicitly. Fields that the schema does not
//! know are merged as maps and replaced as lists, where Go fails. An element that one patch both deletes from a list of
//! scalars and adds to it is in the result; in Go that depends on the iteration order of a map. Ordering a list that is
//! empty or `null` is nothing to do, where Go fails.

use serde_json::{Map, Value};

use super::PatchError;
use super::order::{Positions, arrange, identity};
use crate::schema::{PatchStrategy, SchemaCursor};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const SET_ORDER: &str = "$setElementOrder";

const BAD_PRIMITIVE_LIST: &str = "invalid patch format of primitive list";
const BAD_RETAIN_KEYS: &str = "invalid patch format of retainKeys";
const BAD_ORDER_LIST: &str = "invalid patch format of setElementOrder list";

/// Decodes a request's body.
///
/// # Errors
/// [`PatchError::Invalid`] for what is no JSON object.
pub fn parse(body: &[u8]) -> Result<Value, PatchError> {
    let patch: Value = serde_json::from_slice(body).map_err(|error| PatchError::invalid(error.to_string()))?;
    if patch.is_object() {
        Ok(patch)
    } else {
        Err(PatchError::invalid("a strategic merge patch has to be an object"))
    }
}

/// Applies `patch` to `document`, whose kind `schema` describes. The document is unchanged where this fails.
///
/// # Errors
/// [`PatchError::Invalid`] for a malformed patch, [`PatchError::NotApplicable`] where the document does not go with it.
pub fn apply(document: &mut Value, patch: &Value, schema: SchemaCursor<'_>) -> Result<(), PatchError> {
    let (Value::Object(fields), Value::Object(changes)) = (&*document, patch) else {
        return Err(PatchError::invalid(
            "a strategic merge patch and what it patches have to be objects",
        ));
    };
    let merged = merge_map(fields.clone(), changes, Some(schema)).map_err(Problem::into_error)?;
    *document = Value::Object(merged);
    Ok(())
}

/// What is wrong, and the path to it from the inside out.
struct Problem {
    invalid: bool,
    reason: String,
    path: Vec<String>,
}

impl Problem {
    fn invalid(reason: impl Into<String>) -> Self {
        Self {
            invalid: true,
            reason: reason.into(),
            path: Vec::new(),
        }
    }

    fn not_applicable(reason: impl Into<String>) -> Self {
        Self {
            invalid: false,
            ..Self::invalid(reason)
        }
    }

    fn no_merge_key(key: &str) -> Self {
        Self::invalid(format!("an element does not contain declared merge key: {key}"))
    }

    fn below(mut self, field: &str) -> Self {
        self.path.push(field.to_owned());
        self
    }

    fn into_error(mut self) -> PatchError {
        self.path.reverse();
        let reason = if self.path.is_empty() {
            self.reason
        } else {
            format!("{}: {}", self.path.join("."), self.reason)
        };
        if self.invalid {
            PatchError::Invalid { reason }
        } else {
            PatchError::NotApplicable { reason }
        }
    }
}

type Fields = Map<String, Value>;

/// How the schema wants one field merged.
#[derive(Clone, Copy, Default)]
struct Merging<'a> {
    schema: Option<SchemaCursor<'a>>,
    strategy: Option<&'a PatchStrategy>,
}

impl<'a> Merging<'a> {
    fn of(schema: Option<SchemaCursor<'a>>, field: &str) -> Self {
        let schema = schema.and_then(|schema| schema.field(field));
        Self {
            schema,
            strategy: schema.map(|field| &field.site().patch_strategy),
        }
    }

    fn merges_lists(self) -> bool {
        self.strategy.is_some_and(|strategy| strategy.merge)
    }

    fn replaces_maps(self) -> bool {
        self.strategy.is_some_and(|strategy| strategy.replace)
    }

    fn merge_key(self) -> Option<&'a str> {
        self.strategy.and_then(|strategy| strategy.merge_key.as_deref())
    }

    fn items(self) -> Option<SchemaCursor<'a>> {
        self.schema.and_then(|list| list.items())
    }
}

fn merge_map(mut fields: Fields, patch: &Fields, schema: Option<SchemaCursor<'_>>) -> Result<Fields, Problem> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) if directive == "replace" => {
            let mut rest = patch.clone();
            rest.remove(DIRECTIVE);
            return Ok(without_directives(&rest));
        }
        Some(Value::String(directive)) if directive == "delete" => return Ok(Fields::new()),
        Some(other) => return Err(Problem::invalid(format!("unknown patch type: {other}"))),
    }
    if let Some(keys) = patch.get(RETAIN_KEYS) {
        retain_keys(&mut fields, patch, keys)?;
    }
    for (directive, order) in patch {
        if let Some(field) = directed_field(directive, SET_ORDER, BAD_ORDER_LIST)? {
            set_order(&mut fields, field, patch.get(field), order, Merging::of(schema, field))
                .map_err(|problem| problem.below(field))?;
        }
    }
    for (name, change) in patch {
        if name == RETAIN_KEYS || name.starts_with(SET_ORDER) {
            continue;
        }
        if let Some(field) = directed_field(name, DELETE_FROM_LIST, BAD_PRIMITIVE_LIST)? {
            delete_from_list(&mut fields, field, change).map_err(|problem| problem.below(field))?;
        } else if !patch.contains_key(&format!("{SET_ORDER}/{name}")) || change.is_null() {
            merge_field(&mut fields, name, change, Merging::of(schema, name)).map_err(|problem| problem.below(name))?;
        }
    }
    Ok(fields)
}

/// The field that `$directive/field` is about; `None` for other fields.
fn directed_field<'a>(name: &'a str, directive: &str, malformed: &str) -> Result<Option<&'a str>, Problem> {
    let Some(rest) = name.strip_prefix(directive) else {
        return Ok(None);
    };
    match rest.strip_prefix('/') {
        Some(field) => Ok(Some(field)),
        None => Err(Problem::invalid(malformed)),
    }
}

fn merge_field(fields: &mut Fields, name: &str, change: &Value, merging: Merging<'_>) -> Result<(), Problem> {
    let merged = match (fields.remove(name), change) {
        (_, Value::Null) => None,
        (Some(Value::Object(_)), Value::Object(new)) if merging.replaces_maps() => {
            Some(Value::Object(without_directives(new)))
        }
        (Some(Value::Object(old)), Value::Object(new)) => Some(Value::Object(merge_map(old, new, merging.schema)?)),
        (Some(Value::Array(old)), Value::Array(new)) if merging.merges_lists() => {
            Some(Value::Array(merge_list(old, new, merging)?))
        }
        (_, new) => taken_over(new),
    };
    if let Some(merged) = merged {
        fields.insert(name.to_owned(), merged);
    }
    Ok(())
}

/// Drops the fields that `$retainKeys` does not name.
fn retain_keys(fields: &mut Fields, patch: &Fields, keys: &Value) -> Result<(), Problem> {
    let keys = keys.as_array().ok_or_else(|| Problem::invalid(BAD_RETAIN_KEYS))?;
    let named = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    for (name, change) in patch {
        let directive = [RETAIN_KEYS, DELETE_FROM_LIST, SET_ORDER];
        let exempt = change.is_null() || directive.iter().any(|one| name.starts_with(one));
        if !exempt && !named(name) {
            return Err(Problem::invalid(format!(
                "{BAD_RETAIN_KEYS}: {name} is patched but not retained"
            )));
        }
    }
    fields.retain(|name, _| named(name));
    Ok(())
}

fn delete_from_list(fields: &mut Fields, name: &str, gone: &Value) -> Result<(), Problem> {
    let gone = gone.as_array().ok_or_else(|| Problem::invalid(BAD_PRIMITIVE_LIST))?;
    if let Some(Value::Array(elements)) = fields.get_mut(name) {
        let gone = Positions::new(gone, None);
        elements.retain(|element| gone.of(element).is_none());
    }
    Ok(())
}

/// Merges the list `name` and puts it into the order that the patch gives.
fn set_order(
    fields: &mut Fields,
    name: &str,
    patch: Option<&Value>,
    order: &Value,
    merging: Merging<'_>,
) -> Result<(), Problem> {
    let order = order.as_array().ok_or_else(|| Problem::invalid(BAD_ORDER_LIST))?;
    let patch = match patch {
        None | Some(Value::Null) => None,
        Some(Value::Array(elements)) => Some(elements),
        Some(_) => return Err(Problem::invalid("expected a list")),
    };
    let original = match fields.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::Array(elements)) => Some(elements.clone()),
        Some(_) => return Err(Problem::not_applicable("the field to be ordered is not a list")),
    };
    let merge_key = merging.merge_key();
    let order_positions = Positions::new(order, merge_key);
    check_order(patch.map_or(&[], Vec::as_slice), &order_positions, merge_key)?;
    let server_order = Positions::new(original.as_deref().unwrap_or_default(), merge_key);
    let merged = match (original, patch) {
        (None, None) => return Ok(()),
        (Some(original), None) => original,
        (Some(original), Some(patch)) if merging.merges_lists() => merge_list(original, patch, merging)?,
        (_, Some(patch)) => elements_taken_over(patch),
    };
    check_merge_keys(&merged, merge_key)?;
    let ordered = arrange(merged, &order_positions, &server_order);
    fields.insert(name.to_owned(), Value::Array(ordered));
    Ok(())
}

/// The elements of the patch have to occur in the order, in this order. Directives do not count.
fn check_order(patch: &[Value], order: &Positions<'_>, merge_key: Option<&str>) -> Result<(), Problem> {
    if order.is_empty() {
        return Ok(());
    }
    let mut before = None;
    for element in patch.iter().filter(|element| element.get(DIRECTIVE).is_none()) {
        if let (Some(key), None) = (merge_key, identity(element, merge_key)) {
            return Err(Problem::no_merge_key(key));
        }
        let position = order.of(element);
        if position.is_none() || position <= before {
            return Err(Problem::invalid(format!(
                "The order in patch list doesn't match {SET_ORDER} list: {element}"
            )));
        }
        before = position;
    }
    Ok(())
}

fn check_merge_keys(elements: &[Value], merge_key: Option<&str>) -> Result<(), Problem> {
    match merge_key {
        Some(key) if elements.iter().any(|element| element.get(key).is_none()) => Err(Problem::no_merge_key(key)),
        _ => Ok(()),
    }
}

/// Merges lists whose strategy is `merge`: of scalars as a set, of objects by merge key.
fn merge_list(original: Vec<Value>, patch: &[Value], merging: Merging<'_>) -> Result<Vec<Value>, Problem> {
    check_elements(&original, patch)?;
    let Some(first) = original.first().or(patch.first()) else {
        return Ok(original);
    };
    if !first.is_object() {
        let server_order = Positions::new(&original, None);
        let mut seen = Positions::new(&[], None);
        let mut merged = Vec::with_capacity(original.len() + patch.len());
        for element in original.into_iter().chain(patch.iter().cloned()) {
            let text = element.to_string();
            if seen.find(&text).is_none() {
                seen.insert(text, merged.len());
                merged.push(element);
            }
        }
        return Ok(arrange(merged, &Positions::new(patch, None), &server_order));
    }
    let Some(key) = merging.merge_key() else {
        return Err(Problem::not_applicable("cannot merge lists without merge key"));
    };
    merge_list_by_key(original, patch, key, merging.items())
}

/// All elements have to be of one type, and none a list (`sliceElementType`).
fn check_elements(original: &[Value], patch: &[Value]) -> Result<(), Problem> {
    let mut all = original.iter().chain(patch);
    let Some(first) = all.next() else {
        return Ok(());
    };
    if first.is_array() {
        return Err(Problem::not_applicable("lists of lists are not supported"));
    }
    if all.all(|element| std::mem::discriminant(element) == std::mem::discriminant(first)) {
        Ok(())
    } else {
        Err(Problem::not_applicable("list element types are not identical"))
    }
}

fn merge_list_by_key(
    mut original: Vec<Value>,
    patch: &[Value],
    key: &str,
    items: Option<SchemaCursor<'_>>,
) -> Result<Vec<Value>, Problem> {
    let mut changes = Vec::with_capacity(patch.len());
    let mut gone = Positions::new(&[], Some(key));
    let mut replace = false;
    for element in patch {
        let directive = element.get(DIRECTIVE);
        let Some(identity) = identity(element, Some(key)) else {
            if directive.and_then(Value::as_str) == Some("replace") {
                replace = true;
                continue;
            }
            return Err(Problem::no_merge_key(key));
        };
        match directive.map(Value::as_str) {
            None => changes.push((identity, element)),
            Some(Some("delete")) => gone.insert(identity, 0),
            Some(Some("replace")) => replace = true,
            Some(Some("merge")) => {
                return Err(Problem::invalid("merging lists cannot yet be specified in the patch"));
            }
            Some(_) => return Err(Problem::invalid("unknown patch type in an element of a list")),
        }
    }
    if replace {
        return Ok(changes
            .into_iter()
            .filter_map(|(_, element)| taken_over(element))
            .collect());
    }
    original.retain(|element| gone.of(element).is_none());
    if original.iter().any(|element| element.get(key).is_none()) {
        let reason = format!("an element of the list does not contain declared merge key: {key}");
        return Err(Problem::not_applicable(reason));
    }
    let server_order = Positions::new(&original, Some(key));
    let mut positions = Positions::new(&original, Some(key));
    let mut patch_order = Positions::new(&[], Some(key));
    for (index, (identity, element)) in changes.into_iter().enumerate() {
        patch_order.insert(identity.clone(), index);
        match positions.find(&identity) {
            None => {
                positions.insert(identity, original.len());
                original.extend(taken_over(element));
            }
            Some(position) => {
                let change = element.as_object().expect("elements were checked to be objects");
                let Value::Object(old) = original[position].take() else {
                    return Err(Problem::not_applicable("list element types are not identical"));
                };
                let merged = merge_map(old, change, items).map_err(|problem| problem.below(&identity))?;
                original[position] = Value::Object(merged);
            }
        }
    }
    Ok(arrange(original, &patch_order, &server_order))
}

/// A value of the patch that becomes part of the document as it is: without `null` fields and directives. `None` for a
/// map that is itself a directive.
fn taken_over(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => return None,
        Value::Object(fields) => Value::Object(without_directives(fields)),
        Value::Array(elements) => Value::Array(elements_taken_over(elements)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    })
}

fn elements_taken_over(elements: &[Value]) -> Vec<Value> {
    elements.iter().filter_map(taken_over).collect()
}

fn without_directives(fields: &Fields) -> Fields {
    let directives = [RETAIN_KEYS, DELETE_FROM_LIST, SET_ORDER];
    fields
        .iter()
        .filter(|(name, field)| !field.is_null() && !directives.iter().any(|one| name.starts_with(one)))
        .filter_map(|(name, field)| Some((name.clone(), taken_over(field)?)))
        .collect()
}

#[cfg(test)]
#[path = "strategic_tests.rs"]
mod tests;
