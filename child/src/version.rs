//! Which versions of Kubernetes a child may have.

/// The oldest minor version of Kubernetes 1 that serves what the hub asks for: tables with `includeObject=Object` in watches with
/// bookmarks, server-side apply, OpenAPI v3, `SelfSubjectAccessReview` v1.
pub const OLDEST_MINOR: u32 = 24;

/// A version of Kubernetes that is too old.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cluster runs Kubernetes {0}; Umbra needs 1.{OLDEST_MINOR} or newer")]
pub struct UnsupportedVersion(String);

/// Refuses what is too old: `version` is `gitVersion` of `/version`. One that cannot be read is let pass, because what serves the
/// API may be called anything.
///
/// # Errors
/// When it is older than 1.24.
pub fn check_version(version: &str) -> Result<(), UnsupportedVersion> {
    let mut numbers = version.trim_start_matches('v').split(|one: char| !one.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    match (number(), number()) {
        (Some(major), Some(minor)) if (major, minor) < (1, OLDEST_MINOR) => Err(UnsupportedVersion(version.to_owned())),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused() {
        for good in ["v1.24.0", "v1.36.3", "v1.30.4-gke.100", "v2.0.0", "master"] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for old in ["v1.23.17", "v1.9.0+k3s1", "1.22"] {
            let said = check_version(old).unwrap_err().to_string();
            assert!(said.contains(old) && said.contains("1.24"), "{said}");
        }
    }
}
