//! What is never right, whatever a scenario says: rules that hold for every request of every scenario.
//!
//! A rule speaks only of what was received, and of how an invocation ended. That something must be there is for a scenario
//! to say; a health check without a span is no fault. A scenario opts out of a rule with the tag `@except:RULE` and a reason
//! in its description.
//!
//! There are two grades. The breach of a *rule* is wrong in every service. *Advice* is what is wrong in most and right in
//! some: it is told, and fails only where the configuration denies it.
//!
//! | file | about |
//! | --- | --- |
//! | [`tree`] | ids, parents, the tree of a request |
//! | [`spans`] | times, kinds and status of its spans |
//! | [`logs`] | its log records and lines |
//! | [`invocation`] | how it ended on Lambda |
//! | [`resources`] | who sent it |
//! | [`conventions`] | names and types of attributes |
//! | [`metrics`] | counts of requests, and exemplars |
//! | [`measurements`] | what metrics say in themselves |
//! | [`secrets`] | planted values |
//! | [`alike`] | what requests that are alike left |
//! | [`behind`] | what comes behind the answer |

mod alike;
mod behind;
mod calls;
mod conventions;
mod invocation;
mod logs;
mod measurements;
mod metrics;
mod resources;
mod secrets;
mod spans;
mod tree;

pub use secrets::Suspects;

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use crate::{
    capture::{Capture, Items},
    correlation::RequestEvidence,
    expectation::Canary,
    stimulus::Delivery,
    telemetry::Metric,
};

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
    /// How far clocks may be apart.
    pub skew: Duration,
    /// Values in the request that must not come out.
    pub canaries: &'a [Canary],
    /// Which of what came may hold a canary, where somebody has looked; else everything is searched.
    pub suspects: Option<&'a Suspects>,
    /// What a few requests lack of those of the scenario that are alike, a line each.
    pub lacking: &'a [String],
    /// Whether it is the first request that is judged of a scenario. What is of the deployment and of no request is judged with
    /// that one alone: all that came since the others were sent came since it was.
    pub first: bool,
}

impl<'a> Subject<'a> {
    fn metrics_since(&self) -> Items<'a, Metric> {
        self.capture.metrics().since(self.delivery.sent.seq)
    }

    fn skew_nanos(&self) -> u64 {
        u64::try_from(self.skew.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What a breach means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// Wrong in every service: it fails the scenario.
    Rule,
    /// Wrong in most services and right in some: it is told, and fails where the configuration denies it.
    Advice,
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Rule => "rule",
            Self::Advice => "advice",
        })
    }
}

/// A rule.
pub struct Rule {
    /// Its name, as in `@except:NAME`.
    pub name: &'static str,
    /// What its breach means.
    pub grade: Grade,
    /// What it demands, in a sentence.
    pub about: &'static str,
    /// What it does not judge, and why, or why it is advice; empty when there is nothing to say.
    pub limits: &'static str,
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
    /// Its grade.
    pub grade: Grade,
    /// What breaks it, naming the span or the record. Of advice without ids and durations, so that the same advice
    /// for many requests reads the same.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Every rule, in the order in which findings are told.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    let structure = tree::RULES.iter().chain(spans::RULES).chain(logs::RULES);
    let structure = structure.chain(invocation::RULES);
    structure
        .chain(resources::RULES)
        .chain(conventions::RULES)
        .chain(metrics::RULES)
        .chain(measurements::RULES)
        .chain(calls::RULES)
        .chain(secrets::RULES)
        .chain(alike::RULES)
        .chain(behind::RULES)
}

/// Everything that a request breaks, advice included, of the rules that are not in `except`.
pub fn check(subject: &Subject<'_>, except: &[&str]) -> Vec<Finding> {
    findings(subject, |rule| !except.contains(&rule.name))
}

/// The same of the rules in `only`.
pub fn check_only(subject: &Subject<'_>, only: &[&str]) -> Vec<Finding> {
    debug_assert!(only.iter().all(|name| rules().any(|rule| rule.name == *name)), "{only:?}");
    findings(subject, |rule| only.contains(&rule.name))
}

fn findings(subject: &Subject<'_>, chosen: impl Fn(&Rule) -> bool) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for rule in rules().filter(|rule| chosen(rule)) {
        for what in (rule.check)(subject) {
            let finding = Finding { rule: rule.name, grade: rule.grade, what };
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    findings
}

/// The rules in Markdown: what `tracegate invariants` prints and `docs/invariants.md` holds.
pub fn reference() -> String {
    let mut text = String::from(
        "# Invariants\n\n\
         These rules hold for every request of every scenario, besides what its steps say. They speak of what was received:\n\
         that a span or a line must be there is for a step to say. A scenario opts out with the tag `@except:RULE` and a reason\n\
         in its description, the text below its name.\n",
    );
    for (grade, title, introduction) in [
        (Grade::Rule, "Rules", "The breach of a rule is wrong in every service. It fails the scenario."),
        (
            Grade::Advice,
            "Advice",
            "What is wrong in most services and right in some. It is told with the verdict and fails nothing, unless\n\
             `tracegate.toml` says so:\n\n```toml\n[invariants]\ndeny = [\"deprecated-attributes\"]\n\
             skew = \"10ms\"  # how far the clocks of spans and records may be apart; this is the default\n```",
        ),
    ] {
        let _ = write!(text, "\n## {title}\n\n{introduction}\n");
        for rule in rules().filter(|rule| rule.grade == grade) {
            let Rule { name, about, limits, source, .. } = rule;
            let _ = write!(text, "\n### `{name}`\n\n{}.", capitalised(about));
            if !limits.is_empty() {
                let _ = write!(text, " {limits}");
            }
            let _ = write!(text, "\n\nSource: {source}.\n");
        }
    }
    text
}

fn capitalised(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod sound_tests;
#[cfg(test)]
pub(crate) mod tests;
