//! Advice as the short reports tell it: once, with how often it was given.

use std::{cmp::Reverse, collections::BTreeMap};

use super::Summary;

/// How many pieces of advice are shown; all of them are in the HTML report.
const SHOWN: usize = 12;

/// What invariants said that fails nothing, each with the number of outcomes that it was said of, the most frequent first,
/// and a last line for those that are not shown.
pub(super) fn advice(summary: &Summary) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for advice in summary.outcomes.iter().flat_map(|outcome| &outcome.advice) {
        *counts.entry(advice).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    let hidden = counts.len().saturating_sub(SHOWN);
    let shown = counts.iter().take(SHOWN);
    let shown =
        shown.map(|(advice, count)| format!("{advice} ({count} scenario{})", if *count == 1 { "" } else { "s" }));
    shown.chain((hidden > 0).then(|| format!("and {hidden} more in the report"))).collect()
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
        let many: Vec<String> = (0..20).map(|n| format!("rule: {n:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let told = advice(&Summary { outcomes: vec![with("one", &many)], ..Summary::default() });
        assert_eq!(told[11..], ["rule: 11 (1 scenario)", "and 8 more in the report"]);
    }
}
