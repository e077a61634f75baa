//! Small values for the tests of correlation and expectation.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    capture::{Decoded, Encoding, ExportRequest, Signal, Store, Transport},
    stimulus::{Caller, ContextForm, Delivery, HttpResponse, Invocation},
    telemetry::*,
};

pub(crate) fn trace_id(n: u8) -> TraceId {
    TraceId::from_bytes(&[n; 16]).unwrap()
}

pub(crate) fn span_id(n: u64) -> SpanId {
    SpanId::from_bytes(&n.to_be_bytes()).unwrap()
}

/// An INTERNAL span of trace 1 that lasts from 10 to 11 ns.
pub(crate) fn span(id: u64, parent: Option<u64>, name: &str) -> Span {
    Span {
        trace_id: trace_id(1),
        span_id: span_id(id),
        parent_span_id: parent.map(span_id),
        trace_state: String::new(),
        flags: 0,
        name: name.to_owned(),
        kind: SpanKind::Internal,
        start_unix_nano: 10,
        end_unix_nano: 11,
        attributes: Attributes::default(),
        events: Vec::new(),
        links: Vec::new(),
        status: Status::default(),
        resource: Arc::default(),
        scope: Arc::default(),
        arrival: Arrival::default(),
    }
}

pub(crate) fn with(mut span: Span, kind: SpanKind, attributes: &[(&str, Value)]) -> Span {
    span.kind = kind;
    span.attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    span
}

/// A JSON line "hello" of stdout with these ids.
pub(crate) fn record(trace: Option<u8>, span: Option<u64>) -> LogRecord {
    LogRecord {
        origin: LogOrigin::Stdout,
        format: LineFormat::Json,
        arrival: Arrival { seq: 3, unix_nano: 15 },
        time_unix_nano: None,
        severity: Some(Severity { number: 9, text: "INFO".into() }),
        logger: "app".into(),
        message: "hello".into(),
        fields: Attributes::default(),
        trace_id: trace.map_or(IdClaim::Absent, |n| IdClaim::Valid(trace_id(n))),
        span_id: span.map_or(IdClaim::Absent, |n| IdClaim::Valid(span_id(n))),
        request_id: None,
        raw: "{\"message\":\"hello\"}".into(),
        body: Value::Empty,
        resource: None,
        scope: None,
    }
}

/// A request that carries on trace 1 from span 99, sent at 2 and answered at 4.
pub(crate) fn delivery() -> Delivery {
    Delivery {
        mark: "tracegate-mark-1".into(),
        method: "GET".into(),
        target: "/files/a.txt?x=1".into(),
        user_agent: "tracegate-mark-1".into(),
        headers: Vec::new(),
        caller: Some(Caller { trace_id: trace_id(1), span_id: span_id(99), sampled: true }),
        form: ContextForm::Both,
        sent: Arrival { seq: 2, unix_nano: 5 },
        answered: Arrival { seq: 4, unix_nano: 20 },
        response: HttpResponse { status: 200, headers: Vec::new(), body: Bytes::new() },
        invocation: None,
    }
}

pub(crate) fn invocation(request_id: &str) -> Invocation {
    Invocation {
        request_id: request_id.into(),
        environment: "environment".into(),
        cold_start: false,
        event_trace_header: None,
        runtime_trace_header: None,
        runtime_parent: None,
        error: None,
    }
}

/// A store with these spans and records. Lines take the arrivals 3, 4, … in their order, after both exports.
pub(crate) fn store(spans: Vec<Span>, records: Vec<LogRecord>) -> Store {
    let store = Store::default();
    let (otlp, lines): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.origin == LogOrigin::Otlp);
    export(&store, spans);
    add(&store, Signal::Logs, Decoded::Logs(otlp));
    for line in lines {
        store.add_line(String::new(), |_, arrival| vec![LogRecord { arrival, ..line }]);
    }
    store
}

/// One export request with these spans.
pub(crate) fn export(store: &Store, spans: Vec<Span>) {
    add(store, Signal::Traces, Decoded::Spans(spans));
}

/// One export request with these metrics.
pub(crate) fn export_metrics(store: &Store, metrics: Vec<Metric>) {
    add(store, Signal::Metrics, Decoded::Metrics(metrics));
}

fn add(store: &Store, signal: Signal, decoded: Decoded) {
    let request = ExportRequest {
        signal,
        transport: Transport::Http,
        encoding: Encoding::Protobuf,
        user_agent: String::new(),
        body: Bytes::new(),
        arrival: Arrival::default(),
    };
    store.add_values(request, decoded, Vec::new());
}
