//! Rules about the calls that stand-ins took: what the service hands on with them.

use super::{
    Grade::{Advice, Rule as Always},
    Rule, Subject,
};
use crate::{
    correlation::calls::Call,
    telemetry::{Span, SpanId, SpanKind, TraceId, xray::Traceparent},
};

/// Headers that carry a trace on, whoever reads them.
const CARRIERS: [&str; 9] = [
    "traceparent",
    "x-amzn-trace-id",
    "b3",
    "x-b3-traceid",
    "uber-trace-id",
    "x-datadog-trace-id",
    "x-cloud-trace-context",
    "sentry-trace",
    "ot-tracer-traceid",
];

/// By how much a span may be over when its call is taken: a thread that is held up reads the call late.
const LATE: u64 = 1_000_000_000;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "call-context",
        grade: Always,
        about: "what a call to a stand-in says of the trace is one well-formed traceparent at most, and names no CLIENT span that was \
                over long before",
        limits: "A second is given. A span of another kind may rightly be over: what it set off may call later. Stand-ins are \
                 `[upstreams]` of the configuration; what other services were told is seen by their spans.",
        source: "W3C Trace Context 3.2, traceparent; OpenTelemetry specification, Context, Propagators API: Inject, for each request",
        check: contexts,
    },
    Rule {
        name: "call-carries-on",
        grade: Advice,
        about: "a call that a stand-in took while a CLIENT span of the request was open carries a trace on",
        limits: "Advice, because a service may mean to tell a third party nothing. Any of the usual headers counts.",
        source: "W3C Trace Context 4.3, mutating the traceparent field; OpenTelemetry specification, Propagators API",
        check: uncarried,
    },
];

/// The calls that were taken while the request was under way.
fn during<'a>(subject: &Subject<'a>) -> impl Iterator<Item = Call<'a>> {
    Call::within(subject.capture, subject.delivery.sent.seq..=subject.delivery.answered.seq)
}

fn contexts(subject: &Subject<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for call in during(subject) {
        let what = format!("{} to {:?}", call.what, call.upstream);
        let said: Vec<&str> = call.all("traceparent").collect();
        match said.as_slice() {
            [] => {}
            [one] if one.parse::<Traceparent>().is_ok() => {}
            [one] => found.push(format!("{what} came with a traceparent that is malformed: {one:?}")),
            several => found.push(format!(
                "{what} came with {} traceparent headers, of which a receiver may take none: {}",
                several.len(),
                several.join(" and ")
            )),
        }
        let over = |(trace_id, span_id): (TraceId, SpanId)| {
            let span = subject.capture.span(trace_id, span_id)?;
            let over = span.end_unix_nano.saturating_add(LATE).saturating_add(subject.skew_nanos());
            (span.kind == SpanKind::Client && over < call.taken).then_some(span)
        };
        let mut named =
            call.contexts().into_iter().flatten().filter_map(|(trace_id, span_id)| Some((trace_id, span_id?)));
        if let Some(span) = named.find_map(over) {
            let since = std::time::Duration::from_nanos(call.taken - span.end_unix_nano);
            found.push(format!(
                "{what} names CLIENT {:?} ({}) of trace {}, which was over {since:.1?} before: headers that were kept",
                span.name, span.span_id, span.trace_id
            ));
        }
    }
    found
}

fn uncarried(subject: &Subject<'_>) -> Vec<String> {
    let evidence = subject.evidence;
    if !evidence.sampled() {
        return Vec::new();
    }
    let open = |taken: u64| {
        let clients = evidence.trace.spans().filter(|span: &&std::sync::Arc<Span>| span.kind == SpanKind::Client);
        clients.into_iter().find(|client| client.is_open_at(taken))
    };
    let silent = |call: &Call<'_>| call.headers.iter().all(|(name, _)| !CARRIERS.contains(&name.as_str()));
    let calls = during(subject).filter(silent);
    let told = calls.filter_map(|call| {
        let client = open(call.taken)?;
        let (what, upstream) = (&call.what, call.upstream);
        Some(format!("{what} to {upstream:?} came without a trace header, while CLIENT {:?} was open", client.name))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{entry, findings};
    use super::*;
    use crate::{
        capture::{Mark, Store},
        correlation::samples,
        stimulus::Delivery,
        telemetry::Span,
    };

    /// What is told of a call with these headers, taken `apart` behind the end of its CLIENT span; negative, before it.
    fn told(headers: &[(&str, String)], kind: SpanKind, apart: i64) -> Vec<&'static str> {
        let store = Store::default();
        let sent = store.mark(Mark::Sent { delivery: "d".into() });
        let call = Mark::UpstreamCalled {
            upstream: "s3".into(),
            method: "GET".into(),
            target: "/a".into(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            status: 200,
        };
        let taken = store.mark(call).unix_nano;
        let answered = store.mark(Mark::Answered { delivery: "d".into() });
        let end_unix_nano = taken.saturating_add_signed(-apart);
        let client = Span {
            kind,
            start_unix_nano: end_unix_nano - 5_000_000_000,
            end_unix_nano,
            ..samples::span(2, Some(1), "GET")
        };
        let entry = Span { start_unix_nano: sent.unix_nano, end_unix_nano: answered.unix_nano, ..entry() };
        let client = Span { resource: entry.resource.clone(), ..client };
        samples::export(&store, vec![entry, client]);
        let found = findings(&store, &Delivery { sent, answered, ..samples::delivery() }, true, &[], &[]);
        found.into_iter().map(|finding| finding.rule).filter(|rule| rule.starts_with("call-")).collect()
    }

    fn context(span: u64) -> String {
        format!("00-{}-{}-01", samples::trace_id(1), samples::span_id(span))
    }

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_call_that_names_a_client_span_that_was_over_is_found_and_one_inside_of_it_is_not() {
        let named = || [("traceparent", context(2))];
        assert_eq!(told(&named(), SpanKind::Client, 2 * SECOND), ["call-context"]);
        assert_eq!(told(&named(), SpanKind::Client, -SECOND), [""; 0]);
        assert_eq!(told(&named(), SpanKind::Client, SECOND / 2), [""; 0], "it was read late");
        assert_eq!(told(&named(), SpanKind::Internal, 2 * SECOND), [""; 0], "what it set off calls later");
        assert_eq!(told(&[("traceparent", context(7))], SpanKind::Client, 2 * SECOND), [""; 0], "it never came");
        let xray = format!("Root=1-01010101-{};Parent={};Sampled=1", "01".repeat(12), samples::span_id(2));
        assert_eq!(told(&[("x-amzn-trace-id", xray)], SpanKind::Client, 2 * SECOND), ["call-context"]);
    }

    #[test]
    fn a_traceparent_that_is_malformed_or_comes_twice_is_found() {
        assert_eq!(told(&[("traceparent", "x".into())], SpanKind::Client, -SECOND), ["call-context"]);
        let twice = [("traceparent", context(2)), ("traceparent", context(1))];
        assert_eq!(told(&twice, SpanKind::Client, -SECOND), ["call-context"]);
    }

    #[test]
    fn a_call_without_a_trace_header_is_told_where_a_client_span_was_open() {
        assert_eq!(told(&[], SpanKind::Client, -SECOND), ["call-carries-on"]);
        assert_eq!(told(&[("b3", "x".into())], SpanKind::Client, -SECOND), [""; 0]);
        assert_eq!(told(&[], SpanKind::Client, SECOND), [""; 0], "it is somebody else's");
    }
}
