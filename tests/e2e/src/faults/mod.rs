//! What goes wrong on the way to a child, on purpose, and how to see what it leaves behind.

pub mod attempt;
mod carry;
pub mod proxy;
pub mod resources;
