//! `tracegate gateway`: a function behind its gateway, over plain HTTP on loopback, so that curl, a browser or an HTTP test
//! suite can drive it. What the function exports and writes is told on stdout.

use std::{io, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Limited};
use miette::{IntoDiagnostic, WrapErr};
use nix::sys::signal::Signal;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;

use super::serve::{Interrupts, Teller, say};
use crate::{
    config::{self, Config, GatewayKind},
    deployment::assembly::{Instance, Workshop},
    report::Exit,
    stimulus::{
        Caller, ContextForm, HttpRequest, HttpResponse,
        gateway::{self, LARGEST_EVENT},
    },
};

/// How long requests that are being answered, and then the function itself, are given to end.
const GRACE: Duration = Duration::from_secs(2);

/// Most bytes of a body that are read: what no gateway hands on need not be read to its end.
const LARGEST_BODY: usize = 2 * LARGEST_EVENT;

/// Headers of a response that are this connection's to set.
const OF_THE_CONNECTION: [&str; 4] = ["connection", "content-length", "keep-alive", "transfer-encoding"];

/// Arguments of `tracegate gateway`.
#[derive(Debug, Clone, Args)]
pub struct GatewayArgs {
    /// The function's deployment
    #[arg(long, value_name = "NAME")]
    pub deployment: String,
    /// Event source [default: that of the deployment]
    #[arg(long, value_name = "KIND")]
    pub kind: Option<GatewayKind>,
    /// Port to listen at, on loopback; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 3000)]
    pub port: u16,
    /// Say nothing about what the function exports and writes
    #[arg(long)]
    pub quiet: bool,
    /// Configuration file
    #[arg(long, default_value = "tracegate.toml")]
    pub config: PathBuf,
}

/// Why `tracegate gateway` cannot run.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum GatewayError {
    /// The deployment is an HTTP server.
    #[error("deployment {name} is a {kind} and speaks HTTP itself")]
    #[diagnostic(help("a gateway stands in front of a lambda-process or a lambda-container"))]
    NoFunction {
        /// Name of the deployment.
        name: String,
        /// Its kind.
        kind: config::Kind,
    },
    /// The port is taken, or needs a privilege.
    #[error("cannot listen on 127.0.0.1:{port}")]
    #[diagnostic(help("choose another with --port; 0 takes a free one"))]
    Listen {
        /// As given.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
}

/// `tracegate gateway` from start to exit.
pub(super) fn main(args: &GatewayArgs) -> super::run::Ended {
    let runtime = super::run::runtime()?;
    let ended = runtime.block_on(run(args));
    // Containers are removed in the background.
    runtime.shutdown_timeout(Duration::from_secs(5));
    ended.map(|()| Exit::Passed)
}

async fn run(args: &GatewayArgs) -> Result<(), (Exit, miette::Report)> {
    let usage = |report: miette::Report| (Exit::Usage, report);
    let environment = |report: miette::Report| (Exit::Environment, report);
    let config = Config::read(&args.config).map_err(|error| usage(error.into()))?;
    let spec = spec(args, &config).map_err(usage)?;
    let mut interrupts =
        Interrupts::new().into_diagnostic().wrap_err("cannot wait for SIGTERM and SIGINT").map_err(environment)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))
        .await
        .map_err(|source| environment(GatewayError::Listen { port: args.port, source }.into()))?;
    let address = listener.local_addr().into_diagnostic().map_err(environment)?;
    let tracegate = std::env::current_exe()
        .into_diagnostic()
        .wrap_err("cannot tell which file this program is")
        .map_err(environment)?;
    let workshop = Workshop { config: Arc::new(config), tracegate, tamper: None };
    let instance = tokio::select! {
        started = Instance::start(&workshop, &spec) => started.into_diagnostic().map_err(environment)?,
        () = interrupts.wait() => return Ok(()),
    };
    let instance = Arc::new(instance);
    say(&format!("{} ({}) answers at http://{address}", spec.name, spec.gateway.kind));
    let stop = CancellationToken::new();
    let telling = tokio::spawn(tell(instance.clone(), args.quiet, stop.clone()));
    let router = Router::new().fallback(answer).with_state(instance.clone());
    let closing = CancellationToken::new();
    let serving = axum::serve(listener, router).with_graceful_shutdown(closing.clone().cancelled_owned());
    let mut serving = tokio::spawn(serving.into_future());
    tokio::select! {
        () = interrupts.wait() => {}
        served = &mut serving => {
            served.into_diagnostic().and_then(IntoDiagnostic::into_diagnostic).map_err(environment)?;
        }
    }
    closing.cancel();
    if tokio::time::timeout(GRACE, &mut serving).await.is_err() {
        serving.abort();
    }
    // Behind an invocation that goes on it would wait for that one; dropping the instance kills what is left.
    let _ = tokio::time::timeout(GRACE, instance.stop(Signal::SIGTERM, GRACE)).await;
    stop.cancel();
    let _ = telling.await;
    Ok(())
}

