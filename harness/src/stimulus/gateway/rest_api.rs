//! An edge-optimized API Gateway REST API with Lambda proxy integration (payload format 1.0).
//!
//! The event's fields are those of "Input format of a Lambda function for proxy integration" in the API Gateway
//! Developer Guide and of the documented event; the response's rules are those of "Output format …" there. Every media
//! type counts as binary (`binaryMediaTypes: */*`), so a body of any bytes goes through, both ways.

use std::time::SystemTime;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::super::{HttpRequest, HttpResponse};
use crate::{config, telemetry::TraceId};

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
}

/// What API Gateway and CloudFront make up for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// `requestContext.requestId`, a UUID.
    pub request_id: String,
    /// `requestContext.extendedRequestId`.
    pub extended_request_id: String,
    /// Host part of `Via`, without `.cloudfront.net`.
    pub distribution: String,
    /// `X-Amz-Cf-Id`.
    pub edge_request_id: String,
    /// When the request came in.
    pub time: SystemTime,
    /// Root of the `X-Amzn-Trace-Id` that API Gateway adds when the client sent none.
    pub root: TraceId,
}

impl Receipt {
    /// New ids, now; `root` is for a request without `X-Amzn-Trace-Id`.
    pub fn fresh(root: TraceId) -> Self {
        let bytes = |count: usize| (0..count).map(|_| rand::random::<u8>()).collect::<Vec<_>>();
        Self {
            request_id: uuid::Uuid::new_v4().to_string(),
            extended_request_id: STANDARD.encode(bytes(11)),
            distribution: hex::encode(bytes(16)),
            edge_request_id: STANDARD.encode(bytes(40)),
            time: SystemTime::now(),
            root,
        }
    }
}

/// The API has no resource for the path. API Gateway answers without invoking anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} does not fit the resource {resource}")]
pub struct NoRoute {
    /// Path of the request.
    pub path: String,
    /// The one resource there is.
    pub resource: String,
}

impl NoRoute {
    /// 403, as API Gateway has it for a path without a resource.
    pub fn response() -> HttpResponse {
        message(403, "Missing Authentication Token")
    }
}

/// The function's response is none that the proxy integration takes ("Malformed Lambda proxy response" in API Gateway's
/// execution log).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed Lambda proxy response: {0}")]
pub struct MalformedResponse(pub String);

impl RestApi {
    /// The API that a configuration describes. Addresses and numbers are those that are reserved for documentation.
    pub fn of(gateway: &config::Gateway, function: &config::Function) -> Self {
        Self {
            api_id: "a1b2c3d4e5".into(),
            resource_id: "f6g7h8".into(),
            stage: gateway.stage.clone(),
            resource: gateway.resource.clone(),
            region: function.region.clone(),
            account: function.account.clone(),
            source_ip: "203.0.113.10".into(),
            edge_ip: "198.51.100.20".into(),
            viewer_asn: "64496".into(),
            viewer_country: "US".into(),
        }
    }

    /// `{api}.execute-api.{region}.amazonaws.com`.
    pub fn domain_name(&self) -> String {
        format!("{}.execute-api.{}.amazonaws.com", self.api_id, self.region)
    }

