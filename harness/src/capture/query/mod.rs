//! Questions to a store, answered in OTLP/JSON: what was sent, cut down to what is asked for.
//!
//! A trace is found by the store's index; everything else is looked for from the latest request backwards, on bytes that
//! were taken out of the store, so that nothing that arrives has to wait.

mod api;
mod filter;
mod guard;
mod parameters;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use prost::Message;

use self::filter::Cut;
use super::{
    Capture, Encoding, ExportRequest, Signal, Store, file,
    sink::{json, to_json::to_json},
};

/// Environment variable that gives both sides of a query its token.
pub const TOKEN_VARIABLE: &str = "TRACEGATE_TOKEN";

pub use api::{Api, PATH};
pub use filter::Filter;

/// What of a signal is in the store: the latest `most` items that `filter` lets through, in the order in which they came,
/// as one export request in OTLP/JSON. Of profiles nothing can be asked.
pub(super) fn answer(store: &Store, signal: Signal, filter: &Filter, most: usize) -> Result<String, String> {
    let requests = store.look(|capture| candidates(capture, signal, filter));
    match signal {
        Signal::Traces => collect::<ExportTraceServiceRequest>(signal, requests, filter, most),
        Signal::Logs => collect::<ExportLogsServiceRequest>(signal, requests, filter, most),
        Signal::Metrics => collect::<ExportMetricsServiceRequest>(signal, requests, filter, most),
        Signal::Profiles => Err("profiles are counted, and kept as they came".into()),
    }
}

/// The requests that may hold what is asked for. Bodies are shared with the store, not copied.
fn candidates(capture: &Capture, signal: Signal, filter: &Filter) -> Vec<ExportRequest> {
    let requests = capture.requests();
    let Some(trace) = filter.trace else {
        return requests.iter().filter(|request| request.signal == signal).cloned().collect();
    };
    let arrivals: BTreeSet<u64> = match signal {
        Signal::Traces => capture.spans_of(trace).map(|span| span.arrival.seq).collect(),
        Signal::Logs => capture.logs_of(trace).map(|record| record.arrival.seq).collect(),
        Signal::Metrics | Signal::Profiles => BTreeSet::new(),
    };
    let found = arrivals.into_iter().filter_map(|seq| requests.binary_search_by_key(&seq, |at| at.arrival.seq).ok());
    found.map(|place| requests[place].clone()).collect()
}

fn collect<M: Cut>(
    signal: Signal,
    requests: Vec<ExportRequest>,
    filter: &Filter,
    most: usize,
) -> Result<String, String> {
    let mut found = Vec::new();
    let mut left = most;
    for request in requests.iter().rev() {
        if left == 0 {
            break;
        }
        let mut message: M = decode(request)?;
        let kept = message.cut(filter, left);
        left -= kept;
        if kept > 0 {
            found.push(message);
        }
    }
    let mut all = M::default();
    for message in found {
        all.prepend(message);
    }
    to_json(signal, &all.encode_to_vec())
}

fn decode<M: Message + Default>(request: &ExportRequest) -> Result<M, String> {
    let wire = match request.encoding {
        Encoding::Protobuf => request.body.clone(),
        Encoding::Json => Bytes::from(json::to_protobuf(request.signal, &request.body)?),
    };
    M::decode(wire).map_err(|error| error.to_string())
}

/// What of one request the filter lets through, as a line; `None` for nothing.
fn line(request: &ExportRequest, filter: Option<&Filter>) -> Result<Option<String>, String> {
    fn cut<M: Cut>(request: &ExportRequest, filter: &Filter) -> Result<Option<String>, String> {
        let mut message: M = decode(request)?;
        let kept = message.cut(filter, usize::MAX);
        (kept > 0).then(|| to_json(request.signal, &message.encode_to_vec())).transpose()
    }
    let Some(filter) = filter else { return file::line(request).map(Some) };
    match request.signal {
        Signal::Traces => cut::<ExportTraceServiceRequest>(request, filter),
        Signal::Logs => cut::<ExportLogsServiceRequest>(request, filter),
        // A metric is of no trace.
        Signal::Metrics if filter.trace.is_none() => cut::<ExportMetricsServiceRequest>(request, filter),
        Signal::Metrics | Signal::Profiles => Ok(None),
    }
}

/// How many requests and items of each signal came since the start, what was wrong, and what had to be dropped.
pub(super) fn counts(capture: &Capture) -> serde_json::Value {
    let of = |signal| {
        let received = capture.received(signal);
        serde_json::json!({"requests": received.requests, "items": received.items})
    };
    serde_json::json!({
        "traces": of(Signal::Traces),
        "logs": of(Signal::Logs),
        "metrics": of(Signal::Metrics),
        "profiles": of(Signal::Profiles),
        "faults": capture.faults().len(),
        "dropped": capture.dropped(),
    })
}
