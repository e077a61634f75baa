//! The spans and log records of one request, told apart from those of all others.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use regex::Regex;

use super::{Trace, background::Shape, detached};
use crate::{
    capture::{Capture, Mark},
    stimulus::{Caller, ContextForm, Delivery},
    telemetry::{Attributes, LogRecord, Span, SpanId, TraceId, xray::XrayHeader},
};

mod entries;
mod evidence;
mod records;
mod repeated;

use entries::Entry;

pub use evidence::{FoundBy, RequestEvidence, Stranger};

/// Attributes that hold the client's User-Agent (semantic conventions, stable and old).
const USER_AGENT: [&str; 2] = ["user_agent.original", "http.user_agent"];
/// Attributes that hold Lambda's request id (semantic conventions, stable and old, and what vendors write).
pub(super) const REQUEST_ID: [&str; 5] =
    ["faas.invocation_id", "faas.execution", "aws.request_id", "aws_request_id", "aws.lambda.invoked_request_id"];
/// How far a clock read by the service may be off the harness's, in nanoseconds. Both are on one machine.
const CLOCK_TOLERANCE: u64 = 1_000_000;

/// How long after its span ended a line may come that was written inside it or right behind it, in nanoseconds.
const LATE_LINE: u64 = 100_000_000;

/// What the caller of [`request`] knows about the run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// Position in the store's order before which nothing of the request can have come, so that a look is not at all that
    /// is stored: that of sending, when the order is that of a run. `None` where the order says nothing.
    pub since: Option<u64>,
    /// Position in the store's order up to which records may belong to the request; `None` for the moment when its
    /// answer had been read.
    pub window_end: Option<u64>,
    /// Whether nothing else ran between the request and the end of the window, so that a record without ids that
    /// came in between must be this request's.
    pub exclusive: bool,
    /// Whether nothing but requests of the same scenario ran meanwhile, so that a line without ids is of one of them.
    pub alone: bool,
    /// Position up to which a line that quotes the request's method and path belongs to it: an access log is written
    /// behind the answer. `None` for `window_end`.
    pub quoted_until: Option<u64>,
    /// Targets of the harness's own `GET` requests: a line that quotes one of them is of those.
    pub own_targets: &'a [&'a str],
    /// Lines to leave out, by their text as written.
    pub ignore: &'a [Regex],
    /// For a request at the same time as others like it: the shapes of what came while one like it was alone, where one was.
    /// A line without ids that came only among several is of the load and of none of them.
    pub usual: Option<&'a HashSet<Shape>>,
    /// Spans that the collector refused for good: nothing that names them is wrong.
    pub refused: Option<&'a HashSet<(TraceId, SpanId)>>,
}

/// Finds what was captured for one request.
///
/// Entry spans are looked for in the traces that the service was told to carry on. Where those hold several requests,
/// and where they hold none, Lambda's request id decides, then the User-Agent, then the time. Attributes that speak of
/// another request exclude a span always.
pub fn request(capture: &Capture, delivery: &Delivery, options: Options<'_>) -> RequestEvidence {
    let search = Search::new(capture, delivery, options);
    let (found_by, entries) = search.entries();
    search.evidence(found_by, entries)
}

/// Whether a `User-Agent` is one that the harness gives its requests.
pub(super) fn is_ours(user_agent: &str) -> bool {
    user_agent.starts_with("tracegate")
}

struct Search<'a> {
    capture: &'a Capture,
    delivery: &'a Delivery,
    options: Options<'a>,
    caller: Option<Caller>,
    told_traces: Vec<TraceId>,
    remote_parents: Vec<SpanId>,
    /// From sending to answering, with the same of the requests close before and behind.
    times: Times,
    /// Whether it is known, or may still be, what the service does while nothing is asked of it.
    watchable: bool,
}

