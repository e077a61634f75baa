//! Rules about what metrics say in themselves: counts that fall, durations that no request had.

use std::collections::HashMap;

use super::{
    Grade::Rule as Always,
    Rule, Subject,
    metrics::{only_called_from_outside, place},
};
use crate::{
    capture::{Capture, Mark},
    telemetry::{DataPoint, Metric, MetricKind, PointValue, SpanKind, Temporality},
};

/// What a duration may have beyond that of the longest request: what is measured and what was seen of it are two clocks.
const MARGIN: f64 = 0.1;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "counts-grow",
        grade: Always,
        about: "what a cumulative histogram or counter has counted since its start never becomes less",
        limits: "Two processes that export under one resource look so, and a backend takes them for one. Not judged: floating \
                 point sums, and `system.*` and `process.*`, which report counters of the kernel that fall.",
        source: "OpenTelemetry specification, Metrics data model, Sums; Resets and gaps; Single-writer",
        check: falling,
    },
    Rule {
        name: "duration-unit",
        grade: Always,
        about: "the requests that `http.server.request.duration` measures take, on average, no longer than the longest one that was \
                sent",
        limits: "Its unit, where it names one, is `s`. How long it says that requests took is not judged where one process of the \
                 deployment calls another one's server, nor where a request had no answer. \
                 Up to twice the longest and 0.1 s more are let pass, so that it speaks of a wrong unit and not of a clock.",
        source: "semantic conventions, HTTP metrics, http.server.request.duration: in seconds",
        check: too_long,
    },
];

/// One series of points, as a backend knows it.
#[derive(PartialEq, Eq, Hash)]
struct Series<'a> {
    resource: usize,
    scope: &'a str,
    name: &'a str,
    attributes: String,
    start: u64,
}

