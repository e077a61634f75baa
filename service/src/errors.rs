//! Answers that are no success, as the documented API words them.

use std::any::Any;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{redaction, storage::StorageError};

/// An answer other than success.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 404: no such route, or a name that no file can have.
    #[error("Not Found")]
    NotFound,
    /// 404: no such file.
    #[error("Could not find file: {0}")]
    NoSuchFile(String),
    /// 405.
    #[error("Method Not Allowed")]
    MethodNotAllowed,
    /// 422: a required query parameter is missing.
    #[error("Field required: {0}")]
    MissingQuery(&'static str),
    /// 500: the store failed.
    #[error(transparent)]
    Storage(StorageError),
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::NotFound { name } => Self::NoSuchFile(name),
            error => Self::Storage(error),
        }
    }
}

/// What went wrong behind a 500, for the span and the log; travels with the response.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Type of the error, low cardinality: value of `error.type`.
    pub kind: &'static str,
    /// The error and its causes.
    pub message: String,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let detail = |status, detail: String| (status, Json(json!({ "detail": detail })));
        match self {
            Self::NotFound | Self::NoSuchFile(_) => detail(StatusCode::NOT_FOUND, self.to_string()).into_response(),
            Self::MethodNotAllowed => detail(StatusCode::METHOD_NOT_ALLOWED, self.to_string()).into_response(),
            Self::MissingQuery(name) => {
                let error = json!({
                    "type": "missing",
                    "loc": ["query", name],
                    "msg": "Field required",
                    "input": null,
                });
                let body = Json(json!({ "detail": [error] }));
                (StatusCode::UNPROCESSABLE_ENTITY, body).into_response()
            }
            Self::Storage(error) => {
                internal(Failure { kind: "StorageError", message: redaction::text(&with_causes(&error)).into_owned() })
            }
        }
    }
}

/// The answer to a panic of a handler.
pub fn panicked(panic: &(dyn Any + Send)) -> Response {
    internal(Failure { kind: "panic", message: panic_message(panic).to_owned() })
}

/// What a panic said, if it said anything.
pub fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let owned = || panic.downcast_ref::<String>().map(String::as_str);
    let fixed = panic.downcast_ref::<&str>().copied();
    fixed.or_else(owned).unwrap_or("panic")
}

/// The answer says nothing of the cause; the cause travels in the extensions.
fn internal(failure: Failure) -> Response {
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response =
        (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, plain)], "Internal Server Error").into_response();
    response.extensions_mut().insert(failure);
    response
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        // Some causes repeat what the error above them said already.
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = error.source();
    }
    message
}
