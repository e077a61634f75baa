//! An OTLP receiver for all three protocols, on free ports of the loopback interface.

#![allow(dead_code)]

use std::{io::Read, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_server::{LogsService, LogsServiceServer},
        },
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    resource::v1::Resource,
    trace::v1::Span,
};
use serde::de::DeserializeOwned;
use tokio::{net::TcpListener, sync::watch};
use tonic::{codec::CompressionEncoding, transport::server::TcpIncoming};

/// All that was received, with the resource of each.
#[derive(Clone, Debug, Default)]
pub struct Received {
    pub spans: Vec<(Resource, Span)>,
    pub logs: Vec<(Resource, LogRecord)>,
    /// Names of metrics.
    pub metrics: Vec<String>,
    /// Content types and encodings of the HTTP requests.
    pub http: Vec<String>,
}

impl Received {
    pub fn span(&self, name: &str) -> &Span {
        let names: Vec<_> = self.spans.iter().map(|(_, span)| &span.name).collect();
        let found = self.spans.iter().find(|(_, span)| span.name == name);
        &found.unwrap_or_else(|| panic!("no span {name} in {names:?}")).1
    }
}

#[derive(Clone)]
pub struct Receiver {
    received: Arc<watch::Sender<Received>>,
    pub http: String,
    pub grpc: String,
}

impl Receiver {
    pub async fn start() -> Self {
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let receiver = Self { received: Arc::new(watch::Sender::default()), http: url(&http), grpc: url(&grpc) };
        let app = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/logs", post(logs))
            .route("/v1/metrics", post(metrics))
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(http, app).await });
        let gzip = CompressionEncoding::Gzip;
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(receiver.clone()).accept_compressed(gzip))
            .add_service(LogsServiceServer::new(receiver.clone()).accept_compressed(gzip))
            .add_service(MetricsServiceServer::new(receiver.clone()).accept_compressed(gzip))
            .serve_with_incoming(TcpIncoming::from(grpc));
        tokio::spawn(server);
        receiver
    }

    pub fn received(&self) -> Received {
        self.received.borrow().clone()
    }

    /// Waits until enough was received.
    pub async fn until(&self, enough: impl FnMut(&Received) -> bool) -> Received {
        self.received.subscribe().wait_for(enough).await.unwrap().clone()
    }

    fn add_traces(&self, request: ExportTraceServiceRequest) {
        self.received.send_modify(|received| {
            for resource in request.resource_spans {
                let owner = resource.resource.unwrap_or_default();
                for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    received.spans.push((owner.clone(), span));
                }
            }
        });
    }

    fn add_logs(&self, request: ExportLogsServiceRequest) {
        self.received.send_modify(|received| {
            for resource in request.resource_logs {
                let owner = resource.resource.unwrap_or_default();
                for record in resource.scope_logs.into_iter().flat_map(|scope| scope.log_records) {
                    received.logs.push((owner.clone(), record));
                }
            }
        });
    }

    fn add_metrics(&self, request: ExportMetricsServiceRequest) {
        self.received.send_modify(|received| {
            for resource in request.resource_metrics {
                for metric in resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                    received.metrics.push(metric.name);
                }
            }
        });
    }

    fn decode<T: prost::Message + Default + DeserializeOwned>(&self, headers: &HeaderMap, body: &Bytes) -> T {
        let header =
            |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let (kind, encoding) = (header("content-type"), header("content-encoding"));
        self.received.send_modify(|received| received.http.push(format!("{kind} {encoding}")));
        let mut plain = body.to_vec();
        if encoding == "gzip" {
            plain.clear();
            flate2::read::GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
        }
        if kind == "application/json" {
            serde_json::from_slice(&plain).unwrap()
        } else {
            T::decode(&plain[..]).unwrap()
        }
    }
}

fn answer(headers: &HeaderMap) -> Response {
    let kind = headers["content-type"].clone();
    let body = if kind == "application/json" { "{}" } else { "" };
    ([("content-type", kind)], body).into_response()
}

async fn traces(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    receiver.add_traces(receiver.decode(&headers, &body));
    answer(&headers)
}

async fn logs(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    receiver.add_logs(receiver.decode(&headers, &body));
    answer(&headers)
}

async fn metrics(State(receiver): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    receiver.add_metrics(receiver.decode(&headers, &body));
    answer(&headers)
}

type Exported<T> = Result<tonic::Response<T>, tonic::Status>;

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(&self, request: tonic::Request<ExportTraceServiceRequest>) -> Exported<ExportTraceServiceResponse> {
        self.add_traces(request.into_inner());
        Ok(tonic::Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(&self, request: tonic::Request<ExportLogsServiceRequest>) -> Exported<ExportLogsServiceResponse> {
        self.add_logs(request.into_inner());
        Ok(tonic::Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Exported<ExportMetricsServiceResponse> {
        self.add_metrics(request.into_inner());
        Ok(tonic::Response::new(Default::default()))
    }
}

/// The value of an attribute; panics if there is none.
pub fn value(attributes: &[KeyValue], key: &str) -> Value {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()) {
        Some(AnyValue { value: Some(value), .. }) => value,
        _ => panic!("no {key} in {attributes:#?}"),
    }
}

pub fn text(attributes: &[KeyValue], key: &str) -> String {
    match value(attributes, key) {
        Value::StringValue(text) => text,
        other => panic!("{key} is {other:?}"),
    }
}

/// The message of a log record.
pub fn message(record: &LogRecord) -> String {
    match record.body.clone().and_then(|body| body.value) {
        Some(Value::StringValue(text)) => text,
        other => panic!("body is {other:?}"),
    }
}
