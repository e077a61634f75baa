//! The routes of the API, and the router that holds them.

pub mod admin;
pub mod files;

use axum::{
    Router,
    extract::{MatchedPath, Request},
    http::{HeaderValue, Method, header},
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{AppState, docs_ui, errors::ApiError, openapi};

/// Template of the route that a request matched, e.g. `/files/{path}`; travels with the response.
#[derive(Clone, Debug)]
pub struct Route(pub String);

/// All routes, without the middlewares around them.
pub fn router(state: AppState) -> Router {
    Router::new()
        .route("/files/", get(files::list))
        .route("/files/{path}", get(files::get).post(files::create).delete(files::delete))
        .route("/healthcheck", get(admin::healthcheck))
        .route("/openapi.json", get(openapi::document))
        .merge(docs_ui::router())
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .layer(from_fn(finish))
        .with_state(state)
}

/// Paths of the fixed routes.
const FIXED: [&str; 9] = [
    "/",
    "/files/",
    "/healthcheck",
    "/openapi.json",
    "/redoc",
    docs_ui::OAUTH2_REDIRECT,
    docs_ui::SWAGGER_CSS,
    docs_ui::SWAGGER_JS,
    docs_ui::REDOC_JS,
];

/// Whether a path, percent-encoded, has a route.
pub fn exists(path: &str) -> bool {
    FIXED.contains(&path) || files::name_in(path).is_some()
}

/// Tells the layers outside which route it was, and writes `allow` as a list.
async fn finish(route: Option<MatchedPath>, method: Method, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(Route(route.as_str().to_owned()));
    }
    if method != Method::HEAD || response.status().is_client_error() {
        let allow = response.headers().get(header::ALLOW).and_then(|allow| allow.to_str().ok());
        let list = allow.map(|allow| allow.split(',').map(str::trim).collect::<Vec<_>>().join(", "));
        if let Some(Ok(list)) = list.map(|list| HeaderValue::from_str(&list)) {
            response.headers_mut().insert(header::ALLOW, list);
        }
    }
    response.into_response()
}
