use super::*;
use crate::telemetry::{LogOrigin, LogRecord, SpanKind, Value};
use crate::{
    capture::Mark,
    correlation::samples::*,
    telemetry::{Arrival, IdClaim, LineFormat, Span, SpanLink},
};

fn server(id: u64, parent: Option<u64>, attributes: &[(&str, Value)]) -> Span {
    with(span(id, parent, "GET /files/{path}"), SpanKind::Server, attributes)
}

fn mark() -> Value {
    "tracegate-mark-1".into()
}

fn find(spans: Vec<Span>, records: Vec<LogRecord>, delivery: &Delivery, options: Options<'_>) -> RequestEvidence {
    store(spans, records).look(|capture| request(capture, delivery, options))
}

fn found(spans: Vec<Span>, delivery: &Delivery) -> RequestEvidence {
    find(spans, Vec::new(), delivery, Options::default())
}

fn alone() -> Options<'static> {
    Options { window_end: Some(100), exclusive: true, ..Options::default() }
}

fn in_trace(n: u8, mut span: Span) -> Span {
    span.trace_id = trace_id(n);
    span
}

#[test]
fn a_trace_of_its_own_is_the_requests_with_everything_in_it() {
    let evidence = found(vec![span(2, Some(1), "child"), server(1, Some(99), &[])], &delivery());
    assert_eq!((evidence.found_by, evidence.entries.len(), evidence.trace.len()), (FoundBy::RemoteParent, 1, 2));
    assert_eq!(evidence.trace_id(), Some(trace_id(1)));
    assert!(evidence.trace.orphans.is_empty() && evidence.strangers.is_empty());
}

#[test]
fn a_root_in_the_callers_trace_is_found_by_the_trace_id_alone() {
    assert_eq!(found(vec![server(1, None, &[])], &delivery()).found_by, FoundBy::TraceId);
}

#[test]
fn a_server_span_on_an_unknown_parent_is_an_entry_and_an_orphan_and_other_spans_only_orphans() {
    let evidence = found(vec![server(1, Some(50), &[]), span(2, Some(60), "lost")], &delivery());
    assert_eq!((evidence.entries.len(), evidence.trace.len(), evidence.trace.orphans.len()), (1, 2, 2));
}

#[test]
fn in_a_shared_trace_the_user_agent_decides_and_the_others_are_strangers() {
    let other = server(3, Some(99), &[("user_agent.original", "tracegate-mark-2".into())]);
    let own = server(1, Some(99), &[("user_agent.original", mark())]);
    let evidence = found(vec![other, own, span(2, Some(1), "a"), span(4, Some(3), "b")], &delivery());
    assert_eq!((evidence.found_by, evidence.trace.len()), (FoundBy::UserAgent, 2));
    assert_eq!(evidence.strangers.len(), 2);
    assert!(evidence.strangers[1].to_string().contains("stands under another entry span"));
}

#[test]
fn in_a_shared_trace_the_time_decides_when_nothing_else_does() {
    let (own, mut later) = (server(1, Some(99), &[]), server(2, Some(99), &[]));
    later.start_unix_nano = 2_000_000_000;
    let evidence = found(vec![own, later], &delivery());
    assert_eq!((evidence.found_by, evidence.entries[0].span_id), (FoundBy::Window, span_id(1)));
}

#[test]
fn a_call_with_the_context_that_was_given_comes_in_beside_the_entry_and_is_the_requests_too() {
    // The front has a span of its own, and hands on the header that it was given and not one that names its span.
    let front = server(1, Some(99), &[("user_agent.original", mark())]);
    let back = server(3, Some(99), &[("user_agent.original", "python-httpx".into())]);
    let evidence = found(vec![span(4, Some(3), "query"), back, front], &delivery());
    assert_eq!((evidence.entries.len(), evidence.trace.len()), (2, 3));
    assert!(evidence.strangers.is_empty());
}

