//! The Runtime API, version 2018-06-01 ("Using the Lambda runtime API for custom runtimes" in the Lambda Developer
//! Guide), for one execution environment.
//!
//! The server only keeps the protocol's states and says what the runtime did, in order, through a channel. When to
//! freeze, thaw and hand out an event is decided by the [environment](super::environment). Each environment has states
//! and connections of its own on one shared listener, so a request that a killed runtime still had under way cannot be taken for one of its successor's.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use futures::FutureExt;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

use super::{
    extensions_api::{self, Idle, Registered, Registry},
    phases::Cycle,
    platform::Platform,
    posted::{Limits, Mode, Received, read, reported},
    telemetry_api,
};
use crate::{
    capture::{Mark, Store},
    config,
    stimulus::Identity,
};

/// An event on its way to the runtime.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) request_id: String,
    /// `Lambda-Runtime-Invocation-Id`: one attempt of the request. A runtime that knows it says it back.
    pub(super) invocation_id: String,
    /// Milliseconds since the Unix epoch.
    pub(super) deadline_ms: u128,
    pub(super) function_arn: String,
    pub(super) trace_header: Option<String>,
    /// Whom the invocation speaks for, as raw JSON.
    pub(super) identity: Identity,
    pub(super) event: Bytes,
}

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Response(Bytes),
    Error(Failure),
}

/// An invocation or an Init that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What the caller reads as `errorType`.
    pub(super) error_type: String,
    /// What the caller reads as `errorMessage`.
    pub(super) message: String,
    /// What the platform's own telemetry calls it: always `Runtime.…`, `Function.…`, `Extension.…` or `Sandbox.…`.
    pub(super) category: String,
}

impl Failure {
    /// A failure that the platform itself found, so that all call it the same.
    pub(super) fn of_platform(category: &str, message: String) -> Self {
        Self { error_type: category.into(), message, category: category.into() }
    }
}

/// What the runtime or an extension did.
#[derive(Debug)]
pub(super) enum Did {
    /// Asked for the next event; its request stays open until one is sent here.
    Asked(oneshot::Sender<Box<Dispatch>>),
    /// Answered an invocation that it has.
    Answered { request_id: String, answer: Answer },
    /// Gave up during Init.
    FailedInit(Failure),
    /// An extension of this name registered.
    Registered(String),
    /// An extension, by its position in the registry, asked for the next event.
    ExtensionAsked { index: usize, waiting: Idle },
    /// An extension reported that it cannot go on, in `Init` or at its `Exit`.
    ExtensionFailed { name: String, during: &'static str, error: String },
}

/// What the server of one environment knows and where it reports.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) about: About,
    cycle: Mutex<Cycle>,
    registry: Mutex<Registry>,
    pub(super) did: mpsc::UnboundedSender<Did>,
    pub(super) platform: Arc<Platform>,
    /// Deliveries of the Telemetry API; they end with the server.
    deliveries: Mutex<JoinSet<()>>,
    store: Arc<Store>,
}

/// What extensions are told and judged by.
#[derive(Debug, Clone, Default)]
pub(super) struct About {
    pub(super) function: config::Function,
    /// The environment's name, that of its log stream.
    pub(super) environment: String,
    /// Names of the external extensions.
    pub(super) external: Vec<String>,
    /// Whether its processes are in a container, whose ports nobody reaches from here.
    pub(super) in_container: bool,
    /// Whether the platform writes its lines as JSON, `AWS_LAMBDA_LOG_FORMAT`.
    pub(super) json_lines: bool,
    /// How large responses may be.
    pub(super) limits: Limits,
}

