//! The sink through real sockets: what it takes, what it refuses, and what it says of both.

use std::{
    future::pending,
    io::Write,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
};

use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
        metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
        trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse, trace_service_client::TraceServiceClient},
    },
    common::v1::{AnyValue, KeyValue, KeyValueList, any_value},
    logs::v1::{LogRecord as SentLog, ResourceLogs, ScopeLogs},
    metrics::v1::{Gauge, Metric as SentMetric, NumberDataPoint, ResourceMetrics, ScopeMetrics, metric::Data},
    trace::v1::{ResourceSpans, ScopeSpans, Span as SentSpan},
};
use prost::Message;
use reqwest::StatusCode;
use tonic::{Code, codec::CompressionEncoding, transport::Channel};
use tower::ServiceExt;

use super::*;
use crate::telemetry::{IdClaim, MetricKind, PointValue, Value};

const TRACE: [u8; 16] = [7; 16];
const SPAN: [u8; 8] = [8; 8];
const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

fn sent_span(name: &str, trace_id: &[u8], span_id: &[u8]) -> SentSpan {
    SentSpan { name: name.into(), trace_id: trace_id.into(), span_id: span_id.into(), kind: 2, ..Default::default() }
}

fn traces(spans: Vec<SentSpan>) -> ExportTraceServiceRequest {
    let scope_spans = vec![ScopeSpans { spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] }
}

fn one_span() -> ExportTraceServiceRequest {
    traces(vec![sent_span("GET /", &TRACE, &SPAN)])
}

fn logs(log_records: Vec<SentLog>) -> ExportLogsServiceRequest {
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] }
}

fn metrics(metrics: Vec<SentMetric>) -> ExportMetricsServiceRequest {
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    ExportMetricsServiceRequest { resource_metrics: vec![ResourceMetrics { scope_metrics, ..Default::default() }] }
}

fn text(text: &str) -> AnyValue {
    AnyValue { value: Some(any_value::Value::StringValue(text.into())) }
}

fn entry(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.into(), value: Some(value), ..Default::default() }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

struct Fixture {
    sink: Sink,
    store: Arc<Store>,
}

impl Fixture {
    async fn new() -> Self {
        let store = Arc::new(Store::default());
        Self { sink: Sink::start(store.clone()).await.unwrap(), store }
    }

    async fn with_limit(limit: usize) -> Self {
        let store = Arc::new(Store::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self { sink: Sink::serve(listener, store.clone(), limit).unwrap(), store }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.sink.address())
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> reqwest::Response {
        let mut request = reqwest::Client::new().post(self.url(path)).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn channel(&self) -> Channel {
        Channel::from_shared(self.url("")).unwrap().connect().await.unwrap()
    }

    fn span_names(&self) -> Vec<String> {
        self.store.look(|capture| capture.spans().iter().map(|span| span.name.clone()).collect())
    }

    fn faults(&self) -> Vec<String> {
        self.store.look(|capture| capture.faults().iter().map(|fault| fault.reason.clone()).collect())
    }
}

async fn json_of(response: reqwest::Response) -> serde_json::Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn every_signal_is_in_the_store_when_its_grpc_call_returns() {
    let fixture = Fixture::new().await;
    let channel = fixture.channel().await;
    TraceServiceClient::new(channel.clone()).export(one_span()).await.unwrap();
    assert_eq!(fixture.span_names(), ["GET /"]);
    LogsServiceClient::new(channel.clone()).export(logs(vec![SentLog::default()])).await.unwrap();
    assert_eq!(fixture.store.look(|capture| capture.logs().len()), 1);
    let metric = SentMetric { name: "m".into(), ..Default::default() };
    MetricsServiceClient::new(channel).export(metrics(vec![metric])).await.unwrap();
    assert_eq!(fixture.store.look(|capture| capture.metrics()[0].kind), MetricKind::Empty);
    fixture.store.look(|capture| {
        let request = &capture.requests()[0];
        assert_eq!(request.transport, Transport::Grpc);
        assert_eq!(request.body, one_span().encode_to_vec());
        assert!(request.user_agent.contains("tonic"), "{}", request.user_agent);
    });
}

#[tokio::test]
async fn grpc_takes_gzip_and_zstd() {
    let fixture = Fixture::new().await;
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Zstd] {
        let mut client = TraceServiceClient::new(fixture.channel().await).send_compressed(encoding);
        client.export(one_span()).await.unwrap();
    }
    assert_eq!(fixture.span_names(), ["GET /", "GET /"]);
}

#[tokio::test]
async fn http_takes_protobuf_and_json_plain_and_in_each_compression_and_answers_alike() {
    let fixture = Fixture::new().await;
    let json = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"GET /",
        "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174"}]}]}]}"#;
    for (content_type, body) in [(PROTOBUF, one_span().encode_to_vec()), (JSON, json.into())] {
        for (encoding, body) in [("identity", body.clone()), ("gzip", gzip(&body)), ("zstd", zstd(&body))] {
            let headers = [("content-type", content_type), ("content-encoding", encoding)];
            let response = fixture.post("/v1/traces", &headers, body).await;
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()["content-type"], content_type);
            let answer = response.bytes().await.unwrap();
            assert_eq!(&answer[..], if content_type == JSON { &b"{}"[..] } else { b"" });
        }
    }
    assert_eq!(fixture.span_names().len(), 6);
}

