//! What a run says: one stream of [`Event`]s. The terminal tells them as they happen; JUnit, JSON, HTML and what GitHub
//! shows are made at its end.

mod advice;
mod files;
mod github;
mod html;
mod json;
mod junit;
mod matrix;
#[cfg(test)]
mod samples;
mod story;
mod terminal;

use std::{fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use crate::deployment::SiteError;

/// The page of a run, in its output folder.
pub const PAGE: &str = "report.html";

pub use files::{Files, Format, WriteError};
pub use github::GitHub;
pub use html::html;
pub use json::{SCHEMA as JSON_SCHEMA, json};
pub use junit::junit;
pub use story::{Story, StoryLog, StorySpan};
pub use terminal::Terminal;

/// Why a step did not pass. Wrong telemetry is a failure; what kept the harness from judging is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Failed or errored.
    pub kind: ProblemKind,
    /// What was expected and what was found: lines that begin with a word of what they are about.
    pub message: String,
}

/// Failed is not errored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProblemKind {
    /// The service did or said something wrong.
    Failed,
    /// It could not be judged.
    Errored,
}

impl Problem {
    /// The service did or said something wrong.
    pub fn failed(message: impl Into<String>) -> Self {
        Self { kind: ProblemKind::Failed, message: message.into() }
    }

    /// It could not be judged.
    pub fn errored(message: impl Into<String>) -> Self {
        Self { kind: ProblemKind::Errored, message: message.into() }
    }

    /// An error with everything that caused it.
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !message.contains(&cause_text) {
                message.push_str("\ncaused by  ");
                message.push_str(&cause_text);
            }
            source = cause.source();
        }
        Self::errored(message)
    }
}

impl From<SiteError> for Problem {
    fn from(error: SiteError) -> Self {
        Self::from_error(&error)
    }
}

/// The verdict on one scenario on one deployment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Every step held.
    Passed,
    /// A step did not hold, or could not be judged.
    NotPassed {
        /// `Then the trace has …`, as it stands in the file.
        step: String,
        /// Line of that step.
        line: usize,
        /// What was wrong.
        problem: Problem,
    },
}

/// One scenario on one deployment, judged.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Name of the deployment.
    pub deployment: String,
    /// File of the feature, as given.
    pub file: PathBuf,
    /// Line of the scenario.
    pub line: usize,
    /// Name of the feature.
    pub feature: String,
    /// Name of the scenario.
    pub scenario: String,
    /// The verdict.
    pub verdict: Verdict,
    /// From the first step to the last.
    pub took: Duration,
    /// What the verdict rested on: `environment froze`, `fence came back`; one entry a kind of proof.
    pub proofs: Vec<String>,
    /// What invariants say that fails nothing, each beginning with its name.
    pub advice: Vec<String>,
    /// Where its evidence was written.
    pub evidence: Option<PathBuf>,
    /// What came of each of its requests.
    pub stories: Vec<Story>,
}

impl Outcome {
    /// Passed, or the kind of problem.
    pub fn problem(&self) -> Option<&Problem> {
        match &self.verdict {
            Verdict::Passed => None,
            Verdict::NotPassed { problem, .. } => Some(problem),
        }
    }

    /// `passed`, `failed` or `errored`, as the reports that machines read have it.
    pub fn word(&self) -> &'static str {
        match self.problem().map(|problem| problem.kind) {
            None => "passed",
            Some(ProblemKind::Failed) => "failed",
            Some(ProblemKind::Errored) => "errored",
        }
    }
}

