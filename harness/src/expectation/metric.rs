//! Metrics, and what their points amount to.

use std::{collections::HashMap, fmt, sync::Arc};

use super::{
    Candidate, Difference, NoMatch, TextMatcher, ValueMatcher,
    mismatch::{compare_attributes, weight},
};
use crate::telemetry::{DataPoint, Metric, MetricKind, PointValue, Temporality};

/// The kind of a metric, as scenarios write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricShape {
    /// `gauge`
    Gauge,
    /// `counter`: a monotonic sum.
    Counter,
    /// `up-down counter`: a sum that may fall.
    UpDownCounter,
    /// `histogram`, explicit or exponential.
    Histogram,
}

impl MetricShape {
    /// Reads `gauge`, `counter`, `up-down counter` (also `updowncounter`) or `histogram`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().replace([' ', '-', '_'], "").as_str() {
            "gauge" => Some(Self::Gauge),
            "counter" => Some(Self::Counter),
            "updowncounter" => Some(Self::UpDownCounter),
            "histogram" => Some(Self::Histogram),
            _ => None,
        }
    }

    /// The shape of a metric; `None` for a summary and for one without data.
    pub const fn of(kind: MetricKind) -> Option<Self> {
        match kind {
            MetricKind::Gauge => Some(Self::Gauge),
            MetricKind::Sum { monotonic: true, .. } => Some(Self::Counter),
            MetricKind::Sum { monotonic: false, .. } => Some(Self::UpDownCounter),
            MetricKind::Histogram(_) | MetricKind::ExponentialHistogram(_) => Some(Self::Histogram),
            MetricKind::Empty | MetricKind::Summary => None,
        }
    }
}

impl fmt::Display for MetricShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::UpDownCounter => "up-down counter",
            Self::Histogram => "histogram",
        })
    }
}

/// What a metric and its points must be; what is left out may be anything.
#[derive(Debug, Clone, Default)]
pub struct MetricMatcher {
    /// Instrument name.
    pub name: Option<TextMatcher>,
    /// Unit.
    pub unit: Option<String>,
    /// Kind.
    pub kind: Option<MetricShape>,
    /// Attributes of a data point.
    pub attributes: Vec<(String, ValueMatcher)>,
}

/// What the matching points amount to.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MetricTotal {
    /// How many series (process and attributes) there are.
    pub series: usize,
    /// The measurements of histograms and summaries and the values of the other kinds, added up.
    pub counted: f64,
}

impl MetricMatcher {
    /// What all matching points amount to: of a cumulative series its latest point, of a delta series all points, of
    /// a gauge the latest. Series are told apart by resource, scope, name, start time and attributes, so that workers
    /// add up and a restart does not hide what was counted before it.
    ///
    /// # Errors
    /// No point matches: the metrics that came nearest, with all that differs.
    pub fn total<'a>(
        &self,
        metrics: impl IntoIterator<Item = &'a Arc<Metric>>,
    ) -> Result<MetricTotal, NoMatch<Arc<Metric>>> {
        let mut series: HashMap<String, (u64, f64)> = HashMap::new();
        let mut candidates = Vec::new();
        for metric in metrics {
            let of_metric = self.metric_differences(metric);
            let mut nearest: Option<Vec<Difference>> = None;
            for point in &metric.points {
                let of_point = compare_attributes(&point.attributes, &self.attributes, &[]);
                if of_metric.is_empty() && of_point.is_empty() {
                    add(&mut series, metric, point);
                }
                if nearest.as_ref().is_none_or(|best| weight(&of_point) < weight(best)) {
                    nearest = Some(of_point);
                }
            }
            let mut differences = of_metric;
            differences.extend(nearest.unwrap_or_else(|| {
                let (what, found) = ("points".to_owned(), "none".to_owned());
                vec![Difference::Differs { what, found, expected: "at least one".to_owned() }]
            }));
            let name = self.name.as_ref().map_or(0.0, |name| 5.0 * (1.0 - name.similarity(&metric.name)));
            let distance = weight(&differences) + name;
            let shown = format!("metric {:?}", metric.name);
            let repeated = |seen: &Candidate<Arc<Metric>>| seen.shown == shown && seen.differences == differences;
            // A cumulative metric comes once an interval: one candidate for all of them says enough.
            if !candidates.iter().any(repeated) {
                candidates.push(Candidate { item: metric.clone(), shown, differences, distance });
            }
        }
        if series.is_empty() {
            return Err(NoMatch::new(self.to_string(), candidates, "metrics"));
        }
        let mut total = MetricTotal { series: series.len(), ..MetricTotal::default() };
        for (_, counted) in series.values() {
            total.counted += counted;
        }
        Ok(total)
    }

    /// Whether a metric came that fits, whatever its points are.
    pub fn has_instrument<'a>(&self, metrics: impl IntoIterator<Item = &'a Arc<Metric>>) -> bool {
        metrics.into_iter().any(|metric| self.metric_differences(metric).is_empty())
    }

    fn metric_differences(&self, metric: &Metric) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut differs = |what: &str, found: String, expected: String| {
            differences.push(Difference::Differs { what: what.to_owned(), found, expected });
        };
        if let Some(name) = self.name.as_ref().filter(|name| !name.matches(&metric.name)) {
            differs("name", format!("{:?}", metric.name), name.to_string());
        }
        if let Some(unit) = self.unit.as_ref().filter(|unit| **unit != metric.unit) {
            differs("unit", format!("{:?}", metric.unit), format!("{unit:?}"));
        }
        if let Some(kind) = self.kind.filter(|kind| MetricShape::of(metric.kind) != Some(*kind)) {
            let found = MetricShape::of(metric.kind).map_or("without a kind".to_owned(), |found| found.to_string());
            differs("kind", found, kind.to_string());
        }
        differences
    }
}

