//! What is never right, whatever a scenario says: rules that hold for every request of every scenario.
//!
//! A rule speaks only of what was received, and of how an invocation ended. That something must be there is for a scenario to say; a health check
//! without a span is no fault. A scenario opts out of a rule with the tag `@except:RULE` and a reason in its description.

mod invocation;
mod logs;
mod spans;

use std::fmt::{self, Write as _};

use crate::{capture::Capture, correlation::RequestEvidence, stimulus::Delivery};

/// One request with everything that came of it.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The spans and records of the request.
    pub evidence: &'a RequestEvidence,
    /// What was sent and answered.
    pub delivery: &'a Delivery,
    /// Everything that the deployment sent.
    pub capture: &'a Capture,
    /// Whether it is proven that nothing more will come. Rules about what is missing are judged only then.
    pub complete: bool,
}

/// A rule.
pub struct Rule {
    /// Its name, as in `@except:NAME`.
    pub name: &'static str,
    /// What it demands, in a sentence.
    pub about: &'static str,
    /// Where that is written.
    pub source: &'static str,
    check: fn(&Subject<'_>) -> Vec<String>,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A rule that a request breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Name of the rule.
    pub rule: &'static str,
    /// What breaks it, naming the span or the record.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Every rule, in the order in which findings are told.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    spans::RULES.iter().chain(logs::RULES).chain(invocation::RULES)
}

/// Everything that a request breaks, of the rules that are not in `except`.
pub fn check(subject: &Subject<'_>, except: &[&str]) -> Vec<Finding> {
    rules()
        .filter(|rule| !except.contains(&rule.name))
        .flat_map(|rule| (rule.check)(subject).into_iter().map(|what| Finding { rule: rule.name, what }))
        .collect()
}

/// The rules in Markdown: what `tracegate invariants` prints and `docs/invariants.md` holds.
pub fn reference() -> String {
    let mut text = String::from(
        "# Invariants\n\n\
         These rules hold for every request of every scenario, besides what its steps say. They speak of what was received:\n\
         that a span or a line must be there is for a step to say. A scenario opts out with the tag `@except:RULE` and a reason\n\
         in its description, the text below its name.\n\n\
         | rule | demands | source |\n| --- | --- | --- |\n",
    );
    for rule in rules() {
        let _ = writeln!(text, "| `{}` | {} | {} |", rule.name, rule.about, rule.source);
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        correlation::{Options, request, samples},
        telemetry::{LogRecord, Span, SpanKind},
    };

    /// The entry span of [`samples::delivery`].
    pub(crate) fn entry() -> Span {
        samples::with(samples::span(1, Some(99), "GET /files/{path}"), SpanKind::Server, &[])
    }

    fn findings(
        delivery: &Delivery,
        spans: Vec<Span>,
        records: Vec<LogRecord>,
        complete: bool,
        except: &[&str],
    ) -> Vec<Finding> {
        samples::store(spans, records).look(|capture| {
            let evidence = request(capture, delivery, Options::default());
            check(&Subject { evidence: &evidence, delivery, capture, complete }, except)
        })
    }

    /// The rules that a request breaks for which these spans and records came.
    pub(crate) fn broken(
        delivery: &Delivery,
        spans: Vec<Span>,
        records: Vec<LogRecord>,
        complete: bool,
    ) -> Vec<&'static str> {
        findings(delivery, spans, records, complete, &[]).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn a_sound_request_breaks_no_rule_and_neither_does_one_without_any_telemetry() {
        let delivery = samples::delivery();
        assert_eq!(broken(&delivery, Vec::new(), Vec::new(), true), [""; 0]);
        assert_eq!(broken(&delivery, vec![entry()], vec![samples::record(Some(1), Some(1))], true), [""; 0]);
    }

    #[test]
    fn a_rule_that_is_excepted_is_not_judged() {
        let backwards = || vec![Span { end_unix_nano: 9, ..entry() }];
        let delivery = samples::delivery();
        assert_eq!(findings(&delivery, backwards(), Vec::new(), true, &[]).len(), 1);
        assert!(findings(&delivery, backwards(), Vec::new(), true, &["end-after-start"]).is_empty());
    }

    #[test]
    fn rule_names_are_unique_and_all_in_the_reference() {
        let mut names: Vec<&str> = rules().map(|rule| rule.name).collect();
        assert!(names.iter().all(|name| reference().contains(&format!("`{name}`"))));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rules().count());
    }
}
