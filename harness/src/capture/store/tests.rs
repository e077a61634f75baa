//! Order, waiting, indexes and retention.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn who_waits_is_woken_by_the_arrival_and_not_by_the_deadline() {
    let store = Arc::new(Store::default());
    let waiting = tokio::spawn({
        let store = store.clone();
        async move {
            let deadline = Instant::now() + Duration::from_secs(3600);
            store.until(deadline, |capture| capture.lifecycle().first().cloned()).await
        }
    });
    let made = store.mark(Mark::Ready);
    assert_eq!(waiting.await.unwrap().unwrap().arrival, made);
}

#[tokio::test(start_paused = true)]
async fn a_wait_without_an_arrival_ends_at_its_deadline() {
    let store = Store::default();
    let deadline = Instant::now() + Duration::from_secs(5);
    assert_eq!(store.until(deadline, |capture| capture.spans().first().cloned()).await, None);
}

#[test]
fn stamps_are_one_order_over_marks_and_lines() {
    let store = Store::default();
    let first = store.mark(Mark::Ready);
    let second = store.add_line("x".into(), |_, _| Vec::new()).unwrap();
    assert!(first.seq < second.seq);
}

fn export(store: &Store, spans: &[(u8, u8)]) -> Arrival {
    use opentelemetry_proto::tonic::{
        collector::trace::v1::ExportTraceServiceRequest,
        trace::v1::{ResourceSpans, ScopeSpans, Span},
    };
    use prost::Message;
    let span = |&(trace, span): &(u8, u8)| Span {
        trace_id: vec![trace; 16],
        span_id: vec![span; 8],
        name: format!("{trace} {span}"),
        ..Default::default()
    };
    let scope_spans = vec![ScopeSpans { spans: spans.iter().map(span).collect(), ..Default::default() }];
    let request =
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] };
    let body = Bytes::from(request.encode_to_vec());
    let contents = crate::capture::index::index(Signal::Traces, Encoding::Protobuf, &body).unwrap();
    store.add_export(request_of(body), contents.index, contents.faults)
}

fn request_of(body: Bytes) -> ExportRequest {
    ExportRequest {
        signal: Signal::Traces,
        transport: Transport::Http,
        encoding: Encoding::Protobuf,
        user_agent: String::new(),
        body,
        arrival: Arrival::default(),
    }
}

fn names<'a>(spans: impl Iterator<Item = &'a Arc<crate::telemetry::Span>>) -> Vec<&'a str> {
    spans.map(|span| span.name.as_str()).collect()
}

fn trace(n: u8) -> crate::telemetry::TraceId {
    crate::telemetry::TraceId::from_bytes(&[n; 16]).unwrap()
}

fn line(store: &Store, text: &str) -> Arrival {
    let parse =
        |line: &str, arrival| crate::capture::stdout::parse_line(line, crate::telemetry::LogOrigin::Stdout, arrival);
    store.add_line(text.into(), parse).unwrap()
}

#[test]
fn the_spans_of_a_trace_are_found_in_order_of_arrival_wherever_they_came() {
    let store = Store::default();
    export(&store, &[(1, 1), (2, 1), (1, 2)]);
    export(&store, &[]);
    export(&store, &[(2, 2)]);
    let last = export(&store, &[(1, 3), (3, 1)]);
    store.look(|capture| {
        assert_eq!(names(capture.spans_of(trace(1))), ["1 1", "1 2", "1 3"]);
        assert_eq!(names(capture.spans_of(trace(2))), ["2 1", "2 2"]);
        assert_eq!(capture.spans_of(trace(9)).count(), 0);
        let span = capture.span(trace(1), crate::telemetry::SpanId::from_bytes(&[3; 8]).unwrap()).unwrap();
        assert_eq!((span.name.as_str(), span.arrival), ("1 3", last));
    });
}

#[test]
fn items_are_walked_from_both_ends_from_a_moment_and_from_a_position() {
    let store = Store::default();
    export(&store, &[(1, 1), (1, 2)]);
    export(&store, &[]);
    let later = export(&store, &[(1, 3)]);
    export(&store, &[(1, 4), (2, 5)]);
    store.look(|capture| {
        let all = capture.spans();
        assert_eq!((all.len(), all.end()), (5, 5));
        assert_eq!(names(all.iter().rev()), ["2 5", "1 4", "1 3", "1 2", "1 1"]);
        assert_eq!(names(all.since(later.seq)), ["1 3", "1 4", "2 5"]);
        assert_eq!(names(all.since(later.seq + 9)), [""; 0]);
        assert_eq!(names(all.from(4)), ["2 5"]);
        assert_eq!(names(all.skip(1).take(3)), ["1 2", "1 3", "1 4"]);
        assert_eq!(names(all.only(|row| row.is_in(trace(2)))), ["2 5"]);
        assert_eq!((all[1].name.as_str(), all.get(5)), ("1 2", None));
        let mut both = all;
        let (mut front, mut back) = (0, 0);
        while both.next().is_some() {
            front += 1;
            back += usize::from(both.next_back().is_some());
        }
        assert_eq!((front, back), (3, 2));
    });
}

