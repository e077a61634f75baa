//! The life of an execution environment: Init, Invoke, freeze and thaw, and Shutdown.
//!
//! One task owns the environment and takes one invocation after the other, so the order of freeze, thaw and dispatch
//! needs no lock. The caller has its answer when the runtime has posted it; the task goes on until the runtime and every
//! extension have asked for the next event, and freezes the environment only then: runtimes flush telemetry between the
//! two, and extensions hand it on. Their requests for the next event stay open while they are frozen, and are answered
//! after the thaw.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    extensions_api::{Idle, invoke_event, shutdown_event},
    init::NoInit,
    platform::{End, InitPhase},
    processes::{Current, Processes, Who},
    runtime_api::{Answer, Did, Dispatch, Failure, Identity, RuntimeApi},
    variables,
};
use crate::{
    capture::{Mark, Store},
    config,
    deployment::{Exit, Launch, Site, SiteError, service::last_output},
};

/// How long Shutdown may take with an external extension, all in all.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// How much of it the runtime has before it is killed, as in AWS's runtime interface emulator.
const SHUTDOWN_OF_RUNTIME: Duration = Duration::from_millis(600);

/// How long Shutdown may take when all extensions are threads of the runtime.
const SHUTDOWN_WITH_INTERNAL: Duration = Duration::from_millis(500);

/// What the task is asked to do.
pub(super) enum Command {
    Invoke { event: Bytes, trace_header: Option<String>, identity: Identity, reply: Reply },
    Recycle(oneshot::Sender<()>),
    Stop { signal: Signal, grace: Duration, reply: oneshot::Sender<Exit> },
}

/// Who waits for an invocation's end.
type Reply = oneshot::Sender<Result<Outcome, SiteError>>;

/// An invocation's end, as the caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) request_id: String,
    pub(super) cold_start: bool,
    pub(super) answer: Answer,
}

/// What environments of one function are made of.
#[derive(Debug)]
pub(super) struct Environments {
    pub(super) spec: config::Deployment,
    pub(super) launch: Launch,
    /// External extensions, each with its name.
    pub(super) extensions: Vec<Launch>,
    pub(super) site: Arc<dyn Site>,
    pub(super) store: Arc<Store>,
    pub(super) current: Current,
    /// Where the Runtime API listens, and how the function reaches it.
    pub(super) listener: Arc<TcpListener>,
    pub(super) runtime_api: String,
}

/// One execution environment, frozen unless an invocation runs.
#[derive(Debug)]
pub(super) struct Environment {
    pub(super) processes: Processes,
    pub(super) api: RuntimeApi,
    /// The runtime's open request for the next event.
    pub(super) waiting: oneshot::Sender<Box<Dispatch>>,
    /// Those of the extensions.
    pub(super) idle: BTreeMap<usize, Idle>,
    pub(super) invocations: u64,
}

/// What there is between two invocations.
pub(super) enum State {
    Ready(Box<Environment>),
    /// The next invocation starts one.
    Cold,
    /// The last Init failed: the next invocation makes it again, within its own limit.
    InitFailed,
}

/// Why an environment ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    Spindown,
    Timeout,
    Failure,
}

/// One invocation under way.
struct Call {
    request_id: String,
    cold_start: bool,
    reply: Option<Reply>,
}

impl Call {
    fn answer(&mut self, answer: Answer) {
        if let Some(reply) = self.reply.take() {
            let _ =
                reply.send(Ok(Outcome { request_id: self.request_id.clone(), cold_start: self.cold_start, answer }));
        }
    }

    fn fail(&mut self, category: &str, what: &str, store: &Store) {
        let message = format!("RequestId: {} Error: {what}\n{}", self.request_id, last_output(store));
        self.answer(Answer::Error(Failure::of_platform(category, message)));
    }
}

