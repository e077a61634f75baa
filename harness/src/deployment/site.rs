//! Where a service runs and what can be done to it there.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{capture::Store, config::SignalTo};

/// Why something could not be started, reached or stopped: never the telemetry's fault, so always an error of the
/// environment and not a failed expectation.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct SiteError {
    /// What could not be done, naming the program, image, port or command, and the way out.
    pub what: String,
    /// What the system or the engine said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SiteError {
    /// An error that nothing else caused.
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), source: None }
    }

    /// An error with its cause.
    pub fn because(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { what: what.into(), source: Some(source.into()) }
    }
}

/// What to start.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// Program and arguments on this machine; for a container the arguments behind the image's entry point.
    pub command: Vec<String>,
    /// Every variable that the harness was told to set; complete, placeholders replaced.
    pub env: BTreeMap<String, String>,
    /// Working directory (processes only).
    pub directory: Option<PathBuf>,
    /// Port on which the service listens, as the service sees it; `None` when it serves nothing.
    pub port: Option<u16>,
    /// Who is signalled when it is stopped (processes only).
    pub signal_to: SignalTo,
    /// Who it is, when it is not the service itself: an extension's name. Its lines are kept as text of a logger
    /// `extension NAME`, which makes no claim about the service's records.
    pub extension: Option<String>,
}

/// Where a service runs: this machine, or a container engine.
#[async_trait]
pub trait Site: fmt::Debug + Send + Sync {
    /// Makes a server of the harness, which listens on this machine's loopback, reachable from what runs here.
    /// Returns `host:port` as the service sees it.
    async fn expose(&self, server: SocketAddr) -> Result<String, SiteError>;

    /// Whether what runs here is of this machine, and looked after by system calls alone.
    fn is_local(&self) -> bool {
        false
    }

    /// A port on which a service that is started here can listen.
    async fn free_port(&self) -> Result<u16, SiteError>;

    /// Starts something. Its stdout and stderr go to `store` line by line, with [`Mark::Started`] before the first and
    /// [`Mark::Exited`] behind the last.
    ///
    /// [`Mark::Started`]: crate::capture::Mark::Started
    /// [`Mark::Exited`]: crate::capture::Mark::Exited
    async fn launch(&self, launch: Launch, store: Arc<Store>) -> Result<Box<dyn Sandbox>, SiteError>;

    /// A place in which a function and its extensions are to be launched, so that they share loopback and are frozen as
    /// one; `None` where this site is such a place itself. Each is launched there once.
    async fn enclose(&self, launches: &[Launch], store: &Arc<Store>) -> Result<Option<Arc<dyn Site>>, SiteError> {
        let _ = (launches, store);
        Ok(None)
    }
}

/// How something ended.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Exit {
    /// `exit status: 0`, `signal: 9 (SIGKILL)`.
    pub status: String,
    /// Whether it ended by itself or within the grace period, rather than by SIGKILL of the harness.
    pub orderly: bool,
}

/// The exit status of something that runs, as whoever watches it will tell.
#[derive(Debug, Clone)]
pub(super) struct ExitStatus(watch::Receiver<Option<String>>);

impl ExitStatus {
    /// The status to wait for, and where its watcher tells it once everything that was written is in the store.
    pub(super) fn watched() -> (watch::Sender<Option<String>>, Self) {
        let (tell, told) = watch::channel(None);
        (tell, Self(told))
    }

    /// The status once it is known; waits for it.
    pub(super) async fn known(&self) -> String {
        let mut told = self.0.clone();
        match told.wait_for(Option::is_some).await {
            Ok(status) => status.clone().unwrap_or_default(),
            Err(_) => "unknown exit status: the harness stopped watching".into(),
        }
    }

    /// The status if it is known.
    pub(super) fn now(&self) -> Option<String> {
        self.0.borrow().clone()
    }
}

/// What something that runs holds, in bytes, all its processes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Memory {
    /// Resident now.
    pub resident: u64,
    /// The most that was ever resident, each process's own added up.
    pub peak: u64,
}

/// Something that runs: a process group, or a container. Dropping it kills it.
#[async_trait]
pub trait Sandbox: fmt::Debug + Send + Sync {
    /// `pid 4711` or `container 3f2a…`.
    fn what(&self) -> String;

    /// Where its port is reached from here.
    fn address(&self) -> Option<SocketAddr>;

    /// Stops every thread of it (SIGSTOP to the process group, `pause` of the container). Everything that it wrote is
    /// in the store when this returns, as far as the site can tell. Idempotent.
    async fn freeze(&self) -> Result<(), SiteError>;

    /// Lets it go on. Idempotent.
    async fn thaw(&self) -> Result<(), SiteError>;

    /// Takes what it has written so far into the store, where the site can do more than wait for it.
    async fn drain(&self) {}

    /// Whether what it writes is handed on by somebody else, who may be late whatever [`drain`](Self::drain) does.
    fn hands_on_lines(&self) -> bool {
        false
    }

    /// What it holds.
    ///
    /// # Errors
    /// Where the site cannot tell.
    fn memory(&self) -> Result<Memory, SiteError> {
        Err(SiteError::new(format!(
            "the memory of {} cannot be told; restrict the scenario to processes with @process",
            self.what()
        )))
    }

    /// The exit status once it has ended; waits for it. Everything that it wrote is in the store by then.
    async fn exited(&self) -> String;

    /// The exit status if it has ended.
    fn has_exited(&self) -> Option<String>;

    /// Sends a signal (`SIGTERM`, `SIGINT`) to it, of a process group to whom [`Launch::signal_to`] says, waits up to `grace`, then kills it. Everything that it wrote is in
    /// the store when this returns, and nothing of it is left running.
    async fn stop(&self, signal: nix::sys::signal::Signal, grace: Duration) -> Exit;

    /// Kills it at once. Everything that it wrote is in the store when this returns.
    async fn kill(&self);

    /// Begins to kill it and does not wait, for a destructor. A site whose sandboxes are killed by being dropped need
    /// not do more.
    fn kill_now(&self) {}
}
