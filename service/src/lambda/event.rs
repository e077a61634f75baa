//! What the invocation's span wants to know of an event, before `lambda_http` takes it apart.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

/// Method, route and headers of an event of API Gateway (REST and HTTP APIs) or a load balancer.
#[derive(Debug, Default)]
pub(super) struct GatewayEvent {
    /// Request method.
    pub method: Option<String>,
    /// The gateway's route, e.g. `/{proxy+}`; none for load balancers and for `$default`.
    pub route: Option<String>,
    /// Request headers.
    pub headers: HeaderMap,
}

impl GatewayEvent {
    /// Reads an event; one of another kind has none of it.
    pub(super) fn of(event: &[u8]) -> Self {
        let event: Value = serde_json::from_slice(event).unwrap_or_default();
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        // In HTTP APIs the route is `GET /files/{path}` or `$default`.
        let route_key =
            text("/requestContext/routeKey").and_then(|key| key.split_once(' ').map(|(_, route)| route.to_owned()));
        Self {
            method: text("/httpMethod").or_else(|| text("/requestContext/http/method")),
            route: text("/resource").or(route_key),
            headers: headers(&event),
        }
    }

    /// `{method} {route}`, as the gateway's own segment is named.
    pub(super) fn span_name(&self) -> Option<String> {
        let method = self.method.as_deref()?;
        Some(match &self.route {
            Some(route) => format!("{method} {route}"),
            None => method.to_owned(),
        })
    }
}

fn headers(event: &Value) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &Value| {
        if let (Ok(name), Some(Ok(value))) = (name.parse::<HeaderName>(), value.as_str().map(HeaderValue::from_str)) {
            headers.append(name, value);
        }
    };
    let entries = |name: &str| -> Option<Map<String, Value>> { event.get(name)?.as_object().cloned() };
    match entries("multiValueHeaders") {
        Some(entries) if !entries.is_empty() => {
            for (name, values) in &entries {
                values.as_array().into_iter().flatten().for_each(|value| add(name, value));
            }
        }
        _ => {
            for (name, value) in &entries("headers").unwrap_or_default() {
                add(name, value);
            }
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_event_is_named_by_method_and_resource() {
        let event = GatewayEvent::of(include_bytes!("../../tests/fixtures/documented-event.json"));
        assert_eq!(event.span_name().as_deref(), Some("GET /{proxy+}"));
        assert_eq!(event.headers["x-amzn-trace-id"], "Root=1-63dd9630-1f7ec6c948e660f220ef3c92");
    }

    #[test]
    fn an_event_of_an_http_api_is_named_by_its_route_key() {
        let event = GatewayEvent::of(
            br#"{"headers":{"a":"b"},"requestContext":{"routeKey":"GET /files/{path}","http":{"method":"GET"}}}"#,
        );
        assert_eq!(event.span_name().as_deref(), Some("GET /files/{path}"));
        assert_eq!(event.headers["a"], "b");
    }

    #[test]
    fn an_event_without_route_is_named_by_its_method() {
        let event = GatewayEvent::of(br#"{"requestContext":{"routeKey":"$default","http":{"method":"POST"}}}"#);
        assert_eq!(event.span_name().as_deref(), Some("POST"));
    }

    #[test]
    fn an_event_of_another_kind_has_no_name() {
        for other in [&b"{}"[..], b"[]", b"no json", br#"{"Records":[]}"#] {
            assert_eq!(GatewayEvent::of(other).span_name(), None);
        }
    }
}
