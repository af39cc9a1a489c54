//! Who and what is allowed without asking.

use umbra_apimachinery::user::{MASTERS, UserInfo};

use crate::rbac::Attributes;

/// A path with a `*` that is not its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("only trailing * allowed in {0:?}")]
pub struct PathPatternError(String);

/// Groups whose members may do everything, and paths that everybody may ask for
/// (`k8s.io/apiserver/pkg/authorization/{authorizerfactory.NewPrivilegedGroups,path}`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlwaysAllow {
    groups: Vec<String>,
    /// Without the leading slash.
    paths: Vec<String>,
    /// What such paths begin with, without the leading slash.
    prefixes: Vec<String>,
}

impl Default for AlwaysAllow {
    /// As `NewDelegatingAuthorizationOptions`: `system:masters`, which the hub's own API server lets do everything, so
    /// that its operators can get in while reviews fail; and health, so that a kubelet's probes need no hub.
    fn default() -> Self {
        let paths = ["/healthz", "/readyz", "/livez"].map(str::to_owned);
        Self::new(vec![MASTERS.to_owned()], &paths).expect("none has a star")
    }
}

impl AlwaysAllow {
    /// Allows members of `groups` everything, and everybody `paths`: exactly, or what begins so where one ends in `*`. A
    /// leading slash is optional. `/healthz` does not cover `/healthz/etcd`.
    ///
    /// # Errors
    /// Where a path has a `*` elsewhere.
    pub fn new(groups: Vec<String>, paths: &[String]) -> Result<Self, PathPatternError> {
        let mut always = Self {
            groups,
            paths: Vec::new(),
            prefixes: Vec::new(),
        };
        for pattern in paths {
            let path = pattern.strip_prefix('/').unwrap_or(pattern);
            let (list, path) = match path.strip_suffix('*') {
                Some(prefix) => (&mut always.prefixes, prefix),
                None => (&mut always.paths, path),
            };
            if path.contains('*') {
                return Err(PathPatternError(pattern.clone()));
            }
            list.push(path.to_owned());
        }
        Ok(always)
    }

    /// Whether it is allowed without asking.
    #[must_use]
    pub fn allows(&self, user: &UserInfo, attributes: &Attributes<'_>) -> bool {
        if self.groups.iter().any(|group| user.in_group(group)) {
            return true;
        }
        if attributes.is_resource_request {
            return false;
        }
        let path = attributes.path.strip_prefix('/').unwrap_or(attributes.path);
        self.paths.iter().any(|one| one == path) || self.prefixes.iter().any(|prefix| path.starts_with(prefix.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(always: &AlwaysAllow, path: &str) -> bool {
        always.allows(&UserInfo::anonymous(), &Attributes::path("get", path))
    }

    #[test]
    fn paths_are_allowed_exactly_or_by_their_beginning() {
        let paths = ["/healthz", "metrics", "/public/*", "/"].map(str::to_owned);
        let always = AlwaysAllow::new(Vec::new(), &paths).unwrap();
        for path in ["/healthz", "healthz", "/metrics", "/public/", "/public/a/b", "/"] {
            assert!(allows(&always, path), "{path}");
        }
        for path in [
            "/healthz/",
            "/healthz/etcd",
            "/metricsx",
            "/public",
            "//healthz",
            "/api",
        ] {
            assert!(!allows(&always, path), "{path}");
        }
        let broken = AlwaysAllow::new(Vec::new(), &["/a*b*".to_owned()]);
        assert_eq!(broken.unwrap_err().to_string(), r#"only trailing * allowed in "/a*b*""#);
    }

    #[test]
    fn a_resource_is_no_path() {
        let everything = AlwaysAllow::new(Vec::new(), &["*".to_owned()]).unwrap();
        let pods = Attributes::resource("list", "", "pods", "", "");
        assert!(allows(&everything, "/anything"));
        assert!(!everything.allows(&UserInfo::new("alice", ["dev"]), &pods));
        assert!(AlwaysAllow::default().allows(&UserInfo::new("root", [MASTERS]), &pods));
    }
}
