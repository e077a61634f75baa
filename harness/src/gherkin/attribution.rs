//! What of all that was captured is a request's, and what is tried where nothing says so.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    observe::slowest_export,
    together::overlaps,
    world::{Scene, Sent},
};
use crate::{
    capture::{Capture, sink::behaviour::Item},
    config::Ready,
    correlation::{
        Options, RequestEvidence,
        background::{GRACE, Shape, background},
        compare_copies,
        detached::by_itself,
        repetition::was_repeated,
        request,
    },
    stimulus::Delivery,
    telemetry::{LogOrigin, Span, SpanId, TraceId},
};

/// How long the service is watched while nothing is asked of it, at least, and as a multiple of its slowest answer: what
/// fell into that time by chance comes again in this one.
const LEAST_WATCH: Duration = Duration::from_secs(1);
const WATCH_FACTOR: u32 = 20;

impl Scene {
    /// Everything that was captured for a stimulus.
    pub(super) fn evidence(&self, capture: &Capture, sent: &Sent) -> RequestEvidence {
        let spec = &self.stage.spec;
        let ready = match &spec.ready {
            Some(Ready::Http(target)) if !spec.kind.is_lambda() => Some(target.as_str()),
            _ => None,
        };
        let own: Vec<&str> = ready.into_iter().chain((!spec.kind.is_lambda()).then(|| spec.fence_target())).collect();
        let exclusive = self.is_alone() && !self.sent.iter().any(|other| overlaps(&sent.delivery, &other.delivery));
        let usual = (self.is_alone() && !exclusive).then(|| self.usual(capture, sent)).flatten();
        let refused = self.refused(capture);
        let options = Options {
            usual: usual.as_ref(),
            refused: Some(&refused),
            since: Some(sent.delivery.sent.seq),
            window_end: sent.settled.as_ref().map(|settled| settled.window_end),
            // The harness's own requests to the same target write the same line.
            quoted_until: sent
                .settled
                .as_ref()
                .filter(|_| !own.contains(&sent.delivery.target.as_str()))
                .map(|settled| settled.proven_at),
            alone: self.is_alone(),
            own_targets: &own,
            exclusive,
            ignore: &self.stage.ignore,
        };
        request(capture, &sent.delivery, options)
    }

    /// The shapes of what came while a request like this one was alone, where there was one in the scenario.
    fn usual(&self, capture: &Capture, sent: &Sent) -> Option<HashSet<Shape>> {
        let like = |other: &&Sent| {
            let (one, other) = (&sent.delivery, &other.delivery);
            (&one.method, &one.target) == (&other.method, &other.target)
                && !self.sent.iter().any(|third| overlaps(other, &third.delivery))
        };
        let mut alone = self.sent.iter().filter(like).peekable();
        alone.peek()?;
        let came = alone.flat_map(|sent| {
            let proven = sent.settled.as_ref().map_or(sent.delivery.answered.seq, |settled| settled.proven_at);
            let others = self.sent.iter().map(|other| other.delivery.sent.seq);
            let next = others.filter(|&other| other > sent.delivery.sent.seq).min();
            let until = next.map_or(proven, |next| proven.min(next));
            let records = capture.logs().since(sent.delivery.sent.seq);
            records.take_while(move |record| record.arrival.seq <= until)
        });
        Some(came.map(|record| Shape::of(record)).collect())
    }

    /// The spans that the collector refused for good, because the scenario said so.
    pub(super) fn refused(&self, capture: &Capture) -> HashSet<(TraceId, SpanId)> {
        if self.ordeal.is_none() {
            return HashSet::new();
        }
        let incidents = self.instance.incidents_in(capture).into_iter().filter(|incident| incident.act.is_final());
        let items = incidents.flat_map(|incident| incident.items);
        items
            .filter_map(|item| if let Item::Span(trace_id, span_id) = item { Some((trace_id, span_id)) } else { None })
            .collect()
    }

    /// Where something came with a request that was alone and nothing says whose it is: repeats the request, once for all, to see
    /// whether it comes again.
    pub(super) async fn repeats(&self, which: &[usize]) {
        let store = self.instance.store();
        let targets: BTreeMap<&str, &[(String, String)]> = store.look(|capture| {
            let mine = which.iter().map(|&at| &self.sent[at]).filter(|sent| sent.delivery.may_be_repeated());
            // Nobody asks what has ended.
            let running = mine.filter(|sent| sent.proven_and_running().is_some());
            let open = running.filter(|sent| !was_repeated(capture, &sent.delivery.target));
            let open = open.filter(|sent| !self.evidence(capture, sent).untried.is_empty());
            open.map(|sent| (sent.delivery.target.as_str(), sent.delivery.headers.as_slice())).collect()
        });
        if targets.is_empty() {
            return;
        }
        for (target, headers) in targets {
            self.instance.repeat(target, headers).await;
        }
        // Spans come when their exporter sends them.
        let deliveries: Vec<&Delivery> = which.iter().map(|&at| &self.sent[at].delivery).collect();
        self.instance.come_to_rest(&deliveries, Instant::now() + self.stage.spec.patience).await;
    }

    /// Where something came with a request that was alone and may not be repeated: watches the service while nothing is asked of it,
    /// and then with a fence alone.
    pub(super) async fn watches_what_is_not_repeated(&self, which: &[usize]) {
        let open = |capture: &Capture| {
            let mine = which.iter().map(|&at| &self.sent[at]).filter(|sent| !sent.delivery.may_be_repeated());
            let mut running = mine.filter(|sent| sent.proven_and_running().is_some());
            running.any(|sent| !self.evidence(capture, sent).untried.is_empty())
        };
        if !self.instance.store().look(open) {
            return;
        }
        self.found_background(which).await;
        if self.instance.store().look(open) {
            let deliveries: Vec<&Delivery> = which.iter().map(|&at| &self.sent[at].delivery).collect();
            self.instance.come_to_rest(&deliveries, Instant::now() + self.patience()).await;
        }
    }

