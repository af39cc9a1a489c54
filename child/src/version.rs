//! Which versions of Kubernetes a child may have.

/// The oldest minor version of Kubernetes 1 that serves what the hub asks for: tables with `includeObject=Object` in watches with
/// bookmarks, server-side apply, OpenAPI v3, `SelfSubjectAccessReview` v1.
pub const OLDEST_MINOR: u32 = 24;

/// As much of a version is shown; those of vendors have up to 40 characters.
const LONGEST_SHOWN: usize = 64;

/// A version of Kubernetes that is too old.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the cluster runs Kubernetes {0}; Umbra needs 1.{OLDEST_MINOR} or newer: update the cluster first")]
pub struct UnsupportedVersion(String);

/// Refuses what is too old: `version` is `gitVersion` of `/version`. Only major and minor count; vendors put anything after them
/// (`v1.29.3-eks-…`, `v1.30.4-gke.100`, `1.30+`). One that cannot be read is let pass, because what serves the API may be called
/// anything; so is 0.0, which an API server says that was built without being told its version
/// (`k8s.io/component-base/version/base.go`).
///
/// # Errors
/// When it is older than 1.24.
pub fn check_version(version: &str) -> Result<(), UnsupportedVersion> {
    match major_and_minor(version) {
        Some(found) if found != (0, 0) && found < (1, OLDEST_MINOR) => Err(UnsupportedVersion(shown(version))),
        _ => Ok(()),
    }
}

fn major_and_minor(version: &str) -> Option<(u32, u32)> {
    let (major, rest) = version.trim().trim_start_matches(['v', 'V']).split_once('.')?;
    let digits = rest.find(|one: char| !one.is_ascii_digit()).unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..digits].parse().ok()?))
}

/// The version as it may be shown: the cluster says it, and it goes to terminals and into conditions.
fn shown(version: &str) -> String {
    version
        .trim()
        .chars()
        .filter(|one| !one.is_control())
        .take(LONGEST_SHOWN)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused() {
        for good in [
            "v1.24.0",
            "v1.36.3",
            "v1.24.17-eks-5e0fdde",
            "v1.29.3-eks-adc7111",
            "v1.30.4-gke.100",
            "v1.28.9+k3s1",
            "v1.27.10+c79e5e2",
            "v1.100.0",
            "1.30+",
            "v2.0.0",
            "v0.0.0-master+$Format:%H$",
            "master",
            "",
        ] {
            assert!(check_version(good).is_ok(), "{good}");
        }
        for old in [
            "v1.23.17",
            "v1.9.0+k3s1",
            "1.22",
            "1.23+",
            "v1.23.17-eks-a5565ad",
            "v0.21.4",
            "V1.2.0",
        ] {
            let said = check_version(old).unwrap_err().to_string();
            assert!(said.contains(old) && said.contains("1.24"), "{said}");
        }
        let hostile = format!("v1.2.\u{1b}[31m\n{}", "x".repeat(1000));
        let said = check_version(&hostile).unwrap_err().to_string();
        assert!(!said.contains(char::is_control) && said.len() < 200, "{said:?}");
    }
}
