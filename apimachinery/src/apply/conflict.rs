//! What keeps an apply from taking effect: fields that others own and that it would change.
//!
//! Source: `apimachinery/pkg/util/managedfields/internal/conflict.go`, whose words these are.

use std::fmt;

use super::managed_fields::ManagerIdentifier;
use super::path::Path;
use super::set::Set;

/// `details.causes[].reason` of every conflict.
pub const FIELD_MANAGER_CONFLICT: &str = "FieldManagerConflict";

/// One field, and who else owns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The owner.
    pub manager: ManagerIdentifier,
    /// The field.
    pub path: Path,
}

/// All conflicts of one apply, by manager. Never empty where it is an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Conflicts(pub Vec<Conflict>);

impl Conflict {
    /// As `details.causes[].message`: `conflict with "kubectl" using apps/v1`.
    #[must_use]
    pub fn message(&self) -> String {
        format!("conflict with {}", self.manager)
    }
}

impl Conflicts {
    /// The fields in question.
    #[must_use]
    pub fn fields(&self) -> Set {
        self.0.iter().map(|conflict| conflict.path.clone()).collect()
    }

    /// Without the conflicts about fields of `allowed`.
    #[must_use]
    pub fn without(self, allowed: &Set) -> Self {
        let kept = self.0.into_iter().filter(|conflict| !allowed.has(&conflict.path.0));
        Self(kept.collect())
    }
}

impl fmt::Display for Conflicts {
    /// The message of the 409.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = self.0.as_slice() {
            return write!(f, "Apply failed with 1 conflict: {}: {}", only.message(), only.path);
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let by_manager = self.0.chunk_by(|left, right| left.manager == right.manager);
        for (index, conflicts) in by_manager.enumerate() {
            let newline = if index > 0 { "\n" } else { "" };
            write!(f, "{newline}conflicts with {}:", conflicts[0].manager)?;
            conflicts
                .iter()
                .try_for_each(|conflict| write!(f, "\n- {}", conflict.path))?;
        }
        Ok(())
    }
}
