//! Spans that began while a request was under way and hang on nothing: work of the request that lost its context, or what
//! the service does by itself.
//!
//! A thread pool, a callback or a queue that does not carry the context on makes a new trace of what it does. Time alone
//! cannot tell that from a background thread, as with lines without ids. What tells is the same span, apart from its
//! numbers, at a time when nothing was asked of the service.

use std::{collections::HashSet, sync::Arc};

use super::background::{GRACE, without_numbers};
use crate::{
    capture::{Capture, Mark},
    telemetry::{Span, SpanKind, TraceId},
};

/// What a span is apart from its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpanShape {
    kind: SpanKind,
    name: String,
    scope: String,
}

impl SpanShape {
    /// The shape of a span.
    pub fn of(span: &Span) -> Self {
        Self { kind: span.kind, name: without_numbers(&span.name), scope: span.scope.name.clone() }
    }
}

/// The root spans of other traces that began inside one of the request's `entries`, and which the service does not begin by
/// itself as well. Not among them: one with a link to another trace, which says whose it is (a queue may still be busy with an
/// earlier request, of which nothing came where its caller did not sample it); and one from another process, unless it took a call or a message there. What arrived before `since` is not looked at.
pub fn detached(capture: &Capture, since: u64, entries: &[Arc<Span>], own: &[TraceId]) -> Vec<Arc<Span>> {
    let during = |start| entries.iter().any(|entry| (entry.start_unix_nano..=entry.end_unix_nano).contains(&start));
    let began_inside = |span: &Span| {
        let beside = |entry: &Arc<Span>| match (entry.resource.instance(), span.resource.instance()) {
            (Some(one), Some(other)) => one == other || takes_calls(span.kind),
            _ => true,
        };
        entries
            .iter()
            .any(|entry| (entry.start_unix_nano..=entry.end_unix_nano).contains(&span.start_unix_nano) && beside(entry))
    };
    let linked = |span: &Span| {
        let mut named = span.links.iter().filter_map(|link| link.trace_id.parse::<TraceId>().ok());
        named.any(|id| id != span.trace_id)
    };
    let roots = capture
        .spans()
        .since(since)
        .only(|row| row.is_root() && during(row.start_unix_nano()) && !own.iter().any(|&trace_id| row.is_in(trace_id)));
    let mut found: Vec<Arc<Span>> = roots.filter(|span| began_inside(span) && !linked(span)).cloned().collect();
    if !found.is_empty() {
        let by_itself = by_itself(capture);
        found.retain(|span| !by_itself.contains(&SpanShape::of(span)));
    }
    found
}

const fn takes_calls(kind: SpanKind) -> bool {
    matches!(kind, SpanKind::Server | SpanKind::Consumer)
}

/// The shapes of root spans that began while nothing was asked of the service: no request was under way, the harness's own
/// included, and none had been for [`GRACE`].
pub fn by_itself(capture: &Capture) -> HashSet<SpanShape> {
    let idle = idle(capture);
    let began_idle = |start| idle.iter().any(|(from, to)| (*from..*to).contains(&start));
    let roots = capture.spans().only(|row| row.is_root() && began_idle(row.start_unix_nano()));
    roots.map(|span| SpanShape::of(span)).collect()
}

/// The times in which nothing was asked of the service, in nanoseconds since the Unix epoch.
fn idle(capture: &Capture) -> Vec<(u64, u64)> {
    let grace = u64::try_from(GRACE.as_nanos()).unwrap_or(u64::MAX);
    let mut under_way: usize = 0;
    // `None` until it is ready, and while something is under way.
    let mut since: Option<u64> = None;
    let mut idle = Vec::new();
    for entry in capture.lifecycle() {
        let now = entry.arrival.unix_nano;
        let until_now = |since: Option<u64>| since.map(|since| (since.saturating_add(grace), now));
        match entry.mark {
            Mark::Sent { .. } | Mark::FenceSent { .. } => {
                idle.extend(until_now(since.take()));
                under_way += 1;
            }
            Mark::Answered { .. } | Mark::FenceOver { .. } => {
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
        let shapes = store.look(by_itself);
        assert!(shapes.contains(&SpanShape::of(&at(3, "poll 2"))), "numbers do not matter");
        assert!(!shapes.contains(&SpanShape::of(&at(3, "child"))), "what hangs on something is no root");
        let store = crate::capture::Store::default();
        store.mark(Mark::Ready);
        store.mark(Mark::Sent { delivery: "d".into() });
        export(&store, vec![at(1, "poll 1")]);
        assert!(store.look(by_itself).is_empty(), "a request is under way");
    }
}