/// The deployment with the event source that was asked for. Settings of another kind do not fit it and are left out.
fn spec(args: &GatewayArgs, config: &Config) -> Result<config::Deployment, miette::Report> {
    let Some(found) = config.deployments.get(&args.deployment) else {
        let names: Vec<_> = config.deployments.values().filter(|deployment| deployment.kind.is_lambda()).collect();
        let names: Vec<_> = names.iter().map(|deployment| deployment.name.as_str()).collect();
        return Err(miette::miette!(
            help = format!("functions are: {}", names.join(", ")),
            "{} has no deployment {:?}",
            args.config.display(),
            args.deployment
        ));
    };
    if !found.kind.is_lambda() {
        return Err(GatewayError::NoFunction { name: found.name.clone(), kind: found.kind }.into());
    }
    // What a person sends arrives as it was sent.
    let mut spec = config::Deployment { canaries: Some(config::Canaries::none()), ..found.clone() };
    if let Some(kind) = args.kind.filter(|kind| *kind != spec.gateway.kind) {
        spec.gateway = config::Gateway { kind, timeout: spec.gateway.timeout, ..config::Gateway::default() };
    }
    Ok(spec)
}

/// Tells what arrives until it is stopped, and then what has arrived.
async fn tell(instance: Arc<Instance>, quiet: bool, stop: CancellationToken) {
    if quiet {
        return;
    }
    let mut teller = Teller::default();
    loop {
        let hour = Instant::now() + Duration::from_secs(3600);
        let store = instance.store();
        let lines = tokio::select! {
            lines = store.until(hour, |capture| Some(teller.news(capture)).filter(|lines| !lines.is_empty())) => lines,
            () = stop.cancelled() => {
                store.look(|capture| teller.news(capture)).iter().for_each(|line| say(line));
                return;
            }
        };
        lines.iter().flatten().for_each(|line| say(line));
    }
}

async fn answer(State(instance): State<Arc<Instance>>, request: Request) -> Response {
    let spec = instance.spec();
    let gateway = gateway::of(&spec.gateway, &spec.function);
    let (parts, body) = request.into_parts();
    let answer = match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(body) => instance.send(to_stimulus(&parts, body.to_bytes())).await.map(|delivery| delivery.response),
        Err(_) => Ok(gateway.too_large()),
    };
    let answer = answer.unwrap_or_else(|error| {
        eprintln!("{} {}: {error}", parts.method, parts.uri);
        gateway.failed()
    });
    to_http(answer).or_else(|| to_http(gateway.failed())).unwrap_or_default()
}

/// The client's request as it is; its own headers say what the caller's context is.
fn to_stimulus(parts: &http::request::Parts, body: Bytes) -> HttpRequest {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    HttpRequest {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        body,
        caller: Caller::now(true),
        form: ContextForm::Absent,
    }
}

/// `None` when the function's headers are none in HTTP.
fn to_http(answer: HttpResponse) -> Option<Response> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        if !OF_THE_CONNECTION.contains(&name.as_str()) {
            response = response.header(name, value);
        }
    }
    response.body(Body::from(answer.body)).ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn args(deployment: &str, kind: Option<GatewayKind>) -> GatewayArgs {
        GatewayArgs { deployment: deployment.into(), kind, port: 0, quiet: true, config: "tracegate.toml".into() }
    }

    fn config() -> Config {
        let text = "[deployments.f]\nkind = 'lambda-process'\nbinary = 'f'\n\
                    gateway = { stage = 'v1', resource = '/{proxy+}', timeout = '2s' }\n\
                    [deployments.web]\nkind = 'process'\nbinary = 'w'\nready = { http = '/' }";
        Config::parse(text, Path::new("/project"), Path::new("tracegate.toml")).unwrap()
    }

    #[test]
    fn another_event_source_leaves_out_the_settings_that_do_not_fit_it() {
        let own = spec(&args("f", Some(GatewayKind::RestApi)), &config()).unwrap().gateway;
        assert_eq!(own.stage.as_deref(), Some("v1"));
        let other = spec(&args("f", Some(GatewayKind::Alb)), &config()).unwrap().gateway;
        assert_eq!((other.kind, other.stage, other.resource), (GatewayKind::Alb, None, None));
        assert_eq!(other.timeout, Some(Duration::from_secs(2)));
    }

    #[test]
    fn only_a_function_that_is_configured_can_stand_behind_a_gateway() {
        let unknown = spec(&args("g", None), &config()).unwrap_err();
        assert!(unknown.to_string().contains("no deployment \"g\""), "{unknown}");
        assert_eq!(unknown.help().unwrap().to_string(), "functions are: f");
        let server = spec(&args("web", None), &config()).unwrap_err();
        assert!(server.to_string().contains("web is a process and speaks HTTP itself"), "{server}");
    }

    #[test]
    fn headers_of_the_connection_are_left_out_and_one_that_is_none_makes_no_response() {
        let answer = |name: &str, value: &str| {
            to_http(HttpResponse {
                status: 200,
                headers: vec![(name.into(), value.into())],
                body: Bytes::from_static(b"a"),
            })
        };
        assert_eq!(answer("x-a", "b").unwrap().headers()["x-a"], "b");
        assert!(answer("content-length", "7").unwrap().headers().is_empty());
        assert!(answer("x a", "b").is_none() && answer("x-a", "b\n").is_none());
    }
}
