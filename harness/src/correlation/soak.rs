//! Whether each of very many requests has a complete, correlated trace: what [`request`](super::request()) finds by looking at
//! everything, found by the trace id alone, so that it costs the same however much was captured.
//!
//! What names no trace of the request is not seen this way: a line without ids is only found where it quotes the request's
//! `User-Agent` ([`quoting_without_ids`]).

use std::{collections::HashSet, fmt, sync::Arc};

use regex::Regex;

use super::{FoundBy, RequestEvidence, Trace, correlated, repetition::Doubtful, xray::XrayHeader};
use crate::{
    capture::Capture,
    stimulus::{ContextForm, Delivery},
    telemetry::{LogRecord, Span},
};

/// In what way the telemetry of a request is not complete and correlated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No span of its trace was received.
    NoTrace,
    /// No span hangs on the caller's span.
    NotOnCaller,
    /// Several spans hang on the caller's span.
    SeveralEntries,
    /// A span's parent was not received, or it is a root of its own.
    Orphan,
    /// A span came twice, or two have the same id.
    Duplicate,
    /// Spans hang on each other in a circle.
    Cycle,
    /// A span ends before it starts.
    Backwards,
    /// A log record or line fails one of the conditions of being correlated.
    Uncorrelated,
    /// A line quotes the request and has no ids.
    WithoutIds,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::NoTrace => "no span of the caller's trace",
            Self::NotOnCaller => "no span on the caller's span",
            Self::SeveralEntries => "several spans on the caller's span",
            Self::Orphan => "an orphan",
            Self::Duplicate => "a duplicate",
            Self::Cycle => "a cycle",
            Self::Backwards => "a span that ends before it starts",
            Self::Uncorrelated => "an uncorrelated log record",
            Self::WithoutIds => "a line without ids",
        })
    }
}

/// One thing that is wrong with the telemetry of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Of which kind.
    pub kind: Kind,
    /// What, naming the span or the record.
    pub what: String,
}

/// Everything that is wrong with the telemetry of a request that a sampled caller sent; nothing when its trace is complete
/// and correlated. `ignore` leaves out lines.
pub fn flaws(capture: &Capture, delivery: &Delivery, ignore: &[Regex]) -> Vec<Flaw> {
    let evidence = of_trace(capture, delivery, ignore);
    let mut flaws = Vec::new();
    let mut flaw = |kind, what: String| flaws.push(Flaw { kind, what });
    let trace = &evidence.trace;
    let named = |span: &Span| format!("{} {:?} ({})", span.kind, span.name, span.span_id);
    if trace.is_empty() {
        flaw(Kind::NoTrace, "no span of its trace was received".into());
    } else {
        let (entries, others): (Vec<_>, Vec<_>) =
            trace.roots().iter().map(|&at| &trace.nodes()[at].span).partition(|root| hangs_on_caller(root, delivery));
        match entries.len() {
            0 => flaw(Kind::NotOnCaller, "no span hangs on the caller's span".into()),
            1 => {}
            _ => {
                let names: Vec<String> = entries.iter().map(|span| named(span)).collect();
                flaw(Kind::SeveralEntries, format!("{} hang on the caller's span", names.join(" and ")));
            }
        }
        for root in others.iter().filter(|root| root.parent_span_id.is_none()) {
            flaw(Kind::Orphan, format!("{} hangs on nothing", named(root)));
        }
    }
    trace.orphans.iter().for_each(|orphan| flaw(Kind::Orphan, orphan.to_string()));
    trace.duplicates.iter().for_each(|duplicate| flaw(Kind::Duplicate, duplicate.to_string()));
    trace.cycles.iter().for_each(|cycle| flaw(Kind::Cycle, format!("the spans {cycle:?} hang on each other")));
    for span in trace.nodes().iter().map(|node| &node.span).filter(|span| span.end_unix_nano < span.start_unix_nano) {
        flaw(Kind::Backwards, format!("{} ends before it starts", named(span)));
    }
    for record in &evidence.logs {
        for failure in correlated(record, &evidence).err().into_iter().flatten() {
            flaw(Kind::Uncorrelated, format!("{} {:?}: {failure}", record.origin, record.message));
        }
    }
    flaws
}