impl Environments {
    /// Takes commands until nobody can give any.
    pub(super) async fn run(self, mut state: State, mut commands: mpsc::Receiver<Command>) {
        while let Some(command) = commands.recv().await {
            if let State::Ready(ready) = &state
                && ready.processes.has_exited()
            {
                self.end(std::mem::replace(&mut state, State::Cold), Reason::Failure).await;
            }
            match command {
                Command::Invoke { event, trace_header, identity, reply } => {
                    let call =
                        Call { request_id: uuid::Uuid::new_v4().to_string(), cold_start: false, reply: Some(reply) };
                    state = self.serve(state, event, trace_header, identity, call).await;
                }
                Command::Recycle(reply) => {
                    self.end(std::mem::replace(&mut state, State::Cold), Reason::Spindown).await;
                    let _ = reply.send(());
                }
                Command::Stop { signal, grace, reply } => {
                    let exit = match std::mem::replace(&mut state, State::Cold) {
                        State::Ready(environment) if environment.processes.extensions().is_empty() => {
                            self.stop(*environment, signal, grace).await
                        }
                        State::Ready(environment) => self.shutdown(*environment, Reason::Spindown).await,
                        State::Cold | State::InitFailed => {
                            Exit { status: "no execution environment is running".into(), orderly: true }
                        }
                    };
                    let _ = reply.send(exit);
                }
            }
        }
    }

    /// One invocation, after an Init where there is no environment.
    async fn serve(
        &self,
        state: State,
        event: Bytes,
        trace_header: Option<String>,
        identity: Identity,
        mut call: Call,
    ) -> State {
        let timeout = self.spec.function.timeout;
        let mut deadline = None;
        let mut state = state;
        if let State::Cold = state {
            state = match self.init(self.spec.function.init_timeout, InitPhase::Init).await {
                Ok(ready) => State::Ready(Box::new(ready)),
                Err(NoInit::TimedOut(_) | NoInit::Failed(_)) => State::InitFailed,
                Err(NoInit::Site(error)) => return Self::refuse(call, error),
            };
        }
        let environment = match state {
            State::Ready(environment) => *environment,
            State::Cold | State::InitFailed => {
                // This Init is a part of the invocation, and counts against its limit.
                deadline = Some(Instant::now() + timeout);
                match self.init(timeout, InitPhase::Invoke).await {
                    Ok(environment) => environment,
                    Err(NoInit::Site(error)) => return Self::refuse(call, error),
                    Err(NoInit::TimedOut(failure) | NoInit::Failed(failure)) => {
                        call.cold_start = true;
                        call.answer(Answer::Error(failure));
                        return State::InitFailed;
                    }
                }
            }
        };
        call.cold_start = environment.invocations == 0;
        let dispatch = Dispatch {
            request_id: call.request_id.clone(),
            invocation_id: uuid::Uuid::new_v4().to_string(),
            deadline_ms: 0,
            function_arn: variables::arn(&self.spec.function),
            trace_header,
            identity,
            event,
        };
        let deadline = deadline.unwrap_or_else(|| Instant::now() + timeout);
        self.invoke(environment, dispatch, deadline, call).await
    }

    fn refuse(call: Call, error: SiteError) -> State {
        if let Some(reply) = call.reply {
            let _ = reply.send(Err(error));
        }
        State::Cold
    }

