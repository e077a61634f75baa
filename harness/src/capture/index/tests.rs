//! The walk against prost, and what is read back of single items.

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value},
    logs::v1::{LogRecord as SentLog, ResourceLogs, ScopeLogs},
    metrics::v1::{Metric as SentMetric, ResourceMetrics, ScopeMetrics},
    trace::v1::{ResourceSpans, ScopeSpans, Span as SentSpan},
};
use prost::encoding::{WireType, encode_key, encode_varint};

use super::*;
use crate::telemetry::Value;

fn sent(name: &str) -> SentSpan {
    SentSpan {
        name: name.into(),
        trace_id: vec![7; 16],
        span_id: vec![8; 8],
        end_time_unix_nano: 9,
        ..Default::default()
    }
}

fn entry(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value.into())) });
    KeyValue { key: key.into(), value, ..Default::default() }
}

fn field(tag: u32, inner: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    encode_key(tag, WireType::LengthDelimited, &mut wire);
    encode_varint(inner.len() as u64, &mut wire);
    wire.extend_from_slice(inner);
    wire
}

/// A request with this as its only span.
fn around(span: &[u8]) -> Vec<u8> {
    field(1, &field(2, &field(2, span)))
}

fn walked(signal: Signal, wire: &[u8]) -> Result<Contents, Unreadable> {
    index(signal, Encoding::Protobuf, &Bytes::copy_from_slice(wire))
}

fn spans(wire: &[u8]) -> Vec<Span> {
    match walked(Signal::Traces, wire).unwrap().index.decode() {
        Decoded::Spans(spans) => spans,
        other => panic!("{other:?}"),
    }
}

/// Both refuse, or both take it.
fn agree(signal: Signal, wire: &[u8]) -> bool {
    let walked = walked(signal, wire);
    assert_eq!(walked.is_ok(), decodes(signal, wire).is_ok(), "{signal} {wire:?}: {walked:?}");
    walked.is_ok()
}

#[test]
fn what_the_walk_lets_through_is_what_prost_decodes() {
    let mut span = sent("x");
    span.attributes = vec![entry("a", "é"), entry("b", &"x".repeat(200))];
    let wire = around(&span.encode_to_vec());
    assert!(agree(Signal::Traces, &wire));
    for at in 0..wire.len() {
        agree(Signal::Traces, &wire[..at]);
        for bit in 0..8 {
            let mut changed = wire.clone();
            changed[at] ^= 1 << bit;
            for signal in [Signal::Traces, Signal::Logs, Signal::Metrics] {
                agree(signal, &changed);
            }
        }
    }
}

#[test]
fn attributes_of_every_kind_and_length_are_judged_as_prost_judges_them() {
    use any_value::Value::{ArrayValue as Array, BoolValue, BytesValue, DoubleValue, IntValue, StringValue};
    let values = [IntValue(1), IntValue(8080), IntValue(-1), BoolValue(true), DoubleValue(0.5), BytesValue(vec![0xff])];
    let texts = ["", "a", "é", "1234567", "12345678", "123456789", "12345678é", "é12345678", "1234567é1234567"];
    let lengths = [126, 127, 128].map(|length| "x".repeat(length));
    let texts = texts.iter().copied().chain(lengths.iter().map(String::as_str));
    let of_texts = texts.clone().map(|text| StringValue(text.into()));
    let of_keys = texts.map(|key| (key, Some(StringValue("value".into()))));
    let of_values = values.into_iter().chain(of_texts).chain([Array(ArrayValue::default())]);
    let all = of_keys.chain(of_values.map(|value| ("key", Some(value)))).chain([("key", None)]);
    for (key, value) in all {
        let attribute = KeyValue { key: key.into(), value: Some(AnyValue { value }), ..Default::default() };
        let wire = attribute.encode_to_vec();
        let with = |wire: &[u8]| around(&field(9, wire));
        assert!(agree(Signal::Traces, &with(&wire)), "{attribute:?}");
        for at in 0..wire.len() {
            agree(Signal::Traces, &with(&wire[..at]));
            agree(Signal::Traces, &with(&[&wire[..at], &[wire[at]], &wire[at..]].concat()));
            for bit in 0..8 {
                let mut changed = wire.clone();
                changed[at] ^= 1 << bit;
                agree(Signal::Traces, &with(&changed));
            }
        }
    }
}

