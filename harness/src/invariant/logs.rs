//! Rules about log records.

use super::{Rule, Subject};
use crate::correlation::{Uncorrelated, compare_copies, correlated};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "ids-resolve",
        about: "the ids in a log record or line of the request lead to a span of that request",
        source: "OpenTelemetry specification, Logs data model, trace context fields",
        check: ids_resolve,
    },
    Rule {
        name: "copies-agree",
        about: "a record that is written as a line and exported over OTLP names the same ids in both",
        source: "OpenTelemetry specification, Logs data model, trace context fields",
        check: |subject| compare_copies(&subject.evidence.logs).disagreeing.iter().map(ToString::to_string).collect(),
    },
];

fn ids_resolve(subject: &Subject<'_>) -> Vec<String> {
    let evidence = subject.evidence;
    // Where no span came at all, a sampler may have dropped the trace; lines keep its ids, and rightly.
    let judge_spans = subject.complete && !evidence.trace.is_empty();
    let broken = |failure: &Uncorrelated| match failure {
        // That ids are there is for a step to say: not every line of every service is meant to have them.
        Uncorrelated::NoIds { .. } | Uncorrelated::NoInvocationSpan { .. } => false,
        Uncorrelated::SpanNotReceived { .. } => judge_spans,
        _ => true,
    };
    let told = |record: &crate::telemetry::LogRecord| {
        let failures = correlated(record, evidence).err()?;
        let reasons: Vec<String> = failures.iter().filter(|failure| broken(failure)).map(ToString::to_string).collect();
        (!reasons.is_empty()).then(|| format!("{} {:?}: {}", record.origin, record.message, reasons.join("; ")))
    };
    evidence.logs.iter().filter_map(|record| told(record)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{broken, entry};
    use crate::{
        correlation::samples,
        telemetry::{IdClaim, LogRecord, SpanId},
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

    #[test]
    fn a_record_without_ids_is_left_to_the_steps() {
        let delivery = samples::delivery();
        let entry = entry();
        assert!(broken(&delivery, vec![entry], vec![samples::record(None, None)], true).is_empty());
    }
}
