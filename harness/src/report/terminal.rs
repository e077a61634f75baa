//! What a person reads while a run goes on: a line a verdict, failures as they happen, a matrix at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{self, IsTerminal, Write},
    path::Path,
};

use super::{Event, Outcome, Problem, ProblemKind, Reporter, Summary, Verdict};

/// Writes to a stream; colour only where it is a terminal and `NO_COLOR` is not set.
#[derive(Debug)]
pub struct Terminal<W> {
    out: W,
    colour: bool,
    width: usize,
    /// What is being built was told once.
    told: BTreeSet<String>,
}

impl Terminal<io::Stdout> {
    /// Standard output.
    pub fn stdout() -> Self {
        let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { out: io::stdout(), colour, width: 0, told: BTreeSet::new() }
    }
}

impl<W: Write> Terminal<W> {
    /// Any stream, without colour.
    pub fn plain(out: W) -> Self {
        Self { out, colour: false, width: 0, told: BTreeSet::new() }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn line(&mut self, text: &str) {
        // A closed pipe (`| head`) must not change the verdict.
        let _ = writeln!(self.out, "{text}");
        let _ = self.out.flush();
    }

    fn verdict(&mut self, outcome: &Outcome) {
        let word = match outcome.problem().map(|problem| problem.kind) {
            None => self.paint("32", "PASS "),
            Some(ProblemKind::Failed) => self.paint("31;1", "FAIL "),
            Some(ProblemKind::Errored) => self.paint("33;1", "ERROR"),
        };
        let place = format!("{}:{}", short(&outcome.file), outcome.line);
        let took = format!("{:>6} ms", outcome.took.as_millis());
        let width = self.width;
        let line = format!("{word} {took}  {:<width$}  {place}  {}", outcome.deployment, outcome.scenario);
        self.line(&line);
        if let Verdict::NotPassed { step, line, problem } = &outcome.verdict {
            let text = failure(outcome, step, *line, problem);
            self.line(&text);
        }
    }

    fn summary(&mut self, summary: &Summary) {
        let matrix = matrix(summary);
        self.line(&matrix);
        for (deployment, reason) in &summary.unavailable {
            let word = self.paint("33;1", "NOT RUN");
            self.line(&format!("{word}  {deployment}: {reason}"));
        }
        if summary.outcomes.is_empty() {
            let word = self.paint("33;1", "NOTHING");
            self.line(&format!(
                "{word}  was selected: no scenario fits the features, tags and deployments that were given"
            ));
        }
        if !summary.unclaimed.is_empty() {
            let word = self.paint("33;1", "NOT RUN");
            let count = summary.unclaimed.len();
            self.line(&format!(
                "{word}  {count} scenarios whose tags ask for labels that no deployment of this run has:"
            ));
            for scenario in &summary.unclaimed {
                self.line(&format!("         {scenario}"));
            }
        }
        for (advice, count) in advice(summary) {
            let word = self.paint("36", "ADVICE ");
            self.line(&format!("{word}  {advice} ({count} scenario{})", if count == 1 { "" } else { "s" }));
        }
        let text = format!(
            "{} passed, {} failed, {} errored in {:.1} s; waterfalls in {}",
            summary.passed(),
            summary.failed(),
            summary.errored(),
            summary.took.as_secs_f64(),
            summary.output.join("report.html").display()
        );
        let code = if summary.failed() + summary.errored() > 0 { "31;1" } else { "32;1" };
        let text = self.paint(code, &text);
        self.line(&text);
    }
}

impl<W: Write> Reporter for Terminal<W> {
    fn tell(&mut self, event: &Event) {
        match event {
            Event::Started { scenarios, deployments } => {
                self.width = deployments.iter().map(String::len).max().unwrap_or(0);
                let names = deployments.join(", ");
                self.line(&format!("tracegate {}: {scenarios} scenarios on {names}", env!("CARGO_PKG_VERSION")));
            }
            Event::Starting { builds: Some(what), .. } if self.told.insert(what.clone()) => {
                let word = self.paint("36", "BUILD");
                self.line(&format!("{word}            {what} (the first time takes a while)"));
            }
            Event::Starting { .. } => {}
            Event::Ready { deployment, what, took } => {
                let width = self.width;
                let word = self.paint("36", "READY");
                self.line(&format!("{word} {:>6} ms  {deployment:<width$}  {what}", took.as_millis()));
            }
            Event::Unavailable { deployment, reason } => {
                let word = self.paint("33;1", "NOT RUN");
                self.line(&format!("{word}  {deployment}: {reason}"));
            }
            Event::Judged(outcome) => self.verdict(outcome),
            Event::Finished(summary) => self.summary(summary),
        }
    }
}

/// A failure as DESIGN has it: the step's place, then what is known of it, indented.
pub(super) fn failure(outcome: &Outcome, step: &str, line: usize, problem: &Problem) -> String {
    let mut text = format!("\n{}:{line}  {step}\n", outcome.file.display());
    for line in problem.message.lines() {
        let _ = writeln!(text, "  {line}");
    }
    if let Some(evidence) = &outcome.evidence {
        let _ = writeln!(text, "  trace tree, log lines, export requests: {}", evidence.display());
    }
    text
}

/// How many pieces of advice are shown; all of them are in the report.
const ADVICE: usize = 12;

/// What invariants said that fails nothing, each with the number of scenarios that it was said of, the most frequent first.
fn advice(summary: &Summary) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for advice in summary.outcomes.iter().flat_map(|outcome| &outcome.advice) {
        *counts.entry(advice).or_default() += 1;
    }
    let mut counts: Vec<(String, usize)> =
        counts.into_iter().map(|(advice, count)| (advice.to_owned(), count)).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    if counts.len() > ADVICE {
        let rest = counts.split_off(ADVICE);
        let most = rest.iter().map(|(_, count)| *count).max().unwrap_or_default();
        counts.push((format!("and {} more in the report", rest.len()), most));
    }
    counts
}

