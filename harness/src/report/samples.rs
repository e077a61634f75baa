//! Values for the tests of the reports.

use std::time::Duration;

use super::{Outcome, Problem, Story, StoryLog, StorySpan, Verdict};

/// An outcome of the scenario in line 12 of `features/correlation/files.feature`; a problem lies in line 14.
pub fn outcome(deployment: &str, scenario: &str, problem: Option<Problem>) -> Outcome {
    Outcome {
        deployment: deployment.into(),
        file: "/p/features/correlation/files.feature".into(),
        line: 12,
        feature: "Files".into(),
        scenario: scenario.into(),
        verdict: problem.map_or(Verdict::Passed, |problem| Verdict::NotPassed {
            step: "Then the trace has a SERVER span \"GET /files/{path}\"".into(),
            line: 14,
            problem,
        }),
        took: Duration::from_millis(35),
        proofs: vec!["complete: environment froze".into()],
        advice: Vec::new(),
        evidence: Some("target/tracegate/files-12".into()),
        stories: Vec::new(),
    }
}

/// A request with one span, which has one log record, and a line without a span.
pub fn story() -> Story {
    let log = |message: &str| StoryLog {
        origin: "stdout".into(),
        level: "INFO".into(),
        message: message.into(),
        fields: vec![("path".into(), "\"/files/a.txt\"".into())],
    };
    let span = StorySpan {
        depth: 0,
        kind: "SERVER".into(),
        derived: false,
        name: "GET /files/{path}".into(),
        service: "api".into(),
        status: "Unset".into(),
        start: 0,
        took: 1500,
        orphan: false,
        id: "00f067aa0ba902b7".into(),
        attributes: vec![("http.request.method".into(), "\"GET\"".into())],
        events: vec![("exception".into(), vec![("exception.type".into(), "\"Gone\"".into())])],
        logs: vec![log("read")],
    };
    Story {
        title: "GET /files/a.txt → 200".into(),
        trace: "4bf92f3577b34da6a3ce929d0e0e4736".into(),
        spans: vec![span],
        loose: vec![log("a banner")],
    }
}
