//! Scenarios by deployments, as every report that has a table shows them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{Outcome, ProblemKind, Summary};

/// Scenarios by deployments.
#[derive(Debug)]
pub(super) struct Matrix<'a> {
    /// Names of the columns.
    pub deployments: Vec<&'a str>,
    /// By file, line and name.
    pub rows: Vec<Row<'a>>,
}

/// One scenario.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub file: &'a Path,
    pub line: usize,
    pub scenario: &'a str,
    /// One a deployment; `None` where the scenario is not for it.
    pub cells: Vec<Option<&'a Outcome>>,
}

impl<'a> Matrix<'a> {
    /// The table of a run.
    pub fn of(summary: &'a Summary) -> Self {
        let deployments: BTreeSet<&str> = summary.outcomes.iter().map(|outcome| outcome.deployment.as_str()).collect();
        let deployments: Vec<&str> = deployments.into_iter().collect();
        let mut outcomes: Vec<(usize, &Outcome)> = summary
            .outcomes
            .iter()
            .map(|outcome| (deployments.binary_search(&outcome.deployment.as_str()).unwrap_or(0), outcome))
            .collect();
        outcomes.sort_by_key(|(_, outcome)| (&outcome.file, outcome.line, &outcome.scenario));
        let mut rows: Vec<Row<'a>> = Vec::new();
        for same in outcomes.chunk_by(|(_, one), (_, other)| key(one) == key(other)) {
            let first = rows.len();
            for &(column, outcome) in same {
                // Rows of an outline can share line and name: each run of it on a deployment takes the next free row.
                match rows[first..].iter_mut().find(|row| row.cells[column].is_none()) {
                    Some(row) => row.cells[column] = Some(outcome),
                    None => {
                        let mut cells = vec![None; deployments.len()];
                        cells[column] = Some(outcome);
                        let (file, line, scenario) = key(outcome);
                        rows.push(Row { file, line, scenario, cells });
                    }
                }
            }
        }
        Self { deployments, rows }
    }
}

fn key(outcome: &Outcome) -> (&Path, usize, &str) {
    (&outcome.file, outcome.line, &outcome.scenario)
}

/// `✓` passed, `✗` failed, `!` errored, `·` not for this deployment.
pub(super) fn mark(outcome: Option<&Outcome>) -> char {
    match outcome.map(|outcome| outcome.problem().map(|problem| problem.kind)) {
        None => '·',
        Some(None) => '✓',
        Some(Some(ProblemKind::Failed)) => '✗',
        Some(Some(ProblemKind::Errored)) => '!',
    }
}

/// A feature file from its `features` folder on, as people speak of it.
pub(super) fn short(file: &Path) -> String {
    let parts: Vec<_> = file.iter().collect();
    match parts.iter().rposition(|part| *part == "features") {
        Some(at) if at + 1 < parts.len() => parts[at + 1..].iter().collect::<PathBuf>().display().to_string(),
        _ => file.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::samples::outcome, *};
    use crate::report::Problem;

    #[test]
    fn rows_of_an_outline_with_the_same_name_stand_one_below_the_other() {
        let outcomes = vec![
            outcome("b", "s", None),
            outcome("a", "s", Some(Problem::failed("x"))),
            outcome("a", "s", None),
            outcome("b", "other", Some(Problem::errored("x"))),
        ];
        let summary = Summary { outcomes, ..Summary::default() };
        let matrix = Matrix::of(&summary);
        let rows: Vec<(&str, String)> =
            matrix.rows.iter().map(|row| (row.scenario, row.cells.iter().map(|cell| mark(*cell)).collect())).collect();
        assert_eq!(matrix.deployments, ["a", "b"]);
        assert_eq!(rows, [("other", "·!".into()), ("s", "✗✓".into()), ("s", "✓·".into())]);
    }
}
