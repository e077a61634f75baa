//! Every step that a scenario can say: its expression, what it means, an example, and what it needs to be judged.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    sync::LazyLock,
};

use cucumber::gherkin::{Step, StepType};
use cucumber_expressions::Expression;
use futures::future::LocalBoxFuture;
use regex::Regex;

use super::{steps, world::World};
use crate::report::Problem;

/// Which keyword introduces a step; `And` and `But` go on with the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyword {
    /// What is so beforehand.
    Given,
    /// What happens.
    When,
    /// What must be so then.
    Then,
}

impl fmt::Display for Keyword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Given => "Given",
            Self::When => "When",
            Self::Then => "Then",
        })
    }
}

impl From<StepType> for Keyword {
    fn from(ty: StepType) -> Self {
        match ty {
            StepType::Given => Self::Given,
            StepType::When => Self::When,
            StepType::Then => Self::Then,
        }
    }
}

/// How much of a deployment a step needs for itself, so that its verdict is about its own scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Others may use the deployment at the same time: everything is told apart by trace id.
    Shared,
    /// Nobody else may use it meanwhile: lines without ids are attributed by time.
    Alone,
    /// A deployment started for this scenario: literal trace ids, metrics, cold starts, shutdown.
    Own,
}

/// What a step is given: its arguments in order, and its doc string or table.
#[derive(Debug, Clone)]
pub struct Arguments {
    values: Vec<String>,
    step: Step,
}

impl Arguments {
    /// The argument at `index`; texts without their quotes.
    pub fn text(&self, index: usize) -> &str {
        self.values.get(index).map_or("", String::as_str)
    }

    /// Every argument, in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(String::as_str)
    }

    /// The argument at `index` as a number.
    pub fn number<T: std::str::FromStr>(&self, index: usize) -> Result<T, Problem> {
        self.text(index)
            .parse()
            .map_err(|_| Problem::errored(format!("{:?} is not a number that fits", self.text(index))))
    }

    /// The doc string below the step, without the line of its quotes, on which a media type may stand (`"""json`).
    pub fn doc_string(&self) -> Result<&str, Problem> {
        let text = self.step.docstring.as_deref();
        text.map(|text| text.split_once('\n').map_or(text, |(_, text)| text))
            .ok_or_else(|| Problem::errored("this step needs a doc string (\"\"\") below it"))
    }

    /// The rows of the table below the step, without the header row, each cell by the name of its column.
    /// Refuses columns other than `columns`.
    pub fn table(&self, columns: &[&str]) -> Result<Vec<Vec<String>>, Problem> {
        let needs =
            || Problem::errored(format!("this step needs a table with the columns | {} |", columns.join(" | ")));
        let table = self.step.table.as_ref().ok_or_else(needs)?;
        let (header, rows) = table.rows.split_first().ok_or_else(needs)?;
        let order: Option<Vec<usize>> =
            columns.iter().map(|column| header.iter().position(|found| found == column)).collect();
        let order = order.filter(|_| header.len() == columns.len()).ok_or_else(needs)?;
        Ok(rows.iter().map(|row| order.iter().map(|&at| row[at].clone()).collect()).collect())
    }
}

/// The outcome of one step.
pub type StepResult = Result<(), Problem>;

/// One step of the vocabulary.
pub struct StepDefinition {
    /// `Given`, `When` or `Then`.
    pub keyword: Keyword,
    /// Cucumber expression.
    pub expression: &'static str,
    /// What it means, in a sentence or two.
    pub about: &'static str,
    /// An example as it stands in a feature file, table or doc string included.
    pub example: &'static str,
    /// What it needs.
    pub need: Need,
    pub(super) run: for<'a> fn(&'a mut World, &'a Arguments) -> LocalBoxFuture<'a, StepResult>,
}

impl StepDefinition {
    /// Whether a doc string stands below it, as in its example.
    pub fn takes_doc_string(&self) -> bool {
        self.example.contains("\"\"\"")
    }

    /// Whether a table stands below it, as in its example.
    pub fn takes_table(&self) -> bool {
        !self.columns().is_empty()
    }

    /// The columns of that table.
    pub fn columns(&self) -> Vec<&'static str> {
        let header = self.example.lines().map(str::trim).find(|line| line.starts_with('|'));
        header.map_or_else(Vec::new, |header| header.trim_matches('|').split('|').map(str::trim).collect())
    }
}

impl fmt::Debug for StepDefinition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.keyword, self.expression)
    }
}

/// A definition with its compiled expression.
#[derive(Debug)]
pub(super) struct Compiled {
    pub definition: &'static StepDefinition,
    pub regex: Regex,
}

/// Export requests of a signal or of all, counted or for a time.
const EXPORTS: &str = concat!(
    r"the next \d+ (?:(?:traces|logs|metrics|profiles) )?requests?",
    r"|(?:(?:traces|logs|metrics|profiles) )?requests for \d+ m?s",
);

