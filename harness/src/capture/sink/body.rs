//! Bodies, read and decompressed within bounds of size, time and memory.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::{Body, HttpBody};
use bytes::Bytes;
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

/// Most that is allocated at once for a body because it was announced.
const FIRST: usize = 1 << 20;

/// Reads a body into memory of its own, of just its length: what it came in may be part of a larger buffer, and it is kept.
///
/// `announced` is shown its first bytes, as soon as there are five, and says how many there will be in all when they tell:
/// what announces too much is not waited for.
pub async fn read(
    mut body: Body,
    bounds: Bounds<'_>,
    announced: impl Fn([u8; 5]) -> Option<usize>,
) -> Result<(Bytes, Share), BodyError> {
    let too_large = BodyError::TooLarge { limit: bounds.limit, decompressed: false };
    let reading = async {
        let mut share = Share { held: bounds.held.clone(), bytes: 0 };
        let mut all: Vec<u8> = Vec::new();
        // Of HTTP, where the length is a header and was looked at.
        let mut expected = usize::try_from(body.size_hint().exact().unwrap_or_default()).unwrap_or_default();
        let mut told = false;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| BodyError::Interrupted(error.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            share.add(data.len())?;
            if share.bytes > bounds.limit {
                return Err(too_large);
            }
            if !told && all.len() + data.len() >= 5 {
                told = true;
                let mut head = [0; 5];
                let mut first = all.iter().chain(data.iter());
                head.iter_mut().for_each(|byte| *byte = first.next().copied().unwrap_or_default());
                let length = announced(head);
                if length.is_some_and(|bytes| bytes > bounds.limit) {
                    return Err(too_large);
                }
                expected = length.unwrap_or(expected);
            }
            let needed = all.len() + data.len();
            if needed > all.capacity() {
                // Who announces much has to send it: twice as much as there was, and no more than there will be.
                let room = if expected < needed { 2 * all.len() } else { expected.min((2 * all.len()).max(FIRST)) };
                all.reserve_exact(room.max(needed) - all.len());
            }
            all.extend_from_slice(&data);
        }
        // What was not announced may have got more than it needed.
        all.shrink_to_fit();
        Ok((Bytes::from(all), share))
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
    decompressed.shrink_to_fit();
    Ok(decompressed.into())
}
