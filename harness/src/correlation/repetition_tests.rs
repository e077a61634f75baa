use super::*;
use crate::{
    capture::Store,
    correlation::{Options, RequestEvidence, Stranger, request, samples::*},
    stimulus::Delivery,
    telemetry::{Arrival, SpanKind},
};

const TARGET: &str = "/orders/7";

/// A store in which `target` was tried, and `came` (by whether it was asked for) says how often a line and a span came each time.
fn tried(target: &str, came: impl Fn(bool, usize) -> bool) -> Store {
    let store = Store::default();
    for trial in 0..TRIALS {
        for asks in [true, false] {
            let target = || target.to_owned();
            let now = store.mark(Mark::Trial { target: target(), asks }).unix_nano;
            if came(asks, trial) {
                let number = u64::try_from(trial).unwrap() * 2 + u64::from(asks) + 50;
                store.add_line(String::new(), |_, arrival| vec![LogRecord { arrival, ..line() }]);
                export(&store, vec![Span { start_unix_nano: now, trace_id: trace_id(9), ..root(number) }]);
            }
            store.mark(Mark::TrialOver {
                target: target(),
                trace_id: asks.then(|| trace_id(6)),
                status: asks.then_some(200),
            });
        }
    }
    store
}

fn line() -> LogRecord {
    record(None, None)
}

fn root(id: u64) -> Span {
    span(id, None, "mail 4")
}

fn repeated(store: &Store) -> Option<(usize, usize)> {
    let found = Doubtful { lines: vec![Arc::new(line())], roots: vec![Arc::new(root(2))], ..Doubtful::default() };
    let repeated = store.look(|capture| found.repeated(capture, TARGET, 200));
    repeated.map(|repeated| (repeated.lines.len(), repeated.roots.len()))
}

#[test]
fn what_comes_each_time_and_never_in_between_was_set_off() {
    assert_eq!(repeated(&tried(TARGET, |asks, _| asks)), Some((1, 1)));
}

#[test]
fn what_does_not_come_again_or_comes_in_between_too_was_not() {
    assert_eq!(repeated(&tried(TARGET, |_, _| false)), Some((0, 0)), "a job that runs seldom");
    assert_eq!(repeated(&tried(TARGET, |_, _| true)), Some((0, 0)), "a job that runs often");
    assert_eq!(repeated(&tried(TARGET, |asks, trial| asks && trial != 1)), Some((0, 0)), "by chance");
    assert_eq!(repeated(&tried(TARGET, |asks, trial| asks || trial == 2)), Some((0, 0)), "by chance");
}

#[test]
fn a_repetition_that_was_answered_otherwise_says_nothing_of_the_request() {
    let found = || Doubtful { lines: vec![Arc::new(line())], ..Doubtful::default() };
    let store = tried(TARGET, |asks, _| asks);
    assert!(store.look(|capture| found().repeated(capture, TARGET, 401)).is_none());
    assert!(store.look(|capture| found().repeated(capture, TARGET, 200)).is_some());
}

#[test]
fn where_the_request_was_not_repeated_nothing_is_said() {
    assert_eq!(repeated(&tried("/other", |asks, _| asks)), None);
    assert_eq!(repeated(&Store::default()), None);
}

/// A request for [`TARGET`] that was answered, with a line and a root span behind the answer.
fn asked(store: &Store, change: impl FnOnce(&mut Delivery, &mut Span)) -> RequestEvidence {
    asked_then(store, change, || {})
}

/// The same, looked at after something else has happened.
fn asked_then(store: &Store, change: impl FnOnce(&mut Delivery, &mut Span), then: impl FnOnce()) -> RequestEvidence {
    let sent = store.mark(Mark::Sent { delivery: "d".into() });
    let answered = store.mark(Mark::Answered { delivery: "d".into() });
    let end = store.mark(Mark::FenceSent { fence: "f".into(), target: String::new() });
    let mut delivery = Delivery { target: TARGET.into(), sent, answered, ..delivery() };
    let entry = Span {
        start_unix_nano: sent.unix_nano,
        end_unix_nano: answered.unix_nano,
        ..with(span(1, Some(99), "GET /"), SpanKind::Server, &[])
    };
    let start = answered.unix_nano + 1_000_000;
    let mut late = Span { start_unix_nano: start, end_unix_nano: start, trace_id: trace_id(7), ..root(2) };
    change(&mut delivery, &mut late);
    export(store, vec![entry, late]);
    store.add_line(String::new(), |_, arrival| vec![LogRecord { arrival, ..line() }]);
    then();
    let options = Options { window_end: Some(end.seq), exclusive: true, alone: true, ..Options::default() };
    store.look(|capture| request(capture, &delivery, options))
}

