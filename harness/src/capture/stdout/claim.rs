//! Which of a record's many fields are the ids of the record itself.

use crate::telemetry::{
    IdClaim, SpanId, TraceId, Value,
    xray::{self, Traceparent, XrayHeader},
};

/// What lies below one of these is data that the record quotes: a request's headers hold the ids of its *caller*.
/// `dd` is Datadog's own pair of ids, which are decimal and of another system.
const QUOTED: [&str; 16] = [
    "headers",
    "multivalueheaders",
    "requestheaders",
    "responseheaders",
    "event",
    "request",
    "response",
    "requestcontext",
    "body",
    "payload",
    "carrier",
    "baggage",
    "links",
    "query",
    "queryparams",
    "dd",
];

/// The ids of a record.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Claims {
    pub trace_id: IdClaim<TraceId>,
    pub span_id: IdClaim<SpanId>,
    pub request_id: Option<String>,
}

/// What a field with this name is; the lower, the surer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Trace,
    Traceparent,
    Xray,
    Span,
    Request,
    /// `requestId` alone: Lambda's in a record's own fields, somebody else's anywhere deeper.
    BareRequest,
}

/// Reads the ids out of flattened fields. Of several fields the surest name wins, then the shallowest path, and inside
/// tracing-subscriber's `spans` (outermost first) the last.
pub(super) fn discover<'a>(fields: impl IntoIterator<Item = (&'a str, &'a Value)>) -> Claims {
    let mut traces: Vec<((Role, usize, usize), IdClaim<TraceId>)> = Vec::new();
    let mut spans: Vec<((Role, usize, usize), IdClaim<SpanId>)> = Vec::new();
    let mut requests: Vec<((Role, usize, usize), String)> = Vec::new();
    for (index, (path, value)) in fields.into_iter().enumerate() {
        let Some((role, depth)) = role(path) else { continue };
        let Some(text) = id_text(value) else { continue };
        let order = if path.starts_with("spans.") { usize::MAX - index } else { index };
        let rank = (role, depth, order);
        match role {
            Role::Trace | Role::Xray => traces.push((rank, trace_claim(&text))),
            Role::Traceparent => {
                let parsed = text.parse::<Traceparent>();
                traces
                    .push((rank, parsed.as_ref().map_or_else(|_| trace_claim(&text), |p| IdClaim::Valid(p.trace_id))));
                if let Ok(parsed) = parsed {
                    spans.push((rank, IdClaim::Valid(parsed.parent_id)));
                }
            }
            Role::Span => spans.push(((Role::Trace, depth, order), IdClaim::parse(&text))),
            Role::Request => requests.push((rank, text)),
            Role::BareRequest if depth <= 1 => requests.push((rank, text)),
            Role::BareRequest => {}
        }
    }
    Claims {
        trace_id: best(traces.into_iter().filter(|(_, claim)| *claim != IdClaim::Absent)).unwrap_or_default(),
        span_id: best(spans.into_iter().filter(|(_, claim)| *claim != IdClaim::Absent)).unwrap_or_default(),
        request_id: best(requests.into_iter().filter_map(|(rank, text)| Some((rank, request_id(&text)?)))),
    }
}

/// Whether a field of this name holds a trace or a span id, for forms that are recognised by it.
pub(super) fn names_trace_or_span(key: &str) -> bool {
    role(key).is_some_and(|(role, _)| matches!(role, Role::Trace | Role::Xray | Role::Traceparent | Role::Span))
}

/// A request id as loggers write it; Node.js writes `undefined` before the first invocation.
pub(super) fn request_id(text: &str) -> Option<String> {
    let text = text.trim();
    let none = text.is_empty() || ["undefined", "null", "None", "-"].contains(&text);
    (!none).then(|| text.to_owned())
}

