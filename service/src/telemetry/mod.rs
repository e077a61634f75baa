//! Traces, metrics and logs of one process, and trace context in and out of it.
//!
//! Nothing here is global: a [`Telemetry`] is handed to whoever needs it, so that tests run side
//! by side with telemetry of their own.

pub mod exporters;
pub mod ids;
pub mod library_events;
pub mod logs;
pub mod propagators;
pub mod resource;
pub mod sampling;
pub mod settings;

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use opentelemetry::{
    Context, InstrumentationScope,
    logs::LoggerProvider as _,
    metrics::{Meter, MeterProvider as _},
    propagation::{TextMapCompositePropagator, TextMapPropagator},
    trace::{SpanBuilder, TraceContextExt, Tracer, TracerProvider as _},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    logs::SdkLoggerProvider,
    metrics::{PeriodicReader, SdkMeterProvider},
    trace::{SdkTracer, SdkTracerProvider},
};
use tokio::runtime::Runtime;
use tracing::Level;

use self::{
    exporters::ExporterError,
    ids::{Ids, RootTrace, with_trace_id},
    logs::Logger,
    settings::TelemetrySettings,
};

/// Why telemetry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// An exporter refused its configuration.
    #[error(transparent)]
    Exporter(#[from] ExporterError),
    /// No thread for the exporters' connections, or no stdout.
    #[error("cannot start telemetry")]
    Io(#[from] std::io::Error),
}

/// Telemetry of one process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Telemetry {
    tracer: Option<SdkTracer>,
    meter: Meter,
    logger: Logger,
    propagator: Arc<TextMapCompositePropagator>,
    providers: Arc<Providers>,
}

#[derive(Debug)]
struct Providers {
    traces: SdkTracerProvider,
    logs: SdkLoggerProvider,
    metrics: SdkMeterProvider,
    flush_timeout: Duration,
    /// Where the exporters' connections live. Their own runtime, because the SDK exports from
    /// plain threads, and because a flush must not wait for a runtime that waits for the flush.
    connections: Option<Runtime>,
}

impl Drop for Providers {
    fn drop(&mut self) {
        if let Some(connections) = self.connections.take() {
            connections.shutdown_background();
        }
    }
}

/// The parts of a [`Telemetry`] that tests replace.
#[derive(Debug)]
pub struct Parts {
    /// Makes the tracer; its span processors get every finished span.
    pub traces: opentelemetry_sdk::trace::TracerProviderBuilder,
    /// Makes the OTLP logger.
    pub logs: opentelemetry_sdk::logs::LoggerProviderBuilder,
    /// Makes the meter.
    pub metrics: opentelemetry_sdk::metrics::MeterProviderBuilder,
}

impl Parts {
    /// Parts that speak for `resource` and export nothing.
    pub fn new(resource: Resource) -> Self {
        Self {
            traces: SdkTracerProvider::builder().with_resource(resource.clone()),
            logs: SdkLoggerProvider::builder().with_resource(resource.clone()),
            metrics: SdkMeterProvider::builder().with_resource(resource),
        }
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(env!("CARGO_PKG_NAME"))
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(opentelemetry_semantic_conventions::SCHEMA_URL)
        .build()
}

impl Telemetry {
    /// Telemetry as the settings say, with lines on stdout.
    ///
    /// # Errors
    /// When an exporter cannot be made of its settings. A collector that cannot be reached is no
    /// error: exports fail later, with a line on stdout.
    pub fn start(settings: &TelemetrySettings, level: Level, resource: Resource) -> Result<Self, TelemetryError> {
        let mut parts = Parts::new(resource);
        let mut connections = None;
        let exports = settings.traces.is_some() || settings.logs.is_some() || settings.metrics.is_some();
        if exports && !settings.disabled {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("telemetry")
                .enable_all()
                .build()?;
            let handle = runtime.handle();
            if let Some(export) = &settings.traces {
                parts.traces = parts.traces.with_batch_exporter(exporters::spans(export, handle)?);
            }
            if let Some(export) = &settings.logs {
                parts.logs = parts.logs.with_batch_exporter(exporters::logs(export, handle)?);
            }
            if let Some(export) = &settings.metrics {
                let exporter = exporters::metrics(export, settings.temporality, handle)?;
                parts.metrics = parts.metrics.with_reader(PeriodicReader::builder(exporter).build());
            }
            connections = Some(runtime);
        }
        let sends_logs = settings.logs.is_some() && !settings.disabled;
        Ok(Self::assemble(settings, parts, connections, |logs| {
            let otlp = sends_logs.then(|| logs.logger_with_scope(scope()));
            Logger::stdout(&settings.service_name, level, otlp)
        })?)
    }

