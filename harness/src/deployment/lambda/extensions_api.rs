//! The Extensions API, version 2020-01-01 ("Using the Lambda Extensions API to create extensions" in the Lambda Developer
//! Guide; names of errors as in AWS's runtime interface emulator), on the server of the
//! [Runtime API](super::runtime_api).
//!
//! As there, the server keeps the states and says what an extension did; what that means is decided by the
//! [environment](super::environment).

use std::sync::{Arc, Weak};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::{
    posted::Mode,
    runtime_api::{Did, Shared, accepted, refusal},
};

/// Extensions that one function can have.
const MOST: usize = 10;

/// The extensions of one execution environment.
#[derive(Debug, Default)]
pub(super) struct Registry {
    extensions: Vec<Extension>,
    /// Whether Init is so far that nobody can join any more.
    closed: bool,
}

#[derive(Debug)]
struct Extension {
    id: String,
    about: Registered,
    state: ExtensionState,
}

/// An extension that has registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Registered {
    pub(super) name: String,
    /// A process of its own, and not a thread of the runtime.
    pub(super) external: bool,
    pub(super) invoke: bool,
    pub(super) shutdown: bool,
}

#[derive(Debug)]
enum ExtensionState {
    /// Does what it likes: registered, or at work on an event.
    Busy,
    /// Waits for an event, as long as its request lives.
    Waiting(Weak<()>),
    /// Has reported that it cannot go on.
    Failed,
}

/// An extension's open request for the next event.
pub(super) type Idle = oneshot::Sender<Bytes>;

impl Registry {
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn registered(&self) -> Vec<Registered> {
        self.extensions.iter().map(|extension| extension.about.clone()).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.extensions.len()
    }

    /// The extension takes its event.
    pub(super) fn busy(&mut self, index: usize) {
        if let Some(extension) = self.extensions.get_mut(index) {
            extension.state = ExtensionState::Busy;
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The name of the extension that a request speaks for; the error is the answer to one that speaks for none.
    pub(super) fn name_of(&self, headers: &HeaderMap) -> Result<String, Box<Response>> {
        Ok(self.extensions[self.find(headers)?].about.name.clone())
    }

    /// The position of the extension that a request speaks for.
    fn find(&self, headers: &HeaderMap) -> Result<usize, Box<Response>> {
        let refuse = |kind: &str, message: String| {
            Err(Box::new(refusal(StatusCode::FORBIDDEN, &format!("Extension.{kind}ExtensionIdentifier"), message)))
        };
        let Some(id) = headers.get("lambda-extension-identifier").and_then(|id| id.to_str().ok()) else {
            return refuse("Missing", "Missing Lambda-Extension-Identifier header".into());
        };
        if uuid::Uuid::parse_str(id).is_err() {
            return refuse("Invalid", format!("Invalid Lambda-Extension-Identifier: {id}"));
        }
        match self.extensions.iter().position(|extension| extension.id.eq_ignore_ascii_case(id)) {
            Some(found) => Ok(found),
            None => refuse("Unknown", format!("Unknown extension {id}")),
        }
    }
}

/// The `INVOKE` event. `trace_header` is what the runtime gets.
pub(super) fn invoke_event(request_id: &str, deadline_ms: u128, arn: &str, trace_header: Option<&str>) -> Bytes {
    let mut event = json!({
        "eventType": "INVOKE",
        "deadlineMs": u64::try_from(deadline_ms).unwrap_or(u64::MAX),
        "requestId": request_id,
        "invokedFunctionArn": arn,
    });
    if let Some(header) = trace_header {
        event["tracing"] = json!({ "type": "X-Amzn-Trace-Id", "value": header });
    }
    event.to_string().into()
}

/// The `SHUTDOWN` event; `reason` is `spindown`, `timeout` or `failure`, in lower case as AWS's runtime interface emulator
/// has it.
pub(super) fn shutdown_event(reason: &str, deadline_ms: u128) -> Bytes {
    let deadline_ms = u64::try_from(deadline_ms).unwrap_or(u64::MAX);
    json!({ "eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": deadline_ms }).to_string().into()
}

pub(super) fn routes() -> Router<Arc<Shared>> {
    Router::new()
        .route("/2020-01-01/extension/register", post(register))
        .route("/2020-01-01/extension/event/next", get(next))
        .route("/2020-01-01/extension/init/error", post(init_error))
        .route("/2020-01-01/extension/exit/error", post(exit_error))
}

#[derive(Debug, Deserialize)]
struct Registration {
    /// `null` is none, as in AWS's runtime interface emulator: Go writes its empty list so.
    #[serde(default)]
    events: Option<Vec<String>>,
}

async fn register(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let refuse = |kind: &str, message: String| refusal(StatusCode::FORBIDDEN, kind, message);
    let name = headers.get("lambda-extension-name").and_then(|name| name.to_str().ok()).unwrap_or_default();
    if name.is_empty() {
        return refuse("Extension.InvalidExtensionName", "Lambda-Extension-Name is missing".into());
    }
    let asked = match serde_json::from_slice::<Registration>(&body) {
        Ok(asked) => asked,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, "InvalidRequestFormat", error.to_string()),
    };
    let asked = asked.events.unwrap_or_default();
    let external = shared.about.external.iter().any(|external| external == name);
    let managed = shared.about.function.concurrency.is_some();
    if managed && !external && !asked.is_empty() {
        return refuse("Extension.InvalidEventType", "No events allowed for internal extensions".into());
    }
    for event in &asked {
        match event.as_str() {
            // Several invocations run at the same time there, so none of them is the extension's cue.
            "INVOKE" if managed => {
                let message = "INVOKE: on a Lambda Managed Instance an extension can register for SHUTDOWN only".into();
                return refuse("Extension.InvalidEventType", message);
            }
            "INVOKE" => {}
            "SHUTDOWN" if external => {}
            "SHUTDOWN" => {
                let message =
                    format!("{name} is an internal extension; only an external one can register for SHUTDOWN");
                return refuse("ShutdownEventNotSupportedForInternalExtension", message);
            }
            _ => {
                let message = format!("{event}: unknown event; there are INVOKE and SHUTDOWN");
                return refuse("Extension.InvalidEventType", message);
            }
        }
    }
    let mut registry = shared.registry();
    if registry.closed {
        return refuse("Extension.RegistrationClosed", "Extension registration closed already".into());
    }
    if registry.extensions.iter().any(|extension| extension.about.name == name) {
        let message = format!("{name} is registered already");
        return refuse("Extension.InvalidExtensionState", message);
    }
    if registry.extensions.len() >= MOST {
        return refuse("Extension.TooManyExtensions", format!("Extension limit ({MOST}) reached"));
    }
    let id = uuid::Uuid::new_v4().to_string();
    let event = |kind: &str| asked.iter().any(|event| event == kind);
    let about = Registered { name: name.into(), external, invoke: event("INVOKE"), shutdown: event("SHUTDOWN") };
    registry.extensions.push(Extension { id: id.clone(), about, state: ExtensionState::Busy });
    let _ = shared.did.send(Did::Registered(name.to_owned()));
    let function = &shared.about.function;
    let mut answer = Map::from_iter([
        ("functionName".to_owned(), Value::from(function.name.as_str())),
        ("functionVersion".to_owned(), function.version.as_str().into()),
        ("handler".to_owned(), function.handler.as_str().into()),
    ]);
    let features = headers.get_all("lambda-extension-accept-feature").iter().filter_map(|value| value.to_str().ok());
    if features.flat_map(|value| value.split(',')).any(|feature| feature.trim() == "accountId") {
        answer.insert("accountId".into(), function.account.as_str().into());
    }
    ([("Lambda-Extension-Identifier", id)], Json(answer)).into_response()
}

async fn next(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let alive = Arc::new(());
    let (waiting, event) = oneshot::channel();
    {
        let mut registry = shared.registry();
        let index = match registry.find(&headers) {
            Ok(index) => index,
            Err(refused) => return *refused,
        };
        let extension = &mut registry.extensions[index];
        let state = match &extension.state {
            ExtensionState::Waiting(other) if other.strong_count() > 0 => Some("waits for an event already"),
            ExtensionState::Failed => Some("has reported that it cannot go on"),
            ExtensionState::Busy | ExtensionState::Waiting(_) => None,
        };
        if let Some(state) = state {
            let message = format!("the extension {} {state}", extension.about.name);
            return refusal(StatusCode::FORBIDDEN, "Extension.InvalidExtensionState", message);
        }
        extension.state = ExtensionState::Waiting(Arc::downgrade(&alive));
        // Under the lock, so that the order of the channel is the order of the states.
        let _ = shared.did.send(Did::ExtensionAsked { index, waiting });
    }
    let event = event.await;
    drop(alive);
    let id = uuid::Uuid::new_v4().to_string();
    match event {
        Ok(event) => {
            ([("Content-Type", "application/json".to_owned()), ("Lambda-Extension-Event-Identifier", id)], event)
                .into_response()
        }
        Err(_) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "Container", "the environment is gone".into()),
    }
}