fn hangs_on_caller(span: &Span, delivery: &Delivery) -> bool {
    let told = delivery.remote_parents();
    // A header with a root alone gives a trace to join and no span to hang on.
    if told.is_empty() {
        span.parent_span_id.is_none()
    } else {
        span.parent_span_id.is_some_and(|parent| told.contains(&parent))
    }
}

/// What was captured in the traces that the service was told to carry on.
pub fn of_trace(capture: &Capture, delivery: &Delivery, ignore: &[Regex]) -> RequestEvidence {
    let caller = delivery.caller.filter(|_| delivery.form != ContextForm::Absent);
    let runtime = delivery.invocation.as_ref().and_then(|invocation| invocation.runtime_trace_header.as_ref());
    let runtime = runtime.and_then(|header| header.parse::<XrayHeader>().ok()).map(|header| header.root);
    let mut told_traces: Vec<_> = caller.map(|caller| caller.trace_id).into_iter().collect();
    told_traces.extend(runtime.filter(|root| !told_traces.contains(root)));
    let spans = told_traces.iter().flat_map(|&trace| capture.spans_of(trace)).cloned();
    let trace = Trace::new(spans, &delivery.remote_parents());
    let entries: Vec<Arc<Span>> = trace
        .roots()
        .iter()
        .map(|&at| trace.nodes()[at].span.clone())
        .filter(|root| hangs_on_caller(root, delivery))
        .collect();
    let counts = |record: &&Arc<LogRecord>| {
        record.format.is_structured() && !ignore.iter().any(|ignore| ignore.is_match(&record.raw))
    };
    RequestEvidence {
        found_by: if entries.is_empty() { FoundBy::Nothing } else { FoundBy::RemoteParent },
        entries,
        logs: told_traces.iter().flat_map(|&trace| capture.logs_of(trace)).filter(counts).cloned().collect(),
        trace,
        text: Vec::new(),
        guessed: Vec::new(),
        invocations: HashSet::new(),
        repeated: Vec::new(),
        untried: Doubtful::default(),
        undecided: Vec::new(),
        refused: HashSet::new(),
        left_behind: Vec::new(),
        strangers: Vec::new(),
        candidates: Vec::new(),
        caller,
        told_traces,
        request_id: delivery.invocation.as_ref().map(|invocation| invocation.request_id.clone()),
        method: delivery.method.clone(),
        target: delivery.target.clone(),
        user_agent: delivery.user_agent.clone(),
        outside: Default::default(),
    }
}