#[test]
fn a_line_and_a_root_span_behind_the_answer_are_to_be_tried_and_nobodys_until_then() {
    let evidence = answered(|_, _| {});
    assert_eq!((evidence.untried.lines.len(), evidence.untried.roots.len()), (1, 1));
    assert!(evidence.logs.is_empty() && evidence.strangers.is_empty());
}

#[test]
fn a_link_says_whose_a_span_is_and_nothing_runs_behind_an_invocation() {
    let linked = answered(|_, late| {
        let (trace_id, span_id) = (trace_id(1).to_string(), "x".into());
        late.links = vec![crate::telemetry::SpanLink { trace_id, span_id, attributes: <_>::default() }];
    });
    assert!(linked.untried.roots.is_empty());
    assert!(answered(|delivery, _| delivery.invocation = Some(invocation("r"))).untried.is_empty());
    let later = u64::try_from(WITHIN.as_nanos()).unwrap();
    assert!(answered(|_, late| late.start_unix_nano += later).untried.roots.is_empty());
}

/// How many lines and root spans are left of those that came with a `POST` answered at 10 ms, where such ones came at `again` too,
/// and a fence was under way from `fence` to 10 ms behind. Times are in milliseconds.
fn untriable(fence: u64, again: u64) -> (usize, usize) {
    let store = Store::default();
    let mut events = vec![(0, 's'), (10, 'a'), (fence, 'f'), (fence + 10, 'o'), (again, 'x')];
    events.sort_unstable();
    for ((at, what), seq) in events.into_iter().zip(1..) {
        let arrival = Arrival { seq, unix_nano: (1_000_000 + at) * 1_000_000 };
        store.stamp_next(arrival);
        let mark = |mark| {
            store.mark(mark);
        };
        match what {
            's' => mark(Mark::Sent { delivery: "d".into() }),
            'a' => mark(Mark::Answered { delivery: "d".into() }),
            'f' => mark(Mark::FenceSent { fence: "f".into(), target: "/up".into() }),
            'o' => mark(Mark::FenceOver { fence: "f".into() }),
            _ => {
                store.add_line(String::new(), |_, arrival| vec![LogRecord { arrival, ..line() }]);
                store.stamp_next(Arrival { seq: 100, ..arrival });
                export(&store, vec![Span { start_unix_nano: arrival.unix_nano, trace_id: trace_id(9), ..root(50) }]);
            }
        }
    }
    let roots = vec![Arc::new(root(2))];
    let found = Doubtful { lines: vec![Arc::new(line())], roots: roots.clone(), strays: roots, ..Doubtful::default() };
    let left = store.look(|capture| found.beside_fences(capture, &["/up"]));
    assert!(left.strays.is_empty(), "what is in another request's trace may be what that one deferred");
    (left.lines.len(), left.roots.len())
}

#[test]
fn what_comes_with_a_fence_alone_is_not_the_requests_that_is_not_repeated() {
    assert_eq!(untriable(1000, 1005), (0, 0), "during the fence");
    assert_eq!(untriable(1000, 1100), (0, 0), "behind it");
}

#[test]
fn what_comes_with_a_fence_that_the_request_was_close_before_may_be_the_requests() {
    assert_eq!(untriable(12, 15), (1, 1));
    assert_eq!(untriable(1000, 900), (1, 1), "before the fence");
    assert_eq!(untriable(1000, 1311).1, 1, "long behind it");
}

#[test]
fn of_a_request_that_changes_something_it_is_left_open_whose_the_line_and_the_root_span_are() {
    let evidence = answered(|delivery, _| delivery.method = "POST".into());
    assert_eq!((evidence.untried.lines.len(), evidence.untried.roots.len()), (1, 1));
    assert!(evidence.logs.is_empty() && evidence.strangers.is_empty());
    // Asking for it with another method says nothing of it.
    let evidence = asked(&tried(TARGET, |asks, _| asks), |delivery, _| delivery.method = "POST".into());
    assert!(evidence.strangers.is_empty());
}

/// What is to be tried of a request during which a stray and its line came in the trace of `top`.
fn with_stray_under(top: Span) -> (usize, usize) {
    let store = Store::default();
    let sent = store.mark(Mark::Sent { delivery: "d".into() });
    let in_its_trace = |span: Span| Span { trace_id: trace_id(11), start_unix_nano: sent.unix_nano, ..span };
    let top = Span { start_unix_nano: top.start_unix_nano, ..in_its_trace(top) };
    export(&store, vec![top, in_its_trace(span(3, Some(2), "store result"))]);
    store.add_line(String::new(), |_, arrival| vec![LogRecord { arrival, ..record(Some(11), Some(3)) }]);
    let evidence = asked(&store, |delivery, _| delivery.sent = sent);
    (evidence.untried.strays.len(), evidence.untried.records.len())
}

