//! The project's own scenarios on every deployment of `tracegate.toml`, as `tracegate run` plays them, and the report of
//! it: what ran, what could not run here and why. `TRACEGATE_REQUIRE=container` turns a missing engine into an error.
//! Arguments of `tracegate run` can be given behind `--`.

use std::{path::Path, process::ExitCode};

use clap::Parser;
use tracegate::{cli::RunArguments, report::Exit, report::Terminal};

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArguments,
}

fn main() -> ExitCode {
    let mut arguments = Arguments::parse().run;
    if !arguments.config.exists() {
        arguments.config = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join("tracegate.toml");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("no runtime: {error}");
            return Exit::Environment.into();
        }
    };
    let tracegate = env!("CARGO_BIN_EXE_tracegate").into();
    let ended = runtime.block_on(arguments.run_with(tracegate, None, &mut Terminal::stdout()));
    match ended {
        Ok(summary) => {
            let failed = summary.failed() + summary.errored();
            let word = if failed == 0 { "ok" } else { "FAILED" };
            println!("\ntest result: {word}. {} passed; {failed} failed; 0 ignored", summary.passed());
            summary.exit().into()
        }
        Err((exit, report)) => {
            eprintln!("{report:?}");
            println!("\ntest result: FAILED. 0 passed; 1 failed; 0 ignored");
            exit.into()
        }
    }
}
