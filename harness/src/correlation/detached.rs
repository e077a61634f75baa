//! Spans that began while a request was under way and hang on nothing, or on an earlier request: work of the request that lost
//! its context, or what the service does by itself.
//!
//! A thread pool, a callback or a queue that does not carry the context on makes a new trace of what it does, or goes on with the
//! context that it was made with. Time alone cannot tell that from a background thread, as with lines without ids. What tells
//! is the same span, apart from its numbers, at a time when nothing was asked of the service.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use super::{
    Trace,
    background::{GRACE, without_numbers},
};
use crate::{
    capture::{Capture, Mark, SpanRow},
    stimulus::Delivery,
    telemetry::{Span, SpanKind, TraceId},
};

/// What a span is apart from its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpanShape {
    kind: SpanKind,
    name: String,
    scope: String,
    root: bool,
}

impl SpanShape {
    /// The shape of a span.
    pub fn of(span: &Span) -> Self {
        let (name, scope) = (without_numbers(&span.name), span.scope.name.clone());
        Self { kind: span.kind, name, scope, root: span.parent_span_id.is_none() }
    }
}

impl fmt::Display for SpanShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.kind, self.name)
    }
}

/// Attributes that say whom a span calls, or what of it (semantic conventions, stable and old).
const CALLEE: [&str; 12] = [
    "server.address",
    "net.peer.name",
    "server.port",
    "net.peer.port",
    "rpc.service",
    "rpc.method",
    "db.system.name",
    "db.system",
    "db.operation.name",
    "db.operation",
    "messaging.destination.name",
    "messaging.destination",
];

/// Attributes that hold the URL of a call or its path (semantic conventions, stable and old).
const URL: [&str; 4] = ["url.full", "http.url", "url.path", "http.target"];

/// Whom a span calls, empty where it says nothing. Spans of calls are named by their method alone.
fn callee(span: &Span) -> String {
    let said = CALLEE.iter().filter_map(|key| Some(format!("{key}={}", span.attributes.get(key)?)));
    said.collect::<Vec<_>>().join(" ")
}

