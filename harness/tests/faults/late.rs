//! A collector that says yes and hands on later: what a batching extension does to a function that freezes.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
};

type Kept = (String, HeaderMap, Bytes);

#[derive(Debug, Default)]
struct Later {
    kept: Mutex<Vec<Kept>>,
}

/// Serves on a free loopback port of this machine, on the runtime that calls it, and hands each export request on only
/// when the next one of the same signal has come. Returns its URL, to which `/host:port` of the sink is to be added.
pub async fn serve() -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().fallback(take).with_state(Arc::<Later>::default());
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn take(State(later): State<Arc<Later>>, request: Request) -> StatusCode {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let Ok(body) = to_bytes(body, 64 << 20).await else { return StatusCode::BAD_REQUEST };
    let due = {
        let mut kept = later.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (due, rest) =
            std::mem::take(&mut *kept).into_iter().partition::<Vec<Kept>, _>(|(other, ..)| *other == path);
        *kept = rest;
        kept.push((path, parts.headers, body));
        due
    };
    for (path, mut headers, body) in due {
        headers.remove("host");
        let url = format!("http:/{path}");
        let sent = reqwest::Client::new().post(url).headers(headers).body(body).send().await;
        if sent.is_err() {
            return StatusCode::BAD_GATEWAY;
        }
    }
    StatusCode::OK
}

/// Serves likewise, hands each export request on at once, and sends one behind it that no collector can decode.
pub async fn garble() -> String {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().fallback(add_garbage);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

async fn add_garbage(request: Request) -> StatusCode {
    let (mut parts, body) = request.into_parts();
    let url = format!("http:/{}", parts.uri.path());
    let Ok(body) = to_bytes(body, 64 << 20).await else { return StatusCode::BAD_REQUEST };
    parts.headers.remove("host");
    parts.headers.remove("content-length");
    let client = reqwest::Client::new();
    let sent = client.post(&url).headers(parts.headers.clone()).body(body).send().await;
    let garbage = client.post(&url).headers(parts.headers).body("no protobuf").send().await;
    if sent.is_err() || garbage.is_err() { StatusCode::BAD_GATEWAY } else { StatusCode::OK }
}
