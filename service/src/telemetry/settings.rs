//! What the `OTEL_*` variables say, checked.

use std::{collections::HashMap, time::Duration};

use opentelemetry_otlp::Compression;
use opentelemetry_sdk::metrics::Temporality;
use percent_encoding::percent_decode_str;
use url::Url;

use super::{ids::TraceIdKind, propagators::Propagator, sampling::ServiceSampler};
use crate::settings::{Environment, Problems};

/// How one signal leaves the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpExport {
    /// The transport and the encoding.
    pub protocol: OtlpProtocol,
    /// Where to: for HTTP the whole URL, with the signal's path; for gRPC the server's.
    pub endpoint: String,
    /// How long one export may take, its retries included.
    pub timeout: Duration,
    /// Further request headers (gRPC metadata), lower-case names.
    pub headers: HashMap<String, String>,
    /// Compression of the request body; `None` for none.
    pub compression: Option<Compression>,
}

/// A value of `OTEL_EXPORTER_OTLP_PROTOCOL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// `grpc`
    Grpc,
    /// `http/protobuf`
    HttpProtobuf,
    /// `http/json`
    HttpJson,
}

/// What the `OTEL_*` variables and `TRACE_ID_GENERATOR` say.
#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    /// `OTEL_SDK_DISABLED`: no spans, records or metrics; propagation stays.
    pub disabled: bool,
    /// Name of the service in the resource and in every log line.
    pub service_name: String,
    /// `OTEL_RESOURCE_ATTRIBUTES`, in order.
    pub resource_attributes: Vec<(String, String)>,
    /// Where spans go; `None`: nowhere.
    pub traces: Option<OtlpExport>,
    /// Where log records go besides stdout; `None`: nowhere.
    pub logs: Option<OtlpExport>,
    /// Where metrics go; `None`: nowhere.
    pub metrics: Option<OtlpExport>,
    /// `OTEL_PROPAGATORS`, in order.
    pub propagators: Vec<Propagator>,
    /// `TRACE_ID_GENERATOR`.
    pub trace_ids: TraceIdKind,
    /// `OTEL_TRACES_SAMPLER` and its argument.
    pub sampler: ServiceSampler,
    /// `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`.
    pub temporality: Temporality,
    /// How long a flush may hold up a Lambda invocation, or the end of the process.
    pub flush_timeout: Duration,
}

#[derive(Clone, Copy)]
enum Signal {
    Traces,
    Logs,
    Metrics,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Logs => "LOGS",
            Self::Metrics => "METRICS",
        }
    }

    const fn path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Logs => "v1/logs",
            Self::Metrics => "v1/metrics",
        }
    }
}

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
const SAMPLERS: &str = "always_on, always_off, traceidratio, parentbased_always_on, \
                        parentbased_always_off or parentbased_traceidratio";

impl TelemetrySettings {
    /// Reads the variables; whatever is wrong goes into `problems`.
    ///
    /// Source: OpenTelemetry specification, "Environment Variable Specification" and "OTLP
    /// Exporter Configuration". Two defaults differ. Nothing is exported unless an exporter is
    /// named or an `OTEL_EXPORTER_OTLP_*` variable is set, so that the service starts with no
    /// set-up. On Lambda the propagators end with `xray-lambda`.
    pub fn from_environment(env: &Environment, on_lambda: bool, problems: &mut Problems) -> Self {
        let export = |signal, problems: &mut Problems| export(env, signal, problems);
        let timeout = duration(env, "OTEL_EXPORTER_OTLP_TIMEOUT", problems);
        Self {
            disabled: env.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")),
            service_name: service_name(env),
            resource_attributes: resource_attributes(env, problems),
            traces: export(Signal::Traces, problems),
            logs: export(Signal::Logs, problems),
            metrics: export(Signal::Metrics, problems),
            propagators: propagators(env, on_lambda, problems),
            trace_ids: trace_ids(env, problems),
            sampler: sampler(env, problems),
            temporality: temporality(env, problems),
            flush_timeout: duration(env, "TELEMETRY_FLUSH_TIMEOUT", problems)
                .or(timeout)
                .unwrap_or(DEFAULT_FLUSH_TIMEOUT),
        }
    }
}

