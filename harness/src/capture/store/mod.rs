//! The store: one per running deployment, appended to by the sink, the stdout tap and the lifecycle, read by
//! correlation. Whoever waits is woken by every arrival, so nothing polls and nothing sleeps.

mod capture;
mod retention;
mod shelf;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{sync::watch, time::Instant};

use super::index::{Decoded, Index, encode};
use crate::telemetry::{Arrival, LogRecord, TraceId};

pub use capture::Capture;
pub use retention::{Dropped, Retention};
pub use shelf::Items;

/// A signal of the OpenTelemetry protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Metrics.
    Metrics,
    /// Profiles, a signal in development: kept as received, and counted.
    Profiles,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
            Self::Profiles => "profiles",
        })
    }
}

/// How an export request travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP.
    Http,
    /// Not at all: it was read from a file of OTLP/JSON lines.
    File,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Grpc => "gRPC",
            Self::Http => "HTTP",
            Self::File => "a file",
        })
    }
}

/// How an export request was encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Binary protobuf.
    Protobuf,
    /// OTLP/JSON.
    Json,
}

/// One export request as it was received, after decompression.
#[derive(Debug, Clone)]
pub struct ExportRequest {
    /// Which signal it carries.
    pub signal: Signal,
    /// How it travelled.
    pub transport: Transport,
    /// How `body` is encoded.
    pub encoding: Encoding,
    /// `User-Agent` of the exporter, empty when it sent none.
    pub user_agent: String,
    /// The `Export…ServiceRequest`, as `encoding` says.
    pub body: Bytes,
    /// When it reached the harness; stamped by [`Store::add_export`].
    pub arrival: Arrival,
}

/// Something that was received and is not valid telemetry: a span whose id is zero, a body that does not decode.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fault {
    /// Which signal it was meant to be.
    pub signal: Signal,
    /// What is wrong, naming the item.
    pub reason: String,
    /// When it reached the harness.
    pub arrival: Arrival,
}

/// A point in the life of a deployment.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Mark {
    /// The process or container was started; `what` names it (`pid 4711`, a container id).
    Started {
        /// Process or container.
        what: String,
    },
    /// A request of the harness's own asks whether it answers yet.
    ReadyAsked,
    /// Nobody listened to that request.
    ReadyUnheard,
    /// It answers.
    Ready,
    /// A stimulus is about to be sent.
    Sent {
        /// [`Delivery::mark`](crate::stimulus::Delivery::mark) of the stimulus.
        delivery: String,
    },
    /// Its answer was read to the end.
    Answered {
        /// As in [`Mark::Sent`].
        delivery: String,
    },
    /// While this machine held up what ran on it, so that the answer may have been late by that.
    HeldUp {
        /// As in [`Mark::Sent`].
        delivery: String,
        /// For how long some task had to wait for a processor, a disk or memory, at most as long as the answer took.
        micros: u64,
    },
    /// Nothing ran on this machine for a second or more, the service and its exporters included. Noted when a proof is looked for.
    StoodStill {
        /// When that began, in nanoseconds since the Unix epoch.
        from: u64,
        /// How long it took, in microseconds.
        micros: u64,
    },
    /// A request of the harness's own is about to be sent, to prove that all telemetry before it has arrived.
    FenceSent {
        /// Its mark, which is its `User-Agent`.
        fence: String,
        /// What it asks for; empty in what was recorded before this was noted.
        #[serde(default)]
        target: String,
    },
    /// A stimulus got no answer.
    Unanswered {
        /// As in [`Mark::Sent`].
        delivery: String,
    },
    /// The answer to it was read, or nobody waits for it any more.
    FenceOver {
        /// As in [`Mark::FenceSent`].
        fence: String,
    },
    /// A time begins in which a request of the harness's own asks for a target once, or nothing is asked.
    Trial {
        /// The target.
        target: String,
        /// Whether it is asked for.
        asks: bool,
    },
    /// That time is over.
    TrialOver {
        /// As in [`Mark::Trial`].
        target: String,
        /// The trace that the request of the harness's own told the service to carry on, where it asked.
        trace_id: Option<TraceId>,
        /// The status of its answer; `None` where nothing was asked, or nothing answered.
        #[serde(default)]
        status: Option<u16>,
    },
    /// The runtime took an event from `/next`.
    Dispatched {
        /// Lambda's request id.
        request_id: String,
        /// The execution environment, by the name of its log stream.
        environment: String,
    },
    /// The runtime posted the response or the error of an invocation.
    Responded {
        /// Lambda's request id.
        request_id: String,
    },
    /// The platform ended an invocation: a timeout, the end of the runtime or of an extension, an Init that failed. What the
    /// function itself reports as an error is none.
    InvocationFailed {
        /// Lambda's request id.
        request_id: String,
        /// The platform's name for it, what happened, and the last lines of output.
        what: String,
    },
    /// Runtime and extensions asked for the next event, and the environment was stopped.
    Frozen {
        /// The invocation that had ended; `None` after Init.
        request_id: Option<String>,
    },
    /// The environment goes on.
    Thawed,
    /// A function's execution environment is gone, its extensions too.
    EnvironmentEnded {
        /// Which, by the name of its log stream.
        environment: String,
        /// Why and how: `the runtime exited (exit status: 3)`.
        status: String,
    },
    /// The service called a stand-in for something it depends on.
    UpstreamCalled {
        /// Name of the stand-in, as configured.
        upstream: String,
        /// Method of the request.
        method: String,
        /// Path and query of the request.
        target: String,
        /// Headers in order, names in lower case.
        headers: Vec<(String, String)>,
        /// Status that was answered.
        status: u16,
    },
    /// The sink did something besides taking an export request: what a scenario told it to do wrong, or what it had to do
    /// to a connection.
    Sink {
        /// What, to whom.
        what: String,
    },
    /// An exporter sent telemetry to a path at which no signal is taken; it is told once.
    Astray {
        /// What, by whom.
        what: String,
    },
    /// It was asked to end.
    StopRequested {
        /// `SIGTERM`, `SIGINT`.
        signal: String,
    },
    /// The process or container is gone.
    Exited {
        /// Exit status as text: `exit status: 0`, `signal: 9 (SIGKILL)`.
        status: String,
    },
}

