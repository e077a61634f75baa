//! What real services do and what is sound: none of it may break a rule, and only this may be mentioned.

use std::sync::Arc;

use super::{tests::*, *};
use crate::{
    capture::{Mark, Store},
    correlation::samples::{self, delivery, record, span, span_id, trace_id, with},
    stimulus::{Caller, ContextForm},
    telemetry::{
        Arrival, DataPoint, LineFormat, LogOrigin, LogRecord, MetricKind, PointValue, Span, SpanKind, SpanLink, Status,
        StatusCode, Temporality, Value,
    },
};

const MILLI: u64 = 1_000_000;

/// A request that took from 100 to 200 ms.
fn request() -> Delivery {
    let (sent, answered) = (Arrival { seq: 0, unix_nano: 100 * MILLI }, Arrival { seq: 9, unix_nano: 200 * MILLI });
    Delivery { sent, answered, ..delivery() }
}

/// Its SERVER span, of 101 to 199 ms.
fn server() -> Span {
    Span { start_unix_nano: 101 * MILLI, end_unix_nano: 199 * MILLI, ..entry() }
}

fn child(id: u64, kind: SpanKind, from: u64, to: u64) -> Span {
    let span = with(span(id, Some(1), "child"), kind, &[]);
    with_resource(Span { start_unix_nano: from * MILLI, end_unix_nano: to * MILLI, ..span })
}

fn otlp(trace: Option<u8>, span: Option<u64>) -> LogRecord {
    let resource = Some(entry().resource);
    LogRecord { origin: LogOrigin::Otlp, format: LineFormat::Otlp, resource, ..record(trace, span) }
}

/// Of a request that was answered with the status that the SERVER span tells.
fn mentioned(spans: Vec<Span>, records: Vec<LogRecord>) -> Vec<&'static str> {
    let code =
        |span: &Span| ["http.response.status_code", "http.status_code"].map(|key| span.attributes.get(key)?.as_int());
    let server = spans.iter().filter(|span| span.kind == SpanKind::Server);
    let answered = server.flat_map(code).flatten().find_map(|code| u16::try_from(code).ok());
    let mut request = request();
    request.response.status = answered.unwrap_or(request.response.status);
    assert_eq!(broken(&request, spans.clone(), records.clone(), true), [""; 0]);
    told(&request, spans, records)
}

#[test]
fn an_instrumentation_of_old_names_with_the_spans_of_asgi() {
    let old = [
        ("http.method", "GET".into()),
        ("http.status_code", Value::Int(404)),
        ("net.peer.port", Value::Int(5)),
        ("http.flavor", "1.1".into()),
    ];
    let server = with(server(), SpanKind::Server, &old);
    let send =
        with(child(2, SpanKind::Internal, 190, 191), SpanKind::Internal, &[("http.status_code", Value::Int(404))]);
    let receive = with(child(3, SpanKind::Internal, 102, 103), SpanKind::Internal, &[("asgi.event.type", "x".into())]);
    assert_eq!(mentioned(vec![send, receive, server], Vec::new()), ["deprecated-attributes"]);
}

#[test]
fn work_that_outlives_its_request_with_the_lines_that_it_writes() {
    let line = LogRecord { time_unix_nano: None, ..record(Some(1), Some(2)) };
    let late = child(2, SpanKind::Internal, 150, 900);
    assert_eq!(mentioned(vec![server(), late], vec![line]), ["child-in-parent"]);
}

#[test]
fn an_answer_that_is_streamed_on_behind_its_head() {
    let streamed = Span { end_unix_nano: 700 * MILLI, ..server() };
    assert_eq!(mentioned(vec![streamed, child(2, SpanKind::Internal, 190, 690)], Vec::new()), [""; 0]);
}

#[test]
fn a_message_that_is_consumed_long_behind_the_request_in_a_service_of_its_own() {
    let sent = child(2, SpanKind::Producer, 150, 151);
    let consumed = Span {
        parent_span_id: Some(span_id(2)),
        resource: resource(&[("service.name", "mailer")]),
        ..child(3, SpanKind::Consumer, 800, 900)
    };
    let work = Span { parent_span_id: Some(span_id(3)), ..child(4, SpanKind::Internal, 810, 820) };
    assert_eq!(mentioned(vec![server(), sent, consumed, work], Vec::new()), [""; 0]);
}

#[test]
fn clocks_of_two_containers_that_are_five_milliseconds_apart() {
    let call = child(2, SpanKind::Client, 110, 120);
    let other = Span {
        parent_span_id: Some(span_id(2)),
        resource: resource(&[("service.name", "stock"), ("service.instance.id", "s")]),
        ..child(3, SpanKind::Server, 105, 126)
    };
    assert_eq!(mentioned(vec![server(), call, other], Vec::new()), [""; 0]);
}

#[test]
fn a_service_without_a_name_and_a_process_that_says_nothing_of_itself() {
    let nameless = Span { resource: resource(&[("service.name", "unknown_service:python")]), ..server() };
    assert_eq!(mentioned(vec![nameless], Vec::new()), ["unknown-service"]);
}

