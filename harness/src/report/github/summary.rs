//! The job's summary in Markdown: counts, what did not pass, and the table of scenarios by deployments.

use std::fmt::Write as _;

use super::super::{
    Exit, Outcome, Summary, Verdict,
    advice::advice,
    matrix::{Matrix, mark, short},
    terminal::failure,
};

/// GitHub refuses more than 1 MiB for a step, with what the step had written before.
pub(super) const LIMIT: usize = 1024 * 1024;
/// Left free for the line that says what was left out, and for the ends of open blocks.
const RESERVE: usize = 512;

/// The summary in at most `room` bytes. What does not fit is left out, failures last, and it says so.
pub(super) fn markdown(summary: &Summary, room: usize) -> String {
    let mut text = format!(
        "## {} Tracegate: {} passed, {} failed, {} errored in {:.1} s\n\n",
        match summary.exit() {
            Exit::Passed => "✅",
            Exit::NothingSelected => "⚠️",
            _ => "❌",
        },
        summary.passed(),
        summary.failed(),
        summary.errored(),
        summary.took.as_secs_f64()
    );
    let fits = |text: &String, more: &String| text.len() + more.len() + RESERVE <= room;
    if text.len() + RESERVE > room {
        return String::new();
    }
    for (deployment, reason) in &summary.unavailable {
        let line = format!("- **{}** did not run: {}\n", escaped(deployment), escaped(reason));
        if fits(&text, &line) {
            text.push_str(&line);
        }
    }
    if !summary.unclaimed.is_empty() {
        let line = format!("- {} scenarios are for no deployment of this run\n", summary.unclaimed.len());
        if fits(&text, &line) {
            text.push_str(&line);
        }
    }
    for advice in advice(summary) {
        let line = format!("- Advice: {}\n", escaped(&advice));
        if fits(&text, &line) {
            text.push_str(&line);
        }
    }
    text.push('\n');
    let mut left_out = 0;
    let mut bad: Vec<&Outcome> = summary.outcomes.iter().filter(|outcome| outcome.problem().is_some()).collect();
    bad.sort_by_key(|outcome| (outcome.word() == "errored", &outcome.file, outcome.line, &outcome.deployment));
    for outcome in bad {
        let block = details(outcome);
        if fits(&text, &block) {
            text.push_str(&block);
        } else {
            left_out += 1;
        }
    }
    let matrix = Matrix::of(summary);
    let mut table = format!(
        "<details{}><summary>Scenarios by deployment</summary>\n\n",
        if summary.exit() == Exit::Passed { "" } else { " open" }
    );
    let names: Vec<String> = matrix.deployments.iter().map(|name| escaped(name)).collect();
    let _ = writeln!(table, "| scenario | {} |", names.join(" | "));
    let _ = writeln!(table, "| --- |{}", " :-: |".repeat(names.len()));
    let mut rows_left_out = 0;
    if matrix.rows.is_empty() || !fits(&text, &table) {
        rows_left_out = matrix.rows.len();
    } else {
        text.push_str(&table);
        for row in &matrix.rows {
            let place = format!("{}:{}", short(row.file), row.line);
            let marks: Vec<String> = row.cells.iter().map(|cell| mark(*cell).to_string()).collect();
            let line =
                format!("| {} <sub>{}</sub> | {} |\n", escaped(row.scenario), escaped(&place), marks.join(" | "));
            if fits(&text, &line) {
                text.push_str(&line);
            } else {
                rows_left_out += 1;
            }
        }
        text.push_str("\n</details>\n");
    }
    if left_out + rows_left_out > 0 {
        let _ = writeln!(
            text,
            "\nLeft out, because GitHub takes 1 MiB of a step: {left_out} failures and {rows_left_out} rows of the table. \
             The HTML report has all."
        );
    }
    text
}

fn details(outcome: &Outcome) -> String {
    let Verdict::NotPassed { step, line, problem } = &outcome.verdict else { return String::new() };
    let place = format!("{}:{}", short(&outcome.file), outcome.line);
    format!(
        "<details><summary>{} <b>{}</b> on {}: {} <sub>{}</sub></summary>\n\n<pre>{}</pre>\n\n</details>\n\n",
        mark(Some(outcome)),
        outcome.word(),
        markup(&outcome.deployment),
        markup(&outcome.scenario),
        markup(&place),
        markup(failure(outcome, step, *line, &problem.message).trim_matches('\n'))
    )
}

/// Text inside HTML. A line end would end a block of HTML inside Markdown only where an empty line follows, which `<pre>`
/// takes.
fn markup(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Text in a paragraph or a cell of a table: nothing of it is Markdown.
fn escaped(text: &str) -> String {
    let mut safe = String::new();
    for char in text.chars() {
        match char {
            '&' | '<' | '>' => safe.push_str(&markup(&char.to_string())),
            '\r' | '\n' => safe.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' | '$' | '@' => safe.extend(['\\', char]),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Problem, samples::outcome};

    fn summary(count: usize) -> Summary {
        let message = format!("closest    </pre><script>\n\n::x\n{}", "y".repeat(300));
        let mut outcomes = Vec::new();
        for at in 0..count {
            outcomes.push(outcome("p", &format!("a | <b> `{at}`"), Some(Problem::failed(message.clone()))));
            outcomes.push(outcome("q", &format!("a | <b> `{at}`"), None));
        }
        outcomes[0].advice = vec!["old: `x`".into()];
        Summary { outcomes, unavailable: vec![("c_d".into(), "no\nengine".into())], ..Summary::default() }
    }

    #[test]
    fn it_has_counts_what_did_not_run_failures_and_the_table_and_nothing_of_it_is_markup() {
        let text = markdown(&summary(1), LIMIT);
        assert!(text.starts_with("## ❌ Tracegate: 1 passed, 1 failed, 0 errored"), "{text}");
        assert!(text.contains("- **c\\_d** did not run: no engine\n"), "{text}");
        assert!(text.contains("- Advice: old: \\`x\\` (1 scenario)\n"), "{text}");
        assert!(text.contains("| a \\| &lt;b&gt; \\`0\\` <sub>correlation/files.feature:12</sub> | ✗ | ✓ |"), "{text}");
        assert!(text.contains("closest    &lt;/pre&gt;&lt;script&gt;"), "{text}");
        assert_eq!(text.matches("<details").count(), text.matches("</details>").count());
        assert_eq!(text.matches("</pre>").count(), 1);
        assert!(!text.contains("Left out"), "{text}");
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_counted() {
        let text = markdown(&summary(100), 20_000);
        assert!(text.len() <= 20_000, "{}", text.len());
        assert!(text.contains("Left out, because GitHub takes 1 MiB of a step: "), "{}", &text[text.len() - 300..]);
        assert_eq!(text.matches("<details").count(), text.matches("</details>").count());
        assert_eq!(markdown(&summary(1), 100), "");
    }
}
