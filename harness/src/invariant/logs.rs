//! Rules about log records.

use super::{
    Grade::{Advice, Rule as Always},
    Rule, Subject,
};
use crate::{
    correlation::{Uncorrelated, compare_copies, correlated, is_of_lambdas_runtime},
    telemetry::{LogRecord, Span},
};

/// How far a record's own time may be from its arrival to be believed: time zones are off by more.
const BELIEVED: u64 = 15 * 60 * 1_000_000_000;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "ids-resolve",
        grade: Always,
        about: "the ids in a log record or line of the request lead to a span of that request",
        limits: "Records without ids are left to `log-ids` and to the steps. Where no span came at all, a sampler may have \
                 dropped the trace, and the ids rightly lead nowhere.",
        source: "OpenTelemetry specification, Logs data model, trace context fields",
        check: ids_resolve,
    },
    Rule {
        name: "copies-agree",
        grade: Always,
        about: "a record that is written as a line and exported over OTLP names the same ids in both, and is no error in one and \
                INFO or less in the other",
        limits: "Where one of the two names no ids, or no severity, nothing disagrees.",
        source: "OpenTelemetry specification, Logs data model, trace context fields",
        check: |subject| {
            let named = |record: &LogRecord| record.trace_id.valid().is_some() && record.span_id.valid().is_some();
            let copies = compare_copies(&subject.evidence.logs);
            let pairs = copies.disagreeing.iter().filter(|pair| named(&pair.line) && named(&pair.otlp));
            pairs.map(ToString::to_string).chain(copies.contradicting.iter().map(ToString::to_string)).collect()
        },
    },
    Rule {
        name: "log-ids",
        grade: Advice,
        about: "a structured record of the request names its trace and span",
        limits: "Advice, because a server's access log stands outside of the span. Lines that only the time attributes to the \
                 request are not judged. “The request is correlated” demands it.",
        source: "OpenTelemetry specification, Logs data model, trace context fields",
        check: log_ids,
    },
    Rule {
        name: "log-in-span",
        grade: Advice,
        about: "a record is written while the span that it names is open",
        limits: "Advice, because work that nobody waits for goes on with the ids of the request behind its end. Records without \
                 a time, or with one in another time zone, are not judged.",
        source: "OpenTelemetry specification, Logs data model, Timestamp and SpanId",
        check: log_in_span,
    },
];

fn ids_resolve(subject: &Subject<'_>) -> Vec<String> {
    let evidence = subject.evidence;
    // Where no span came at all, a sampler may have dropped the trace; lines keep its ids, and rightly.
    let judge_spans = subject.complete && !evidence.trace.is_empty();
    let told = |record: &LogRecord| {
        let failures = correlated(record, evidence).err()?;
        let in_tree = named(subject, record).is_some();
        let broken = |failure: &&Uncorrelated| match failure {
            // That ids are there is for a step to say: not every line of every service is meant to have them.
            Uncorrelated::NoIds { .. } | Uncorrelated::NoInvocationSpan { .. } => false,
            // A server's access log that quotes the header that it was sent names the caller's span.
            Uncorrelated::SpanNotReceived { trace_id, span_id } => {
                let callers =
                    evidence.caller.is_some_and(|caller| (caller.trace_id, caller.span_id) == (*trace_id, *span_id));
                judge_spans && !callers
            }
            // Where the service began a trace of its own, its records follow.
            Uncorrelated::OtherTrace { .. } => !in_tree,
            _ => true,
        };
        let reasons: Vec<String> = failures.iter().filter(broken).map(ToString::to_string).collect();
        (!reasons.is_empty()).then(|| format!("{} {:?}: {}", record.origin, record.message, reasons.join("; ")))
    };
    evidence.logs.iter().filter_map(|record| told(record)).collect()
}

/// The span of the request that a record names.
fn named<'a>(subject: &Subject<'a>, record: &LogRecord) -> Option<&'a Span> {
    let trace = &subject.evidence.trace;
    let at = trace.position(record.trace_id.valid()?, record.span_id.valid()?)?;
    Some(&trace.nodes()[at].span)
}

fn log_ids(subject: &Subject<'_>) -> Vec<String> {
    let evidence = subject.evidence;
    let guessed = |record: &LogRecord| evidence.guessed.iter().any(|other| std::ptr::eq(&**other, record));
    let mute = |record: &LogRecord| record.trace_id.valid().is_none() || record.span_id.valid().is_none();
    // What one of Lambda's runtimes writes has the request id instead.
    let records =
        evidence.logs.iter().filter(|record| mute(record) && !is_of_lambdas_runtime(record) && !guessed(record));
    records.map(|record| format!("{} {:?} names no span", record.origin, record.message)).collect()
}

