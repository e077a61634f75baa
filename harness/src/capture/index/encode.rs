//! What was rewritten, made into an export request again: [`super::values`] backwards, so that a request and what it holds say
//! the same. Only tests of the gate itself rewrite.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value},
    logs::v1 as otlp_logs,
    metrics::v1 as otlp_metrics,
    resource::v1 as otlp_resource,
    trace::v1 as otlp_trace,
};
use prost::Message;

use crate::{
    capture::Decoded,
    telemetry::{
        Attributes, DataPoint, Exemplar, IdClaim, LogRecord, Metric, MetricKind, PointValue, Resource, Scope, Span,
        SpanKind, StatusCode, Temporality, Value, flatten,
    },
};

/// The protobuf bytes of an `Export…ServiceRequest` that decodes to this; `None` for profiles, of which only the number is
/// known.
pub(in crate::capture) fn encode(decoded: &Decoded) -> Option<Vec<u8>> {
    match decoded {
        Decoded::Spans(spans) => {
            let resource_spans = spans.iter().map(|sent| otlp_trace::ResourceSpans {
                resource: Some(resource(&sent.resource)),
                scope_spans: vec![otlp_trace::ScopeSpans {
                    scope: Some(scope(&sent.scope)),
                    spans: vec![span(sent)],
                    schema_url: sent.scope.schema_url.clone(),
                }],
                schema_url: sent.resource.schema_url.clone(),
            });
            Some(ExportTraceServiceRequest { resource_spans: resource_spans.collect() }.encode_to_vec())
        }
        Decoded::Logs(records) => {
            let resource_logs = records.iter().map(|sent| {
                let (of, within) = (sent.resource.as_deref(), sent.scope.as_deref());
                otlp_logs::ResourceLogs {
                    resource: of.map(resource),
                    scope_logs: vec![otlp_logs::ScopeLogs {
                        scope: within.map(scope),
                        log_records: vec![log_record(sent)],
                        schema_url: within.map(|scope| scope.schema_url.clone()).unwrap_or_default(),
                    }],
                    schema_url: of.map(|resource| resource.schema_url.clone()).unwrap_or_default(),
                }
            });
            Some(ExportLogsServiceRequest { resource_logs: resource_logs.collect() }.encode_to_vec())
        }
        Decoded::Metrics(metrics) => {
            let resource_metrics = metrics.iter().map(|sent| otlp_metrics::ResourceMetrics {
                resource: Some(resource(&sent.resource)),
                scope_metrics: vec![otlp_metrics::ScopeMetrics {
                    scope: Some(scope(&sent.scope)),
                    metrics: vec![metric(sent)],
                    schema_url: sent.scope.schema_url.clone(),
                }],
                schema_url: sent.resource.schema_url.clone(),
            });
            Some(ExportMetricsServiceRequest { resource_metrics: resource_metrics.collect() }.encode_to_vec())
        }
        Decoded::Profiles(_) => None,
    }
}

fn span(sent: &Span) -> otlp_trace::Span {
    let events = sent.events.iter().map(|event| otlp_trace::span::Event {
        time_unix_nano: event.time_unix_nano,
        name: event.name.clone(),
        attributes: attributes(&event.attributes),
        dropped_attributes_count: 0,
    });
    let links = sent.links.iter().map(|link| otlp_trace::span::Link {
        trace_id: bytes_of(&link.trace_id),
        span_id: bytes_of(&link.span_id),
        attributes: attributes(&link.attributes),
        ..Default::default()
    });
    otlp_trace::Span {
        trace_id: sent.trace_id.as_bytes().to_vec(),
        span_id: sent.span_id.as_bytes().to_vec(),
        trace_state: sent.trace_state.clone(),
        parent_span_id: sent.parent_span_id.map(|parent| parent.as_bytes().to_vec()).unwrap_or_default(),
        flags: sent.flags,
        name: sent.name.clone(),
        kind: match sent.kind {
            SpanKind::Unspecified => 0,
            SpanKind::Internal => 1,
            SpanKind::Server => 2,
            SpanKind::Client => 3,
            SpanKind::Producer => 4,
            SpanKind::Consumer => 5,
        },
        start_time_unix_nano: sent.start_unix_nano,
        end_time_unix_nano: sent.end_unix_nano,
        attributes: attributes(&sent.attributes),
        events: events.collect(),
        links: links.collect(),
        status: Some(otlp_trace::Status {
            message: sent.status.message.clone(),
            code: match sent.status.code {
                StatusCode::Unset => 0,
                StatusCode::Ok => 1,
                StatusCode::Error => 2,
            },
        }),
        ..Default::default()
    }
}