    /// One invocation in an environment that waits for it.
    async fn invoke(
        &self,
        mut environment: Environment,
        mut dispatch: Dispatch,
        deadline: Instant,
        mut call: Call,
    ) -> State {
        environment.invocations += 1;
        dispatch.deadline_ms = epoch_ms(deadline);
        // Before it goes on, so that what arrives from then on is stored behind this mark.
        if self.spec.function.freeze {
            self.store.mark(Mark::Thawed);
        }
        if let Err(error) = environment.processes.thaw().await {
            return Self::refuse(call, error);
        }
        let about = invoke_event(
            &dispatch.request_id,
            dispatch.deadline_ms,
            &dispatch.function_arn,
            dispatch.trace_header.as_deref(),
        );
        let extensions = environment.api.extensions();
        let of_invoke = extensions.iter().enumerate().filter(|(_, extension)| extension.invoke);
        let mut events: BTreeMap<usize, Bytes> = of_invoke.map(|(index, _)| (index, about.clone())).collect();
        let platform = environment.api.platform().clone();
        platform.start(&dispatch.request_id, dispatch.trace_header.as_deref());
        let mut end = End::Success;
        let mut undelivered = Some(Box::new(dispatch));
        let Environment { processes, mut api, waiting, mut idle, invocations } = environment;
        let mut waiting = Some(waiting);
        let (reason, status) = loop {
            for (index, event) in std::mem::take(&mut events) {
                match idle.remove(&index) {
                    // A request that the extension has given up: it will ask again.
                    Some(asked) => drop(api.notify(index, asked, event).map_err(|event| events.insert(index, event))),
                    None => drop(events.insert(index, event)),
                }
            }
            if undelivered.is_some()
                && let Some(asked) = waiting.take()
            {
                undelivered = undelivered.and_then(|event| api.hand_out(asked, event).err());
            }
            if waiting.is_some() && undelivered.is_none() && idle.len() == extensions.len() {
                platform.report();
                match processes.freeze().await {
                    Ok(true) => drop(self.store.mark(Mark::Frozen { request_id: Some(call.request_id.clone()) })),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!("{} cannot be frozen: {error}", processes.what());
                        break (Reason::Failure, format!("the environment could not be frozen: {error}"));
                    }
                }
                if let Some(waiting) = waiting {
                    return State::Ready(Box::new(Environment { processes, api, waiting, idle, invocations }));
                }
                break (Reason::Failure, "the runtime is gone".into());
            }
            tokio::select! {
                // What they did comes before their end.
                biased;
                did = api.did.recv() => match did {
                    Some(Did::Asked(asked)) => {
                        waiting = Some(asked);
                        if undelivered.is_none() {
                            platform.runtime_done(end.clone());
                        }
                    }
                    Some(Did::Answered(answer)) => {
                        match &answer {
                            Answer::Response(body) => platform.responded(body.len()),
                            Answer::Error(failure) => end = End::Error(failure.category.clone()),
                        }
                        call.answer(answer);
                    }
                    Some(Did::ExtensionAsked { index, waiting }) => drop(idle.insert(index, waiting)),
                    Some(Did::ExtensionFailed { name, during, error }) => {
                        let status = format!("the extension {name} reported an error: {error}");
                        let category = format!("Extension.{during}Error");
                        platform.runtime_done(End::Failure(category.clone()));
                        call.fail(&category, &status, &self.store);
                        break (Reason::Failure, status);
                    }
                    Some(Did::Registered(_) | Did::FailedInit(_)) | None => {}
                },
                (who, status) = processes.exited() => {
                    let (category, status) = match who {
                        Who::Runtime => ("Runtime.ExitError", format!("Runtime exited with error: {status}")),
                        Who::Extension(name) => ("Extension.Crash", format!("the extension {name} ended: {status}")),
                    };
                    platform.runtime_done(End::Failure(category.into()));
                    call.fail(category, &status, &self.store);
                    break (Reason::Failure, status);
                }
                () = tokio::time::sleep_until(deadline) => {
                    if let Some(runtime) = processes.runtime() {
                        runtime.kill().await;
                    }
                    let timeout = self.spec.function.timeout.as_secs_f64();
                    let mut status = format!("Task timed out after {timeout:.2} seconds");
                    let late = extensions.iter().enumerate().find(|(index, _)| !idle.contains_key(index));
                    if let (true, Some((_, extension))) = (waiting.is_some(), late) {
                        status.push_str(&format!(": the extension {} did not ask for the next event", extension.name));
                    }
                    platform.runtime_done(End::Timeout);
                    call.fail("Sandbox.Timedout", &status, &self.store);
                    break (Reason::Timeout, status);
                }
            }
        };
        platform.report();
        let runtime = waiting.unwrap_or_else(|| oneshot::channel().0);
        let left = Environment { processes, api, waiting: runtime, idle, invocations };
        self.shutdown_as(left, reason, status).await;
        State::Cold
    }

    async fn end(&self, state: State, reason: Reason) {
        if let State::Ready(environment) = state {
            self.shutdown(*environment, reason).await;
        }
    }

    /// Ends an environment without extensions by a signal of the test's own.
    async fn stop(&self, environment: Environment, signal: Signal, grace: Duration) -> Exit {
        let exit = match environment.processes.runtime() {
            Some(runtime) => runtime.stop(signal, grace).await,
            None => Exit { status: "no runtime is running".into(), orderly: true },
        };
        self.store.mark(Mark::EnvironmentEnded { status: exit.status.clone() });
        exit
    }

    async fn shutdown(&self, environment: Environment, reason: Reason) -> Exit {
        let status = match reason {
            Reason::Spindown => "the environment was shut down",
            Reason::Timeout => "the invocation timed out",
            Reason::Failure => "a process of the environment ended while it was frozen",
        };
        self.shutdown_as(environment, reason, status.into()).await
    }

    /// The Shutdown phase. Without an extension the runtime is killed at once. With an external one the runtime gets
    /// SIGTERM first (unless it has failed already), then those that registered for it get `SHUTDOWN`, and what is left
    /// after 2 s is killed.
    async fn shutdown_as(&self, environment: Environment, reason: Reason, status: String) -> Exit {
        let Environment { processes, mut api, mut idle, .. } = environment;
        let deadline = Instant::now() + SHUTDOWN;
        let extensions = api.extensions();
        let external = extensions.iter().any(|extension| extension.external);
        if let Err(error) = processes.thaw().await {
            tracing::warn!("{} cannot be thawed: {error}", processes.what());
        }
        let grace = match (reason, external, extensions.is_empty()) {
            (Reason::Spindown, true, _) => Some(SHUTDOWN_OF_RUNTIME),
            (Reason::Spindown, false, false) => Some(SHUTDOWN_WITH_INTERNAL),
            _ => None,
        };
        let mut exit = Exit { status: "no runtime is running".into(), orderly: true };
        if let Some(runtime) = processes.runtime() {
            exit = match grace {
                Some(grace) => runtime.stop(Signal::SIGTERM, grace).await,
                None => {
                    runtime.kill().await;
                    Exit { status: runtime.exited().await, orderly: reason == Reason::Spindown }
                }
            };
        }
        let told = extensions.iter().enumerate().filter(|(_, extension)| extension.external && extension.shutdown);
        let why = match reason {
            Reason::Spindown => "SPINDOWN",
            Reason::Timeout => "TIMEOUT",
            Reason::Failure => "FAILURE",
        };
        let event = shutdown_event(why, epoch_ms(deadline));
        let mut events: BTreeMap<usize, Bytes> = told.map(|(index, _)| (index, event.clone())).collect();
        for (name, sandbox) in processes.extensions() {
            let is_told = events.keys().any(|&index| extensions[index].name == *name);
            if !is_told {
                sandbox.kill().await;
            }
        }
        let all_ended = async {
            for (_, sandbox) in processes.extensions() {
                sandbox.exited().await;
            }
        };
        tokio::pin!(all_ended);
        loop {
            for (index, event) in std::mem::take(&mut events) {
                match idle.remove(&index) {
                    Some(asked) => drop(api.notify(index, asked, event).map_err(|event| events.insert(index, event))),
                    None => drop(events.insert(index, event)),
                }
            }
            tokio::select! {
                biased;
                () = &mut all_ended => break,
                Some(Did::ExtensionAsked { index, waiting }) = api.did.recv() => drop(idle.insert(index, waiting)),
                () = tokio::time::sleep_until(deadline) => {
                    let left = processes.extensions().iter().filter(|(_, sandbox)| sandbox.has_exited().is_none());
                    let names: Vec<&str> = left.map(|(name, _)| name.as_str()).collect();
                    exit.orderly = false;
                    exit.status.push_str(&format!("; the extension {} did not end within 2 s", names.join(", ")));
                    break;
                }
            }
        }
        processes.kill().await;
        self.store.mark(Mark::EnvironmentEnded { status });
        exit
    }
}

/// A moment of the future in milliseconds since the Unix epoch.
fn epoch_ms(moment: Instant) -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now + moment.saturating_duration_since(Instant::now())).as_millis()
}
