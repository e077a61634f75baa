//! The life of an execution environment: Init, Invoke, freeze and thaw, and Shutdown.
//!
//! One task owns the environment and takes one invocation after the other (several at a time are in
//! [managed](super::managed)), so the order of freeze, thaw and dispatch needs no lock. The caller has its answer when the runtime has posted it; the task goes on until the runtime and every
//! extension have asked for the next event, and freezes the environment only then: runtimes flush telemetry between the
//! two, and extensions hand it on. Their requests for the next event stay open while they are frozen, and are answered
//! after the thaw.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
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
    fresh_id,
    init::{NoInit, Why},
    platform::{End, InitPhase},
    pool::{Place, Turn},
    processes::{Current, Processes, Who},
    runtime_api::{Answer, Did, Dispatch, Failure, RuntimeApi},
    variables,
};
use crate::{
    capture::{Mark, Store},
    config,
    deployment::{Exit, Launch, Site, SiteError, service::last_output},
    stimulus::Identity,
    telemetry::Arrival,
};

/// How long Shutdown may take with an external extension, all in all.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// How much of it the runtime has before it is killed, as in AWS's runtime interface emulator.
const SHUTDOWN_OF_RUNTIME: Duration = Duration::from_millis(600);

/// How long Shutdown may take when all extensions are threads of the runtime.
const SHUTDOWN_WITH_INTERNAL: Duration = Duration::from_millis(500);

/// What the task is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Makes an invocation, which has this place until its [`Turn`] is over.
    Invoke(Box<Invoke>),
    /// Ends the environment as Lambda does when nothing is asked of it. Tells how it ended, `None` when there was none.
    Recycle(oneshot::Sender<Option<Exit>>),
    /// The same with a signal of the test's own.
    Stop { signal: Signal, grace: Duration, reply: oneshot::Sender<Option<Exit>> },
}

/// One invocation to be made.
#[derive(Debug)]
pub(super) struct Invoke {
    pub(super) request_id: String,
    /// The mark of the stimulus, for [`Mark::Sent`].
    pub(super) delivery: String,
    pub(super) event: Bytes,
    pub(super) trace_header: Option<String>,
    pub(super) identity: Identity,
    /// Set when its turn has come.
    pub(super) taken: Arc<OnceLock<Taken>>,
    /// Told as soon as the environment is known.
    pub(super) begun: oneshot::Sender<Begun>,
    /// Told at the invocation's end.
    pub(super) reply: Reply,
}

/// When an invocation's turn came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken {
    pub(super) at: Instant,
    /// [`Mark::Sent`].
    pub(super) sent: Arrival,
}

impl Invoke {
    /// Its turn has come. `false` when nobody waits for it any more, so that it is not made.
    pub(super) fn take_turn(&self, store: &Store) -> bool {
        if self.reply.is_closed() {
            return false;
        }
        let sent = store.mark(Mark::Sent { delivery: self.delivery.clone() });
        let _ = self.taken.set(Taken { at: Instant::now(), sent });
        true
    }
}

/// Who waits for an invocation's end.
type Reply = oneshot::Sender<Result<Outcome, SiteError>>;

/// Which invocation it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) request_id: String,
    /// The environment, by the name of its log stream.
    pub(super) environment: String,
    pub(super) cold_start: bool,
}

/// An invocation's end, as the caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) begun: Begun,
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
    /// The name of its log stream.
    pub(super) name: String,
    pub(super) processes: Processes,
    pub(super) api: RuntimeApi,
    /// The runtime's open request for the next event, or, where it has several workers, requests.
    pub(super) waiting: Vec<oneshot::Sender<Box<Dispatch>>>,
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
pub(super) enum Reason {
    /// Nothing was asked of it for a while.
    Spindown,
    Timeout,
    Failure,
}

/// One invocation under way.
pub(super) struct Call {
    begun: Begun,
    reply: Option<Reply>,
}

impl Call {
    pub(super) fn new(begun: Begun, reply: Reply) -> Self {
        Self { begun, reply: Some(reply) }
    }

    pub(super) fn answer(&mut self, answer: Answer) {
        if let Some(reply) = self.reply.take() {
            let _ = reply.send(Ok(Outcome { begun: self.begun.clone(), answer }));
        }
    }

