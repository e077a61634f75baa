//! Advice as the short reports tell it: once, with how often it was given.

use std::{cmp::Reverse, collections::BTreeMap};

use super::Summary;

/// How many pieces of advice are shown, and how many of one rule, so that the names of one old instrumentation do not hide
/// the rest; all of them are in the HTML report.
const SHOWN: usize = 12;
const SHOWN_OF_A_RULE: usize = 3;

/// What invariants said that fails nothing, each with the number of outcomes that it was said of, the most frequent first,
/// and a last line for those that are not shown.
pub(super) fn advice(summary: &Summary) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for advice in summary.outcomes.iter().flat_map(|outcome| &outcome.advice) {
        *counts.entry(advice).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    let mut of_rule: BTreeMap<&str, usize> = BTreeMap::new();
    let mut told = Vec::new();
    for (advice, count) in &counts {
        let rule = advice.split_once(':').map_or(*advice, |(rule, _)| rule);
        let so_far = of_rule.entry(rule).or_default();
        *so_far += 1;
        if told.len() < SHOWN && *so_far <= SHOWN_OF_A_RULE {
            told.push(format!("{advice} ({count} scenario{})", if *count == 1 { "" } else { "s" }));
        }
    }
    let hidden = counts.len() - told.len();
    if hidden > 0 {
        let most = of_rule.iter().filter(|(_, count)| **count > SHOWN_OF_A_RULE);
        let most: Vec<String> = most.map(|(rule, count)| format!("{} of {rule}", count - SHOWN_OF_A_RULE)).collect();
        let whose = if most.is_empty() { String::new() } else { format!(" ({})", most.join(", ")) };
        told.push(format!("and {hidden} more in the report{whose}"));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::{super::samples::outcome, *};
    use crate::report::Outcome;

    #[test]
    fn advice_is_told_once_with_the_number_of_scenarios() {
        let with = |name: &str, advice: &[&str]| Outcome {
            advice: advice.iter().map(|advice| (*advice).to_owned()).collect(),
            ..outcome("process", name, None)
        };
        let outcomes = vec![with("one", &["old: x"]), with("two", &["new: y", "old: x"])];
        let told = advice(&Summary { outcomes, ..Summary::default() });
        assert_eq!(told, ["old: x (2 scenarios)", "new: y (1 scenario)"]);
        let many = |rules: usize, each: usize| {
            let many: Vec<String> =
                (0..rules).flat_map(|rule| (0..each).map(move |n| format!("rule-{rule:02}: {n}"))).collect();
            let many: Vec<&str> = many.iter().map(String::as_str).collect();
            advice(&Summary { outcomes: vec![with("one", &many)], ..Summary::default() })
        };
        assert_eq!(many(20, 1)[11..], ["rule-11: 0 (1 scenario)", "and 8 more in the report"]);
        let told = many(2, 5);
        assert_eq!(told[2..4], ["rule-00: 2 (1 scenario)", "rule-01: 0 (1 scenario)"]);
        assert_eq!(told[6..], ["and 4 more in the report (2 of rule-00, 2 of rule-01)"]);
    }
}
