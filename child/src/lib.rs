//! Reaching a child cluster: connections, credentials, proxying, upgrades.
