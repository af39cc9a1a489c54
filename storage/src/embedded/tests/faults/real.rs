//! Disks that are really full or read-only: small file systems in memory, mounted where only the test sees them.
