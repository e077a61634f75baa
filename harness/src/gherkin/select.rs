//! Which scenarios run where: feature files are read, outlines expanded, every step checked against the vocabulary
//! before anything is started, and each scenario given to the deployments that its tags allow.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use cucumber::{
    feature::Ext as _,
    gherkin::{Feature, GherkinEnv, Scenario, Step, StepType, tagexpr::TagOperation},
    tag::Ext as _,
};

use super::{
    notation,
    registry::{self, StepDefinition},
};
use crate::{
    config,
    expectation::{Shape, TextMatcher, ValueMatcher},
    invariant,
};

/// What a tag begins with that opts out of an invariant.
pub(super) const EXCEPT: &str = "except:";

/// Why the selected features cannot run. Always the user's to mend: nothing was started.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum SelectError {
    /// A path that is neither a folder nor a feature file.
    #[error("there are no feature files at {}", path.display())]
    #[diagnostic(help(
        "name a .feature file, one with the line of a scenario (a.feature:12), or a folder that holds some"
    ))]
    NoFeatures {
        /// As given.
        path: PathBuf,
    },
    /// A feature file that is not Gherkin, or an outline that cannot be expanded.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// Steps that nothing defines, scenarios that prove nothing.
    #[error("{}", problems.join("\n"))]
    #[diagnostic(help("`tracegate steps` prints every step with an example"))]
    Undefined {
        /// One line each, with file and line.
        problems: Vec<String>,
    },
    /// `--tags` is not a tag expression.
    #[error("{expression:?} is not a tag expression: {message}")]
    #[diagnostic(help("write it like \"@gateway and not @slow\""))]
    Tags {
        /// As given.
        expression: String,
        /// What is wrong.
        message: String,
    },
}

/// The features that were selected, checked and expanded.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Features that keep at least one scenario.
    pub features: Vec<Feature>,
}

/// One scenario with the tags of its feature and rule.
#[derive(Debug, Clone, Copy)]
pub struct Selected<'a> {
    /// Its feature.
    pub feature: &'a Feature,
    /// The rule it stands under, by name.
    pub rule: Option<&'a str>,
    /// The scenario.
    pub scenario: &'a Scenario,
}

/// Reads features from files (`a.feature`, `a.feature:12`) and folders and keeps the scenarios that `tags` allow.
///
/// # Errors
/// Everything that is wrong with the text of a feature, all steps at once.
pub fn select(paths: &[PathBuf], tags: Option<&str>) -> Result<Selection, SelectError> {
    let tags = tags.map(parse_tags).transpose()?;
    let (mut features, mut problems) = (Vec::new(), Vec::new());
    for named in paths {
        let (path, line) = at_line(named);
        let mut files = BTreeSet::new();
        collect(path, &mut files);
        if files.is_empty() {
            return Err(SelectError::NoFeatures { path: named.clone() });
        }
        for file in files {
            let (mut feature, wrong) = read(&file)?;
            problems.extend(wrong);
            if let Some(line) = line {
                keep_at(&mut feature, line);
            }
            let malformed = |error: cucumber::feature::ExpandExamplesError| SelectError::Malformed {
                path: file.clone(),
                message: error.to_string(),
            };
            let mut feature = feature.expand_examples().map_err(malformed)?;
            if let Some(line) = line {
                keep_example_at(&mut feature, line);
            }
            features.push(feature);
        }
    }
    once(&mut features);
    problems.extend(features.iter().flat_map(undefined_in));
    if !problems.is_empty() {
        return Err(SelectError::Undefined { problems });
    }
    if let Some(tags) = tags {
        for feature in &mut features {
            keep(feature, |all| tags.eval(all));
        }
    }
    features.retain(|feature| feature.count_scenarios() > 0);
    Ok(Selection { features })
}

