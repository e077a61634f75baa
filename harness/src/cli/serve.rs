//! `tracegate serve`: the sink for anybody, and the neighbour of container deployments.

mod desk;

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr},
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
};

use clap::Args;
use http::{HeaderName, HeaderValue};
use tokio_util::sync::CancellationToken;

use super::secret::Secret;
use crate::{
    capture::{
        Capture, Decoded, Encoding, ExportRequest, Retention, Store, Token,
        file::FileError,
        query::{self, Api},
        relay::{Neighbour, READY, SHORTEST_TOKEN, TOKEN_VARIABLE},
        sink::{
            Settings, Sink,
            settings::{TlsError, TlsFiles},
        },
    },
    report::Exit,
    telemetry::{LogOrigin, LogRecord, Metric, Span, StatusCode},
};

/// Arguments of `tracegate serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Address to listen at; 0.0.0.0 in a container
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub host: IpAddr,
    /// Port of the OTLP receiver, for gRPC and HTTP alike; may be given several times
    #[arg(long, value_name = "PORT", default_values_t = [4317, 4318])]
    pub port: Vec<u16>,
    /// Header that every export request must have, as NAME=VALUE; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = Secret(header_argument), conflicts_with = "relay")]
    pub require_header: Vec<(HeaderName, HeaderValue)>,
    /// Origin whose pages may export, or * for all; may be given several times. Without it no browser may
    #[arg(long, value_name = "ORIGIN", conflicts_with = "relay")]
    pub cors_origin: Vec<HeaderValue>,
    /// Take only TLS, with this certificate (PEM, with those between it and its authority behind it)
    #[arg(long, value_name = "FILE", requires = "tls_key", conflicts_with = "relay")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Take only clients with a certificate of one of these authorities (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// Say nothing about what is received
    #[arg(long)]
    pub quiet: bool,
    /// Append what is received to this file, one OTLP/JSON line for each request, as the Collector's file exporter does
    #[arg(long, value_name = "FILE", conflicts_with = "relay")]
    pub write: Option<PathBuf>,
    /// Load this file of OTLP/JSON lines before anything is received; may be given several times
    #[arg(long, value_name = "FILE", conflicts_with = "relay")]
    pub read: Vec<PathBuf>,
    /// Keep at most so much for queries and drop the oldest beyond it
    #[arg(long, value_name = "MIB", default_value = "1024", conflicts_with = "relay")]
    pub retention_mib: NonZeroUsize,
    /// Who may query, by this secret of at least 16 characters. Without it, one is made and printed at each start
    #[arg(long, value_name = "TOKEN", env = query::TOKEN_VARIABLE, hide_env_values = true, value_parser = Secret(token_argument))]
    pub token: Option<Token>,
    /// Receive nothing, and pass connections to this port on through the control port; may be given several times
    #[arg(long, value_name = "PORT", requires = "control", conflicts_with = "port")]
    pub relay: Vec<u16>,
    /// Where the test process opens its tunnel; the token is in TRACEGATE_RELAY_TOKEN
    #[arg(long, value_name = "PORT", requires = "relay")]
    pub control: Option<u16>,
}

impl ServeArgs {
    fn settings(&self) -> Result<Settings, TlsError> {
        let tls = match (self.tls_cert.clone(), self.tls_key.clone()) {
            (Some(certificate), Some(key)) => {
                Some(TlsFiles { certificate, key, client_ca: self.tls_client_ca.clone() }.load()?)
            }
            _ => None,
        };
        Ok(Settings {
            required_headers: self.require_header.clone(),
            cors_origins: self.cors_origin.clone(),
            tls,
            ..Settings::default()
        })
    }
}

/// A token that nobody guesses. It stands in no message of ours.
pub(super) fn token_argument(text: &str) -> Result<Token, String> {
    Token::chosen(text).ok_or_else(|| "a token has at least 16 characters, all of them visible ASCII".into())
}

