//! What an [`super::RbacIndex`] answers.

use std::collections::BTreeSet;

use super::types::PolicyRule;

/// What RBAC says of a request. RBAC never denies: another authorizer may still allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Allowed.
    Allow {
        /// Which binding allowed it, for audit.
        reason: String,
    },
    /// Nothing allows it.
    NoOpinion {
        /// Which roles could not be found, or empty.
        reason: String,
    },
}

impl Decision {
    /// Whether the request is allowed.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// The reason, possibly empty.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::Allow { reason } | Self::NoOpinion { reason } => reason,
        }
    }
}

/// The rules that apply to an identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EffectiveRules<'a> {
    /// All rules of all roles bound to it, in no particular order, possibly repeated.
    pub rules: Vec<&'a PolicyRule>,
    /// Roles that are bound but do not exist: the rules may be incomplete.
    pub unresolved: Vec<String>,
}

/// Joins what could not be resolved as Go's aggregated errors print.
pub(super) fn describe_unresolved(unresolved: BTreeSet<String>) -> String {
    let mut unresolved: Vec<String> = unresolved.into_iter().collect();
    match unresolved.len() {
        0 => String::new(),
        1 => format!("RBAC: {}", unresolved.remove(0)),
        _ => format!("RBAC: [{}]", unresolved.join(", ")),
    }
}
