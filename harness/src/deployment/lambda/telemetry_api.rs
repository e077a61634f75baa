//! The Telemetry API, version 2022-07-01 ("Lambda Telemetry API reference" in the Lambda Developer Guide): an extension
//! subscribes during Init, and the platform posts batches of events to a server of the extension, over HTTP as a JSON
//! array or over TCP as a line for each event.
//!
//! A batch is sent when it has `maxItems` events or `maxBytes` bytes, or `timeoutMs` after its first event. While one is on
//! its way the next one waits; when that is full it is dropped, and the subscribers are told with `platform.logsDropped`.
//! AWS does not say when it drops; its runtime interface emulator drops every batch that is due meanwhile.
//!
//! `sandbox.localdomain` is the extension's own loopback; extensions run on this machine, so it is this machine's.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::put,
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Mutex, time::Instant};

use super::{
    platform::Platform,
    runtime_api::{Shared, refusal},
};
use crate::stimulus::{Caller, ContextForm, HttpRequest, http};

/// How long a batch may take; one that is on its way at a freeze goes on after the thaw.
const DELIVERY: Duration = Duration::from_secs(3600);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Subscription {
    schema_version: String,
    types: Vec<String>,
    #[serde(default)]
    buffering: Buffering,
    destination: Destination,
}

#[derive(Debug, Deserialize)]
struct Destination {
    protocol: String,
    #[serde(rename = "URI", alias = "uri", default)]
    uri: String,
    #[serde(default)]
    port: u16,
}

/// Where events go.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Subscriber {
    /// Each batch is posted as a JSON array.
    Http { address: SocketAddr, path: String },
    /// Each event is a line of JSON on one connection.
    Tcp { address: SocketAddr },
}

/// When a batch is sent: whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Buffering {
    max_items: usize,
    max_bytes: usize,
    timeout_ms: u64,
}

impl Default for Buffering {
    fn default() -> Self {
        Self { max_items: 10_000, max_bytes: 262_144, timeout_ms: 1_000 }
    }
}

impl Subscription {
    /// Where to send, or why not. On a managed instance only the last version of the schema is known.
    fn check(&self, managed: bool) -> Result<Subscriber, String> {
        let versions: &[&str] = if managed { &["2025-01-29"] } else { &["2022-07-01", "2022-12-13", "2025-01-29"] };
        if !versions.contains(&self.schema_version.as_str()) {
            return Err(format!("schemaVersion {:?} is none of {}", self.schema_version, versions.join(", ")));
        }
        if self.types.is_empty() {
            return Err("types is empty; there are platform, function and extension".into());
        }
        if let Some(unknown) =
            self.types.iter().find(|kind| !["platform", "function", "extension"].contains(&kind.as_str()))
        {
            return Err(format!("type {unknown:?} is none of platform, function, extension"));
        }
        let Buffering { max_items, max_bytes, timeout_ms } = self.buffering;
        for (name, value, range) in [
            ("maxItems", max_items as u64, 1_000..=10_000),
            ("maxBytes", max_bytes as u64, 262_144..=1_048_576),
            ("timeoutMs", timeout_ms, 25..=30_000),
        ] {
            if !range.contains(&value) {
                return Err(format!("buffering.{name} {value} is not from {} to {}", range.start(), range.end()));
            }
        }
        match self.destination.protocol.as_str() {
            "HTTP" => {}
            "TCP" if self.destination.port == 0 => return Err("destination.port is missing".into()),
            "TCP" => {
                return Ok(Subscriber::Tcp { address: (Ipv4Addr::LOCALHOST, self.destination.port).into() });
            }
            other => return Err(format!("destination.protocol {other:?} is none of HTTP, TCP")),
        }
        let uri = &self.destination.uri;
        // A collector that is told to run locally (`AWS_SAM_LOCAL`) listens on no host's name, and says so.
        let whole = uri.replacen("http://:", "http://localhost:", 1);
        let url = url::Url::parse(&whole).map_err(|error| format!("destination.URI {uri:?}: {error}"))?;
        match (url.scheme(), url.host_str(), url.port()) {
            ("http", Some("sandbox.localdomain" | "sandbox" | "127.0.0.1" | "localhost"), Some(port)) => {
                Ok(Subscriber::Http { address: (Ipv4Addr::LOCALHOST, port).into(), path: url.path().to_owned() })
            }
            _ => Err(format!("destination.URI {uri:?} is not http://sandbox.localdomain:PORT")),
        }
    }
}

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/2022-07-01/telemetry", put(subscribe)).route("/2020-08-15/logs", put(no_logs))
}

