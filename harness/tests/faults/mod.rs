//! Instrumentation faults, each with the scenario that should see it.

pub mod invariants;
pub mod late;
pub mod tamper;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::json;
use tamper::{attributes, each_span, json_lines, lines, spans};
use tracegate::{
    capture::Tamper,
    config::Deployment,
    telemetry::{SpanId, SpanKind, StatusCode, TraceId, Value},
};

/// One fault, applied from outside.
pub struct Fault {
    /// What is broken, as a person would say it.
    pub name: &'static str,
    /// The deployment it is applied to.
    pub deployment: &'static str,
    /// The feature file with the scenario, below `features/`.
    pub feature: &'static str,
    /// The scenario that must fail.
    pub caught_by: &'static str,
    /// What the failure must say.
    pub because: &'static str,
    /// How the deployment is changed.
    pub apply: Box<dyn FnOnce(&mut Deployment)>,
    /// How what it sends is changed.
    pub tamper: Option<Arc<dyn Tamper>>,
}

const REFUSALS: &str = "collector/refusals.feature";
const FILES: &str = "routes/files.feature";
const ERRORS: &str = "routes/errors.feature";
const CONTEXT: &str = "propagation/context.feature";
const SHUTDOWN: &str = "shutdown/shutdown.feature";
const SOAK: &str = "soak/every-trace.feature";
const EVERY_REQUEST: &str = "Every request of a soak is correlated";
const LOGS: &str = "logs/correlation.feature";
const LISTING: &str = "A listing is one server span with one storage span below it";
const ENTRY: &str = "The entry span hangs on the caller's span";
const EVERY_LINE: &str = "Every line of a request names a span of its trace";
const FIELDS: &str = "Request and response are logged inside the server's span, with searchable fields";

