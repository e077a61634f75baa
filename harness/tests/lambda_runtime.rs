//! Functions on a real process with an unmodified `lambda_runtime`, and with a runtime that flushes after its response.
//!
//! The functions are tests of this file too: a deployment starts this test binary again with the name of one of them.
//! Without `AWS_LAMBDA_RUNTIME_API` they have nothing to do.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use lambda_runtime::{LambdaEvent, service_fn};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tracegate::{
    capture::{Mark, Store},
    config::Config,
    deployment::{Deployment, Proof, SiteError, process::ProcessSite},
    stimulus::{Caller, Client, ContextForm, Delivery, HttpRequest, Identity, http},
};

const PATIENCE: Duration = Duration::from_secs(30);

fn runtime_api() -> Option<SocketAddr> {
    std::env::var("AWS_LAMBDA_RUNTIME_API").ok()?.parse().ok()
}

/// A function on the `lambda_runtime` crate. Its path says how it behaves.
#[tokio::test]
async fn function() {
    if runtime_api().is_some() {
        lambda_runtime::run(service_fn(handle)).await.unwrap();
    }
}

/// The same as Lambda Managed Instances run it, with several invocations at a time.
#[tokio::test]
async fn function_with_several_invocations_at_a_time() {
    if runtime_api().is_some() {
        lambda_runtime::run_concurrent(service_fn(handle)).await.unwrap();
    }
}

async fn handle(event: LambdaEvent<Value>) -> Result<Value, String> {
    let payload = &event.payload;
    let path = payload["path"].as_str().or_else(|| payload["rawPath"].as_str()).unwrap_or_default().to_owned();
    println!("handling {path}");
    match path.as_str() {
        "/crash" => std::process::exit(3),
        "/hang" => return std::future::pending().await,
        "/fail" => return Err("on purpose".to_owned()),
        "/malformed" => return Ok(json!({ "statusCode": "none" })),
        "/slow" => {
            tokio::time::timeout(Duration::from_millis(400), std::future::pending::<()>()).await.unwrap_err();
            println!("slow one done");
            return Ok(json!({ "statusCode": 200 }));
        }
        "/event" => {
            return Ok(json!({
                "statusCode": 200, "isBase64Encoded": false,
                "headers": { "content-type": "application/json" },
                "multiValueHeaders": { "content-type": ["application/json"] },
                "body": event.payload.to_string(),
            }));
        }
        "/gate" => drop(at_the_gate(&event.context.request_id).await),
        "/late" => {
            answer_after_the_end(&event.context.request_id);
            return std::future::pending().await;
        }
        _ => {}
    }
    let context = event.context;
    let seen = json!({
        "request_id": context.request_id,
        "arn": context.invoked_function_arn,
        "deadline": context.deadline,
        "trace": context.xray_trace_id,
        "client_context": context.client_context,
        "identity": context.identity,
        "variable": std::env::var("_X_AMZN_TRACE_ID").ok(),
        "pid": std::process::id(),
        "log_stream": std::env::var("AWS_LAMBDA_LOG_STREAM_NAME").ok(),
    });
    Ok(json!({ "statusCode": 200, "headers": {}, "body": seen.to_string() }))
}

/// Says to the test who is here, and waits until it says to go on.
async fn at_the_gate(who: &str) -> TcpStream {
    let mut gate = TcpStream::connect(std::env::var("GATE").unwrap()).await.unwrap();
    gate.write_all(format!("{who}\n").as_bytes()).await.unwrap();
    gate.read_u8().await.unwrap();
    gate
}

/// Starts a process that outlives the environment, to answer an invocation that has timed out.
fn answer_after_the_end(request_id: &str) {
    use std::os::unix::process::CommandExt;
    let mut late = std::process::Command::new(std::env::current_exe().unwrap());
    late.args(["answer_that_comes_too_late", "--exact"]).env("LATE", request_id).process_group(0);
    late.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(late.spawn().unwrap());
}

/// What that process does.
#[tokio::test]
async fn answer_that_comes_too_late() {
    let Ok(id) = std::env::var("LATE") else { return };
    let mut gate = at_the_gate(&id).await;
    let request = HttpRequest {
        method: "POST".into(),
        target: format!("/2018-06-01/runtime/invocation/{id}/response"),
        headers: Vec::new(),
        body: r#"{"statusCode": 200}"#.into(),
        caller: Caller::fresh(1, true),
        form: ContextForm::Absent,
    };
    let response = http::send(runtime_api().unwrap(), &request, "runtime", PATIENCE).await.unwrap();
    let said = format!("{} {}", response.status, String::from_utf8_lossy(&response.body));
    gate.write_all(said.as_bytes()).await.unwrap();
}

