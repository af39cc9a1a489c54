//! Numbers as the Go implementation of Kubernetes reads and prints them.
//!
//! Go's apimachinery decodes an integer literal that fits 64 signed bits as `int64` and every other number as
//! `float64` (`sigs.k8s.io/json`), and prints with `encoding/json`: the shortest decimal digits, an exponent only below
//! 1e-6 and from 1e21 on. `serde_json` differs (`1.0` stays `1.0`, 1e20 prints as `1e+20`, 2^63 stays exact), which
//! matters wherever a value is parsed, changed and written again: no-op updates are detected, `kubectl diff` compares
//! and field sets hold values after such a round trip. What is only forwarded keeps its bytes and needs none of this.
//!
//! Deviation: `-0` and `-0.0` are one value to `serde_json`; both become `0`, where Go prints `-0` for the second.

use std::io;

use serde_json::ser::{CharEscape, Formatter};
use serde_json::{Number, Value};

/// From here on Go prints floats with an exponent.
const EXPONENT_FROM: f64 = 1e21;
/// Below this Go prints floats other than zero with an exponent.
const EXPONENT_BELOW: f64 = 1e-6;

/// Replaces every number in `value` by what Go holds after printing and reading it once: `1.0` becomes `1`, an integer
/// beyond 64 signed bits becomes the nearest float. Running it twice changes nothing more.
pub fn normalise(value: &mut Value) {
    match value {
        Value::Number(number) => *number = normalised(number),
        Value::Array(elements) => elements.iter_mut().for_each(normalise),
        Value::Object(fields) => fields.values_mut().for_each(normalise),
        Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// One number as Go holds it after printing and reading it once.
#[must_use]
pub fn normalised(number: &Number) -> Number {
    if number.is_i64() {
        return number.clone();
    }
    let Some(float) = number.as_f64() else {
        return number.clone();
    };
    match format_float(float).parse::<i64>() {
        Ok(integer) => Number::from(integer),
        Err(_) => Number::from_f64(float).unwrap_or_else(|| number.clone()),
    }
}

/// A finite float as Go's `encoding/json` prints it.
#[must_use]
pub fn format_float(float: f64) -> String {
    let magnitude = float.abs();
    if magnitude != 0.0 && !(EXPONENT_BELOW..EXPONENT_FROM).contains(&magnitude) {
        let text = format!("{float:e}");
        return match text.split_once('e') {
            Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
            _ => text,
        };
    }
    format!("{float}")
}

/// Serializes as Go's apimachinery does, but for the newline that its encoder adds to a whole body: keys sorted, no white
/// space, numbers as above, and `<`, `>`, `&`, U+2028 and U+2029 escaped.
#[must_use]
pub fn to_vec_like_go(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, GoFormatter);
    serde::Serialize::serialize(value, &mut serializer)
        .expect("writing to memory does not fail, and the keys of a Value are strings");
    bytes
}

/// The differences between `encoding/json` and the compact format of `serde_json`.
struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(format_float(value).as_bytes())
    }

    fn write_u64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: u64) -> io::Result<()> {
        match i64::try_from(value) {
            Ok(small) => write!(writer, "{small}"),
            // Go had no integer to hold it, so it was read as a float.
            #[expect(clippy::cast_precision_loss, reason = "losing precision is what is asked for")]
            Err(_) => self.write_f64(writer, value as f64),
        }
    }

    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut written = 0;
        for (at, found) in fragment.match_indices(['<', '>', '&', '\u{2028}', '\u{2029}']) {
            writer.write_all(&fragment.as_bytes()[written..at])?;
            let code = found.chars().next().map_or(0, u32::from);
            write!(writer, "\\u{code:04x}")?;
            written = at + found.len();
        }
        writer.write_all(&fragment.as_bytes()[written..])
    }

    fn write_char_escape<W: ?Sized + io::Write>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()> {
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn printed(text: &str) -> String {
        let value: Value = serde_json::from_str(text).unwrap();
        String::from_utf8(to_vec_like_go(&value)).unwrap()
    }

    #[test]
    fn prints_as_go_does() {
        for (input, expected) in [
            ("1.0", "1"),
            ("1e0", "1"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("1.5e300", "1.5e+300"),
            ("0.000001", "0.000001"),
            ("0.0000001", "1e-7"),
            ("1.25e-10", "1.25e-10"),
            ("0.1", "0.1"),
            ("9223372036854775807", "9223372036854775807"),
            ("-9223372036854775808", "-9223372036854775808"),
            ("9223372036854775808", "9223372036854776000"),
            ("18446744073709551616", "18446744073709552000"),
            (r#""a<b>&\u2028\n\"""#, r#""a\u003cb\u003e\u0026\u2028\n\"""#),
            (r#"{"b":[1.0,2.50],"a":null}"#, r#"{"a":null,"b":[1,2.5]}"#),
        ] {
            assert_eq!(printed(input), expected, "input {input}");
        }
    }

    #[test]
    fn normalises_to_what_go_holds() {
        let mut value: Value =
            serde_json::from_str(r#"{"a":[1.0,-0.0,1e20,1.5],"b":18446744073709551615,"c":-0}"#).unwrap();
        normalise(&mut value);
        assert_eq!(value["a"][0], json!(1));
        assert_eq!(value["a"][1], json!(0));
        assert_eq!(value["a"][2], json!(1e20));
        assert_eq!(value["a"][3], json!(1.5));
        assert!(value["b"].is_f64());
        assert_eq!(value["c"], json!(0));
    }

    proptest! {
        #[test]
        fn integers_of_64_bits_never_change(integer: i64) {
            prop_assert_eq!(normalised(&Number::from(integer)), Number::from(integer));
        }

        #[test]
        fn normalising_twice_is_normalising_once(float in proptest::num::f64::NORMAL | proptest::num::f64::ZERO) {
            let number = Number::from_f64(float).unwrap();
            let once = normalised(&number);
            prop_assert_eq!(normalised(&once), once);
        }

        #[test]
        fn printed_floats_read_back_as_themselves(float in proptest::num::f64::NORMAL) {
            prop_assert_eq!(format_float(float).parse::<f64>().unwrap(), float);
        }
    }
}