/// What happens during a run, in order.
#[derive(Debug, Clone)]
pub enum Event {
    /// The run begins.
    Started {
        /// How many scenarios are selected.
        scenarios: usize,
        /// Deployments that run, each with how many of the scenarios it takes.
        deployments: Vec<(String, usize)>,
    },
    /// A deployment is being started; the first start builds what it runs.
    Starting {
        /// Its name.
        deployment: String,
        /// What is built before, if anything.
        builds: Option<String>,
    },
    /// A deployment is up.
    Ready {
        /// Its name.
        deployment: String,
        /// What runs: `pid 4711`.
        what: String,
        /// How long that took.
        took: Duration,
    },
    /// A deployment that was to run cannot run here.
    Unavailable {
        /// Its name.
        deployment: String,
        /// Why, and what would make it run.
        reason: String,
    },
    /// A scenario has its deployment and begins.
    Playing {
        /// Name of the deployment.
        deployment: String,
        /// Name of the scenario.
        scenario: String,
    },
    /// A scenario is judged.
    Judged(Box<Outcome>),
    /// The run is over.
    Finished(Summary),
}

/// A run in numbers.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Every scenario on every deployment.
    pub outcomes: Vec<Outcome>,
    /// Deployments that did not run, with the reason.
    pub unavailable: Vec<(String, String)>,
    /// Scenarios that no deployment of this run was allowed to take: file, line, name.
    pub unclaimed: Vec<String>,
    /// From start to end.
    pub took: Duration,
    /// Where the evidence lies.
    pub output: PathBuf,
    /// What ended the run before its end.
    pub interrupted: Option<String>,
}

impl Summary {
    /// How many passed.
    pub fn passed(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.problem().is_none()).count()
    }

    /// How many failed.
    pub fn failed(&self) -> usize {
        self.count(ProblemKind::Failed)
    }

    /// How many could not be judged.
    pub fn errored(&self) -> usize {
        self.count(ProblemKind::Errored)
    }

    fn count(&self, kind: ProblemKind) -> usize {
        self.outcomes.iter().filter_map(Outcome::problem).filter(|problem| problem.kind == kind).count()
    }

    /// The process's exit code.
    pub fn exit(&self) -> Exit {
        if self.failed() > 0 {
            Exit::Failed
        } else if self.errored() > 0 {
            Exit::Environment
        } else if self.outcomes.is_empty() {
            Exit::NothingSelected
        } else {
            Exit::Passed
        }
    }

    /// The exit code where a report could not be written, which hides no failure.
    pub fn exit_unreported(&self) -> Exit {
        if self.failed() > 0 { Exit::Failed } else { Exit::Environment }
    }
}

/// Exit codes of `tracegate run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Every scenario passed.
    Passed = 0,
    /// At least one failed.
    Failed = 1,
    /// The command line, the configuration or a feature file is wrong.
    Usage = 2,
    /// Something could not be started or judged.
    Environment = 3,
    /// No scenario was selected.
    NothingSelected = 4,
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed(), self.failed() + self.errored())
    }
}

/// Somebody who tells what happens, or makes something of it.
pub trait Reporter {
    /// Called for every event in order.
    fn tell(&mut self, event: &Event);
}

#[cfg(test)]
mod tests {
    use super::{samples::outcome, *};

    fn exit(problems: Vec<Option<Problem>>) -> Exit {
        Summary {
            outcomes: problems.into_iter().map(|problem| outcome("d", "s", problem)).collect(),
            ..Summary::default()
        }
        .exit()
    }

    #[test]
    fn a_report_that_cannot_be_written_hides_no_failure() {
        let summary = |problem| Summary { outcomes: vec![outcome("d", "s", problem)], ..Summary::default() };
        assert_eq!(summary(Some(Problem::failed("x"))).exit_unreported(), Exit::Failed);
        assert_eq!(summary(Some(Problem::errored("x"))).exit_unreported(), Exit::Environment);
        assert_eq!(summary(None).exit_unreported(), Exit::Environment);
    }

    #[test]
    fn a_failure_outranks_an_error_and_nothing_selected_is_not_a_pass() {
        assert_eq!(exit(vec![None]), Exit::Passed);
        assert_eq!(exit(vec![None, Some(Problem::failed("x"))]), Exit::Failed);
        assert_eq!(exit(vec![Some(Problem::errored("x")), Some(Problem::failed("x"))]), Exit::Failed);
        assert_eq!(exit(vec![Some(Problem::errored("x")), None]), Exit::Environment);
        assert_eq!(exit(vec![]), Exit::NothingSelected);
    }
}
