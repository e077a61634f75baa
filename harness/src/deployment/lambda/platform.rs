//! What the platform itself says of an environment: the events of the Telemetry API ("Lambda Telemetry API Event schema
//! reference" in the Lambda Developer Guide), and the lines around the function's own that CloudWatch Logs has ("Viewing
//! logs", "Configuring JSON and plain text log formats").
//!
//! There is no `platform.end`; `platform.runtimeDone` and `platform.report` stand for it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use crate::{
    capture::{
        Store,
        stdout::{EXTENSION_LOGGER, PLATFORM_LOGGER, plain_line},
    },
    config,
    telemetry::LogOrigin,
};

/// How something ended, as `status` and `errorType` have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Success,
    /// The function said that it went wrong.
    Error(String),
    /// The runtime or an extension ended.
    Failure(String),
    Timeout,
}

impl End {
    fn status(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Error(_) => "error",
            Self::Failure(_) => "failure",
            Self::Timeout => "timeout",
        }
    }

    fn put(&self, record: &mut Map<String, Value>) {
        record.insert("status".into(), self.status().into());
        if let Self::Error(kind) | Self::Failure(kind) = self {
            record.insert("errorType".into(), kind.as_str().into());
        }
    }
}

/// The phase in which an Init happens: the one of its own, or the first invocation's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitPhase {
    Init,
    Invoke,
}

impl InitPhase {
    const fn name(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Invoke => "invoke",
        }
    }
}

/// What one environment has said so far, and who wants to hear it.
#[derive(Debug)]
pub(super) struct Platform {
    store: Arc<Store>,
    function: config::Function,
    /// Whether `AWS_LAMBDA_LOG_FORMAT` is `JSON`.
    json: bool,
    heard: Mutex<Heard>,
    /// Wakes whoever delivers.
    pub(super) more: Notify,
    /// Those under way, by request id.
    invocations: Mutex<HashMap<String, Invocation>>,
    init: Mutex<(Instant, Option<f64>)>,
}

#[derive(Debug)]
struct Heard {
    events: Vec<Arc<Event>>,
    /// Records of the store that have been looked at.
    records: usize,
    /// Whether nobody has subscribed, so that nothing need be kept.
    unheard: bool,
}

/// One event, and the type by which it is subscribed to.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) kind: &'static str,
    pub(super) json: String,
}

#[derive(Debug)]
struct Invocation {
    request_id: String,
    tracing: Option<Value>,
    trace_header: Option<String>,
    begun: Instant,
    begun_at: Timestamp,
    responded: Option<(Instant, usize)>,
    done: Option<(Instant, End)>,
    init_ms: Option<f64>,
}

impl Platform {
    pub(super) fn new(store: Arc<Store>, function: config::Function, json: bool) -> Self {
        let records = store.look(|capture| capture.logs().end());
        Self {
            store,
            function,
            json,
            heard: Mutex::new(Heard { events: Vec::new(), records, unheard: false }),
            more: Notify::new(),
            invocations: Mutex::default(),
            init: Mutex::new((Instant::now(), None)),
        }
    }

    /// Says that Init is over: who has not subscribed by now will not.
    pub(super) fn settle_audience(&self, subscribed: bool) {
        let mut heard = lock(&self.heard);
        heard.unheard = !subscribed;
        if heard.unheard {
            heard.events = Vec::new();
        }
    }

    pub(super) fn init_start(&self, phase: InitPhase) {
        let function = &self.function;
        self.say(
            "platform.initStart",
            json!({
                "initializationType": function.initialization_type(),
                "phase": phase.name(),
                "functionName": function.name,
                "functionVersion": function.version,
                "instanceMaxMemory": u64::from(function.memory) * 1024 * 1024,
            }),
            true,
        );
        lock(&self.init).0 = Instant::now();
    }

    pub(super) fn init_done(&self, phase: InitPhase, end: &End) {
        let duration = milliseconds(lock(&self.init).0, Instant::now());
        let mut record = Map::new();
        record.insert("initializationType".into(), self.function.initialization_type().into());
        record.insert("phase".into(), phase.name().into());
        end.put(&mut record);
        let failed = *end != End::Success;
        self.say("platform.initRuntimeDone", Value::Object(record.clone()), failed);
        record.insert("metrics".into(), json!({ "durationMs": duration }));
        self.say("platform.initReport", Value::Object(record), failed);
        if !failed && phase == InitPhase::Init {
            lock(&self.init).1 = Some(duration);
        }
    }

    pub(super) fn extension(&self, name: &str, state: &str, events: &[&str]) {
        self.say("platform.extension", json!({ "name": name, "state": state, "events": events }), false);
    }

