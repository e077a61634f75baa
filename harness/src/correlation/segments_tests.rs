use std::sync::Arc;

use super::*;
use crate::{
    correlation::{Options, RequestEvidence, request, samples::*},
    expectation::{SpanMatcher, TextMatcher},
    report::Story,
    stimulus::Invocation,
    telemetry::{Arrival, SpanKind},
};

/// The parent in the runtime's header of the samples' invocation.
const FUNCTION: u64 = 0xf0;

fn made(seq: u64, mark: Mark) -> Lifecycle {
    Lifecycle { arrival: Arrival { seq, unix_nano: seq * 1_000_000 }, mark }
}

fn started() -> Mark {
    Mark::Started { what: "pid 1".into() }
}

fn frozen(id: Option<&str>) -> Mark {
    Mark::Frozen { request_id: id.map(str::to_owned) }
}

fn dispatched(id: &str) -> Mark {
    Mark::Dispatched { request_id: id.into(), environment: "here".into() }
}

fn responded(id: &str) -> Mark {
    Mark::Responded { request_id: id.into() }
}

fn gone() -> Mark {
    Mark::EnvironmentEnded { environment: "here".into(), status: "gone".into() }
}

/// A mark for each of the numbers from 1 on, and the phases of the invocation `own` among them, in milliseconds, that was
/// sent at `sent` and answered at the end.
fn phases(marks: Vec<Mark>, sent: u64, cold_start: bool) -> Option<Phases> {
    let lifecycle: Vec<Lifecycle> = (1..).zip(marks).map(|(seq, mark)| made(seq, mark)).collect();
    let at = |seq: u64| Arrival { seq, unix_nano: seq * 1_000_000 };
    let answered = at(lifecycle.len() as u64 + 1);
    let delivery = Delivery { sent: at(sent), answered, ..delivery() };
    let ms = |(start, end): (u64, u64)| (start / 1_000_000, end / 1_000_000);
    Phases::of(&lifecycle, &delivery, "own", cold_start).map(|found| Phases {
        answered: found.answered / 1_000_000,
        function: ms(found.function),
        init: found.init.map(ms),
        invocation: found.invocation.map(ms),
        overhead: found.overhead.map(ms),
    })
}

fn sent() -> Mark {
    Mark::Sent { delivery: "d".into() }
}

#[test]
fn a_cold_start_has_its_init_and_a_warm_one_has_none() {
    let cold =
        vec![started(), frozen(None), Mark::Ready, sent(), dispatched("own"), responded("own"), frozen(Some("own"))];
    let found = phases(cold.clone(), 4, true).unwrap();
    assert_eq!(
        found,
        Phases { answered: 6, function: (5, 7), init: Some((1, 2)), invocation: Some((5, 6)), overhead: Some((6, 7)) }
    );
    assert_eq!(phases(cold, 4, false).unwrap().init, None);
}

#[test]
fn an_init_that_the_request_brought_about_is_within_the_functions_time() {
    let recycled = vec![
        gone(),
        sent(),
        started(),
        started(),
        frozen(None),
        dispatched("own"),
        responded("own"),
        frozen(Some("own")),
    ];
    let found = phases(recycled, 2, true).unwrap();
    assert_eq!(
        found,
        Phases { answered: 7, function: (3, 8), init: Some((3, 5)), invocation: Some((6, 7)), overhead: Some((7, 8)) }
    );
}

#[test]
fn the_init_of_an_environment_before_is_none_of_this_ones() {
    let other = vec![
        started(),
        frozen(None),
        dispatched("other"),
        responded("other"),
        gone(),
        sent(),
        started(),
        frozen(None),
        dispatched("own"),
        responded("own"),
        frozen(Some("own")),
    ];
    assert_eq!(phases(other, 6, true).unwrap().init, Some((7, 8)));
}

#[test]
fn overhead_is_behind_the_response_and_absent_without_one_or_without_its_end() {
    let timed_out = vec![sent(), dispatched("own"), gone()];
    let found = phases(timed_out, 1, false).unwrap();
    assert_eq!(found, Phases { answered: 3, function: (2, 3), init: None, invocation: Some((2, 3)), overhead: None });
    let never_frozen =
        vec![sent(), dispatched("own"), responded("own"), sent(), dispatched("next"), responded("next"), gone()];
    let found = phases(never_frozen, 1, false).unwrap();
    assert_eq!(found, Phases { answered: 3, function: (2, 3), init: None, invocation: Some((2, 3)), overhead: None });
}