    /// A line that was written during a request that was alone and names a trace of which nothing has come may be of a process
    /// that no proof speaks for, and that made a trace of its own of the request. Waits for what such lines name, until one such
    /// wait was in vain: a trace that is not sampled never comes. Whether it waited.
    pub(super) async fn waited_for_named_traces(&self, which: &[usize]) -> bool {
        let store = self.instance.store();
        let unknown = |capture: &Capture| -> HashSet<TraceId> {
            let open = which.iter().map(|&at| &self.sent[at]);
            let open = open.filter(|sent| sent.proven_and_running().is_some());
            let named = open.flat_map(|sent| self.evidence(capture, sent).traces_named_beside().collect::<Vec<_>>());
            // What the collector refused for good does not come.
            let refused: HashSet<TraceId> = self.refused(capture).into_iter().map(|(trace_id, _)| trace_id).collect();
            named
                .filter(|trace_id| !refused.contains(trace_id) && capture.spans_of(*trace_id).next().is_none())
                .collect()
        };
        let named = store.look(unknown);
        if named.is_empty() || self.stage.waited_for_traces.get() {
            return false;
        }
        let came =
            |capture: &Capture| named.iter().all(|&trace_id| capture.spans_of(trace_id).next().is_some()).then_some(());
        let all = store.until(Instant::now() + self.stage.spec.patience, came).await.is_some();
        self.stage.waited_for_traces.set(!all);
        true
    }

    /// A proof by spans alone says nothing of log records, and what they say wrong would depend on how fast they are. Waits for the
    /// copies of these requests' lines where such lines had copies before, as long as exporters were seen to take, until that was in
    /// vain once. Whether it waited.
    pub(super) async fn waited_for_copies(&self, which: &[usize]) -> bool {
        let store = self.instance.store();
        let missing = |capture: &Capture| {
            let open = which.iter().map(|&at| &self.sent[at]);
            let mut open = open.filter(|sent| sent.proven_and_running().is_some_and(|settled| !settled.logs));
            open.any(|sent| compare_copies(&self.evidence(capture, sent).logs).is_expected(capture))
        };
        if self.stage.waited_for_copies.get() || !store.look(missing) {
            return false;
        }
        let wait = store.look(slowest_export).min(self.stage.spec.patience);
        let came = store.until(Instant::now() + wait, |capture| (!missing(capture)).then_some(())).await.is_some();
        self.stage.waited_for_copies.set(!came);
        true
    }

    /// Where nothing but the time says that lines without ids or spans of other traces are of these requests: watches the
    /// service while nothing is asked of it. Whether it makes some of those then too, so that they are not the requests'.
    pub(super) async fn found_background(&self, which: &[usize]) -> bool {
        let store = self.instance.store();
        let (lines, spans, delay): (HashSet<Shape>, Vec<Arc<Span>>, Duration) = store.look(|capture| {
            let evidence: Vec<_> = which.iter().map(|&at| self.evidence(capture, &self.sent[at])).collect();
            // Records come when their exporter sends them.
            let untriable =
                || which.iter().zip(&evidence).filter(|(at, _)| !self.sent[**at].delivery.may_be_repeated());
            let mut guessed = evidence.iter().flat_map(|evidence| &evidence.guessed);
            let exported = guessed.any(|record| record.origin == LogOrigin::Otlp);
            let delay = if exported { slowest_export(capture) } else { Duration::ZERO };
            let lines = evidence.iter().flat_map(|evidence| &evidence.guessed);
            let lines = lines.chain(untriable().flat_map(|(_, evidence)| &evidence.untried.lines));
            let lines = lines.map(|record| Shape::of(record)).collect();
            let spans = evidence.iter().flat_map(|evidence| {
                let spans = evidence.detached().chain(evidence.stale()).chain(evidence.came_again());
                spans.chain(evidence.tops_of_repeated())
            });
            let spans = spans.chain(untriable().flat_map(|(_, evidence)| &evidence.untried.roots));
            (lines, spans.cloned().collect(), delay)
        });
        if (lines.is_empty() && spans.is_empty()) || !self.is_alone() {
            return false;
        }
        let took = which.iter().map(|&at| self.sent[at].delivery.took()).max().unwrap_or_default();
        let watch = (took * WATCH_FACTOR).clamp(LEAST_WATCH, self.stage.spec.patience.max(LEAST_WATCH));
        let deadline = Instant::now() + GRACE + watch + delay.min(self.stage.spec.patience);
        let all = |capture: &Capture| {
            let habits = by_itself(capture);
            background(capture).is_superset(&lines) && spans.iter().all(|span| habits.have(span))
        };
        let found_all = store.until(deadline, |capture| all(capture).then_some(())).await.is_some();
        if !found_all && !spans.is_empty() {
            // Spans come when their exporter sends them. What began during the watch is here once another proof is.
            let deliveries: Vec<&Delivery> = which.iter().map(|&at| &self.sent[at].delivery).collect();
            self.instance.come_to_rest(&deliveries, Instant::now() + self.patience()).await;
        }
        store.look(|capture| {
            let habits = by_itself(capture);
            !background(capture).is_disjoint(&lines) || spans.iter().any(|span| habits.have(span))
        })
    }
}
