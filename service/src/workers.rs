//! Several worker processes on one listening socket.
//!
//! The parent binds the socket, starts the workers with it (`LISTEN_FDS`, as socket activation has
//! it) and watches them. It serves nothing and exports nothing; each worker has telemetry of its
//! own. A worker's stdin is a pipe from the parent: its end says that the parent is gone.

use std::{
    collections::VecDeque,
    io,
    net::TcpListener,
    os::fd::AsRawFd,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream::FuturesUnordered};
use listenfd::ListenFd;
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::{Child, Command},
    sync::oneshot,
};

use crate::{fields, telemetry::Telemetry};

const TARGET: &str = "serverless_axum::workers";

/// Set in a worker: its number, from 1.
pub const WORKER_VARIABLE: &str = "SERVERLESS_AXUM_WORKER";

/// So many workers may die in [`RESTART_WINDOW`]; with one more, something is wrong for good.
const RESTART_LIMIT: usize = 5;
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// Why the workers could not be kept running.
#[derive(Debug, thiserror::Error)]
pub enum WorkersError {
    /// A worker could not be started, or the socket not handed over.
    #[error("cannot start a worker process")]
    Start(#[source] io::Error),
    /// Workers died faster than replacing them makes sense.
    #[error("more than {RESTART_LIMIT} workers died within {} s", RESTART_WINDOW.as_secs())]
    KeepDying,
}

/// The socket that a parent, or a supervisor with socket activation, handed to this process.
///
/// # Errors
/// When what was handed over is no TCP listener.
pub fn inherited_listener() -> io::Result<Option<TcpListener>> {
    let listener = ListenFd::from_env().take_tcp_listener(0)?;
    if let Some(listener) = &listener {
        listener.set_nonblocking(true)?;
    }
    Ok(listener)
}

/// Ready when the parent of this worker is gone.
pub async fn parent_gone() -> &'static str {
    let (tell, told) = oneshot::channel::<()>();
    // A plain thread: it may read for ever, and must not hold up the end of the runtime.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        drop(tell);
    });
    let _ = told.await;
    "parent gone"
}

/// Runs `count` workers until `stop` is ready, then stops them and waits for them.
///
/// A worker that dies is replaced.
///
/// # Errors
/// When a worker cannot be started, or too many die; the other workers are stopped before.
pub async fn run(
    listener: &TcpListener,
    count: usize,
    telemetry: &Telemetry,
    patience: Duration,
    stop: impl Future<Output = &'static str>,
) -> Result<(), WorkersError> {
    let start_error = |error: nix::Error| WorkersError::Start(error.into());
    // Without this the socket would be closed in the workers.
    fcntl(listener, FcntlArg::F_SETFD(FdFlag::empty())).map_err(start_error)?;
    let start = |number| start(listener, number).map_err(WorkersError::Start);
    let mut running = FuturesUnordered::new();
    let mut pids = Vec::new();
    let mut deaths = VecDeque::new();
    for number in 1..=count {
        let worker = start(number)?;
        report_start(telemetry, &worker);
        pids.push(worker.pid);
        running.push(worker.wait());
    }
    let mut stop = std::pin::pin!(stop);
    let result = loop {
        tokio::select! {
            // A signal may go to the whole process group: workers that end then have not died.
            biased;
            signal = &mut stop => {
                telemetry.logger().info(TARGET, "Stopping workers", fields! { "reason": signal });
                break Ok(());
            }
            Some(dead) = running.next() => {
                let Dead { number, pid, status } = dead;
                pids.retain(|known| *known != pid);
                telemetry.logger().error(TARGET, "Worker died", fields! {
                    "worker": number,
                    "pid": pid,
                    "status": status.map_or_else(|error| error.to_string(), |status| status.to_string()),
                });
                deaths.push_back(Instant::now());
                while deaths.front().is_some_and(|death| death.elapsed() > RESTART_WINDOW) {
                    deaths.pop_front();
                }
                if deaths.len() > RESTART_LIMIT {
                    break Err(WorkersError::KeepDying);
                }
                match start(number) {
                    Ok(worker) => {
                        report_start(telemetry, &worker);
                        pids.push(worker.pid);
                        running.push(worker.wait());
                    }
                    Err(error) => break Err(error),
                }
            }
        }
    };
    signal_all(&pids, Signal::SIGTERM);
    // Longer than the workers' own patience, which they need for requests and then for telemetry.
    let all_gone = async { while running.next().await.is_some() {} };
    if tokio::time::timeout(patience * 2 + Duration::from_secs(5), all_gone).await.is_err() {
        signal_all(&pids, Signal::SIGKILL);
        while running.next().await.is_some() {}
    }
    result
}

fn signal_all(pids: &[i32], signal: Signal) {
    for pid in pids {
        // One that has just died is what we want.
        let _ = kill(Pid::from_raw(*pid), signal);
    }
}

fn report_start(telemetry: &Telemetry, worker: &Worker) {
    telemetry.logger().info(TARGET, "Worker started", fields! { "worker": worker.number, "pid": worker.pid });
}

struct Worker {
    number: usize,
    pid: i32,
    child: Child,
}

struct Dead {
    number: usize,
    pid: i32,
    status: io::Result<ExitStatus>,
}

impl Worker {
    async fn wait(mut self) -> Dead {
        // `Child::wait` closes stdin, which would tell the worker that its parent is gone.
        let stdin = self.child.stdin.take();
        let status = self.child.wait().await;
        drop(stdin);
        Dead { number: self.number, pid: self.pid, status }
    }
}

fn start(listener: &TcpListener, number: usize) -> io::Result<Worker> {
    let child = Command::new(std::env::current_exe()?)
        .args(["--workers", "1"])
        .env(WORKER_VARIABLE, number.to_string())
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDS_FIRST_FD", listener.as_raw_fd().to_string())
        .env_remove("LISTEN_PID")
        .stdin(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .ok_or_else(|| io::Error::other("the worker ended at once"))?;
    Ok(Worker { number, pid, child })
}
