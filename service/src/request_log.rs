//! "Request details" and "Response details": one log line each per request, inside its span.

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::{AppState, errors::Failure, fields, http_span::host_and_port, redaction};

const TARGET: &str = "serverless_axum::request_log";

/// Bodies longer than this many bytes are not logged.
const LOGGED_BODY_LIMIT: usize = 64 * 1024;

/// Logs the request before and the response after it, with credentials redacted.
///
/// No route uses a request's body; it is read here, whatever the method, to log it when it is JSON.
pub async fn log(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let body = read(body).await;
    let logged = body.as_deref().and_then(json_of).map_or_else(|| json!({}), redaction::body);
    let request = Request::from_parts(parts, Body::from(body.unwrap_or_default()));
    app.telemetry.logger().info(
        TARGET,
        "Request details",
        fields! {
            "method": request.method().as_str(),
            "host": host_and_port(&request).map(|(host, _)| host),
            "path": request.uri().path(),
            "query_params": redaction::query_params(request.uri().query().unwrap_or_default()),
            "headers": redaction::headers(request.headers()),
            "body": logged,
        },
    );
    let response = next.run(request).await;
    if let Some(Failure { kind, message }) = response.extensions().get() {
        app.telemetry.logger().error(
            TARGET,
            "Unhandled error",
            fields! { "exception.type": kind, "exception.message": message },
        );
    }
    app.telemetry.logger().info(
        TARGET,
        "Response details",
        fields! {
            "status_code": response.status().as_u16(),
            "headers": redaction::headers(response.headers()),
        },
    );
    response
}

/// The whole body, or `None` if it is too long to log or breaks off. It is read to its end in any
/// case, because a caller that is still sending would not see the answer.
async fn read(mut body: Body) -> Option<Bytes> {
    if body.is_end_stream() {
        return Some(Bytes::new());
    }
    let mut read = Some(BytesMut::new());
    while let Some(frame) = body.frame().await {
        let data = frame.ok()?.into_data().unwrap_or_default();
        read = read.filter(|read| read.len() + data.len() <= LOGGED_BODY_LIMIT).map(|mut read| {
            read.extend_from_slice(&data);
            read
        });
    }
    read.map(BytesMut::freeze)
}

/// A body as JSON, in UTF-8, UTF-16 or UTF-32, told apart as RFC 4627, section 3, has it.
fn json_of(body: &[u8]) -> Option<Value> {
    serde_json::from_str(&decoded(body)?).ok()
}

fn decoded(body: &[u8]) -> Option<String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks();
        rest.is_empty().then(|| String::from_utf16(&pairs.iter().copied().map(unit).collect::<Vec<_>>()).ok())?
    };
    let utf32 = |bytes: &[u8], unit: fn([u8; 4]) -> u32| {
        let (fours, rest) = bytes.as_chunks();
        rest.is_empty()
            .then(|| fours.iter().copied().map(|four| char::from_u32(unit(four))).collect::<Option<String>>())?
    };
    match body {
        [0, 0, 0xfe, 0xff, rest @ ..] => utf32(rest, u32::from_be_bytes),
        [0xff, 0xfe, 0, 0, rest @ ..] => utf32(rest, u32::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0, 0, 0, _, ..] => utf32(body, u32::from_be_bytes),
        [_, 0, 0, 0, ..] => utf32(body, u32::from_le_bytes),
        [0, _, ..] => utf16(body, u16::from_be_bytes),
        [_, 0, ..] => utf16(body, u16::from_le_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        _ => String::from_utf8(body.to_vec()).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_in_every_encoding_that_it_may_have() {
        let text = r#"{"k":"é"}"#;
        let utf16 = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<_>>();
        let utf32 = |unit: fn(u32) -> [u8; 4]| text.chars().flat_map(|c| unit(c.into())).collect::<Vec<_>>();
        let with = |mark: &[u8], body: Vec<u8>| [mark.to_vec(), body].concat();
        for body in [
            text.as_bytes().to_vec(),
            with(&[0xef, 0xbb, 0xbf], text.into()),
            utf16(u16::to_le_bytes),
            utf16(u16::to_be_bytes),
            with(&[0xff, 0xfe], utf16(u16::to_le_bytes)),
            with(&[0xfe, 0xff], utf16(u16::to_be_bytes)),
            utf32(u32::to_le_bytes),
            utf32(u32::to_be_bytes),
            with(&[0xff, 0xfe, 0, 0], utf32(u32::to_le_bytes)),
            with(&[0, 0, 0xfe, 0xff], utf32(u32::to_be_bytes)),
        ] {
            assert_eq!(json_of(&body), Some(json!({"k": "é"})), "{body:?}");
        }
    }

    #[test]
    fn what_is_no_json_is_none() {
        for body in [&b""[..], b"not json", b"\xff\xfe\xfd", b"\x89PNG\r\n", b"\0", b"[NaN]"] {
            assert_eq!(json_of(body), None);
        }
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_the_limit_and_not_beyond() {
        let body = |length| Body::from(vec![b'1'; length]);
        assert_eq!(read(body(LOGGED_BODY_LIMIT)).await.unwrap().len(), LOGGED_BODY_LIMIT);
        assert_eq!(read(body(LOGGED_BODY_LIMIT + 1)).await, None);
    }
}
