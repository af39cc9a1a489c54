//! Whole clusters, asked by a client of somebody else.

mod access;
mod rollouts;
mod support;
