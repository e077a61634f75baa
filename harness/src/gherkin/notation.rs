//! What of a feature file the parser lets pass without a word, and would be neither played nor checked.
//!
//! A table's row that is longer than its header is cut off, an outline without examples is no scenario, and a line with a
//! keyword that is not quite one is a description.

use cucumber::gherkin::{Background, Feature, Scenario};

use super::registry;

/// Keywords of a step, in lower case.
const STEPS: [&str; 6] = ["given ", "when ", "then ", "and ", "but ", "* "];

/// Keywords that begin something, in lower case.
const BLOCKS: [&str; 9] = [
    "feature:",
    "background:",
    "rule:",
    "scenario:",
    "scenario outline:",
    "scenario template:",
    "example:",
    "examples:",
    "scenarios:",
];

/// Every scenario of a feature, those of its rules included.
pub(super) fn scenarios(feature: &Feature) -> impl Iterator<Item = &Scenario> {
    feature.scenarios.iter().chain(feature.rules.iter().flat_map(|rule| &rule.scenarios))
}

/// The backgrounds of a feature and of its rules.
pub(super) fn backgrounds(feature: &Feature) -> impl Iterator<Item = &Background> {
    feature.background.iter().chain(feature.rules.iter().filter_map(|rule| rule.background.as_ref()))
}

/// What is wrong with the tables of a text, a line each.
pub(super) fn in_tables(file: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut inside: Option<&str> = None;
    let mut columns: Option<usize> = None;
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if let Some(quotes) = inside {
            inside = inside.filter(|_| !line.contains(quotes));
        } else if let Some(quotes) = ["\"\"\"", "```"].into_iter().find(|quotes| line.starts_with(quotes)) {
            inside = (line.matches(quotes).count() < 2).then_some(quotes);
            columns = None;
        } else if line.starts_with('|') {
            match cells(line) {
                Err(escape) => problems.push(format!(
                    "{file}:{number}  `{escape}` is no escape in a table: write `\\\\` for a backslash, as in /^2\\\\d\\\\d$/"
                )),
                Ok(count) => {
                    let columns = *columns.get_or_insert(count);
                    if count > columns {
                        problems.push(format!(
                            "{file}:{number}  a row of {count} cells in a table of {columns}: write `\\|` for a bar in a cell"
                        ));
                    }
                }
            }
        } else if !line.is_empty() && !line.starts_with('#') {
            columns = None;
        }
    }
    problems
}

/// How many cells a row has, or the escape in it that is none.
fn cells(row: &str) -> Result<usize, String> {
    let (mut bars, mut characters) = (0_usize, row.chars());
    while let Some(character) = characters.next() {
        match character {
            '|' => bars += 1,
            '\\' => match characters.next() {
                Some('n' | '|' | '\\') => {}
                other => return Err(other.into_iter().fold("\\".to_owned(), |text, next| text + &next.to_string())),
            },
            _ => {}
        }
    }
    Ok(bars.saturating_sub(1))
}

/// What a feature says and will not play, its outlines not yet expanded.
pub(super) fn not_played(file: &str, feature: &Feature) -> Vec<String> {
    let mut problems: Vec<String> =
        scenarios(feature).filter_map(|scenario| without_examples(file, scenario)).collect();
    if scenarios(feature).next().is_none() {
        problems.push(format!("{file}:{}  the feature {:?} has no scenario", feature.position.line, feature.name));
    }
    let of_rules = feature.rules.iter().map(|rule| (rule.position.line, &rule.description));
    let of_scenarios = scenarios(feature).map(|scenario| (scenario.position.line, &scenario.description));
    let of_backgrounds = backgrounds(feature).map(|background| (background.position.line, &background.description));
    let descriptions = std::iter::once((feature.position.line, &feature.description));
    let descriptions = descriptions.chain(of_rules).chain(of_scenarios).chain(of_backgrounds);
    for (line, description) in descriptions {
        let words = description.iter().flat_map(|text| text.lines()).map(str::trim).filter(|line| is_meant(line));
        problems.extend(words.map(|words| {
            format!(
                "{file}:{line}  {words:?} stands in the description, so it is not played: a keyword has a capital, and steps stand \
                 below the name of a scenario"
            )
        }));
    }
    problems
}

