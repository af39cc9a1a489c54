//! A simulated Kubernetes cluster.
//!
//! It serves the built-in kinds of Kubernetes over TLS to any client, with RBAC and impersonation, by the same code that
//! serves a standalone hub; and it runs controllers that make Deployments, StatefulSets, DaemonSets and Jobs into pods,
//! pods ready, and services addresses. It gives `umbra up --demo` its clusters and tests of scale their thousands of pods.
//!
//! What it simulates it says: nodes are labelled `node.umbra.dev/simulated`, their runtime is `simulated://`, and a pod's
//! log tells that nothing runs. What it cannot do it refuses: `exec`, `attach` and `port-forward` answer 501. No packets
//! go to pods or services, images are not pulled, volumes do not exist, resources are not counted.
//!
//! To see what goes wrong on purpose: an image of a host that ends in `.invalid` stays in `ImagePullBackOff`, and the pods
//! annotated `kubelet.umbra.dev/ready: "false"` run without becoming ready.
//!
//! Deviations from Kubernetes, beside those that [`umbra_registry::generic`] and the controllers list: there are no custom
//! resources, no token requests, no quotas, no autoscaling, no CronJobs that run; node ports and load balancers are not
//! given.

mod cluster;
mod connections;
mod controllers;
mod data;
mod kinds;
mod log;
mod network;
pub mod workloads;

pub use cluster::{DEFAULT_VERSION, Data, Options, SimulatedCluster, SimulatorError};

#[cfg(test)]
mod tests;
