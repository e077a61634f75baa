//! The Runtime API, version 2018-06-01 ("Using the Lambda runtime API for custom runtimes" in the Lambda Developer
//! Guide), for one execution environment.
//!
//! The server only keeps the protocol's states and says what the runtime did, in order, through a channel. When to
//! freeze, thaw and hand out an event is decided by the [environment](super::environment). Each environment has a server
//! of its own, so a request that a killed runtime still had under way cannot be taken for one of its successor's.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::capture::{Mark, Store};

/// Largest response: 6 MiB and 100 bytes.
pub(super) const LARGEST_RESPONSE: usize = 6 * 1024 * 1024 + 100;

/// An event on its way to the runtime.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) request_id: String,
    /// Milliseconds since the Unix epoch.
    pub(super) deadline_ms: u128,
    pub(super) function_arn: String,
    pub(super) trace_header: Option<String>,
    pub(super) event: Bytes,
}

/// How an invocation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Response(Bytes),
    Error { error_type: String, message: String },
}

/// What the runtime did.
#[derive(Debug)]
pub(super) enum Did {
    /// Asked for the next event; its request stays open until one is sent here.
    Asked(oneshot::Sender<Box<Dispatch>>),
    /// Answered the invocation that it has.
    Answered(Answer),
    /// Gave up during Init.
    FailedInit { error_type: String, message: String },
}

/// Where the runtime is in its cycle.
#[derive(Debug)]
enum Phase {
    /// Has not asked for an event yet.
    Init,
    /// Waits for an event, as long as its request lives.
    Waiting(Weak<()>),
    /// Has the event of this request id.
    Invoking(String),
    /// Has answered, and may do what it likes before it asks again.
    Answered(String),
    /// Has reported that it cannot start.
    Failed,
}

#[derive(Debug)]
struct Shared {
    phase: Mutex<Phase>,
    did: mpsc::UnboundedSender<Did>,
    store: Arc<Store>,
}

/// A running Runtime API server; dropping it ends it.
#[derive(Debug)]
pub(super) struct RuntimeApi {
    /// Where it listens on this machine.
    pub(super) address: SocketAddr,
    /// What the runtime does, in order.
    pub(super) did: mpsc::UnboundedReceiver<Did>,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl RuntimeApi {
    /// Listens on a port of loopback that the system chooses.
    pub(super) async fn start(store: Arc<Store>) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (sender, did) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { phase: Mutex::new(Phase::Init), did: sender, store });
        let app = Router::new()
            .route("/2018-06-01/runtime/invocation/next", get(next))
            .route("/2018-06-01/runtime/invocation/{id}/response", post(response))
            .route("/2018-06-01/runtime/invocation/{id}/error", post(error))
            .route("/2018-06-01/runtime/init/error", post(init_error))
            .with_state(shared.clone());
        let server = tokio::spawn(async move {
            use axum::serve::ListenerExt;
            // Without it, the second small packet of an answer waits for the acknowledgement of the first.
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            if let Err(error) = axum::serve(listener, app).await {
                tracing::warn!("the Runtime API server ended: {error}");
            }
        });
        Ok(Self { address, did, shared, server })
    }

    /// Hands an event to a runtime that waits for one. Gives it back when the runtime has closed that request; it will
    /// ask again, or exit.
    pub(super) fn hand_out(
        &self,
        waiting: oneshot::Sender<Box<Dispatch>>,
        event: Box<Dispatch>,
    ) -> Result<(), Box<Dispatch>> {
        let mut phase = self.shared.phase();
        if waiting.is_closed() {
            return Err(event);
        }
        let request_id = event.request_id.clone();
        // Before the event is on its way, so that nothing that it causes is stored ahead of this mark.
        self.shared.store.mark(Mark::Dispatched { request_id: request_id.clone() });
        waiting.send(event)?;
        *phase = Phase::Invoking(request_id);
        Ok(())
    }
}

impl Drop for RuntimeApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refusal(status: StatusCode, error_type: &str, message: String) -> Response {
    (status, Json(json!({ "errorType": error_type, "errorMessage": message }))).into_response()
}

fn invalid_state(message: &str) -> Response {
    refusal(StatusCode::FORBIDDEN, "InvalidStateTransition", message.into())
}

fn accepted() -> Response {
    (StatusCode::ACCEPTED, Json(json!({ "status": "OK" }))).into_response()
}

