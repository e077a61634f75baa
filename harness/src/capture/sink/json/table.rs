//! The messages of the protocol: names in JSON, tags and types. One table for both ways.

use crate::capture::Signal;

/// The `Export…ServiceRequest` of a signal, as far as the sink reads it: of profiles it only takes the count.
pub(in crate::capture::sink) fn request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Profiles => &COUNTED_PROFILES,
        other => whole_request(other),
    }
}

/// The `Export…ServiceRequest` of a signal with everything in it.
pub(in crate::capture::sink) fn whole_request(signal: Signal) -> &'static Message {
    match signal {
        Signal::Traces => &EXPORT_TRACES,
        Signal::Logs => &EXPORT_LOGS,
        Signal::Metrics => &EXPORT_METRICS,
        Signal::Profiles => &EXPORT_PROFILES,
    }
}

pub(in crate::capture::sink) struct Message(pub(in crate::capture::sink) &'static [Field]);

pub(in crate::capture::sink) struct Field {
    pub(in crate::capture::sink) name: &'static str,
    pub(in crate::capture::sink) tag: u32,
    pub(in crate::capture::sink) kind: Kind,
    pub(in crate::capture::sink) repeated: bool,
    /// Belongs to its message's one `oneof`: of these only the last that came is there.
    pub(in crate::capture::sink) alternative: bool,
}

#[derive(Clone, Copy)]
pub(in crate::capture::sink) enum Kind {
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