fn log_in_span(subject: &Subject<'_>) -> Vec<String> {
    let skew = subject.skew_nanos();
    let own = subject.evidence.logs.iter().filter_map(|record| Some((&**record, named(subject, record)?)));
    let outside = |(record, span): (&LogRecord, &Span)| {
        let time = record.time_unix_nano.filter(|time| time.abs_diff(record.arrival.unix_nano) < BELIEVED)?;
        // What is cut off: whole seconds, whole milliseconds.
        let precision = [1_000_000_000, 1_000_000, 1_000].into_iter().find(|unit| time % unit == 0).unwrap_or(0);
        let how = if time.saturating_add(precision).saturating_add(skew) < span.start_unix_nano {
            "before it began"
        } else if time > span.end_unix_nano.saturating_add(skew) {
            "after it had ended"
        } else {
            return None;
        };
        Some(format!(
            "{} {:?} names {} {:?}, and was written {how}",
            record.origin, record.message, span.kind, span.name
        ))
    };
    let mut found: Vec<String> = own.filter_map(outside).collect();
    found.extend(subject.evidence.left_behind.iter().map(|(record, span)| {
        let (kind, name) = (span.kind, &span.name);
        format!("{} {:?} names {kind} {name:?} of an earlier request, which had ended", record.origin, record.message)
    }));
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::{broken, entry, told};
    use crate::{
        correlation::samples,
        telemetry::{Arrival, IdClaim, LineFormat, LogOrigin, LogRecord, Span, SpanId},
    };

    #[test]
    fn a_record_that_names_a_span_which_never_came_is_found_once_completeness_is_proven() {
        let delivery = samples::delivery();
        let entry = entry();
        let record = LogRecord {
            trace_id: IdClaim::Valid(entry.trace_id),
            span_id: IdClaim::Valid(SpanId::random()),
            ..samples::record(Some(1), Some(1))
        };
        assert_eq!(broken(&delivery, vec![entry.clone()], vec![record.clone()], true), ["ids-resolve"]);
        assert!(broken(&delivery, vec![entry], vec![record.clone()], false).is_empty());
        assert!(broken(&delivery, Vec::new(), vec![record], true).is_empty(), "a trace that was sampled away");
    }

    /// A line that quotes the request's mark, so that it is the request's whatever its ids are.
    fn quoting(trace: Option<u8>, span: Option<u64>) -> LogRecord {
        LogRecord { raw: "{\"agent\":\"tracegate-mark-1\"}".into(), ..samples::record(trace, span) }
    }

    #[test]
    fn a_record_without_ids_is_mentioned_when_it_speaks_of_the_request_and_fails_nothing() {
        let delivery = samples::delivery();
        assert!(broken(&delivery, vec![entry()], vec![samples::record(None, None)], true).is_empty());
        assert!(broken(&delivery, vec![entry()], vec![quoting(None, None)], true).is_empty());
        assert_eq!(told(&delivery, vec![entry()], vec![quoting(None, None)]), ["log-ids"]);
        assert!(told(&delivery, vec![entry()], vec![quoting(Some(1), Some(1))]).is_empty());
    }

    #[test]
    fn records_of_a_trace_that_the_service_began_itself_follow_it() {
        let mut own = Span { trace_id: samples::trace_id(8), parent_span_id: None, ..entry() };
        own.attributes = [("user_agent.original", "tracegate-mark-1".into())].into_iter().collect();
        let record = samples::record(Some(8), Some(1));
        assert_eq!(told(&samples::delivery(), vec![own.clone()], vec![record]), ["carries-on"]);
        let lost = LogRecord { span_id: IdClaim::Valid(SpanId::random()), ..samples::record(Some(8), Some(1)) };
        assert!(broken(&samples::delivery(), vec![own], vec![lost], true).contains(&"ids-resolve"));
    }

    #[test]
    fn copies_with_different_ids_disagree_and_one_without_ids_does_not() {
        let line = |span| samples::record(Some(1), Some(span));
        let copy = |span| LogRecord { origin: LogOrigin::Otlp, format: LineFormat::Otlp, ..line(span) };
        let child = super::super::tests::with_resource(samples::span(2, Some(1), "x"));
        let judged = |records| broken(&samples::delivery(), vec![entry(), child.clone()], records, true);
        assert_eq!(judged(vec![line(1), copy(2)]), ["copies-agree"]);
        assert!(judged(vec![line(1), copy(1)]).is_empty());
        assert!(judged(vec![quoting(None, None), copy(2)]).is_empty());
    }

    const SECOND: u64 = 1_000_000_000;

    fn written(time: u64) -> Vec<&'static str> {
        let span = Span { start_unix_nano: 100 * SECOND, end_unix_nano: 101 * SECOND, ..entry() };
        let record =
            LogRecord { origin: LogOrigin::Otlp, format: LineFormat::Otlp, ..samples::record(Some(1), Some(1)) };
        let record = LogRecord { time_unix_nano: Some(time), ..record };
        // The store stamps arrivals with the clock; what lies so far back is another time zone to it.
        let now = samples::store(Vec::new(), Vec::new()).mark(crate::capture::Mark::Ready).unix_nano;
        let shift = now - 100 * SECOND - now % SECOND;
        let span =
            Span { start_unix_nano: span.start_unix_nano + shift, end_unix_nano: span.end_unix_nano + shift, ..span };
        let record = LogRecord { time_unix_nano: Some(time + shift), ..record };
        let sent = Arrival { seq: 0, unix_nano: span.start_unix_nano };
        let answered = Arrival { seq: 9, unix_nano: span.end_unix_nano };
        let delivery = crate::stimulus::Delivery { sent, answered, ..samples::delivery() };
        told(&delivery, vec![span], vec![record])
    }

    #[test]
    fn a_record_that_was_written_outside_of_its_span_is_mentioned() {
        assert!(written(100 * SECOND + SECOND / 2).is_empty());
        assert_eq!(written(101 * SECOND + 20_000_001), ["log-in-span"]);
        assert_eq!(written(99 * SECOND + 900_000_001), ["log-in-span"]);
        assert!(written(101 * SECOND + 9_000_000).is_empty(), "within the skew");
        assert!(written(99 * SECOND).is_empty(), "whole seconds are cut off");
        assert_eq!(written(102 * SECOND + 3600 * SECOND), ["near-the-request"], "another time zone");
    }
}
