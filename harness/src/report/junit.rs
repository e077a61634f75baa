//! JUnit XML for CI systems: a suite a deployment, a case a scenario.

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::{Outcome, ProblemKind, Summary, Verdict, terminal::failure};

/// The run as JUnit XML.
///
/// # Errors
/// When the XML cannot be written, which no input is known to cause.
pub fn junit(summary: &Summary) -> Result<String, quick_junit::SerializeError> {
    let mut report = Report::new("tracegate");
    report.set_time(summary.took);
    let mut deployments: Vec<&str> = summary.outcomes.iter().map(|outcome| outcome.deployment.as_str()).collect();
    deployments.sort_unstable();
    deployments.dedup();
    for deployment in deployments {
        let mut suite = TestSuite::new(deployment);
        let outcomes = summary.outcomes.iter().filter(|outcome| outcome.deployment == deployment);
        suite.add_test_cases(outcomes.map(case));
        report.add_test_suite(suite);
    }
    for (deployment, reason) in &summary.unavailable {
        let mut suite = TestSuite::new(deployment.as_str());
        let mut status = TestCaseStatus::skipped();
        status.set_message(reason.as_str());
        suite.add_test_case(TestCase::new("deployment", status));
        report.add_test_suite(suite);
    }
    report.to_string()
}

fn case(outcome: &Outcome) -> TestCase {
    let status = match &outcome.verdict {
        Verdict::Passed => TestCaseStatus::success(),
        Verdict::NotPassed { step, line, problem } => {
            let kind = match problem.kind {
                ProblemKind::Failed => NonSuccessKind::Failure,
                ProblemKind::Errored => NonSuccessKind::Error,
            };
            let mut status = TestCaseStatus::non_success(kind);
            status.set_message(format!("{step}: {}", problem.message.lines().next().unwrap_or_default()));
            status.set_description(failure(outcome, step, *line, problem));
            status
        }
    };
    let mut case = TestCase::new(outcome.scenario.as_str(), status);
    case.set_classname(format!("{}:{}", outcome.file.display(), outcome.line));
    case.set_time(outcome.took);
    case
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use super::*;
    use crate::report::Problem;

    #[test]
    fn failures_and_errors_are_told_apart_and_a_deployment_that_did_not_run_is_skipped_by_name() {
        let outcome = |problem: Problem| Outcome {
            deployment: "process".into(),
            file: PathBuf::from("a.feature"),
            line: 3,
            feature: "f".into(),
            scenario: "s".into(),
            verdict: Verdict::NotPassed { step: "Then <x> & y".into(), line: 4, problem },
            took: Duration::from_millis(1),
            proofs: Vec::new(),
            advice: Vec::new(),
            evidence: None,
            stories: Vec::new(),
        };
        let summary = Summary {
            outcomes: vec![outcome(Problem::failed("no")), outcome(Problem::errored("gone"))],
            unavailable: vec![("container".into(), "no engine".into())],
            ..Summary::default()
        };
        let xml = junit(&summary).unwrap();
        for part in ["<failure", "<error", "&lt;x&gt; &amp; y", "name=\"container\"", "no engine"] {
            assert!(xml.contains(part), "{part} is missing in {xml}");
        }
    }
}
