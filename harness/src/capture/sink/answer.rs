//! What the protocol answers: `Export…ServiceResponse`, and a refusal as `google.rpc.Status` over either transport.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER};
use prost::Message;
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt, pb};

use super::body::BodyError;
use crate::capture::{Encoding, Signal};

/// The `Export…ServiceResponse` messages, which are the same on the wire for every signal.
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

/// How many faults an answer spells out: a client logs the message, and one wrong id generator makes all spans wrong.
const FAULTS_IN_MESSAGE: usize = 5;

/// The answer to a request that was stored. `partial_success` is there when something was rejected, and with a count
/// of zero when something is wrong and was kept (the protocol's "warning").
pub fn accepted(signal: Signal, encoding: Encoding, faults: &[String], rejected: i64) -> Bytes {
    let partial = (!faults.is_empty()).then(|| {
        let mut message = faults[..faults.len().min(FAULTS_IN_MESSAGE)].join("; ");
        if let Some(more @ 1..) = faults.len().checked_sub(FAULTS_IN_MESSAGE) {
            message.push_str(&format!("; and {more} more"));
        }
        PartialSuccess { rejected, error_message: message }
    });
    match encoding {
        Encoding::Protobuf => ExportResponse { partial_success: partial }.encode_to_vec().into(),
        Encoding::Json => {
            let rejected = match signal {
                Signal::Traces => "rejectedSpans",
                Signal::Logs => "rejectedLogRecords",
                Signal::Metrics => "rejectedDataPoints",
                Signal::Profiles => "rejectedProfiles",
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

/// Why a request is refused, and how either transport says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// OTLP/HTTP's answer. 429, 502, 503 and 504 are retryable, all others are not.
    pub status: StatusCode,
    /// OTLP/gRPC's answer.
    pub code: Code,
    /// For a developer, in English.
    pub message: String,
    /// When the exporter may try again: `Retry-After` and `google.rpc.RetryInfo`.
    pub retry: Option<Duration>,
    /// A header of the HTTP answer.
    pub header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    pub fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry: None, header: None }
    }

    /// What the request holds is wrong, and will be wrong again: the exporter must not retry.
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, message)
    }

    pub fn of_body(error: &BodyError, message: String) -> Self {
        match error {
            BodyError::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, message),
            BodyError::UnknownEncoding(_) => Self {
                header: Some((http::header::ACCEPT_ENCODING, super::body::ENCODINGS)),
                ..Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Unimplemented, message)
            },
            BodyError::Corrupt { .. } => Self::bad_data(message),
            BodyError::Interrupted(_) => Self::new(StatusCode::BAD_REQUEST, Code::Cancelled, message),
            BodyError::TooSlow(_) => Self::new(StatusCode::REQUEST_TIMEOUT, Code::DeadlineExceeded, message),
            // What others have sent will be taken in soon: this one may come again.
            BodyError::Overloaded { .. } => Self {
                retry: Some(Duration::from_secs(1)),
                ..Self::new(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, message)
            },
        }
    }

    fn details(&self) -> ErrorDetails {
        let mut details = ErrorDetails::new();
        if self.retry.is_some() {
            details.set_retry_info(self.retry);
        }
        if self.is_bad_data() {
            details.add_bad_request_violation("", self.message.clone());
        }
        details
    }

    fn is_bad_data(&self) -> bool {
        self.status == StatusCode::BAD_REQUEST && self.code == Code::InvalidArgument
    }

    /// As a gRPC status; its details travel in `grpc-status-details-bin`.
    pub fn grpc(&self) -> Status {
        Status::with_error_details(self.code, self.message.clone(), self.details())
    }

    /// As an HTTP response with a `google.rpc.Status` in `encoding`.
    pub fn http(&self, encoding: Encoding) -> Response {
        let body: Bytes = match encoding {
            Encoding::Protobuf => {
                // The details of tonic's status are the whole message, encoded.
                let status = self.grpc();
                let whole = pb::Status { code: self.code as i32, message: self.message.clone(), details: Vec::new() };
                if status.details().is_empty() {
                    whole.encode_to_vec().into()
                } else {
                    Bytes::copy_from_slice(status.details())
                }
            }
            Encoding::Json => self.json().to_string().into(),
        };
        let mut response = (self.status, [(http::header::CONTENT_TYPE, content_type(encoding))], body).into_response();
        if let Some((name, value)) = &self.header {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        if let Some(retry) = self.retry {
            let seconds = retry.as_secs() + u64::from(retry.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// ProtoJSON of `google.rpc.Status`; an `Any` names its type in `@type`.
    fn json(&self) -> Value {
        let mut details = Vec::new();
        if let Some(retry) = self.retry {
            let delay = format!("{}s", retry.as_secs_f64());
            details.push(json!({ "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay }));
        }
        if self.is_bad_data() {
            details.push(json!({
                "@type": "type.googleapis.com/google.rpc.BadRequest",
                "fieldViolations": [{ "description": self.message }],
            }));
        }
        let mut status = json!({ "code": self.code as i32, "message": self.message });
        if !details.is_empty() {
            status["details"] = Value::Array(details);
        }
        status
    }
}

/// The answer has the request's content type.
pub fn content_type(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json => "application/json",
    }
}
