//! Bodies, read and decompressed within a bound.

use std::io::Read;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};

/// Why a body cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More than the limit, as sent or after decompression.
    #[error("the body {} more than {limit} bytes", if *.decompressed { "decompresses to" } else { "has" })]
    TooLarge {
        /// The bound in bytes.
        limit: usize,
        /// Whether it was small as sent.
        decompressed: bool,
    },
    /// A compression other than `gzip`, `zstd` and `identity`.
    #[error("encoding {0:?} is not known; send identity, gzip or zstd")]
    UnknownEncoding(String),
    /// It is not what its encoding says.
    #[error("the body is not valid {encoding}: {reason}")]
    Corrupt {
        /// `gzip` or `zstd`.
        encoding: &'static str,
        /// What the decoder said.
        reason: String,
    },
    /// The client went away.
    #[error("the body ended early: {0}")]
    Interrupted(String),
}

/// What the sink can decompress, as the headers name it.
pub const ENCODINGS: &str = "identity,gzip,zstd";

/// Reads a body of at most `limit` bytes.
pub async fn read(body: Body, limit: usize) -> Result<Bytes, BodyError> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge { limit, decompressed: false }),
        Err(error) => Err(BodyError::Interrupted(error.to_string())),
    }
}

/// Undoes the compression that `encoding` names (the value of `content-encoding` or `grpc-encoding`), and stops at
/// `limit` bytes, so that a small body cannot take much memory.
pub fn decompress(encoding: &str, bytes: Bytes, limit: usize) -> Result<Bytes, BodyError> {
    match encoding.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(bytes),
        "gzip" | "x-gzip" => bounded("gzip", flate2::read::MultiGzDecoder::new(bytes.as_ref()), limit),
        "zstd" => {
            let corrupt = |error: std::io::Error| BodyError::Corrupt { encoding: "zstd", reason: error.to_string() };
            let mut decoder = zstd::stream::read::Decoder::with_buffer(bytes.as_ref()).map_err(corrupt)?;
            // A frame may ask for a window of gigabytes: 2^26 bytes cover the limit.
            decoder.window_log_max(26).map_err(corrupt)?;
            bounded("zstd", decoder, limit)
        }
        _ => Err(BodyError::UnknownEncoding(encoding.to_owned())),
    }
}

fn bounded(encoding: &'static str, decoder: impl Read, limit: usize) -> Result<Bytes, BodyError> {
    let mut decompressed = Vec::new();
    decoder
        .take(limit as u64 + 1)
        .read_to_end(&mut decompressed)
        .map_err(|error| BodyError::Corrupt { encoding, reason: error.to_string() })?;
    if decompressed.len() > limit {
        return Err(BodyError::TooLarge { limit, decompressed: true });
    }
    Ok(decompressed.into())
}