impl Selection {
    /// Every scenario in order.
    pub fn scenarios(&self) -> impl Iterator<Item = Selected<'_>> {
        self.features.iter().flat_map(|feature| {
            let free = feature.scenarios.iter().map(move |scenario| Selected { feature, rule: None, scenario });
            let ruled = feature.rules.iter().flat_map(move |rule| {
                rule.scenarios.iter().map(move |scenario| Selected { feature, rule: Some(&rule.name), scenario })
            });
            free.chain(ruled)
        })
    }

    /// The features with the scenarios that may run on `deployment`. A tag that is a label of any deployment in
    /// `known` restricts a scenario to deployments with that label, `@not-LABEL` to those without.
    pub fn for_deployment(&self, deployment: &config::Deployment, known: &BTreeSet<String>) -> Vec<Feature> {
        let labels = deployment.all_labels();
        let mut features = self.features.clone();
        for feature in &mut features {
            keep(feature, |tags| {
                tags.iter().all(|tag| match tag.strip_prefix("not-") {
                    Some(label) if known.contains(label) => !labels.contains(label),
                    _ => !known.contains(tag) || labels.contains(tag),
                })
            });
        }
        features.retain(|feature| feature.count_scenarios() > 0);
        features
    }
}

/// Words that are restrictions even where no deployment of the configuration has them.
pub fn known_labels<'a>(deployments: impl IntoIterator<Item = &'a config::Deployment>) -> BTreeSet<String> {
    let fixed = ["process", "container", "lambda", "http", "gateway", "workers"];
    let kinds = ["lambda-process", "lambda-container"];
    let gateways = ["rest-api", "http-api", "alb", "alb-multi-value", "function-url"];
    let own = deployments.into_iter().flat_map(config::Deployment::all_labels);
    fixed.into_iter().chain(kinds).chain(gateways).map(str::to_owned).chain(own).collect()
}

/// Leaves each scenario in only once, where a file and its folder were named: its evidence has one place.
fn once(features: &mut [Feature]) {
    let mut seen = BTreeSet::new();
    for feature in features.iter_mut() {
        let path = feature.path.as_ref().map(|path| path.canonicalize().unwrap_or_else(|_| path.clone()));
        let mut first =
            |scenario: &Scenario| seen.insert((path.clone(), scenario.position.line, scenario.name.clone()));
        feature.scenarios.retain(&mut first);
        for rule in &mut feature.rules {
            rule.scenarios.retain(&mut first);
        }
    }
}

fn parse_tags(expression: &str) -> Result<TagOperation, SelectError> {
    expression
        .parse()
        .map_err(|error| SelectError::Tags { expression: expression.to_owned(), message: format!("{error}") })
}

/// `a.feature:12`, as verdicts name a scenario, apart.
fn at_line(path: &Path) -> (&Path, Option<usize>) {
    let split = || {
        let (file, line) = path.to_str()?.rsplit_once(':')?;
        Some((Path::new(file), Some(line.parse().ok()?)))
    };
    if path.exists() { (path, None) } else { split().unwrap_or((path, None)) }
}

/// Keeps the scenario or outline in which a line is; all, if it is before the first.
fn keep_at(feature: &mut Feature, line: usize) {
    let all = notation::scenarios(feature);
    if let Some(begins) = all.map(|scenario| scenario.position.line).filter(|&begins| begins <= line).max() {
        keep_those_at(feature, begins);
    }
}

/// Keeps the row of an outline's examples that a line is; all of them, if it is none.
fn keep_example_at(feature: &mut Feature, line: usize) {
    if notation::scenarios(feature).any(|scenario| scenario.position.line == line) {
        keep_those_at(feature, line);
    }
}

fn keep_those_at(feature: &mut Feature, begins: usize) {
    feature.scenarios.retain(|scenario| scenario.position.line == begins);
    for rule in &mut feature.rules {
        rule.scenarios.retain(|scenario| scenario.position.line == begins);
    }
    feature.rules.retain(|rule| !rule.scenarios.is_empty());
}

fn collect(path: &Path, files: &mut BTreeSet<PathBuf>) {
    if path.is_file() && path.extension().is_some_and(|extension| extension == "feature") {
        files.insert(path.to_owned());
    } else if let Ok(entries) = std::fs::read_dir(path) {
        entries.flatten().for_each(|entry| collect(&entry.path(), files));
    }
}