#[tokio::test]
async fn http_over_http_2_is_taken_on_the_same_port() {
    let fixture = Fixture::new().await;
    let request = ::http::Request::post(fixture.url("/v1/traces"))
        .header("content-type", PROTOBUF)
        .body(tonic::body::Body::new(http_body_util::Full::new(Bytes::from(one_span().encode_to_vec()))))
        .unwrap();
    let response = fixture.channel().await.oneshot(request).await.unwrap();
    assert_eq!((response.status(), response.version()), (StatusCode::OK, ::http::Version::HTTP_2));
    assert_eq!(fixture.span_names(), ["GET /"]);
}

#[tokio::test]
async fn every_request_of_the_reference_captures_is_taken_without_a_fault() {
    let fixture = Fixture::new().await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference/telemetry");
    for capture in std::fs::read_dir(folder).unwrap() {
        let capture = capture.unwrap().path();
        for signal in ["traces", "logs", "metrics"] {
            for line in std::fs::read_to_string(capture.join(format!("{signal}.ndjson"))).unwrap().lines() {
                let response = fixture.post(&format!("/v1/{signal}"), &[("content-type", JSON)], line.to_owned()).await;
                assert_eq!((response.status(), response.text().await.unwrap().as_str()), (StatusCode::OK, "{}"));
            }
        }
    }
    assert_eq!(fixture.faults(), Vec::<String>::new());
    fixture.store.look(|capture| {
        assert_eq!(capture.spans().len(), 120 + 184 + 42 + 84);
        assert_eq!(capture.logs().len(), 88 + 122);
        let kinds = capture.metrics().iter().map(|metric| metric.name.as_str());
        assert!(kinds.collect::<std::collections::HashSet<_>>().contains("http.server.duration"));
    });
}

#[tokio::test]
async fn a_span_with_a_wrong_id_is_rejected_by_name_and_the_others_are_kept() {
    let fixture = Fixture::new().await;
    let mut lost = sent_span("lost parent", &TRACE, &SPAN);
    lost.parent_span_id = vec![1; 4];
    let request = traces(vec![
        sent_span("good", &TRACE, &SPAN),
        sent_span("no trace", &[0; 16], &SPAN),
        sent_span("short span", &TRACE, &[1; 7]),
        sent_span("empty", &[], &SPAN),
        lost,
    ]);
    let answer = TraceServiceClient::new(fixture.channel().await).export(request.clone()).await.unwrap().into_inner();
    let partial = answer.partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 4);
    for part in [
        "span \"no trace\": trace id is all zero (00000000000000000000000000000000)",
        "span \"short span\": span id is 7 bytes long, expected 8 (01010101010101)",
        "span \"empty\": trace id is 0 bytes long, expected 16",
        "span \"lost parent\": parent span id is 4 bytes long, expected 8 (01010101)",
    ] {
        assert!(partial.error_message.contains(part), "{part} is missing in {}", partial.error_message);
    }
    assert_eq!(fixture.span_names(), ["good"]);
    assert_eq!(fixture.faults().len(), 4);

    let response = fixture.post("/v1/traces", &[("content-type", PROTOBUF)], request.encode_to_vec()).await;
    let answer = ExportTraceServiceResponse::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!(answer.partial_success, Some(partial));
}

