//! The rule about values that must not come out.

use std::collections::HashSet;

use percent_encoding::percent_decode_str;

use super::{Grade::Rule as Always, Rule, Subject};
use crate::{
    capture::{Capture, Encoding, ExportRequest, Mark},
    expectation::{Canary, Leak, SecretForm, find_secrets, may_hold},
    stimulus::canary::planted_in,
    telemetry::{Arrival, LogOrigin},
};

/// Headers in which a trace context travels. Other headers of a call out may hold what came in: a gateway passes
/// credentials on, and that is its task.
const CONTEXT: [&str; 10] = [
    "traceparent",
    "tracestate",
    "baggage",
    "x-amzn-trace-id",
    "b3",
    "x-b3-traceid",
    "uber-trace-id",
    "uberctx",
    "ot-baggage",
    "correlation-context",
];

pub(super) const RULES: &[Rule] = &[Rule {
    name: "no-secret",
    grade: Always,
    about: "no canary that was planted in the request, no credential that the scenario sends, and no value that it calls a secret is \
            in any span, log record, line, metric or resource, nor in the baggage and trace headers of calls out; neither \
            plain nor percent-encoded, in Base64 or hexadecimal digits, nor half of a canary or more; and no canary of another request is \
            in the baggage and trace headers of this one's calls out",
    limits: "Everything that came since the request was sent is searched. Other headers, the target and the body of calls out are \
             not: a gateway passes credentials on. What is compressed or encrypted is not looked into. See “Canaries” in \
             [your-service.md](your-service.md).",
    source: "OpenTelemetry, Security, Handling sensitive data; OWASP Logging Cheat Sheet, Data to exclude",
    check: |subject| {
        if subject.canaries.is_empty() {
            return Vec::new();
        }
        let mut leaks = exported(subject);
        for (upstream, headers) in calls_out(subject) {
            for (name, value) in context_of(headers) {
                let found = subject.canaries.iter().filter_map(|canary| Some((canary, canary.found_in(value)?)));
                leaks.extend(found.map(|(canary, form)| {
                    let place = format!("a call to {upstream:?}, header {name}");
                    Leak { canary: canary.name.clone(), place, form }
                }));
            }
        }
        leaks.extend(of_others(subject));
        leaks.iter().map(ToString::to_string).collect()
    },
}];

/// Headers of a call out, names in lower case.
type Headers = [(String, String)];

/// The calls that upstreams took since the request was sent.
fn calls_out<'a>(subject: &Subject<'a>) -> impl Iterator<Item = (&'a str, &'a Headers)> {
    let marks = subject.capture.lifecycle();
    let since = marks.partition_point(|entry| entry.arrival.seq < subject.delivery.sent.seq);
    marks[since..].iter().filter_map(|entry| match &entry.mark {
        Mark::UpstreamCalled { upstream, headers, .. } => Some((upstream.as_str(), headers.as_slice())),
        _ => None,
    })
}

fn context_of(headers: &Headers) -> impl Iterator<Item = (&str, &str)> {
    let context = headers.iter().filter(|(name, _)| CONTEXT.contains(&name.as_str()) || name.starts_with("x-b3-"));
    context.map(|(name, value)| (name.as_str(), value.as_str()))
}

/// Canaries of other requests in the context of the calls that this one made: what came with one user goes out with the next.
fn of_others(subject: &Subject<'_>) -> Vec<Leak> {
    let traces: Vec<String> = subject.evidence.trace.spans().map(|span| span.trace_id.to_string()).collect();
    let mut leaks = Vec::new();
    for (upstream, headers) in calls_out(subject) {
        let of_this = |(_, value): (&str, &str)| traces.iter().any(|trace| value.contains(trace.as_str()));
        if !context_of(headers).any(of_this) {
            continue;
        }
        for (name, value) in context_of(headers) {
            let value = percent_decode_str(value).decode_utf8_lossy();
            let own = |planted: &&str| subject.canaries.iter().any(|canary| canary.found_in(planted).is_some());
            if planted_in(&value).any(|planted| !own(&planted)) {
                leaks.push(Leak {
                    canary: "a canary of another request".into(),
                    place: format!("a call to {upstream:?}, header {name}"),
                    form: SecretForm::Plain,
                });
            }
        }
    }
    leaks
}

/// What came out in export requests and lines.
fn exported(subject: &Subject<'_>) -> Vec<Leak> {
    let since = subject.delivery.sent.seq;
    let own;
    let suspects = match subject.suspects {
        Some(suspects) => suspects,
        None => {
            own = Suspects::of(subject.capture, since, subject.canaries);
            &own
        }
    };
    suspects.leaks(subject.capture, since, subject.canaries)
}

/// What of everything that came may hold one of several canaries: a quick look at whole export requests and lines, once for all
/// requests of a scenario, so that for each of them only that is taken apart.
#[derive(Debug, Default)]
pub struct Suspects(HashSet<u64>);

