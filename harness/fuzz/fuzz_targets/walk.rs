//! The walk over a protobuf body against prost: both refuse it, or both take it with the same items; and each item that is
//! decoded by itself, out of a store, is what it is within the whole request: with the same ids and content, the same
//! resource and the same scope. A field or message that comes twice counts as prost has it.

#![no_main]

mod otlp;

use std::{collections::HashMap, sync::Arc};

use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1::Resource as SentResource,
};
use prost::Message;
use tracegate::{
    capture::{Encoding, Signal, Store, index::index},
    telemetry::{Attributes, Resource, Scope, Span, TraceId},
};

fuzz_target!(|input: &[u8]| {
    let Some((signal, body)) = otlp::signal(input) else { return };
    let body = bytes::Bytes::copy_from_slice(body);
    let walked = index(signal, Encoding::Protobuf, &body);
    match signal {
        Signal::Logs => {
            let whole = ExportLogsServiceRequest::decode(&body[..]);
            assert_eq!(walked.is_ok(), whole.is_ok(), "{walked:?}, by prost {whole:?}");
            let (Ok(contents), Ok(whole)) = (walked, whole) else { return };
            let mut expected = Vec::new();
            for group in &whole.resource_logs {
                for scope in &group.scope_logs {
                    let sender = sent(&group.resource, &group.schema_url, &scope.scope, &scope.schema_url);
                    expected.extend(scope.log_records.iter().map(|record| {
                        let time = [record.time_unix_nano, record.observed_time_unix_nano];
                        let time = time.into_iter().find(|time| *time != 0);
                        // Attributes become fields, flattened and up to a limit: the target `flatten` judges that.
                        format!("{time:?} {} {sender}", valid(&record.trace_id, 16))
                    }));
                }
            }
            store(signal, body, contents).look(|capture| {
                let found = capture.logs().iter().map(|record| {
                    let (resource, scope) = (record.resource.as_ref().unwrap(), record.scope.as_ref().unwrap());
                    let trace = record.trace_id.valid().map(|id| id.to_string()).unwrap_or_default();
                    format!("{:?} {trace} {}", record.time_unix_nano, sender(resource, scope))
                });
                assert_eq!(found.collect::<Vec<_>>(), expected);
                let named = capture.logs().iter().filter_map(|record| record.trace_id.valid());
                for trace in named {
                    let all = capture.logs().iter().filter(|record| record.trace_id.valid() == Some(trace));
                    let found: Vec<_> = capture.logs_of(trace).map(Arc::as_ptr).collect();
                    assert_eq!(found, all.map(Arc::as_ptr).collect::<Vec<_>>());
                }
            });
        }
        Signal::Metrics => {
            let whole = ExportMetricsServiceRequest::decode(&body[..]);
            assert_eq!(walked.is_ok(), whole.is_ok(), "{walked:?}, by prost {whole:?}");
            let (Ok(contents), Ok(whole)) = (walked, whole) else { return };
            let mut expected = Vec::new();
            for group in &whole.resource_metrics {
                for scope in &group.scope_metrics {
                    let sender = sent(&group.resource, &group.schema_url, &scope.scope, &scope.schema_url);
                    expected.extend(
                        scope.metrics.iter().map(|metric| format!("{:?} {:?} {sender}", metric.name, metric.unit)),
                    );
                }
            }
            store(signal, body, contents).look(|capture| {
                let found = capture.metrics().iter().map(|metric| {
                    format!("{:?} {:?} {}", metric.name, metric.unit, sender(&metric.resource, &metric.scope))
                });
                assert_eq!(found.collect::<Vec<_>>(), expected);
            });
        }
        _ => {
            let whole = ExportTraceServiceRequest::decode(&body[..]);
            assert_eq!(walked.is_ok(), whole.is_ok(), "{walked:?}, by prost {whole:?}");
            let (Ok(contents), Ok(whole)) = (walked, whole) else { return };
            let mut expected = Vec::new();
            let mut refused = 0;
            for group in &whole.resource_spans {
                for scope in &group.scope_spans {
                    let sender = sent(&group.resource, &group.schema_url, &scope.scope, &scope.schema_url);
                    for span in &scope.spans {
                        let ids = [valid(&span.trace_id, 16), valid(&span.span_id, 8), valid(&span.parent_span_id, 8)];
                        let no_parent = span.parent_span_id.is_empty() || span.parent_span_id == [0; 8];
                        if ids[0].is_empty() || ids[1].is_empty() || (ids[2].is_empty() && !no_parent) {
                            refused += 1;
                            continue;
                        }
                        let status = span.status.clone().unwrap_or_default();
                        expected.push(format!(
                            "{ids:?} {:?} {} {} {:?} {:?} {} {} {:?} {sender}",
                            span.name,
                            span.start_time_unix_nano,
                            span.end_time_unix_nano,
                            span.trace_state,
                            keys(&span.attributes),
                            span.events.len(),
                            span.links.len(),
                            status.message,
                        ));
                    }
                }
            }
            assert_eq!(contents.rejected, refused);
            store(signal, body, contents).look(|capture| {
                assert_eq!(capture.spans().iter().map(|span| shown(span)).collect::<Vec<_>>(), expected);
                let mut traces: HashMap<TraceId, Vec<*const Span>> = HashMap::new();
                for span in capture.spans() {
                    traces.entry(span.trace_id).or_default().push(Arc::as_ptr(span));
                    assert_eq!(capture.span(span.trace_id, span.span_id).unwrap().span_id, span.span_id);
                }
                for (trace, spans) in traces {
                    assert_eq!(capture.spans_of(trace).map(Arc::as_ptr).collect::<Vec<_>>(), spans);
                    let told: Vec<_> = capture.spans().only(|row| row.is_in(trace)).map(Arc::as_ptr).collect();
                    assert_eq!(told, spans);
                }
                let roots = capture.spans().only(|row| row.is_root()).count();
                assert_eq!(roots, capture.spans().iter().filter(|span| span.parent_span_id.is_none()).count());
            });
        }
    }
});

