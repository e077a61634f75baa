//! An event that somebody else built, and what can be read from it.

use serde_json::Value;

/// What a proxy event says of its request. An event of another kind says nothing, which is no error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Literal {
    /// `httpMethod`, or `requestContext.http.method`.
    pub method: String,
    /// Path and query, percent-encoded.
    pub target: String,
    /// `Accept`, in any case.
    pub accept: String,
    /// `User-Agent`, in any case.
    pub user_agent: String,
    /// `X-Amzn-Trace-Id`, in any case.
    pub xray: Option<String>,
    /// `traceparent`, in any case.
    pub traceparent: Option<String>,
}

impl Literal {
    /// Reads an event.
    pub fn read(event: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let header = |name: &str| {
            let named = |key: &str| {
                let headers = event.get(key)?.as_object()?;
                let (_, value) = headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
                text(value).or_else(|| text(value.as_array()?.last()?))
            };
            named("headers").or_else(|| named("multiValueHeaders"))
        };
        let first = |pointers: &[&str]| pointers.iter().find_map(|pointer| text(event.pointer(pointer)?));
        let mut target = first(&["/path", "/rawPath"]).unwrap_or_default();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let several = event.get("multiValueQueryStringParameters").and_then(Value::as_object);
        for (name, values) in several.into_iter().flatten() {
            for value in values.as_array().into_iter().flatten().filter_map(Value::as_str) {
                query.append_pair(name, value);
            }
        }
        if several.is_none() {
            let single = event.get("queryStringParameters").and_then(Value::as_object);
            for (name, value) in single.into_iter().flatten() {
                query.append_pair(name, value.as_str().unwrap_or_default());
            }
        }
        let query = query.finish();
        if !query.is_empty() {
            target = format!("{target}?{query}");
        }
        Self {
            method: first(&["/httpMethod", "/requestContext/http/method"]).unwrap_or_default(),
            target,
            accept: header("accept").unwrap_or_default(),
            user_agent: header("user-agent").unwrap_or_default(),
            xray: header("x-amzn-trace-id"),
            traceparent: header("traceparent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn headers_are_found_in_any_case_and_in_either_map() {
        let event = json!({
            "httpMethod": "GET", "path": "/files/",
            "headers": { "x-amzn-trace-id": "Root=1-2-3" },
            "multiValueHeaders": { "USER-AGENT": ["first", "last"], "accept": ["image/png"] },
            "queryStringParameters": { "a": "2" },
            "multiValueQueryStringParameters": { "a": ["1", "2"], "b c": ["é"] },
        });
        let literal = Literal::read(&event);
        assert_eq!(literal.xray.as_deref(), Some("Root=1-2-3"));
        assert_eq!((literal.user_agent.as_str(), literal.accept.as_str()), ("last", "image/png"));
        assert_eq!(literal.target, "/files/?a=1&a=2&b+c=%C3%A9");
    }

    #[test]
    fn an_event_that_is_no_proxy_event_says_nothing() {
        assert_eq!(Literal::read(&json!({})), Literal::default());
        assert_eq!(Literal::read(&json!([1])), Literal::default());
    }
}
