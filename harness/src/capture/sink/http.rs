//! OTLP/HTTP: `POST /v1/traces`, `/v1/logs` and `/v1/metrics` (OTLP specification 1.x, "OTLP/HTTP").

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{
    HeaderName, Method, StatusCode,
    header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE},
};
use tonic::Code;

use super::{
    Inbox, answer,
    body::{self, BodyError},
    user_agent,
};
use crate::capture::{Encoding, Signal, Transport};

/// Why a request is refused.
struct Refusal {
    status: StatusCode,
    code: Code,
    message: String,
    header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), header: None }
    }
}

pub(super) async fn serve(inbox: &Inbox, request: Request) -> Response {
    let encoding = encoding(&request);
    // What has no encoding of ours is told in the one that a person can read.
    let answered_in = encoding.unwrap_or(Encoding::Json);
    let (status, body, header) = match export(inbox, encoding, request).await {
        Ok(body) => (StatusCode::OK, body, None),
        Err(refusal) => (refusal.status, answer::refused(answered_in, refusal.code, &refusal.message), refusal.header),
    };
    let content_type = match answered_in {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json => "application/json",
    };
    let mut response = (status, [(CONTENT_TYPE, content_type)], body).into_response();
    if let Some((name, value)) = header {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    response
}

fn encoding(request: &Request) -> Option<Encoding> {
    let media_type = request.headers().get(CONTENT_TYPE)?.to_str().ok()?.split(';').next()?.trim();
    if media_type.eq_ignore_ascii_case("application/x-protobuf") {
        Some(Encoding::Protobuf)
    } else if media_type.eq_ignore_ascii_case("application/json") {
        Some(Encoding::Json)
    } else {
        None
    }
}

async fn export(inbox: &Inbox, encoding: Option<Encoding>, request: Request) -> Result<bytes::Bytes, Refusal> {
    let path = request.uri().path();
    let signal = match path {
        "/v1/traces" => Signal::Traces,
        "/v1/logs" => Signal::Logs,
        "/v1/metrics" => Signal::Metrics,
        _ => {
            let message = format!("{path} is not a path of OTLP/HTTP; there are /v1/traces, /v1/logs and /v1/metrics");
            return Err(Refusal::new(StatusCode::NOT_FOUND, Code::NotFound, message));
        }
    };
    if request.method() != Method::POST {
        let message = format!("{} {path}: telemetry is sent by POST", request.method());
        return Err(Refusal {
            header: Some((ALLOW, "POST")),
            ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, message)
        });
    }
    let Some(encoding) = encoding else {
        let found = request.headers().get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
        let message = format!(
            "content type {:?} is not known; send application/x-protobuf or application/json",
            found.as_deref().unwrap_or_default()
        );
        let message = inbox.refuse(signal, message);
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, message));
    };
    let user_agent = user_agent(request.headers());
    let compression = match request.headers().get(CONTENT_ENCODING) {
        Some(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        None => String::new(),
    };
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let received = match announced {
        Some(length) if length > inbox.limit as u64 => {
            Err(BodyError::TooLarge { limit: inbox.limit, decompressed: false })
        }
        _ => body::read(request.into_body(), inbox.limit).await,
    };
    let body = received
        .and_then(|bytes| body::decompress(&compression, bytes, inbox.limit))
        .map_err(|error| refusal(inbox, signal, &error))?;
    inbox
        .take(signal, Transport::Http, encoding, user_agent, body)
        .map_err(|reason| Refusal::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, reason))
}

fn refusal(inbox: &Inbox, signal: Signal, error: &BodyError) -> Refusal {
    let message = inbox.refuse(signal, format!("the {signal} request: {error}"));
    match error {
        BodyError::TooLarge { .. } => Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, message),
        BodyError::UnknownEncoding(_) => Refusal {
            header: Some((ACCEPT_ENCODING, body::ENCODINGS)),
            ..Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, message)
        },
        BodyError::Corrupt { .. } | BodyError::Interrupted(_) => {
            Refusal::new(StatusCode::BAD_REQUEST, Code::InvalidArgument, message)
        }
    }
}
