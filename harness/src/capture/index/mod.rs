//! The index of an export request: which spans, log records or metrics it holds and where, found by walking over its bytes.
//!
//! What the walk lets through is what prost decodes (a fuzz target holds the one against the other), so an item can be
//! decoded when somebody asks for it, with the resource and the scope that it stands in. Only what is not valid is decoded
//! at once, to say what is wrong with it.

mod encode;
mod schema;
mod values;
mod walk;
mod wire;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::InstrumentationScope,
    logs::v1 as otlp_logs,
    metrics::v1 as otlp_metrics,
    resource::v1 as otlp_resource,
    trace::v1 as otlp_trace,
};
use prost::Message;

pub(super) use self::encode::encode;
use self::wire::Malformed;
use super::{
    Encoding, Signal,
    sink::{json, profiles, weight},
};
use crate::telemetry::{Arrival, LogOrigin, LogRecord, Metric, Resource, Scope, Span, SpanId, TraceId};

/// Most that a request may grow to when all of it is decoded, in bytes. A full one of 64 MiB from a real exporter grows to
/// a third of it.
pub const HEAVIEST: usize = 1 << 30;

/// Why a body is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not what it should be; why.
    #[error("{0}")]
    Malformed(String),
    /// It would take more than [`HEAVIEST`] once it is decoded.
    #[error("it would take more than {HEAVIEST} bytes once it is decoded")]
    Heavy,
}

/// What an export request holds, and what in it is not valid.
#[derive(Debug, Clone)]
pub struct Contents {
    /// Everything that can be used.
    pub index: Index,
    /// One sentence for each thing that is wrong, naming the item.
    pub faults: Vec<String>,
    /// Items that are not in `index` because of a fault; never more than there are faults.
    pub rejected: i64,
}

/// Where in an export request its items are. Cheap to clone but for the rows.
#[derive(Clone)]
pub struct Index {
    /// The request as protobuf: what was received, or what says the same as the JSON that was.
    pub(super) wire: Bytes,
    pub(super) groups: Box<[Group]>,
    pub(super) rows: Rows,
    /// The earliest end of a span or time of a record.
    pub(super) earliest: Option<u64>,
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("items", &self.len()).field("bytes", &self.wire.len()).finish()
    }
}

/// Values that an export request holds, decoded.
#[derive(Debug, Clone)]
pub enum Decoded {
    /// Spans of a traces request.
    Spans(Vec<Span>),
    /// Records of a logs request.
    Logs(Vec<LogRecord>),
    /// Metrics of a metrics request.
    Metrics(Vec<Metric>),
    /// How many profiles a profiles request holds.
    Profiles(usize),
}

impl Decoded {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Spans(spans) => spans.len(),
            Self::Logs(records) => records.len(),
            Self::Metrics(metrics) => metrics.len(),
            Self::Profiles(count) => *count,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the walk found.
struct Checked {
    groups: Vec<Group>,
    rows: Rows,
    /// Which of them may not be valid.
    odd: Vec<usize>,
    earliest: Option<u64>,
}

/// A resource's and a scope's part of a request, each as offset and length.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    resource: (u32, u32),
    scope: (u32, u32),
}

#[derive(Debug, Clone)]
pub(super) enum Rows {
    Spans(Vec<SpanRow>),
    Logs(Vec<LogRow>),
    Metrics(Vec<MetricRow>),
    Profiles(usize),
}

/// What is known of a span without decoding it.
#[derive(Debug, Clone, Copy)]
pub struct SpanRow {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    /// Zeros for none.
    parent: [u8; 8],
    start: u64,
    at: u32,
    length: u32,
    group: u32,
    next: u32,
}

impl SpanRow {
    /// Whether it has this id.
    pub fn is(&self, span_id: SpanId) -> bool {
        self.span_id == *span_id.as_bytes()
    }

    /// Whether it is in this trace.
    pub fn is_in(&self, trace_id: TraceId) -> bool {
        self.trace_id == *trace_id.as_bytes()
    }

    /// Whether it has no parent.
    pub fn is_root(&self) -> bool {
        self.parent == [0; 8]
    }

    /// When it began, in nanoseconds since the Unix epoch.
    pub fn start_unix_nano(&self) -> u64 {
        self.start
    }
}

