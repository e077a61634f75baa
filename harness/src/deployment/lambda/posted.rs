//! What a runtime or an extension posts: a response, whole or streamed, and the report of an error.
//!
//! Sources: "Using the Lambda runtime API for custom runtimes" and "Response streaming" of "Building a custom runtime"
//! in the Lambda Developer Guide.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde_json::Value;

use super::runtime_api::{Failure, refusal};

/// Largest response that is not streamed: 6 MiB and 100 bytes.
pub(super) const LARGEST_RESPONSE: usize = 6 * 1024 * 1024 + 100;

/// Largest streamed response, 200 MB ("Response streaming for Lambda functions" in the Lambda Developer Guide), which is
/// counted in MiB like the 6 MB of the others.
pub(super) const LARGEST_STREAM: usize = 200 * 1024 * 1024;

/// How large responses may be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) buffered: usize,
    pub(super) streamed: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { buffered: LARGEST_RESPONSE, streamed: LARGEST_STREAM }
    }
}

impl Limits {
    /// Bytes that a response that travels like this may have.
    pub(super) const fn of(self, mode: Mode) -> usize {
        match mode {
            Mode::Buffered => self.buffered,
            Mode::Streaming => self.streamed,
        }
    }
}

/// How a response travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// In one piece.
    Buffered,
    /// `Lambda-Runtime-Function-Response-Mode: streaming`: an error that happens on the way is said in trailers.
    Streaming,
}

impl Mode {
    /// What the headers say; a mode that is not known is refused.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Box<Response>> {
        match headers.get("lambda-runtime-function-response-mode").map(|value| value.as_bytes()) {
            None => Ok(Self::Buffered),
            Some(mode) if mode.eq_ignore_ascii_case(b"streaming") => Ok(Self::Streaming),
            Some(mode) => {
                let message = format!("unknown function response mode {:?}", String::from_utf8_lossy(mode));
                Err(Box::new(refusal(StatusCode::BAD_REQUEST, "InvalidFunctionResponseMode", message)))
            }
        }
    }
}

/// The body of a request, up to the limit.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) body: Bytes,
    /// Bytes over the limit, read and dropped so that the client can read the refusal.
    pub(super) excess: usize,
    /// The error that a streamed response ended with, from its trailers.
    pub(super) error: Option<Failure>,
}

/// Reads a body to its end, and keeps up to `largest` bytes of it. The error is the answer to a body that broke off.
pub(super) async fn read(mut body: Body, mode: Mode, largest: usize) -> Result<Received, Box<Response>> {
    let (mut kept, mut excess, mut error) = (BytesMut::new(), 0, None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let message = format!("the body broke off: {error}");
            Box::new(refusal(StatusCode::BAD_REQUEST, "InvalidRequest", message))
        })?;
        match frame.into_data() {
            Ok(data) => {
                let room = (largest - kept.len()).min(data.len());
                kept.extend_from_slice(&data[..room]);
                excess += data.len() - room;
            }
            Err(frame) if mode == Mode::Streaming => {
                if let Some(trailers) = frame.trailers_ref() {
                    error = in_trailers(trailers);
                }
            }
            Err(_) => {}
        }
    }
    Ok(Received { body: kept.freeze(), excess, error })
}

/// `Lambda-Runtime-Function-Error-Type`, and `Lambda-Runtime-Function-Error-Body` in base64 as AWS documents it, or as
/// it stands when it is none.
fn in_trailers(trailers: &HeaderMap) -> Option<Failure> {
    trailers.get(ERROR_TYPE)?;
    let body = trailers.get("lambda-runtime-function-error-body").map_or(&b""[..], |value| value.as_bytes());
    let body = STANDARD.decode(body).unwrap_or_else(|_| body.to_vec());
    Some(reported(trailers, &body))
}

const ERROR_TYPE: &str = "lambda-runtime-function-error-type";

/// `errorType` and `errorMessage` of an error report; the header and the whole body stand in for what is not there.
pub(super) fn reported(headers: &HeaderMap, body: &[u8]) -> Failure {
    let report: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| report.get(name).and_then(Value::as_str).map(str::to_owned);
    let header = headers.get(ERROR_TYPE).and_then(|value| value.to_str().ok());
    let category = sanitised(header.unwrap_or_default());
    Failure {
        error_type: field("errorType").unwrap_or_else(|| category.clone()),
        message: field("errorMessage").unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()),
        category,
    }
}

/// The error type as the platform's own telemetry has it: `Runtime.` or `Function.` and a word that begins with a
/// capital; for anything else that a runtime says, `Function.Unknown` or `Runtime.Unknown` (as AWS's runtime interface
/// emulator does).
fn sanitised(error_type: &str) -> String {
    let (prefix, word) = error_type.split_once('.').unwrap_or_default();
    let good = word.starts_with(|first: char| first.is_ascii_uppercase())
        && word.len() > 1
        && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    match prefix {
        "Runtime" | "Function" if good => error_type.to_owned(),
        "Function" => "Function.Unknown".into(),
        _ => "Runtime.Unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(error_type: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ERROR_TYPE.parse().unwrap(), error_type.parse().unwrap())])
    }

    #[test]
    fn an_error_type_that_is_none_of_the_platforms_is_put_among_the_unknown_ones() {
        for (said, category) in [
            ("Runtime.ExitError", "Runtime.ExitError"),
            ("Function.NoSuchHandler", "Function.NoSuchHandler"),
            ("Function.lower", "Function.Unknown"),
            ("Function.<script>", "Function.Unknown"),
            ("Runtime.", "Runtime.Unknown"),
            ("unhandled", "Runtime.Unknown"),
            ("", "Runtime.Unknown"),
        ] {
            assert_eq!(reported(&headers(said), b"{}").category, category, "{said}");
        }
    }

    #[test]
    fn a_report_is_read_from_its_body_and_from_the_header_where_the_body_is_silent() {
        let full = reported(&headers("Function.Panic"), br#"{"errorType":"E","errorMessage":"m","stackTrace":[]}"#);
        assert_eq!((full.error_type.as_str(), full.message.as_str()), ("E", "m"));
        let silent = reported(&headers("Function.Panic"), b"not json");
        assert_eq!((silent.error_type.as_str(), silent.message.as_str()), ("Function.Panic", "not json"));
    }

    #[test]
    fn trailers_carry_the_error_in_base64_or_as_it_stands_and_without_an_error_type_they_are_none() {
        let mut trailers = headers("Runtime.StreamError");
        for body in [STANDARD.encode(r#"{"errorMessage":"broke"}"#), r#"{"errorMessage":"broke"}"#.into()] {
            trailers.insert("lambda-runtime-function-error-body", body.parse().unwrap());
            let failure = in_trailers(&trailers).unwrap();
            assert_eq!((failure.error_type.as_str(), failure.message.as_str()), ("Runtime.StreamError", "broke"));
        }
        trailers.remove(ERROR_TYPE);
        assert_eq!(in_trailers(&trailers), None);
    }

    #[test]
    fn a_response_is_streamed_only_when_it_says_so_and_a_mode_that_is_not_known_is_refused() {
        let said = |mode: &'static str| {
            let name = "lambda-runtime-function-response-mode";
            Mode::of(&HeaderMap::from_iter([(name.parse().unwrap(), mode.parse().unwrap())]))
        };
        assert_eq!(Mode::of(&HeaderMap::new()).unwrap(), Mode::Buffered);
        assert_eq!(said("streaming").unwrap(), Mode::Streaming);
        assert_eq!(said("flowing").unwrap_err().status(), StatusCode::BAD_REQUEST);
    }
}
