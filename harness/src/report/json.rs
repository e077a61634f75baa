//! The run as JSON for programs. `tracegate schema` prints the JSON Schema that it follows.

use serde::Serialize;

use super::{Outcome, Story, Summary, Verdict};

/// JSON Schema (2020-12) of what [`json`] writes.
pub const SCHEMA: &str = include_str!("json.schema.json");

/// Counted up when a field goes away or means something else; fields may be added without.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Run<'a> {
    format: &'static str,
    version: u32,
    tracegate: &'static str,
    took_ms: u128,
    passed: usize,
    failed: usize,
    errored: usize,
    not_run: Vec<NotRun<'a>>,
    unclaimed: &'a [String],
    outcomes: Vec<Judged<'a>>,
}

#[derive(Serialize)]
struct NotRun<'a> {
    deployment: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct Judged<'a> {
    deployment: &'a str,
    file: String,
    line: usize,
    feature: &'a str,
    scenario: &'a str,
    verdict: &'static str,
    took_ms: u128,
    proofs: &'a [String],
    advice: &'a [String],
    evidence: Option<String>,
    problem: Option<Wrong<'a>>,
    requests: &'a [Story],
}

#[derive(Serialize)]
struct Wrong<'a> {
    step: &'a str,
    line: usize,
    message: &'a str,
}

/// The run as JSON.
///
/// # Errors
/// When the data cannot be written as JSON, which no input is known to cause.
pub fn json(summary: &Summary) -> Result<String, serde_json::Error> {
    let not_run = summary.unavailable.iter().map(|(deployment, reason)| NotRun { deployment, reason });
    let run = Run {
        format: "tracegate-report",
        version: VERSION,
        tracegate: env!("CARGO_PKG_VERSION"),
        took_ms: summary.took.as_millis(),
        passed: summary.passed(),
        failed: summary.failed(),
        errored: summary.errored(),
        not_run: not_run.collect(),
        unclaimed: &summary.unclaimed,
        outcomes: summary.outcomes.iter().map(judged).collect(),
    };
    serde_json::to_string(&run)
}

fn judged(outcome: &Outcome) -> Judged<'_> {
    let problem = match &outcome.verdict {
        Verdict::Passed => None,
        Verdict::NotPassed { step, line, problem } => Some(Wrong { step, line: *line, message: &problem.message }),
    };
    Judged {
        deployment: &outcome.deployment,
        file: outcome.file.display().to_string(),
        line: outcome.line,
        feature: &outcome.feature,
        scenario: &outcome.scenario,
        verdict: outcome.word(),
        took_ms: outcome.took.as_millis(),
        proofs: &outcome.proofs,
        advice: &outcome.advice,
        evidence: outcome.evidence.as_ref().map(|path| path.display().to_string()),
        problem,
        requests: &outcome.stories,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json as value};

    use super::*;
    use crate::report::{Problem, samples};

    fn whole() -> Value {
        let mut failed = samples::outcome("lambda", "A file is read", Some(Problem::failed("closest    nothing")));
        failed.stories = vec![samples::story()];
        failed.advice = vec!["deprecated http.method".into()];
        let summary = Summary {
            outcomes: vec![samples::outcome("process", "A file is read", None), failed],
            unavailable: vec![("container".into(), "no engine".into())],
            unclaimed: vec!["a.feature:3  s".into()],
            took: Duration::from_millis(1234),
            ..Summary::default()
        };
        serde_json::from_str(&json(&summary).unwrap()).unwrap()
    }

    fn schema() -> jsonschema::Validator {
        jsonschema::draft202012::new(&serde_json::from_str(SCHEMA).unwrap()).unwrap()
    }

    fn complaints(report: &Value) -> Vec<String> {
        schema().iter_errors(report).map(|error| format!("{}: {error}", error.instance_path())).collect()
    }

    #[test]
    fn what_is_written_is_what_the_schema_says() {
        let report = whole();
        assert_eq!(complaints(&report), Vec::<String>::new());
        assert_eq!(report["outcomes"][1]["problem"]["message"], "closest    nothing");
        assert_eq!(report["outcomes"][1]["requests"][0]["spans"][0]["logs"][0]["message"], "read");
        let empty = serde_json::from_str(&json(&Summary::default()).unwrap()).unwrap();
        assert_eq!(complaints(&empty), Vec::<String>::new());
    }

    #[test]
    fn the_schema_refuses_what_is_missing_unknown_or_of_another_version() {
        let spoilt = |spoil: &dyn Fn(&mut Value)| {
            let mut report = whole();
            spoil(&mut report);
            complaints(&report)
        };
        assert!(!spoilt(&|report| report["version"] = value!(2)).is_empty());
        assert!(!spoilt(&|report| report["outcomes"][0]["verdict"] = value!("skipped")).is_empty());
        assert!(!spoilt(&|report| report["outcomes"][0]["surprise"] = value!(1)).is_empty());
        assert!(
            !spoilt(&|report| {
                report["outcomes"][1]["requests"][0]["spans"][0].as_object_mut().unwrap().remove("id");
            })
            .is_empty()
        );
        // A problem belongs to what did not pass, and only to that.
        assert!(!spoilt(&|report| report["outcomes"][1]["problem"] = Value::Null).is_empty());
        assert!(!spoilt(&|report| report["outcomes"][1]["verdict"] = value!("passed")).is_empty());
    }
}