    pub(super) fn subscribed(&self, name: &str, types: &[String]) {
        let record = json!({ "name": name, "state": "Subscribed", "types": types });
        self.say("platform.telemetrySubscription", record, false);
    }

    /// Events were dropped for a subscriber.
    pub(super) fn logs_dropped(&self, reason: &str, records: usize, bytes: usize) {
        let record = json!({ "reason": reason, "droppedRecords": records, "droppedBytes": bytes });
        self.say("platform.logsDropped", record, true);
    }

    /// An invocation begins. `span_id` is the parent in Lambda's header.
    pub(super) fn start(&self, request_id: &str, trace_header: Option<&str>) {
        let tracing = trace_header.filter(|_| self.is_heard(true)).map(|value| {
            let span_id = value.split(';').find_map(|field| field.trim().strip_prefix("Parent="));
            json!({ "spanId": span_id, "type": "X-Amzn-Trace-Id", "value": value })
        });
        if !self.json {
            self.line(format!("START RequestId: {request_id} Version: {}", self.function.version), Some(request_id));
        }
        if self.is_heard(true) {
            let mut record = json!({ "requestId": request_id, "version": self.function.version });
            if let Some(tracing) = &tracing {
                record["tracing"] = tracing.clone();
            }
            self.say("platform.start", record, true);
        }
        let init_ms = lock(&self.init).1.take();
        let invocation = Invocation {
            request_id: request_id.to_owned(),
            tracing,
            trace_header: trace_header.map(str::to_owned),
            begun: Instant::now(),
            begun_at: Timestamp::now(),
            responded: None,
            done: None,
            init_ms,
        };
        lock(&self.invocations).insert(request_id.to_owned(), invocation);
    }

    /// The runtime has posted a response of so many bytes.
    pub(super) fn responded(&self, request_id: &str, bytes: usize) {
        if let Some(invocation) = lock(&self.invocations).get_mut(request_id) {
            invocation.responded.get_or_insert((Instant::now(), bytes));
        }
    }

    /// The runtime is through with the invocation, whatever the extensions still do. Said once.
    pub(super) fn runtime_done(&self, request_id: &str, end: End) {
        let mut guard = lock(&self.invocations);
        let Some(invocation) = guard.get_mut(request_id).filter(|invocation| invocation.done.is_none()) else { return };
        let now = Instant::now();
        let failed = end != End::Success;
        if !self.is_heard(failed) {
            invocation.done = Some((now, end));
            return;
        }
        let mut record = invocation.record(&end);
        let mut metrics = json!({ "durationMs": milliseconds(invocation.begun, now) });
        if let Some((responded, bytes)) = invocation.responded {
            metrics["producedBytes"] = bytes.into();
            let latency = milliseconds(invocation.begun, responded);
            let span =
                json!({ "name": "responseLatency", "start": invocation.begun_at.to_string(), "durationMs": latency });
            record.insert("spans".into(), json!([span]));
        }
        record.insert("metrics".into(), metrics);
        invocation.done = Some((now, end));
        drop(guard);
        self.say("platform.runtimeDone", Value::Object(record), failed);
    }

    /// Runtime and extensions are through with the invocation, or the environment is gone. `memory_mb` is the most memory
    /// that the environment had so far.
    pub(super) fn report(&self, request_id: &str, memory_mb: u64) {
        let Some(invocation) = lock(&self.invocations).remove(request_id) else { return };
        let (done, end) = invocation.done.clone().unwrap_or((Instant::now(), End::Success));
        let duration = milliseconds(invocation.begun, done);
        let billed = (duration + invocation.init_ms.unwrap_or_default()).ceil() as u64;
        if !self.json {
            self.lines_of_report(&invocation, (duration, billed, memory_mb), &end);
        }
        if self.is_heard(true) {
            let mut metrics = json!({
                "durationMs": duration,
                "billedDurationMs": billed,
                "memorySizeMB": self.function.memory,
                "maxMemoryUsedMB": memory_mb,
            });
            if let Some(init) = invocation.init_ms {
                metrics["initDurationMs"] = json!(init);
            }
            let mut record = invocation.record(&end);
            record.insert("metrics".into(), metrics);
            self.say("platform.report", Value::Object(record), true);
        }
    }

