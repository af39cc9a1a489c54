//! What shows that the backends keep the contract, and that it would show if they did not: the suite against broken stores,
//! random operations against a model, concurrent histories against a checker of linearizability, and crashes.

mod broken;
mod clients;
mod contract;
mod etcd;
mod fault;
mod history;
mod linearizability;
mod linearizable;
mod reference;
mod reference_watch;
mod register;
pub(crate) mod survivors;
