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
