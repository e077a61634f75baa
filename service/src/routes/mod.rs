//! The routes of the API, and the router that holds them.

pub mod admin;
pub mod files;

use axum::{
    Router,
    extract::{MatchedPath, Request},
    middleware::{Next, from_fn},
    response::Response,
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
        .layer(from_fn(name))
        .with_state(state)
}

/// Paths of the fixed routes.
const FIXED: [&str; 10] = [
    "/",
    "/files/",
    "/healthcheck",
    "/openapi.json",
    "/redoc",
    docs_ui::OAUTH2_REDIRECT,
    docs_ui::OAUTH2_REDIRECT_JS,
    docs_ui::SWAGGER_CSS,
    docs_ui::SWAGGER_JS,
    docs_ui::REDOC_JS,
];

/// Whether a path, percent-encoded, has a route.
pub fn exists(path: &str) -> bool {
    FIXED.contains(&path) || files::name_in(path).is_some()
}

/// Tells the layers outside which route it was.
async fn name(route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(route) = route {
        response.extensions_mut().insert(Route(route.as_str().to_owned()));
    }
    response
}
