//! Bounds, patterns and formats of strings and numbers.

use serde_json::Value;
use umbra_apimachinery::schema::Schema;

use super::{FieldErrorReason, Validation};
use crate::path::Path;

impl Validation {
    pub(super) fn string(&mut self, text: &str, value: &Value, schema: &Schema, path: &Path<'_>) {
        if schema.format.as_deref() == Some("date-time") && text.parse::<jiff::Timestamp>().is_err() {
            self.invalid(path, value, &format!("must be of type date-time: {text:?}"));
        }
        let Some(limits) = schema.limits.as_deref() else {
            return;
        };
        let length = text.chars().count() as u64;
        if let Some(most) = limits.max_length.filter(|most| length > *most) {
            let bytes = if most == 1 { "byte" } else { "bytes" };
            let detail = format!("may not be more than {most} {bytes}");
            self.add(path, FieldErrorReason::TooLong, None, &detail);
        }
        if let Some(least) = limits.min_length.filter(|least| length < *least) {
            self.invalid(path, value, &format!("should be at least {least} chars long"));
        }
        if let Some(pattern) = &limits.pattern
            && !matches(pattern, text)
        {
            self.invalid(path, value, &format!("should match '{pattern}'"));
        }
    }

    pub(super) fn number(&mut self, value: &Value, schema: &Schema, path: &Path<'_>) {
        if schema.format.as_deref() == Some("int32") && !fits_int32(value) {
            self.wrong_type(path, "int32", "int64");
            return;
        }
        let (Some(limits), Some(number)) = (schema.limits.as_deref(), value.as_f64()) else {
            return;
        };
        if let Some((most, exclusive)) = limits.maximum {
            if exclusive && number >= most {
                self.invalid(path, value, &format!("should be less than {most}"));
            } else if number > most {
                self.invalid(path, value, &format!("should be less than or equal to {most}"));
            }
        }
        if let Some((least, exclusive)) = limits.minimum {
            if exclusive && number <= least {
                self.invalid(path, value, &format!("should be greater than {least}"));
            } else if number < least {
                self.invalid(path, value, &format!("should be greater than or equal to {least}"));
            }
        }
        if let Some(factor) = limits.multiple_of
            && !is_multiple(number, factor)
        {
            self.invalid(path, value, &format!("should be a multiple of {factor}"));
        }
    }
}

fn fits_int32(value: &Value) -> bool {
    value
        .as_f64()
        .is_some_and(|number| (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number))
}

/// Whether `number / factor` is whole, up to the precision of the division.
fn is_multiple(number: f64, factor: f64) -> bool {
    let quotient = number / factor;
    (quotient - quotient.round()).abs() <= quotient.abs() * f64::EPSILON
}

/// Whether the pattern is found anywhere in the text. A pattern that is no regular expression for this engine accepts
/// everything, as one that Go does not compile never reaches a server: the owner of the kind has the last word.
fn matches(pattern: &str, text: &str) -> bool {
    regex_lite::Regex::new(pattern).map_or(true, |regex| regex.is_match(text))
}
