//! What a request sets off and leaves behind once it was answered.
//!
//! A thread or a task that goes on behind the answer and lost its context writes lines without ids, and begins traces of its
//! own. By then fences are under way, jobs of the service run, and neither time nor ids say whose it is. What says so is
//! repetition: where the same request is made again ([`TRIALS`] times, with nothing else under way), the same comes again
//! each time, and never in the times between in which nothing is asked.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{background::Shape, detached::SpanShape};
use crate::{
    capture::{Capture, Mark},
    telemetry::{LogOrigin, LogRecord, Span},
};

/// How long after its answer that is looked for which a request left behind.
pub const WITHIN: Duration = Duration::from_millis(300);

/// How often a request is repeated, and nothing is asked for as long. A job that runs every few seconds is taken for the
/// request's once in a million.
pub const TRIALS: usize = 3;

/// What came within [`WITHIN`] of an answer and has no ids, or no parent.
#[derive(Debug, Clone, Default)]
pub struct Aftermath {
    /// Structured lines without ids.
    pub lines: Vec<Arc<LogRecord>>,
    /// Root spans without a link, of a process that the request went through.
    pub spans: Vec<Arc<Span>>,
}

impl Aftermath {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.spans.is_empty()
    }

    /// Only what came again in each trial with the request, and in none without. `None` where the request was not repeated.
    pub fn repeated(self, capture: &Capture, target: &str) -> Option<Self> {
        let trials = Trials::of(capture, target)?;
        let Self { mut lines, mut spans } = self;
        if !lines.is_empty() {
            let came = trials.each(|trial| trial.lines(capture));
            lines.retain(|record| came.set_off(&Shape::of(record)));
        }
        if !spans.is_empty() {
            let came = trials.each(|trial| trial.spans(capture));
            spans.retain(|span| came.set_off(&SpanShape::of(span)));
        }
        Some(Self { lines, spans })
    }
}

/// A time in which a target was asked for once, or nothing was asked: from and to, by order and by clock.
#[derive(Debug, Clone, Copy)]
struct Trial {
    asks: bool,
    order: (u64, u64),
    time: (u64, u64),
}

impl Trial {
    fn lines(&self, capture: &Capture) -> HashSet<Shape> {
        let (from, to) = self.order;
        let lines = capture.logs().since(from).take_while(|record| record.arrival.seq <= to);
        let without_ids = |record: &&Arc<LogRecord>| {
            record.origin != LogOrigin::Otlp && record.format.is_structured() && record.trace_id.valid().is_none()
        };
        lines.filter(without_ids).map(|record| Shape::of(record)).collect()
    }

    fn spans(&self, capture: &Capture) -> HashSet<SpanShape> {
        let (from, to) = self.time;
        let began = |start: u64| (from..=to).contains(&start);
        let roots = capture.spans().since(self.order.0).only(|row| row.is_root() && began(row.start_unix_nano()));
        roots.map(|span| SpanShape::of(span)).collect()
    }
}

struct Trials(Vec<Trial>);

impl Trials {
    fn of(capture: &Capture, target: &str) -> Option<Self> {
        let mut begun = None;
        let mut trials = Vec::new();
        for entry in capture.lifecycle() {
            match &entry.mark {
                Mark::Trial { target: of, asks } if of == target => begun = Some((*asks, entry.arrival)),
                Mark::TrialOver { target: of } if of == target => {
                    if let Some((asks, from)) = begun.take() {
                        let (order, time) = ((from.seq, entry.arrival.seq), (from.unix_nano, entry.arrival.unix_nano));
                        trials.push(Trial { asks, order, time });
                    }
                }
                _ => {}
            }
        }
        let with = trials.iter().filter(|trial| trial.asks).count();
        (with >= TRIALS && trials.len() - with >= TRIALS).then_some(Self(trials))
    }

    fn each<T>(&self, came: impl Fn(&Trial) -> HashSet<T>) -> Came<T> {
        Came(self.0.iter().map(|trial| (trial.asks, came(trial))).collect())
    }
}

/// What came in each trial.
struct Came<T>(Vec<(bool, HashSet<T>)>);

impl<T: Eq + std::hash::Hash> Came<T> {
    fn set_off(&self, what: &T) -> bool {
        self.0.iter().all(|(asks, came)| came.contains(what) == *asks)
    }
}