#[test]
fn the_request_id_outweighs_a_shared_user_agent() {
    let delivery = Delivery { invocation: Some(invocation("r-1")), ..delivery() };
    let of = |id, request: &str| {
        server(id, Some(99), &[("faas.invocation_id", request.into()), ("http.user_agent", mark())])
    };
    let evidence = found(vec![of(1, "r-2"), of(2, "r-1")], &delivery);
    assert_eq!((evidence.found_by, evidence.entries[0].span_id), (FoundBy::RequestId, span_id(2)));
}

#[test]
fn a_request_id_of_a_client_span_is_that_of_another_service() {
    let delivery = Delivery { invocation: Some(invocation("r-1")), ..delivery() };
    let s3 = with(span(2, Some(1), "S3.GetObject"), SpanKind::Client, &[("aws.request_id", "s3-id".into())]);
    assert_eq!(found(vec![server(1, Some(99), &[]), s3], &delivery).entries.len(), 1);
}

#[test]
fn without_propagation_the_request_is_found_by_its_mark_in_another_trace() {
    let lost = in_trace(7, server(1, None, &[("user_agent.original", mark())]));
    let evidence = found(vec![lost], &delivery());
    assert_eq!((evidence.found_by, evidence.trace_id()), (FoundBy::UserAgent, Some(trace_id(7))));
}

#[test]
fn without_propagation_and_mark_the_only_entry_in_the_window_is_taken_and_of_two_none() {
    let (first, second) = (in_trace(7, server(1, None, &[])), in_trace(8, server(2, None, &[])));
    assert_eq!(found(vec![first.clone()], &delivery()).found_by, FoundBy::Window);
    let evidence = found(vec![first.clone(), second], &delivery());
    assert_eq!((evidence.found_by, evidence.candidates.len()), (FoundBy::Nothing, 2));
    let foreign = in_trace(8, server(2, None, &[("user_agent.original", "other".into())]));
    let evidence = found(vec![foreign], &delivery());
    assert_eq!((evidence.found_by, evidence.candidates.len()), (FoundBy::Nothing, 0));
}

#[test]
fn a_trace_that_begins_at_the_edge_with_a_link_to_the_callers_span_is_the_requests() {
    let linked = |trace: u8, link: u64| {
        let links = vec![SpanLink {
            trace_id: trace_id(1).to_string(),
            span_id: span_id(link).to_string(),
            attributes: Attributes::default(),
        }];
        in_trace(trace, Span { links, ..server(u64::from(trace), None, &[]) })
    };
    let evidence = found(vec![linked(8, 98), linked(7, 99), in_trace(6, server(6, None, &[]))], &delivery());
    assert_eq!((evidence.found_by, evidence.trace_id()), (FoundBy::Link, Some(trace_id(7))));
    let job = Span { kind: SpanKind::Consumer, ..linked(7, 99) };
    assert_eq!(found(vec![job, linked(8, 98)], &delivery()).found_by, FoundBy::Nothing, "a consumer comes later");
}

#[test]
fn an_unsampled_request_has_no_spans_and_a_marked_one_would_be_seen() {
    let mut delivery = delivery();
    delivery.caller = delivery.caller.map(|caller| Caller { sampled: false, ..caller });
    let other = in_trace(7, server(1, None, &[]));
    assert_eq!(found(vec![other], &delivery).found_by, FoundBy::NotSampled);
    let own = in_trace(7, server(1, None, &[("user_agent.original", mark())]));
    assert_eq!(found(vec![own], &delivery).found_by, FoundBy::UserAgent);
}

#[test]
fn an_entry_of_the_request_in_a_second_trace_is_a_stranger() {
    let split = in_trace(7, server(5, None, &[("user_agent.original", mark())]));
    let evidence = found(vec![server(1, Some(99), &[]), split], &delivery());
    assert!(matches!(&evidence.strangers[..], [Stranger::OtherTrace { span }] if span.span_id == span_id(5)));
}

