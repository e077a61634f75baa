//! OTLP/JSON made into the protobuf bytes that say the same, by a table of the protocol's messages. [`super::to_json`] goes
//! the other way by the same table.
//!
//! Everything behind this step then has one form to decode. The rules are those of the OTLP specification, "JSON
//! Protobuf Encoding", and of ProtoJSON: names are lowerCamelCase, ids are hexadecimal, enums are integers, 64-bit
//! integers are strings or numbers, `null` is an absent field, and an unknown field is ignored.

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;
use serde_json::Value;

use crate::capture::Signal;

/// Brackets that may be open at once. What protobuf nests a hundred deep, as deep as prost reads, is two hundred in JSON.
const DEEPEST: usize = 256;

/// The protobuf bytes of an `Export…ServiceRequest` that was sent as JSON.
///
/// The error names the place (`resourceSpans[0].scopeSpans[0].spans[2].kind`) and what was expected there.
pub fn to_protobuf(signal: Signal, body: &[u8]) -> Result<Vec<u8>, String> {
    let json = parse(body)?;
    let mut wire = Vec::with_capacity(body.len() / 2);
    request(signal).encode(&json, &mut wire).map_err(|problem| problem.to_string())?;
    Ok(wire)
}

/// Reads JSON that nests no deeper than [`DEEPEST`].
pub fn parse(text: &[u8]) -> Result<Value, String> {
    if depth(text) > DEEPEST {
        return Err(format!("recursion limit reached: nested more than {DEEPEST} deep"));
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    // Its own limit is 128, which is less than what protobuf may hold; it was counted above.
    reader.disable_recursion_limit();
    let json = Value::deserialize(&mut reader).and_then(|json| reader.end().map(|()| json));
    json.map_err(|error| format!("not JSON: {error}"))
}

/// How many brackets are open at once at most.
fn depth(text: &[u8]) -> usize {
    let (mut deepest, mut open) = (0, 0_usize);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                open += 1;
                deepest = deepest.max(open);
            }
            b'}' | b']' => open = open.saturating_sub(1),
            b'"' => {
                while let Some(byte) = bytes.next().filter(|&&byte| byte != b'"') {
                    if *byte == b'\\' {
                        bytes.next();
                    }
                }
            }
            _ => {}
        }
    }
    deepest
}

/// The `Export…ServiceRequest` of a signal, as far as the sink reads it: of profiles it only takes the count.
pub(super) fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Profiles => &COUNTED_PROFILES,
        other => whole_request(other),
    }
}

/// The `Export…ServiceRequest` of a signal with everything in it.
pub(super) fn whole_request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Traces => &EXPORT_TRACES,
        Signal::Logs => &EXPORT_LOGS,
        Signal::Metrics => &EXPORT_METRICS,
        Signal::Profiles => &EXPORT_PROFILES,
    }
}