fn without_examples(file: &str, scenario: &Scenario) -> Option<String> {
    let outline = ["outline", "template"].iter().any(|word| scenario.keyword.to_lowercase().contains(word));
    let empty = |table: &cucumber::gherkin::Examples| table.table.as_ref().is_none_or(|table| table.rows.len() < 2);
    let missing = if scenario.examples.is_empty() { outline } else { scenario.examples.iter().any(empty) };
    missing.then(|| {
        format!(
            "{file}:{}  the outline {:?} has Examples without a row, so it is played with none: give each table a header and a row",
            scenario.position.line, scenario.name
        )
    })
}

/// Whether a line of a description was meant for a step or the beginning of something.
fn is_meant(line: &str) -> bool {
    let lower = line.to_lowercase();
    let step = || {
        let rest =
            STEPS.iter().find(|keyword| lower.starts_with(*keyword)).and_then(|keyword| line.get(keyword.len()..));
        rest.is_some_and(|rest| registry::compiled().iter().any(|compiled| compiled.regex.is_match(rest.trim())))
    };
    BLOCKS.iter().any(|keyword| lower.starts_with(keyword)) || step()
}

#[cfg(test)]
mod tests {
    use cucumber::gherkin::GherkinEnv;

    use super::*;

    #[test]
    fn a_backslash_that_is_no_escape_and_a_bar_in_a_cell_are_named_with_their_line() {
        let wrong = in_tables("a", "| a | b |\n| x | /^2\\d$/ |\n\n| y | /^a|^b/ |\n");
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[0].starts_with("a:2  `\\d` is no escape"), "{wrong:?}");
        assert!(wrong[1].starts_with("a:4  a row of 3 cells in a table of 2"), "{wrong:?}");
    }

    #[test]
    fn escapes_other_tables_and_doc_strings_are_left_alone() {
        let text =
            "| a |\n| \\\\d \\| \\n |\nThen x\n| a | b |\n| 1 | 2 |\nAnd y\n\"\"\"\n| a | b | \\d\n| c |\n\"\"\"\n";
        assert_eq!(in_tables("a", text), Vec::<String>::new());
        assert_eq!(in_tables("a", "```\n| a |\n| b | \\d |\n```\n"), Vec::<String>::new());
    }

    fn not_played(text: &str) -> Vec<String> {
        super::not_played("a", &Feature::parse(text, GherkinEnv::default()).unwrap())
    }

    #[test]
    fn an_outline_without_a_row_and_a_feature_without_a_scenario_are_named() {
        let outline = |examples: &str| {
            let steps = "    When a client sends GET <p>\n    Then the response status is 200\n";
            not_played(&format!("Feature: f\n  Scenario Outline: s\n{steps}{examples}"))
        };
        assert!(
            outline("    Examples:\n      | p |\n")[0].starts_with("a:2  the outline \"s\" has Examples without a row")
        );
        assert_eq!(outline("").len(), 1);
        assert_eq!(outline("    Examples:\n      | p |\n      | /a |\n"), Vec::<String>::new());
        assert!(not_played("Feature: f\n  nothing yet\n")[0].contains("the feature \"f\" has no scenario"));
    }

    #[test]
    fn a_step_or_a_scenario_with_a_small_letter_is_not_taken_for_a_description() {
        let steps = "    When a client sends GET /a\n    Then the response status is 200\n";
        let with = |line: &str| not_played(&format!("Feature: f\n  Scenario: s\n    {line}\n{steps}"));
        assert!(with("given the client sends no trace context")[0].contains("is not played"));
        assert_eq!(with("given what the proxy does, this is right."), Vec::<String>::new());
        let scenario = format!("Feature: f\n  scenario: lost\n  Scenario: s\n{steps}");
        assert!(not_played(&scenario)[0].contains("\"scenario: lost\""));
    }
}
