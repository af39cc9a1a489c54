//! Lists: their size, their elements, and that elements of sets and maps are unique.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use umbra_apimachinery::schema::{ListType, SchemaCursor};

use super::{FieldErrorReason, Validation};
use crate::Dialect;
use crate::path::Path;

impl Validation {
    pub(super) fn array(&mut self, items: &[Value], schema: SchemaCursor<'_>, path: Path<'_>) {
        let node = schema.schema();
        if let Some(limits) = node.limits.as_deref() {
            let count = items.len() as u64;
            if let Some(most) = limits.max_items.filter(|most| count > *most) {
                self.too_many(&path, count, most);
            }
            if let Some(least) = limits.min_items.filter(|least| count < *least) {
                let value = Value::Array(items.to_vec());
                self.invalid(&path, &value, &format!("should have at least {least} items"));
            }
            if limits.unique_items && !repeated(items).is_empty() {
                let value = Value::Array(items.to_vec());
                self.invalid(&path, &value, "shouldn't contain duplicates");
            }
        }
        // Of built-in kinds some lists are maps by declaration whose duplicates Kubernetes accepts, such as the ports of a
        // container; applying such an object fails, but creating it does not.
        if self.dialect == Dialect::CustomResource {
            match &node.list_type {
                ListType::Atomic => {}
                ListType::Set => self.set(items, &path),
                ListType::Map(keys) => self.map(items, keys, schema, &path),
            }
        }
        if let Some(schema) = schema.items() {
            for (index, item) in items.iter().enumerate() {
                self.value(item, schema, path.index(index));
            }
        }
    }

    fn set(&mut self, items: &[Value], path: &Path<'_>) {
        for index in repeated(items) {
            let path = path.index(index);
            self.add(&path, FieldErrorReason::Duplicate, items.get(index), "");
        }
    }

    fn map(&mut self, items: &[Value], keys: &[String], schema: SchemaCursor<'_>, path: &Path<'_>) {
        if let Some(index) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
            let path = path.index(index);
            let detail = "must be an object for an array of list-type map";
            self.add(&path, FieldErrorReason::Invalid, items.get(index), detail);
            return;
        }
        let keys: Vec<Value> = items
            .iter()
            .map(|item| Value::Object(key_of(item, keys, schema)))
            .collect();
        for index in repeated(&keys) {
            let path = path.index(index);
            self.add(&path, FieldErrorReason::Duplicate, keys.get(index), "");
        }
    }
}

/// The fields that identify an element; one that is absent counts as its default.
fn key_of(item: &Value, keys: &[String], schema: SchemaCursor<'_>) -> Map<String, Value> {
    let mut found = Map::new();
    for key in keys {
        let default = || schema.items()?.property(key)?.default();
        if let Some(value) = item.get(key).or_else(default) {
            found.insert(key.clone(), value.clone());
        }
    }
    found
}

/// Where a value occurs for the second time, once for each value.
fn repeated<'a>(values: impl IntoIterator<Item = &'a Value>) -> Vec<usize> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut repeated = Vec::new();
    for (index, value) in values.into_iter().enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            repeated.push(index);
        }
    }
    repeated
}
