//! What is written is read back the same, and what is no line of the protocol is told with its place.

use std::fmt::Debug;

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    metrics::v1::{
        Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, Summary, SummaryDataPoint, exemplar,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
        summary_data_point::ValueAtQuantile,
    },
};
use prost::Message;
use serde_json::json;

use super::*;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

fn sent(signal: Signal, encoding: Encoding, body: impl Into<Bytes>) -> ExportRequest {
    ExportRequest { encoding, body: body.into(), signal, ..request(b"{\"resourceSpans\":[]}").unwrap() }
}

/// What these bytes are once they were written as a line and read again.
fn again<M: Message + Default>(signal: Signal, wire: &[u8]) -> M {
    let line = line(&sent(signal, Encoding::Protobuf, wire.to_vec())).unwrap();
    assert!(!line.contains('\n'), "{line}");
    let read = request(line.as_bytes()).unwrap();
    assert_eq!(read.signal, signal);
    M::decode(json::to_protobuf(signal, &read.body).unwrap().as_slice()).unwrap()
}

#[track_caller]
fn survives<M: Message + Default + PartialEq + Debug>(signal: Signal, message: &M) {
    assert_eq!(&again::<M>(signal, &message.encode_to_vec()), message);
}

/// Written from what the crate's own serde reads, so that two readings of the protocol have to agree.
fn fixture_survives<M>(signal: Signal, text: &str)
where
    M: Message + Default + PartialEq + Debug + serde::de::DeserializeOwned,
{
    let message: M = serde_json::from_str(text).unwrap();
    survives(signal, &message);
    let line = line(&sent(signal, Encoding::Json, text.to_owned())).unwrap();
    assert_eq!(serde_json::from_str::<M>(&line).unwrap(), message);
}

#[test]
fn every_request_of_the_reference_captures_survives_a_file() {
    let mut requests = 0;
    for capture in ["now-gunicorn", "now-lambda", "then-gunicorn", "then-lambda"] {
        let mut each = |file, survives: fn(&str)| {
            let path = format!("{FIXTURES}/reference/telemetry/{capture}/{file}.ndjson");
            for line in std::fs::read_to_string(path).unwrap().lines() {
                survives(line);
                requests += 1;
            }
        };
        each("traces", |line| fixture_survives::<ExportTraceServiceRequest>(Signal::Traces, line));
        each("logs", |line| fixture_survives::<ExportLogsServiceRequest>(Signal::Logs, line));
        each("metrics", |line| fixture_survives::<ExportMetricsServiceRequest>(Signal::Metrics, line));
    }
    assert!(requests > 40, "{requests}");
}

#[test]
fn the_examples_of_the_protocol_survive_a_file() {
    let example = |name| std::fs::read_to_string(format!("{FIXTURES}/otlp-examples/{name}.json")).unwrap();
    fixture_survives::<ExportTraceServiceRequest>(Signal::Traces, &example("trace"));
    fixture_survives::<ExportLogsServiceRequest>(Signal::Logs, &example("logs"));
    fixture_survives::<ExportLogsServiceRequest>(Signal::Logs, &example("events"));
    fixture_survives::<ExportMetricsServiceRequest>(Signal::Metrics, &example("metrics"));
}

fn logs_of(body: Option<AnyValue>) -> ExportLogsServiceRequest {
    let log_records = vec![LogRecord { body, ..Default::default() }];
    let scope_logs = vec![ScopeLogs { log_records, ..Default::default() }];
    ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] }
}

fn any(value: Any) -> Option<AnyValue> {
    Some(AnyValue { value: Some(value) })
}