impl Suspects {
    /// Looks at what came since a stamp. A canary stands for all that begin with it.
    pub fn of(capture: &Capture, since: u64, canaries: &[Canary]) -> Self {
        let suspicious = |request: &&ExportRequest| {
            // Values that were never sent have no bytes, and JSON can write any letter with a backslash.
            let opaque =
                request.body.is_empty() || (request.encoding == Encoding::Json && request.body.contains(&b'\\'));
            opaque || may_hold(canaries, &request.body)
        };
        let requests = capture.requests();
        let requests = requests.range(requests.partition_point(|request| request.arrival.seq < since)..);
        let lines = capture.logs().since(since).filter(|record| record.origin != LogOrigin::Otlp);
        // Its values are parsed from its text.
        let lines = lines.filter(|record| record.raw.contains("\\u") || may_hold(canaries, record.raw.as_bytes()));
        let requests = requests.filter(suspicious).map(|request| request.arrival.seq);
        Self(requests.chain(lines.map(|record| record.arrival.seq)).collect())
    }

    /// Where canaries are in what came since a stamp.
    pub fn leaks(&self, capture: &Capture, since: u64, canaries: &[Canary]) -> Vec<Leak> {
        let has = |arrival: Arrival| self.0.contains(&arrival.seq);
        let spans = capture.spans().since(since).filter(|span| has(span.arrival));
        let logs = capture.logs().since(since).filter(|record| has(record.arrival));
        let metrics = capture.metrics().since(since).filter(|metric| has(metric.arrival));
        find_secrets(canaries, spans, logs, metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entry, judge};
    use crate::{
        capture::{Mark, Store},
        correlation::samples,
        expectation::Canary,
        telemetry::{Arrival, LogRecord, Span},
    };

    const SECRET: &str = "canaryghjkmnpqrst";

    fn judged(fill: impl FnOnce(&Store)) -> Vec<&'static str> {
        let store = Store::default();
        let sent = store.mark(Mark::Sent { delivery: "d".into() });
        let delivery = crate::stimulus::Delivery { sent: Arrival { unix_nano: 5, ..sent }, ..samples::delivery() };
        fill(&store);
        judge(&store, &delivery, true, &[Canary::new("the canary", SECRET).unwrap()])
    }

    fn line(store: &Store, text: String) {
        store.add_line(String::new(), |_, arrival| {
            vec![LogRecord { arrival, raw: text, ..samples::record(Some(1), Some(1)) }]
        });
    }

    #[test]
    fn a_canary_in_a_span_or_in_a_line_is_found_in_every_encoding() {
        let url = |secret: &str| {
            let attributes = [("url.query".to_owned(), format!("q={secret}").as_str().into())].into_iter().collect();
            Span { attributes, ..entry() }
        };
        assert_eq!(judged(|store| samples::export(store, vec![url(SECRET)])), ["no-secret"]);
        assert!(judged(|store| samples::export(store, vec![url("REDACTED")])).is_empty());
        let percent: String = SECRET.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for form in [SECRET.to_owned(), percent, hex::encode(SECRET), hex::encode_upper(SECRET)] {
            let found = judged(|store| {
                samples::export(store, vec![entry()]);
                line(store, format!("got {form}!"));
            });
            assert_eq!(found, ["no-secret"], "{form}");
        }
    }

    fn called(header: &str, value: &str) -> Vec<&'static str> {
        judged(|store| {
            samples::export(store, vec![entry()]);
            store.mark(Mark::UpstreamCalled {
                upstream: "s3".into(),
                method: "GET".into(),
                target: format!("/?token={SECRET}"),
                headers: vec![(header.to_owned(), value.to_owned())],
                status: 200,
            });
        })
    }

    #[test]
    fn a_canary_in_the_baggage_of_a_call_out_is_found_and_credentials_that_are_passed_on_are_not() {
        assert_eq!(called("baggage", &format!("user={SECRET}")), ["no-secret"]);
        assert_eq!(called("tracestate", &format!("v={SECRET}")), ["no-secret"]);
        assert!(called("authorization", SECRET).is_empty());
        assert!(called("cookie", SECRET).is_empty());
    }

    #[test]
    fn a_canary_of_another_request_in_the_context_of_this_ones_call_is_found_and_in_that_of_others_is_not() {
        let others = format!("session=tracegate_canary%3Dcanary{}", "zxwvutsrqpnm".repeat(2));
        let called = |trace: u8, baggage: &str| {
            judged(|store| {
                samples::export(store, vec![entry()]);
                let context = format!("00-{}-00000000000000aa-01", samples::trace_id(trace));
                store.mark(Mark::UpstreamCalled {
                    upstream: "payments".into(),
                    method: "GET".into(),
                    target: "/".into(),
                    headers: vec![("traceparent".into(), context), ("baggage".into(), baggage.to_owned())],
                    status: 200,
                });
            })
        };
        assert_eq!(called(1, &others), ["no-secret"]);
        assert!(called(2, &others).is_empty(), "a call of another request");
        assert!(called(1, "bird=canary").is_empty(), "a word");
    }

    #[test]
    fn what_came_before_the_request_is_of_no_concern() {
        let store = Store::default();
        line(&store, SECRET.into());
        let sent = store.mark(Mark::Sent { delivery: "d".into() });
        let delivery = crate::stimulus::Delivery { sent, ..samples::delivery() };
        let canaries = [Canary::new("the canary", SECRET).unwrap()];
        assert!(!judge(&store, &delivery, true, &canaries).contains(&"no-secret"));
    }
}
