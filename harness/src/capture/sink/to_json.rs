//! Protobuf bytes made into the OTLP/JSON that says the same, by the table that [`super::json`] reads with.
//!
//! What it means to read the bytes is prost's: a field that comes twice counts as the last one, a message that comes twice
//! is merged, of a `oneof` only the last is there, numbers may be packed, and an unknown field is skipped. The rules of
//! JSON are those of the OTLP specification, "JSON Protobuf Encoding": 64-bit integers are strings, enums are integers,
//! ids are hexadecimal digits and other bytes Base64; doubles that are no number are ProtoJSON's words.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD};
use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use super::json::{Field, Kind, Message, whole_request};
use crate::capture::Signal;

/// Messages within messages, as deep as prost reads.
const DEEPEST: usize = 100;

/// The OTLP/JSON of an `Export…ServiceRequest`, on one line. The list of its resources is there also when it is empty, so that
/// the signal can be told.
///
/// The error says what in `wire` is no such request.
pub fn to_json(signal: Signal, wire: &[u8]) -> Result<String, String> {
    let request = whole_request(signal);
    let mut text = String::with_capacity(2 * wire.len() + 32);
    message(request, &[wire], 0, &mut text)?;
    Ok(text)
}

/// One occurrence of a field.
#[derive(Clone, Copy)]
enum Raw<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Delimited(&'a [u8]),
}

/// Writes a message that is made of `parts`, merged in their order.
fn message(of: &Message, parts: &[&[u8]], depth: usize, text: &mut String) -> Result<(), String> {
    let mut found = Vec::new();
    for part in parts {
        fields(of, part, &mut found)?;
    }
    drop_replaced(of, &mut found);
    // Stable, so that each field's occurrences stay in their order.
    found.sort_by_key(|(place, _)| *place);
    text.push('{');
    if depth == 0 && found.first().is_none_or(|(place, _)| *place != 0) {
        let _ = write!(text, "\"{}\":[]{}", of.0[0].name, if found.is_empty() { "" } else { "," });
    }
    for (n, occurrences) in found.chunk_by(|(a, _), (b, _)| a == b).enumerate() {
        let field = &of.0[occurrences[0].0];
        let _ = write!(text, "{}\"{}\":", if n > 0 { "," } else { "" }, field.name);
        let occurrences = occurrences.iter().map(|(_, raw)| *raw);
        field_value(field, occurrences, depth, text).map_err(|problem| format!("{}: {problem}", field.name))?;
    }
    text.push('}');
    Ok(())
}

/// Leaves of a `oneof` the alternative that came last. Occurrences of it that came behind every other one are merged, like
/// those of any field.
fn drop_replaced(of: &Message, found: &mut Vec<(usize, Raw<'_>)>) {
    let mut last = None;
    let mut replaced = false;
    found.reverse();
    found.retain(|&(place, _)| {
        if !of.0[place].alternative {
            return true;
        }
        replaced |= *last.get_or_insert(place) != place;
        !replaced
    });
    found.reverse();
}

/// Reads a message's known fields, each with its place in the table.
fn fields<'a>(of: &Message, mut wire: &'a [u8], found: &mut Vec<(usize, Raw<'a>)>) -> Result<(), String> {
    let said = |error: DecodeError| error.to_string();
    while !wire.is_empty() {
        let (tag, wire_type) = decode_key(&mut wire).map_err(said)?;
        let Some(place) = of.place(tag) else {
            skip_field(wire_type, tag, &mut wire, DecodeContext::default()).map_err(said)?;
            continue;
        };
        let raw = match wire_type {
            WireType::Varint => Raw::Varint(decode_varint(&mut wire).map_err(said)?),
            WireType::SixtyFourBit => Raw::Fixed64(array(&mut wire)?),
            WireType::ThirtyTwoBit => Raw::Fixed32(array(&mut wire)?),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut wire).map_err(said)?;
                let length = usize::try_from(length).map_err(|_| "ends early")?;
                Raw::Delimited(take(&mut wire, length)?)
            }
            WireType::StartGroup | WireType::EndGroup => return Err("a group, where there are none".into()),
        };
        found.push((place, raw));
    }
    Ok(())
}