fn service_name(env: &Environment) -> String {
    let from_resource = || {
        let mut ignored = Problems::default();
        resource_attributes(env, &mut ignored)
            .into_iter()
            .find_map(|(key, value)| (key == "service.name").then_some(value))
    };
    env.get("OTEL_SERVICE_NAME")
        .map(str::to_owned)
        .or_else(from_resource)
        .unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned())
}

fn resource_attributes(env: &Environment, problems: &mut Problems) -> Vec<(String, String)> {
    key_values(env, "OTEL_RESOURCE_ATTRIBUTES", problems)
}

/// `key=value,key=value`, percent-decoded.
fn key_values(env: &Environment, name: &str, problems: &mut Problems) -> Vec<(String, String)> {
    let decode = |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
    let mut pairs = Vec::new();
    for pair in env.get(name).unwrap_or_default().split(',') {
        match pair.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                pairs.push((decode(key), decode(value)));
            }
            None if pair.trim().is_empty() => {}
            _ => problems.add(name, "is no list of key=value pairs"),
        }
    }
    pairs
}

fn propagators(env: &Environment, on_lambda: bool, problems: &mut Problems) -> Vec<Propagator> {
    let default = if on_lambda { "tracecontext,baggage,xray-lambda" } else { "tracecontext,baggage" };
    let mut chosen = Vec::new();
    for name in env.get("OTEL_PROPAGATORS").unwrap_or(default).split(',') {
        let name = name.trim();
        match Propagator::from_name(name) {
            Some(propagator) if !chosen.contains(&propagator) => chosen.push(propagator),
            Some(_) => {}
            None if name == "none" => return Vec::new(),
            None => problems.add(
                "OTEL_PROPAGATORS",
                format!("`{name}` is none of tracecontext, baggage, xray, xray-lambda and none"),
            ),
        }
    }
    chosen
}

fn trace_ids(env: &Environment, problems: &mut Problems) -> TraceIdKind {
    match env.get("TRACE_ID_GENERATOR") {
        None | Some("random") => TraceIdKind::Random,
        Some("xray") => TraceIdKind::Xray,
        Some(other) => {
            problems.add("TRACE_ID_GENERATOR", format!("`{other}` is neither random nor xray"));
            TraceIdKind::Random
        }
    }
}

fn sampler(env: &Environment, problems: &mut Problems) -> ServiceSampler {
    let ratio = match env.get("OTEL_TRACES_SAMPLER_ARG").map(str::parse::<f64>) {
        Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => ratio,
        None => 1.0,
        Some(_) => {
            problems.add("OTEL_TRACES_SAMPLER_ARG", "is no number from 0 to 1");
            1.0
        }
    };
    let Some(name) = env.get("OTEL_TRACES_SAMPLER") else {
        return ServiceSampler::default();
    };
    ServiceSampler::from_name(name, ratio).unwrap_or_else(|| {
        problems.add("OTEL_TRACES_SAMPLER", format!("`{name}` is not {SAMPLERS}"));
        ServiceSampler::default()
    })
}

fn temporality(env: &Environment, problems: &mut Problems) -> Temporality {
    let name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    match env.get(name).map(str::to_ascii_lowercase).as_deref() {
        None | Some("cumulative") => Temporality::Cumulative,
        Some("delta") => Temporality::Delta,
        Some("lowmemory") => Temporality::LowMemory,
        Some(other) => {
            problems.add(name, format!("`{other}` is none of cumulative, delta and lowmemory"));
            Temporality::Cumulative
        }
    }
}

