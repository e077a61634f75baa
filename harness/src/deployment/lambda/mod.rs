//! Lambda: the Runtime API and the life of an execution environment.

mod environment;
mod extensions_api;
mod init;
mod platform;
mod posted;
mod processes;
mod runtime_api;
mod telemetry_api;
pub mod trace;
mod variables;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use self::{
    environment::{Command, Environments, Outcome, State},
    init::NoInit,
    platform::InitPhase,
    processes::Current,
    runtime_api::{Answer, Identity},
    trace::{RuntimeTrace, XRayHeader},
};
use super::{Exit, Incomplete, Launch, Proof, Site, SiteError};
use crate::{
    capture::{Mark, Store},
    config,
    stimulus::{
        Caller, ContextForm, Delivery, HttpRequest, HttpResponse, Invocation,
        gateway::{self, Gateway, Literal, Receipt},
    },
    telemetry::Arrival,
};

/// A function behind its gateway: one execution environment at a time, started again when it is gone.
#[derive(Debug)]
pub(super) struct Function {
    gateway: Box<dyn Gateway>,
    /// Held by who waits for an answer, so that a gateway's timeout does not count the time of requests before it: AWS
    /// would start another environment for each.
    turn: Arc<tokio::sync::Mutex<()>>,
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
    current: Current,
}

impl Function {
    /// Starts the first environment; ready when its runtime has asked for an event.
    pub(super) async fn start(
        spec: &config::Deployment,
        launch: Launch,
        extensions: Vec<Launch>,
        site: Arc<dyn Site>,
        store: Arc<Store>,
    ) -> Result<Self, SiteError> {
        let current = Current::default();
        let no_port = |source: std::io::Error| {
            SiteError::because(format!("deployment {}: no port for the Runtime API", spec.name), source)
        };
        let listener = Arc::new(tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(no_port)?);
        let runtime_api = site.expose(listener.local_addr().map_err(no_port)?).await?;
        let environments = Environments {
            spec: spec.clone(),
            launch,
            extensions,
            site,
            store: store.clone(),
            current: current.clone(),
            listener,
            runtime_api,
        };
        let limit = spec.start_timeout.min(spec.function.init_timeout);
        let first = match environments.init(limit, InitPhase::Init).await {
            Ok(ready) => State::Ready(Box::new(ready)),
            // Lambda makes an Init that took too long again at the first invocation, and so the verdict is that one's.
            Err(NoInit::TimedOut(failure)) if limit < spec.start_timeout => {
                tracing::warn!("{}", failure.message);
                State::InitFailed
            }
            Err(NoInit::TimedOut(failure) | NoInit::Failed(failure)) => return Err(SiteError::new(failure.message)),
            Err(NoInit::Site(error)) => return Err(error),
        };
        store.mark(Mark::Ready);
        let (commands, taken) = mpsc::channel(1);
        let task = tokio::spawn(environments.run(first, taken));
        let gateway = gateway::of(&spec.gateway, &spec.function);
        Ok(Self { gateway, turn: Arc::default(), commands, task, current })
    }

