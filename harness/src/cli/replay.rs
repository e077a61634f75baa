//! `tracegate replay`.

use std::{path::PathBuf, time::Instant};

use clap::Args;
use miette::IntoDiagnostic;

use super::run::{Ended, runtime};
use crate::{
    config::Config,
    evidence,
    gherkin::{self, Replayed},
    report::{Event, Exit, Files, Format, Reporter, Summary, Terminal, Verdict},
};

/// Arguments of `tracegate replay`.
#[derive(Debug, Clone, Args)]
pub struct ReplayArguments {
    /// Evidence of a run: its output folder, the folder of one scenario, or that of one of its deployments
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// Take the feature files from the folder of this configuration, and not from where the run had them
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Write the page of these verdicts; in the evidence's own folder, its links to the evidence work
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Write a JUnit report
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Write a report for programs, in JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl ReplayArguments {
    /// Judges the scenarios again and tells the terminal.
    pub fn run(&self) -> Ended {
        let began = Instant::now();
        let usage = |report: miette::Report| (Exit::Usage, report);
        let config = self.config.as_deref().map(Config::read).transpose().map_err(|error| usage(error.into()))?;
        let found = evidence::find(&self.folder).map_err(|error| usage(error.into()))?;
        let root = config.map(|config| config.root);
        let replayed = runtime()?.block_on(gherkin::replay(&found, root.as_deref()));
        let replayed = replayed.map_err(|error| usage(error.into()))?;
        let mut terminal = Terminal::stdout();
        for one in &replayed {
            terminal.tell(&Event::Judged(Box::new(one.outcome.clone())));
        }
        let outcomes = replayed.iter().map(|one| one.outcome.clone()).collect();
        let summary =
            Summary { outcomes, took: began.elapsed(), output: gherkin::near(&found.output), ..Summary::default() };
        let mut files = Files::none()
            .with(Format::Html, self.html.as_deref())
            .with(Format::Junit, self.junit.as_deref())
            .with(Format::Json, self.json.as_deref());
        files.tell(&Event::Finished(summary.clone()));
        println!("{}", told(&replayed, &summary));
        files.finish().into_diagnostic().map_err(|report| (summary.exit_unreported(), report))?;
        Ok(summary.exit())
    }
}

fn told(replayed: &[Replayed], summary: &Summary) -> String {
    let mut lines: Vec<String> = replayed.iter().filter(|one| !one.same).map(differs).collect();
    let same = replayed.iter().filter(|one| one.same).count();
    lines.push(format!(
        "judged again in {:.2} s: {} passed, {} failed, {} errored; {same} of {} as recorded",
        summary.took.as_secs_f64(),
        summary.passed(),
        summary.failed(),
        summary.errored(),
        replayed.len()
    ));
    lines.join("\n")
}

fn differs(one: &Replayed) -> String {
    let word = |verdict: &Verdict| match verdict {
        Verdict::Passed => "passed".to_owned(),
        Verdict::NotPassed { step, problem, .. } => format!("{:?} at {step:?}", problem.kind).to_lowercase(),
    };
    let outcome = &one.outcome;
    let (then, now) = (word(&one.recorded), word(&outcome.verdict));
    let now = if then == now { "says something else now".to_owned() } else { format!("is now {now}") };
    format!("OTHER      {} on {}: was {then}, {now}", outcome.scenario, outcome.deployment)
}