    /// The event for a request. `user_agent` is sent when the request has no `User-Agent` of its own.
    ///
    /// `X-Amzn-Trace-Id` of the client is handed on as it is: without tracing on the stage, API Gateway makes no segment,
    /// so there is no other parent to name. Without one, API Gateway adds `Root=…` alone.
    ///
    /// # Errors
    ///
    /// When the path does not fit the resource.
    pub fn event(&self, request: &HttpRequest, user_agent: &str, receipt: &Receipt) -> Result<Value, NoRoute> {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let (resource, path_parameters) = self.route(path)?;
        let headers = self.headers(request, user_agent, receipt);
        let sent_user_agent = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("user-agent"));
        let sent_user_agent = sent_user_agent.and_then(|(_, values)| values.last()).cloned();
        let mut parameters: Vec<(String, Vec<String>)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match parameters.iter_mut().find(|(known, _)| *known == name) {
                Some((_, values)) => values.push(value.into_owned()),
                None => parameters.push((name.into_owned(), vec![value.into_owned()])),
            }
        }
        let (body, is_base64_encoded) = match std::str::from_utf8(&request.body) {
            Ok("") => (Value::Null, false),
            Ok(text) => (text.into(), false),
            Err(_) => (STANDARD.encode(&request.body).into(), true),
        };
        let time = jiff::Timestamp::try_from(receipt.time).unwrap_or_default();
        Ok(json!({
            "resource": resource,
            "path": path,
            "httpMethod": request.method,
            "headers": last_values(&headers),
            "multiValueHeaders": all_values(&headers),
            "queryStringParameters": if parameters.is_empty() { Value::Null } else { last_values(&parameters) },
            "multiValueQueryStringParameters": if parameters.is_empty() { Value::Null } else { all_values(&parameters) },
            "pathParameters": path_parameters,
            "stageVariables": null,
            "requestContext": {
                "resourceId": self.resource_id,
                "resourcePath": resource,
                "httpMethod": request.method,
                "extendedRequestId": receipt.extended_request_id,
                "requestTime": time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(),
                "path": format!("/{}{path}", self.stage),
                "accountId": self.account,
                "protocol": "HTTP/1.1",
                "stage": self.stage,
                "domainPrefix": self.api_id,
                "requestTimeEpoch": time.as_millisecond(),
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
                    "userAgent": sent_user_agent,
                    "user": null
                },
                "domainName": self.domain_name(),
                "apiId": self.api_id
            },
            "body": body,
            "isBase64Encoded": is_base64_encoded
        }))
    }

    /// Resource path and path parameters, which stay percent-encoded in a REST API.
    fn route(&self, path: &str) -> Result<(String, Value), NoRoute> {
        let no_route = || NoRoute { path: path.into(), resource: self.resource.clone() };
        let mut rest = path.strip_prefix('/').ok_or_else(no_route)?;
        let template = self.resource.strip_prefix('/').unwrap_or(&self.resource);
        if rest.is_empty() && (template.is_empty() || template == "{proxy+}") {
            return Ok(("/".into(), Value::Null));
        }
        let mut parameters = Map::new();
        let mut segments = template.split('/').peekable();
        while let Some(segment) = segments.next() {
            let name = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}'));
            let greedy = name.and_then(|name| name.strip_suffix('+'));
            let (value, behind) = match (greedy, segments.peek()) {
                (Some(_), _) => (rest, ""),
                (None, Some(_)) => rest.split_once('/').ok_or_else(no_route)?,
                (None, None) => (rest.strip_suffix('/').unwrap_or(rest), ""),
            };
            match greedy.or(name) {
                Some(_) if value.is_empty() || (greedy.is_none() && value.contains('/')) => return Err(no_route()),
                Some(name) => {
                    parameters.insert(name.into(), value.into());
                }
                None if value != segment => return Err(no_route()),
                None => {}
            }
            rest = behind;
        }
        let parameters = if parameters.is_empty() { Value::Null } else { parameters.into() };
        Ok((self.resource.clone(), parameters))
    }

    /// Headers as the function sees them: names as the client wrote them, sorted without regard to case as in events of
    /// API Gateway, and what CloudFront and API Gateway add.
    fn headers(&self, request: &HttpRequest, user_agent: &str, receipt: &Receipt) -> Vec<(String, Vec<String>)> {
        let mut headers: Vec<(String, Vec<String>)> = Vec::new();
        let mut add =
            |name: &str, value: String| match headers.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                Some((_, values)) => values.push(value),
                None => headers.push((name.into(), vec![value])),
            };
        let context = request.caller.headers(request.form);
        for (name, value) in &request.headers {
            if !NOT_HANDED_ON.contains(&name.to_ascii_lowercase().as_str()) {
                add(name, value.clone());
            }
        }
        for (name, value) in context {
            add(name, value);
        }
        let has = |headers: &[(String, Vec<String>)], name: &str| {
            headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        let root = receipt.root.to_string();
        for (name, value) in [
            ("User-Agent", user_agent.to_owned()),
            ("Host", self.domain_name()),
            ("X-Amzn-Trace-Id", format!("Root=1-{}-{}", &root[..8], &root[8..])),
        ] {
            if !has(&headers, name) {
                headers.push((name.into(), vec![value]));
            }
        }
        // What a client says of these is not believed.
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
            headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            headers.push((name.into(), vec![value.into()]));
        }
        // To these, each hop adds itself.
        for (name, value) in [
            ("Via", format!("2.0 {}.cloudfront.net (CloudFront)", receipt.distribution)),
            ("X-Forwarded-For", format!("{}, {}", self.source_ip, self.edge_ip)),
        ] {
            match headers.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
                Some((_, values)) => *values = vec![format!("{}, {value}", values.join(", "))],
                None => headers.push((name.into(), vec![value])),
            }
        }
        headers.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        headers
    }

    /// The answer that a client gets for a function's response.
    ///
    /// # Errors
    ///
    /// When it is no proxy response; the client then gets [`bad_gateway`](Self::bad_gateway).
    pub fn response(&self, body: &[u8]) -> Result<HttpResponse, MalformedResponse> {
        let malformed = |reason: String| MalformedResponse(reason);
        let response: Value = serde_json::from_slice(body).map_err(|error| malformed(format!("not JSON: {error}")))?;
        let Value::Object(response) = response else {
            return Err(malformed("not a JSON object".into()));
        };
        let status = match response.get("statusCode") {
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => text.parse().ok(),
            Some(_) => None,
            None => return Err(malformed("no statusCode".into())),
        };
        let status = status.and_then(|status| u16::try_from(status).ok()).filter(|status| (100..600).contains(status));
        let status = status.ok_or_else(|| malformed(format!("statusCode {} is none", response["statusCode"])))?;
        let mut headers: Vec<(String, String)> = Vec::new();
        let several = match response.get("multiValueHeaders") {
            None | Some(Value::Null) => &Map::new(),
            Some(Value::Object(several)) => several,
            Some(other) => return Err(malformed(format!("multiValueHeaders is {other}"))),
        };
        for (name, values) in several {
            let Value::Array(values) = values else {
                return Err(malformed(format!("multiValueHeaders.{name} is no array")));
            };
            for value in values {
                headers.push((name.to_ascii_lowercase(), header_value(name, value)?));
            }
        }
        match response.get("headers") {
            None | Some(Value::Null) => {}
            Some(Value::Object(single)) => {
                for (name, value) in single {
                    let pair = (name.to_ascii_lowercase(), header_value(name, value)?);
                    // Both lists are merged; a pair that is in both counts once.
                    if !headers.contains(&pair) {
                        headers.push(pair);
                    }
                }
            }
            Some(other) => return Err(malformed(format!("headers is {other}"))),
        }
        if !headers.iter().any(|(name, _)| name == "content-type") {
            headers.push(("content-type".into(), "application/json".into()));
        }
        let encoded = match response.get("isBase64Encoded") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(encoded)) => *encoded,
            Some(other) => return Err(malformed(format!("isBase64Encoded is {other}"))),
        };
        let body = match response.get("body") {
            None | Some(Value::Null) => Bytes::new(),
            Some(Value::String(text)) if encoded => STANDARD
                .decode(text)
                .map_err(|error| malformed(format!("isBase64Encoded is true and the body is not base64: {error}")))?
                .into(),
            Some(Value::String(text)) => Bytes::copy_from_slice(text.as_bytes()),
            Some(_) => return Err(malformed("the body is no string; serialize it".into())),
        };
        Ok(HttpResponse { status, headers, body })
    }

    /// What a client gets when the function failed or its response is malformed.
    pub fn bad_gateway() -> HttpResponse {
        message(502, "Internal server error")
    }
}

fn header_value(name: &str, value: &Value) -> Result<String, MalformedResponse> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        other => Err(MalformedResponse(format!("the header {name} is {other}"))),
    }
}

fn message(status: u16, text: &str) -> HttpResponse {
    HttpResponse {
        status,
        headers: vec![("content-type".into(), "application/json".into())],
        body: Bytes::from(format!(r#"{{"message": "{text}"}}"#)),
    }
}

fn last_values(entries: &[(String, Vec<String>)]) -> Value {
    let last = |(name, values): &(String, Vec<String>)| Some((name.clone(), values.last()?.clone().into()));
    Value::Object(entries.iter().filter_map(last).collect())
}

fn all_values(entries: &[(String, Vec<String>)]) -> Value {
    Value::Object(entries.iter().map(|(name, values)| (name.clone(), values.clone().into())).collect())
}

#[cfg(test)]
#[path = "rest_api_tests.rs"]
mod tests;