#[test]
fn an_invocation_whose_init_failed_has_that_init_only() {
    let failed = vec![started(), gone(), sent(), started(), gone(), started(), gone()];
    let found = phases(failed, 3, true).unwrap();
    assert_eq!(found, Phases { answered: 8, function: (6, 7), init: Some((6, 7)), invocation: None, overhead: None });
    assert_eq!(phases(vec![sent()], 1, false), None);
}

/// An invocation of a fresh environment, with a span on the function's segment and one below it.
fn invoked(header: &str, form: ContextForm) -> (crate::capture::Store, Delivery) {
    let entry = with(span(1, Some(FUNCTION), "GET /files/"), SpanKind::Server, &[]);
    let store = store(vec![entry, span(2, Some(1), "list")], Vec::new());
    for mark in [started(), frozen(None), Mark::Ready] {
        store.mark(mark);
    }
    let sent = store.mark(sent());
    for mark in [dispatched("own"), responded("own"), frozen(Some("own"))] {
        store.mark(mark);
    }
    let answered = store.mark(Mark::Answered { delivery: "d".into() });
    let invocation = Invocation {
        cold_start: true,
        runtime_trace_header: Some(header.to_owned()),
        runtime_parent: Some(span_id(FUNCTION)),
        ..invocation("own")
    };
    (store, Delivery { sent, answered, form, invocation: Some(invocation), ..delivery() })
}

fn header(sampled: u8) -> String {
    format!("Root={};Parent={};Sampled={sampled}", xray::format_trace_id(trace_id(1)), span_id(FUNCTION))
}

fn evidence(capture: &Capture, delivery: &Delivery) -> RequestEvidence {
    request(capture, delivery, Options::default())
}