fn field_value<'a>(
    field: &Field,
    occurrences: impl Iterator<Item = Raw<'a>>,
    depth: usize,
    text: &mut String,
) -> Result<(), String> {
    if !field.repeated {
        if let Kind::Message(of) = field.kind {
            let parts = occurrences.map(delimited).collect::<Result<Vec<_>, _>>()?;
            return inner(of, &parts, depth, text);
        }
        return occurrences.last().map_or(Ok(()), |raw| scalar(field.kind, raw, text));
    }
    text.push('[');
    let mut comma = "";
    for raw in occurrences {
        match (field.kind, raw) {
            (Kind::Message(of), raw) => {
                text.push_str(comma);
                inner(of, &[delimited(raw)?], depth, text)?;
                comma = ",";
            }
            (Kind::String | Kind::Bytes | Kind::Id, raw) => {
                text.push_str(comma);
                scalar(field.kind, raw, text)?;
                comma = ",";
            }
            (kind, Raw::Delimited(mut packed)) => {
                while !packed.is_empty() {
                    text.push_str(comma);
                    scalar(kind, unpacked(kind, &mut packed)?, text)?;
                    comma = ",";
                }
            }
            (kind, raw) => {
                text.push_str(comma);
                scalar(kind, raw, text)?;
                comma = ",";
            }
        }
    }
    text.push(']');
    Ok(())
}

fn inner(of: &Message, parts: &[&[u8]], depth: usize, text: &mut String) -> Result<(), String> {
    if depth >= DEEPEST {
        return Err(format!("nested more than {DEEPEST} deep"));
    }
    message(of, parts, depth + 1, text)
}

/// The next number of a packed field.
fn unpacked<'a>(kind: Kind, packed: &mut &'a [u8]) -> Result<Raw<'a>, String> {
    Ok(match kind {
        Kind::Fixed64 | Kind::Sfixed64 | Kind::Double => Raw::Fixed64(array(packed)?),
        Kind::Fixed32 => Raw::Fixed32(array(packed)?),
        _ => Raw::Varint(decode_varint(packed).map_err(|error| error.to_string())?),
    })
}

fn scalar(kind: Kind, raw: Raw<'_>, text: &mut String) -> Result<(), String> {
    let written = match (kind, raw) {
        (Kind::String, Raw::Delimited(bytes)) => {
            let string = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
            write!(text, "{}", serde_json::Value::from(string))
        }
        (Kind::Id, Raw::Delimited(bytes)) => write!(text, "\"{}\"", hex::encode(bytes)),
        (Kind::Bytes, Raw::Delimited(bytes)) => write!(text, "\"{}\"", STANDARD.encode(bytes)),
        (Kind::Bool, Raw::Varint(number)) => write!(text, "{}", number != 0),
        // Truncated, as protobuf reads a number that is longer than its type.
        (Kind::Varint(min, max), Raw::Varint(number)) => match (min < 0, max > i128::from(u32::MAX)) {
            (true, true) => write!(text, "\"{}\"", number as i64),
            (false, true) => write!(text, "\"{number}\""),
            (true, false) => write!(text, "{}", number as i32),
            (false, false) => write!(text, "{}", number as u32),
        },
        (Kind::Zigzag, Raw::Varint(number)) => {
            let number = number as u32;
            write!(text, "{}", (number >> 1) as i32 ^ -((number & 1) as i32))
        }
        (Kind::Fixed32, Raw::Fixed32(bytes)) => write!(text, "{}", u32::from_le_bytes(bytes)),
        (Kind::Fixed64, Raw::Fixed64(bytes)) => write!(text, "\"{}\"", u64::from_le_bytes(bytes)),
        (Kind::Sfixed64, Raw::Fixed64(bytes)) => write!(text, "\"{}\"", i64::from_le_bytes(bytes)),
        (Kind::Double, Raw::Fixed64(bytes)) => match f64::from_le_bytes(bytes) {
            number if number.is_nan() => text.write_str("\"NaN\""),
            f64::INFINITY => text.write_str("\"Infinity\""),
            f64::NEG_INFINITY => text.write_str("\"-Infinity\""),
            number => write!(text, "{}", serde_json::Value::from(number)),
        },
        _ => return Err("another type on the wire than the protocol's".into()),
    };
    written.map_err(|error| error.to_string())
}

fn delimited(raw: Raw<'_>) -> Result<&[u8], String> {
    match raw {
        Raw::Delimited(bytes) => Ok(bytes),
        _ => Err("another type on the wire than the protocol's".into()),
    }
}

fn array<const N: usize>(wire: &mut &[u8]) -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    bytes.copy_from_slice(take(wire, N)?);
    Ok(bytes)
}

fn take<'a>(wire: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = wire.split_at_checked(length).ok_or("ends early")?;
    *wire = rest;
    Ok(taken)
}
