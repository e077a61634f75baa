//! Lambda: the Runtime API and the life of an execution environment.

mod environment;
mod extensions_api;
mod init;
mod managed;
mod phases;
mod platform;
mod pool;
mod posted;
mod processes;
mod runtime_api;
mod telemetry_api;
pub mod trace;
mod variables;

use std::{
    sync::{Arc, LazyLock, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use nix::sys::signal::Signal;
use tokio::{
    runtime::{Builder, Handle, Runtime, RuntimeFlavor},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::Instant,
};

use self::{
    environment::{Begun, Command, Environments, Invoke, Outcome, State, Taken},
    init::{NoInit, Why},
    platform::InitPhase,
    pool::Pool,
    processes::Current,
    runtime_api::Answer,
    trace::{RuntimeTrace, XRayHeader},
};
use super::{Exit, Incomplete, Launch, Proof, Site, SiteError, fence::quiet, service::last_output};
use crate::{
    capture::{Capture, Mark, Store},
    config,
    stimulus::{
        Caller, ContextForm, Delivery, HttpRequest, HttpResponse, Identity, Invocation,
        gateway::{self, Gateway, Literal, Receipt},
    },
    telemetry::Arrival,
};

/// A function behind its gateway: places for as many execution environments as it may have, each started when it is
/// needed, and again when it is gone.
#[derive(Debug)]
pub(super) struct Function {
    gateway: Box<dyn Gateway>,
    /// Who has which place. A gateway's timeout does not count the time until there is one: AWS would start another
    /// environment, or throttle.
    pool: Arc<Pool>,
    /// The task of each place, and what runs there.
    tasks: Vec<(JoinHandle<()>, Current)>,
}

/// An event as it is delivered.
struct Event {
    json: Bytes,
    /// Its `X-Amzn-Trace-Id`.
    trace_header: Option<String>,
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
        let no_port = |source: std::io::Error| {
            SiteError::because(format!("deployment {}: no port for the Runtime API", spec.name), source)
        };
        let mut all = Vec::new();
        for _ in 0..spec.function.environments {
            let listener = Arc::new(tokio::net::TcpListener::bind("127.0.0.1:0").await.map_err(no_port)?);
            let runtime_api = site.expose(listener.local_addr().map_err(no_port)?).await?;
            all.push(Environments {
                spec: spec.clone(),
                launch: launch.clone(),
                extensions: extensions.clone(),
                site: site.clone(),
                store: store.clone(),
                current: Current::default(),
                listener,
                runtime_api,
            });
        }
        let limit = spec.start_timeout.min(spec.function.init_timeout);
        let home = home(&*site);
        let (commands, taken): (Vec<_>, Vec<_>) = all.iter().map(|_| mpsc::unbounded_channel()).unzip();
        let pool = Pool::new(commands, spec.function.concurrency.unwrap_or(1));
        let mut function =
            Self { gateway: gateway::of(&spec.gateway, &spec.function), pool: pool.clone(), tasks: Vec::new() };
        let (tell, told) = oneshot::channel();
        let mut tell = Some(tell);
        for (number, (environments, taken)) in all.into_iter().zip(taken).enumerate() {
            let (place, current, tell) = (pool.place(number), environments.current.clone(), tell.take());
            let task = home.spawn(async move {
                let mut state = State::Cold;
                if let Some(tell) = tell {
                    let ready = first(&environments, limit).await.map(|ready| state = ready);
                    let failed = ready.is_err();
                    if tell.send(ready).is_err() || failed {
                        return;
                    }
                }
                if environments.spec.function.concurrency.is_some() {
                    environments.run_managed(state, place, taken).await;
                } else {
                    environments.run(state, place, taken).await;
                }
            });
            function.tasks.push((task, current));
        }
        told.await.unwrap_or_else(|_| Err(SiteError::new(format!("deployment {} was stopped in Init", spec.name))))?;
        store.mark(Mark::Ready);
        Ok(function)
    }

    /// Sends a request through the gateway.
    pub(super) async fn send(
        &self,
        spec: &config::Deployment,
        store: &Store,
        request: HttpRequest,
        identity: Identity,
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
            headers: request.headers.clone(),
            caller: Some(caller),
            form,
            sent: Arrival::default(),
            answered: Arrival::default(),
            response: self.gateway.failed(),
            invocation: None,
            mark,
        };
        match gateway::event(&*self.gateway, &request, &delivery.user_agent, &Receipt::fresh(root)) {
            Ok(event) => {
                // As it was delivered: a gateway may have changed what the client wrote.
                let read = serde_json::from_slice(&event).map(|event| Literal::read(&event).xray);
                let event = Event { json: event, trace_header: read.ok().flatten() };
                self.invoke(spec, store, (event, identity), runtime, delivery, &accept).await
            }
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
        identity: Identity,
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
            headers: Vec::new(),
            caller: Some(caller),
            form,
            sent: Arrival::default(),
            answered: Arrival::default(),
            response: self.gateway.failed(),
            invocation: None,
        };
        let event = Event { json: event.to_string().into(), trace_header: literal.xray };
        self.invoke(spec, store, (event, identity), runtime, delivery, &literal.accept).await
    }

    async fn invoke(
        &self,
        spec: &config::Deployment,
        store: &Store,
        (event, identity): (Event, Identity),
        runtime: RuntimeTrace,
        mut delivery: Delivery,
        accept: &str,
    ) -> Result<Delivery, SiteError> {
        let trace_header = Some(runtime.header());
        let runtime_parent = Some(runtime.segment.span_id);
        let stopped = || SiteError::new(format!("deployment {} was stopped; start another one", spec.name));
        let (begun, begins) = oneshot::channel();
        let (reply, mut outcome) = oneshot::channel();
        let taken = Arc::new(OnceLock::<Taken>::new());
        self.pool.submit(Box::new(Invoke {
            request_id: fresh_id(),
            delivery: delivery.mark.clone(),
            event: event.json,
            trace_header: trace_header.clone(),
            identity,
            taken: taken.clone(),
            begun,
            reply,
        }));
        let invocation = |begun: Begun, error| Invocation {
            request_id: begun.request_id,
            environment: begun.environment,
            cold_start: begun.cold_start,
            event_trace_header: event.trace_header.clone(),
            runtime_trace_header: trace_header.clone(),
            runtime_parent,
            error,
        };
        let in_time = match self.gateway.timeout() {
            Some(limit) => in_time(limit, &taken, &mut outcome).await,
            None => Some((&mut outcome).await),
        };
        delivery.answered = store.mark(Mark::Answered { delivery: delivery.mark.clone() });
        delivery.sent = taken.get().ok_or_else(stopped)?.sent;
        let Some(outcome) = in_time else {
            // The function goes on. Which invocation it is must be known to prove that all of it has arrived.
            delivery.response = self.gateway.timed_out();
            let limit = self.gateway.timeout().unwrap_or_default();
            let error = ("IntegrationTimeout".to_owned(), format!("the gateway waited {limit:?} for the function"));
            let begun = tokio::time::timeout(spec.start_timeout, begins).await.ok().and_then(Result::ok);
            let begun = begun.ok_or_else(|| {
                SiteError::new(format!(
                    "the gateway of deployment {} timed out, and the function's environment was not there {:?} later: set \
                     `start-timeout` longer\n{}",
                    spec.name,
                    spec.start_timeout,
                    last_output(store)
                ))
            })?;
            delivery.invocation = Some(invocation(begun, Some(error)));
            return Ok(delivery);
        };
        let Outcome { begun, answer } = outcome.map_err(|_| stopped())??;
        let (response, error) = self.answer(answer, accept);
        delivery.response = response;
        delivery.invocation = Some(invocation(begun, error));
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

    pub(super) async fn stop(&self, signal: Signal, grace: Duration) -> Exit {
        let exits: Vec<Exit> =
            self.ask(|reply| Command::Stop { signal, grace, reply }).await.into_iter().flatten().collect();
        if exits.is_empty() {
            return Exit { status: "no execution environment is running".into(), orderly: true };
        }
        let orderly = exits.iter().all(|exit| exit.orderly);
        let statuses: Vec<String> = exits.into_iter().map(|exit| exit.status).collect();
        Exit { status: statuses.join("; "), orderly }
    }

    /// Shuts every execution environment down. Returns how many there were.
    pub(super) async fn recycle(&self) -> usize {
        self.ask(Command::Recycle).await.into_iter().flatten().count()
    }

    /// What each place says to a command; nothing of one whose task has ended.
    async fn ask<T>(&self, command: impl Fn(oneshot::Sender<T>) -> Command) -> Vec<T> {
        let asked = self.pool.places().iter().map(|place| {
            let (reply, answer) = oneshot::channel();
            let _ = place.send(command(reply));
            answer
        });
        join_all(asked).await.into_iter().flatten().collect()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        for (task, current) in &self.tasks {
            task.abort();
            current.kill_now();
        }
    }
}

/// Where a function's environments are looked after, and the Runtime API is served. On this machine that is one thread for
/// all functions: every step of an invocation is taken there, and hands over to the next one without waking another thread,
/// which takes longer than the step. A runtime of one thread is that already. What an engine is asked for goes over connections that
/// belong to the runtime they were opened on.
fn home(site: &dyn Site) -> Handle {
    static THREAD: LazyLock<std::io::Result<Runtime>> =
        LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).thread_name("lambda").enable_all().build());
    let here = Handle::current();
    if !site.is_local() || here.runtime_flavor() == RuntimeFlavor::CurrentThread {
        return here;
    }
    match &*THREAD {
        Ok(thread) => thread.handle().clone(),
        Err(error) => {
            tracing::warn!("no thread for the Runtime API: {error}");
            here
        }
    }
}

