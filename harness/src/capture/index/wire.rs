//! Reading protobuf's wire format as prost does, and refusing what it refuses.

/// Why some bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a varint is longer than 10 bytes or ends early")]
    Varint,
    #[error("a field ends early")]
    Truncated,
    #[error("a key is no field number with a wire type")]
    Key,
    #[error("a field has another wire type than its message says")]
    WireType,
    #[error("a group does not end as it began")]
    Group,
    #[error("a string is not UTF-8")]
    Text,
    #[error("messages are nested too deep")]
    Nesting,
    /// No fault of the format: see [`HEAVIEST`](super::HEAVIEST).
    #[error("it would grow too much")]
    Heavy,
}

/// Wire types (protobuf, "Encoding").
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const DELIMITED: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
pub(super) const FIXED32: u8 = 5;

type Read<T> = Result<T, Malformed>;

#[inline(always)]
pub(super) fn varint(wire: &mut &[u8]) -> Read<u64> {
    let (&first, rest) = wire.split_first().ok_or(Malformed::Varint)?;
    if first < 0x80 {
        *wire = rest;
        return Ok(u64::from(first));
    }
    long_varint(wire)
}

fn long_varint(wire: &mut &[u8]) -> Read<u64> {
    let mut number = 0;
    for (at, &byte) in wire.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            // The tenth byte has one bit left.
            if at == 9 && byte > 1 {
                return Err(Malformed::Varint);
            }
            *wire = &wire[at + 1..];
            return Ok(number);
        }
    }
    Err(Malformed::Varint)
}

/// A field number and its wire type.
#[inline(always)]
pub(super) fn key(wire: &mut &[u8]) -> Read<(u32, u8)> {
    let key = u32::try_from(varint(wire)?).map_err(|_| Malformed::Key)?;
    let (tag, wire_type) = (key >> 3, (key & 7) as u8);
    if tag == 0 || wire_type > FIXED32 { Err(Malformed::Key) } else { Ok((tag, wire_type)) }
}

#[inline(always)]
pub(super) fn take<'a>(wire: &mut &'a [u8], length: usize) -> Read<&'a [u8]> {
    let (taken, rest) = wire.split_at_checked(length).ok_or(Malformed::Truncated)?;
    *wire = rest;
    Ok(taken)
}

/// What stands behind a length.
#[inline(always)]
pub(super) fn delimited<'a>(wire: &mut &'a [u8]) -> Read<&'a [u8]> {
    let length = usize::try_from(varint(wire)?).map_err(|_| Malformed::Truncated)?;
    take(wire, length)
}

#[inline(always)]
pub(super) fn fixed64(wire: &mut &[u8]) -> Read<u64> {
    let (bytes, rest) = wire.split_first_chunk::<8>().ok_or(Malformed::Truncated)?;
    *wire = rest;
    Ok(u64::from_le_bytes(*bytes))
}

/// Skips a field that is not known. `depth` is how many more levels may be nested.
pub(super) fn skip(tag: u32, wire_type: u8, wire: &mut &[u8], depth: u32) -> Read<()> {
    if depth == 0 {
        return Err(Malformed::Nesting);
    }
    match wire_type {
        VARINT => varint(wire).map(drop),
        FIXED64 => take(wire, 8).map(drop),
        DELIMITED => delimited(wire).map(drop),
        FIXED32 => take(wire, 4).map(drop),
        GROUP => loop {
            match key(wire)? {
                (end, GROUP_END) if end == tag => return Ok(()),
                (_, GROUP_END) => return Err(Malformed::Group),
                (tag, wire_type) => skip(tag, wire_type, wire, depth - 1)?,
            }
        },
        _ => Err(Malformed::Group),
    }
}
