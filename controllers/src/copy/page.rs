//! What a child answers to the copy controller: pages of lists and events of watches, as Tables with objects in them
//! where the child prints, plain where it does not.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use umbra_apimachinery::metadata::PartialObject;
use umbra_apimachinery::status::Status;
use umbra_apimachinery::table::{ColumnDefinition, ListMetadata, ReceivedTable};

/// Asks for Tables, and takes plain lists.
pub(crate) const ACCEPT: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// An object as the child wrote it, and what the child prints of it.
#[derive(Debug)]
pub(crate) struct ReceivedObject {
    /// The object.
    pub(crate) json: Box<RawValue>,
    /// One value a column; empty where the child does not print.
    pub(crate) cells: Vec<Value>,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page {
    /// Revision and continue token.
    pub(crate) metadata: ListMetadata,
    /// The columns; empty where the child does not print.
    pub(crate) columns: Vec<ColumnDefinition>,
    /// The objects.
    pub(crate) objects: Vec<ReceivedObject>,
}

/// An event of a watch.
#[derive(Debug)]
pub(crate) enum Received {
    /// An object was added or changed.
    Put(ReceivedObject),
    /// An object is gone.
    Deleted(ReceivedObject),
    /// All changes up to this revision have been sent.
    Bookmark(String),
    /// The watch ends.
    Error(Status),
}

#[derive(Deserialize)]
struct TypeOnly {
    #[serde(default)]
    kind: String,
}

/// Lists of objects leave the type out of each item; it is put back, because copies stand alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlainList {
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(default)]
    items: Vec<Box<RawValue>>,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
}

impl Page {
    /// Reads the answer to a list.
    ///
    /// # Errors
    /// Where it is neither a Table nor a list.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        if serde_json::from_slice::<TypeOnly>(body)?.kind == "Table" {
            let table: ReceivedTable = serde_json::from_slice(body)?;
            let objects = table.rows.into_iter().filter_map(|row| {
                let cells = row.cells;
                Some(ReceivedObject {
                    json: row.object?,
                    cells,
                })
            });
            return Ok(Self {
                metadata: table.metadata,
                columns: table.column_definitions,
                objects: objects.collect(),
            });
        }
        let list: PlainList = serde_json::from_slice(body)?;
        let kind = list.kind.strip_suffix("List").unwrap_or(&list.kind);
        let objects = list.items.into_iter().map(|item| {
            let json = with_type(item, &list.api_version, kind);
            ReceivedObject {
                json,
                cells: Vec::new(),
            }
        });
        Ok(Self {
            metadata: list.metadata,
            columns: Vec::new(),
            objects: objects.collect(),
        })
    }
}

fn with_type(item: Box<RawValue>, api_version: &str, kind: &str) -> Box<RawValue> {
    match PartialObject::parse(item.get().as_bytes()) {
        Ok(partial) if partial.kind.is_empty() => {
            let rest = item.get().trim_start().strip_prefix('{').unwrap_or_default();
            let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
            let text = format!("{{\"apiVersion\":{api_version:?},\"kind\":{kind:?}{comma}{rest}");
            RawValue::from_string(text).unwrap_or(item)
        }
        _ => item,
    }
}

#[derive(Deserialize)]
struct WatchLine<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// Reads the events of a watch; remembers the columns, which only the first Table of a watch has.
#[derive(Debug, Default)]
pub(crate) struct EventReader {
    /// The columns that came last.
    pub(crate) columns: Option<Arc<[ColumnDefinition]>>,
}

impl EventReader {
    /// Reads one line of a watch.
    ///
    /// # Errors
    /// Where it is no watch event.
    pub(crate) fn read(&mut self, line: &Bytes) -> Result<Received, serde_json::Error> {
        let line: WatchLine<'_> = serde_json::from_slice(line)?;
        if line.event_type == "ERROR" {
            return Ok(Received::Error(serde_json::from_str(line.object.get())?));
        }
        let object = if serde_json::from_str::<TypeOnly>(line.object.get())?.kind == "Table" {
            self.row(serde_json::from_str(line.object.get())?)
        } else {
            ReceivedObject {
                json: line.object.to_owned(),
                cells: Vec::new(),
            }
        };
        Ok(match line.event_type {
            "BOOKMARK" => {
                let partial = PartialObject::parse(object.json.get().as_bytes())?;
                Received::Bookmark(partial.metadata.resource_version)
            }
            "DELETED" => Received::Deleted(object),
            _ => Received::Put(object),
        })
    }

    /// The one row of an event. A bookmark may come as a Table without rows, whose own metadata has the revision.
    fn row(&mut self, mut table: ReceivedTable) -> ReceivedObject {
        if !table.column_definitions.is_empty() {
            self.columns = Some(table.column_definitions.into());
        }
        let row = table.rows.pop().and_then(|row| Some((row.cells, row.object?)));
        let (cells, json) = row.unwrap_or_else(|| {
            let revision = serde_json::json!({"metadata": {"resourceVersion": table.metadata.resource_version}});
            (
                Vec::new(),
                serde_json::value::to_raw_value(&revision).expect("a Value is valid JSON"),
            )
        });
        ReceivedObject { json, cells }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_plain_lists_are_read() {
        let table = br#"{"kind":"Table","metadata":{"resourceVersion":"5","continue":"c"},
            "columnDefinitions":[{"name":"Name","type":"string","format":"name"}],
            "rows":[{"cells":["a"],"object":{"kind":"Pod","metadata":{"name":"a"}}}]}"#;
        let page = Page::parse(table).unwrap();
        assert_eq!((page.metadata.resource_version.as_str(), page.columns.len()), ("5", 1));
        assert_eq!(page.objects[0].cells, ["a"]);

        let list = br#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"6"},
            "items":[{"metadata":{"name":"a"}},{}]}"#;
        let page = Page::parse(list).unwrap();
        assert_eq!(
            page.objects[0].json.get(),
            r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#
        );
        assert_eq!(page.objects[1].json.get(), r#"{"apiVersion":"v1","kind":"Pod"}"#);
    }

    #[test]
    fn events_are_read() {
        let mut reader = EventReader::default();
        let first = br#"{"type":"ADDED","object":{"kind":"Table","columnDefinitions":[{"name":"N","type":"string"}],
            "rows":[{"cells":[1],"object":{"kind":"Pod"}}]}}"#;
        let Received::Put(object) = reader.read(&Bytes::from_static(first)).unwrap() else {
            panic!()
        };
        let later = br#"{"type":"MODIFIED","object":{"kind":"Table","columnDefinitions":null,
            "rows":[{"cells":[2],"object":{"kind":"Pod"}}]}}"#;
        assert!(matches!(
            reader.read(&Bytes::from_static(later)).unwrap(),
            Received::Put(_)
        ));
        assert_eq!(
            (object.json.get(), reader.columns.as_ref().unwrap().len()),
            (r#"{"kind":"Pod"}"#, 1)
        );
        for (line, revision) in [
            (
                r#"{"type":"BOOKMARK","object":{"kind":"Table","metadata":{"resourceVersion":"9"},"rows":[]}}"#,
                "9",
            ),
            (
                r#"{"type":"BOOKMARK","object":{"kind":"Pod","metadata":{"resourceVersion":"8"}}}"#,
                "8",
            ),
        ] {
            let read = reader.read(&Bytes::from_static(line.as_bytes())).unwrap();
            assert!(matches!(read, Received::Bookmark(at) if at == revision));
        }
        let gone = br#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","code":410}}"#;
        assert!(
            matches!(reader.read(&Bytes::from_static(gone)).unwrap(), Received::Error(status) if status.code == 410)
        );
    }
}
