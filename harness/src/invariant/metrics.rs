//! Rules about metrics: what they count, and the spans that their exemplars name.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{Grade::Rule as Always, Rule, Subject};
use crate::{
    capture::{Capture, Mark},
    telemetry::{Attributes, DataPoint, Metric, MetricKind, PointValue, Span, SpanId, SpanKind, Temporality},
};

/// Histograms with a measurement a request that a server took (semantic conventions, stable and old).
const REQUESTS: [&str; 2] = ["http.server.request.duration", "http.server.duration"];

/// The attribute of spans and points that says which of a server's routes it is.
const ROUTE: &str = "http.route";

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "metric-counts",
        grade: Always,
        about: "a service measures no more requests than it was sent, those of the harness itself included, all instrumentation scopes \
                added up",
        limits: "Fewer are sound: health checks may be left out, and what came last may not be exported yet. Not judged where \
                 one process of the deployment calls another one's server, which takes requests that nobody sent from outside (as many \
                 as its SERVER spans begin traces of their own are allowed for, and what was measured on routes of which no span came), nor \
                 while no span says whether it does.",
        source: "semantic conventions, HTTP metrics, http.server.request.duration",
        check: counts,
    },
    Rule {
        name: "exemplars-resolve",
        grade: Always,
        about: "an exemplar that names the trace of the request names a span that was received in it",
        limits: "Judged once it is proven that nothing more will come. Exemplars of traces of which nothing came are not judged: \
                 they were not sampled. One that names the caller's span is sound: what is measured before the server's span \
                 begins has no other.",
        source: "OpenTelemetry specification, Metrics data model, Exemplars",
        check: exemplars,
    },
];

fn counts(subject: &Subject<'_>) -> Vec<String> {
    if !subject.first {
        return Vec::new();
    }
    let capture = subject.capture;
    let asked = |mark: &Mark| mark.begins_request() || *mark == Mark::ReadyAsked;
    let marks = |of: &dyn Fn(&Mark) -> bool| capture.lifecycle().iter().filter(|entry| of(&entry.mark)).count() as u64;
    let asked = marks(&asked).saturating_sub(marks(&|mark| *mark == Mark::ReadyUnheard));
    let others = LazyCell::new(|| taken_from_others(capture));
    let unseen = LazyCell::new(|| without_spans(capture));
    // What takes every span is looked at last.
    let too_many = |service: &str, count: u64, unseen: &dyn Fn() -> u64| {
        let others = || others.get(service).copied().unwrap_or_default();
        asked > 0 && count > asked && count > asked + others() + unseen()
    };
    let mut found = Vec::new();
    let mut of_all_scopes: BTreeMap<(&str, &str), BTreeMap<&str, u64>> = BTreeMap::new();
    for (key @ (service, scope, name), count) in totals(capture, |_| true) {
        if too_many(service, count, &|| unseen.get(&key).copied().unwrap_or_default()) {
            found.push(format!("{name} of {scope:?} in {service:?} counts {count} requests, and {asked} were sent"));
        }
        of_all_scopes.entry((service, name)).or_default().insert(scope, count);
    }
    if found.is_empty() {
        // A backend that adds them up does not ask who measured.
        for ((service, name), scopes) in of_all_scopes {
            let count: u64 = scopes.values().sum();
            let unseen = || scopes.keys().filter_map(|scope| unseen.get(&(service, *scope, name))).sum();
            if too_many(service, count, &unseen) {
                let scopes: Vec<String> = scopes.iter().map(|(scope, count)| format!("{scope:?} {count}")).collect();
                found.push(format!(
                    "{name} in {service:?} counts {count} requests ({}), and {asked} were sent: is the server instrumented twice?",
                    scopes.join(" and ")
                ));
            }
        }
    }
    // Looked at last, because it takes every span.
    if found.is_empty() || !only_called_from_outside(capture) {
        return Vec::new();
    }
    found.sort();
    found
}

/// What was measured on routes of which no SERVER span came, where routes are known of others: a service that leaves its health checks
/// out of its spans may be asked for them by anybody.
fn without_spans(capture: &Capture) -> HashMap<Key<'_>, u64> {
    let servers = capture.spans().iter().filter(|span| span.kind == SpanKind::Server);
    let routes: HashSet<&str> = servers.filter_map(|span| span.attributes.str(ROUTE)).collect();
    if routes.is_empty() {
        return HashMap::new();
    }
    totals(capture, |point| point.attributes.str(ROUTE).is_some_and(|route| !routes.contains(route)))
}

