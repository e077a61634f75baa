//! The binary as a Lambda function, with a Runtime API of this test.

#[path = "support/process.rs"]
mod process;
#[path = "support/receiver.rs"]
mod receiver;

use std::{collections::VecDeque, sync::Arc, time::SystemTime};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::StatusCode,
    response::Response,
    routing::{get, post},
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use process::Process;
use receiver::{Received, Receiver, message, text, value};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
};

const ARN: &str = "arn:aws:lambda:us-west-2:123456789012:function:files";
const RUNTIME: &str = "Root=1-63dd9630-1f7ec6c948e660f220ef3c92;Parent=53995c3f42cd8ad8;Sampled=1";

/// What the function told the Runtime API, in order.
#[derive(Debug)]
enum Told {
    /// It asked for the next event, with so much telemetry out by then.
    Next(Box<Received>),
    /// It posted to `response` or `error`.
    Posted(String, Value),
}

/// An event, and the trace header that comes with it.
type Invocation = (Bytes, Option<String>);

#[derive(Clone)]
struct RuntimeApi {
    invocations: Arc<Mutex<VecDeque<Invocation>>>,
    told: mpsc::UnboundedSender<Told>,
    receiver: Receiver,
    count: Arc<std::sync::atomic::AtomicUsize>,
}

async fn next(State(api): State<RuntimeApi>) -> Response {
    api.told.send(Told::Next(Box::new(api.receiver.received()))).unwrap();
    let Some((event, trace)) = api.invocations.lock().await.pop_front() else {
        return std::future::pending().await;
    };
    let number = api.count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let mut response = Response::builder()
        .header("lambda-runtime-aws-request-id", format!("request-{number}"))
        .header("lambda-runtime-deadline-ms", (now.as_millis() + 30_000).to_string())
        .header("lambda-runtime-invoked-function-arn", ARN);
    if let Some(trace) = trace {
        response = response.header("lambda-runtime-trace-id", trace);
    }
    response.body(Body::from(event)).unwrap()
}

async fn posted(State(api): State<RuntimeApi>, Path((id, what)): Path<(String, String)>, body: Bytes) -> StatusCode {
    let body = serde_json::from_slice(&body).unwrap();
    api.told.send(Told::Posted(format!("{id}/{what}"), body)).unwrap();
    StatusCode::ACCEPTED
}

/// What came of each invocation: where the answer went, the answer, and the telemetry that was out
/// when the function asked for the next event.
struct Outcome {
    posted: String,
    answer: Value,
    telemetry: Received,
}

impl Outcome {
    fn header(&self, name: &str) -> &str {
        self.answer["multiValueHeaders"][name][0].as_str().unwrap_or_default()
    }
}

