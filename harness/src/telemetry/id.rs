//! Trace and span ids, checked for length and for zero before anybody uses them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why some bytes or characters are not an id (W3C Trace Context, 3.2.2.3 and 3.2.2.4).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Too long or too short.
    #[error("{found} bytes long, expected {expected}")]
    Length {
        /// Bytes that an id of this kind has.
        expected: usize,
        /// Bytes (or half as many hex digits) that were found.
        found: usize,
    },
    /// All zero, which the specification calls invalid.
    #[error("all zero")]
    Zero,
    /// Characters other than hexadecimal digits.
    #[error("{0:?} is not hexadecimal")]
    NotHex(String),
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $len]);

        impl $name {
            /// The id in these bytes; refuses a wrong length and zero.
            pub fn from_bytes(bytes: &[u8]) -> Result<Self, IdError> {
                let bytes: [u8; $len] =
                    bytes.try_into().map_err(|_| IdError::Length { expected: $len, found: bytes.len() })?;
                if bytes == [0; $len] { Err(IdError::Zero) } else { Ok(Self(bytes)) }
            }

            /// The id in these hexadecimal digits of either case; refuses a wrong length and zero.
            pub fn from_hex(text: &str) -> Result<Self, IdError> {
                let bytes = hex::decode(text).map_err(|error| match error {
                    hex::FromHexError::OddLength => IdError::Length { expected: $len, found: text.len() / 2 },
                    _ => IdError::NotHex(text.to_owned()),
                })?;
                Self::from_bytes(&bytes)
            }

            /// The bytes, most significant first.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// A new id at random.
            pub fn random() -> Self {
                loop {
                    let bytes: [u8; $len] = rand::random();
                    if let Ok(id) = Self::from_bytes(&bytes) {
                        return id;
                    }
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::from_hex(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::from_hex(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// 16 bytes, not all zero; shown as 32 lower-case hexadecimal digits.
    TraceId,
    16
);
id!(
    /// 8 bytes, not all zero; shown as 16 lower-case hexadecimal digits.
    SpanId,
    8
);

/// What a log record says of an id: loggers write zeros or half an id where there is no span, and that differs from
/// saying nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum IdClaim<T> {
    /// No such field, or an empty one.
    #[default]
    Absent,
    /// `0`, or zeros of any length: the logger looked for a span and found none.
    Zero,
    /// Something that is no id; the text as it stood there.
    Malformed(String),
    /// An id.
    Valid(T),
}

impl<T: Copy> IdClaim<T> {
    /// The id, if it is one.
    pub fn valid(&self) -> Option<T> {
        match self {
            Self::Valid(id) => Some(*id),
            _ => None,
        }
    }
}

impl<T: FromStr<Err = IdError>> IdClaim<T> {
    /// Reads a claim from text as loggers write it.
    pub fn parse(text: &str) -> Self {
        let text = text.trim();
        if text.is_empty() {
            return Self::Absent;
        }
        if text.bytes().all(|byte| byte == b'0') {
            return Self::Zero;
        }
        text.parse().map_or_else(|_| Self::Malformed(text.to_owned()), Self::Valid)
    }
}

impl<T: fmt::Display> fmt::Display for IdClaim<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("none"),
            Self::Zero => f.write_str("zero"),
            Self::Malformed(text) => write!(f, "malformed {text:?}"),
            Self::Valid(id) => id.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_of_either_case_is_an_id_and_is_shown_in_lower_case() {
        let id = TraceId::from_hex("4BF92F3577B34DA6A3CE929D0E0E4736").unwrap();
        assert_eq!(id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn zero_short_and_foreign_characters_are_refused_with_the_reason() {
        assert_eq!(TraceId::from_bytes(&[0; 16]), Err(IdError::Zero));
        assert_eq!(SpanId::from_bytes(&[1; 7]), Err(IdError::Length { expected: 8, found: 7 }));
        assert_eq!(SpanId::from_hex("zz00000000000001"), Err(IdError::NotHex("zz00000000000001".into())));
        assert!(matches!(SpanId::from_hex("abc"), Err(IdError::Length { .. })));
    }

    #[test]
    fn a_claim_tells_absent_zero_malformed_and_valid_apart() {
        assert_eq!(IdClaim::<SpanId>::parse(""), IdClaim::Absent);
        assert_eq!(IdClaim::<SpanId>::parse("0"), IdClaim::Zero);
        assert_eq!(IdClaim::<TraceId>::parse("00000000000000000000000000000000"), IdClaim::Zero);
        assert_eq!(IdClaim::<SpanId>::parse("abc"), IdClaim::Malformed("abc".into()));
        assert!(IdClaim::<SpanId>::parse("c901394ba22b334a").valid().is_some());
    }
}
