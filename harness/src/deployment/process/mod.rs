//! Processes of this machine, each in a process group of its own.

mod memory;
pub(super) mod output;
mod ports;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use tokio::process::Command;

use self::{
    output::{Lines, Tap},
    ports::Ports,
};
use super::{Exit, ExitStatus, Launch, Memory, Sandbox, Site, SiteError};
use crate::{
    capture::{Mark, Store},
    config::SignalTo,
    telemetry::LogOrigin,
};

/// How long a descendant may keep stdout or stderr open after its leader has exited, before the group is killed.
const DRAIN: Duration = Duration::from_secs(2);

/// This machine: what is started here is a process group, and what it can reach on loopback needs no detour.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessSite;

#[async_trait]
impl Site for ProcessSite {
    async fn expose(&self, server: SocketAddr) -> Result<String, SiteError> {
        if server.ip().is_unspecified() {
            return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, server.port())).to_string());
        }
        Ok(server.to_string())
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn free_port(&self) -> Result<u16, SiteError> {
        Ports::reserve()
    }

    async fn launch(&self, launch: Launch, store: Arc<Store>) -> Result<Box<dyn Sandbox>, SiteError> {
        Ok(Box::new(ProcessSandbox::start(launch, store)?))
    }
}

/// Whether a variable of the harness's own environment must not reach the service: it would configure the service's
/// telemetry, make it continue a foreign trace, or make it believe that it runs on Lambda.
fn is_withheld(name: &str) -> bool {
    ["OTEL_", "AWS_LAMBDA_", "LAMBDA_"].iter().any(|prefix| name.starts_with(prefix))
        || ["_X_AMZN_TRACE_ID", "_HANDLER", "TRACEPARENT", "TRACESTATE"].contains(&name)
}

/// A process group. Dropping it kills the whole group.
#[derive(Debug)]
struct ProcessSandbox {
    /// The leader's process id, which is the group's id too.
    group: Pid,
    port: Option<u16>,
    signal_to: SignalTo,
    taps: Vec<Tap>,
    exited: ExitStatus,
    /// Set once the group was swept after its leader's exit: from then on its id may belong to somebody else.
    gone: Arc<AtomicBool>,
}

