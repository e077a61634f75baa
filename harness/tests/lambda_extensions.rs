//! Execution environments with extensions, and the ways in which their phases go wrong, on real processes.
//!
//! As in `lambda_runtime.rs`, the functions and the extensions are tests of this file that a deployment starts again.

#[allow(dead_code, reason = "its `main` is for the program")]
#[path = "../examples/otlp_forwarding_extension.rs"]
mod otlp_forwarding_extension;

use std::{
    collections::{BTreeMap, HashMap},
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testcontainers::{bollard::query_parameters::ListContainersOptionsBuilder, core::client::docker_client_instance};
use tokio::time::Instant;
use tracegate::{
    capture::{Capture, Mark, Store, sink::Sink},
    config::Config,
    deployment::{
        Deployment, Proof, SiteError,
        container::{ContainerSite, LABEL, engine_available},
        process::ProcessSite,
    },
    stimulus::{Caller, ContextForm, Delivery, HttpRequest, HttpResponse, http},
    telemetry::LineFormat,
};

const PATIENCE: Duration = Duration::from_secs(30);
const FOREVER: Duration = Duration::from_secs(3600);

fn runtime_api() -> Option<SocketAddr> {
    // In a container it is a name.
    std::env::var("AWS_LAMBDA_RUNTIME_API").ok()?.to_socket_addrs().unwrap().next()
}

async fn call(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: impl Into<bytes::Bytes>,
) -> HttpResponse {
    let request = HttpRequest {
        method: method.into(),
        target: target.into(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.into(),
        caller: Caller::fresh(1, true),
        form: ContextForm::Absent,
    };
    http::send(address, &request, "runtime", FOREVER).await.unwrap()
}

/// A span as OTLP/JSON, in the trace of Lambda's header.
fn span(header: &str, name: &str) -> String {
    let root = header.split(';').find_map(|field| field.strip_prefix("Root=1-")).unwrap();
    let span = json!({
        "traceId": root.replace('-', ""), "spanId": "53995c3f42cd8ad8", "name": name, "kind": 2,
        "startTimeUnixNano": "1", "endTimeUnixNano": "2",
    });
    json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] }).to_string()
}

