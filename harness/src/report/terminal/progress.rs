//! A line for each deployment, drawn again with every event.

use std::fmt::Write as _;

use super::{
    super::{Event, ProblemKind},
    look::{Look, Size, columns, legible},
};

const BAR: usize = 20;

/// What is drawn below everything else while a run goes on.
#[derive(Debug)]
pub(super) struct Progress {
    size: Size,
    look: Look,
    rows: Vec<Row>,
    /// How many lines were drawn and must be erased first.
    drawn: usize,
}

#[derive(Debug)]
struct Row {
    deployment: String,
    total: usize,
    passed: usize,
    failed: usize,
    errored: usize,
    /// What it is doing.
    now: String,
}

impl Row {
    fn done(&self) -> usize {
        self.passed + self.failed + self.errored
    }
}

impl Progress {
    pub fn new(size: Size, colour: bool) -> Self {
        Self { size, look: Look { colour, ..Look::default() }, rows: Vec::new(), drawn: 0 }
    }

    pub fn tell(&mut self, event: &Event) {
        match event {
            Event::Started { deployments, .. } => {
                self.rows = deployments
                    .iter()
                    .filter(|(_, total)| *total > 0)
                    .map(|(deployment, total)| Row {
                        deployment: deployment.clone(),
                        total: *total,
                        passed: 0,
                        failed: 0,
                        errored: 0,
                        now: "waiting".into(),
                    })
                    .collect();
            }
            Event::Starting { deployment, builds } => {
                let builds = builds.as_ref().filter(|_| self.rows.iter().all(|row| row.done() == 0));
                let now = builds.map_or_else(|| "starting".to_owned(), |what| format!("building {what}, starting"));
                self.now(deployment, now);
            }
            Event::Ready { deployment, what, .. } => self.now(deployment, what.clone()),
            Event::Playing { deployment, scenario } => self.now(deployment, scenario.clone()),
            Event::Judged(outcome) => {
                let kind = outcome.problem().map(|problem| problem.kind);
                if let Some(row) = self.rows.iter_mut().find(|row| row.deployment == outcome.deployment) {
                    match kind {
                        None => row.passed += 1,
                        Some(ProblemKind::Failed) => row.failed += 1,
                        Some(ProblemKind::Errored) => row.errored += 1,
                    }
                    if row.done() >= row.total {
                        row.now.clear();
                    }
                }
            }
            Event::Unavailable { .. } | Event::Finished(_) => {}
        }
    }

    fn now(&mut self, deployment: &str, now: String) {
        if let Some(row) = self.rows.iter_mut().find(|row| row.deployment == deployment) {
            row.now = now;
        }
    }

    /// Removes what was drawn.
    pub fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\r\x1b[J"),
        }
    }

    /// Draws all lines that the terminal has room for.
    pub fn draw(&mut self) -> String {
        let room = self.size.rows - 1;
        let shown = if self.rows.len() > room { room - 1 } else { self.rows.len() };
        let width = self.rows.iter().map(|row| columns(&row.deployment)).max().unwrap_or(0);
        let mut text = String::new();
        for row in &self.rows[..shown] {
            let line = self.line(row, width);
            let _ = writeln!(text, "{line}");
        }
        if shown < self.rows.len() {
            let rest = &self.rows[shown..];
            let done: usize = rest.iter().map(Row::done).sum();
            let total: usize = rest.iter().map(|row| row.total).sum();
            let _ = writeln!(text, "and {} more: {done}/{total}", rest.len());
        }
        self.drawn = text.lines().count();
        text
    }

    /// `lambda  ████████░░░░░░░░░░░░  21/52  1 failed  A file is read`, cut where the terminal ends.
    fn line(&self, row: &Row, width: usize) -> String {
        let done = row.done();
        let filled = done * BAR / row.total.max(1);
        let code = if row.failed + row.errored > 0 { "31" } else { "32" };
        let digits = row.total.to_string().len();
        let mut fields = vec![
            (String::new(), format!("{:<width$}", row.deployment)),
            (code.to_owned(), format!("{}{}", "█".repeat(filled), "░".repeat(BAR.saturating_sub(filled)))),
            (String::new(), format!("{done:>digits$}/{}", row.total)),
        ];
        if row.failed > 0 {
            fields.push(("31;1".into(), format!("{} failed", row.failed)));
        }
        if row.errored > 0 {
            fields.push(("33;1".into(), format!("{} errored", row.errored)));
        }
        fields.push(("2".into(), legible(&row.now)));
        // One column is left free: some terminals go to the next line when the last one is written to.
        let mut room = self.size.columns - 1;
        let mut line = String::new();
        for (code, field) in fields.iter().filter(|(_, field)| !field.is_empty()) {
            let gap = if line.is_empty() { 0 } else { 2 };
            let field = cut(field, room.saturating_sub(gap));
            if field.is_empty() {
                break;
            }
            room -= gap + columns(&field);
            line.push_str(&" ".repeat(gap));
            line.push_str(&if code.is_empty() { field } else { self.look.paint(code, &field) });
        }
        line
    }
}

fn cut(text: &str, room: usize) -> String {
    if columns(text) <= room {
        return text.to_owned();
    }
    let mut kept = String::new();
    for char in text.chars() {
        if columns(&kept) + columns(char.encode_utf8(&mut [0; 4])) + 1 > room {
            break;
        }
        kept.push(char);
    }
    if room == 0 { kept } else { kept + "…" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::outcome;

    fn started(deployments: usize, rows: usize) -> Progress {
        let mut progress = Progress::new(Size { columns: 50, rows }, false);
        let deployments = (0..deployments).map(|at| (format!("deployment-{at}"), 9)).collect();
        progress.tell(&Event::Started { scenarios: 9, deployments });
        progress
    }

    #[test]
    fn a_line_is_never_wider_than_the_terminal_and_says_what_is_played() {
        let mut progress = started(1, 24);
        let scenario = "A name that goes on and on and on and on".to_owned();
        progress.tell(&Event::Playing { deployment: "deployment-0".into(), scenario });
        let drawn = progress.draw();
        assert_eq!(drawn.trim_end(), "deployment-0  ░░░░░░░░░░░░░░░░░░░░  0/9  A name …");
        assert!(columns(drawn.trim_end()) < 50);
    }

    #[test]
    fn as_many_lines_are_erased_as_were_drawn_and_never_more_than_the_terminal_has() {
        let mut progress = started(30, 10);
        let drawn = progress.draw();
        assert_eq!(drawn.lines().count(), 9);
        assert!(drawn.ends_with("and 22 more: 0/198\n"), "{drawn}");
        assert_eq!(progress.erase(), "\x1b[9A\r\x1b[J");
        assert_eq!(progress.erase(), "");
    }

    #[test]
    fn a_deployment_that_is_done_says_no_more() {
        let mut progress = started(1, 10);
        progress.tell(&Event::Playing { deployment: "deployment-0".into(), scenario: "s".into() });
        (0..9).for_each(|_| progress.tell(&Event::Judged(Box::new(outcome("deployment-0", "s", None)))));
        assert_eq!(progress.draw(), "deployment-0  ████████████████████  9/9\n");
    }
}