/// A time in whole milliseconds.
fn duration(env: &Environment, name: &str, problems: &mut Problems) -> Option<Duration> {
    match env.get(name)?.parse() {
        Ok(milliseconds) => Some(Duration::from_millis(milliseconds)),
        Err(_) => {
            problems.add(name, "is no whole number of milliseconds");
            None
        }
    }
}

/// Reads `OTEL_EXPORTER_OTLP_<SIGNAL>_<OPTION>`, else `OTEL_EXPORTER_OTLP_<OPTION>`; gives the
/// name that was found.
fn option_name(env: &Environment, signal: Signal, option: &str) -> Option<String> {
    [format!("OTEL_EXPORTER_OTLP_{}_{option}", signal.name()), format!("OTEL_EXPORTER_OTLP_{option}")]
        .into_iter()
        .find(|name| env.get(name).is_some())
}

fn export(env: &Environment, signal: Signal, problems: &mut Problems) -> Option<OtlpExport> {
    let exporter = format!("OTEL_{}_EXPORTER", signal.name());
    match env.get(&exporter) {
        Some("otlp") => {}
        Some("none") => return None,
        Some(other) => {
            problems.add(&exporter, format!("`{other}` is neither otlp nor none"));
            return None;
        }
        None if env.has_prefix("OTEL_EXPORTER_OTLP_") => {}
        None => return None,
    }
    let protocol = protocol(env, signal, problems);
    let headers = option_name(env, signal, "HEADERS")
        .map(|name| key_values(env, &name, problems))
        .unwrap_or_default()
        .into_iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    Some(OtlpExport {
        protocol,
        endpoint: endpoint(env, signal, protocol, problems),
        timeout: option_name(env, signal, "TIMEOUT")
            .and_then(|name| duration(env, &name, problems))
            .unwrap_or(DEFAULT_TIMEOUT),
        headers,
        compression: compression(env, signal, problems),
    })
}

fn protocol(env: &Environment, signal: Signal, problems: &mut Problems) -> OtlpProtocol {
    let Some(name) = option_name(env, signal, "PROTOCOL") else {
        return OtlpProtocol::HttpProtobuf;
    };
    match env.get(&name).unwrap_or_default() {
        "grpc" => OtlpProtocol::Grpc,
        "http/protobuf" => OtlpProtocol::HttpProtobuf,
        "http/json" => OtlpProtocol::HttpJson,
        other => {
            problems.add(&name, format!("`{other}` is none of grpc, http/protobuf and http/json"));
            OtlpProtocol::HttpProtobuf
        }
    }
}

fn compression(env: &Environment, signal: Signal, problems: &mut Problems) -> Option<Compression> {
    let name = option_name(env, signal, "COMPRESSION")?;
    match env.get(&name)? {
        "gzip" => Some(Compression::Gzip),
        "none" => None,
        other => {
            problems.add(&name, format!("`{other}` is neither gzip nor none"));
            None
        }
    }
}

