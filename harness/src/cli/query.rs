//! `tracegate query`: asks a running `tracegate serve`, and prints its answer as it comes.

use std::io::{self, Write};

use clap::Args;
use url::Url;

use super::secret::Secret;
use crate::{
    capture::{
        Token,
        query::{PATH, TOKEN_VARIABLE},
    },
    report::Exit,
};

/// Arguments of `tracegate query`.
#[derive(Debug, Clone, Args)]
pub struct QueryArgs {
    /// spans, logs, metrics, counts, traces/TRACE-ID, or tail for what comes from now on
    #[arg(value_name = "WHAT")]
    what: String,
    /// What it shall be, all of it: name=GET /files/ kind=server service=api attribute=KEY=VALUE limit=10; see docs/sink.md
    #[arg(value_name = "NAME=VALUE", value_parser = parameter)]
    parameters: Vec<(String, String)>,
    /// Where `tracegate serve` is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4318")]
    at: Url,
    /// The token that it printed at its start
    #[arg(long, value_name = "TOKEN", env = TOKEN_VARIABLE, hide_env_values = true, value_parser = Secret(super::serve::token_argument))]
    token: Token,
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
enum QueryError {
    /// Nobody is there, or the connection broke.
    #[error("cannot ask {at}")]
    #[diagnostic(help("start `tracegate serve`, and say where it is with --at"))]
    Unreachable { at: Url, source: reqwest::Error },
    /// It says no.
    #[error("{at} answered {status}: {body}")]
    Refused { at: Url, status: http::StatusCode, body: String },
    /// stdout takes no more.
    #[error("cannot write the answer")]
    Output(#[source] io::Error),
}

pub(super) fn main(args: QueryArgs) -> super::run::Ended {
    let runtime = super::run::runtime()?;
    runtime.block_on(run(args)).map_err(|error| (Exit::Environment, error.into()))?;
    Ok(Exit::Passed)
}

async fn run(args: QueryArgs) -> Result<(), QueryError> {
    let mut at = args.at;
    at.set_path(&format!("{PATH}/{}", args.what.trim_start_matches('/')));
    if !args.parameters.is_empty() {
        at.query_pairs_mut().extend_pairs(&args.parameters);
    }
    let unreachable = |source| QueryError::Unreachable { at: at.clone(), source };
    let answer = reqwest::Client::new().get(at.clone()).bearer_auth(args.token.reveal()).send();
    let mut answer = answer.await.map_err(unreachable)?;
    let status = answer.status();
    if !status.is_success() {
        let body = answer.text().await.unwrap_or_default().trim_end().to_owned();
        return Err(QueryError::Refused { at, status, body });
    }
    let mut last = None;
    while let Some(piece) = answer.chunk().await.map_err(unreachable)? {
        last = piece.last().copied().or(last);
        match print(&piece) {
            // Who reads has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            printed => printed.map_err(QueryError::Output)?,
        }
    }
    if last.is_some_and(|last| last != b'\n') {
        drop(print(b"\n"));
    }
    Ok(())
}

fn print(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}
