//! `meta.k8s.io/v1` Table: what `kubectl get` prints.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::metadata::null_is_empty;

/// One column of a Table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnDefinition {
    /// The heading, in upper and lower case.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    #[serde(rename = "type")]
    pub column_type: String,
    /// `name` marks the column that identifies the object.
    #[serde(default)]
    pub format: String,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// 0 is always shown; higher ones with `-o wide`.
    #[serde(default)]
    pub priority: i32,
}

impl ColumnDefinition {
    /// A column of type string and priority 0.
    #[must_use]
    pub fn string(name: &str, description: &str) -> Self {
        Self {
            name: name.to_owned(),
            column_type: "string".to_owned(),
            format: String::new(),
            description: description.to_owned(),
            priority: 0,
        }
    }

    /// The `Name` column, which identifies the object.
    #[must_use]
    pub fn name() -> Self {
        Self {
            format: "name".to_owned(),
            ..Self::string("Name", "The name, unique within a namespace.")
        }
    }

    /// The `Age` column.
    #[must_use]
    pub fn age() -> Self {
        Self::string("Age", "How long ago the object was created.")
    }

    /// The same column with that type.
    #[must_use]
    pub fn of_type(mut self, column_type: &str) -> Self {
        self.column_type = column_type.to_owned();
        self
    }

    /// The same column with that priority: higher than 0 is shown with `-o wide` alone.
    #[must_use]
    pub fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

/// A Table as a child sends it: rows keep their objects as they are.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReceivedTable {
    /// List metadata of the Table.
    #[serde(default)]
    pub metadata: ListMetadata,
    /// The columns; empty, or `null`, in watch events after the first.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub column_definitions: Vec<ColumnDefinition>,
    /// The rows.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub rows: Vec<ReceivedRow>,
}

/// A row of a [`ReceivedTable`].
#[derive(Debug, Clone, Deserialize)]
pub struct ReceivedRow {
    /// One value a column.
    pub cells: Vec<Value>,
    /// The object, as `includeObject` asked for it.
    pub object: Option<Box<RawValue>>,
}

/// `metav1.ListMeta`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListMetadata {
    /// The revision of the list.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Where the next page starts; empty on the last.
    #[serde(default, rename = "continue", skip_serializing_if = "String::is_empty")]
    pub continue_token: String,
    /// How many objects follow this page, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<i64>,
}
