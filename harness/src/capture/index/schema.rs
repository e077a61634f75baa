//! The messages of OTLP as far as their wire types go, and the check of bytes against them.
//!
//! Fields are those that prost's types of `opentelemetry-proto` have, so that what passes here is what decodes there.

use super::{
    HEAVIEST,
    wire::{DELIMITED, FIXED32, FIXED64, Malformed, VARINT, delimited, key, skip, take, varint},
};

/// What a field is on the wire.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Unknown,
    Varint,
    Fixed64,
    Fixed32,
    Bytes,
    /// UTF-8.
    Text,
    /// Repeated numbers, packed or not.
    Varints,
    /// The same of fixed width.
    Fixed64s,
    Message(&'static Message),
    /// [`KEY_VALUE`], which is most of what there is.
    Attribute,
}

use Kind::{Attribute, Bytes, Fixed32, Fixed64, Fixed64s, Text, Unknown, Varint, Varints};

/// The fields of a message by their numbers, from 0.
pub(super) struct Message(&'static [Kind]);

impl Message {
    #[inline(always)]
    fn field(&self, tag: u32) -> Kind {
        self.0.get(tag as usize).copied().unwrap_or(Unknown)
    }
}

/// What a request will take in memory once it is decoded, in bytes: an estimate. Two bytes make a span, and 64 MiB of
/// them would make thirty million: the bound on bytes alone bounds nothing.
#[derive(Debug, Default)]
pub(super) struct Weight(pub usize);

impl Weight {
    /// A span, log record or metric with everything that it has of its own, as decoded and as stored.
    pub const ITEM: usize = 700;
    /// Any other message: an attribute, its value, an event.
    pub const MESSAGE: usize = 100;
    /// A field, and text beside its bytes.
    const FIELD: usize = 8;
    const TEXT: usize = 24;
    /// An attribute that [is plain](is_plain), beside its bytes: key, value, and what the value is.
    const PLAIN: usize = Self::MESSAGE + 3 * Self::FIELD + 2 * Self::TEXT;

    #[inline(always)]
    pub fn add(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.0 += bytes;
        if self.0 > HEAVIEST { Err(Malformed::Heavy) } else { Ok(()) }
    }
}

/// Checks the bytes of a message. `depth` is how many more levels may be nested in it.
pub(super) fn message(of: &'static Message, mut wire: &[u8], depth: u32, weight: &mut Weight) -> Result<(), Malformed> {
    while !wire.is_empty() {
        let (tag, wire_type) = key(&mut wire)?;
        field(of, tag, wire_type, &mut wire, depth, weight)?;
    }
    Ok(())
}

/// Checks one field of a message, behind its key.
#[inline(always)]
pub(super) fn field(
    of: &'static Message,
    tag: u32,
    wire_type: u8,
    wire: &mut &[u8],
    depth: u32,
    weight: &mut Weight,
) -> Result<(), Malformed> {
    weight.0 += Weight::FIELD;
    match (of.field(tag), wire_type) {
        (Text, DELIMITED) => {
            let text = delimited(wire)?;
            weight.0 += Weight::TEXT + text.len();
            if !is_text(text) {
                return Err(Malformed::Text);
            }
        }
        (Attribute, DELIMITED) => {
            let inner = delimited(wire)?;
            weight.add(Weight::MESSAGE)?;
            if depth > 1 && is_plain(inner) {
                weight.0 += Weight::PLAIN + inner.len();
            } else {
                nested(&KEY_VALUE, inner, depth, weight)?;
            }
        }
        (Kind::Message(of), DELIMITED) => {
            let inner = delimited(wire)?;
            weight.add(Weight::MESSAGE)?;
            nested(of, inner, depth, weight)?;
        }
        (Varint | Varints, VARINT) => drop(varint(wire)?),
        (Fixed64 | Fixed64s, FIXED64) => drop(take(wire, 8)?),
        (Fixed32, FIXED32) => drop(take(wire, 4)?),
        (Bytes, DELIMITED) => weight.0 += Weight::TEXT + delimited(wire)?.len(),
        (Varints, DELIMITED) => {
            let mut packed = delimited(wire)?;
            // Numbers of one byte each become eight.
            weight.add(8 * packed.len())?;
            while !packed.is_empty() {
                varint(&mut packed)?;
            }
        }
        (Fixed64s, DELIMITED) => {
            let packed = delimited(wire)?;
            weight.add(Weight::TEXT + packed.len())?;
            if packed.len() % 8 != 0 {
                return Err(Malformed::Truncated);
            }
        }
        (Unknown, _) => skip(tag, wire_type, wire, depth)?,
        _ => return Err(Malformed::WireType),
    }
    Ok(())
}

fn nested(of: &'static Message, wire: &[u8], depth: u32, weight: &mut Weight) -> Result<(), Malformed> {
    let below = depth.checked_sub(1).ok_or(Malformed::Nesting)?;
    message(of, wire, below, weight)
}

/// Whether an attribute is what nearly all are: a key, and a value that is text, a number or a truth, each once, in this
/// order, and short. Such a one is sound, and need not be walked over field by field. Others may be sound too.
#[inline(always)]
fn is_plain(wire: &[u8]) -> bool {
    // A length below 0x80 is one byte, and so is a key: the number of the field, times 8, and the wire type.
    let Some((&[0x0a, key @ ..0x80], rest)) = wire.split_first_chunk::<2>() else { return false };
    let Some((key, value)) = rest.split_at_checked(usize::from(key)) else { return false };
    let Some((&[0x12, length @ ..0x80, kind], value)) = value.split_first_chunk::<3>() else { return false };
    if usize::from(length) != value.len() + 1 {
        return false;
    }
    match kind {
        // What stands between key and text is ASCII too, so that all of it can be looked at as one.
        0x0a => matches!(value, [length @ ..0x80, text @ ..] if usize::from(*length) == text.len()) && is_ascii(wire),
        0x10 | 0x18 => {
            let mut rest = value;
            varint(&mut rest).is_ok() && rest.is_empty() && is_ascii(key)
        }
        0x21 => value.len() == 8 && is_ascii(key),
        _ => false,
    }
}

#[inline(always)]
fn is_text(bytes: &[u8]) -> bool {
    // Nearly all of it is short and ASCII, for which the library's own check takes longer to begin than this to end.
    bytes.len() < 0x80 && is_ascii(bytes) || std::str::from_utf8(bytes).is_ok()
}

#[inline(always)]
fn is_ascii(bytes: &[u8]) -> bool {
    const HIGH: u128 = u128::from_ne_bytes([0x80; 16]);
    // Chunks may overlap, so that what is short needs no loop, whose end would be guessed wrongly every time.
    let wide = |chunk: &[u8; 16]| u128::from_ne_bytes(*chunk);
    let narrow = |chunk: &[u8; 8]| u128::from(u64::from_ne_bytes(*chunk));
    let all = if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (chunks, _) = bytes.as_chunks();
        let between = if bytes.len() <= 32 { &[] } else { &chunks[1..] };
        between.iter().fold(wide(first) | wide(last), |all, chunk| all | wide(chunk))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        narrow(first) | narrow(last)
    } else {
        bytes.iter().fold(0, |all, &byte| all | u128::from(byte))
    };
    all & HIGH == 0
}

