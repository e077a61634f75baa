//! Rules about who sent the telemetry of a request.

use std::collections::BTreeSet;

use super::{
    Grade::{Advice, Rule as Always},
    Rule, Subject,
};
use crate::telemetry::{LogRecord, Resource, Span, Value};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "service-name",
        grade: Always,
        about: "the resource of spans, of exported log records and of metrics has a service.name",
        limits: "Of metrics, where the resource is an SDK's: a collector of host metrics names no service.",
        source: "semantic conventions, Resource, Service: service.name is required; instrumentation-score RES-005",
        check: |subject| {
            let nameless = |resource: &Resource| resource.service_name().is_none_or(str::is_empty);
            let mut found = of_each_signal(subject, |signal, resource| {
                nameless(resource).then(|| format!("the resource of {signal} has no service.name"))
            });
            let of_sdk = |resource: &Resource| resource.attributes.get("telemetry.sdk.name").is_some();
            let metrics = || subject.metrics_since().iter().map(|metric| &metric.resource);
            if subject.first && metrics().any(|resource| of_sdk(resource) && nameless(resource)) {
                found.push("the resource of metrics has no service.name".into());
            }
            found
        },
    },
    Rule {
        name: "same-service",
        grade: Always,
        about: "a log record and the span that it names, of one process, name the same service",
        limits: "Where the resources do not say which process they are (`service.instance.id`, or `process.pid` with \
                 `host.name` or `container.id`), nothing is judged: a process may write logs in the span of another one.",
        source: "semantic conventions, Resource, Service; OpenTelemetry specification, Resource SDK: one resource for all providers",
        check: |subject| {
            let wrong = |(_, record, span): (&LogRecord, &Resource, &Span)| {
                let process = span.resource.process();
                let names = (record.service_name(), span.resource.service_name());
                (process.is_some() && process == record.process() && names.0 != names.1).then(|| {
                    let (record, span) = (names.0.unwrap_or("none"), names.1.unwrap_or("none"));
                    format!("service.name is {record:?} in log records and {span:?} in the spans that they name")
                })
            };
            linked(subject).filter_map(wrong).collect()
        },
    },
    Rule {
        name: "same-resource",
        grade: Advice,
        about: "a log record and the span that it names have the same resource, as far as both speak",
        limits: "Advice, because a process may write logs in the span of another one. Attributes that only one of them has are not \
                 mentioned.",
        source: "OpenTelemetry specification, Resource SDK: one resource for all providers",
        check: |subject| {
            let differs = |(_, record, span): (&LogRecord, &Resource, &Span)| {
                let other =
                    |key: &str, value: &Value| span.resource.attributes.get(key).is_some_and(|other| other != value);
                let keys = record.attributes.iter().filter(|(key, value)| other(key, value)).map(|(key, _)| key);
                let keys: Vec<&str> = keys.collect();
                (!keys.is_empty()).then(|| {
                    format!("log records and the spans that they name have different values of {}", keys.join(", "))
                })
            };
            linked(subject).filter_map(differs).collect()
        },
    },
    Rule {
        name: "metrics-service",
        grade: Advice,
        about: "metrics are of a service that spans or exported log records are of too",
        limits: "Advice, because what runs beside a service may send metrics alone.",
        source: "OpenTelemetry specification, Resource SDK: one resource for all providers",
        check: metrics_of_others,
    },
    Rule {
        name: "unknown-service",
        grade: Advice,
        about: "the service has a name of its own and not the SDK's `unknown_service`",
        limits: "Advice, because the name is often given where the service runs (`OTEL_SERVICE_NAME`), and not here.",
        source: "semantic conventions, Resource, Service; instrumentation-score RES-005",
        check: |subject| {
            of_each_signal(subject, |signal, resource| {
                let name = resource.service_name().filter(|name| name.starts_with("unknown_service"))?;
                Some(format!("{signal} are of {name:?}; OTEL_SERVICE_NAME names the service"))
            })
        },
    },
];

/// Services of which metrics came since the request was sent, and nothing else ever.
fn metrics_of_others(subject: &Subject<'_>) -> Vec<String> {
    let capture = subject.capture;
    if !subject.first || !subject.complete || capture.spans().is_empty() {
        return Vec::new();
    }
    let named: BTreeSet<&str> =
        subject.metrics_since().iter().filter_map(|metric| metric.resource.service_name()).collect();
    let known = |name: &str| {
        let spans = capture.spans().iter().rev().map(|span| &span.resource);
        let records = capture.logs().iter().rev().filter_map(|record| record.resource.as_ref());
        spans.chain(records).any(|resource| resource.service_name() == Some(name))
    };
    let of_others = named.into_iter().filter(|name| !known(name));
    of_others.map(|name| format!("metrics are of {name:?}, of which no span and no log record came")).collect()
}