/// Whether a request was repeated already.
pub fn was_repeated(capture: &Capture, target: &str) -> bool {
    Trials::of(capture, target).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        capture::Store,
        correlation::{Options, RequestEvidence, Stranger, request, samples::*},
        stimulus::Delivery,
        telemetry::SpanKind,
    };

    const TARGET: &str = "/orders/7";

    /// A store in which `target` was tried, and `came` (by whether it was asked for) says how often a line and a span came each time.
    fn tried(target: &str, came: impl Fn(bool, usize) -> bool) -> Store {
        let store = Store::default();
        for trial in 0..TRIALS {
            for asks in [true, false] {
                let target = || target.to_owned();
                let now = store.mark(Mark::Trial { target: target(), asks }).unix_nano;
                if came(asks, trial) {
                    let number = u64::try_from(trial).unwrap() * 2 + u64::from(asks) + 50;
                    store.add_line(String::new(), |_, arrival| vec![LogRecord { arrival, ..line() }]);
                    export(&store, vec![Span { start_unix_nano: now, trace_id: trace_id(9), ..root(number) }]);
                }
                store.mark(Mark::TrialOver { target: target() });
            }
        }
        store
    }

    fn line() -> LogRecord {
        record(None, None)
    }

    fn root(id: u64) -> Span {
        span(id, None, "mail 4")
    }

    fn repeated(store: &Store) -> Option<(usize, usize)> {
        let found = Aftermath { lines: vec![Arc::new(line())], spans: vec![Arc::new(root(2))] };
        let repeated = store.look(|capture| found.repeated(capture, TARGET));
        repeated.map(|repeated| (repeated.lines.len(), repeated.spans.len()))
    }

    #[test]
    fn what_comes_each_time_and_never_in_between_was_set_off() {
        assert_eq!(repeated(&tried(TARGET, |asks, _| asks)), Some((1, 1)));
    }

    #[test]
    fn what_does_not_come_again_or_comes_in_between_too_was_not() {
        assert_eq!(repeated(&tried(TARGET, |_, _| false)), Some((0, 0)), "a job that runs seldom");
        assert_eq!(repeated(&tried(TARGET, |_, _| true)), Some((0, 0)), "a job that runs often");
        assert_eq!(repeated(&tried(TARGET, |asks, trial| asks && trial != 1)), Some((0, 0)), "by chance");
        assert_eq!(repeated(&tried(TARGET, |asks, trial| asks || trial == 2)), Some((0, 0)), "by chance");
    }

    #[test]
    fn where_the_request_was_not_repeated_nothing_is_said() {
        assert_eq!(repeated(&tried("/other", |asks, _| asks)), None);
        assert_eq!(repeated(&Store::default()), None);
    }

    /// A request for [`TARGET`] that was answered, with a line and a root span behind the answer.
    fn asked(store: &Store, change: impl FnOnce(&mut Delivery, &mut Span)) -> RequestEvidence {
        let sent = store.mark(Mark::Sent { delivery: "d".into() });
        let answered = store.mark(Mark::Answered { delivery: "d".into() });
        let end = store.mark(Mark::FenceSent { fence: "f".into() });
        let mut delivery = Delivery { target: TARGET.into(), sent, answered, ..delivery() };
        let entry = Span {
            start_unix_nano: sent.unix_nano,
            end_unix_nano: answered.unix_nano,
            ..with(span(1, Some(99), "GET /"), SpanKind::Server, &[])
        };
        let start = answered.unix_nano + 1_000_000;
        let mut late = Span { start_unix_nano: start, end_unix_nano: start, trace_id: trace_id(7), ..root(2) };
        change(&mut delivery, &mut late);
        export(store, vec![entry, late]);
        store.add_line(String::new(), |_, arrival| vec![LogRecord { arrival, ..line() }]);
        let options = Options { window_end: Some(end.seq), exclusive: true, alone: true, ..Options::default() };
        store.look(|capture| request(capture, &delivery, options))
    }

    #[test]
    fn a_line_and_a_root_span_behind_the_answer_are_to_be_tried_and_nobodys_until_then() {
        let evidence = answered(|_, _| {});
        assert_eq!((evidence.untried.lines.len(), evidence.untried.spans.len()), (1, 1));
        assert!(evidence.logs.is_empty() && evidence.strangers.is_empty());
    }

    #[test]
    fn a_link_says_whose_a_span_is_and_a_request_with_effects_is_not_repeated() {
        let linked = answered(|_, late| {
            let (trace_id, span_id) = (trace_id(1).to_string(), "x".into());
            late.links = vec![crate::telemetry::SpanLink { trace_id, span_id, attributes: <_>::default() }];
        });
        assert!(linked.untried.spans.is_empty());
        assert!(answered(|delivery, _| delivery.method = "POST".into()).untried.is_empty());
        assert!(answered(|delivery, _| delivery.invocation = Some(invocation("r"))).untried.is_empty());
        let later = u64::try_from(WITHIN.as_nanos()).unwrap();
        assert!(answered(|_, late| late.start_unix_nano += later).untried.spans.is_empty());
    }

    fn answered(change: impl FnOnce(&mut Delivery, &mut Span)) -> RequestEvidence {
        asked(&Store::default(), change)
    }

    #[test]
    fn what_was_set_off_is_the_requests() {
        let evidence = asked(&tried(TARGET, |asks, _| asks), |_, _| {});
        assert_eq!((evidence.logs.len(), evidence.set_off.len(), evidence.guessed.len()), (1, 1, 1));
        assert!(matches!(&evidence.strangers[..], [Stranger::SetOff { span }] if span.span_id == span_id(2)));
    }
}