impl Mark {
    /// What the sink says that it did besides taking an export request.
    pub fn at_the_sink(&self) -> Option<&str> {
        match self {
            Self::Sink { what } | Self::Astray { what } => Some(what),
            _ => None,
        }
    }

    /// Whether the service is asked something from here on, by a scenario or by a fence.
    pub fn begins_request(&self) -> bool {
        matches!(self, Self::Sent { .. } | Self::FenceSent { .. })
    }

    /// Whether such a request is over, with or without an answer.
    pub fn ends_request(&self) -> bool {
        matches!(self, Self::Answered { .. } | Self::Unanswered { .. } | Self::FenceOver { .. })
    }
}

/// A mark with the moment it was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lifecycle {
    /// When.
    pub arrival: Arrival,
    /// What.
    pub mark: Mark,
}

/// Changes what was received before it is stored. The project's own tests apply instrumentation faults with it.
pub trait Tamper: fmt::Debug + Send + Sync {
    /// Called for every export request.
    fn export(&self, decoded: Decoded) -> Decoded {
        decoded
    }
    /// Called for every line of stdout and stderr, without its line feed; `None` loses the line.
    fn line(&self, line: String) -> Option<String> {
        Some(line)
    }
}

/// Shared access to a [`Capture`], which is only added to and, at its bound, forgets the oldest.
#[derive(Debug)]
pub struct Store {
    capture: Mutex<Capture>,
    changed: watch::Sender<u64>,
    tamper: Option<Arc<dyn Tamper>>,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Store {
    /// An empty store that keeps as much as [`Retention::default`] says; `tamper` is applied to everything before it is
    /// stored.
    pub fn new(tamper: Option<Arc<dyn Tamper>>) -> Self {
        Self::bounded(tamper, Retention::default())
    }

    /// An empty store that drops the oldest when it would keep more than `retention` says.
    pub fn bounded(tamper: Option<Arc<dyn Tamper>>, retention: Retention) -> Self {
        Self { capture: Mutex::new(Capture::new(retention)), changed: watch::Sender::new(0), tamper }
    }

    /// Adds an export request as it was received, with the index of what it holds and what in it was not valid.
    pub fn add_export(&self, request: ExportRequest, index: Index, faults: Vec<String>) -> Arrival {
        match &self.tamper {
            Some(tamper) => {
                let tampered = tamper.export(index.decode());
                let mut request = request;
                // A request and what it holds say the same.
                if let Some(body) = encode(&tampered) {
                    (request.body, request.encoding) = (body.into(), Encoding::Protobuf);
                }
                self.add_values(request, tampered, faults)
            }
            None => self.append(|capture| capture.push_export(request, index, faults)),
        }
    }

    /// Adds an export request whose contents are values: those of a test, or of a [`Tamper`].
    pub fn add_values(&self, request: ExportRequest, values: Decoded, faults: Vec<String>) -> Arrival {
        self.append(|capture| capture.push_values(request, values, faults))
    }

    /// Adds what a received body was wrong in, when it did not decode at all.
    pub fn add_fault(&self, signal: Signal, reason: String) -> Arrival {
        self.append(|capture| capture.push_fault(signal, reason))
    }

    /// Adds one line, parsed by `parse` (most lines are one record, some hold several).
    pub fn add_line(&self, line: String, parse: impl FnOnce(&str, Arrival) -> Vec<LogRecord>) -> Option<Arrival> {
        let line = match &self.tamper {
            Some(tamper) => tamper.line(line)?,
            None => line,
        };
        Some(self.append(|capture| capture.push_lines(|arrival| parse(&line, arrival))))
    }

    /// Makes a mark.
    pub fn mark(&self, mark: Mark) -> Arrival {
        self.append(|capture| capture.push_mark(mark))
    }

    /// What is added next gets this stamp: a record is put back in the order in which it came.
    pub fn stamp_next(&self, arrival: Arrival) {
        self.lock().stamp_next(arrival);
    }

    /// Looks at what is there now. `look` runs under the store's lock: compute, do not wait.
    pub fn look<T>(&self, look: impl FnOnce(&Capture) -> T) -> T {
        look(&self.lock())
    }

    /// Waits until `look` finds something, and looks again after every arrival; `None` once `deadline` has passed.
    pub async fn until<T>(&self, deadline: Instant, mut look: impl FnMut(&Capture) -> Option<T>) -> Option<T> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            if let Some(found) = look(&self.lock()) {
                return Some(found);
            }
            // The sender lives in `self`, so the only way out of this wait is an arrival or the deadline.
            if tokio::time::timeout_at(deadline, changed.changed()).await.is_err() {
                return look(&self.lock());
            }
        }
    }

    /// Lets everybody who waits look again.
    pub fn wake(&self) {
        self.changed.send_modify(|version| *version += 1);
    }

    fn append<T>(&self, append: impl FnOnce(&mut Capture) -> T) -> T {
        let done = append(&mut self.lock());
        self.wake();
        done
    }

    fn lock(&self) -> MutexGuard<'_, Capture> {
        // A panic of a reader leaves the data whole.
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
