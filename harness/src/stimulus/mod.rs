//! What is sent to a deployment, and what came of it.

pub mod canary;
pub mod gateway;
pub mod http;

mod context;
mod delivery;
mod pressure;

pub use context::{Caller, ContextForm};
pub use delivery::{Client, Delivery, HttpRequest, HttpResponse, Identity, Invocation};
pub(crate) use pressure::{Pressure, standstills};
