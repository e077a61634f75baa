//! What the protocol says of requests and answers.

use std::sync::{
    atomic::{AtomicBool, Ordering},
    mpsc,
};

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::logs_service_client::LogsServiceClient,
        metrics::v1::metrics_service_client::MetricsServiceClient,
        trace::v1::{ExportTraceServiceResponse, trace_service_client::TraceServiceClient},
    },
    common::v1::KeyValueList,
    metrics::v1::{Gauge, NumberDataPoint, metric::Data},
};
use prost::Message;
use reqwest::StatusCode;
use tonic::{Code, codec::CompressionEncoding};
use tonic_types::{StatusExt, pb};

use super::*;
use crate::telemetry::{IdClaim, MetricKind, PointValue, Value};

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
    let status = pb::Status::decode(response.bytes().await.unwrap()).unwrap();
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
    let unknown = fixture.post("/v1/spans", &[("content-type", PROTOBUF)], body.clone()).await;
    assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
    fixture.post("/v1/spans", &[("content-type", PROTOBUF)], body.clone()).await;
    let notes = fixture.notes();
    assert!(matches!(&notes[..], [once] if once.contains("POST /v1/spans is not a path of OTLP/HTTP")), "{notes:?}");
    assert_eq!(fixture.astray(), [""; 0], "it may be another protocol's");
    fixture.post("/", &[("content-type", PROTOBUF)], body.clone()).await;
    fixture.post("/v1/v1/logs", &[("content-type", JSON)], "{}").await;
    let exporter = [("content-type", PROTOBUF), ("user-agent", "OTel-OTLP-Exporter-Python/1.0")];
    fixture.post("/ingest", &exporter, body.clone()).await;
    reqwest::get(fixture.url("/")).await.unwrap();
    assert_eq!(fixture.astray().len(), 3, "{:?}", fixture.astray());
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
    fn export(&self, _: ExportRequest, _: Index, _: Vec<String>) {
        self.entered.send(()).unwrap();
        self.go.lock().unwrap().recv().unwrap();
        self.stored.store(true, Ordering::SeqCst);
    }
    fn fault(&self, _: Signal, _: String) {}
    fn note(&self, _: String) -> Arrival {
        Arrival::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_before_it_is_stored_and_stopping_finishes_what_was_begun() {
    let (entered, mut has_entered) = tokio::sync::mpsc::unbounded_channel();
    let (go, wait) = mpsc::channel();
    let gate = Arc::new(Gate { entered, go: wait.into(), stored: AtomicBool::new(false) });
    let sink = Sink::bind("127.0.0.1:0".parse().unwrap(), gate.clone(), Settings::default()).await.unwrap();
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

/// `ExportProfilesServiceRequest` with one resource, one scope and two profiles, the second of which has an id.
const PROFILES: &[u8] = &[10, 10, 18, 8, 18, 0, 18, 4, 58, 2, 1, 2];
const PROFILES_CALL: &str = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export";

#[tokio::test]
async fn profiles_are_taken_over_both_transports_counted_and_kept_as_they_came() {
    let fixture = Fixture::new().await;
    let path = "/v1development/profiles";
    let response = fixture.post(path, &[("content-type", PROTOBUF)], PROFILES).await;
    assert_eq!((response.status(), response.bytes().await.unwrap().len()), (StatusCode::OK, 0));
    let json = r#"{"resourceProfiles":[{"scopeProfiles":[{"profiles":[{"profileId":"0102"}]}]}],"dictionary":{}}"#;
    let response = fixture.post(path, &[("content-type", JSON)], json).await;
    assert_eq!(json_of(response).await, serde_json::json!({}));
    let status = call_of(PROFILES_CALL, &fixture, &[("grpc-encoding", "gzip")], &framed(1, &gzip(PROFILES))).await;
    assert_eq!(status.code(), Code::Ok);
    fixture.store.look(|capture| {
        assert_eq!(capture.profiles(), 5);
        let bodies: Vec<_> = capture.requests().iter().map(|request| (request.signal, &request.body[..])).collect();
        assert_eq!(
            bodies,
            [(Signal::Profiles, PROFILES), (Signal::Profiles, json.as_bytes()), (Signal::Profiles, PROFILES)]
        );
    });
}

#[tokio::test]
async fn profiles_that_do_not_decode_are_refused() {
    let fixture = Fixture::new().await;
    let response = fixture.post("/v1development/profiles", &[("content-type", PROTOBUF)], vec![10, 9, 1]).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(fixture.faults().len(), 1);
}

#[tokio::test]
async fn the_examples_of_the_protocol_decode_to_what_they_say() {
    let fixture = Fixture::new().await;
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/otlp-examples");
    for (file, path) in [
        ("trace.json", "/v1/traces"),
        ("metrics.json", "/v1/metrics"),
        ("logs.json", "/v1/logs"),
        ("events.json", "/v1/logs"),
    ] {
        let body = std::fs::read(folder.join(file)).unwrap();
        let response = fixture.post(path, &[("content-type", "application/json; charset=utf-8")], body).await;
        assert_eq!((response.status(), response.text().await.unwrap().as_str()), (StatusCode::OK, "{}"), "{file}");
    }
    fixture.store.look(|capture| {
        let span = &capture.spans()[0];
        assert_eq!(span.trace_id.to_string(), "5b8efff798038103d269b633813fc60c");
        assert_eq!(span.parent_span_id.unwrap().to_string(), "eee19b7ec3c1b173");
        assert_eq!((span.name.as_str(), span.resource.service_name()), ("I'm a server span", Some("my.service")));
        assert_eq!(span.end_unix_nano - span.start_unix_nano, 1_000_000_000);
        assert_eq!(span.scope.attributes.str("my.scope.attribute"), Some("some scope attribute"));
        let names: Vec<_> = capture.metrics().iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["my.counter", "my.gauge", "my.histogram", "my.exponential.histogram"]);
        let log = &capture.logs()[0];
        assert_eq!(log.trace_id.valid().unwrap(), span.trace_id);
        assert_eq!((log.message.as_str(), log.severity.as_ref().unwrap().number), ("Example log record", 10));
        let shown = format!("{:?}", log.fields);
        for part in ["Bool(true)", "Int(10)", "Double(637.704)", "\"map.attribute.some.map.key\"", "\"many\""] {
            assert!(shown.contains(part), "{part} is missing in {shown}");
        }
        let event = &capture.logs()[1];
        assert_eq!(event.fields.str("title"), Some("Free Online GUID Generator"));
        assert_eq!(event.trace_id, IdClaim::Absent);
    });
}

#[tokio::test]
async fn a_request_without_anything_in_it_is_a_success() {
    let fixture = Fixture::new().await;
    for path in ["/v1/traces", "/v1/logs", "/v1/metrics", "/v1development/profiles"] {
        assert_eq!(fixture.post(path, &[("content-type", PROTOBUF)], "").await.status(), StatusCode::OK, "{path}");
        assert_eq!(fixture.post(path, &[("content-type", JSON)], "{}").await.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(raw_call(&fixture, &[], &framed(0, b"")).await.code(), Code::Ok);
}

#[tokio::test]
async fn bad_data_is_detailed_as_a_bad_request_in_every_form() {
    let fixture = Fixture::new().await;
    let response = fixture.post("/v1/traces", &[("content-type", PROTOBUF)], vec![0xff; 9]).await;
    let status = pb::Status::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!(status.details[0].type_url, "type.googleapis.com/google.rpc.BadRequest");
    let response = json_of(fixture.post("/v1/traces", &[("content-type", JSON)], "[]").await).await;
    assert_eq!(response["details"][0]["@type"], "type.googleapis.com/google.rpc.BadRequest");
    assert_eq!(response["details"][0]["fieldViolations"][0]["description"], response["message"]);
    let status = raw_call(&fixture, &[], &framed(0, &[0xff; 9])).await;
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].description, status.message());
}

#[tokio::test]
async fn a_codec_of_grpc_that_is_not_known_is_an_unsupported_media_type() {
    let fixture = Fixture::new().await;
    for content_type in ["application/grpc-web", "application/grpc+json"] {
        let response = fixture.post("/v1/traces", &[("content-type", content_type)], "").await;
        assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
    }
    let known = [("content-type", "application/grpc+proto")];
    let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let response = fixture.post(path, &known, framed(0, &one_span().encode_to_vec())).await;
    assert_eq!((response.status(), fixture.span_names().len()), (StatusCode::OK, 1));
}

#[tokio::test]
async fn a_compressed_flag_without_an_encoding_is_an_internal_error_and_an_encoding_without_it_is_none() {
    let fixture = Fixture::new().await;
    let good = one_span().encode_to_vec();
    let status = raw_call(&fixture, &[], &framed(1, &gzip(&good))).await;
    assert_eq!(status.code(), Code::Internal, "{status}");
    assert_eq!(raw_call(&fixture, &[("grpc-encoding", "gzip")], &framed(0, &good)).await.code(), Code::Ok);
    assert_eq!(fixture.span_names(), ["GET /"]);
}
