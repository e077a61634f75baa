//! What the sink makes of an export request. This is the only place that knows how the sink is called.

#![allow(dead_code, reason = "each target has a module of its own and uses a part of it")]

use tracegate::{
    capture::{Decoded, Encoding, ExportRequest, Signal, Transport, index::index},
    telemetry::Arrival,
};

/// The items of a request in order, each with what it is told apart by.
pub type Items = Vec<String>;

/// The signal that an input's first byte chooses, and the rest.
pub fn signal(input: &[u8]) -> Option<(Signal, &[u8])> {
    let (first, rest) = input.split_first()?;
    let signals = [Signal::Traces, Signal::Logs, Signal::Metrics];
    Some((signals[usize::from(*first) % signals.len()], rest))
}

/// What the sink takes of a body; an error when it refuses all of it.
pub fn taken(signal: Signal, encoding: Encoding, body: &[u8]) -> Result<Items, String> {
    let contents = index(signal, encoding, &body.to_vec().into()).map_err(|error| error.to_string())?;
    assert!(contents.rejected as usize <= contents.faults.len(), "each item that is left out is named");
    Ok(match contents.index.decode() {
        Decoded::Spans(spans) => {
            let parent = |id: Option<_>| id.map_or(String::new(), |id: tracegate::telemetry::SpanId| id.to_string());
            let named = spans.iter().map(|span| {
                format!("{} {} {} {:?}", span.trace_id, span.span_id, parent(span.parent_span_id), span.name)
            });
            named.collect()
        }
        Decoded::Logs(records) => {
            records.iter().map(|record| format!("{:?} {:?}", record.trace_id, record.span_id)).collect()
        }
        Decoded::Metrics(metrics) => {
            metrics.iter().map(|metric| format!("{:?} {}", metric.name, metric.points.len())).collect()
        }
        Decoded::Profiles(count) => vec![String::new(); count],
    })
}

/// The request that brought a protobuf body.
pub fn request(signal: Signal, body: bytes::Bytes) -> ExportRequest {
    ExportRequest {
        signal,
        transport: Transport::Http,
        encoding: Encoding::Protobuf,
        user_agent: String::new(),
        body,
        arrival: Arrival::default(),
    }
}
