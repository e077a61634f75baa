//! Whether a log record is correlated with the request that it belongs to.

use std::fmt;

use percent_encoding::percent_decode_str;

use super::{RequestEvidence, Stranger, request::is_ours};
use crate::{
    capture::stdout,
    telemetry::{IdClaim, LineFormat, LogRecord, Span, SpanId, SpanKind, TraceId, Value, embedded_json},
};

/// Why a record is not correlated: which of the five conditions it fails.
#[derive(Debug, Clone, PartialEq)]
pub enum Uncorrelated {
    /// (1) An id is absent, zero or malformed.
    NoIds {
        /// What it says of the trace.
        trace_id: IdClaim<TraceId>,
        /// What it says of the span.
        span_id: IdClaim<SpanId>,
    },
    /// (2) The span that it names was not received in the trace that it names.
    SpanNotReceived {
        /// The trace.
        trace_id: TraceId,
        /// The span.
        span_id: SpanId,
    },
    /// (3) The span that it names is one of another request.
    OtherRequest {
        /// The span.
        span_id: SpanId,
        /// The entry span above it, as `SERVER "GET /files/" (id)`.
        entry: String,
    },
    /// (3) The span that it names is in a trace that work of this request began.
    CutOff {
        /// The span.
        span_id: SpanId,
        /// The topmost span above it, as `INTERNAL "mail" (id)`.
        top: String,
    },
    /// (3) The request that it speaks of is not the one whose span it names.
    OtherContent {
        /// The field.
        field: String,
        /// What it says.
        said: String,
        /// What the request was.
        sent: String,
    },
    /// (4) The trace is not the caller's.
    OtherTrace {
        /// The trace that it names.
        found: TraceId,
        /// The caller's.
        caller: TraceId,
    },
    /// (5) It has the request id of another invocation.
    OtherInvocation {
        /// The request id that it has.
        found: String,
        /// The request's own.
        own: String,
    },
    /// (5) No span of the request has the request id.
    NoInvocationSpan {
        /// The request id.
        request_id: String,
    },
}

impl Uncorrelated {
    /// Which of the five conditions is not met.
    pub const fn condition(&self) -> u8 {
        match self {
            Self::NoIds { .. } => 1,
            Self::SpanNotReceived { .. } => 2,
            Self::OtherRequest { .. } | Self::CutOff { .. } | Self::OtherContent { .. } => 3,
            Self::OtherTrace { .. } => 4,
            Self::OtherInvocation { .. } | Self::NoInvocationSpan { .. } => 5,
        }
    }
}

impl fmt::Display for Uncorrelated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoIds { trace_id, span_id } => write!(f, "its trace id is {trace_id}, its span id is {span_id}"),
            Self::SpanNotReceived { trace_id, span_id } => {
                write!(f, "it names the span {span_id}, which was not received in the trace {trace_id}")
            }
            Self::OtherRequest { span_id, entry } => {
                write!(f, "it names the span {span_id}, which is of another request: {entry}")
            }
            Self::CutOff { span_id, top } => {
                write!(
                    f,
                    "it names the span {span_id}, which is not in the request's trace: {top} began one of its own"
                )
            }
            Self::OtherContent { field, said, sent } => {
                write!(f, "it speaks of another request: {field} is {said:?}, this request's is {sent:?}")
            }
            Self::OtherTrace { found, caller } => write!(f, "it names the trace {found}, the caller's is {caller}"),
            Self::OtherInvocation { found, own } => {
                write!(f, "its request id is {found:?}, the invocation's is {own:?}")
            }
            Self::NoInvocationSpan { request_id } => {
                write!(f, "no span of the request has the request id {request_id:?} as an attribute")
            }
        }
    }
}

