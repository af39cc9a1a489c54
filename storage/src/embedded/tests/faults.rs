//! Disks that fail: a fault at every point of a history, and disks that are really full or read-only.

mod every_operation;
mod real;
