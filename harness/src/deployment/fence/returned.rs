//! What came back of fences, and from which processes.

use std::collections::{BTreeSet, HashMap};

use super::Fence;
use crate::{
    capture::{Capture, LogRow},
    stimulus::Delivery,
    telemetry::{Attributes, LogOrigin, LogRecord, Span, SpanId, SpanKind, TraceId, Value},
};

/// So many fences that all came back from different processes were not spread over a few by chance.
const MANY: usize = 16;

/// The caller's context and the `User-Agent` of a request, by which its telemetry is known.
pub(super) struct Signature<'a> {
    pub(super) trace_id: Option<TraceId>,
    /// The caller's span.
    pub(super) caller: Option<SpanId>,
    pub(super) mark: &'a str,
}

impl<'a> Signature<'a> {
    pub(super) fn of(delivery: &'a Delivery) -> Self {
        let caller = delivery.caller.map(|caller| caller.span_id);
        Self { trace_id: delivery.trace_id(), caller, mark: &delivery.user_agent }
    }

    fn has(&self, trace_id: Option<TraceId>, attributes: &Attributes) -> bool {
        (trace_id.is_some() && trace_id == self.trace_id)
            || !self.mark.is_empty()
                && attributes.iter().any(|(_, value)| matches!(value, Value::String(text) if text == self.mark))
    }

    pub(super) fn span(&self, span: &Span) -> bool {
        // Who begins a new trace at the edge may say so with a link to the one that it was told. A consumer does that too, and
        // later.
        let linked = |trace_id: TraceId| span.links.iter().any(|link| link.trace_id == trace_id.to_string());
        let edge = span.kind == SpanKind::Server && span.parent_span_id.is_none();
        self.has(Some(span.trace_id), &span.attributes) || (edge && self.trace_id.is_some_and(linked))
    }

    /// Whether a span of the request is the one that it makes itself, in the process that it came to.
    pub(super) fn is_entry(&self, span: &Span) -> bool {
        span.parent_span_id.is_none() || span.parent_span_id == self.caller
    }

    /// Whether a line is one of the request's.
    pub(super) fn is_named_in(&self, line: &LogRecord) -> bool {
        self.has(line.trace_id.valid(), &line.fields) || (!self.mark.is_empty() && line.raw.contains(self.mark))
    }

    pub(super) fn record(&self, record: &LogRecord) -> bool {
        record.origin == LogOrigin::Otlp && self.has(record.trace_id.valid(), &record.fields)
    }
}

/// An instance's name; a resource without one is one instance, which several workers then share.
pub(super) type Instance = Option<String>;

fn instance_of(record: &LogRecord) -> Instance {
    record.resource.as_ref().and_then(|resource| resource.instance())
}

/// What came back of a round of fences.
#[derive(Debug, Default)]
pub(super) struct Returned {
    pub(super) fences: usize,
    pub(super) spans: BTreeSet<Instance>,
    /// Instances with the entry span of a fence: what those processes export is in the order of the requests that came to them,
    /// while another one behind them may hand on its spans of a fence sooner than they do theirs of the delivery.
    pub(super) entries: BTreeSet<Instance>,
    /// Whether the entry span of each delivery is here, so that its process is known to matter.
    pub(super) all_entered: bool,
    /// Whether two of them came back from one instance.
    again: bool,
    pub(super) logs: BTreeSet<Instance>,
    /// Instances with a span of the delivery.
    pub(super) span_parts: BTreeSet<Instance>,
    /// Instances with a log record of the delivery. A process should call itself the same in all signals, and does not always.
    pub(super) log_parts: BTreeSet<Instance>,
}

impl Returned {
    pub(super) fn of(capture: &Capture, fences: &[Fence], deliveries: &[&Delivery]) -> Self {
        let after = fences.first().map_or(0, |fence| fence.after);
        let own: Vec<Signature<'_>> = deliveries.iter().map(|delivery| Signature::of(delivery)).collect();
        let sent = deliveries.iter().map(|delivery| delivery.sent.seq).min().unwrap_or(0);
        let mut returned = Self::default();
        let mut back = BTreeSet::new();
        let mut answered: HashMap<Instance, usize> = HashMap::new();
        let mut entered = vec![false; own.len()];
        for span in capture.spans().iter().rev().take_while(|span| span.arrival.seq > sent) {
            if let Some(index) = own.iter().position(|own| own.span(span)) {
                returned.span_parts.insert(span.resource.instance());
                entered[index] |= own[index].is_entry(span);
            } else if span.arrival.seq > after
                && let Some(index) = fences.iter().position(|fence| fence.signature().span(span))
            {
                back.insert(index);
                let instance = span.resource.instance();
                returned.again |= *answered.entry(instance.clone()).or_insert(index) != index;
                if fences[index].signature().is_entry(span) {
                    returned.entries.insert(instance.clone());
                }
                returned.spans.insert(instance);
            }
        }
        for record in capture.logs().iter().rev().take_while(|record| record.arrival.seq > sent) {
            let instance = instance_of(record);
            if own.iter().any(|own| own.record(record)) {
                returned.log_parts.insert(instance);
            } else if record.arrival.seq > after && fences.iter().any(|fence| fence.signature().record(record)) {
                returned.logs.insert(instance);
            }
        }
        returned.fences = back.len();
        returned.all_entered = entered.into_iter().all(|entered| entered);
        returned
    }

    /// Whether each of many fences came back from a process of its own, and none from one that the request had: where every
    /// request has a process, as with CGI, no fence will ever reach that of another one.
    pub(super) fn each_from_a_process_of_its_own(&self) -> bool {
        let named = !self.spans.contains(&None) && !self.span_parts.is_empty();
        named && self.fences >= MANY && !self.again && self.spans.is_disjoint(&self.span_parts)
    }

    /// Whether fences' spans came from every process that is known to matter.
    pub(super) fn covers_parts(&self, workers: usize) -> bool {
        if self.span_parts.is_empty() { self.spans.len() >= workers } else { self.spans.is_superset(&self.span_parts) }
    }

    /// Whether they came from the process that the deliveries came to. As long as nothing says which one that is, the fences must
    /// have come to as many as there are.
    pub(super) fn covers_entries(&self, workers: usize) -> bool {
        self.all_entered || self.entries.len() >= workers
    }

    /// Whether fences' log records came from every process that matters and exports any.
    pub(super) fn covers_logs(&self, capture: &Capture, workers: usize) -> bool {
        if self.span_parts.is_empty() && self.log_parts.is_empty() {
            return self.logs.len() >= workers;
        }
        !self.logs.is_empty() && self.without_logs(capture).is_empty()
    }

    /// The processes that matter and export log records, and of which none came for a fence.
    pub(super) fn without_logs(&self, capture: &Capture) -> BTreeSet<Instance> {
        let parts = self.span_parts.union(&self.log_parts);
        let exports =
            |part: &Instance| capture.logs().only(LogRow::is_exported).any(|record| instance_of(record) == *part);
        parts.filter(|part| !self.logs.contains(*part) && exports(part)).cloned().collect()
    }
}