fn log_record(sent: &LogRecord) -> otlp_logs::LogRecord {
    // The fields of a structured body were flattened behind the attributes, and will be again.
    let of_body = match &sent.body {
        body @ (Value::Map(_) | Value::Array(_)) => flatten("", body).len(),
        _ => 0,
    };
    let attributes = sent.fields.iter().take(sent.fields.iter().count().saturating_sub(of_body));
    let severity = sent.severity.as_ref();
    otlp_logs::LogRecord {
        time_unix_nano: sent.time_unix_nano.unwrap_or_default(),
        severity_number: severity.map(|severity| i32::from(severity.number)).unwrap_or_default(),
        severity_text: severity.map(|severity| severity.text.clone()).unwrap_or_default(),
        body: any(&sent.body),
        attributes: attributes.map(|(key, value)| key_value(key, value)).collect(),
        trace_id: claimed(&sent.trace_id, 16, |id| id.as_bytes().to_vec()),
        span_id: claimed(&sent.span_id, 8, |id| id.as_bytes().to_vec()),
        ..Default::default()
    }
}

fn claimed<T>(claim: &IdClaim<T>, zeros: usize, bytes: impl Fn(&T) -> Vec<u8>) -> Vec<u8> {
    match claim {
        IdClaim::Absent => Vec::new(),
        IdClaim::Zero => vec![0; zeros],
        IdClaim::Malformed(text) => bytes_of(text),
        IdClaim::Valid(id) => bytes(id),
    }
}

fn metric(sent: &Metric) -> otlp_metrics::Metric {
    use otlp_metrics::metric::Data;
    let numbers = || sent.points.iter().map(number_point).collect();
    let data = match sent.kind {
        MetricKind::Empty => None,
        MetricKind::Gauge => Some(Data::Gauge(otlp_metrics::Gauge { data_points: numbers() })),
        MetricKind::Sum { monotonic, temporality: of } => Some(Data::Sum(otlp_metrics::Sum {
            data_points: numbers(),
            aggregation_temporality: temporality(of),
            is_monotonic: monotonic,
        })),
        MetricKind::Histogram(of) => Some(Data::Histogram(otlp_metrics::Histogram {
            data_points: sent.points.iter().map(histogram_point).collect(),
            aggregation_temporality: temporality(of),
        })),
        MetricKind::ExponentialHistogram(of) => Some(Data::ExponentialHistogram(otlp_metrics::ExponentialHistogram {
            data_points: sent.points.iter().map(exponential_point).collect(),
            aggregation_temporality: temporality(of),
        })),
        MetricKind::Summary => {
            Some(Data::Summary(otlp_metrics::Summary { data_points: sent.points.iter().map(summary_point).collect() }))
        }
    };
    otlp_metrics::Metric {
        name: sent.name.clone(),
        description: sent.description.clone(),
        unit: sent.unit.clone(),
        data,
        ..Default::default()
    }
}

fn number_point(point: &DataPoint) -> otlp_metrics::NumberDataPoint {
    use otlp_metrics::number_data_point::Value as Number;
    otlp_metrics::NumberDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: point.start_unix_nano,
        time_unix_nano: point.time_unix_nano,
        value: match point.value {
            PointValue::Int(number) => Some(Number::AsInt(number)),
            PointValue::Double(number) if !number.is_nan() => Some(Number::AsDouble(number)),
            _ => None,
        },
        exemplars: exemplars(&point.exemplars),
        ..Default::default()
    }
}

fn histogram_point(point: &DataPoint) -> otlp_metrics::HistogramDataPoint {
    let mut sent = otlp_metrics::HistogramDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: point.start_unix_nano,
        time_unix_nano: point.time_unix_nano,
        exemplars: exemplars(&point.exemplars),
        ..Default::default()
    };
    if let PointValue::Histogram { count, sum, bounds, bucket_counts } = &point.value {
        (sent.count, sent.sum) = (*count, *sum);
        (sent.explicit_bounds, sent.bucket_counts) = (bounds.clone(), bucket_counts.clone());
    }
    sent
}

