//! Fences: requests of the harness's own that prove that all telemetry before them has arrived.
//!
//! A batch processor hands on what it was given in that order, so once a later request's span has been exported by a
//! process, every span that ended before it in that process was exported too, or was dropped. The same holds for log
//! records, separately. Hence a fence for a delivery must come back from every process that had a part in it, or, while
//! none has shown itself, from as many as the deployment is configured to have.
//!
//! A fence that does not reach all those processes (a service behind the one that answers it) is followed by one that does:
//! the delivery's own request once more, where that was a `GET`, which is safe by HTTP's own rules.
//!
//! A fence is known by its trace id, by a link to it, or by its `User-Agent` in an attribute where the service does not carry
//! traces on: a service without propagators is wrong, but it is not incomplete.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use tokio::time::{Instant, MissedTickBehavior};

use self::{
    lines::Lines,
    returned::{Instance, Returned, Signature},
};
use super::{
    Incomplete, LogFence, Proof,
    proof::some_of,
    service::{Service, next_mark, probe},
};
use crate::{
    capture::{Capture, LogRow, Mark, Signal, Store},
    config,
    stimulus::{Caller, Delivery, HttpRequest, HttpResponse, http},
    telemetry::{Span, SpanId, TraceId},
};

mod lines;
mod returned;

/// A fence of which nothing has come back for this long is followed by another one: a sampler may have dropped it, or
/// another worker may have answered it.
const FOLLOW_UP: Duration = Duration::from_secs(2);

/// How long after the first request to the fence target (often the readiness request) log records of one are waited
/// for, to learn whether it writes any. Longer than the one second between exports that the specification sets for the
/// batch log processor.
const LEARN: Duration = Duration::from_millis(1500);

/// Rounds that miss a worker by chance before they are taken to miss it always.
const ROUNDS_ASTRAY: usize = 8;

/// Least time between two rounds, for a kernel that gives every connection to the wrong worker.
const SPACING: Duration = Duration::from_millis(50);

/// Requests to the fence target that are looked for among log records.
const REMEMBERED: usize = 64;

/// So many fences reached each worker, unless so few that did not come back were all that one of them got.
const MANY_FENCES: usize = 64;
const MISSED: usize = 8;

/// Requests per worker and round when several workers share a port: the kernel, not the harness, chooses who answers.
const PER_WORKER: usize = 4;

/// What is known about the fences of a deployment.
#[derive(Debug, Default)]
pub(super) struct Fences {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Requests to the fence target, readiness requests included.
    sent: Vec<Fence>,
    /// Whether the target writes OTLP log records; `None` before the first fence.
    logs: Option<bool>,
    /// Whether the target writes lines.
    lines: Lines,
    /// Whether fences were given their time once and came back without the span that hangs on the caller, or on nothing.
    no_entries: bool,
    /// Whether fences were given their time once and nothing came back that could speak for a request, where `quiet` is
    /// declared.
    hopeless: bool,
    /// The trace of every request of the harness's own.
    traces: Vec<TraceId>,
}

#[derive(Debug, Clone)]
struct Fence {
    trace_id: TraceId,
    /// The span that the service is told as its parent.
    caller: SpanId,
    mark: String,
    /// What arrived up to here was before it.
    after: u64,
    at: Instant,
}

impl Fence {
    fn new(caller: &Caller, mark: &str, after: u64) -> Self {
        let Caller { trace_id, span_id, .. } = *caller;
        Self { trace_id, caller: span_id, mark: mark.into(), after, at: Instant::now() }
    }

    fn signature(&self) -> Signature<'_> {
        Signature { trace_id: Some(self.trace_id), caller: Some(self.caller), mark: &self.mark }
    }
}

impl Fences {
    /// Remembers the trace of a request of the harness's own.
    pub(super) fn own(&self, caller: &Caller) {
        self.with(|known| known.traces.push(caller.trace_id));
    }