    /// What it took: ms, billed ms, and MB.
    fn lines_of_report(&self, invocation: &Invocation, took: (f64, u64, u64), end: &End) {
        let id = &invocation.request_id;
        let (duration, billed, memory_mb) = took;
        if *end == End::Timeout {
            let seconds = self.function.timeout.as_secs_f64();
            self.line(format!("{} {id} Task timed out after {seconds:.2} seconds", Timestamp::now()), Some(id));
        }
        self.line(format!("END RequestId: {id}"), Some(id));
        let mut report = format!(
            "REPORT RequestId: {id}\tDuration: {duration:.2} ms\tBilled Duration: {billed} ms\tMemory Size: {} MB\t\
             Max Memory Used: {memory_mb} MB\t",
            self.function.memory
        );
        if let Some(init) = invocation.init_ms {
            report.push_str(&format!("Init Duration: {init:.2} ms\t"));
        }
        match end {
            End::Success => {}
            End::Timeout => report.push_str("Status: timeout"),
            End::Error(kind) | End::Failure(kind) => {
                report.push_str(&format!("Status: {}\tError Type: {kind}", end.status()));
            }
        }
        self.line(report.trim_end().to_owned(), Some(id));
        let field = |name: &str| {
            let header = invocation.trace_header.as_deref().unwrap_or_default();
            header.split(';').find_map(|field| field.trim().strip_prefix(name)).unwrap_or_default().to_owned()
        };
        if field("Sampled=") == "1" {
            let line = format!("XRAY TraceId: {}\tSegmentId: {}\tSampled: true", field("Root="), field("Parent="));
            self.line(line, Some(id));
        }
    }

    /// A line of the platform's own, among the function's.
    fn line(&self, line: String, request_id: Option<&str>) {
        self.store.add_line(line, |line, arrival| {
            let mut records = plain_line(line, LogOrigin::Stdout, arrival, PLATFORM_LOGGER);
            records.iter_mut().for_each(|record| record.request_id = request_id.map(str::to_owned));
            records
        });
    }

    /// Whether anybody takes events, or those `at_info` as lines: most functions have no subscriber, and an event costs more
    /// than the rest of an invocation's bookkeeping.
    fn is_heard(&self, at_info: bool) -> bool {
        (self.json && at_info) || !lock(&self.heard).unheard
    }

    /// An event, behind the lines that were written before it. `at_info` events are lines of the JSON format too.
    fn say(&self, kind: &str, record: Value, at_info: bool) {
        let as_line = self.json && at_info;
        let mut heard = lock(&self.heard);
        if heard.unheard && !as_line {
            return;
        }
        let json = json!({ "time": Timestamp::now().to_string(), "type": kind, "record": record }).to_string();
        if as_line {
            self.line(json.clone(), record.get("requestId").and_then(Value::as_str));
        }
        if heard.unheard {
            return;
        }
        self.listen(&mut heard);
        heard.events.push(Arc::new(Event { kind: "platform", json }));
        drop(heard);
        self.more.notify_waiters();
    }

    /// Takes the lines of function and extensions that have come since.
    fn listen(&self, heard: &mut Heard) {
        let seen = heard.records;
        let new = self.store.look(|capture| capture.logs().from(seen).cloned().collect::<Vec<_>>());
        heard.records += new.len();
        for record in new.iter().filter(|record| record.origin != LogOrigin::Otlp && record.logger != PLATFORM_LOGGER) {
            let kind = if record.logger.starts_with(EXTENSION_LOGGER) { "extension" } else { "function" };
            // In the JSON format a line that is an object stays one.
            let object = self.json.then(|| serde_json::from_str::<Map<String, Value>>(&record.raw).ok()).flatten();
            let said = object.map_or_else(|| Value::from(record.raw.as_str()), Value::Object);
            let time = Timestamp::from_nanosecond(i128::from(record.arrival.unix_nano)).unwrap_or_default();
            let json = json!({ "time": time.to_string(), "type": kind, "record": said }).to_string();
            heard.events.push(Arc::new(Event { kind, json }));
        }
    }

    /// The events from `position` on, and the position behind them.
    pub(super) fn since(&self, position: usize) -> (Vec<Arc<Event>>, usize) {
        let mut heard = lock(&self.heard);
        if !heard.unheard {
            self.listen(&mut heard);
        }
        (heard.events.get(position..).unwrap_or_default().to_vec(), heard.events.len())
    }

    /// Where new lines come from.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }
}

impl Invocation {
    fn record(&self, end: &End) -> Map<String, Value> {
        let mut record = Map::from_iter([("requestId".to_owned(), Value::from(self.request_id.as_str()))]);
        end.put(&mut record);
        if let Some(tracing) = &self.tracing {
            record.insert("tracing".into(), tracing.clone());
        }
        record
    }
}

/// Between two moments, to the microsecond.
fn milliseconds(from: Instant, to: Instant) -> f64 {
    (to.saturating_duration_since(from).as_secs_f64() * 1_000_000.0).round() / 1000.0
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "platform_tests.rs"]
mod tests;
