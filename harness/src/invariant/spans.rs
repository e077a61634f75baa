//! Rules about spans.

use super::{Rule, Subject};
use crate::{
    correlation::Stranger,
    telemetry::{Span, SpanKind, StatusCode},
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "valid-ids",
        about: "nothing that is exported is malformed: no zero or short ids, no body that does not decode",
        source: "W3C Trace Context 3.2.2; opentelemetry-proto",
        check: |subject| {
            let during = |seq: u64| (subject.delivery.sent.seq..=subject.capture.last_seq()).contains(&seq);
            let faults = subject.capture.faults().iter().filter(|fault| during(fault.arrival.seq));
            faults.map(|fault| format!("{}: {}", fault.signal, fault.reason)).collect()
        },
    },
    Rule {
        name: "no-orphan",
        about: "every span's parent is received too, or is the caller's span",
        source: "instrumentation-score SPA-002",
        check: |subject| {
            if !subject.complete {
                return Vec::new();
            }
            // An entry span that names a parent nobody sent is the caller's business as long as it was not told one.
            let told = !subject.delivery.remote_parents().is_empty();
            let entries: Vec<_> = subject.evidence.entries.iter().map(|entry| entry.span_id).collect();
            let orphans = subject.evidence.trace.orphans.iter();
            orphans.filter(|orphan| told || !entries.contains(&orphan.span.span_id)).map(ToString::to_string).collect()
        },
    },
    Rule {
        name: "no-duplicate",
        about: "no span is exported twice, and no two spans share an id",
        source: "OpenTelemetry specification, Trace SDK, span processors: OnEnd is called once",
        check: |subject| subject.evidence.trace.duplicates.iter().map(ToString::to_string).collect(),
    },
    Rule {
        name: "no-cycle",
        about: "no span is its own ancestor",
        source: "OpenTelemetry specification, overview: a trace is a tree",
        check: |subject| {
            subject
                .evidence
                .trace
                .cycles
                .iter()
                .map(|cycle| format!("the spans {cycle:?} hang on each other"))
                .collect()
        },
    },
    Rule {
        name: "one-trace",
        about: "all spans of a request are in one trace",
        source: "OpenTelemetry specification, overview: a trace is a transaction",
        check: |subject| {
            let split =
                |stranger: &&Stranger| matches!(stranger, Stranger::OtherTrace { .. } | Stranger::Detached { .. });
            subject.evidence.strangers.iter().filter(split).map(ToString::to_string).collect()
        },
    },
    Rule {
        name: "end-after-start",
        about: "no span ends before it starts",
        source: "OpenTelemetry specification, Trace API, Span: end timestamp",
        check: |subject| {
            each(subject, |span| {
                (span.end_unix_nano < span.start_unix_nano).then(|| {
                    let by = span.start_unix_nano - span.end_unix_nano;
                    format!("{} {:?} ends {by} ns before it starts", span.kind, span.name)
                })
            })
        },
    },
    Rule {
        name: "sampled",
        about: "what the caller does not sample is not exported",
        source: "OpenTelemetry specification, Trace SDK, ParentBased; X-Ray developer guide, Sampled=0",
        check: |subject| match (subject.evidence.sampled(), subject.evidence.trace.spans().next()) {
            (false, Some(span)) => vec![format!("{} {:?} was exported for an unsampled caller", span.kind, span.name)],
            _ => Vec::new(),
        },
    },
    Rule {
        name: "server-status",
        about: "a SERVER span with an HTTP status of 5xx has status Error, one with 4xx has not",
        source: "semantic conventions, HTTP spans, Status",
        check: |subject| {
            each(subject, |span| {
                let keys = ["http.response.status_code", "http.status_code"];
                let code = keys.iter().find_map(|key| span.attributes.get(key)?.as_int())?;
                let error = span.status.code == StatusCode::Error;
                let wrong =
                    span.kind == SpanKind::Server && ((code >= 500 && !error) || ((400..500).contains(&code) && error));
                wrong.then(|| {
                    format!("{} {:?} has HTTP status {code} and span status {}", span.kind, span.name, span.status.code)
                })
            })
        },
    },
];

fn each(subject: &Subject<'_>, check: impl Fn(&Span) -> Option<String>) -> Vec<String> {
    subject.evidence.trace.spans().filter_map(|span| check(span)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{broken, entry};
    use super::*;
    use crate::{
        correlation::samples,
        stimulus::{Caller, Delivery},
        telemetry::{SpanId, Status, Value},
    };

    fn of_request(change: impl FnOnce(&mut Span)) -> Vec<&'static str> {
        let delivery = samples::delivery();
        let mut span = entry();
        change(&mut span);
        broken(&delivery, vec![span], Vec::new(), true)
    }

    fn status(code: i64, status: StatusCode) -> Vec<&'static str> {
        of_request(|span| {
            span.attributes = [("http.response.status_code", Value::Int(code))].into_iter().collect();
            span.status = Status { code: status, message: String::new() };
        })
    }

    #[test]
    fn a_span_that_ends_before_it_starts_is_found() {
        assert_eq!(of_request(|span| span.end_unix_nano = span.start_unix_nano - 1), ["end-after-start"]);
        assert!(of_request(|span| span.end_unix_nano = span.start_unix_nano).is_empty());
    }

    #[test]
    fn a_5xx_without_error_and_a_4xx_with_error_are_found_and_the_others_are_not() {
        assert_eq!(status(503, StatusCode::Unset), ["server-status"]);
        assert_eq!(status(404, StatusCode::Error), ["server-status"]);
        assert!(status(503, StatusCode::Error).is_empty());
        assert!(status(404, StatusCode::Unset).is_empty());
        assert!(status(200, StatusCode::Ok).is_empty());
    }

    #[test]
    fn an_orphan_is_found_once_completeness_is_proven_and_not_before() {
        let delivery = samples::delivery();
        let entry = entry();
        let mut orphan = entry.clone();
        orphan.span_id = SpanId::random();
        orphan.parent_span_id = Some(SpanId::random());
        orphan.kind = SpanKind::Internal;
        let spans = vec![entry, orphan];
        assert_eq!(broken(&delivery, spans.clone(), Vec::new(), true), ["no-orphan"]);
        assert!(broken(&delivery, spans, Vec::new(), false).is_empty());
    }

    #[test]
    fn a_span_that_came_twice_is_found() {
        let delivery = samples::delivery();
        let entry = entry();
        assert_eq!(broken(&delivery, vec![entry.clone(), entry], Vec::new(), true), ["no-duplicate"]);
    }

    #[test]
    fn a_span_for_an_unsampled_caller_is_found() {
        let delivery = samples::delivery();
        let unsampled = delivery.caller.map(|caller| Caller { sampled: false, ..caller });
        let entry = entry();
        let delivery = Delivery { caller: unsampled, ..delivery };
        assert_eq!(broken(&delivery, vec![entry], Vec::new(), true), ["sampled"]);
    }
}
