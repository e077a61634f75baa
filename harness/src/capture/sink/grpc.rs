//! OTLP/gRPC: the `Export` methods, unary, over HTTP/2.
//!
//! The framing is read here rather than by generated servers, because the store keeps the message as it was sent, and
//! so that both transports share one bound, one decompression and one account of what was refused.

use std::sync::Arc;

use axum::{body::Body, extract::Request, response::Response};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use tonic::Code;

use super::{
    Inbox, Incoming,
    answer::Refusal,
    body::{self, Bounds},
    connections::Line,
    header, user_agent,
};
use crate::capture::{Encoding, Signal, Transport};

/// Compressed flag and length, before each message.
const PREFIX: usize = 5;

/// Whether a content type is gRPC's with protobuf in it. gRPC-Web and other codecs are not: they are told 415, as gRPC's
/// own protocol wants it.
pub(super) fn is_grpc(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    ["application/grpc", "application/grpc+proto"].iter().any(|known| media_type.eq_ignore_ascii_case(known))
}

pub(super) async fn serve(inbox: &Inbox, request: Request) -> Response {
    let mut response = match export(inbox, request).await {
        Ok(message) => {
            let mut frame = BytesMut::with_capacity(PREFIX + message.len());
            frame.put_u8(0);
            frame.put_u32(message.len() as u32);
            frame.put(message);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let body = Full::new(frame.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
            let mut response = Response::new(Body::new(body));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            response
        }
        Err(refusal) => refusal.grpc().into_http(),
    };
    response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static(body::ENCODINGS));
    response
}

fn signal(path: &str) -> Option<Signal> {
    Some(match path {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Signal::Traces,
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Signal::Logs,
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Signal::Metrics,
        "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export" => Signal::Profiles,
        _ => return None,
    })
}

async fn export(inbox: &Inbox, request: Request) -> Result<Bytes, Refusal> {
    let path = request.uri().path();
    let Some(signal) = signal(path) else {
        let message = format!(
            "{path} is not known; there is Export of TraceService, LogsService, MetricsService and ProfilesService"
        );
        let is_export = path.starts_with("/opentelemetry.proto.collector.") && path.ends_with("/Export");
        inbox.nowhere(&format!("the gRPC call {message}"), &user_agent(request.headers()), is_export);
        return Err(Refusal::new(StatusCode::NOT_FOUND, Code::Unimplemented, message));
    };
    if let Some(refusal) = inbox.missing_header(request.headers()) {
        return Err(inbox.recorded(signal, refusal));
    }
    let mut incoming = Incoming {
        signal,
        transport: Transport::Grpc,
        encoding: Encoding::Protobuf,
        compression: header(request.headers(), "grpc-encoding"),
        user_agent: user_agent(request.headers()),
        line: request.extensions().get::<Arc<Line>>().cloned(),
    };
    let bounds =
        Bounds { limit: inbox.settings.body_limit + PREFIX, time: inbox.settings.body_time, held: &inbox.held };
    let announced = |[_, length @ ..]: [u8; PREFIX]| Some(PREFIX + u32::from_be_bytes(length) as usize);
    let (framed, share) =
        body::read(request.into_body(), bounds, announced).await.map_err(|error| inbox.unread(&incoming, &error))?;
    let message = unframe(&mut incoming, &framed).map_err(|refusal| inbox.recorded(signal, refusal))?;
    inbox.take(incoming, message, share).await
}

/// The one message of a unary call. Only a message whose flag says so is compressed.
fn unframe(incoming: &mut Incoming, framed: &Bytes) -> Result<Bytes, Refusal> {
    let invalid = |what: String| Refusal::bad_data(format!("{}: {what}", incoming.named()));
    let Some((prefix, rest)) = framed.split_first_chunk::<PREFIX>() else {
        return Err(invalid(format!("{} bytes are no message: its prefix alone has {PREFIX}", framed.len())));
    };
    let [flag, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if length != rest.len() {
        return Err(invalid(format!("one message of {length} bytes was announced, {} bytes came", rest.len())));
    }
    match flag {
        0 => incoming.compression.clear(),
        // gRPC, "Compression": a compressed flag without an encoding is answered with INTERNAL.
        1 if matches!(incoming.compression.as_str(), "" | "identity") => {
            let message =
                format!("{}: the message is flagged as compressed, and grpc-encoding says nothing", incoming.named());
            return Err(Refusal::new(StatusCode::BAD_REQUEST, Code::Internal, message));
        }
        1 => {}
        other => return Err(invalid(format!("the compressed flag is {other}, it can be 0 or 1"))),
    }
    Ok(framed.slice(PREFIX..))
}