fn add(series: &mut HashMap<String, (u64, f64)>, metric: &Metric, point: &DataPoint) {
    let delta = match metric.kind {
        MetricKind::Sum { temporality, .. }
        | MetricKind::Histogram(temporality)
        | MetricKind::ExponentialHistogram(temporality) => temporality == Temporality::Delta,
        _ => false,
    };
    let mut attributes: Vec<String> =
        point.attributes.iter().map(|(key, value)| format!("{key:?}={value:?}")).collect();
    attributes.sort();
    let start = if delta || metric.kind == MetricKind::Gauge { 0 } else { point.start_unix_nano };
    let resource = &metric.resource.attributes;
    let key = format!("{resource:?} {:?} {:?} {start} {attributes:?}", metric.scope.name, metric.name);
    // What histograms measured is another matter than how often.
    let counted = match &point.value {
        PointValue::Int(value) => *value as f64,
        PointValue::Double(value) => *value,
        PointValue::Histogram { count, .. } | PointValue::Distribution { count, .. } => *count as f64,
    };
    let (latest, total) = series.entry(key).or_default();
    if delta {
        *total += counted;
    } else if point.time_unix_nano >= *latest {
        *total = counted;
    }
    *latest = point.time_unix_nano.max(*latest);
}

impl fmt::Display for MetricMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Some(kind) => kind.fmt(f)?,
            None => f.write_str("metric")?,
        }
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        let unit = self.unit.as_ref().map(|unit| format!("unit {unit:?}"));
        let attributes = self.attributes.iter().map(|(key, value)| format!("{key} {value}"));
        for (i, part) in unit.into_iter().chain(attributes).enumerate() {
            write!(f, "{} {part}", if i == 0 { " with" } else { " and" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Arrival, Resource, Scope, Value};

    fn metric(instance: &str, kind: MetricKind, points: Vec<(u64, i64, PointValue)>) -> Arc<Metric> {
        let point = |(time, status, value): (u64, i64, PointValue)| DataPoint {
            attributes: [("status", Value::Int(status))].into_iter().collect(),
            start_unix_nano: 1,
            time_unix_nano: time,
            value,
            exemplars: Vec::new(),
        };
        Arc::new(Metric {
            name: "http.server.request.duration".into(),
            unit: "s".into(),
            description: String::new(),
            kind,
            points: points.into_iter().map(point).collect(),
            resource: Arc::new(Resource {
                attributes: [("service.instance.id", Value::from(instance))].into_iter().collect(),
                ..Resource::default()
            }),
            scope: Arc::new(Scope::default()),
            arrival: Arrival::default(),
        })
    }

    fn histogram(count: u64) -> PointValue {
        PointValue::Histogram { count, sum: Some(2.0 * count as f64), bounds: Vec::new(), bucket_counts: vec![count] }
    }

    fn matcher() -> MetricMatcher {
        MetricMatcher {
            name: Some(TextMatcher::Exact("http.server.request.duration".into())),
            unit: Some("s".into()),
            kind: Some(MetricShape::Histogram),
            attributes: vec![("status".into(), ValueMatcher::Int(200))],
        }
    }

    #[test]
    fn cumulative_series_count_their_latest_point_and_workers_add_up() {
        let cumulative = MetricKind::Histogram(Temporality::Cumulative);
        let metrics = [
            metric("a", cumulative, vec![(5, 200, histogram(1)), (5, 404, histogram(9))]),
            metric("a", cumulative, vec![(6, 200, histogram(3))]),
            metric("b", cumulative, vec![(5, 200, histogram(4))]),
        ];
        assert_eq!(matcher().total(&metrics).unwrap(), MetricTotal { series: 2, counted: 7.0 });
    }

    #[test]
    fn delta_series_count_all_their_points() {
        let delta = MetricKind::Histogram(Temporality::Delta);
        let metrics =
            [metric("a", delta, vec![(5, 200, histogram(1))]), metric("a", delta, vec![(6, 200, histogram(3))])];
        assert_eq!(matcher().total(&metrics).unwrap(), MetricTotal { series: 1, counted: 4.0 });
    }

    #[test]
    fn one_measurement_counts_once_however_large_it_is() {
        let large = PointValue::Histogram { count: 1, sum: Some(142.0), bounds: Vec::new(), bucket_counts: vec![1] };
        let kind = MetricKind::Histogram(Temporality::Cumulative);
        let metrics = [metric("a", kind, vec![(5, 200, large)])];
        assert_eq!(matcher().total(&metrics).unwrap(), MetricTotal { series: 1, counted: 1.0 });
    }

    #[test]
    fn an_up_down_counter_is_worth_its_last_value() {
        let kind = MetricKind::Sum { monotonic: false, temporality: Temporality::Cumulative };
        let metrics = [
            metric("a", kind, vec![(5, 200, PointValue::Int(1))]),
            metric("a", kind, vec![(6, 200, PointValue::Int(0))]),
        ];
        let matcher = MetricMatcher { kind: Some(MetricShape::UpDownCounter), ..matcher() };
        assert_eq!(matcher.total(&metrics).unwrap(), MetricTotal { series: 1, counted: 0.0 });
    }

    #[test]
    fn the_nearest_metric_is_named_with_all_that_differs() {
        let metrics = [metric("a", MetricKind::Gauge, vec![(5, 500, PointValue::Int(1))])];
        let matcher = MetricMatcher { unit: Some("ms".into()), ..matcher() };
        assert_eq!(
            matcher.total(&metrics).unwrap_err().to_string(),
            "closest    metric \"http.server.request.duration\": unit \"s\" (expected \"ms\"), kind gauge (expected \
             histogram), status int 500 (expected int 200)\nreceived   1 metrics"
        );
    }

    #[test]
    fn a_metric_without_points_is_a_candidate_and_never_a_match() {
        let error = matcher().total(&[metric("a", MetricKind::Empty, Vec::new())]).unwrap_err();
        assert!(error.to_string().contains("points none (expected at least one)"));
    }

    #[test]
    fn an_instrument_is_there_when_any_metric_of_its_name_came() {
        let came = [metric("a", MetricKind::Histogram(Temporality::Cumulative), Vec::new())];
        assert!(matcher().has_instrument(&came));
        let other =
            MetricMatcher { name: Some(TextMatcher::Exact("http.client.request.duration".into())), ..matcher() };
        assert!(!other.has_instrument(&came) && !matcher().has_instrument(&[]));
    }

    #[test]
    fn kinds_are_read_as_people_write_them() {
        assert_eq!(MetricShape::parse("Up-down counter"), Some(MetricShape::UpDownCounter));
        assert_eq!(MetricShape::parse("summary"), None);
    }
}
