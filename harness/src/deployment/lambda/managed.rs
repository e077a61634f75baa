//! An execution environment on a Lambda Managed Instance: it runs all the time and has several invocations at once
//! ("Understanding the Lambda Managed Instances execution environment" in the Lambda Developer Guide).
//!
//! Nothing freezes, so nothing proves that an invocation's telemetry is complete. An invocation that takes too long fails
//! by itself, and its worker goes on; the end of the runtime or of an extension ends the environment and fails all that is
//! under way.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{
    environment::{Begun, Call, Command, Environment, Environments, Invoke, Reason, State, catch_up, epoch_ms},
    fresh_id,
    platform::{End, InitPhase, Platform},
    pool::{Place, Turn},
    processes::Who,
    runtime_api::{Answer, Did, Dispatch},
    variables,
};
use crate::deployment::Exit;

/// Longer than any invocation.
const FAR: Duration = Duration::from_secs(86_400);

/// One of several invocations that are under way.
struct Running {
    call: Call,
    deadline: Instant,
    /// The place in the environment, given back with the answer.
    turn: Turn,
}

/// The environment's end on request, once nothing is under way any more.
struct Ending {
    /// The signal of a test's own.
    signal: Option<(Signal, Duration)>,
    reply: oneshot::Sender<Option<Exit>>,
}

impl Environments {
    /// Takes commands until nobody can give any, several invocations at a time.
    pub(super) async fn run_managed(
        self,
        mut state: State,
        place: Place,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        loop {
            let mut first = None;
            let environment = match state {
                State::Ready(environment) => *environment,
                State::Cold | State::InitFailed => match commands.recv().await {
                    None => return,
                    Some(Command::Recycle(reply) | Command::Stop { reply, .. }) => {
                        let _ = reply.send(None);
                        state = State::Cold;
                        continue;
                    }
                    Some(Command::Invoke(invoke)) => {
                        let turn = place.turn();
                        if !invoke.take_turn(&self.store) {
                            state = State::Cold;
                            continue;
                        }
                        match self.init(self.spec.function.init_timeout, InitPhase::Init).await {
                            Ok((environment, _)) => {
                                first = Some((invoke, turn));
                                environment
                            }
                            Err(failed) => {
                                self.answer_failed_init(*invoke, failed);
                                state = State::Cold;
                                continue;
                            }
                        }
                    }
                },
            };
            if !self.take_many(environment, first, &place, &mut commands).await {
                return;
            }
            state = State::Cold;
        }
    }

