//! A running container.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::StreamExt;
use nix::sys::signal::Signal;
use testcontainers::{
    bollard::{
        Docker,
        container::LogOutput,
        errors::Error,
        query_parameters::{KillContainerOptionsBuilder, LogsOptionsBuilder, WaitContainerOptions},
    },
    core::client::docker_client_instance,
};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, interval, timeout},
};

use super::{Shared, SiteError, Started};
use crate::{
    capture::{Mark, Store},
    deployment::{Exit, ExitStatus, Sandbox, process::output::Lines},
    telemetry::LogOrigin,
};

/// How long the engine may take to end a container that was killed.
const KILL: Duration = Duration::from_secs(30);

/// How long the output of a paused container may take to come here.
const DRAIN: Duration = Duration::from_secs(5);

/// How long an engine is asked again to pause a container, and how long between.
const INSIST: Duration = Duration::from_secs(15);
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// A container that is followed. Dropping it removes the container.
#[derive(Debug)]
pub(super) struct ContainerSandbox {
    id: String,
    address: Option<SocketAddr>,
    /// Whether it is paused.
    frozen: Mutex<bool>,
    /// Bytes of output that are in the store.
    taken: watch::Receiver<u64>,
    exited: ExitStatus,
    // Dropped in this order: network and neighbour go once no container needs them.
    _container: Started,
    _site: Arc<Shared>,
}

impl ContainerSandbox {
    /// Follows a container's output and waits for its end.
    pub(super) fn attach(started: Started, store: Arc<Store>, site: Arc<Shared>) -> Self {
        let (took, taken) = watch::channel(0);
        let (exit, exited) = ExitStatus::watched();
        let id = started.id.clone();
        tokio::spawn({
            let id = id.clone();
            async move {
                let status = match docker_client_instance().await {
                    Ok(docker) => {
                        let mut output = Output::new(&store, &took);
                        let _ = output.follow(&docker, &id).await;
                        let status = wait(&docker, &id).await;
                        let read = output.rest(&docker, &id).await;
                        output.finish();
                        match read {
                            Ok(()) => status,
                            Err(error) => format!("{status} (its output could not be read to the end: {error})"),
                        }
                    }
                    Err(error) => format!("unknown exit status: {error}"),
                };
                store.mark(Mark::Exited { status: status.clone() });
                exit.send_replace(Some(status));
            }
        });
        let address = started.address;
        Self { id, address, frozen: Mutex::new(false), taken, exited, _container: started, _site: site }
    }

    /// The engine's id of it.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Pauses it, wherever its output is. Idempotent.
    pub(super) async fn pause(&self) -> Result<(), SiteError> {
        let mut frozen = self.frozen.lock().await;
        if !*frozen {
            let docker = self.docker("pause").await?;
            let paused = insist(|| docker.pause_container(&self.id)).await;
            let refused = paused.map_err(|error| self.cannot("pause", error))?;
            if refused > 0 {
                // What it exported meanwhile came before the freeze, and no other function would have had that time.
                tracing::warn!("the engine paused {} only when asked for the {}. time", self.what(), refused + 1);
            }
            *frozen = true;
        }
        Ok(())
    }

    async fn docker(&self, what: &str) -> Result<Docker, SiteError> {
        docker_client_instance().await.map_err(|error| self.cannot(what, error))
    }