    /// The traces of the harness's own requests.
    pub(super) fn traces(&self) -> Vec<TraceId> {
        self.with(|known| known.traces.clone())
    }

    /// Remembers a request to the fence target.
    pub(super) fn note(&self, caller: &Caller, mark: &str, after: u64) {
        self.with(|known| {
            if known.sent.len() == REMEMBERED {
                known.sent.remove(0);
            }
            known.sent.push(Fence::new(caller, mark, after));
        });
    }

    fn with<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        change(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// When log records of the first request to the fence target would have come.
    fn learnt_by(&self) -> Instant {
        self.with(|known| known.sent.first().map_or_else(Instant::now, |fence| fence.at + LEARN))
    }

    /// How often the spans of a request to the fence target come: more than once where a service exports them twice, so
    /// that a fence is through only when its last copy is.
    fn copies(&self, store: &Store) -> usize {
        let sent = self.with(|known| known.sent.clone());
        store.look(|capture| copies(capture, &sent).into_values().max().unwrap_or(1))
    }

    /// Whether a fence must show the span of the request itself: unless its time was over once and none had.
    fn show_entries(&self, store: &Store) -> bool {
        let none = self.with(|known| known.no_entries) && !self.came_back(store, |own, span| own.is_entry(span));
        self.with(|known| known.no_entries = none);
        !none
    }

    /// Whether a span of any request to the fence target has come that `fits` too.
    fn came_back(&self, store: &Store, fits: impl Fn(&Signature<'_>, &Span) -> bool) -> bool {
        let sent = self.with(|known| known.sent.clone());
        let after = sent.first().map_or(0, |fence| fence.after);
        store.look(|capture| {
            let mut spans = capture.spans().since(after);
            spans.any(|span| {
                let mut signatures = sent.iter().map(Fence::signature);
                signatures.any(|signature| signature.span(span) && fits(&signature, span))
            })
        })
    }

    /// Whether requests to the fence target are known to write OTLP log records.
    fn logs(&self, store: &Store) -> Option<bool> {
        self.with(|known| {
            if known.logs != Some(true) {
                let after = known.sent.first().map_or(0, |fence| fence.after);
                let found = store.look(|capture| {
                    let mut records = capture.logs().since(after).only(LogRow::is_exported);
                    records.any(|record| known.sent.iter().any(|fence| fence.signature().record(record)))
                });
                if found {
                    known.logs = Some(true);
                }
            }
            known.logs
        })
    }
}

impl Service {
    /// Proves that everything that `deliveries` caused has arrived: a fence is behind all of them.
    pub(super) async fn settle(
        &self,
        spec: &config::Deployment,
        store: &Store,
        deliveries: &[&Delivery],
        deadline: Instant,
    ) -> Result<Proof, Incomplete> {
        let proof = tokio::select! {
            biased;
            status = self.sandbox.exited() => return Ok(Proof::Exited { status }),
            proof = self.fenced_or_quiet(spec, store, deliveries, deadline) => proof?,
        };
        self.sandbox.drain().await;
        if self.sandbox.hands_on_lines() {
            self.fences.lines_are_through(store, deliveries, deadline).await;
        }
        Ok(proof)
    }

    /// A fence where one comes back, and the declared silence where none does.
    async fn fenced_or_quiet(
        &self,
        spec: &config::Deployment,
        store: &Store,
        deliveries: &[&Delivery],
        deadline: Instant,
    ) -> Result<Proof, Incomplete> {
        let Some(window) = spec.quiet else { return self.fenced(spec, store, deliveries, deadline).await };
        let started = Instant::now();
        let mut unproven = None;
        if !self.fences.with(|known| known.hopeless) {
            // A fence is worth waiting for, as long as there is time left for the silence.
            let half = started + deadline.saturating_duration_since(started + window) / 2;
            match self.fenced(spec, store, deliveries, half).await {
                Ok(proof) => return Ok(proof),
                Err(incomplete) => unproven = Some(incomplete),
            }
            let came_back = self.fences.came_back(store, |_, _| true);
            self.fences.with(|known| known.hopeless |= !came_back);
        }
        if quiet(store, window, deadline).await {
            return Ok(Proof::Quiet(window));
        }
        let fence = unproven.map_or_else(|| "no fence ever came back".to_owned(), |incomplete| incomplete.reason);
        let reason = format!("{fence}; and spans or log records were exported too often for `quiet`, {window:?}");
        Err(Incomplete { reason, waited: started.elapsed() })
    }

    async fn fenced(
        &self,
        spec: &config::Deployment,
        store: &Store,
        deliveries: &[&Delivery],
        deadline: Instant,
    ) -> Result<Proof, Incomplete> {
        let proof = self.fence(spec, store, deliveries, deadline).await?;
        if store.look(|capture| deliveries.iter().all(|delivery| is_closed(capture, delivery))) {
            return Ok(proof);
        }
        // A server span may end a moment after the client has read the answer, and so after the fence's. Another fence
        // is behind it for certain; what is missing then is missing.
        self.fence(spec, store, deliveries, deadline).await
    }

    async fn fence(
        &self,
        spec: &config::Deployment,
        store: &Store,
        deliveries: &[&Delivery],
        deadline: Instant,
    ) -> Result<Proof, Incomplete> {
        let started = Instant::now();
        let mut fences: Vec<Fence> = Vec::new();
        let mut answered = 0;
        let half = started + deadline.saturating_duration_since(started) / 2;
        let mut refused = None;
        let mut trouble = None;
        // Rounds that came back, and not from every process that matters.
        let mut astray = 0;
        let again: BTreeSet<(&str, &[(String, String)])> = deliveries
            .iter()
            .filter(|delivery| delivery.may_be_repeated() && delivery.target != spec.fence_target())
            .map(|delivery| (delivery.target.as_str(), delivery.headers.as_slice()))
            .collect();
        let again: Vec<(&str, &[(String, String)])> = again.into_iter().collect();
        let mut rounds = tokio::time::interval(SPACING);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let alone = spec.workers == 1
                && store.look(|capture| Returned::of(capture, &fences, deliveries).each_from_a_process_of_its_own());
            if alone {
                self.fences.with(|known| known.hopeless = true);
            }
            if alone || (!fences.is_empty() && Instant::now() >= deadline) {
                return Err(self.incomplete(
                    spec,
                    store,
                    deliveries,
                    &fences,
                    (answered, refused),
                    trouble,
                    started.elapsed(),
                ));
            }
            let round = if spec.workers > 1 { PER_WORKER * spec.workers } else { 1 };
            // The delivery's own target goes where the delivery went, if the fence's did not.
            let (target, headers) = match again.len() {
                1.. if astray >= if spec.workers > 1 { ROUNDS_ASTRAY } else { 1 } => again[(astray - 1) % again.len()],
                _ => (spec.fence_target(), [].as_slice()),
            };
            let requests = (0..round).map(|_| {
                let (fence, request) = self.begin(spec, store, target, headers);
                fences.push(fence.clone());
                let limit = spec.request_timeout.min(deadline.saturating_duration_since(Instant::now()));
                self.send_fence(store, fence, request, limit)
            });
            for result in join_all(requests.collect::<Vec<_>>()).await {
                match result {
                    Ok(response) => {
                        answered += 1;
                        refused = Some(response.status).filter(|status| *status >= 400);
                    }
                    // A request that had no time left says nothing of the service.
                    Err(http::HttpError::TimedOut { limit, .. })
                        if limit < spec.request_timeout && (answered > 0 || limit.is_zero()) => {}
                    Err(error) => trouble = Some(error),
                }
            }
            let until = deadline.min(Instant::now() + FOLLOW_UP);
            let entered = |returned: &Returned| returned.covers_entries(spec.workers);
            let must_enter = self.fences.show_entries(store);
            let mut spans = store
                .until(until, |capture| {
                    let returned = Returned::of(capture, &fences, deliveries);
                    let parts = returned.covers_parts(spec.workers);
                    let all = parts && (!must_enter || entered(&returned));
                    // All came back, none from the process that matters: ask again at once.
                    (all || (!parts && returned.fences == fences.len())).then_some(all)
                })
                .await;
            if spans == Some(false) {
                astray += 1;
            }
            if spans.is_none() && must_enter && Instant::now() >= half {
                let returned = store.look(|capture| Returned::of(capture, &fences, deliveries));
                // One that shows none never will.
                if returned.covers_parts(spec.workers) && returned.entries.is_empty() {
                    self.fences.with(|known| known.no_entries = true);
                    spans = Some(true);
                }
            }
            if spans == Some(true) {
                let expected = self.fences.copies(store);
                if expected > 1 {
                    let all = |capture: &Capture| copies(capture, &fences).values().all(|count| *count >= expected);
                    store.until(until, |capture| all(capture).then_some(())).await;
                }
                let learned = self.fences.logs(store);
                if learned == Some(false) {
                    return Ok(self.proof(store, &fences, deliveries));
                }
                let wait = match learned {
                    Some(_) => until,
                    None => deadline.min(self.fences.learnt_by()),
                };
                let logs = store.until(wait, |capture| {
                    let returned = Returned::of(capture, &fences, deliveries);
                    returned.covers_logs(capture, spec.workers).then_some(())
                });
                if logs.await.is_some() {
                    return Ok(self.proof(store, &fences, deliveries));
                }
                // A process that writes nothing for the fence's target does for the delivery's own.
                astray += 1;
                if learned.is_none() && self.fences.logs(store).is_none() && Instant::now() >= self.fences.learnt_by() {
                    self.fences.with(|known| known.logs = Some(false));
                    return Ok(self.proof(store, &fences, deliveries));
                }
            }
        }
    }

    /// Notes that a request of the harness's own is about to be sent.
    fn begin(
        &self,
        spec: &config::Deployment,
        store: &Store,
        target: &str,
        headers: &[(String, String)],
    ) -> (Fence, HttpRequest) {
        let (mut request, mark) = (probe(target), next_mark("tracegate-fence"));
        // A header of the scenario's stands in the place of the harness's own; a fence is known by its User-Agent.
        let given = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        request.headers.retain(|(name, _)| !given(name));
        request.headers.extend(headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("user-agent")).cloned());
        let after = store.mark(Mark::FenceSent { fence: mark.clone(), target: target.to_owned() }).seq;
        self.fences.own(&request.caller);
        if target == spec.fence_target() {
            self.fences.note(&request.caller, &mark, after);
        }
        (Fence::new(&request.caller, &mark, after), request)
    }