async fn init_error(state: State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    failed(state, headers, body, "Init").await
}

async fn exit_error(state: State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Response {
    failed(state, headers, body, "Exit").await
}

async fn failed(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body, during: &'static str) -> Response {
    let body = match super::posted::read(body, Mode::Buffered, shared.about.limits.of(Mode::Buffered)).await {
        Ok(received) => received.body,
        Err(refused) => return *refused,
    };
    let mut registry = shared.registry();
    let index = match registry.find(&headers) {
        Ok(index) => index,
        Err(refused) => return *refused,
    };
    let said = headers.get("lambda-extension-function-error-type").and_then(|value| value.to_str().ok());
    let Some(error_type) = said.filter(|said| !said.is_empty()) else {
        let message = "Lambda-Extension-Function-Error-Type is missing".into();
        return refusal(StatusCode::FORBIDDEN, "Extension.MissingHeader", message);
    };
    let extension = &mut registry.extensions[index];
    // Whoever has asked for an event is through with Init.
    let late = during == "Init" && matches!(extension.state, ExtensionState::Waiting(_));
    if late || matches!(extension.state, ExtensionState::Failed) {
        let message = format!("the extension {} cannot report an error of {during} now", extension.about.name);
        return refusal(StatusCode::FORBIDDEN, "Extension.InvalidExtensionState", message);
    }
    extension.state = ExtensionState::Failed;
    let report: Value = serde_json::from_slice(&body).unwrap_or_default();
    let message = report.get("errorMessage").and_then(Value::as_str).unwrap_or_default();
    let _ = shared.did.send(Did::ExtensionFailed {
        name: extension.about.name.clone(),
        during,
        error: format!("{error_type} {message}").trim_end().to_owned(),
    });
    accepted()
}

#[cfg(test)]
#[path = "extensions_api_tests.rs"]
mod tests;