#[test]
fn a_proxy_that_passes_the_headers_on_and_asks_twice() {
    let first = Span { end_unix_nano: 140 * MILLI, ..server() };
    let again = Span { span_id: span_id(2), start_unix_nano: 150 * MILLI, ..server() };
    let elsewhere = Span { span_id: span_id(3), resource: resource(&[("service.name", "cart")]), ..server() };
    assert_eq!(mentioned(vec![first, again, elsewhere], Vec::new()), [""; 0]);
}

#[test]
fn a_service_at_the_edge_that_begins_a_trace_of_its_own() {
    let agent = [("user_agent.original", "tracegate-mark-1".into())];
    let own = Span { trace_id: trace_id(5), parent_span_id: None, ..with(server(), SpanKind::Server, &agent) };
    assert_eq!(mentioned(vec![own.clone()], vec![otlp(Some(5), Some(1))]), ["carries-on"]);
    let link = SpanLink {
        trace_id: trace_id(1).to_string(),
        span_id: span_id(99).to_string(),
        attributes: Default::default(),
    };
    assert_eq!(mentioned(vec![Span { links: vec![link], ..own }], Vec::new()), [""; 0]);
}

#[test]
fn lines_without_ids_beside_exported_records_that_have_them() {
    let access = LogRecord { raw: "GET /files/a.txt?x=1 tracegate-mark-1".into(), ..record(None, None) };
    assert_eq!(mentioned(vec![server()], vec![access, otlp(Some(1), Some(1))]), ["log-ids"]);
}

#[test]
fn a_request_that_is_not_sampled_with_lines_that_name_its_trace() {
    let caller = delivery().caller.map(|caller| Caller { sampled: false, ..caller });
    let unsampled = Delivery { caller, ..request() };
    assert_eq!(told(&unsampled, Vec::new(), vec![record(Some(1), Some(7)), otlp(Some(1), Some(7))]), [""; 0]);
}

#[test]
fn a_sampler_that_drops_the_trace_of_a_health_check() {
    assert_eq!(mentioned(Vec::new(), vec![record(Some(1), Some(7))]), [""; 0]);
}

#[test]
fn statuses_that_the_application_sets_itself() {
    let code = |code| [("http.response.status_code", Value::Int(code)), ("http.request.method", "GET".into())];
    let maintenance = with(
        Span { status: Status { code: StatusCode::Ok, ..Status::default() }, ..server() },
        SpanKind::Server,
        &code(503),
    );
    assert_eq!(mentioned(vec![maintenance], Vec::new()), [""; 0]);
    let message = "the client went away".to_owned();
    let cancelled = Span { status: Status { code: StatusCode::Error, message }, ..server() };
    assert_eq!(mentioned(vec![with(cancelled, SpanKind::Server, &code(499))], Vec::new()), [""; 0]);
    let known = with(child(2, SpanKind::Client, 110, 120), SpanKind::Client, &code(404));
    assert_eq!(mentioned(vec![server(), known], Vec::new()), ["client-error-status"]);
}

#[test]
fn spans_that_a_layer_makes_of_a_start_and_of_its_own_work() {
    let invocation = crate::stimulus::Invocation { runtime_parent: Some(span_id(50)), ..samples::invocation("r") };
    let invoked = Delivery { invocation: Some(invocation), form: ContextForm::Xray, ..request() };
    let function = resource(&[("service.name", "f"), ("faas.instance", "i")]);
    let on = |id, from, to| Span { parent_span_id: Some(span_id(50)), ..child(id, SpanKind::Internal, from, to) };
    let entry = Span { parent_span_id: Some(span_id(50)), resource: function.clone(), ..server() };
    let init = Span { resource: function, ..on(2, 10, 90) };
    let extension =
        Span { resource: resource(&[("service.name", "agent"), ("faas.instance", "i")]), ..on(3, 150, 160) };
    let (spans, none) = (vec![entry, init, extension], Vec::new());
    assert_eq!(told(&invoked, spans, none), [""; 0]);
}

#[test]
fn workers_with_one_resource_whose_metrics_come_in_turns() {
    let store = Store::default();
    for _ in 0..3 {
        store.mark(Mark::Sent { delivery: "d".into() });
    }
    samples::export(&store, vec![server()]);
    for (start, count) in [(1, 2), (2, 1), (1, 2), (2, 1)] {
        let value = PointValue::Histogram { count, sum: None, bounds: Vec::new(), bucket_counts: vec![count] };
        let exemplars = Vec::new();
        let point =
            DataPoint { attributes: Default::default(), start_unix_nano: start, time_unix_nano: 5, value, exemplars };
        samples::export_metrics(
            &store,
            vec![Metric {
                name: "http.server.request.duration".into(),
                unit: "s".into(),
                description: String::new(),
                kind: MetricKind::Histogram(Temporality::Cumulative),
                points: vec![point],
                resource: entry().resource,
                scope: Arc::default(),
                arrival: Arrival::default(),
            }],
        );
    }
    assert_eq!(judge(&store, &request(), true, &[]), [""; 0]);
}