fn falling(subject: &Subject<'_>) -> Vec<String> {
    if !subject.first {
        return Vec::new();
    }
    let since = subject.delivery.sent.seq;
    let mut resources = Vec::new();
    // Of each series the time and the count of a later point. Going back stops at the first export before the request of
    // each that has one since: what is older, an earlier scenario has judged.
    let mut later: HashMap<Series<'_>, (u64, u64)> = HashMap::new();
    let mut open = 0;
    let mut found = Vec::new();
    for metric in subject.capture.metrics().iter().rev() {
        let recent = metric.arrival.seq >= since;
        if !recent && open == 0 {
            break;
        }
        if !is_judged(metric) {
            continue;
        }
        let resource = place(&mut resources, &metric.resource.attributes);
        for point in metric.points.iter().filter(|point| point.start_unix_nano > 0) {
            let Some(count) = counted(point) else { continue };
            let (scope, name) = (metric.scope.name.as_str(), metric.name.as_str());
            let attributes = format!("{:?}", point.attributes);
            let series = Series { resource, scope, name, attributes, start: point.start_unix_nano };
            let Some((time, known)) = later.get_mut(&series) else {
                if recent {
                    later.insert(series, (point.time_unix_nano, count));
                    open += 1;
                }
                continue;
            };
            // An export that was sent again may come behind a newer one.
            if point.time_unix_nano < *time {
                if count > *known {
                    let service = metric.resource.service_name().unwrap_or_default();
                    found.push(format!(
                        "{name} of {scope:?} in {service:?} fell from {count} to {known}: a count has one writer"
                    ));
                }
                (*time, *known) = (point.time_unix_nano, count);
            }
            if !recent {
                later.remove(&series);
                open -= 1;
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn is_judged(metric: &Metric) -> bool {
    let cumulative = match metric.kind {
        MetricKind::Histogram(temporality) | MetricKind::ExponentialHistogram(temporality) => temporality,
        MetricKind::Sum { monotonic: true, temporality } => temporality,
        _ => return false,
    };
    let of_the_kernel = ["system.", "process."].iter().any(|prefix| metric.name.starts_with(prefix));
    cumulative == Temporality::Cumulative && !of_the_kernel
}

fn counted(point: &DataPoint) -> Option<u64> {
    match point.value {
        PointValue::Histogram { count, .. } | PointValue::Distribution { count, .. } => Some(count),
        PointValue::Int(sum) => u64::try_from(sum).ok(),
        PointValue::Double(_) => None,
    }
}

fn too_long(subject: &Subject<'_>) -> Vec<String> {
    if !subject.first {
        return Vec::new();
    }
    let durations = || subject.metrics_since().iter().filter(|metric| metric.name == "http.server.request.duration");
    if let Some(metric) = durations().find(|metric| !matches!(metric.unit.as_str(), "" | "s")) {
        let service = metric.resource.service_name().unwrap_or_default();
        return vec![format!("the unit of {} in {service:?} is {:?}, expected \"s\"", metric.name, metric.unit)];
    }
    let means = durations();
    let means = means.filter_map(|metric| Some((metric, mean(metric)? * seconds(&metric.unit)?)));
    let longest_mean = means.max_by(|(_, one), (_, other)| one.total_cmp(other));
    let Some((metric, mean)) = longest_mean.filter(|(_, mean)| *mean > MARGIN) else { return Vec::new() };
    let Some(longest) = longest_request(subject.capture) else { return Vec::new() };
    let is_long = |longest: f64| mean <= longest.mul_add(2.0, MARGIN);
    // A server may measure work behind its answer; its span lasts as long then.
    if is_long(longest) || is_long(longest_server(subject.capture)) || !only_called_from_outside(subject.capture) {
        return Vec::new();
    }
    let service = metric.resource.service_name().unwrap_or_default();
    let (unit, name) = (&metric.unit, &metric.name);
    let text = "is more than twice as long as the longest request that was sent; is it measured in its unit";
    vec![format!("the mean of {name} in {service:?} {text}, {unit:?}?")]
}

/// The least mean of what its points have measured. A wrong unit is wrong in each of them; work behind the answer, which some servers
/// measure too, is long in one.
#[expect(clippy::cast_precision_loss, reason = "nobody counts 2^52 requests")]
fn mean(metric: &Metric) -> Option<f64> {
    let means = metric.points.iter().filter_map(|point| match point.value {
        PointValue::Histogram { count, sum: Some(sum), .. } | PointValue::Distribution { count, sum: Some(sum) } => {
            (count > 0).then(|| sum / count as f64)
        }
        _ => None,
    });
    means.min_by(f64::total_cmp)
}

/// How many seconds a unit has (UCUM).
fn seconds(unit: &str) -> Option<f64> {
    match unit {
        "s" => Some(1.0),
        "ms" => Some(1e-3),
        "us" => Some(1e-6),
        "ns" => Some(1e-9),
        _ => None,
    }
}

/// The time that the longest SERVER span took, in seconds.
fn longest_server(capture: &Capture) -> f64 {
    let servers = capture.spans().iter().filter(|span| span.kind == SpanKind::Server);
    let longest = servers.map(|span| span.end_unix_nano.saturating_sub(span.start_unix_nano)).max();
    std::time::Duration::from_nanos(longest.unwrap_or_default()).as_secs_f64()
}

/// The time that the longest request took, in seconds, those of the harness itself included; `None` while one of them has no
/// answer.
fn longest_request(capture: &Capture) -> Option<f64> {
    let mut under_way: HashMap<&str, u64> = HashMap::new();
    let mut asked = None;
    let mut longest = 0;
    for entry in capture.lifecycle() {
        let now = entry.arrival.unix_nano;
        let began = match &entry.mark {
            Mark::Sent { delivery: id } | Mark::FenceSent { fence: id, .. } => {
                under_way.insert(id, now);
                None
            }
            Mark::Answered { delivery: id } | Mark::FenceOver { fence: id } => under_way.remove(id.as_str()),
            Mark::Trial { target, asks: true } => {
                under_way.insert(target, now);
                None
            }
            Mark::TrialOver { target, .. } => under_way.remove(target.as_str()),
            Mark::ReadyAsked => asked.replace(now),
            Mark::Ready => asked.take(),
            _ => None,
        };
        longest = longest.max(began.map_or(0, |began| now.saturating_sub(began)));
    }
    let lasted = std::time::Duration::from_nanos(longest).as_secs_f64();
    under_way.is_empty().then_some(lasted)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entry, judge, resource};
    use crate::{
        capture::{Mark, Store},
        correlation::samples,
        telemetry::{Arrival, DataPoint, Metric, MetricKind, PointValue, Temporality},
    };

    fn metric(name: &str, kind: MetricKind, time: u64, value: PointValue) -> Metric {
        let point = DataPoint {
            attributes: Default::default(),
            start_unix_nano: 1,
            time_unix_nano: time,
            value,
            exemplars: Vec::new(),
        };
        Metric {
            name: name.into(),
            unit: "s".into(),
            description: String::new(),
            kind,
            points: vec![point],
            resource: entry().resource,
            scope: Default::default(),
            arrival: Arrival::default(),
        }
    }

    fn counter(time: u64, count: i64) -> Metric {
        let kind = MetricKind::Sum { monotonic: true, temporality: Temporality::Cumulative };
        metric("orders", kind, time, PointValue::Int(count))
    }

    fn measured(unit: &str, sum: f64) -> Metric {
        let value = PointValue::Distribution { count: 1, sum: Some(sum) };
        let kind = MetricKind::ExponentialHistogram(Temporality::Cumulative);
        Metric { unit: unit.into(), ..metric("http.server.request.duration", kind, 5, value) }
    }

    /// What is said when these came before the request, and these since.
    fn judged_around(before: Vec<Metric>, since: Vec<Metric>) -> Vec<&'static str> {
        let store = Store::default();
        for metric in before {
            samples::export_metrics(&store, vec![metric]);
        }
        let sent = store.mark(Mark::Sent { delivery: "d".into() });
        store.mark(Mark::Answered { delivery: "d".into() });
        samples::export(&store, vec![entry()]);
        for metric in since {
            samples::export_metrics(&store, vec![metric]);
        }
        judge(
            &store,
            &crate::stimulus::Delivery { sent: Arrival { seq: sent.seq, unix_nano: 5 }, ..samples::delivery() },
            true,
            &[],
        )
    }

    fn judged(metrics: Vec<Metric>) -> Vec<&'static str> {
        judged_around(Vec::new(), metrics)
    }

    #[test]
    fn a_count_that_falls_is_found_and_one_that_grows_or_stays_is_not() {
        assert_eq!(judged(vec![counter(5, 3), counter(6, 2)]), ["counts-grow"]);
        assert!(judged(vec![counter(5, 2), counter(6, 2), counter(7, 3)]).is_empty());
    }

    #[test]
    fn a_count_that_falls_below_what_came_before_the_request_is_found() {
        assert_eq!(judged_around(vec![counter(5, 3)], vec![counter(6, 2)]), ["counts-grow"]);
        assert!(judged_around(vec![counter(4, 1), counter(5, 2)], vec![counter(6, 2)]).is_empty());
        assert!(judged_around(vec![counter(5, 3), counter(6, 2)], Vec::new()).is_empty());
    }

    #[test]
    fn an_export_that_came_late_is_no_fall() {
        assert!(judged(vec![counter(6, 3), counter(5, 2)]).is_empty());
        assert!(judged(vec![counter(7, 4), counter(5, 2), counter(6, 3)]).is_empty());
    }

    #[test]
    fn a_restart_another_process_other_attributes_and_what_may_fall_are_not_judged() {
        let again = |change: fn(&mut Metric)| {
            let mut second = counter(6, 2);
            change(&mut second);
            judged(vec![counter(5, 3), second])
        };
        assert!(again(|metric| metric.points[0].start_unix_nano = 4).is_empty());
        assert!(
            again(|metric| metric.resource = resource(&[("service.name", "shop"), ("process.pid", "2")])).is_empty()
        );
        assert!(
            again(|metric| metric.points[0].attributes = resource(&[("route", "/b")]).attributes.clone()).is_empty()
        );
        let falling = |name: &str, kind| {
            let of = |time, count| metric(name, kind, time, PointValue::Int(count));
            judged(vec![of(5, 3), of(6, 2)])
        };
        let sum = |monotonic, temporality| MetricKind::Sum { monotonic, temporality };
        assert_eq!(falling("orders", sum(true, Temporality::Cumulative)), ["counts-grow"]);
        assert!(falling("orders", sum(false, Temporality::Cumulative)).is_empty());
        assert!(falling("orders", sum(true, Temporality::Delta)).is_empty());
        assert!(falling("orders", MetricKind::Gauge).is_empty());
        assert!(falling("system.cpu.time", sum(true, Temporality::Cumulative)).is_empty());
    }

    #[test]
    fn milliseconds_that_are_called_seconds_are_found_and_those_with_their_unit_are_not() {
        assert_eq!(judged(vec![measured("s", 2.5)]), ["duration-unit"]);
        assert!(judged(vec![measured("s", 0.025)]).is_empty());
        assert!(judged(vec![measured("", 2.5)]).is_empty());
    }

    #[test]
    fn work_behind_the_answer_that_the_servers_span_covers_too_is_no_wrong_unit() {
        let store = Store::default();
        let sent = store.mark(Mark::Sent { delivery: "d".into() });
        store.mark(Mark::Answered { delivery: "d".into() });
        let mut long = entry();
        long.end_unix_nano = long.start_unix_nano + 2_400_000_000;
        samples::export(&store, vec![long]);
        samples::export_metrics(&store, vec![measured("s", 2.5)]);
        let delivery =
            crate::stimulus::Delivery { sent: Arrival { seq: sent.seq, unix_nano: 5 }, ..samples::delivery() };
        let told = judge(&store, &delivery, true, &[]);
        assert!(!told.contains(&"duration-unit"), "{told:?}");
    }

    #[test]
    fn a_unit_other_than_seconds_is_found_whatever_was_measured() {
        assert_eq!(judged(vec![measured("ms", 2.5)]), ["duration-unit"]);
        assert_eq!(judged(vec![measured("ms", 0.000_025)]), ["duration-unit"]);
    }

    #[test]
    fn where_a_request_has_no_answer_nobody_knows_how_long_the_longest_was() {
        let store = Store::default();
        store.mark(Mark::Sent { delivery: "lost".into() });
        samples::export(&store, vec![entry()]);
        samples::export_metrics(&store, vec![measured("s", 2.5)]);
        assert!(judge(&store, &samples::delivery(), true, &[]).is_empty());
    }
}
