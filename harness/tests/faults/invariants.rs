//! A fault for every invariant. The scenarios have no step that looks for it, so what catches it is the invariant.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tracegate::{
    capture::Decoded,
    config::{Canaries, Deployment},
    invariant::{Grade, rules},
    stimulus::canary,
    telemetry::{Exemplar, PointValue, Span, SpanId, SpanKind, Status, StatusCode, TraceId, Value},
};

use super::{
    Fault, reparented,
    tamper::{attributes, each_record, each_span, exports, json_lines, resource, spans, with},
};

const LISTING: &str = "A listing";
const WRITTEN: &str = "A file that is written";
/// How far behind its own time work behind the answer is, in nanoseconds.
const BEHIND: u64 = 100_000_000;
const COUNTED: &str = "A request that is counted";
const COUNTED_AGAIN: &str = "Requests that are counted one after the other";
const REQUESTS: &str = "http.server.request.duration";

/// All of them. `garble` is the URL of [`super::late::garble`].
pub fn all(garble: &str) -> Vec<Fault> {
    let garble = garble.to_owned();
    vec![
        Fault {
            apply: Box::new(move |spec| {
                spec.env.insert("OTEL_EXPORTER_OTLP_PROTOCOL".into(), "http/protobuf".into());
                spec.env.insert("OTEL_EXPORTER_OTLP_ENDPOINT".into(), format!("{garble}/{{otlp.authority}}"));
            }),
            ..caught("an exporter sends what cannot be decoded", "valid-ids", LISTING)
        },
        Fault {
            apply: Box::new(|spec| {
                spec.env.insert("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL".into(), "http/protobuf".into());
                spec.env.insert("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT".into(), "{otlp}/v1/v1/logs".into());
            }),
            ..caught("log records go to a path that the collector does not have", "exports-arrive", LISTING)
        },
        Fault {
            tamper: each_span(|span| {
                if span.kind == SpanKind::Server {
                    span.parent_span_id = Some(SpanId::random());
                }
            }),
            ..caught("the entry span hangs on a parent that nobody named", "remote-parent", LISTING)
        },
        Fault {
            tamper: reparented(),
            ..caught("inner work hangs on the caller where no step says on what it should", "one-entry", LISTING)
        },
        Fault {
            tamper: each_span(|span| {
                if span.kind == SpanKind::Internal {
                    span.parent_span_id = Some(SpanId::random());
                }
            }),
            ..caught("inner work hangs on a span that never comes", "no-orphan", LISTING)
        },
        Fault {
            tamper: spans(|spans| spans.into_iter().flat_map(|span| [span.clone(), span]).collect()),
            ..caught("two exporters send the same spans", "no-duplicate", LISTING)
        },
        Fault {
            tamper: each_span(|span| {
                if span.kind == SpanKind::Internal {
                    span.parent_span_id = Some(span.span_id);
                }
            }),
            ..caught("a span is its own parent", "no-cycle", LISTING)
        },
        Fault {
            tamper: each_span(|span| {
                if span.kind == SpanKind::Internal {
                    (span.trace_id, span.parent_span_id) = (TraceId::random(), None);
                }
            }),
            ..caught("inner work begins a trace of its own where no step looks", "one-trace", LISTING)
        },
        Fault {
            apply: environment("OTEL_PROPAGATORS", "none"),
            ..caught("nothing carries the caller's trace on", "carries-on", LISTING)
        },
        Fault {
            tamper: each_span(|span| span.end_unix_nano = span.start_unix_nano - 1),
            ..caught("spans end before they start", "end-after-start", LISTING)
        },
        Fault {
            tamper: each_span(|span| {
                if span.kind == SpanKind::Internal {
                    span.end_unix_nano += 1_000_000_000;
                }
            }),
            ..caught("a span is ended a second too late", "child-in-parent", LISTING)
        },
        Fault {
            tamper: each_span(|span| {
                if span.kind == SpanKind::Internal {
                    // Its flags say that its parent is in its own process.
                    (span.kind, span.flags) = (SpanKind::Server, 0x100);
                }
            }),
            ..caught("inner work has the kind SERVER", "kinds-fit", LISTING)
        },
        Fault {
            apply: environment("OTEL_TRACES_SAMPLER", "always_on"),
            ..caught("every request is sampled", "sampled", "What the caller does not sample")
        },
        Fault {
            tamper: each_span(|span| {
                if span.kind == SpanKind::Server {
                    span.attributes = with(&span.attributes, "http.response.status_code", Value::Int(503));
                }
            }),
            ..caught("a failure leaves the server's span unset", "server-status", LISTING)
        },
        Fault {
            tamper: each_record(|record| record.time_unix_nano = record.time_unix_nano.map(|time| time / 1_000_000)),
            ..caught("log records have their times in milliseconds", "near-the-request", LISTING)
        },
        Fault {
            tamper: each_span(|span| {
                if span.kind == SpanKind::Server {
                    span.attributes = with(&span.attributes, "http.response.status_code", Value::Int(201));
                }
            }),
            ..caught("the server's span tells a status that nobody got", "answered-status", LISTING)
        },
        Fault {
            tamper: each_span(|span| {
                if span.kind == SpanKind::Server {
                    span.attributes = with(&span.attributes, "http.route", "/files/4711".into());
                }
            }),
            ..caught("the route is the path that was asked for", "route-is-a-template", "A file whose name is a number")
        },
        Fault {
            tamper: each_span(|span| {
                if span.kind == SpanKind::Server {
                    span.kind = SpanKind::Internal;
                }
            }),
            ..caught("what takes the request is called inner work", "kinds-fit", LISTING)
        },
        Fault {
            deployment: "s3",
            tamper: each_span(|span| {
                if span.kind == SpanKind::Client {
                    span.start_unix_nano -= 5_000_000_000;
                    span.end_unix_nano -= 5_000_000_000;
                }
            }),
            ..caught(
                "a call goes out with the headers of one that was over",
                "call-context",
                "A request that calls out",
            )
        },
        Fault {
            deployment: "s3",
            apply: environment("OTEL_PROPAGATORS", "none"),
            ..caught("a call goes out without headers", "call-carries-on", "A request that calls out")
        },
        called(503, "a refused call leaves its span unset", "client-status"),
        called(404, "a call to what does not exist leaves its span unset", "client-error-status"),
        Fault {
            tamper: json_lines(|line| {
                if line.contains_key("span_id") {
                    line.insert("span_id".into(), SpanId::random().to_string().into());
                }
            }),
            ..caught("lines name spans that never come", "ids-resolve", LISTING)
        },
        Fault {
            tamper: json_lines(|line| {
                if line.contains_key("span_id") {
                    line.insert("span_id".into(), SpanId::random().to_string().into());
                }
            }),
            ..caught("lines name other spans than their exported copies", "copies-agree", LISTING)
        },
        Fault {
            tamper: json_lines(|line| {
                for key in ["trace_id", "span_id", "xray_trace_id"] {
                    line.remove(key);
                }
            }),
            ..caught("lines without ids where no step looks", "log-ids", LISTING)
        },
        Fault {
            tamper: each_record(|record| {
                record.time_unix_nano = record.time_unix_nano.map(|time| time + 2_000_000_000);
            }),
            ..caught("records are written after their spans", "log-in-span", LISTING)
        },
        Fault {
            tamper: each_span(|span| span.resource = resource(&span.resource, "service.name", None)),
            ..caught("nobody says which service it is", "service-name", LISTING)
        },
        Fault {
            tamper: of_records("service.name", "another"),
            ..caught("log records are of another service than the spans", "same-service", LISTING)
        },
        Fault {
            tamper: of_records("telemetry.sdk.version", "0"),
            ..caught("log records have a resource of their own", "same-resource", LISTING)
        },
        Fault {
            tamper: each_span(|span| {
                span.resource = resource(&span.resource, "service.name", Some("unknown_service:serverless-axum"));
            }),
            ..caught("the service has no name", "unknown-service", LISTING)
        },
        Fault {
            tamper: each_span(|span| {
                span.attributes = attributes(&span.attributes, |key, value| match key {
                    "http.response.status_code" => Some((key.to_owned(), value.to_string().as_str().into())),
                    _ => Some((key.to_owned(), value)),
                });
            }),
            ..caught("a status is written as text", "attribute-types", LISTING)
        },
        Fault {
            tamper: each_span(|span| {
                span.attributes = attributes(&span.attributes, |key, value| match key {
                    "http.request.method" => Some(("http.method".to_owned(), value)),
                    _ => Some((key.to_owned(), value)),
                });
            }),
            ..caught("an attribute has its old name", "deprecated-attributes", LISTING)
        },
        Fault {
            tamper: exports(|decoded| {
                let Decoded::Metrics(metrics) = decoded else { return };
                for point in
                    metrics.iter_mut().filter(|metric| metric.name == REQUESTS).flat_map(|metric| &mut metric.points)
                {
                    if let PointValue::Histogram { count, .. } = &mut point.value {
                        *count *= 1000;
                    }
                }
            }),
            ..caught("every request is counted many times", "metric-counts", COUNTED)
        },
        Fault {
            tamper: exports(|decoded| {
                let Decoded::Metrics(metrics) = decoded else { return };
                for metric in metrics.iter_mut().filter(|metric| metric.name == REQUESTS) {
                    for point in &mut metric.points {
                        if let PointValue::Histogram { sum, .. } = &mut point.value {
                            *sum = sum.map(|seconds| seconds * 1e6);
                        }
                    }
                }
            }),
            ..caught("durations are measured in microseconds and called seconds", "duration-unit", COUNTED)
        },
        Fault { tamper: falling_counts(), ..caught("two processes count in one series", "counts-grow", COUNTED_AGAIN) },
        Fault {
            tamper: exports(|decoded| {
                let Decoded::Metrics(metrics) = decoded else { return };
                for metric in metrics {
                    metric.resource = resource(&metric.resource, "service.name", Some("unknown_service"));
                }
            }),
            ..caught("metrics have a resource of their own", "metrics-service", COUNTED)
        },
        Fault {
            tamper: lost_exemplars(),
            ..caught("exemplars name spans that never come", "exemplars-resolve", COUNTED)
        },
        Fault {
            // The span must not come before it begins.
            apply: environment("OTEL_BSP_SCHEDULE_DELAY", "400"),
            tamper: each_span(|span| {
                if span.kind == SpanKind::Internal {
                    (span.trace_id, span.parent_span_id) = (TraceId::random(), None);
                    span.start_unix_nano += BEHIND;
                    span.end_unix_nano += BEHIND;
                }
            }),
            ..caught("work behind the answer of a POST starts a trace of its own", "unattributed", WRITTEN)
        },
        Fault {
            tamper: spans(|mut spans| {
                let servers: Vec<Span> = spans.iter().filter(|span| span.kind == SpanKind::Server).cloned().collect();
                for (server, seconds) in servers.iter().flat_map(|server| (2..5).map(move |seconds| (server, seconds)))
                {
                    let start_unix_nano = server.end_unix_nano + seconds * 1_000_000_000;
                    spans.push(Span {
                        span_id: SpanId::random(),
                        parent_span_id: Some(server.span_id),
                        kind: SpanKind::Internal,
                        name: "tick".into(),
                        start_unix_nano,
                        end_unix_nano: start_unix_nano + 1,
                        ..server.clone()
                    });
                }
                spans
            }),
            ..caught("a timer that was made in a request ticks in its trace", "endless-trace", LISTING)
        },
        Fault {
            tamper: json_lines(|line| {
                let agent =
                    line.get("headers").and_then(|headers| headers.get("user-agent")).and_then(|agent| agent.as_str());
                let planted = agent.and_then(|mark| canary::planted(&Canaries::default(), mark).pop());
                if let (Some((_, value)), Some(headers)) = (planted, line.get_mut("headers")) {
                    headers["cookie"] = value.into();
                }
            }),
            ..caught("a cookie is logged", "no-secret", LISTING)
        },
        Fault {
            tamper: each_span(|span| {
                let planted =
                    span.attributes.str("user_agent.original").map(|mark| canary::planted(&Canaries::default(), mark));
                if let Some((_, value)) = planted.and_then(|mut planted| planted.pop()) {
                    let hidden: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
                    span.attributes = with(&span.attributes, "session", hidden.as_str().into());
                }
            }),
            ..caught("a cookie in hexadecimal digits is in a span", "no-secret", LISTING)
        },
    ]
}