/// Where functions wait until the test lets them go on.
struct Gate(TcpListener);

impl Gate {
    async fn open() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let env = format!("env = {{ GATE = \"{}\" }}\n", listener.local_addr().unwrap());
        (Self(listener), env)
    }

    /// The next one that comes: its request id, and the connection on which it waits.
    async fn arrival(&self) -> (String, BufReader<TcpStream>) {
        let (stream, _) = tokio::time::timeout(PATIENCE, self.0.accept()).await.unwrap().unwrap();
        let mut stream = BufReader::new(stream);
        let mut who = String::new();
        stream.read_line(&mut who).await.unwrap();
        (who.trim().to_owned(), stream)
    }
}

/// A runtime that writes a line between its response and its request for the next event, as runtimes flush telemetry.
#[tokio::test]
async fn function_that_flushes_after_its_response() {
    let Some(address) = runtime_api() else { return };
    let call = |method: &'static str, path: String, body: &'static str| async move {
        let request = HttpRequest {
            method: method.into(),
            target: format!("/2018-06-01/runtime/{path}"),
            headers: Vec::new(),
            body: body.into(),
            caller: Caller::fresh(1, true),
            form: ContextForm::Absent,
        };
        http::send(address, &request, "runtime", Duration::from_secs(3600)).await.unwrap()
    };
    loop {
        let event = call("GET", "invocation/next".into(), "").await;
        let id = event.header("lambda-runtime-aws-request-id").unwrap().to_owned();
        let response = call("POST", format!("invocation/{id}/response"), r#"{"statusCode": 200}"#).await;
        assert_eq!(response.status, 202);
        println!("flushed {id}");
    }
}

/// A function that ends before it asks for an event.
#[tokio::test]
async fn function_that_fails_in_init() {
    if runtime_api().is_some() {
        eprintln!("no such table");
        std::process::exit(7);
    }
}

async fn start(function: &str, settings: &str) -> Result<Deployment, SiteError> {
    let text = format!("[deployments.f]\nkind = \"lambda-process\"\ncommand = [\"x\"]\n{settings}");
    let config = Config::parse(&text, Path::new("/"), Path::new("tracegate.toml")).unwrap();
    let program = vec![
        std::env::current_exe().unwrap().display().to_string(),
        function.to_owned(),
        "--exact".into(),
        "--nocapture".into(),
    ];
    let sink = SocketAddr::from(([127, 0, 0, 1], 4318));
    let store = Arc::new(Store::default());
    Deployment::start(&config.deployments["f"], program, Arc::new(ProcessSite), store, sink, &BTreeMap::new()).await
}

fn get(target: &str, form: ContextForm) -> HttpRequest {
    HttpRequest {
        method: "GET".into(),
        target: target.into(),
        headers: Vec::new(),
        body: bytes::Bytes::new(),
        caller: Caller::fresh(0x63dd_9630, true),
        form,
    }
}

fn seen(delivery: &Delivery) -> Value {
    serde_json::from_slice(&delivery.response.body).unwrap_or_else(|_| panic!("{delivery:?}"))
}

async fn settled(deployment: &Deployment, delivery: &Delivery) -> Proof {
    deployment.settle(delivery, Instant::now() + PATIENCE).await.unwrap()
}

#[tokio::test]
async fn an_unmodified_runtime_sees_what_lambda_tells_it() {
    let deployment = start("function", "function = { name = \"orders\", version = \"7\" }").await.unwrap();
    let request = get("/files/", ContextForm::Both);
    let caller = request.caller;
    let delivery = deployment.send(request).await.unwrap();
    let seen = seen(&delivery);
    let invocation = delivery.invocation.clone().unwrap();
    assert_eq!(seen["request_id"], invocation.request_id);
    assert_eq!(seen["arn"], "arn:aws:lambda:us-west-2:123456789012:function:orders:7");
    let header = invocation.runtime_trace_header.unwrap();
    assert_eq!((&seen["trace"], &seen["variable"]), (&json!(header), &json!(header)));
    assert!(header.starts_with(&caller.xray_root()) && header.ends_with(";Sampled=1"), "{header}");
    assert_eq!(delivery.remote_parents(), [caller.span_id, invocation.runtime_parent.unwrap()]);
    let remaining = u128::from(seen["deadline"].as_u64().unwrap()) - u128::from(delivery.sent.unix_nano) / 1_000_000;
    assert!((29_000..31_000).contains(&remaining), "the default timeout is 30 s: {remaining} ms");
    let proof = settled(&deployment, &delivery).await;
    assert_eq!(proof, Proof::Froze { request_id: invocation.request_id });
    assert_eq!(proof.to_string(), "complete: environment froze");
}

#[tokio::test]
async fn each_form_of_context_gives_one_trace_that_both_headers_name() {
    let deployment = start("function", "").await.unwrap();
    for form in [ContextForm::Both, ContextForm::W3c, ContextForm::Xray, ContextForm::XrayRoot, ContextForm::Absent] {
        let delivery = deployment.send(get("/files/", form)).await.unwrap();
        let header = seen(&delivery)["trace"].as_str().unwrap().to_owned();
        assert!(header.starts_with(&delivery.caller.unwrap().xray_root()), "{form:?}: {header}");
    }
    let unsampled = HttpRequest { caller: Caller::fresh(1, false), ..get("/files/", ContextForm::Both) };
    let delivery = deployment.send(unsampled).await.unwrap();
    assert!(delivery.invocation.unwrap().runtime_trace_header.unwrap().ends_with(";Sampled=0"));
}

#[tokio::test]
async fn the_documented_event_is_delivered_as_it_is_and_carries_its_root_on() {
    let deployment = start("function", "").await.unwrap();
    let event: Value = serde_json::from_str(include_str!("../../features/documented-event.json")).unwrap();
    let delivery = deployment.deliver(event).await.unwrap();
    assert_eq!((delivery.method.as_str(), delivery.target.as_str()), ("GET", "/openapi.json"));
    assert_eq!(delivery.trace_id().unwrap().to_string(), "63dd96301f7ec6c948e660f220ef3c92");
    assert_eq!(delivery.form, ContextForm::XrayRoot);
    assert!(delivery.user_agent.starts_with("Mozilla/5.0"));
    assert_eq!(delivery.remote_parents(), [delivery.invocation.unwrap().runtime_parent.unwrap()]);
}

#[tokio::test]
async fn the_first_invocation_of_an_environment_is_a_cold_start() {
    let deployment = start("function", "").await.unwrap();
    let mut environments = Vec::new();
    for cold in [true, false, true] {
        if cold && !environments.is_empty() {
            deployment.recycle().await;
        }
        let delivery = deployment.send(get("/", ContextForm::Both)).await.unwrap();
        assert_eq!(delivery.invocation.as_ref().unwrap().cold_start, cold);
        environments.push((seen(&delivery)["pid"].clone(), seen(&delivery)["log_stream"].clone()));
    }
    assert_eq!(environments[0], environments[1]);
    assert_ne!(environments[1].0, environments[2].0);
    assert_ne!(environments[1].1, environments[2].1);
}

#[tokio::test]
async fn what_goes_wrong_in_a_function_is_a_502_that_names_it_and_the_next_invocation_works() {
    let deployment = start("function", "function = { timeout = \"300ms\" }").await.unwrap();
    for (path, kind, text, cold_after) in [
        ("/fail", "alloc::string::String", "on purpose", false),
        ("/malformed", "MalformedProxyResponse", "statusCode \"none\" is none", false),
        ("/hang", "Sandbox.Timedout", "Task timed out after 0.30 seconds", true),
        ("/crash", "Runtime.ExitError", "exit status: 3", true),
    ] {
        let delivery = deployment.send(get(path, ContextForm::Both)).await.unwrap();
        assert_eq!(delivery.response.status, 502, "{path}");
        let (error_type, message) = delivery.invocation.clone().unwrap().error.unwrap();
        assert!(error_type.contains(kind) && message.contains(text), "{path}: {error_type}: {message}");
        if cold_after {
            assert!(message.contains(&format!("handling {path}")), "the last output: {message}");
        }
        let proof = settled(&deployment, &delivery).await;
        assert_eq!(matches!(proof, Proof::Exited { .. }), cold_after, "{path}: {proof}");
        let next = deployment.send(get("/", ContextForm::Both)).await.unwrap();
        assert_eq!((next.response.status, next.invocation.unwrap().cold_start), (200, cold_after), "after {path}");
    }
}

#[tokio::test]
async fn a_function_that_cannot_start_is_an_error_with_its_last_output() {
    let error = start("function_that_fails_in_init", "").await.unwrap_err();
    assert!(error.what.contains("exit status: 7") && error.what.contains("stderr | no such table"), "{error}");
    let error = start("no_such_function", "start-timeout = \"20s\"").await.unwrap_err();
    assert!(error.what.contains("before its runtime asked for an event"), "{error}");
}

#[tokio::test]
async fn each_kind_of_gateway_delivers_its_event_and_fails_in_its_own_way() {
    for (kind, member, failed) in [
        ("rest-api", "/requestContext/identity", 502),
        ("http-api", "/rawPath", 500),
        ("alb", "/requestContext/elb", 502),
        ("alb-multi-value", "/multiValueHeaders/host/0", 502),
        ("function-url", "/rawPath", 502),
    ] {
        let deployment = start("function", &format!("gateway = {{ kind = \"{kind}\" }}")).await.unwrap();
        let delivery = deployment.send(get("/event", ContextForm::Both)).await.unwrap();
        assert!(seen(&delivery).pointer(member).is_some(), "{kind}: {delivery:?}");
        let header = delivery.invocation.clone().unwrap().runtime_trace_header.unwrap();
        assert!(header.starts_with(&delivery.caller.unwrap().xray_root()), "{kind}: {header}");
        for path in ["/fail", "/malformed"] {
            let delivery = deployment.send(get(path, ContextForm::Both)).await.unwrap();
            assert_eq!(delivery.response.status, failed, "{kind} {path}");
            assert!(delivery.invocation.unwrap().error.is_some(), "{kind} {path}");
        }
    }
}

#[tokio::test]
async fn a_gateway_does_not_wait_longer_than_its_timeout_and_the_invocation_is_still_proven_to_its_end() {
    let deployment = start("function", "gateway = { timeout = \"100ms\" }").await.unwrap();
    let (slow, next) = tokio::join!(
        deployment.send(get("/slow", ContextForm::Both)),
        // Sent at once, so it stands behind the slow one for longer than the timeout, which counts only its own time.
        deployment.send(get("/", ContextForm::Both)),
    );
    let (slow, next) = (slow.unwrap(), next.unwrap());
    assert_eq!((slow.response.status, next.response.status), (504, 200), "{slow:?} {next:?}");
    let invocation = slow.invocation.clone().unwrap();
    assert!(invocation.cold_start && invocation.error.unwrap().0 == "IntegrationTimeout");
    assert_ne!(invocation.request_id, next.invocation.unwrap().request_id);
    assert_eq!(settled(&deployment, &slow).await, Proof::Froze { request_id: invocation.request_id });
    let done =
        |capture: &tracegate::capture::Capture| capture.logs().iter().any(|record| record.raw == "slow one done");
    assert!(deployment.store().look(done));
}

#[tokio::test]
async fn a_context_that_the_client_writes_itself_is_carried_on_like_any_other() {
    let deployment = start("function", "").await.unwrap();
    let caller = Caller::fresh(0x63dd_9630, false);
    for (header, value, form) in [
        ("x-amzn-trace-id", caller.xray_header(), ContextForm::Xray),
        ("Traceparent", caller.traceparent(), ContextForm::W3c),
        ("X-Amzn-Trace-Id", caller.xray_root(), ContextForm::XrayRoot),
        ("X-Amzn-Trace-Id", "garbage".into(), ContextForm::Absent),
    ] {
        let headers = vec![(header.to_owned(), value.clone())];
        let delivery = deployment.send(HttpRequest { headers, ..get("/", ContextForm::Absent) }).await.unwrap();
        assert_eq!(delivery.form, form, "{value}");
        let header = seen(&delivery)["trace"].as_str().unwrap().to_owned();
        assert_eq!(header.starts_with(&caller.xray_root()), form != ContextForm::Absent, "{value}: {header}");
        let sampled = matches!(form, ContextForm::XrayRoot | ContextForm::Absent);
        assert_eq!(header.ends_with(";Sampled=1"), sampled, "{value}: {header}");
    }
}

/// What the runtime and the event are told of a client's own `X-Amzn-Trace-Id`, its name in any case.
async fn told(deployment: &Deployment, name: &str, value: &str) -> (String, String) {
    let headers = vec![(name.to_owned(), value.to_owned())];
    let delivery = deployment.send(HttpRequest { headers, ..get("/event", ContextForm::Absent) }).await.unwrap();
    assert_eq!(delivery.response.status, 200, "{value}");
    let invocation = delivery.invocation.clone().unwrap();
    let event = tracegate::stimulus::gateway::Literal::read(&seen(&delivery));
    assert_eq!(event.xray, invocation.event_trace_header, "{value}");
    (invocation.runtime_trace_header.unwrap(), invocation.event_trace_header.unwrap())
}

#[tokio::test]
async fn lambda_keeps_the_root_of_any_usable_header_and_makes_the_parent_itself() {
    let root = "Root=1-63dd9630-1f7ec6c948e660f220ef3c92";
    let parent = "Parent=53995c3f42cd8ad8";
    for gateway in ["rest-api", "http-api", "alb", "alb-multi-value", "function-url"] {
        let deployment = start("function", &format!("gateway = {{ kind = \"{gateway}\" }}")).await.unwrap();
        for (name, value, sampled) in [
            ("X-Amzn-Trace-Id", format!("{root};{parent};Sampled=1"), 1),
            ("x-amzn-trace-id", format!("Sampled=0;{parent};{root}"), 0),
            (
                "X-AMZN-TRACE-ID",
                format!("Lineage=a87bd80c:1;Sampled=?;{root};Self=1-63dd9631-1f7ec6c948e660f220ef3c93"),
                1,
            ),
            ("x-Amzn-tRace-iD", root.to_owned(), 1),
        ] {
            let (runtime, event) = told(&deployment, name, &value).await;
            assert!(event.contains(root), "{gateway}: {event}");
            let made =
                runtime.strip_prefix(&format!("{root};Parent=")).unwrap_or_else(|| panic!("{gateway}: {runtime}"));
            let (made, decision) = made.split_once(';').unwrap();
            assert!(made.len() == 16 && made != "53995c3f42cd8ad8", "{gateway}: {runtime}");
            assert_eq!(decision, format!("Sampled={sampled}"), "{gateway}: {value}");
        }
    }
}

#[tokio::test]
async fn garbage_in_the_trace_header_is_no_error_and_a_new_root_is_made() {
    let deployment = start("function", "").await.unwrap();
    let mut roots = std::collections::BTreeSet::new();
    for value in [
        "garbage",
        "Root=",
        "Root=1-63dd9630",
        "Root=1-63dd9630-1f7ec6c948e660f220ef3c9é",
        "Root=1-00000000-000000000000000000000000;Parent=53995c3f42cd8ad8;Sampled=0",
        ";;=;Sampled",
    ] {
        let (runtime, _) = told(&deployment, "X-Amzn-Trace-Id", value).await;
        let root = runtime.split(';').next().unwrap().to_owned();
        let (time, random) = root.strip_prefix("Root=1-").unwrap().split_once('-').unwrap();
        assert!(time.len() == 8 && random.len() == 24 && !random.starts_with("1f7ec6c9"), "{value}: {runtime}");
        assert!(runtime.ends_with(";Sampled=1"), "{value}: {runtime}");
        roots.insert(root);
    }
    assert_eq!(roots.len(), 6, "each has a root of its own");
    let event = json!({ "path": "/", "httpMethod": "GET", "headers": { "X-Amzn-Trace-Id": "garbage" } });
    let delivery = deployment.deliver(event).await.unwrap();
    let header = seen(&delivery)["trace"].as_str().unwrap().to_owned();
    assert!(header.starts_with("Root=1-") && delivery.form == ContextForm::Absent, "{header}");
}

#[tokio::test]
async fn with_active_tracing_off_nothing_is_sampled_whatever_the_client_says() {
    let deployment = start("function", "function = { tracing = false }").await.unwrap();
    let root = "Root=1-63dd9630-1f7ec6c948e660f220ef3c92";
    for value in [format!("{root};Parent=53995c3f42cd8ad8;Sampled=1"), root.to_owned()] {
        let (runtime, _) = told(&deployment, "X-Amzn-Trace-Id", &value).await;
        assert!(runtime.starts_with(root) && runtime.ends_with(";Sampled=0"), "{runtime}");
    }
}

#[tokio::test]
async fn an_event_for_which_the_api_has_no_resource_invokes_nothing() {
    let deployment = start("function", "gateway = { resource = \"/files/{path}\" }").await.unwrap();
    let delivery = deployment.send(get("/other", ContextForm::Both)).await.unwrap();
    assert_eq!((delivery.response.status, &delivery.invocation), (403, &None));
    assert_eq!(settled(&deployment, &delivery).await, Proof::NotInvoked);
}

#[tokio::test]
async fn a_stopped_function_ends_by_the_signal_although_it_is_frozen() {
    let deployment = start("function", "").await.unwrap();
    let exit = deployment.stop(Signal::SIGTERM, PATIENCE).await;
    assert!(exit.orderly && exit.status.contains("SIGTERM"), "{exit:?}");
}

#[tokio::test]
async fn dropping_a_function_kills_its_frozen_environment_and_one_that_is_being_invoked() {
    for path in [None, Some("/hang")] {
        let deployment = Arc::new(start("function", "").await.unwrap());
        let store = deployment.store().clone();
        if let Some(path) = path {
            let invocation = tokio::spawn({
                let deployment = deployment.clone();
                async move { deployment.send(get(path, ContextForm::Both)).await }
            });
            let line = store.until(Instant::now() + PATIENCE, |capture| {
                capture.logs().iter().find(|record| record.raw == format!("handling {path}")).cloned()
            });
            assert!(line.await.is_some());
            invocation.abort();
            assert!(invocation.await.unwrap_err().is_cancelled());
        }
        drop(Arc::into_inner(deployment).unwrap());
        let status = store.until(Instant::now() + PATIENCE, |capture| match &capture.lifecycle().last()?.mark {
            Mark::Exited { status } => Some(status.clone()),
            _ => None,
        });
        assert_eq!(status.await.as_deref(), Some("signal: 9 (SIGKILL)"), "{path:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hundred_invocations_none_is_lost_and_each_freezes_only_behind_its_flush() {
    let deployment = start("function_that_flushes_after_its_response", "").await.unwrap();
    let (mut ids, mut environment) = (Vec::new(), String::new());
    for _ in 0..200 {
        let delivery = deployment.send(get("/", ContextForm::Both)).await.unwrap();
        assert_eq!(delivery.response.status, 200);
        let invocation = delivery.invocation.clone().unwrap();
        environment = invocation.environment;
        ids.push(invocation.request_id);
        if ids.len() == 200 {
            settled(&deployment, &delivery).await;
        }
    }
    deployment.store().look(|capture| {
        let at = |mark: Mark| {
            let found: Vec<u64> =
                capture.lifecycle().iter().filter(|made| made.mark == mark).map(|made| made.arrival.seq).collect();
            assert_eq!(found.len(), 1, "{mark:?} is there once");
            found[0]
        };
        for id in &ids {
            let request_id = id.clone();
            let flushed: Vec<u64> = capture
                .logs()
                .iter()
                .filter(|record| record.raw == format!("flushed {id}"))
                .map(|record| record.arrival.seq)
                .collect();
            let order = [
                at(Mark::Dispatched { request_id: request_id.clone(), environment: environment.clone() }),
                at(Mark::Responded { request_id: request_id.clone() }),
                flushed[0],
                at(Mark::Frozen { request_id: Some(request_id) }),
            ];
            assert!(flushed.len() == 1 && order.is_sorted(), "{id}: {order:?}");
        }
    });
}

#[tokio::test]
async fn who_has_gone_while_it_stood_in_line_invokes_nothing() {
    let (gate, env) = Gate::open().await;
    let deployment = Arc::new(start("function", &env).await.unwrap());
    let send = |path: &'static str| {
        let deployment = deployment.clone();
        tokio::spawn(async move { deployment.send(get(path, ContextForm::Both)).await.unwrap() })
    };
    let held = send("/gate");
    let (_, mut stream) = gate.arrival().await;
    let gone = send("/gone");
    tokio::task::yield_now().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    stream.write_u8(1).await.unwrap();
    assert_eq!(held.await.unwrap().response.status, 200);
    let next = send("/").await.unwrap();
    settled(&deployment, &next).await;
    let handed_out = |capture: &tracegate::capture::Capture| {
        capture.lifecycle().iter().filter(|made| matches!(made.mark, Mark::Dispatched { .. })).count()
    };
    assert_eq!(deployment.store().look(handed_out), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invocations_that_are_sent_at_once_run_one_after_the_other() {
    let deployment = Arc::new(start("function", "").await.unwrap());
    let sent: Vec<_> = (0..40)
        .map(|_| {
            let deployment = deployment.clone();
            tokio::spawn(async move { deployment.send(get("/", ContextForm::Both)).await.unwrap() })
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for delivery in sent {
        let delivery = delivery.await.unwrap();
        assert_eq!(seen(&delivery)["request_id"], delivery.invocation.as_ref().unwrap().request_id);
        ids.insert(delivery.invocation.unwrap().request_id);
    }
    assert_eq!(ids.len(), 40);
}

#[tokio::test]
async fn an_unmodified_runtime_sees_who_the_caller_is_and_nothing_when_nobody_says() {
    let deployment = start("function", "").await.unwrap();
    let identity = Identity {
        // This runtime wants all that an SDK says of the app.
        client_context: Some(
            json!({
                "client": {
                    "installation_id": "i", "app_title": "orders", "app_version_name": "1", "app_version_code": "1",
                    "app_package_name": "example.orders",
                },
                "custom": { "tenant": "a" },
            })
            .to_string(),
        ),
        cognito: Some(r#"{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}"#.into()),
    };
    let said = deployment
        .send_for(get("/", ContextForm::Both), Client { identity: identity.clone(), connection: None })
        .await
        .unwrap();
    assert_eq!(seen(&said)["client_context"]["client"]["appTitle"], "orders");
    assert_eq!(seen(&said)["client_context"]["custom"]["tenant"], "a");
    assert_eq!(seen(&said)["identity"], json!({ "identityId": "i", "identityPoolId": "p" }));
    let literal = deployment.deliver_for(json!({ "path": "/" }), identity).await.unwrap();
    assert_eq!(seen(&literal)["identity"]["identityId"], "i");
    let anonymous = deployment.send(get("/", ContextForm::Both)).await.unwrap();
    assert_eq!((&seen(&anonymous)["client_context"], &seen(&anonymous)["identity"]), (&Value::Null, &Value::Null));
}

/// Sends requests that are all under way until each is let go on, the last one first.
async fn all_at_once(deployment: &Arc<Deployment>, gate: &Gate, count: usize) -> Vec<Delivery> {
    let sent: Vec<_> = (0..count)
        .map(|_| {
            let deployment = deployment.clone();
            tokio::spawn(async move { deployment.send(get("/gate", ContextForm::Both)).await.unwrap() })
        })
        .collect();
    let mut waiting = Vec::new();
    for _ in 0..count {
        waiting.push(gate.arrival().await.1);
    }
    // Nobody has an answer, so all of them are in flight.
    assert!(sent.iter().all(|sending| !sending.is_finished()));
    for mut stream in waiting.into_iter().rev() {
        stream.write_u8(1).await.unwrap();
    }
    let mut deliveries = Vec::new();
    for sending in sent {
        deliveries.push(sending.await.unwrap());
    }
    for delivery in &deliveries {
        assert_eq!(seen(delivery)["request_id"], delivery.invocation.as_ref().unwrap().request_id, "its own answer");
    }
    deliveries
}

fn environments(deliveries: &[Delivery]) -> BTreeSet<String> {
    deliveries.iter().map(|delivery| delivery.invocation.clone().unwrap().environment).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_at_the_same_time_each_get_an_environment_and_later_ones_find_them_warm() {
    let (gate, env) = Gate::open().await;
    let settings = format!("{env}function = {{ environments = 3 }}");
    let deployment = Arc::new(start("function", &settings).await.unwrap());
    let first = all_at_once(&deployment, &gate, 3).await;
    assert_eq!(environments(&first).len(), 3);
    assert!(first.iter().all(|delivery| delivery.invocation.as_ref().unwrap().cold_start));
    for delivery in &first {
        assert!(matches!(settled(&deployment, delivery).await, Proof::Froze { .. }));
        assert_eq!(seen(delivery)["log_stream"], delivery.invocation.as_ref().unwrap().environment);
    }
    let second = all_at_once(&deployment, &gate, 3).await;
    assert_eq!(environments(&second), environments(&first));
    assert!(second.iter().all(|delivery| !delivery.invocation.as_ref().unwrap().cold_start));
    assert_eq!(deployment.recycle().await, 3);
    let exit = deployment.stop(Signal::SIGTERM, PATIENCE).await;
    assert_eq!(exit.status, "no execution environment is running");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_one_environment_proves_nothing_of_an_invocation_in_another() {
    let (gate, env) = Gate::open().await;
    let settings = format!("{env}function = {{ environments = 2 }}");
    let deployment = Arc::new(start("function", &settings).await.unwrap());
    let held = tokio::spawn({
        let deployment = deployment.clone();
        async move { deployment.send(get("/gate", ContextForm::Both)).await.unwrap() }
    });
    let (_, mut stream) = gate.arrival().await;
    let crashed = deployment.send(get("/crash", ContextForm::Both)).await.unwrap();
    assert!(matches!(settled(&deployment, &crashed).await, Proof::Exited { .. }));
    stream.write_u8(1).await.unwrap();
    let held = held.await.unwrap();
    assert_eq!(held.response.status, 200);
    assert_eq!(environments(&[held.clone(), crashed]).len(), 2);
    assert!(matches!(settled(&deployment, &held).await, Proof::Froze { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_managed_instance_one_environment_has_several_invocations_in_flight_and_never_freezes() {
    let (gate, env) = Gate::open().await;
    let settings = format!("{env}function = {{ concurrency = 4 }}");
    let deployment = Arc::new(start("function_with_several_invocations_at_a_time", &settings).await.unwrap());
    let together = all_at_once(&deployment, &gate, 4).await;
    assert_eq!(environments(&together).len(), 1);
    let cold = |delivery: &&Delivery| delivery.invocation.as_ref().unwrap().cold_start;
    assert_eq!(together.iter().filter(cold).count(), 1, "the first one");
    let unproven = deployment.settle(&together[0], Instant::now() + PATIENCE).await.unwrap_err();
    assert!(unproven.reason.contains("`function.concurrency` is never frozen"), "{unproven}");
    let mut ids = BTreeSet::new();
    let many: Vec<_> = (0..100)
        .map(|_| {
            let deployment = deployment.clone();
            tokio::spawn(async move { deployment.send(get("/", ContextForm::Both)).await.unwrap() })
        })
        .collect();
    for sending in many {
        let delivery = sending.await.unwrap();
        assert_eq!(seen(&delivery)["request_id"], delivery.invocation.as_ref().unwrap().request_id);
        assert_eq!(seen(&delivery)["variable"], Value::Null, "one variable cannot name several traces");
        ids.insert(delivery.invocation.unwrap().request_id);
    }
    assert_eq!(ids.len(), 100);
    let frozen = |capture: &tracegate::capture::Capture| {
        capture.lifecycle().iter().any(|made| matches!(made.mark, Mark::Frozen { .. } | Mark::Thawed))
    };
    assert!(!deployment.store().look(frozen));
    let exit = deployment.stop(Signal::SIGTERM, PATIENCE).await;
    assert!(exit.status.contains("SIGTERM"), "{exit:?}");
    assert!(matches!(settled(&deployment, &together[0]).await, Proof::Exited { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_managed_instance_a_timeout_fails_its_invocation_only_and_a_crash_all_of_them() {
    let (gate, env) = Gate::open().await;
    let settings = format!("{env}function = {{ concurrency = 3, timeout = \"2s\" }}");
    let deployment = Arc::new(start("function_with_several_invocations_at_a_time", &settings).await.unwrap());
    let send = |path: &'static str| {
        let deployment = deployment.clone();
        tokio::spawn(async move { deployment.send(get(path, ContextForm::Both)).await.unwrap() })
    };
    let hanging = send("/hang").await.unwrap();
    let (kind, message) = hanging.invocation.clone().unwrap().error.unwrap();
    assert_eq!((hanging.response.status, kind.as_str()), (502, "Sandbox.Timedout"));
    assert!(message.contains("Task timed out after 2.00 seconds") && message.contains("handling /hang"), "{message}");
    let after = send("/").await.unwrap();
    assert_eq!(environments(&[hanging, after.clone()]).len(), 1, "the environment goes on");
    let held = send("/gate");
    let (_, _stream) = gate.arrival().await;
    let crashed = send("/crash").await.unwrap();
    let held = held.await.unwrap();
    for delivery in [&crashed, &held] {
        let (kind, message) = delivery.invocation.clone().unwrap().error.unwrap();
        assert!(kind == "Runtime.ExitError" && message.contains("exit status: 3"), "{kind}: {message}");
    }
    let next = send("/").await.unwrap();
    assert!(next.response.status == 200 && next.invocation.as_ref().unwrap().cold_start);
    assert_eq!(environments(&[crashed, next]).len(), 2);
}

#[tokio::test]
async fn a_response_after_the_timeout_is_refused_and_the_next_invocation_is_cold_and_unaffected() {
    let (gate, env) = Gate::open().await;
    let deployment = start("function", &format!("{env}function = {{ timeout = \"1s\" }}")).await.unwrap();
    let timed_out = deployment.send(get("/late", ContextForm::Both)).await.unwrap();
    let (who, mut late) = gate.arrival().await;
    let (kind, message) = timed_out.invocation.clone().unwrap().error.unwrap();
    assert_eq!((timed_out.response.status, kind.as_str()), (502, "Sandbox.Timedout"));
    assert!(message.contains("Task timed out after 1.00 seconds") && message.contains("handling /late"), "{message}");
    assert_eq!(timed_out.invocation.unwrap().request_id, who);
    let next = deployment.send(get("/", ContextForm::Both)).await.unwrap();
    assert!(next.response.status == 200 && next.invocation.as_ref().unwrap().cold_start);
    late.write_u8(1).await.unwrap();
    let mut refused = String::new();
    tokio::time::timeout(PATIENCE, late.read_to_string(&mut refused)).await.unwrap().unwrap();
    assert!(refused.starts_with("400 ") && refused.contains("InvalidRequestID"), "{refused}");
    let third = deployment.send(get("/", ContextForm::Both)).await.unwrap();
    assert_eq!(seen(&third)["request_id"], third.invocation.as_ref().unwrap().request_id);
    assert_eq!(environments(&[next, third]).len(), 1);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_report_has_the_most_memory_that_the_environment_used() {
    let deployment = start("function", "").await.unwrap();
    let delivery = deployment.send(get("/", ContextForm::Both)).await.unwrap();
    settled(&deployment, &delivery).await;
    let report = deployment.store().look(|capture| {
        capture.logs().iter().find(|record| record.raw.starts_with("REPORT ")).map(|record| record.raw.clone())
    });
    let report = report.unwrap();
    let used = report.split_once("Max Memory Used: ").unwrap().1.split_once(" MB").unwrap().0;
    assert!((1..512).contains(&used.parse::<u64>().unwrap()), "{report}");
}