/// A trace id in any form that loggers write: 32 digits, `1-8-24`, an X-Ray header, a `traceparent`.
pub(super) fn trace_claim(text: &str) -> IdClaim<TraceId> {
    let text = text.trim();
    if let Ok(id) = xray::parse_trace_id(text) {
        return IdClaim::Valid(id);
    }
    if let Ok(header) = text.parse::<XrayHeader>() {
        return IdClaim::Valid(header.root);
    }
    if let Ok(parent) = text.parse::<Traceparent>() {
        return IdClaim::Valid(parent.trace_id);
    }
    if text.starts_with("1-") && text[2..].bytes().all(|byte| matches!(byte, b'0' | b'-')) {
        return IdClaim::Zero;
    }
    // Google Cloud's `projects/my-project/traces/ID`.
    IdClaim::parse(text.rsplit_once("/traces/").map_or(text, |(_, id)| id))
}

/// Whether a field of this name can only be the id of a Lambda invocation. `requestId` alone may be a gateway's, or an id of the
/// service's own.
pub(crate) fn names_an_invocation(path: &str) -> bool {
    role(path).is_some_and(|(role, _)| role == Role::Request)
}

fn role(path: &str) -> Option<(Role, usize)> {
    // Serilog's compact format; without its sign it would be any short name.
    match path {
        "@tr" => return Some((Role::Trace, 0)),
        "@sp" => return Some((Role::Span, 0)),
        _ => {}
    }
    let segments: Vec<String> = path
        .split(['.', '/'])
        .map(|segment| segment.chars().filter(|c| c.is_ascii_alphanumeric()).collect::<String>().to_ascii_lowercase())
        .collect();
    let (last, above) = segments.split_last()?;
    if above.iter().any(|segment| QUOTED.contains(&segment.as_str())) {
        return None;
    }
    let before = above.last().map_or("", String::as_str);
    let role = match (before, last.as_str()) {
        (_, "traceid" | "oteltraceid") | ("trace", "id") | ("com", "trace") => Role::Trace,
        (_, "spanid" | "otelspanid") | ("span", "id") => Role::Span,
        (_, "traceparent") => Role::Traceparent,
        (_, "xraytraceid" | "xamzntraceid" | "amzntraceid") => Role::Xray,
        (_, "awsrequestid" | "functionrequestid" | "lambdarequestid" | "invocationid")
        | ("lambda" | "faas" | "lambdacontext", "requestid")
        | ("faas", "execution") => Role::Request,
        (_, "requestid") => Role::BareRequest,
        _ => return None,
    };
    // `trace.id` is one name although it is two segments, and so is `fields.requestId` of tracing-subscriber.
    let named_by_two = before == "trace" || before == "span" || before == "fields";
    Some((role, above.len() - usize::from(named_by_two)))
}

fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        // Ids are never numbers; a number is shown as what it is, and 0 is a logger's "no span".
        Value::Int(_) | Value::Double(_) => Some(value.to_string()),
        Value::Bytes(bytes) => Some(hex::encode(bytes)),
        _ => None,
    }
}