#[test]
fn what_is_below_a_span_with_a_link_is_of_whom_the_link_names() {
    let consumer = || Span { kind: SpanKind::Consumer, start_unix_nano: 5, ..root(2) };
    assert_eq!(with_stray_under(consumer()), (1, 1));
    let (linked, span_id) = (trace_id(1).to_string(), "x".into());
    let links = vec![crate::telemetry::SpanLink { trace_id: linked, span_id, attributes: <_>::default() }];
    assert_eq!(with_stray_under(Span { links, ..consumer() }), (0, 0));
}

#[test]
fn a_line_below_a_span_that_also_begins_while_nothing_is_asked_is_not_tried() {
    let records = |ticks_later: bool| {
        let store = Store::default();
        let tick = |id, start_unix_nano| Span { trace_id: trace_id(11), start_unix_nano, ..root(id) };
        // The one beside the request began before it.
        export(&store, vec![tick(2, 5)]);
        let sent = store.mark(Mark::Ready);
        store.add_line(String::new(), |_, arrival| vec![LogRecord { arrival, ..record(Some(11), Some(2)) }]);
        let later = || {
            let over = store.mark(Mark::FenceOver { fence: "f".into() }).unix_nano;
            if ticks_later {
                export(&store, vec![tick(30, over + 60_000_000_000)]);
            }
        };
        asked_then(&store, |delivery, _| delivery.sent = sent, later).untried.records.len()
    };
    assert_eq!(records(false), 1);
    assert_eq!(records(true), 0);
}

fn answered(change: impl FnOnce(&mut Delivery, &mut Span)) -> RequestEvidence {
    asked(&Store::default(), change)
}

#[test]
fn what_was_set_off_is_the_requests() {
    let evidence = asked(&tried(TARGET, |asks, _| asks), |_, _| {});
    assert_eq!((evidence.logs.len(), evidence.repeated.len(), evidence.guessed.len()), (1, 1, 1));
    assert!(matches!(&evidence.strangers[..], [Stranger::Repeated { span }] if span.span_id == span_id(2)));
}

/// A store in which the target was tried, and each time it was asked for a stray and a record came in the trace that
/// `in_trace` says (6 is the one that was told, 8 another), if any. A span of the told trace comes when `carried_on`.
fn strayed(carried_on: bool, in_trace: impl Fn(bool) -> &'static [u8]) -> Store {
    let store = Store::default();
    let mut id = 50;
    for asks in [true, false].into_iter().cycle().take(2 * TRIALS) {
        let now = store.mark(Mark::Trial { target: TARGET.into(), asks }).unix_nano;
        let mut add = |trace: u8, name: &str| {
            id += 1;
            let span = span(id, Some(1), name);
            export(&store, vec![Span { start_unix_nano: now, end_unix_nano: now, trace_id: trace_id(trace), ..span }]);
        };
        if asks && carried_on {
            add(6, "entry");
        }
        for &trace in in_trace(asks) {
            add(trace, "price");
            let record = record(Some(trace), Some(80));
            store.add_line(String::new(), |_, arrival| vec![LogRecord { arrival, ..record }]);
        }
        let trace_id = asks.then(|| trace_id(6));
        store.mark(Mark::TrialOver { target: TARGET.into(), trace_id, status: None });
    }
    store
}

fn elsewhere(store: &Store) -> (usize, usize) {
    let stray = Span { trace_id: trace_id(8), ..span(2, Some(80), "price") };
    let records = vec![Arc::new(record(Some(8), Some(80)))];
    let found = Doubtful { strays: vec![Arc::new(stray)], records, ..Doubtful::default() };
    let repeated = store.look(|capture| found.repeated(capture, TARGET, 200)).unwrap();
    (repeated.strays.len(), repeated.records.len())
}

#[test]
fn what_comes_each_time_in_another_requests_trace_and_never_in_its_own_is_the_requests() {
    assert_eq!(elsewhere(&strayed(true, |asks| if asks { &[8] } else { &[] })), (1, 1));
}

#[test]
fn what_a_request_deferred_comes_in_its_own_trace_too_or_while_nothing_is_asked() {
    let none = (0, 0);
    assert_eq!(elsewhere(&strayed(true, |asks| if asks { &[8, 6] } else { &[] })), none, "it has its own");
    assert_eq!(elsewhere(&strayed(true, |_| &[8])), none, "a job that was started once");
    assert_eq!(elsewhere(&strayed(true, |asks| if asks { &[] } else { &[6] })), none, "it comes a moment later");
    assert_eq!(elsewhere(&strayed(false, |asks| if asks { &[8] } else { &[] })), none, "no trace is carried on");
}