async fn next(State(shared): State<Arc<Shared>>) -> Response {
    let alive = Arc::new(());
    let (sender, event) = oneshot::channel();
    {
        let mut phase = shared.phase();
        match &*phase {
            Phase::Init | Phase::Answered(_) => {}
            // A request that the runtime has given up may be made again.
            Phase::Waiting(other) if other.strong_count() == 0 => {}
            Phase::Waiting(_) => return invalid_state("the runtime waits for an event already"),
            Phase::Invoking(id) => {
                return invalid_state(&format!("the runtime has not answered invocation {id} yet"));
            }
            Phase::Failed => return invalid_state("the runtime has reported that it cannot start"),
        }
        *phase = Phase::Waiting(Arc::downgrade(&alive));
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
        .header("Lambda-Runtime-Deadline-Ms", event.deadline_ms.to_string())
        .header("Lambda-Runtime-Invoked-Function-Arn", event.function_arn);
    if let Some(header) = event.trace_header {
        response = response.header("Lambda-Runtime-Trace-Id", header);
    }
    response.body(Body::from(event.event)).unwrap_or_else(|error| {
        refusal(StatusCode::INTERNAL_SERVER_ERROR, "Container", format!("the event cannot be sent: {error}"))
    })
}

async fn response(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Body) -> Response {
    if let Err(refused) = check(&shared, &id) {
        return *refused;
    }
    let body = match read(body).await {
        Ok(body) => body,
        Err(refused) => return *refused,
    };
    let message = format!("Exceeded maximum allowed payload size ({LARGEST_RESPONSE} bytes).");
    let answer = match body {
        Received { body, error: None, excess: 0 } => Answer::Response(body),
        Received { error: Some((error_type, message)), .. } => Answer::Error { error_type, message },
        Received { .. } => {
            Answer::Error { error_type: "Function.ResponseSizeTooLarge".into(), message: message.clone() }
        }
    };
    let too_large =
        matches!(&answer, Answer::Error { error_type, .. } if error_type == "Function.ResponseSizeTooLarge");
    match conclude(&shared, &id, answer) {
        Err(refused) => *refused,
        Ok(()) if too_large => refusal(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", message),
        Ok(()) => accepted(),
    }
}

async fn error(State(shared): State<Arc<Shared>>, Path(id): Path<String>, headers: HeaderMap, body: Body) -> Response {
    if let Err(refused) = check(&shared, &id) {
        return *refused;
    }
    let (error_type, message) = match read(body).await {
        Ok(received) => reported(&headers, &received.body),
        Err(refused) => return *refused,
    };
    match conclude(&shared, &id, Answer::Error { error_type, message }) {
        Ok(()) => accepted(),
        Err(refused) => *refused,
    }
}

async fn init_error(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    let (error_type, message) = match read(body).await {
        Ok(received) => reported(&headers, &received.body),
        Err(refused) => return *refused,
    };
    let mut phase = shared.phase();
    if !matches!(*phase, Phase::Init) {
        return invalid_state("Init is over");
    }
    *phase = Phase::Failed;
    let _ = shared.did.send(Did::FailedInit { error_type, message });
    accepted()
}

/// Whether the runtime has this invocation.
fn check(shared: &Shared, id: &str) -> Result<(), Box<Response>> {
    match &*shared.phase() {
        Phase::Invoking(current) if current == id => Ok(()),
        Phase::Answered(current) if current == id => {
            Err(Box::new(invalid_state(&format!("invocation {id} is answered already"))))
        }
        _ => {
            let message = format!("Invalid request ID {id}");
            Err(Box::new(refusal(StatusCode::BAD_REQUEST, "InvalidRequestID", message)))
        }
    }
}

fn conclude(shared: &Shared, id: &str, answer: Answer) -> Result<(), Box<Response>> {
    check(shared, id)?;
    let mut phase = shared.phase();
    *phase = Phase::Answered(id.to_owned());
    // Before the runtime is told, so that what it does afterwards is stored behind this mark.
    shared.store.mark(Mark::Responded { request_id: id.to_owned() });
    let _ = shared.did.send(Did::Answered(answer));
    Ok(())
}

/// The body of a request, up to the limit.
struct Received {
    body: Bytes,
    /// Bytes over the limit, read and dropped so that the client can read the refusal.
    excess: usize,
    /// Error of a streamed response, from its trailers.
    error: Option<(String, String)>,
}

async fn read(mut body: Body) -> Result<Received, Box<Response>> {
    let (mut kept, mut excess, mut error) = (BytesMut::new(), 0, None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let message = format!("the body broke off: {error}");
            Box::new(refusal(StatusCode::BAD_REQUEST, "InvalidRequest", message))
        })?;
        match frame.into_data() {
            Ok(data) => {
                let room = (LARGEST_RESPONSE - kept.len()).min(data.len());
                kept.extend_from_slice(&data[..room]);
                excess += data.len() - room;
            }
            Err(frame) => {
                let trailer = |name: &str| Some(frame.trailers_ref()?.get(name)?.to_str().ok()?.to_owned());
                if let Some(error_type) = trailer("lambda-runtime-function-error-type") {
                    let message = trailer("lambda-runtime-function-error-body").unwrap_or_default();
                    error = Some((error_type, message));
                }
            }
        }
    }
    Ok(Received { body: kept.freeze(), excess, error })
}

/// `errorType` and `errorMessage` of an error report; the header and the whole body stand in for what is not there.
fn reported(headers: &HeaderMap, body: &Bytes) -> (String, String) {
    let report: Value = serde_json::from_slice(body).unwrap_or_default();
    let field = |name: &str| report.get(name).and_then(Value::as_str).map(str::to_owned);
    let header = headers.get("lambda-runtime-function-error-type").and_then(|value| value.to_str().ok());
    let error_type = field("errorType").or_else(|| header.map(str::to_owned)).unwrap_or_else(|| "Unknown".into());
    let message = field("errorMessage").unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
    (error_type, message)
}

#[cfg(test)]
#[path = "runtime_api_tests.rs"]
mod tests;
