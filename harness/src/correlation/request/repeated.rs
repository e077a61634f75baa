//! What came with a request that was alone and may be its own: see [`repetition`].

use std::{collections::HashSet, sync::Arc};

use super::Search;
use crate::{
    capture::Mark,
    correlation::{
        background::{self, Shape},
        detached,
        repetition::{Doubtful, WITHIN},
    },
    telemetry::{LogOrigin, LogRecord, Span, SpanKind, TraceId},
};

impl Search<'_> {
    /// What is proven to be of the request, and what would have to be. Only a `GET` may be repeated: of another one's the second
    /// is what nothing says of whose it is. A function is complete when it freezes. `traces` are the request's own, and `taken`
    /// that which is known to be of it by other signs.
    pub(super) fn doubtful(&self, traces: &[TraceId], taken: &HashSet<TraceId>) -> (Doubtful, Doubtful) {
        let found = match self.options.window_end {
            Some(end) if self.options.exclusive && self.delivery.invocation.is_none() => {
                self.beside(end, traces, taken)
            }
            _ => Doubtful::default(),
        };
        if found.is_empty() {
            return Default::default();
        }
        if !self.delivery.may_be_repeated() {
            return (Doubtful::default(), found.beside_fences(self.capture, self.options.own_targets));
        }
        match found.clone().repeated(self.capture, &self.delivery.target, self.delivery.response.status) {
            Some(repeated) => (repeated, Doubtful::default()),
            None => (Doubtful::default(), found),
        }
    }

    /// Whether what only the time attributes to the request is tried by repeating it.
    pub(super) fn is_tried(&self) -> bool {
        let complete = self.options.window_end.is_some() && self.options.exclusive;
        complete && self.delivery.invocation.is_none() && self.delivery.may_be_repeated()
    }

    fn beside(&self, end: u64, traces: &[TraceId], taken: &HashSet<TraceId>) -> Doubtful {
        let (sent, answered) = (self.delivery.sent, self.delivery.answered);
        let lifecycle = self.capture.lifecycle();
        let behind = lifecycle.partition_point(|entry| entry.arrival.seq <= answered.seq);
        let next = lifecycle[behind..].iter().find(|entry| {
            let mark = &entry.mark;
            matches!(mark, Mark::Sent { .. } | Mark::StopRequested { .. } | Mark::Exited { .. } | Mark::Trial { .. })
        });
        let next = next.map(|entry| entry.arrival);
        let within = u64::try_from(WITHIN.as_nanos()).unwrap_or(u64::MAX);
        let until = answered.unix_nano.saturating_add(within).min(next.map_or(u64::MAX, |next| next.unix_nano));
        let last = next.map_or(u64::MAX, |next| next.seq);
        let foreign = |trace_id: TraceId| !traces.contains(&trace_id) && !taken.contains(&trace_id);

        let mut found = Doubtful::default();
        for record in self.capture.logs().since(sent.seq) {
            if !record.format.is_structured() || record.request_id.is_some() || self.is_ignored(record) {
                continue;
            }
            let without_ids = record.trace_id.valid().is_none() && record.span_id.valid().is_none();
            if let Some(trace_id) = record.trace_id.valid() {
                if foreign(trace_id) && record.was_written_in((sent.seq, end), (sent.unix_nano, answered.unix_nano)) {
                    found.records.push(record.clone());
                }
            } else if without_ids && record.origin != LogOrigin::Otlp && self.comes_behind(record, end, last, until) {
                found.lines.push(record.clone());
            }
        }

        let spans = self.capture.spans().since(self.since()).only(|row| {
            let start = row.start_unix_nano();
            let until = if row.is_root() { until } else { answered.unix_nano };
            (sent.unix_nano..=until).contains(&start) && !traces.iter().any(|&trace_id| row.is_in(trace_id))
        });
        let (roots, strays): (Vec<&Arc<Span>>, Vec<&Arc<Span>>) =
            spans.filter(|span| foreign(span.trace_id)).partition(|span| span.parent_span_id.is_none());
        let linked = if roots.is_empty() { HashSet::new() } else { detached::linked_from(self.capture, traces) };
        // A call that was taken is a request of its own, unless it was taken in another's trace.
        found.roots = roots
            .into_iter()
            .filter(|span| span.kind != SpanKind::Server && !detached::is_linked(span))
            .filter(|span| !linked.contains(&span.trace_id))
            .cloned()
            .collect();
        let rooted: HashSet<TraceId> = found.roots.iter().map(|span| span.trace_id).collect();
        // Whose work it is says the span at its top: one with a link says so itself.
        found.strays = strays
            .into_iter()
            .filter(|span| !rooted.contains(&span.trace_id) && !detached::is_linked(span))
            .filter(|span| !detached::is_linked(&detached::entry_above(self.capture, span)))
            .cloned()
            .collect();
        found.records.retain(|record| record.trace_id.valid().is_none_or(|trace_id| !rooted.contains(&trace_id)));
        found.records.retain(|record| !self.top_of(record).is_some_and(|top| detached::is_linked(&top)));

        if !found.lines.is_empty() {
            let background = background::background(self.capture);
            found.lines.retain(|record| !background.contains(&Shape::of(record)));
        }
        if !(found.roots.is_empty() && found.strays.is_empty() && found.records.is_empty()) {
            let by_itself = detached::by_itself(self.capture);
            let begins_by_itself = |top: Arc<Span>| by_itself.have(&top);
            found.records.retain(|record| !self.top_of(record).is_some_and(begins_by_itself));
            found.roots.retain(|span| !by_itself.have(span));
            found.strays.retain(|span| !by_itself.have(span));
        }
        found
    }

    /// The topmost span above the one that a record names, where it was received.
    fn top_of(&self, record: &LogRecord) -> Option<Arc<Span>> {
        let (trace_id, span_id) = record.named()?;
        Some(detached::entry_above(self.capture, self.capture.span(trace_id, span_id)?))
    }

    /// Whether a line came behind the request's window (up to `end`), soon enough, and speaks of no request.
    fn comes_behind(&self, record: &LogRecord, end: u64, last: u64, until: u64) -> bool {
        (end + 1..last).contains(&record.arrival.seq)
            && record.arrival.unix_nano <= until
            && !self.mentions(record)
            && !self.is_of_the_harness(record)
            && !background::speaks_of(record, &self.delivery.method, &self.delivery.target)
    }
}
