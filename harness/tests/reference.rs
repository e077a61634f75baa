//! The captures of the original Python application: what a foreign SDK really sends is taken apart request by request,
//! and comes out as the answers that stand beside the requests say. See `fixtures/reference/telemetry`.

#[path = "reference/capture.rs"]
mod capture;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use capture::{Reference, Request, load};
use tracegate::{
    correlation::{FoundBy, Options, RequestEvidence, Trace, Uncorrelated, compare_copies, correlated, request},
    expectation::Canary,
    invariant::{Finding, Grade, Subject, check},
    stimulus::canary,
    telemetry::{IdClaim, LineFormat, LogOrigin, LogRecord, Span, SpanId, SpanKind, Value},
};

fn evidence(reference: &Reference, of: &Request) -> RequestEvidence {
    gather(reference, of, Options::default())
}

fn gather(reference: &Reference, of: &Request, options: Options<'_>) -> RequestEvidence {
    reference.store.look(|capture| request(capture, &of.delivery, options))
}

fn records(reference: &Reference, which: impl Fn(&LogRecord) -> bool) -> Vec<Arc<LogRecord>> {
    reference.store.look(|capture| capture.logs().iter().filter(|record| which(record)).cloned().collect())
}

/// Every request has the entry span, the parent and the number of spans that the answer key says, and the trees of all
/// requests together are all spans that came.
fn assert_requests_are_told_apart(reference: &Reference, requests: usize, with_a_tree: usize) {
    assert_eq!(reference.requests.len(), requests);
    let mut claimed = HashSet::new();
    let mut trees = 0;
    for of in &reference.requests {
        let found = evidence(reference, of);
        let Some(observed) = &of.observed else {
            assert!(found.entries.is_empty() && found.trace.is_empty(), "{}", of.name);
            continue;
        };
        trees += 1;
        assert_eq!(found.entries.len(), 1, "{}: by {}", of.name, found.found_by);
        let entry = &found.entries[0];
        assert_eq!((entry.trace_id, entry.span_id), (observed.trace_id, observed.entry), "{}", of.name);
        assert_eq!(entry.parent_span_id, observed.parent, "{}", of.name);
        assert_eq!(found.trace.len(), observed.spans, "{}", of.name);
        assert!(found.trace.orphans.is_empty() && found.trace.duplicates.is_empty(), "{}", of.name);
        assert_eq!(found.trace.roots().len(), 1, "{}", of.name);
        claimed.extend(found.trace.spans().map(|span| (span.trace_id, span.span_id)));
    }
    assert_eq!(trees, with_a_tree);
    assert_eq!(claimed.len(), reference.store.look(|capture| capture.spans().len()), "the trees are all spans");
}

/// Counts the console lines with ids by whether they are correlated with the request whose they are.
fn judged(reference: &Reference, which: impl Fn(&LogRecord) -> bool) -> (usize, Vec<Vec<Uncorrelated>>) {
    let mut sound = 0;
    let mut unsound = Vec::new();
    for of in &reference.requests {
        let found = evidence(reference, of);
        for record in found.logs.iter().filter(|record| which(record)) {
            match correlated(record, &found) {
                Ok(()) => sound += 1,
                Err(failures) => unsound.push(failures),
            }
        }
    }
    (sound, unsound)
}

fn console_with_ids(record: &LogRecord) -> bool {
    record.format == LineFormat::Bracketed && record.trace_id.valid().is_some()
}

fn otlp_with_ids(record: &LogRecord) -> bool {
    record.origin == LogOrigin::Otlp && record.trace_id.valid().is_some()
}

#[test]
fn then_gunicorn_each_request_has_its_own_tree_although_sixteen_share_a_trace_id() {
    let reference = load("then-gunicorn");
    assert_requests_are_told_apart(&reference, 32, 32);
    let shared = &reference.requests[20];
    assert_eq!(evidence(&reference, shared).found_by, FoundBy::UserAgent);
}