/// A running Runtime API server; dropping it ends it.
#[derive(Debug)]
pub(super) struct RuntimeApi {
    /// What the runtime does, in order.
    pub(super) did: mpsc::UnboundedReceiver<Did>,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl RuntimeApi {
    /// Serves the next environment on a listener that its predecessor has left.
    pub(super) fn start(listener: Arc<TcpListener>, about: About, store: Arc<Store>) -> Self {
        // What a killed runtime still had under way is not its successor's.
        while let Some(Ok(_)) = listener.accept().now_or_never() {}
        let (sender, did) = mpsc::unbounded_channel();
        let platform = Arc::new(Platform::new(store.clone(), about.function.clone(), about.json_lines));
        let shared = Arc::new(Shared {
            cycle: Mutex::new(Cycle::new(about.function.concurrency)),
            about,
            registry: Mutex::default(),
            did: sender,
            platform,
            deliveries: Mutex::default(),
            store,
        });
        let app = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .merge(extensions_api::routes())
            .merge(telemetry_api::routes())
            .with_state(shared.clone());
        let server = tokio::spawn(async move {
            use axum::serve::ListenerExt;
            let listener = Lent(listener);
            // Without it, the second small packet of an answer waits for the acknowledgement of the first.
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            if let Err(error) = axum::serve(listener, app).await {
                tracing::warn!("the Runtime API server ended: {error}");
            }
        });
        Self { did, shared, server }
    }

    /// Hands an event to a runtime that waits for one. Gives it back when the runtime has closed that request; it will
    /// ask again, or exit.
    pub(super) fn hand_out(
        &self,
        waiting: oneshot::Sender<Box<Dispatch>>,
        event: Box<Dispatch>,
    ) -> Result<(), Box<Dispatch>> {
        let mut cycle = self.shared.cycle();
        if waiting.is_closed() {
            return Err(event);
        }
        let (request_id, invocation_id) = (event.request_id.clone(), event.invocation_id.clone());
        // Before the event is on its way, so that nothing that it causes is stored ahead of this mark.
        let environment = self.shared.about.environment.clone();
        self.shared.store.mark(Mark::Dispatched { request_id: request_id.clone(), environment });
        waiting.send(event)?;
        cycle.hand_out(request_id, invocation_id);
        Ok(())
    }

    /// An answer to this invocation is refused from now on.
    pub(super) fn give_up(&self, request_id: &str) {
        self.shared.cycle().give_up(request_id);
    }

    /// What the platform says of this environment.
    pub(super) fn platform(&self) -> &Arc<Platform> {
        &self.shared.platform
    }

    /// Whether an extension has subscribed to the Telemetry API.
    pub(super) fn has_subscribers(&self) -> bool {
        !self.shared.deliveries().is_empty()
    }

    /// The extensions that have registered, in the order in which [`Did::ExtensionAsked`] numbers them. Complete once
    /// the runtime has asked for its first event.
    pub(super) fn extensions(&self) -> Vec<Registered> {
        self.shared.registry().registered()
    }

    /// How many these are.
    pub(super) fn extension_count(&self) -> usize {
        self.shared.registry().len()
    }

    /// Hands an event to an extension that waits for one; gives it back when that request is closed.
    pub(super) fn notify(&self, index: usize, waiting: Idle, event: Bytes) -> Result<(), Bytes> {
        let mut registry = self.shared.registry();
        waiting.send(event)?;
        registry.busy(index);
        Ok(())
    }
}

/// The listener of all environments of a function, in the hands of the one that runs: what can be reached from a
/// container is settled when the first one starts.
struct Lent(Arc<TcpListener>);

impl axum::serve::Listener for Lent {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.0.accept().await {
                Ok(accepted) => return accepted,
                // A connection that is gone again, or no descriptor left for it: the runtime tries again.
                Err(error) => {
                    tracing::warn!("the Runtime API cannot take a connection: {error}");
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
        self.shared.deliveries().abort_all();
    }
}

impl Shared {
    fn deliveries(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a delivery of the Telemetry API run as long as the server does.
    pub(super) fn deliver(&self, delivery: impl Future<Output = ()> + Send + 'static) {
        self.deliveries().spawn(delivery);
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cycle(&self) -> MutexGuard<'_, Cycle> {
        self.cycle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn refusal(status: StatusCode, error_type: &str, message: String) -> Response {
    (status, Json(json!({ "errorType": error_type, "errorMessage": message }))).into_response()
}

pub(super) fn accepted() -> Response {
    (StatusCode::ACCEPTED, Json(json!({ "status": "OK" }))).into_response()
}

async fn next(State(shared): State<Arc<Shared>>) -> Response {
    let alive = Arc::new(());
    let (sender, event) = oneshot::channel();
    {
        let mut cycle = shared.cycle();
        if let Err(refused) = cycle.ask(Arc::downgrade(&alive)) {
            return *refused;
        }
        // With the first request of the runtime the extensions of this environment are settled.
        shared.registry().close();
        // Under the lock, so that the order of the channel is the order of the states.
        let _ = shared.did.send(Did::Asked(sender));
    }
    let dispatched = event.await;
    drop(alive);
    let Ok(event) = dispatched else {
        return refusal(StatusCode::INTERNAL_SERVER_ERROR, "Container", "the environment shuts down".into());
    };
    let mut response = Response::builder()
        .header("Content-Type", "application/json")
        .header("Lambda-Runtime-Aws-Request-Id", event.request_id)
        .header("Lambda-Runtime-Invocation-Id", event.invocation_id)
        .header("Lambda-Runtime-Deadline-Ms", event.deadline_ms.to_string())
        .header("Lambda-Runtime-Invoked-Function-Arn", event.function_arn);
    for (name, value) in [
        ("Lambda-Runtime-Trace-Id", event.trace_header),
        ("Lambda-Runtime-Client-Context", event.identity.client_context),
        ("Lambda-Runtime-Cognito-Identity", event.identity.cognito),
    ] {
        if let Some(value) = value {
            response = response.header(name, value);
        }
    }
    response.body(Body::from(event.event)).unwrap_or_else(|error| {
        refusal(StatusCode::INTERNAL_SERVER_ERROR, "Container", format!("the event cannot be sent: {error}"))
    })
}

async fn response(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    // Bound to a name, so that the lock is not held while the body is read.
    let checked = shared.cycle().check(&id, &headers);
    if let Err(refused) = checked {
        return *refused;
    }
    let mode = match Mode::of(&headers) {
        Ok(mode) => mode,
        Err(refused) => return *refused,
    };
    let largest = shared.about.limits.of(mode);
    let body = match read(body, mode, largest).await {
        Ok(body) => body,
        Err(refused) => return *refused,
    };
    let mut too_large = None;
    let answer = match body {
        Received { body, error: None, excess: 0 } => Answer::Response(body),
        Received { error: Some(failure), .. } => Answer::Error(failure),
        Received { .. } => {
            let message = format!("Exceeded maximum allowed payload size ({largest} bytes).");
            too_large = Some(message.clone());
            Answer::Error(Failure::of_platform("Function.ResponseSizeTooLarge", message))
        }
    };
    match (conclude(&shared, &id, &headers, answer), too_large) {
        (Err(refused), _) => *refused,
        (Ok(()), Some(message)) => refusal(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message),
        (Ok(()), None) => accepted(),
    }
}

async fn error(State(shared): State<Arc<Shared>>, Path(id): Path<String>, headers: HeaderMap, body: Body) -> Response {
    let checked = shared.cycle().check(&id, &headers);
    if let Err(refused) = checked {
        return *refused;
    }
    let failure = match read(body, Mode::Buffered, shared.about.limits.of(Mode::Buffered)).await {
        Ok(received) => reported(&headers, &received.body),
        Err(refused) => return *refused,
    };
    match conclude(&shared, &id, &headers, Answer::Error(failure)) {
        Ok(()) => accepted(),
        Err(refused) => *refused,
    }
}

async fn init_error(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    let failure = match read(body, Mode::Buffered, shared.about.limits.of(Mode::Buffered)).await {
        Ok(received) => reported(&headers, &received.body),
        Err(refused) => return *refused,
    };
    let mut cycle = shared.cycle();
    if let Err(refused) = cycle.fail_init() {
        return *refused;
    }
    let _ = shared.did.send(Did::FailedInit(failure));
    accepted()
}

fn conclude(shared: &Shared, id: &str, headers: &HeaderMap, answer: Answer) -> Result<(), Box<Response>> {
    let mut cycle = shared.cycle();
    cycle.conclude(id, headers)?;
    // Before the runtime is told, so that what it does afterwards is stored behind this mark.
    shared.store.mark(Mark::Responded { request_id: id.to_owned() });
    let _ = shared.did.send(Did::Answered { request_id: id.to_owned(), answer });
    Ok(())
}

#[cfg(test)]
#[path = "runtime_api_tests.rs"]
mod tests;
