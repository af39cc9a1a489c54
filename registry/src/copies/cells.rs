//! What a child printed of an object, as the JSON that it is stored as.
//!
//! Who loads copies does not look into cells, and who keeps them keeps them as text: see [`Row`](crate::resource::Row).

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

/// One value for each column; none where the child printed nothing.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(transparent)]
pub struct Cells(Option<Box<RawValue>>);

impl Cells {
    /// Cells of these values.
    #[must_use]
    pub fn new(values: &[Value]) -> Self {
        let json = (!values.is_empty()).then(|| to_raw_value(values).expect("values are JSON"));
        Self(json)
    }

    /// Whether the child printed nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// A JSON array, or nothing.
    #[must_use]
    pub fn json(&self) -> &str {
        self.0.as_deref().map_or("", RawValue::get)
    }
}

impl PartialEq for Cells {
    fn eq(&self, other: &Self) -> bool {
        self.json() == other.json()
    }
}

impl Eq for Cells {}

impl<'de> Deserialize<'de> for Cells {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        if !json.get().starts_with('[') {
            return Err(D::Error::custom("cells are a list"));
        }
        Ok(Self(Some(json)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_stored_as_a_list_of_values() {
        let cells = Cells::new(&[json!("web"), json!(3), Value::Null]);
        assert_eq!(cells.json(), r#"["web",3,null]"#);
        let stored = serde_json::to_string(&cells).unwrap();
        assert_eq!(stored, cells.json());
        assert_eq!(serde_json::from_str::<Cells>(&stored).unwrap(), cells);
        assert!(serde_json::from_str::<Cells>("{}").is_err() && serde_json::from_str::<Cells>("[1,").is_err());
        assert!(Cells::new(&[]).is_empty() && Cells::default().json().is_empty());
    }
}