pub(super) struct Message(pub(super) &'static [Field]);

pub(super) struct Field {
    pub(super) name: &'static str,
    tag: u32,
    pub(super) kind: Kind,
    pub(super) repeated: bool,
    /// Belongs to its message's one `oneof`: of these only the last that came is there.
    pub(super) alternative: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    String,
    Bool,
    /// `int32`, `int64`, `uint32`, `uint64` and enums, within the bounds given.
    Varint(i128, i128),
    /// `sint32`.
    Zigzag,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    /// Base64.
    Bytes,
    /// Hexadecimal digits.
    Id,
    Message(&'static Message),
}

const ENUM: Kind = INT32;
const INT32: Kind = Kind::Varint(i32::MIN as i128, i32::MAX as i128);
const UINT32: Kind = Kind::Varint(0, u32::MAX as i128);
const UINT64: Kind = Kind::Varint(0, u64::MAX as i128);
const INT64: Kind = Kind::Varint(i64::MIN as i128, i64::MAX as i128);

const fn one(name: &'static str, tag: u32, kind: Kind) -> Field {
    Field { name, tag, kind, repeated: false, alternative: false }
}

const fn alternative(name: &'static str, tag: u32, kind: Kind) -> Field {
    Field { name, tag, kind, repeated: false, alternative: true }
}

const fn many(name: &'static str, tag: u32, kind: Kind) -> Field {
    Field { name, tag, kind, repeated: true, alternative: false }
}

/// What is wrong, and the path to it from the innermost name outwards.
struct Problem {
    path: Vec<String>,
    what: String,
}

impl Problem {
    fn new(what: impl Into<String>) -> Self {
        Self { path: Vec::new(), what: what.into() }
    }

    fn expected(what: &str, found: &Value) -> Self {
        let mut shown = found.to_string();
        if shown.chars().count() > 60 {
            shown = shown.chars().take(60).chain("…".chars()).collect();
        }
        Self::new(format!("expected {what}, found {shown}"))
    }

    fn within(mut self, name: String) -> Self {
        self.path.push(name);
        self
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, name) in self.path.iter().rev().enumerate() {
            let dot = if i > 0 && !name.starts_with('[') { "." } else { "" };
            write!(f, "{dot}{name}")?;
        }
        write!(f, "{}{}", if self.path.is_empty() { "" } else { ": " }, self.what)
    }
}

impl Message {
    /// Where in the table the field of a tag stands.
    pub(super) fn place(&self, tag: u32) -> Option<usize> {
        self.0.iter().position(|field| field.tag == tag)
    }

    fn encode(&self, json: &Value, wire: &mut Vec<u8>) -> Result<(), Problem> {
        let Value::Object(entries) = json else {
            return Err(Problem::expected("an object", json));
        };
        for (name, value) in entries {
            let Some(field) = self.0.iter().find(|field| field.name == name) else { continue };
            field.encode(value, wire).map_err(|problem| problem.within(name.clone()))?;
        }
        Ok(())
    }
}

impl Field {
    fn encode(&self, value: &Value, wire: &mut Vec<u8>) -> Result<(), Problem> {
        match value {
            Value::Null => Ok(()),
            Value::Array(elements) if self.repeated => elements.iter().enumerate().try_for_each(|(i, element)| {
                self.kind.encode(self.tag, element, wire).map_err(|problem| problem.within(format!("[{i}]")))
            }),
            _ if self.repeated => Err(Problem::expected("an array", value)),
            _ => self.kind.encode(self.tag, value, wire),
        }
    }
}

impl Kind {
    fn encode(self, tag: u32, value: &Value, wire: &mut Vec<u8>) -> Result<(), Problem> {
        match self {
            Self::String => match value {
                Value::String(text) => delimited(tag, text.as_bytes(), wire),
                _ => return Err(Problem::expected("a string", value)),
            },
            Self::Bool => match value {
                Value::Bool(value) => varint(tag, u64::from(*value), wire),
                _ => return Err(Problem::expected("true or false", value)),
            },
            // Truncation to 64 bits is protobuf's own form of a negative number.
            Self::Varint(min, max) => varint(tag, integer(value, min, max)? as u64, wire),
            Self::Zigzag => {
                let number = integer(value, i128::from(i32::MIN), i128::from(i32::MAX))? as i32;
                varint(tag, u64::from(((number << 1) ^ (number >> 31)) as u32), wire);
            }
            Self::Fixed32 => {
                let number = integer(value, 0, i128::from(u32::MAX))? as u32;
                key(tag, 5, wire);
                wire.extend_from_slice(&number.to_le_bytes());
            }
            Self::Fixed64 => fixed64(tag, (integer(value, 0, i128::from(u64::MAX))? as u64).to_le_bytes(), wire),
            Self::Sfixed64 => {
                let number = integer(value, i128::from(i64::MIN), i128::from(i64::MAX))? as i64;
                fixed64(tag, number.to_le_bytes(), wire);
            }
            Self::Double => fixed64(tag, double(value)?.to_le_bytes(), wire),
            Self::Bytes => {
                let bytes = value.as_str().and_then(base64_of_any_form);
                delimited(tag, &bytes.ok_or_else(|| Problem::expected("Base64", value))?, wire);
            }
            Self::Id => {
                let bytes = value.as_str().and_then(|text| hex::decode(text).ok());
                delimited(tag, &bytes.ok_or_else(|| Problem::expected("hexadecimal digits", value))?, wire);
            }
            Self::Message(message) => {
                let mut inner = Vec::new();
                message.encode(value, &mut inner)?;
                delimited(tag, &inner, wire);
            }
        }
        Ok(())
    }
}

fn integer(value: &Value, min: i128, max: i128) -> Result<i128, Problem> {
    let number = match value {
        Value::Number(number) => number
            .as_i64()
            .map(i128::from)
            .or_else(|| number.as_u64().map(i128::from))
            .or_else(|| number.as_f64().filter(|float| float.fract() == 0.0).map(|float| float as i128)),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| Problem::expected(&format!("an integer from {min} to {max}"), value))
}

fn double(value: &Value) -> Result<f64, Problem> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            digits => digits.parse().ok().filter(|number: &f64| number.is_finite()),
        },
        _ => None,
    }
    .ok_or_else(|| Problem::expected("a number", value))
}