#[test]
fn values_of_every_kind_and_none_survive() {
    let entry = |key: &str, value| KeyValue { key: key.into(), value, ..Default::default() };
    let kvlist = |values| Any::KvlistValue(KeyValueList { values });
    let array = |values| Any::ArrayValue(ArrayValue { values });
    for value in [
        None,
        Some(AnyValue { value: None }),
        any(Any::StringValue(String::new())),
        any(Any::StringValue("\"\\\n\r\t\0\u{7f}\u{2028}ü🦀".into())),
        any(Any::BoolValue(false)),
        any(Any::BoolValue(true)),
        any(Any::IntValue(0)),
        any(Any::IntValue(i64::MIN)),
        any(Any::IntValue(i64::MAX)),
        any(Any::IntValue(9_007_199_254_740_993)),
        any(Any::DoubleValue(0.0)),
        any(Any::DoubleValue(-0.0)),
        any(Any::DoubleValue(0.1)),
        any(Any::DoubleValue(f64::MIN_POSITIVE / 4.0)),
        any(Any::DoubleValue(f64::MAX)),
        any(Any::DoubleValue(31.245_270_191_439_438)),
        any(Any::DoubleValue(f64::INFINITY)),
        any(Any::DoubleValue(f64::NEG_INFINITY)),
        any(Any::BytesValue(Vec::new())),
        any(Any::BytesValue((0..=255).collect())),
        any(Any::StringValueStrindex(7)),
        any(array(Vec::new())),
        any(array(vec![AnyValue { value: None }, AnyValue { value: Some(Any::IntValue(1)) }])),
        any(kvlist(Vec::new())),
        any(kvlist(vec![entry("", None), entry("x", Some(AnyValue { value: None })), entry("x", any(array(vec![])))])),
    ] {
        survives(Signal::Logs, &logs_of(value));
    }
    // It is equal to nothing, itself included.
    let nan = logs_of(any(Any::DoubleValue(f64::NAN)));
    assert_eq!(
        format!("{:?}", again::<ExportLogsServiceRequest>(Signal::Logs, &nan.encode_to_vec())),
        format!("{nan:?}")
    );
}

#[test]
fn random_doubles_are_read_to_the_last_bit() {
    for _ in 0..20_000 {
        let double = f64::from_bits(rand::random());
        if !double.is_nan() {
            survives(Signal::Logs, &logs_of(any(Any::DoubleValue(double))));
        }
    }
}

#[test]
fn metrics_of_every_kind_survive_with_what_is_optional_in_them() {
    let exemplar = |value| Exemplar { trace_id: vec![1; 16], span_id: vec![2; 8], value, ..Default::default() };
    let number = |value| NumberDataPoint {
        value,
        flags: 1,
        exemplars: vec![exemplar(Some(exemplar::Value::AsInt(-1))), exemplar(Some(exemplar::Value::AsDouble(0.0)))],
        ..Default::default()
    };
    let data = [
        None,
        Some(Data::Gauge(Gauge { data_points: Vec::new() })),
        Some(Data::Gauge(Gauge { data_points: vec![number(None), number(Some(number_data_point::Value::AsInt(0)))] })),
        Some(Data::Sum(Sum {
            data_points: vec![number(Some(number_data_point::Value::AsDouble(f64::INFINITY)))],
            aggregation_temporality: 2,
            is_monotonic: true,
        })),
        Some(Data::Histogram(Histogram {
            data_points: vec![HistogramDataPoint {
                count: u64::MAX,
                sum: Some(0.0),
                min: None,
                max: Some(-0.0),
                bucket_counts: vec![0, 1, u64::MAX],
                explicit_bounds: vec![0.0, f64::INFINITY],
                ..Default::default()
            }],
            aggregation_temporality: 1,
        })),
        Some(Data::ExponentialHistogram(ExponentialHistogram {
            data_points: vec![ExponentialHistogramDataPoint {
                scale: i32::MIN,
                positive: Some(Buckets { offset: i32::MAX, bucket_counts: vec![300, 0, u64::MAX] }),
                negative: Some(Buckets { offset: -1, bucket_counts: Vec::new() }),
                zero_threshold: 1e-300,
                ..Default::default()
            }],
            aggregation_temporality: 0,
        })),
        Some(Data::Summary(Summary {
            data_points: vec![SummaryDataPoint {
                quantile_values: vec![ValueAtQuantile { quantile: 0.99, value: 1e21 }],
                ..Default::default()
            }],
        })),
    ];
    let metrics = data.into_iter().map(|data| Metric { name: "m".into(), data, ..Default::default() }).collect();
    let scope_metrics = vec![ScopeMetrics { metrics, ..Default::default() }];
    let resource_metrics = vec![ResourceMetrics { scope_metrics, ..Default::default() }];
    survives(Signal::Metrics, &ExportMetricsServiceRequest { resource_metrics });
}

