//! Rules about what comes behind the answer of a request.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{Grade::Advice, Rule, Subject};
use crate::{
    correlation::detached::SpanShape,
    telemetry::{Span, SpanId, TraceId},
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "unattributed",
        grade: Advice,
        about: "work that begins behind the answer of a request that changes something hangs on it or names it in a link, and its lines \
                have ids",
        limits: "Told of root spans and of lines without ids that come within 0.3 s, where nothing else is asked, and neither while \
                 nothing is asked of the service nor with a fence alone. Advice, because a job that runs seldom may come just then: a \
                 `GET` is repeated to see what it sets off, and what comes each time is its own; any other request is not. Not on Lambda, where nothing runs behind the answer.",
        source: "OpenTelemetry specification, Context: work that is handed on takes its context along; semantic conventions, Messaging \
                 spans: a consumer's span has the producer's as its parent or in a link",
        check: unattributed,
    },
    Rule {
        name: "endless-trace",
        grade: Advice,
        about: "no work goes on for ever in the trace of a request that is over, as that of a timer does which was made inside of one",
        limits: "Told where the third span of one kind and name in a trace begins more than a second after its parent had ended. Calls \
                 and messages that are taken so late do not count: a queue may be long. Advice, because deferred work that is tried \
                 again looks alike. Not judged in a scenario of more than 10,000 spans.",
        source: "OpenTelemetry specification, Context: a context is that of a unit of execution; Trace API, Span: a trace is of one \
                 operation",
        check: endless_trace,
    },
];

/// How long after its parent had ended a span begins that is not of the same work, in nanoseconds.
const LONG_BEHIND: u64 = 1_000_000_000;

/// So many such spans are no retry.
const AGAIN_AND_AGAIN: usize = 3;

/// Spans of a scenario beyond which nobody looks for those.
const SPANS_AT_MOST: usize = 10_000;

fn endless_trace(subject: &Subject<'_>) -> Vec<String> {
    let Subject { capture, delivery, first, .. } = subject;
    // What an earlier scenario's request set off goes on in this one.
    let came = || capture.spans().since(delivery.sent.seq).only(|row| !row.is_root());
    if !first || came().nth(SPANS_AT_MOST).is_some() {
        return Vec::new();
    }
    let traces: BTreeSet<TraceId> = came().map(|span| span.trace_id).collect();
    let mut told = BTreeSet::new();
    for trace_id in traces {
        let spans: HashMap<SpanId, &Arc<Span>> = capture.spans_of(trace_id).map(|span| (span.span_id, span)).collect();
        let mut late: HashMap<SpanShape, (usize, &Arc<Span>)> = HashMap::new();
        for span in spans.values().filter(|span| !span.kind.takes_calls()) {
            let parent = span.parent_span_id.and_then(|parent| spans.get(&parent));
            let behind = |parent: &&&Arc<Span>| span.start_unix_nano > parent.end_unix_nano.saturating_add(LONG_BEHIND);
            if let Some(parent) = parent.filter(behind) {
                let (count, above) = late.entry(SpanShape::of(span)).or_insert((0, parent));
                *count += 1;
                // The first of them, whose parent is what was over: others may hang on one another.
                if parent.start_unix_nano < above.start_unix_nano {
                    *above = parent;
                }
            }
        }
        let again = late.into_iter().filter(|(_, (count, _))| *count >= AGAIN_AND_AGAIN);
        told.extend(again.map(|(shape, (_, above))| {
            format!(
                "{shape} begins again and again in one trace, long after its parent there, {} {:?}, had ended",
                above.kind, above.name
            )
        }));
    }
    told.into_iter().collect()
}

fn unattributed(subject: &Subject<'_>) -> Vec<String> {
    let Subject { evidence, delivery, complete, .. } = subject;
    if !complete || delivery.may_be_repeated() {
        return Vec::new();
    }
    let request = format!("{} {}", delivery.method, delivery.target);
    let roots = evidence.untried.roots.iter().map(|span| {
        format!("{} {:?} began beside or behind {request}, hangs on nothing and has no link", span.kind, span.name)
    });
    let lines = evidence.untried.lines.iter().map(|record| {
        format!("{} line {:?} came behind the answer of {request} and has no ids", record.origin, record.message)
    });
    roots.chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{entry, subject},
        *,
    };
    use crate::{
        correlation::{Options, repetition::Doubtful, request, samples},
        stimulus::Delivery,
        telemetry::SpanKind,
    };

    fn judged(method: &str, complete: bool, untried: Doubtful) -> Vec<String> {
        let delivery = Delivery { method: method.into(), ..samples::delivery() };
        samples::store(vec![entry()], Vec::new()).look(|capture| {
            let mut evidence = request(capture, &delivery, Options::default());
            evidence.untried = untried;
            unattributed(&Subject { complete, ..subject(&evidence, &delivery, capture) })
        })
    }

    fn found() -> Doubtful {
        let (span, line) = (samples::span(2, None, "settle"), samples::record(None, None));
        Doubtful { roots: vec![Arc::new(span)], lines: vec![Arc::new(line)], ..Doubtful::default() }
    }

    /// What is told where an entry span has ended at 20 and spans below it, of this kind, began so many seconds behind.
    fn going_on(kind: SpanKind, behind: &[u64], first: bool) -> Vec<String> {
        let second = 1_000_000_000;
        let delivery = Delivery { sent: crate::telemetry::Arrival::default(), ..samples::delivery() };
        let late = |(&seconds, id): (&u64, u64)| {
            let start = 20 + seconds * second;
            let span = Span { start_unix_nano: start, end_unix_nano: start, ..samples::span(id, Some(1), "tick 4") };
            samples::with(span, kind, &[])
        };
        let spans = std::iter::once(Span { end_unix_nano: 20, ..entry() }).chain(behind.iter().zip(2..).map(late));
        samples::store(spans.collect(), Vec::new()).look(|capture| {
            let evidence = request(capture, &delivery, Options::default());
            endless_trace(&Subject { first, ..subject(&evidence, &delivery, capture) })
        })
    }

    #[test]
    fn spans_that_begin_again_and_again_below_a_span_that_is_long_over_are_told_once() {
        let told = going_on(SpanKind::Internal, &[2, 4, 6, 8], true);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with("INTERNAL \"tick #\" begins again and again"), "{told:?}");
    }

    #[test]
    fn a_retry_work_that_ends_soon_and_messages_of_a_long_queue_do_not_go_on_for_ever() {
        assert!(going_on(SpanKind::Internal, &[2, 4], true).is_empty(), "tried twice more");
        assert!(going_on(SpanKind::Internal, &[0, 0, 1, 1, 2], true).is_empty(), "soon over");
        assert!(going_on(SpanKind::Consumer, &[2, 4, 6, 8], true).is_empty(), "a queue");
        assert!(going_on(SpanKind::Internal, &[2, 4, 6, 8], false).is_empty(), "said of the first request");
    }

    #[test]
    fn what_comes_behind_a_request_that_is_not_repeated_and_names_nobody_is_told() {
        let told = judged("POST", true, found());
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("INTERNAL \"settle\" began beside or behind POST /"), "{told:?}");
        assert!(told[1].contains("has no ids"), "{told:?}");
    }

    #[test]
    fn nothing_is_told_without_a_proof_of_what_can_be_repeated_and_where_nothing_came() {
        assert!(judged("POST", false, found()).is_empty());
        assert!(judged("GET", true, found()).is_empty());
        assert!(judged("POST", true, Doubtful::default()).is_empty());
    }
}
