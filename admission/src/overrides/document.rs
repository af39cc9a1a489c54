//! Documents inside strings, such as a file in a ConfigMap.
//!
//! A document is parsed, patched and written again: values survive, layout and comments do not. Where a patch changes
//! no value, the string stays as it is, byte for byte. YAML is read as Go's `sigs.k8s.io/yaml` reads it where the two
//! versions of YAML differ (`yes` is true, `0644` is octal), since that is what reads it in the end, and written so that
//! both versions read the same.

use serde_json::Value;
use umbra_api::overrides::Format;
use umbra_apimachinery::number;

/// How a document is written, for messages.
pub(super) fn name(format: Format) -> &'static str {
    match format {
        Format::YAML => "YAML",
        Format::JSON => "JSON",
    }
}

/// Parses a document; the error is what the parser says.
pub(super) fn parse(text: &str, format: Format) -> Result<Value, String> {
    match format {
        Format::JSON => serde_json::from_str(text).map_err(|error| error.to_string()),
        Format::YAML => {
            let options = serde_saphyr::options! {
                legacy_octal_numbers: true,
                with_snippet: false,
            };
            let mut value: Value =
                serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?;
            // `1.0` is the float 1, and written as `1` it is read as the same number by what reads numbers.
            number::normalise(&mut value);
            Ok(value)
        }
    }
}

/// Writes a document again, in the style of the text that it was: JSON on one line or on many, a newline at the end or
/// not.
pub(super) fn write(value: &Value, format: Format, before: &str) -> Result<String, String> {
    let mut text = match format {
        // Newlines at the end of YAML may belong to a value.
        Format::YAML => return serde_saphyr::to_string(value).map_err(|error| error.to_string()),
        Format::JSON if before.trim_end().contains('\n') => format!("{value:#}"),
        Format::JSON => value.to_string(),
    };
    if before.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn json_keeps_its_shape() {
        for (before, expected) in [
            ("{\"a\": 1}", "{\"a\":1,\"b\":[2]}"),
            ("{\n  \"a\": 1\n}\n", "{\n  \"a\": 1,\n  \"b\": [\n    2\n  ]\n}\n"),
        ] {
            let mut value = parse(before, Format::JSON).unwrap();
            value["b"] = json!([2]);
            assert_eq!(write(&value, Format::JSON, before).unwrap(), expected);
        }
    }

    #[test]
    fn yaml_is_read_as_go_reads_it_and_written_for_all() {
        let value = parse(
            "mode: 0644\non: yes\nversion: \"1.0\"\nratio: 1.0\ntext: |\n  a\n  b\n",
            Format::YAML,
        )
        .unwrap();
        assert_eq!(
            value,
            json!({"mode": 420, "on": true, "version": "1.0", "ratio": 1, "text": "a\nb\n"})
        );
        let text = write(
            &json!({"off": "no", "time": "12:30", "list": [{"a": 1}]}),
            Format::YAML,
            "",
        )
        .unwrap();
        assert_eq!(text, "list:\n- a: 1\n\"off\": \"no\"\ntime: \"12:30\"\n");
        assert!(parse("a: [", Format::YAML).is_err());
        assert!(parse("a: 1\n---\nb: 2\n", Format::YAML).is_err());
    }

    fn document() -> impl Strategy<Value = Value> {
        let text = "\\PC{0,8}|[ -~\\n]{0,100}|yes|no|0x1f|1e3|0644|~|null|12:30:00|2001-01-01|\\.inf|-|'";
        let scalar = prop_oneof![
            text.prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
            (-1000i32..1000).prop_map(|n| json!(f64::from(n) / 8.0)),
        ];
        scalar.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-z]{1,3}|yes|1", inner, 0..4).prop_map(|fields| json!(fields)),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(mut value in document()) {
            number::normalise(&mut value);
            for format in [Format::YAML, Format::JSON] {
                let text = write(&value, format, "{}").unwrap();
                let mut read = parse(&text, format).map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
                number::normalise(&mut read);
                prop_assert_eq!(&read, &value, "{}", text);
            }
        }
    }
}