impl ProcessSandbox {
    fn start(launch: Launch, store: Arc<Store>) -> Result<Self, SiteError> {
        let [program, arguments @ ..] = launch.command.as_slice() else {
            return Err(SiteError::new("there is no program to start: the command is empty"));
        };
        if let Some(directory) = launch.directory.as_ref().filter(|directory| !directory.is_dir()) {
            return Err(SiteError::new(format!(
                "cannot start `{program}`: its working directory {} is not a directory",
                directory.display()
            )));
        }
        let pipe_failed = |source: io::Error| SiteError::because(format!("cannot start `{program}`: no pipe"), source);
        let (stdout, stdout_writer) = io::pipe().map_err(pipe_failed)?;
        let (stderr, stderr_writer) = io::pipe().map_err(pipe_failed)?;
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        command.stdin(Stdio::null()).stdout(stdout_writer).stderr(stderr_writer);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(is_withheld) {
                command.env_remove(name);
            }
        }
        command.envs(&launch.env);
        if let Some(directory) = &launch.directory {
            command.current_dir(directory);
        }
        let mut child = command.spawn().map_err(|source| {
            let directory = match &launch.directory {
                Some(directory) => directory.display().to_string(),
                None => std::env::current_dir().map_or_else(|_| ".".into(), |here| here.display().to_string()),
            };
            SiteError::because(format!("cannot start `{program}` in {directory}"), source)
        })?;
        // The harness's own copies of the writing ends live in the command: without this the pipes would never end.
        drop(command);
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .ok_or_else(|| SiteError::new(format!("`{program}` was gone before its process id could be read")))?;
        let group = Pid::from_raw(pid);
        store.mark(Mark::Started { what: format!("pid {pid}") });
        let (exit_status, exited) = ExitStatus::watched();
        let gone = Arc::new(AtomicBool::new(false));
        let (port, signal_to) = (launch.port, launch.signal_to);
        let mut sandbox = Self { group, port, signal_to, taps: Vec::new(), exited, gone: gone.clone() };
        for (pipe, origin) in [(stdout, LogOrigin::Stdout), (stderr, LogOrigin::Stderr)] {
            sandbox.taps.push(
                Tap::open(pipe, Lines::new(store.clone(), origin).of(launch.extension.clone())).map_err(pipe_failed)?,
            );
        }
        let taps = sandbox.taps.clone();
        tokio::spawn(async move {
            let status = match child.wait().await {
                Ok(status) => status.to_string(),
                Err(error) => format!("unknown exit status: {error}"),
            };
            // Workers may outlive their parent for a moment and still have something to say; nobody may outlive it
            // for good.
            let ended = async {
                for tap in &taps {
                    tap.ended().await;
                }
            };
            let quiet = tokio::time::timeout(DRAIN, ended).await.is_ok();
            signal_group(group, Signal::SIGKILL);
            gone.store(true, Ordering::SeqCst);
            for tap in &taps {
                if !quiet {
                    // Whoever still holds the pipe has left the group; it is not the service any more.
                    tap.close().await;
                }
            }
            store.mark(Mark::Exited { status: status.clone() });
            exit_status.send_replace(Some(status));
        });
        Ok(sandbox)
    }

    fn signal(&self, signal: Signal) {
        if !self.gone.load(Ordering::SeqCst) {
            signal_group(self.group, signal);
        }
    }

    /// The signal that asks it to end, to whom the configuration says.
    fn ask_to_end(&self, signal: Signal) {
        match self.signal_to {
            SignalTo::Group => self.signal(signal),
            SignalTo::Leader if self.gone.load(Ordering::SeqCst) => {}
            SignalTo::Leader => match kill(self.group, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => tracing::warn!("cannot send {signal} to {}: {error}", self.what()),
            },
        }
    }

    /// Waits until the leader is stopped: SIGSTOP is queued first and acts when a processor gets to it.
    #[cfg(target_os = "linux")]
    async fn stopped(&self) {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        // Looks without taking: the exit status is for whoever waits for the child.
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        // It takes microseconds. The bound is for a leader in an uninterruptible system call, which does nothing either.
        for _ in 0..100_000 {
            match waitid(Id::Pid(self.group), flags) {
                Ok(WaitStatus::StillAlive) => tokio::task::yield_now().await,
                _ => return,
            }
        }
    }

    /// Elsewhere there is no looking without taking; the stop acts when a processor gets to it.
    #[cfg(not(target_os = "linux"))]
    async fn stopped(&self) {
        tokio::task::yield_now().await;
    }
}

/// Signals a process group; that nothing of it is left is no error.
fn signal_group(group: Pid, signal: Signal) {
    match killpg(group, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!("cannot send {signal} to process group {group}: {error}"),
    }
}

#[async_trait]
impl Sandbox for ProcessSandbox {
    fn what(&self) -> String {
        format!("pid {}", self.group)
    }

    fn address(&self) -> Option<SocketAddr> {
        self.port.map(|port| (Ipv4Addr::LOCALHOST, port).into())
    }

    async fn freeze(&self) -> Result<(), SiteError> {
        self.signal(Signal::SIGSTOP);
        self.stopped().await;
        self.drain().await;
        Ok(())
    }

    async fn thaw(&self) -> Result<(), SiteError> {
        self.signal(Signal::SIGCONT);
        Ok(())
    }

    async fn drain(&self) {
        for tap in &self.taps {
            tap.drain();
        }
    }

    fn memory(&self) -> Result<Memory, SiteError> {
        let ended = || SiteError::new("the service has ended, or there is no /proc here, so its memory cannot be told");
        memory::of_tree(self.group.as_raw()).ok_or_else(ended)
    }

    async fn exited(&self) -> String {
        self.exited.known().await
    }

    fn has_exited(&self) -> Option<String> {
        self.exited.now()
    }

    async fn stop(&self, signal: Signal, grace: Duration) -> Exit {
        // A stopped process acts on nothing but SIGKILL: the signal waits for it, and SIGCONT lets it act.
        self.ask_to_end(signal);
        self.signal(Signal::SIGCONT);
        if let Ok(status) = tokio::time::timeout(grace, self.exited()).await {
            return Exit { status, orderly: true };
        }
        self.kill().await;
        Exit { status: self.exited().await, orderly: false }
    }

    async fn kill(&self) {
        self.kill_now();
        self.exited().await;
    }

    fn kill_now(&self) {
        self.signal(Signal::SIGKILL);
    }
}

impl Drop for ProcessSandbox {
    fn drop(&mut self) {
        self.kill_now();
        if let Some(port) = self.port {
            Ports::release(port);
        }
    }
}

#[cfg(test)]
mod tests;
