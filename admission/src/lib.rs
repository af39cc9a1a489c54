//! The admission chain and its plugins; the override engine.