/// When a request and its neighbours were under way, in nanoseconds since the Unix epoch.
struct Times {
    own: (u64, u64),
    neighbours: Vec<(u64, u64)>,
}

impl Times {
    fn of(capture: &Capture, delivery: &Delivery) -> Self {
        let all = capture.lifecycle();
        let own @ (sent, answered) = (delivery.sent.unix_nano, delivery.answered.unix_nano);
        let mut neighbours = Vec::new();
        let behind = all.partition_point(|entry| entry.arrival.seq <= delivery.answered.seq);
        let mut behind = all[behind..].iter();
        while let Some(from) = behind.find(|entry| entry.mark.begins_request()) {
            if from.arrival.unix_nano > answered.saturating_add(CLOCK_TOLERANCE) {
                break;
            }
            let to = behind
                .clone()
                .find(|entry| entry.mark.ends_request())
                .map_or(u64::MAX, |entry| entry.arrival.unix_nano);
            neighbours.push((from.arrival.unix_nano, to));
        }
        let before = all.partition_point(|entry| entry.arrival.seq < delivery.sent.seq);
        let mut before = all[..before].iter().rev();
        while let Some(to) = before.find(|entry| entry.mark.ends_request()) {
            if to.arrival.unix_nano < sent.saturating_sub(CLOCK_TOLERANCE) {
                break;
            }
            let from =
                before.clone().find(|entry| entry.mark.begins_request()).map_or(0, |entry| entry.arrival.unix_nano);
            neighbours.push((from, to.arrival.unix_nano));
        }
        Self { own, neighbours }
    }

    /// Whether a span began during the request, give or take what clocks may differ, and fits no neighbour better: one that is sent
    /// right behind the answer begins within the tolerance too.
    fn fit(&self, span: &Span) -> bool {
        let (sent, answered) = self.own;
        let begins = sent.saturating_sub(CLOCK_TOLERANCE)..=answered.saturating_add(CLOCK_TOLERANCE);
        let shared = |(from, to): (u64, u64)| {
            // The clocks of some end in milliseconds.
            let end = span.end_unix_nano.max(span.start_unix_nano.saturating_add(1));
            end.min(to).saturating_sub(span.start_unix_nano.max(from))
        };
        begins.contains(&span.start_unix_nano) && self.neighbours.iter().all(|&other| shared(other) <= shared(self.own))
    }
}

impl<'a> Search<'a> {
    fn new(capture: &'a Capture, delivery: &'a Delivery, options: Options<'a>) -> Self {
        let caller = delivery.caller.filter(|_| delivery.form != ContextForm::Absent);
        let runtime = delivery.invocation.as_ref().and_then(|invocation| invocation.runtime_trace_header.as_ref());
        let runtime = runtime.and_then(|header| header.parse::<XrayHeader>().ok()).map(|header| header.root);
        let mut told_traces: Vec<TraceId> = caller.map(|caller| caller.trace_id).into_iter().collect();
        told_traces.extend(runtime.filter(|root| !told_traces.contains(root)));
        Self {
            capture,
            delivery,
            options,
            caller,
            told_traces,
            remote_parents: delivery.remote_parents(),
            times: Times::of(capture, delivery),
            watchable: detached::is_watchable(capture),
        }
    }

    fn since(&self) -> u64 {
        self.options.since.unwrap_or_default()
    }