    async fn send_fence(
        &self,
        store: &Store,
        fence: Fence,
        request: HttpRequest,
        limit: Duration,
    ) -> Result<HttpResponse, http::HttpError> {
        let over = Over { store, fence: fence.mark };
        http::send(self.address, &request, &over.fence, limit).await
    }

    /// Asks for a target once, with these headers, and waits for the answer, whatever it is. Returns the trace that it was told and the
    /// status of the answer.
    pub(super) async fn ask(
        &self,
        spec: &config::Deployment,
        store: &Store,
        target: &str,
        headers: &[(String, String)],
    ) -> (TraceId, Option<u16>) {
        let (fence, request) = self.begin(spec, store, target, headers);
        let trace_id = fence.trace_id;
        let answer = self.send_fence(store, fence, request, spec.request_timeout).await;
        (trace_id, answer.ok().map(|response| response.status))
    }

    fn proof(&self, store: &Store, fences: &[Fence], deliveries: &[&Delivery]) -> Proof {
        let (returned, exported) = store.look(|capture| {
            let exported = capture.received(Signal::Logs).items > 0;
            (Returned::of(capture, fences, deliveries), exported)
        });
        let logs = match (self.fences.logs(store), exported) {
            (Some(true), _) => LogFence::CameBack,
            (_, true) => LogFence::NotWritten,
            (_, false) => LogFence::NeverExported,
        };
        Proof::Fence { sent: fences.len(), instances: returned.spans.into_iter().flatten().collect(), logs }
    }

