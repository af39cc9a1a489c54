//! A watch cache over one prefix of a store.
