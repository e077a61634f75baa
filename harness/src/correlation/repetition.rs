//! Whether that comes again which came with a request and may be its own.
//!
//! A thread or a task that lost its context writes lines without ids behind the answer, begins traces of its own, or goes on
//! in the trace of an earlier request. So do fences, jobs and work that an earlier request deferred; neither time nor ids say
//! whose it is. What says so is repetition: where the same request is made again ([`TRIALS`] times, with nothing else under
//! way), the same comes again each time, and never in the silence behind it. A request that changes something is not made again:
//! of that only what comes with fences alone is known to be none of it.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use super::{
    background::{GRACE, Shape},
    detached::SpanShape,
};
use crate::{
    capture::{Capture, Mark},
    telemetry::{LogRecord, Span, TraceId},
};

/// How long after its answer that is looked for which a request left behind.
pub const WITHIN: Duration = Duration::from_millis(300);

/// How often a request is repeated, with as long a silence behind each. A job that runs every few seconds is taken for the
/// request's once in a million.
pub const TRIALS: usize = 3;

/// What came with a request that was alone, and nothing but the time says that it is of that request.
#[derive(Debug, Clone, Default)]
pub struct Doubtful {
    /// Structured lines without ids, within [`WITHIN`] of the answer.
    pub lines: Vec<Arc<LogRecord>>,
    /// Root spans of other traces without a link, that began before that.
    pub roots: Vec<Arc<Span>>,
    /// Spans that began before the answer, below a span of another trace.
    pub strays: Vec<Arc<Span>>,
    /// Records that were written before the answer and name another trace.
    pub records: Vec<Arc<LogRecord>>,
}

impl Doubtful {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.roots.is_empty() && self.strays.is_empty() && self.records.is_empty()
    }

    /// Only what came again in each trial with the request, and in none without; of what is in another trace only that which the
    /// repeated request had none of in its own. `None` where the request was not repeated, or answered with another status than
    /// `status`: then it was not the same.
    pub fn repeated(self, capture: &Capture, target: &str, status: u16) -> Option<Self> {
        let trials = Trials::of(capture, target, Some(status))?;
        let Self { mut lines, mut roots, mut strays, mut records } = self;
        if !(lines.is_empty() && records.is_empty()) {
            let came = trials.each(|trial| trial.records(capture));
            lines.retain(|record| came.set_off(&Shape::of(record), |trace_id| trace_id.is_none()));
            records.retain(|record| came.is_elsewhere(capture, &Shape::of(record)));
        }
        if !(roots.is_empty() && strays.is_empty()) {
            let came = trials.each(|trial| trial.spans(capture));
            roots.retain(|span| came.set_off(&SpanShape::of(span), |_| true));
            strays.retain(|span| came.is_elsewhere(capture, &SpanShape::of(span)));
        }
        Some(Self { lines, roots, strays, records })
    }

    /// Of what came with a request that may not be repeated: lines and root spans, without those that come with the harness's fences
    /// when nothing else is asked. What is in another request's trace may be what that one deferred.
    /// `targets` are those of fences.
    pub fn beside_fences(self, capture: &Capture, targets: &[&str]) -> Self {
        let Self { mut lines, mut roots, .. } = self;
        let fences = fences_alone(capture, targets);
        let since = fences.first().map_or(u64::MAX, |fence| fence.order.0);
        if !lines.is_empty() {
            let mut shapes: HashSet<Shape> = lines.iter().map(|record| Shape::of(record)).collect();
            for record in capture.logs().since(since).filter(|record| record.format.is_structured()) {
                let within = match record.exported_time() {
                    Some(time) => holds(&fences, |fence| fence.time, time),
                    None => holds(&fences, |fence| fence.order, record.arrival.seq),
                };
                if within {
                    shapes.remove(&Shape::of(record));
                }
            }
            lines.retain(|record| shapes.contains(&Shape::of(record)));
        }
        if !roots.is_empty() {
            let began = |start: u64| holds(&fences, |fence| fence.time, start);
            let came = capture.spans().since(since).only(|row| row.is_root() && began(row.start_unix_nano()));
            let came: HashSet<SpanShape> = came.map(|span| SpanShape::of(span)).collect();
            roots.retain(|span| !came.contains(&SpanShape::of(span)));
        }
        Self { lines, roots, ..Self::default() }
    }
}

/// Whether one of these times, which are in order and begin one after the other, holds `at`. Those that begin long before have
/// ended: fences overlap by few.
fn holds(times: &[Trial], of: impl Fn(&Trial) -> (u64, u64), at: u64) -> bool {
    let begun = times.partition_point(|trial| of(trial).0 <= at);
    times[..begun].iter().rev().take(OVERLAP).any(|trial| of(trial).1 >= at)
}

/// Fences that may be under way at the same time: several for each of many workers.
const OVERLAP: usize = 256;

