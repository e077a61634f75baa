//! One storage call as a span.

use std::sync::{Arc, Mutex, PoisonError};

use object_store::path::Path;
use opentelemetry::{
    Context, KeyValue,
    context::FutureExt,
    trace::{SpanBuilder, SpanKind, Status, TraceContextExt},
};
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, EXCEPTION_MESSAGE, EXCEPTION_TYPE, HTTP_RESPONSE_STATUS_CODE, SERVER_ADDRESS, SERVER_PORT,
};

use crate::{redaction, telemetry::Telemetry};

/// What kind of store is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Memory,
    Directory,
    S3 { bucket: String },
}

impl Backend {
    const fn name(&self) -> &'static str {
        match self {
            Self::Memory => "Memory",
            Self::Directory => "Directory",
            Self::S3 { .. } => "S3",
        }
    }
}

/// What the HTTP side of a call tells its span. A call may be several requests: retries, pages.
#[derive(Debug, Default)]
pub(super) struct HttpFacts {
    /// Host name and port of the server.
    pub server: Option<(String, u16)>,
    /// Status of the last answer.
    pub status: Option<u16>,
    /// `x-amz-request-id` of the last answer.
    pub aws_request_id: Option<String>,
}

/// [`HttpFacts`] of the call that a context belongs to.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedFacts(Arc<Mutex<HttpFacts>>);

impl SharedFacts {
    pub(super) fn update(&self, change: impl FnOnce(&mut HttpFacts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A call under way. Its span ends with it, so one that is dropped half-way ends too.
pub(super) struct Call {
    context: Context,
    facts: SharedFacts,
}

impl Call {
    /// Starts the span `<Backend>.<method>`: CLIENT for S3 by the conventions for AWS SDK calls,
    /// INTERNAL for the others, which leave no process.
    pub(super) fn start(telemetry: &Telemetry, backend: &Backend, method: &'static str, key: &Path) -> Self {
        let mut attributes = vec![KeyValue::new("rpc.method", method)];
        let kind = match backend {
            Backend::S3 { bucket } => {
                attributes.extend([
                    KeyValue::new("rpc.system", "aws-api"),
                    KeyValue::new("rpc.service", "S3"),
                    KeyValue::new("aws.s3.bucket", bucket.clone()),
                    KeyValue::new("aws.s3.key", key.to_string()),
                ]);
                SpanKind::Client
            }
            Backend::Memory | Backend::Directory => SpanKind::Internal,
        };
        let span =
            SpanBuilder::from_name(format!("{}.{method}", backend.name())).with_kind(kind).with_attributes(attributes);
        let facts = SharedFacts::default();
        let context = telemetry.start_span(span, &Context::current()).with_value(facts.clone());
        Self { context, facts }
    }

    /// Runs the call inside its span.
    pub(super) async fn run<T>(&self, call: impl Future<Output = object_store::Result<T>>) -> object_store::Result<T> {
        call.with_context(self.context.clone()).await
    }

    /// Ends the span without error.
    pub(super) fn succeed(self) {
        self.end();
    }

    /// Ends the span with error status and an `exception` event; gives the error back.
    pub(super) fn fail(self, error: object_store::Error) -> object_store::Error {
        let kind = match &error {
            object_store::Error::NotFound { .. } => "object_store::Error::NotFound",
            object_store::Error::PermissionDenied { .. } => "object_store::Error::PermissionDenied",
            object_store::Error::Unauthenticated { .. } => "object_store::Error::Unauthenticated",
            _ => "object_store::Error",
        };
        let message = redaction::text(&error.to_string()).into_owned();
        let span = self.context.span();
        span.add_event(
            "exception",
            vec![KeyValue::new(EXCEPTION_TYPE, kind), KeyValue::new(EXCEPTION_MESSAGE, message.clone())],
        );
        span.set_attribute(KeyValue::new(ERROR_TYPE, kind));
        span.set_status(Status::error(message));
        self.end();
        error
    }

    fn end(self) {
        let span = self.context.span();
        self.facts.update(|facts| {
            if let Some((host, port)) = facts.server.take() {
                span.set_attribute(KeyValue::new(SERVER_ADDRESS, host));
                span.set_attribute(KeyValue::new(SERVER_PORT, i64::from(port)));
            }
            if let Some(status) = facts.status {
                span.set_attribute(KeyValue::new(HTTP_RESPONSE_STATUS_CODE, i64::from(status)));
            }
            if let Some(id) = facts.aws_request_id.take() {
                span.set_attribute(KeyValue::new("aws.request_id", id));
            }
        });
        // With the SDK disabled this is the caller's span, whose end is not ours; ending it here
        // does nothing, because a remote span does not record.
        span.end();
    }
}