    #[expect(clippy::too_many_arguments, reason = "all of it is what the sentence says")]
    fn incomplete(
        &self,
        spec: &config::Deployment,
        store: &Store,
        deliveries: &[&Delivery],
        fences: &[Fence],
        (answered, refused): (usize, Option<u16>),
        trouble: Option<http::HttpError>,
        waited: Duration,
    ) -> Incomplete {
        let returned = store.look(|capture| Returned::of(capture, fences, deliveries));
        let named = |instances: &BTreeSet<Instance>| {
            let names = instances.iter().map(|name| name.as_deref().unwrap_or("(no instance)"));
            if instances.is_empty() { "none".into() } else { some_of(names) }
        };
        let target = spec.fence_target();
        let mut reason = format!("{} fences were sent (GET {target}), {answered} were answered", fences.len());
        if let Some(status) = refused {
            reason += &format!(" (with {status}: is the path right?)");
        }
        reason += ", ";
        if returned.spans.is_empty() {
            let (requests, spans, trouble) =
                store.look(|capture| (capture.requests().len(), capture.spans().len(), capture.trouble_at_the_sink(0)));
            reason +=
                &format!("and no span of theirs arrived; {spans} spans were received from this deployment so far. ");
            reason += &match (requests, spans) {
                (0, _) if !trouble.is_empty() => {
                    format!("Nothing of what it sent could be taken: {}", trouble.join("; "))
                }
                (0, _) => "It exported nothing at all: does it read OTEL_EXPORTER_OTLP_ENDPOINT (and is \
                           OTEL_EXPORTER_OTLP_PROTOCOL one of grpc, http/protobuf and http/json), and are the processes that \
                           answer requests instrumented, and not only a parent of theirs?"
                    .to_owned(),
                (_, 0) => "It exports other signals and no spans: is its traces exporter on, and does it sample?".to_owned(),
                _ => format!(
                    "Is GET {target} left out of the instrumentation, as health checks often are (OTEL_PYTHON_EXCLUDED_URLS \
                     and the like), or not sampled, or does the service begin a trace of its own where it is told one \
                     (`traceparent`), by which a fence is known? Set `fence` to the path of an instrumented GET request, or, where there is \
                     none, `quiet` to a silence that is enough; `patience` must be longer than the exporter's delay \
                     (OTEL_BSP_SCHEDULE_DELAY)"
                ),
            };
        } else if !returned.covers_parts(spec.workers) {
            let needed = if returned.span_parts.is_empty() {
                format!("{} workers are configured", spec.workers)
            } else {
                format!("the request's spans are from {}", named(&returned.span_parts))
            };
            reason += &format!("{} came back, from instances {}; {needed}", returned.fences, named(&returned.spans));
            if spec.workers == 1 && returned.each_from_a_process_of_its_own() {
                reason += "; each fence came back from a process of its own; where every request has one, no fence can speak \
                           for another: set `quiet` to a silence that is enough";
            } else if !returned.span_parts.is_empty() {
                reason += "; set `fence` to the path of a GET request that goes through all of them, or, where there is none, \
                           `quiet` to a silence that is enough. A process that has ended since, as workers do that are recycled \
                           after so many requests (max_requests and the like), answers no fence: let them live longer in tests";
            }
            if returned.spans.len() < spec.workers && !returned.spans.contains(&None) {
                // Of so many the kernel gives each worker some: all came back, so each exports.
                reason += if returned.fences + MISSED >= fences.len() && fences.len() >= MANY_FENCES {
                    "; nearly all fences came back, so that every worker exports: do several name themselves by the same \
                     service.instance.id (one that is made before they are forked is shared), or is one of them another \
                     service, which the fence does not reach?"
                } else {
                    "; a worker process that is forked or spawned after the instrumentation has none of its own"
                };
            }
            if returned.spans.contains(&None) {
                reason += "; a resource without service.instance.id or process.pid cannot be told from another";
            }
        } else if self.fences.show_entries(store) && !returned.covers_entries(spec.workers) {
            reason += &format!(
                "{} came back, from instances {}; the spans that they make where they come in, which hang on the caller, came from {} \
                 of {} workers, and that of the request did not come",
                returned.fences,
                named(&returned.spans),
                returned.entries.len(),
                spec.workers
            );
        } else {
            reason += &format!(
                "their spans came back, their OTLP log records did not: those that came are from instances {}, and none is from {}; \
                 set `fence` to the path of a GET request for which each of them writes a log record, or, where there is none, \
                 `quiet` to a silence that is enough",
                named(&returned.logs),
                store.look(|capture| match returned.without_logs(capture) {
                    missing if missing.is_empty() => format!("the other of {} workers", spec.workers),
                    missing => format!("{}, which had a part in the request and exports log records", named(&missing)),
                })
            );
        }
        if let Some(trouble) = trouble {
            reason += &format!("; {trouble}");
        }
        Incomplete { reason, waited }
    }
}

