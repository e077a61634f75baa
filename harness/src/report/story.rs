//! What a report shows of one request: its spans as a waterfall, with the log records on them. Plain values, so that a
//! reporter needs neither a store nor a clock.

use serde::Serialize;

use crate::{
    correlation::{
        RequestEvidence, Row,
        segments::{Line, Segment, SegmentKind, drawn},
    },
    stimulus::Delivery,
    telemetry::{Attributes, LogRecord, StatusCode, Value},
};

/// One request of a scenario.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    /// `GET /files/ → 200`.
    pub title: String,
    /// The trace, as 32 digits; empty when no span came.
    pub trace: String,
    /// Spans from the roots down, parents before their children, with the platform's own segments around them.
    pub spans: Vec<StorySpan>,
    /// Records that name no span of the tree, text lines among them.
    pub loose: Vec<StoryLog>,
}

/// One span of a waterfall.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StorySpan {
    /// 0 for a root.
    pub depth: usize,
    /// `SERVER`, …; `derived` for a segment that was not received but derived.
    pub kind: String,
    /// Whether AWS would make it: it was derived from the life of the environment, and is no span of the service.
    pub derived: bool,
    /// Span name.
    pub name: String,
    /// `service.name`, empty when unknown.
    pub service: String,
    /// `Unset`, `Ok`, `Error`.
    pub status: String,
    /// Microseconds since the earliest span or segment of the request began.
    #[serde(rename = "start_us")]
    pub start: u64,
    /// Microseconds.
    #[serde(rename = "took_us")]
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
    /// The story of a request; `segments` are those of the platform.
    pub fn of(delivery: &Delivery, evidence: &RequestEvidence, segments: &[Segment]) -> Self {
        let trace = &evidence.trace;
        let lines = drawn(segments, trace);
        let function = segments.iter().find(|segment| segment.kind == SegmentKind::Function);
        let begins = |line: &Line<'_>| match line {
            Line::Span(row) => row.node.span.start_unix_nano,
            // On Lambda an Init stands right before its first event. Here it may be minutes ahead, which no picture shows.
            Line::Segment { segment, .. } => match (segment.ahead, function) {
                (Some(_), Some(function)) => {
                    let took = segment.end_unix_nano.saturating_sub(segment.start_unix_nano);
                    function.start_unix_nano.saturating_sub(took)
                }
                _ => segment.start_unix_nano,
            },
        };
        let began = lines.iter().map(begins).min().unwrap_or(0);
        let named = |record: &LogRecord| {
            let ids = record.named();
            ids.is_some_and(|(trace_id, span_id)| trace.position(trace_id, span_id).is_some())
        };
        let loose = evidence.logs.iter().filter(|record| !named(record)).chain(&evidence.text);
        let spans = lines.iter().map(|line| {
            let start = begins(line).saturating_sub(began) / 1_000;
            match line {
                Line::Span(row) => StorySpan::of(row, start),
                Line::Segment { depth, segment, .. } => StorySpan::derived(segment, *depth, start),
            }
        });
        Self {
            title: format!("{} {} → {}", delivery.method, delivery.target, delivery.response.status),
            trace: evidence.trace_id().map(|id| id.to_string()).unwrap_or_default(),
            spans: spans.collect(),
            loose: loose.map(|record| StoryLog::of(record)).collect(),
        }
    }
}

impl StorySpan {
    fn of(row: &Row<'_>, start: u64) -> Self {
        let span = &row.node.span;
        let events = span.events.iter().map(|event| (event.name.clone(), pairs(&event.attributes)));
        Self {
            depth: row.depth,
            kind: span.kind.to_string(),
            derived: false,
            name: span.name.clone(),
            service: span.resource.service_name().unwrap_or_default().to_owned(),
            status: span.status.code.to_string(),
            start,
            took: span.end_unix_nano.saturating_sub(span.start_unix_nano) / 1_000,
            orphan: row.orphan,
            id: span.span_id.to_string(),
            attributes: pairs(&span.attributes),
            events: events.collect(),
            logs: row.node.logs.iter().map(|record| StoryLog::of(record)).collect(),
        }
    }

    fn derived(segment: &Segment, depth: usize, start: u64) -> Self {
        let parent = segment.parent.map(|parent| ("parent".to_owned(), parent.to_string()));
        let ahead = segment.ahead.map(|ahead| {
            let ahead = format!("{:.2} ms before the request was sent", ahead.as_secs_f64() * 1e3);
            ("over".to_owned(), ahead)
        });
        Self {
            depth,
            kind: "derived".into(),
            derived: true,
            name: segment.kind.to_string(),
            service: String::new(),
            status: StatusCode::Unset.to_string(),
            start,
            took: segment.end_unix_nano.saturating_sub(segment.start_unix_nano) / 1_000,
            orphan: false,
            id: segment.id.to_string(),
            attributes: parent.into_iter().chain(ahead).collect(),
            events: Vec::new(),
            logs: Vec::new(),
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
