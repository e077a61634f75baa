//! What a JSON body will take in memory, told from its bytes before it is read: all of it is a tree of values first.
//!
//! Three bytes make an object, and 64 MiB of them would make twenty million: the bound on bytes alone bounds nothing. What
//! protobuf becomes is told by the walk of the [index](crate::capture::index).

/// Smaller requests cannot grow to anything that matters.
const LIGHT: usize = 256 << 10;

/// A JSON object, which may be a span or anything less.
const OBJECT: usize = 350;

/// A value of a JSON tree.
const VALUE: usize = 40;

/// An estimate in bytes; 0 for what is small.
pub fn of_json(text: &[u8]) -> usize {
    if text.len() <= LIGHT { 0 } else { grown(text) }
}

fn grown(text: &[u8]) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::index::HEAVIEST;

    #[test]
    fn a_body_weighs_by_its_objects_and_values_and_not_by_what_stands_in_its_strings() {
        assert_eq!(grown(br#"{"a":[1,2]}"#), 11 + OBJECT + 3 * VALUE);
        assert_eq!(grown(br#""{\"{[,:""#), 9);
        assert_eq!(of_json(b"{}"), 0);
        assert!(of_json(&[b"{},".as_slice()].concat().repeat(4_000_000)) > HEAVIEST);
    }
}