/// What is known of a log record without decoding it.
#[derive(Debug, Clone, Copy)]
pub struct LogRow {
    /// Zeros for none, or for something that is no id.
    trace_id: [u8; 16],
    span_id: [u8; 8],
    time: u64,
    /// Where its bytes are; [`LINE`] for what was no part of an export request.
    at: u32,
    length: u32,
    group: u32,
    next: u32,
}

/// No offset: a request is shorter.
const LINE: u32 = u32::MAX;

impl LogRow {
    /// Whether it was exported, and is no line of output.
    pub fn is_exported(&self) -> bool {
        self.at != LINE
    }

    /// Whether it names this span.
    pub fn names(&self, span_id: SpanId) -> bool {
        self.span_id == *span_id.as_bytes()
    }

    /// Its time, or when it was observed, in nanoseconds since the Unix epoch; 0 when it says neither.
    pub fn time_unix_nano(&self) -> u64 {
        self.time
    }
}

/// What is known of a metric without decoding it.
#[derive(Debug, Clone, Copy)]
pub struct MetricRow {
    at: u32,
    length: u32,
    group: u32,
}

/// A row of the index.
pub trait Row: Copy + fmt::Debug + Send + Sync {
    /// The trace that the item is in or names.
    fn trace(&self) -> Option<[u8; 16]>;
    /// The next item of the same trace, once it is stored.
    fn next(&self) -> u32;
    /// Makes `next` the next item of the same trace.
    fn set_next(&mut self, next: u32);
}

impl Row for SpanRow {
    fn trace(&self) -> Option<[u8; 16]> {
        Some(self.trace_id)
    }
    fn next(&self) -> u32 {
        self.next
    }
    fn set_next(&mut self, next: u32) {
        self.next = next;
    }
}

impl Row for LogRow {
    fn trace(&self) -> Option<[u8; 16]> {
        Some(self.trace_id).filter(|id| *id != [0; 16])
    }
    fn next(&self) -> u32 {
        self.next
    }
    fn set_next(&mut self, next: u32) {
        self.next = next;
    }
}

impl Row for MetricRow {
    fn trace(&self) -> Option<[u8; 16]> {
        None
    }
    fn next(&self) -> u32 {
        0
    }
    fn set_next(&mut self, _: u32) {}
}

/// Something that is counted in an export request, and can be decoded by itself.
pub trait Item: Sized + fmt::Debug + Send + Sync {
    /// What the index has of it.
    type Row: Row;

    /// The row of a value that came in no request.
    fn row(&self) -> Self::Row;

    /// Its place: offset and length in the request, and which group it is in.
    fn place(row: &Self::Row) -> (u32, u32, u32);

    /// Decodes it from its bytes, which were walked over before.
    fn open(wire: &[u8], resource: &Arc<Resource>, scope: &Arc<Scope>) -> Self;

    /// Says when it came.
    fn stamp(&mut self, arrival: Arrival);
}

const WALKED: &str = "what was walked over decodes";

impl Item for Span {
    type Row = SpanRow;

    fn row(&self) -> SpanRow {
        SpanRow {
            trace_id: *self.trace_id.as_bytes(),
            span_id: *self.span_id.as_bytes(),
            parent: self.parent_span_id.map_or([0; 8], |id| *id.as_bytes()),
            start: self.start_unix_nano,
            at: 0,
            length: 0,
            group: 0,
            next: 0,
        }
    }

    fn place(row: &SpanRow) -> (u32, u32, u32) {
        (row.at, row.length, row.group)
    }

    fn open(wire: &[u8], resource: &Arc<Resource>, scope: &Arc<Scope>) -> Self {
        let sent = otlp_trace::Span::decode(wire).expect(WALKED);
        // What was to be said of it was said when it came.
        values::span(sent, resource, scope, &mut Vec::new()).expect(WALKED)
    }

    fn stamp(&mut self, arrival: Arrival) {
        self.arrival = arrival;
    }
}

impl Item for LogRecord {
    type Row = LogRow;

    fn row(&self) -> LogRow {
        LogRow {
            trace_id: self.trace_id.valid().map_or([0; 16], |id| *id.as_bytes()),
            span_id: self.span_id.valid().map_or([0; 8], |id| *id.as_bytes()),
            time: self.time_unix_nano.unwrap_or_default(),
            at: if self.origin == LogOrigin::Otlp { 0 } else { LINE },
            length: 0,
            group: 0,
            next: 0,
        }
    }