#[test]
fn a_context_that_was_not_sent_is_not_looked_for() {
    let delivery = Delivery { form: ContextForm::Absent, ..delivery() };
    let evidence = found(vec![in_trace(7, server(1, None, &[("user_agent.original", mark())]))], &delivery);
    assert_eq!((evidence.found_by, evidence.caller), (FoundBy::UserAgent, None));
    assert!(evidence.told_traces.is_empty());
}

#[test]
fn records_belong_by_trace_by_span_by_request_id_and_by_mark() {
    let delivery = Delivery { invocation: Some(invocation("r-1")), ..delivery() };
    let by_trace = record(Some(1), Some(77));
    let by_span = record(Some(9), Some(1));
    let by_request = LogRecord { request_id: Some("r-1".into()), ..record(None, None) };
    let by_mark = LogRecord { raw: "tracegate-mark-1".into(), ..record(None, None) };
    let other = record(Some(8), Some(80));
    let without = record(None, None);
    let records = vec![by_trace, by_span, by_request, by_mark, other, without];
    let evidence = find(vec![server(1, Some(99), &[])], records, &delivery, Options::default());
    assert_eq!(evidence.logs.len(), 4);
}

#[test]
fn a_record_without_ids_belongs_when_nothing_else_ran_and_it_came_in_the_window() {
    let spans = || vec![server(1, Some(99), &[])];
    let zero = || LogRecord { trace_id: IdClaim::Zero, span_id: IdClaim::Zero, ..record(None, None) };
    assert_eq!(find(spans(), vec![zero()], &delivery(), alone()).logs.len(), 1);
    assert_eq!(find(spans(), vec![zero()], &delivery(), Options::default()).logs.len(), 0);
    let early = Options { window_end: Some(2), exclusive: true, ..Options::default() };
    assert_eq!(find(spans(), vec![zero()], &delivery(), early).logs.len(), 0);
}

#[test]
fn an_otlp_record_without_ids_belongs_by_the_time_it_was_written_at() {
    let otlp = |time| LogRecord {
        origin: LogOrigin::Otlp,
        format: LineFormat::Otlp,
        time_unix_nano: Some(time),
        ..record(None, None)
    };
    assert_eq!(find(Vec::new(), vec![otlp(10), otlp(4), otlp(21)], &delivery(), alone()).logs.len(), 1);
}

#[test]
fn ignored_lines_are_left_out_and_text_is_kept_apart() {
    let text = LogRecord { format: LineFormat::Text, ..record(None, None) };
    let ignored = LogRecord { raw: "noise 1".into(), ..record(Some(1), Some(1)) };
    let ignore = [Regex::new("^noise").unwrap()];
    let options = Options { ignore: &ignore, ..alone() };
    let evidence = find(vec![server(1, Some(99), &[])], vec![text, ignored], &delivery(), options);
    assert_eq!((evidence.logs.len(), evidence.text.len()), (0, 1));
}

#[test]
fn a_record_over_otlp_whose_body_is_ignored_as_a_line_is_left_out_too() {
    let access = |origin| LogRecord { raw: "GET / HTTP/1.1".into(), origin, ..record(None, None) };
    let ignore = [Regex::new("HTTP/1").unwrap()];
    let both = || vec![access(LogOrigin::Stdout), access(LogOrigin::Otlp)];
    let find = |ignore| find(vec![server(1, Some(99), &[])], both(), &delivery(), Options { ignore, ..alone() });
    assert_eq!(find(&ignore).logs.len(), 0);
    assert_eq!(find(&[]).logs.len(), 2);
}

#[test]
fn a_line_of_another_trace_in_an_exclusive_window_is_a_stranger() {
    let evidence = find(vec![server(1, Some(99), &[])], vec![record(Some(8), Some(80))], &delivery(), alone());
    assert!(matches!(&evidence.strangers[..], [Stranger::Record { trace_id: id, .. }] if *id == trace_id(8)));
    let several = Options { exclusive: false, ..alone() };
    let evidence = find(vec![server(1, Some(99), &[])], vec![record(Some(8), Some(80))], &delivery(), several);
    assert!(evidence.strangers.is_empty());
}

