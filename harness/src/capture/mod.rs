//! Everything that comes out of a deployment: export requests at the [`sink`], lines at the [`stdout`] tap, and the
//! marks of its lifecycle, in one order of arrival.

pub mod relay;
pub mod sink;
pub mod stdout;

mod store;

pub use store::{Capture, Decoded, Encoding, ExportRequest, Fault, Lifecycle, Mark, Signal, Store, Tamper, Transport};