    /// Telemetry of the given parts, with lines kept in memory.
    pub fn in_memory(settings: &TelemetrySettings, parts: Parts) -> Self {
        let logger = |logs: &SdkLoggerProvider| {
            let otlp = (!settings.disabled).then(|| logs.logger_with_scope(scope()));
            Ok::<_, std::convert::Infallible>(Logger::memory(&settings.service_name, Level::INFO, otlp))
        };
        match Self::assemble(settings, parts, None, logger) {
            Ok(telemetry) => telemetry,
            Err(impossible) => match impossible {},
        }
    }

    fn assemble<E>(
        settings: &TelemetrySettings,
        parts: Parts,
        connections: Option<Runtime>,
        logger: impl FnOnce(&SdkLoggerProvider) -> Result<Logger, E>,
    ) -> Result<Self, E> {
        let traces =
            parts.traces.with_id_generator(Ids::new(settings.trace_ids)).with_sampler(settings.sampler.clone()).build();
        let logs = parts.logs.build();
        let metrics = parts.metrics.build();
        Ok(Self {
            tracer: (!settings.disabled).then(|| traces.tracer_with_scope(scope())),
            meter: metrics.meter_with_scope(scope()),
            logger: logger(&logs)?,
            propagator: Arc::new(propagators::composite(&settings.propagators)),
            providers: Arc::new(Providers {
                traces,
                logs,
                metrics,
                flush_timeout: settings.flush_timeout,
                connections,
            }),
        })
    }

    /// Writer of log lines and records.
    pub fn logger(&self) -> &Logger {
        &self.logger
    }

    /// Maker of instruments.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Starts a span and gives the context in which it is active; the span ends when its last
    /// context is dropped or [`end`](opentelemetry::trace::SpanRef::end) is called.
    ///
    /// A span without parent takes the trace id of a [`RootTrace`] in `parent`. With the SDK
    /// disabled the context is `parent`'s, so that the caller's ids still go out.
    pub fn start_span(&self, span: SpanBuilder, parent: &Context) -> Context {
        let Some(tracer) = &self.tracer else {
            return parent.clone();
        };
        let start = || tracer.build_with_context(span, parent);
        let span = match parent.get::<RootTrace>() {
            Some(root) if !parent.span().span_context().is_valid() => with_trace_id(root.trace_id, start),
            _ => start(),
        };
        parent.with_span(span)
    }

    /// The caller's context according to the configured propagators, on top of `context`.
    pub fn extract(&self, context: &Context, headers: &HeaderMap) -> Context {
        self.propagator.extract_with_context(context, &HeaderExtractor(headers))
    }

    /// Puts `context` into outgoing headers according to the configured propagators.
    pub fn inject(&self, context: &Context, headers: &mut HeaderMap) {
        self.propagator.inject_context(context, &mut HeaderInjector(headers));
    }

    /// Exports all that is finished: spans, log records and metrics, side by side. Takes no longer
    /// than `limit` or the configured flush timeout, whichever is shorter; what was not exported
    /// by then stays queued.
    pub async fn flush(&self, limit: Option<Duration>) {
        self.all("flush", limit, |providers| {
            [
                Box::new({
                    let traces = providers.traces.clone();
                    move || traces.force_flush()
                }) as Action,
                Box::new({
                    let logs = providers.logs.clone();
                    move || logs.force_flush()
                }),
                Box::new({
                    let metrics = providers.metrics.clone();
                    move || metrics.force_flush()
                }),
            ]
        })
        .await;
    }

    /// Exports all that is left and stops exporting; nothing is exported after it.
    pub async fn shutdown(&self) {
        self.all("shutdown", None, |providers| {
            let timeout = providers.flush_timeout;
            [
                Box::new({
                    let traces = providers.traces.clone();
                    move || traces.shutdown_with_timeout(timeout)
                }) as Action,
                Box::new({
                    let logs = providers.logs.clone();
                    move || logs.shutdown_with_timeout(timeout)
                }),
                Box::new({
                    let metrics = providers.metrics.clone();
                    move || metrics.shutdown_with_timeout(timeout)
                }),
            ]
        })
        .await;
    }

    async fn all(&self, what: &'static str, limit: Option<Duration>, actions: impl FnOnce(&Providers) -> [Action; 3]) {
        let timeout = self.providers.flush_timeout;
        let timeout = limit.map_or(timeout, |limit| limit.min(timeout));
        let running = actions(&self.providers).map(tokio::task::spawn_blocking);
        let finished = tokio::time::timeout(timeout, futures::future::join_all(running)).await;
        if finished.is_err() {
            let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            self.logger.warn(
                "serverless_axum::telemetry",
                "Telemetry was not exported in time",
                crate::fields! { "operation": what, "timeout_ms": milliseconds },
            );
        }
    }
}

type Action = Box<dyn FnOnce() -> OTelSdkResult + Send>;