/// The count and the sum that a distribution was read as.
fn distribution(point: &DataPoint) -> (u64, Option<f64>) {
    match point.value {
        PointValue::Distribution { count, sum } => (count, sum),
        _ => (0, None),
    }
}

fn exponential_point(point: &DataPoint) -> otlp_metrics::ExponentialHistogramDataPoint {
    let (count, sum) = distribution(point);
    otlp_metrics::ExponentialHistogramDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: point.start_unix_nano,
        time_unix_nano: point.time_unix_nano,
        count,
        sum,
        exemplars: exemplars(&point.exemplars),
        ..Default::default()
    }
}

fn summary_point(point: &DataPoint) -> otlp_metrics::SummaryDataPoint {
    let (count, sum) = distribution(point);
    otlp_metrics::SummaryDataPoint {
        attributes: attributes(&point.attributes),
        start_time_unix_nano: point.start_unix_nano,
        time_unix_nano: point.time_unix_nano,
        count,
        sum: sum.unwrap_or_default(),
        ..Default::default()
    }
}

fn exemplars(all: &[Exemplar]) -> Vec<otlp_metrics::Exemplar> {
    all.iter()
        .map(|exemplar| otlp_metrics::Exemplar {
            time_unix_nano: exemplar.time_unix_nano,
            trace_id: bytes_of(&exemplar.trace_id),
            span_id: bytes_of(&exemplar.span_id),
            ..Default::default()
        })
        .collect()
}

const fn temporality(of: Temporality) -> i32 {
    match of {
        Temporality::Unspecified => 0,
        Temporality::Delta => 1,
        Temporality::Cumulative => 2,
    }
}

fn bytes_of(digits: &str) -> Vec<u8> {
    hex::decode(digits).unwrap_or_default()
}

fn resource(of: &Resource) -> otlp_resource::Resource {
    otlp_resource::Resource { attributes: attributes(&of.attributes), ..Default::default() }
}

fn scope(of: &Scope) -> InstrumentationScope {
    InstrumentationScope {
        name: of.name.clone(),
        version: of.version.clone(),
        attributes: attributes(&of.attributes),
        dropped_attributes_count: 0,
    }
}

fn attributes(all: &Attributes) -> Vec<KeyValue> {
    all.iter().map(|(key, value)| key_value(key, value)).collect()
}

fn key_value(key: &str, value: &Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: any(value), ..Default::default() }
}

fn any(value: &Value) -> Option<AnyValue> {
    use any_value::Value as Any;
    let value = match value {
        Value::Empty => return None,
        Value::String(text) => Any::StringValue(text.clone()),
        Value::Bool(truth) => Any::BoolValue(*truth),
        Value::Int(number) => Any::IntValue(*number),
        Value::Double(number) => Any::DoubleValue(*number),
        Value::Bytes(bytes) => Any::BytesValue(bytes.clone()),
        Value::Array(values) => {
            Any::ArrayValue(ArrayValue { values: values.iter().map(|value| any(value).unwrap_or_default()).collect() })
        }
        Value::Map(entries) => Any::KvlistValue(KeyValueList {
            values: entries.iter().map(|(key, value)| key_value(key, value)).collect(),
        }),
    };
    Some(AnyValue { value: Some(value) })
}

#[cfg(test)]
mod tests {
    use super::{super::index, *};
    use crate::capture::{Encoding, Signal};

    /// What is encoded and decoded again, and what that gives when it is done once more.
    fn twice(signal: Signal, wire: &[u8]) -> (String, String) {
        let decode = |wire: Vec<u8>| index(signal, Encoding::Protobuf, &wire.into()).unwrap().index.decode();
        let once = decode(wire.to_vec());
        let again = decode(encode(&once).unwrap());
        (format!("{once:?}"), format!("{again:?}"))
    }