/// Structured lines since `since` that name no trace and quote one of these `User-Agent`s, each with the one that it quotes. One
/// look at all lines, for as many requests as there are.
pub fn quoting_without_ids<'a>(
    capture: &Capture,
    since: u64,
    agents: &HashSet<&'a str>,
    ignore: &[Regex],
) -> Vec<(&'a str, Flaw)> {
    let length = agents.iter().next().map_or(0, |agent| agent.len());
    let prefix = agents.iter().next().and_then(|agent| agent.split_once('/')).map_or("", |(product, _)| product);
    if prefix.is_empty() {
        return Vec::new();
    }
    let lines = capture.logs().since(since).only(|row| !row.is_exported()).filter(|line| line.format.is_structured());
    let without = lines.filter(|record| record.trace_id.valid().is_none() && record.request_id.is_none());
    without
        .filter(|record| !ignore.iter().any(|ignore| ignore.is_match(&record.raw)))
        .filter_map(|record| {
            let mut quoted = record.raw.match_indices(prefix).filter_map(|(at, _)| record.raw.get(at..at + length));
            let agent = quoted.find_map(|quoted| agents.get(quoted))?;
            let what = format!("{} {:?} has no ids and quotes the request's User-Agent", record.origin, record.message);
            Some((*agent, Flaw { kind: Kind::WithoutIds, what }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        correlation::samples,
        telemetry::{IdClaim, SpanKind},
    };

    /// What is wrong with the request of the samples, which carries on trace 1 from span 99.
    fn kinds(spans: Vec<Span>, records: Vec<LogRecord>) -> Vec<Kind> {
        samples::store(spans, records)
            .look(|capture| flaws(capture, &samples::delivery(), &[]).into_iter().map(|flaw| flaw.kind).collect())
    }

    fn entry() -> Span {
        samples::with(samples::span(1, Some(99), "GET /"), SpanKind::Server, &[])
    }

    #[test]
    fn a_trace_that_hangs_on_the_caller_with_lines_that_name_its_spans_has_no_flaw() {
        let spans = vec![entry(), samples::span(2, Some(1), "query")];
        assert_eq!(kinds(spans, vec![samples::record(Some(1), Some(2)), samples::record(None, None)]), []);
    }

    #[test]
    fn each_flaw_is_of_its_kind() {
        assert_eq!(kinds(vec![], vec![]), [Kind::NoTrace]);
        assert_eq!(kinds(vec![samples::span(1, None, "GET /")], vec![]), [Kind::NotOnCaller, Kind::Orphan]);
        assert_eq!(kinds(vec![samples::span(1, Some(7), "GET /")], vec![]), [Kind::NotOnCaller, Kind::Orphan]);
        assert_eq!(kinds(vec![entry(), samples::span(2, Some(99), "GET /")], vec![]), [Kind::SeveralEntries]);
        assert_eq!(kinds(vec![entry(), samples::span(2, Some(7), "query")], vec![]), [Kind::Orphan]);
        assert_eq!(kinds(vec![entry(), samples::span(2, None, "query")], vec![]), [Kind::Orphan]);
        assert_eq!(kinds(vec![entry(), entry()], vec![]), [Kind::Duplicate]);
        let circle = vec![entry(), samples::span(2, Some(3), "a"), samples::span(3, Some(2), "b")];
        assert!(kinds(circle, vec![]).contains(&Kind::Cycle));
        assert_eq!(kinds(vec![Span { end_unix_nano: 1, ..entry() }], vec![]), [Kind::Backwards]);
        assert_eq!(kinds(vec![entry()], vec![samples::record(Some(1), Some(7))]), [Kind::Uncorrelated]);
        assert_eq!(kinds(vec![entry()], vec![samples::record(Some(1), None)]), [Kind::Uncorrelated]);
    }

    #[test]
    fn a_line_to_be_ignored_is_not_judged() {
        let store = samples::store(vec![entry()], vec![samples::record(Some(1), Some(7))]);
        let ignore = [Regex::new("hello").unwrap()];
        assert_eq!(store.look(|capture| flaws(capture, &samples::delivery(), &ignore)), []);
    }

    #[test]
    fn a_line_without_ids_is_a_request_s_when_it_quotes_it_and_nobody_s_otherwise() {
        let line = |raw: &str| LogRecord { raw: raw.into(), ..samples::record(None, None) };
        let records = vec![
            line("{\"agent\":\"tracegate/00000001-00000002\"}"),
            line("{\"agent\":\"tracegate/00000001-00000009\"}"),
            line("{\"agent\":\"curl\"}"),
            LogRecord {
                trace_id: IdClaim::Valid(samples::trace_id(1)),
                ..line("{\"agent\":\"tracegate/00000001-00000002\"}")
            },
        ];
        let agents = HashSet::from(["tracegate/00000001-00000001", "tracegate/00000001-00000002"]);
        samples::store(vec![], records).look(|capture| {
            let found = quoting_without_ids(capture, 0, &agents, &[]);
            assert_eq!(found.len(), 1);
            assert_eq!((found[0].0, found[0].1.kind), ("tracegate/00000001-00000002", Kind::WithoutIds));
            assert_eq!(quoting_without_ids(capture, 0, &agents, &[Regex::new("agent").unwrap()]), []);
            assert_eq!(quoting_without_ids(capture, 0, &HashSet::new(), &[]), []);
        });
    }
}
