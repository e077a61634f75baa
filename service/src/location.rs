//! Where in the path space a request belongs: the `ROOT_PATH` before it, the slash at its end.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::{AppState, http_span::scheme, routes};

/// Takes `ROOT_PATH` off the path, and redirects a path that has a route but for its last slash.
///
/// The redirect is absolute, made of the request's `Host`, keeps the query, and keeps the prefix
/// if the request had it.
pub async fn locate(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let (prefix, rest) = split(&app.root_path, &path);
    let target = if rest.is_empty() {
        Some("/".to_owned())
    } else if routes::exists(rest) {
        None
    } else {
        let other = match rest.strip_suffix('/') {
            Some(shorter) => shorter.to_owned(),
            None => format!("{rest}/"),
        };
        routes::exists(&other).then_some(other)
    };
    if let Some(target) = target {
        return redirect(&request, &format!("{prefix}{target}"));
    }
    if !prefix.is_empty() {
        let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        if let Ok(uri) = format!("{rest}{query}").parse::<Uri>() {
            *request.uri_mut() = uri;
        }
    }
    next.run(request).await
}

/// The prefix, if `path` is under it, and what is left of the path.
fn split<'a>(root: &'a str, path: &'a str) -> (&'a str, &'a str) {
    match path.strip_prefix(root) {
        Some(rest) if !root.is_empty() && (rest.is_empty() || rest.starts_with('/')) => (root, rest),
        _ => ("", path),
    }
}

fn redirect(request: &Request, target: &str) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .or_else(|| request.uri().authority().map(|authority| authority.as_str()));
    let base = host.map(|host| format!("{}://{host}", scheme(request))).unwrap_or_default();
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    match HeaderValue::from_str(&format!("{base}{target}{query}")) {
        Ok(location) => (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, location)]).into_response(),
        Err(_) => StatusCode::BAD_REQUEST.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_first_segment_is_the_prefix() {
        assert_eq!(split("/prod", "/prod/files/"), ("/prod", "/files/"));
        assert_eq!(split("/prod", "/prod"), ("/prod", ""));
        assert_eq!(split("/prod", "/production/files/"), ("", "/production/files/"));
        assert_eq!(split("", "/files/"), ("", "/files/"));
    }
}
