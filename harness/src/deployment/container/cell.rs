//! One container for a function and its extensions: they share its loopback and are paused as one.
//!
//! `tracegate` holds the container open ([`inside`]) and the engine starts the others in it, extensions first. What the
//! function writes is the container's output, so that a pause proves that all of it is here; what an extension writes comes
//! over a stream of its own and makes no claim.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use futures::StreamExt;
use nix::sys::signal::Signal;
use testcontainers::{
    bollard::{
        container::LogOutput,
        exec::{CreateExecOptions, StartExecResults},
    },
    core::client::docker_client_instance,
};
use tokio::{sync::watch, time::timeout};

use super::{
    Shared,
    image::Environment,
    inside::{Piece, Report, Reports},
    sandbox::ContainerSandbox,
};
use crate::{
    capture::{Mark, Store},
    deployment::{Exit, ExitStatus, Launch, Sandbox, Site, SiteError, process::output::Lines},
    telemetry::LogOrigin,
};

/// How long the engine may take to start a program in a container, and to end one that was killed.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long output may still come once a program has ended.
const LINGER: Duration = Duration::from_secs(1);

/// The container of one execution environment. Dropping it removes the container and all that runs in it.
#[derive(Debug)]
struct Cell {
    container: ContainerSandbox,
    environment: Environment,
    members: Mutex<Vec<ExitStatus>>,
    shared: Arc<Shared>,
}

/// Where the programs of one environment are started.
#[derive(Debug)]
pub(super) struct CellSite(Arc<Cell>);

impl CellSite {
    pub(super) fn new(container: ContainerSandbox, environment: Environment, shared: Arc<Shared>) -> Self {
        Self(Arc::new(Cell { container, environment, members: Mutex::default(), shared }))
    }
}

#[async_trait]
impl Site for CellSite {
    async fn expose(&self, server: SocketAddr) -> Result<String, SiteError> {
        self.0.shared.expose(server)
    }

    async fn free_port(&self) -> Result<u16, SiteError> {
        Ok(self.0.shared.free_port())
    }

    async fn launch(&self, launch: Launch, store: Arc<Store>) -> Result<Box<dyn Sandbox>, SiteError> {
        let cell = &self.0;
        let name = launch.extension.clone();
        let who = name.as_ref().map_or_else(|| "the function".to_owned(), |name| format!("the extension {name}"));
        let cannot =
            |why: &str| SiteError::new(format!("deployment `{}`: cannot start {who}: {why}", cell.shared.deployment));
        let main: &[&str] = if name.is_none() { &["--main"] } else { &[] };
        let program = cell.environment.program(name.as_deref());
        let words = ["run"].iter().chain(main).chain(&["--"]).map(|&word| word.to_owned());
        let command = words.chain([program]).chain(launch.command.into_iter().skip(1)).collect();
        let env = launch.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mut output = cell.exec(command, env).await.map_err(|error| cannot(&error.to_string()))?;
        let what = match &name {
            Some(name) => format!("{}, extension {name}", cell.container.what()),
            None => cell.container.what(),
        };
        store.mark(Mark::Started { what: what.clone() });
        let (exit, exited) = ExitStatus::watched();
        let (say, mut said) = watch::channel(None);
        let of_cell = Arc::downgrade(cell);
        let is_main = name.is_none();
        let extension = name.clone();
        tokio::spawn(async move {
            let mut reports = Reports::default();
            let lines = |origin| Lines::new(store.clone(), origin).of(extension.clone());
            let (mut stdout, mut stderr) = (lines(LogOrigin::Stdout), lines(LogOrigin::Stderr));
            let mut ended = None;
            loop {
                // What it left running may keep the stream open.
                let next = match &ended {
                    None => output.next().await,
                    Some(_) => timeout(LINGER, output.next()).await.ok().flatten(),
                };
                let Some(Ok(piece)) = next else { break };
                if let LogOutput::StdErr { message } = &piece {
                    stderr.feed(message);
                    continue;
                }
                for piece in reports.feed(piece.as_ref()) {
                    match piece {
                        Piece::Output(bytes) => stdout.feed(&bytes),
                        Piece::Report(Report::Ended(status)) => ended = Some(status),
                        Piece::Report(report) => drop(say.send_replace(Some(report))),
                    }
                }
            }
            stdout.finish();
            stderr.finish();
            if is_main && let Some(cell) = Weak::upgrade(&of_cell) {
                cell.container.drain().await;
            }
            let status = ended.unwrap_or_else(|| "unknown exit status: its container ended".into());
            store.mark(Mark::Exited { status: status.clone() });
            exit.send_replace(Some(status));
        });
        let first = timeout(PATIENCE, said.wait_for(Option::is_some)).await;
        let group = match first {
            Ok(Ok(report)) => match &*report {
                Some(Report::Runs(group)) => *group,
                Some(Report::Failed(why)) => return Err(cannot(why)),
                _ => return Err(cannot("it said nothing")),
            },
            Ok(Err(_)) => return Err(cannot("its container ended")),
            Err(_) => return Err(cannot(&format!("the engine did not within {} s", PATIENCE.as_secs()))),
        };
        cell.members.lock().unwrap_or_else(PoisonError::into_inner).push(exited.clone());
        Ok(Box::new(Member { cell: cell.clone(), what, main: is_main, group, exited }))
    }
}