#[test]
fn then_gunicorn_twenty_lines_correlate_and_seventy_four_name_no_span() {
    let reference = load("then-gunicorn");
    assert_eq!(records(&reference, console_with_ids).len(), 20);
    assert_eq!(judged(&reference, console_with_ids), (20, Vec::new()));
    let zero = |record: &LogRecord| record.trace_id == IdClaim::Zero && record.span_id == IdClaim::Zero;
    assert_eq!(records(&reference, zero).len(), 74);
}

#[test]
fn then_gunicorn_the_middleware_lines_without_ids_are_reported_for_their_requests() {
    let reference = load("then-gunicorn");
    let mut reported = 0;
    for of in &reference.requests {
        // One request ran at a time, so a line without ids in between is this request's.
        let options = Options { exclusive: true, ..Options::default() };
        let found = gather(&reference, of, options);
        for record in &found.logs {
            let middleware = record.message == "Request details" || record.message == "Response details";
            assert_eq!(correlated(record, &found).is_err(), middleware, "{}: {}", of.name, record.message);
            if let Err(failures) = correlated(record, &found) {
                assert_eq!(failures[0].condition(), 1, "{}: {failures:?}", of.name);
                reported += 1;
            }
        }
    }
    assert_eq!(reported, 64, "Request details and Response details of 32 requests");
}

#[test]
fn now_gunicorn_each_request_has_its_own_tree() {
    assert_requests_are_told_apart(&load("now-gunicorn"), 32, 32);
}

#[test]
fn now_gunicorn_eighty_four_lines_and_their_eighty_four_copies_correlate() {
    let reference = load("now-gunicorn");
    assert_eq!(records(&reference, console_with_ids).len(), 84);
    assert_eq!(judged(&reference, console_with_ids), (84, Vec::new()));
    assert_eq!(records(&reference, otlp_with_ids).len(), 84);
    assert_eq!(judged(&reference, otlp_with_ids), (84, Vec::new()));
}

#[test]
fn now_gunicorn_every_line_and_its_copy_name_the_same_ids() {
    let copies = compare_copies(&records(&load("now-gunicorn"), |_| true));
    assert_eq!((copies.agreeing, copies.disagreeing.len()), (88, 0));
    assert!(copies.one_way.is_empty());
}

#[test]
fn then_lambda_each_invocation_has_its_own_tree_although_all_share_a_trace_id() {
    let reference = load("then-lambda");
    assert_requests_are_told_apart(&reference, 9, 9);
    assert_eq!(evidence(&reference, &reference.requests[0]).found_by, FoundBy::RequestId);
}

#[test]
fn then_lambda_console_lines_correlate_by_ids_and_tab_lines_by_request_id() {
    let reference = load("then-lambda");
    assert_eq!(judged(&reference, console_with_ids), (105, Vec::new()));
    // 104 whole lines and the one that is glued to a traceback.
    let tab = |record: &LogRecord| record.format == LineFormat::LambdaTab;
    assert_eq!(judged(&reference, tab), (105, Vec::new()));
    let at_init = records(&reference, |record| tab(record) && record.request_id.is_none());
    assert_eq!(at_init.len(), 8, "lines of the init phase have no request id");
}

#[test]
fn then_lambda_a_tab_line_of_another_invocation_is_not_this_ones() {
    let reference = load("then-lambda");
    let found = evidence(&reference, &reference.requests[0]);
    let other = evidence(&reference, &reference.requests[1]);
    let tab = other.logs.iter().find(|record| record.format == LineFormat::LambdaTab).unwrap();
    let failures = correlated(tab, &found).unwrap_err();
    assert!(matches!(failures[..], [Uncorrelated::OtherInvocation { .. }]), "{failures:?}");
}

#[test]
fn now_lambda_each_invocation_has_its_own_tree_and_the_unsampled_one_has_none() {
    let reference = load("now-lambda");
    assert_requests_are_told_apart(&reference, 13, 12);
    let unsampled = &reference.requests[2];
    assert_eq!(evidence(&reference, unsampled).found_by, FoundBy::NotSampled);
}

