//! RBAC in process: the rules of `plugin/pkg/auth/authorizer/rbac` and `pkg/registry/rbac/validation` of Kubernetes,
//! and the question that Kubernetes does not ask: *what* may somebody see.
//!
//! An [`RbacIndex`] holds the RBAC objects of one cluster (the hub's own, or the copies of a child's). Bindings are
//! indexed by subject, so a decision touches only the bindings of the caller and the caller's groups, whatever the size
//! of the cluster. Objects sit behind `Arc`: cloning an index is shallow, so writers clone, change and swap, and readers
//! never wait.
//!
//! Deviations: where several bindings allow a request, the reason names the first by subject and name instead of one in
//! the random order of an informer's store. Kinds of subjects that Kubernetes does not know are ignored, as there.

mod aggregation;
mod decision;
mod escalation;
mod index;
mod matching;
mod types;
mod visibility;

#[cfg(test)]
mod tests;

pub use decision::{Decision, EffectiveRules};
pub use escalation::{EscalationError, compact, covers};
pub use index::RbacIndex;
pub use matching::Attributes;
pub use types::{
    AggregationRule, ClusterRole, ClusterRoleBinding, GROUP, ObjectMeta, PolicyRule, RbacKind, RbacObject, Role,
    RoleBinding, RoleRef, Subject,
};
pub use visibility::Visibility;
