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

mod table;

pub(super) use table::{Field, Kind, Message, request, whole_request};

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

#[cfg(test)]
mod tests;