/// How many requests each service took that nobody sent from outside, as far as spans tell: those that carry no trace on, where
/// it carries on what it is sent. A worker that polls without being instrumented sends such ones.
fn taken_from_others(capture: &Capture) -> HashMap<String, u64> {
    let mut taken: HashMap<String, (u64, u64)> = HashMap::new();
    for span in capture.spans().iter().filter(|span| span.kind == SpanKind::Server) {
        let (roots, carried_on) = taken.entry(span.resource.service_name().unwrap_or_default().to_owned()).or_default();
        *(if span.parent_span_id.is_none() { roots } else { carried_on }) += 1;
    }
    taken
        .into_iter()
        .filter(|(_, (_, carried_on))| *carried_on > 0)
        .map(|(service, (roots, _))| (service, roots))
        .collect()
}

/// Whether spans came, and none of a server hangs on another span that came.
pub(super) fn only_called_from_outside(capture: &Capture) -> bool {
    let inner = |span: &Span| {
        span.kind == SpanKind::Server
            && span.parent_span_id.is_some_and(|parent| capture.span(span.trace_id, parent).is_some())
    };
    let spans = capture.spans();
    spans.iter().any(|span| span.kind == SpanKind::Server) && !spans.iter().any(|span| inner(span))
}

/// Service, scope and name of a metric.
type Key<'a> = (&'a str, &'a str, &'a str);

/// How many requests every service has measured with each scope: of a cumulative metric the last export of each process
/// counts, of a delta metric every point, once however often its export was sent. Processes add up.
fn totals(capture: &Capture, counts: impl Fn(&DataPoint) -> bool) -> HashMap<Key<'_>, u64> {
    let mut processes = Vec::new();
    let mut latest: HashSet<(usize, Key<'_>)> = HashSet::new();
    let mut points: HashSet<String> = HashSet::new();
    let mut totals: HashMap<Key<'_>, u64> = HashMap::new();
    for metric in capture.metrics().iter().rev().filter(|metric| REQUESTS.contains(&metric.name.as_str())) {
        let key =
            (metric.resource.service_name().unwrap_or_default(), metric.scope.name.as_str(), metric.name.as_str());
        let delta = match metric.kind {
            MetricKind::Histogram(temporality) | MetricKind::ExponentialHistogram(temporality) => match temporality {
                Temporality::Delta => true,
                Temporality::Cumulative => false,
                Temporality::Unspecified => continue,
            },
            _ => continue,
        };
        let process = place(&mut processes, &metric.resource.attributes);
        if !delta && !latest.insert((process, key)) {
            continue;
        }
        let new = |point: &&DataPoint| {
            let (from, to) = (point.start_unix_nano, point.time_unix_nano);
            !delta || points.insert(format!("{process} {key:?} {from} {to} {:?} {:?}", point.attributes, point.value))
        };
        *totals.entry(key).or_default() +=
            metric.points.iter().filter(|point| counts(point)).filter(new).map(measured).sum::<u64>();
    }
    totals
}

/// The place of a resource among those that are known, to which it is added where it is new. There are few processes and many
/// exports of each, and every scenario asks: comparing is cheaper than writing down.
pub(super) fn place<'a>(known: &mut Vec<&'a Attributes>, resource: &'a Attributes) -> usize {
    known.iter().position(|other| *other == resource).unwrap_or_else(|| {
        known.push(resource);
        known.len() - 1
    })
}

fn measured(point: &DataPoint) -> u64 {
    match point.value {
        PointValue::Histogram { count, .. } | PointValue::Distribution { count, .. } => count,
        PointValue::Int(_) | PointValue::Double(_) => 0,
    }
}