/// The Logs API, which the Telemetry API has superseded. It is answered as AWS's runtime interface emulator does, so that an
/// extension that only asks for lines goes on without them.
async fn no_logs(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let name = match shared.registry().name_of(&headers) {
        Ok(name) => name,
        Err(refused) => return *refused,
    };
    tracing::warn!("the extension {name} subscribed to the Logs API, which sends nothing here: use the Telemetry API");
    (StatusCode::ACCEPTED, "the Logs API sends nothing here; use the Telemetry API").into_response()
}

async fn subscribe(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let name = {
        let registry = shared.registry();
        match registry.name_of(&headers) {
            Ok(_) if registry.is_closed() => {
                let message = "a subscription is made during Init".into();
                return refusal(StatusCode::FORBIDDEN, "Telemetry.SubscriptionClosed", message);
            }
            Ok(name) => name,
            Err(refused) => return *refused,
        }
    };
    let invalid = |message: String| refusal(StatusCode::BAD_REQUEST, "ValidationError", message);
    let subscription = match serde_json::from_slice::<Subscription>(&body) {
        Ok(subscription) => subscription,
        Err(error) => return invalid(error.to_string()),
    };
    let subscriber = match subscription.check(shared.about.function.concurrency.is_some()) {
        Ok(subscriber) => Arc::new(subscriber),
        Err(message) => return invalid(message),
    };
    if shared.about.in_container {
        // What Lambda answers where telemetry cannot be sent, so that an extension knows that none will come (Telemetry API,
        // Subscribe, status 202).
        tracing::warn!(
            "the extension {name} subscribed to telemetry, which is not sent into containers: use kind lambda-process"
        );
        let why = "telemetry is not sent into containers";
        return (StatusCode::ACCEPTED, why).into_response();
    }
    shared.platform.subscribed(&name, &subscription.types);
    let platform = shared.platform.clone();
    shared.deliver(async move {
        let connection = Arc::new(Mutex::new(None));
        let send = |events| Box::pin(subscriber.clone().send(connection.clone(), events)) as Sending;
        deliver(&platform, &subscription, send).await;
    });
    (StatusCode::OK, "OK").into_response()
}

/// A batch on its way; the error says why it did not arrive.
type Sending = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// Events that wait for being sent together.
#[derive(Debug)]
struct Batch {
    limits: Buffering,
    events: Vec<String>,
    bytes: usize,
    /// When it is sent at the latest; `None` while it is empty.
    due: Option<Instant>,
}

impl Batch {
    fn new(limits: Buffering) -> Self {
        Self { limits, events: Vec::new(), bytes: 0, due: None }
    }

    fn add(&mut self, event: String) {
        self.bytes += event.len();
        self.events.push(event);
        self.due.get_or_insert_with(|| Instant::now() + Duration::from_millis(self.limits.timeout_ms));
    }

    fn is_full(&self) -> bool {
        self.events.len() >= self.limits.max_items || self.bytes >= self.limits.max_bytes
    }

    /// The events and their bytes, leaving none behind.
    fn take(&mut self) -> (Vec<String>, usize) {
        self.due = None;
        (std::mem::take(&mut self.events), std::mem::take(&mut self.bytes))
    }
}

/// A batch that was handed to `send`, and what it would be if it were dropped.
struct OnItsWay {
    sending: Sending,
    records: usize,
    bytes: usize,
    /// Whether it only says that others were dropped, so that a subscriber that takes nothing is not told so for ever.
    only_drops: bool,
}