    fn evidence(&self, found_by: FoundBy, entries: Vec<Arc<Span>>) -> RequestEvidence {
        let mut own: Vec<Arc<Span>> = Vec::new();
        let mut strangers = Vec::new();
        let mut traces: Vec<TraceId> = self.told_traces.clone();
        for span in &entries {
            if !traces.contains(&span.trace_id) {
                traces.push(span.trace_id);
            }
        }
        let mut shared = HashSet::new();
        for &trace_id in &traces {
            let spans: Vec<&Arc<Span>> = self.capture.spans_of(trace_id).collect();
            let trees = Trees::new(&spans);
            let others: Vec<Entry> = self
                .entries_of(trace_id)
                .into_iter()
                .filter(|entry| !entries.iter().any(|own| Arc::ptr_eq(own, &entry.span)))
                .collect();
            let mut foreign: HashMap<SpanId, Arc<Span>> = HashMap::new();
            for entry in &others {
                shared.insert(trace_id);
                for span in trees.below(entry.span.span_id) {
                    foreign.insert(span.span_id, entry.span.clone());
                }
            }
            let mut claimed: HashSet<SpanId> = HashSet::new();
            for entry in entries.iter().filter(|entry| entry.trace_id == trace_id) {
                claimed.extend(trees.below(entry.span_id).iter().map(|span| span.span_id));
            }
            for span in spans {
                // Orphans of a shared trace go to the request during which they started.
                let inside = |entry: &Arc<Span>| entry.is_open_at(span.start_unix_nano);
                if claimed.contains(&span.span_id) || (others.is_empty() && !foreign.contains_key(&span.span_id)) {
                    own.push(span.clone());
                } else if let Some(entry) = foreign.get(&span.span_id) {
                    strangers.push(Stranger::SameTrace { span: span.clone(), entry: entry.clone() });
                } else if entries.iter().any(inside) {
                    own.push(span.clone());
                }
            }
        }
        for trace_id in self.traces_that_speak_of_it().into_iter().filter(|trace_id| !traces.contains(trace_id)) {
            let speaks = |entry: &Entry| {
                !entry.contradicts() && (entry.request_id == Some(true) || self.is_marked(&entry.span.attributes))
            };
            let split = self
                .entries_of(trace_id)
                .into_iter()
                .filter(|entry| speaks(entry) && !detached::is_linked(&entry.span));
            strangers.extend(split.map(|entry| Stranger::OtherTrace { span: entry.span }));
        }
        let named = |stranger: &Stranger, span: &Arc<Span>| matches!(stranger, Stranger::OtherTrace { span: other } if Arc::ptr_eq(other, span));
        let detached = if self.options.exclusive || self.options.alone {
            detached::detached(self.capture, self.since(), &entries, &traces)
        } else {
            Vec::new()
        };
        let (detached, undecided) = if self.watchable { (detached, Vec::new()) } else { (Vec::new(), detached) };
        for span in detached {
            if !strangers.iter().any(|stranger| named(stranger, &span)) {
                strangers.push(Stranger::Detached { span });
            }
        }
        let trace = Trace::new(own, &self.remote_parents);
        let mut stale = Vec::new();
        if self.options.exclusive {
            stale = detached::stale(self.capture, self.delivery, self.since(), &entries, &trace);
            let calls = detached::stale_calls(self.capture, self.delivery, self.since(), &traces, &trace);
            strangers.extend(calls.into_iter().map(|(span, client)| Stranger::StaleCall { span, client }));
        }
        let taken = strangers.iter().filter_map(|stranger| match stranger {
            Stranger::Detached { span } | Stranger::OtherTrace { span } => Some(span.trace_id),
            _ => None,
        });
        let (repeated, untried) = self.doubtful(&traces, &taken.collect());
        // What an earlier request deferred may look just so, and is not set off by this one. Where that can be tried, it is.
        if self.is_tried() {
            stale.retain(|(span, _)| repeated.strays.iter().any(|stray| Arc::ptr_eq(stray, span)));
        }
        strangers.extend(stale.into_iter().map(|(span, entry)| Stranger::Stale { span, entry }));
        let known: HashSet<SpanId> = strangers.iter().filter_map(Stranger::span).map(|span| span.span_id).collect();
        let spans = repeated.roots.into_iter().chain(repeated.strays).filter(|span| !known.contains(&span.span_id));
        strangers.extend(spans.map(|span| Stranger::Repeated { span }));
        let candidates = if entries.is_empty() { self.candidates() } else { Vec::new() };
        let mut evidence = RequestEvidence {
            found_by,
            entries,
            trace,
            logs: Vec::new(),
            text: Vec::new(),
            guessed: Vec::new(),
            repeated: repeated.lines,
            untried,
            undecided,
            refused: HashSet::new(),
            left_behind: Vec::new(),
            strangers,
            candidates,
            caller: self.caller,
            told_traces: self.told_traces.clone(),
            request_id: self.delivery.invocation.as_ref().map(|own| own.request_id.clone()),
            invocations: HashSet::new(),
            method: self.delivery.method.clone(),
            target: self.delivery.target.clone(),
            user_agent: self.delivery.user_agent.clone(),
            outside: HashMap::new(),
        };
        let refused = self.options.refused.into_iter().flatten().filter(|(trace_id, _)| traces.contains(trace_id));
        evidence.refused = refused.copied().collect();
        self.records(&mut evidence, &traces, &shared);
        evidence.guessed.extend(evidence.repeated.iter().cloned());
        evidence.repeated.extend(repeated.records);
        for record in evidence.repeated.clone() {
            if evidence.logs.iter().any(|other| Arc::ptr_eq(other, &record)) {
                continue;
            }
            let named = record.named();
            if let Some(span) = named.and_then(|(trace_id, span_id)| self.capture.span(trace_id, span_id)) {
                evidence.outside.insert((span.trace_id, span.span_id), detached::entry_above(self.capture, span));
            }
            evidence.trace.attach(record.clone());
            evidence.logs.push(record);
        }
        let foreign = |record: &Arc<LogRecord>| record.request_id.is_some() && record.request_id != evidence.request_id;
        if evidence.request_id.is_some() && evidence.logs.iter().any(foreign) {
            evidence.invocations = self.other_invocations();
        }
        evidence
    }

