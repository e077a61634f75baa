//! Cross-origin requests, as the documented API answers them.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::AppState;

const METHODS: [&str; 8] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY"];
const PREFLIGHT_VARY: &str = "Origin, Access-Control-Request-Method, \
                              Access-Control-Request-Headers, Access-Control-Request-Private-Network";

/// Answers preflights before any routing, and adds the CORS headers to all other answers.
pub async fn cors(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    if let (&Method::OPTIONS, Some(origin), Some(method)) =
        (request.method(), &origin, request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD))
    {
        return preflight(&app.cors_origins, origin, method, request.headers());
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Some(origin) = &origin {
        allow(&app.cors_origins, origin, headers);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    response
}

fn allow(origins: &[String], origin: &HeaderValue, headers: &mut HeaderMap) -> bool {
    headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    let allowed = origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
    if allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    }
    allowed
}

fn preflight(origins: &[String], origin: &HeaderValue, method: &HeaderValue, request: &HeaderMap) -> Response {
    let mut headers = HeaderMap::new();
    let origin_allowed = allow(origins, origin, &mut headers);
    let method_allowed = METHODS.iter().any(|allowed| allowed.as_bytes() == method.as_bytes());
    let mut wrong = Vec::new();
    if !origin_allowed {
        wrong.push("origin");
    }
    if !method_allowed {
        wrong.push("method");
    }
    if let Ok(methods) = HeaderValue::from_str(&METHODS.join(", ")) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
    if let Some(requested) = request.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, requested.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    headers.insert(header::VARY, HeaderValue::from_static(PREFLIGHT_VARY));
    let (status, body) = if wrong.is_empty() {
        (StatusCode::OK, "OK".to_owned())
    } else {
        (StatusCode::BAD_REQUEST, format!("Disallowed CORS {}", wrong.join(", ")))
    };
    headers.insert(header::CONTENT_LENGTH, body.len().into());
    (status, headers, body).into_response()
}
