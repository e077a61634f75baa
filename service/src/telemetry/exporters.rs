//! OTLP exporters over gRPC, http/protobuf and http/json.

use std::sync::Arc;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, MetricExporter, Protocol, RetryPolicy, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig,
    tonic_types::{metadata::MetadataMap, transport::ClientTlsConfig},
};
use opentelemetry_sdk::metrics::Temporality;
use tokio::runtime::Handle;

use super::settings::{OtlpExport, OtlpProtocol};
use crate::tls;

/// Why an exporter could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The OTLP exporter refused its configuration.
    #[error("cannot make the OTLP exporter for {endpoint}")]
    Build {
        /// Where it should have exported to.
        endpoint: String,
        /// What it did not like.
        #[source]
        source: ExporterBuildError,
    },
    /// The HTTP client refused its configuration.
    #[error("cannot make an HTTP client for the OTLP exporter")]
    Client(#[from] reqwest::Error),
}

/// Sends each request from a task of the given runtime: the SDK exports from plain threads, where
/// the client would find no reactor.
#[derive(Debug)]
struct OnRuntime {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        self.runtime.spawn(async move { HttpClient::send_bytes(&client, request).await }).await?
    }
}

fn http_client(export: &OtlpExport, runtime: &Handle) -> Result<Arc<OnRuntime>, ExporterError> {
    Ok(Arc::new(OnRuntime { client: tls::client_builder().timeout(export.timeout).build()?, runtime: runtime.clone() }))
}

fn http_protocol(export: &OtlpExport) -> Protocol {
    match export.protocol {
        OtlpProtocol::HttpJson => Protocol::HttpJson,
        OtlpProtocol::Grpc | OtlpProtocol::HttpProtobuf => Protocol::HttpBinary,
    }
}

fn metadata(export: &OtlpExport) -> MetadataMap {
    let headers = export
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
        .collect::<http::HeaderMap>();
    MetadataMap::from_headers(headers)
}

/// Retries until the export's timeout is over, which bounds them all together: the SDK's own three are through after less
/// than a second, and a collector that is restarted takes longer.
fn retries() -> RetryPolicy {
    RetryPolicy::recommended().with_max_retries(usize::MAX)
}

/// Builds the exporter of one signal: the three builders have the same methods and no common trait.
macro_rules! build {
    ($exporter:ident, $export:expr, $runtime:expr $(, $extra:ident($argument:expr))*) => {{
        let export: &OtlpExport = $export;
        let built = match export.protocol {
            OtlpProtocol::Grpc => {
                let _on_runtime = $runtime.enter();
                let mut builder = $exporter::builder()
                    .with_tonic()
                    .with_endpoint(&export.endpoint)
                    .with_timeout(export.timeout)
                    .with_retry_policy(retries())
                    .with_metadata(metadata(export))
                    $(.$extra($argument))*;
                if export.endpoint.starts_with("https:") {
                    builder = builder
                        .with_tls_config(ClientTlsConfig::new().with_webpki_roots());
                }
                if let Some(compression) = export.compression {
                    builder = builder.with_compression(compression);
                }
                builder.build()
            }
            OtlpProtocol::HttpProtobuf | OtlpProtocol::HttpJson => {
                let mut builder = $exporter::builder()
                    .with_http()
                    .with_shared_http_client(http_client(export, $runtime)?)
                    .with_protocol(http_protocol(export))
                    .with_endpoint(&export.endpoint)
                    .with_timeout(export.timeout)
                    .with_retry_policy(retries())
                    .with_headers(export.headers.clone())
                    $(.$extra($argument))*;
                if let Some(compression) = export.compression {
                    builder = builder.with_compression(compression);
                }
                builder.build()
            }
        };
        built.map_err(|source| ExporterError::Build {
            endpoint: export.endpoint.clone(),
            source,
        })
    }};
}

/// The exporter of spans; its connections live on `runtime`.
pub fn spans(export: &OtlpExport, runtime: &Handle) -> Result<SpanExporter, ExporterError> {
    build!(SpanExporter, export, runtime)
}

/// The exporter of log records; its connections live on `runtime`.
pub fn logs(export: &OtlpExport, runtime: &Handle) -> Result<LogExporter, ExporterError> {
    build!(LogExporter, export, runtime)
}

/// The exporter of metrics; its connections live on `runtime`.
pub fn metrics(
    export: &OtlpExport,
    temporality: Temporality,
    runtime: &Handle,
) -> Result<MetricExporter, ExporterError> {
    build!(MetricExporter, export, runtime, with_temporality(temporality))
}
