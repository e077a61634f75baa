use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, any_value},
};
use prost::Message as _;

use super::*;

fn fixtures(file: &str) -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/reference/telemetry");
    let mut lines = Vec::new();
    for capture in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(capture.unwrap().path().join(file)).unwrap();
        lines.extend(text.lines().map(str::to_owned));
    }
    assert!(!lines.is_empty());
    lines
}

/// The table and the crate's own serde are two readings of the same protocol.
fn agrees_with_the_crate<M>(signal: Signal, file: &str)
where
    M: prost::Message + Default + PartialEq + std::fmt::Debug + serde::de::DeserializeOwned,
{
    for line in fixtures(file) {
        let ours = M::decode(to_protobuf(signal, line.as_bytes()).unwrap().as_slice()).unwrap();
        assert_eq!(ours, serde_json::from_str(&line).unwrap());
    }
}

#[test]
fn captures_of_a_foreign_sdk_read_the_same_by_the_table_and_by_the_crates_own_serde() {
    agrees_with_the_crate::<ExportTraceServiceRequest>(Signal::Traces, "traces.ndjson");
    agrees_with_the_crate::<ExportLogsServiceRequest>(Signal::Logs, "logs.ndjson");
    agrees_with_the_crate::<ExportMetricsServiceRequest>(Signal::Metrics, "metrics.ndjson");
}

fn body_of(any_value: &str) -> Result<Option<any_value::Value>, String> {
    let json = format!(r#"{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{{"body":{any_value}}}]}}]}}]}}"#);
    let wire = to_protobuf(Signal::Logs, json.as_bytes())?;
    let mut request = ExportLogsServiceRequest::decode(wire.as_slice()).map_err(|error| error.to_string())?;
    let record = request.resource_logs.remove(0).scope_logs.remove(0).log_records.remove(0);
    Ok(record.body.and_then(|AnyValue { value }| value))
}

#[test]
fn sixty_four_bit_integers_are_strings_or_numbers() {
    let expected = Some(any_value::Value::IntValue(i64::MIN));
    assert_eq!(body_of(r#"{"intValue":"-9223372036854775808"}"#).unwrap(), expected);
    assert_eq!(body_of(r#"{"intValue":-9223372036854775808}"#).unwrap(), expected);
    assert_eq!(body_of(r#"{"intValue":200}"#).unwrap(), Some(any_value::Value::IntValue(200)));
    assert_eq!(body_of(r#"{"intValue":2e2}"#).unwrap(), Some(any_value::Value::IntValue(200)));
}

#[test]
fn bytes_are_base64_of_either_alphabet_with_or_without_padding() {
    for text in ["+/8=", "+/8", "-_8=", "-_8"] {
        let json = format!(r#"{{"bytesValue":"{text}"}}"#);
        assert_eq!(body_of(&json).unwrap(), Some(any_value::Value::BytesValue(vec![0xfb, 0xff])), "{text}");
    }
}

#[test]
fn unknown_fields_nulls_and_empty_values_are_no_fault() {
    assert_eq!(body_of(r#"{"futureValue":{"x":[1]}}"#).unwrap(), None);
    assert_eq!(body_of("{}").unwrap(), None);
    assert_eq!(body_of("null").unwrap(), None);
    assert_eq!(to_protobuf(Signal::Metrics, b"{\"resourceMetrics\":null}").unwrap(), Vec::<u8>::new());
}

#[test]
fn doubles_may_be_words_or_digits_in_a_string() {
    assert_eq!(
        body_of(r#"{"doubleValue":"-Infinity"}"#).unwrap(),
        Some(any_value::Value::DoubleValue(f64::NEG_INFINITY))
    );
    assert_eq!(body_of(r#"{"doubleValue":"1.5"}"#).unwrap(), Some(any_value::Value::DoubleValue(1.5)));
    assert!(body_of(r#"{"doubleValue":"inf"}"#).is_err());
}

#[test]
fn negative_and_signed_numbers_survive_in_each_of_their_forms() {
    let json = r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
        {"name":"a","sum":{"dataPoints":[{"asInt":"-3"}],"aggregationTemporality":2}},
        {"name":"b","exponentialHistogram":{"dataPoints":[{"scale":-2,"positive":{"offset":-7,"bucketCounts":["1",2]}}]}},
        {"name":"c"}]}]}]}"#;
    let wire = to_protobuf(Signal::Metrics, json.as_bytes()).unwrap();
    let request = ExportMetricsServiceRequest::decode(wire.as_slice()).unwrap();
    let shown = format!("{request:?}");
    for part in ["AsInt(-3)", "scale: -2", "offset: -7", "bucket_counts: [1, 2]", "name: \"c\""] {
        assert!(shown.contains(part), "{part} is missing in {shown}");
    }
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_its_path() {
    for (json, expected) in [
        (
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{},{"kind":"SPAN_KIND_SERVER"}]}]}]}"#,
            "resourceSpans[0].scopeSpans[0].spans[1].kind: expected an integer from -2147483648 to 2147483647, \
             found \"SPAN_KIND_SERVER\"",
        ),
        (r#"{"resourceSpans":{}}"#, "resourceSpans: expected an array, found {}"),
        (
            r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"xyz"}]}]}]}"#,
            "resourceSpans[0].scopeSpans[0].spans[0].traceId: expected hexadecimal digits, found \"xyz\"",
        ),
        ("[]", "expected an object, found []"),
    ] {
        assert_eq!(to_protobuf(Signal::Traces, json.as_bytes()).unwrap_err(), expected);
    }
    assert!(to_protobuf(Signal::Traces, b"{").unwrap_err().starts_with("not JSON: EOF"));
}

#[test]
fn an_integer_outside_its_range_is_refused() {
    assert!(body_of(r#"{"intValue":"9223372036854775808"}"#).unwrap_err().contains("body.intValue"));
    assert!(body_of(r#"{"intValue":1.5}"#).is_err());
}
