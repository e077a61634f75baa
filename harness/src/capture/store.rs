//! The store: one per running deployment, appended to by the sink, the stdout tap and the lifecycle, read by
//! correlation. Whoever waits is woken by every arrival, so nothing polls and nothing sleeps.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::{sync::watch, time::Instant};

use super::sink::encode::encode;
use crate::telemetry::{Arrival, LogRecord, Metric, Span, SpanId, TraceId};

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

/// What an export request holds. Arrivals are stamped by [`Store::add_export`].
#[derive(Debug, Clone)]
pub enum Decoded {
    /// Spans of a traces request.
    Spans(Vec<Span>),
    /// Records of a logs request.
    Logs(Vec<LogRecord>),
    /// Metrics of a metrics request.
    Metrics(Vec<Metric>),
    /// How many profiles a profiles request holds.
    Profiles(usize),
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
    /// A request of the harness's own is about to be sent, to prove that all telemetry before it has arrived.
    FenceSent {
        /// Its mark, which is its `User-Agent`.
        fence: String,
    },
    /// The answer to it was read, or nobody waits for it any more.
    FenceOver {
        /// As in [`Mark::FenceSent`].
        fence: String,
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

/// A mark with the moment it was made.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lifecycle {
    /// When.
    pub arrival: Arrival,
    /// What.
    pub mark: Mark,
}

/// Everything that was captured, in order of arrival, with an index by trace.
#[derive(Debug, Default)]
pub struct Capture {
    requests: Vec<ExportRequest>,
    spans: Vec<Arc<Span>>,
    spans_by_trace: HashMap<TraceId, Vec<usize>>,
    logs: Vec<Arc<LogRecord>>,
    metrics: Vec<Arc<Metric>>,
    profiles: usize,
    faults: Vec<Fault>,
    lifecycle: Vec<Lifecycle>,
    seq: u64,
    /// The stamp of what is added next, when it comes from a record.
    recorded: Option<Arrival>,
}

impl Capture {
    /// Export requests as received.
    pub fn requests(&self) -> &[ExportRequest] {
        &self.requests
    }

    /// Every span.
    pub fn spans(&self) -> &[Arc<Span>] {
        &self.spans
    }

    /// The spans of one trace, in order of arrival.
    pub fn spans_of(&self, trace_id: TraceId) -> impl Iterator<Item = &Arc<Span>> {
        self.spans_by_trace.get(&trace_id).into_iter().flatten().map(|&index| &self.spans[index])
    }

    /// One span of one trace.
    pub fn span(&self, trace_id: TraceId, span_id: SpanId) -> Option<&Arc<Span>> {
        self.spans_of(trace_id).find(|span| span.span_id == span_id)
    }

    /// Every log record, lines included.
    pub fn logs(&self) -> &[Arc<LogRecord>] {
        &self.logs
    }

    /// Every metric, once for each time it was exported.
    pub fn metrics(&self) -> &[Arc<Metric>] {
        &self.metrics
    }

    /// How many profiles came; they are in [`requests`](Self::requests).
    pub fn profiles(&self) -> usize {
        self.profiles
    }

    /// What was received and is not valid telemetry.
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Marks in order.
    pub fn lifecycle(&self) -> &[Lifecycle] {
        &self.lifecycle
    }

    /// The last stamp that was given.
    pub fn last_seq(&self) -> u64 {
        self.seq
    }

    fn stamp(&mut self) -> Arrival {
        if let Some(arrival) = self.recorded.take() {
            self.seq = arrival.seq;
            return arrival;
        }
        self.seq += 1;
        let unix_nano = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX));
        Arrival { seq: self.seq, unix_nano }
    }

    fn push_export(&mut self, mut request: ExportRequest, decoded: Decoded, faults: Vec<String>) -> Arrival {
        let arrival = self.stamp();
        request.arrival = arrival;
        let signal = request.signal;
        self.requests.push(request);
        self.faults.extend(faults.into_iter().map(|reason| Fault { signal, reason, arrival }));
        match decoded {
            Decoded::Spans(spans) => {
                for mut span in spans {
                    span.arrival = arrival;
                    self.spans_by_trace.entry(span.trace_id).or_default().push(self.spans.len());
                    self.spans.push(Arc::new(span));
                }
            }
            Decoded::Logs(records) => self.logs.extend(records.into_iter().map(|mut record| {
                record.arrival = arrival;
                Arc::new(record)
            })),
            Decoded::Metrics(metrics) => self.metrics.extend(metrics.into_iter().map(|mut metric| {
                metric.arrival = arrival;
                Arc::new(metric)
            })),
            Decoded::Profiles(count) => self.profiles += count,
        }
        arrival
    }
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

