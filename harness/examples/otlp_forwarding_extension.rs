//! A Lambda extension that stands between a function and its collector, as the collector of the ADOT layer does: it takes
//! OTLP/HTTP on loopback and hands it on.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `AWS_LAMBDA_RUNTIME_API` | where the Extensions API is, set by Lambda |
//! | `TRACEGATE_EXTENSION_NAME` | the name to register with; default: the file name of this program |
//! | `TRACEGATE_LISTEN` | where to listen; default `127.0.0.1:4318` |
//! | `TRACEGATE_FORWARD_TO` | where to send; default `OTEL_EXPORTER_OTLP_ENDPOINT` |
//!
//! A request of the function is answered when the collector has answered it, so a function that has flushed has nothing
//! left here. Before the extension asks for the next event, which lets Lambda freeze it, it waits for what is still on its
//! way: requests of a function that does not wait for its exporter.

use std::{error::Error, sync::Arc};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, Method, Request, StatusCode, request},
    routing::post,
};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::sync::RwLock;

type Failure = Box<dyn Error + Send + Sync>;

/// Plain HTTP, which needs no certificates: an image may have none.
type HttpClient = Client<HttpConnector, Full<Bytes>>;

/// Sends a request; an answer other than a success is an error.
async fn send(client: &HttpClient, request: request::Builder, body: Bytes) -> Result<(HeaderMap, Bytes), Failure> {
    let (parts, body) = client.request(request.body(Full::new(body))?).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    if parts.status.is_success() {
        Ok((parts.headers, body))
    } else {
        Err(format!("{}: {}", parts.status, String::from_utf8_lossy(&body)).into())
    }
}

/// What is on its way holds `under_way` for reading; whoever holds it for writing knows that nothing is.
#[derive(Clone)]
struct Forwarder {
    client: HttpClient,
    to: String,
    under_way: Arc<RwLock<()>>,
}

async fn forward(
    State(forwarder): State<Forwarder>,
    Path(signal): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Bytes) {
    let _under_way = forwarder.under_way.read().await;
    let mut request = Request::builder().method(Method::POST).uri(format!("{}/v1/{signal}", forwarder.to));
    for name in ["content-type", "content-encoding", "user-agent"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    match send(&forwarder.client, request, body).await {
        Ok((_, answer)) => (StatusCode::OK, answer),
        Err(error) => {
            eprintln!("cannot forward {signal}: {error}");
            (StatusCode::BAD_GATEWAY, Bytes::new())
        }
    }
}

/// Registers, and serves until Lambda shuts the environment down.
pub async fn run() -> Result<(), Failure> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let api = format!("http://{}/2020-01-01/extension", variable("AWS_LAMBDA_RUNTIME_API")?);
    let to = variable("TRACEGATE_FORWARD_TO").or_else(|_| variable("OTEL_EXPORTER_OTLP_ENDPOINT"))?;
    let listen = variable("TRACEGATE_LISTEN").unwrap_or_else(|_| "127.0.0.1:4318".into());
    let own_name = || Some(std::env::current_exe().ok()?.file_name()?.to_str()?.to_owned());
    let name = variable("TRACEGATE_EXTENSION_NAME").ok().or_else(own_name).unwrap_or_default();

    let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    let forwarder =
        Forwarder { client: client.clone(), to: to.trim_end_matches('/').to_owned(), under_way: Arc::default() };
    // Before it registers: Lambda starts the runtime after that, and the runtime may export at once.
    let listener = tokio::net::TcpListener::bind(&listen).await?;
    let app = Router::new().route("/v1/{signal}", post(forward)).with_state(forwarder.clone());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let register = Request::builder().method(Method::POST).uri(format!("{api}/register"));
    let register = register.header("Lambda-Extension-Name", name);
    let (registered, _) = send(&client, register, Bytes::from_static(br#"{"events":["INVOKE","SHUTDOWN"]}"#)).await?;
    let id = registered.get("lambda-extension-identifier").ok_or("registered without an identifier")?.clone();
    loop {
        drop(forwarder.under_way.write().await);
        let next = Request::builder().uri(format!("{api}/event/next")).header("Lambda-Extension-Identifier", &id);
        let (_, event) = send(&client, next, Bytes::new()).await?;
        let event: serde_json::Value = serde_json::from_slice(&event)?;
        if event["eventType"] == "SHUTDOWN" {
            drop(forwarder.under_way.write().await);
            println!("shut down: {}", event["shutdownReason"].as_str().unwrap_or_default());
            return Ok(());
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    run().await
}
