//! Whether the lines before a fence are here, where an engine hands them on.
//!
//! What a container writes goes through its engine, which may be late by as much as it has to wait for a processor; asking it says
//! only what it has taken so far. A line that the service writes for a fence is behind all lines of the requests before it.

use std::time::Duration;

use tokio::time::Instant;

use super::{Fences, Known};
use crate::{
    capture::{Capture, Store},
    stimulus::Delivery,
    telemetry::{LogOrigin, LogRecord},
};

/// How late an engine may be. It hands on hundreds of lines in a millisecond; more is said aloud, and not waited for again: what is
/// written in blocks comes when a block is full.
const LATE: Duration = Duration::from_secs(5);

impl Fences {
    /// Waits until a line came of a fence that was sent behind the answers to `deliveries`, where requests to the fence target are
    /// known to write any.
    pub(super) async fn lines_are_through(&self, store: &Store, deliveries: &[&Delivery], deadline: Instant) {
        let answered = deliveries.iter().map(|delivery| delivery.answered.seq).max().unwrap_or(0);
        let (lines, behind) = self.with(|known| (known.lines, known.sent.iter().any(|fence| fence.after > answered)));
        let any = |capture: &Capture| self.with(|known| known.has_line(capture, 0)).then_some(());
        let written = match lines {
            Lines::Unknown => store.until(self.learnt_by().min(deadline), any).await,
            Lines::None => store.look(any),
            Lines::Written => Some(()),
            Lines::Late => return,
        };
        let learnt = if written.is_some() { Lines::Written } else { Lines::None };
        self.with(|known| known.lines = learnt);
        if written.is_none() || !behind {
            return;
        }
        let through = |capture: &Capture| self.with(|known| known.has_line(capture, answered)).then_some(());
        if store.until(Instant::now() + LATE, through).await.is_none() {
            tracing::warn!(
                "no line of a fence came within {LATE:?}, as others did: what the service wrote may be late"
            );
            self.with(|known| known.lines = Lines::Late);
        }
    }
}

/// Whether requests to the fence target make the service write lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Lines {
    /// Not learnt, or nobody has to know.
    #[default]
    Unknown,
    None,
    Written,
    /// Too late to be waited for.
    Late,
}

impl Known {
    /// Whether a line came of a request to the fence target that was sent at `after` or behind it.
    fn has_line(&self, capture: &Capture, after: u64) -> bool {
        let fences: Vec<_> = self.sent.iter().filter(|fence| fence.after >= after).collect();
        let Some(first) = fences.iter().map(|fence| fence.after).min() else { return false };
        let line = |record: &LogRecord| record.origin != LogOrigin::Otlp;
        let mut lines = capture.logs().since(first).filter(|record| line(record));
        lines.any(|record| fences.iter().any(|fence| fence.signature().is_named_in(record)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        correlation::samples,
        stimulus::Caller,
        telemetry::{Arrival, IdClaim},
    };

    fn answered_at(seq: u64) -> Delivery {
        Delivery { answered: Arrival { seq, unix_nano: seq }, ..samples::delivery() }
    }

    /// A line of a request with this caller.
    fn write(store: &Store, caller: &Caller) {
        let line = LogRecord { trace_id: IdClaim::Valid(caller.trace_id), ..samples::record(None, None) };
        store.add_line(String::new(), |_, arrival| vec![LogRecord { arrival, ..line }]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_of_a_fence_behind_the_answer_is_waited_for_where_one_has_come_before() {
        let (store, fences) = (Store::default(), Fences::default());
        let (ready, fence) = (Caller::now(true), Caller::now(true));
        fences.note(&ready, "ready", 0);
        write(&store, &ready);
        fences.note(&fence, "fence", 5);
        let began = Instant::now();
        let delivery = answered_at(4);
        let deliveries = [&delivery];
        let through = fences.lines_are_through(&store, &deliveries, began + Duration::from_secs(60));
        tokio::pin!(through);
        assert!(futures::poll!(&mut through).is_pending(), "the line is not here");
        for _ in 0..8 {
            write(&store, &Caller::now(true));
        }
        write(&store, &fence);
        through.await;
        assert!(began.elapsed() < LATE);
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_come_in_blocks_are_waited_for_once() {
        let (store, fences) = (Store::default(), Fences::default());
        let ready = Caller::now(true);
        fences.note(&ready, "ready", 0);
        write(&store, &ready);
        fences.note(&Caller::now(true), "fence", 5);
        let (began, delivery) = (Instant::now(), answered_at(4));
        for _ in 0..2 {
            fences.lines_are_through(&store, &[&delivery], began + Duration::from_secs(60)).await;
            assert_eq!(began.elapsed(), LATE);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_writes_nothing_for_a_fence_is_learnt_once() {
        let (store, fences) = (Store::default(), Fences::default());
        fences.note(&Caller::now(true), "ready", 0);
        let (began, delivery) = (Instant::now(), answered_at(4));
        let deadline = began + Duration::from_secs(60);
        fences.lines_are_through(&store, &[&delivery], deadline).await;
        let learnt = began.elapsed();
        assert!(learnt <= super::super::LEARN, "{learnt:?}");
        fences.note(&Caller::now(true), "fence", 5);
        fences.lines_are_through(&store, &[&delivery], deadline).await;
        assert_eq!(began.elapsed(), learnt);
    }
}
