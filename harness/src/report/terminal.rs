//! What a person reads while a run goes on. On a terminal: failures as they happen above a line for each deployment.
//! Anywhere else: a line a verdict. At the end a matrix.

mod look;
mod progress;

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
    io::{self, Write},
};

use super::{
    Event, Exit, Outcome, PAGE, ProblemKind, Reporter, Summary, Verdict,
    advice::advice,
    matrix::{Matrix, mark, short},
};
use look::{Look, legible, wrapped};
use progress::Progress;

/// Writes to a stream.
#[derive(Debug)]
pub struct Terminal<W> {
    out: W,
    look: Look,
    /// Width of the column of deployments.
    width: usize,
    /// What is being built was told once.
    told: BTreeSet<String>,
    /// Where each message of a deployment was told: one that could not start says the same of every scenario.
    messages: HashMap<(String, String), String>,
    /// Lines that are drawn again with every event; `None` where they would be a heap.
    progress: Option<Progress>,
}

impl Terminal<io::Stdout> {
    /// Standard output: live and in colour where it is a terminal. `NO_COLOR`, `CLICOLOR` and `CLICOLOR_FORCE` decide on colour.
    pub fn stdout() -> Self {
        Self::new(io::stdout(), Look::of_stdout())
    }
}

impl<W: Write> Terminal<W> {
    /// Any stream, without colour.
    pub fn plain(out: W) -> Self {
        Self::new(out, Look::default())
    }

    fn new(out: W, look: Look) -> Self {
        let progress = look.live().map(|size| Progress::new(size, look.colour));
        Self { out, look, width: 0, told: BTreeSet::new(), messages: HashMap::new(), progress }
    }

    /// Prints above the lines that are drawn again.
    fn say(&mut self, text: &str) {
        let mut all = self.progress.as_mut().map(Progress::erase).unwrap_or_default();
        for line in text.lines() {
            all.push_str(&wrapped(line, self.look.width()));
            all.push('\n');
        }
        self.write(&all);
    }

    fn draw(&mut self) {
        if let Some(progress) = &mut self.progress {
            let text = progress.erase() + &progress.draw();
            self.write(&text);
        }
    }

    fn write(&mut self, text: &str) {
        // A closed pipe (`| head`) must not change the verdict.
        let _ = self.out.write_all(text.as_bytes());
        let _ = self.out.flush();
    }

    fn paint(&self, code: &str, text: &str) -> String {
        self.look.paint(code, text)
    }

    fn verdict(&mut self, outcome: &Outcome) {
        if self.progress.is_some() && outcome.problem().is_none() {
            return;
        }
        let word = match outcome.problem().map(|problem| problem.kind) {
            None => self.paint("32", "PASS "),
            Some(ProblemKind::Failed) => self.paint("31;1", "FAIL "),
            Some(ProblemKind::Errored) => self.paint("33;1", "ERROR"),
        };
        let place = format!("{}:{}", short(&outcome.file), outcome.line);
        let took = format!("{:>6} ms", outcome.took.as_millis());
        let width = self.width;
        let scenario = legible(&outcome.scenario);
        let shown = format!("{place}  {scenario}");
        self.say(&format!("{word} {took}  {:<width$}  {shown}", outcome.deployment));
        if let Verdict::NotPassed { step, line, problem } = &outcome.verdict {
            let key = (outcome.deployment.clone(), problem.message.clone());
            let text = match self.messages.get(&key) {
                Some(first) if problem.message.contains('\n') => {
                    failure(outcome, step, *line, &format!("word for word as in {first}"))
                }
                _ => failure(outcome, step, *line, &problem.message),
            };
            self.messages.entry(key).or_insert(shown);
            let mut lines = text.lines().map(legible);
            let mut shown = String::new();
            for line in lines.by_ref().take(2) {
                shown.push_str(&if line.is_empty() { line } else { self.paint("1", &line) });
                shown.push('\n');
            }
            for line in lines {
                shown.push_str(&self.labelled(&line));
                shown.push('\n');
            }
            shown.push('\n');
            self.say(&shown);
        }
    }

    /// The word that a line of a failure begins with, told apart by colour.
    fn labelled(&self, line: &str) -> String {
        let label = line.strip_prefix("  ").and_then(|line| line.split_once("  "));
        match label {
            Some((label, rest)) if !label.is_empty() && !label.contains(' ') => {
                format!("  {}  {rest}", self.paint("36", label))
            }
            _ => line.to_owned(),
        }
    }

