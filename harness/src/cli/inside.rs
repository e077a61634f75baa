//! `tracegate inside`: what the harness has done in the container of a function with extensions.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use nix::sys::signal::Signal;

use crate::deployment::container::inside;

/// What to do there.
#[derive(Debug, Args)]
pub struct InsideArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Hold the container open
    Hold,
    /// Run a program, and say which process group it has and how it ended
    Run {
        /// Whether its output is the container's
        #[arg(long)]
        main: bool,
        /// Path of the program
        program: String,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Signal a process group
    Signal {
        /// `SIGTERM`
        signal: Signal,
        /// Its number
        group: i32,
    },
}

/// Does it.
pub(super) fn main(arguments: &InsideArgs) -> ExitCode {
    let done = match &arguments.what {
        What::Hold => inside::hold(),
        What::Run { main, program, arguments } => inside::run(*main, program, arguments).map(drop),
        What::Signal { signal, group } => inside::signal(*signal, *group),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
