//! A function URL without authorization: payload format 2.0, always stage and route `$default`.
//!
//! Sources: "Invoking Lambda function URLs" in the Lambda Developer Guide; the recorded event that lambda_http tests with.

use std::time::Duration;

use serde_json::Value;

use super::{
    super::{HttpRequest, HttpResponse},
    Gateway, LARGEST_EVENT, MalformedResponse, Receipt, Refusal,
    fields::Fields,
    format_2, json_answer,
};
use crate::config;

/// Headers of one connection, which do not reach the function.
const NOT_HANDED_ON: [&str; 6] = ["connection", "expect", "keep-alive", "te", "transfer-encoding", "upgrade"];

/// A function URL with auth type `NONE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionUrl {
    /// First label of the domain name.
    pub url_id: String,
    /// AWS region, in the domain name.
    pub region: String,
    /// Address of the client.
    pub source_ip: String,
    /// How long a client is let wait, when that is to be less than the function's own timeout.
    pub timeout: Option<Duration>,
}

impl FunctionUrl {
    /// The URL of a function.
    pub(super) fn of(gateway: &config::Gateway, function: &config::Function) -> Self {
        Self {
            url_id: "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6".into(),
            region: function.region.clone(),
            source_ip: "203.0.113.10".into(),
            timeout: gateway.timeout,
        }
    }
}

impl Gateway for FunctionUrl {
    fn event(&self, request: &HttpRequest, user_agent: &str, receipt: &Receipt) -> Result<Value, Refusal> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let domain_name = format!("{}.lambda-url.{}.on.aws", self.url_id, self.region);
        let mut headers = Fields::headers(request, &NOT_HANDED_ON);
        headers.default_to("User-Agent", user_agent);
        headers.default_to("Host", domain_name.as_str());
        headers.default_to("X-Amzn-Trace-Id", receipt.xray_root());
        headers.set("X-Amzn-Tls-Cipher-Suite", "ECDHE-RSA-AES128-GCM-SHA256");
        headers.set("X-Amzn-Tls-Version", "TLSv1.2");
        headers.set("X-Forwarded-Port", "443");
        headers.set("X-Forwarded-Proto", "https");
        headers.append_hop("X-Forwarded-For", &self.source_ip);
        // Other than in an HTTP API, they stay in the headers too.
        let cookies = format_2::cookies(&headers);
        let context = format_2::Context {
            route_key: "$default",
            stage: "$default",
            account: "anonymous",
            api_id: &self.url_id,
            domain_name: &domain_name,
            source_ip: &self.source_ip,
            request_id: &receipt.request_id,
            raw_path: path,
            raw_query: query,
            path_parameters: Value::Null,
        };
        Ok(format_2::event(context, request, headers, &cookies, receipt))
    }

    fn response(&self, body: &[u8], _: &str) -> Result<HttpResponse, MalformedResponse> {
        format_2::response(body)
    }

    fn failed(&self) -> HttpResponse {
        json_answer(502, "Internal Server Error")
    }

    fn timed_out(&self) -> HttpResponse {
        json_answer(504, r#"{"message":"Gateway Timeout"}"#)
    }

    fn too_large(&self) -> HttpResponse {
        json_answer(413, r#"{"Message":"Request Entity Too Large"}"#)
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The whole event has a limit, and no body may be larger than that.
    fn largest_body(&self) -> usize {
        LARGEST_EVENT
    }
}

#[cfg(test)]
#[path = "function_url_tests.rs"]
mod tests;
