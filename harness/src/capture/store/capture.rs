//! Everything that was captured, and the indexes by which it is found.

use std::{
    collections::VecDeque,
    mem::size_of,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Dropped, Encoding, ExportRequest, Fault, Lifecycle, Mark, Retention, Signal,
    shelf::{Items, Shelf},
};
use crate::{
    capture::index::{Decoded, Index, Item, Rows},
    telemetry::{Arrival, LogRecord, Metric, Span, SpanId, TraceId},
};

/// No exporter keeps anything for so long, in nanoseconds.
const LONGEST_EXPORT: u64 = 600_000_000_000;

/// Notes of the sink that are told of.
const NOTES_AT_MOST: usize = 3;

/// Everything that was captured and is kept, in order of arrival.
///
/// Spans, log records and metrics are decoded when they are asked for. So ask for a trace ([`spans_of`](Self::spans_of)), for
/// what came since something ([`Items::since`]) or for what the index says ([`Items::only`]) where that is enough.
#[derive(Debug)]
pub struct Capture {
    requests: VecDeque<ExportRequest>,
    spans: Shelf<Span>,
    logs: Shelf<LogRecord>,
    metrics: Shelf<Metric>,
    profiles: usize,
    faults: Vec<Fault>,
    lifecycle: Vec<Lifecycle>,
    seq: u64,
    /// The stamp of what is added next, when it comes from a record.
    recorded: Option<Arrival>,
    /// Requests and items of each signal since the beginning.
    received: [Received; 4],
    slowest: u64,
    retention: Retention,
    bytes: usize,
    dropped: Dropped,
}

/// How much of a signal was received, whether it is kept or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Export requests.
    pub requests: u64,
    /// Spans, log records (without lines), metrics or profiles in them.
    pub items: u64,
}

impl Capture {
    pub(super) fn new(retention: Retention) -> Self {
        Self {
            requests: VecDeque::new(),
            spans: Shelf::default(),
            logs: Shelf::default(),
            metrics: Shelf::default(),
            profiles: 0,
            faults: Vec::new(),
            lifecycle: Vec::new(),
            seq: 0,
            recorded: None,
            received: [Received::default(); 4],
            slowest: 0,
            retention,
            bytes: 0,
            dropped: Dropped::default(),
        }
    }

    /// Export requests as received.
    pub fn requests(&self) -> &VecDeque<ExportRequest> {
        &self.requests
    }

