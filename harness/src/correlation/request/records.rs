//! The log records and lines of a request.

use std::{cell::LazyCell, collections::HashSet, sync::Arc};

use super::{CLOCK_TOLERANCE, FoundBy, LATE_LINE, RequestEvidence, Search, Shape, Stranger};
use crate::{
    capture::stdout::{EXTENSION_LOGGER, PLATFORM_LOGGER},
    correlation::{background, detached},
    telemetry::{LogOrigin, LogRecord, Span, SpanId, TraceId, Value},
};

impl Search<'_> {
    pub(super) fn records(&self, evidence: &mut RequestEvidence, traces: &[TraceId], shared: &HashSet<TraceId>) {
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
                    && (named.is_some() || self.watchable)
                    && (self.options.exclusive
                        || self.options.usual.is_none_or(|usual| usual.contains(&Shape::of(record))))
                    && !(named.is_none()
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
                if !sure && named.is_none() {
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
                let named = record.named();
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
    pub(super) fn was_left(&self, record: &LogRecord, span: &Arc<Span>, own: &HashSet<Shape>) -> bool {
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
    pub(super) fn is_over(&self, span: &Span, record: &LogRecord) -> bool {
        let late =
            record.origin == LogOrigin::Otlp || record.arrival.unix_nano > span.end_unix_nano.saturating_add(LATE_LINE);
        let written =
            record.time_unix_nano.is_none_or(|time| time > span.end_unix_nano.saturating_add(CLOCK_TOLERANCE));
        span.end_unix_nano < self.delivery.sent.unix_nano && late && written
    }

    pub(super) fn mentions(&self, record: &LogRecord) -> bool {
        let mark = self.delivery.mark.as_str();
        let holds = |value: &Value| value.as_str().is_some_and(|text| text.contains(mark));
        !mark.is_empty() && (record.raw.contains(mark) || record.fields.iter().any(|(_, value)| holds(value)))
    }

    /// Whether a record is one of those that are left out. Of a record over OTLP that is its body: a logger that writes a line
    /// and exports it is ignored in both.
    pub(super) fn is_ignored(&self, record: &LogRecord) -> bool {
        self.options.ignore.iter().any(|ignore| ignore.is_match(&record.raw))
    }

    /// Whether a line quotes a request of the harness's own.
    pub(super) fn is_of_the_harness(&self, record: &LogRecord) -> bool {
        self.options.own_targets.iter().any(|target| background::speaks_of(record, "GET", target))
    }
}