    /// Takes invocations until the environment has ended; `false` when nobody can give any more.
    async fn take_many(
        &self,
        environment: Environment,
        first: Option<(Box<Invoke>, Turn)>,
        place: &Place,
        commands: &mut mpsc::UnboundedReceiver<Command>,
    ) -> bool {
        let Environment { name, processes, mut api, waiting, mut idle, mut invocations } = environment;
        let mut waiting: VecDeque<_> = waiting.into();
        let mut queue: VecDeque<Box<Dispatch>> = VecDeque::new();
        let mut running: HashMap<String, Running> = HashMap::new();
        let mut ending: Option<Ending> = None;
        let platform = api.platform().clone();
        let mut arrived = first;
        let mut is_over = false;
        let (reason, status) = loop {
            if let Some((invoke, turn)) = arrived.take() {
                let deadline = Instant::now() + self.spec.function.timeout;
                let Invoke { request_id, event, trace_header, identity, begun, reply, .. } = *invoke;
                let cold_start = invocations == 0;
                invocations += 1;
                let known = Begun { request_id: request_id.clone(), environment: name.clone(), cold_start };
                platform.start(&request_id, trace_header.as_deref());
                let _ = begun.send(known.clone());
                running.insert(request_id.clone(), Running { call: Call::new(known, reply), deadline, turn });
                queue.push_back(Box::new(Dispatch {
                    request_id,
                    invocation_id: fresh_id(),
                    deadline_ms: epoch_ms(deadline),
                    function_arn: variables::arn(&self.spec.function),
                    trace_header,
                    identity,
                    event,
                }));
            }
            while !queue.is_empty()
                && let Some(asked) = waiting.pop_front()
                && let Some(event) = queue.pop_front()
            {
                // A request that the worker has given up: another one is there, or will be.
                if let Err(event) = api.hand_out(asked, event) {
                    queue.push_front(event);
                }
            }
            if ending.is_some() && running.is_empty() {
                break (Reason::Spindown, "the environment was shut down".to_owned());
            }
            let deadline = running.values().map(|one| one.deadline).min().unwrap_or_else(|| Instant::now() + FAR);
            tokio::select! {
                // What they did comes before their end.
                biased;
                did = api.did.recv() => match did {
                    Some(Did::Asked(asked)) => waiting.push_back(asked),
                    Some(Did::Answered { request_id, answer }) => {
                        let end = match &answer {
                            Answer::Response(body) => {
                                platform.responded(&request_id, body.len());
                                End::Success
                            }
                            Answer::Error(failure) => End::Error(failure.category.clone()),
                        };
                        if let Some(mut one) = running.remove(&request_id) {
                            platform.runtime_done(&request_id, end);
                            platform.report(&request_id, processes.memory_mb());
                            one.turn.warm = true;
                            one.call.answer(answer);
                        }
                    }
                    Some(Did::ExtensionAsked { index, waiting }) => drop(idle.insert(index, waiting)),
                    Some(Did::ExtensionFailed { name, during, error }) => {
                        let status = format!("the extension {name} reported an error: {error}");
                        let category = format!("Extension.{during}Error");
                        self.fail_all(&mut running, &platform, processes.memory_mb(), &category, &status);
                        break (Reason::Failure, status);
                    }
                    Some(Did::Registered(_) | Did::FailedInit(_)) | None => {}
                },
                (who, status) = processes.exited() => {
                    let (category, status) = match who {
                        Who::Runtime => ("Runtime.ExitError", format!("Runtime exited with error: {status}")),
                        Who::Extension(name) => ("Extension.Crash", format!("the extension {name} ended: {status}")),
                    };
                    self.fail_all(&mut running, &platform, processes.memory_mb(), category, &status);
                    break (Reason::Failure, status);
                }
                command = commands.recv(), if ending.is_none() => match command {
                    None => {
                        processes.kill().await;
                        return false;
                    }
                    Some(Command::Invoke(invoke)) => {
                        let turn = place.turn();
                        arrived = invoke.take_turn(&self.store).then_some((invoke, turn));
                    }
                    Some(Command::Recycle(reply)) => ending = Some(Ending { signal: None, reply }),
                    Some(Command::Stop { signal, grace, reply }) => {
                        ending = Some(Ending { signal: Some((signal, grace)), reply });
                    }
                },
                () = tokio::time::sleep_until(deadline), if !is_over => {
                    is_over = true;
                    catch_up().await;
                }
                () = std::future::ready(()), if is_over => {
                    is_over = false;
                    let now = Instant::now();
                    let late: Vec<String> =
                        running.iter().filter(|(_, one)| one.deadline <= now).map(|(id, _)| id.clone()).collect();
                    for id in late {
                        let Some(mut one) = running.remove(&id) else { continue };
                        let mut status =
                            format!("Task timed out after {:.2} seconds", self.spec.function.timeout.as_secs_f64());
                        if queue.iter().any(|event| event.request_id == id) {
                            status.push_str(": no worker of the runtime asked for the event");
                            queue.retain(|event| event.request_id != id);
                        }
                        api.give_up(&id);
                        platform.runtime_done(&id, End::Timeout);
                        platform.report(&id, processes.memory_mb());
                        one.turn.warm = true;
                        one.call.fail("Sandbox.Timedout", &status, &self.store);
                    }
                }
            }
        };
        let left = Environment { name, processes, api, waiting: waiting.into(), idle, invocations };
        match ending {
            Some(Ending { signal: Some((signal, grace)), reply }) if left.processes.extensions().is_empty() => {
                let _ = reply.send(Some(self.stop(left, signal, grace).await));
            }
            Some(Ending { reply, .. }) => {
                let _ = reply.send(Some(self.shutdown_as(left, reason, status).await));
            }
            None => drop(self.shutdown_as(left, reason, status).await),
        }
        true
    }

    fn fail_all(
        &self,
        running: &mut HashMap<String, Running>,
        platform: &Platform,
        memory_mb: u64,
        category: &str,
        status: &str,
    ) {
        for (id, mut one) in running.drain() {
            platform.runtime_done(&id, End::Failure(category.to_owned()));
            platform.report(&id, memory_mb);
            one.call.fail(category, status, &self.store);
        }
    }
}
