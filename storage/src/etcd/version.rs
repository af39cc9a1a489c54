//! Which versions of etcd answer requests for progress so that the answer can be trusted.
//!
//! Two faults made older ones claim progress that a watch had not made: <https://github.com/etcd-io/etcd/issues/15220> (the
//! answer overtook events of a watch that was still catching up) and <https://github.com/etcd-io/etcd/issues/17507> (and of one
//! that was to begin in the future). The bounds are those of `endpointSupportsRequestWatchProgress` in
//! `k8s.io/apiserver/pkg/storage/feature`.

/// A version of an etcd server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
    patch: u32,
    /// A pre-release comes before its release.
    released: bool,
}

impl Version {
    const fn release(major: u32, minor: u32, patch: u32) -> Self {
        Self {
            major,
            minor,
            patch,
            released: true,
        }
    }

    /// Reads what a server says of itself. `None` for what is no version.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.split('+').next()?;
        let (numbers, released) = match text.split_once('-') {
            Some((numbers, _)) => (numbers, false),
            None => (text, true),
        };
        let mut numbers = numbers.split('.').map(|number| number.parse().ok());
        let version = Self {
            major: numbers.next()??,
            minor: numbers.next()??,
            patch: numbers.next()??,
            released,
        };
        numbers.next().is_none().then_some(version)
    }

    /// Whether an answer to a request for progress can be trusted.
    pub(super) fn progress_on_request(self) -> bool {
        let fixed_in_3_4 = self >= Self::release(3, 4, 31);
        let broken_in_3_5 = self >= Self::release(3, 5, 0) && self < Self::release(3, 5, 13);
        fixed_in_3_4 && !broken_in_3_5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_trusted_as_kubernetes_trusts_them() {
        for (text, expected) in [
            ("3.3.27", false),
            ("3.4.23", false),
            ("3.4.30", false),
            ("3.4.31", true),
            ("3.4.40", true),
            ("3.5.0", false),
            ("3.5.12", false),
            ("3.5.13-rc.0", false),
            ("3.5.13", true),
            ("3.6.0-alpha.0", true),
            ("3.6.8", true),
            ("4.0.0+build", true),
        ] {
            let version = Version::parse(text).unwrap_or_else(|| panic!("{text} is a version"));
            assert_eq!(version.progress_on_request(), expected, "{text}");
        }
        for text in ["", "3", "3.4", "3.4.x", "3.4.5.6", "not decided"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }
}
