use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    capture::Store,
    correlation::{Options, request, samples},
    telemetry::{LogRecord, Resource, Span, SpanKind},
};

/// A resource with these attributes.
pub(crate) fn resource(attributes: &[(&str, &str)]) -> Arc<Resource> {
    let attributes = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())).collect();
    Arc::new(Resource { attributes, ..Resource::default() })
}

pub(crate) fn with_resource(span: Span) -> Span {
    Span { resource: resource(&[("service.name", "shop")]), ..span }
}

/// The entry span of [`samples::delivery`].
pub(crate) fn entry() -> Span {
    with_resource(samples::with(samples::span(1, Some(99), "GET /files/{path}"), SpanKind::Server, &[]))
}

/// What is judged where nothing else is said: complete, the first of its scenario, by clocks that agree, with nothing planted.
pub(super) fn subject<'a>(evidence: &'a RequestEvidence, delivery: &'a Delivery, capture: &'a Capture) -> Subject<'a> {
    let (complete, first, skew) = (true, true, Duration::ZERO);
    Subject { evidence, delivery, capture, complete, skew, canaries: &[], suspects: None, lacking: &[], first }
}

pub(super) fn findings(
    store: &Store,
    delivery: &Delivery,
    complete: bool,
    canaries: &[Canary],
    except: &[&str],
) -> Vec<Finding> {
    store.look(|capture| {
        let evidence = request(capture, delivery, Options { window_end: Some(u64::MAX), ..Options::default() });
        let skew = Duration::from_millis(10);
        check(&Subject { complete, skew, canaries, ..subject(&evidence, delivery, capture) }, except)
    })
}

/// The rules that a request breaks, advice left out.
pub(crate) fn judge(store: &Store, delivery: &Delivery, complete: bool, canaries: &[Canary]) -> Vec<&'static str> {
    let findings = findings(store, delivery, complete, canaries, &[]);
    names(findings.into_iter().filter(|finding| finding.grade == Grade::Rule))
}

fn names(findings: impl Iterator<Item = Finding>) -> Vec<&'static str> {
    let mut names: Vec<&str> = findings.map(|finding| finding.rule).collect();
    names.dedup();
    names
}

/// The rules that a request breaks for which these spans and records came, advice left out.
pub(crate) fn broken(
    delivery: &Delivery,
    spans: Vec<Span>,
    records: Vec<LogRecord>,
    complete: bool,
) -> Vec<&'static str> {
    judge(&samples::store(spans, records), delivery, complete, &[])
}

/// The same with advice, completeness proven.
pub(crate) fn told(delivery: &Delivery, spans: Vec<Span>, records: Vec<LogRecord>) -> Vec<&'static str> {
    names(findings(&samples::store(spans, records), delivery, true, &[], &[]).into_iter())
}

#[test]
fn a_sound_request_breaks_no_rule_and_neither_does_one_without_any_telemetry() {
    let delivery = samples::delivery();
    assert_eq!(told(&delivery, Vec::new(), Vec::new()), [""; 0]);
    assert_eq!(told(&delivery, vec![entry()], vec![samples::record(Some(1), Some(1))]), [""; 0]);
}

#[test]
fn a_rule_that_is_excepted_is_not_judged() {
    let store = samples::store(vec![Span { end_unix_nano: 9, ..entry() }], Vec::new());
    let delivery = samples::delivery();
    assert_eq!(findings(&store, &delivery, true, &[], &[]).len(), 1);
    assert!(findings(&store, &delivery, true, &[], &["end-after-start"]).is_empty());
}

#[test]
fn rule_names_are_unique_and_all_in_the_reference() {
    let mut names: Vec<&str> = rules().map(|rule| rule.name).collect();
    assert!(names.iter().all(|name| reference().contains(&format!("### `{name}`"))));
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), rules().count());
}

#[test]
fn the_reference_in_the_documentation_is_the_one_that_is_printed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/invariants.md");
    if std::env::var_os("TRACEGATE_BLESS").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap();
    assert!(kept == reference(), "docs/invariants.md is not current: `tracegate invariants` prints it");
}
