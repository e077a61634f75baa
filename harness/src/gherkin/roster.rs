//! What a run is to judge, known before it begins: who must have a verdict at its end, and where the evidence of each lies.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{run::near, select::Selection};
use crate::report::{Outcome, Problem, Verdict};

/// A scenario on a deployment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    deployment: String,
    file: PathBuf,
    line: usize,
    scenario: String,
    feature: String,
}

/// Every scenario on every deployment that takes it.
#[derive(Debug, Default)]
pub(super) struct Roster(BTreeSet<Entry>);

impl Roster {
    /// Adds what a deployment takes.
    pub fn enrol(&mut self, deployment: &str, selection: &Selection) {
        self.0.extend(selection.scenarios().map(|selected| Entry {
            deployment: deployment.to_owned(),
            file: near(selected.feature.path.as_deref().unwrap_or(Path::new(""))),
            line: selected.scenario.position.line,
            scenario: selected.scenario.name.clone(),
            feature: selected.feature.name.clone(),
        }));
    }

    /// An error for each that has no outcome: a run must not pass by losing one.
    pub fn unjudged(&self, outcomes: &[Outcome], why: &str) -> Vec<Outcome> {
        let judged: BTreeSet<(&str, &Path, usize, &str)> = outcomes
            .iter()
            .map(|one| (one.deployment.as_str(), one.file.as_path(), one.line, one.scenario.as_str()))
            .collect();
        let missing = self.0.iter().filter(|entry| {
            !judged.contains(&(&entry.deployment, entry.file.as_path(), entry.line, entry.scenario.as_str()))
        });
        missing
            .map(|entry| Outcome {
                deployment: entry.deployment.clone(),
                file: entry.file.clone(),
                line: entry.line,
                feature: entry.feature.clone(),
                scenario: entry.scenario.clone(),
                verdict: Verdict::NotPassed {
                    step: format!("Scenario {}", entry.scenario),
                    line: entry.line,
                    problem: Problem::errored(why),
                },
                took: Duration::ZERO,
                proofs: Vec::new(),
                advice: Vec::new(),
                evidence: None,
                stories: Vec::new(),
            })
            .collect()
    }
}

/// What the evidence of each feature file is named after: its stem, with as many of the folders above it as tell it from the
/// others.
pub(super) fn names(selection: &Selection) -> BTreeMap<PathBuf, String> {
    let files: BTreeSet<&Path> = selection.features.iter().filter_map(|feature| feature.path.as_deref()).collect();
    let mut names: BTreeMap<PathBuf, String> = BTreeMap::new();
    for &file in &files {
        let depth = file.components().count();
        let mut free = (1..=depth)
            .filter(|&depth| files.iter().filter(|other| ending(other, depth) == ending(file, depth)).count() == 1)
            .map(|depth| ending(file, depth))
            .chain((2..).map(|number| format!("{}-{number}", ending(file, depth))));
        if let Some(name) = free.find(|name| !names.values().any(|taken| taken == name)) {
            names.insert(file.to_owned(), name);
        }
    }
    names
}

/// The last parts of a path without its extension, as one word.
fn ending(file: &Path, parts: usize) -> String {
    let file = file.with_extension("");
    let words: Vec<String> = file
        .components()
        .filter(|part| matches!(part, std::path::Component::Normal(_)))
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    words[words.len().saturating_sub(parts)..].join("-")
}

#[cfg(test)]
mod tests {
    use cucumber::gherkin::{Feature, GherkinEnv};

    use super::*;

    fn selection(files: &[&str]) -> Selection {
        let text = "Feature: F\n  Scenario: one\n    When x\n  Scenario: two\n    When x\n";
        let features = files.iter().map(|file| {
            let mut feature = Feature::parse(text, GherkinEnv::default()).unwrap();
            feature.path = Some(file.into());
            feature
        });
        Selection { features: features.collect() }
    }

    #[test]
    fn files_of_one_name_have_evidence_of_their_own_however_deep_they_differ() {
        let all =
            ["/f/v1/api/orders.feature", "/f/v2/api/orders.feature", "/f/api-users.feature", "/f/api/users.feature"];
        let more = ["/f/b/users.feature", "/f/alone.feature"];
        let names = names(&selection(&[&all[..], &more[..]].concat()));
        assert_eq!(names[Path::new("/f/v1/api/orders.feature")], "v1-api-orders");
        assert_eq!(names[Path::new("/f/v2/api/orders.feature")], "v2-api-orders");
        assert_eq!(names[Path::new("/f/alone.feature")], "alone");
        let distinct: BTreeSet<&String> = names.values().collect();
        assert_eq!(distinct.len(), 6, "{names:?}");
    }

    #[test]
    fn who_has_no_outcome_is_an_error_and_who_has_one_is_not_told_again() {
        let mut roster = Roster::default();
        roster.enrol("web", &selection(&["/f/a.feature"]));
        let lost = roster.unjudged(&[], "lost");
        assert_eq!(
            lost.iter().map(|one| (one.scenario.as_str(), one.word())).collect::<Vec<_>>(),
            [("one", "errored"), ("two", "errored")]
        );
        let lost = roster.unjudged(&lost[..1], "lost");
        assert_eq!(lost.iter().map(|one| one.scenario.as_str()).collect::<Vec<_>>(), ["two"]);
        assert!(roster.unjudged(&[roster.unjudged(&[], "x"), lost].concat(), "lost").is_empty());
    }
}
