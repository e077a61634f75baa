//! Messages of the protocol made into the values of [`crate::telemetry`], with every id checked.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    logs::v1 as otlp_logs,
    metrics::v1 as otlp_metrics,
    resource::v1 as otlp_resource,
    trace::v1 as otlp_trace,
};

use crate::telemetry::{
    Arrival, Attributes, DataPoint, Exemplar, IdClaim, IdError, LineFormat, LogOrigin, LogRecord, MAX_FIELDS, Metric,
    MetricKind, PointValue, Resource, Scope, Severity, Span, SpanEvent, SpanId, SpanKind, SpanLink, Status, StatusCode,
    Temporality, TraceId, Value, flatten,
};

/// A span, with its ids checked; what is wrong and does not keep it from being used goes to `faults`.
///
/// # Errors
/// A sentence that names the span and says why it cannot be used.
pub(super) fn span(
    sent: otlp_trace::Span,
    resource: &Arc<Resource>,
    scope: &Arc<Scope>,
    faults: &mut Vec<String>,
) -> Result<Span, String> {
    let wrong = |which: &str, bytes: &[u8], error: IdError| {
        let service = resource.service_name().map(|name| format!(" of {name}")).unwrap_or_default();
        let shown = if bytes.is_empty() { String::new() } else { format!(" ({})", hex::encode(bytes)) };
        format!("span {:?}{service}: {which} is {error}{shown}", sent.name)
    };
    let trace_id = TraceId::from_bytes(&sent.trace_id).map_err(|error| wrong("trace id", &sent.trace_id, error))?;
    let span_id = SpanId::from_bytes(&sent.span_id).map_err(|error| wrong("span id", &sent.span_id, error))?;
    let parent_span_id = match sent.parent_span_id.as_slice() {
        [] => None,
        bytes => match SpanId::from_bytes(bytes) {
            Ok(parent) => Some(parent),
            // Which span it hangs on is said wrongly but clearly: on none. The field "must be empty" then.
            Err(IdError::Zero) => {
                faults.push(wrong("parent span id", bytes, IdError::Zero) + "; taken as a root span");
                None
            }
            Err(error) => return Err(wrong("parent span id", bytes, error)),
        },
    };
    let status = sent.status.unwrap_or_default();
    Ok(Span {
        trace_id,
        span_id,
        parent_span_id,
        trace_state: sent.trace_state,
        flags: sent.flags,
        name: sent.name,
        kind: match sent.kind {
            1 => SpanKind::Internal,
            2 => SpanKind::Server,
            3 => SpanKind::Client,
            4 => SpanKind::Producer,
            5 => SpanKind::Consumer,
            _ => SpanKind::Unspecified,
        },
        start_unix_nano: sent.start_time_unix_nano,
        end_unix_nano: sent.end_time_unix_nano,
        attributes: attributes(sent.attributes),
        events: sent
            .events
            .into_iter()
            .map(|event| SpanEvent {
                name: event.name,
                time_unix_nano: event.time_unix_nano,
                attributes: attributes(event.attributes),
            })
            .collect(),
        links: sent
            .links
            .into_iter()
            .map(|link| SpanLink {
                trace_id: hex::encode(link.trace_id),
                span_id: hex::encode(link.span_id),
                attributes: attributes(link.attributes),
            })
            .collect(),
        status: Status {
            code: match status.code {
                1 => StatusCode::Ok,
                2 => StatusCode::Error,
                _ => StatusCode::Unset,
            },
            message: status.message,
        },
        resource: resource.clone(),
        scope: scope.clone(),
        arrival: Arrival::default(),
    })
}

