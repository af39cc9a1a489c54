//! What the end-to-end tests stand on: processes that never outlive the tests, real clusters, hubs, users, and kubectl.
//!
//! Everything is asked from outside, as a user would: the `umbra` binary is run, an unmodified `kubectl` talks to it, and
//! the children are real kube-apiservers from `tests/kube`. Two variables say where the programs are; `make test` sets them:
//!
//! | variable | |
//! |---|---|
//! | `UMBRA_BIN` | the `umbra` binary |
//! | `KUBE_BIN` | the folder that `tests/kube/build.sh` has filled: `cluster` and `kubectl` |
//! | `E2E_DIR` | where each run has its folder; absent, the folder for temporary files |
//! | `E2E_HUB` | the form of the hub that the tests share: `standalone` (the default), or `aggregated`, behind a kube-apiserver |
//! | `SHOW_RESULTS` | where to write what [`umbra_show`] records; absent, nothing is written |
//!
//! Without the programs the tests say on standard error that they are skipped; where `CI` is `true` that is a failure.
//!
//! [`World`](world::World) starts two clusters and a hub once for all tests of the binary; each test has namespaces of its
//! own. A failed expectation panics with what was last seen. What the last run wrote, logs included, stays in
//! `$E2E_DIR/e2e-*` until the next run.

pub mod aggregated;
pub mod altered;
pub mod any_hub;
pub mod cluster;
pub mod cluster_log;
pub mod environment;
pub mod faults;
mod front;
pub mod http;
pub mod hub;
pub mod identity;
pub mod informer;
pub mod kubectl;
pub mod process;
mod replica;
pub mod specs;
pub mod turn;
pub mod user;
pub mod wait;
pub mod world;
pub mod writers;