/// What it asks there, without the query, and without parts that have numbers.
fn asked(span: &Span) -> String {
    let url = URL.iter().find_map(|key| span.attributes.str(key)).unwrap_or_default();
    let behind = url.split_once("://").map_or(url, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    let path = behind.split(['?', '#']).next().unwrap_or_default();
    without_numbers(&path.replace('/', " "))
}

/// What a service begins while nothing is asked of it: shapes of spans, each with whom they call and what they ask there.
#[derive(Debug, Default)]
pub struct Habits(HashMap<SpanShape, HashMap<String, HashSet<String>>>);

/// From so many on, one more is expected.
const SEVERAL: usize = 3;

impl Habits {
    /// Whether it begins the like of a span by itself. Where it calls several hosts, as a poller that goes round does, any is like
    /// them, and where it asks one for several things, any of these.
    pub fn have(&self, span: &Span) -> bool {
        self.0.get(&SpanShape::of(span)).is_some_and(|callees| {
            let known = |asks: &HashSet<String>| asks.len() >= SEVERAL || asks.contains(&asked(span));
            callees.len() > 1 || callees.get(&callee(span)).is_some_and(known)
        })
    }
}

/// The root spans of other traces that began inside one of the request's `entries`, and which the service does not begin by
/// itself as well. Not among them: one with a link to another trace, which says whose it is (a queue may still be busy with an
/// earlier request, of which nothing came where its caller did not sample it); and one from another process, unless it took a call or a message there. What arrived before `since` is not looked at.
pub fn detached(capture: &Capture, since: u64, entries: &[Arc<Span>], own: &[TraceId]) -> Vec<Arc<Span>> {
    let during = |start| entries.iter().any(|entry| entry.is_open_at(start));
    let began_inside = |span: &Span| {
        // Who does not name its instance is another process where it is another service.
        let same_process = |entry: &Span| match (entry.resource.instance(), span.resource.instance()) {
            (Some(one), Some(other)) => one == other,
            _ => {
                let names = entry.resource.service_name().zip(span.resource.service_name());
                names.is_none_or(|(one, other)| one == other)
            }
        };
        let beside = |entry: &Span| span.kind.takes_calls() || same_process(entry);
        entries.iter().any(|entry| entry.is_open_at(span.start_unix_nano) && beside(entry))
    };
    let roots = capture
        .spans()
        .since(since)
        .only(|row| row.is_root() && during(row.start_unix_nano()) && !own.iter().any(|&trace_id| row.is_in(trace_id)));
    let mut found: Vec<Arc<Span>> = roots.filter(|span| began_inside(span) && !is_linked(span)).cloned().collect();
    if !found.is_empty() {
        let linked = linked_from(capture, own);
        found.retain(|span| !linked.contains(&span.trace_id));
    }
    if !found.is_empty() {
        let by_itself = by_itself(capture);
        found.retain(|span| !by_itself.have(span));
    }
    found
}

/// Whether a link to another trace says whose a span is.
pub(super) fn is_linked(span: &Span) -> bool {
    let mut named = span.links.iter().filter_map(|link| link.trace_id.parse::<TraceId>().ok());
    named.any(|id| id != span.trace_id)
}

/// The traces that spans of these traces link to: what makes a connection that others will use may be a root of its own, and the
/// call that had to wait for it says so (.NET's HTTP client).
pub(super) fn linked_from(capture: &Capture, traces: &[TraceId]) -> HashSet<TraceId> {
    let spans = traces.iter().flat_map(|&trace_id| capture.spans_of(trace_id));
    spans.flat_map(|span| &span.links).filter_map(|link| link.trace_id.parse().ok()).collect()
}

/// Spans that began inside one of the request's `entries`, in their process, below a span of an earlier request that was over
/// when this one was sent: a thread that keeps the context it was made with. Each with the entry span of that request.
///
/// What an earlier request deferred is sound, and looks alike. So the earlier request must have had such a span while it was
/// under way, more of them than this one has in its own `tree`, and none may begin while nothing is asked of the service.
pub fn stale(
    capture: &Capture,
    delivery: &Delivery,
    since: u64,
    entries: &[Arc<Span>],
    tree: &Trace,
) -> Vec<(Arc<Span>, Arc<Span>)> {
    let inside = |start| entries.iter().any(|entry| entry.is_open_at(start));
    let own = |row: &SpanRow| entries.iter().any(|entry| row.is_in(entry.trace_id));
    let began = capture.spans().since(since).only(|row| !row.is_root() && inside(row.start_unix_nano()) && !own(row));
    let here = |span: &Span| entries.iter().any(|entry| entry.resource.instance() == span.resource.instance());
    let over = |span: &Span| span.end_unix_nano < delivery.sent.unix_nano;
    let parent = |span: &Span| span.parent_span_id.and_then(|id| capture.span(span.trace_id, id));
    let left_in = |span: &Arc<Span>| {
        let entry = entry_above(capture, span);
        let shape = SpanShape::of(span);
        let alike = |other: &Span| SpanShape::of(other) == shape;
        let under_way = |other: &Span| entry.is_open_at(other.start_unix_nano);
        let there = capture.spans_of(span.trace_id).filter(|other| under_way(other) && alike(other)).count();
        let usual = there > tree.spans().filter(|other| alike(other)).count();
        (usual && over(&entry)).then(|| (Arc::clone(span), entry))
    };
    let candidates = began.filter(|span| !span.kind.takes_calls() && span.links.is_empty() && here(span));
    let mut found: Vec<_> =
        candidates.filter(|span| parent(span).is_some_and(|parent| over(parent))).filter_map(left_in).collect();
    if !found.is_empty() {
        let by_itself = by_itself(capture);
        found.retain(|(span, _)| !by_itself.have(span));
    }
    found
}

/// Calls that were taken while a CLIENT span of this request was open, under a CLIENT span of an earlier request that was over
/// when this one was sent: the propagation headers of that one were sent again. Each with the CLIENT span in whose time it
/// stands.
///
/// Who waits for an answer is there when the call is taken. So the earlier CLIENT span must have a call of its own that was
/// taken while it was open (an asynchronous invocation has not), and this request's has none that was ever taken.
pub fn stale_calls(
    capture: &Capture,
    delivery: &Delivery,
    since: u64,
    traces: &[TraceId],
    tree: &Trace,
) -> Vec<(Arc<Span>, Arc<Span>)> {
    let takes_calls = |node: &usize| tree.nodes()[*node].span.kind.takes_calls();
    let clients = tree.nodes().iter().filter(|node| node.span.kind == SpanKind::Client);
    let unanswered: Vec<&Arc<Span>> =
        clients.filter(|node| !node.children.iter().any(takes_calls)).map(|node| &node.span).collect();
    if unanswered.is_empty() {
        return Vec::new();
    }
    let client_at = |start| unanswered.iter().copied().find(|client| client.is_open_at(start));
    let began = capture.spans().since(since).only(|row| {
        let foreign = !traces.iter().any(|&trace_id| row.is_in(trace_id));
        !row.is_root() && foreign && client_at(row.start_unix_nano()).is_some()
    });
    let sent_again = |span: &&Arc<Span>| {
        let caller = span.parent_span_id.and_then(|id| capture.span(span.trace_id, id));
        caller.is_some_and(|caller| {
            let first = |other: &Arc<Span>| {
                other.parent_span_id == span.parent_span_id
                    && SpanShape::of(other) == SpanShape::of(span)
                    && caller.is_open_at(other.start_unix_nano)
            };
            let over = caller.end_unix_nano < delivery.sent.unix_nano;
            caller.kind == SpanKind::Client && over && capture.spans_of(span.trace_id).any(first)
        })
    };
    let calls = began.filter(|span| span.kind == SpanKind::Server && !is_linked(span)).filter(sent_again);
    calls.filter_map(|span| Some((Arc::clone(span), Arc::clone(client_at(span.start_unix_nano)?)))).collect()
}

/// The topmost span above one, itself where there is none.
pub(crate) fn entry_above(capture: &Capture, span: &Arc<Span>) -> Arc<Span> {
    let mut seen = HashSet::from([span.span_id]);
    let mut at = span;
    while let Some(parent) = at.parent_span_id.and_then(|id| capture.span(at.trace_id, id)) {
        if !seen.insert(parent.span_id) {
            break;
        }
        at = parent;
    }
    Arc::clone(at)
}

/// What began while nothing was asked of the service: no request was under way, the harness's own
/// included, and none had been for [`GRACE`].
pub fn by_itself(capture: &Capture) -> Habits {
    let idle = idle(capture);
    let began_idle = |start| idle.iter().any(|(from, to)| (*from..*to).contains(&start));
    let mut habits = Habits::default();
    for span in capture.spans().only(|row| began_idle(row.start_unix_nano())) {
        let callees = habits.0.entry(SpanShape::of(span)).or_default();
        callees.entry(callee(span)).or_default().insert(asked(span));
    }
    habits
}

/// How long a service must have been seen while nothing was asked of it, to say what it does then.
const LEAST_IDLE: u64 = 1_000_000_000;

/// Whether it is known what a service does while nothing is asked of it, or can still be seen: it has not been stopped, or it had
/// its time before.
pub(super) fn is_watchable(capture: &Capture) -> bool {
    let over = |mark: &Mark| matches!(mark, Mark::StopRequested { .. } | Mark::Exited { .. });
    let Some(end) = capture.lifecycle().iter().rev().find(|entry| over(&entry.mark)) else { return true };
    let spent = |(from, to): (u64, u64)| to.min(end.arrival.unix_nano).saturating_sub(from);
    idle(capture).into_iter().map(spent).sum::<u64>() >= LEAST_IDLE
}

/// The times in which nothing was asked of the service, in nanoseconds since the Unix epoch.
pub(super) fn idle(capture: &Capture) -> Vec<(u64, u64)> {
    let grace = u64::try_from(GRACE.as_nanos()).unwrap_or(u64::MAX);
    let mut under_way: usize = 0;
    // `None` until it is ready, and while something is under way.
    let mut since: Option<u64> = None;
    let mut idle = Vec::new();
    for entry in capture.lifecycle() {
        let now = entry.arrival.unix_nano;
        let until_now = |since: Option<u64>| since.map(|since| (since.saturating_add(grace), now));
        match &entry.mark {
            mark if mark.begins_request() => {
                idle.extend(until_now(since.take()));
                under_way += 1;
            }
            mark if mark.ends_request() => {
                under_way = under_way.saturating_sub(1);
                since = (under_way == 0).then_some(now);
            }
            Mark::Ready => since = Some(now),
            Mark::StopRequested { .. } | Mark::Exited { .. } => {
                idle.extend(until_now(since.take()));
                return idle;
            }
            _ => {}
        }
    }
    idle.extend(since.map(|since| (since.saturating_add(grace), u64::MAX)));
    idle
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        correlation::{Options, RequestEvidence, Stranger, request, samples::*},
        telemetry::{Attributes, LogRecord, Resource, SpanLink},
    };

    fn entry() -> Span {
        with(span(1, Some(99), "GET /"), SpanKind::Server, &[])
    }

    fn root(change: impl FnOnce(&mut Span)) -> Span {
        let mut root = Span { trace_id: trace_id(7), ..span(2, None, "price 4") };
        change(&mut root);
        root
    }

    fn found(spans: Vec<Span>, records: Vec<LogRecord>, options: Options<'_>) -> RequestEvidence {
        store(spans, records).look(|capture| request(capture, &delivery(), options))
    }

    fn strangers(root: Span) -> usize {
        let alone = Options { alone: true, ..Options::default() };
        let evidence = found(vec![entry(), root], Vec::new(), alone);
        evidence.strangers.iter().filter(|stranger| matches!(stranger, Stranger::Detached { .. })).count()
    }

    fn instance(id: &str) -> Arc<Resource> {
        let attributes = [("service.instance.id", id.into())].into_iter().collect::<Attributes>();
        Arc::new(Resource { attributes, schema_url: String::new() })
    }

    #[test]
    fn a_root_span_that_began_inside_the_request_is_a_stranger_and_one_before_or_behind_is_not() {
        assert_eq!(strangers(root(|_| {})), 1);
        assert_eq!(strangers(root(|span| span.start_unix_nano = 9)), 0);
        assert_eq!(strangers(root(|span| span.start_unix_nano = 12)), 0);
    }

    #[test]
    fn where_others_use_the_service_too_nobody_can_say_whose_it_is() {
        assert!(found(vec![entry(), root(|_| {})], Vec::new(), Options::default()).strangers.is_empty());
    }

    #[test]
    fn a_root_span_with_a_link_says_whose_it_is_this_requests_or_an_earlier_ones() {
        let link =
            |n| SpanLink { trace_id: trace_id(n).to_string(), span_id: "x".into(), attributes: Attributes::default() };
        assert_eq!(strangers(root(|span| span.links = vec![link(1)])), 0);
        assert_eq!(strangers(root(|span| span.links = vec![link(5)])), 0, "a queue is busy with an earlier request");
        assert_eq!(strangers(root(|span| span.links = vec![link(7)])), 1, "its own trace is nobody's");
    }

    #[test]
    fn a_root_span_that_a_span_of_the_request_links_to_is_no_stranger() {
        let alone = Options { alone: true, ..Options::default() };
        let calls = |linked: u8| {
            let link = SpanLink {
                trace_id: trace_id(linked).to_string(),
                span_id: "x".into(),
                attributes: Attributes::default(),
            };
            let call = Span { links: vec![link], ..with(span(3, Some(1), "GET"), SpanKind::Client, &[]) };
            found(vec![entry(), call, root(|_| {})], Vec::new(), alone).strangers.len()
        };
        assert_eq!((calls(7), calls(8)), (0, 1));
    }

    #[test]
    fn what_another_process_begins_is_its_own_unless_it_took_a_call() {
        let alone = Options { alone: true, ..Options::default() };
        let here = |kind| {
            let entry = Span { resource: instance("a"), ..entry() };
            let root = root(|span| (span.resource, span.kind) = (instance("b"), kind));
            found(vec![entry, root], Vec::new(), alone).strangers.len()
        };
        assert_eq!(here(SpanKind::Internal), 0);
        assert_eq!(here(SpanKind::Server), 1);
    }

    #[test]
    fn a_line_that_names_a_detached_span_is_the_requests_with_ids_of_another_trace() {
        let alone = Options { alone: true, ..Options::default() };
        let line = || record(Some(7), Some(2));
        assert_eq!(found(vec![entry(), root(|_| {})], vec![line()], alone).logs.len(), 1);
        assert!(found(vec![entry()], vec![line()], alone).logs.is_empty());
    }

    #[test]
    fn a_span_that_also_begins_while_nothing_is_asked_is_the_services_own() {
        let store = crate::capture::Store::default();
        let now = store.mark(Mark::Ready).unix_nano;
        let second = 1_000_000_000;
        let at = |seconds: u64, name: &str| {
            let (start_unix_nano, trace_id) = (now + seconds * second, trace_id(7));
            Span { start_unix_nano, trace_id, ..span(seconds, None, name) }
        };
        export(&store, vec![at(1, "poll 1"), Span { parent_span_id: Some(span_id(1)), ..at(2, "child") }]);
        let habits = store.look(by_itself);
        assert!(habits.have(&at(3, "poll 2")), "numbers do not matter");
        assert!(!habits.have(&at(3, "child")), "what hangs on something is no root");
        let child = Span { parent_span_id: Some(span_id(4)), ..at(3, "child") };
        assert!(habits.have(&child));
        let store = crate::capture::Store::default();
        store.mark(Mark::Ready);
        store.mark(Mark::Sent { delivery: "d".into() });
        export(&store, vec![at(1, "poll 1")]);
        assert!(!store.look(by_itself).have(&at(1, "poll 1")), "a request is under way");
    }

    #[test]
    fn a_call_is_the_services_own_when_it_calls_the_same_by_itself_or_several() {
        let store = crate::capture::Store::default();
        let now = store.mark(Mark::Ready).unix_nano;
        let call = |id: u64, host: &str| {
            let start_unix_nano = now + id * 1_000_000_000;
            let span = Span { start_unix_nano, trace_id: trace_id(7), ..span(id, None, "GET") };
            with(span, SpanKind::Client, &[("server.address", host.into())])
        };
        export(&store, vec![call(1, "config")]);
        assert!(store.look(by_itself).have(&call(3, "config")));
        assert!(!store.look(by_itself).have(&call(3, "prices")));
        let asking = |id: u64, path: &str| {
            let url = format!("http://config:8080{path}?page=2");
            let call = call(id, "config");
            let attributes = call.attributes.iter().map(|(key, value)| (key.to_owned(), value.clone()));
            let attributes = attributes.chain([("url.full".to_owned(), url.as_str().into())]).collect();
            Span { attributes, ..call }
        };
        let polls = crate::capture::Store::default();
        polls.mark(Mark::Ready);
        export(&polls, vec![asking(1, "/health"), asking(2, "/jobs/7")]);
        assert!(polls.look(by_itself).have(&asking(3, "/jobs/8")), "numbers do not matter");
        assert!(!polls.look(by_itself).have(&asking(3, "/data")), "it asks for something else");
        export(&polls, vec![asking(3, "/config")]);
        assert!(polls.look(by_itself).have(&asking(4, "/data")), "it asks for many things");
        export(&store, vec![call(2, "registry")]);
        assert!(store.look(by_itself).have(&call(3, "prices")), "it goes round");
    }

    /// What is stale in a request sent at 1000 whose entry lasts from 1010 to 1090, where `earlier` is the tree of a request
    /// in trace 8 under the entry 80 (from 100 to 190), and `own` stands below the entry.
    fn stale_in(earlier: Vec<Span>, own: Vec<Span>, options: Options<'_>) -> Vec<String> {
        let at = |span: Span, start, end| Span { start_unix_nano: start, end_unix_nano: end, ..span };
        let earlier_entry = at(with(span(80, Some(98), "GET /"), SpanKind::Server, &[]), 100, 190);
        let mut spans = vec![at(entry(), 1_010, 1_090), Span { trace_id: trace_id(8), ..earlier_entry }];
        spans.extend(earlier.into_iter().map(|span| Span { trace_id: trace_id(8), ..span }));
        spans.extend(own);
        let sent = Delivery {
            sent: crate::telemetry::Arrival { seq: 1, unix_nano: 1_000 },
            answered: crate::telemetry::Arrival { seq: 90, unix_nano: 1_100 },
            ..delivery()
        };
        let evidence = store(spans, Vec::new()).look(|capture| request(capture, &sent, options));
        let stale =
            evidence.strangers.iter().filter(|one| matches!(one, Stranger::Stale { .. } | Stranger::StaleCall { .. }));
        stale.map(ToString::to_string).collect()
    }

    fn price(id: u64, parent: u64, start: u64) -> Span {
        Span { start_unix_nano: start, end_unix_nano: start + 5, ..span(id, Some(parent), "price") }
    }

    const ALONE: fn() -> Options<'static> =
        || Options { since: Some(0), exclusive: true, alone: true, ..Options::default() };

    #[test]
    fn a_span_under_a_request_that_was_over_is_stale_when_that_request_had_its_like_and_this_one_has_not() {
        let found = stale_in(vec![price(81, 80, 110), price(82, 80, 1_020)], Vec::new(), ALONE());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("\"price\" began during this request, under SERVER \"GET /\""), "{found:?}");
    }

    #[test]
    fn what_an_earlier_request_deferred_is_its_own() {
        assert!(stale_in(vec![price(82, 80, 1_020)], Vec::new(), ALONE()).is_empty(), "it had none while under way");
        let own = || vec![price(2, 1, 1_020)];
        assert!(
            stale_in(vec![price(81, 80, 110), price(82, 80, 1_020)], own(), ALONE()).is_empty(),
            "this one has its own"
        );
        let job = Span { end_unix_nano: 2_000, ..price(83, 80, 120) };
        let step = |start| price(84 + start, 83, start);
        assert!(stale_in(vec![job, step(130), step(1_020)], Vec::new(), ALONE()).is_empty(), "the job is not over");
        let linked = Span {
            links: vec![SpanLink {
                trace_id: trace_id(1).to_string(),
                span_id: "x".into(),
                attributes: Attributes::default(),
            }],
            ..price(82, 80, 1_020)
        };
        assert!(stale_in(vec![price(81, 80, 110), linked], Vec::new(), ALONE()).is_empty(), "it says whose it is");
    }

    fn client(id: u64, parent: u64, start: u64) -> Span {
        let end_unix_nano = start + 20;
        Span { start_unix_nano: start, end_unix_nano, ..with(span(id, Some(parent), "POST"), SpanKind::Client, &[]) }
    }

    /// A call that was taken at `start` under `parent`.
    fn taken(id: u64, parent: u64, start: u64) -> Span {
        let end_unix_nano = start + 5;
        Span {
            start_unix_nano: start,
            end_unix_nano,
            ..with(span(id, Some(parent), "POST /price"), SpanKind::Server, &[])
        }
    }

    #[test]
    fn a_call_with_the_headers_of_a_request_that_was_over_is_this_ones() {
        let earlier = || vec![client(81, 80, 110), taken(82, 81, 112)];
        let again = || [earlier(), vec![taken(83, 81, 1_025)]].concat();
        let found = stale_in(again(), vec![client(2, 1, 1_020)], ALONE());
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("during CLIENT \"POST\" (0000000000000002)"), "{found:?}");
        let later = stale_in(again(), vec![client(2, 1, 1_030)], ALONE());
        assert!(later.is_empty(), "this request did not call at that time: {later:?}");
    }

    #[test]
    fn a_call_that_an_earlier_request_has_in_truth_is_its_own() {
        let again = || vec![client(81, 80, 110), taken(82, 81, 112), taken(83, 81, 1_025)];
        let own = || vec![client(2, 1, 1_020), taken(3, 2, 1_024)];
        assert!(stale_in(again(), own(), ALONE()).is_empty(), "this one's call was taken in its own trace");
        let asynchronous = || vec![client(81, 80, 110), taken(83, 81, 1_025)];
        let mine = || vec![client(2, 1, 1_020)];
        assert!(stale_in(asynchronous(), mine(), ALONE()).is_empty(), "the call waited in a queue");
        let open = Span { end_unix_nano: 2_000, ..client(81, 80, 110) };
        let open = || vec![open.clone(), taken(82, 81, 112), taken(83, 81, 1_025)];
        assert!(stale_in(open(), mine(), ALONE()).is_empty(), "the earlier call is not over");
        let shared = Options { since: Some(0), alone: true, ..Options::default() };
        assert!(stale_in(again(), mine(), shared).is_empty(), "other requests are under way");
    }

    #[test]
    fn where_another_request_is_under_way_nothing_is_called_stale() {
        let shared = Options { since: Some(0), alone: true, ..Options::default() };
        assert!(stale_in(vec![price(81, 80, 110), price(82, 80, 1_020)], Vec::new(), shared).is_empty());
    }
}