#[test]
fn groups_keys_and_varints_at_their_limits_are_judged_as_prost_judges_them() {
    let over_long = [[0xff; 9].as_slice(), &[1]].concat();
    let too_long = [[0xff; 9].as_slice(), &[2]].concat();
    let group =
        |inner: &[u8], end: u8| [&[99 << 3 & 0x7f | 0x80 | 3, 6], inner, &[99 << 3 & 0x7f | 0x80 | end, 6]].concat();
    for (sound, wire) in [
        (true, around(&[&[6 << 3], over_long.as_slice()].concat())),
        (false, around(&[&[6 << 3], too_long.as_slice()].concat())),
        (true, around(&group(&[], 4))),
        (true, around(&group(&[8, 1], 4))),
        (false, around(&group(&[8], 4))),
        (false, around(&group(&[], 3))),
        // A field number of 0, and wire types that there are not.
        (false, around(&[2, 0])),
        (false, around(&[14, 0])),
        (false, around(&[15, 0])),
        // A known field with another wire type.
        (false, around(&[5 << 3, 0])),
        (false, around(&[5 << 3 | 2, 1, 0xff])),
        // An unknown one with any.
        (true, around(&[20 << 3 & 0x7f | 0x80, 1, 0])),
        (true, around(&field(200, &[0xff]))),
    ] {
        assert_eq!(agree(Signal::Traces, &wire), sound, "{wire:?}");
    }
}

#[test]
fn nesting_is_bounded_where_prost_bounds_it() {
    let nested = |levels: usize| {
        let mut value = AnyValue { value: Some(any_value::Value::IntValue(1)) };
        for _ in 0..levels {
            value = AnyValue { value: Some(any_value::Value::ArrayValue(ArrayValue { values: vec![value] })) };
        }
        let attributes = vec![KeyValue { key: "deep".into(), value: Some(value), ..Default::default() }];
        around(&SentSpan { attributes, ..sent("x") }.encode_to_vec())
    };
    let taken: Vec<usize> = (40..60).filter(|&levels| agree(Signal::Traces, &nested(levels))).collect();
    assert_eq!(taken, (40..=47).collect::<Vec<_>>());
    // Lists of attributes, three messages a level.
    let nested = |levels: usize| {
        let list = |entry| any_value::Value::KvlistValue(KeyValueList { values: vec![entry] });
        let wrap = |entry, _| KeyValue { value: Some(AnyValue { value: Some(list(entry)) }), ..Default::default() };
        let deepest = (0..levels).fold(entry("deepest", "value"), wrap);
        around(&SentSpan { attributes: vec![deepest], ..sent("x") }.encode_to_vec())
    };
    let taken: Vec<usize> = (20..50).filter(|&levels| agree(Signal::Traces, &nested(levels))).collect();
    assert_eq!(taken, (20..=31).collect::<Vec<_>>());
}

#[test]
fn an_unknown_group_is_as_deep_as_a_message() {
    let nested = |levels: usize| around(&[[163, 1].repeat(levels), [164, 1].repeat(levels)].concat());
    let taken: Vec<usize> = (90..105).filter(|&levels| agree(Signal::Traces, &nested(levels))).collect();
    assert_eq!(taken, (90..=97).collect::<Vec<_>>());
}

