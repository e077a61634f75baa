//! The life of an execution environment: Init, Invoke, freeze and thaw, and its end.
//!
//! One task owns the environment and takes one invocation after the other, so the order of freeze, thaw and dispatch
//! needs no lock. The caller has its answer when the runtime has posted it; the task goes on until the runtime has asked
//! for the next event, and freezes the environment only then: runtimes flush telemetry between the two. The runtime's
//! request for the next event stays open while it is frozen, and is answered after the thaw.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
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
    runtime_api::{Answer, Did, Dispatch, Failure, Identity, RuntimeApi},
    variables,
};
use crate::{
    capture::{Mark, Store},
    config,
    deployment::{Exit, Launch, Sandbox, Site, SiteError, service::last_output},
};

/// What the task is asked to do.
pub(super) enum Command {
    Invoke { event: Bytes, trace_header: Option<String>, reply: oneshot::Sender<Result<Outcome, SiteError>> },
    Recycle(oneshot::Sender<()>),
    Stop { signal: Signal, grace: Duration, reply: oneshot::Sender<Exit> },
}

/// An invocation's end, as the caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) request_id: String,
    pub(super) cold_start: bool,
    pub(super) answer: Answer,
}

/// The sandbox that runs now, for a destructor that cannot wait for the task.
pub(super) type Current = Arc<Mutex<Option<Weak<dyn Sandbox>>>>;

/// What environments of one function are made of.
#[derive(Debug)]
pub(super) struct Environments {
    pub(super) spec: config::Deployment,
    pub(super) launch: Launch,
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
    sandbox: Arc<dyn Sandbox>,
    api: RuntimeApi,
    /// The runtime's open request for the next event.
    waiting: oneshot::Sender<Box<Dispatch>>,
    invocations: u64,
}

impl Environments {
    /// Takes commands until nobody can give any.
    pub(super) async fn run(self, first: Environment, mut commands: mpsc::Receiver<Command>) {
        let mut environment = Some(first);
        while let Some(command) = commands.recv().await {
            environment = environment.filter(|environment| environment.sandbox.has_exited().is_none());
            match command {
                Command::Invoke { event, trace_header, reply } => {
                    let ready = match environment.take() {
                        Some(ready) => ready,
                        None => match self.init().await {
                            Ok(ready) => ready,
                            Err(error) => {
                                let _ = reply.send(Err(error));
                                continue;
                            }
                        },
                    };
                    environment = self.invoke(ready, event, trace_header, reply).await;
                }
                Command::Recycle(reply) => {
                    if let Some(environment) = environment.take() {
                        environment.sandbox.kill().await;
                    }
                    let _ = reply.send(());
                }
                Command::Stop { signal, grace, reply } => {
                    let exit = match environment.take() {
                        Some(environment) => environment.sandbox.stop(signal, grace).await,
                        None => Exit { status: "no execution environment is running".into(), orderly: true },
                    };
                    let _ = reply.send(exit);
                }
            }
        }
    }

    /// Starts an environment and waits until its runtime asks for the first event; it is frozen then.
    pub(super) async fn init(&self) -> Result<Environment, SiteError> {
        let name = &self.spec.name;
        let deadline = Instant::now() + self.spec.start_timeout;
        let mut api = RuntimeApi::start(self.listener.clone(), self.store.clone());
        let mut launch = self.launch.clone();
        let log_stream = variables::log_stream(&self.spec.function);
        variables::set(&mut launch.env, &self.spec.function, &self.runtime_api, &log_stream);
        let sandbox: Arc<dyn Sandbox> = Arc::from(self.site.launch(launch, self.store.clone()).await?);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::downgrade(&sandbox));
        let failed = tokio::select! {
            biased;
            did = api.did.recv() => match did {
                Some(Did::Asked(waiting)) => {
                    sandbox.freeze().await?;
                    self.store.mark(Mark::Frozen { request_id: None });
                    return Ok(Environment { sandbox, api, waiting, invocations: 0 });
                }
                Some(Did::FailedInit(Failure { error_type, message, .. })) => format!("failed in Init: {error_type}: {message}"),
                Some(Did::Answered(_)) | None => "answered an invocation that it never had".into(),
            },
            status = sandbox.exited() => format!("ended in Init, before its runtime asked for an event: {status}"),
            () = tokio::time::sleep_until(deadline) => format!(
                "did not ask for an event within {:?}; does it speak the Lambda Runtime API (AWS_LAMBDA_RUNTIME_API)?",
                self.spec.start_timeout
            ),
        };
        sandbox.kill().await;
        let what = sandbox.what();
        Err(SiteError::new(format!("deployment {name} ({what}) {failed}\n{}", last_output(&self.store))))
    }

    /// One invocation. Returns the environment, frozen, unless it is gone.
    async fn invoke(
        &self,
        mut environment: Environment,
        event: Bytes,
        trace_header: Option<String>,
        reply: oneshot::Sender<Result<Outcome, SiteError>>,
    ) -> Option<Environment> {
        let request_id = uuid::Uuid::new_v4().to_string();
        let timeout = self.spec.function.timeout;
        let deadline = Instant::now() + timeout;
        let deadline_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + timeout;
        let cold_start = environment.invocations == 0;
        environment.invocations += 1;
        let sandbox = environment.sandbox.clone();
        // Before it goes on, so that what arrives from then on is stored behind this mark.
        self.store.mark(Mark::Thawed);
        if let Err(error) = sandbox.thaw().await {
            let _ = reply.send(Err(error));
            return None;
        }
        let mut undelivered = Some(Box::new(Dispatch {
            request_id: request_id.clone(),
            deadline_ms: deadline_ms.as_millis(),
            function_arn: variables::arn(&self.spec.function),
            invocation_id: uuid::Uuid::new_v4().to_string(),
            trace_header,
            identity: Identity::default(),
            event,
        }));
        let mut waiting = Some(environment.waiting);
        let mut reply = Some(reply);
        let mut answer_with = |answer: Answer| {
            if let Some(reply) = reply.take() {
                let _ = reply.send(Ok(Outcome { request_id: request_id.clone(), cold_start, answer }));
            }
        };
        loop {
            if let Some(asked) = waiting.take() {
                match undelivered.take() {
                    Some(event) => undelivered = environment.api.hand_out(asked, event).err(),
                    None => {
                        if let Err(error) = sandbox.freeze().await {
                            tracing::warn!("{} cannot be frozen: {error}", sandbox.what());
                            return None;
                        }
                        self.store.mark(Mark::Frozen { request_id: Some(request_id.clone()) });
                        return Some(Environment { waiting: asked, ..environment });
                    }
                }
            }
            tokio::select! {
                // What the runtime did comes before its end.
                biased;
                did = environment.api.did.recv() => match did {
                    Some(Did::Asked(asked)) => waiting = Some(asked),
                    Some(Did::Answered(answer)) => answer_with(answer),
                    Some(Did::FailedInit(_)) | None => {}
                },
                status = sandbox.exited() => {
                    answer_with(Answer::Error(Failure::of_platform("Runtime.ExitError", format!(
                        "RequestId: {request_id} Error: Runtime exited with error: {status}\n{}",
                        last_output(&self.store)
                    ))));
                    return None;
                }
                () = tokio::time::sleep_until(deadline) => {
                    sandbox.kill().await;
                    answer_with(Answer::Error(Failure::of_platform("Sandbox.Timedout", format!(
                        "RequestId: {request_id} Error: Task timed out after {:.2} seconds\n{}",
                        timeout.as_secs_f64(),
                        last_output(&self.store)
                    ))));
                    return None;
                }
            }
        }
    }
}
