//! Which revision of each override a rendering uses.
//!
//! A change of an override with `rollout: OnNextUpdate` reaches a rendering when its template or placement changes. Until
//! then the rendering keeps the revision that it was rendered with, also across restarts: what pins it is the list of
//! revisions that is stored with the rendering.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;
use umbra_api::overrides::Rollout;

use super::model::{Override, OverrideIdentity};

/// A revision that a rendering is pinned to is no longer stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "revision {revision} of {by}, which the rendering is pinned to, is gone; change the template or the placement to \
     render it with the present revision"
)]
pub struct RevisionGone {
    /// Which override.
    pub by: OverrideIdentity,
    /// Which revision of it.
    pub revision: i64,
}

/// The revisions to render with.
///
/// `current` are the overrides as they are now. `pinned` are the revisions of *all* overrides that there were when the
/// rendering was last made, whether they selected the object or not; `None` where there is no rendering yet, or its
/// template or placement has changed since. `revision` finds a stored revision.
///
/// Overrides that are rolled out immediately apply as they are now; so do new ones. The others apply as they were, and a
/// new one not at all. What has been deleted does not apply.
///
/// # Errors
/// [`RevisionGone`] where `revision` does not find what the rendering is pinned to.
pub fn revisions_in_force(
    current: &[Arc<Override>],
    pinned: Option<&BTreeMap<OverrideIdentity, i64>>,
    mut revision: impl FnMut(&OverrideIdentity, i64) -> Option<Arc<Override>>,
) -> Result<Vec<Arc<Override>>, RevisionGone> {
    let Some(pinned) = pinned else {
        return Ok(current.to_vec());
    };
    let mut in_force = Vec::with_capacity(current.len());
    for one in current {
        match (one.rollout(), pinned.get(one.identity())) {
            (Rollout::Immediate, _) => in_force.push(Arc::clone(one)),
            (Rollout::OnNextUpdate, None) => {}
            (Rollout::OnNextUpdate, Some(number)) if *number == one.revision() => in_force.push(Arc::clone(one)),
            (Rollout::OnNextUpdate, Some(number)) => {
                let stored = revision(one.identity(), *number).ok_or_else(|| RevisionGone {
                    by: one.identity().clone(),
                    revision: *number,
                })?;
                in_force.push(stored);
            }
        }
    }
    Ok(in_force)
}
