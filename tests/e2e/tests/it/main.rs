//! Umbra as its users have it: see the library of this crate.