#[test]
fn of_a_field_that_comes_twice_the_last_one_holds_and_messages_are_merged() {
    let mut span = sent("first").encode_to_vec();
    span.extend(SentSpan { trace_id: vec![1; 16], ..sent("second") }.encode_to_vec());
    let resource = |key: &str| otlp_resource::Resource { attributes: vec![entry(key, "x")], ..Default::default() };
    let scope = |name: &str, version: &str| InstrumentationScope {
        name: name.into(),
        version: version.into(),
        ..Default::default()
    };
    let in_scope = [
        field(1, &scope("old", "1").encode_to_vec()),
        field(2, &span),
        field(3, b"old"),
        field(1, &scope("new", "").encode_to_vec()),
        field(3, b"schema"),
    ]
    .concat();
    let in_resource =
        [field(1, &resource("a").encode_to_vec()), field(2, &in_scope), field(1, &resource("b").encode_to_vec())]
            .concat();
    let wire = field(1, &in_resource);
    let read = spans(&wire);
    assert_eq!(read.len(), 1);
    assert_eq!((read[0].name.as_str(), read[0].trace_id.as_bytes()), ("second", &[1; 16]));
    let keys: Vec<&str> = read[0].resource.attributes.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["a", "b"]);
    let scope = &read[0].scope;
    assert_eq!((scope.name.as_str(), scope.version.as_str(), scope.schema_url.as_str()), ("new", "1", "schema"));
    // Just so does prost.
    let whole = ExportTraceServiceRequest::decode(wire.as_slice()).unwrap();
    let prost = &whole.resource_spans[0];
    assert_eq!(prost.resource.as_ref().unwrap().attributes.len(), 2);
    assert_eq!(prost.scope_spans[0].scope.as_ref().unwrap().version, "1");
    assert_eq!(prost.scope_spans[0].spans[0].trace_id, [1; 16]);
}

#[test]
fn each_item_has_the_resource_and_the_scope_that_it_stands_in() {
    let scope_spans = |scope: &str, names: &[&str]| ScopeSpans {
        scope: Some(InstrumentationScope { name: scope.into(), ..Default::default() }),
        spans: names.iter().map(|name| sent(name)).collect(),
        ..Default::default()
    };
    let resource_spans = |service: &str, scope_spans| ResourceSpans {
        resource: Some(otlp_resource::Resource {
            attributes: vec![entry("service.name", service)],
            ..Default::default()
        }),
        scope_spans,
        schema_url: "of the resource".into(),
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![
            resource_spans(
                "one",
                vec![scope_spans("a", &["1", "2"]), scope_spans("empty", &[]), scope_spans("b", &["3"])],
            ),
            resource_spans("two", vec![scope_spans("c", &["4"])]),
        ],
    };
    let read = spans(&request.encode_to_vec());
    let read: Vec<_> = read
        .iter()
        .map(|span| (span.resource.service_name().unwrap(), span.scope.name.as_str(), span.name.as_str()))
        .collect();
    assert_eq!(read, [("one", "a", "1"), ("one", "a", "2"), ("one", "b", "3"), ("two", "c", "4")]);
    let all = spans(&request.encode_to_vec());
    assert!(Arc::ptr_eq(&all[0].resource, &all[2].resource), "a resource is decoded once");
}

#[test]
fn what_is_not_valid_is_told_and_left_out_and_the_rest_keeps_its_place() {
    let bad = |change: fn(&mut SentSpan)| {
        let mut span = sent("bad");
        change(&mut span);
        span
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: vec![
                    sent("good"),
                    bad(|span| span.trace_id = vec![0; 16]),
                    bad(|span| span.parent_span_id = vec![0; 8]),
                    bad(|span| span.span_id.clear()),
                    bad(|span| span.parent_span_id = vec![1; 4]),
                    sent("last"),
                ],
                ..Default::default()
            }],
            ..Default::default()
        }],
    };
    let contents = walked(Signal::Traces, &request.encode_to_vec()).unwrap();
    assert_eq!((contents.rejected, contents.index.len()), (3, 3));
    assert_eq!(
        contents.faults,
        [
            "span \"bad\": trace id is all zero (00000000000000000000000000000000)",
            "span \"bad\": parent span id is all zero (0000000000000000); taken as a root span",
            "span \"bad\": span id is 0 bytes long, expected 8",
            "span \"bad\": parent span id is 4 bytes long, expected 8 (01010101)",
        ]
    );
    let names: Vec<String> = spans(&request.encode_to_vec()).into_iter().map(|span| span.name).collect();
    assert_eq!(names, ["good", "bad", "last"]);
}

