//! What a scenario expects of spans, log records and metrics, and what differs when it is not met.
//!
//! Every matcher answers with *all* that differs and with the candidates that came nearest, never with the first
//! difference alone.
//!
//! | file | what it matches |
//! | --- | --- |
//! | [`value`] | one value of an attribute or a field, with its type |
//! | [`span`] | spans by kind, name, status and attributes |
//! | [`shape`] | the whole tree of a request |
//! | [`log`] | log records by message, level, fields and origin |
//! | [`metric`] | metrics and what their points amount to |
//! | [`secret`] | planted values that must be nowhere |
//! | [`exporter`] | what a sound exporter does while its collector misbehaves |
//! | [`mixing`] | requests at the same time, each with its own spans and lines |
//! | [`mismatch`] | what differs, as a person reads it |

pub mod exporter;
pub mod log;
pub mod metric;
pub mod mismatch;
pub mod mixing;
pub mod secret;
pub mod shape;
pub mod span;
pub mod value;

pub use log::LogMatcher;
pub use metric::{MetricMatcher, MetricShape, MetricTotal};
pub use mismatch::{Candidate, Difference, NoMatch};
pub use secret::{Canary, Leak, SecretForm, find_secrets, may_hold};
pub use shape::{Shape, ShapeError, ShapeMismatch};
pub use span::SpanMatcher;
pub use value::{MatcherError, TextMatcher, ValueMatcher};