/// All faults. `late` is the URL of [`late::serve`].
pub fn all(late: &str) -> Vec<Fault> {
    let freezing = late.to_owned();
    vec![
        env("no propagator", "process", CONTEXT, "Both headers", "trace", "OTEL_PROPAGATORS", "none"),
        env("no W3C propagator", "process", CONTEXT, "W3C only", "trace", "OTEL_PROPAGATORS", "xray"),
        env("no X-Ray propagator", "process", CONTEXT, "X-Ray only", "trace", "OTEL_PROPAGATORS", "tracecontext"),
        env(
            "wrong propagator order",
            "lambda",
            CONTEXT,
            "The invocation's span hangs on the runtime's span, not on the client's",
            "hangs on",
            "OTEL_PROPAGATORS",
            "tracecontext,xray-lambda",
        ),
        env("spans are not exported", "process", FILES, LISTING, "received", "OTEL_TRACES_EXPORTER", "none"),
        env(
            "spans are not exported and a step asks for all of them",
            "process",
            FILES,
            "A process's trace has exactly these two spans",
            "no span at all",
            "OTEL_TRACES_EXPORTER",
            "none",
        ),
        env(
            "log records are not exported",
            "process",
            LOGS,
            "Stdout and OTLP tell the same",
            "OTLP",
            "OTEL_LOGS_EXPORTER",
            "none",
        ),
        env(
            "metrics are not exported",
            "process",
            "metrics/server.feature",
            "Request durations are recorded by route and status",
            "http.server.request.duration",
            "OTEL_METRICS_EXPORTER",
            "none",
        ),
        env("the SDK is disabled", "lambda", FILES, LISTING, "received", "OTEL_SDK_DISABLED", "true"),
        env(
            "the caller's sampling decision is ignored",
            "process",
            CONTEXT,
            "What the caller does not sample is not exported, and the lines still name its trace",
            "span",
            "OTEL_TRACES_SAMPLER",
            "always_on",
        ),
        env(
            "the upstream call carries no context",
            "s3",
            "storage/s3.feature",
            "A missing object marks the call and not the request",
            "s3",
            "OTEL_PROPAGATORS",
            "none",
        ),
        Fault {
            name: "the flush comes after the freeze",
            deployment: "lambda",
            feature: "lambda/freeze.feature",
            caught_by: "Everything of an invocation has left before its freeze",
            because: "late by 1 invocation",
            apply: Box::new(move |spec| {
                spec.env.insert("OTEL_EXPORTER_OTLP_ENDPOINT".into(), format!("{freezing}/{{otlp.authority}}"));
            }),
            tamper: None,
        },
        Fault {
            name: "a signal kills what was queued",
            deployment: "process",
            feature: SHUTDOWN,
            caught_by: "What was queued is exported after SIGTERM",
            because: "was logged and never exported",
            apply: Box::new(|spec| {
                spec.env.insert("OTEL_BSP_SCHEDULE_DELAY".into(), "60000".into());
                // The wrapper stands for a supervisor that kills instead of asking. The service has a session of its own, so
                // that a signal to the process group is not a race between the two.
                let script = r#"
                    setsid sh -c '
                        supervisor=$0
                        "$@" &
                        while kill -0 "$supervisor" 2>&-; do sleep 0.05; done
                        kill -9 $!' $$ "$@" &
                    trap "exit 0" TERM
                    wait"#;
                spec.wrap = ["sh", "-c", script, "sh"].map(Into::into).to_vec();
            }),
            tamper: None,
        },
        lost_at_shutdown("log records are lost on the way out", "LOGS", "OTEL_BLRP_SCHEDULE_DELAY", "OTLP", late),
        lost_at_shutdown(
            "metrics are lost on the way out",
            "METRICS",
            "OTEL_METRIC_EXPORT_INTERVAL",
            "http.server.request.duration",
            late,
        ),
        Fault {
            name: "worker processes are not instrumented",
            tamper: only_first_instance(),
            ..rewritten("workers", "workers/workers.feature", "Every worker shows itself", "worker processes")
        },
        Fault {
            name: "a child span is dropped",
            tamper: spans(|spans| spans.into_iter().filter(|span| !span.name.ends_with("ListObjectsV2")).collect()),
            ..rewritten("process", FILES, "A process's trace has exactly these two spans", "ListObjectsV2")
        },
        Fault {
            name: "a span hangs on one that never comes",
            tamper: each_span(|span| {
                if span.name.ends_with("ListObjectsV2") {
                    span.parent_span_id = Some(SpanId::random());
                }
            }),
            ..rewritten("process", FILES, LISTING, "ListObjectsV2")
        },
        Fault {
            name: "a span hangs on the caller instead of its parent",
            tamper: reparented(),
            ..rewritten("process", FILES, "A process's trace has exactly these two spans", "ListObjectsV2")
        },
        Fault {
            name: "work of the request loses its context and starts a trace of its own",
            tamper: each_span(|span| {
                if span.kind == SpanKind::Internal {
                    (span.trace_id, span.parent_span_id) = (TraceId::random(), None);
                }
            }),
            ..rewritten("process", FILES, "A file is written, read, listed and deleted", "in a trace of its own")
        },
        Fault {
            name: "a thread keeps the context of the first request",
            tamper: kept_context(),
            ..rewritten("process", REFUSALS, "traces that are refused for now are sent again", "of an earlier one")
        },
        Fault {
            name: "work behind the answer starts a trace of its own",
            // The span must not come before it begins.
            apply: Box::new(|spec| {
                spec.env.insert("OTEL_BSP_SCHEDULE_DELAY".into(), "400".into());
            }),
            tamper: each_span(|span| {
                if span.kind == SpanKind::Internal {
                    (span.trace_id, span.parent_span_id) = (TraceId::random(), None);
                    span.start_unix_nano += BEHIND;
                    span.end_unix_nano += BEHIND;
                }
            }),
            ..rewritten("process", "invariants/requests.feature", "A listing", "right behind it")
        },
        Fault {
            name: "work behind the answer writes lines without ids",
            deployment: "process",
            feature: LOGS,
            caught_by: EVERY_LINE,
            because: "each time the request was repeated",
            apply: Box::new(|spec| {
                // The line must be here before the verdict is.
                spec.env.insert("OTEL_BSP_SCHEDULE_DELAY".into(), "400".into());
                let script = r#"
                    "$@" | while IFS= read -r line; do
                        echo "$line"
                        case $line in *"Request details"*"/files/"*) (sleep 0.05; echo '{"message": "mail sent"}') & esac
                    done"#;
                spec.wrap = ["sh", "-c", script, "sh"].map(Into::into).to_vec();
            }),
            tamper: None,
        },
        Fault {
            name: "a span is exported twice",
            tamper: spans(|spans| spans.into_iter().flat_map(|span| [span.clone(), span]).collect()),
            ..rewritten("process", FILES, "/healthcheck answers 200", "twice")
        },
        Fault {
            name: "a span is exported twice where no step counts",
            tamper: spans(|spans| spans.into_iter().flat_map(|span| [span.clone(), span]).collect()),
            ..rewritten("process", CONTEXT, ENTRY, "no-duplicate")
        },
        env(
            "an exporter gives up at the first refusal",
            "process",
            REFUSALS,
            "traces that are refused for now are sent again",
            "lost",
            // Less than the first pause before a retry.
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "95",
        ),
        Fault {
            name: "an exporter sends again what was partly rejected",
            tamper: sent_again(),
            ..rewritten("process", REFUSALS, "A partial success is not sent again", "again")
        },
        Fault {
            name: "an exporter sends a batch again that was taken",
            tamper: sent_again(),
            ..rewritten("process", REFUSALS, "traces that are refused for now are sent again", "twice")
        },
        Fault {
            name: "a span ends before it starts",
            tamper: each_span(|span| span.end_unix_nano = span.start_unix_nano - 1),
            ..rewritten("process", CONTEXT, ENTRY, "end-after-start")
        },
        Fault {
            name: "a 5xx leaves the server's span unset",
            tamper: each_span(|span| {
                span.attributes = attributes(&span.attributes, |key, value| match key {
                    "http.response.status_code" => Some((key.to_owned(), Value::Int(503))),
                    _ => Some((key.to_owned(), value)),
                });
            }),
            ..rewritten("process", CONTEXT, ENTRY, "server-status")
        },
        Fault {
            name: "an attribute is renamed",
            tamper: each_span(|span| {
                span.attributes = attributes(&span.attributes, |key, value| {
                    Some((if key == "http.route" { "http.rout" } else { key }.to_owned(), value))
                });
            }),
            ..rewritten("process", FILES, "/healthcheck answers 200", "http.rout")
        },
        Fault {
            name: "a number is sent as a string",
            tamper: each_span(|span| {
                span.attributes = attributes(&span.attributes, |key, value| match value {
                    Value::Int(number) => Some((key.to_owned(), Value::String(number.to_string()))),
                    other => Some((key.to_owned(), other)),
                });
            }),
            ..rewritten("process", FILES, "/healthcheck answers 200", "http.response.status_code")
        },
        Fault {
            name: "the server's span has another kind",
            tamper: each_span(|span| {
                if span.kind == SpanKind::Server {
                    span.kind = SpanKind::Internal;
                }
            }),
            ..rewritten("process", FILES, LISTING, "INTERNAL")
        },
        Fault {
            name: "a 404 marks the server's span as an error",
            tamper: each_span(|span| {
                if span.kind == SpanKind::Server {
                    span.status.code = StatusCode::Error;
                }
            }),
            ..rewritten(
                "process",
                ERRORS,
                "A missing file is a 404, an error of the storage call, and not one of the server",
                "Error",
            )
        },
        Fault {
            name: "the exception event is missing",
            tamper: each_span(|span| span.events.clear()),
            ..rewritten(
                "lambda",
                ERRORS,
                "A missing file is a 404, an error of the storage call, and not one of the server",
                "exception",
            )
        },
        Fault {
            name: "log lines without ids",
            tamper: json_lines(|line| {
                for key in ["trace_id", "span_id", "xray_trace_id"] {
                    line.remove(key);
                }
            }),
            ..rewritten("process", LOGS, EVERY_LINE, "its trace id is none")
        },
        Fault {
            name: "log lines with ids of zero",
            tamper: json_lines(|line| {
                for (key, zero) in [("trace_id", "0".repeat(32)), ("span_id", "0".repeat(16))] {
                    line.insert(key.into(), json!(zero));
                }
                line.remove("xray_trace_id");
            }),
            ..rewritten("lambda", LOGS, EVERY_LINE, "zero")
        },
        Fault {
            name: "log lines with the ids of another request's span",
            tamper: ids_of_the_previous_line(),
            ..rewritten("process", LOGS, "Lines of concurrent requests do not bleed into each other", "another request")
        },
        Fault {
            name: "spans of requests at the same time hang on the wrong one",
            tamper: in_another_requests_trace(),
            ..rewritten("process", LOGS, "Requests at the same time keep their spans and lines apart", "mixed")
        },
        Fault {
            name: "log lines name spans that do not exist",
            tamper: json_lines(|line| {
                if line.contains_key("span_id") {
                    line.insert("span_id".into(), json!(SpanId::random().to_string()));
                }
            }),
            ..rewritten("process", LOGS, EVERY_LINE, "was not received")
        },
        Fault {
            name: "one request in a hundred leaves no span",
            tamper: one_span_in_a_hundred_is_lost(),
            ..rewritten("process", SOAK, EVERY_REQUEST, "no span of the caller's trace")
        },
        Fault {
            name: "one log line in ten is lost under load",
            tamper: one_line_in_ten_is_lost(),
            ..rewritten("process", SOAK, EVERY_REQUEST, "all-alike")
        },
        Fault {
            name: "an exporter under load sends what was taken again",
            tamper: sent_again(),
            ..rewritten("workers", SOAK, EVERY_REQUEST, "a duplicate")
        },
        Fault {
            name: "log lines under load with the ids of another request's span",
            tamper: span_of_the_previous_line(),
            ..rewritten("process", SOAK, EVERY_REQUEST, "an uncorrelated log record")
        },
        Fault {
            name: "a log line is lost",
            tamper: lines(|line| Some(line).filter(|line| !line.contains("Response details"))),
            ..rewritten("process", LOGS, FIELDS, "Response details")
        },
        Fault {
            name: "structured fields become text",
            tamper: json_lines(|line| {
                if let Some(headers) = line.remove("headers") {
                    line.insert("headers_text".into(), json!(format!("{headers:?}")));
                }
            }),
            ..rewritten("process", LOGS, FIELDS, "headers.accept")
        },
        Fault {
            name: "a secret in a field",
            tamper: lines(|line| Some(line.replace("REDACTED", "canary-7b1f4e0c"))),
            ..rewritten(
                "process",
                "redaction/secrets.feature",
                "A secret in the Authorization header",
                "headers.authorization",
            )
        },
        Fault {
            name: "a secret in a span",
            tamper: each_span(|span| {
                span.attributes = attributes(&span.attributes, |key, value| match (key, &value) {
                    ("url.query", Value::String(query)) => {
                        Some((key.to_owned(), Value::String(query.replace("REDACTED", "canary-1d9a2c77"))))
                    }
                    _ => Some((key.to_owned(), value)),
                });
            }),
            ..rewritten("process", "redaction/secrets.feature", "A secret in the query", "url.query")
        },
    ]
}