#[test]
fn what_comes_twice_on_the_wire_is_merged_as_prost_merges_it() {
    let entry = |tag: u8, inner: &[u8]| [&[tag << 3 | 2, u8::try_from(inner.len()).unwrap()], inner].concat();
    let wire = |record: &[u8]| entry(1, &entry(2, &entry(2, record)));
    for body in [
        // An array, then another one: merged. With a text between them: only the last.
        [entry(5, &entry(1, &entry(1, b"a"))), entry(5, &entry(1, &entry(1, b"b")))].concat(),
        [entry(5, &entry(1, &entry(1, b"a"))), entry(1, b"text"), entry(5, &entry(1, &entry(1, b"b")))].concat(),
        [entry(1, b"first"), entry(1, b"last")].concat(),
        [entry(1, b"text"), vec![2 << 3, 1]].concat(),
        // Fields that nobody knows: a text, a group with a number in it.
        [entry(15, b"?"), vec![14 << 3 | 3, 1 << 3, 5, 14 << 3 | 4], entry(1, b"known")].concat(),
    ] {
        // The body in two halves, each of them a whole field of the record.
        let record = [entry(5, &body), vec![2 << 3, 9, 2 << 3, 17], entry(5, &[])].concat();
        let wire = wire(&record);
        let read = ExportLogsServiceRequest::decode(wire.as_slice()).unwrap();
        assert_eq!(again::<ExportLogsServiceRequest>(Signal::Logs, &wire), read, "{body:?}");
    }
}

fn nested(depth: usize) -> ExportLogsServiceRequest {
    let mut value = Any::IntValue(1);
    for _ in 0..depth {
        value = Any::ArrayValue(ArrayValue { values: vec![AnyValue { value: Some(value) }] });
    }
    logs_of(any(value))
}

#[test]
fn what_is_nested_as_deep_as_protobuf_is_read_survives() {
    let deepest = nested(48);
    assert!(ExportLogsServiceRequest::decode(deepest.encode_to_vec().as_slice()).is_ok());
    survives(Signal::Logs, &deepest);
    let deeper = nested(49).encode_to_vec();
    assert!(ExportLogsServiceRequest::decode(deeper.as_slice()).is_err());
    assert!(line(&sent(Signal::Logs, Encoding::Protobuf, deeper)).unwrap_err().ends_with("nested more than 100 deep"));
}

#[test]
fn a_line_is_written_as_the_collector_writes_it() {
    let text = r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"api"}}]},"scopeSpans":[{"scope":{"name":"s","version":"1"},"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","parentSpanId":"eee19b7ec3c1b173","name":"GET","kind":2,"startTimeUnixNano":"1544712660000000000","endTimeUnixNano":"1544712661000000000","attributes":[{"key":"n","value":{"intValue":"3"}},{"key":"b","value":{"bytesValue":"AQI="}}],"status":{"code":2},"flags":257}]}]}]}"#;
    let message: ExportTraceServiceRequest = serde_json::from_str(text).unwrap();
    assert_eq!(line(&sent(Signal::Traces, Encoding::Protobuf, message.encode_to_vec())).unwrap(), text);
}

