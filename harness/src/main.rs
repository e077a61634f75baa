//! The `tracegate` command.

fn main() -> std::process::ExitCode {
    tracegate::cli::main()
}