/// `NAME=VALUE`. The value may be a secret, so it is marked as one and stands in no message of ours.
fn header_argument(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is no header name"))?;
    let mut value: HeaderValue = value.trim().parse().map_err(|_| format!("the value of {name} is no header value"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Why `tracegate serve` cannot run.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ServeError {
    /// A port is taken, or needs a privilege.
    #[error("cannot listen on {address}")]
    #[diagnostic(help("choose others with --port and --host"))]
    Listen {
        /// Address and port.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// A certificate or key that cannot be used.
    #[error("TLS cannot be set up")]
    Tls(#[source] TlsError),
    /// A file to be read or written.
    #[error(transparent)]
    #[diagnostic(transparent)]
    File(#[from] FileError),
    /// One of the relay's ports.
    #[error("the relay cannot start")]
    Relay(#[source] io::Error),
    /// A relay without a secret would let anybody in.
    #[error("{TOKEN_VARIABLE} is not set, or too short")]
    #[diagnostic(help("set it to a secret of at least {SHORTEST_TOKEN} characters that the test process knows too"))]
    NoToken,
    /// Signals cannot be handled here.
    #[error("cannot wait for SIGTERM and SIGINT")]
    Signals(#[source] io::Error),
}

/// `tracegate serve` from start to exit.
pub(super) fn main(args: ServeArgs) -> super::run::Ended {
    let runtime = super::run::runtime()?;
    runtime.block_on(run(args)).map_err(|error| (Exit::Environment, error.into()))?;
    Ok(Exit::Passed)
}

/// Serves until SIGTERM or SIGINT, and then finishes what it is answering.
pub async fn run(args: ServeArgs) -> Result<(), ServeError> {
    // First of all: as process 1 of a container it gets no default action for signals.
    let mut interrupted = Interrupts::new().map_err(ServeError::Signals)?;
    if let Some(control) = args.control {
        let token = std::env::var(TOKEN_VARIABLE)
            .ok()
            .filter(|token| token.len() >= SHORTEST_TOKEN)
            .ok_or(ServeError::NoToken)?;
        let neighbour = Neighbour::bind(args.host, control, &args.relay, &token).await.map_err(ServeError::Relay)?;
        let ports: Vec<_> = neighbour.relays().iter().map(|relay| relay.port().to_string()).collect();
        say(&format!("{READY}: ports {}, control port {}", ports.join(", "), neighbour.control().port()));
        interrupted.wait().await;
        return Ok(());
    }
    let bytes = args.retention_mib.get() << 20;
    let store = Arc::new(Store::bounded(None, Retention { bytes, ..Retention::default() }));
    for path in &args.read {
        let count = desk::load(path, &store)?;
        say(&format!("tracegate has read {count} requests from {}", path.display()));
    }
    let file = args.write.as_deref().map(desk::Output::open).transpose()?;
    let token = args.token.clone().unwrap_or_else(Token::random);
    let stop = CancellationToken::new();
    let settings = Settings {
        beside: Api { store: store.clone(), stop: stop.clone() }.router(token.clone()),
        ..args.settings().map_err(ServeError::Tls)?
    };
    let desk = Arc::new(desk::Desk { store, file, quiet: args.quiet });
    let mut sinks = Vec::new();
    for port in args.port {
        let sink = Sink::bind((args.host, port).into(), desk.clone(), settings.clone())
            .await
            .map_err(|source| ServeError::Listen { address: format!("{}:{port}", args.host), source })?;
        sinks.push(sink);
    }
    let addresses: Vec<_> = sinks.iter().map(|sink| sink.address().to_string()).collect();
    say(&format!("tracegate takes OTLP over gRPC and HTTP at {}", addresses.join(" and ")));
    let known = if args.token.is_some() { "the one that was given" } else { token.reveal() };
    say(&format!("and answers queries under {} there; the token is {known}", query::PATH));
    interrupted.wait().await;
    // A tail never ends by itself.
    stop.cancel();
    for sink in sinks {
        sink.shutdown().await;
    }
    Ok(())
}

/// Whoever reads the output may have gone away; that is no reason to stop receiving.
pub(super) fn say(text: &str) {
    let mut stdout = io::stdout().lock();
    drop(writeln!(stdout, "{text}").and_then(|()| stdout.flush()));
}

#[cfg(unix)]
pub(super) struct Interrupts(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Interrupts {
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?))
    }

    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// One line for the request, and one below it for each span, record, metric and fault.
fn describe(request: &ExportRequest, decoded: &Decoded, faults: &[String]) -> String {
    let transport = request.transport;
    let encoding = match request.encoding {
        Encoding::Protobuf => "protobuf",
        Encoding::Json => "JSON",
    };
    let lines: Vec<String> = match decoded {
        Decoded::Spans(spans) => spans.iter().map(span).collect(),
        Decoded::Logs(records) => records.iter().map(log_record).collect(),
        Decoded::Metrics(metrics) => metrics.iter().map(metric).collect(),
        Decoded::Profiles(count) => vec!["profile".to_owned(); *count],
    };
    let head = format!(
        "{:<8} {} over {transport}, {encoding}, {} bytes, from {}",
        request.signal,
        lines.len(),
        request.body.len(),
        if request.user_agent.is_empty() { "an exporter without a name" } else { &request.user_agent },
    );
    let faults = faults.iter().map(|fault| format!("fault    {fault}"));
    std::iter::once(head).chain(lines).chain(faults).collect::<Vec<_>>().join("\n  ")
}

/// Tells what a store has received since it was asked last: spans, records, metrics and faults as [`describe`] has them,
/// and lines of output as they were written.
#[derive(Debug, Default)]
pub(super) struct Teller {
    spans: usize,
    logs: usize,
    metrics: usize,
    faults: usize,
}

impl Teller {
    pub(super) fn news(&mut self, capture: &Capture) -> Vec<String> {
        let spans = capture.spans().from(self.spans).map(|new| span(new));
        let logs = capture.logs().from(self.logs).map(|record| match record.origin {
            LogOrigin::Otlp => log_record(record),
            origin => format!("{origin:<8} {}", record.raw),
        });
        let metrics = capture.metrics().from(self.metrics).map(|new| metric(new));
        let faults = capture.faults().iter().skip(self.faults).map(|fault| format!("fault    {}", fault.reason));
        let news = logs.chain(spans).chain(metrics).chain(faults).collect();
        self.spans = capture.spans().end();
        self.logs = capture.logs().end();
        self.metrics = capture.metrics().end();
        self.faults = capture.faults().len();
        news
    }
}

fn span(span: &Span) -> String {
    let millis = span.end_unix_nano.saturating_sub(span.start_unix_nano) as f64 / 1e6;
    let parent = span.parent_span_id.map_or_else(|| "none".to_owned(), |parent| parent.to_string());
    let status = match span.status.code {
        StatusCode::Unset => String::new(),
        code => format!(" status={code}"),
    };
    format!(
        "{:<8} {:?} {millis:.3} ms trace={} span={} parent={parent}{status} service={}",
        span.kind,
        span.name,
        span.trace_id,
        span.span_id,
        span.resource.service_name().unwrap_or("unknown"),
    )
}

fn log_record(record: &LogRecord) -> String {
    let severity = record.severity.as_ref().map_or("", |severity| severity.text.as_str());
    format!("{severity:<8} {:?} trace={} span={}", record.message, record.trace_id, record.span_id)
}

fn metric(metric: &Metric) -> String {
    format!("{:<8} {} points={} unit={:?}", "metric", metric.name, metric.points.len(), metric.unit)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        capture::{Signal, Transport},
        telemetry::{Arrival, SpanId, SpanKind, TraceId},
    };

    #[test]
    fn what_a_store_has_received_is_told_once() {
        let store = crate::capture::Store::default();
        let mut teller = Teller::default();
        store.add_fault(Signal::Logs, "no protobuf".into());
        assert_eq!(store.look(|capture| teller.news(capture)), ["fault    no protobuf"]);
        assert!(store.look(|capture| teller.news(capture)).is_empty());
    }

    #[test]
    fn a_required_header_is_a_name_and_a_value_and_no_message_repeats_the_value() {
        let (name, value) = header_argument("Authorization = Bearer a=b").unwrap();
        assert_eq!((name.as_str(), value.as_bytes()), ("authorization", &b"Bearer a=b"[..]));
        assert_eq!(format!("{value:?}"), "Sensitive");
        assert_eq!(header_argument("no-equals").unwrap_err(), "write it as NAME=VALUE");
        assert_eq!(header_argument("x y=secret").unwrap_err(), "\"x y\" is no header name");
        assert_eq!(header_argument("x=sec\u{7}ret").unwrap_err(), "the value of x is no header value");
    }

    #[test]
    fn a_request_is_told_with_its_spans_and_faults() {
        let span = Span {
            trace_id: TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").unwrap(),
            span_id: SpanId::from_hex("00f067aa0ba902b7").unwrap(),
            parent_span_id: None,
            trace_state: String::new(),
            flags: 0,
            name: "GET /files/".into(),
            kind: SpanKind::Server,
            start_unix_nano: 1_000_000,
            end_unix_nano: 3_500_000,
            attributes: Default::default(),
            events: Vec::new(),
            links: Vec::new(),
            status: Default::default(),
            resource: Default::default(),
            scope: Default::default(),
            arrival: Arrival::default(),
        };
        let request = ExportRequest {
            signal: Signal::Traces,
            transport: Transport::Grpc,
            encoding: Encoding::Protobuf,
            user_agent: String::new(),
            body: Bytes::from_static(b"12345"),
            arrival: Arrival::default(),
        };
        assert_eq!(
            describe(&request, &Decoded::Spans(vec![span]), &["span \"x\": trace id is all zero".into()]),
            "traces   1 over gRPC, protobuf, 5 bytes, from an exporter without a name\n  \
             SERVER   \"GET /files/\" 2.500 ms trace=4bf92f3577b34da6a3ce929d0e0e4736 span=00f067aa0ba902b7 \
             parent=none service=unknown\n  \
             fault    span \"x\": trace id is all zero"
        );
    }
}
