//! The tables of docs/lambda.md and docs/gateway.md name the test that holds each rule; each of these tests exists, in the
//! file that the table says.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// The page's tables, the folders of `harness` in which its tests are, and what a label stands for that is no file's name.
struct Page {
    file: &'static str,
    folders: &'static [&'static str],
    labels: &'static [(&'static str, &'static str)],
}

const PAGES: [Page; 2] = [
    Page { file: "docs/lambda.md", folders: &["src", "tests"], labels: &[("lib", "src/deployment/lambda/")] },
    Page { file: "docs/gateway.md", folders: &["src/stimulus/gateway", "tests"], labels: &[] },
];

/// What stands for a test that another row names.
const REFERENCES: [&str; 4] = ["the same", "as above", "the golden tests", ".feature`"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The functions of a source that are tests.
fn tests_of(source: &str) -> BTreeSet<String> {
    let mut is_test = false;
    let mut found = BTreeSet::new();
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            is_test |= ["#[test]", "#[tokio::test"].iter().any(|attribute| line.starts_with(attribute));
        } else if let Some((before, after)) = line.split_once("fn ").filter(|_| is_test) {
            if ["", "async "].contains(&before) {
                found.extend(after.split_once('(').map(|(name, _)| name.to_owned()));
            }
            is_test = false;
        }
    }
    found
}

/// Every source below these folders of `harness`, by its path there without its ending, with its tests. Tests that are kept
/// in a file of their own beside the code (`x_tests.rs`, `x/tests.rs`) are those of the code too.
fn sources(folders: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let harness = root().join("harness");
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| harness.join(folder)).collect();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let tests = tests_of(&std::fs::read_to_string(&path).unwrap());
                let name = path.strip_prefix(&harness).unwrap().with_extension("").display().to_string();
                for code in [name.strip_suffix("_tests"), name.strip_suffix("/tests")].into_iter().flatten() {
                    found.entry(code.to_owned()).or_default().extend(tests.iter().cloned());
                }
                found.entry(name).or_default().extend(tests);
            }
        }
    }
    found
}

/// What is wrong in the last column of one row.
fn wrong(cell: &str, page: &Page, sources: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let (mut wrong, mut label, mut named) = (Vec::new(), None, 0);
    // Labels stand between back quotes, names of tests outside of them.
    for (at, part) in cell.split('`').enumerate() {
        if at % 2 == 1 {
            if part.ends_with(".feature") {
                wrong.extend((!root().join(part).exists()).then(|| format!("{part} does not exist")));
            } else {
                label = Some(part);
            }
            continue;
        }
        let words =
            part.split(|letter: char| !(letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'));
        for name in words.filter(|word| word.matches('_').count() >= 2) {
            named += 1;
            let within = |file: &str| match label {
                None => true,
                Some(label) => match page.labels.iter().find(|(known, _)| *known == label) {
                    Some((_, folder)) => file.starts_with(folder),
                    None => file.ends_with(&format!("/{}", label.trim_end_matches(".rs"))),
                },
            };
            if !sources.iter().any(|(file, tests)| within(file) && tests.contains(name)) {
                wrong.push(format!("{name} is no test of {}", label.unwrap_or("harness")));
            }
        }
    }
    if named == 0 && !REFERENCES.iter().any(|reference| cell.contains(reference)) {
        wrong.push(format!("names no test: {cell}"));
    }
    wrong
}

/// The last column of each rule, with its line's number.
fn cells(text: &str) -> Vec<(usize, String)> {
    let mut cells = Vec::new();
    let mut rules = false;
    for (number, line) in text.lines().enumerate() {
        let Some(row) = line.strip_prefix('|') else {
            rules = false;
            continue;
        };
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default().trim().to_owned();
        if row.trim_start().starts_with("rule |") {
            rules = true;
        } else if rules && !last.starts_with("---") {
            cells.push((number + 1, last));
        }
    }
    cells
}

#[test]
fn every_test_that_a_rule_names_exists_where_the_table_says() {
    let mut wrongs = Vec::new();
    for page in &PAGES {
        let sources = sources(page.folders);
        let cells = cells(&std::fs::read_to_string(root().join(page.file)).unwrap());
        assert!(cells.len() > 30, "{}: {} rules are found", page.file, cells.len());
        for (line, cell) in cells {
            wrongs
                .extend(wrong(&cell, page, &sources).into_iter().map(|wrong| format!("{}:{line} {wrong}", page.file)));
        }
    }
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

#[test]
fn a_name_without_its_test_a_test_of_another_file_and_a_rule_without_any_are_found() {
    let page = &PAGES[0];
    let sources = BTreeMap::from([
        ("src/deployment/lambda/pool".to_owned(), BTreeSet::from(["a_test_of_the_pool".to_owned()])),
        ("tests/lambda_runtime".to_owned(), BTreeSet::from(["a_test_of_the_runtime".to_owned()])),
    ]);
    for (cell, found) in [
        ("`lib` a_test_of_the_pool, `lambda_runtime` a_test_of_the_runtime", 0),
        ("`lib` a_test_of_the_runtime", 1),
        ("`lib` a_test_of_the_pool, a_test_that_was_renamed", 1),
        ("the same", 0),
        ("by hand", 1),
        ("`features/lambda/no_such.feature`", 1),
    ] {
        assert_eq!(wrong(cell, page, &sources).len(), found, "{cell}: {:?}", wrong(cell, page, &sources));
    }
    assert_eq!(
        tests_of("#[tokio::test]\nasync fn one_of_them() {}\nfn another_one() {}"),
        ["one_of_them".into()].into()
    );
    let text = "| kind | what |\n| --- | --- |\n| a | b |\n\n| rule | test |\n| --- | --- |\n| c | d |\n";
    assert_eq!(cells(text), [(7, "d".to_owned())]);
}
