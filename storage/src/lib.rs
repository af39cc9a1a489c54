//! A revisioned key-value store, its embedded backend, the watch cache and the contract suite.
