//! Building what a deployment runs: Cargo binaries, build commands.
