//! What label keys and values may look like (`k8s.io/apimachinery/pkg/api/validate/content`).

use crate::names::{LONGEST_LABEL, LONGEST_SUBDOMAIN, is_dns1123_subdomain};

const KEY_RULE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                        alphanumeric character";
const KEY_PATTERN: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
// The double spaces are those of Kubernetes (`content.RegexError`).
const KEY_EXAMPLES: &str = "e.g. 'MyName',  or 'my.name',  or '123-abc', ";
const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' \
                              or '.', and must start and end with an alphanumeric character";
const SUBDOMAIN_PATTERN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";

/// What is wrong with `key` as the key of a label or annotation; empty where nothing is.
#[must_use]
pub fn label_key_errors(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let name = match key.split_once('/') {
        None => key,
        Some((_, name)) if name.contains('/') => {
            return vec![format!(
                "a valid label key {KEY_RULE} ({KEY_EXAMPLES}regex used for validation is '{KEY_PATTERN}') with an \
                 optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
        Some(("", name)) => {
            errors.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            if prefix.len() > LONGEST_SUBDOMAIN {
                errors.push(format!("prefix part must be no more than {LONGEST_SUBDOMAIN} bytes"));
            }
            let shortened = prefix.get(..LONGEST_SUBDOMAIN).unwrap_or(prefix);
            if !is_dns1123_subdomain(shortened) {
                errors.push(format!(
                    "prefix part {SUBDOMAIN_RULE} (e.g. 'example.com', regex used for validation is \
                     '{SUBDOMAIN_PATTERN}')"
                ));
            }
            name
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > LONGEST_LABEL {
        errors.push(format!("name part must be no more than {LONGEST_LABEL} bytes"));
    }
    if !is_name(name) {
        errors.push(format!(
            "name part {KEY_RULE} ({KEY_EXAMPLES}regex used for validation is '{KEY_PATTERN}')"
        ));
    }
    errors
}

/// What is wrong with `value` as the value of a label; empty where nothing is.
#[must_use]
pub fn label_value_errors(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > LONGEST_LABEL {
        errors.push(format!("must be no more than {LONGEST_LABEL} bytes"));
    }
    if !value.is_empty() && !is_name(value) {
        errors.push(format!(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
             validation is '({KEY_PATTERN})?')"
        ));
    }
    errors
}

/// Whether `text` matches [`KEY_PATTERN`].
fn is_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for good in ["a", "A-b_c.9", "example.com/Name", "1/2", &"x".repeat(63)] {
            assert!(label_key_errors(good).is_empty(), "{good}");
        }
        for bad in [
            "",
            "a/",
            "/a",
            "-a",
            "a-",
            "a b",
            "Example.com/a",
            "a/b/c",
            "ä",
            &"x".repeat(64),
        ] {
            assert!(!label_key_errors(bad).is_empty(), "{bad}");
        }
        let text = label_key_errors("a^").join("; ");
        assert_eq!(
            text,
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        );
        let long = format!("{}/a", "x".repeat(254));
        assert_eq!(label_key_errors(&long), ["prefix part must be no more than 253 bytes"]);
    }

    #[test]
    fn values() {
        for good in ["", "a", "a_b-c.D", &"x".repeat(63)] {
            assert!(label_value_errors(good).is_empty(), "{good}");
        }
        for bad in ["-", "a/b", " ", &"x".repeat(64)] {
            assert!(!label_value_errors(bad).is_empty(), "{bad}");
        }
    }
}
