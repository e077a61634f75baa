//! What proves that metrics are complete.
//!
//! A metric reader collects at its interval, not in the order in which things were measured, so no fence in the trace says
//! anything of it. What does is a point that was collected later: one whose time, by the process's own clock, is not before the
//! end of its last span that was received when the spans were proven complete. It holds every measurement before. Each process
//! collects for itself, so each that has a part must send such a point. One that exports spans and never metrics is not waited
//! for any longer than until all the others have exported twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{Incomplete, Proof, proof::some_of};
use crate::{
    capture::{Capture, Signal, Store},
    stimulus::Delivery,
};

/// A process, by what its resource says; a resource that says nothing is one process.
type Process = Option<String>;

/// What was so when the spans were proven complete.
#[derive(Debug)]
struct Proven {
    /// The last stamp.
    at: u64,
    /// The earliest time of a point that holds all that was measured, by process.
    since: BTreeMap<Process, u64>,
    /// When the last answer had come, by the harness's clock: the only one for a process without a span.
    answered: u64,
}

impl Proven {
    /// The processes with a part in `deliveries`, and those that export metrics.
    fn now(capture: &Capture, deliveries: &[&Delivery]) -> Self {
        let sent = deliveries.iter().map(|delivery| delivery.sent.seq).min().unwrap_or(0);
        let answered = deliveries.iter().map(|delivery| delivery.answered.unix_nano).max().unwrap_or(0);
        let mut since: BTreeMap<Process, u64> = BTreeMap::new();
        for metric in capture.metrics() {
            since.entry(metric.resource.instance()).or_default();
        }
        for span in capture.spans().since(sent + 1) {
            let ended = since.entry(span.resource.instance()).or_default();
            *ended = (*ended).max(span.end_unix_nano);
        }
        since.values_mut().filter(|ended| **ended == 0).for_each(|ended| *ended = answered);
        Self { at: capture.last_seq(), since, answered }
    }

    /// How often each process has exported points that are late enough, those too that have no part.
    fn exports(&self, capture: &Capture) -> BTreeMap<Process, usize> {
        let mut stamps: BTreeMap<Process, BTreeSet<u64>> =
            self.since.keys().map(|process| (process.clone(), BTreeSet::new())).collect();
        for metric in capture.metrics().since(self.at + 1) {
            let process = metric.resource.instance();
            let since = self.since.get(&process).copied().unwrap_or(self.answered);
            let stamps = stamps.entry(process).or_default();
            if metric.points.iter().any(|point| point.time_unix_nano >= since) {
                stamps.insert(metric.arrival.seq);
            }
        }
        stamps.into_iter().map(|(process, stamps)| (process, stamps.len())).collect()
    }

    /// Those that must still export.
    fn missing(&self, capture: &Capture) -> Vec<String> {
        let exports = self.exports(capture);
        let measures: BTreeSet<Process> = capture.metrics().iter().map(|metric| metric.resource.instance()).collect();
        let twice = |process: &Process| exports.get(process).is_some_and(|&count| count >= 2);
        let patient = !measures.is_empty() && measures.iter().all(twice);
        let missing = exports.iter().filter(|(process, count)| {
            **count == 0 && self.since.contains_key(*process) && (measures.contains(*process) || !patient)
        });
        missing.map(|(process, _)| process.as_deref().unwrap_or("(no instance)").to_owned()).collect()
    }
}

