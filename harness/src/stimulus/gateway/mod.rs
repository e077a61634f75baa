//! Gateways in front of a function: each builds events from plain HTTP requests and takes responses apart.
//!
//! A kind is one file behind the [`Gateway`] trait. What several kinds have in common has a file too: [`fields`] (headers
//! and queries), [`payload`] (bodies), [`routes`] (paths of API Gateway) and [`format_2`] (payload format 2.0).

mod alb;
mod fields;
mod format_2;
mod function_url;
mod http_api;
mod literal;
mod payload;
mod proxy_response;
mod receipt;
mod rest_api;
mod routes;

use std::{fmt, time::Duration};

use bytes::Bytes;
use serde_json::Value;

use super::{HttpRequest, HttpResponse};
use crate::config::{self, GatewayKind};

pub use alb::Alb;
pub use function_url::FunctionUrl;
pub use http_api::HttpApi;
pub use literal::Literal;
pub use proxy_response::MalformedResponse;
pub use receipt::Receipt;
pub use rest_api::RestApi;

/// Largest event of a synchronous invocation, in bytes ("Lambda quotas", invocation payload: 6 MB).
pub const LARGEST_EVENT: usize = 6 * 1024 * 1024;

/// The gateway answers by itself, without invoking anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Refusal {
    /// Why.
    pub reason: String,
    /// What the client gets.
    pub response: HttpResponse,
}

/// What stands between HTTP clients and a function.
pub trait Gateway: fmt::Debug + Send + Sync {
    /// The event for a request. `user_agent` is sent when the request has no `User-Agent` of its own.
    ///
    /// # Errors
    ///
    /// When this gateway does not hand the request on, whatever its size.
    fn event(&self, request: &HttpRequest, user_agent: &str, receipt: &Receipt) -> Result<Value, Refusal>;

    /// The answer that a client gets for a function's response. `accept` is the request's `Accept` header, empty when
    /// there is none.
    ///
    /// # Errors
    ///
    /// When it is no response that this gateway takes; the client then gets [`failed`](Self::failed).
    fn response(&self, body: &[u8], accept: &str) -> Result<HttpResponse, MalformedResponse>;

    /// What a client gets when the function failed or its response is malformed.
    fn failed(&self) -> HttpResponse;

    /// What a client gets when the function took longer than [`timeout`](Self::timeout).
    fn timed_out(&self) -> HttpResponse;

    /// What a client gets when its request is too large.
    fn too_large(&self) -> HttpResponse;

    /// How long this gateway waits for the function; `None` for as long as the function may run.
    fn timeout(&self) -> Option<Duration>;

    /// Largest request body, in bytes.
    fn largest_body(&self) -> usize;
}

/// The gateway that a configuration describes. Addresses and numbers are those that are reserved for documentation.
pub fn of(gateway: &config::Gateway, function: &config::Function) -> Box<dyn Gateway> {
    match gateway.kind {
        GatewayKind::RestApi => Box::new(RestApi::of(gateway, function)),
        GatewayKind::HttpApi => Box::new(HttpApi::of(gateway, function)),
        GatewayKind::Alb => Box::new(Alb::of(gateway, function, false)),
        GatewayKind::AlbMultiValue => Box::new(Alb::of(gateway, function, true)),
        GatewayKind::FunctionUrl => Box::new(FunctionUrl::of(gateway, function)),
    }
}

/// The event's bytes for a request, within the limits of the gateway and of Lambda.
///
/// # Errors
///
/// When the request is not handed on: no route, too large.
pub fn event(
    gateway: &dyn Gateway,
    request: &HttpRequest,
    user_agent: &str,
    receipt: &Receipt,
) -> Result<Bytes, Refusal> {
    let too_large = |what: &str, size: usize, limit: usize| Refusal {
        reason: format!("the {what} has {size} bytes; the limit is {limit}"),
        response: gateway.too_large(),
    };
    let size = request.body.len();
    if size > gateway.largest_body() {
        return Err(too_large("request body", size, gateway.largest_body()));
    }
    let event = gateway.event(request, user_agent, receipt)?.to_string();
    if event.len() > LARGEST_EVENT {
        return Err(too_large("event", event.len(), LARGEST_EVENT));
    }
    Ok(event.into())
}

/// An answer of the gateway itself, in JSON.
fn json_answer(status: u16, body: &'static str) -> HttpResponse {
    let headers = vec![("content-type".into(), "application/json".into())];
    HttpResponse { status, headers, body: Bytes::from_static(body.as_bytes()) }
}

#[cfg(test)]
mod samples;
#[cfg(test)]
mod tests;