impl OnItsWay {
    fn start(batch: &mut Batch, send: &impl Fn(Vec<String>) -> Sending) -> Self {
        let (events, bytes) = batch.take();
        let only_drops = events.iter().all(|event| event.contains("\"type\":\"platform.logsDropped\""));
        Self { records: events.len(), bytes, only_drops, sending: send(events) }
    }
}

const TOO_SLOW: &str = "Some logs were dropped because the downstream consumer is slower than the logs production rate";

/// Hands what the subscription asks for to `send`, from the beginning of Init on, until it is dropped.
async fn deliver(platform: &Platform, subscription: &Subscription, send: impl Fn(Vec<String>) -> Sending) {
    let mut position = 0;
    let mut batch = Batch::new(subscription.buffering);
    let mut on_its_way: Option<OnItsWay> = None;
    loop {
        let more = platform.more.notified();
        tokio::pin!(more);
        // From here on, so that nothing is missed that comes while the events are looked at.
        more.as_mut().enable();
        let seen = platform.store().look(|capture| capture.logs().end());
        let (events, next) = platform.since(position);
        position = next;
        for event in events.iter().filter(|event| subscription.types.iter().any(|kind| kind == event.kind)) {
            batch.add(event.json.clone());
            if batch.is_full() {
                if on_its_way.is_none() {
                    on_its_way = Some(OnItsWay::start(&mut batch, &send));
                } else {
                    let (dropped, bytes) = batch.take();
                    platform.logs_dropped(TOO_SLOW, dropped.len(), bytes);
                }
            }
        }
        if on_its_way.is_none() && batch.due.is_some_and(|due| Instant::now() >= due) {
            on_its_way = Some(OnItsWay::start(&mut batch, &send));
        }
        let due = batch.due.filter(|_| on_its_way.is_none()).unwrap_or_else(|| Instant::now() + DELIVERY);
        let arrived = async {
            match &mut on_its_way {
                Some(batch) => (&mut batch.sending).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            sent = arrived => {
                let batch = on_its_way.take();
                if let (Err(error), Some(OnItsWay { records, bytes, only_drops, .. })) = (sent, batch) {
                    tracing::warn!("{records} telemetry events did not reach an extension: {error}");
                    if !only_drops {
                        platform.logs_dropped(&format!("could not send events: {error}"), records, bytes);
                    }
                }
            }
            () = more => {}
            _ = platform.store().until(due, |capture| (capture.logs().end() > seen).then_some(())) => {}
        }
    }
}

impl Subscriber {
    /// Sends a batch. `connection` is the one that is open over TCP.
    async fn send(
        self: Arc<Self>,
        connection: Arc<Mutex<Option<TcpStream>>>,
        events: Vec<String>,
    ) -> Result<(), String> {
        match &*self {
            Self::Http { address, path } => {
                let request = HttpRequest {
                    method: "POST".into(),
                    target: path.clone(),
                    headers: vec![("Content-Type".into(), "application/json".into())],
                    body: format!("[{}]", events.join(",")).into(),
                    caller: Caller::fresh(1, false),
                    form: ContextForm::Absent,
                };
                match http::send(*address, &request, "AWSLambda", DELIVERY).await {
                    Ok(response) if response.status < 400 => Ok(()),
                    Ok(response) => Err(format!("{address} answered {}", response.status)),
                    Err(error) => Err(error.to_string()),
                }
            }
            Self::Tcp { address } => {
                let mut connection = connection.lock().await;
                let mut stream = match connection.take() {
                    Some(stream) => stream,
                    None => TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?,
                };
                let lines: String = events.iter().flat_map(|event| [event.as_str(), "\n"]).collect();
                stream.write_all(lines.as_bytes()).await.map_err(|error| format!("{address}: {error}"))?;
                *connection = Some(stream);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[path = "telemetry_api_tests.rs"]
mod tests;