/// Shared, append-only access to a [`Capture`].
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
    /// An empty store; `tamper` is applied to everything before it is stored.
    pub fn new(tamper: Option<Arc<dyn Tamper>>) -> Self {
        Self { capture: Mutex::default(), changed: watch::Sender::new(0), tamper }
    }

    /// Adds an export request with what it holds and what in it was not valid.
    pub fn add_export(&self, request: ExportRequest, decoded: Decoded, faults: Vec<String>) -> Arrival {
        let (mut request, mut decoded) = (request, decoded);
        if let Some(tamper) = &self.tamper {
            decoded = tamper.export(decoded);
            // A request and what it holds say the same.
            if let Some(body) = encode(&decoded) {
                (request.body, request.encoding) = (body.into(), Encoding::Protobuf);
            }
        }
        self.append(|capture| capture.push_export(request, decoded, faults))
    }

    /// Adds what a received body was wrong in, when it did not decode at all.
    pub fn add_fault(&self, signal: Signal, reason: String) -> Arrival {
        self.append(|capture| {
            let arrival = capture.stamp();
            capture.faults.push(Fault { signal, reason, arrival });
            arrival
        })
    }

    /// Adds one line, parsed by `parse` (most lines are one record, some hold several).
    pub fn add_line(&self, line: String, parse: impl FnOnce(&str, Arrival) -> Vec<LogRecord>) -> Option<Arrival> {
        let line = match &self.tamper {
            Some(tamper) => tamper.line(line)?,
            None => line,
        };
        Some(self.append(|capture| {
            let arrival = capture.stamp();
            capture.logs.extend(parse(&line, arrival).into_iter().map(Arc::new));
            arrival
        }))
    }

    /// Makes a mark.
    pub fn mark(&self, mark: Mark) -> Arrival {
        self.append(|capture| {
            let arrival = capture.stamp();
            capture.lifecycle.push(Lifecycle { arrival, mark });
            arrival
        })
    }

    /// What is added next gets this stamp: a record is put back in the order in which it came.
    pub fn stamp_next(&self, arrival: Arrival) {
        self.lock().recorded = Some(arrival);
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

    fn append<T>(&self, append: impl FnOnce(&mut Capture) -> T) -> T {
        let done = append(&mut self.lock());
        self.changed.send_modify(|version| *version += 1);
        done
    }

    fn lock(&self) -> MutexGuard<'_, Capture> {
        // A panic of a reader leaves the append-only data whole.
        self.capture.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_by_the_arrival_and_not_by_the_deadline() {
        let store = Arc::new(Store::default());
        let waiting = tokio::spawn({
            let store = store.clone();
            async move {
                let deadline = Instant::now() + Duration::from_secs(3600);
                store.until(deadline, |capture| capture.lifecycle().first().cloned()).await
            }
        });
        let made = store.mark(Mark::Ready);
        assert_eq!(waiting.await.unwrap().unwrap().arrival, made);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_without_an_arrival_ends_at_its_deadline() {
        let store = Store::default();
        let deadline = Instant::now() + Duration::from_secs(5);
        assert_eq!(store.until(deadline, |capture| capture.spans().first().cloned()).await, None);
    }

    #[test]
    fn stamps_are_one_order_over_marks_and_lines() {
        let store = Store::default();
        let first = store.mark(Mark::Ready);
        let second = store.add_line("x".into(), |_, _| Vec::new()).unwrap();
        assert!(first.seq < second.seq);
    }
}
