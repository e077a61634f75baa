//! What a service says about itself, as plain values: spans, log records, metrics and the resource they come from.
//!
//! Nothing here does I/O or reads a clock, and nothing knows how a value arrived, apart from the [`Arrival`] that it
//! was stamped with. Values are those of the OpenTelemetry protocol (`opentelemetry-proto` 1.x), with ids checked.

mod attributes;
mod digest;
mod embedded;
mod flatten;
mod id;
mod log_record;
mod metric;
mod resource;
mod span;
pub mod xray;

pub use attributes::{Attributes, Value};
pub use digest::digest;
pub use embedded::{Embedded, embedded_json};
pub(crate) use flatten::flatten_up_to;
pub use flatten::{MAX_FIELDS, flatten};
pub use id::{IdClaim, IdError, SpanId, TraceId};
pub use log_record::{LineFormat, LogOrigin, LogRecord, Severity};
pub use metric::{DataPoint, Exemplar, Metric, MetricKind, PointValue, Temporality};
pub use resource::{Resource, Scope};
pub use span::{Span, SpanEvent, SpanKind, SpanLink, Status, StatusCode};

/// When something reached the harness.
///
/// `seq` is a total order over everything that one [`Store`](crate::capture::Store) received: export requests, stdout
/// lines and lifecycle marks alike, so that "before the freeze" is a comparison and needs no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize)]
pub struct Arrival {
    /// Position in the store's order of arrival, from 1.
    pub seq: u64,
    /// Nanoseconds since the Unix epoch, by the harness's clock.
    pub unix_nano: u64,
}