// common/v1 and resource/v1

static ANY_VALUE: Message = Message(&[
    Unknown,
    Text,
    Varint,
    Varint,
    Fixed64,
    Kind::Message(&ARRAY_VALUE),
    Kind::Message(&KEY_VALUE_LIST),
    Bytes,
    Varint,
]);
static ARRAY_VALUE: Message = Message(&[Unknown, Kind::Message(&ANY_VALUE)]);
static KEY_VALUE_LIST: Message = Message(&[Unknown, Attribute]);
static KEY_VALUE: Message = Message(&[Unknown, Text, Kind::Message(&ANY_VALUE), Varint]);
static SCOPE: Message = Message(&[Unknown, Text, Text, Attribute, Varint]);
static ENTITY_REF: Message = Message(&[Unknown, Text, Text, Text, Text]);
static RESOURCE: Message = Message(&[Unknown, Attribute, Varint, Kind::Message(&ENTITY_REF)]);

/// `ResourceSpans`, `ResourceLogs`, `ResourceMetrics`, but for the scopes in them.
pub(super) static RESOURCE_ITEMS: Message = Message(&[Unknown, Kind::Message(&RESOURCE), Unknown, Text]);
/// `ScopeSpans`, `ScopeLogs`, `ScopeMetrics`, but for the items in them.
pub(super) static SCOPE_ITEMS: Message = Message(&[Unknown, Kind::Message(&SCOPE), Unknown, Text]);

