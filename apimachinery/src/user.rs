//! Who a request comes from.

use std::collections::BTreeMap;

/// The group of everyone who has proved an identity.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of those who have not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group that may do everything on the hub.
pub const MASTERS: &str = "system:masters";
/// The name of those who have not proved an identity.
pub const ANONYMOUS: &str = "system:anonymous";

/// An identity, as authenticators establish it and authorizers judge it
/// (`k8s.io/apiserver/pkg/authentication/user.Info`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserInfo {
    /// The name that is unique among all active users.
    pub name: String,
    /// Distinguishes users over time where names are used again; often empty.
    pub uid: String,
    /// Groups, in the order the authenticator gave them.
    pub groups: Vec<String>,
    /// What else the authenticator knows; keys are lower case.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// An identity of that name and those groups, without [`AUTHENTICATED`] unless it is among them.
    #[must_use]
    pub fn new<G: Into<String>>(name: impl Into<String>, groups: impl IntoIterator<Item = G>) -> Self {
        Self {
            name: name.into(),
            groups: groups.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Nobody in particular.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::new(ANONYMOUS, [UNAUTHENTICATED])
    }

    /// Whether the identity is in `group`.
    #[must_use]
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    /// The same identity with [`AUTHENTICATED`] among its groups.
    #[must_use]
    pub fn authenticated(mut self) -> Self {
        if !self.in_group(AUTHENTICATED) && !self.in_group(UNAUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }
}
