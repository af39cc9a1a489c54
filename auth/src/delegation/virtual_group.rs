//! The API groups that stand for what is in a root, where the hub's RBAC decides who may do what in there.

/// What the core group is called in them.
const CORE: &str = "core";

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
        let group = if group.is_empty() { CORE } else { group };
        format!("{group}{}", self.suffix())
    }

    /// The group that `group` stands for; `None` where it is none of this family.
    ///
    /// ```
    /// use umbra_auth::delegation::VirtualGroup;
    /// assert_eq!(VirtualGroup::View.stands_for("apps.view.umbra.dev"), Some("apps"));
    /// assert_eq!(VirtualGroup::View.stands_for("core.view.umbra.dev"), Some(""));
    /// assert_eq!(VirtualGroup::View.stands_for("apps"), None);
    /// ```
    #[must_use]
    pub fn stands_for(self, group: &str) -> Option<&str> {
        match group.strip_suffix(self.suffix())? {
            "" => None,
            CORE => Some(""),
            group => Some(group),
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Fleet => ".fleet.umbra.dev",
            Self::View => ".view.umbra.dev",
        }
    }
}