    /// The request ids of all other invocations so far.
    fn other_invocations(&self) -> HashSet<String> {
        let Some(own) = &self.delivery.invocation else { return HashSet::new() };
        let ids = self.capture.lifecycle().iter().filter_map(|entry| match &entry.mark {
            Mark::Dispatched { request_id, .. } if *request_id != own.request_id => Some(request_id.clone()),
            _ => None,
        });
        ids.collect()
    }

    /// Whether the attributes hold the mark, which is unique: a User-Agent may not be.
    fn is_marked(&self, attributes: &Attributes) -> bool {
        let mark = &self.delivery.mark;
        !mark.is_empty() && USER_AGENT.iter().any(|key| attributes.str(key).is_some_and(|agent| agent.contains(mark)))
    }
}

/// The children of the spans of one trace.
struct Trees {
    children: HashMap<SpanId, Vec<Arc<Span>>>,
    spans: HashMap<SpanId, Arc<Span>>,
}

impl Trees {
    fn new(all: &[&Arc<Span>]) -> Self {
        let mut children: HashMap<SpanId, Vec<Arc<Span>>> = HashMap::new();
        let mut spans = HashMap::new();
        for span in all {
            if spans.insert(span.span_id, Arc::clone(span)).is_none()
                && let Some(parent) = span.parent_span_id
            {
                children.entry(parent).or_default().push(Arc::clone(span));
            }
        }
        Self { children, spans }
    }

    /// A span and all below it, level by level.
    fn below(&self, top: SpanId) -> Vec<Arc<Span>> {
        let mut found: Vec<Arc<Span>> = self.spans.get(&top).cloned().into_iter().collect();
        let mut seen = HashSet::from([top]);
        let mut next = 0;
        while let Some(span) = found.get(next) {
            next += 1;
            let children = self.children.get(&span.span_id).into_iter().flatten();
            let new: Vec<Arc<Span>> = children.filter(|child| seen.insert(child.span_id)).cloned().collect();
            found.extend(new);
        }
        found
    }
}

#[cfg(test)]
mod tests;
