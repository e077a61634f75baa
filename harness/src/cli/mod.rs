//! The command line: parse, run, exit.

mod gateway;
mod inside;
mod query;
mod replay;
mod run;
mod secret;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::report::Exit;

pub use gateway::GatewayArgs;
pub use replay::ReplayArguments;
pub use run::RunArguments;
pub use serve::ServeArgs;

/// A regression gate for telemetry.
#[derive(Debug, Parser)]
#[command(name = "tracegate", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the scenarios on the deployments of tracegate.toml
    Run(RunArguments),
    /// Judge recorded scenarios again, without any service and with the feature files as they are now
    Replay(ReplayArguments),
    /// Receive OTLP from anybody and print what comes
    Serve(ServeArgs),
    /// Ask a running `tracegate serve` for spans, logs, metrics, a trace, or what comes from now on
    Query(query::QueryArgs),
    /// Serve a function over plain HTTP on loopback, behind any of its event sources
    Gateway(GatewayArgs),
    /// Used by the harness inside the container of a function with extensions
    #[command(hide = true)]
    Inside(inside::InsideArgs),
    /// Print every step with an example, in Markdown
    Steps,
    /// Print the rules that hold for every scenario, in Markdown
    Invariants,
    /// Print the JSON Schema of `tracegate run --json`
    Schema,
}

/// Parses the command line, does what it says, and returns the exit code: 0 passed, 1 failed, 2 usage, 3 environment,
/// 4 nothing selected.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // `--help` and `--version` are no errors.
            let code = if error.use_stderr() { Exit::Usage.into() } else { ExitCode::SUCCESS };
            let _ = error.print();
            return code;
        }
    };
    let done = match arguments.command {
        Command::Run(arguments) => arguments.run(),
        Command::Replay(arguments) => arguments.run(),
        Command::Serve(arguments) => serve::main(arguments),
        Command::Query(arguments) => query::main(arguments),
        Command::Gateway(arguments) => gateway::main(&arguments),
        Command::Inside(arguments) => return inside::main(&arguments),
        Command::Invariants => {
            print!("{}", crate::invariant::reference());
            Ok(Exit::Passed)
        }
        Command::Schema => {
            print!("{}", crate::report::JSON_SCHEMA);
            Ok(Exit::Passed)
        }
        Command::Steps => {
            print!("{}", crate::gherkin::reference());
            Ok(Exit::Passed)
        }
    };
    match done {
        Ok(exit) => exit.into(),
        Err((exit, report)) => {
            eprintln!("{report:?}");
            exit.into()
        }
    }
}