fn best<R: Ord, T>(candidates: impl Iterator<Item = (R, T)>) -> Option<T> {
    candidates.min_by(|a, b| a.0.cmp(&b.0)).map(|(_, claim)| claim)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::telemetry::flatten;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn claims(record: serde_json::Value) -> Claims {
        let fields = flatten("", &Value::from(record));
        discover(fields.iter().map(|(path, value)| (path.as_str(), value)))
    }

    #[test]
    fn trace_ids_are_found_under_every_common_name() {
        for name in ["trace_id", "traceId", "TraceId", "traceid", "otelTraceID", "trace.id", "TRACE_ID", "@tr.trace-id"]
        {
            assert_eq!(claims(json!({ name: TRACE })).trace_id.valid(), TRACE.parse().ok(), "{name}");
        }
        assert_eq!(claims(json!({"trace": {"id": TRACE}, "span": {"id": SPAN}})).span_id.valid(), SPAN.parse().ok());
        assert_eq!(claims(json!({"fields": {"ctx": {"traceId": TRACE}}})).trace_id.valid(), TRACE.parse().ok());
    }

    #[test]
    fn trace_ids_are_found_in_every_common_form() {
        let xray = "1-4bf92f35-77b34da6a3ce929d0e0e4736";
        for (name, text) in [
            ("xray_trace_id", xray.to_owned()),
            ("trace_id", xray.to_owned()),
            ("xrayTraceId", format!("Root={xray};Parent={SPAN};Sampled=1")),
            ("X-Amzn-Trace-Id", format!("Root={xray}")),
            ("_X_AMZN_TRACE_ID", format!("Root={xray};Sampled=0")),
            ("traceparent", format!("00-{TRACE}-{SPAN}-01")),
            ("logging.googleapis.com/trace", format!("projects/p/traces/{TRACE}")),
        ] {
            assert_eq!(claims(json!({ name: text })).trace_id.valid(), TRACE.parse().ok(), "{name}");
        }
    }

    #[test]
    fn the_ids_of_a_quoted_request_are_not_those_of_the_record() {
        let quoted = json!({
            "headers": {"traceparent": format!("00-{TRACE}-{SPAN}-01"), "x-amzn-trace-id": "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736"},
            "event": {"requestContext": {"requestId": "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"}},
            "dd": {"trace_id": TRACE}, "dd.span_id": SPAN,
        });
        assert_eq!(claims(quoted), Claims::default());
    }

    #[test]
    fn of_several_claims_the_records_own_wins_over_xray_and_over_deeper_ones() {
        let other = "1-63dd9630-1f7ec6c948e660f220ef3c92";
        let found = claims(json!({"xray_trace_id": other, "spans": [{"trace_id": "0"}], "trace_id": TRACE}));
        assert_eq!(found.trace_id.valid(), TRACE.parse().ok());
        let spans = claims(json!({"spans": [{"span_id": "1111111111111111"}, {"span_id": SPAN}]}));
        assert_eq!(spans.span_id.valid(), SPAN.parse().ok());
    }

    #[test]
    fn zeros_and_rubbish_are_claims_and_an_empty_text_is_none() {
        assert_eq!(claims(json!({"trace_id": "0", "span_id": 0})).trace_id, IdClaim::Zero);
        assert_eq!(claims(json!({"trace_id": "0", "span_id": 0})).span_id, IdClaim::Zero);
        assert_eq!(claims(json!({"xray_trace_id": "1-00000000-000000000000000000000000"})).trace_id, IdClaim::Zero);
        assert_eq!(claims(json!({"trace_id": 12})).trace_id, IdClaim::Malformed("12".into()));
        assert_eq!(claims(json!({"trace_id": "", "span_id": null})), Claims::default());
        // An empty claim does not hide one that says something.
        assert_eq!(claims(json!({"trace_id": "", "otelTraceID": TRACE})).trace_id.valid(), TRACE.parse().ok());
    }

    #[test]
    fn request_ids_are_found_under_lambdas_names_only() {
        for record in [
            json!({"aws_request_id": "r"}),
            json!({"awsRequestId": "r"}),
            json!({"AWSRequestId": "r"}),
            json!({"requestId": "r"}),
            json!({"faas.invocation_id": "r"}),
            json!({"function_request_id": "r"}),
            json!({"lambda.request_id": "r"}),
            json!({"lambda": {"request_id": "r"}}),
            json!({"span": {"requestId": "r"}}),
        ] {
            assert_eq!(claims(record.clone()).request_id.as_deref(), Some("r"), "{record}");
        }
        for record in
            [json!({"s3": {"result": {"requestId": "r"}}}), json!({"requestId": "undefined"}), json!({"id": "r"})]
        {
            assert_eq!(claims(record.clone()).request_id, None, "{record}");
        }
    }
}
