//! An API Gateway HTTP API with Lambda proxy integration, payload format 2.0.
//!
//! Sources: "Create AWS Lambda proxy integrations for HTTP APIs in API Gateway" and "Quotas for configuring and running an
//! HTTP API" in the API Gateway Developer Guide; events recorded in AWS that aws_lambda_events and lambda_http test with.

use std::time::Duration;

use serde_json::Value;

use super::{
    super::{HttpRequest, HttpResponse},
    Gateway, MalformedResponse, Receipt, Refusal,
    fields::Fields,
    format_2, json_answer,
    rest_api::LARGEST_BODY,
    routes,
};
use crate::config;

/// Headers of one connection, which do not reach the function.
const NOT_HANDED_ON: [&str; 6] = ["connection", "expect", "keep-alive", "te", "transfer-encoding", "upgrade"];

/// Default and largest integration timeout.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The stage and the route that need no name in the path.
const DEFAULT: &str = "$default";

/// A deployed HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpApi {
    /// First label of the domain name.
    pub api_id: String,
    /// Stage: the first segment of `rawPath` unless it is `$default`.
    pub stage: String,
    /// Path of the one route, for any method; `None` for `$default`, which takes every path.
    pub route: Option<String>,
    /// AWS region, in the domain name.
    pub region: String,
    /// AWS account.
    pub account: String,
    /// Address of the client.
    pub source_ip: String,
    /// Integration timeout.
    pub timeout: Duration,
}

impl HttpApi {
    /// The API that a configuration describes.
    pub(super) fn of(gateway: &config::Gateway, function: &config::Function) -> Self {
        Self {
            api_id: "a1b2c3d4e5".into(),
            stage: gateway.stage.clone().unwrap_or_else(|| DEFAULT.into()),
            route: gateway.resource.clone(),
            region: function.region.clone(),
            account: function.account.clone(),
            source_ip: "203.0.113.10".into(),
            timeout: gateway.timeout.unwrap_or(TIMEOUT),
        }
    }

    fn domain_name(&self) -> String {
        format!("{}.execute-api.{}.amazonaws.com", self.api_id, self.region)
    }
}

impl Gateway for HttpApi {
    fn event(&self, request: &HttpRequest, user_agent: &str, receipt: &Receipt) -> Result<Value, Refusal> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let no_route = || Refusal {
            reason: format!("{path} does not fit the route {}", self.route.as_deref().unwrap_or(DEFAULT)),
            response: json_answer(404, r#"{"message":"Not Found"}"#),
        };
        // An HTTP API decodes the path, and cuts it off where a decoded `?` then stands.
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        let path_of_request = decoded.split('?').next().unwrap_or_default();
        let (route_key, path_parameters) = match &self.route {
            None => (DEFAULT.to_owned(), Value::Null),
            Some(route) => {
                let parameters = routes::parameters(route, path_of_request).ok_or_else(no_route)?;
                (format!("ANY {route}"), parameters)
            }
        };
        let stage = if self.stage == DEFAULT { String::new() } else { format!("/{}", self.stage) };
        let mut headers = Fields::headers(request, &NOT_HANDED_ON);
        headers.default_to("User-Agent", user_agent);
        headers.default_to("Host", self.domain_name());
        // What the client says of the trace is handed on; the documentation names no other parent.
        headers.default_to("X-Amzn-Trace-Id", receipt.xray_root());
        headers.set("Content-Length", request.body.len().to_string());
        headers.set("X-Forwarded-Port", "443");
        headers.set("X-Forwarded-Proto", "https");
        headers.append_hop("X-Forwarded-For", &self.source_ip);
        let cookies = format_2::cookies(&headers);
        headers.remove("cookie");
        let context = format_2::Context {
            route_key: &route_key,
            stage: &self.stage,
            account: &self.account,
            api_id: &self.api_id,
            domain_name: &self.domain_name(),
            source_ip: &self.source_ip,
            request_id: &receipt.extended_request_id,
            raw_path: &format!("{stage}{path_of_request}"),
            raw_query: query,
            path_parameters,
        };
        Ok(format_2::event(context, request, headers, &cookies, receipt))
    }

    fn response(&self, body: &[u8], _: &str) -> Result<HttpResponse, MalformedResponse> {
        format_2::response(body)
    }

    fn failed(&self) -> HttpResponse {
        json_answer(500, r#"{"message":"Internal Server Error"}"#)
    }

    /// 503 and not 504: serverless/serverless#11222 has it from AWS.
    fn timed_out(&self) -> HttpResponse {
        json_answer(503, r#"{"message":"Service Unavailable"}"#)
    }

    fn too_large(&self) -> HttpResponse {
        json_answer(413, r#"{"message":"Request Entity Too Large"}"#)
    }

    fn timeout(&self) -> Option<Duration> {
        Some(self.timeout)
    }

    fn largest_body(&self) -> usize {
        LARGEST_BODY
    }
}

#[cfg(test)]
#[path = "http_api_tests.rs"]
mod tests;