#[test]
fn records_hang_on_their_spans() {
    let evidence = find(vec![server(1, Some(99), &[])], vec![record(Some(1), Some(1))], &delivery(), alone());
    assert_eq!(evidence.trace.nodes()[0].logs.len(), 1);
}

#[test]
fn a_line_with_the_ids_of_a_request_that_was_over_before_this_one_is_left_behind() {
    let earlier = in_trace(8, Span { end_unix_nano: 1_000_000_000, ..server(80, None, &[]) });
    let delivery = Delivery { sent: Arrival { seq: 2, unix_nano: 1_200_000_000 }, ..delivery() };
    let line = |arrived: u64, written| LogRecord {
        arrival: Arrival { seq: 3, unix_nano: arrived },
        time_unix_nano: written,
        ..record(Some(8), Some(80))
    };
    let left_beside = |others: Vec<LogRecord>, line: LogRecord, options| {
        let own = Span { start_unix_nano: 1_210_000_000, ..server(1, Some(99), &[]) };
        let (otlp, lines): (Vec<_>, Vec<_>) =
            others.into_iter().chain([line]).partition(|record| record.origin == LogOrigin::Otlp);
        let store = store(vec![own, earlier.clone()], otlp);
        for line in lines {
            store.add_line(String::new(), |_, arrival| {
                vec![LogRecord { arrival: Arrival { seq: arrival.seq, ..line.arrival }, ..line }]
            });
        }
        store.look(|capture| request(capture, &delivery, options)).left_behind.len()
    };
    // The earlier request wrote such a line too, with whatever ids.
    let then = || LogRecord { arrival: Arrival { seq: 1, unix_nano: 500_000_000 }, ..record(None, None) };
    let left = |line, options| left_beside(vec![then()], line, options);
    assert_eq!(left(line(1_250_000_000, None), alone()), 1);
    assert_eq!(left(line(1_250_000_000, Some(1_240_000_000)), alone()), 1);
    assert_eq!(left(line(1_250_000_000, Some(900_000_000)), alone()), 0, "it was written in its own request");
    assert_eq!(left(line(1_090_000_000, None), alone()), 0, "it may be late");
    assert_eq!(left(line(1_250_000_000, None), Options { exclusive: false, ..alone() }), 0, "another one may write it");
    let deferred = line(1_250_000_000, None);
    assert_eq!(left_beside(Vec::new(), deferred.clone(), alone()), 0, "the earlier one had no such line in its time");
    let own = LogRecord { arrival: Arrival { seq: 2, unix_nano: 1_240_000_000 }, ..record(Some(1), Some(1)) };
    assert_eq!(left_beside(vec![then(), own], deferred, alone()), 0, "this one has such a line of its own");
    let exported = |time, ids: (Option<u8>, Option<u64>)| LogRecord {
        origin: LogOrigin::Otlp,
        format: LineFormat::Otlp,
        time_unix_nano: Some(time),
        ..record(ids.0, ids.1)
    };
    let delivery = Delivery { answered: Arrival { seq: 4, unix_nano: 1_300_000_000 }, ..delivery.clone() };
    let of_a_record = |time| {
        let records = vec![exported(500_000_000, (None, None)), exported(time, (Some(8), Some(80)))];
        let own = Span { start_unix_nano: 1_210_000_000, ..server(1, Some(99), &[]) };
        find(vec![own, earlier.clone()], records, &delivery, alone()).left_behind.len()
    };
    assert_eq!(of_a_record(1_250_000_000), 1);
    assert_eq!(of_a_record(900_000_000), 0, "it was written in its own request");
}

