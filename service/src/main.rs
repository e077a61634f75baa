//! The service: a Lambda function when `AWS_LAMBDA_RUNTIME_API` is set, else an HTTP server.

use std::{error::Error, process::ExitCode};

use clap::Parser;
use serverless_axum::{
    AppState, app,
    errors::panic_message,
    fields, lambda, server,
    settings::{Environment, MAX_WORKERS, Settings},
    telemetry::{Telemetry, library_events::LibraryEvents, resource, settings::TelemetrySettings},
    workers,
};

/// The documented serverless REST API. All further settings are environment variables.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Worker processes on one listening socket [default: WEB_CONCURRENCY, else 1]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_WORKERS)))]
    workers: Option<u16>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let settings = match Settings::from_environment(&Environment::of_this_process()) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let workers = arguments.workers.unwrap_or(settings.workers);
    let result =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Into::into).and_then(|runtime| {
            let result = runtime.block_on(run(&settings, workers));
            // An export that hangs has had its time; it must not hold up the end of the process.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut message = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                message.push_str(&format!(": {error}"));
                cause = error.source();
            }
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: &Settings, workers: u16) -> Result<(), Box<dyn Error>> {
    let is_worker = std::env::var_os(workers::WORKER_VARIABLE).is_some();
    if workers > 1 && !is_worker && settings.lambda.is_none() {
        return supervise(settings, workers.into()).await;
    }
    let telemetry = Telemetry::start(&settings.telemetry, settings.log_level, resource::of_this_process(settings))?;
    speak_through(&telemetry, settings);
    let result = match &settings.lambda {
        Some(function) => {
            let app = app(AppState::new(settings, telemetry.clone())?);
            lambda::run(app, &telemetry, function, server::stop_signal()?)
                .await
                .map_err(|error| error as Box<dyn Error>)
        }
        None => serve(settings, &telemetry, is_worker).await,
    };
    telemetry.shutdown().await;
    result
}

/// Sends what libraries and panics say through the service's logger.
fn speak_through(telemetry: &Telemetry, settings: &Settings) {
    let logger = telemetry.logger().clone();
    LibraryEvents::new(logger.clone()).install(settings.library_filter.as_deref());
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic_message(panic.payload());
        logger.error(
            "serverless_axum::panic",
            "Panic",
            fields! { "exception.message": message, "code.location": place },
        );
    }));
}

async fn serve(settings: &Settings, telemetry: &Telemetry, is_worker: bool) -> Result<(), Box<dyn Error>> {
    let signal = server::stop_signal()?;
    let app = app(AppState::new(settings, telemetry.clone())?);
    let listener = match workers::inherited_listener()? {
        Some(listener) => listener,
        None => server::bind(settings)?,
    };
    let stop = async {
        if is_worker {
            tokio::select! {
                reason = signal => reason,
                reason = workers::parent_gone() => reason,
            }
        } else {
            signal.await
        }
    };
    server::serve(listener, app, telemetry, settings.shutdown_timeout, stop).await?;
    Ok(())
}

/// The parent of worker processes: it logs, and exports nothing.
async fn supervise(settings: &Settings, count: usize) -> Result<(), Box<dyn Error>> {
    let quiet = TelemetrySettings { traces: None, logs: None, metrics: None, ..settings.telemetry.clone() };
    let telemetry = Telemetry::start(&quiet, settings.log_level, resource::of_this_process(settings))?;
    speak_through(&telemetry, settings);
    let stop = server::stop_signal()?;
    let listener = server::bind(settings)?;
    workers::run(&listener, count, &telemetry, settings.shutdown_timeout, stop).await?;
    Ok(())
}
