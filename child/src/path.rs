//! Paths that cannot mean one thing here and another in the child.
//!
//! kube-apiserver routes and authorizes by the *decoded* path (`net/url.URL.Path`, `request.RequestInfoFactory`), and so
//! `%2F` and `%2e%2e` are separators and dot segments there. What this crate forwards must therefore be unambiguous
//! already: no dot segments in any spelling, no encoded slashes, no empty segments. Below a `proxy` subresource the rest
//! of the path belongs to a program in the child that may well use `%2F` and `//`; there, only dot segments are refused.
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
/// When the path is relative, has a dot segment, an encoded slash outside of a `proxy` subresource, an encoded control
/// character, or a broken percent escape.
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
    if api.contains('%') {
        let decoded: Cow<'_, [u8]> = percent_decode_str(api).into();
        let slashes = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'/').count();
        if slashes(&decoded) != slashes(api.as_bytes()) {
            return refuse("it contains an encoded slash");
        }
        if decoded.iter().any(|byte| *byte < b' ' || *byte == 0x7f) {
            return refuse("it contains an encoded control character");
        }
    }
    let decoded: Cow<'_, [u8]> = percent_decode_str(path).into();
    if decoded
        .split(|byte| *byte == b'/')
        .any(|segment| segment == b"." || segment == b"..")
    {
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

/// Whether the path is one of a `proxy` subresource, so that a program in the child answers.
pub(crate) fn is_proxied(path: &str) -> bool {
    proxied_tail(path) < path.len() || path.ends_with("/proxy")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(path: &str) -> &'static str {
        normalise(path).expect_err(path).reason
    }

    #[test]
    fn what_is_legitimate_stays_as_it_is() {
        for path in [
            "/",
            "/api/v1/namespaces/default/pods/web-1/log",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node",
            "/api/v1/namespaces/a/services/https:web:443/proxy/files/a%2Fb//c",
            "/api/v1/nodes/n1/proxy/logs//x",
            "/api/v1/namespaces/a/configmaps/a...b",
            "/api/v1/namespaces/a/configmaps/%252e%252e",
        ] {
            assert!(
                matches!(normalise(path), Ok(Cow::Borrowed(same)) if same == path),
                "{path}"
            );
        }
    }

    #[test]
    fn escapes_are_refused() {
        for path in [
            "/api/v1/../../metrics",
            "/api/v1/%2e%2e/x",
            "/api/v1/.%2E",
            "/.",
            "/api/v1/namespaces/a/pods/b/proxy/../../c",
            "/api/v1/namespaces/a/pods/b/proxy/x%2f%2e%2e%2fc",
        ] {
            assert_eq!(refused(path), "it contains a dot segment", "{path}");
        }
        assert_eq!(refused("/api%2fv1/secrets"), "it contains an encoded slash");
        assert_eq!(refused("/apis/x/proxy/a%2fb"), "it contains an encoded slash");
        assert_eq!(refused("/api/v1/a%00"), "it contains an encoded control character");
        assert_eq!(refused("/api/v1/a%zz"), "it contains a broken percent escape");
        assert_eq!(refused("/api/v1/a%2"), "it contains a broken percent escape");
        assert_eq!(refused("api"), "it does not start with a slash");
    }

    #[test]
    fn repeated_slashes_collapse() {
        assert_eq!(normalise("//evil.example/api").expect("valid"), "/evil.example/api");
        assert_eq!(normalise("/api///v1//pods").expect("valid"), "/api/v1/pods");
        assert_eq!(
            normalise("/api//v1/nodes/n/proxy//x").expect("valid"),
            "/api/v1/nodes/n/proxy//x"
        );
    }

    proptest! {
        /// Whatever is let through has, once decoded as the child decodes it, no dot segment, and normalising it again
        /// changes nothing.
        #[test]
        fn what_passes_is_unambiguous(path in "/([a-c./%]|%2e|%2F|proxy|//){0,12}") {
            if let Ok(passed) = normalise(&path) {
                let decoded = percent_decode_str(&passed).decode_utf8_lossy().into_owned();
                prop_assert!(decoded.split('/').all(|segment| segment != "." && segment != ".."));
                prop_assert!(!passed.starts_with("//"));
                let again = normalise(&passed).expect("what passed once passes again");
                prop_assert_eq!(again.as_ref(), passed.as_ref());
            }
        }
    }
}