#[test]
fn now_lambda_console_lines_correlate_and_those_of_the_unsampled_name_no_received_span() {
    let reference = load("now-lambda");
    let lines = records(&reference, console_with_ids);
    assert_eq!(lines.len(), 144);
    let received = |record: &Arc<LogRecord>| {
        let ids = record.trace_id.valid().zip(record.span_id.valid());
        ids.is_some_and(|(trace, span)| reference.store.look(|capture| capture.span(trace, span).is_some()))
    };
    assert_eq!(lines.iter().filter(|line| received(line)).count(), 133);
    // 133 by their spans; 11 of the unsampled invocation, whose span rightly never came.
    let (sound, unsound) = judged(&reference, console_with_ids);
    assert_eq!((sound, unsound.len()), (144, 0), "{unsound:#?}");
    let tab = |record: &LogRecord| record.format == LineFormat::LambdaTab;
    assert_eq!(judged(&reference, tab), (144, Vec::new()));
}

#[test]
fn now_lambda_the_records_of_the_unsampled_would_be_reported_if_it_had_been_sampled() {
    let reference = load("now-lambda");
    let mut of = load("now-lambda").requests.remove(2);
    if let Some(caller) = &mut of.delivery.caller {
        caller.sampled = true;
    }
    // Without the waiver the same lines fail the second condition, since no span of the invocation came.
    let found = evidence(&reference, &of);
    assert_eq!(found.found_by, FoundBy::Nothing);
    let mut failing = 0;
    for record in reference.store.look(|capture| capture.logs().to_vec()) {
        let own = |id: &IdClaim<_>| id.valid() == of.delivery.trace_id();
        let unsampled = record.fields.str("trace_sampled") == Some("False");
        if console_with_ids(&record) && own(&record.trace_id) && unsampled {
            let failures = correlated(&record, &found).unwrap_err();
            assert!(matches!(failures[..], [Uncorrelated::SpanNotReceived { .. }]), "{failures:?}");
            failing += 1;
        }
    }
    assert_eq!(failing, 11);
}

#[test]
fn now_lambda_twenty_two_lines_have_no_otlp_copy_and_the_others_agree() {
    let reference = load("now-lambda");
    assert_eq!(records(&reference, otlp_with_ids).len(), 122);
    let copies = compare_copies(&records(&reference, |_| true));
    assert_eq!(copies.agreeing, 122);
    // A record of one invocation may only be paired with its own copy, so the lost ones are lost and not wrong.
    assert_eq!((copies.disagreeing.len(), copies.one_way.len()), (0, 22));
    assert!(copies.one_way.iter().all(|alone| alone.record.origin != LogOrigin::Otlp));
}

#[test]
fn a_line_with_the_ids_of_another_request_is_reported_as_that_requests() {
    let reference = load("now-gunicorn");
    let (own, other) = (&reference.requests[20], &reference.requests[4]);
    let other = evidence(&reference, other);
    let stolen = other.entries[0].clone();
    let mine = evidence(&reference, own);
    let line = mine.logs.iter().find(|record| record.message == "Request details").unwrap();
    let mut bled = (**line).clone();
    bled.trace_id = IdClaim::Valid(stolen.trace_id);
    bled.span_id = IdClaim::Valid(stolen.span_id);
    // Judged for its own request it is in another trace; judged for the other one it speaks of the wrong request.
    let conditions = |found: &RequestEvidence| {
        correlated(&bled, found).unwrap_err().iter().map(Uncorrelated::condition).collect::<Vec<_>>()
    };
    assert_eq!(conditions(&mine), [2, 4]);
    assert_eq!(conditions(&other), [3]);
}

/// What the invariants say of a request of a capture with this evidence.
fn findings(reference: &Reference, of: &Request, evidence: &RequestEvidence, canaries: &[Canary]) -> Vec<Finding> {
    // The files do not say when something came, only what; so all of it may be the request's.
    let mut delivery = of.delivery.clone();
    delivery.sent.seq = 0;
    let skew = Duration::from_millis(10);
    reference.store.look(|capture| {
        let delivery = &delivery;
        let subject = Subject {
            evidence,
            delivery,
            capture,
            complete: true,
            skew,
            canaries,
            suspects: None,
            lacking: &[],
            first: true,
        };
        check(&subject, &[])
    })
}