/// Waits for an invocation's outcome until `limit` after its turn came; `None` when there is none by then. Nobody is woken
/// by the turn: where it had not come when a wait is over, at least the limit is left.
async fn in_time<T>(
    limit: Duration,
    taken: &OnceLock<Taken>,
    outcome: &mut oneshot::Receiver<T>,
) -> Option<Result<T, oneshot::error::RecvError>> {
    let mut deadline = Instant::now() + limit;
    loop {
        if let Ok(outcome) = tokio::time::timeout_at(deadline, &mut *outcome).await {
            return Some(outcome);
        }
        let end = taken.get().map_or_else(Instant::now, |taken| taken.at) + limit;
        if end <= deadline {
            return None;
        }
        deadline = end;
    }
}

/// A UUID of version 4, for requests and attempts.
fn fresh_id() -> String {
    uuid::Builder::from_random_bytes(rand::random()).into_uuid().to_string()
}

/// The environment that a deployment starts with.
async fn first(environments: &Environments, limit: Duration) -> Result<State, SiteError> {
    match environments.init(limit, InitPhase::Init).await {
        Ok((ready, _)) => Ok(State::Ready(Box::new(ready))),
        // Lambda makes an Init that took too long again at the first invocation, and so the verdict is that one's.
        Err(NoInit { why: Why::TimedOut(failure), .. }) if limit < environments.spec.start_timeout => {
            tracing::warn!("{}", failure.message);
            Ok(State::InitFailed)
        }
        Err(NoInit { why: Why::TimedOut(failure) | Why::Failed(failure), .. }) => Err(SiteError::new(failure.message)),
        Err(NoInit { why: Why::Site(error), .. }) => Err(error),
    }
}

