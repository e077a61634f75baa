//! The binary as an HTTP server: settings, export, signals, worker processes.

#[path = "support/process.rs"]
mod process;
#[path = "support/receiver.rs"]
mod receiver;

use std::collections::HashSet;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use process::Process;
use receiver::{Receiver, message, text, value};

#[tokio::test]
async fn wrong_settings_end_it_with_all_problems_and_exit_code_2() {
    let mut process = Process::start(&[], &[("DEV_PORT", "port"), ("OTEL_TRACES_EXPORTER", "zipkin")]);
    let (code, errors) = process.end().await;
    assert_eq!(code, Some(2));
    assert!(errors.contains("DEV_PORT: `port` is no port from 0 to 65535"), "{errors}");
    assert!(errors.contains("OTEL_TRACES_EXPORTER: `zipkin` is neither otlp nor none"));
    assert!(process.seen.is_empty());
}

#[tokio::test]
async fn a_port_in_use_ends_it_with_exit_code_1_and_the_address() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (code, errors) = Process::start(&[], &[("DEV_PORT", &port)]).end().await;
    assert_eq!(code, Some(1));
    assert!(errors.contains(&format!("cannot listen on 127.0.0.1:{port}: Address")), "{errors}");
}

/// Serves two requests, stops at a signal, and has exported everything by then.
async fn exports_everything(protocol: &str, compression: &str, signal: Signal) -> Receiver {
    let receiver = Receiver::start().await;
    let endpoint = if protocol == "grpc" { &receiver.grpc } else { &receiver.http };
    let mut process = Process::start(
        &[],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", compression),
            // Nothing leaves by itself: what arrives was flushed at the end.
            ("OTEL_BSP_SCHEDULE_DELAY", "3600000"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "3600000"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "3600000"),
        ],
    );
    let url = process.url().await;
    for path in ["/files/", "/files/missing.txt"] {
        reqwest::get(format!("{url}{path}")).await.unwrap();
    }
    process.signal(signal);
    let (code, errors) = process.end().await;
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{:#?}", process.seen);
    let received = receiver.received();
    for name in ["GET /files/", "Memory.ListObjectsV2", "GET /files/{path}", "Memory.GetObject"] {
        received.span(name);
    }
    let span = received.span("GET /files/");
    assert_eq!(value(&span.attributes, "http.response.status_code"), Value::IntValue(200));
    assert!(received.metrics.contains(&"http.server.request.duration".to_owned()));
    let line = process.seen.iter().find(|line| line["message"] == "Request details").unwrap();
    let record =
        received.logs.iter().map(|(_, record)| record).find(|record| message(record) == "Request details").unwrap();
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(line["trace_id"], hex(&record.trace_id));
    assert_eq!(line["span_id"], hex(&record.span_id));
    assert_eq!(record.span_id, span.span_id);
    assert!(matches!(value(&record.attributes, "headers"), Value::KvlistValue(_)));
    let (owner, listening) = received.logs.iter().find(|(_, record)| message(record) == "Listening").unwrap();
    assert!(listening.trace_id.is_empty() && listening.span_id.is_empty());
    assert_eq!(text(&owner.attributes, "service.name"), "serverless-axum");
    receiver
}

#[tokio::test]
async fn a_signal_flushes_all_three_signals_over_http_protobuf() {
    let receiver = exports_everything("http/protobuf", "none", Signal::SIGTERM).await;
    assert!(receiver.received().http.iter().all(|kind| kind == "application/x-protobuf "));
}

#[tokio::test]
async fn a_signal_flushes_all_three_signals_over_http_json_and_gzip() {
    let receiver = exports_everything("http/json", "gzip", Signal::SIGINT).await;
    assert!(receiver.received().http.iter().all(|kind| kind == "application/json gzip"));
}

#[tokio::test]
async fn a_signal_flushes_all_three_signals_over_grpc() {
    let receiver = exports_everything("grpc", "none", Signal::SIGTERM).await;
    assert!(receiver.received().http.is_empty());
}

#[tokio::test]
async fn a_signal_flushes_all_three_signals_over_grpc_and_gzip() {
    exports_everything("grpc", "gzip", Signal::SIGTERM).await;
}

#[tokio::test]
async fn spans_leave_by_themselves_after_the_schedule_delay() {
    let receiver = Receiver::start().await;
    let mut process =
        Process::start(&[], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.http), ("OTEL_BSP_SCHEDULE_DELAY", "10")]);
    let url = process.url().await;
    reqwest::get(format!("{url}/healthcheck")).await.unwrap();
    let received = receiver.until(|received| !received.spans.is_empty()).await;
    received.span("GET /healthcheck");
}