/// Parameter types besides `{int}`. Each is one group, so that arguments are in the order of the expression.
fn parameters() -> HashMap<&'static str, &'static str> {
    HashMap::from([
        ("text", r#""(?:[^"\\]|\\.)*""#),
        ("method", "[A-Z]+"),
        ("target", r"\/\S*"),
        ("kind", "SERVER|CLIENT|INTERNAL|PRODUCER|CONSUMER"),
        ("status", "Unset|Ok|Error"),
        ("signal", "SIGTERM|SIGINT"),
        ("value", r".+"),
        ("lapse", r"\d+ m?s"),
        ("exports", EXPORTS),
    ])
}

static COMPILED: LazyLock<Vec<Compiled>> = LazyLock::new(|| {
    let parameters = parameters();
    definitions()
        .map(|definition| Compiled {
            definition,
            regex: Expression::regex_with_parameters(definition.expression, &parameters)
                .unwrap_or_else(|error| panic!("the expression {:?} is malformed: {error}", definition.expression)),
        })
        .collect()
});

/// Every step there is, in the order in which the reference shows them.
pub fn definitions() -> impl Iterator<Item = &'static StepDefinition> {
    steps::ALL.iter().flat_map(|(_, group)| group.iter())
}

pub(super) fn compiled() -> &'static [Compiled] {
    &COMPILED
}

/// The definition that a step of a feature file means, with its arguments.
pub(super) fn find(step: &Step) -> Option<(&'static StepDefinition, Arguments)> {
    let keyword = Keyword::from(step.ty);
    compiled().iter().filter(|compiled| compiled.definition.keyword == keyword).find_map(|compiled| {
        let captures = compiled.regex.captures(&step.value)?;
        let groups = captures.iter().skip(1).flatten().map(|group| group.as_str());
        // The rest of a line is what stands there, quotes and all.
        let given = parameters_of(compiled.definition.expression);
        let plain = |(group, name): (&str, &str)| if name == "value" { group.to_owned() } else { unquote(group) };
        let values = groups.zip(given).map(plain).collect();
        Some((compiled.definition, Arguments { values, step: step.clone() }))
    })
}

/// The names of an expression's parameters, in their order.
fn parameters_of(expression: &str) -> impl Iterator<Item = &str> {
    expression.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0))
}

/// The expression closest to a step that no definition fits.
pub(super) fn nearest(step: &Step) -> Option<&'static StepDefinition> {
    definitions()
        .map(|definition| {
            let sample = definition.example.lines().next().unwrap_or_default();
            let sample = sample.split_once(' ').map_or(sample, |(_, rest)| rest);
            (strsim::normalized_damerau_levenshtein(sample, &step.value), definition)
        })
        .filter(|(similarity, _)| *similarity > 0.4)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, definition)| definition)
}

fn unquote(text: &str) -> String {
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => text.to_owned(),
    }
}

/// The reference of all steps, in Markdown: what `tracegate steps` prints and `docs/steps.md` holds.
pub fn reference() -> String {
    let mut text = String::from("# Steps\n\n");
    text.push_str(steps::INTRODUCTION);
    for (title, group) in steps::ALL {
        let _ = write!(text, "\n## {title}\n");
        for step in *group {
            let _ = write!(text, "\n### {} {}\n\n{}\n", step.keyword, step.expression, step.about);
            match step.need {
                Need::Shared => {}
                Need::Alone => text.push_str("\nThe scenario has the deployment to itself while it runs.\n"),
                Need::Own => text.push_str("\nThe scenario gets a deployment of its own.\n"),
            }
            let _ = write!(text, "\n```gherkin\n{}\n```\n", step.example);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use cucumber::gherkin::{Feature, GherkinEnv};

    use super::*;

    fn steps_of(example: &str) -> Vec<Step> {
        let text = format!("Feature: f\n  Scenario: s\n    {}\n", example.replace('\n', "\n    "));
        let feature = Feature::parse(text, GherkinEnv::default()).unwrap_or_else(|error| panic!("{example}: {error}"));
        feature.scenarios[0].steps.clone()
    }

    #[test]
    fn every_example_is_a_step_of_its_own_definition_and_of_no_other() {
        for definition in definitions() {
            for step in steps_of(definition.example) {
                let fitting: Vec<_> = compiled()
                    .iter()
                    .filter(|compiled| compiled.definition.keyword == Keyword::from(step.ty))
                    .filter(|compiled| compiled.regex.is_match(&step.value))
                    .map(|compiled| compiled.definition.expression)
                    .collect();
                assert_eq!(fitting, [definition.expression], "{}", step.value);
            }
        }
    }

    #[test]
    fn an_unknown_step_is_offered_the_nearest_one() {
        let step = &steps_of("Then the response statuss is 200")[0];
        assert!(find(step).is_none());
        assert_eq!(nearest(step).unwrap().expression, "the response status is {int}");
    }

    #[test]
    fn every_group_of_an_expression_is_one_of_its_parameters() {
        for compiled in compiled() {
            let parameters = parameters_of(compiled.definition.expression).count();
            assert_eq!(compiled.regex.captures_len() - 1, parameters, "{}", compiled.definition.expression);
        }
    }

    #[test]
    fn the_rest_of_a_line_keeps_its_quotes_and_a_doc_string_loses_its_media_type() {
        let step = &steps_of("Then the response header \"etag\" is \"5d41\"")[0];
        assert_eq!(find(step).unwrap().1.texts().collect::<Vec<_>>(), ["etag", "\"5d41\""]);
        for quotes in ["\"\"\"", "\"\"\"json"] {
            let step = &steps_of(&format!("Then the response body is the JSON\n{quotes}\n[1]\n\"\"\""))[0];
            assert_eq!(find(step).unwrap().1.doc_string().unwrap().trim(), "[1]");
        }
    }

    #[test]
    fn arguments_lose_their_quotes_and_keep_what_is_escaped() {
        assert_eq!(unquote(r#""a \"b\" c""#), r#"a "b" c"#);
        assert_eq!(unquote("SERVER"), "SERVER");
    }
}
