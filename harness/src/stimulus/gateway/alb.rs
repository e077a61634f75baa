//! An Application Load Balancer with a Lambda function as target, with single or multi-value headers.
//!
//! Sources: "Use Lambda functions as targets of an Application Load Balancer", "Request tracing for your Application Load
//! Balancer", "HTTP headers and Application Load Balancers" and "Troubleshoot your Application Load Balancers" in the
//! Elastic Load Balancing guide.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{
    super::{HttpRequest, HttpResponse},
    Gateway, MalformedResponse, Receipt, Refusal,
    fields::Fields,
    payload,
    proxy_response::{ProxyResponse, malformed},
};
use crate::config;

/// Largest request body and largest response, in bytes.
const LARGEST: usize = 1024 * 1024;

/// Headers that speak of one message on one connection, and not of the request.
const NOT_HANDED_ON: [&str; 3] = ["expect", "te", "transfer-encoding"];

/// A load balancer with one target group that holds the function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alb {
    /// `requestContext.elb.targetGroupArn`.
    pub target_group_arn: String,
    /// Host name of the load balancer.
    pub host: String,
    /// Address of the client.
    pub source_ip: String,
    /// Whether `lambda.multi_value_headers.enabled` is set in the target group.
    pub multi_value: bool,
    /// How long a client is let wait, when that is to be less than the function's own timeout.
    pub timeout: Option<Duration>,
}

impl Alb {
    /// A load balancer in front of a function.
    pub(super) fn of(gateway: &config::Gateway, function: &config::Function, multi_value: bool) -> Self {
        let (region, account) = (&function.region, &function.account);
        Self {
            target_group_arn: format!(
                "arn:aws:elasticloadbalancing:{region}:{account}:targetgroup/{}/6d0ecf831eec9f09",
                function.name
            ),
            host: format!("lambda-846800462.{region}.elb.amazonaws.com"),
            source_ip: "203.0.113.10".into(),
            multi_value,
            timeout: gateway.timeout,
        }
    }

    /// The client's `X-Amzn-Trace-Id` with the load balancer's own id in `Self`: one that was there is replaced, the rest
    /// is preserved. Without a `Root`, the load balancer adds one.
    fn trace_header(sent: Option<&str>, receipt: &Receipt) -> String {
        let Some(sent) = sent else { return receipt.xray_root() };
        let fields: Vec<&str> = sent.split(';').map(str::trim).filter(|field| !field.starts_with("Self=")).collect();
        let fields = fields.join(";");
        if !sent.split(';').any(|field| field.trim().starts_with("Root=")) {
            let root = receipt.xray_root();
            return if fields.is_empty() { root } else { format!("{root};{fields}") };
        }
        let seconds = receipt.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        format!("Self=1-{seconds:08x}-{};{fields}", receipt.own)
    }
}

impl Gateway for Alb {
    fn event(&self, request: &HttpRequest, user_agent: &str, receipt: &Receipt) -> Result<Value, Refusal> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let mut headers = Fields::headers(request, &NOT_HANDED_ON);
        if headers.values("upgrade").is_some() {
            let reason = "a load balancer does not upgrade connections to functions".into();
            return Err(Refusal { reason, response: html(400, "Bad Request") });
        }
        headers.default_to("User-Agent", user_agent);
        headers.default_to("Host", self.host.as_str());
        let trace = Self::trace_header(headers.last("x-amzn-trace-id"), receipt);
        headers.set("X-Amzn-Trace-Id", trace);
        headers.set("X-Forwarded-Port", "443");
        headers.set("X-Forwarded-Proto", "https");
        headers.append_hop("X-Forwarded-For", &self.source_ip);
        let headers = headers.lower_case().sorted();
        let parameters = Fields::raw_query(query);
        let mut event = Map::new();
        event.insert("requestContext".into(), json!({ "elb": { "targetGroupArn": self.target_group_arn } }));
        event.insert("httpMethod".into(), request.method.clone().into());
        event.insert("path".into(), path.into());
        if self.multi_value {
            event.insert("multiValueQueryStringParameters".into(), parameters.all_values());
            event.insert("multiValueHeaders".into(), headers.all_values());
        } else {
            event.insert("queryStringParameters".into(), parameters.last_values());
            event.insert("headers".into(), headers.last_values());
        }
        let content_type = headers.last("content-type").unwrap_or_default();
        let text = headers.values("content-encoding").is_none() && payload::is_text_for_alb(content_type);
        let (body, is_base64_encoded) =
            if request.body.is_empty() { (String::new(), false) } else { payload::encode(&request.body, text) };
        event.insert("body".into(), body.into());
        event.insert("isBase64Encoded".into(), is_base64_encoded.into());
        Ok(Value::Object(event))
    }

    /// "The response from your Lambda function must include the Base64 encoding status, status code, and headers", says the
    /// guide, but load balancers take a response without the first and the last: Go's own type leaves them out
    /// (aws/aws-lambda-go#438). What they do not take is `null` for one of them, and a header that is no text. Of `headers` and
    /// `multiValueHeaders` only the one that the target group is set to is read.
    fn response(&self, body: &[u8], _: &str) -> Result<HttpResponse, MalformedResponse> {
        if body.len() > LARGEST {
            return Err(malformed(format!("the response has {} bytes; the limit is {LARGEST}", body.len())));
        }
        let response = ProxyResponse::parse(body)?;
        let status = response.status(false)?;
        let read = if self.multi_value { "multiValueHeaders" } else { "headers" };
        response.refuse_nulls(&[read, "isBase64Encoded", "statusDescription", "body"])?;
        response.refuse_untextual(read)?;
        let headers = if self.multi_value { response.multi_value_headers()? } else { response.headers()? };
        let headers = headers.unwrap_or_default();
        let encoded = response.is_base64_encoded()?.unwrap_or(false);
        match response.member("statusDescription") {
            None => {}
            Some(Value::String(description)) if description.starts_with(&status.to_string()) => {}
            Some(other) => return Err(malformed(format!("statusDescription {other} does not begin with {status}"))),
        }
        Ok(HttpResponse { status, headers, body: response.body(encoded)? })
    }

    fn failed(&self) -> HttpResponse {
        html(502, "Bad Gateway")
    }

    fn timed_out(&self) -> HttpResponse {
        html(504, "Gateway Time-out")
    }

    fn too_large(&self) -> HttpResponse {
        html(413, "Request Entity Too Large")
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    fn largest_body(&self) -> usize {
        LARGEST
    }
}

/// A load balancer's own page.
fn html(status: u16, reason: &str) -> HttpResponse {
    let page = format!(
        "<html>\r\n<head><title>{status} {reason}</title></head>\r\n<body>\r\n\
         <center><h1>{status} {reason}</h1></center>\r\n</body>\r\n</html>\r\n"
    );
    let headers = vec![("server".into(), "awselb/2.0".into()), ("content-type".into(), "text/html".into())];
    HttpResponse { status, headers, body: Bytes::from(page) }
}

#[cfg(test)]
#[path = "alb_tests.rs"]
mod tests;