#[tokio::test]
async fn a_collector_that_cannot_be_reached_stops_nothing() {
    let mut process = Process::start(
        &[],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("TELEMETRY_FLUSH_TIMEOUT", "500")],
    );
    let url = process.url().await;
    assert_eq!(reqwest::get(format!("{url}/healthcheck")).await.unwrap().status(), 200);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().await.0, Some(0));
}

#[tokio::test]
async fn a_collector_that_never_answers_does_not_hold_up_the_end() {
    // Connections are accepted by the system, and nobody reads from them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    for protocol in ["http/protobuf", "grpc"] {
        let mut process = Process::start(
            &[],
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000"),
                ("TELEMETRY_FLUSH_TIMEOUT", "100"),
            ],
        );
        let url = process.url().await;
        reqwest::get(format!("{url}/healthcheck")).await.unwrap();
        process.signal(Signal::SIGTERM);
        assert_eq!(process.end().await.0, Some(0), "{protocol}");
    }
}

#[tokio::test]
async fn each_worker_process_has_a_resource_of_its_own() {
    let receiver = Receiver::start().await;
    let mut process = Process::start(&["--workers", "2"], &[("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.http)]);
    let url = process.url().await;
    assert_eq!(process.url().await, url, "one socket for both");
    assert_eq!(reqwest::get(format!("{url}/healthcheck")).await.unwrap().status(), 200);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().await.0, Some(0));
    let started: HashSet<i64> = process
        .seen
        .iter()
        .filter(|line| line["message"] == "Worker started")
        .map(|line| line["pid"].as_i64().unwrap())
        .collect();
    let received = receiver.received();
    let pid = |attributes: &[_]| match value(attributes, "process.pid") {
        Value::IntValue(pid) => pid,
        other => panic!("process.pid is {other:?}"),
    };
    let owners: HashSet<(i64, String)> = received
        .logs
        .iter()
        .map(|(owner, _)| (pid(&owner.attributes), text(&owner.attributes, "service.instance.id")))
        .collect();
    assert_eq!(owners.len(), 2, "the parent exports nothing");
    assert_eq!(owners.iter().map(|(pid, _)| *pid).collect::<HashSet<_>>(), started);
    assert_eq!(owners.iter().map(|(_, id)| id).collect::<HashSet<_>>().len(), 2);
    let (owner, span) = &received.spans[0];
    assert_eq!(span.name, "GET /healthcheck");
    assert!(started.contains(&pid(&owner.attributes)));
}

fn end_hard(worker: &serde_json::Value) {
    let pid = i32::try_from(worker["pid"].as_i64().unwrap()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn a_worker_that_dies_is_named_and_replaced() {
    let mut process = Process::start(&["--workers", "2"], &[]);
    let worker = process.line("Worker started").await;
    let url = process.url().await;
    end_hard(&worker);
    let died = process.line("Worker died").await;
    assert_eq!(died["level"], "ERROR");
    assert_eq!((&died["worker"], &died["pid"]), (&worker["worker"], &worker["pid"]));
    assert!(died["status"].as_str().unwrap().contains("SIGKILL"));
    let next = process.line("Worker started").await;
    assert_eq!(next["worker"], worker["worker"]);
    assert_eq!(process.url().await, url);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.end().await.0, Some(0));
}

#[tokio::test]
async fn workers_that_keep_dying_end_the_parent_with_exit_code_1() {
    let mut process = Process::start(&["--workers", "2"], &[]);
    for _ in 0..6 {
        let worker = process.line("Worker started").await;
        end_hard(&worker);
    }
    let (code, errors) = process.end().await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("workers died within 60 s"), "{errors}");
}

#[tokio::test]
async fn workers_end_when_their_parent_is_killed() {
    let mut process = Process::start(&["--workers", "2"], &[]);
    process.url().await;
    process.url().await;
    process.signal(Signal::SIGKILL);
    // The end of stdout: nobody is left to write to it.
    while process.next().await.is_some() {}
    let reasons: Vec<_> =
        process.seen.iter().filter(|line| line["message"] == "Stopping").map(|line| line["reason"].clone()).collect();
    assert_eq!(reasons, ["parent gone", "parent gone"]);
}
