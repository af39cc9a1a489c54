//! The API groups that stand for what is in a root, where the hub's RBAC decides who may do what in there.

/// A family of groups that no API server serves. The hub's roles name them, so that a permission for Deployments in a
/// fleet is not one for the hub's own Deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VirtualGroup {
    /// What is in a fleet: `apps.fleet.umbra.dev`.
    Fleet,
    /// What is in a view: `apps.view.umbra.dev`.
    View,
}

impl VirtualGroup {
    /// The group that stands for `group`. The core group, which has no name, is called `core`; no other group is, because
    /// a group that anybody can add has a dot in its name.
    ///
    /// ```
    /// use umbra_auth::delegation::VirtualGroup;
    /// assert_eq!(VirtualGroup::View.of("apps"), "apps.view.umbra.dev");
    /// assert_eq!(VirtualGroup::Fleet.of(""), "core.fleet.umbra.dev");
    /// ```
    #[must_use]
    pub fn of(self, group: &str) -> String {
        let group = if group.is_empty() { "core" } else { group };
        match self {
            Self::Fleet => format!("{group}.fleet.umbra.dev"),
            Self::View => format!("{group}.view.umbra.dev"),
        }
    }
}
