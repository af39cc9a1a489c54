//! Paths that cannot mean one thing here and another in the child.
//!
//! kube-apiserver routes and authorizes by the *decoded* path (`net/url.URL.Path`, `request.RequestInfoFactory`), and so
//! `%2F` and `%2e%2e` are separators and dot segments there. What this crate forwards must therefore be unambiguous
//! already: no dot segments in any spelling, no encoded slashes, no empty segments, nothing that is not UTF-8. Below a
//! `proxy` subresource the rest of the path belongs to a program in the child that may well use `%2F` and `//`; there, only
//! dot segments and control characters are refused. What programs are known to take for a dot segment counts as one:
//! between backslashes, with `;parameters` behind it, in overlong UTF-8.
//!
//! What is legitimate is forwarded byte for byte: nothing is decoded and encoded again.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A path that is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?} is not allowed: {reason}")]
pub struct InvalidPath {
    /// The path.
    pub path: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// The path as it may be sent to a child: `path` itself, or with repeated slashes collapsed.
///
/// # Errors
///
/// When the path is relative, has a dot segment, an encoded control character or a broken percent escape, and outside of a
/// `proxy` subresource an encoded slash or what is not UTF-8.
pub fn normalise(path: &str) -> Result<Cow<'_, str>, InvalidPath> {
    let refuse = |reason| {
        Err(InvalidPath {
            path: path.to_owned(),
            reason,
        })
    };
    if !path.starts_with('/') {
        return refuse("it does not start with a slash");
    }
    if path.contains(['?', '#']) || path.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return refuse("it contains characters that do not belong into a path");
    }
    if !escapes_are_valid(path) {
        return refuse("it contains a broken percent escape");
    }
    let (api, rest) = path.split_at(proxied_tail(path));
    let decoded: Cow<'_, [u8]> = percent_decode_str(api).into();
    let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
    if slashes(&decoded) != slashes(api.as_bytes()) {
        return refuse("it contains an encoded slash");
    }
    if std::str::from_utf8(&decoded).is_err() {
        return refuse("it is not UTF-8");
    }
    let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
    if decoded.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
        return refuse("it contains an encoded control character");
    }
    if has_dot_segment(&decoded) {
        return refuse("it contains a dot segment");
    }
    if !api.contains("//") {
        return Ok(Cow::Borrowed(path));
    }
    let mut collapsed = String::with_capacity(path.len());
    for character in api.chars() {
        if character != '/' || !collapsed.ends_with('/') {
            collapsed.push(character);
        }
    }
    collapsed.push_str(rest);
    Ok(Cow::Owned(collapsed))
}

/// `.`, `/` and `\\` in more bytes than they need: not UTF-8 (RFC 3629 §3), but read as such by careless decoders.
const OVERLONG: [(&[u8], u8); 6] = [
    (&[0xc0, 0xae], b'.'),
    (&[0xc0, 0xaf], b'/'),
    (&[0xc1, 0x9c], b'\\'),
    (&[0xe0, 0x80, 0xae], b'.'),
    (&[0xe0, 0x80, 0xaf], b'/'),
    (&[0xe0, 0x81, 0x9c], b'\\'),
];

/// Whether anybody could read one of the segments of a decoded path as `.` or `..`.
fn has_dot_segment(decoded: &[u8]) -> bool {
    let plain = plain(decoded);
    plain.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        name == b"." || name == b".."
    })
}

/// The path without overlong forms.
fn plain(decoded: &[u8]) -> Cow<'_, [u8]> {
    if !decoded.iter().any(|byte| matches!(byte, 0xc0 | 0xc1 | 0xe0)) {
        return Cow::Borrowed(decoded);
    }
    let mut plain = Vec::with_capacity(decoded.len());
    let mut rest = decoded;
    while let Some((first, others)) = rest.split_first() {
        match OVERLONG.iter().find(|(long, _)| rest.starts_with(long)) {
            Some((long, short)) => {
                plain.push(*short);
                rest = &rest[long.len()..];
            }
            None => {
                plain.push(*first);
                rest = others;
            }
        }
    }
    Cow::Owned(plain)
}

/// Whether every `%` is followed by two hexadecimal digits.
fn escapes_are_valid(path: &str) -> bool {
    let bytes = path.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| {
        *byte != b'%' || matches!(bytes.get(at + 1..at + 3), Some(digits) if digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// Where, in an API path, the path of a proxied program begins: after `proxy` in `…/{pods,services}/{name}/proxy/` of
/// a namespace, or in `/api/v1/nodes/{name}/proxy/`. The length of the path when there is none.
fn proxied_tail(path: &str) -> usize {
    let mut offset = 0;
    let mut before: Vec<&str> = Vec::with_capacity(8);
    for segment in path.split_inclusive('/') {
        let name = segment.trim_end_matches('/');
        let proxied = name == "proxy"
            && match before.as_slice() {
                ["api", "v1", "nodes", _] => true,
                ["api", "v1", "namespaces", _, resource, _] => matches!(*resource, "pods" | "services"),
                _ => false,
            };
        if proxied {
            return offset + name.len();
        }
        offset += segment.len();
        if !name.is_empty() {
            before.push(name);
        }
    }
    path.len()
}

#[cfg(test)]
mod tests;
