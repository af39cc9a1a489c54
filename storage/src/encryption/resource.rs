//! Which resource is stored under a key.
//!
//! Every root stores its objects under `/umbra/{root}/{group}/{resource}/…`, with `core` for the core group (design,
//! section 9). The root is one segment, `hub` or `copies`, except for fleets and simulated clusters, whose names are a
//! second one. A Secret is a Secret in all of them.

use std::fmt;

/// Where everything is.
pub(super) const ROOT: &str = "/umbra/";

/// Roots with a second segment.
const NAMED_ROOTS: [&str; 2] = ["fleets", "simulated"];
/// The segment that stands for the core group, which has no name.
const CORE: &str = "core";

/// A resource and its group; the core group has no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredResource<'k> {
    /// The group.
    pub group: &'k str,
    /// The resource.
    pub resource: &'k str,
}

impl<'k> StoredResource<'k> {
    /// The resource of the object that is stored under `key`; `None` where no object is.
    #[must_use]
    pub fn of_key(key: &'k str) -> Option<Self> {
        let (root, mut rest) = key.strip_prefix(ROOT)?.split_once('/')?;
        if NAMED_ROOTS.contains(&root) {
            (_, rest) = rest.split_once('/')?;
        }
        let (group, rest) = rest.split_once('/')?;
        let (resource, name) = rest.split_once('/')?;
        let group = if group == CORE { "" } else { group };
        (!resource.is_empty() && !name.is_empty()).then_some(Self { group, resource })
    }
}

impl fmt::Display for StoredResource<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.resource)?;
        if !self.group.is_empty() {
            write!(formatter, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// Which resources, as an encryption configuration writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    /// `*.*`: all of them.
    All,
    /// `*.apps`, or `*.` for the core group: all of a group.
    Group(String),
    /// `secrets`, `deployments.apps`.
    Resource {
        /// The group.
        group: String,
        /// The resource.
        resource: String,
    },
    /// All keys, whether objects are under them or not.
    #[cfg(test)]
    Everything,
}

impl Pattern {
    /// Reads what follows `resources:`.
    ///
    /// # Errors
    /// What is wrong with it (`validateResourceNames` of `k8s.io/apiserver/pkg/apis/apiserver/validation`).
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
        match text {
            "" => return Err("a resource has a name".to_owned()),
            "*" => return Err("`*` is ambiguous: `*.` means the core group, `*.*` everything".to_owned()),
            "*.*" => return Ok(Self::All),
            _ => {}
        }
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        let is_wildcard = resource == "*";
        if !(is_wildcard || resource.bytes().all(allowed)) || !group.bytes().all(allowed) || resource.is_empty() {
            return Err(format!(
                "{text:?} is no resource: `secrets`, `deployments.apps`, `*.apps`, `*.` and `*.*` are, in small letters"
            ));
        }
        if group.is_empty() && !is_wildcard && text.ends_with('.') {
            return Err(format!(
                "{text:?} ends with a dot; resources of the core group are written without"
            ));
        }
        Ok(if is_wildcard {
            Self::Group(group.to_owned())
        } else {
            Self::Resource {
                group: group.to_owned(),
                resource: resource.to_owned(),
            }
        })
    }

    /// Whether it means the resource that is stored under a key.
    pub(super) fn matches(&self, stored: Option<StoredResource<'_>>) -> bool {
        match (self, stored) {
            #[cfg(test)]
            (Self::Everything, _) => true,
            (_, None) => false,
            (Self::All, Some(_)) => true,
            (Self::Group(group), Some(stored)) => group == stored.group,
            (Self::Resource { group, resource }, Some(stored)) => group == stored.group && resource == stored.resource,
        }
    }

    /// Whether some resource is meant by both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            #[cfg(test)]
            (Self::Everything, _) | (_, Self::Everything) => true,
            (Self::All, _) | (_, Self::All) => true,
            (Self::Group(one), Self::Group(other) | Self::Resource { group: other, .. })
            | (Self::Resource { group: one, .. }, Self::Group(other)) => one == other,
            (Self::Resource { .. }, Self::Resource { .. }) => self == other,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => formatter.write_str("*.*"),
            Self::Group(group) => write!(formatter, "*.{group}"),
            Self::Resource { group, resource } => StoredResource { group, resource }.fmt(formatter),
            #[cfg(test)]
            Self::Everything => formatter.write_str("everything"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_their_resource() {
        let of = |key| StoredResource::of_key(key).map(|resource| resource.to_string());
        for key in [
            "/umbra/hub/core/secrets/default/db",
            "/umbra/fleets/all/core/secrets/default/db",
            "/umbra/copies/core/secrets/east/default/db",
            "/umbra/simulated/east/core/secrets/default/db",
        ] {
            assert_eq!(of(key).as_deref(), Some("secrets"), "{key}");
        }
        let rendering = of("/umbra/fleets/all/umbra.dev/renderings/default/web.east");
        assert_eq!(rendering.as_deref(), Some("renderings.umbra.dev"));
        for key in [
            "/umbra/catalog/east/api",
            "/umbra/encryption/keys/k",
            "/a/hub/core/secrets/x",
            "/umbra/hub/core/secrets/",
        ] {
            assert_eq!(of(key), None, "{key}");
        }
    }

    #[test]
    fn patterns_mean_what_kubernetes_means() {
        let matches = |pattern: &str, key: &str| Pattern::parse(pattern).unwrap().matches(StoredResource::of_key(key));
        let (secret, deployment) = ("/umbra/hub/core/secrets/a/b", "/umbra/fleets/all/apps/deployments/a/b");
        for (pattern, is_secret, is_deployment) in [
            ("secrets", true, false),
            ("secrets.apps", false, false),
            ("deployments.apps", false, true),
            ("*.", true, false),
            ("*.apps", false, true),
            ("*.*", true, true),
        ] {
            assert_eq!(matches(pattern, secret), is_secret, "{pattern}");
            assert_eq!(matches(pattern, deployment), is_deployment, "{pattern}");
            assert!(!matches(pattern, "/umbra/catalog/east/api"), "{pattern}");
            assert_eq!(Pattern::parse(pattern).unwrap().to_string(), pattern);
        }
        for wrong in ["", "*", "Secrets", "secrets.", "a/b", "*.a.*", "sec*"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn overlaps_are_seen() {
        let overlaps = |one: &str, other: &str| Pattern::parse(one).unwrap().overlaps(&Pattern::parse(other).unwrap());
        for (one, other) in [
            ("secrets", "*."),
            ("*.apps", "deployments.apps"),
            ("*.*", "secrets"),
            ("a.b", "a.b"),
        ] {
            assert!(overlaps(one, other) && overlaps(other, one), "{one} {other}");
        }
        for (one, other) in [("secrets", "*.apps"), ("a", "b"), ("*.", "*.apps")] {
            assert!(!overlaps(one, other) && !overlaps(other, one), "{one} {other}");
        }
    }
}
