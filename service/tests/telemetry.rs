//! Spans, log lines and metrics of requests, read in this process.

mod support;

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use serde_json::json;
use support::{Service, attribute};

const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const XRAY_ROOT: &str = "Root=1-63dd9630-1f7ec6c948e660f220ef3c92";

#[tokio::test]
async fn a_request_is_a_server_span_with_the_stable_attributes() {
    let service = Service::start(&[]);
    let headers =
        [("host", "api.example:8443"), ("user-agent", "test/1"), ("x-forwarded-for", "172.59.153.63, 64.252.130.90")];
    service.call("GET", "/files/?directory_path=a&token=s3cret", &headers).await;
    let span = service.span("GET /files/");
    assert_eq!(span.span_kind, SpanKind::Server);
    assert_eq!(span.status, Status::Unset);
    for (name, value) in [
        ("http.request.method", "GET"),
        ("http.route", "/files/"),
        ("url.path", "/files/"),
        ("url.query", "directory_path=a&token=REDACTED"),
        ("url.scheme", "http"),
        ("server.address", "api.example"),
        ("server.port", "8443"),
        ("client.address", "172.59.153.63"),
        ("network.protocol.version", "1.1"),
        ("user_agent.original", "test/1"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(attribute(&span, name), value, "{name}");
    }
    let status =
        span.attributes.iter().find(|attribute| attribute.key.as_str() == "http.response.status_code").unwrap();
    assert_eq!(status.value, opentelemetry::Value::I64(200));
}

#[tokio::test]
async fn the_storage_call_is_an_internal_span_under_it() {
    let service = Service::start(&[]);
    service.get("/files/missing.txt").await;
    let call = service.span("Memory.GetObject");
    let request = service.span("GET /files/{path}");
    assert_eq!(call.span_kind, SpanKind::Internal);
    assert_eq!(call.parent_span_id, request.span_context.span_id());
    assert!(matches!(call.status, Status::Error { .. }));
    assert_eq!(call.events.events[0].name, "exception");
    assert_eq!(request.status, Status::Unset);
}

#[tokio::test]
async fn a_request_without_route_is_named_by_its_method() {
    let service = Service::start(&[]);
    service.get("/nope").await;
    service.call("POST", "/healthcheck", &[]).await;
    service.call("QUERY", "/healthcheck", &[]).await;
    let preflight = [("origin", "http://localhost:3000"), ("access-control-request-method", "GET")];
    service.call("OPTIONS", "/nope", &preflight).await;
    assert_eq!(attribute(&service.span("GET"), "http.route"), "");
    assert_eq!(attribute(&service.span("POST /healthcheck"), "http.route"), "/healthcheck");
    assert_eq!(attribute(&service.span("HTTP /healthcheck"), "http.request.method_original"), "QUERY");
    service.span("OPTIONS");
}

#[tokio::test]
async fn every_line_of_a_request_names_its_server_span() {
    let service = Service::start(&[]);
    service.call("POST", "/files/a.txt?content=hello", &[]).await;
    let span = service.span("POST /files/{path}").span_context;
    let lines = service.lines();
    let messages: Vec<_> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(
        messages,
        ["Request details", "Attempting to write 5 bytes to file at path: \"a.txt\"", "Response details"]
    );
    for line in lines {
        assert_eq!(line["trace_id"], span.trace_id().to_string());
        assert_eq!(line["span_id"], span.span_id().to_string());
    }
}

#[tokio::test]
async fn the_otlp_records_say_what_the_lines_say() {
    let service = Service::start(&[]);
    service.get("/files/missing.txt").await;
    let lines = service.lines();
    let records = service.logs.get_emitted_logs().unwrap();
    assert_eq!(lines.len(), records.len());
    for (line, log) in lines.iter().zip(records) {
        let context = log.record.trace_context().unwrap();
        assert_eq!(line["trace_id"], context.trace_id.to_string());
        assert_eq!(line["span_id"], context.span_id.to_string());
        assert_eq!(line["level"], log.record.severity_text().unwrap());
        assert!(format!("{:?}", log.record.body()).contains("String"));
    }
    assert_eq!(service.line("File not found: missing.txt")["level"], "ERROR");
}

#[tokio::test]
async fn request_and_response_details_are_searchable_fields() {
    let service = Service::start(&[]);
    service.call("GET", "/files/?directory_path=a", &[("accept", "application/json,*/*")]).await;
    let request = service.line("Request details");
    assert_eq!(request["method"], "GET");
    assert_eq!(request["host"], "127.0.0.1");
    assert_eq!(request["path"], "/files/");
    assert_eq!(request["query_params"], json!({"directory_path": "a"}));
    assert_eq!(request["headers"]["accept"], "application/json,*/*");
    assert_eq!(request["body"], json!({}));
    let response = service.line("Response details");
    assert_eq!(response["status_code"], 200);
    assert_eq!(response["headers"]["content-type"], "application/json");
}

#[tokio::test]
async fn no_secret_and_no_content_of_a_file_is_in_any_signal() {
    let service = Service::start(&[]);
    let headers = [
        ("authorization", "Bearer s3cret"),
        ("cookie", "session=s3cret"),
        ("x-api-key", "s3cret"),
        ("referer", "https://h/?access_token=s3cret"),
        ("user-agent", "bot (+https://h/?token=s3cret)"),
    ];
    let path = "/files/a.txt?content=s3cret&X-Amz-Signature=s3cret";
    let request = http::Request::builder().method("POST").uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let body = axum::body::Body::from(r#"{"password":"s3cret"}"#);
    service.send(request.body(body).unwrap()).await;
    let signals =
        format!("{:?}{:?}{:?}", service.finished(), service.lines(), service.logs.get_emitted_logs().unwrap());
    assert!(signals.contains("REDACTED"));
    assert!(!signals.contains("s3cret"), "{signals}");
    assert_eq!(service.line("Request details")["body"], json!({"password": "REDACTED"}));
}

#[tokio::test]
async fn the_callers_trace_goes_on() {
    let service = Service::start(&[("OTEL_PROPAGATORS", "xray,tracecontext")]);
    service.call("GET", "/healthcheck", &[("traceparent", W3C)]).await;
    let span = service.span("GET /healthcheck");
    assert_eq!(span.span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(span.parent_span_id.to_string(), "00f067aa0ba902b7");
}

#[tokio::test]
async fn a_root_only_header_gives_its_trace_id_to_a_root_span() {
    let service = Service::start(&[("OTEL_PROPAGATORS", "xray")]);
    service.call("GET", "/files/", &[("X-Amzn-Trace-Id", XRAY_ROOT)]).await;
    let span = service.span("GET /files/");
    assert_eq!(span.span_context.trace_id().to_string(), "63dd96301f7ec6c948e660f220ef3c92");
    assert_eq!(span.parent_span_id, SpanId::INVALID);
    let call = service.span("Memory.ListObjectsV2");
    assert_eq!(call.span_context.trace_id(), span.span_context.trace_id());
    assert_eq!(call.parent_span_id, span.span_context.span_id());
}

#[tokio::test]
async fn an_unsampled_trace_has_no_spans_and_lines_with_its_id() {
    let service = Service::start(&[("OTEL_PROPAGATORS", "xray,tracecontext")]);
    for header in [
        ("x-amzn-trace-id", format!("{XRAY_ROOT};Parent=53995c3f42cd8ad8;Sampled=0")),
        ("x-amzn-trace-id", format!("{XRAY_ROOT};Sampled=0")),
        (
            "traceparent",
            W3C.replace("-01", "-00").replace("4bf92f3577b34da6a3ce929d0e0e4736", "63dd96301f7ec6c948e660f220ef3c92"),
        ),
    ] {
        service.call("GET", "/files/", &[(header.0, &header.1)]).await;
    }
    assert!(service.finished().is_empty());
    let lines = service.lines();
    assert_eq!(lines.len(), 6);
    for line in lines {
        assert_eq!(line["trace_id"], "63dd96301f7ec6c948e660f220ef3c92");
        assert_eq!(line["trace_flags"], "00");
    }
}

#[tokio::test]
async fn a_request_without_context_starts_a_trace_of_its_own() {
    let service = Service::start(&[("TRACE_ID_GENERATOR", "xray")]);
    service.get("/healthcheck").await;
    service.get("/files/").await;
    let (first, second) = (service.span("GET /healthcheck"), service.span("GET /files/"));
    assert_ne!(first.span_context.trace_id(), second.span_context.trace_id());
    assert_eq!(first.parent_span_id, SpanId::INVALID);
}

#[tokio::test]
async fn a_disabled_sdk_makes_nothing_and_keeps_the_callers_ids() {
    let service = Service::start(&[("OTEL_SDK_DISABLED", "true")]);
    service.call("GET", "/files/", &[("traceparent", W3C)]).await;
    service.get("/healthcheck").await;
    assert!(service.finished().is_empty());
    assert!(service.logs.get_emitted_logs().unwrap().is_empty());
    let lines = service.lines();
    assert_eq!(lines[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert!(lines.last().unwrap().get("trace_id").is_none());
}

#[tokio::test]
async fn the_metrics_count_every_request_once() {
    let service = Service::start(&[]);
    for path in ["/healthcheck", "/healthcheck", "/nope", "/files/missing"] {
        service.get(path).await;
    }
    service.telemetry.flush(None).await;
    let exports = service.metrics.get_finished_metrics().unwrap();
    let metrics: Vec<_> = exports.last().unwrap().scope_metrics().flat_map(|scope| scope.metrics()).collect();
    let named = |name: &str| metrics.iter().find(|metric| metric.name() == name).unwrap().data();
    let AggregatedMetrics::F64(MetricData::Histogram(duration)) = named("http.server.request.duration") else {
        panic!("no histogram");
    };
    assert_eq!(duration.data_points().map(|point| point.count()).sum::<u64>(), 4);
    assert_eq!(duration.data_points().next().unwrap().bounds().count(), 14);
    let AggregatedMetrics::I64(MetricData::Sum(active)) = named("http.server.active_requests") else {
        panic!("no sum");
    };
    assert_eq!(active.data_points().map(|point| point.value()).sum::<i64>(), 0);
}

#[tokio::test]
async fn a_request_that_the_caller_gave_up_still_ends_and_counts() {
    let service = Service::start(&[]);
    let body = axum::body::Body::from_stream(futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let request = http::Request::builder().method("POST").uri("/files/a?content=x").body(body).unwrap();
    let mut answer = Box::pin(service.send(request));
    assert!(futures::poll!(&mut answer).is_pending());
    drop(answer);
    let span = service.span("POST");
    assert_eq!(attribute(&span, "error.type"), "cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn requests_at_the_same_time_keep_their_lines_apart() {
    let service = std::sync::Arc::new(Service::start(&[]));
    let requests = (1..=64).map(|number| {
        let service = service.clone();
        tokio::spawn(async move {
            let parent = format!("00-{number:032x}-00f067aa0ba902b7-01");
            let path = format!("/files/{number}.txt?content=x");
            service.call("POST", &path, &[("traceparent", &parent)]).await
        })
    });
    for answer in futures::future::join_all(requests).await {
        assert_eq!(answer.unwrap().status(), 200);
    }
    let spans = service.finished();
    assert_eq!(spans.len(), 128);
    let lines = service.lines();
    assert_eq!(lines.len(), 192);
    for line in &lines {
        let span = spans.iter().find(|span| line["span_id"] == span.span_context.span_id().to_string()).unwrap();
        assert_eq!(line["trace_id"], span.span_context.trace_id().to_string());
        assert_eq!(span.span_kind, SpanKind::Server);
        if line["message"] == "Request details" {
            assert_eq!(line["path"], attribute(span, "url.path"));
            assert_eq!(line["headers"]["traceparent"].as_str().unwrap()[3..35], line["trace_id"].as_str().unwrap()[..]);
        }
    }
}
