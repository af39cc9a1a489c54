//! Benchmarks: what Umbra's budgets are measured with. One subcommand per layer.

fn main() {}