    fn place(row: &LogRow) -> (u32, u32, u32) {
        (row.at, row.length, row.group)
    }

    fn open(wire: &[u8], resource: &Arc<Resource>, scope: &Arc<Scope>) -> Self {
        values::log_record(otlp_logs::LogRecord::decode(wire).expect(WALKED), resource, scope)
    }

    fn stamp(&mut self, arrival: Arrival) {
        self.arrival = arrival;
    }
}

impl Item for Metric {
    type Row = MetricRow;

    fn row(&self) -> MetricRow {
        MetricRow { at: 0, length: 0, group: 0 }
    }

    fn place(row: &MetricRow) -> (u32, u32, u32) {
        (row.at, row.length, row.group)
    }

    fn open(wire: &[u8], resource: &Arc<Resource>, scope: &Arc<Scope>) -> Self {
        values::metric(otlp_metrics::Metric::decode(wire).expect(WALKED), resource, scope)
    }

    fn stamp(&mut self, arrival: Arrival) {
        self.arrival = arrival;
    }
}

/// What of `ResourceSpans`, `ResourceLogs` and `ResourceMetrics` speaks of the resource: the items are skipped, and a
/// resource that comes in several pieces is merged as protobuf has it.
#[derive(Clone, PartialEq, Message)]
struct ResourceHead {
    #[prost(message, optional, tag = "1")]
    resource: Option<otlp_resource::Resource>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

/// The same of `ScopeSpans`, `ScopeLogs` and `ScopeMetrics`.
#[derive(Clone, PartialEq, Message)]
struct ScopeHead {
    #[prost(message, optional, tag = "1")]
    scope: Option<InstrumentationScope>,
    #[prost(string, tag = "3")]
    schema_url: String,
}

pub(super) fn part(wire: &[u8], (at, length): (u32, u32)) -> &[u8] {
    &wire[at as usize..][..length as usize]
}

/// The resources and scopes of a request, each decoded when it is asked for.
#[derive(Debug)]
pub(super) struct Senders(Box<[OnceLock<Sender>]>);

type Sender = (Arc<Resource>, Arc<Scope>);

impl Senders {
    pub(super) fn new(groups: &[Group]) -> Self {
        Self(groups.iter().map(|_| OnceLock::new()).collect())
    }

