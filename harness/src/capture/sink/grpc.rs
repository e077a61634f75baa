//! OTLP/gRPC: the three `Export` methods, unary, over HTTP/2.
//!
//! The framing is read here rather than by generated servers, because the store keeps the message as it was sent, and
//! so that both transports share one bound, one decompression and one account of what was refused.

use axum::{body::Body, extract::Request, response::Response};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use tonic::Status;

use super::{
    Inbox,
    body::{self, BodyError},
    user_agent,
};
use crate::capture::{Encoding, Signal, Transport};

/// Compressed flag and length, before each message.
const PREFIX: usize = 5;

pub(super) async fn serve(inbox: &Inbox, request: Request) -> Response {
    match export(inbox, request).await {
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
            accept_encodings(&mut response);
            response
        }
        Err(status) => {
            let mut response = status.into_http();
            accept_encodings(&mut response);
            response
        }
    }
}

fn accept_encodings(response: &mut Response) {
    response.headers_mut().insert("grpc-accept-encoding", HeaderValue::from_static(body::ENCODINGS));
}

async fn export(inbox: &Inbox, request: Request) -> Result<Bytes, Status> {
    let path = request.uri().path();
    let signal = match path {
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => Signal::Traces,
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Signal::Logs,
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => Signal::Metrics,
        _ => {
            return Err(Status::unimplemented(format!(
                "{path} is not known; there is Export of TraceService, LogsService and MetricsService"
            )));
        }
    };
    let user_agent = user_agent(request.headers());
    let compression = match request.headers().get("grpc-encoding") {
        Some(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        None => String::new(),
    };
    let body = match body::read(request.into_body(), inbox.limit + PREFIX).await {
        Ok(framed) => unframe(inbox, signal, &compression, framed)?,
        Err(error) => return Err(refusal(inbox, signal, &error)),
    };
    inbox.take(signal, Transport::Grpc, Encoding::Protobuf, user_agent, body).map_err(Status::invalid_argument)
}

/// The one message of a unary call.
fn unframe(inbox: &Inbox, signal: Signal, compression: &str, framed: Bytes) -> Result<Bytes, Status> {
    let invalid = |what: String| Status::invalid_argument(inbox.refuse(signal, format!("the {signal} call: {what}")));
    let Some((prefix, rest)) = framed.split_first_chunk::<PREFIX>() else {
        return Err(invalid(format!("{} bytes are no message: its prefix alone has {PREFIX}", framed.len())));
    };
    let [flag, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if length != rest.len() {
        return Err(invalid(format!("one message of {length} bytes was announced, {} bytes came", rest.len())));
    }
    let message = framed.slice(PREFIX..);
    match flag {
        0 => Ok(message),
        1 => body::decompress(compression, message, inbox.limit).map_err(|error| refusal(inbox, signal, &error)),
        other => Err(invalid(format!("the compressed flag is {other}, it can be 0 or 1"))),
    }
}

fn refusal(inbox: &Inbox, signal: Signal, error: &BodyError) -> Status {
    let message = inbox.refuse(signal, format!("the {signal} call: {error}"));
    match error {
        BodyError::TooLarge { .. } => Status::resource_exhausted(message),
        BodyError::UnknownEncoding(_) => Status::unimplemented(message),
        BodyError::Corrupt { .. } => Status::invalid_argument(message),
        BodyError::Interrupted(_) => Status::cancelled(message),
    }
}
