//! Metrics (`opentelemetry.proto.metrics.v1.Metric`).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Arrival, Attributes, Resource, Scope};

/// One metric of one export request, with its data points.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Instrument name.
    pub name: String,
    /// Unit, UCUM; may be empty.
    pub unit: String,
    /// Description; may be empty.
    pub description: String,
    /// What the points are.
    pub kind: MetricKind,
    /// Data points in the order sent.
    pub points: Vec<DataPoint>,
    /// Who sent it.
    pub resource: Arc<Resource>,
    /// Which library made it.
    pub scope: Arc<Scope>,
    /// When it reached the harness.
    pub arrival: Arrival,
}

/// Kind of a metric's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetricKind {
    /// A metric without any data field, which some SDKs send.
    Empty,
    /// Last value.
    Gauge,
    /// Sum of increments.
    Sum {
        /// Whether it can only grow.
        monotonic: bool,
        /// Since start, or since the last export.
        temporality: Temporality,
    },
    /// Histogram with explicit bounds.
    Histogram(Temporality),
    /// Histogram with exponential buckets.
    ExponentialHistogram(Temporality),
    /// Quantiles, of old clients.
    Summary,
}

/// What a point's value counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Temporality {
    /// 0
    Unspecified,
    /// 1, since the last export.
    Delta,
    /// 2, since the start time.
    Cumulative,
}

/// One data point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DataPoint {
    /// Attributes in the order sent.
    pub attributes: Attributes,
    /// Start of the interval, nanoseconds since the Unix epoch; 0 when not sent.
    pub start_unix_nano: u64,
    /// Time of the point, likewise.
    pub time_unix_nano: u64,
    /// The value.
    pub value: PointValue,
    /// Exemplars in the order sent.
    pub exemplars: Vec<Exemplar>,
}

/// Value of a data point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum PointValue {
    /// An integer.
    Int(i64),
    /// A floating point number; NaN for a point without recorded value.
    Double(f64),
    /// Explicit bounds and one count more than bounds.
    Histogram {
        /// Number of measurements.
        count: u64,
        /// Their sum, if recorded.
        sum: Option<f64>,
        /// Upper bounds.
        bounds: Vec<f64>,
        /// Counts per bucket.
        bucket_counts: Vec<u64>,
    },
    /// Exponential histogram or summary: count and sum.
    Distribution {
        /// Number of measurements.
        count: u64,
        /// Their sum, if recorded.
        sum: Option<f64>,
    },
}

/// A measurement kept as an example, with the span it was made in. Ids are hexadecimal as sent, empty when absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    /// Trace id of the measurement.
    pub trace_id: String,
    /// Span id of the measurement.
    pub span_id: String,
    /// Nanoseconds since the Unix epoch.
    pub time_unix_nano: u64,
}
