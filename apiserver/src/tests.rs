//! Behaviour over whole requests.
