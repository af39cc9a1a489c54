//! The built-in kinds.

pub mod printers;
