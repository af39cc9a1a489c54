//! Objects as children answer with them: as Tables with the objects in their rows, or as they are.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use umbra_apimachinery::gvk::GroupVersionKind;
use umbra_apimachinery::raw::RawMap;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::table::{ColumnDefinition, ReceivedTable};

use crate::child_errors::unusable;

/// Asks for Tables, and takes plain objects and lists.
pub(super) const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// 502 for an answer that makes no sense.
pub(super) fn malformed(cluster: &str, error: &dyn std::fmt::Display) -> Status {
    unusable(cluster, format_args!("the answer cannot be read: {error}"))
}

/// Objects as a child sent them, and how it prints them.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) columns: Vec<ColumnDefinition>,
    /// Each with one value a column; without any where the child does not print.
    pub(super) objects: Vec<(Box<RawValue>, Vec<Value>)>,
}

#[derive(Deserialize)]
struct KindOnly {
    #[serde(default)]
    kind: String,
}

#[derive(Deserialize)]
struct PlainList {
    #[serde(default)]
    items: Vec<Box<RawValue>>,
}

impl Received {
    /// Reads a Table or a list of objects of `kind`.
    ///
    /// # Errors
    /// Where it is neither.
    pub(super) fn list(body: &[u8], kind: &GroupVersionKind) -> Result<Self, serde_json::Error> {
        if let Some(table) = Self::table(body)? {
            return Ok(table);
        }
        let list: PlainList = serde_json::from_slice(body)?;
        let items = list.items.into_iter().map(|item| (with_type(item, kind), Vec::new()));
        Ok(Self {
            columns: Vec::new(),
            objects: items.collect(),
        })
    }

    /// Reads a Table or an object.
    ///
    /// # Errors
    /// Where it is neither.
    pub(super) fn object(body: &[u8]) -> Result<Self, serde_json::Error> {
        if let Some(table) = Self::table(body)? {
            return Ok(table);
        }
        Ok(Self {
            columns: Vec::new(),
            objects: vec![(serde_json::from_slice(body)?, Vec::new())],
        })
    }

    fn table(body: &[u8]) -> Result<Option<Self>, serde_json::Error> {
        if serde_json::from_slice::<KindOnly>(body)?.kind != "Table" {
            return Ok(None);
        }
        let table: ReceivedTable = serde_json::from_slice(body)?;
        let rows = table.rows.into_iter().filter_map(|row| Some((row.object?, row.cells)));
        Ok(Some(Self {
            columns: table.column_definitions,
            objects: rows.collect(),
        }))
    }
}

/// Lists leave the type out of each item; it is put back, because the items of a view stand alone.
fn with_type(item: Box<RawValue>, kind: &GroupVersionKind) -> Box<RawValue> {
    match RawMap::parse(item.get().as_bytes()) {
        Ok(object) if object.get("kind").is_none() => {
            let rest = item.get().trim_start().strip_prefix('{').unwrap_or_default();
            let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
            let text = format!(
                "{{\"apiVersion\":{:?},\"kind\":{:?}{comma}{rest}",
                kind.api_version(),
                kind.kind
            );
            RawValue::from_string(text).unwrap_or(item)
        }
        _ => item,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lists_and_tables_are_read() {
        let secret = GroupVersionKind::new("", "v1", "Secret");
        let list = br#"{"kind":"SecretList","apiVersion":"v1","items":[{"metadata":{"name":"a"}},{"kind":"X"},{}]}"#;
        let received = Received::list(list, &secret).unwrap();
        let texts: Vec<&str> = received.objects.iter().map(|(json, _)| json.get()).collect();
        assert_eq!(
            texts,
            [
                r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#,
                r#"{"kind":"X"}"#,
                r#"{"apiVersion":"v1","kind":"Secret"}"#
            ]
        );
        let table = br#"{"kind":"Table","columnDefinitions":[{"name":"Name","type":"string"}],
            "rows":[{"cells":["a"],"object":{"kind":"Secret"}}]}"#;
        let received = Received::list(table, &secret).unwrap();
        assert_eq!((received.columns.len(), received.objects.len()), (1, 1));
        assert_eq!(Received::object(br#"{"kind":"Secret"}"#).unwrap().objects.len(), 1);
    }
}