/// A base URL gets the signal's path over HTTP; a URL for one signal is taken as it is.
fn endpoint(env: &Environment, signal: Signal, protocol: OtlpProtocol, problems: &mut Problems) -> String {
    let own = format!("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal.name());
    let base = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let default = match protocol {
        OtlpProtocol::Grpc => "http://localhost:4317",
        OtlpProtocol::HttpProtobuf | OtlpProtocol::HttpJson => "http://localhost:4318",
    };
    let (name, url, is_own) = match (env.get(&own), env.get(base)) {
        (Some(url), _) => (own.as_str(), url, true),
        (None, Some(url)) => (base, url, false),
        (None, None) => (base, default, false),
    };
    match Url::parse(url) {
        Ok(parsed) if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() => {}
        _ => problems.add(name, format!("`{url}` is no http:// or https:// URL")),
    }
    if is_own || protocol == OtlpProtocol::Grpc {
        url.to_owned()
    } else {
        format!("{}/{}", url.trim_end_matches('/'), signal.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (TelemetrySettings, Vec<String>) {
        let mut problems = Problems::default();
        let settings = TelemetrySettings::from_environment(&Environment::of(pairs), false, &mut problems);
        (settings, problems.into_messages())
    }

    fn accepted(pairs: &[(&str, &str)]) -> TelemetrySettings {
        let (settings, problems) = read(pairs);
        assert_eq!(problems, Vec::<String>::new());
        settings
    }

    #[test]
    fn nothing_is_exported_unless_somebody_asks() {
        let settings = accepted(&[]);
        assert_eq!((settings.traces, settings.logs, settings.metrics), (None, None, None));
    }

    #[test]
    fn an_otlp_variable_switches_all_three_signals_on() {
        let settings = accepted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/base/")]);
        let url = |export: Option<OtlpExport>| export.unwrap().endpoint;
        assert_eq!(url(settings.traces), "http://collector:4318/base/v1/traces");
        assert_eq!(url(settings.logs), "http://collector:4318/base/v1/logs");
        assert_eq!(url(settings.metrics), "http://collector:4318/base/v1/metrics");
    }

    #[test]
    fn a_signals_own_variable_beats_the_general_one() {
        let settings = accepted(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1/as-is"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "X-Team=a%20b,x=1"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "250"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ]);
        let traces = settings.traces.unwrap();
        assert_eq!(traces.endpoint, "http://traces:1/as-is");
        assert_eq!(traces.protocol, OtlpProtocol::HttpJson);
        assert_eq!(traces.headers["x-team"], "a b");
        assert_eq!(traces.compression, Some(Compression::Gzip));
        let logs = settings.logs.unwrap();
        assert_eq!(logs.protocol, OtlpProtocol::Grpc);
        assert_eq!(logs.endpoint, "http://collector:4318");
        assert_eq!(settings.metrics.unwrap().timeout, Duration::from_millis(250));
    }

    #[test]
    fn an_exporter_of_none_switches_one_signal_off() {
        let settings =
            accepted(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318"), ("OTEL_LOGS_EXPORTER", "none")]);
        assert!(settings.traces.is_some());
        assert!(settings.logs.is_none());
    }

    #[test]
    fn the_service_name_has_the_documented_order() {
        assert_eq!(accepted(&[]).service_name, "serverless-axum");
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=from-resource,team=a%2Cb");
        let settings = accepted(&[attributes]);
        assert_eq!(settings.service_name, "from-resource");
        assert_eq!(settings.resource_attributes[1], ("team".into(), "a,b".into()));
        let both = accepted(&[attributes, ("OTEL_SERVICE_NAME", "mine")]);
        assert_eq!(both.service_name, "mine");
    }

    #[test]
    fn none_among_the_propagators_means_none() {
        assert_eq!(accepted(&[("OTEL_PROPAGATORS", "none")]).propagators, []);
        assert_eq!(
            accepted(&[("OTEL_PROPAGATORS", "xray, tracecontext,xray")]).propagators,
            [Propagator::Xray, Propagator::TraceContext]
        );
    }

    #[test]
    fn every_variable_with_an_unknown_value_is_named() {
        let (_, problems) = read(&[
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_LOGS_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "soon"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_PROPAGATORS", "b3"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_RESOURCE_ATTRIBUTES", "novalue"),
            ("TRACE_ID_GENERATOR", "dice"),
            ("TELEMETRY_FLUSH_TIMEOUT", "-1"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "eternal"),
        ]);
        for name in [
            "OTEL_TRACES_EXPORTER",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
            "OTEL_PROPAGATORS",
            "OTEL_TRACES_SAMPLER",
            "OTEL_TRACES_SAMPLER_ARG",
            "OTEL_RESOURCE_ATTRIBUTES",
            "TRACE_ID_GENERATOR",
            "TELEMETRY_FLUSH_TIMEOUT",
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
        ] {
            assert!(
                problems.iter().any(|problem| problem.starts_with(&format!("{name}: "))),
                "{name} is missing in {problems:#?}"
            );
        }
    }
}
