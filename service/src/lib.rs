//! The documented serverless REST API: files behind an HTTP API, as a server or a Lambda function.
//!
//! ```text
//! request ─► http_span ─► request_log ─► cors ─► answer ─► location ─► routes ─► storage
//!            SERVER span  log lines      headers time,     ROOT_PATH,            CLIENT or
//!            metrics                             500       slash                 INTERNAL span
//! ```
//!
//! [`app`] is the whole API as an [`axum::Router`]; [`server`] serves it over HTTP, [`workers`] in
//! several processes, and [`lambda`] as a Lambda function.

pub mod answer;
pub mod cors;
pub mod docs_ui;
pub mod errors;
pub mod http_span;
pub mod lambda;
pub mod location;
pub mod openapi;
pub mod redaction;
pub mod request_log;
pub mod routes;
pub mod server;
pub mod settings;
pub mod storage;
pub mod telemetry;
pub mod tls;
pub mod workers;

use std::sync::Arc;

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
};
use bytes::Bytes;
use tower::ServiceBuilder;

use crate::{
    http_span::ServerMetrics,
    settings::Settings,
    storage::{FileStore, StorageError},
    telemetry::Telemetry,
};

/// What the handlers and middlewares share; cheap to clone.
#[derive(Clone, Debug)]
pub struct AppState {
    /// The files.
    pub files: FileStore,
    /// Spans, logs and trace context.
    pub telemetry: Telemetry,
    /// Instruments of the HTTP server.
    pub metrics: ServerMetrics,
    /// Path prefix under which callers know the API.
    pub root_path: Arc<str>,
    /// Origins that browsers may call from.
    pub cors_origins: Arc<[String]>,
    /// `openapi.json`
    pub openapi: Bytes,
}

impl AppState {
    /// State as the settings say.
    ///
    /// # Errors
    /// When the files' store cannot be opened.
    pub fn new(settings: &Settings, telemetry: Telemetry) -> Result<Self, StorageError> {
        Ok(Self {
            files: FileStore::open(&settings.storage, telemetry.clone())?,
            metrics: ServerMetrics::new(telemetry.meter()),
            telemetry,
            root_path: settings.root_path.as_str().into(),
            cors_origins: settings.cors_origins.as_slice().into(),
            openapi: openapi::api(&settings.root_path).to_string().into(),
        })
    }
}

/// The API with everything around it.
pub fn app(state: AppState) -> Router {
    let routes = routes::router(state.clone());
    // The middlewares stand before the routing, not after it as `Router::layer` would put them:
    // preflights and redirects are answered whatever the route.
    let stack = ServiceBuilder::new()
        .layer(from_fn_with_state(state.clone(), http_span::trace))
        .layer(from_fn_with_state(state.clone(), request_log::log))
        .layer(from_fn_with_state(state.clone(), cors::cors))
        .layer(from_fn(answer::time))
        .layer(from_fn(answer::survive))
        .layer(from_fn_with_state(state, location::locate))
        .service(routes);
    Router::new().fallback_service(stack)
}