#[test]
fn the_functions_segment_is_the_runtimes_parent_and_hangs_on_that_of_the_service() {
    let (store, delivery) = invoked(&header(1), ContextForm::Both);
    let found = store.look(|capture| segments(capture, &delivery));
    let kinds: Vec<SegmentKind> = found.iter().map(|segment| segment.kind).collect();
    use SegmentKind::{Function, Initialization, Invocation, Overhead, Service};
    assert_eq!(kinds, [Service, Function, Initialization, Invocation, Overhead]);
    assert_eq!(found[1].id, span_id(FUNCTION));
    let parents: Vec<Option<SpanId>> = found.iter().map(|segment| segment.parent).collect();
    let function = Some(found[1].id);
    assert_eq!(parents, [Some(span_id(99)), Some(found[0].id), function, function, function]);
    assert!(found.iter().all(|segment| segment.trace_id == trace_id(1)));
    assert!(found[2].ahead.is_some() && found[3].ahead.is_none());
    let mut ids: Vec<SpanId> = found.iter().map(|segment| segment.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[test]
fn the_services_segment_hangs_on_nothing_where_the_event_names_no_xray_parent() {
    for form in [ContextForm::W3c, ContextForm::XrayRoot, ContextForm::Absent] {
        let (store, delivery) = invoked(&header(1), form);
        assert_eq!(store.look(|capture| segments(capture, &delivery))[0].parent, None, "{form:?}");
    }
}

#[test]
fn what_is_not_sampled_and_what_is_no_invocation_has_no_segments() {
    let (store, delivery) = invoked(&header(0), ContextForm::Both);
    assert_eq!(store.look(|capture| segments(capture, &delivery)), []);
    let (store, delivery) = invoked(&header(1), ContextForm::Both);
    let delivery = Delivery { invocation: None, ..delivery };
    assert_eq!(store.look(|capture| segments(capture, &delivery)), []);
}

#[test]
fn segments_are_no_spans_for_any_step() {
    let (store, delivery) = invoked(&header(1), ContextForm::Both);
    store.look(|capture| {
        assert_eq!(segments(capture, &delivery).len(), 5);
        let evidence = evidence(capture, &delivery);
        assert_eq!((evidence.trace.len(), capture.spans().len()), (2, 2));
        use SegmentKind::{Function, Initialization, Invocation, Overhead, Service};
        for kind in [Service, Function, Initialization, Invocation, Overhead] {
            let name = Some(TextMatcher::parse(&kind.to_string()).unwrap());
            let matcher = SpanMatcher { name, ..SpanMatcher::default() };
            assert!(matcher.find(evidence.trace.spans()).is_err(), "{kind}");
        }
    });
}

fn without_times(lines: &[Line<'_>]) -> Vec<String> {
    let time = regex::Regex::new(r"  \d+\.\d\d ms").unwrap();
    let over = regex::Regex::new(r", over .*").unwrap();
    lines.iter().map(|line| over.replace(&time.replace(&line.to_string(), ""), "").into_owned()).collect()
}

#[test]
fn the_functions_spans_are_drawn_on_its_segment_between_init_and_overhead() {
    let (store, delivery) = invoked(&header(1), ContextForm::Both);
    store.look(|capture| {
        let (segments, evidence) = (segments(capture, &delivery), evidence(capture, &delivery));
        let expected = [
            "AWS::Lambda  derived",
            "└─ AWS::Lambda::Function  derived",
            "   ├─ Initialization  derived",
            "   ├─ Invocation  derived",
            "   │  └─ SERVER GET /files/",
            "   │     └─ INTERNAL list",
            "   └─ Overhead  derived",
        ];
        assert_eq!(without_times(&drawn(&segments, &evidence.trace)), expected);
        let warm: Vec<Segment> = segments.into_iter().filter(|segment| segment.kind != SegmentKind::Overhead).collect();
        assert_eq!(
            without_times(&drawn(&warm, &evidence.trace))[3..5],
            ["   └─ Invocation  derived", "      └─ SERVER GET /files/"]
        );
    });
}

#[test]
fn a_span_that_hangs_on_the_client_is_drawn_beside_the_segments() {
    let (store, delivery) = invoked(&header(1), ContextForm::Both);
    let trace = Trace::new([Arc::new(span(1, Some(99), "GET /files/"))], &[span_id(99)]);
    store.look(|capture| {
        let segments = segments(capture, &delivery);
        let drawn = without_times(&drawn(&segments, &trace));
        assert_eq!(
            drawn[2..],
            [
                "   ├─ Initialization  derived",
                "   ├─ Invocation  derived",
                "   └─ Overhead  derived",
                "INTERNAL GET /files/"
            ]
        );
    });
    assert_eq!(without_times(&super::drawn(&[], &trace)), ["INTERNAL GET /files/"]);
}

#[test]
fn a_report_marks_what_was_derived_and_shows_an_init_of_long_ago_right_before_its_event() {
    let (store, delivery) = invoked(&header(1), ContextForm::Both);
    store.look(|capture| {
        let (mut segments, evidence) = (segments(capture, &delivery), evidence(capture, &delivery));
        let hour = 3_600_000_000_000;
        segments[2].start_unix_nano -= hour;
        segments[2].end_unix_nano = segments[2].start_unix_nano + 7_000_000;
        segments[1].start_unix_nano = segments[0].start_unix_nano + 1_000_000;
        segments[3].start_unix_nano = segments[1].start_unix_nano;
        // The samples' spans are of 1970.
        let trace = Trace::new(
            evidence.trace.spans().map(|span| {
                let start_unix_nano = segments[1].start_unix_nano + 1_000;
                Arc::new(crate::telemetry::Span { start_unix_nano, end_unix_nano: start_unix_nano, ..(**span).clone() })
            }),
            &[span_id(FUNCTION)],
        );
        let story = Story::of(&delivery, &RequestEvidence { trace, ..evidence }, &segments);
        let rows: Vec<_> =
            story.spans.iter().map(|row| (row.derived, row.kind.as_str(), row.depth, row.start)).collect();
        let expected = [
            (true, "derived", 0, 6_000),
            (true, "derived", 1, 7_000),
            (true, "derived", 2, 0),
            (true, "derived", 2, 7_000),
            (false, "SERVER", 3, 7_001),
            (false, "INTERNAL", 4, 7_001),
        ];
        assert_eq!(rows[..6], expected);
        assert!(story.spans[2].attributes.iter().any(|(key, _)| key == "over"), "{story:?}");
    });
}