    fn cannot(&self, what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SiteError {
        SiteError::because(format!("cannot {what} {}", self.what()), error)
    }

    /// Whether the engine says so, or does not say.
    async fn is_paused(&self, docker: &Docker) -> bool {
        let inspected = docker.inspect_container(&self.id, None).await;
        inspected.is_ok_and(|found| found.state.and_then(|state| state.paused) == Some(true))
    }

    async fn signal(&self, signal: Signal) {
        let Ok(docker) = self.docker("signal").await else { return };
        let options = KillContainerOptionsBuilder::new().signal(signal.as_str()).build();
        match docker.kill_container(&self.id, Some(options)).await {
            // 409: it has ended; 404: it was removed.
            Ok(()) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
            Err(error) => tracing::warn!("cannot send {signal} to {}: {error}", self.what()),
        }
    }
}

/// Asks an engine again while it fails at what it should do, and tells how often it failed. The kernel may need several tries
/// to stop the tasks of a control group (kernel documentation, freezer-subsystem: a write may leave it FREEZING, and user space
/// tries again); on a busy machine a runtime gives up before. Any other refusal stands: there is no such container, or it has
/// ended.
async fn insist<F>(mut ask: impl FnMut() -> F) -> Result<u32, Error>
where
    F: Future<Output = Result<(), Error>>,
{
    let (until, mut failed, mut tries) = (Instant::now() + INSIST, 0, interval(BETWEEN_TRIES));
    loop {
        tries.tick().await;
        match ask().await {
            Ok(()) => return Ok(failed),
            Err(Error::DockerResponseServerError { status_code: 500.., .. }) if Instant::now() < until => failed += 1,
            Err(error) => return Err(error),
        }
    }
}

/// What a container writes, on its way into the store.
struct Output<'a> {
    stdout: Lines,
    stderr: Lines,
    /// Bytes of stdout and of stderr that were taken.
    bytes: [u64; 2],
    took: &'a watch::Sender<u64>,
}

impl<'a> Output<'a> {
    fn new(store: &Arc<Store>, took: &'a watch::Sender<u64>) -> Self {
        let lines = |origin| Lines::new(store.clone(), origin);
        Self { stdout: lines(LogOrigin::Stdout), stderr: lines(LogOrigin::Stderr), bytes: [0, 0], took }
    }

    fn take(&mut self, stream: usize, piece: &[u8]) {
        let lines = if stream == 0 { &mut self.stdout } else { &mut self.stderr };
        lines.feed(piece);
        self.bytes[stream] += piece.len() as u64;
        self.took.send_modify(|bytes| *bytes += piece.len() as u64);
    }

    /// Takes everything, until the container has ended.
    async fn follow(&mut self, docker: &Docker, id: &str) -> Result<(), Error> {
        let options = LogsOptionsBuilder::new().follow(true).stdout(true).stderr(true).build();
        let mut output = docker.logs(id, Some(options));
        while let Some(piece) = output.next().await {
            let piece = piece?;
            self.take(stream_of(&piece), piece.as_ref());
        }
        Ok(())
    }

    /// Takes what is behind the bytes that were taken: an engine may tell a follower of the end before it has given it the
    /// last line, when that has no line feed. The container has ended.
    async fn rest(&mut self, docker: &Docker, id: &str) -> Result<(), Error> {
        let options = LogsOptionsBuilder::new().follow(false).stdout(true).stderr(true).build();
        let mut output = docker.logs(id, Some(options));
        let mut seen = [0, 0];
        while let Some(piece) = output.next().await {
            let piece = piece?;
            let (stream, bytes) = (stream_of(&piece), piece.as_ref());
            let known = usize::try_from(self.bytes[stream].saturating_sub(seen[stream])).unwrap_or(usize::MAX);
            seen[stream] += bytes.len() as u64;
            if let Some(new) = bytes.get(known..).filter(|new| !new.is_empty()) {
                self.take(stream, new);
            }
        }
        Ok(())
    }

    fn finish(mut self) {
        self.stdout.finish();
        self.stderr.finish();
    }
}

fn stream_of(piece: &LogOutput) -> usize {
    usize::from(matches!(piece, LogOutput::StdErr { .. }))
}

/// Waits for a container's end.
async fn wait(docker: &Docker, id: &str) -> String {
    match docker.wait_container(id, None::<WaitContainerOptions>).next().await {
        Some(Ok(response)) => status(response.status_code),
        // The client's way to tell a status other than zero.
        Some(Err(Error::DockerContainerWaitError { code, .. })) => status(code),
        Some(Err(error)) => format!("unknown exit status: {error}"),
        None => "unknown exit status: the engine hung up".into(),
    }
}