#[test]
fn only_what_is_asked_for_is_decoded_and_a_second_look_finds_the_same() {
    let store = Store::default();
    export(&store, &[(1, 1), (2, 1)]);
    let first = store.look(|capture| capture.spans_of(trace(1)).next().cloned()).unwrap();
    let again = store.look(|capture| capture.spans()[0].clone());
    assert!(Arc::ptr_eq(&first, &again));
}

#[test]
fn lines_and_exported_records_are_in_one_order_and_lines_are_told_apart() {
    let store = Store::default();
    line(&store, r#"{"message":"one","trace_id":"01010101010101010101010101010101"}"#);
    line(&store, "two");
    store.look(|capture| {
        assert_eq!(capture.lines().count(), 2);
        assert_eq!(capture.logs_of(trace(1)).map(|record| record.message.as_str()).collect::<Vec<_>>(), ["one"]);
        assert_eq!(capture.received(Signal::Logs).items, 0);
    });
}

#[test]
fn the_oldest_is_dropped_when_there_is_no_room_and_a_mark_says_so() {
    let store = Store::bounded(None, Retention { bytes: 4000, age: None });
    export(&store, &[(1, 1), (2, 1)]);
    line(&store, "early");
    store.add_fault(Signal::Logs, "early".into());
    assert!(store.look(|capture| capture.dropped().is_nothing()));
    for n in 2..100 {
        export(&store, &[(1, n)]);
    }
    store.look(|capture| {
        let dropped = *capture.dropped();
        let kept = capture.spans().len();
        assert!((1..40).contains(&kept), "{kept}");
        assert_eq!((dropped.logs, dropped.faults, capture.logs().len(), capture.faults().len()), (1, 1, 0, 0));
        assert_eq!(dropped.spans as usize + kept, 100);
        assert_eq!(capture.requests().len(), kept);
        assert_eq!(capture.spans_of(trace(2)).count(), 0);
        assert_eq!(capture.spans_of(trace(1)).count(), kept);
        assert_eq!(names(capture.spans().iter().rev().take(1)), ["1 99"]);
        assert_eq!(capture.spans().end(), 100, "positions stay what they are");
        assert_eq!(capture.spans().from(99).len(), 1);
        assert!(capture.spans().iter().all(|span| span.arrival.seq > dropped.until));
        let marks = capture.lifecycle().iter().filter(|entry| matches!(entry.mark, Mark::Sink { .. })).count();
        assert_eq!(marks, 1);
    });
}

#[test]
fn what_is_too_old_is_dropped_and_what_is_larger_than_all_room_too() {
    let store = Store::bounded(None, Retention { bytes: usize::MAX, age: Some(Duration::ZERO) });
    export(&store, &[(1, 1)]);
    while store.look(|capture| capture.spans().len()) == 1 {
        line(&store, "later");
    }
    assert_eq!(store.look(|capture| capture.dropped().spans), 1);
    let store = Store::bounded(None, Retention { bytes: 10, age: None });
    export(&store, &[(1, 1)]);
    assert!(store.look(|capture| capture.spans().is_empty() && capture.dropped().requests == 1));
}

#[test]
fn a_store_that_has_room_drops_nothing() {
    let store = Store::default();
    for n in 1..100 {
        export(&store, &[(1, n)]);
    }
    assert!(store.look(|capture| capture.dropped().is_nothing() && capture.lifecycle().is_empty()));
}

#[test]
fn a_tamper_changes_what_is_stored_and_its_traces_are_found() {
    #[derive(Debug)]
    struct Renamed;
    impl Tamper for Renamed {
        fn export(&self, decoded: Decoded) -> Decoded {
            let Decoded::Spans(mut spans) = decoded else { return decoded };
            spans.iter_mut().for_each(|span| span.trace_id = trace(9));
            Decoded::Spans(spans)
        }
    }
    let store = Store::new(Some(Arc::new(Renamed)));
    export(&store, &[(1, 1)]);
    let arrival = export(&store, &[(2, 2)]);
    store.look(|capture| {
        assert_eq!(names(capture.spans_of(trace(9))), ["1 1", "2 2"]);
        assert_eq!(capture.spans()[1].arrival, arrival);
        assert_eq!(capture.received(Signal::Traces).items, 2);
    });
}