#[test]
fn an_orphan_a_line_of_a_missing_span_or_a_call_out_without_an_answer_may_go_on_and_what_is_closed_may_not() {
    let goes_on = |spans, records| find(spans, records, &delivery(), alone()).may_go_on();
    let entry = || server(1, Some(99), &[]);
    let call = || with(span(2, Some(1), "GET"), SpanKind::Client, &[]);
    assert!(!goes_on(vec![entry(), span(2, Some(1), "a")], vec![record(Some(1), Some(2))]));
    assert!(goes_on(vec![entry(), span(2, Some(3), "a")], Vec::new()));
    assert!(goes_on(vec![entry()], vec![record(Some(1), Some(7))]));
    assert!(goes_on(vec![entry(), call()], Vec::new()));
    assert!(!goes_on(vec![entry(), call(), server(3, Some(2), &[])], Vec::new()));
}

/// Two requests without a context, one right behind the other, with spans that say nothing of their clients.
#[test]
fn a_request_that_is_sent_right_behind_the_answer_keeps_its_span() {
    let store = crate::capture::Store::default();
    let mut ask = |number: u64| {
        let sent = store.mark(Mark::Sent { delivery: "d".into() });
        let answered = store.mark(Mark::Answered { delivery: "d".into() });
        let server = in_trace(u8::try_from(number).unwrap(), server(number, None, &[]));
        let span = Span { start_unix_nano: sent.unix_nano, end_unix_nano: answered.unix_nano + 1_000, ..server };
        (Delivery { form: ContextForm::Absent, sent, answered, ..delivery() }, span)
    };
    let asked: Vec<_> = (1..=3).map(&mut ask).collect();
    export(&store, asked.iter().map(|(_, span)| span.clone()).collect());
    for (delivery, span) in &asked {
        let evidence = store.look(|capture| request(capture, delivery, Options { since: None, ..alone() }));
        let entries: Vec<SpanId> = evidence.entries.iter().map(|entry| entry.span_id).collect();
        assert_eq!(entries, [span.span_id]);
    }
}

#[test]
fn where_a_service_was_stopped_before_it_was_seen_idle_time_alone_says_nothing() {
    let line = |stopped: bool, rested: u64| {
        let store = store(vec![server(1, Some(99), &[])], Vec::new());
        store.add_line(String::new(), |_, arrival| {
            vec![LogRecord { arrival: Arrival { seq: arrival.seq, unix_nano: 15 }, ..record(None, None) }]
        });
        let now = store.mark(Mark::Ready).unix_nano;
        if stopped {
            store.stamp_next(Arrival { seq: 90, unix_nano: now + rested });
            store.mark(Mark::StopRequested { signal: "SIGTERM".into() });
        }
        store.look(|capture| request(capture, &delivery(), alone())).logs.len()
    };
    assert_eq!(line(false, 0), 1);
    assert_eq!(line(true, 1_000_000), 0);
    assert_eq!(line(true, 2_000_000_000), 1, "it had its time");
}

#[test]
fn a_line_without_ids_that_only_comes_among_several_requests_is_of_none() {
    let found = |usual: Option<&HashSet<Shape>>| {
        let options = Options { exclusive: false, alone: true, usual, ..alone() };
        find(vec![server(1, Some(99), &[])], vec![record(None, None)], &delivery(), options).logs.len()
    };
    assert_eq!(found(None), 1);
    assert_eq!(found(Some(&HashSet::new())), 0);
    assert_eq!(found(Some(&HashSet::from([Shape::of(&record(Some(1), Some(1)))]))), 1);
}

#[test]
fn what_the_collector_refused_for_good_is_not_missed() {
    let refused = HashSet::from([(trace_id(1), span_id(7)), (trace_id(5), span_id(7))]);
    let judged = |refused| {
        let options = Options { refused, ..alone() };
        let spans = vec![server(1, Some(99), &[]), span(2, Some(7), "a")];
        let evidence = find(spans, vec![record(Some(1), Some(7))], &delivery(), options);
        (crate::correlation::correlated(&evidence.logs[0], &evidence).is_ok(), evidence.not_received().count())
    };
    assert_eq!(judged(None), (false, 1));
    assert_eq!(judged(Some(&refused)), (true, 0));
}
