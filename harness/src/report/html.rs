//! One self-contained HTML file: every scenario with its verdict, and a waterfall for every request. No network access.

use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, write::GzEncoder};
use serde::Serialize;

use super::{Outcome, ProblemKind, Story, Summary, Verdict};

const PAGE: &str = include_str!("report.html");
/// Where the data goes in the page.
const SLOT: &str = "/*DATA*/";

#[derive(Serialize)]
struct Page<'a> {
    version: &'a str,
    took: f64,
    unavailable: &'a [(String, String)],
    unclaimed: &'a [String],
    outcomes: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    deployment: &'a str,
    file: String,
    line: usize,
    feature: &'a str,
    scenario: &'a str,
    /// `passed`, `failed`, `errored`.
    verdict: &'static str,
    step: &'a str,
    message: &'a str,
    took: u128,
    proofs: &'a [String],
    advice: &'a [String],
    stories: &'a [Story],
}

/// The run as a page.
///
/// # Errors
/// When the data cannot be written as JSON, which no input is known to cause.
pub fn html(summary: &Summary) -> Result<String, serde_json::Error> {
    let page = Page {
        version: env!("CARGO_PKG_VERSION"),
        took: summary.took.as_secs_f64(),
        unavailable: &summary.unavailable,
        unclaimed: &summary.unclaimed,
        outcomes: summary.outcomes.iter().map(row).collect(),
    };
    // Packed, because the same fields stand in a thousand log records; Base64, so that nothing that a service wrote can
    // leave the script.
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    serde_json::to_writer(&mut packed, &page)?;
    let packed = packed.finish().map_err(serde_json::Error::io)?;
    Ok(PAGE.replacen(SLOT, &BASE64_STANDARD.encode(packed), 1))
}

fn row(outcome: &Outcome) -> Row<'_> {
    let (verdict, step, message) = match &outcome.verdict {
        Verdict::Passed => ("passed", "", ""),
        Verdict::NotPassed { step, problem, .. } => {
            let verdict = if problem.kind == ProblemKind::Failed { "failed" } else { "errored" };
            (verdict, step.as_str(), problem.message.as_str())
        }
    };
    Row {
        deployment: &outcome.deployment,
        file: outcome.file.display().to_string(),
        line: outcome.line,
        feature: &outcome.feature,
        scenario: &outcome.scenario,
        verdict,
        step,
        message,
        took: outcome.took.as_millis(),
        proofs: &outcome.proofs,
        advice: &outcome.advice,
        stories: &outcome.stories,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::Problem;

    fn summary(message: &str) -> Summary {
        let outcome = Outcome {
            deployment: "process".into(),
            file: "features/a.feature".into(),
            line: 3,
            feature: "f".into(),
            scenario: "s".into(),
            verdict: Verdict::NotPassed { step: "Then x".into(), line: 4, problem: Problem::failed(message) },
            took: Duration::from_millis(1),
            proofs: Vec::new(),
            advice: Vec::new(),
            evidence: None,
            stories: Vec::new(),
        };
        Summary { outcomes: vec![outcome], ..Summary::default() }
    }

    fn unpacked(page: &str) -> serde_json::Value {
        let (_, rest) = page.split_once("const data = '").unwrap();
        let bytes = BASE64_STANDARD.decode(rest.split_once('\'').unwrap().0).unwrap();
        serde_json::from_reader(flate2::read::GzDecoder::new(bytes.as_slice())).unwrap()
    }

    #[test]
    fn what_a_service_writes_arrives_and_cannot_leave_the_script() {
        let message = "</script><script>alert(1)</script>' + x + '";
        let page = html(&summary(message)).unwrap();
        assert_eq!(page.matches("</script>").count(), PAGE.matches("</script>").count());
        assert_eq!(unpacked(&page)["outcomes"][0]["message"], message);
        assert_eq!(unpacked(&page)["outcomes"][0]["verdict"], "failed");
    }

    #[test]
    fn the_page_names_no_other_host() {
        let page = html(&summary("x")).unwrap();
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="), "a reference");
        assert!(!page.contains(SLOT), "the data is missing");
    }
}
