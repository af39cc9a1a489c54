//! Tables of tests, ported from `structured-merge-diff` and `managedfields`.