/// One span in a hundred does not come.
fn one_span_in_a_hundred_is_lost() -> Option<Arc<dyn Tamper>> {
    let count = AtomicUsize::new(0);
    spans(move |mut spans| {
        spans.retain(|_| count.fetch_add(1, Ordering::Relaxed) % 100 != 50);
        spans
    })
}

/// Of the first requests of a soak, and not of the last one, which is judged by itself.
fn one_line_in_ten_is_lost() -> Option<Arc<dyn Tamper>> {
    let count = AtomicUsize::new(0);
    lines(move |line| {
        let number = if line.contains("Response details") { count.fetch_add(1, Ordering::Relaxed) } else { 0 };
        Some(line).filter(|_| number >= 400 || number % 10 != 5)
    })
}

/// Each line keeps its trace and names the span that the line before it named.
fn span_of_the_previous_line() -> Option<Arc<dyn Tamper>> {
    let last = Mutex::new(json!(null));
    json_lines(move |line| {
        let Some(span) = line.get("span_id").cloned() else { return };
        let before = std::mem::replace(&mut *last.lock().unwrap_or_else(PoisonError::into_inner), span);
        if before.is_string() {
            line.insert("span_id".into(), before);
        }
    })
}

/// How long behind its request that begins which a request set off, in nanoseconds: the service answers in less.
const BEHIND: u64 = 100_000_000;

