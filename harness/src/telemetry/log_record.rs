//! Log records, whichever way they came: over OTLP, or as a line on stdout or stderr.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Arrival, Attributes, IdClaim, Resource, Scope, SpanId, TraceId, Value};

/// One log record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Which way it came.
    pub origin: LogOrigin,
    /// How the line was written; [`LineFormat::Otlp`] for a record that came over OTLP.
    pub format: LineFormat,
    /// When it reached the harness.
    pub arrival: Arrival,
    /// When it was written, nanoseconds since the Unix epoch, if the record says so.
    pub time_unix_nano: Option<u64>,
    /// Severity, if the record has one.
    pub severity: Option<Severity>,
    /// Name of the logger, target or instrumentation scope; empty when there is none.
    pub logger: String,
    /// The message, without the structured data behind it.
    pub message: String,
    /// Every field by its dotted path (`headers.accept`, `files.0`), flattened as CloudWatch Logs does.
    pub fields: Attributes,
    /// The trace that it says it belongs to.
    pub trace_id: IdClaim<TraceId>,
    /// The span that it says it belongs to.
    pub span_id: IdClaim<SpanId>,
    /// Lambda's request id, if the record has one.
    pub request_id: Option<String>,
    /// The line as it was written, without its line feed; for OTLP the body as text.
    pub raw: String,
    /// The body as it was sent over OTLP; [`Value::Empty`] for a line.
    pub body: Value,
    /// Who sent it (OTLP only).
    pub resource: Option<Arc<Resource>>,
    /// Which scope it belongs to (OTLP only).
    pub scope: Option<Arc<Scope>>,
}

impl LogRecord {
    /// The span that it names, with its trace; `None` where either id is absent or invalid.
    pub fn named(&self) -> Option<(TraceId, SpanId)> {
        self.trace_id.valid().zip(self.span_id.valid())
    }

    /// The time that it was exported with. Exports come in batches, so that of their arrival says nothing.
    pub fn exported_time(&self) -> Option<u64> {
        self.time_unix_nano.filter(|_| self.origin == LogOrigin::Otlp)
    }

    /// Whether it was written in a time that is given by the order of arrival and by the clock, in nanoseconds since the Unix
    /// epoch, both ends included: a record that was exported by the clock, a line by when it came.
    pub fn was_written_in(&self, order: (u64, u64), clock: (u64, u64)) -> bool {
        match self.exported_time() {
            Some(time) => (clock.0..=clock.1).contains(&time),
            None => (order.0..=order.1).contains(&self.arrival.seq),
        }
    }
}

/// Which way a log record came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LogOrigin {
    /// In an export request.
    Otlp,
    /// A line of standard output.
    Stdout,
    /// A line of standard error.
    Stderr,
}

impl fmt::Display for LogOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Otlp => "otlp",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// How a log line was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LineFormat {
    /// Not a line: an OTLP log record.
    Otlp,
    /// One JSON object.
    Json,
    /// `… [trace_id=… span_id=… resource.service.name=…] - message {json}`, OpenTelemetry Python's log correlation.
    Bracketed,
    /// `[LEVEL]\ttime\trequest id\tmessage`, as Lambda's Python and Node.js runtimes write.
    LambdaTab,
    /// `key=value key="quoted value"`, anywhere in a line that names ids so or is nothing else.
    Logfmt,
    /// Anything else; has no fields and makes no claim of ids.
    Text,
}

impl LineFormat {
    /// Whether a record of this format is expected to carry ids: text is not.
    pub const fn is_structured(self) -> bool {
        !matches!(self, Self::Text)
    }
}

/// Severity by the ranges of the logs data model (`SeverityNumber`), and the text that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Severity {
    /// 1 to 24 (TRACE 1, DEBUG 5, INFO 9, WARN 13, ERROR 17, FATAL 21); 0 when only a text was given and is not known.
    pub number: u8,
    /// As written: `INFO`, `warning`, …
    pub text: String,
}