/// ProtoJSON: "Either standard or URL-safe base64 encoding with/without paddings are accepted."
fn base64_of_any_form(text: &str) -> Option<Vec<u8>> {
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&STANDARD, CONFIG)
        .decode(text)
        .or_else(|_| GeneralPurpose::new(&URL_SAFE, CONFIG).decode(text))
        .ok()
}

fn raw_varint(mut number: u64, wire: &mut Vec<u8>) {
    while number >= 0x80 {
        wire.push(number as u8 | 0x80);
        number >>= 7;
    }
    wire.push(number as u8);
}

fn key(tag: u32, wire_type: u32, wire: &mut Vec<u8>) {
    raw_varint(u64::from(tag << 3 | wire_type), wire);
}

fn varint(tag: u32, number: u64, wire: &mut Vec<u8>) {
    key(tag, 0, wire);
    raw_varint(number, wire);
}

fn fixed64(tag: u32, bytes: [u8; 8], wire: &mut Vec<u8>) {
    key(tag, 1, wire);
    wire.extend_from_slice(&bytes);
}

fn delimited(tag: u32, bytes: &[u8], wire: &mut Vec<u8>) {
    key(tag, 2, wire);
    raw_varint(bytes.len() as u64, wire);
    wire.extend_from_slice(bytes);
}

// opentelemetry-proto 1.x, common/v1 and resource/v1.

