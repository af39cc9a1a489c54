//! What `fieldValidation` complains about: fields that nobody knows, and fields that are written twice.
//!
//! Unknown fields are found in the decoded object, duplicates only in its text: a decoder keeps the last.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use umbra_apimachinery::schema::TypeSchema;

use crate::path::Path;
use crate::prune::unknown_fields;

/// The `fieldValidation` parameter of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// Say nothing.
    Ignore,
    /// Warn of every complaint, one `Warning` header each.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// Reads the parameter; `None` where it is none of the three. Absent is [`Self::Warn`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Ignore" => Some(Self::Ignore),
            "" | "Warn" => Some(Self::Warn),
            "Strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// All complaints about an object as a client sent it, worded as Kubernetes does: `unknown field "spec.foo"`,
/// `duplicate field "spec.bar"`. `json` is the text of `object`.
#[must_use]
pub fn complaints(json: &[u8], object: &Value, schema: &TypeSchema) -> Vec<String> {
    let duplicates = duplicate_fields(json).into_iter();
    let unknown = unknown_fields(object, schema).into_iter();
    duplicates
        .map(|path| format!("duplicate field \"{path}\""))
        .chain(unknown.map(|path| format!("unknown field \"{path}\"")))
        .collect()
}

/// The message of the 400 by which [`FieldValidation::Strict`] refuses.
#[must_use]
pub fn strict_error(complaints: &[String]) -> String {
    format!("strict decoding error: {}", complaints.join(", "))
}

/// The paths of fields that occur more than once, in the order of the text, each once. Text that is no JSON has none.
#[must_use]
pub fn duplicate_fields(json: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let walk = Walk {
        path: &Path::ROOT,
        found: &mut found,
    };
    // The object was decoded before; that it is JSON has been settled.
    match walk.deserialize(&mut deserializer) {
        Ok(()) => found,
        Err(_) => Vec::new(),
    }
}

struct Walk<'a> {
    path: &'a Path<'a>,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = self.path.field(&name);
            map.next_value_seed(Walk {
                path: &path,
                found: self.found,
            })?;
            if seen.contains(&name) {
                let path = path.to_string();
                if !self.found.contains(&path) {
                    self.found.push(path);
                }
            } else {
                seen.insert(name);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        loop {
            let path = self.path.index(index);
            let walk = Walk {
                path: &path,
                found: self.found,
            };
            if seq.next_element_seed(walk)?.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use umbra_apimachinery::gvk::GroupVersionKind;

    use super::*;
    use crate::builtin;

    #[test]
    fn duplicates_are_named_once() {
        let json = br#"{"a": 1, "b": {"c": 1, "c": 2, "c": null}, "l": [{"x": "1"}, {"x": true, "x": 1.5}], "a": 2}"#;
        assert_eq!(duplicate_fields(json), ["b.c", "l[1].x", "a"]);
        assert!(duplicate_fields(b"{\"a\": 1").is_empty());
        assert!(duplicate_fields(br#"{"a": {"x": 1}, "b": {"x": 1}}"#).is_empty());
    }

    #[test]
    fn complaints_as_kubernetes_words_them() {
        let json = br#"{"metadata": {"name": "a"}, "spec": {"replicas": 1, "replicas": 2, "foo": 1}}"#;
        let object: Value = serde_json::from_slice(json).unwrap();
        let schema = builtin::type_schema(&GroupVersionKind::new("apps", "v1", "Deployment")).unwrap();
        let complaints = complaints(json, &object, &schema);
        assert_eq!(
            strict_error(&complaints),
            r#"strict decoding error: duplicate field "spec.replicas", unknown field "spec.foo""#
        );
        assert_eq!(FieldValidation::parse("Strict"), Some(FieldValidation::Strict));
        assert_eq!(FieldValidation::parse(""), Some(FieldValidation::Warn));
        assert_eq!(FieldValidation::parse("strict"), None);
    }
}