/// A feature, its outlines not yet expanded, and what is wrong with its text.
fn read(path: &Path) -> Result<(Feature, Vec<String>), SelectError> {
    let file = path.display().to_string();
    // What cannot be read is the parser's to say.
    let mut problems =
        std::fs::read_to_string(path).map_or_else(|_| Vec::new(), |text| notation::in_tables(&file, &text));
    let feature = match Feature::parse_path(path, GherkinEnv::default()) {
        Ok(feature) => feature,
        Err(_) if !problems.is_empty() => return Err(SelectError::Undefined { problems }),
        Err(error) => {
            let detail = std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            return Err(SelectError::Malformed { path: path.to_owned(), message: format!("{error}{detail}") });
        }
    };
    problems.extend(notation::not_played(&file, &feature));
    Ok((feature, problems))
}

/// Keeps the scenarios whose tags, with those of their feature and rule, `allow` them.
fn keep(feature: &mut Feature, allow: impl Fn(&[String]) -> bool) {
    let allowed = |outer: &[String], scenario: &Scenario| allow(&[outer, &scenario.tags].concat());
    let tags = feature.tags.clone();
    feature.scenarios.retain(|scenario| allowed(&tags, scenario));
    for rule in &mut feature.rules {
        let tags = [tags.clone(), rule.tags.clone()].concat();
        rule.scenarios.retain(|scenario| allowed(&tags, scenario));
    }
    feature.rules.retain(|rule| !rule.scenarios.is_empty());
}

fn undefined_in(feature: &Feature) -> Vec<String> {
    let file = feature.path.as_deref().unwrap_or(Path::new("")).display().to_string();
    let scenarios: Vec<&Scenario> = notation::scenarios(feature).collect();
    let steps = notation::backgrounds(feature)
        .flat_map(|background| &background.steps)
        .chain(scenarios.iter().flat_map(|scenario| &scenario.steps));
    let mut problems: Vec<String> = steps.filter_map(|step| undefined(&file, step)).collect();
    let of_feature = feature.background.iter().flat_map(|background| &background.steps);
    let free = feature.scenarios.iter().map(|scenario| (scenario, None));
    let ruled = feature
        .rules
        .iter()
        .flat_map(|rule| rule.scenarios.iter().map(move |scenario| (scenario, rule.background.as_ref())));
    for (scenario, background) in free.chain(ruled) {
        let steps = of_feature.clone().chain(background.into_iter().flat_map(|background| &background.steps));
        let kinds: Vec<StepType> = steps.chain(&scenario.steps).map(|step| step.ty).collect();
        let missing = match (kinds.contains(&StepType::When), kinds.contains(&StepType::Then)) {
            (true, true) => continue,
            (true, false) => "no Then",
            (false, true) => "no When",
            (false, false) => "no When and no Then",
        };
        let line = scenario.position.line;
        problems.push(format!("{file}:{line}  the scenario {:?} has {missing}, so it proves nothing", scenario.name));
    }
    problems.extend(exceptions(&file, &feature.tags, feature.description.as_deref(), feature.position.line));
    for rule in &feature.rules {
        problems.extend(exceptions(&file, &rule.tags, rule.description.as_deref(), rule.position.line));
    }
    for scenario in &scenarios {
        problems.extend(exceptions(&file, &scenario.tags, scenario.description.as_deref(), scenario.position.line));
    }
    problems.sort();
    problems.dedup();
    problems
}

/// What is wrong with the tags that opt out of invariants: a rule that does not exist, a reason that is missing.
fn exceptions(file: &str, tags: &[String], description: Option<&str>, line: usize) -> Vec<String> {
    let reasoned = description.is_some_and(|text| !text.trim().is_empty());
    let excepted = tags.iter().filter_map(|tag| tag.strip_prefix(EXCEPT));
    excepted
        .filter_map(|name| {
            if !invariant::rules().any(|rule| rule.name == name) {
                let names: Vec<&str> = invariant::rules().map(|rule| rule.name).collect();
                return Some(format!(
                    "{file}:{line}  @{EXCEPT}{name} names no invariant; there are: {}",
                    names.join(", ")
                ));
            }
            (!reasoned).then(|| {
                format!("{file}:{line}  @{EXCEPT}{name} needs a reason: say it below the name, as its description")
            })
        })
        .collect()
}

