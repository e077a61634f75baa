//! A stimulus that was sent, with its answer and its times.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Caller, ContextForm, http::Connection};
use crate::telemetry::{Arrival, SpanId, TraceId};

/// One HTTP request of a client, however it reaches the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// `GET`, `POST`, …
    pub method: String,
    /// Path and query as a client writes them: percent-encoded, beginning with `/`.
    pub target: String,
    /// Headers in order, without the context's.
    pub headers: Vec<(String, String)>,
    /// Body, empty for none.
    #[serde(with = "body")]
    pub body: Bytes,
    /// The caller whose trace this carries on. With [`ContextForm::Absent`] nothing of it is sent.
    pub caller: Caller,
    /// In which headers.
    pub form: ContextForm,
}

impl HttpRequest {
    /// A `GET` without headers of its own, whose context travels in both forms.
    pub fn get(target: &str, caller: Caller) -> Self {
        Self {
            method: "GET".into(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: Bytes::new(),
            caller,
            form: ContextForm::Both,
        }
    }
}

/// What a caller that is an app says of itself to a function, each as raw JSON and only there when it was given
/// (`ClientContext` of Lambda's Invoke API, and the identity that Amazon Cognito knows the caller by).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// `Lambda-Runtime-Client-Context`, what the AWS Mobile SDK says of the app and the device.
    pub client_context: Option<String>,
    /// `Lambda-Runtime-Cognito-Identity`: `{"cognitoIdentityId":…,"cognitoIdentityPoolId":…}`.
    pub cognito: Option<String>,
}

/// Who sends a request.
#[derive(Debug, Clone, Default)]
pub struct Client {
    /// Who a function hears that it is.
    pub identity: Identity,
    /// What it sends its requests to a service over; `None` for a connection each.
    pub connection: Option<Connection>,
}

/// What the client read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpResponse {
    /// Status code.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body to the end.
    #[serde(with = "body")]
    pub body: Bytes,
}

impl HttpResponse {
    /// The first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every header of this name, in any case.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The Lambda side of a delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// `Lambda-Runtime-Aws-Request-Id`.
    pub request_id: String,
    /// Its execution environment, by the name of the log stream.
    pub environment: String,
    /// Whether it was the first one of its execution environment.
    pub cold_start: bool,
    /// `X-Amzn-Trace-Id` in the event as it was delivered, its name in any case; `None` when the event has none.
    pub event_trace_header: Option<String>,
    /// `Lambda-Runtime-Trace-Id` as it was sent; `None` when none was.
    pub runtime_trace_header: Option<String>,
    /// The span id in that header: what the invocation's span must hang on when X-Ray is the propagator that wins.
    pub runtime_parent: Option<SpanId>,
    /// `errorType` and `errorMessage` when there is no response of the function that its gateway could read: the runtime
    /// posted an error, or the platform ended the invocation (with the last lines of output).
    pub error: Option<(String, String)>,
}

impl Invocation {
    /// What went wrong in the function, for a verdict: a client reads no more of it than a gateway's 502.
    pub fn trouble(&self) -> Option<String> {
        self.error.as_ref().map(|(kind, message)| format!("function   {kind}: {}", message.trim_end()))
    }
}

/// One stimulus that was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Unique in a run; planted as the `User-Agent` unless the scenario sets one of its own.
    pub mark: String,
    /// Method of the request or the event.
    pub method: String,
    /// Path and query of the request or the event.
    pub target: String,
    /// `User-Agent` as sent.
    pub user_agent: String,
    /// The headers that the scenario sent, without the context's, for sending the same again. They may hold credentials, and are
    /// written nowhere.
    #[serde(skip)]
    pub headers: Vec<(String, String)>,
    /// The trace that the service must carry on, and in which headers it was told; `None` when the stimulus told
    /// nothing (or, for a literal event, nothing usable).
    pub caller: Option<Caller>,
    /// In which headers.
    pub form: ContextForm,
    /// Just before the request was sent or the event was offered.
    pub sent: Arrival,
    /// Just after the answer was read to its end.
    pub answered: Arrival,
    /// The answer as an HTTP client sees it.
    pub response: HttpResponse,
    /// The invocation, on Lambda.
    pub invocation: Option<Invocation>,
}

impl Delivery {
    /// The trace that the service must carry on, if it was told one.
    pub fn trace_id(&self) -> Option<TraceId> {
        self.caller.map(|caller| caller.trace_id)
    }

    /// Whether the harness may send it again of its own accord: a `GET` changes nothing (RFC 9110, section 9.2.1).
    pub fn may_be_repeated(&self) -> bool {
        self.method == "GET"
    }

    /// From sending to the end of the answer.
    pub fn took(&self) -> Duration {
        Duration::from_nanos(self.answered.unix_nano.saturating_sub(self.sent.unix_nano))
    }

    /// Every span id that the entry span may hang on: the caller's, and on Lambda that of the runtime's header.
    pub fn remote_parents(&self) -> Vec<SpanId> {
        let caller = self.caller.filter(|_| !matches!(self.form, ContextForm::Absent | ContextForm::XrayRoot));
        let runtime = self.invocation.as_ref().and_then(|invocation| invocation.runtime_parent);
        caller.map(|caller| caller.span_id).into_iter().chain(runtime).collect()
    }
}

/// A body in JSON: text where it is text, else `{"base64": "…"}`.
mod body {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Body {
        Text(String),
        Bytes { base64: String },
    }

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        let body = match std::str::from_utf8(bytes) {
            Ok(text) => Body::Text(text.to_owned()),
            Err(_) => Body::Bytes { base64: STANDARD.encode(bytes) },
        };
        body.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        match Body::deserialize(deserializer)? {
            Body::Text(text) => Ok(text.into()),
            Body::Bytes { base64 } => STANDARD.decode(base64).map(Bytes::from).map_err(D::Error::custom),
        }
    }
}