/// What Lambda continues of a request's headers: `X-Amzn-Trace-Id`, and `traceparent` where it stands alone.
fn incoming(xray: Option<XRayHeader>, w3c: Option<Caller>) -> Option<XRayHeader> {
    let alone = |caller: Caller| XRayHeader { root: caller.trace_id, parent: None, sampled: Some(caller.sampled) };
    xray.or_else(|| w3c.map(alone))
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
    let handed_out = |mark: &Mark| matches!(mark, Mark::Dispatched { request_id, .. } if request_id == id);
    let look = |capture: &Capture| {
        let mut marks = capture.lifecycle().iter().skip_while(|lifecycle| lifecycle.arrival.seq < delivery.sent.seq);
        let ended_in_init = invocation.error.is_some() && !marks.clone().any(|made| handed_out(&made.mark));
        if !ended_in_init {
            marks.by_ref().find(|made| handed_out(&made.mark))?;
        }
        marks.find_map(|made| match &made.mark {
            Mark::Frozen { request_id: Some(frozen) } if frozen == id => Some(Proof::Froze { request_id: id.clone() }),
            Mark::EnvironmentEnded { environment, status } if *environment == invocation.environment => {
                Some(Proof::Exited { status: status.clone() })
            }
            _ => None,
        })
    };
    let started = Instant::now();
    if !spec.function.freezes() {
        if let Some(proof) = store.look(look) {
            return Ok(proof);
        }
        if let Some(window) = spec.quiet
            && quiet(store, window, deadline).await
        {
            return Ok(Proof::Quiet(window));
        }
        let why = if spec.function.freeze {
            "an environment with `function.concurrency` is never frozen"
        } else {
            "`function.freeze` is off"
        };
        let reason = format!(
            "{why}, so nothing proves that an invocation's telemetry is complete; `quiet` declares a silence to be enough"
        );
        return Err(Incomplete { reason, waited: started.elapsed() });
    }
    let ended = store.until(deadline, look);
    ended.await.ok_or_else(|| Incomplete {
        reason: format!(
            "invocation {id} was answered, and since then the runtime or an extension has not asked for the next event"
        ),
        waited: started.elapsed(),
    })
}

#[cfg(test)]
mod tests;
