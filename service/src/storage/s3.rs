//! S3 through `object_store`, with trace headers on every request.

use std::time::Duration;

use async_trait::async_trait;
use object_store::{
    ClientOptions, ObjectStore, RetryConfig,
    aws::AmazonS3Builder,
    client::{HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService},
};
use opentelemetry::Context;

use super::call::SharedFacts;
use crate::{telemetry::Telemetry, tls};

/// Opens a bucket; `aws` are the `AWS_*` variables.
///
/// `AWS_ENDPOINT_URL` may be `http://`, and its buckets are addressed by path, as the stand-ins
/// for S3 want it.
pub(super) fn open(
    bucket: &str,
    aws: &[(String, String)],
    telemetry: Telemetry,
) -> object_store::Result<impl ObjectStore> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in aws {
        if let Ok(key) = name.to_ascii_lowercase().parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder
        .with_bucket_name(bucket)
        .with_allow_http(true)
        // One DeleteObject per file, as the API deletes; the bulk call is another method.
        .with_disable_bulk_delete(true)
        .with_retry(RetryConfig {
            max_retries: 3,
            // Well below the 29 s that API Gateway waits.
            retry_timeout: Duration::from_secs(10),
            ..RetryConfig::default()
        })
        .with_http_connector(Connector { telemetry })
        .build()
}

/// S3 says "not found" of a missing bucket too; only its error code tells the two apart.
pub(super) fn is_missing_bucket(error: &object_store::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("NoSuchBucket") {
            return true;
        }
        cause = error.source();
    }
    false
}

#[derive(Debug)]
struct Connector {
    telemetry: Telemetry,
}

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = tls::client_builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(10))
            .build()
            .map_err(|source| object_store::Error::Generic { store: "S3", source: Box::new(source) })?;
        Ok(HttpClient::new(Traced { client, telemetry: self.telemetry.clone() }))
    }
}

/// Sends requests with the trace headers of the current span, and tells the span what came back.
///
/// The headers are added after the request was signed; SigV4 covers only the headers it lists.
#[derive(Debug)]
struct Traced {
    client: reqwest::Client,
    telemetry: Telemetry,
}

#[async_trait]
impl HttpService for Traced {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let context = Context::current();
        self.telemetry.inject(&context, request.headers_mut());
        let facts = context.get::<SharedFacts>().cloned().unwrap_or_default();
        let server = request.uri().host().map(|host| {
            let default = if request.uri().scheme_str() == Some("http") { 80 } else { 443 };
            (host.to_owned(), request.uri().port_u16().unwrap_or(default))
        });
        facts.update(|facts| {
            facts.server = server;
            facts.status = None;
        });
        let response = HttpService::call(&self.client, request).await?;
        facts.update(|facts| {
            facts.status = Some(response.status().as_u16());
            facts.aws_request_id =
                response.headers().get("x-amz-request-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        });
        Ok(response)
    }
}
