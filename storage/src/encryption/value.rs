//! How a stored value says what it is.
//!
//! | begins with | is |
//! |---|---|
//! | `umbra:enc:aesgcm-hkdf:v1:NAME:` | encrypted with the key `NAME` (see [`super::key`]) |
//! | `umbra:enc:identity:v1:` | plain, and would look like one of these without this |
//! | `umbra:enc:` and anything else | unknown: of a newer program, or damaged |
//! | anything else | plain |
//!
//! So every byte string has exactly one meaning, and every plain value a form to be stored in.

/// What every value begins with that is not simply itself.
pub(super) const MAGIC: &[u8] = b"umbra:enc:";
/// Before the name of the key, which a colon ends.
pub(super) const SEALED: &[u8] = b"umbra:enc:aesgcm-hkdf:v1:";
/// Before a plain value that begins with [`MAGIC`] itself.
pub(super) const ESCAPED: &[u8] = b"umbra:enc:identity:v1:";

/// The longest name of a key, as of a DNS label: it is part of every value.
pub(super) const LONGEST_NAME: usize = 63;

/// What a stored value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored<'v> {
    /// The plain value itself.
    Plain,
    /// The plain value comes after so many bytes.
    Escaped(usize),
    /// Encrypted.
    Sealed {
        /// The name of the key.
        key: &'v str,
        /// What follows the name.
        sealed: &'v [u8],
    },
    /// Nothing that this program writes.
    Unknown,
}

/// Tells what a stored value is.
pub(super) fn parse(value: &[u8]) -> Stored<'_> {
    if !value.starts_with(MAGIC) {
        return Stored::Plain;
    }
    if value.starts_with(ESCAPED) {
        return Stored::Escaped(ESCAPED.len());
    }
    let Some(rest) = value.strip_prefix(SEALED) else {
        return Stored::Unknown;
    };
    let end = rest.iter().take(LONGEST_NAME + 1).position(|byte| *byte == b':');
    let name = end.and_then(|end| std::str::from_utf8(&rest[..end]).ok());
    match (name, end) {
        (Some(key), Some(end)) if is_name(key) => Stored::Sealed {
            key,
            sealed: &rest[end + 1..],
        },
        _ => Stored::Unknown,
    }
}

/// Whether a key may have this name: no colon, which ends it in a value, and no slash, because there is a record under it.
pub(super) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_means_one_thing() {
        assert_eq!(parse(b""), Stored::Plain);
        assert_eq!(parse(b"{\"kind\":\"Secret\"}"), Stored::Plain);
        assert_eq!(parse(b"umbra:enc"), Stored::Plain);
        assert_eq!(parse(b"umbra:enc:identity:v1:x"), Stored::Escaped(22));
        for unknown in [
            &b"umbra:enc:"[..],
            b"umbra:enc:aesgcm-hkdf:v2:k:x",
            b"umbra:enc:aesgcm-hkdf:v1:k",
            b"umbra:enc:aesgcm-hkdf:v1::x",
            b"umbra:enc:aesgcm-hkdf:v1:a/b:x",
        ] {
            assert_eq!(parse(unknown), Stored::Unknown, "{}", unknown.escape_ascii());
        }
        let sealed = Stored::Sealed {
            key: "k.1",
            sealed: b":x",
        };
        assert_eq!(parse(b"umbra:enc:aesgcm-hkdf:v1:k.1::x"), sealed);
    }
}