async fn invoke(settings: &[(&str, &str)], invocations: Vec<(Bytes, Option<&str>)>) -> (Vec<Outcome>, Process) {
    let receiver = Receiver::start().await;
    let (told, mut telling) = mpsc::unbounded_channel();
    let count = invocations.len();
    let api = RuntimeApi {
        invocations: Arc::new(Mutex::new(
            invocations.into_iter().map(|(event, trace)| (event, trace.map(str::to_owned))).collect(),
        )),
        told,
        receiver: receiver.clone(),
        count: Arc::default(),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let app = Router::new()
        .route("/2018-06-01/runtime/invocation/next", get(next))
        .route("/2018-06-01/runtime/invocation/{id}/{what}", post(posted))
        .with_state(api);
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut variables = vec![
        ("AWS_LAMBDA_RUNTIME_API", address.as_str()),
        ("AWS_LAMBDA_FUNCTION_NAME", "files"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "7"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ("AWS_REGION", "us-west-2"),
        ("ROOT_PATH", "/prod"),
        ("FRONTEND_CORS_URL", "https://frontend.example"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
        ("OTEL_BLRP_SCHEDULE_DELAY", "3600000"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"),
    ];
    variables.extend(settings);
    let mut process = Process::start(&[], &variables);
    assert!(matches!(telling.recv().await, Some(Told::Next(_))));
    let mut outcomes = Vec::new();
    for _ in 0..count {
        let Some(Told::Posted(posted, answer)) = telling.recv().await else {
            panic!("no answer");
        };
        let Some(Told::Next(telemetry)) = telling.recv().await else {
            panic!("no next");
        };
        outcomes.push(Outcome { posted, answer, telemetry: *telemetry });
    }
    process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(process.end().await, (Some(0), String::new()));
    (outcomes, process)
}

fn sample(name: &str) -> Bytes {
    let path = format!("{}/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(path).unwrap().into()
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn the_documented_event_is_one_trace_under_the_runtimes_parent() {
    let (outcomes, process) = invoke(&[], vec![(sample("documented-event"), Some(RUNTIME))]).await;
    let outcome = &outcomes[0];
    assert_eq!(outcome.posted, "request-1/response");
    assert_eq!(outcome.answer["statusCode"], 200);
    let received = &outcome.telemetry;
    let invocation = received.span("GET /{proxy+}");
    let request = received.span("GET /openapi.json");
    assert_eq!(hex(&invocation.trace_id), "63dd96301f7ec6c948e660f220ef3c92");
    assert_eq!(hex(&invocation.parent_span_id), "53995c3f42cd8ad8");
    assert_eq!(request.parent_span_id, invocation.span_id);
    assert_eq!((invocation.kind, request.kind), (2, 2));
    for (key, expected) in [
        ("faas.trigger", "http"),
        ("faas.invocation_id", "request-1"),
        ("faas.name", "files"),
        ("faas.version", "7"),
        ("cloud.provider", "aws"),
        ("cloud.region", "us-west-2"),
        ("cloud.account.id", "123456789012"),
        ("cloud.resource_id", ARN),
        ("http.route", "/{proxy+}"),
    ] {
        assert_eq!(text(&invocation.attributes, key), expected, "{key}");
    }
    assert_eq!(value(&invocation.attributes, "faas.coldstart"), Any::BoolValue(true));
    assert_eq!(value(&invocation.attributes, "http.response.status_code"), Any::IntValue(200));
    assert_eq!(text(&request.attributes, "client.address"), "172.59.153.63");
    assert_eq!(value(&request.attributes, "server.port"), Any::IntValue(443));
    assert!(received.metrics.contains(&"http.server.request.duration".to_owned()));
    let messages: Vec<_> = received.logs.iter().map(|(_, record)| message(record)).collect();
    assert_eq!(messages, ["Request details", "Response details"]);
    for line in process.seen {
        assert_eq!(line["span_id"], hex(&request.span_id), "{line}");
        assert_eq!(line["aws_request_id"], "request-1");
    }
}

#[tokio::test]
async fn the_sample_events_are_answered_as_the_original_answers_them() {
    let missing = r#"{"detail":"Could not find file: missing.txt"}"#;
    let required = r#"{"detail":[{"type":"missing","loc":["query","content"],"msg":"Field required","input":null}]}"#;
    let samples = [
        ("healthcheck", 200, r#""200 OK""#),
        ("list-files", 200, r#"{"files":[]}"#),
        ("post-file", 200, r#"{"path":"a.txt"}"#),
        ("post-file-unicode", 200, r#"{"path":"u.txt"}"#),
        ("get-file", 200, "hello"),
        ("get-file-missing", 404, missing),
        ("list-files-directory", 200, r#"{"files":[]}"#),
        ("post-file-without-content", 422, required),
        ("post-json-body", 200, r#"{"path":"b.txt"}"#),
        // Difference: a body that does not decode is nobody's business (bug 11).
        ("post-binary-body", 200, r#"{"path":"b.png"}"#),
        ("unknown-path", 404, r#"{"detail":"Not Found"}"#),
        ("options-preflight", 200, "OK"),
        ("delete-file", 200, r#"{"path":"a.txt"}"#),
        ("trace-sampled", 200, r#"{"files":["b.png","b.txt","u.txt"]}"#),
        ("trace-unsampled", 200, r#"{"files":["b.png","b.txt","u.txt"]}"#),
        ("trace-lower-case-name", 200, r#"{"files":["b.png","b.txt","u.txt"]}"#),
    ];
    let events = samples.iter().map(|(name, ..)| (sample(&format!("sample-events/{name}")), None)).collect();
    let (outcomes, process) = invoke(&[], events).await;
    for ((name, status, body), outcome) in samples.iter().zip(&outcomes) {
        assert_eq!(outcome.answer["statusCode"], *status, "{name}");
        assert_eq!(outcome.answer["body"], *body, "{name}");
        assert_eq!(outcome.answer["isBase64Encoded"], false, "{name}");
        assert_ne!(outcome.header("vary"), "", "{name}");
    }
    // Every invocation continues the trace of its event, also when the header has only a root.
    let traces: Vec<String> = samples
        .iter()
        .map(|(name, ..)| {
            let event: Value = serde_json::from_slice(&sample(&format!("sample-events/{name}"))).unwrap();
            let headers = event["headers"].as_object().unwrap();
            let (_, header) = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-amzn-trace-id")).unwrap();
            header.as_str().unwrap().split(';').next().unwrap().replace("Root=1-", "").replace('-', "")
        })
        .collect();
    let of_lines: Vec<_> = process
        .seen
        .iter()
        .filter(|line| line["message"] == "Request details")
        .map(|line| line["trace_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(of_lines, traces);
    let received = &outcomes.last().unwrap().telemetry;
    let invocations = received
        .spans
        .iter()
        .filter(|(_, span)| span.attributes.iter().any(|attribute| attribute.key == "faas.trigger"))
        .count();
    assert_eq!(invocations, 15, "all but the unsampled one");
    let request_lines = received.logs.iter().filter(|(_, record)| message(record) == "Request details");
    assert_eq!(request_lines.count(), 16);
}

#[tokio::test]
async fn an_event_of_another_kind_is_an_error_of_the_function() {
    let events = vec![(Bytes::from("{}"), None), (sample("sample-events/healthcheck"), None)];
    let (outcomes, _) = invoke(&[], events).await;
    assert_eq!(outcomes[0].posted, "request-1/error");
    assert!(outcomes[0].answer["errorMessage"].as_str().unwrap().contains("API Gateway"));
    let span = outcomes[0].telemetry.span("files");
    assert_eq!(span.status.as_ref().unwrap().code, 2);
    assert_eq!(outcomes[1].answer["statusCode"], 200, "the next one is answered");
    let warm = outcomes[1].telemetry.span("GET /{proxy+}");
    assert_eq!(value(&warm.attributes, "faas.coldstart"), Any::BoolValue(false));
}

#[tokio::test]
async fn a_request_without_a_gateways_context_is_an_error_of_the_function() {
    let mut event: Value = serde_json::from_slice(&sample("documented-event")).unwrap();
    event.as_object_mut().unwrap().remove("requestContext");
    let (outcomes, _) = invoke(&[], vec![(Bytes::from(event.to_string()), None)]).await;
    assert_eq!(outcomes[0].posted, "request-1/error");
}

#[tokio::test]
async fn a_panic_is_an_error_of_the_function_and_a_line_of_the_invocation() {
    let mut event: Value = serde_json::from_slice(&sample("documented-event")).unwrap();
    event["body"] = "no base64".into();
    event["isBase64Encoded"] = true.into();
    let (outcomes, process) = invoke(&[], vec![(Bytes::from(event.to_string()), Some(RUNTIME))]).await;
    assert_eq!(outcomes[0].posted, "request-1/error");
    let invocation = outcomes[0].telemetry.span("GET /{proxy+}");
    assert_eq!(invocation.status.as_ref().unwrap().code, 2);
    let panic = process.seen.iter().find(|line| line["message"] == "Panic").unwrap();
    assert_eq!(panic["span_id"], hex(&invocation.span_id));
    assert_eq!(panic["level"], "ERROR");
}

#[tokio::test]
async fn a_500_of_the_api_marks_the_invocation_too() {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("files");
    std::fs::create_dir(&files).unwrap();
    // A directory where the file should be: reading it fails, and not for want of a file.
    std::fs::create_dir(files.join("a.txt")).unwrap();
    let settings = [("FILES_DIRECTORY", files.to_str().unwrap())];
    let (outcomes, _) = invoke(&settings, vec![(sample("sample-events/post-file"), None)]).await;
    assert_eq!(outcomes[0].answer["statusCode"], 500);
    assert_eq!(outcomes[0].answer["body"], "Internal Server Error");
    let invocation = outcomes[0].telemetry.span("POST /{proxy+}");
    assert_eq!(invocation.status.as_ref().unwrap().code, 2);
    assert_eq!(text(&invocation.attributes, "error.type"), "500");
}

#[tokio::test]
async fn xray_alone_follows_the_runtimes_header_too() {
    let settings = [("OTEL_PROPAGATORS", "xray")];
    let (outcomes, _) = invoke(&settings, vec![(sample("documented-event"), Some(RUNTIME))]).await;
    let invocation = outcomes[0].telemetry.span("GET /{proxy+}");
    assert_eq!(hex(&invocation.parent_span_id), "53995c3f42cd8ad8");
}

#[tokio::test]
async fn a_collector_that_cannot_be_reached_does_not_keep_the_function_from_its_next_event() {
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("TELEMETRY_FLUSH_TIMEOUT", "200")];
    let event = sample("sample-events/healthcheck");
    let (outcomes, _) = invoke(&settings, vec![(event.clone(), None), (event, None)]).await;
    assert_eq!(outcomes.len(), 2);
}

#[tokio::test]
async fn events_of_http_apis_and_load_balancers_are_answered() {
    let http_api = json!({
        "version": "2.0", "routeKey": "GET /files/", "rawPath": "/prod/files/",
        "rawQueryString": "directory_path=a", "headers": {"host": "h"},
        "requestContext": {
            "accountId": "1", "apiId": "a", "domainName": "h", "domainPrefix": "h", "stage": "prod",
            "requestId": "r", "routeKey": "GET /files/", "time": "t", "timeEpoch": 1,
            "http": {"method": "GET", "path": "/prod/files/", "protocol": "HTTP/1.1",
                     "sourceIp": "192.0.2.1", "userAgent": "u"}
        },
        "isBase64Encoded": false
    });
    let balancer = json!({
        "requestContext": {"elb": {"targetGroupArn": "arn"}},
        "httpMethod": "GET", "path": "/healthcheck", "queryStringParameters": {},
        "headers": {"host": "h"}, "body": "", "isBase64Encoded": false
    });
    let events = [http_api, balancer].map(|event| (Bytes::from(event.to_string()), None)).to_vec();
    let (outcomes, _) = invoke(&[], events).await;
    assert_eq!(outcomes[0].answer["body"], r#"{"files":[]}"#);
    assert_eq!(outcomes[1].answer["body"], r#""200 OK""#);
    outcomes[1].telemetry.span("GET /files/");
    outcomes[1].telemetry.span("GET");
}