fn undefined(file: &str, step: &Step) -> Option<String> {
    if let Some((definition, arguments)) = registry::find(step) {
        let wrong = misplaced(definition, step)
            .or_else(|| malformed_pattern(definition, &arguments, step))
            .or_else(|| malformed_doc_string(definition, &arguments));
        return wrong.map(|wrong| format!("{file}:{}  {wrong}: {}{}", step.position.line, step.keyword, step.value));
    }
    let hint = registry::nearest(step)
        .map(|near| format!("; did you mean: {}", near.example.lines().next().unwrap_or_default()))
        .unwrap_or_default();
    Some(format!("{file}:{}  no step is defined for: {}{}{hint}", step.position.line, step.keyword, step.value))
}

/// What stands below a step and is not for it, or is missing there: it would be ignored.
fn misplaced(definition: &StepDefinition, step: &Step) -> Option<String> {
    let (takes_text, takes_table) = (definition.takes_doc_string(), definition.takes_table());
    let longer = |takes: fn(&StepDefinition) -> bool| {
        let mut longer = registry::definitions().filter(|other| takes(other) && other.keyword == definition.keyword);
        let longer = longer.find(|other| {
            other.expression.strip_prefix(definition.expression).is_some_and(|rest| rest.starts_with(" with the "))
        });
        let first = |other: &'static StepDefinition| other.example.lines().next().unwrap_or_default();
        longer.map_or_else(String::new, |other| format!("; one does that is written {:?}", first(other)))
    };
    let table = step.table.as_ref();
    match (step.docstring.is_some(), table) {
        (true, _) if !takes_text => {
            Some(format!("this step takes no doc string{}", longer(StepDefinition::takes_doc_string)))
        }
        (_, Some(_)) if !takes_table => {
            Some(format!("this step takes no table{}", longer(StepDefinition::takes_table)))
        }
        (false, _) if takes_text => Some("this step needs a doc string (\"\"\") below it".into()),
        (_, None) if takes_table => Some("this step needs a table below it".into()),
        (_, Some(table)) if table.rows.len() < 2 => Some("the table has no row below its header".into()),
        (_, Some(table)) => {
            let columns = definition.columns();
            let given: BTreeSet<&str> = table.rows[0].iter().map(String::as_str).collect();
            let fits = given == columns.iter().copied().collect() && table.rows[0].len() == columns.len();
            (!fits).then(|| format!("this step needs a table with the columns | {} |", columns.join(" | ")))
        }
        _ => None,
    }
}

/// A regular expression that is none, in a text or a cell.
fn malformed_pattern(definition: &StepDefinition, arguments: &registry::Arguments, step: &Step) -> Option<String> {
    // A body is compared as it is.
    let texts = (!definition.expression.contains("body")).then(|| arguments.texts());
    let mut texts = texts.into_iter().flatten().filter_map(|text| TextMatcher::parse(text).err());
    let cells = step.table.iter().flat_map(|table| table.rows.iter().skip(1).flatten());
    let mut cells = cells.filter_map(|cell| ValueMatcher::parse(cell).err());
    texts.next().or_else(|| cells.next()).map(|error| error.to_string())
}

