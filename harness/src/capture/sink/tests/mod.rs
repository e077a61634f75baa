//! The sink through real sockets: what it takes, what it refuses, and what it says of both.

mod hostile;
mod misbehaviour;
mod protocol;
mod settings;

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, KeyValue, any_value},
    logs::v1::{LogRecord as SentLog, ResourceLogs, ScopeLogs},
    metrics::v1::{Metric as SentMetric, ResourceMetrics, ScopeMetrics},
    trace::v1::{ResourceSpans, ScopeSpans, Span as SentSpan},
};
use tonic::transport::Channel;
use tower::ServiceExt;

use super::*;

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
        Self::with(Settings { body_limit: limit, ..Settings::default() }).await
    }

    async fn with(settings: Settings) -> Self {
        let store = Arc::new(Store::default());
        let sink = Sink::bind("127.0.0.1:0".parse().unwrap(), store.clone(), settings).await.unwrap();
        Self { sink, store }
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

    fn notes(&self) -> Vec<String> {
        self.store.look(|capture| {
            let marks = capture.lifecycle().iter().map(|entry| &entry.mark);
            marks.filter_map(Mark::at_the_sink).map(str::to_owned).collect()
        })
    }

    fn astray(&self) -> Vec<String> {
        self.store.look(|capture| {
            let marks = capture.lifecycle().iter().map(|entry| &entry.mark);
            marks.filter_map(|mark| if let Mark::Astray { what } = mark { Some(what.clone()) } else { None }).collect()
        })
    }

    fn faults(&self) -> Vec<String> {
        self.store.look(|capture| capture.faults().iter().map(|fault| fault.reason.clone()).collect())
    }
}

async fn json_of(response: reqwest::Response) -> serde_json::Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
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
