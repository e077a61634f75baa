//! What a request will take in memory once it is decoded, told from its bytes before it is.
//!
//! Two bytes make a span, and 64 MiB of them would make thirty million: the bound on bytes alone bounds nothing. The
//! bytes are walked by the same table that JSON is read with, without keeping anything.

use super::json::{Kind, Message, request};
use crate::capture::Signal;

/// Smaller requests cannot grow to anything that matters.
pub const LIGHT: usize = 256 << 10;

/// Most that a request may grow to, in bytes. A full one of 64 MiB from a real exporter grows to a third of it.
pub const HEAVIEST: usize = 1 << 30;

/// A span, log record or metric with everything that it has of its own, as decoded and as stored.
const ITEM: usize = 700;

/// Any other message: an attribute, its value, an event.
const MESSAGE: usize = 100;

/// A JSON object: between an item and what is no item.
const OBJECT: usize = 350;

/// A value of a JSON tree.
const VALUE: usize = 40;

/// Deeper nesting is refused by the decoder.
const DEEPEST: usize = 100;

/// An estimate in bytes, which stops being counted once it is more than [`HEAVIEST`]. What is malformed weighs what was
/// read until there: the decoder will say what is wrong with it.
pub fn of_request(signal: Signal, wire: &[u8]) -> usize {
    let mut weight = 0;
    add(request(signal), wire, 0, &mut weight);
    weight
}

/// The same of JSON, where an object may be an item or anything less, and all of it is a tree of values first.
pub fn of_json(text: &[u8]) -> usize {
    let mut weight = text.len();
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' => weight += OBJECT,
            b'[' | b',' | b':' => weight += VALUE,
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
    weight
}

fn add(message: &'static Message, mut wire: &[u8], depth: usize, weight: &mut usize) -> Option<()> {
    while !wire.is_empty() && *weight <= HEAVIEST {
        let key = varint(&mut wire)?;
        let field = message.field((key >> 3) as u32);
        *weight += 8;
        match key & 7 {
            0 => drop(varint(&mut wire)?),
            1 => drop(take(&mut wire, 8)?),
            5 => drop(take(&mut wire, 4)?),
            2 => {
                let length = usize::try_from(varint(&mut wire)?).ok()?;
                let inner = take(&mut wire, length)?;
                match field.map(|field| field.kind) {
                    Some(Kind::Message(of)) if depth < DEEPEST => {
                        *weight += if of.is_item() { ITEM } else { MESSAGE };
                        add(of, inner, depth + 1, weight)?;
                    }
                    // Packed numbers of one byte each become eight.
                    Some(Kind::Varint(..) | Kind::Zigzag | Kind::Bool) => *weight += 8 * length,
                    Some(_) => *weight += 24 + length,
                    None => {}
                }
            }
            _ => return None,
        }
    }
    Some(())
}

fn take<'a>(wire: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = wire.split_at_checked(length)?;
    *wire = rest;
    Some(taken)
}

fn varint(wire: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = wire.split_first()?;
        *wire = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use prost::encoding::encode_varint;

    use super::*;

    fn within(tag: u8, inner: &[u8]) -> Vec<u8> {
        let mut wire = vec![tag << 3 | 2];
        encode_varint(inner.len() as u64, &mut wire);
        wire.extend_from_slice(inner);
        wire
    }

    #[test]
    fn spans_of_two_bytes_weigh_what_they_become() {
        let wire = within(1, &within(2, &[18, 0].repeat(1000)));
        let weight = of_request(Signal::Traces, &wire);
        assert!((1000 * ITEM..1100 * ITEM).contains(&weight), "{weight}");
    }

    #[test]
    fn attributes_weigh_less_than_spans_and_text_what_it_is_long() {
        let attribute = within(9, &within(1, &[b'x'; 50]));
        let span = within(2, &attribute.repeat(100));
        let weight = of_request(Signal::Traces, &within(1, &within(2, &span)));
        assert!((100 * (MESSAGE + 50)..100 * (MESSAGE + 100)).contains(&weight), "{weight}");
    }

    #[test]
    fn json_weighs_by_its_objects_and_values_and_not_by_what_stands_in_its_strings() {
        assert_eq!(of_json(br#"{"a":[1,2]}"#), 11 + OBJECT + 3 * VALUE);
        assert_eq!(of_json(br#""{\"{[,:""#), 9);
        assert!(of_json(&[b"{},".as_slice()].concat().repeat(4_000_000)) > HEAVIEST);
    }

    #[test]
    fn counting_stops_when_it_is_too_much_and_where_the_bytes_make_no_sense() {
        let wire = within(1, &within(2, &[18, 0].repeat(3_000_000)));
        let weight = of_request(Signal::Traces, &wire);
        assert!((HEAVIEST..HEAVIEST + 2 * ITEM).contains(&weight), "{weight}");
        assert!(of_request(Signal::Logs, &[0xff; 64]) < 100);
        assert!(of_request(Signal::Logs, &[10, 127, 1]) < 100);
    }
}
