//! Payload format 2.0, which HTTP APIs and function URLs share ("Create AWS Lambda proxy integrations for HTTP APIs in API
//! Gateway"; "Invoking Lambda function URLs", which says that it follows that schema).

use serde_json::{Map, Value, json};

use super::{
    super::{HttpRequest, HttpResponse},
    MalformedResponse, Receipt,
    fields::Fields,
    payload,
    proxy_response::{ProxyResponse, malformed},
};

/// What the two kinds fill in differently.
pub(super) struct Context<'a> {
    pub(super) route_key: &'a str,
    pub(super) stage: &'a str,
    pub(super) account: &'a str,
    pub(super) api_id: &'a str,
    pub(super) domain_name: &'a str,
    pub(super) source_ip: &'a str,
    pub(super) request_id: &'a str,
    pub(super) raw_path: &'a str,
    pub(super) raw_query: &'a str,
    /// `null` for none.
    pub(super) path_parameters: Value,
}

/// The event. `headers` are complete but for their order and case; `cookies` is what the client's `Cookie` says. A member
/// without a value is absent, never `null`.
pub(super) fn event(
    context: Context<'_>,
    request: &HttpRequest,
    headers: Fields,
    cookies: &[String],
    receipt: &Receipt,
) -> Value {
    let headers = headers.lower_case().sorted();
    let mut event = Map::new();
    let mut set = |name: &str, value: Value| event.insert(name.to_owned(), value);
    set("version", "2.0".into());
    set("routeKey", context.route_key.into());
    set("rawPath", context.raw_path.into());
    set("rawQueryString", context.raw_query.into());
    if !cookies.is_empty() {
        set("cookies", cookies.to_vec().into());
    }
    set("headers", headers.joined_values());
    let parameters = Fields::decoded_query(context.raw_query);
    if !parameters.is_empty() {
        set("queryStringParameters", parameters.joined_values());
    }
    let (time, time_epoch) = receipt.request_time();
    let context_of_request = json!({
        "accountId": context.account,
        "apiId": context.api_id,
        "domainName": context.domain_name,
        "domainPrefix": context.domain_name.split('.').next(),
        "http": {
            "method": request.method,
            "path": context.raw_path,
            "protocol": "HTTP/1.1",
            "sourceIp": context.source_ip,
            "userAgent": headers.last("user-agent")
        },
        "requestId": context.request_id,
        "routeKey": context.route_key,
        "stage": context.stage,
        "time": time,
        "timeEpoch": time_epoch
    });
    set("requestContext", context_of_request);
    if !context.path_parameters.is_null() {
        set("pathParameters", context.path_parameters);
    }
    let mut is_base64_encoded = false;
    if !request.body.is_empty() {
        let text = payload::is_text_for_format_2(headers.last("content-type").unwrap_or_default());
        let (body, encoded) = payload::encode(&request.body, text);
        set("body", body.into());
        is_base64_encoded = encoded;
    }
    set("isBase64Encoded", is_base64_encoded.into());
    Value::Object(event)
}

/// The cookies of a client's `Cookie` headers, one by one.
pub(super) fn cookies(headers: &Fields) -> Vec<String> {
    let values = headers.values("cookie").unwrap_or_default().iter();
    let cookies = values.flat_map(|value| value.split(';')).map(str::trim).filter(|cookie| !cookie.is_empty());
    cookies.map(str::to_owned).collect()
}

/// The answer for a function's response. A response without `statusCode` is the body of a 200 in JSON; a string stands
/// for itself.
pub(super) fn response(body: &[u8]) -> Result<HttpResponse, MalformedResponse> {
    let json = ("content-type".to_owned(), "application/json".to_owned());
    let value: Value = serde_json::from_slice(body).map_err(|error| malformed(format!("not JSON: {error}")))?;
    let response = match value {
        Value::Object(response) if response.contains_key("statusCode") => ProxyResponse::of(response),
        Value::String(text) => return Ok(HttpResponse { status: 200, headers: vec![json], body: text.into() }),
        inferred => {
            return Ok(HttpResponse { status: 200, headers: vec![json], body: inferred.to_string().into() });
        }
    };
    let status = response.status(true)?;
    let mut headers = response.headers()?.unwrap_or_default();
    match response.member("cookies") {
        None => {}
        Some(Value::Array(cookies)) => {
            for cookie in cookies {
                let cookie = cookie.as_str().ok_or_else(|| malformed(format!("cookies has {cookie}")))?;
                headers.push(("set-cookie".into(), cookie.to_owned()));
            }
        }
        Some(other) => return Err(malformed(format!("cookies is {other}"))),
    }
    if !headers.iter().any(|(name, _)| name == "content-type") {
        headers.push(json);
    }
    let body = response.body(response.is_base64_encoded()?.unwrap_or(false))?;
    Ok(HttpResponse { status, headers, body })
}