/// A fault that the invariant `rule` catches on a process; its change and its tamper are to be added. Advice is denied.
fn caught(name: &'static str, rule: &'static str, scenario: &'static str) -> Fault {
    Fault {
        name,
        deployment: "process",
        feature: "invariants/requests.feature",
        caught_by: scenario,
        because: rule,
        apply: Box::new(|_| {}),
        tamper: None,
    }
}

/// What a deployment denies so that the advice of this name fails.
pub fn deny(rule: &str, spec: &mut Deployment) {
    if rules().any(|known| known.name == rule && known.grade == Grade::Advice) {
        spec.invariants.deny.push(rule.to_owned());
    }
}

fn environment(variable: &'static str, value: &'static str) -> Box<dyn FnOnce(&mut Deployment)> {
    Box::new(move |spec| {
        spec.env.insert(variable.into(), value.into());
    })
}

/// CLIENT spans are of HTTP, were answered with `code`, and have no status.
fn called(code: i64, name: &'static str, rule: &'static str) -> Fault {
    Fault {
        deployment: "s3",
        tamper: each_span(move |span| {
            if span.kind == SpanKind::Client {
                let method = with(&span.attributes, "http.request.method", "GET".into());
                span.attributes = with(&method, "http.response.status_code", Value::Int(code));
                span.status = Status { code: StatusCode::Unset, message: String::new() };
            }
        }),
        ..caught(name, rule, "A request that calls out")
    }
}