/// A doc string that is not what its step reads it as.
fn malformed_doc_string(definition: &StepDefinition, arguments: &registry::Arguments) -> Option<String> {
    let text = arguments.doc_string().ok()?;
    if definition.expression.ends_with("the shape") {
        Shape::parse(text).err().map(|error| error.to_string())
    } else if definition.expression.ends_with("the JSON") {
        let error = serde_json::from_str::<serde_json::Value>(text).err()?;
        Some(format!("the doc string is not JSON: {error}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(text: &str, tags: Option<&str>) -> Result<Selection, SelectError> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.feature"), text).unwrap();
        select(&[folder.path().to_owned()], tags)
    }

    const TWO: &str = "Feature: f\n  @gateway\n  Scenario: one\n    When a client sends GET /a\n    \
        Then the response status is 200\n  @not-lambda\n  Scenario: two\n    When a client sends GET /b\n    \
        Then the response status is 200\n";

    fn deployment(text: &str) -> config::Deployment {
        let config = config::Config::parse(text, Path::new("/"), Path::new("t.toml")).unwrap();
        config.deployments.into_values().next().unwrap()
    }

    #[test]
    fn a_tag_that_is_a_label_restricts_a_scenario_to_deployments_that_have_it() {
        let selection = selection(TWO, None).unwrap();
        let function = deployment("[deployments.f]\nkind = 'lambda-process'\nbinary = 'f'");
        let known = known_labels([&function]);
        let features = selection.for_deployment(&function, &known);
        let names: Vec<_> = features[0].scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        assert_eq!(names, ["one"]);
        let web = deployment("[deployments.w]\nkind = 'process'\nbinary = 'w'\nready = { http = '/' }");
        let features = selection.for_deployment(&web, &known);
        let names: Vec<_> = features[0].scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        assert_eq!(names, ["two"]);
    }

    #[test]
    fn a_tag_expression_keeps_what_it_allows() {
        assert_eq!(selection(TWO, Some("@gateway")).unwrap().scenarios().count(), 1);
        assert_eq!(selection(TWO, Some("not @gateway and not @not-lambda")).unwrap().scenarios().count(), 0);
        assert!(matches!(selection(TWO, Some("@a and")), Err(SelectError::Tags { .. })));
    }

    #[test]
    fn a_file_with_a_line_is_the_scenario_in_which_that_line_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.feature");
        std::fs::write(&file, TWO).unwrap();
        let names = |line: usize| {
            let selection = select(&[format!("{}:{line}", file.display()).into()], None).unwrap();
            selection.scenarios().map(|selected| selected.scenario.name.clone()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!([names(1), names(3), names(5), names(99)], ["one two", "one", "one", "two"]);
        let outline = "  Scenario Outline: three <p>\n    When a client sends GET <p>\n    Then the response status is 200\n    \
            Examples:\n      | p  |\n      | /a |\n      | /b |\n";
        std::fs::write(&file, format!("{TWO}{outline}")).unwrap();
        assert_eq!([names(10), names(11)], ["three /a three /b", "three /a three /b"], "its name, its step");
        assert_eq!([names(15), names(16)], ["three /a", "three /b"], "its rows");
        let missing = format!("{}:1", folder.path().join("b.feature").display());
        assert!(select(&[missing.into()], None).unwrap_err().to_string().contains("b.feature:1"));
    }

    #[test]
    fn unknown_steps_are_all_named_with_file_and_line_before_anything_runs() {
        let text =
            "Feature: f\n  Scenario: s\n    When a client sends GET /a\n    Then nonsense\n    And more nonsense\n";
        let error = selection(text, None).unwrap_err().to_string();
        assert!(error.contains("a.feature:4") && error.contains("a.feature:5"), "{error}");
    }

    #[test]
    fn what_stands_below_a_step_that_does_not_take_it_is_refused_and_so_is_what_is_missing() {
        let wrong = |step: &str| {
            let text = format!("Feature: f\n  Scenario: s\n    When a client sends GET /a\n    {step}\n");
            selection(&text, None).map(|_| ()).map_err(|error| error.to_string())
        };
        let table = "\n      | attribute  | value |\n      | http.route | /a    |";
        let error = wrong(&format!("Then the trace has a SERVER span \"GET /a\"{table}")).unwrap_err();
        assert!(error.contains("a.feature:4  this step takes no table; one does that is written"), "{error}");
        let error = wrong("And a client sends POST /a\n      \"\"\"\n      x\n      \"\"\"").unwrap_err();
        assert!(error.contains("this step takes no doc string") && error.contains("with the body"), "{error}");
        assert!(wrong("Then the trace has the shape").unwrap_err().contains("needs a doc string"));
        assert!(wrong("Then the resource has the attributes").unwrap_err().contains("needs a table"));
        let error = wrong("Then the resource has the attributes\n      | attribute | value |").unwrap_err();
        assert!(error.contains("no row below its header"), "{error}");
        assert_eq!(wrong(&format!("Then the resource has the attributes{table}")), Ok(()));
    }

    #[test]
    fn a_regular_expression_that_is_none_is_refused_before_anything_runs() {
        let wrong = |step: &str| {
            let text = format!("Feature: f\n  Scenario: s\n    When a client sends GET /a\n    {step}\n");
            selection(&text, None).map(|_| ()).map_err(|error| error.to_string())
        };
        assert!(wrong("Then the trace has no span \"/(/\"").unwrap_err().contains("a.feature:4"));
        let cell = "\n      | attribute  | value |\n      | http.route | /(/   |";
        assert!(wrong(&format!("Then the resource has the attributes{cell}")).is_err());
        assert_eq!(wrong("Then the response body is \"/(/\""), Ok(()));
    }

    #[test]
    fn a_shape_json_or_columns_that_are_none_are_refused_before_anything_runs() {
        let wrong = |step: &str| {
            let text = format!("Feature: f\n  Scenario: s\n    When a client sends GET /a\n    {step}\n");
            selection(&text, None).map(|_| ()).map_err(|error| error.to_string())
        };
        let doc = |step: &str, text: &str| format!("Then {step}\n      \"\"\"\n      {text}\n      \"\"\"");
        assert!(wrong(&doc("the trace has the shape", "SERVER GET /a  a=/(/")).unwrap_err().contains("a.feature:4"));
        assert_eq!(wrong(&doc("the trace has the shape", "SERVER GET /a  a=1")), Ok(()));
        assert!(wrong(&doc("the response body is the JSON", "{a}")).unwrap_err().contains("is not JSON"));
        assert_eq!(wrong(&doc("the response body is the JSON", "{}")), Ok(()));
        let table = |head: &str| format!("Then the resource has the attributes\n      {head}\n      | a | b |");
        let error = wrong(&table("| name | value |")).unwrap_err();
        assert!(error.contains("with the columns | attribute | value |"), "{error}");
        assert_eq!(wrong(&table("| value | attribute |")), Ok(()));
    }

    #[test]
    fn a_scenario_that_is_named_twice_is_selected_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.feature");
        std::fs::write(&file, TWO).unwrap();
        let of = |paths: &[PathBuf]| select(paths, None).unwrap().scenarios().count();
        assert_eq!(of(&[folder.path().to_owned(), file.clone()]), 2);
        assert_eq!(of(&[format!("{}:3", file.display()).into(), format!("{}:7", file.display()).into()]), 2);
        assert_eq!(of(&[format!("{}:3", file.display()).into(), folder.path().join("./a.feature:3")]), 1);
    }

    #[test]
    fn a_when_in_the_background_counts() {
        let background = |step: &str| {
            let text =
                format!("Feature: f\n  Background:\n    {step}\n  Scenario: s\n    Then the response status is 200\n");
            selection(&text, None).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(background("When a client sends GET /a"), Ok(()));
        let error = background("Given the client sends no trace context").unwrap_err();
        assert!(error.contains("has no When, so it proves nothing"), "{error}");
    }

    #[test]
    fn a_scenario_without_a_then_is_refused_because_it_proves_nothing() {
        let error = selection("Feature: f\n  Scenario: s\n    When a client sends GET /a\n", None).unwrap_err();
        assert!(error.to_string().contains("proves nothing"), "{error}");
    }

    #[test]
    fn opting_out_of_an_invariant_needs_its_name_and_a_reason() {
        let with = |tag: &str, reason: &str| {
            let steps = "    When a client sends GET /a\n    Then the response status is 200\n";
            selection(&format!("Feature: f\n  @except:{tag}\n  Scenario: s\n    {reason}\n{steps}"), None)
        };
        assert!(with("no-orphan", "The parent is exported by the proxy.").is_ok());
        assert!(with("no-orphan", "").unwrap_err().to_string().contains("needs a reason"));
        assert!(with("no-orfan", "Because.").unwrap_err().to_string().contains("names no invariant"));
    }

    #[test]
    fn an_empty_folder_and_text_that_is_not_gherkin_are_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(select(&[folder.path().to_owned()], None), Err(SelectError::NoFeatures { .. })));
        assert!(matches!(selection("Scenario without feature", None), Err(SelectError::Malformed { .. })));
    }
}
