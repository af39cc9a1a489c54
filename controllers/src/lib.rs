//! What keeps the hub, the children and the store in step.

pub mod cluster;
pub mod copy;
pub mod fleet;
pub mod join;
pub mod lease;
pub mod tunnel;