/// Scenarios by deployments: `✓` passed, `✗` failed, `!` errored, `·` not for this deployment.
fn matrix(summary: &Summary) -> String {
    let deployments: BTreeSet<&str> = summary.outcomes.iter().map(|outcome| outcome.deployment.as_str()).collect();
    let deployments: Vec<&str> = deployments.into_iter().collect();
    type Key<'a> = (&'a Path, usize, &'a str);
    let mut rows: Vec<(Key<'_>, Vec<char>)> = Vec::new();
    for outcome in &summary.outcomes {
        let key = (outcome.file.as_path(), outcome.line, outcome.scenario.as_str());
        let column = deployments.iter().position(|name| *name == outcome.deployment).unwrap_or(0);
        let mark = match outcome.problem().map(|problem| problem.kind) {
            None => '✓',
            Some(ProblemKind::Failed) => '✗',
            Some(ProblemKind::Errored) => '!',
        };
        // Rows of an outline share line and name: each run of it on a deployment takes the next free row.
        match rows.iter_mut().find(|(at, marks)| *at == key && marks[column] == '·') {
            Some((_, marks)) => marks[column] = mark,
            None => {
                let mut marks = vec!['·'; deployments.len()];
                marks[column] = mark;
                rows.push((key, marks));
            }
        }
    }
    rows.sort_by_key(|(key, _)| *key);
    let mut text = String::new();
    for (index, name) in deployments.iter().enumerate() {
        let _ = writeln!(text, "{}┌ {name}", "│ ".repeat(index));
    }
    let mut last = None;
    for ((file, _, scenario), marks) in rows {
        if last != Some(file) {
            let _ = writeln!(text, "{}{}", "  ".repeat(deployments.len()), short(file));
            last = Some(file);
        }
        let marks: String = marks.iter().flat_map(|mark| [*mark, ' ']).collect();
        let _ = writeln!(text, "{marks}  {scenario}");
    }
    text
}

/// A feature file from its `features` folder on, as people speak of it.
fn short(file: &Path) -> String {
    let parts: Vec<_> = file.iter().map(|part| part.to_string_lossy()).collect();
    match parts.iter().rposition(|part| part == "features") {
        Some(at) if at + 1 < parts.len() => parts[at + 1..].join("/"),
        _ => file.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use super::*;

    fn outcome(deployment: &str, scenario: &str, problem: Option<Problem>) -> Outcome {
        Outcome {
            deployment: deployment.into(),
            file: PathBuf::from("/p/features/correlation/files.feature"),
            line: 12,
            feature: "Files".into(),
            scenario: scenario.into(),
            verdict: problem.map_or(Verdict::Passed, |problem| Verdict::NotPassed {
                step: "Then the trace has a SERVER span \"GET /files/{path}\"".into(),
                line: 14,
                problem,
            }),
            took: Duration::from_millis(35),
            proofs: Vec::new(),
            advice: Vec::new(),
            evidence: Some("target/tracegate/files-12".into()),
            stories: Vec::new(),
        }
    }

    fn told(events: &[Event]) -> String {
        let mut out = Vec::new();
        let mut terminal = Terminal::plain(&mut out);
        events.iter().for_each(|event| terminal.tell(event));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_failure_names_place_step_deployment_and_evidence() {
        let problem = Problem::failed("closest    SERVER \"GET /files/\"");
        let text = told(&[Event::Judged(Box::new(outcome("lambda", "A file is read", Some(problem))))]);
        assert!(text.contains("FAIL      35 ms  lambda  correlation/files.feature:12  A file is read"), "{text}");
        assert!(text.contains("files.feature:14  Then the trace has a SERVER span"), "{text}");
        assert!(text.contains("  closest    SERVER \"GET /files/\"\n  trace tree"), "{text}");
    }

    #[test]
    fn the_matrix_shows_every_scenario_by_deployment() {
        let summary = Summary {
            outcomes: vec![
                outcome("lambda", "one", None),
                outcome("process", "one", Some(Problem::failed("x"))),
                outcome("process", "two", Some(Problem::errored("x"))),
            ],
            ..Summary::default()
        };
        let text = matrix(&summary);
        assert!(text.contains("✓ ✗   one"), "{text}");
        assert!(text.contains("· !   two"), "{text}");
    }

    #[test]
    fn advice_is_told_once_with_the_number_of_scenarios() {
        let with = |name: &str, advice: &[&str]| Outcome {
            advice: advice.iter().map(|advice| (*advice).to_owned()).collect(),
            ..outcome("process", name, None)
        };
        let (old, name) = ("deprecated-attributes: attribute http.method is deprecated", "unknown-service: spans");
        let outcomes = vec![with("one", &[old]), with("two", &[name, old])];
        let text = told(&[Event::Finished(Summary { outcomes, ..Summary::default() })]);
        assert!(text.contains(&format!("ADVICE   {old} (2 scenarios)\nADVICE   {name} (1 scenario)\n")), "{text}");
        let many: Vec<String> = (0..20).map(|n| format!("rule: {n:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let text = told(&[Event::Finished(Summary { outcomes: vec![with("one", &many)], ..Summary::default() })]);
        assert!(text.contains("rule: 11 ") && !text.contains("rule: 12 ") && text.contains("and 8 more"), "{text}");
    }

    #[test]
    fn no_colour_is_written_to_a_pipe() {
        assert!(!told(&[Event::Judged(Box::new(outcome("p", "s", None)))]).contains('\x1b'));
    }
}