/// A runtime that exports a span after each response and before it asks for the next event. The path says how it
/// behaves.
#[tokio::test]
async fn function() {
    let Some(api) = runtime_api() else { return };
    if std::env::var("SLOW_INIT").is_ok() {
        std::future::pending::<()>().await;
    }
    let otlp = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap();
    let otlp: SocketAddr = otlp.strip_prefix("http://").unwrap().to_socket_addrs().unwrap().next().unwrap();
    loop {
        let event = call(api, "GET", "/2018-06-01/runtime/invocation/next", &[], "").await;
        let id = event.header("lambda-runtime-aws-request-id").unwrap().to_owned();
        let seen: Value = serde_json::from_slice(&event.body).unwrap();
        let path = seen["path"].as_str().unwrap().to_owned();
        println!("handling {path}");
        match path.as_str() {
            "/exit" => std::process::exit(3),
            "/killed" => nix::sys::signal::raise(Signal::SIGKILL).unwrap(),
            "/hang" => std::future::pending().await,
            _ => {}
        }
        let response = format!("/2018-06-01/runtime/invocation/{id}/response");
        assert_eq!(call(api, "POST", &response, &[], r#"{"statusCode":200}"#).await.status, 202);
        if path == "/export" {
            let span = span(event.header("lambda-runtime-trace-id").unwrap(), "work");
            let sent = call(otlp, "POST", "/v1/traces", &[("Content-Type", "application/json")], span).await;
            assert_eq!(sent.status, 200);
        }
    }
}

/// A runtime that ends in Init, unless a file says that it has done so before.
#[tokio::test]
async fn function_whose_init_exits_after_the_first() {
    if runtime_api().is_none() {
        return;
    }
    let marker = std::env::var("MARKER").unwrap();
    if std::fs::exists(&marker).unwrap() {
        eprintln!("no such table");
        std::process::exit(1);
    }
    std::fs::write(&marker, "").unwrap();
    let api = runtime_api().unwrap();
    call(api, "GET", "/2018-06-01/runtime/invocation/next", &[], "").await;
    std::process::exit(3);
}

/// A runtime with an internal extension: a task of its own process. `ON_SIGTERM` says how it takes its end.
#[tokio::test]
async fn function_with_an_internal_extension() {
    let Some(api) = runtime_api() else { return };
    let mut asked_to_end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    let register = async |events: &'static str| {
        let headers = [("Lambda-Extension-Name", "inside")];
        call(api, "POST", "/2020-01-01/extension/register", &headers, events).await
    };
    println!("asked for SHUTDOWN: {}", register(r#"{"events":["INVOKE","SHUTDOWN"]}"#).await.status);
    let registered = register(r#"{"events":["INVOKE"]}"#).await;
    let id = registered.header("lambda-extension-identifier").unwrap().to_owned();
    tokio::spawn(async move {
        loop {
            let headers = [("Lambda-Extension-Identifier", id.as_str())];
            let event = call(api, "GET", "/2020-01-01/extension/event/next", &headers, "").await;
            let event: Value = serde_json::from_slice(&event.body).unwrap();
            println!("inside saw {} {}", event["eventType"].as_str().unwrap(), event["requestId"].as_str().unwrap());
        }
    });
    tokio::spawn(async move {
        loop {
            let event = call(api, "GET", "/2018-06-01/runtime/invocation/next", &[], "").await;
            let id = event.header("lambda-runtime-aws-request-id").unwrap().to_owned();
            let response = format!("/2018-06-01/runtime/invocation/{id}/response");
            call(api, "POST", &response, &[], r#"{"statusCode":200}"#).await;
        }
    });
    asked_to_end.recv().await;
    println!("asked to end");
    if std::env::var("ON_SIGTERM").is_ok_and(|behaviour| behaviour == "stays") {
        std::future::pending::<()>().await;
    }
    std::process::exit(0);
}

/// The reference extension.
#[tokio::test]
async fn forwarder() {
    if runtime_api().is_some() {
        otlp_forwarding_extension::run().await.unwrap();
    }
}

/// An extension that behaves as `BEHAVIOUR` says.
#[tokio::test]
async fn extension() {
    let Some(api) = runtime_api() else { return };
    let behaviour = std::env::var("BEHAVIOUR").unwrap_or_default();
    if behaviour == "never registers" {
        std::future::pending::<()>().await;
    }
    let headers = [("Lambda-Extension-Name", "extension")];
    let events = r#"{"events":["INVOKE","SHUTDOWN"]}"#;
    let registered = call(api, "POST", "/2020-01-01/extension/register", &headers, events).await;
    let id = registered.header("lambda-extension-identifier").unwrap().to_owned();
    let headers =
        [("Lambda-Extension-Identifier", id.as_str()), ("Lambda-Extension-Function-Error-Type", "Extension.X")];
    if behaviour == "never polls" {
        std::future::pending::<()>().await;
    }
    if behaviour == "fails in init" {
        call(api, "POST", "/2020-01-01/extension/init/error", &headers, "{}").await;
        std::future::pending::<()>().await;
    }
    let reports = Arc::new(tokio::sync::watch::Sender::new(0));
    let mut invocations = 0;
    if behaviour == "subscribes" {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://sandbox.localdomain:{}/telemetry", listener.local_addr().unwrap().port());
        let reports = reports.clone();
        let heard = move |axum::Json(events): axum::Json<Vec<Value>>| async move {
            events.iter().for_each(|event| println!("{event}"));
            let new = events.iter().filter(|event| event["type"] == "platform.report").count();
            reports.send_modify(|reports| *reports += new);
        };
        let app = axum::Router::new().route("/telemetry", axum::routing::post(heard));
        tokio::spawn(async move { axum::serve(listener, app).await });
        let subscription = json!({
            "schemaVersion": "2022-07-01", "types": ["platform", "function"],
            "buffering": { "maxItems": 1000, "maxBytes": 262_144, "timeoutMs": 25 },
            "destination": { "protocol": "HTTP", "URI": uri },
        });
        let answer = call(api, "PUT", "/2022-07-01/telemetry", &headers, subscription.to_string()).await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"OK"[..]));
    }
    loop {
        let event = call(api, "GET", "/2020-01-01/extension/event/next", &headers, "").await;
        let event: Value = serde_json::from_slice(&event.body).unwrap();
        println!("{}", json!({ "event": event, "trace_id": "63dd96301f7ec6c948e660f220ef3c92" }));
        match (event["eventType"].as_str().unwrap(), behaviour.as_str()) {
            ("INVOKE", "crashes") => std::process::exit(9),
            ("INVOKE", "stops polling") | ("SHUTDOWN", "does not end") => std::future::pending().await,
            // The report of the last invocation was held back by the freeze.
            ("SHUTDOWN", "subscribes") => {
                reports.subscribe().wait_for(|reports| *reports == invocations).await.unwrap();
                return;
            }
            ("SHUTDOWN", _) => return,
            _ => invocations += 1,
        }
    }
}

fn program(test: &str) -> Vec<String> {
    let this = std::env::current_exe().unwrap().display().to_string();
    vec![this, test.to_owned(), "--exact".into(), "--nocapture".into()]
}

/// An `[[extensions]]` entry for a test of this file.
fn extension_of(test: &str, env: &str) -> String {
    format!("[[deployments.f.extensions]]\nname = \"{test}\"\ncommand = {:?}\nenv = {{ {env} }}\n", program(test))
}

fn config(settings: &str) -> Config {
    let text = format!("[deployments.f]\nkind = \"lambda-process\"\ncommand = [\"x\"]\n{settings}");
    Config::parse(&text, Path::new("/"), Path::new("tracegate.toml")).unwrap()
}

/// A deployment with a sink of its own.
struct Running {
    deployment: Deployment,
    _sink: Sink,
}

impl std::ops::Deref for Running {
    type Target = Deployment;
    fn deref(&self) -> &Deployment {
        &self.deployment
    }
}

async fn start(function: &str, settings: &str) -> Result<Running, SiteError> {
    let store = Arc::new(Store::default());
    let sink = Sink::start(store.clone()).await.unwrap();
    let config = config(settings);
    let deployment = Deployment::start(
        &config.deployments["f"],
        program(function),
        Arc::new(ProcessSite),
        store,
        sink.address(),
        &BTreeMap::new(),
    )
    .await?;
    Ok(Running { deployment, _sink: sink })
}

async fn send(deployment: &Deployment, path: &str) -> Delivery {
    deployment.send(HttpRequest::get(path, Caller::fresh(0x63dd_9630, true))).await.unwrap()
}

async fn settled(deployment: &Deployment, delivery: &Delivery) -> Proof {
    deployment.settle(delivery, Instant::now() + PATIENCE).await.unwrap()
}

fn lines(capture: &Capture) -> Vec<String> {
    capture.logs().iter().map(|record| record.raw.clone()).collect()
}

fn error(delivery: &Delivery) -> (String, String) {
    delivery.invocation.clone().unwrap().error.unwrap()
}

/// The settings of a function that exports to the reference extension.
fn behind_the_forwarder() -> String {
    format!(
        "env = {{ OTEL_EXPORTER_OTLP_ENDPOINT = 'http://127.0.0.1:{{extension.forwarder.port}}' }}\n{}",
        extension_of(
            "forwarder",
            "TRACEGATE_EXTENSION_NAME = 'forwarder', TRACEGATE_LISTEN = '127.0.0.1:{extension.forwarder.port}'"
        )
    )
}

/// Invokes it cold, warm and cold again, and looks for the span of each invocation before its freeze.
async fn each_span_comes_before_its_freeze(running: &Running) {
    for cold in [true, false, true] {
        if cold {
            running.recycle().await;
        }
        let delivery = send(running, "/export").await;
        let invocation = delivery.invocation.clone().unwrap();
        assert_eq!(invocation.cold_start, cold, "{delivery:?}");
        assert!(matches!(settled(running, &delivery).await, Proof::Froze { .. }));
        running.store().look(|capture| {
            let spans: Vec<_> = capture.spans_of(delivery.trace_id().unwrap()).collect();
            assert_eq!(spans.len(), 1);
            let froze = Mark::Frozen { request_id: Some(invocation.request_id.clone()) };
            let froze = capture.lifecycle().iter().find(|made| made.mark == froze).unwrap();
            assert!(delivery.sent.seq < spans[0].arrival.seq && spans[0].arrival.seq < froze.arrival.seq);
            let sent = delivery.sent.seq..froze.arrival.seq;
            let said = |line: &&Arc<tracegate::telemetry::LogRecord>| line.raw == "handling /export";
            let lines: Vec<_> = capture.logs().iter().filter(said).collect();
            assert!(lines.iter().any(|line| sent.contains(&line.arrival.seq)), "{lines:?}");
            assert!(lines.iter().all(|line| !line.logger.starts_with("extension")), "{lines:?}");
        });
    }
    let exit = running.stop(Signal::SIGTERM, PATIENCE).await;
    assert!(exit.orderly, "{exit:?}");
    assert!(running.store().look(lines).iter().any(|line| line == "shut down: spindown"));
}

#[tokio::test]
async fn telemetry_goes_through_the_reference_extension_before_the_freeze_of_each_invocation() {
    let running = start("function", &behind_the_forwarder()).await.unwrap();
    each_span_comes_before_its_freeze(&running).await;
}

/// The same function and extensions in a container, `None` where no engine answers.
async fn start_contained(name: &str, settings: &str) -> Option<Running> {
    match engine_available().await {
        Ok(()) => {}
        Err(error) if std::env::var("TRACEGATE_REQUIRE").is_ok_and(|required| required.contains("container")) => {
            panic!("TRACEGATE_REQUIRE asks for containers: {error}")
        }
        Err(error) => {
            println!("not run: {error}");
            return None;
        }
    }
    let settings = settings.replace("deployments.f.", &format!("deployments.{name}."));
    let text = format!("[deployments.{name}]\nkind = \"lambda-container\"\nbinary = \"x\"\n{settings}");
    let config = Config::parse(&text, Path::new("/"), Path::new("tracegate.toml")).unwrap();
    let spec = &config.deployments[name];
    let store = Arc::new(Store::default());
    let sink = Sink::start(store.clone()).await.unwrap();
    let site = ContainerSite::new(&config, spec, Path::new(env!("CARGO_BIN_EXE_tracegate"))).await.unwrap();
    let (program, place) = (program("function"), BTreeMap::new());
    let deployment = Deployment::start(spec, program, Arc::new(site), store, sink.address(), &place).await;
    Some(Running { deployment: deployment.unwrap_or_else(|error| panic!("{error}: {:?}", error.source)), _sink: sink })
}

/// The states of the containers of a deployment, its neighbour not counted.
async fn containers_of(name: &str) -> Vec<String> {
    let docker = docker_client_instance().await.unwrap();
    let filters = HashMap::from([("label", vec![format!("{LABEL}={name}")])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let found = docker.list_containers(Some(options)).await.unwrap();
    found.into_iter().map(|one| format!("{:?}", one.state.unwrap()).to_lowercase()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_container_telemetry_goes_through_the_reference_extension_before_the_freeze_of_each_invocation() {
    let name = "extension-contained";
    let Some(running) = start_contained(name, &behind_the_forwarder()).await else { return };
    assert_eq!(containers_of(name).await, ["paused"], "function and extension share one container and its freeze");
    each_span_comes_before_its_freeze(&running).await;
    drop(running);
    assert_eq!(containers_of(name).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_container_a_function_that_ends_is_told_with_its_status_and_an_extension_that_does_not_end_is_killed() {
    let name = "extension-killed";
    let settings = extension_of("extension", "BEHAVIOUR = 'does not end'");
    let Some(running) = start_contained(name, &settings).await else { return };
    for (path, status) in [("/exit", "exit status: 3"), ("/killed", "signal: 9 (SIGKILL)")] {
        let delivery = send(&running, path).await;
        let (kind, message) = error(&delivery);
        assert_eq!(kind, "Runtime.ExitError");
        assert!(message.contains(status), "{path}: {message}");
        assert!(matches!(settled(&running, &delivery).await, Proof::Exited { .. }));
    }
    let delivery = send(&running, "/").await;
    assert!(delivery.response.status == 200 && delivery.invocation.unwrap().cold_start);
    let exit = running.stop(Signal::SIGTERM, PATIENCE).await;
    assert!(!exit.orderly && exit.status.contains("extension did not end within 2 s"), "{exit:?}");
    drop(running);
    assert_eq!(containers_of(name).await, [""; 0]);
}

#[tokio::test]
async fn an_extension_sees_each_invocation_and_its_lines_make_no_claim() {
    let running = start("function", &extension_of("extension", "")).await.unwrap();
    let delivery = send(&running, "/").await;
    assert_eq!(delivery.response.status, 200);
    settled(&running, &delivery).await;
    let exit = running.stop(Signal::SIGTERM, PATIENCE).await;
    assert!(exit.orderly && exit.status.contains("SIGTERM"), "{exit:?}");
    let invocation = delivery.invocation.unwrap();
    running.store().look(|capture| {
        let told: Vec<_> = capture.logs().iter().filter(|record| record.logger == "extension extension").collect();
        let events: Vec<Value> = told.iter().filter_map(|record| serde_json::from_str(&record.raw).ok()).collect();
        assert_eq!(events[0]["event"]["requestId"], invocation.request_id);
        assert_eq!(events[0]["event"]["tracing"]["value"], invocation.runtime_trace_header.unwrap());
        assert_eq!(events[1]["event"]["shutdownReason"], "spindown");
        assert!(told.iter().all(|record| record.format == LineFormat::Text && record.trace_id.valid().is_none()));
    });
}

#[tokio::test]
async fn a_subscriber_hears_of_init_and_invocation_and_of_the_report_after_the_thaw() {
    let running = start("function", &extension_of("extension", "BEHAVIOUR = 'subscribes'")).await.unwrap();
    let ids =
        [send(&running, "/one").await, send(&running, "/two").await].map(|sent| sent.invocation.unwrap().request_id);
    let heard = |capture: &Capture| -> Vec<Value> {
        let lines = capture.logs().iter().filter(|record| record.logger == "extension extension");
        lines.filter_map(|record| serde_json::from_str::<Value>(&record.raw).ok()).collect()
    };
    // The second environment's end: what was held back at the freeze of the second invocation comes now.
    let exit = running.stop(Signal::SIGTERM, PATIENCE).await;
    let events = running.store().look(heard);
    let at = |kind: &str, id: Option<&str>| {
        let found = events
            .iter()
            .position(|event| event["type"] == kind && id.is_none_or(|id| event["record"]["requestId"] == id));
        found.unwrap_or_else(|| panic!("no {kind} of {id:?} in {events:#?}; {exit:?}"))
    };
    let first = Some(ids[0].as_str());
    let order = [
        at("platform.initStart", None),
        at("platform.telemetrySubscription", None),
        at("platform.extension", None),
        at("platform.initReport", None),
        at("platform.start", first),
        at("platform.runtimeDone", first),
        at("platform.report", first),
        at("platform.start", Some(&ids[1])),
    ];
    assert!(order.is_sorted(), "{order:?}");
    let line = events.iter().find(|event| event["type"] == "function" && event["record"] == "handling /one");
    assert!(line.is_some(), "{events:#?}");
    assert!(!events.iter().any(|event| event["type"] == "platform.end" || event["type"] == "extension"));
}

#[tokio::test]
async fn an_init_that_an_extension_holds_up_is_an_error_that_names_it() {
    for (behaviour, expected) in [
        (
            "never registers",
            "the extension extension did not register within 300ms; it registers with its own name in Lambda-Extension-Name (none did)",
        ),
        ("never polls", "the extension extension registered and did not ask for an event within"),
        ("fails in init", "the extension extension reported an error: Extension.X"),
    ] {
        let settings = format!(
            "start-timeout = \"{}\"\n{}",
            if behaviour == "never registers" { "300ms" } else { "5s" },
            extension_of("extension", &format!("BEHAVIOUR = '{behaviour}'"))
        );
        let Err(error) = start("function", &settings).await else { panic!("{behaviour}: it started") };
        assert!(error.what.contains(expected), "{behaviour}: {error}");
    }
}

#[tokio::test]
async fn an_extension_that_stops_polling_ends_the_environment_at_the_timeout_and_is_named() {
    let settings =
        format!("function = {{ timeout = \"300ms\" }}\n{}", extension_of("extension", "BEHAVIOUR = 'stops polling'"));
    let running = start("function", &settings).await.unwrap();
    let delivery = send(&running, "/").await;
    assert_eq!(delivery.response.status, 200, "the runtime answered in time");
    let Proof::Exited { status } = settled(&running, &delivery).await else { panic!("it froze") };
    assert!(status.contains("the extension extension did not ask for the next event"), "{status}");
    assert!(send(&running, "/").await.invocation.unwrap().cold_start);
}

#[tokio::test]
async fn an_extension_that_crashes_fails_the_invocation_and_the_next_one_has_another_environment() {
    let settings = extension_of("extension", "BEHAVIOUR = 'crashes'");
    let running = start("function", &settings).await.unwrap();
    let delivery = send(&running, "/hang").await;
    let (kind, message) = error(&delivery);
    assert_eq!((delivery.response.status, kind.as_str()), (502, "Extension.Crash"));
    assert!(message.contains("the extension extension ended: exit status: 9"), "{message}");
}

#[tokio::test]
async fn what_goes_wrong_in_an_invocation_is_said_to_the_extension_before_it_ends() {
    for (path, reason, what) in [
        ("/exit", "failure", "exit status: 3"),
        ("/killed", "failure", "signal: 9 (SIGKILL)"),
        ("/hang", "timeout", "Task timed out after 0.50 seconds"),
    ] {
        let settings = format!("function = {{ timeout = \"500ms\" }}\n{}", extension_of("extension", ""));
        let running = start("function", &settings).await.unwrap();
        let delivery = send(&running, path).await;
        assert_eq!(delivery.response.status, 502);
        let (_, message) = error(&delivery);
        assert!(message.contains(what) && message.contains(&format!("handling {path}")), "{path}: {message}");
        assert!(matches!(settled(&running, &delivery).await, Proof::Exited { .. }));
        let found = running.store().look(lines).join("\n");
        assert!(found.contains(&format!("\"shutdownReason\":\"{reason}\"")), "{path}: {found}");
    }
}

#[tokio::test]
async fn an_extension_that_does_not_end_is_killed_after_two_seconds() {
    let running = start("function", &extension_of("extension", "BEHAVIOUR = 'does not end'")).await.unwrap();
    let began = Instant::now();
    let exit = running.stop(Signal::SIGTERM, PATIENCE).await;
    assert!(!exit.orderly && exit.status.contains("the extension extension did not end within 2 s"), "{exit:?}");
    assert!((Duration::from_secs(2)..Duration::from_secs(10)).contains(&began.elapsed()));
}

#[tokio::test]
async fn an_init_over_its_limit_is_made_again_within_the_first_invocation_and_fails_that() {
    let settings = "env = { SLOW_INIT = \"1\" }\nfunction = { init-timeout = \"200ms\", timeout = \"300ms\" }";
    let running = start("function", settings).await.unwrap();
    for _ in 0..2 {
        let delivery = send(&running, "/").await;
        let (kind, message) = error(&delivery);
        assert_eq!((delivery.response.status, kind.as_str()), (502, "Sandbox.Timedout"));
        assert!(message.contains("timed out in Init: did not ask for an event within 300ms"), "{message}");
        assert!(matches!(settled(&running, &delivery).await, Proof::Exited { .. }));
    }
}

#[tokio::test]
async fn an_init_that_exits_at_an_invocation_fails_it_with_the_last_output() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("env = {{ MARKER = '{}' }}", folder.path().join("started").display());
    let running = start("function_whose_init_exits_after_the_first", &settings).await.unwrap();
    let crashed = send(&running, "/").await;
    assert_eq!(error(&crashed).0, "Runtime.ExitError");
    let (kind, message) = error(&send(&running, "/").await);
    assert_eq!(kind, "Runtime.ExitError");
    assert!(message.contains("exit status: 1") && message.contains("no such table"), "{message}");
}

#[tokio::test]
async fn an_environment_without_extensions_is_killed_at_once() {
    let running = start("function", "").await.unwrap();
    running.recycle().await;
    let statuses = running.store().look(|capture| {
        let marks = capture.lifecycle().iter().map(|made| made.mark.clone());
        marks.filter(|mark| matches!(mark, Mark::Exited { .. } | Mark::EnvironmentEnded { .. })).collect::<Vec<_>>()
    });
    let [Mark::Exited { status: killed }, Mark::EnvironmentEnded { status, .. }] = &statuses[..] else {
        panic!("{statuses:?}")
    };
    assert_eq!((killed.as_str(), status.as_str()), ("signal: 9 (SIGKILL)", "the environment was shut down"));
}

#[tokio::test]
async fn without_freezing_the_next_invocation_comes_at_once_and_nothing_proves_completeness() {
    let running = start("function", "function = { freeze = false }").await.unwrap();
    let first = send(&running, "/").await;
    assert_eq!(send(&running, "/").await.response.status, 200);
    let unproven = running.settle(&first, Instant::now() + PATIENCE).await.unwrap_err();
    assert!(unproven.reason.contains("`function.freeze` is off"), "{unproven}");
    let frozen = running
        .store()
        .look(|capture| capture.lifecycle().iter().any(|made| matches!(made.mark, Mark::Frozen { .. } | Mark::Thawed)));
    assert!(!frozen);
}

#[tokio::test]
async fn an_internal_extension_sees_invocations_and_no_shutdown_and_its_runtime_has_half_a_second_to_end() {
    for (behaviour, status) in [("ends", "exit status: 0"), ("stays", "signal: 9 (SIGKILL)")] {
        let settings = format!("env = {{ ON_SIGTERM = '{behaviour}' }}");
        let running = start("function_with_an_internal_extension", &settings).await.unwrap();
        let delivery = send(&running, "/").await;
        assert_eq!(delivery.response.status, 200);
        assert!(matches!(settled(&running, &delivery).await, Proof::Froze { .. }), "both asked for the next event");
        let began = Instant::now();
        assert_eq!(running.recycle().await, 1);
        let took = began.elapsed();
        let found = running.store().look(lines);
        let has = |line: &str| found.iter().any(|found| found == line);
        assert!(has("asked for SHUTDOWN: 403"), "{found:#?}");
        assert!(has(&format!("inside saw INVOKE {}", delivery.invocation.unwrap().request_id)), "{found:#?}");
        assert!(has("asked to end") && !found.iter().any(|line| line.contains("inside saw SHUTDOWN")), "{found:#?}");
        let ended = running.store().look(|capture| {
            capture.lifecycle().iter().find_map(|made| match &made.mark {
                Mark::Exited { status } => Some(status.clone()),
                _ => None,
            })
        });
        assert_eq!(ended.as_deref(), Some(status));
        if behaviour == "stays" {
            assert!((Duration::from_millis(500)..Duration::from_secs(2)).contains(&took), "{took:?}");
        }
        assert!(send(&running, "/").await.invocation.unwrap().cold_start);
    }
}
