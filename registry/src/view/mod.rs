//! The view root: the copies of many children as one API.
//!
//! [`ViewServices`] is what all views share; a [`ViewApi`] is one view as one request sees it, made anew for each, so
//! that everything a request does agrees about which clusters there are.
//!
//! * [`shape`]: which resources the selected clusters serve, and which of those are copied.
//! * [`sight`]: who may see what of them, from the children's own RBAC or, by [`permissions`], from the hub's; [`judgement`]
//!   asks for requests. [`vigil`] ends watches when that changes, and [`memory`] keeps them from going on from before.
//! * [`selection`] and [`scope`]: what a list or a watch selects among the copies. The meaning of revisions, pages and
//!   bookmarks is that of every other list and watch ([`crate::generic::read`], [`crate::generic::watch`]).
//! * [`live`]: what is not copied is asked of the children, by [`fan_out`] all at once, of which [`budget`] bounds the memory;
//!   [`received`] reads what they say.
//! * [`target`]: which object of which cluster a name means. [`write`] and [`connect`] send requests there; [`delete`] sends those
//!   for collections to all clusters, and [`incomplete`] tells where that failed.
//! * [`table`]: how rows are printed.
//!
//! Rules beside those of the design:
//! * One name (group, version, resource) means one kind in one scope: Kubernetes' own for what it defines itself, otherwise
//!   what most of the clusters say. A cluster that says otherwise is left out of that resource, with a warning ([`shape`]).
//! * A resource is served from copies in the version that is copied, the one that the child prefers. In its other
//!   versions it is served live and cannot be watched. A cluster whose own preferred version is another one than that of
//!   its peers is left out of their lists, with a warning that says so.
//! * A bare name in a field selector (`metadata.name=web`) selects the objects of that name in every cluster; a
//!   qualified one the object itself. Selectors by other names (`spec.nodeName=n1@east`) understand qualified names too.
//! * What is written through is checked by the child alone; what is read from copies by the copies of its RBAC. A
//!   cluster whose RBAC has not been copied shows nothing.
//! * With `HubRBAC` the hub's word is enough for copies. What goes to a child (writes, subresources, what is not copied)
//!   needs the hub's permission first and the child's after it, because it is done there as the caller. An apply that may
//!   create needs `create`, too: one to an object without a copy. Where the hub says no, nobody asks further.

mod answer;
pub mod api;
mod body;
mod budget;
mod connect;
mod delete;
mod exchange;
mod fan_out;
mod incomplete;
mod json_patch;
mod judgement;
mod live;
mod memory;
mod openapi;
pub mod permissions;
mod read;
mod received;
mod resource;
mod review;
mod scope;
mod selection;
mod services;
mod shape;
mod sight;
mod table;
mod target;
#[cfg(test)]
mod tests;
mod vigil;
mod write;

pub use api::ViewApi;
pub use permissions::{HubPermissions, PermissionChanges};
pub use services::ViewServices;
