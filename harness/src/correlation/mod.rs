//! Which spans and log records belong to a stimulus, and whether they hang together.
//!
//! | file | what it answers |
//! | --- | --- |
//! | [`request`] | which spans and records are those of one request, even when many share a trace id |
//! | [`trace`] | the spans of a request as a tree, its orphans and its duplicates |
//! | [`background`] | whether a line without ids is of a request or of the service's own doing |
//! | [`detached`] | which spans of other traces are the request's, cut off from it |
//! | [`repetition`] | whether that comes again when the request does which only the time says is its |
//! | [`logs`] | whether one record is correlated: the five conditions |
//! | [`copies`] | whether the line and the OTLP copy of a record name the same ids |
//! | [`freeze`] | what of an invocation came only after its environment was frozen, and what never came |
//! | [`soak`] | whether each of very many requests has a complete, correlated trace, found by its trace id alone |
//! | [`segments`] | the segments that AWS itself would put into the trace |
//! | [`xray`] | trace ids and contexts as X-Ray and W3C write them |

pub mod background;
pub mod calls;
pub mod copies;
pub mod detached;
pub mod freeze;
pub mod logs;
pub mod repetition;
pub mod request;
pub mod segments;
pub mod soak;
pub mod trace;

pub use crate::telemetry::xray;
pub use copies::{Copies, compare_copies};
pub use freeze::{AfterFreeze, after_the_freeze};
pub use logs::{Uncorrelated, correlated, is_of_lambdas_runtime};
pub use request::{FoundBy, Options, RequestEvidence, Stranger, request};
pub use trace::{Duplicate, Node, Orphan, Row, Trace};

#[cfg(test)]
pub(crate) mod samples;