#[test]
fn a_request_without_anything_in_it_is_a_line_that_tells_its_signal() {
    for (signal, expected) in [
        (Signal::Traces, r#"{"resourceSpans":[]}"#),
        (Signal::Logs, r#"{"resourceLogs":[]}"#),
        (Signal::Metrics, r#"{"resourceMetrics":[]}"#),
        (Signal::Profiles, r#"{"resourceProfiles":[]}"#),
    ] {
        assert_eq!(line(&sent(signal, Encoding::Protobuf, Bytes::new())).unwrap(), expected);
        assert_eq!(request(expected.as_bytes()).unwrap().signal, signal);
    }
}

#[test]
fn profiles_are_written_with_all_that_is_in_them_and_as_they_came_when_that_was_json() {
    let entry = |tag: u8, inner: &[u8]| [&[tag << 3 | 2, u8::try_from(inner.len()).unwrap()], inner].concat();
    let sample = [entry(2, &[1, 2]), entry(4, &[0x80, 1])].concat();
    let profile = [entry(2, &sample), entry(7, &[0xab; 16]), entry(10, b"\xff")].concat();
    let wire =
        [entry(1, &entry(2, &entry(2, &profile))), entry(2, &[entry(5, b""), entry(5, b"main")].concat())].concat();
    let written = line(&sent(Signal::Profiles, Encoding::Protobuf, wire)).unwrap();
    let expected = json!({
        "resourceProfiles": [{"scopeProfiles": [{"profiles": [{
            "samples": [{"attributeIndices": [1, 2], "values": ["128"]}],
            "profileId": "ab".repeat(16),
            "originalPayload": "/w==",
        }]}]}],
        "dictionary": {"stringTable": ["", "main"]},
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&written).unwrap(), expected);

    let older = "{ \"resourceProfiles\": [\n {\"scopeProfiles\": [{\"profiles\": [{\"sampleType\": [1.5]}]}]}]}";
    let written = line(&sent(Signal::Profiles, Encoding::Json, older)).unwrap();
    assert_eq!(written, r#"{"resourceProfiles":[{"scopeProfiles":[{"profiles":[{"sampleType":[1.5]}]}]}]}"#);
}

#[test]
fn what_is_no_request_is_not_written_and_the_place_is_named() {
    let entry = |tag: u8, inner: &[u8]| [&[tag << 3 | 2, u8::try_from(inner.len()).unwrap()], inner].concat();
    let unwritable = |wire: Vec<u8>| line(&sent(Signal::Traces, Encoding::Protobuf, wire)).unwrap_err();
    let span = |field: &[u8]| entry(1, &entry(2, &entry(2, field)));
    assert!(unwritable(span(&entry(5, b"\xff"))).starts_with("resourceSpans: scopeSpans: spans: name: not UTF-8"));
    assert!(
        unwritable(span(&[6 << 3 | 5, 0, 0, 0, 0])).ends_with("kind: another type on the wire than the protocol's")
    );
    assert!(unwritable(vec![10, 9, 1]).ends_with("ends early"));
}

#[test]
fn blank_lines_are_skipped_and_a_wrong_line_is_named_with_its_file_and_number() {
    let text = "\n{\"resourceSpans\":[]}\r\n  \n{\"resourceSpans\":\n[]\n{\"spans\":[],\"x\":1}\n{}\n{\"resourceLogs\":[],\"resourceSpans\":[]}\n\
                {\"resourceMetrics\":[]}";
    let read: Vec<_> = Requests::new(Path::new("dir/otlp.jsonl"), text.as_bytes())
        .map(|read| read.map(|(number, request)| (number, request.signal)).map_err(|error| error.to_string()))
        .collect();
    assert_eq!(read[0], Ok((2, Signal::Traces)));
    assert_eq!(
        read[1].as_ref().unwrap_err(),
        "dir/otlp.jsonl, line 4: not JSON: EOF while parsing a value at line 1 column 17"
    );
    let none = "none of resourceSpans, resourceLogs, resourceMetrics and resourceProfiles is there";
    assert!(
        read[2].as_ref().unwrap_err().starts_with("dir/otlp.jsonl, line 5: not JSON: invalid type: sequence"),
        "{read:?}"
    );
    assert_eq!(read[3], Err(format!("dir/otlp.jsonl, line 6: {none}: it has spans, x")));
    assert_eq!(read[4], Err(format!("dir/otlp.jsonl, line 7: {none}: it is empty")));
    assert_eq!(read[5], Err("dir/otlp.jsonl, line 8: both logs and traces in one line".into()));
    assert_eq!(read[6], Ok((9, Signal::Metrics)));
    assert_eq!(read.len(), 7);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = read(Path::new("/nowhere/x.jsonl")).unwrap_err();
    assert_eq!(error.to_string(), "cannot open /nowhere/x.jsonl");
}

#[test]
fn what_is_appended_stands_behind_what_was_there_and_a_line_that_was_cut_short_spoils_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let empty = sent(Signal::Traces, Encoding::Protobuf, Bytes::new());
    for _ in 0..2 {
        Appender::open(&path).unwrap().write(&empty).unwrap();
    }
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"resourceSp").unwrap();
    Appender::open(&path).unwrap().write(&empty).unwrap();
    let read: Vec<_> = read(&path).unwrap().map(|read| read.is_ok()).collect();
    assert_eq!(read, [true, true, false, true]);
}

#[test]
fn an_unwritable_request_leaves_nothing_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.jsonl");
    let mut appender = Appender::open(&path).unwrap();
    let error = appender.write(&sent(Signal::Logs, Encoding::Protobuf, vec![10, 9, 1])).unwrap_err();
    assert!(error.to_string().starts_with("a logs request cannot be written to "), "{error}");
    appender.write(&sent(Signal::Logs, Encoding::Protobuf, Bytes::new())).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"resourceLogs\":[]}\n");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_told() {
    let mut appender = Appender::open(Path::new("/dev/full")).unwrap();
    let error = appender.write(&sent(Signal::Logs, Encoding::Protobuf, Bytes::new())).unwrap_err();
    assert_eq!(error.to_string(), "cannot write to /dev/full");
}
