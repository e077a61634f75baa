//! Senders that are broken or mean no good: each is told what is wrong, and the others do not notice.

use std::{future::pending, time::Duration};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use reqwest::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::Code;
use tonic_types::pb;

use super::*;

/// Nothing of what a hostile sender did may have hurt this one.
async fn a_sound_sender_succeeds(fixture: &Fixture) {
    let response = fixture.post("/v1/traces", &[("content-type", PROTOBUF)], one_span().encode_to_vec()).await;
    assert_eq!(response.status(), StatusCode::OK);
    TraceServiceClient::new(fixture.channel().await).export(one_span()).await.unwrap();
}

/// What the sink says to these bytes until it closes the connection.
async fn told(fixture: &Fixture, bytes: &[u8]) -> String {
    let mut connection = TcpStream::connect(fixture.sink.address()).await.unwrap();
    connection.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // An end by a reset is an end too.
    let _ = connection.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
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
        let status = pb::Status::decode(response.bytes().await.unwrap()).unwrap();
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

#[tokio::test]
async fn four_gibibytes_that_are_announced_are_refused_before_they_come() {
    let fixture = Fixture::new().await;
    let head =
        "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 4294967296\r\n\r\n";
    let answer = told(&fixture, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("more than 67108864 bytes"), "{answer}");

    // The frame's prefix says it, and the rest never comes.
    let prefix = Ok::<_, io::Error>(hyper::body::Frame::data(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff])));
    let frames = futures::StreamExt::chain(futures::stream::iter([prefix]), futures::stream::pending());
    let request = ::http::Request::post(fixture.url("/opentelemetry.proto.collector.logs.v1.LogsService/Export"))
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(http_body_util::StreamBody::new(frames)))
        .unwrap();
    let response = fixture.channel().await.oneshot(request).await.unwrap();
    let status = tonic::Status::from_header_map(response.headers()).unwrap();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert_eq!(fixture.faults().len(), 2);
    a_sound_sender_succeeds(&fixture).await;
}

/// Kvlists within kvlists, in protobuf: the innermost is written first.
fn nested(depth: usize) -> Vec<u8> {
    let wrap = |tag: u8, inner: Vec<u8>| {
        let mut wire = vec![tag << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut wire);
        wire.extend(inner);
        wire
    };
    let mut value = Vec::new();
    for _ in 0..depth {
        // AnyValue.kvlist_value, KeyValueList.values, KeyValue.value
        value = wrap(6, wrap(1, wrap(2, value)));
    }
    // ExportLogs… .resource_logs, ResourceLogs.scope_logs, ScopeLogs.log_records, LogRecord.body
    wrap(1, wrap(2, wrap(2, wrap(5, value))))
}

#[tokio::test]
async fn nesting_ten_thousand_deep_is_refused_in_both_encodings_and_moderate_nesting_is_taken() {
    let fixture = Fixture::new().await;
    let response = fixture.post("/v1/logs", &[("content-type", PROTOBUF)], nested(10_000)).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let deep = format!("{}{}", r#"{"arrayValue":{"values":["#.repeat(10_000), "]}}".repeat(10_000));
    let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{deep}}}]}}]}}]}}"#);
    let response = fixture.post("/v1/logs", &[("content-type", JSON)], json).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let faults = fixture.faults();
    assert!(faults.len() == 2 && faults.iter().all(|fault| fault.contains("recursion limit")), "{faults:?}");
    let response = fixture.post("/v1/logs", &[("content-type", PROTOBUF)], nested(20)).await;
    assert_eq!(response.status(), StatusCode::OK);
    a_sound_sender_succeeds(&fixture).await;
}

#[tokio::test]
async fn a_span_with_a_million_attributes_is_taken() {
    let fixture = Fixture::new().await;
    let mut span = sent_span("many", &TRACE, &SPAN);
    span.attributes = (0..1_000_000).map(|_| entry("k", AnyValue::default())).collect();
    let body = traces(vec![span]).encode_to_vec();
    let response = fixture.post("/v1/traces", &[("content-type", PROTOBUF)], body).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(fixture.span_names(), ["many"]);
}

#[tokio::test]
async fn a_request_that_would_grow_beyond_all_bounds_is_refused_before_it_is_decoded() {
    let fixture = Fixture::new().await;
    let field = |tag: u8, inner: &[u8]| {
        let mut wire = vec![tag << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut wire);
        [&wire, inner].concat()
    };
    // Two bytes a span, which gzip makes a thousandth of.
    let body = gzip(&field(1, &field(2, &[18, 0].repeat(4_000_000))));
    let headers = [("content-type", PROTOBUF), ("content-encoding", "gzip")];
    let response = fixture.post("/v1/traces", &headers, body).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}{{}}]}}]}}]}}"#, "{},".repeat(4_000_000));
    let response = fixture.post("/v1/traces", &[("content-type", JSON)], json).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let faults = fixture.faults();
    assert!(faults.len() == 2 && faults.iter().all(|fault| fault.contains("once it is decoded")), "{faults:?}");
    a_sound_sender_succeeds(&fixture).await;
}