#[test]
fn log_records_and_metrics_are_read_one_by_one() {
    let log_records = vec![
        SentLog { trace_id: vec![1; 16], span_id: vec![2; 8], observed_time_unix_nano: 5, ..Default::default() },
        SentLog { trace_id: vec![1; 3], time_unix_nano: 4, ..Default::default() },
        SentLog { trace_id: vec![0; 3], ..Default::default() },
    ];
    let request = opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs { log_records, ..Default::default() }],
            ..Default::default()
        }],
    };
    let contents = walked(Signal::Logs, &request.encode_to_vec()).unwrap();
    assert_eq!(contents.faults, ["log record \"\": trace id is malformed \"010101\""]);
    assert_eq!((contents.rejected, contents.index.earliest), (0, Some(4)));
    let Decoded::Logs(records) = contents.index.decode() else { panic!() };
    assert_eq!(records.iter().map(|record| record.time_unix_nano).collect::<Vec<_>>(), [Some(5), Some(4), None]);
    for record in &records {
        assert!(record.row().is_exported());
    }

    let metrics = ["a", "b"].map(|name| SentMetric { name: name.into(), ..Default::default() }).to_vec();
    let request = opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![ScopeMetrics { metrics, ..Default::default() }],
            ..Default::default()
        }],
    };
    let Decoded::Metrics(metrics) = walked(Signal::Metrics, &request.encode_to_vec()).unwrap().index.decode() else {
        panic!()
    };
    assert_eq!(metrics.iter().map(|metric| metric.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn the_row_of_a_value_is_that_of_its_bytes() {
    let bytes = SentSpan { parent_span_id: vec![3; 8], start_time_unix_nano: 4, ..sent("x") };
    let contents = walked(Signal::Traces, &around(&bytes.encode_to_vec())).unwrap();
    let Rows::Spans(rows) = &contents.index.rows else { panic!() };
    let Decoded::Spans(spans) = contents.index.decode() else { panic!() };
    let facts = |row: &SpanRow| (row.trace_id, row.span_id, row.parent, row.start);
    assert_eq!(facts(&rows[0]), facts(&spans[0].row()));
    assert!(rows[0].is(spans[0].span_id) && rows[0].is_in(spans[0].trace_id) && !rows[0].is_root());
}

#[test]
fn what_would_grow_too_much_is_refused_however_small_its_items_are() {
    let items = |count: usize, item: &[u8]| field(1, &field(2, &field(2, item).repeat(count)));
    assert_eq!(walked(Signal::Traces, &items(3_000_000, &[])).unwrap_err(), Unreadable::Heavy);
    let attributes = items(1, &field(9, &field(1, b"x")).repeat(1_000_000));
    assert!(walked(Signal::Traces, &attributes).is_ok());
    // Numbers of one byte each become eight.
    let buckets = field(10, &field(1, &field(8, &field(2, &[1; 1000]))));
    assert!(agree(Signal::Metrics, &items(1, &buckets)));
}

#[test]
fn json_is_indexed_by_what_it_says_as_protobuf() {
    let json =
        br#"{"resourceSpans":[{"resource":{"attributes":[{"key":"k","value":{"intValue":"5"}}]},"scopeSpans":[{"spans":
        [{"traceId":"07070707070707070707070707070707","spanId":"0808080808080808","name":"x"}]}]}]}"#;
    let contents = index(Signal::Traces, Encoding::Json, &Bytes::from_static(json)).unwrap();
    let Decoded::Spans(spans) = contents.index.decode() else { panic!() };
    assert_eq!(spans[0].name, "x");
    assert_eq!(spans[0].resource.attributes.get("k"), Some(&Value::Int(5)));
    let refused = index(Signal::Traces, Encoding::Json, &Bytes::from_static(b"[]")).unwrap_err();
    assert_eq!(refused, Unreadable::Malformed("expected an object, found []".into()));
}