/// An exit status as text. Engines tell the end by a signal as 128 and the signal's number, as shells do.
fn status(code: i64) -> String {
    let signal = i32::try_from(code - 128).ok().and_then(|number| Signal::try_from(number).ok());
    match signal {
        Some(signal) => format!("signal: {} ({signal})", signal as i32),
        None => format!("exit status: {code}"),
    }
}

#[async_trait]
impl Sandbox for ContainerSandbox {
    fn what(&self) -> String {
        format!("container {}", &self.id[..12.min(self.id.len())])
    }

    fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    async fn freeze(&self) -> Result<(), SiteError> {
        self.pause().await?;
        self.drain().await;
        Ok(())
    }

    async fn thaw(&self) -> Result<(), SiteError> {
        let mut frozen = self.frozen.lock().await;
        if *frozen {
            let docker = self.docker("unpause").await?;
            let unpause = async || match docker.unpause_container(&self.id).await {
                // Engines let a paused container go on by themselves to deliver a signal.
                Err(Error::DockerResponseServerError { .. }) if !self.is_paused(&docker).await => Ok(()),
                other => other,
            };
            insist(unpause).await.map_err(|error| self.cannot("unpause", error))?;
            *frozen = false;
        }
        Ok(())
    }

    fn hands_on_lines(&self) -> bool {
        true
    }

    /// Waits until as much output is in the store as the engine has now.
    async fn drain(&self) {
        let arrived = timeout(DRAIN, async {
            let Ok(docker) = self.docker("read the output of").await else { return };
            let options = LogsOptionsBuilder::new().follow(false).stdout(true).stderr(true).build();
            let mut output = docker.logs(&self.id, Some(options));
            let mut bytes = 0;
            while let Some(Ok(piece)) = output.next().await {
                bytes += piece.as_ref().len() as u64;
            }
            drop(self.taken.clone().wait_for(|taken| *taken >= bytes).await);
        });
        if arrived.await.is_err() {
            tracing::warn!("the output of {} is late by more than {} s", self.what(), DRAIN.as_secs());
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
        self.signal(signal).await;
        // A paused container acts on no signal; that it cannot be thawed means that it has ended.
        drop(self.thaw().await);
        if let Ok(status) = timeout(grace, self.exited()).await {
            return Exit { status, orderly: true };
        }
        self.kill().await;
        let status = self.has_exited().unwrap_or_else(|| "unknown exit status: it could not be killed".into());
        Exit { status, orderly: false }
    }

    async fn kill(&self) {
        if self.has_exited().is_some() {
            return;
        }
        self.signal(Signal::SIGKILL).await;
        drop(self.thaw().await);
        if timeout(KILL, self.exited()).await.is_err() {
            tracing::warn!("{} has not ended within {} s of being killed", self.what(), KILL.as_secs());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status_code: u16) -> Error {
        Error::DockerResponseServerError { status_code, message: "unable to freeze".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_fails_to_pause_is_asked_again() {
        let mut asked = 0;
        let paused = insist(|| {
            asked += 1;
            let done = if asked < 3 { Err(refusal(500)) } else { Ok(()) };
            async { done }
        });
        assert_eq!(paused.await.unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_never_pauses_is_believed_in_the_end() {
        let began = Instant::now();
        insist(|| async { Err(refusal(500)) }).await.unwrap_err();
        assert!(began.elapsed() >= INSIST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_ended_is_not_paused_again_and_again() {
        let began = Instant::now();
        insist(|| async { Err(refusal(409)) }).await.unwrap_err();
        assert!(began.elapsed().is_zero());
    }

    #[test]
    fn the_end_by_a_signal_is_told_apart_from_an_exit_status() {
        assert_eq!(status(0), "exit status: 0");
        assert_eq!(status(3), "exit status: 3");
        assert_eq!(status(137), "signal: 9 (SIGKILL)");
        assert_eq!(status(143), "signal: 15 (SIGTERM)");
        assert_eq!(status(255), "exit status: 255");
    }
}
