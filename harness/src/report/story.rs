//! What a report shows of one request: its spans as a waterfall, with the log records on them. Plain values, so that a
//! reporter needs neither a store nor a clock.

use serde::Serialize;

use crate::{
    correlation::{Node, RequestEvidence},
    stimulus::Delivery,
    telemetry::{Attributes, LogRecord, Value},
};

/// One request of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    /// `GET /files/ → 200`.
    pub title: String,
    /// The trace, as 32 digits; empty when no span came.
    pub trace: String,
    /// Spans from the roots down, parents before their children.
    pub spans: Vec<StorySpan>,
    /// Records that name no span of the tree, text lines among them.
    pub loose: Vec<StoryLog>,
}

/// One span of a waterfall.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StorySpan {
    /// 0 for a root.
    pub depth: usize,
    /// `SERVER`, …
    pub kind: String,
    /// Span name.
    pub name: String,
    /// `service.name`, empty when unknown.
    pub service: String,
    /// `Unset`, `Ok`, `Error`.
    pub status: String,
    /// Microseconds since the earliest span of the request began.
    pub start: u64,
    /// Microseconds.
    pub took: u64,
    /// Whether its parent is missing.
    pub orphan: bool,
    /// Span id.
    pub id: String,
    /// Attributes with their values as text; strings in quotes.
    pub attributes: Vec<(String, String)>,
    /// Names of the events, with their attributes.
    pub events: Vec<(String, Vec<(String, String)>)>,
    /// Records that name this span.
    pub logs: Vec<StoryLog>,
}

/// One log record.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoryLog {
    /// `stdout`, `stderr`, `otlp`.
    pub origin: String,
    /// Level as written.
    pub level: String,
    /// Message.
    pub message: String,
    /// Fields as text.
    pub fields: Vec<(String, String)>,
}

impl Story {
    /// The story of a request.
    pub fn of(delivery: &Delivery, evidence: &RequestEvidence) -> Self {
        let trace = &evidence.trace;
        let began = trace.spans().map(|span| span.start_unix_nano).min().unwrap_or(0);
        let named = |record: &LogRecord| {
            let ids = record.trace_id.valid().zip(record.span_id.valid());
            ids.is_some_and(|(trace_id, span_id)| trace.position(trace_id, span_id).is_some())
        };
        let loose = evidence.logs.iter().filter(|record| !named(record)).chain(&evidence.text);
        Self {
            title: format!("{} {} → {}", delivery.method, delivery.target, delivery.response.status),
            trace: evidence.trace_id().map(|id| id.to_string()).unwrap_or_default(),
            spans: trace.rows().iter().map(|row| StorySpan::of(row.node, row.depth, row.orphan, began)).collect(),
            loose: loose.map(|record| StoryLog::of(record)).collect(),
        }
    }
}

impl StorySpan {
    fn of(node: &Node, depth: usize, orphan: bool, began: u64) -> Self {
        let span = &node.span;
        let events = span.events.iter().map(|event| (event.name.clone(), pairs(&event.attributes)));
        Self {
            depth,
            kind: span.kind.to_string(),
            name: span.name.clone(),
            service: span.resource.service_name().unwrap_or_default().to_owned(),
            status: span.status.code.to_string(),
            start: span.start_unix_nano.saturating_sub(began) / 1_000,
            took: span.end_unix_nano.saturating_sub(span.start_unix_nano) / 1_000,
            orphan,
            id: span.span_id.to_string(),
            attributes: pairs(&span.attributes),
            events: events.collect(),
            logs: node.logs.iter().map(|record| StoryLog::of(record)).collect(),
        }
    }
}

impl StoryLog {
    fn of(record: &LogRecord) -> Self {
        Self {
            origin: record.origin.to_string(),
            level: record.severity.as_ref().map(|severity| severity.text.clone()).unwrap_or_default(),
            message: record.message.clone(),
            fields: pairs(&record.fields),
        }
    }
}

fn pairs(attributes: &Attributes) -> Vec<(String, String)> {
    let shown = |value: &Value| match value {
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    };
    attributes.iter().map(|(key, value)| (key.to_owned(), shown(value))).collect()
}