    /// Every span.
    pub fn spans(&self) -> Items<'_, Span> {
        self.spans.items()
    }

    /// The spans of one trace, in order of arrival.
    pub fn spans_of(&self, trace_id: TraceId) -> impl Iterator<Item = &Arc<Span>> {
        self.spans.of(trace_id).map(|found| found.open())
    }

    /// One span of one trace.
    pub fn span(&self, trace_id: TraceId, span_id: SpanId) -> Option<&Arc<Span>> {
        self.spans.of(trace_id).find(|found| found.row().is(span_id)).map(|found| found.open())
    }

    /// Every log record, lines included.
    pub fn logs(&self) -> Items<'_, LogRecord> {
        self.logs.items()
    }

    /// The lines of output among the log records.
    pub fn lines(&self) -> impl Iterator<Item = &Arc<LogRecord>> {
        self.logs.items().only(|row| !row.is_exported())
    }

    /// The log records and lines that name a trace, in order of arrival.
    pub fn logs_of(&self, trace_id: TraceId) -> impl Iterator<Item = &Arc<LogRecord>> {
        self.logs.of(trace_id).map(|found| found.open())
    }

    /// Every metric, once for each time it was exported.
    pub fn metrics(&self) -> Items<'_, Metric> {
        self.metrics.items()
    }

    /// How many profiles came; they are in [`requests`](Self::requests).
    pub fn profiles(&self) -> usize {
        self.profiles
    }

    /// What was received and is not valid telemetry.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Marks in order.
    pub fn lifecycle(&self) -> &[Lifecycle] {
        &self.lifecycle
    }

    /// The last stamp that was given.
    pub fn last_seq(&self) -> u64 {
        self.seq
    }

    /// How much of a signal was received.
    pub fn received(&self, signal: Signal) -> Received {
        self.received[signal as usize]
    }

    /// The longest time from the end of a span, or the time of an exported log record, to its arrival, in nanoseconds.
    pub fn slowest_export(&self) -> u64 {
        self.slowest
    }

    /// What had to be dropped.
    pub fn dropped(&self) -> &Dropped {
        &self.dropped
    }

    pub(super) fn stamp_next(&mut self, arrival: Arrival) {
        self.recorded = Some(arrival);
    }

    fn stamp(&mut self) -> Arrival {
        if let Some(arrival) = self.recorded.take() {
            self.seq = arrival.seq;
            return arrival;
        }
        self.seq += 1;
        let unix_nano = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        Arrival { seq: self.seq, unix_nano }
    }

    pub(super) fn push_export(&mut self, request: ExportRequest, index: Index, faults: Vec<String>) -> Arrival {
        let transcoded = if request.encoding == Encoding::Json { index.wire.len() } else { 0 };
        let arrival = self.push_request(request, index.len(), faults);
        self.took(arrival, index.earliest);
        let Index { wire, groups, rows, .. } = index;
        self.bytes += match rows {
            Rows::Spans(rows) => self.spans.push_wire(arrival, transcoded, wire, groups, rows),
            Rows::Logs(rows) => self.logs.push_wire(arrival, transcoded, wire, groups, rows),
            Rows::Metrics(rows) => self.metrics.push_wire(arrival, transcoded, wire, groups, rows),
            Rows::Profiles(count) => {
                self.profiles += count;
                0
            }
        };
        self.retain(arrival);
        arrival
    }

    pub(super) fn push_values(&mut self, request: ExportRequest, values: Decoded, faults: Vec<String>) -> Arrival {
        let arrival = self.push_request(request, values.len(), faults);
        self.bytes += match values {
            Decoded::Spans(spans) => {
                self.took(arrival, spans.iter().map(|span| span.end_unix_nano).min());
                push_stamped(&mut self.spans, arrival, spans)
            }
            Decoded::Logs(records) => {
                self.took(arrival, records.iter().filter_map(|record| record.time_unix_nano).min());
                push_stamped(&mut self.logs, arrival, records)
            }
            Decoded::Metrics(metrics) => push_stamped(&mut self.metrics, arrival, metrics),
            Decoded::Profiles(count) => {
                self.profiles += count;
                0
            }
        };
        self.retain(arrival);
        arrival
    }

    fn push_request(&mut self, mut request: ExportRequest, items: usize, faults: Vec<String>) -> Arrival {
        let arrival = self.stamp();
        request.arrival = arrival;
        let signal = request.signal;
        let received = &mut self.received[signal as usize];
        received.requests += 1;
        received.items += items as u64;
        self.bytes += request_bytes(&request);
        self.requests.push_back(request);
        for reason in faults {
            self.bytes += fault_bytes(&reason);
            self.faults.push(Fault { signal, reason, arrival });
        }
        arrival
    }

    fn took(&mut self, arrival: Arrival, earliest: Option<u64>) {
        let took = earliest.map_or(0, |earliest| arrival.unix_nano.saturating_sub(earliest));
        // What took longer has its times in another unit.
        if took < LONGEST_EXPORT {
            self.slowest = self.slowest.max(took);
        }
    }

    pub(super) fn push_fault(&mut self, signal: Signal, reason: String) -> Arrival {
        let arrival = self.stamp();
        self.bytes += fault_bytes(&reason);
        self.faults.push(Fault { signal, reason, arrival });
        self.retain(arrival);
        arrival
    }

    pub(super) fn push_lines(&mut self, parse: impl FnOnce(Arrival) -> Vec<LogRecord>) -> Arrival {
        let arrival = self.stamp();
        let records = parse(arrival);
        if !records.is_empty() {
            let bytes = records.iter().map(line_bytes).sum();
            self.bytes += self.logs.push_values(arrival, bytes, records);
        }
        self.retain(arrival);
        arrival
    }

    pub(super) fn push_mark(&mut self, mark: Mark) -> Arrival {
        let arrival = self.stamp();
        self.lifecycle.push(Lifecycle { arrival, mark });
        arrival
    }

    /// What the sink could not take after `seq`, and what it did to requests and connections: the last of it, each said once.
    /// For who looks for telemetry that is not there.
    pub fn trouble_at_the_sink(&self, seq: u64) -> Vec<String> {
        let count = self.faults.iter().rev().take_while(|fault| fault.arrival.seq > seq).count();
        let faults = self.faults.last().filter(|_| count > 0).map(|fault| {
            let times = if count == 1 { "once".to_owned() } else { format!("{count} times, at last") };
            format!("{times} in what was sent of {}: {}", fault.signal, fault.reason)
        });
        let mut notes: Vec<String> = Vec::new();
        for entry in self.lifecycle.iter().rev().take_while(|entry| entry.arrival.seq > seq) {
            if let Some(what) = entry.mark.at_the_sink()
                && !notes.iter().any(|note| note == what)
                && notes.len() < NOTES_AT_MOST
            {
                notes.push(what.to_owned());
            }
        }
        faults.into_iter().chain(notes.into_iter().rev()).collect()
    }

    /// Drops the oldest while there is more than is to be kept, and makes a mark the first time.
    fn retain(&mut self, now: Arrival) {
        let before = self.dropped;
        let Retention { bytes, age } = self.retention;
        let born = age.map_or(0, |age| now.unix_nano.saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)));
        while let Some(oldest) = self.oldest()
            && (self.bytes > bytes || oldest.unix_nano < born)
        {
            self.drop_oldest(oldest);
        }
        if before.is_nothing() && !self.dropped.is_nothing() {
            let why = if self.bytes > bytes || age.is_none() {
                format!("more than {bytes} bytes would be kept")
            } else {
                format!("it is older than {:?}", age.unwrap_or_default())
            };
            let what = format!("the store is full and drops the oldest of what it has taken: {why}");
            self.push_mark(Mark::Sink { what });
        }
    }

    /// When the oldest thing that is kept came, apart from marks.
    fn oldest(&self) -> Option<Arrival> {
        let request = self.requests.front().map(|request| request.arrival);
        let fault = self.faults.first().map(|fault| fault.arrival);
        [request, fault, self.logs.oldest()].into_iter().flatten().min()
    }

    /// Drops all that came with this stamp, which is the oldest.
    fn drop_oldest(&mut self, oldest: Arrival) {
        self.dropped.until = oldest.seq;
        if self.requests.front().is_some_and(|request| request.arrival == oldest)
            && let Some(request) = self.requests.pop_front()
        {
            self.dropped.requests += 1;
            self.bytes -= request_bytes(&request);
        }
        let gone = self.faults.iter().take_while(|fault| fault.arrival == oldest).count();
        self.bytes -= self.faults.drain(..gone).map(|fault| fault_bytes(&fault.reason)).sum::<usize>();
        self.dropped.faults += gone as u64;
        let Self { spans, logs, metrics, dropped, .. } = self;
        self.bytes -= spans.drop_at(oldest, &mut dropped.spans)
            + logs.drop_at(oldest, &mut dropped.logs)
            + metrics.drop_at(oldest, &mut dropped.metrics);
    }
}

fn push_stamped<T: Item>(shelf: &mut Shelf<T>, arrival: Arrival, mut values: Vec<T>) -> usize {
    values.iter_mut().for_each(|value| value.stamp(arrival));
    shelf.push_values(arrival, values.len() * size_of::<T>(), values)
}

/// What a request takes by itself.
fn request_bytes(request: &ExportRequest) -> usize {
    size_of::<ExportRequest>() + request.body.len() + request.user_agent.len()
}

fn fault_bytes(reason: &str) -> usize {
    size_of::<Fault>() + reason.len()
}

/// Its text stands in a record as it was written, as a message, and again in fields.
fn line_bytes(record: &LogRecord) -> usize {
    size_of::<LogRecord>() + 3 * record.raw.len()
}