    /// Sends a request through the gateway.
    pub(super) async fn send(
        &self,
        spec: &config::Deployment,
        store: &Store,
        request: HttpRequest,
        mark: String,
    ) -> Result<Delivery, SiteError> {
        let own = |name: &str| {
            let found = request.headers.iter().rev().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str())
        };
        // A client that writes its context itself, in a scenario's header or from outside, is believed like any other.
        let xray = own("x-amzn-trace-id").and_then(XRayHeader::parse);
        let w3c = own("traceparent").and_then(trace::parse_traceparent);
        let incoming = match request.form {
            ContextForm::Absent => incoming(xray, w3c),
            _ => {
                Some(XRayHeader { root: request.caller.trace_id, parent: None, sampled: Some(request.caller.sampled) })
            }
        };
        // A gateway makes up a root of its own where the client sent none. With `traceparent` alone this gateway makes up
        // the client's: a service that reads both headers must not be torn between two traces that nobody can relate.
        let root = match incoming {
            Some(incoming) => incoming.root,
            None => RuntimeTrace::continuing(None, true).segment.trace_id,
        };
        let sampled = incoming.and_then(|incoming| incoming.sampled);
        let runtime = RuntimeTrace::continuing(Some(XRayHeader { root, parent: None, sampled }), spec.function.tracing);
        let (caller, form) = match (request.form, incoming) {
            (ContextForm::Absent, Some(_)) => told(xray, w3c, &runtime),
            (ContextForm::Absent, None) => (runtime.segment, ContextForm::Absent),
            (form, _) => (request.caller, form),
        };
        let accept = own("accept").unwrap_or_default().to_owned();
        let mut delivery = Delivery {
            user_agent: own("user-agent").unwrap_or(&mark).to_owned(),
            method: request.method.clone(),
            target: request.target.clone(),
            caller: Some(caller),
            form,
            sent: Arrival::default(),
            answered: Arrival::default(),
            response: self.gateway.failed(),
            invocation: None,
            mark,
        };
        match gateway::event(&*self.gateway, &request, &delivery.user_agent, &Receipt::fresh(root)) {
            Ok(event) => self.invoke(spec, store, event, runtime, delivery, &accept).await,
            Err(refusal) => {
                delivery.sent = store.mark(Mark::Sent { delivery: delivery.mark.clone() });
                delivery.answered = store.mark(Mark::Answered { delivery: delivery.mark.clone() });
                delivery.response = refusal.response;
                Ok(delivery)
            }
        }
    }

    /// Delivers an event as it is.
    pub(super) async fn deliver(
        &self,
        spec: &config::Deployment,
        store: &Store,
        event: serde_json::Value,
        mark: String,
    ) -> Result<Delivery, SiteError> {
        let literal = Literal::read(&event);
        let xray = literal.xray.as_deref().and_then(XRayHeader::parse);
        let w3c = literal.traceparent.as_deref().and_then(trace::parse_traceparent);
        let incoming = incoming(xray, w3c);
        let runtime = RuntimeTrace::continuing(incoming, spec.function.tracing);
        let (caller, form) = told(xray, w3c, &runtime);
        let delivery = Delivery {
            mark,
            method: literal.method,
            target: literal.target,
            user_agent: literal.user_agent,
            caller: Some(caller),
            form,
            sent: Arrival::default(),
            answered: Arrival::default(),
            response: self.gateway.failed(),
            invocation: None,
        };
        self.invoke(spec, store, event.to_string().into(), runtime, delivery, &literal.accept).await
    }

    async fn invoke(
        &self,
        spec: &config::Deployment,
        store: &Store,
        event: Bytes,
        runtime: RuntimeTrace,
        mut delivery: Delivery,
        accept: &str,
    ) -> Result<Delivery, SiteError> {
        let event_trace_header = serde_json::from_slice(&event).ok().and_then(|event| Literal::read(&event).xray);
        let trace_header = Some(runtime.header());
        let runtime_parent = Some(runtime.segment.span_id);
        let turn = self.turn.clone().lock_owned().await;
        delivery.sent = store.mark(Mark::Sent { delivery: delivery.mark.clone() });
        let stopped = || SiteError::new(format!("deployment {} was stopped; start another one", spec.name));
        let (reply, answer) = oneshot::channel();
        let command =
            Command::Invoke { event, trace_header: trace_header.clone(), identity: Identity::default(), reply };
        self.commands.send(command).await.map_err(|_| stopped())?;
        // A task of its own, so that the turn ends with the invocation even when nobody waits for it any more.
        let mut outcome = tokio::spawn(async move {
            let _turn = turn;
            answer.await
        });
        let in_time = match self.gateway.timeout() {
            Some(limit) => tokio::time::timeout(limit, &mut outcome).await.ok(),
            None => Some((&mut outcome).await),
        };
        delivery.answered = store.mark(Mark::Answered { delivery: delivery.mark.clone() });
        let Some(outcome) = in_time else {
            // The function goes on. Which invocation it is must be known to prove that all of it has arrived.
            delivery.response = self.gateway.timed_out();
            let limit = self.gateway.timeout().unwrap_or_default();
            let error = ("IntegrationTimeout".to_owned(), format!("the gateway waited {limit:?} for the function"));
            delivery.invocation = dispatched(spec, store, &delivery).await.map(|(request_id, cold_start)| Invocation {
                request_id,
                cold_start,
                event_trace_header,
                runtime_trace_header: trace_header,
                runtime_parent,
                error: Some(error),
            });
            return Ok(delivery);
        };
        let Outcome { request_id, cold_start, answer } = outcome.map_err(|_| stopped())?.map_err(|_| stopped())??;
        let (response, error) = self.answer(answer, accept);
        delivery.response = response;
        delivery.invocation = Some(Invocation {
            request_id,
            cold_start,
            event_trace_header,
            runtime_trace_header: trace_header,
            runtime_parent,
            error,
        });
        Ok(delivery)
    }

    /// The answer that the gateway gives its client, and what went wrong in the function.
    fn answer(&self, answer: Answer, accept: &str) -> (HttpResponse, Option<(String, String)>) {
        match answer {
            Answer::Error(failure) => (self.gateway.failed(), Some((failure.error_type, failure.message))),
            Answer::Response(body) => match self.gateway.response(&body, accept) {
                Ok(response) => (response, None),
                Err(error) => (self.gateway.failed(), Some(("MalformedProxyResponse".into(), error.to_string()))),
            },
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    pub(super) async fn stop(&self, signal: Signal, grace: Duration) -> Exit {
        let exit = self.ask(|reply| Command::Stop { signal, grace, reply }).await;
        exit.unwrap_or_else(|| Exit { status: "no execution environment is running".into(), orderly: true })
    }

    pub(super) async fn recycle(&self) {
        let _ = self.ask(Command::Recycle).await;
    }

    pub(super) fn kill_now(&self) {
        self.task.abort();
        self.current.kill_now();
    }
}

/// What Lambda continues of a request's headers: `X-Amzn-Trace-Id`, and `traceparent` where it stands alone.
fn incoming(xray: Option<XRayHeader>, w3c: Option<Caller>) -> Option<XRayHeader> {
    let alone = |caller: Caller| XRayHeader { root: caller.trace_id, parent: None, sampled: Some(caller.sampled) };
    xray.or_else(|| w3c.map(alone))
}

/// Request id of a delivery's invocation, and whether it was the first of its environment; waited for as long as starting
/// an environment may take.
async fn dispatched(spec: &config::Deployment, store: &Store, delivery: &Delivery) -> Option<(String, bool)> {
    let deadline = Instant::now() + spec.start_timeout;
    let found = store.until(deadline, |capture| {
        let mut cold_start = false;
        for made in capture.lifecycle() {
            match &made.mark {
                Mark::Started { .. } => cold_start = true,
                Mark::Dispatched { request_id } if made.arrival.seq > delivery.sent.seq => {
                    return Some((request_id.clone(), cold_start));
                }
                Mark::Dispatched { .. } => cold_start = false,
                _ => {}
            }
        }
        None
    });
    found.await
}

/// The caller whose trace a literal event's invocation must carry on. The event's `X-Amzn-Trace-Id` comes first, since
/// Lambda goes by it; `traceparent` counts when it stands alone or names the same trace.
fn told(xray: Option<XRayHeader>, w3c: Option<Caller>, runtime: &RuntimeTrace) -> (Caller, ContextForm) {
    let segment = runtime.segment;
    match (xray, w3c) {
        (Some(XRayHeader { root, parent: Some(span_id), sampled }), w3c) => {
            let caller = Caller { trace_id: root, span_id, sampled: sampled.unwrap_or(segment.sampled) };
            let same = w3c.is_some_and(|w3c| w3c.trace_id == root && w3c.span_id == span_id);
            (caller, if same { ContextForm::Both } else { ContextForm::Xray })
        }
        (Some(XRayHeader { root, parent: None, .. }), Some(w3c)) if w3c.trace_id == root => (w3c, ContextForm::W3c),
        (Some(_), _) => (segment, ContextForm::XrayRoot),
        (None, Some(w3c)) => (w3c, ContextForm::W3c),
        (None, None) => (segment, ContextForm::Absent),
    }
}

/// Proves that everything that `delivery` caused has arrived: its environment froze behind it, or is gone.
pub(super) async fn settle(
    spec: &config::Deployment,
    store: &Store,
    delivery: &Delivery,
    deadline: Instant,
) -> Result<Proof, Incomplete> {
    let Some(invocation) = &delivery.invocation else {
        return Ok(Proof::NotInvoked);
    };
    let id = &invocation.request_id;
    if !spec.function.freeze {
        let reason = "`function.freeze` is off, so nothing proves that an invocation's telemetry is complete".into();
        return Err(Incomplete { reason, waited: Duration::ZERO });
    }
    let started = Instant::now();
    let ended = store.until(deadline, |capture| {
        let mut marks = capture.lifecycle().iter().skip_while(|lifecycle| lifecycle.arrival.seq < delivery.sent.seq);
        let ended_in_init = invocation.error.is_some()
            && !marks.clone().any(|made| made.mark == Mark::Dispatched { request_id: id.clone() });
        if !ended_in_init {
            marks.by_ref().find(|made| made.mark == Mark::Dispatched { request_id: id.clone() })?;
        }
        marks.find_map(|made| match &made.mark {
            Mark::Frozen { request_id: Some(frozen) } if frozen == id => Some(Proof::Froze { request_id: id.clone() }),
            Mark::EnvironmentEnded { status } => Some(Proof::Exited { status: status.clone() }),
            _ => None,
        })
    });
    ended.await.ok_or_else(|| Incomplete {
        reason: format!(
            "invocation {id} was answered, and since then the runtime or an extension has not asked for the next event"
        ),
        waited: started.elapsed(),
    })
}

#[cfg(test)]
mod tests;