#[tokio::test]
async fn compression_that_ends_early_is_refused() {
    let fixture = Fixture::new().await;
    let good = one_span().encode_to_vec();
    for (encoding, whole) in [("gzip", gzip(&good)), ("zstd", zstd(&good))] {
        let headers = [("content-type", PROTOBUF), ("content-encoding", encoding)];
        let response = fixture.post("/v1/traces", &headers, whole[..whole.len() - 4].to_vec()).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{encoding}");
    }
    assert_eq!((fixture.faults().len(), fixture.span_names().len()), (2, 0));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_noted_and_no_fault() {
    let fixture = Fixture::new().await;
    let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{";
    let mut connection = TcpStream::connect(fixture.sink.address()).await.unwrap();
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    fixture.store.until(deadline, |capture| (!capture.lifecycle().is_empty()).then_some(())).await.unwrap();
    let notes = fixture.notes();
    assert!(notes[0].contains("the body ended early"), "{notes:?}");
    assert!(fixture.faults().is_empty(), "{:?}", fixture.faults());
}

#[tokio::test]
async fn a_connection_that_brings_no_request_is_closed_and_noted() {
    let fixture = Fixture::with(Settings { first_request: Duration::from_millis(50), ..Settings::default() }).await;
    for head in ["", "POST /v1/traces HT", "POST /v1/traces HTTP/1.1\r\nhost: a\r\nx: y", "PRI * HTTP/2.0\r\n"] {
        assert!(!told(&fixture, head.as_bytes()).await.contains("200"), "{head}");
    }
    let notes = fixture.notes();
    assert_eq!(notes.len(), 4, "{notes:?}");
    assert!(notes.iter().all(|note| note.ends_with("it brought no request within 50ms")), "{notes:?}");
    a_sound_sender_succeeds(&fixture).await;
}

#[tokio::test]
async fn a_connection_that_brought_a_request_may_rest_for_longer() {
    let fixture = Fixture::with(Settings { first_request: Duration::from_millis(50), ..Settings::default() }).await;
    let client = reqwest::Client::new();
    let export = || client.post(fixture.url("/v1/traces")).header("content-type", PROTOBUF).body("").send();
    export().await.unwrap();
    let _ = timeout(Duration::from_millis(120), pending::<()>()).await;
    assert_eq!(export().await.unwrap().status(), StatusCode::OK);
    assert_eq!(fixture.notes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_grpc_client_may_connect_long_before_it_calls() {
    let fixture = Fixture::with(Settings { first_request: Duration::from_millis(50), ..Settings::default() }).await;
    let mut client = TraceServiceClient::new(fixture.channel().await);
    let _ = timeout(Duration::from_millis(120), pending::<()>()).await;
    client.export(one_span()).await.unwrap();
    assert_eq!(fixture.notes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_body_that_takes_too_long_is_told_so_over_both_transports() {
    let fixture = Fixture::with(Settings { body_time: Duration::from_millis(50), ..Settings::default() }).await;
    let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{";
    let answer = told(&fixture, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("was not there after 50ms"), "{answer}");
    let never =
        http_body_util::StreamBody::new(futures::stream::pending::<Result<hyper::body::Frame<Bytes>, io::Error>>());
    let request = ::http::Request::post(fixture.url("/opentelemetry.proto.collector.logs.v1.LogsService/Export"))
        .header("content-type", "application/grpc")
        .body(tonic::body::Body::new(never))
        .unwrap();
    let response = fixture.channel().await.oneshot(request).await.unwrap();
    assert_eq!(tonic::Status::from_header_map(response.headers()).unwrap().code(), Code::DeadlineExceeded);
    assert_eq!(fixture.faults().len(), 2);
    a_sound_sender_succeeds(&fixture).await;
}

#[tokio::test]
async fn when_all_places_are_taken_the_connection_that_was_idle_longest_goes() {
    let fixture = Fixture::with(Settings { connections: 3, ..Settings::default() }).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(TcpStream::connect(fixture.sink.address()).await.unwrap());
    }
    a_sound_sender_succeeds(&fixture).await;
    let cut = silent[0].read(&mut [0]).await;
    assert!(matches!(cut, Ok(0) | Err(_)));
    let notes = fixture.notes();
    let first = silent[0].local_addr().unwrap();
    assert!(notes[0].contains(&format!("cut the connection of {first}")), "{notes:?}");
}

#[tokio::test]
async fn a_busy_connection_is_never_cut_for_a_new_one() {
    let fixture = Fixture::with(Settings { connections: 1, ..Settings::default() }).await;
    fixture.sink.behaviour().add(behaviour::Rule {
        signal: None,
        act: Act::Hang,
        lasting: behaviour::Lasting::Requests(1),
    });
    let body = one_span().encode_to_vec();
    let request = reqwest::Client::new().post(fixture.url("/v1/traces")).header("content-type", PROTOBUF).body(body);
    let busy = tokio::spawn(request.send());
    let deadline = Instant::now() + Duration::from_secs(10);
    fixture.store.until(deadline, |capture| (!capture.lifecycle().is_empty()).then_some(())).await.unwrap();
    assert_eq!(told(&fixture, b"GET / HTTP/1.1\r\n").await, "");
    assert!(!busy.is_finished());
    assert!(fixture.notes()[1].contains("all of them busy"), "{:?}", fixture.notes());
    busy.abort();
}

#[tokio::test]
async fn bodies_that_are_too_much_together_are_to_come_again_later() {
    let fixture = Fixture::with(Settings { held_limit: 1 << 16, ..Settings::default() }).await;
    let response = fixture.post("/v1/traces", &[("content-type", PROTOBUF)], vec![0; (1 << 16) + 1]).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    let status = pb::Status::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!(status.details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    // What it held was given back.
    a_sound_sender_succeeds(&fixture).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_are_answered_while_bombs_are_taken_apart() {
    let fixture = Fixture::new().await;
    let bomb = gzip(&vec![0; BODY_LIMIT + 1]);
    let headers = [("content-type", PROTOBUF), ("content-encoding", "gzip")];
    let bombs = futures::future::join_all((0..3).map(|_| fixture.post("/v1/traces", &headers, bomb.clone())));
    let (bombs, ()) = futures::future::join(bombs, a_sound_sender_succeeds(&fixture)).await;
    assert!(bombs.iter().all(|response| response.status() == StatusCode::PAYLOAD_TOO_LARGE));
    assert_eq!(fixture.faults().len(), 3);
}