/// The times in which fences were under way, up to [`WITHIN`] behind them, when no request had been for [`GRACE`].
fn fences_alone(capture: &Capture, targets: &[&str]) -> Vec<Trial> {
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let (mut under_way, mut answered) = (0_usize, 0_u64);
    let mut open = HashMap::new();
    let mut alone: Vec<Trial> = Vec::new();
    for entry in capture.lifecycle() {
        let now = entry.arrival;
        match &entry.mark {
            Mark::Sent { .. } => {
                under_way += 1;
                open.clear();
                // What comes from here on may be the request's.
                for fence in alone.iter_mut().rev().take_while(|fence| fence.order.1 == u64::MAX) {
                    fence.order.1 = now.seq;
                    fence.time.1 = fence.time.1.min(now.unix_nano);
                }
            }
            Mark::Answered { .. } | Mark::Unanswered { .. } => {
                (under_way, answered) = (under_way.saturating_sub(1), now.unix_nano)
            }
            Mark::FenceSent { fence, target }
                if under_way == 0
                    && targets.contains(&target.as_str())
                    && now.unix_nano > answered.saturating_add(nanos(GRACE)) =>
            {
                open.insert(fence, now);
            }
            Mark::FenceOver { fence } => {
                let Some(from) = open.remove(fence) else { continue };
                let time = (from.unix_nano, now.unix_nano.saturating_add(nanos(WITHIN)));
                alone.push(Trial { asks: true, trace_id: None, order: (from.seq, u64::MAX), time });
            }
            _ => {}
        }
    }
    alone.sort_unstable_by_key(|fence| fence.order.0);
    alone
}

/// A time in which a target was asked for once, or nothing was asked: from and to, by order and by clock.
#[derive(Debug, Clone, Copy)]
struct Trial {
    asks: bool,
    /// What the service was told to carry on.
    trace_id: Option<TraceId>,
    order: (u64, u64),
    time: (u64, u64),
}

/// Shapes with the traces that they came in; `None` for a record without.
type Shapes<T> = HashMap<T, HashSet<Option<TraceId>>>;

impl Trial {
    fn records(&self, capture: &Capture) -> Shapes<Shape> {
        let mut shapes = Shapes::new();
        // Records come in batches, and later than they were written.
        for record in capture.logs().since(self.order.0) {
            if record.was_written_in(self.order, self.time) && record.format.is_structured() {
                shapes.entry(Shape::of(record)).or_default().insert(record.trace_id.valid());
            }
        }
        shapes
    }

    fn spans(&self, capture: &Capture) -> Shapes<SpanShape> {
        let (from, to) = self.time;
        let began = |start: u64| (from..=to).contains(&start);
        let mut shapes = Shapes::new();
        for span in capture.spans().since(self.order.0).only(|row| began(row.start_unix_nano())) {
            shapes.entry(SpanShape::of(span)).or_default().insert(Some(span.trace_id));
        }
        shapes
    }
}

struct Trials(Vec<Trial>);

impl Trials {
    fn of(capture: &Capture, target: &str, wanted: Option<u16>) -> Option<Self> {
        let mut begun = None;
        let mut trials = Vec::new();
        for entry in capture.lifecycle() {
            match &entry.mark {
                Mark::Trial { target: of, asks } if of == target => begun = Some((*asks, entry.arrival)),
                Mark::TrialOver { target: of, trace_id, status } if of == target => {
                    let same = wanted.is_none() || status.is_none() || *status == wanted;
                    if let Some((asks, from)) = begun.take().filter(|_| same) {
                        let order = (from.seq, entry.arrival.seq);
                        let time = (from.unix_nano, entry.arrival.unix_nano);
                        trials.push(Trial { asks, trace_id: *trace_id, order, time });
                    }
                }
                _ => {}
            }
        }
        let with = trials.iter().filter(|trial| trial.asks).count();
        (with >= TRIALS && trials.len() - with >= TRIALS).then_some(Self(trials))
    }

    fn each<T>(&self, came: impl Fn(&Trial) -> Shapes<T>) -> Came<T> {
        Came(self.0.iter().map(|trial| (*trial, came(trial))).collect())
    }
}

/// What came in each trial, in their order.
struct Came<T>(Vec<(Trial, Shapes<T>)>);

impl<T: Eq + Hash> Came<T> {
    /// Whether it came each time the target was asked for, in a trace that `fits`, and at no other time.
    fn set_off(&self, what: &T, fits: impl Fn(Option<TraceId>) -> bool) -> bool {
        let came = |shapes: &Shapes<T>| shapes.get(what).is_some_and(|traces| traces.iter().any(|trace| fits(*trace)));
        self.0.iter().all(|(trial, shapes)| came(shapes) == trial.asks)
    }

    /// Whether it came each time the target was asked for, and at no other time, always in a trace that is not the one that was
    /// told. Where no span at all came in that one, the service does not carry traces on, and nothing is said.
    fn is_elsewhere(&self, capture: &Capture, what: &T) -> bool {
        self.set_off(what, |trace| trace.is_some())
            && self.0.iter().filter(|(trial, _)| trial.asks).all(|(trial, shapes)| {
                let carried_on = trial.trace_id.is_some_and(|told| capture.spans_of(told).next().is_some());
                let own = shapes.get(what).is_some_and(|traces| traces.contains(&trial.trace_id));
                carried_on && !own
            })
    }
}

/// Whether a request was repeated already.
pub fn was_repeated(capture: &Capture, target: &str) -> bool {
    Trials::of(capture, target, None).is_some()
}

#[cfg(test)]
#[path = "repetition_tests.rs"]
mod tests;
