//! The spans and log records of one request, told apart from those of all others.

use std::{
    cell::LazyCell,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use regex::Regex;

use super::{Trace, background, background::Shape, detached};
use crate::{
    capture::{
        Capture, Mark,
        stdout::{EXTENSION_LOGGER, PLATFORM_LOGGER},
    },
    stimulus::{Caller, ContextForm, Delivery},
    telemetry::{Attributes, LogOrigin, LogRecord, Span, SpanId, SpanKind, TraceId, Value, xray::XrayHeader},
};

mod evidence;
mod repeated;

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

/// An entry span: nothing received stands above it.
#[derive(Debug, Clone)]
struct Entry {
    span: Arc<Span>,
    /// `None` when nothing in its subtree says, else whether it says this request's.
    request_id: Option<bool>,
    user_agent: Option<bool>,
    /// Whether it begins a trace of its own and links to the caller's span.
    linked: bool,
}

impl Entry {
    fn contradicts(&self) -> bool {
        // The request id is unique and the User-Agent may be shared or rewritten, so the former outweighs the latter.
        self.request_id == Some(false) || (self.request_id.is_none() && self.user_agent == Some(false))
    }
}

/// Whether a `User-Agent` is one that the harness gives its requests.
fn is_ours(user_agent: &str) -> bool {
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
        let begins = |mark: &Mark| matches!(mark, Mark::Sent { .. } | Mark::FenceSent { .. });
        let ends = |mark: &Mark| matches!(mark, Mark::Answered { .. } | Mark::FenceOver { .. });
        let own @ (sent, answered) = (delivery.sent.unix_nano, delivery.answered.unix_nano);
        let mut neighbours = Vec::new();
        let behind = all.partition_point(|entry| entry.arrival.seq <= delivery.answered.seq);
        let mut behind = all[behind..].iter();
        while let Some(from) = behind.find(|entry| begins(&entry.mark)) {
            if from.arrival.unix_nano > answered.saturating_add(CLOCK_TOLERANCE) {
                break;
            }
            let to = behind.clone().find(|entry| ends(&entry.mark)).map_or(u64::MAX, |entry| entry.arrival.unix_nano);
            neighbours.push((from.arrival.unix_nano, to));
        }
        let before = all.partition_point(|entry| entry.arrival.seq < delivery.sent.seq);
        let mut before = all[..before].iter().rev();
        while let Some(to) = before.find(|entry| ends(&entry.mark)) {
            if to.arrival.unix_nano < sent.saturating_sub(CLOCK_TOLERANCE) {
                break;
            }
            let from = before.clone().find(|entry| begins(&entry.mark)).map_or(0, |entry| entry.arrival.unix_nano);
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

    fn entries(&self) -> (FoundBy, Vec<Arc<Span>>) {
        for &trace_id in &self.told_traces {
            let all = self.entries_of(trace_id);
            let possible: Vec<Entry> = all.iter().filter(|entry| !entry.contradicts()).cloned().collect();
            if possible.is_empty() {
                continue;
            }
            // A trace of its own belongs to one request entirely. One that others share needs a sign for each.
            let shared = possible.len() < all.len() || self.serves_several(&possible);
            let (by, entries) = if shared { self.narrow(possible) } else { (None, possible) };
            if !entries.is_empty() {
                let hangs =
                    |entry: &Entry| entry.span.parent_span_id.is_some_and(|id| self.remote_parents.contains(&id));
                let plain = if entries.iter().all(hangs) { FoundBy::RemoteParent } else { FoundBy::TraceId };
                return (by.unwrap_or(plain), entries.into_iter().map(|entry| entry.span).collect());
            }
        }
        let elsewhere: Vec<Entry> = self
            .traces_that_speak_of_it()
            .into_iter()
            .flat_map(|trace_id| self.entries_of(trace_id))
            .filter(|entry| {
                !entry.contradicts() && (entry.request_id.is_some() || entry.user_agent.is_some() || entry.linked)
            })
            .collect();
        if let (Some(by), entries) = self.narrow(elsewhere)
            && !entries.is_empty()
        {
            return (by, entries.into_iter().map(|entry| entry.span).collect());
        }
        if self.caller.is_some_and(|caller| !caller.sampled) {
            return (FoundBy::NotSampled, Vec::new());
        }
        let during: Vec<Arc<Span>> = self.candidates().into_iter().filter(|span| self.during(span)).collect();
        if during.len() == 1 || (self.options.exclusive && !during.is_empty()) {
            return (FoundBy::Window, during);
        }
        (FoundBy::Nothing, Vec::new())
    }

    /// Several entry spans in one trace are several requests when they do not overlap, or hang on the same caller.
    fn serves_several(&self, entries: &[Entry]) -> bool {
        entries.len() > 1 && entries.iter().any(|entry| !self.during(&entry.span))
    }

    /// The entries that speak of this request, by the surest sign that any of them has.
    fn narrow(&self, entries: Vec<Entry>) -> (Option<FoundBy>, Vec<Entry>) {
        let by = |sign: fn(&Entry) -> bool| entries.iter().filter(|entry| sign(entry)).cloned().collect::<Vec<_>>();
        let (found_by, chosen) =
            match (by(|entry| entry.request_id == Some(true)), by(|entry| entry.user_agent == Some(true))) {
                (ids, _) if !ids.is_empty() => return (Some(FoundBy::RequestId), ids),
                (_, agents) if !agents.is_empty() => (FoundBy::UserAgent, agents),
                _ => match by(|entry| entry.linked) {
                    links if !links.is_empty() => return (Some(FoundBy::Link), links),
                    _ => (FoundBy::Window, entries),
                },
            };
        let during: Vec<Entry> = chosen.iter().filter(|entry| self.during(&entry.span)).cloned().collect();
        match (found_by, during.is_empty()) {
            (_, false) => (Some(found_by), during),
            (FoundBy::UserAgent, true) => (Some(found_by), chosen),
            _ => (None, Vec::new()),
        }
    }

    fn during(&self, span: &Span) -> bool {
        self.times.fit(span)
    }

    /// The entry spans of a trace: those without a parent, on a remote parent, and SERVER and CONSUMER spans whose
    /// parent never came. Other spans whose parent never came are orphans of some entry.
    fn entries_of(&self, trace_id: TraceId) -> Vec<Entry> {
        let spans: Vec<&Arc<Span>> = self.capture.spans_of(trace_id).collect();
        let known: HashSet<SpanId> = spans.iter().map(|span| span.span_id).collect();
        let mut seen = HashSet::new();
        let entry = |span: &&&Arc<Span>| match span.parent_span_id {
            None => true,
            Some(parent) if known.contains(&parent) => false,
            Some(parent) => self.remote_parents.contains(&parent) || span.kind.takes_calls(),
        };
        let entries: Vec<Arc<Span>> =
            spans.iter().filter(entry).filter(|span| seen.insert(span.span_id)).map(|span| Arc::clone(span)).collect();
        let trees = Trees::new(&spans);
        entries
            .into_iter()
            .map(|span| {
                let below = trees.below(span.span_id);
                let (request_id, user_agent) = self.signs(&below);
                // No other request has the caller's span. Who hangs on it and was called by a client that is none of the
                // harness's was told of it by the service, which handed on the context that it was given itself.
                let handed_on = span.parent_span_id.is_some_and(|id| self.remote_parents.contains(&id));
                let foreign = |said: &str| is_ours(&self.delivery.user_agent) && !is_ours(said);
                let user_agent = user_agent.filter(|said| !handed_on || !foreign(said));
                let user_agent = user_agent.map(|said| said == self.delivery.user_agent);
                let linked = self.links_to_the_caller(&span);
                Entry { span, request_id, user_agent, linked }
            })
            .collect()
    }

    /// What the attributes of a tree say of the request, whether the request id is its own and the User-Agent, nearest to the
    /// entry first. CLIENT spans speak of requests of
    /// their own: `aws.request_id` there is that of S3.
    fn signs<'s>(&self, tree: &'s [Arc<Span>]) -> (Option<bool>, Option<&'s str>) {
        let said = |keys: &[&str]| {
            tree.iter()
                .filter(|span| !matches!(span.kind, SpanKind::Client | SpanKind::Producer))
                .find_map(|span| keys.iter().find_map(|key| span.attributes.str(key)))
        };
        let invocation = self.delivery.invocation.as_ref();
        let request_id = invocation.and_then(|own| said(&REQUEST_ID).map(|said| said == own.request_id));
        let known = !self.delivery.user_agent.is_empty();
        (request_id, said(&USER_AGENT).filter(|_| known))
    }

    /// Whether a span that takes a call begins a trace, as at an edge, and says with a link of which request.
    fn links_to_the_caller(&self, span: &Span) -> bool {
        let told = |trace: &str| self.told_traces.iter().any(|told| trace == told.to_string());
        let parent = |span: &str| self.remote_parents.iter().any(|parent| span == parent.to_string());
        span.kind == SpanKind::Server
            && span.parent_span_id.is_none()
            && span.links.iter().any(|link| told(&link.trace_id) && parent(&link.span_id))
    }

    /// Traces with a span that names the request id or the User-Agent, or that links to the caller's, in order of arrival.
    fn traces_that_speak_of_it(&self) -> Vec<TraceId> {
        let request_id = self.delivery.invocation.as_ref().map(|own| own.request_id.as_str());
        let user_agent = Some(self.delivery.user_agent.as_str()).filter(|agent| !agent.is_empty());
        let speaks = |attributes: &Attributes, keys: &[&str], own: Option<&str>| {
            own.is_some_and(|own| keys.iter().any(|key| attributes.str(key) == Some(own)))
        };
        let mut seen = HashSet::new();
        let spans = self.capture.spans().since(self.since()).filter(|span| {
            !matches!(span.kind, SpanKind::Client | SpanKind::Producer)
                && (speaks(&span.attributes, &REQUEST_ID, request_id)
                    || speaks(&span.attributes, &USER_AGENT, user_agent)
                    || self.links_to_the_caller(span))
        });
        spans.map(|span| span.trace_id).filter(|&trace_id| seen.insert(trace_id)).collect()
    }

    /// Entry spans of every trace that do not speak of another request.
    fn candidates(&self) -> Vec<Arc<Span>> {
        let mut seen = HashSet::new();
        let traces: Vec<TraceId> = self
            .capture
            .spans()
            .since(self.since())
            .map(|span| span.trace_id)
            .filter(|&trace_id| seen.insert(trace_id))
            .collect();
        let entries = traces.into_iter().flat_map(|trace_id| self.entries_of(trace_id));
        entries.filter(|entry| !entry.contradicts()).map(|entry| entry.span).collect()
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
                let inside =
                    |entry: &Arc<Span>| (entry.start_unix_nano..=entry.end_unix_nano).contains(&span.start_unix_nano);
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
            let split = self.entries_of(trace_id).into_iter().filter(|entry| speaks(entry));
            strangers.extend(split.map(|entry| Stranger::OtherTrace { span: entry.span }));
        }
        let named = |stranger: &Stranger, span: &Arc<Span>| matches!(stranger, Stranger::OtherTrace { span: other } if Arc::ptr_eq(other, span));
        let detached = if (self.options.exclusive || self.options.alone) && self.watchable {
            detached::detached(self.capture, self.since(), &entries, &traces)
        } else {
            Vec::new()
        };
        for span in detached {
            if !strangers.iter().any(|stranger| named(stranger, &span)) {
                strangers.push(Stranger::Detached { span });
            }
        }
        let trace = Trace::new(own, &self.remote_parents);
        if self.options.exclusive {
            let stale = detached::stale(self.capture, self.delivery, self.since(), &entries, &trace);
            strangers.extend(stale.into_iter().map(|(span, entry)| Stranger::Stale { span, entry }));
        }
        let taken = strangers.iter().filter_map(|stranger| match stranger {
            Stranger::Detached { span } | Stranger::OtherTrace { span } => Some(span.trace_id),
            _ => None,
        });
        let (repeated, untried) = self.doubtful(&traces, &taken.collect());
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
            refused: HashSet::new(),
            left_behind: Vec::new(),
            strangers,
            candidates,
            caller: self.caller,
            told_traces: self.told_traces.clone(),
            request_id: self.delivery.invocation.as_ref().map(|own| own.request_id.clone()),
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
            let named = record.trace_id.valid().zip(record.span_id.valid());
            if let Some(span) = named.and_then(|(trace_id, span_id)| self.capture.span(trace_id, span_id)) {
                evidence.outside.insert((span.trace_id, span.span_id), detached::entry_above(self.capture, span));
            }
            evidence.trace.attach(record.clone());
            evidence.logs.push(record);
        }
        evidence
    }

    /// Whether a record is one of those that are left out. Of a record over OTLP that is its body: a logger that writes a line
    /// and exports it is ignored in both.
    fn is_ignored(&self, record: &LogRecord) -> bool {
        self.options.ignore.iter().any(|ignore| ignore.is_match(&record.raw))
    }

    /// Whether a line quotes a request of the harness's own.
    fn is_of_the_harness(&self, record: &LogRecord) -> bool {
        self.options.own_targets.iter().any(|target| background::speaks_of(record, "GET", target))
    }

    /// Whether the attributes hold the mark, which is unique: a User-Agent may not be.
    fn is_marked(&self, attributes: &Attributes) -> bool {
        let mark = &self.delivery.mark;
        !mark.is_empty() && USER_AGENT.iter().any(|key| attributes.str(key).is_some_and(|agent| agent.contains(mark)))
    }

    fn records(&self, evidence: &mut RequestEvidence, traces: &[TraceId], shared: &HashSet<TraceId>) {
        let end = self.options.window_end.unwrap_or(self.delivery.answered.seq);
        let quoted_until = self.options.quoted_until.unwrap_or(end);
        let background = LazyCell::new(|| background::background(self.capture));
        let detached: HashSet<TraceId> = evidence.detached().map(|span| span.trace_id).collect();
        let stale: HashSet<SpanId> = evidence.stale().map(|span| span.span_id).collect();
        let tree: HashSet<SpanId> = evidence.trace.nodes().iter().map(|node| node.span.span_id).collect();
        for record in self.capture.logs().since(self.since()) {
            if self.is_ignored(record) {
                continue;
            }
            let arrived = (self.delivery.sent.seq..=end).contains(&record.arrival.seq);
            let own_request = record.request_id.is_some() && record.request_id == evidence.request_id;
            if !record.format.is_structured() {
                // What the platform and extensions write stands around the service's own lines and is none of them.
                let foreign = record.logger == PLATFORM_LOGGER || record.logger.starts_with(EXTENSION_LOGGER);
                if !foreign && (arrived || own_request) {
                    evidence.text.push(record.clone());
                }
                continue;
            }
            let named = record.trace_id.valid();
            let in_tree =
                named.zip(record.span_id.valid()).is_some_and(|(t, s)| evidence.trace.position(t, s).is_some());
            let own_trace = named.is_some_and(|trace_id| traces.contains(&trace_id));
            let received = named.zip(record.span_id.valid()).and_then(|(t, s)| self.capture.span(t, s));
            // In a shared trace an id of the trace alone does not say whose the record is.
            let alone = named.is_some_and(|trace_id| !shared.contains(&trace_id));
            let when = record.was_written_in((self.delivery.sent.seq, end), self.times.own);
            let lonely = named.is_none() || (own_trace && received.is_none());
            // The spans of an unsampled request never come, so in a shared trace what names none that came is its own.
            let unsampled = evidence.found_by == FoundBy::NotSampled
                && own_trace
                && received.is_none()
                && (record.request_id.is_none() || own_request);
            let is_line = record.origin != LogOrigin::Otlp;
            let quotes = |method, target| background::speaks_of(record, method, target);
            let quoted = is_line
                && named.is_none()
                && record.request_id.is_none()
                && (self.options.exclusive || self.options.alone)
                && (self.delivery.sent.seq..=quoted_until).contains(&record.arrival.seq)
                && quotes(self.delivery.method.as_str(), self.delivery.target.as_str());
            let nobody_else =
                self.options.exclusive || (self.options.alone && named.is_none() && record.span_id.valid().is_none());
            let by_time = || {
                lonely
                    && record.request_id.is_none()
                    && when
                    && nobody_else
                    && !(named.is_none() && is_line && !self.watchable)
                    && (self.options.exclusive
                        || self.options.usual.is_none_or(|usual| usual.contains(&Shape::of(record))))
                    && !(named.is_none()
                        && is_line
                        && (self.is_of_the_harness(record)
                            || background::written_before(record, self.delivery.sent.unix_nano)
                            || background.contains(&Shape::of(record))))
            };
            let sure = in_tree
                || unsampled
                || (own_trace && alone)
                || own_request
                // With another trace id, or with none: the ids of one record do not agree.
                || record.span_id.valid().is_some_and(|id| tree.contains(&id))
                || named.is_some_and(|trace_id| detached.contains(&trace_id))
                || received.is_some_and(|span| stale.contains(&span.span_id))
                || self.mentions(record)
                || quoted;
            if sure || by_time() {
                if !sure && named.is_none() && is_line {
                    evidence.guessed.push(record.clone());
                }
                if let (false, Some(span)) = (in_tree, received) {
                    let entry = detached::entry_above(self.capture, span);
                    evidence.outside.insert((span.trace_id, span.span_id), entry);
                }
                evidence.trace.attach(record.clone());
                evidence.logs.push(record.clone());
            } else if let (Some(trace_id), true) = (named, when && self.options.exclusive) {
                if let Some(span) = received.filter(|span| self.is_over(span, record)) {
                    evidence.left_behind.push((record.clone(), span.clone()));
                }
                if is_line {
                    evidence.strangers.push(Stranger::Record { record: record.clone(), trace_id });
                }
            }
        }
        if !evidence.left_behind.is_empty() {
            let on_it = |record: &&Arc<LogRecord>| {
                let named = record.trace_id.valid().zip(record.span_id.valid());
                named.is_some_and(|(trace, span)| evidence.trace.position(trace, span).is_some())
            };
            let own: HashSet<Shape> = evidence.logs.iter().filter(on_it).map(|record| Shape::of(record)).collect();
            let left = std::mem::take(&mut evidence.left_behind);
            evidence.left_behind =
                left.into_iter().filter(|(record, span)| self.was_left(record, span, &own)).collect();
        }
    }

    /// What an earlier request deferred writes with that one's ids, and rightly. Ids were left behind where such a record came
    /// while the earlier one was under way, whatever ids it had, and this one has none of its own.
    fn was_left(&self, record: &LogRecord, span: &Arc<Span>, own: &HashSet<Shape>) -> bool {
        let shape = Shape::of(record);
        let entry = detached::entry_above(self.capture, span);
        let until = entry.end_unix_nano.saturating_add(LATE_LINE).min(self.delivery.sent.unix_nano);
        let then = |other: &LogRecord| {
            let written = other.exported_time().unwrap_or(other.arrival.unix_nano);
            (entry.start_unix_nano..=until).contains(&written)
        };
        !own.contains(&shape) && self.capture.logs().iter().any(|other| then(other) && Shape::of(other) == shape)
    }

    /// Whether a span had ended before the request was sent, and the record was written later than that.
    fn is_over(&self, span: &Span, record: &LogRecord) -> bool {
        let late =
            record.origin == LogOrigin::Otlp || record.arrival.unix_nano > span.end_unix_nano.saturating_add(LATE_LINE);
        let written =
            record.time_unix_nano.is_none_or(|time| time > span.end_unix_nano.saturating_add(CLOCK_TOLERANCE));
        span.end_unix_nano < self.delivery.sent.unix_nano && late && written
    }

    fn mentions(&self, record: &LogRecord) -> bool {
        let mark = self.delivery.mark.as_str();
        let holds = |value: &Value| value.as_str().is_some_and(|text| text.contains(mark));
        !mark.is_empty() && (record.raw.contains(mark) || record.fields.iter().any(|(_, value)| holds(value)))
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
