//! Names: which ones Kubernetes allows, and the qualified names of a view.

use std::fmt;

/// The label every object of a view carries: the name of the cluster it is in.
pub const CLUSTER_LABEL: &str = "umbra.dev/cluster";

/// An object of a cluster as a view names it: `web@member1`.
///
/// `@` cannot occur in a cluster name, so the last `@` splits; names of objects may have one themselves (RBAC allows
/// any path segment).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QualifiedName<'a> {
    /// The name in the child.
    pub name: &'a str,
    /// The cluster's name.
    pub cluster: &'a str,
}

impl<'a> QualifiedName<'a> {
    /// Splits a qualified name; `None` for a bare one.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let (name, cluster) = text.rsplit_once('@')?;
        (!name.is_empty() && is_dns1123_subdomain(cluster)).then_some(Self { name, cluster })
    }
}

impl fmt::Display for QualifiedName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.cluster)
    }
}

/// 63 bytes: the longest DNS label (RFC 1035 §2.3.4).
pub const LONGEST_LABEL: usize = 63;
/// 253 bytes: the longest DNS name in text form (RFC 1035 §2.3.4).
pub const LONGEST_SUBDOMAIN: usize = 253;

/// Whether `text` is a DNS-1123 label: at most 63 of `a-z`, `0-9`, `-`, not starting or ending with `-`.
#[must_use]
pub fn is_dns1123_label(text: &str) -> bool {
    text.len() <= LONGEST_LABEL && is_label(text)
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    bytes.first().is_some_and(|byte| alphanumeric(*byte))
        && bytes.last().is_some_and(|byte| alphanumeric(*byte))
        && bytes.iter().all(|byte| alphanumeric(*byte) || *byte == b'-')
}

/// Whether `text` is a DNS-1123 subdomain: at most 253 bytes of labels joined by dots. As in Kubernetes
/// (`validation.IsDNS1123Subdomain`), single labels may be longer than 63 bytes.
#[must_use]
pub fn is_dns1123_subdomain(text: &str) -> bool {
    text.len() <= LONGEST_SUBDOMAIN && text.split('.').all(is_label)
}

/// Whether `text` may stand as one segment of a path (`path.IsValidPathSegmentName`): what RBAC names have to be.
#[must_use]
pub fn is_path_segment(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && !text.contains(['/', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_at_sign_splits() {
        let parsed = QualifiedName::parse("user@example.com@member1").unwrap();
        assert_eq!((parsed.name, parsed.cluster), ("user@example.com", "member1"));
        assert_eq!(parsed.to_string(), "user@example.com@member1");
        assert_eq!(QualifiedName::parse("web"), None);
        assert_eq!(QualifiedName::parse("web@"), None);
        assert_eq!(QualifiedName::parse("@east"), None);
        assert_eq!(QualifiedName::parse("web@East"), None);
    }

    #[test]
    fn dns_names() {
        assert!(is_dns1123_subdomain("a.b-c.9"));
        for bad in ["", "-a", "a-", "a..b", "A", "a_b", "a@b"] {
            assert!(!is_dns1123_subdomain(bad), "{bad}");
        }
        assert!(is_dns1123_label(&"a".repeat(63)));
        assert!(!is_dns1123_label(&"a".repeat(64)));
        assert!(!is_path_segment("a/b"));
        assert!(is_path_segment("system:node@x"));
    }
}
