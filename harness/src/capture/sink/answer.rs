//! What the protocol answers: `Export…ServiceResponse`, and `google.rpc.Status` for a refusal.

use bytes::Bytes;
use prost::Message;
use serde_json::json;

use super::decode::Contents;
use crate::capture::{Encoding, Signal};

/// The three `Export…ServiceResponse` messages, which are the same on the wire.
#[derive(Clone, PartialEq, Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// `google.rpc.Status` without details.
#[derive(Clone, PartialEq, Message)]
pub struct RpcStatus {
    /// `google.rpc.Code`.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For a developer, in English.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// How many faults an answer spells out: a client logs the message, and one wrong id generator makes all spans wrong.
const FAULTS_IN_MESSAGE: usize = 5;

/// The answer to a request that was stored. `partial_success` is there when something was rejected, and with a count
/// of zero when something is wrong and was kept (the protocol's "warning").
pub fn accepted(signal: Signal, encoding: Encoding, contents: &Contents) -> Bytes {
    let partial = (!contents.faults.is_empty()).then(|| {
        let mut message = contents.faults[..contents.faults.len().min(FAULTS_IN_MESSAGE)].join("; ");
        if let Some(more @ 1..) = contents.faults.len().checked_sub(FAULTS_IN_MESSAGE) {
            message.push_str(&format!("; and {more} more"));
        }
        PartialSuccess { rejected: contents.rejected, error_message: message }
    });
    match encoding {
        Encoding::Protobuf => ExportResponse { partial_success: partial }.encode_to_vec().into(),
        Encoding::Json => {
            let rejected = match signal {
                Signal::Traces => "rejectedSpans",
                Signal::Logs => "rejectedLogRecords",
                Signal::Metrics => "rejectedDataPoints",
            };
            let body = match partial {
                None => json!({}),
                Some(partial) => json!({ "partialSuccess": {
                    rejected: partial.rejected.to_string(),
                    "errorMessage": partial.error_message,
                } }),
            };
            body.to_string().into()
        }
    }
}

/// A refusal over HTTP, in the encoding of the request.
pub fn refused(encoding: Encoding, code: tonic::Code, message: &str) -> Bytes {
    let code = code as i32;
    match encoding {
        Encoding::Protobuf => RpcStatus { code, message: message.to_owned() }.encode_to_vec().into(),
        Encoding::Json => json!({ "code": code, "message": message }).to_string().into(),
    }
}
