use std::sync::Arc;

use super::*;
use crate::{
    capture::Store,
    correlation::{Options, RequestEvidence, request, samples::*},
    telemetry::{Arrival, IdClaim, Severity},
};

fn tick(n: u32) -> LogRecord {
    LogRecord { message: format!("cache refreshed, {n} entries"), ..record(None, None) }
}

/// Marks and lines in this order, each line a second behind the mark before it.
enum Step {
    Mark(Mark),
    Line(LogRecord),
}

fn sent() -> Step {
    Step::Mark(Mark::Sent { delivery: "d".into() })
}

fn answered() -> Step {
    Step::Mark(Mark::Answered { delivery: "d".into() })
}

fn shapes(steps: Vec<Step>) -> HashSet<Shape> {
    let store = Store::default();
    for step in steps {
        match step {
            Step::Mark(mark) => drop(store.mark(mark)),
            Step::Line(line) => {
                store.add_line(String::new(), |_, arrival| {
                    let late = arrival.unix_nano + 1_000_000_000;
                    vec![LogRecord { arrival: Arrival { unix_nano: late, ..arrival }, ..line }]
                });
            }
        }
    }
    store.look(background)
}

#[test]
fn what_comes_while_nothing_is_asked_is_background_whatever_its_numbers() {
    let idle = shapes(vec![Step::Mark(Mark::Ready), sent(), answered(), Step::Line(tick(1))]);
    assert!(idle.contains(&Shape::of(&tick(28))));
    assert!(!idle.contains(&Shape::of(&record(None, None))));
}

#[test]
fn what_comes_while_a_request_or_a_fence_is_under_way_or_with_ids_or_before_it_is_ready_is_not() {
    let fence = || Step::Mark(Mark::FenceSent { fence: "f".into(), target: String::new() });
    assert!(shapes(vec![Step::Mark(Mark::Ready), sent(), Step::Line(tick(1))]).is_empty());
    assert!(shapes(vec![Step::Mark(Mark::Ready), sent(), answered(), fence(), Step::Line(tick(1))]).is_empty());
    assert!(shapes(vec![Step::Line(tick(1)), Step::Mark(Mark::Ready)]).is_empty());
    assert!(shapes(vec![Step::Mark(Mark::Ready), Step::Line(record(Some(1), Some(1)))]).is_empty());
}

#[test]
fn what_comes_right_behind_an_answer_may_still_be_of_the_request() {
    let store = Store::default();
    store.mark(Mark::Ready);
    store.mark(Mark::Sent { delivery: "d".into() });
    store.mark(Mark::Answered { delivery: "d".into() });
    store.add_line(String::new(), |_, arrival| vec![LogRecord { arrival, ..tick(1) }]);
    assert!(store.look(background).is_empty());
}

fn access_log(text: &str) -> LogRecord {
    LogRecord { raw: text.into(), message: text.into(), ..record(None, None) }
}

#[test]
fn a_record_speaks_of_a_request_by_method_and_path_in_its_text_or_in_its_fields() {
    let speaks = |record: &LogRecord| speaks_of(record, "GET", "/orders/7?x=1");
    assert!(speaks(&access_log("127.0.0.1 - - \"GET /orders/7 HTTP/1.1\" 200 -")));
    assert!(speaks(&access_log("\u{1b}[33mGET /orders/7\u{1b}[0m 404")));
    assert!(!speaks(&access_log("GET /orders/70 HTTP/1.1")));
    assert!(!speaks(&access_log("GET /up, POST /orders/7")));
    let fields = |path: &str| LogRecord {
        fields: [("method", "get".into()), ("url", path.into())].into_iter().collect(),
        ..record(None, None)
    };
    assert!(speaks(&fields("http://localhost:1/orders/7?y")) && speaks(&fields("/orders/7")));
    assert!(!speaks(&fields("/orders")));
}

fn find(records: Vec<LogRecord>, options: Options<'_>) -> RequestEvidence {
    let entry = with(span(1, Some(99), "GET /"), crate::telemetry::SpanKind::Server, &[]);
    store(vec![entry], records).look(|capture| request(capture, &delivery(), options))
}

#[test]
fn a_line_that_quotes_the_request_is_its_own_although_it_came_behind_the_answer_and_another_request_ran_beside_it() {
    let line = || access_log("GET /files/a.txt 200");
    let options = Options { window_end: Some(2), quoted_until: Some(100), alone: true, ..Options::default() };
    let evidence = find(vec![line(), record(None, None)], options);
    assert_eq!((evidence.logs.len(), evidence.guessed.len()), (1, 0));
    assert!(find(vec![line()], Options { alone: false, ..options }).logs.is_empty());
}

#[test]
fn requests_of_one_scenario_at_the_same_time_share_the_lines_without_ids() {
    let options = Options { window_end: Some(100), alone: true, ..Options::default() };
    let evidence = find(vec![record(None, None)], options);
    assert_eq!((evidence.logs.len(), evidence.guessed.len()), (1, 1));
    assert!(Arc::ptr_eq(&evidence.logs[0], &evidence.guessed[0]));
}

#[test]
fn a_line_of_the_harness_own_requests_or_of_an_earlier_time_is_not_taken_for_the_requests() {
    let options = Options { window_end: Some(100), exclusive: true, own_targets: &["/up"], ..Options::default() };
    let early = LogRecord { time_unix_nano: Some(100_000_000_001), ..record(None, None) };
    assert!(find(vec![access_log("GET /up 200")], options).logs.is_empty());
    assert!(written_before(&early, 100_200_000_000));
    assert!(!written_before(&early, 100_000_000_100), "clocks differ by less");
    assert!(!written_before(&early, 3_700_000_000_000), "a time zone is no proof");
    assert!(!written_before(&LogRecord { time_unix_nano: Some(100_000_000_000), ..early }, 100_900_000_000), "cut off");
}

#[test]
fn shapes_differ_by_level_logger_and_fields() {
    let warn = LogRecord { severity: Some(Severity { number: 13, text: "WARN".into() }), ..tick(1) };
    let zero = LogRecord { trace_id: IdClaim::Zero, ..tick(2) };
    let more = LogRecord { fields: [("order", "7".into())].into_iter().collect(), ..tick(1) };
    assert_ne!(Shape::of(&warn), Shape::of(&tick(1)));
    assert_ne!(Shape::of(&more), Shape::of(&tick(1)));
    assert_eq!(Shape::of(&zero), Shape::of(&tick(1)));
}