    /// The platform ends the invocation; also one whose answer the caller has already.
    pub(super) fn fail(&mut self, category: &str, what: &str, store: &Store) {
        let message = format!("RequestId: {} Error: {what}\n{}", self.begun.request_id, last_output(store));
        self.fail_as(Failure::of_platform(category, message), store);
    }

    fn fail_as(&mut self, failure: Failure, store: &Store) {
        let what = format!("{}: {}", failure.category, failure.message);
        store.mark(Mark::InvocationFailed { request_id: self.begun.request_id.clone(), what });
        self.answer(Answer::Error(failure));
    }

    fn refuse(self, error: SiteError) {
        if let Some(reply) = self.reply {
            let _ = reply.send(Err(error));
        }
    }
}

impl Environments {
    /// Takes commands until nobody can give any.
    pub(super) async fn run(self, mut state: State, place: Place, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            if let State::Ready(ready) = &state
                && ready.processes.has_exited()
            {
                self.end(std::mem::replace(&mut state, State::Cold), Reason::Failure).await;
            }
            match command {
                Command::Invoke(invoke) => {
                    let turn = place.turn();
                    if invoke.take_turn(&self.store) {
                        state = self.serve(state, *invoke, turn).await;
                    }
                }
                Command::Recycle(reply) => {
                    let _ = reply.send(self.end(std::mem::replace(&mut state, State::Cold), Reason::Spindown).await);
                }
                Command::Stop { signal, grace, reply } => {
                    let exit = match std::mem::replace(&mut state, State::Cold) {
                        State::Ready(environment) if environment.processes.extensions().is_empty() => {
                            Some(self.stop(*environment, signal, grace).await)
                        }
                        other => self.end(other, Reason::Spindown).await,
                    };
                    let _ = reply.send(exit);
                }
            }
        }
    }

    /// One invocation, after an Init where there is no environment.
    async fn serve(&self, state: State, invoke: Invoke, turn: Turn) -> State {
        let timeout = self.spec.function.timeout;
        let mut deadline = None;
        let mut state = state;
        if let State::Cold = state {
            state = match self.init(self.spec.function.init_timeout, InitPhase::Init).await {
                Ok((ready, _)) => State::Ready(Box::new(ready)),
                Err(NoInit { why: Why::TimedOut(_) | Why::Failed(_), .. }) => State::InitFailed,
                Err(failed) => {
                    self.answer_failed_init(invoke, failed);
                    return State::Cold;
                }
            };
        }
        let environment = match state {
            State::Ready(environment) => *environment,
            State::Cold | State::InitFailed => {
                // This Init is a part of the invocation, and counts against its limit.
                match self.init(timeout, InitPhase::Invoke).await {
                    Ok((environment, until)) => {
                        deadline = Some(until);
                        environment
                    }
                    Err(failed) => {
                        let again = if matches!(failed.why, Why::Site(_)) { State::Cold } else { State::InitFailed };
                        self.answer_failed_init(invoke, failed);
                        return again;
                    }
                }
            }
        };
        self.invoke(environment, invoke, turn, deadline).await
    }

    /// Tells the caller that there is no environment for its invocation.
    pub(super) fn answer_failed_init(&self, invoke: Invoke, failed: NoInit) {
        let Invoke { request_id, begun, reply, .. } = invoke;
        let known = Begun { request_id, environment: failed.environment, cold_start: true };
        let mut call = Call::new(known.clone(), reply);
        match failed.why {
            Why::Site(error) => call.refuse(error),
            Why::TimedOut(failure) | Why::Failed(failure) => call.fail_as(failure, &self.store),
        }
        // Who waits for it judges at once, and how it failed must be there by then.
        let _ = begun.send(known);
    }

    /// One invocation in an environment that waits for it. Its limit counts from when the function goes on, unless an Init has used some
    /// of it.
    async fn invoke(
        &self,
        mut environment: Environment,
        invoke: Invoke,
        mut turn: Turn,
        deadline: Option<Instant>,
    ) -> State {
        let Invoke { request_id, event, trace_header, identity, begun, reply, .. } = invoke;
        let cold_start = environment.invocations == 0;
        environment.invocations += 1;
        let known = Begun { request_id: request_id.clone(), environment: environment.name.clone(), cold_start };
        let _ = begun.send(known.clone());
        let mut call = Call::new(known, reply);
        // Before it goes on, so that what arrives from then on is stored behind this mark.
        if self.spec.function.freezes() {
            self.store.mark(Mark::Thawed);
        }
        if let Err(error) = environment.processes.thaw().await {
            call.refuse(error);
            return State::Cold;
        }
        let deadline = deadline.unwrap_or_else(|| Instant::now() + self.spec.function.timeout);
        let dispatch = Dispatch {
            request_id: request_id.clone(),
            invocation_id: fresh_id(),
            deadline_ms: epoch_ms(deadline),
            function_arn: variables::arn(&self.spec.function),
            trace_header,
            identity,
            event,
        };
        let extensions = environment.api.extensions();
        let mut events: BTreeMap<usize, Bytes> = BTreeMap::new();
        if extensions.iter().any(|extension| extension.invoke) {
            let Dispatch { request_id, deadline_ms, function_arn, trace_header, .. } = &dispatch;
            let about = invoke_event(request_id, *deadline_ms, function_arn, trace_header.as_deref());
            let of_invoke = extensions.iter().enumerate().filter(|(_, extension)| extension.invoke);
            events.extend(of_invoke.map(|(index, _)| (index, about.clone())));
        }
        let platform = environment.api.platform().clone();
        platform.start(&request_id, dispatch.trace_header.as_deref());
        let mut end = End::Success;
        let mut undelivered = Some(Box::new(dispatch));
        let Environment { name, processes, mut api, mut waiting, mut idle, invocations } = environment;
        let mut waiting = waiting.pop();
        // Once, and not each time around: what ends is one timer and one wait.
        let times_out = tokio::time::sleep_until(deadline);
        tokio::pin!(times_out);
        let mut is_over = false;
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
                platform.report(&request_id, processes.memory_mb());
                let frozen = processes.freeze().await;
                // One that ends between its request for the next event and the freeze has crashed in this invocation.
                catch_up().await;
                if processes.has_exited() {
                    let (who, status) = processes.exited().await;
                    let (category, status) = crashed(who, &status);
                    call.fail(category, &format!("{status}, behind its request for the next event"), &self.store);
                    break (Reason::Failure, status);
                }
                match frozen {
                    Ok(true) => drop(self.store.mark(Mark::Frozen { request_id: Some(request_id.clone()) })),
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!("{} cannot be frozen: {error}", processes.what());
                        break (Reason::Failure, format!("the environment could not be frozen: {error}"));
                    }
                }
                if let Some(asked) = waiting {
                    turn.warm = true;
                    let waiting = vec![asked];
                    return State::Ready(Box::new(Environment { name, processes, api, waiting, idle, invocations }));
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
                            platform.runtime_done(&request_id, end.clone());
                        }
                    }
                    Some(Did::Answered { answer, .. }) => {
                        match &answer {
                            Answer::Response(body) => platform.responded(&request_id, body.len()),
                            Answer::Error(failure) => end = End::Error(failure.category.clone()),
                        }
                        call.answer(answer);
                    }
                    Some(Did::ExtensionAsked { index, waiting }) => drop(idle.insert(index, waiting)),
                    Some(Did::ExtensionFailed { name, during, error }) => {
                        let status = format!("the extension {name} reported an error: {error}");
                        let category = format!("Extension.{during}Error");
                        platform.runtime_done(&request_id, End::Failure(category.clone()));
                        call.fail(&category, &status, &self.store);
                        break (Reason::Failure, status);
                    }
                    Some(Did::Registered(_) | Did::FailedInit(_)) | None => {}
                },
                (who, status) = processes.exited() => {
                    let (category, status) = crashed(who, &status);
                    platform.runtime_done(&request_id, End::Failure(category.into()));
                    call.fail(category, &status, &self.store);
                    break (Reason::Failure, status);
                }
                () = &mut times_out, if !is_over => {
                    is_over = true;
                    catch_up().await;
                }
                () = std::future::ready(()), if is_over => {
                    if let Some(runtime) = processes.runtime() {
                        runtime.kill().await;
                    }
                    let timeout = self.spec.function.timeout.as_secs_f64();
                    let mut status = format!("Task timed out after {timeout:.2} seconds");
                    let late = extensions.iter().enumerate().find(|(index, _)| !idle.contains_key(index));
                    if let (true, Some((_, extension))) = (waiting.is_some(), late) {
                        status.push_str(&format!(": the extension {} did not ask for the next event", extension.name));
                    }
                    platform.runtime_done(&request_id, End::Timeout);
                    call.fail("Sandbox.Timedout", &status, &self.store);
                    break (Reason::Timeout, status);
                }
            }
        };
        platform.report(&request_id, processes.memory_mb());
        let waiting = waiting.into_iter().collect();
        let left = Environment { name, processes, api, waiting, idle, invocations };
        self.shutdown_as(left, reason, status).await;
        State::Cold
    }

    async fn end(&self, state: State, reason: Reason) -> Option<Exit> {
        match state {
            State::Ready(environment) => Some(self.shutdown(*environment, reason).await),
            State::Cold | State::InitFailed => None,
        }
    }

    /// Ends an environment without extensions by a signal of the test's own.
    pub(super) async fn stop(&self, environment: Environment, signal: Signal, grace: Duration) -> Exit {
        let exit = match environment.processes.runtime() {
            Some(runtime) => runtime.stop(signal, grace).await,
            None => Exit { status: "no runtime is running".into(), orderly: true },
        };
        self.store.mark(Mark::EnvironmentEnded { environment: environment.name, status: exit.status.clone() });
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
    pub(super) async fn shutdown_as(&self, environment: Environment, reason: Reason, status: String) -> Exit {
        let Environment { name, processes, mut api, mut idle, .. } = environment;
        let deadline = Instant::now() + SHUTDOWN;
        let extensions = api.extensions();
        let external = extensions.iter().any(|extension| extension.external);
        let grace = match (reason, external, extensions.is_empty()) {
            (Reason::Spindown, true, _) => Some(SHUTDOWN_OF_RUNTIME),
            (Reason::Spindown, false, false) => Some(SHUTDOWN_WITH_INTERNAL),
            _ => None,
        };
        // What is killed at once must not get a moment in which it could still export: SIGKILL acts on the frozen too.
        if !extensions.is_empty() {
            if self.spec.function.freezes() {
                self.store.mark(Mark::Thawed);
            }
            if let Err(error) = processes.thaw().await {
                tracing::warn!("{} cannot be thawed: {error}", processes.what());
            }
        }
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
            Reason::Spindown => "spindown",
            Reason::Timeout => "timeout",
            Reason::Failure => "failure",
        };
        let event = shutdown_event(why, epoch_ms(deadline));
        let mut events: BTreeMap<usize, Bytes> = told.map(|(index, _)| (index, event.clone())).collect();
        for (extension, sandbox) in processes.extensions() {
            let is_told = events.keys().any(|&index| extensions[index].name == *extension);
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
        let mut is_open = true;
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
                did = api.did.recv(), if is_open => match did {
                    Some(Did::ExtensionAsked { index, waiting }) => drop(idle.insert(index, waiting)),
                    // What a runtime did before it was killed, or another extension says of its own end.
                    Some(_) => {}
                    None => is_open = false,
                },
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
        self.store.mark(Mark::EnvironmentEnded { environment: name, status });
        exit
    }
}

/// What the platform says of a process that ended by itself, with the category of the failure.
fn crashed(who: Who, status: &str) -> (&'static str, String) {
    match who {
        Who::Runtime => ("Runtime.ExitError", format!("Runtime exited with error: {status}")),
        Who::Extension(name) => ("Extension.Crash", format!("the extension {name} ended: {status}")),
    }
}

/// Lets what has arrived meanwhile be read. What came in time is in time, also when this thread was held up until the limit
/// was over.
pub(super) async fn catch_up() {
    // The connection is read in the first turn, its request handled in the second.
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

/// A moment of the future in milliseconds since the Unix epoch.
pub(super) fn epoch_ms(moment: Instant) -> u128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now + moment.saturating_duration_since(Instant::now())).as_millis()
}