    #[test]
    fn what_is_encoded_decodes_to_what_it_was() {
        let text = |key: &str, text: &str| key_value(key, &Value::String(text.into()));
        let all = Value::Map(vec![
            ("a".into(), Value::Array(vec![Value::Int(-1), Value::Double(0.5), Value::Empty])),
            ("b".into(), Value::Bytes(vec![0, 255])),
            ("c".into(), Value::Bool(true)),
        ]);
        let of = otlp_resource::Resource { attributes: vec![text("service.name", "x")], ..Default::default() };
        let within = InstrumentationScope { name: "lib".into(), version: "1".into(), ..Default::default() };
        let sent = otlp_trace::Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            parent_span_id: vec![3; 8],
            trace_state: "a=b".into(),
            flags: 0x301,
            name: "GET /".into(),
            kind: 2,
            start_time_unix_nano: 5,
            end_time_unix_nano: 9,
            attributes: vec![key_value("all", &all)],
            events: vec![otlp_trace::span::Event { name: "exception".into(), time_unix_nano: 6, ..Default::default() }],
            links: vec![otlp_trace::span::Link { trace_id: vec![4; 16], span_id: vec![5; 8], ..Default::default() }],
            status: Some(otlp_trace::Status { message: "no".into(), code: 2 }),
            ..Default::default()
        };
        let traces = ExportTraceServiceRequest {
            resource_spans: vec![otlp_trace::ResourceSpans {
                resource: Some(of.clone()),
                scope_spans: vec![otlp_trace::ScopeSpans {
                    scope: Some(within.clone()),
                    spans: vec![sent],
                    schema_url: "s".into(),
                }],
                schema_url: "r".into(),
            }],
        };
        let (once, again) = twice(Signal::Traces, &traces.encode_to_vec());
        assert_eq!(once, again);

        let record = |body: Option<AnyValue>, trace_id: Vec<u8>| otlp_logs::LogRecord {
            time_unix_nano: 7,
            severity_number: 9,
            severity_text: "INFO".into(),
            body,
            attributes: vec![text("k", "v")],
            trace_id,
            span_id: vec![2; 8],
            ..Default::default()
        };
        let log_records = vec![
            record(any(&"said".into()), vec![1; 16]),
            record(any(&all), vec![0; 16]),
            record(None, vec![1; 3]),
            record(None, Vec::new()),
        ];
        let logs = ExportLogsServiceRequest {
            resource_logs: vec![otlp_logs::ResourceLogs {
                resource: Some(of),
                scope_logs: vec![otlp_logs::ScopeLogs { scope: Some(within), log_records, schema_url: String::new() }],
                schema_url: String::new(),
            }],
        };
        let (once, again) = twice(Signal::Logs, &logs.encode_to_vec());
        assert_eq!(once, again);
    }

    #[test]
    fn every_kind_of_metric_decodes_to_what_it_was() {
        use otlp_metrics::metric::Data;
        let number = |value| otlp_metrics::NumberDataPoint { value, time_unix_nano: 3, ..Default::default() };
        let values = [
            Some(otlp_metrics::number_data_point::Value::AsInt(2)),
            Some(otlp_metrics::number_data_point::Value::AsDouble(0.25)),
            None,
        ];
        let points: Vec<_> = values.into_iter().map(number).collect();
        let exemplar = otlp_metrics::Exemplar { trace_id: vec![1; 16], span_id: vec![2; 8], ..Default::default() };
        let kinds = [
            None,
            Some(Data::Gauge(otlp_metrics::Gauge { data_points: points.clone() })),
            Some(Data::Sum(otlp_metrics::Sum { data_points: points, aggregation_temporality: 1, is_monotonic: true })),
            Some(Data::Histogram(otlp_metrics::Histogram {
                data_points: vec![otlp_metrics::HistogramDataPoint {
                    count: 2,
                    sum: Some(1.5),
                    explicit_bounds: vec![1.0],
                    bucket_counts: vec![1, 1],
                    exemplars: vec![exemplar],
                    ..Default::default()
                }],
                aggregation_temporality: 2,
            })),
            Some(Data::ExponentialHistogram(otlp_metrics::ExponentialHistogram {
                data_points: vec![otlp_metrics::ExponentialHistogramDataPoint { count: 3, ..Default::default() }],
                aggregation_temporality: 0,
            })),
            Some(Data::Summary(otlp_metrics::Summary {
                data_points: vec![otlp_metrics::SummaryDataPoint { count: 4, sum: 0.5, ..Default::default() }],
            })),
        ];
        let metrics =
            kinds.map(|data| otlp_metrics::Metric { name: "m".into(), unit: "s".into(), data, ..Default::default() });
        let request = ExportMetricsServiceRequest {
            resource_metrics: vec![otlp_metrics::ResourceMetrics {
                scope_metrics: vec![otlp_metrics::ScopeMetrics { metrics: metrics.to_vec(), ..Default::default() }],
                ..Default::default()
            }],
        };
        let (once, again) = twice(Signal::Metrics, &request.encode_to_vec());
        assert_eq!(once, again);
    }
}
