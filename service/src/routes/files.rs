//! Files: list, read, create or overwrite, delete.

use axum::{
    Json,
    extract::{FromRequestParts, RawQuery, State},
    http::{HeaderValue, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use utoipa::ToSchema;

use crate::{AppState, errors::ApiError, openapi::HttpValidationError, telemetry::logs::Fields};

const TARGET: &str = "serverless_axum::routes::files";

/// Response for creating a file.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PostFileResponse {
    /// The file's name.
    pub path: String,
}

/// Response for listing files.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ListFilesResponse {
    /// Paths from the prefix, in key order.
    pub files: Vec<String>,
}

/// The `{path}` of `/files/{path}`: one segment, percent-decoded. Bytes that are not UTF-8 become
/// U+FFFD.
///
/// A segment that decodes to a path (`a%2Fb`) or to no name (`..`, control characters) names no
/// file: 404.
#[derive(Debug)]
pub struct FileName(String);

impl<S: Sync> FromRequestParts<S> for FileName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        name_in(parts.uri.path()).map(Self).ok_or(ApiError::NotFound)
    }
}

/// The file name in a path of the form `/files/{path}`, if it is one.
pub fn name_in(path: &str) -> Option<String> {
    let segment = path.strip_prefix("/files/")?;
    let name = percent_decode_str(segment).decode_utf8_lossy();
    let is_name =
        !name.is_empty() && !matches!(&*name, "." | "..") && !name.contains(|c: char| c == '/' || c.is_ascii_control());
    is_name.then(|| name.into_owned())
}

/// The last value of a query parameter, decoded: `+` is a space, bytes that are not UTF-8 are U+FFFD.
fn last_value(query: Option<&str>, name: &str) -> Option<String> {
    form_urlencoded::parse(query?.as_bytes()).filter(|(key, _)| key == name).last().map(|(_, value)| value.into_owned())
}

/// Get File
///
/// Try to return the contents of a file.
#[utoipa::path(
    get,
    path = "/files/{path}",
    tag = "Files",
    operation_id = "get_file_files__path__get",
    params(("path" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", content_type = "text/plain", body = String),
        (status = 404, description = "Not Found", content_type = "application/json", body = serde_json::Value,
         examples(("File not found" = (value = json!({"detail": "Could not find file: path/to/file.txt"}))))),
        (status = 422, description = "Validation Error", body = HttpValidationError),
    ),
)]
pub async fn get(State(app): State<AppState>, FileName(name): FileName) -> Result<Response, ApiError> {
    let log = app.telemetry.logger();
    log.info(TARGET, format!("Attempting to retrieve contents of file at path: \"{name}\""), Fields::new());
    let content = app.files.get(&name).await.map_err(ApiError::from).inspect_err(|error| {
        if let ApiError::NoSuchFile(name) = error {
            log.error(TARGET, format!("File not found: {name}"), Fields::new());
        }
    })?;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, plain)], content).into_response())
}

/// Create File
///
/// Create or overwrite a new file.
#[utoipa::path(
    post,
    path = "/files/{path}",
    tag = "Files",
    operation_id = "create_file_files__path__post",
    params(("path" = String, Path), ("content" = String, Query)),
    responses(
        (status = 200, description = "Successful Response", body = PostFileResponse,
         examples(("Success" = (value = json!({"path": "path/to/file.txt"}))))),
        (status = 422, description = "Validation Error", body = HttpValidationError),
    ),
)]
pub async fn create(
    State(app): State<AppState>,
    FileName(name): FileName,
    RawQuery(query): RawQuery,
) -> Result<Json<PostFileResponse>, ApiError> {
    let content = last_value(query.as_deref(), "content").ok_or(ApiError::MissingQuery("content"))?;
    app.telemetry.logger().info(
        TARGET,
        format!("Attempting to write {} bytes to file at path: \"{name}\"", content.len()),
        Fields::new(),
    );
    app.files.put(&name, Bytes::from(content)).await?;
    Ok(Json(PostFileResponse { path: name }))
}

/// Delete File
///
/// Delete a file.
#[utoipa::path(
    delete,
    path = "/files/{path}",
    tag = "Files",
    operation_id = "delete_file_files__path__delete",
    params(("path" = String, Path)),
    responses(
        (status = 200, description = "Successful Response", body = PostFileResponse,
         examples(("Success" = (value = json!({"path": "path/to/file.txt"}))))),
        (status = 422, description = "Validation Error", body = HttpValidationError),
    ),
)]
pub async fn delete(State(app): State<AppState>, FileName(name): FileName) -> Result<Json<PostFileResponse>, ApiError> {
    app.telemetry.logger().info(TARGET, format!("Attempting to delete file at path: \"{name}\""), Fields::new());
    app.files.delete(&name).await?;
    Ok(Json(PostFileResponse { path: name }))
}

/// List Files
///
/// List the files in a directory in S3.
#[utoipa::path(
    get,
    path = "/files/",
    tag = "Files",
    operation_id = "list_files_files__get",
    params(("directory_path" = Option<String>, Query)),
    responses(
        (status = 200, description = "Successful Response", body = ListFilesResponse,
         examples(("Success" = (value = json!({"files": ["path/to/file1.txt", "path/to/file2.txt"]}))))),
        (status = 422, description = "Validation Error", body = HttpValidationError),
    ),
)]
pub async fn list(State(app): State<AppState>, RawQuery(query): RawQuery) -> Result<Json<ListFilesResponse>, ApiError> {
    let directory = last_value(query.as_deref(), "directory_path").unwrap_or_default();
    let files = app.files.list(&directory).await?;
    Ok(Json(ListFilesResponse { files }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_decoded_segment_is_a_name() {
        for (path, name) in [
            ("/files/a%20b.txt", "a b.txt"),
            ("/files/a+b.txt", "a+b.txt"),
            ("/files/%C3%A9.txt", "é.txt"),
            ("/files/%FF.txt", "\u{fffd}.txt"),
            ("/files/...", "..."),
        ] {
            assert_eq!(name_in(path).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_path_or_nothing_is_no_name() {
        for path in [
            "/files/",
            "/files/a/b",
            "/files/a%2Fb",
            "/files/..%2Fup",
            "/files/%2e%2e",
            "/files/.",
            "/files/a%00b",
            "/healthcheck",
        ] {
            assert_eq!(name_in(path), None, "{path}");
        }
    }
}