fn exemplars(subject: &Subject<'_>) -> Vec<String> {
    let evidence = subject.evidence;
    let Some(trace_id) = evidence.trace_id().filter(|_| subject.complete && evidence.sampled()) else {
        return Vec::new();
    };
    let own = trace_id.to_string();
    let lost = |metric: &Metric| {
        let exemplars = metric.points.iter().flat_map(|point| &point.exemplars);
        let named = exemplars.filter(|exemplar| exemplar.trace_id.eq_ignore_ascii_case(&own));
        let mut lost = named.filter_map(|exemplar| {
            let span_id: SpanId = exemplar.span_id.parse().ok()?;
            let known = |span: &Arc<Span>| span.span_id == span_id || span.parent_span_id == Some(span_id);
            (!subject.capture.spans_of(trace_id).any(known)).then_some(span_id)
        });
        lost.next()
            .map(|id| format!("an exemplar of metric {} names the span {id}, which was not received", metric.name))
    };
    subject.metrics_since().iter().filter_map(|metric| lost(metric)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entry, judge, resource};
    use super::*;
    use crate::{
        capture::Store,
        correlation::samples,
        telemetry::{Arrival, Exemplar},
    };

    fn metric(temporality: Temporality, count: u64, time: u64) -> Metric {
        let value = PointValue::Histogram { count, sum: None, bounds: Vec::new(), bucket_counts: vec![count] };
        Metric {
            name: REQUESTS[0].into(),
            unit: "s".into(),
            description: String::new(),
            kind: MetricKind::Histogram(temporality),
            points: vec![DataPoint {
                attributes: Default::default(),
                start_unix_nano: 1,
                time_unix_nano: time,
                value,
                exemplars: Vec::new(),
            }],
            resource: entry().resource,
            scope: Arc::default(),
            arrival: Arrival::default(),
        }
    }

    fn judged(spans: Vec<Span>, metrics: Vec<Metric>) -> Vec<&'static str> {
        let store = Store::default();
        // Nobody could measure the first one.
        store.mark(Mark::ReadyAsked);
        store.mark(Mark::ReadyUnheard);
        store.mark(Mark::ReadyAsked);
        store.mark(Mark::Sent { delivery: "d".into() });
        store.mark(Mark::FenceSent { fence: "f".into(), target: String::new() });
        samples::export(&store, spans);
        for metric in metrics {
            samples::export_metrics(&store, vec![metric]);
        }
        judge(&store, &samples::delivery(), true, &[])
    }

    #[test]
    fn more_measurements_than_requests_are_found_and_as_many_are_not() {
        let cumulative = |count, time| metric(Temporality::Cumulative, count, time);
        assert!(judged(vec![entry()], vec![cumulative(2, 5), cumulative(3, 6)]).is_empty());
        assert_eq!(judged(vec![entry()], vec![cumulative(2, 5), cumulative(4, 6)]), ["metric-counts"]);
    }

    #[test]
    fn delta_points_add_up_and_an_export_that_was_sent_again_counts_once() {
        let delta = |count, time| metric(Temporality::Delta, count, time);
        assert!(judged(vec![entry()], vec![delta(2, 5), delta(2, 5), delta(1, 6)]).is_empty());
        assert_eq!(judged(vec![entry()], vec![delta(2, 5), delta(2, 6)]), ["metric-counts"]);
    }

    #[test]
    fn workers_add_up_and_where_one_service_calls_another_nothing_is_counted() {
        let worker = |id| {
            let resource = resource(&[("service.name", "shop"), ("service.instance.id", id)]);
            Metric { resource, ..metric(Temporality::Cumulative, 2, 5) }
        };
        assert_eq!(judged(vec![entry()], vec![worker("a"), worker("b")]), ["metric-counts"]);
        let inner = Span { span_id: samples::span_id(2), parent_span_id: Some(samples::span_id(1)), ..entry() };
        assert!(judged(vec![entry(), inner], vec![worker("a"), worker("b")]).is_empty());
    }

    #[test]
    fn requests_that_a_worker_sends_without_a_trace_are_allowed_for_where_traces_are_carried_on() {
        let polled = |id| Span { span_id: samples::span_id(id), parent_span_id: None, ..entry() };
        let counted = |count| vec![metric(Temporality::Cumulative, count, 5)];
        let broken = |spans, count| judged(spans, counted(count)).contains(&"metric-counts");
        assert!(!broken(vec![entry(), polled(2), polled(3)], 5));
        assert!(broken(vec![entry(), polled(2), polled(3)], 6));
        assert!(broken(vec![polled(2), polled(3)], 5), "it carries nothing on, so each is one that was sent");
    }

    #[test]
    fn two_instrumentations_of_one_server_add_up_and_those_that_share_its_requests_are_sound() {
        let of = |name: &str, count| {
            let scope = Arc::new(crate::telemetry::Scope { name: name.into(), ..Default::default() });
            Metric { scope, ..metric(Temporality::Cumulative, count, 5) }
        };
        assert_eq!(judged(vec![entry()], vec![of("asgi", 2), of("starlette", 2)]), ["metric-counts"]);
        assert!(judged(vec![entry()], vec![of("public", 2), of("admin", 1)]).is_empty());
    }

    fn with_exemplar(trace: u8, span: u64) -> Vec<Metric> {
        let exemplar = Exemplar {
            trace_id: samples::trace_id(trace).to_string(),
            span_id: samples::span_id(span).to_string(),
            time_unix_nano: 5,
        };
        let mut metric = metric(Temporality::Cumulative, 1, 5);
        metric.points[0].exemplars = vec![exemplar];
        vec![metric]
    }

    #[test]
    fn an_exemplar_of_the_request_names_a_span_that_came_and_one_of_another_trace_is_not_judged() {
        assert!(judged(vec![entry()], with_exemplar(1, 1)).is_empty());
        assert_eq!(judged(vec![entry()], with_exemplar(1, 7)), ["exemplars-resolve"]);
        assert!(judged(vec![entry()], with_exemplar(9, 7)).is_empty());
        assert!(judged(vec![entry()], with_exemplar(1, 99)).is_empty(), "the caller's span");
    }
}
