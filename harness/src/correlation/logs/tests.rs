use super::*;
use crate::{
    correlation::{Options, request, samples::*},
    stimulus::{Caller, Delivery},
    telemetry::{LineFormat, Span, SpanKind},
};

fn entry() -> Span {
    with(
        span(1, Some(99), "GET /files/{path}"),
        SpanKind::Server,
        &[("user_agent.original", "tracegate-mark-1".into())],
    )
}

fn evidence_of(delivery: &Delivery, spans: Vec<Span>, records: Vec<LogRecord>) -> RequestEvidence {
    let options = Options { window_end: Some(100), exclusive: true, ..Options::default() };
    store(spans, records).look(|capture| request(capture, delivery, options))
}

fn conditions(record: LogRecord, delivery: &Delivery, spans: Vec<Span>) -> Vec<u8> {
    let evidence = evidence_of(delivery, spans, vec![record.clone()]);
    match correlated(&record, &evidence) {
        Ok(()) => Vec::new(),
        Err(failures) => failures.iter().map(Uncorrelated::condition).collect(),
    }
}

fn with_fields(record: LogRecord, fields: &[(&str, &str)]) -> LogRecord {
    LogRecord { fields: fields.iter().map(|(key, value)| (*key, Value::from(*value))).collect(), ..record }
}

#[test]
fn a_record_on_a_received_span_of_the_request_is_correlated() {
    assert_eq!(conditions(record(Some(1), Some(1)), &delivery(), vec![entry()]), [0; 0]);
}

#[test]
fn condition_one_absent_zero_and_malformed_ids_fail() {
    let zero = LogRecord { trace_id: IdClaim::Zero, span_id: IdClaim::Zero, ..record(None, None) };
    let malformed = LogRecord { span_id: IdClaim::Malformed("x".into()), ..record(Some(1), None) };
    for record in [zero, malformed, record(None, None), record(Some(1), None)] {
        assert_eq!(conditions(record, &delivery(), vec![entry()]), [1]);
    }
}

#[test]
fn condition_two_a_span_that_never_came_fails_and_so_does_one_of_another_trace() {
    assert_eq!(conditions(record(Some(1), Some(7)), &delivery(), vec![entry()]), [2]);
    assert_eq!(conditions(record(Some(5), Some(1)), &delivery(), vec![entry()]), [2, 4]);
}

#[test]
fn condition_two_is_waived_when_the_caller_did_not_sample_and_zeros_are_not() {
    let mut delivery = delivery();
    delivery.caller = delivery.caller.map(|caller| Caller { sampled: false, ..caller });
    assert_eq!(conditions(record(Some(1), Some(7)), &delivery, Vec::new()), [0; 0]);
    assert_eq!(conditions(record(Some(1), None), &delivery, Vec::new()), [1]);
}

#[test]
fn condition_three_a_span_of_another_request_fails_and_names_it() {
    let mut foreign = with(span(5, None, "GET /other"), SpanKind::Server, &[("user_agent.original", "other".into())]);
    foreign.trace_id = trace_id(5);
    let bled = LogRecord { raw: "for tracegate-mark-1".into(), ..record(Some(5), Some(5)) };
    let evidence = evidence_of(&delivery(), vec![entry(), foreign], vec![bled.clone()]);
    let failures = correlated(&bled, &evidence).unwrap_err();
    assert_eq!(failures.iter().map(Uncorrelated::condition).collect::<Vec<_>>(), [3, 4]);
    assert!(failures[0].to_string().ends_with("of another request: SERVER \"GET /other\" (0000000000000005)"));
}

#[test]
fn condition_three_a_span_in_a_trace_that_the_request_s_own_work_began_is_not_called_another_request_s() {
    let cut_off = Span { trace_id: trace_id(5), ..span(5, None, "mail") };
    let line = LogRecord { raw: "for tracegate-mark-1".into(), ..record(Some(5), Some(5)) };
    let mut evidence = evidence_of(&delivery(), vec![entry(), cut_off.clone()], vec![line.clone()]);
    evidence.strangers = vec![Stranger::Detached { span: cut_off.into() }];
    let failures = correlated(&line, &evidence).unwrap_err();
    assert_eq!(failures.iter().map(Uncorrelated::condition).collect::<Vec<_>>(), [3, 4]);
    let told = failures[0].to_string();
    assert!(told.ends_with("INTERNAL \"mail\" (0000000000000005) began one of its own"), "{told}");
}

#[test]
fn condition_three_a_record_that_quotes_another_request_fails() {
    let quotes =
        |fields: &[(&str, &str)]| conditions(with_fields(record(Some(1), Some(1)), fields), &delivery(), vec![entry()]);
    assert_eq!(quotes(&[("headers.user-agent", "tracegate-mark-2")]), [3]);
    assert_eq!(quotes(&[("headers.user-agent", "python-httpx/0.27"), ("method", "GET"), ("path", "/stock")]), [0; 0]);
    assert_eq!(quotes(&[("headers.accept", "*/*"), ("method", "POST"), ("path", "/stock")]), [0; 0], "a call out");
    // A literal event has a User-Agent of its own, by which another one cannot be told.
    let literal = Delivery { user_agent: "Custom User Agent String".into(), ..delivery() };
    let of_literal = |fields: &[(&str, &str)]| {
        let entry = with(span(1, Some(99), "GET /files/{path}"), SpanKind::Server, &[]);
        conditions(with_fields(record(Some(1), Some(1)), fields), &literal, vec![entry])
    };
    assert_eq!(of_literal(&[("headers.user-agent", "other")]), [3]);
    assert_eq!(of_literal(&[("headers.accept", "*/*"), ("method", "POST"), ("path", "/files/a.txt")]), [3]);
    assert_eq!(of_literal(&[("headers.accept", "*/*"), ("method", "GET"), ("path", "/files/b.txt")]), [3]);
    assert_eq!(
        quotes(&[("headers.user-agent", "tracegate-mark-1"), ("method", "GET"), ("path", "/files/a.txt")]),
        [0; 0]
    );
    // A mount or a stage before the path is the same request; a path without headers may be any path.
    assert_eq!(quotes(&[("headers.accept", "*/*"), ("method", "GET"), ("path", "/prod/files/a%2Etxt")]), [0; 0]);
    assert_eq!(quotes(&[("method", "put"), ("path", "/var/data/b.txt")]), [0; 0]);
}

