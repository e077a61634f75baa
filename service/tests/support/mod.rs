//! What the integration tests share: the API in this process, with telemetry that can be read.

#![allow(dead_code)]

use axum::{Router, body::Body};
use http::{Request, Response};
use http_body_util::BodyExt;
use opentelemetry_sdk::{
    logs::InMemoryLogExporter,
    metrics::InMemoryMetricExporter,
    trace::{InMemorySpanExporter, SpanData},
};
use serde_json::Value;
use serverless_axum::{
    AppState, app,
    settings::{Environment, Settings},
    telemetry::{Parts, Telemetry, resource},
};
use tower::ServiceExt;

/// The API with its telemetry in memory.
pub struct Service {
    pub app: Router,
    pub telemetry: Telemetry,
    pub settings: Settings,
    pub spans: InMemorySpanExporter,
    pub logs: InMemoryLogExporter,
    pub metrics: InMemoryMetricExporter,
}

/// An answer with its body read.
pub struct Answer {
    pub response: Response<()>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

pub async fn read(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { response: Response::from_parts(parts, ()), body }
}

impl Service {
    pub fn start(settings: &[(&str, &str)]) -> Self {
        let settings = Settings::from_environment(&Environment::of(settings)).unwrap();
        let (spans, logs, metrics) = Default::default();
        let mut parts = Parts::new(resource::of_this_process(&settings));
        parts.traces = parts.traces.with_simple_exporter(Clone::clone(&spans));
        parts.logs = parts.logs.with_simple_exporter(Clone::clone(&logs));
        parts.metrics = parts.metrics.with_periodic_exporter(Clone::clone(&metrics));
        let telemetry = Telemetry::in_memory(&settings.telemetry, parts);
        let state = AppState::new(&settings, telemetry.clone()).unwrap();
        Self { app: app(state), telemetry, settings, spans, logs, metrics }
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        read(self.app.clone().oneshot(request).await.unwrap()).await
    }

    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header("host", "127.0.0.1:28000");
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, &[]).await
    }

    pub fn finished(&self) -> Vec<SpanData> {
        self.spans.get_finished_spans().unwrap()
    }

    pub fn span(&self, name: &str) -> SpanData {
        let spans = self.finished();
        let names: Vec<_> = spans.iter().map(|span| span.name.clone()).collect();
        spans.into_iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span {name} in {names:?}"))
    }

    pub fn lines(&self) -> Vec<Value> {
        let lines = self.telemetry.logger().lines();
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub fn line(&self, message: &str) -> Value {
        let lines = self.lines();
        let found = lines.iter().find(|line| line["message"] == message);
        found.unwrap_or_else(|| panic!("no line {message:?} in {lines:#?}")).clone()
    }
}

/// The value of a span's attribute as text; empty if it has none.
pub fn attribute(span: &SpanData, name: &str) -> String {
    span.attributes
        .iter()
        .find(|attribute| attribute.key.as_str() == name)
        .map(|attribute| attribute.value.to_string())
        .unwrap_or_default()
}
