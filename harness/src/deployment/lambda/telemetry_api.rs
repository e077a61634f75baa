//! The Telemetry API, version 2022-07-01 ("Lambda Telemetry API reference" in the Lambda Developer Guide): an extension
//! subscribes during Init, and the platform posts batches of events to a server of the extension.
//!
//! `sandbox.localdomain` is the extension's own loopback; extensions run on this machine, so it is this machine's.

use std::{
    net::{Ipv4Addr, SocketAddr},
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
use tokio::time::Instant;

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
    /// Where to send, or why not.
    fn check(&self) -> Result<(SocketAddr, String), String> {
        if !["2022-07-01", "2022-12-13"].contains(&self.schema_version.as_str()) {
            return Err(format!("schemaVersion {:?} is none of 2022-07-01, 2022-12-13", self.schema_version));
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
        if self.destination.protocol != "HTTP" {
            return Err(format!("destination.protocol {:?} is not supported; use HTTP", self.destination.protocol));
        }
        let uri = &self.destination.uri;
        let url = url::Url::parse(uri).map_err(|error| format!("destination.URI {uri:?}: {error}"))?;
        match (url.scheme(), url.host_str(), url.port()) {
            ("http", Some("sandbox.localdomain" | "sandbox" | "127.0.0.1" | "localhost"), Some(port)) => {
                Ok(((Ipv4Addr::LOCALHOST, port).into(), url.path().to_owned()))
            }
            _ => Err(format!("destination.URI {uri:?} is not http://sandbox.localdomain:PORT")),
        }
    }
}

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new().route("/2022-07-01/telemetry", put(subscribe))
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
    let (address, path) = match subscription.check() {
        Ok(destination) => destination,
        Err(message) => return invalid(message),
    };
    shared.platform.subscribed(&name, &subscription.types);
    let platform = shared.platform.clone();
    shared.deliver(async move { deliver(&platform, &subscription, address, &path).await });
    (StatusCode::OK, "OK").into_response()
}

/// Sends what the subscription asks for, from the beginning of Init on, until it is dropped.
async fn deliver(platform: &Platform, subscription: &Subscription, address: SocketAddr, path: &str) {
    let Buffering { max_items, max_bytes, timeout_ms } = subscription.buffering;
    let mut position = 0;
    let mut batch: Vec<String> = Vec::new();
    let mut bytes = 0;
    let mut due: Option<Instant> = None;
    loop {
        let far = due.unwrap_or_else(|| Instant::now() + DELIVERY);
        let more = platform.more.notified();
        let (events, next) = platform.since(position);
        position = next;
        for event in events.iter().filter(|event| subscription.types.iter().any(|kind| kind == event.kind)) {
            bytes += event.json.len();
            batch.push(event.json.clone());
            due.get_or_insert_with(|| Instant::now() + Duration::from_millis(timeout_ms));
            if batch.len() >= max_items || bytes >= max_bytes {
                post(address, path, std::mem::take(&mut batch)).await;
                (bytes, due) = (0, None);
            }
        }
        if due.is_some_and(|due| Instant::now() >= due) {
            post(address, path, std::mem::take(&mut batch)).await;
            (bytes, due) = (0, None);
        } else if !batch.is_empty() || events.is_empty() {
            let seen = platform.store().look(|capture| capture.logs().len());
            let until = due.unwrap_or(far);
            tokio::select! {
                () = more => {}
                _ = platform.store().until(until, |capture| (capture.logs().len() > seen).then_some(())) => {}
            }
        }
    }
}

async fn post(address: SocketAddr, path: &str, events: Vec<String>) {
    let request = HttpRequest {
        method: "POST".into(),
        target: path.to_owned(),
        headers: vec![("Content-Type".into(), "application/json".into())],
        body: format!("[{}]", events.join(",")).into(),
        caller: Caller::fresh(1, false),
        form: ContextForm::Absent,
    };
    if let Err(error) = http::send(address, &request, "AWSLambda", DELIVERY).await {
        tracing::warn!("{} telemetry events did not reach the extension at {address}: {error}", events.len());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(change: impl FnOnce(&mut Value)) -> Result<(SocketAddr, String), String> {
        let mut body = json!({
            "schemaVersion": "2022-07-01",
            "types": ["platform", "function"],
            "destination": { "protocol": "HTTP", "URI": "http://sandbox.localdomain:9003/in" },
        });
        change(&mut body);
        serde_json::from_value::<Subscription>(body).map_err(|error| error.to_string())?.check()
    }

    #[test]
    fn sandbox_localdomain_is_loopback_and_buffering_has_its_defaults() {
        assert_eq!(check(|_| {}).unwrap(), (SocketAddr::from(([127, 0, 0, 1], 9003)), "/in".into()));
        let limits = json!({ "maxItems": 1000, "maxBytes": 1_048_576, "timeoutMs": 25 });
        assert!(check(|body| body["buffering"] = limits).is_ok());
    }

    #[test]
    fn a_subscription_that_lambda_would_refuse_is_refused() {
        for (key, value, expected) in [
            ("schemaVersion", json!("2020-01-01"), "schemaVersion"),
            ("types", json!([]), "types is empty"),
            ("types", json!(["metrics"]), "\"metrics\""),
            ("buffering", json!({ "maxItems": 999 }), "maxItems 999 is not from 1000 to 10000"),
            ("buffering", json!({ "maxBytes": 1_048_577 }), "maxBytes"),
            ("buffering", json!({ "timeoutMs": 24 }), "timeoutMs 24 is not from 25 to 30000"),
            ("destination", json!({ "protocol": "TCP", "port": 9000 }), "use HTTP"),
            ("destination", json!({ "protocol": "HTTP", "URI": "http://example.com:80" }), "sandbox.localdomain"),
            ("destination", json!({ "protocol": "HTTP", "URI": "nowhere" }), "destination.URI"),
        ] {
            let error = check(|body| body[key] = value.clone()).unwrap_err();
            assert!(error.contains(expected), "{key} {value}: {error}");
        }
    }
}