#[test]
fn condition_three_does_not_take_an_outgoing_call_for_the_request() {
    let client = with(span(2, Some(1), "S3.PutObject"), SpanKind::Client, &[]);
    let outgoing = with_fields(record(Some(1), Some(2)), &[("headers.user-agent", "Boto3")]);
    assert_eq!(conditions(outgoing, &delivery(), vec![entry(), client]), [0; 0]);
}

#[test]
fn condition_three_looks_into_the_message_of_an_otlp_record() {
    let mut otlp = record(Some(1), Some(1));
    (otlp.origin, otlp.format) = (crate::telemetry::LogOrigin::Otlp, LineFormat::Otlp);
    otlp.message = "Request details: {\"headers\": {\"user-agent\": \"tracegate-mark-2\"}}".into();
    assert_eq!(conditions(otlp, &delivery(), vec![entry()]), [3]);
}

#[test]
fn condition_four_a_trace_that_is_not_the_callers_fails() {
    let mut own_trace = entry();
    (own_trace.trace_id, own_trace.parent_span_id) = (trace_id(7), None);
    assert_eq!(conditions(record(Some(7), Some(1)), &delivery(), vec![own_trace.clone()]), [4]);
    let nobody = Delivery { caller: None, ..delivery() };
    assert_eq!(conditions(record(Some(7), Some(1)), &nobody, vec![own_trace]), [0; 0]);
}

#[test]
fn condition_five_judges_tab_lines_by_the_request_id_alone() {
    let delivery = Delivery { invocation: Some(invocation("r-1")), ..delivery() };
    let tab = |request: &str| LogRecord {
        format: LineFormat::LambdaTab,
        request_id: Some(request.into()),
        raw: "tracegate-mark-1".into(),
        ..record(None, None)
    };
    let root = with(span(1, Some(99), "f"), SpanKind::Server, &[("faas.invocation_id", "r-1".into())]);
    assert_eq!(conditions(tab("r-1"), &delivery, vec![root.clone()]), [0; 0]);
    assert_eq!(conditions(tab("r-2"), &delivery, vec![root]), [5]);
    assert_eq!(conditions(tab("r-1"), &delivery, vec![entry()]), [5], "no span has the request id");
}

#[test]
fn condition_five_a_record_with_ids_and_a_foreign_request_id_fails() {
    let delivery = Delivery { invocation: Some(invocation("r-1")), ..delivery() };
    let of = |request: &str| {
        let record = LogRecord { request_id: Some(request.into()), ..record(Some(1), Some(1)) };
        with_fields(record, &[("aws_request_id", request)])
    };
    assert_eq!(conditions(of("r-2"), &delivery, vec![entry()]), [5]);
    assert_eq!(conditions(of("r-1"), &delivery, vec![entry()]), [0; 0]);
}

#[test]
fn a_request_id_that_may_be_a_gateways_fails_only_when_it_is_another_invocations() {
    let delivery = Delivery { invocation: Some(invocation("r-1")), ..delivery() };
    let bare = with_fields(
        LogRecord { request_id: Some("r-2".into()), ..record(Some(1), Some(1)) },
        &[("requestId", "r-2"), ("path", "/a")],
    );
    let store = store(vec![entry()], vec![bare.clone()]);
    let judged = || {
        let options = Options { window_end: Some(100), exclusive: true, ..Options::default() };
        let evidence = store.look(|capture| request(capture, &delivery, options));
        correlated(&bare, &evidence)
            .map_err(|failures| failures.iter().map(Uncorrelated::condition).collect::<Vec<_>>())
    };
    assert_eq!(judged(), Ok(()));
    store.mark(crate::capture::Mark::Dispatched { request_id: "r-2".into(), environment: "e".into() });
    assert_eq!(judged(), Err(vec![5]));
}

#[test]
fn a_json_line_of_lambdas_runtime_is_judged_by_its_request_id_and_one_with_fields_of_its_own_is_not() {
    let delivery = Delivery { invocation: Some(invocation("r-1")), ..delivery() };
    let line = |more: &[(&str, &str)]| {
        let fields = [("timestamp", "t"), ("level", "INFO"), ("message", "hello"), ("requestId", "r-1")];
        let record = LogRecord { format: LineFormat::Json, request_id: Some("r-1".into()), ..record(None, None) };
        with_fields(record, &[&fields[..], more].concat())
    };
    let root = || with(span(1, Some(99), "f"), SpanKind::Server, &[("faas.invocation_id", "r-1".into())]);
    assert_eq!(conditions(line(&[]), &delivery, vec![root()]), [0; 0]);
    assert_eq!(conditions(line(&[("path", "/files/a.txt")]), &delivery, vec![root()]), [1], "a logger of its own");
    assert_eq!(conditions(line(&[]), &delivery, vec![entry()]), [5], "no span has the request id");
}

#[test]
fn text_is_never_uncorrelated() {
    let text = LogRecord { format: LineFormat::Text, ..record(None, None) };
    assert_eq!(conditions(text, &delivery(), vec![entry()]), [0; 0]);
}
