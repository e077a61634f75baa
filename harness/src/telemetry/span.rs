//! Spans (`opentelemetry.proto.trace.v1.Span`).

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Arrival, Attributes, Resource, Scope, SpanId, TraceId};

/// One span as it was received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// The span it hangs on; `None` for a root.
    pub parent_span_id: Option<SpanId>,
    /// W3C `tracestate` as sent.
    pub trace_state: String,
    /// Trace flags and the remote-parent bits, as sent.
    pub flags: u32,
    /// Span name.
    pub name: String,
    /// Span kind.
    pub kind: SpanKind,
    /// Start, nanoseconds since the Unix epoch, by the service's clock.
    pub start_unix_nano: u64,
    /// End, likewise.
    pub end_unix_nano: u64,
    /// Attributes in the order sent.
    pub attributes: Attributes,
    /// Events in the order sent.
    pub events: Vec<SpanEvent>,
    /// Links in the order sent.
    pub links: Vec<SpanLink>,
    /// Status code and message.
    pub status: Status,
    /// Who sent it.
    pub resource: Arc<Resource>,
    /// Which library made it.
    pub scope: Arc<Scope>,
    /// When it reached the harness.
    pub arrival: Arrival,
}

/// Span kind (OpenTelemetry specification, Trace API, "SpanKind").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum SpanKind {
    /// 0, which an SDK never sends.
    #[default]
    Unspecified,
    /// 1
    Internal,
    /// 2
    Server,
    /// 3
    Client,
    /// 4
    Producer,
    /// 5
    Consumer,
}

impl SpanKind {
    /// Every kind that an SDK sends.
    pub const ALL: [Self; 5] = [Self::Internal, Self::Server, Self::Client, Self::Producer, Self::Consumer];

    /// Whether such a span stands where a call or a message comes in.
    pub const fn takes_calls(self) -> bool {
        matches!(self, Self::Server | Self::Consumer)
    }
}

impl Span {
    /// Whether a moment, in nanoseconds since the Unix epoch, is between its start and its end, both included.
    pub fn is_open_at(&self, unix_nano: u64) -> bool {
        (self.start_unix_nano..=self.end_unix_nano).contains(&unix_nano)
    }
}

impl fmt::Display for SpanKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unspecified => "UNSPECIFIED",
            Self::Internal => "INTERNAL",
            Self::Server => "SERVER",
            Self::Client => "CLIENT",
            Self::Producer => "PRODUCER",
            Self::Consumer => "CONSUMER",
        })
    }
}

/// Status of a span.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Status {
    /// Unset, Ok or Error.
    pub code: StatusCode,
    /// Description, sent with Error only.
    pub message: String,
}

/// Status code of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum StatusCode {
    /// 0
    #[default]
    Unset,
    /// 1
    Ok,
    /// 2
    Error,
}

impl fmt::Display for StatusCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unset => "Unset",
            Self::Ok => "Ok",
            Self::Error => "Error",
        })
    }
}

/// Something that happened during a span, `exception` among them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpanEvent {
    /// Event name.
    pub name: String,
    /// Nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
    /// Attributes in the order sent.
    pub attributes: Attributes,
}

/// A link to a span of this or another trace. Ids that are no ids are kept as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpanLink {
    /// Trace id of the linked span, hexadecimal as sent.
    pub trace_id: String,
    /// Span id of the linked span, hexadecimal as sent.
    pub span_id: String,
    /// Attributes in the order sent.
    pub attributes: Attributes,
}
