//! Swagger UI at `/` and ReDoc at `/redoc`, from files inside the binary: nothing is loaded from
//! another host, so both work offline.

use std::borrow::Cow;

use axum::{
    Router,
    extract::State,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};
use utoipa_swagger_ui::Config;

use crate::{AppState, errors::ApiError};

/// Swagger UI's page that ends an OAuth2 log-in.
pub const OAUTH2_REDIRECT: &str = "/docs/oauth2-redirect";
/// The script of that page.
pub const OAUTH2_REDIRECT_JS: &str = "/docs/oauth2-redirect.js";
/// Swagger UI's style sheet.
pub const SWAGGER_CSS: &str = "/docs/swagger-ui.css";
/// Swagger UI.
pub const SWAGGER_JS: &str = "/docs/swagger-ui-bundle.js";
/// ReDoc.
pub const REDOC_JS: &str = "/docs/redoc.standalone.js";

const REDOC: &[u8] = include_bytes!("../assets/redoc/redoc.standalone.js");

/// The pages and the files that they load.
pub fn router() -> Router<AppState> {
    Router::new()
        .route("/", get(swagger_ui))
        .route("/redoc", get(redoc))
        .route(OAUTH2_REDIRECT, get(async || vendored("oauth2-redirect.html", "text/html")))
        .route(OAUTH2_REDIRECT_JS, get(async || vendored("oauth2-redirect.js", "text/javascript")))
        .route(SWAGGER_CSS, get(async || vendored("swagger-ui.css", "text/css")))
        .route(SWAGGER_JS, get(async || vendored("swagger-ui-bundle.js", "text/javascript")))
        .route(REDOC_JS, get(async || file("text/javascript", REDOC)))
}

async fn swagger_ui(State(app): State<AppState>) -> Response {
    let root = &app.root_path;
    page(format!(
        r##"<!DOCTYPE html>
<html>
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1.0">
<link type="text/css" rel="stylesheet" href="{root}{SWAGGER_CSS}">
<link rel="icon" href="data:,">
<title>Serverless FastAPI - Swagger UI</title>
</head>
<body>
<div id="swagger-ui">
</div>
<script src="{root}{SWAGGER_JS}"></script>
<script>
const ui = SwaggerUIBundle({{
    url: '{root}/openapi.json',
    "dom_id": "#swagger-ui",
    "layout": "BaseLayout",
    "deepLinking": true,
    "showExtensions": true,
    "showCommonExtensions": true,
    oauth2RedirectUrl: window.location.origin + '{root}{OAUTH2_REDIRECT}',
    validatorUrl: null,
    presets: [
        SwaggerUIBundle.presets.apis,
        SwaggerUIBundle.SwaggerUIStandalonePreset
    ],
}})
</script>
</body>
</html>
"##
    ))
}

async fn redoc(State(app): State<AppState>) -> Response {
    let root = &app.root_path;
    page(format!(
        r##"<!DOCTYPE html>
<html>
<head>
<title>Serverless FastAPI - ReDoc</title>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>
body {{
    margin: 0;
    padding: 0;
}}
</style>
</head>
<body>
<noscript>
    ReDoc requires Javascript to function. Please enable it to browse the documentation.
</noscript>
<redoc spec-url="{root}/openapi.json"></redoc>
<script src="{root}{REDOC_JS}"> </script>
</body>
</html>
"##
    ))
}

fn page(html: String) -> Response {
    file("text/html", html.into_bytes())
}

fn vendored(name: &str, content_type: &'static str) -> Response {
    match utoipa_swagger_ui::serve(name, Config::from("/openapi.json").into()) {
        Ok(Some(found)) => file(content_type, found.bytes),
        Ok(None) | Err(_) => ApiError::NotFound.into_response(),
    }
}

fn file(content_type: &str, content: impl Into<Cow<'static, [u8]>>) -> Response {
    let content_type = HeaderValue::from_str(&format!("{content_type}; charset=utf-8"));
    let header: [(HeaderName, HeaderValue); 1] =
        [(header::CONTENT_TYPE, content_type.unwrap_or(HeaderValue::from_static("text/html; charset=utf-8")))];
    (header, content.into()).into_response()
}