/// Inner spans hang where the first one of their name does.
fn kept_context() -> Option<Arc<dyn Tamper>> {
    let first = Mutex::new(HashMap::new());
    each_span(move |span| {
        if span.kind == SpanKind::Internal {
            let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
            let here = (span.trace_id, span.parent_span_id);
            (span.trace_id, span.parent_span_id) = *first.entry(span.name.clone()).or_insert(here);
        }
    })
}

/// Every export brings the spans of the one before it once more.
fn sent_again() -> Option<Arc<dyn Tamper>> {
    let before = Mutex::new(Vec::new());
    spans(move |spans| {
        let again = std::mem::replace(&mut *before.lock().unwrap_or_else(PoisonError::into_inner), spans.clone());
        again.into_iter().chain(spans).collect()
    })
}

/// What one signal queued until the service was stopped reaches a collector that says yes and hands it on to nobody.
fn lost_at_shutdown(
    name: &'static str,
    signal: &'static str,
    delay: &'static str,
    because: &'static str,
    late: &str,
) -> Fault {
    let late = late.to_owned();
    Fault {
        name,
        apply: Box::new(move |spec| {
            let endpoint = format!("{late}/{{otlp.authority}}/v1/{}", signal.to_ascii_lowercase());
            spec.env.insert(format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"), endpoint);
            spec.env.insert(format!("OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"), "http/protobuf".into());
            spec.env.insert(delay.into(), "60000".into());
        }),
        ..rewritten("process", SHUTDOWN, "What was queued is exported after SIGTERM", because)
    }
}

/// A fault by environment variable.
fn env(
    name: &'static str,
    deployment: &'static str,
    feature: &'static str,
    caught_by: &'static str,
    because: &'static str,
    variable: &'static str,
    value: &'static str,
) -> Fault {
    Fault {
        name,
        apply: Box::new(move |spec| {
            spec.env.insert(variable.into(), value.into());
        }),
        ..rewritten(deployment, feature, caught_by, because)
    }
}

/// A fault that only rewrites what is received; its name and its tamper are to be added.
fn rewritten(deployment: &'static str, feature: &'static str, caught_by: &'static str, because: &'static str) -> Fault {
    Fault { name: "", deployment, feature, caught_by, because, apply: Box::new(|_| {}), tamper: None }
}

/// Spans of the first worker process that is seen, and of no other.
fn only_first_instance() -> Option<Arc<dyn Tamper>> {
    let first = Mutex::new(None);
    spans(move |spans| {
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        spans
            .into_iter()
            .filter(|span| {
                let instance = span.resource.instance();
                first.get_or_insert_with(|| instance.clone()) == &instance
            })
            .collect()
    })
}

/// The fifth inner span hangs where the fourth does: a context in a global variable, seen once.
fn in_another_requests_trace() -> Option<Arc<dyn Tamper>> {
    let seen = Mutex::new(Vec::new());
    each_span(move |span| {
        if span.kind == SpanKind::Internal {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push((span.trace_id, span.parent_span_id));
            if let [.., fourth, _] = seen[..]
                && seen.len() == 5
            {
                (span.trace_id, span.parent_span_id) = fourth;
            }
        }
    })
}

/// Children of a SERVER span that was seen hang on that span's parent instead. Children end first, so they come first.
fn reparented() -> Option<Arc<dyn Tamper>> {
    spans(|mut spans| {
        let servers: HashMap<SpanId, Option<SpanId>> = spans
            .iter()
            .filter(|span| span.kind == SpanKind::Server)
            .map(|span| (span.span_id, span.parent_span_id))
            .collect();
        for span in spans.iter_mut().filter(|span| span.kind == SpanKind::Internal) {
            match span.parent_span_id.and_then(|parent| servers.get(&parent)) {
                Some(Some(above)) => span.parent_span_id = Some(*above),
                Some(None) => span.parent_span_id = None,
                // Its parent comes with a later request: hang it on nothing.
                None => span.parent_span_id = None,
            }
        }
        spans
    })
}

/// Each line gets the ids of the line with another trace id that came last.
fn ids_of_the_previous_line() -> Option<Arc<dyn Tamper>> {
    let last: Mutex<Option<(serde_json::Value, serde_json::Value)>> = Mutex::new(None);
    json_lines(move |line| {
        let (Some(trace), Some(span)) = (line.get("trace_id").cloned(), line.get("span_id").cloned()) else { return };
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((old_trace, old_span)) = last.replace((trace.clone(), span))
            && old_trace != trace
        {
            line.insert("trace_id".into(), old_trace);
            line.insert("span_id".into(), old_span);
            line.remove("xray_trace_id");
        }
    })
}
