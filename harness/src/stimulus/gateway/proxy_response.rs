//! The parts of a function's response, which all gateways read alike; which of them must be there differs.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value};

/// The function's response is none that the gateway takes ("Malformed Lambda proxy response" in API Gateway's execution
/// log, `LambdaInvalidResponse` as a load balancer's error reason).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed Lambda proxy response: {0}")]
pub struct MalformedResponse(pub String);

pub(super) fn malformed(reason: impl Into<String>) -> MalformedResponse {
    MalformedResponse(reason.into())
}

/// A response that is a JSON object.
pub(super) struct ProxyResponse(Map<String, Value>);

impl ProxyResponse {
    pub(super) fn parse(body: &[u8]) -> Result<Self, MalformedResponse> {
        match serde_json::from_slice(body).map_err(|error| malformed(format!("not JSON: {error}")))? {
            Value::Object(response) => Ok(Self(response)),
            _ => Err(malformed("not a JSON object")),
        }
    }

    pub(super) fn of(response: Map<String, Value>) -> Self {
        Self(response)
    }

    /// A member that is neither absent nor `null`.
    pub(super) fn member(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// Refuses members that are there and `null`, for gateways that take only absence for absence.
    pub(super) fn refuse_nulls(&self, names: &[&str]) -> Result<(), MalformedResponse> {
        let null = names.iter().find(|&&name| self.0.get(name).is_some_and(Value::is_null));
        null.map_or(Ok(()), |name| Err(malformed(format!("{name} is null; leave it out"))))
    }

    /// Refuses numbers and booleans as values of headers, in a map of values or of arrays of them.
    pub(super) fn refuse_untextual(&self, map: &str) -> Result<(), MalformedResponse> {
        let headers = self.member(map).and_then(Value::as_object).into_iter().flatten();
        for (name, value) in headers {
            let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
            if let Some(other) = values.iter().find(|value| !value.is_string()) {
                return Err(malformed(format!("the header {name} is {other}; write it as a string")));
            }
        }
        Ok(())
    }

    /// `statusCode`, a number or, with `in_text`, digits in a string.
    pub(super) fn status(&self, in_text: bool) -> Result<u16, MalformedResponse> {
        let given = self.0.get("statusCode").ok_or_else(|| malformed("no statusCode"))?;
        let status = match given {
            Value::Number(number) => number.as_u64(),
            Value::String(text) if in_text => text.parse().ok(),
            _ => None,
        };
        let status = status.and_then(|status| u16::try_from(status).ok()).filter(|status| (100..600).contains(status));
        status.ok_or_else(|| malformed(format!("statusCode {given} is none")))
    }

    /// `headers`, names in lower case; `None` when there are none.
    pub(super) fn headers(&self) -> Result<Option<Vec<(String, String)>>, MalformedResponse> {
        match self.member("headers") {
            None => Ok(None),
            Some(Value::Object(single)) => {
                let pairs = single.iter().map(|(name, value)| Ok((name.to_ascii_lowercase(), text(name, value)?)));
                pairs.collect::<Result<_, _>>().map(Some)
            }
            Some(other) => Err(malformed(format!("headers is {other}"))),
        }
    }

    /// `multiValueHeaders`, one pair for each value.
    pub(super) fn multi_value_headers(&self) -> Result<Option<Vec<(String, String)>>, MalformedResponse> {
        let several = match self.member("multiValueHeaders") {
            None => return Ok(None),
            Some(Value::Object(several)) => several,
            Some(other) => return Err(malformed(format!("multiValueHeaders is {other}"))),
        };
        let mut pairs = Vec::new();
        for (name, values) in several {
            let Value::Array(values) = values else {
                return Err(malformed(format!("multiValueHeaders.{name} is no array")));
            };
            for value in values {
                pairs.push((name.to_ascii_lowercase(), text(name, value)?));
            }
        }
        Ok(Some(pairs))
    }

    /// `isBase64Encoded`; `None` when it is not said.
    pub(super) fn is_base64_encoded(&self) -> Result<Option<bool>, MalformedResponse> {
        match self.member("isBase64Encoded") {
            None => Ok(None),
            Some(Value::Bool(encoded)) => Ok(Some(*encoded)),
            Some(other) => Err(malformed(format!("isBase64Encoded is {other}"))),
        }
    }

    /// `body`, decoded when `decode` says so; empty when there is none.
    pub(super) fn body(&self, decode: bool) -> Result<Bytes, MalformedResponse> {
        match self.member("body") {
            None => Ok(Bytes::new()),
            Some(Value::String(text)) if decode => STANDARD
                .decode(text)
                .map(Bytes::from)
                .map_err(|error| malformed(format!("isBase64Encoded is true and the body is not base64: {error}"))),
            Some(Value::String(text)) => Ok(Bytes::copy_from_slice(text.as_bytes())),
            Some(_) => Err(malformed("the body is no string; serialize it")),
        }
    }
}

/// A header's value, which may be a number or a boolean.
fn text(name: &str, value: &Value) -> Result<String, MalformedResponse> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        other => Err(malformed(format!("the header {name} is {other}"))),
    }
}