/// How often each span of these fences came.
fn copies(capture: &Capture, fences: &[Fence]) -> HashMap<(TraceId, SpanId), usize> {
    let after = fences.iter().map(|fence| fence.after).min().unwrap_or(u64::MAX);
    let mut counts = HashMap::new();
    for span in capture.spans().iter().rev().take_while(|span| span.arrival.seq > after) {
        if fences.iter().any(|fence| fence.signature().span(span)) {
            *counts.entry((span.trace_id, span.span_id)).or_default() += 1;
        }
    }
    counts
}

/// Says in the store that a fence is over, also when the wait for its answer is given up.
struct Over<'a> {
    store: &'a Store,
    fence: String,
}

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.store.mark(Mark::FenceOver { fence: std::mem::take(&mut self.fence) });
    }
}

/// Waits until no span and no log record was exported for as long as `window`; `false` when that was not so by
/// `deadline`. Metrics do not count: they are exported whether anything happens or not.
pub(super) async fn quiet(store: &Store, window: Duration, deadline: Instant) -> bool {
    let exports = |capture: &Capture| {
        let signals = [Signal::Traces, Signal::Logs, Signal::Profiles];
        signals.into_iter().map(|signal| capture.received(signal).requests).sum::<u64>()
    };
    loop {
        let until = Instant::now() + window;
        if until > deadline {
            return false;
        }
        let before = store.look(exports);
        if store.until(until, |capture| (exports(capture) > before).then_some(())).await.is_none() {
            return true;
        }
    }
}

/// Whether each of the delivery's spans has its parent, and a sampled delivery has spans at all.
fn is_closed(capture: &Capture, delivery: &Delivery) -> bool {
    let own = Signature::of(delivery);
    let since = || capture.spans().iter().rev().take_while(|span| span.arrival.seq > delivery.sent.seq);
    let traces: BTreeSet<TraceId> = since().filter(|span| own.span(span)).map(|span| span.trace_id).collect();
    if traces.is_empty() {
        return delivery.caller.is_some_and(|caller| !caller.sampled);
    }
    let remote = delivery.remote_parents();
    since().filter(|span| traces.contains(&span.trace_id)).all(|span| match span.parent_span_id {
        None => true,
        // A parent in another process may be one of the same deployment, whose exporter comes later.
        Some(parent) => remote.contains(&parent) || capture.span(span.trace_id, parent).is_some(),
    })
}