/// Waits, once spans are proven complete, until every process has exported what it has measured meanwhile.
pub(super) async fn settle(
    store: &Store,
    deliveries: &[&Delivery],
    deadline: Instant,
    waited: Duration,
) -> Result<Proof, Incomplete> {
    let started = Instant::now();
    let proven = store.look(|capture| Proven::now(capture, deliveries));
    let all = |capture: &Capture| {
        (!capture.metrics().is_empty() && proven.missing(capture).is_empty()).then_some(proven.since.len())
    };
    if let Some(processes) = store.until(deadline, all).await {
        return Ok(Proof::Metrics { processes });
    }
    let (missing, received) = store.look(|capture| (proven.missing(capture), capture.received(Signal::Metrics).items));
    let reason = format!(
        "{received} metrics were received from this deployment so far, and none that was collected since the request from {}; \
         is its metrics exporter on, and is the interval of its metric reader (OTEL_METRIC_EXPORT_INTERVAL, 60 s unless it is \
         set) shorter than `patience`?",
        some_of(missing.iter().map(String::as_str))
    );
    Err(Incomplete { reason, waited: waited + started.elapsed() })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        correlation::samples,
        telemetry::{Attributes, DataPoint, Metric, MetricKind, PointValue, Resource, Span},
    };

    fn process(name: &str) -> Arc<Resource> {
        let attributes = [("service.instance.id", name.into())].into_iter().collect::<Attributes>();
        Arc::new(Resource { attributes, schema_url: String::new() })
    }

    fn span(of: &str, end: u64) -> Span {
        Span { resource: process(of), end_unix_nano: end, ..samples::span(end, None, "GET /") }
    }

    fn metrics(store: &Store, of: &str, time: u64) {
        let point = DataPoint {
            attributes: Attributes::default(),
            start_unix_nano: 0,
            time_unix_nano: time,
            value: PointValue::Int(1),
            exemplars: Vec::new(),
        };
        let metric = Metric {
            name: "m".into(),
            unit: String::new(),
            description: String::new(),
            kind: MetricKind::Gauge,
            points: vec![point],
            resource: process(of),
            scope: Arc::default(),
            arrival: crate::telemetry::Arrival::default(),
        };
        samples::export_metrics(store, vec![metric]);
    }

    fn missing(store: &Store, proven: &Proven) -> Vec<String> {
        store.look(|capture| proven.missing(capture))
    }

    fn proven(store: &Store) -> Proven {
        let mut delivery = samples::delivery();
        delivery.sent.seq = 0;
        store.look(|capture| Proven::now(capture, &[&delivery]))
    }

    #[test]
    fn a_point_from_before_the_requests_end_proves_nothing_and_a_later_one_does() {
        let store = Store::default();
        samples::export(&store, vec![span("a", 50)]);
        metrics(&store, "a", 60);
        let proven = proven(&store);
        assert_eq!(missing(&store, &proven), ["a"], "it came before the spans were proven complete");
        metrics(&store, "a", 49);
        assert_eq!(missing(&store, &proven), ["a"], "it was collected before the span ended");
        metrics(&store, "a", 50);
        assert!(missing(&store, &proven).is_empty());
    }

    #[test]
    fn every_process_that_exports_metrics_must_export_again() {
        let store = Store::default();
        samples::export(&store, vec![span("a", 50), span("b", 70)]);
        metrics(&store, "a", 1);
        metrics(&store, "b", 1);
        let proven = proven(&store);
        metrics(&store, "a", 60);
        metrics(&store, "b", 60);
        assert_eq!(missing(&store, &proven), ["b"]);
        metrics(&store, "b", 70);
        assert!(missing(&store, &proven).is_empty());
    }

    #[test]
    fn another_process_whose_metrics_come_first_does_not_speak_for_the_one_that_answered() {
        let store = Store::default();
        samples::export(&store, vec![span("a", 50)]);
        let proven = proven(&store);
        metrics(&store, "b", 100);
        assert_eq!(missing(&store, &proven), ["a"]);
        metrics(&store, "a", 60);
        assert!(missing(&store, &proven).is_empty());
    }

    #[test]
    fn a_process_without_metrics_is_waited_for_until_the_others_have_exported_twice() {
        let store = Store::default();
        samples::export(&store, vec![span("a", 50), span("proxy", 50)]);
        let proven = proven(&store);
        metrics(&store, "a", 60);
        assert_eq!(missing(&store, &proven), ["proxy"]);
        metrics(&store, "a", 61);
        assert!(missing(&store, &proven).is_empty());
    }
}