/// What `check` says of the resources of the request's spans and log records, each thing once.
fn of_each_signal(subject: &Subject<'_>, check: impl Fn(&str, &Resource) -> Option<String>) -> Vec<String> {
    let spans = subject.evidence.trace.spans().map(|span| ("spans", &span.resource));
    let records = subject.evidence.logs.iter().filter_map(|record| Some(("log records", record.resource.as_ref()?)));
    let found: BTreeSet<String> =
        spans.chain(records).filter_map(|(signal, resource)| check(signal, resource)).collect();
    found.into_iter().collect()
}

/// Exported log records of the request with their resource and the span that they name.
fn linked<'a>(subject: &Subject<'a>) -> impl Iterator<Item = (&'a LogRecord, &'a Resource, &'a Span)> {
    let trace = &subject.evidence.trace;
    subject.evidence.logs.iter().filter_map(move |record| {
        let resource = record.resource.as_deref()?;
        let at = trace.position(record.trace_id.valid()?, record.span_id.valid()?)?;
        Some((&**record, resource, &*trace.nodes()[at].span))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{broken, entry, findings, judge, resource, told};
    use crate::{
        capture::Store,
        correlation::samples,
        telemetry::{Arrival, LineFormat, LogOrigin, LogRecord, Metric, MetricKind, Resource, Span},
    };

    fn record(resource: Arc<Resource>) -> LogRecord {
        let record = samples::record(Some(1), Some(1));
        LogRecord { origin: LogOrigin::Otlp, format: LineFormat::Otlp, resource: Some(resource), ..record }
    }

    #[test]
    fn a_resource_without_a_service_name_is_found_on_either_signal() {
        let delivery = samples::delivery();
        let nameless = || resource(&[("telemetry.sdk.language", "python")]);
        assert_eq!(
            broken(&delivery, vec![Span { resource: nameless(), ..entry() }], Vec::new(), true),
            ["service-name"]
        );
        assert_eq!(broken(&delivery, vec![entry()], vec![record(nameless())], true), ["service-name"]);
        assert!(broken(&delivery, vec![entry()], vec![record(entry().resource)], true).is_empty());
    }

    #[test]
    fn the_sdks_own_name_is_only_mentioned() {
        let unknown = Span { resource: resource(&[("service.name", "unknown_service:python")]), ..entry() };
        assert!(broken(&samples::delivery(), vec![unknown.clone()], Vec::new(), true).is_empty());
        assert_eq!(told(&samples::delivery(), vec![unknown], Vec::new()), ["unknown-service"]);
    }

    #[test]
    fn two_names_of_one_process_are_found_and_of_processes_that_do_not_name_themselves_only_mentioned() {
        let judged = |of_span: &[(&str, &str)], of_record: &[(&str, &str)]| {
            let span = Span { resource: resource(of_span), ..entry() };
            told(&samples::delivery(), vec![span], vec![record(resource(of_record))])
        };
        let (shop, cart) = (("service.name", "shop"), ("service.name", "cart"));
        let (one, two) = (("service.instance.id", "1"), ("service.instance.id", "2"));
        assert_eq!(judged(&[shop, one], &[cart, one]), ["same-service", "same-resource"]);
        assert_eq!(judged(&[shop], &[cart]), ["same-resource"]);
        assert_eq!(judged(&[shop, one], &[cart, two]), ["same-resource"]);
        assert_eq!(judged(&[shop, one], &[shop, two]), ["same-resource"]);
        assert!(judged(&[shop, one], &[shop]).is_empty());
    }

    fn metric(resource: Arc<Resource>) -> Metric {
        Metric {
            name: "orders".into(),
            unit: String::new(),
            description: String::new(),
            kind: MetricKind::Gauge,
            points: Vec::new(),
            resource,
            scope: Arc::default(),
            arrival: Arrival::default(),
        }
    }

    #[test]
    fn an_sdks_metrics_without_a_service_name_are_found_and_a_host_collectors_are_not() {
        let judged = |attributes: &[(&str, &str)]| {
            let store = samples::store(vec![entry()], Vec::new());
            samples::export_metrics(&store, vec![metric(resource(attributes))]);
            judge(&store, &samples::delivery(), true, &[])
        };
        assert_eq!(judged(&[("telemetry.sdk.name", "opentelemetry")]), ["service-name"]);
        assert!(judged(&[("telemetry.sdk.name", "opentelemetry"), ("service.name", "shop")]).is_empty());
        assert!(judged(&[("host.name", "a")]).is_empty());
    }

    #[test]
    fn metrics_of_a_service_that_sends_nothing_else_are_mentioned() {
        let judged = |spans: Vec<Span>, service: &str| {
            let store = Store::default();
            samples::export(&store, spans);
            samples::export_metrics(&store, vec![metric(resource(&[("service.name", service)]))]);
            let found = findings(&store, &samples::delivery(), true, &[], &[]);
            found.into_iter().map(|finding| finding.rule).collect::<Vec<_>>()
        };
        assert_eq!(judged(vec![entry()], "unknown_service"), ["metrics-service"]);
        assert!(judged(vec![entry()], "shop").is_empty());
        assert!(judged(Vec::new(), "unknown_service").is_empty());
    }
}
