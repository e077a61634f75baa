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
        status.set_message(xml(reason));
        suite.add_test_case(TestCase::new("deployment", status));
        report.add_test_suite(suite);
    }
    report.to_string().map(|text| without_root_skipped(&text))
}

/// The schema of Jenkins has `skipped` on suites, and not on the root, where quick-junit writes it too.
fn without_root_skipped(text: &str) -> String {
    let start = text.find("<testsuites").unwrap_or(0);
    let end = text[start..].find('>').map_or(text.len(), |at| start + at);
    let (before, root, behind) = (&text[..start], &text[start..end], &text[end..]);
    let root = match root.split_once(" skipped=\"").and_then(|(left, right)| Some((left, right.split_once('"')?.1))) {
        Some((left, right)) => format!("{left}{right}"),
        None => root.to_owned(),
    };
    format!("{before}{root}{behind}")
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
            status.set_message(xml(&format!("{step}: {}", problem.message.lines().next().unwrap_or_default())));
            status.set_description(xml(&failure(outcome, step, *line, &problem.message)));
            status
        }
    };
    let mut case = TestCase::new(xml(&outcome.scenario), status);
    case.set_classname(xml(&format!("{}:{}", outcome.file.display(), outcome.line)));
    case.set_time(outcome.took);
    case
}

/// Text without the two characters that XML 1.0 does not have (section 2.2) and quick-junit leaves in.
fn xml(text: &str) -> String {
    text.replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Problem, samples::outcome};

    fn xml() -> String {
        let summary = Summary {
            outcomes: vec![
                outcome("process", "a <b> & \u{1b}[31mred\u{1b}[0m ]]>", Some(Problem::failed("no <x> & y\u{0}"))),
                outcome("process", "s", Some(Problem::errored("gone"))),
                outcome("lambda", "s", None),
            ],
            unavailable: vec![("container".into(), "no engine".into())],
            ..Summary::default()
        };
        junit(&summary).unwrap()
    }

    #[test]
    fn failures_and_errors_are_told_apart_and_a_deployment_that_did_not_run_is_skipped_by_name() {
        let xml = xml();
        for part in ["<failure", "<error", "&lt;x&gt; &amp; y", "name=\"container\"", "no engine"] {
            assert!(xml.contains(part), "{part} is missing in {xml}");
        }
    }
}