/// Judges a record of a request by the five conditions, and names all that are not met.
///
/// 1. Its ids are neither absent nor zero nor malformed.
/// 2. The span that they name was received in that trace. Waived when the caller did not sample: that span rightly
///    never comes.
/// 3. That span, or the entry span above it, is the request that the record speaks of. A record that quotes a
///    User-Agent, or a method and a path with headers, must quote this request's.
/// 4. The trace is the caller's, when there was a caller.
/// 5. On Lambda, its request id leads to the same entry span. A line without ids in a form of Lambda's own runtimes is judged by
///    this condition alone. `requestId` alone may be another id, unless another invocation has it.
///
/// Text makes no claim, so it is correlated always.
///
/// # Errors
/// Every condition that is not met.
pub fn correlated(record: &LogRecord, evidence: &RequestEvidence) -> Result<(), Vec<Uncorrelated>> {
    if !record.format.is_structured() {
        return Ok(());
    }
    let mut failures = Vec::new();
    let no_ids = record.trace_id == IdClaim::Absent && record.span_id == IdClaim::Absent;
    let by_request_id = no_ids && is_of_lambdas_runtime(record) && evidence.request_id.is_some();
    if !by_request_id {
        if record.trace_id.valid().is_none() || record.span_id.valid().is_none() {
            let (trace_id, span_id) = (record.trace_id.clone(), record.span_id.clone());
            failures.push(Uncorrelated::NoIds { trace_id, span_id });
        }
        span_is_known_and_own(record, evidence, &mut failures);
        if let (Some(found), Some(caller)) = (record.trace_id.valid(), evidence.told_traces.first())
            && !evidence.told_traces.contains(&found)
        {
            failures.push(Uncorrelated::OtherTrace { found, caller: *caller });
        }
    }
    if let Some((field, said, sent)) = other_content(record, evidence) {
        failures.push(Uncorrelated::OtherContent { field, said, sent });
    }
    if let (Some(found), Some(own)) = (&record.request_id, &evidence.request_id) {
        if found != own {
            if names_an_invocation(record) || evidence.invocations.contains(found) {
                failures.push(Uncorrelated::OtherInvocation { found: found.clone(), own: own.clone() });
            }
        } else if by_request_id && evidence.sampled() && !has_request_id(evidence, own) {
            failures.push(Uncorrelated::NoInvocationSpan { request_id: own.clone() });
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures) }
}

/// The fields that Lambda's own runtimes write in their JSON format ("Using Lambda advanced logging controls").
const OF_THE_RUNTIME: [&str; 10] = [
    "timestamp",
    "level",
    "message",
    "requestId",
    "AWSRequestId",
    "logger",
    "errorType",
    "errorMessage",
    "stackTrace",
    "tenantId",
];

/// Whether a line has the form of one of Lambda's runtimes, which give a request id to what a function prints and know of no
/// trace: the tab form, and in the JSON format an object of nothing but the runtime's own fields.
pub fn is_of_lambdas_runtime(record: &LogRecord) -> bool {
    let own = |path: &str| OF_THE_RUNTIME.contains(&path.split('.').next().unwrap_or_default());
    record.request_id.is_some()
        && match record.format {
            LineFormat::LambdaTab => true,
            LineFormat::Json => {
                record.fields.iter().all(|(path, _)| own(path))
                    && ["timestamp", "level", "message"]
                        .iter()
                        .all(|name| record.fields.iter().any(|(path, _)| path.split('.').next() == Some(name)))
            }
            _ => false,
        }
}

/// Whether a record says itself that its request id is an invocation's. `requestId` alone may be a gateway's, or the service's own.
fn names_an_invocation(record: &LogRecord) -> bool {
    let said = |value: &Value| matches!(value, Value::String(text) if Some(text) == record.request_id.as_ref());
    record.format == LineFormat::LambdaTab
        || record.fields.iter().any(|(path, value)| stdout::names_an_invocation(path) && said(value))
}

/// Conditions 2 and 3, as far as ids go.
fn span_is_known_and_own(record: &LogRecord, evidence: &RequestEvidence, failures: &mut Vec<Uncorrelated>) {
    let (Some(trace_id), Some(span_id)) = (record.trace_id.valid(), record.span_id.valid()) else { return };
    if evidence.trace.position(trace_id, span_id).is_some() {
        return;
    }
    match evidence.outside.get(&(trace_id, span_id)) {
        Some(entry) => {
            let top = format!("{} {:?} ({})", entry.kind, entry.name, entry.span_id);
            let mut began_by_it = evidence.strangers.iter().filter_map(|stranger| match stranger {
                Stranger::OtherTrace { span } | Stranger::Detached { span } | Stranger::Repeated { span } => Some(span),
                _ => None,
            });
            // A call that was taken may be another client's.
            let cut_off = entry.kind != SpanKind::Server
                && began_by_it.any(|span| (span.trace_id, span.span_id) == (entry.trace_id, entry.span_id));
            failures.push(if cut_off {
                Uncorrelated::CutOff { span_id, top }
            } else {
                Uncorrelated::OtherRequest { span_id, entry: top }
            });
        }
        None if evidence.refused.contains(&(trace_id, span_id)) => {}
        None if evidence.sampled() => failures.push(Uncorrelated::SpanNotReceived { trace_id, span_id }),
        None => {}
    }
}

