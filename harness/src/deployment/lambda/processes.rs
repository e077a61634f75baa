//! What runs in one execution environment: the runtime, and the external extensions beside it. They are frozen and thawed
//! together.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use futures::future::select_all;

use crate::deployment::{Sandbox, SiteError};

/// How long what was seen of memory holds.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The sandboxes that run now, for a destructor that cannot wait for the task.
#[derive(Debug, Clone, Default)]
pub(super) struct Current(Arc<Mutex<Vec<Weak<dyn Sandbox>>>>);

impl Current {
    fn add(&self, sandbox: &Arc<dyn Sandbox>) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        current.retain(|other| other.strong_count() > 0);
        current.push(Arc::downgrade(sandbox));
    }

    /// Begins to kill all of them.
    pub(super) fn kill_now(&self) {
        let current = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        current.iter().filter_map(Weak::upgrade).for_each(|sandbox| sandbox.kill_now());
    }
}

/// The processes of one environment.
#[derive(Debug)]
pub(super) struct Processes {
    runtime: Option<Arc<dyn Sandbox>>,
    extensions: Vec<(String, Arc<dyn Sandbox>)>,
    /// Whether freezing is on.
    freezes: bool,
    current: Current,
    /// When memory was looked at, and the most that was seen, in bytes.
    memory: Mutex<(Option<Instant>, u64)>,
}

/// Whose process has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Runtime,
    Extension(String),
}

impl Processes {
    pub(super) fn new(freezes: bool, current: Current) -> Self {
        Self { runtime: None, extensions: Vec::new(), freezes, current, memory: Mutex::default() }
    }

    pub(super) fn add_runtime(&mut self, sandbox: Box<dyn Sandbox>) {
        let sandbox = Arc::from(sandbox);
        self.current.add(&sandbox);
        self.runtime = Some(sandbox);
    }

    pub(super) fn add_extension(&mut self, name: String, sandbox: Box<dyn Sandbox>) {
        let sandbox = Arc::from(sandbox);
        self.current.add(&sandbox);
        self.extensions.push((name, sandbox));
    }

    pub(super) fn runtime(&self) -> Option<&Arc<dyn Sandbox>> {
        self.runtime.as_ref()
    }

    pub(super) fn extensions(&self) -> &[(String, Arc<dyn Sandbox>)] {
        &self.extensions
    }

    fn all(&self) -> impl Iterator<Item = &Arc<dyn Sandbox>> {
        self.runtime.iter().chain(self.extensions.iter().map(|(_, sandbox)| sandbox))
    }

    /// `pid 4711`, the runtime's where there is one.
    pub(super) fn what(&self) -> String {
        self.all().next().map_or_else(|| "not started".into(), |sandbox| sandbox.what())
    }

    /// Stops all of them, and takes what they wrote before. Returns whether they are frozen.
    pub(super) async fn freeze(&self) -> Result<bool, SiteError> {
        if self.freezes {
            for sandbox in self.all() {
                sandbox.freeze().await?;
            }
        }
        Ok(self.freezes)
    }

    /// Lets all of them go on.
    pub(super) async fn thaw(&self) -> Result<(), SiteError> {
        if self.freezes {
            for sandbox in self.all() {
                sandbox.thaw().await?;
            }
        }
        Ok(())
    }

    /// The most memory that all of them together had so far, in MB rounded up; 0 where the site cannot tell. Looked at ten
    /// times a second at most, since asking the kernel takes longer than a short invocation.
    pub(super) fn memory_mb(&self) -> u64 {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let (looked, most) = &mut *memory;
        if looked.is_none_or(|at| at.elapsed() >= LOOK_AGAIN) {
            *looked = Some(Instant::now());
            let now: u64 = self.all().filter_map(|sandbox| sandbox.memory().ok()).map(|memory| memory.peak).sum();
            // What has ended tells nothing any more.
            *most = now.max(*most);
        }
        most.div_ceil(1024 * 1024)
    }

    /// Waits for the first of them to end.
    pub(super) async fn exited(&self) -> (Who, String) {
        let runtime = self.runtime.iter().map(|sandbox| (Who::Runtime, sandbox));
        let extensions = self.extensions.iter().map(|(name, sandbox)| (Who::Extension(name.clone()), sandbox));
        let waits: Vec<_> = runtime
            .chain(extensions)
            .map(|(who, sandbox)| Box::pin(async move { (who, sandbox.exited().await) }))
            .collect();
        if waits.is_empty() {
            return std::future::pending().await;
        }
        select_all(waits).await.0
    }

    /// Whether one of them has ended.
    pub(super) fn has_exited(&self) -> bool {
        self.all().any(|sandbox| sandbox.has_exited().is_some())
    }

    /// Kills what is left, the runtime first.
    pub(super) async fn kill(&self) {
        for sandbox in self.all() {
            sandbox.kill().await;
        }
    }
}