    fn summary(&mut self, summary: &Summary) {
        self.progress = None;
        let table = self.table(summary);
        self.say(&table);
        for (deployment, reason) in &summary.unavailable {
            self.not_run(deployment, reason);
        }
        if summary.outcomes.is_empty() {
            let word = self.paint("33;1", "NOTHING");
            let why = if summary.unavailable.is_empty() {
                "was selected: no scenario fits the features, tags and deployments that were given"
            } else {
                "was run: the deployments above cannot run here, and no other one takes what was selected"
            };
            self.say(&format!("{word}  {why}"));
        }
        if !summary.unclaimed.is_empty() {
            let word = self.paint("33;1", "NOT RUN");
            let count = summary.unclaimed.len();
            self.say(&format!(
                "{word}  {count} scenarios whose tags ask for labels that no deployment of this run has:"
            ));
            for scenario in &summary.unclaimed {
                self.say(&format!("         {}", legible(scenario)));
            }
        }
        for advice in advice(summary) {
            let word = self.paint("36", "ADVICE ");
            self.say(&format!("{word}  {}", legible(&advice)));
        }
        let mut text = format!(
            "{} passed, {} failed, {} errored in {:.1} s",
            summary.passed(),
            summary.failed(),
            summary.errored(),
            summary.took.as_secs_f64()
        );
        // Where nothing ran there is no page.
        if !summary.outcomes.is_empty() {
            let _ = write!(text, "; waterfalls in {}", summary.output.join(PAGE).display());
        }
        let code = match summary.exit() {
            Exit::Passed => "32;1",
            Exit::NothingSelected => "33;1",
            _ => "31;1",
        };
        let text = self.paint(code, &text);
        self.say(&text);
    }

    fn not_run(&mut self, deployment: &str, reason: &str) {
        let word = self.paint("33;1", "NOT RUN");
        self.say(&format!("{word}  {deployment}: {}", legible(reason)));
    }

    fn table(&self, summary: &Summary) -> String {
        let Matrix { deployments, rows } = Matrix::of(summary);
        let mut text = String::from("\n");
        for (index, name) in deployments.iter().enumerate() {
            let _ = writeln!(text, "{}┌ {name}", "│ ".repeat(index));
        }
        let mut last = None;
        for row in rows {
            if last != Some(row.file) {
                let _ = writeln!(text, "{}{}", "  ".repeat(deployments.len()), short(row.file));
                last = Some(row.file);
            }
            for cell in row.cells {
                let shown = mark(cell).to_string();
                let shown = match cell.map(Outcome::word) {
                    None => shown,
                    Some("passed") => self.paint("32", &shown),
                    Some("failed") => self.paint("31;1", &shown),
                    Some(_) => self.paint("33;1", &shown),
                };
                text.push_str(&shown);
                text.push(' ');
            }
            let _ = writeln!(text, "  {}", legible(row.scenario));
        }
        text.push('\n');
        text
    }
}

impl<W: Write> Reporter for Terminal<W> {
    fn tell(&mut self, event: &Event) {
        if let Some(progress) = &mut self.progress {
            progress.tell(event);
        }
        match event {
            Event::Started { scenarios, deployments } => {
                self.width = deployments.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
                let names: Vec<&str> = deployments.iter().map(|(name, _)| name.as_str()).collect();
                let names = names.join(", ");
                let plural = if *scenarios == 1 { "" } else { "s" };
                self.say(&format!("tracegate {}: {scenarios} scenario{plural} on {names}", env!("CARGO_PKG_VERSION")));
            }
            Event::Starting { builds: Some(what), .. } if self.told.insert(what.clone()) => {
                let word = self.paint("36", "BUILD");
                self.say(&format!("{word}            {what} (the first time takes a while)"));
            }
            Event::Ready { deployment, what, took } if self.progress.is_none() => {
                let width = self.width;
                let word = self.paint("36", "READY");
                self.say(&format!("{word} {:>6} ms  {deployment:<width$}  {what}", took.as_millis()));
            }
            Event::Starting { .. } | Event::Ready { .. } | Event::Playing { .. } => {}
            Event::Unavailable { deployment, reason } => self.not_run(deployment, reason),
            Event::Judged(outcome) => self.verdict(outcome),
            Event::Finished(summary) => self.summary(summary),
        }
        self.draw();
    }
}