    pub(super) fn of(&self, wire: &[u8], groups: &[Group], group: u32) -> (&Arc<Resource>, &Arc<Scope>) {
        let group = group as usize;
        let sender = self.0[group].get_or_init(|| {
            let Group { resource, scope } = groups[group];
            // One resource may hold many scopes.
            let before = group.checked_sub(1).filter(|&before| groups[before].resource == resource);
            let known = before.and_then(|before| self.0[before].get()).map(|(resource, _)| resource.clone());
            let resource = known.unwrap_or_else(|| {
                let head = ResourceHead::decode(part(wire, resource)).expect(WALKED);
                values::resource(head.resource, head.schema_url)
            });
            let head = ScopeHead::decode(part(wire, scope)).expect(WALKED);
            (resource, values::scope(head.scope, head.schema_url))
        });
        (&sender.0, &sender.1)
    }
}

/// Walks over an `Export…ServiceRequest`.
///
/// # Errors
/// The whole body cannot be read, or would take too much memory once it is decoded.
pub fn index(signal: Signal, encoding: Encoding, body: &Bytes) -> Result<Contents, Unreadable> {
    let wire = match encoding {
        Encoding::Protobuf => body.clone(),
        Encoding::Json => {
            if weight::of_json(body) > HEAVIEST {
                return Err(Unreadable::Heavy);
            }
            json::to_protobuf(signal, body).map_err(Unreadable::Malformed)?.into()
        }
    };
    if u32::try_from(wire.len()).is_err() {
        return Err(Unreadable::Heavy);
    }
    let malformed = |error: prost::DecodeError| Unreadable::Malformed(error.to_string());
    if signal == Signal::Profiles {
        let rows = Rows::Profiles(profiles::count(&wire).map_err(malformed)?);
        let index = Index { wire, groups: Box::default(), rows, earliest: None };
        return Ok(Contents { index, faults: Vec::new(), rejected: 0 });
    }
    let Checked { groups, rows, odd, earliest } = match walk::walk(signal, &wire) {
        Ok(checked) => checked,
        Err(Malformed::Heavy) => return Err(Unreadable::Heavy),
        // Prost says it better.
        Err(reason) => {
            return Err(decodes(signal, &wire).err().map_or(Unreadable::Malformed(reason.to_string()), malformed));
        }
    };
    let mut contents =
        Contents { index: Index { wire, groups: groups.into(), rows, earliest }, faults: Vec::new(), rejected: 0 };
    contents.judge(&odd);
    contents.index.rows.shrink();
    Ok(contents)
}

fn decodes(signal: Signal, wire: &[u8]) -> Result<(), prost::DecodeError> {
    match signal {
        Signal::Traces => ExportTraceServiceRequest::decode(wire).map(drop),
        Signal::Logs => ExportLogsServiceRequest::decode(wire).map(drop),
        Signal::Metrics => ExportMetricsServiceRequest::decode(wire).map(drop),
        Signal::Profiles => Ok(()),
    }
}

impl Contents {
    /// Says what is wrong with the items that may not be valid, and leaves out those that cannot be used.
    fn judge(&mut self, odd: &[usize]) {
        if odd.is_empty() {
            return;
        }
        let Self { index: Index { wire, groups, rows, .. }, faults, rejected } = self;
        let senders = Senders::new(groups);
        match rows {
            Rows::Spans(rows) => {
                let mut refused = Vec::new();
                for &at in odd {
                    let row = &rows[at];
                    let (resource, scope) = senders.of(wire, groups, row.group);
                    let sent = otlp_trace::Span::decode(part(wire, (row.at, row.length))).expect(WALKED);
                    if let Err(fault) = values::span(sent, resource, scope, faults) {
                        faults.push(fault);
                        refused.push(at);
                    }
                }
                *rejected = refused.len() as i64;
                let mut at = 0;
                let mut refused = refused.into_iter().peekable();
                rows.retain(|_| {
                    at += 1;
                    refused.next_if_eq(&(at - 1)).is_none()
                });
            }
            // A record with a wrong id is still what the service wrote, and correlation has to see it: none is rejected.
            Rows::Logs(rows) => {
                for &at in odd {
                    let row = &rows[at];
                    let (resource, scope) = senders.of(wire, groups, row.group);
                    values::log_faults(&LogRecord::open(part(wire, (row.at, row.length)), resource, scope), faults);
                }
            }
            Rows::Metrics(_) | Rows::Profiles(_) => {}
        }
    }
}

impl Rows {
    /// What is kept takes no more than it needs.
    fn shrink(&mut self) {
        match self {
            Self::Spans(rows) => rows.shrink_to_fit(),
            Self::Logs(rows) => rows.shrink_to_fit(),
            Self::Metrics(rows) => rows.shrink_to_fit(),
            Self::Profiles(_) => {}
        }
    }
}

impl Index {
    /// How many spans, log records, metrics or profiles there are.
    pub fn len(&self) -> usize {
        match &self.rows {
            Rows::Spans(rows) => rows.len(),
            Rows::Logs(rows) => rows.len(),
            Rows::Metrics(rows) => rows.len(),
            Rows::Profiles(count) => *count,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decodes all of it.
    pub fn decode(&self) -> Decoded {
        match &self.rows {
            Rows::Spans(rows) => Decoded::Spans(self.open(rows)),
            Rows::Logs(rows) => Decoded::Logs(self.open(rows)),
            Rows::Metrics(rows) => Decoded::Metrics(self.open(rows)),
            Rows::Profiles(count) => Decoded::Profiles(*count),
        }
    }

    fn open<T: Item>(&self, rows: &[T::Row]) -> Vec<T> {
        let senders = Senders::new(&self.groups);
        let open = |row: &T::Row| {
            let (at, length, group) = T::place(row);
            let (resource, scope) = senders.of(&self.wire, &self.groups, group);
            T::open(part(&self.wire, (at, length)), resource, scope)
        };
        rows.iter().map(open).collect()
    }
}
