//! The `generate` command: arguments, terminal, progress and exit codes.

fn main() {}