#[tokio::test]
async fn a_rejection_over_json_is_told_in_json_with_the_signals_own_count() {
    let fixture = Fixture::new().await;
    let json =
        r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a","traceId":"01","spanId":"eee19b7ec3c1b174"}]}]}]}"#;
    let answer = json_of(fixture.post("/v1/traces", &[("content-type", JSON)], json).await).await;
    assert_eq!(answer["partialSuccess"]["rejectedSpans"], "1");
    assert!(answer["partialSuccess"]["errorMessage"].as_str().unwrap().contains("trace id is 1 bytes long"));
}

#[tokio::test]
async fn a_parent_of_zeros_is_a_root_and_a_warning() {
    let fixture = Fixture::new().await;
    let mut span = sent_span("root", &TRACE, &SPAN);
    span.parent_span_id = vec![0; 8];
    let answer = TraceServiceClient::new(fixture.channel().await).export(traces(vec![span])).await.unwrap();
    let partial = answer.into_inner().partial_success.unwrap();
    assert_eq!(partial.rejected_spans, 0);
    assert!(partial.error_message.contains("taken as a root span"), "{}", partial.error_message);
    assert_eq!(fixture.store.look(|capture| capture.spans()[0].parent_span_id), None);
}

#[tokio::test]
async fn log_records_keep_what_they_claim_and_a_malformed_claim_is_a_fault() {
    let fixture = Fixture::new().await;
    let record = |trace_id: &[u8], span_id: &[u8]| SentLog {
        trace_id: trace_id.into(),
        span_id: span_id.into(),
        body: Some(text("hello")),
        ..Default::default()
    };
    let request =
        logs(vec![record(&[], &[]), record(&[0; 16], &[0; 8]), record(&TRACE, &SPAN), record(&[1; 3], &SPAN)]);
    let answer = LogsServiceClient::new(fixture.channel().await).export(request).await.unwrap().into_inner();
    assert_eq!(answer.partial_success.unwrap().rejected_log_records, 0);
    assert_eq!(fixture.faults(), [r#"log record "hello": trace id is malformed "010101""#]);
    fixture.store.look(|capture| {
        let claims: Vec<_> = capture.logs().iter().map(|log| log.trace_id.clone()).collect();
        assert_eq!(claims[0], IdClaim::Absent);
        assert_eq!(claims[1], IdClaim::Zero);
        assert!(claims[2].valid().is_some());
        assert_eq!(claims[3], IdClaim::Malformed("010101".into()));
        assert_eq!(capture.logs()[1].span_id, IdClaim::Zero);
    });
}

#[tokio::test]
async fn a_log_record_has_its_attributes_and_its_structured_body_as_dotted_fields() {
    let fixture = Fixture::new().await;
    let map = |values| AnyValue { value: Some(any_value::Value::KvlistValue(KeyValueList { values })) };
    let headers = map(vec![entry("accept", text("*/*"))]);
    let record = SentLog {
        observed_time_unix_nano: 42,
        severity_number: 9,
        severity_text: "INFO".into(),
        body: Some(map(vec![entry("headers", headers)])),
        attributes: vec![entry("faas.invocation_id", text("8a-1"))],
        ..Default::default()
    };
    let mut request = logs(vec![record]);
    request.resource_logs[0].scope_logs[0].scope = Some(opentelemetry_proto::tonic::common::v1::InstrumentationScope {
        name: "index".into(),
        ..Default::default()
    });
    LogsServiceClient::new(fixture.channel().await).export(request).await.unwrap();
    fixture.store.look(|capture| {
        let log = &capture.logs()[0];
        assert_eq!(log.fields.str("headers.accept"), Some("*/*"));
        assert_eq!(log.fields.str("faas.invocation_id"), Some("8a-1"));
        assert_eq!(log.request_id.as_deref(), Some("8a-1"));
        assert_eq!((log.logger.as_str(), log.time_unix_nano), ("index", Some(42)));
        assert_eq!(log.severity.as_ref().unwrap().number, 9);
        assert_eq!(log.message, r#"{"headers":{"accept":"*/*"}}"#);
        assert!(matches!(log.body, Value::Map(_)));
    });
}

#[tokio::test]
async fn a_point_without_recorded_value_is_not_a_number() {
    let fixture = Fixture::new().await;
    let gauge = Gauge { data_points: vec![NumberDataPoint { flags: 1, ..Default::default() }] };
    let metric = SentMetric { name: "g".into(), data: Some(Data::Gauge(gauge)), ..Default::default() };
    let body = metrics(vec![metric]).encode_to_vec();
    fixture.post("/v1/metrics", &[("content-type", PROTOBUF)], body).await;
    fixture.store.look(|capture| {
        assert!(matches!(capture.metrics()[0].points[0].value, PointValue::Double(value) if value.is_nan()));
    });
}

#[tokio::test]
async fn a_body_that_does_not_decode_is_refused_in_its_own_encoding_and_recorded() {
    let fixture = Fixture::new().await;
    let response = fixture.post("/v1/traces", &[("content-type", PROTOBUF)], vec![0xff; 9]).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(response.headers()["content-type"], PROTOBUF);
    let status = RpcStatus::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!(status.code, Code::InvalidArgument as i32);
    assert!(status.message.starts_with("the traces request does not decode as protobuf: "), "{}", status.message);

    let response = fixture.post("/v1/logs", &[("content-type", JSON)], r#"{"resourceLogs":[1]}"#).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let status = json_of(response).await;
    assert_eq!(status["code"], 3);
    let message = status["message"].as_str().unwrap();
    assert!(message.contains("resourceLogs[0]: expected an object, found 1"), "{message}");

    let error = raw_call(&fixture, &[], &framed(0, &[0xff; 9])).await;
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(fixture.faults().len(), 3);
}

#[tokio::test]
async fn other_paths_methods_types_and_encodings_are_refused_each_in_its_way() {
    let fixture = Fixture::new().await;
    let body = one_span().encode_to_vec();
    let unknown = fixture.post("/v1/profiles", &[("content-type", PROTOBUF)], body.clone()).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    let get = reqwest::get(fixture.url("/v1/traces")).await.unwrap();
    assert_eq!((get.status(), &get.headers()["allow"]), (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap()));
    let plain = fixture.post("/v1/traces", &[("content-type", "text/plain")], body.clone()).await;
    assert_eq!(plain.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let untyped = fixture.post("/v1/traces", &[], body.clone()).await;
    assert_eq!(untyped.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let headers = [("content-type", PROTOBUF), ("content-encoding", "br")];
    let brotli = fixture.post("/v1/traces", &headers, body).await;
    assert_eq!(brotli.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(brotli.headers()["accept-encoding"], "identity,gzip,zstd");
    let faults = fixture.faults();
    assert_eq!(faults.len(), 3, "{faults:?}");
    assert!(faults[2].contains("\"br\""), "{faults:?}");
    assert_eq!(fixture.span_names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_as_sent_and_after_decompression() {
    let fixture = Fixture::with_limit(1 << 16).await;
    let large = vec![0; (1 << 16) + 1];
    let bomb = gzip(&vec![0; 8 << 20]);
    assert!(bomb.len() < 1 << 16);
    for (encoding, body) in [("identity", large.clone()), ("gzip", bomb.clone()), ("zstd", zstd(&vec![0; 8 << 20]))] {
        let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
        let response = fixture.post("/v1/traces", &headers, body).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE, "{encoding}");
        let status = RpcStatus::decode(response.bytes().await.unwrap()).unwrap();
        assert_eq!(status.code, Code::ResourceExhausted as i32);
    }
    let error = raw_call(&fixture, &[("grpc-encoding", "gzip")], &framed(1, &bomb)).await;
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    let error = raw_call(&fixture, &[], &framed(0, &large)).await;
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert_eq!(fixture.faults().len(), 5);
}

#[tokio::test]
async fn corrupt_compression_is_refused_and_named() {
    let fixture = Fixture::new().await;
    for encoding in ["gzip", "zstd"] {
        let headers = [("content-type", JSON), ("content-encoding", encoding)];
        let response = fixture.post("/v1/traces", &headers, "not compressed at all").await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        let message = json_of(response).await["message"].to_string();
        assert!(message.contains(&format!("not valid {encoding}")), "{message}");
    }
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], &length[..], message].concat()
}

/// A gRPC call with these bytes as its body; the status it ended with.
async fn raw_call(fixture: &Fixture, headers: &[(&str, &str)], body: &[u8]) -> tonic::Status {
    call_of("/opentelemetry.proto.collector.trace.v1.TraceService/Export", fixture, headers, body).await
}

async fn call_of(path: &str, fixture: &Fixture, headers: &[(&str, &str)], body: &[u8]) -> tonic::Status {
    let mut request = ::http::Request::post(fixture.url(path)).header("content-type", "application/grpc");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = tonic::body::Body::new(http_body_util::Full::new(Bytes::copy_from_slice(body)));
    let response = fixture.channel().await.oneshot(request.body(body).unwrap()).await.unwrap();
    let (head, body) = response.into_parts();
    let trailers = body.collect().await.unwrap().trailers().cloned();
    tonic::Status::from_header_map(&head.headers)
        .or_else(|| trailers.and_then(|trailers| tonic::Status::from_header_map(&trailers)))
        .expect("a gRPC answer has a status")
}

#[tokio::test]
async fn grpc_calls_that_break_its_framing_are_refused_with_the_reason() {
    let fixture = Fixture::new().await;
    let good = one_span().encode_to_vec();
    for (headers, body, code, part) in [
        (&[][..], vec![0, 0], Code::InvalidArgument, "its prefix alone has 5"),
        (&[], framed(0, &good)[..9].to_vec(), Code::InvalidArgument, "4 bytes came"),
        (&[], [framed(0, &good), framed(0, &good)].concat(), Code::InvalidArgument, "was announced"),
        (&[], framed(2, &good), Code::InvalidArgument, "compressed flag is 2"),
        (&[("grpc-encoding", "snappy")], framed(1, &good), Code::Unimplemented, "\"snappy\""),
        (&[("grpc-encoding", "gzip")], framed(1, &good), Code::InvalidArgument, "not valid gzip"),
    ] {
        let status = raw_call(&fixture, headers, &body).await;
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(part), "{part} is missing in {status}");
    }
    let status = call_of("/x.Unknown/Export", &fixture, &[], &framed(0, &good)).await;
    assert_eq!(status.code(), Code::Unimplemented);
    assert_eq!(fixture.span_names(), Vec::<String>::new());
}

#[tokio::test]
async fn health_answers_as_soon_as_it_listens() {
    let fixture = Fixture::new().await;
    assert_eq!(reqwest::get(fixture.url(HEALTH)).await.unwrap().status(), StatusCode::OK);
}

/// Holds every request until it is let go.
#[derive(Debug)]
struct Gate {
    entered: tokio::sync::mpsc::UnboundedSender<()>,
    go: std::sync::Mutex<mpsc::Receiver<()>>,
    stored: AtomicBool,
}

impl Receiver for Gate {
    fn export(&self, _: ExportRequest, _: Decoded, _: Vec<String>) {
        self.entered.send(()).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        self.stored.store(true, Ordering::SeqCst);
    }
    fn fault(&self, _: Signal, _: String) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_before_it_is_stored_and_stopping_finishes_what_was_begun() {
    let (entered, mut has_entered) = tokio::sync::mpsc::unbounded_channel();
    let (go, wait) = mpsc::channel();
    let gate = Arc::new(Gate { entered, go: wait.into(), stored: AtomicBool::new(false) });
    let sink = Sink::bind("127.0.0.1:0".parse().unwrap(), gate.clone()).await.unwrap();
    let url = format!("http://{}/v1/traces", sink.address());
    let request = reqwest::Client::new().post(&url).header("content-type", PROTOBUF).body(one_span().encode_to_vec());
    let answered = tokio::spawn({
        let gate = gate.clone();
        async move { (request.send().await.unwrap().status(), gate.stored.load(Ordering::SeqCst)) }
    });
    has_entered.recv().await.unwrap();
    assert!(!answered.is_finished());
    drop(sink);
    go.send(()).unwrap();
    assert_eq!(answered.await.unwrap(), (StatusCode::OK, true));
}

#[tokio::test]
async fn a_stopped_sink_takes_no_more_connections() {
    let fixture = Fixture::new().await;
    let address = fixture.sink.address();
    fixture.sink.shutdown().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_never_ends_its_body_holds_up_nobody_else() {
    let fixture = Fixture::new().await;
    let stalled = reqwest::Body::wrap(http_body_util::StreamBody::new(futures::stream::once(pending::<
        Result<hyper::body::Frame<Bytes>, io::Error>,
    >())));
    let request = reqwest::Client::new().post(fixture.url("/v1/traces")).header("content-type", PROTOBUF);
    let stalled = tokio::spawn(request.body(stalled).send());
    let response = fixture.post("/v1/traces", &[("content-type", PROTOBUF)], one_span().encode_to_vec()).await;
    assert_eq!(response.status(), StatusCode::OK);
    stalled.abort();
}