/// What somebody in the container writes.
type Output =
    std::pin::Pin<Box<dyn futures::Stream<Item = Result<LogOutput, testcontainers::bollard::errors::Error>> + Send>>;

impl Cell {
    /// Starts `tracegate inside` with these words in the container, and follows what it writes.
    async fn exec(
        &self,
        words: Vec<String>,
        env: Vec<String>,
    ) -> Result<Output, Box<dyn std::error::Error + Send + Sync>> {
        let docker = docker_client_instance().await?;
        let command = [self.environment.tracegate.clone(), "inside".into()].into_iter().chain(words).collect();
        let options = CreateExecOptions {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            env: Some(env),
            cmd: Some(command),
            ..CreateExecOptions::<String>::default()
        };
        let made = docker.create_exec(self.container.id(), options).await?;
        match docker.start_exec(&made.id, None).await? {
            StartExecResults::Attached { output, .. } => Ok(output),
            StartExecResults::Detached => Err("the engine did not attach to what it started".into()),
        }
    }

    /// Signals the process group of a member. Nothing can be started in a paused container, so it is thawed first.
    async fn signal(&self, signal: Signal, group: i32) {
        drop(self.container.thaw().await);
        let words = vec!["signal".to_owned(), signal.as_str().to_owned(), group.to_string()];
        let done = async {
            match self.exec(words, Vec::new()).await {
                Ok(mut output) => while output.next().await.is_some() {},
                // The container may have ended, and with it whoever was to be signalled.
                Err(error) => tracing::debug!("cannot send {signal} into {}: {error}", self.container.what()),
            }
        };
        if timeout(PATIENCE, done).await.is_err() {
            tracing::warn!("sending {signal} into {} takes too long", self.container.what());
        }
    }

    /// Whether nobody that was started in it still runs.
    fn is_deserted(&self) -> bool {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.iter().all(|member| member.now().is_some())
    }
}

/// One program of an environment.
#[derive(Debug)]
struct Member {
    cell: Arc<Cell>,
    what: String,
    main: bool,
    /// Its process group, inside the container.
    group: i32,
    exited: ExitStatus,
}

#[async_trait]
impl Sandbox for Member {
    fn what(&self) -> String {
        self.what.clone()
    }

    fn address(&self) -> Option<SocketAddr> {
        None
    }

    /// Pauses the whole container. What the function wrote is in the store when its own freeze returns.
    async fn freeze(&self) -> Result<(), SiteError> {
        self.cell.container.pause().await?;
        self.drain().await;
        Ok(())
    }

    async fn thaw(&self) -> Result<(), SiteError> {
        self.cell.container.thaw().await
    }

    async fn drain(&self) {
        if self.main {
            self.cell.container.drain().await;
        }
    }

    async fn exited(&self) -> String {
        self.exited.known().await
    }

    fn has_exited(&self) -> Option<String> {
        self.exited.now()
    }

    async fn stop(&self, signal: Signal, grace: Duration) -> Exit {
        if let Some(status) = self.has_exited() {
            return Exit { status, orderly: true };
        }
        self.cell.signal(signal, self.group).await;
        if let Ok(status) = timeout(grace, self.exited()).await {
            return Exit { status, orderly: true };
        }
        self.kill().await;
        let status = self.has_exited().unwrap_or_else(|| "unknown exit status: it could not be killed".into());
        Exit { status, orderly: false }
    }

    /// Kills it, and the container with the last of them.
    async fn kill(&self) {
        if self.has_exited().is_none() {
            self.cell.signal(Signal::SIGKILL, self.group).await;
            if timeout(PATIENCE, self.exited()).await.is_err() {
                tracing::warn!("{} has not ended within {} s of being killed", self.what, PATIENCE.as_secs());
            }
        }
        if self.cell.is_deserted() {
            self.cell.container.kill().await;
        }
    }
}
