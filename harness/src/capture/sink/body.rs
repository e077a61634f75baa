//! Bodies, read and decompressed within bounds of size, time and memory.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;

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
    /// The client takes too long.
    #[error("the body was not there after {0:?}")]
    TooSlow(Duration),
    /// Everybody together is sending too much at once.
    #[error("the bodies under way hold {limit} bytes already; send it again")]
    Overloaded {
        /// The bound in bytes.
        limit: usize,
    },
}

/// What the sink can decompress, as the headers name it.
pub const ENCODINGS: &str = "identity,gzip,zstd";

/// Bytes of all bodies that are being received, within a bound.
#[derive(Debug)]
pub struct Held {
    bytes: AtomicUsize,
    limit: usize,
}

impl Held {
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { bytes: AtomicUsize::new(0), limit })
    }
}

/// One body's part of [`Held`], given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    held: Arc<Held>,
    bytes: usize,
}

impl Share {
    fn add(&mut self, bytes: usize) -> Result<(), BodyError> {
        self.bytes += bytes;
        let before = self.held.bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > self.held.limit {
            return Err(BodyError::Overloaded { limit: self.held.limit });
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.held.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Within what a body is read.
#[derive(Debug)]
pub struct Bounds<'a> {
    /// Most bytes.
    pub limit: usize,
    /// Most time for the whole of it.
    pub time: Duration,
    /// Where all bodies are counted together.
    pub held: &'a Arc<Held>,
}

/// Reads a body. `announced` is shown its first bytes, as soon as there are five, and says how many there will be in all
/// when they tell: what announces too much is not waited for.
pub async fn read(
    mut body: Body,
    bounds: Bounds<'_>,
    announced: impl Fn([u8; 5]) -> Option<usize>,
) -> Result<(Bytes, Share), BodyError> {
    let too_large = BodyError::TooLarge { limit: bounds.limit, decompressed: false };
    let reading = async {
        let mut share = Share { held: bounds.held.clone(), bytes: 0 };
        let mut first = Bytes::new();
        let mut all = BytesMut::new();
        let mut told = false;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| BodyError::Interrupted(error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            share.add(data.len())?;
            if share.bytes > bounds.limit {
                return Err(too_large);
            }
            // Most bodies come in one piece, which need not be copied.
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                if all.is_empty() {
                    all.extend_from_slice(&std::mem::take(&mut first));
                }
                all.extend_from_slice(&data);
            }
            let so_far = if all.is_empty() { &first[..] } else { &all[..] };
            if let (false, Some(head)) = (told, so_far.first_chunk::<5>()) {
                told = true;
                if announced(*head).is_some_and(|bytes| bytes > bounds.limit) {
                    return Err(too_large);
                }
            }
        }
        Ok((if all.is_empty() { first } else { all.freeze() }, share))
    };
    match tokio::time::timeout(bounds.time, reading).await {
        Ok(read) => read,
        Err(_) => Err(BodyError::TooSlow(bounds.time)),
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
