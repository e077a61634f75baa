//! A protobuf body, whatever is in it: the sink refuses what prost refuses, and takes the items that prost finds, with the
//! same ids in the same order. The same message as JSON gives the same.
//!
//! A reader of the wire that does not go by prost (an index over it) is held against prost here.

#![no_main]

mod otlp;

use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    metrics::v1::metric::Data,
};
use prost::Message;
use tracegate::capture::{Encoding, Signal};

fuzz_target!(|input: &[u8]| {
    let Some((signal, body)) = otlp::signal(input) else { return };
    let taken = otlp::taken(signal, Encoding::Protobuf, body);
    let expected = expected(signal, body);
    assert_eq!(taken.is_ok(), expected.is_ok(), "{taken:?}, by prost {expected:?}");
    let (Ok(taken), Ok(expected)) = (taken, expected) else { return };
    if signal == Signal::Logs {
        assert_eq!(taken.len(), expected.len());
    } else {
        assert_eq!(taken, expected);
    }
    let json = match signal {
        Signal::Traces => json::<ExportTraceServiceRequest>(body),
        Signal::Logs => json::<ExportLogsServiceRequest>(body),
        Signal::Metrics => json::<ExportMetricsServiceRequest>(body),
        // Profiles are counted and no more; `signal` chooses none.
        Signal::Profiles => return,
    };
    // What the crate's serde cannot write so that it reads it again is none of ours.
    let Some(json) = json else { return };
    let from_json = otlp::taken(signal, Encoding::Json, &json);
    let shown = String::from_utf8_lossy(&json);
    assert_eq!(from_json, Ok(taken), "{shown}");
});

fn json<M: Message + Default + PartialEq + serde::Serialize + serde::de::DeserializeOwned>(
    body: &[u8],
) -> Option<Vec<u8>> {
    let message = M::decode(body).ok()?;
    let json = serde_json::to_vec(&message).ok()?;
    // It writes a double that is no number as `null`, for one.
    let again: M = serde_json::from_slice(&json).ok()?;
    (again == message).then_some(json)
}

/// What is to be taken of it, by prost and the rules of the protocol; an error when it is no such message.
fn expected(signal: Signal, wire: &[u8]) -> Result<otlp::Items, String> {
    let mut items = Vec::new();
    let error = |error: prost::DecodeError| error.to_string();
    match signal {
        Signal::Traces => {
            let request = ExportTraceServiceRequest::decode(wire).map_err(error)?;
            for span in
                request.resource_spans.iter().flat_map(|group| &group.scope_spans).flat_map(|group| &group.spans)
            {
                let is = |id: &[u8], length| id.len() == length && id.iter().any(|byte| *byte != 0);
                let parent = &span.parent_span_id;
                // A parent of zeros says wrongly that there is none.
                let root = parent.is_empty() || (parent.len() == 8 && !is(parent, 8));
                if is(&span.trace_id, 16) && is(&span.span_id, 8) && (root || is(parent, 8)) {
                    let parent = if root { String::new() } else { digits(parent) };
                    items.push(format!(
                        "{} {} {parent} {:?}",
                        digits(&span.trace_id),
                        digits(&span.span_id),
                        span.name
                    ));
                }
            }
        }
        Signal::Logs => {
            let request = ExportLogsServiceRequest::decode(wire).map_err(error)?;
            let groups = request.resource_logs.iter().flat_map(|group| &group.scope_logs);
            items.extend(groups.flat_map(|group| &group.log_records).map(|_| String::new()));
        }
        Signal::Metrics => {
            let request = ExportMetricsServiceRequest::decode(wire).map_err(error)?;
            let groups = request.resource_metrics.iter().flat_map(|group| &group.scope_metrics);
            for metric in groups.flat_map(|group| &group.metrics) {
                let points = match &metric.data {
                    Some(Data::Gauge(data)) => data.data_points.len(),
                    Some(Data::Sum(data)) => data.data_points.len(),
                    Some(Data::Histogram(data)) => data.data_points.len(),
                    Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
                    Some(Data::Summary(data)) => data.data_points.len(),
                    None => 0,
                };
                items.push(format!("{:?} {points}", metric.name));
            }
        }
        Signal::Profiles => {}
    }
    Ok(items)
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