fn of_records(key: &'static str, value: &'static str) -> Option<std::sync::Arc<dyn tracegate::capture::Tamper>> {
    each_record(move |record| record.resource = record.resource.as_ref().map(|own| resource(own, key, Some(value))))
}

/// What the harness itself asks for is counted downwards; the scenario counts the rest.
fn falling_counts() -> Option<std::sync::Arc<dyn tracegate::capture::Tamper>> {
    let left = AtomicU64::new(1000);
    exports(move |decoded| {
        let Decoded::Metrics(metrics) = decoded else { return };
        let left = left.fetch_sub(1, Ordering::Relaxed);
        for point in metrics.iter_mut().flat_map(|metric| &mut metric.points) {
            let harness = point.attributes.str("http.route") != Some("/files/");
            if let PointValue::Histogram { count, .. } = &mut point.value
                && harness
            {
                *count = left;
            }
        }
    })
}

/// Every metric gets an exemplar for each trace that came, which names a span that nobody has.
fn lost_exemplars() -> Option<std::sync::Arc<dyn tracegate::capture::Tamper>> {
    let traces = Mutex::new(BTreeSet::new());
    exports(move |decoded| {
        let mut traces = traces.lock().unwrap_or_else(PoisonError::into_inner);
        match decoded {
            Decoded::Spans(spans) => traces.extend(spans.iter().map(|span| span.trace_id.to_string())),
            Decoded::Metrics(metrics) => {
                for point in metrics.iter_mut().flat_map(|metric| &mut metric.points) {
                    let exemplar = |trace_id: &String| Exemplar {
                        trace_id: trace_id.clone(),
                        span_id: SpanId::random().to_string(),
                        time_unix_nano: point.time_unix_nano,
                    };
                    point.exemplars = traces.iter().map(exemplar).collect();
                }
            }
            _ => {}
        }
    })
}
