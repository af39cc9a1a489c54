//! Who a request comes from.

use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// Set for machines of Umbra's own alone, by the one authenticator that knows their credentials. No header, token or
    /// certificate of anybody else can claim it, whatever name and groups it gives: it is no text, and travels nowhere.
    pub machine: Option<MachineCredential>,
}

/// What a machine of Umbra's own has proved itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MachineCredential {
    /// The certificate of an agent, of the agents' authority.
    Agent {
        /// The certificate, as DER. Kept so that it can be judged again when the authority changes.
        certificate: Arc<[u8]>,
        /// When it expires, in seconds since the epoch.
        expires: i64,
    },
    /// The certificate of a replica, of the same authority.
    Replica,
    /// A bootstrap token.
    BootstrapToken {
        /// The token's SHA-256, in hexadecimal.
        hash: String,
    },
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