static ANY_VALUE: Message = Message(&[
    alternative("stringValue", 1, Kind::String),
    alternative("boolValue", 2, Kind::Bool),
    alternative("intValue", 3, INT64),
    alternative("doubleValue", 4, Kind::Double),
    alternative("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
    alternative("kvlistValue", 6, Kind::Message(&KEY_VALUE_LIST)),
    alternative("bytesValue", 7, Kind::Bytes),
    alternative("stringValueStrindex", 8, INT32),
]);
static ARRAY_VALUE: Message = Message(&[many("values", 1, Kind::Message(&ANY_VALUE))]);
static KEY_VALUE_LIST: Message = Message(&[many("values", 1, Kind::Message(&KEY_VALUE))]);
static KEY_VALUE: Message =
    Message(&[one("key", 1, Kind::String), one("value", 2, Kind::Message(&ANY_VALUE)), one("keyStrindex", 3, INT32)]);
static SCOPE: Message = Message(&[
    one("name", 1, Kind::String),
    one("version", 2, Kind::String),
    many("attributes", 3, Kind::Message(&KEY_VALUE)),
    one("droppedAttributesCount", 4, UINT32),
]);
static ENTITY_REF: Message = Message(&[
    one("schemaUrl", 1, Kind::String),
    one("type", 2, Kind::String),
    many("idKeys", 3, Kind::String),
    many("descriptionKeys", 4, Kind::String),
]);
static RESOURCE: Message = Message(&[
    many("attributes", 1, Kind::Message(&KEY_VALUE)),
    one("droppedAttributesCount", 2, UINT32),
    many("entityRefs", 3, Kind::Message(&ENTITY_REF)),
]);

// trace/v1

static EXPORT_TRACES: Message = Message(&[many("resourceSpans", 1, Kind::Message(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Message = Message(&[
    one("resource", 1, Kind::Message(&RESOURCE)),
    many("scopeSpans", 2, Kind::Message(&SCOPE_SPANS)),
    one("schemaUrl", 3, Kind::String),
]);
static SCOPE_SPANS: Message = Message(&[
    one("scope", 1, Kind::Message(&SCOPE)),
    many("spans", 2, Kind::Message(&SPAN)),
    one("schemaUrl", 3, Kind::String),
]);
static SPAN: Message = Message(&[
    one("traceId", 1, Kind::Id),
    one("spanId", 2, Kind::Id),
    one("traceState", 3, Kind::String),
    one("parentSpanId", 4, Kind::Id),
    one("name", 5, Kind::String),
    one("kind", 6, ENUM),
    one("startTimeUnixNano", 7, Kind::Fixed64),
    one("endTimeUnixNano", 8, Kind::Fixed64),
    many("attributes", 9, Kind::Message(&KEY_VALUE)),
    one("droppedAttributesCount", 10, UINT32),
    many("events", 11, Kind::Message(&SPAN_EVENT)),
    one("droppedEventsCount", 12, UINT32),
    many("links", 13, Kind::Message(&SPAN_LINK)),
    one("droppedLinksCount", 14, UINT32),
    one("status", 15, Kind::Message(&SPAN_STATUS)),
    one("flags", 16, Kind::Fixed32),
]);
static SPAN_EVENT: Message = Message(&[
    one("timeUnixNano", 1, Kind::Fixed64),
    one("name", 2, Kind::String),
    many("attributes", 3, Kind::Message(&KEY_VALUE)),
    one("droppedAttributesCount", 4, UINT32),
]);
static SPAN_LINK: Message = Message(&[
    one("traceId", 1, Kind::Id),
    one("spanId", 2, Kind::Id),
    one("traceState", 3, Kind::String),
    many("attributes", 4, Kind::Message(&KEY_VALUE)),
    one("droppedAttributesCount", 5, UINT32),
    one("flags", 6, Kind::Fixed32),
]);
static SPAN_STATUS: Message = Message(&[one("message", 2, Kind::String), one("code", 3, ENUM)]);

// logs/v1

static EXPORT_LOGS: Message = Message(&[many("resourceLogs", 1, Kind::Message(&RESOURCE_LOGS))]);
static RESOURCE_LOGS: Message = Message(&[
    one("resource", 1, Kind::Message(&RESOURCE)),
    many("scopeLogs", 2, Kind::Message(&SCOPE_LOGS)),
    one("schemaUrl", 3, Kind::String),
]);
static SCOPE_LOGS: Message = Message(&[
    one("scope", 1, Kind::Message(&SCOPE)),
    many("logRecords", 2, Kind::Message(&LOG_RECORD)),
    one("schemaUrl", 3, Kind::String),
]);
static LOG_RECORD: Message = Message(&[
    one("timeUnixNano", 1, Kind::Fixed64),
    one("severityNumber", 2, ENUM),
    one("severityText", 3, Kind::String),
    one("body", 5, Kind::Message(&ANY_VALUE)),
    many("attributes", 6, Kind::Message(&KEY_VALUE)),
    one("droppedAttributesCount", 7, UINT32),
    one("flags", 8, Kind::Fixed32),
    one("traceId", 9, Kind::Id),
    one("spanId", 10, Kind::Id),
    one("observedTimeUnixNano", 11, Kind::Fixed64),
    one("eventName", 12, Kind::String),
]);

// metrics/v1

static EXPORT_METRICS: Message = Message(&[many("resourceMetrics", 1, Kind::Message(&RESOURCE_METRICS))]);
static RESOURCE_METRICS: Message = Message(&[
    one("resource", 1, Kind::Message(&RESOURCE)),
    many("scopeMetrics", 2, Kind::Message(&SCOPE_METRICS)),
    one("schemaUrl", 3, Kind::String),
]);
static SCOPE_METRICS: Message = Message(&[
    one("scope", 1, Kind::Message(&SCOPE)),
    many("metrics", 2, Kind::Message(&METRIC)),
    one("schemaUrl", 3, Kind::String),
]);
static METRIC: Message = Message(&[
    one("name", 1, Kind::String),
    one("description", 2, Kind::String),
    one("unit", 3, Kind::String),
    alternative("gauge", 5, Kind::Message(&GAUGE)),
    alternative("sum", 7, Kind::Message(&SUM)),
    alternative("histogram", 9, Kind::Message(&HISTOGRAM)),
    alternative("exponentialHistogram", 10, Kind::Message(&EXPONENTIAL_HISTOGRAM)),
    alternative("summary", 11, Kind::Message(&SUMMARY)),
    many("metadata", 12, Kind::Message(&KEY_VALUE)),
]);
static GAUGE: Message = Message(&[many("dataPoints", 1, Kind::Message(&NUMBER_POINT))]);
static SUM: Message = Message(&[
    many("dataPoints", 1, Kind::Message(&NUMBER_POINT)),
    one("aggregationTemporality", 2, ENUM),
    one("isMonotonic", 3, Kind::Bool),
]);
static HISTOGRAM: Message =
    Message(&[many("dataPoints", 1, Kind::Message(&HISTOGRAM_POINT)), one("aggregationTemporality", 2, ENUM)]);
static EXPONENTIAL_HISTOGRAM: Message =
    Message(&[many("dataPoints", 1, Kind::Message(&EXPONENTIAL_POINT)), one("aggregationTemporality", 2, ENUM)]);
static SUMMARY: Message = Message(&[many("dataPoints", 1, Kind::Message(&SUMMARY_POINT))]);
static NUMBER_POINT: Message = Message(&[
    one("startTimeUnixNano", 2, Kind::Fixed64),
    one("timeUnixNano", 3, Kind::Fixed64),
    alternative("asDouble", 4, Kind::Double),
    many("exemplars", 5, Kind::Message(&EXEMPLAR)),
    alternative("asInt", 6, Kind::Sfixed64),
    many("attributes", 7, Kind::Message(&KEY_VALUE)),
    one("flags", 8, UINT32),
]);
static HISTOGRAM_POINT: Message = Message(&[
    one("startTimeUnixNano", 2, Kind::Fixed64),
    one("timeUnixNano", 3, Kind::Fixed64),
    one("count", 4, Kind::Fixed64),
    one("sum", 5, Kind::Double),
    many("bucketCounts", 6, Kind::Fixed64),
    many("explicitBounds", 7, Kind::Double),
    many("exemplars", 8, Kind::Message(&EXEMPLAR)),
    many("attributes", 9, Kind::Message(&KEY_VALUE)),
    one("flags", 10, UINT32),
    one("min", 11, Kind::Double),
    one("max", 12, Kind::Double),
]);
static EXPONENTIAL_POINT: Message = Message(&[
    many("attributes", 1, Kind::Message(&KEY_VALUE)),
    one("startTimeUnixNano", 2, Kind::Fixed64),
    one("timeUnixNano", 3, Kind::Fixed64),
    one("count", 4, Kind::Fixed64),
    one("sum", 5, Kind::Double),
    one("scale", 6, Kind::Zigzag),
    one("zeroCount", 7, Kind::Fixed64),
    one("positive", 8, Kind::Message(&BUCKETS)),
    one("negative", 9, Kind::Message(&BUCKETS)),
    one("flags", 10, UINT32),
    many("exemplars", 11, Kind::Message(&EXEMPLAR)),
    one("min", 12, Kind::Double),
    one("max", 13, Kind::Double),
    one("zeroThreshold", 14, Kind::Double),
]);
static BUCKETS: Message = Message(&[one("offset", 1, Kind::Zigzag), many("bucketCounts", 2, UINT64)]);
static SUMMARY_POINT: Message = Message(&[
    one("startTimeUnixNano", 2, Kind::Fixed64),
    one("timeUnixNano", 3, Kind::Fixed64),
    one("count", 4, Kind::Fixed64),
    one("sum", 5, Kind::Double),
    many("quantileValues", 6, Kind::Message(&QUANTILE)),
    many("attributes", 7, Kind::Message(&KEY_VALUE)),
    one("flags", 8, UINT32),
]);
static QUANTILE: Message = Message(&[one("quantile", 1, Kind::Double), one("value", 2, Kind::Double)]);
static EXEMPLAR: Message = Message(&[
    one("timeUnixNano", 2, Kind::Fixed64),
    alternative("asDouble", 3, Kind::Double),
    one("spanId", 4, Kind::Id),
    one("traceId", 5, Kind::Id),
    alternative("asInt", 6, Kind::Sfixed64),
    many("filteredAttributes", 7, Kind::Message(&KEY_VALUE)),
]);

// profiles/v1development, as far as it takes to count profiles: what is inside may change with every version.

static COUNTED_PROFILES: Message = Message(&[many("resourceProfiles", 1, Kind::Message(&COUNTED_RESOURCE))]);
static COUNTED_RESOURCE: Message = Message(&[many("scopeProfiles", 2, Kind::Message(&COUNTED_SCOPE))]);
static COUNTED_SCOPE: Message = Message(&[many("profiles", 2, Kind::Message(&COUNTED_PROFILE))]);
static COUNTED_PROFILE: Message = Message(&[]);

// profiles/v1development, all of it. Bytes that the Collector writes as hexadecimal digits are ids.

static EXPORT_PROFILES: Message = Message(&[
    many("resourceProfiles", 1, Kind::Message(&RESOURCE_PROFILES)),
    one("dictionary", 2, Kind::Message(&DICTIONARY)),
]);
static RESOURCE_PROFILES: Message = Message(&[
    one("resource", 1, Kind::Message(&RESOURCE)),
    many("scopeProfiles", 2, Kind::Message(&SCOPE_PROFILES)),
    one("schemaUrl", 3, Kind::String),
]);
static SCOPE_PROFILES: Message = Message(&[
    one("scope", 1, Kind::Message(&SCOPE)),
    many("profiles", 2, Kind::Message(&PROFILE)),
    one("schemaUrl", 3, Kind::String),
]);
static PROFILE: Message = Message(&[
    one("sampleType", 1, Kind::Message(&VALUE_TYPE)),
    many("samples", 2, Kind::Message(&SAMPLE)),
    one("timeUnixNano", 3, Kind::Fixed64),
    one("durationNano", 4, UINT64),
    one("periodType", 5, Kind::Message(&VALUE_TYPE)),
    one("period", 6, INT64),
    one("profileId", 7, Kind::Id),
    one("droppedAttributesCount", 8, UINT32),
    one("originalPayloadFormat", 9, Kind::String),
    one("originalPayload", 10, Kind::Bytes),
    many("attributeIndices", 11, INT32),
]);
static VALUE_TYPE: Message = Message(&[one("typeStrindex", 1, INT32), one("unitStrindex", 2, INT32)]);
static SAMPLE: Message = Message(&[
    one("stackIndex", 1, INT32),
    many("attributeIndices", 2, INT32),
    one("linkIndex", 3, INT32),
    many("values", 4, INT64),
    many("timestampsUnixNano", 5, Kind::Fixed64),
]);
static DICTIONARY: Message = Message(&[
    many("mappingTable", 1, Kind::Message(&MAPPING)),
    many("locationTable", 2, Kind::Message(&LOCATION)),
    many("functionTable", 3, Kind::Message(&FUNCTION)),
    many("linkTable", 4, Kind::Message(&LINK)),
    many("stringTable", 5, Kind::String),
    many("attributeTable", 6, Kind::Message(&KEY_VALUE_AND_UNIT)),
    many("stackTable", 7, Kind::Message(&STACK)),
]);
static MAPPING: Message = Message(&[
    one("memoryStart", 1, UINT64),
    one("memoryLimit", 2, UINT64),
    one("fileOffset", 3, UINT64),
    one("filenameStrindex", 4, INT32),
    many("attributeIndices", 5, INT32),
]);
static LOCATION: Message = Message(&[
    one("mappingIndex", 1, INT32),
    one("address", 2, UINT64),
    many("lines", 3, Kind::Message(&LINE)),
    many("attributeIndices", 4, INT32),
]);
static LINE: Message = Message(&[one("functionIndex", 1, INT32), one("line", 2, INT64), one("column", 3, INT64)]);
static FUNCTION: Message = Message(&[
    one("nameStrindex", 1, INT32),
    one("systemNameStrindex", 2, INT32),
    one("filenameStrindex", 3, INT32),
    one("startLine", 4, INT64),
]);
static LINK: Message = Message(&[one("traceId", 1, Kind::Id), one("spanId", 2, Kind::Id)]);
static KEY_VALUE_AND_UNIT: Message =
    Message(&[one("keyStrindex", 1, INT32), one("value", 2, Kind::Message(&ANY_VALUE)), one("unitStrindex", 3, INT32)]);
static STACK: Message = Message(&[many("locationIndices", 1, INT32)]);

#[cfg(test)]
mod tests {
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
}