fn store(signal: Signal, body: bytes::Bytes, contents: tracegate::capture::index::Contents) -> Store {
    let store = Store::default();
    store.add_export(otlp::request(signal, body), contents.index, contents.faults);
    store
}

fn shown(span: &Span) -> String {
    let parent = span.parent_span_id.map(|id| id.to_string()).unwrap_or_default();
    let ids = [span.trace_id.to_string(), span.span_id.to_string(), parent];
    format!(
        "{ids:?} {:?} {} {} {:?} {:?} {} {} {:?} {}",
        span.name,
        span.start_unix_nano,
        span.end_unix_nano,
        span.trace_state,
        names(&span.attributes),
        span.events.len(),
        span.links.len(),
        span.status.message,
        sender(&span.resource, &span.scope),
    )
}

fn sender(resource: &Resource, scope: &Scope) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        names(&resource.attributes),
        resource.schema_url,
        scope.name,
        scope.version,
        names(&scope.attributes),
        scope.schema_url
    )
}

fn sent(resource: &Option<SentResource>, url: &str, scope: &Option<InstrumentationScope>, scope_url: &str) -> String {
    let (resource, scope) = (resource.clone().unwrap_or_default(), scope.clone().unwrap_or_default());
    format!(
        "{:?} {url:?} {:?} {:?} {:?} {scope_url:?}",
        keys(&resource.attributes),
        scope.name,
        scope.version,
        keys(&scope.attributes)
    )
}

fn names(attributes: &Attributes) -> Vec<&str> {
    attributes.iter().map(|(key, _)| key).collect()
}

fn keys(attributes: &[KeyValue]) -> Vec<&str> {
    attributes.iter().map(|entry| entry.key.as_str()).collect()
}

/// The digits of an id, or nothing.
fn valid(bytes: &[u8], length: usize) -> String {
    let valid = bytes.len() == length && bytes.iter().any(|byte| *byte != 0);
    if valid { bytes.iter().map(|byte| format!("{byte:02x}")).collect() } else { String::new() }
}
