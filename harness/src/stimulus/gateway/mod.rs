//! Gateways in front of a function: each builds events from plain HTTP requests and takes responses apart.

mod literal;
mod rest_api;

pub use literal::Literal;
pub use rest_api::{MalformedResponse, NoRoute, Receipt, RestApi};
