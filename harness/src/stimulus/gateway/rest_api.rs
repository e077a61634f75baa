//! An edge-optimized API Gateway REST API with Lambda proxy integration (payload format 1.0).
//!
//! The event's fields are those of "Input format of a Lambda function for proxy integration" in the API Gateway
//! Developer Guide and of the documented event; the response's rules are those of "Output format …" there. Which bodies
//! travel in base64 is said by `binaryMediaTypes` ("Working with binary media types for REST APIs").

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    super::{HttpRequest, HttpResponse},
    Gateway, MalformedResponse, Receipt, Refusal,
    fields::Fields,
    json_answer, payload,
    proxy_response::ProxyResponse,
    routes,
};
use crate::config;

/// Headers that API Gateway does not hand on (API Gateway Developer Guide, "Important notes", HTTP headers).
const NOT_HANDED_ON: [&str; 9] = [
    "connection",
    "expect",
    "keep-alive",
    "max-forwards",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A deployed REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestApi {
    /// First label of the domain name.
    pub api_id: String,
    /// Id of the resource that the method belongs to.
    pub resource_id: String,
    /// Stage: in `requestContext.path` and not in `path`.
    pub stage: String,
    /// Resource path, `/{proxy+}` or `/files/{path}`. A greedy resource comes with one for `/`, as the AWS CDK's
    /// `LambdaRestApi` makes it.
    pub resource: String,
    /// AWS region, in the domain name.
    pub region: String,
    /// AWS account.
    pub account: String,
    /// Address of the client.
    pub source_ip: String,
    /// Address of the CloudFront edge.
    pub edge_ip: String,
    /// Autonomous system of the client, as CloudFront says.
    pub viewer_asn: String,
    /// Country of the client, likewise.
    pub viewer_country: String,
    /// `binaryMediaTypes`; `*/*` stands for all.
    pub binary_media_types: Vec<String>,
    /// Integration timeout.
    pub timeout: Duration,
}

/// Default and, in most accounts, largest integration timeout of a REST API.
const TIMEOUT: Duration = Duration::from_secs(29);

/// Largest request body of API Gateway ("Quotas", payload size).
pub(super) const LARGEST_BODY: usize = 10 * 1024 * 1024;

impl RestApi {
    /// The API that a configuration describes.
    pub(super) fn of(gateway: &config::Gateway, function: &config::Function) -> Self {
        Self {
            api_id: "a1b2c3d4e5".into(),
            resource_id: "f6g7h8".into(),
            stage: gateway.stage.clone().unwrap_or_else(|| "prod".into()),
            resource: gateway.resource.clone().unwrap_or_else(|| "/{proxy+}".into()),
            region: function.region.clone(),
            account: function.account.clone(),
            source_ip: "203.0.113.10".into(),
            edge_ip: "198.51.100.20".into(),
            viewer_asn: "64496".into(),
            viewer_country: "US".into(),
            binary_media_types: gateway.binary_media_types.clone(),
            timeout: gateway.timeout.unwrap_or(TIMEOUT),
        }
    }

    /// `{api}.execute-api.{region}.amazonaws.com`.
    pub fn domain_name(&self) -> String {
        format!("{}.execute-api.{}.amazonaws.com", self.api_id, self.region)
    }

    /// Resource path and path parameters, which stay percent-encoded in a REST API.
    fn route(&self, path: &str) -> Option<(String, Value)> {
        // Beside a greedy resource at the root there is one for `/`.
        if path == "/" && matches!(self.resource.as_str(), "/" | "/{proxy+}") {
            return Some(("/".into(), Value::Null));
        }
        routes::parameters(&self.resource, path).map(|parameters| (self.resource.clone(), parameters))
    }

    /// Headers as the function sees them: names as the client wrote them, sorted without regard to case as in events of
    /// API Gateway, and what CloudFront and API Gateway add.
    ///
    /// `X-Amzn-Trace-Id` of the client is handed on as it is: without tracing on the stage, API Gateway makes no segment,
    /// so there is no other parent to name. Without one, API Gateway adds `Root=…` alone.
    fn headers(&self, request: &HttpRequest, user_agent: &str, receipt: &Receipt) -> Fields {
        let mut headers = Fields::headers(request, &NOT_HANDED_ON);
        headers.default_to("User-Agent", user_agent);
        headers.default_to("Host", self.domain_name());
        headers.default_to("X-Amzn-Trace-Id", receipt.xray_root());
        for (name, value) in [
            ("CloudFront-Forwarded-Proto", "https"),
            ("CloudFront-Is-Desktop-Viewer", "true"),
            ("CloudFront-Is-Mobile-Viewer", "false"),
            ("CloudFront-Is-SmartTV-Viewer", "false"),
            ("CloudFront-Is-Tablet-Viewer", "false"),
            ("CloudFront-Viewer-ASN", &self.viewer_asn),
            ("CloudFront-Viewer-Country", &self.viewer_country),
            ("X-Amz-Cf-Id", &receipt.edge_request_id),
            ("X-Forwarded-Port", "443"),
            ("X-Forwarded-Proto", "https"),
        ] {
            headers.set(name, value);
        }
        headers.append_hop("Via", &format!("2.0 {}.cloudfront.net (CloudFront)", receipt.distribution));
        headers.append_hop("X-Forwarded-For", &format!("{}, {}", self.source_ip, self.edge_ip));
        headers.sorted()
    }

    fn is_binary(&self, media_type: &str) -> bool {
        let essence = payload::essence(media_type);
        self.binary_media_types.iter().any(|binary| binary == "*/*" || binary.eq_ignore_ascii_case(&essence))
    }
}

impl Gateway for RestApi {
    fn event(&self, request: &HttpRequest, user_agent: &str, receipt: &Receipt) -> Result<Value, Refusal> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let (resource, path_parameters) = self.route(path).ok_or_else(|| Refusal {
            reason: format!("{path} does not fit the resource {}", self.resource),
            response: json_answer(403, r#"{"message": "Missing Authentication Token"}"#),
        })?;
        let headers = self.headers(request, user_agent, receipt);
        let parameters = Fields::decoded_query(query);
        let (body, is_base64_encoded) = if request.body.is_empty() {
            (Value::Null, false)
        } else if self.is_binary(headers.last("content-type").unwrap_or_default()) {
            let (body, encoded) = payload::encode(&request.body, false);
            (body.into(), encoded)
        } else {
            // What is no text comes out damaged, which is what happens without `binaryMediaTypes`.
            (String::from_utf8_lossy(&request.body).into(), false)
        };
        let (request_time, request_time_epoch) = receipt.request_time();
        Ok(json!({
            "resource": resource,
            "path": path,
            "httpMethod": request.method,
            "headers": headers.last_values(),
            "multiValueHeaders": headers.all_values(),
            "queryStringParameters": if parameters.is_empty() { Value::Null } else { parameters.last_values() },
            "multiValueQueryStringParameters": if parameters.is_empty() { Value::Null } else { parameters.all_values() },
            "pathParameters": path_parameters,
            "stageVariables": null,
            "requestContext": {
                "resourceId": self.resource_id,
                "resourcePath": resource,
                "httpMethod": request.method,
                "extendedRequestId": receipt.extended_request_id,
                "requestTime": request_time,
                "path": format!("/{}{path}", self.stage),
                "accountId": self.account,
                "protocol": "HTTP/1.1",
                "stage": self.stage,
                "domainPrefix": self.api_id,
                "requestTimeEpoch": request_time_epoch,
                "requestId": receipt.request_id,
                "identity": {
                    "cognitoIdentityPoolId": null,
                    "accountId": null,
                    "cognitoIdentityId": null,
                    "caller": null,
                    "sourceIp": self.source_ip,
                    "principalOrgId": null,
                    "accessKey": null,
                    "cognitoAuthenticationType": null,
                    "cognitoAuthenticationProvider": null,
                    "userArn": null,
                    "userAgent": headers.last("user-agent"),
                    "user": null
                },
                "domainName": self.domain_name(),
                "apiId": self.api_id
            },
            "body": body,
            "isBase64Encoded": is_base64_encoded
        }))
    }

    /// The body is decoded when `isBase64Encoded` says so and the first media type of `Accept` counts as binary.
    fn response(&self, body: &[u8], accept: &str) -> Result<HttpResponse, MalformedResponse> {
        let response = ProxyResponse::parse(body)?;
        let status = response.status(true)?;
        let mut headers = response.multi_value_headers()?.unwrap_or_default();
        for pair in response.headers()?.unwrap_or_default() {
            // Both lists are merged; a pair that is in both counts once.
            if !headers.contains(&pair) {
                headers.push(pair);
            }
        }
        if !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".into(), "application/json".into()));
        }
        let encoded = response.is_base64_encoded()?.unwrap_or(false);
        let accepted = accept.split(',').next().unwrap_or_default();
        let body = response.body(encoded && self.is_binary(accepted))?;
        Ok(HttpResponse { status, headers, body })
    }

    fn failed(&self) -> HttpResponse {
        json_answer(502, r#"{"message": "Internal server error"}"#)
    }

    fn timed_out(&self) -> HttpResponse {
        json_answer(504, r#"{"message": "Endpoint request timed out"}"#)
    }

    fn too_large(&self) -> HttpResponse {
        json_answer(413, r#"{"message": "Request Too Long"}"#)
    }

    fn timeout(&self) -> Option<Duration> {
        Some(self.timeout)
    }

    fn largest_body(&self) -> usize {
        LARGEST_BODY
    }
}

#[cfg(test)]
#[path = "rest_api_tests.rs"]
mod tests;
