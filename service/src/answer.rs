//! What every answer has: a length, and the time that it took.

use std::{panic::AssertUnwindSafe, time::Instant};

use axum::{
    body::HttpBody,
    extract::Request,
    http::{HeaderValue, header},
    middleware::Next,
    response::Response,
};
use futures::FutureExt;

use crate::errors;

/// Adds `x-response-time: <milliseconds with 2 decimals> ms` and `content-length`, and writes
/// `allow` as a list.
pub async fn time(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let mut response = next.run(request).await;
    let length = response.body().size_hint().exact();
    let headers = response.headers_mut();
    if let Some(length) = length
        && !headers.contains_key(header::CONTENT_LENGTH)
    {
        headers.insert(header::CONTENT_LENGTH, length.into());
    }
    // The router writes the list without spaces.
    let allow = headers.get(header::ALLOW).and_then(|allow| allow.to_str().ok());
    let allow = allow.map(|allow| HeaderValue::from_str(&allow.split(',').collect::<Vec<_>>().join(", ")));
    if let Some(Ok(allow)) = allow {
        headers.insert(header::ALLOW, allow);
    }
    let milliseconds = start.elapsed().as_secs_f64() * 1000.0;
    if let Ok(time) = HeaderValue::from_str(&format!("{milliseconds:.2} ms")) {
        headers.insert("x-response-time", time);
    }
    response
}

/// Turns a panic into a 500, so that the answer gets its headers and the span its error.
pub async fn survive(request: Request, next: Next) -> Response {
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => errors::panicked(&*panic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::Failure;
    use axum::{Router, body::Body, middleware::from_fn, routing::get};
    use tower::ServiceExt;

    async fn boom() {
        panic!("boom");
    }

    async fn answer(path: &str) -> Response {
        Router::new()
            .route("/boom", get(boom))
            .route("/fine", get(async || "fine"))
            .layer(from_fn(survive))
            .layer(from_fn(time))
            .oneshot(Request::get(path).body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn a_panic_becomes_a_500_with_the_headers_of_every_answer() {
        let response = answer("/boom").await;
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key("x-response-time"));
        assert_eq!(response.headers()[header::CONTENT_LENGTH], "21");
        assert_eq!(response.extensions().get::<Failure>().unwrap().message, "boom");
    }

    #[tokio::test]
    async fn an_answer_without_panic_stays_as_it_is() {
        assert_eq!(answer("/fine").await.status(), 200);
    }
}