// trace/v1

pub(super) static SPAN: Message = Message(&[
    Unknown,
    Bytes,
    Bytes,
    Text,
    Bytes,
    Text,
    Varint,
    Fixed64,
    Fixed64,
    Attribute,
    Varint,
    Kind::Message(&EVENT),
    Varint,
    Kind::Message(&LINK),
    Varint,
    Kind::Message(&STATUS),
    Fixed32,
]);
static EVENT: Message = Message(&[Unknown, Fixed64, Text, Attribute, Varint]);
static LINK: Message = Message(&[Unknown, Bytes, Bytes, Text, Attribute, Varint, Fixed32]);
static STATUS: Message = Message(&[Unknown, Unknown, Text, Varint]);

// logs/v1

pub(super) static LOG_RECORD: Message = Message(&[
    Unknown,
    Fixed64,
    Varint,
    Text,
    Unknown,
    Kind::Message(&ANY_VALUE),
    Attribute,
    Varint,
    Fixed32,
    Bytes,
    Bytes,
    Fixed64,
    Text,
]);

// metrics/v1

pub(super) static METRIC: Message = Message(&[
    Unknown,
    Text,
    Text,
    Text,
    Unknown,
    Kind::Message(&GAUGE),
    Unknown,
    Kind::Message(&SUM),
    Unknown,
    Kind::Message(&HISTOGRAM),
    Kind::Message(&EXPONENTIAL_HISTOGRAM),
    Kind::Message(&SUMMARY),
    Attribute,
]);
static GAUGE: Message = Message(&[Unknown, Kind::Message(&NUMBER_POINT)]);
static SUM: Message = Message(&[Unknown, Kind::Message(&NUMBER_POINT), Varint, Varint]);
static HISTOGRAM: Message = Message(&[Unknown, Kind::Message(&HISTOGRAM_POINT), Varint]);
static EXPONENTIAL_HISTOGRAM: Message = Message(&[Unknown, Kind::Message(&EXPONENTIAL_POINT), Varint]);
static SUMMARY: Message = Message(&[Unknown, Kind::Message(&SUMMARY_POINT)]);
static NUMBER_POINT: Message =
    Message(&[Unknown, Unknown, Fixed64, Fixed64, Fixed64, Kind::Message(&EXEMPLAR), Fixed64, Attribute, Varint]);
static HISTOGRAM_POINT: Message = Message(&[
    Unknown,
    Unknown,
    Fixed64,
    Fixed64,
    Fixed64,
    Fixed64,
    Fixed64s,
    Fixed64s,
    Kind::Message(&EXEMPLAR),
    Attribute,
    Varint,
    Fixed64,
    Fixed64,
]);
static EXPONENTIAL_POINT: Message = Message(&[
    Unknown,
    Attribute,
    Fixed64,
    Fixed64,
    Fixed64,
    Fixed64,
    Varint,
    Fixed64,
    Kind::Message(&BUCKETS),
    Kind::Message(&BUCKETS),
    Varint,
    Kind::Message(&EXEMPLAR),
    Fixed64,
    Fixed64,
    Fixed64,
]);
static BUCKETS: Message = Message(&[Unknown, Varint, Varints]);
static SUMMARY_POINT: Message =
    Message(&[Unknown, Unknown, Fixed64, Fixed64, Fixed64, Fixed64, Kind::Message(&QUANTILE), Attribute, Varint]);
static QUANTILE: Message = Message(&[Unknown, Fixed64, Fixed64]);
static EXEMPLAR: Message = Message(&[Unknown, Unknown, Fixed64, Fixed64, Bytes, Bytes, Fixed64, Attribute]);
