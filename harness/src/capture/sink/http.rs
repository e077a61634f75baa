//! OTLP/HTTP: `POST /v1/traces`, `/v1/logs`, `/v1/metrics` and `/v1development/profiles` (OTLP specification 1.x,
//! "OTLP/HTTP"). Answers are not compressed, which the specification leaves to the server: they are a few bytes.

use std::sync::Arc;

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    Method, StatusCode,
    header::{ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE},
};
use tonic::Code;

use super::{
    Inbox, Incoming,
    answer::{Refusal, content_type},
    body::{self, BodyError, Bounds},
    connections::Line,
    header, user_agent,
};
use crate::capture::{Encoding, Signal, Transport};

pub(super) async fn serve(inbox: &Inbox, request: Request) -> Response {
    let encoding = encoding(&request);
    // What has no encoding of ours is told in the one that a person can read.
    let answered_in = encoding.unwrap_or(Encoding::Json);
    match export(inbox, encoding, request).await {
        Ok(body) => ([(CONTENT_TYPE, content_type(answered_in))], body).into_response(),
        Err(refusal) => refusal.http(answered_in),
    }
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

fn signal(path: &str) -> Option<Signal> {
    Some(match path {
        "/v1/traces" => Signal::Traces,
        "/v1/logs" => Signal::Logs,
        "/v1/metrics" => Signal::Metrics,
        "/v1development/profiles" => Signal::Profiles,
        _ => return None,
    })
}

/// Whether what is posted to a path that is none of OTLP's was meant for one: a base URL that was taken for the whole one, a path
/// that was added twice or behind another, and whatever an OTLP exporter says that it sends. Others may speak another protocol.
fn is_meant_for_otlp(path: &str, user_agent: &str) -> bool {
    let sender = user_agent.to_ascii_lowercase();
    let path = path.trim_end_matches('/');
    path.is_empty()
        || ["/v1/traces", "/v1/logs", "/v1/metrics"].iter().any(|known| path.ends_with(known))
        || ["otel-otlp-exporter", "opentelemetry"].iter().any(|name| sender.contains(name))
}

async fn export(inbox: &Inbox, encoding: Option<Encoding>, request: Request) -> Result<Bytes, Refusal> {
    let path = request.uri().path();
    let Some(signal) = signal(path) else {
        let message = format!(
            "{path} is not a path of OTLP/HTTP; there are /v1/traces, /v1/logs, /v1/metrics and /v1development/profiles"
        );
        let sender = user_agent(request.headers());
        let is_export = request.method() == Method::POST && encoding.is_some() && is_meant_for_otlp(path, &sender);
        inbox.nowhere(&format!("{} {message}", request.method()), &sender, is_export);
        return Err(Refusal::new(StatusCode::NOT_FOUND, Code::NotFound, message));
    };
    if request.method() != Method::POST {
        let message = format!("{} {path}: telemetry is sent by POST", request.method());
        return Err(Refusal {
            header: Some((ALLOW, "POST")),
            ..Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unimplemented, message)
        });
    }
    if let Some(refusal) = inbox.missing_header(request.headers()) {
        let refusal = Refusal { header: Some((WWW_AUTHENTICATE, "header")), ..refusal };
        return Err(inbox.recorded(signal, refusal));
    }
    let Some(encoding) = encoding else {
        let found = header(request.headers(), CONTENT_TYPE.as_str());
        let message = format!("content type {found:?} is not known; send application/x-protobuf or application/json");
        let refusal = Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::InvalidArgument, message);
        return Err(inbox.recorded(signal, refusal));
    };
    let incoming = Incoming {
        signal,
        transport: Transport::Http,
        encoding,
        compression: header(request.headers(), CONTENT_ENCODING.as_str()),
        user_agent: user_agent(request.headers()),
        line: request.extensions().get::<Arc<Line>>().cloned(),
    };
    let limit = inbox.settings.body_limit;
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let received = match announced {
        Some(length) if length > limit as u64 => Err(BodyError::TooLarge { limit, decompressed: false }),
        _ => {
            let bounds = Bounds { limit, time: inbox.settings.body_time, held: &inbox.held };
            body::read(request.into_body(), bounds, |_| None).await
        }
    };
    let (body, share) = received.map_err(|error| inbox.unread(&incoming, &error))?;
    inbox.take(incoming, body, share).await
}