/// Says which ids of a record are none.
pub(super) fn log_faults(record: &LogRecord, faults: &mut Vec<String>) {
    for (which, malformed) in [
        ("trace id", matches!(record.trace_id, IdClaim::Malformed(_)).then(|| record.trace_id.to_string())),
        ("span id", matches!(record.span_id, IdClaim::Malformed(_)).then(|| record.span_id.to_string())),
    ] {
        if let Some(claim) = malformed {
            faults.push(format!("log record {:?}: {which} is {claim}", excerpt(&record.message)));
        }
    }
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// Where loggers put Lambda's request id.
const REQUEST_ID_KEYS: [&str; 4] = ["faas.invocation_id", "aws.request_id", "aws_request_id", "requestId"];

pub(super) fn log_record(sent: otlp_logs::LogRecord, resource: &Arc<Resource>, scope: &Arc<Scope>) -> LogRecord {
    let body = value(sent.body);
    let raw = match &body {
        Value::Empty => String::new(),
        other => other.to_string(),
    };
    let attributes = attributes(sent.attributes);
    let structured = matches!(body, Value::Map(_) | Value::Array(_)).then_some(("", &body));
    let fields = attributes.iter().chain(structured).flat_map(|(key, value)| flatten(key, value));
    LogRecord {
        origin: LogOrigin::Otlp,
        format: LineFormat::Otlp,
        arrival: Arrival::default(),
        time_unix_nano: [sent.time_unix_nano, sent.observed_time_unix_nano].into_iter().find(|&time| time != 0),
        severity: (sent.severity_number != 0 || !sent.severity_text.is_empty()).then(|| Severity {
            number: u8::try_from(sent.severity_number).unwrap_or_default(),
            text: sent.severity_text,
        }),
        logger: scope.name.clone(),
        message: raw.clone(),
        fields: fields.take(MAX_FIELDS).collect(),
        trace_id: claim(&sent.trace_id, TraceId::from_bytes),
        span_id: claim(&sent.span_id, SpanId::from_bytes),
        request_id: REQUEST_ID_KEYS.iter().find_map(|key| attributes.str(key)).map(str::to_owned),
        raw,
        body,
        resource: Some(resource.clone()),
        scope: Some(scope.clone()),
    }
}

fn claim<T>(bytes: &[u8], id: impl Fn(&[u8]) -> Result<T, IdError>) -> IdClaim<T> {
    if bytes.is_empty() {
        IdClaim::Absent
    } else if bytes.iter().all(|&byte| byte == 0) {
        IdClaim::Zero
    } else {
        id(bytes).map_or_else(|_| IdClaim::Malformed(hex::encode(bytes)), IdClaim::Valid)
    }
}

pub(super) fn metric(sent: otlp_metrics::Metric, resource: &Arc<Resource>, scope: &Arc<Scope>) -> Metric {
    use otlp_metrics::metric::Data;
    let (kind, points) = match sent.data {
        None => (MetricKind::Empty, Vec::new()),
        Some(Data::Gauge(gauge)) => (MetricKind::Gauge, gauge.data_points.into_iter().map(number_point).collect()),
        Some(Data::Sum(sum)) => (
            MetricKind::Sum { monotonic: sum.is_monotonic, temporality: temporality(sum.aggregation_temporality) },
            sum.data_points.into_iter().map(number_point).collect(),
        ),
        Some(Data::Histogram(histogram)) => (
            MetricKind::Histogram(temporality(histogram.aggregation_temporality)),
            histogram.data_points.into_iter().map(histogram_point).collect(),
        ),
        Some(Data::ExponentialHistogram(histogram)) => (
            MetricKind::ExponentialHistogram(temporality(histogram.aggregation_temporality)),
            histogram
                .data_points
                .into_iter()
                .map(|point| DataPoint {
                    attributes: attributes(point.attributes),
                    start_unix_nano: point.start_time_unix_nano,
                    time_unix_nano: point.time_unix_nano,
                    value: PointValue::Distribution { count: point.count, sum: point.sum },
                    exemplars: exemplars(point.exemplars),
                })
                .collect(),
        ),
        Some(Data::Summary(summary)) => (
            MetricKind::Summary,
            summary
                .data_points
                .into_iter()
                .map(|point| DataPoint {
                    attributes: attributes(point.attributes),
                    start_unix_nano: point.start_time_unix_nano,
                    time_unix_nano: point.time_unix_nano,
                    value: PointValue::Distribution { count: point.count, sum: Some(point.sum) },
                    exemplars: Vec::new(),
                })
                .collect(),
        ),
    };
    Metric {
        name: sent.name,
        unit: sent.unit,
        description: sent.description,
        kind,
        points,
        resource: resource.clone(),
        scope: scope.clone(),
        arrival: Arrival::default(),
    }
}

fn number_point(point: otlp_metrics::NumberDataPoint) -> DataPoint {
    use otlp_metrics::number_data_point::Value as Number;
    DataPoint {
        attributes: attributes(point.attributes),
        start_unix_nano: point.start_time_unix_nano,
        time_unix_nano: point.time_unix_nano,
        value: match point.value {
            Some(Number::AsInt(number)) => PointValue::Int(number),
            Some(Number::AsDouble(number)) => PointValue::Double(number),
            None => PointValue::Double(f64::NAN),
        },
        exemplars: exemplars(point.exemplars),
    }
}

fn histogram_point(point: otlp_metrics::HistogramDataPoint) -> DataPoint {
    DataPoint {
        attributes: attributes(point.attributes),
        start_unix_nano: point.start_time_unix_nano,
        time_unix_nano: point.time_unix_nano,
        value: PointValue::Histogram {
            count: point.count,
            sum: point.sum,
            bounds: point.explicit_bounds,
            bucket_counts: point.bucket_counts,
        },
        exemplars: exemplars(point.exemplars),
    }
}

fn exemplars(sent: Vec<otlp_metrics::Exemplar>) -> Vec<Exemplar> {
    sent.into_iter()
        .map(|exemplar| Exemplar {
            trace_id: hex::encode(exemplar.trace_id),
            span_id: hex::encode(exemplar.span_id),
            time_unix_nano: exemplar.time_unix_nano,
        })
        .collect()
}

const fn temporality(number: i32) -> Temporality {
    match number {
        1 => Temporality::Delta,
        2 => Temporality::Cumulative,
        _ => Temporality::Unspecified,
    }
}

pub(super) fn resource(sent: Option<otlp_resource::Resource>, schema_url: String) -> Arc<Resource> {
    Arc::new(Resource { attributes: attributes(sent.unwrap_or_default().attributes), schema_url })
}

pub(super) fn scope(sent: Option<InstrumentationScope>, schema_url: String) -> Arc<Scope> {
    let sent = sent.unwrap_or_default();
    Arc::new(Scope { name: sent.name, version: sent.version, attributes: attributes(sent.attributes), schema_url })
}

fn attributes(sent: Vec<KeyValue>) -> Attributes {
    sent.into_iter().map(|entry| (entry.key, value(entry.value))).collect()
}

fn value(sent: Option<AnyValue>) -> Value {
    use any_value::Value as Any;
    match sent.and_then(|any| any.value) {
        // An index into the string table of profiles: "process the data as if this value were absent".
        None | Some(Any::StringValueStrindex(_)) => Value::Empty,
        Some(Any::StringValue(text)) => Value::String(text),
        Some(Any::BoolValue(truth)) => Value::Bool(truth),
        Some(Any::IntValue(number)) => Value::Int(number),
        Some(Any::DoubleValue(number)) => Value::Double(number),
        Some(Any::BytesValue(bytes)) => Value::Bytes(bytes),
        Some(Any::ArrayValue(array)) => {
            Value::Array(array.values.into_iter().map(|element| value(Some(element))).collect())
        }
        Some(Any::KvlistValue(list)) => {
            Value::Map(list.values.into_iter().map(|entry| (entry.key, value(entry.value))).collect())
        }
    }
}