/// The rules that the requests of a capture break, and the advice that they get, each with the number of requests.
fn broken(capture: &str) -> (BTreeMap<&'static str, usize>, BTreeMap<&'static str, usize>) {
    let reference = load(capture);
    let (mut rules, mut advice) = (BTreeMap::new(), BTreeMap::new());
    for of in &reference.requests {
        let evidence = evidence(&reference, of);
        let credentials = canary::credentials(&of.headers);
        let canaries: Vec<Canary> =
            credentials.into_iter().filter_map(|(name, value)| Canary::new(name, value)).collect();
        let findings = findings(&reference, of, &evidence, &canaries);
        for grade in [Grade::Rule, Grade::Advice] {
            let names: BTreeSet<_> =
                findings.iter().filter(|found| found.grade == grade).map(|found| found.rule).collect();
            let counts = if grade == Grade::Rule { &mut rules } else { &mut advice };
            names.into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
        }
    }
    (rules, advice)
}

#[test]
fn the_captures_of_the_original_break_no_invariant_but_by_its_known_faults() {
    // Today's instrumentation still writes the old names of attributes; `http.server.duration` and the like are among its
    // metrics. The one of then wrote its lines outside of the span: 32 requests with lines whose ids are zero.
    let advice = |capture| broken(capture).1.into_keys().collect::<Vec<_>>();
    for capture in ["then-gunicorn", "now-gunicorn", "then-lambda", "now-lambda"] {
        assert_eq!(broken(capture).0, BTreeMap::new(), "{capture}");
    }
    assert_eq!(broken("then-gunicorn").1["log-ids"], 32);
    assert_eq!(advice("then-gunicorn"), ["deprecated-attributes", "log-ids"]);
    for capture in ["now-gunicorn", "then-lambda", "now-lambda"] {
        assert_eq!(advice(capture), ["deprecated-attributes"], "{capture}");
    }
}

#[test]
fn faults_in_the_captures_of_the_original_are_found() {
    let reference = load("now-gunicorn");
    let of = &reference.requests[4];
    let found = evidence(&reference, of);
    let judged = |spoil: &dyn Fn(&mut RequestEvidence), canaries: &[Canary]| {
        let mut evidence = found.clone();
        spoil(&mut evidence);
        let findings = findings(&reference, of, &evidence, canaries);
        let rules = findings.iter().filter(|finding| finding.grade == Grade::Rule).map(|finding| finding.rule);
        rules.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    let changed = |evidence: &mut RequestEvidence, change: &dyn Fn(&mut Span)| {
        let spans = evidence.trace.spans().map(|span| {
            let mut span = (**span).clone();
            change(&mut span);
            Arc::new(span)
        });
        let spans: Vec<_> = spans.collect();
        evidence.trace = Trace::new(spans, &of.delivery.remote_parents());
    };
    assert_eq!(judged(&|_| {}, &[]), [""; 0]);
    let backwards =
        |evidence: &mut RequestEvidence| changed(evidence, &|span| span.end_unix_nano = span.start_unix_nano - 1);
    assert_eq!(judged(&backwards, &[]), ["end-after-start"]);
    let failed = |evidence: &mut RequestEvidence| {
        changed(evidence, &|span| {
            if span.kind == SpanKind::Server {
                span.attributes = [("http.status_code", Value::Int(500))].into_iter().collect();
            }
        });
    };
    assert_eq!(judged(&failed, &[]), ["server-status"]);
    let nameless = |evidence: &mut RequestEvidence| changed(evidence, &|span| span.resource = Arc::default());
    assert_eq!(judged(&nameless, &[]), ["service-name"]);
    let astray = |evidence: &mut RequestEvidence| {
        let named = |record: &&mut Arc<LogRecord>| record.span_id.valid().is_some();
        let record = evidence.logs.iter_mut().find(named).expect("a record with ids");
        *record = Arc::new(LogRecord { span_id: IdClaim::Valid(SpanId::random()), ..(**record).clone() });
    };
    assert!(judged(&astray, &[]).contains(&"ids-resolve"));
    // The original logs every header as it came.
    let agent = Canary::new("the User-Agent", of.delivery.user_agent.as_str()).expect("a long one");
    assert_eq!(judged(&|_| {}, &[agent]), ["no-secret"]);
}