/// A failure as DESIGN has it: the step's place, then what is known of it, indented.
pub(super) fn failure(outcome: &Outcome, step: &str, line: usize, message: &str) -> String {
    let mut text = format!("\n{}:{line}  {step}\n", outcome.file.display());
    for line in message.lines() {
        let _ = writeln!(text, "  {line}");
    }
    if let Some(evidence) = &outcome.evidence {
        let _ = writeln!(text, "  trace tree, log lines, export requests: {}", evidence.display());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Problem, samples::outcome},
        look::Size,
        *,
    };

    fn told_with(look: Look, events: &[Event]) -> String {
        let mut out = Vec::new();
        let mut terminal = Terminal::new(&mut out, look);
        events.iter().for_each(|event| terminal.tell(event));
        String::from_utf8(out).unwrap()
    }

    fn told(events: &[Event]) -> String {
        told_with(Look::default(), events)
    }

    fn judged(outcome: Outcome) -> Event {
        Event::Judged(Box::new(outcome))
    }

    #[test]
    fn a_failure_names_place_step_deployment_and_evidence() {
        let problem = Problem::failed("closest    SERVER \"GET /files/\"");
        let text = told(&[judged(outcome("lambda", "A file is read", Some(problem)))]);
        assert!(text.contains("FAIL      35 ms  lambda  correlation/files.feature:12  A file is read"), "{text}");
        assert!(text.contains("files.feature:14  Then the trace has a SERVER span"), "{text}");
        assert!(text.contains("  closest    SERVER \"GET /files/\"\n  trace tree"), "{text}");
    }

    #[test]
    fn what_a_deployment_says_of_every_scenario_is_told_in_full_once() {
        let not_started =
            || Some(Problem::errored("deployment p did not start: it ended\nlast output\n  no such table"));
        let text = told(&[
            judged(outcome("p", "one", not_started())),
            judged(outcome("p", "two", not_started())),
            judged(outcome("q", "one", not_started())),
        ]);
        assert_eq!(text.matches("no such table").count(), 2, "once a deployment: {text}");
        assert_eq!(text.matches("word for word as in correlation/files.feature:12  one\n").count(), 1, "{text}");
        assert_eq!(text.matches("files.feature:14  Then the trace has a SERVER span").count(), 3, "{text}");
    }

    #[test]
    fn the_matrix_shows_every_scenario_by_deployment() {
        let summary = Summary {
            outcomes: vec![
                Outcome { advice: vec!["old: http.method".into()], ..outcome("lambda", "one", None) },
                outcome("process", "one", Some(Problem::failed("x"))),
                outcome("process", "two", Some(Problem::errored("x"))),
            ],
            ..Summary::default()
        };
        let text = told(&[Event::Finished(summary)]);
        assert!(text.contains("✓ ✗   one"), "{text}");
        assert!(text.contains("· !   two"), "{text}");
        assert!(text.contains("\nADVICE   old: http.method (1 scenario)\n1 passed"), "{text}");
    }

    #[test]
    fn to_a_pipe_every_verdict_is_a_line_without_colour_and_nothing_is_drawn_twice() {
        let text = told(&[judged(outcome("p", "s", None)), judged(outcome("p", "t", Some(Problem::failed("x"))))]);
        assert!(text.contains("PASS ") && text.contains("FAIL "), "{text}");
        assert!(!text.contains('\x1b'), "{text:?}");
    }

    #[test]
    fn on_a_terminal_passes_are_counted_in_one_line_a_deployment_and_failures_stay() {
        let look = Look { colour: false, size: Some(Size { columns: 60, rows: 24 }), redraws: true };
        let events = [
            Event::Started { scenarios: 2, deployments: vec![("lambda".into(), 2), ("web".into(), 1)] },
            judged(outcome("lambda", "one", None)),
            judged(outcome("lambda", "two", Some(Problem::failed("closest    none")))),
        ];
        let text = told_with(look, &events);
        assert!(!text.contains("PASS"), "{text}");
        let [web, lambda] = text.lines().rev().take(2).collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert!(lambda.starts_with("lambda") && lambda.contains("2/2") && lambda.contains("1 failed"), "{text}");
        assert!(web.starts_with("web") && web.contains("0/1"), "{text}");
        assert_eq!(text.matches("\x1b[2A\r\x1b[J").count(), 2, "drawn twice before, and erased: {text:?}");
        assert!(text.contains("  closest    none\n"), "{text}");
    }

    #[test]
    fn what_a_service_wrote_cannot_steer_the_terminal() {
        let text = told(&[judged(outcome("p", "a\x1b]0;x\x07", Some(Problem::failed("line\x1b[2J\rgone"))))]);
        assert!(!text.contains(['\x1b', '\x07', '\r']), "{text:?}");
        assert!(text.contains("line␛[2J␍gone"), "{text}");
    }
}
