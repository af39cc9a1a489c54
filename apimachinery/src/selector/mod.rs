//! Which objects a request or a configuration means: by labels and by fields.
//!
//! Selectors match against a lookup function instead of a map, because cached objects keep their labels compact and do
//! not build maps to be matched. Error texts are those of `k8s.io/apimachinery`, which users have seen before and tests
//! of clients compare.

pub mod fields;
pub mod label_selector;
pub mod label_syntax;
pub mod labels;

mod label_parser;

pub use fields::{FieldSelector, FieldSelectorError};
pub use label_selector::{LabelSelector, LabelSelectorRequirement};
pub use labels::{LabelSelectorError, Operator, Requirement, Selector};

/// A string as Go's `%q` prints it, for error texts.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(control))),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