/// Condition 3, as far as content goes: the first field that quotes another request, what it says and what was sent.
fn other_content(record: &LogRecord, evidence: &RequestEvidence) -> Option<(String, String, String)> {
    // Records of an outgoing call quote that call's method, path and User-Agent.
    let named = record.named();
    let span = named.and_then(|(t, s)| evidence.trace.position(t, s)).map(|at| &evidence.trace.nodes()[at].span);
    if span.is_some_and(|span: &std::sync::Arc<Span>| matches!(span.kind, SpanKind::Client | SpanKind::Producer)) {
        return None;
    }
    let embedded = embedded_json(&record.message).map(|found| found.fields).unwrap_or_default();
    let mut fields = record.fields.iter().chain(embedded.iter().map(|(key, value)| (key.as_str(), value)));
    let mut quoted: Vec<(&str, &str)> = Vec::new();
    let mut quotes_headers = false;
    for (path, value) in fields.by_ref() {
        let path = path.strip_prefix("fields.").unwrap_or(path);
        quotes_headers |= path.starts_with("headers.");
        if let Value::String(text) = value {
            quoted.push((path, text));
        }
    }
    let get = |names: &[&str]| {
        quoted.iter().find(|(path, _)| names.iter().any(|name| path.eq_ignore_ascii_case(name))).copied()
    };
    let differs = |(field, said): (&str, &str), sent: &str| Some((field.to_owned(), said.to_owned(), sent.to_owned()));
    let agent = get(&["headers.user-agent", "headers.user_agent", "user_agent.original", "http.user_agent"]);
    // A record of a call out is written in the span of who makes it, and quotes that call. Another request of the harness's has a
    // User-Agent of the harness's.
    if is_ours(&evidence.user_agent) {
        let another = |(_, said): &(&str, &str)| is_ours(said) && *said != evidence.user_agent;
        return agent.filter(another).and_then(|said| differs(said, &evidence.user_agent));
    }
    if let Some(said) = agent.filter(|(_, said)| !evidence.user_agent.is_empty() && *said != evidence.user_agent) {
        return differs(said, &evidence.user_agent);
    }
    // `path` and `method` alone may be anything, a file and a function; beside headers they are a request's.
    let (method, path) = (get(&["method"])?, get(&["path"])?);
    if !quotes_headers {
        return None;
    }
    if !method.1.eq_ignore_ascii_case(&evidence.method) {
        return differs(method, &evidence.method);
    }
    if !same_path(path.1, &evidence.target) { differs(path, &evidence.target) } else { None }
}

/// Whether two paths are the same, apart from percent-encoding, the query, and a prefix that a gateway or a mount adds.
fn same_path(said: &str, target: &str) -> bool {
    let decode =
        |text: &str| percent_decode_str(text.split('?').next().unwrap_or_default()).decode_utf8_lossy().into_owned();
    let (said, target) = (decode(said), decode(target));
    let ends = |long: &str, short: &str| short.starts_with('/') && long.ends_with(short);
    ends(&said, &target) || ends(&target, &said)
}

fn has_request_id(evidence: &RequestEvidence, request_id: &str) -> bool {
    let mut spans = evidence.trace.nodes().iter().map(|node| &node.span);
    spans.any(|span| {
        !matches!(span.kind, SpanKind::Client | SpanKind::Producer)
            && super::request::REQUEST_ID.iter().any(|key| span.attributes.str(key) == Some(request_id))
    })
}

#[cfg(test)]
mod tests;
