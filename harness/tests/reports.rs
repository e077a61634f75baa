//! The reports as their readers take them: the page in headless Chromium, used as a person uses it, and JUnit by its schema.
//!
//! Where there is no Chromium or no xmllint the tests say what they leave out and pass, unless `TRACEGATE_TEST_REQUIRE`
//! names it.

#[path = "reports/browser.rs"]
mod browser;
#[path = "reports/required.rs"]
mod required;
#[path = "reports/synthetic.rs"]
mod synthetic;

use std::{
    io::Write,
    process::{Command, Stdio},
};

use browser::Browser;
use synthetic::outcome;
use tracegate::report::{Outcome, Problem, Story, StoryLog, Summary, html, junit};

/// Opens the page of a run; `None` where there is no browser.
fn opened(summary: &Summary, left_out: &str) -> Option<(Browser, tempfile::TempDir)> {
    let browser = match Browser::start() {
        Ok(browser) => browser,
        Err(why) => {
            required::missing("chromium", left_out, &why);
            return None;
        }
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    std::fs::write(&path, html(summary).unwrap()).unwrap();
    browser.open(&path);
    Some((browser, folder))
}

const SELECTED: &str = "#list [aria-selected=true]";
const FOCUSED: &str = "document.activeElement.getAttribute('role') ?? document.activeElement.id";

/// Three scenarios on two deployments; the second fails on one of them, the third is an error on it.
fn small() -> Summary {
    let stories = |trace: &Summary| trace.outcomes[0].stories.clone();
    let trace = synthetic::trace(3);
    let fault = "closest    SERVER \"GET /\" has no error\n             SERVER GET /  1 ms";
    synthetic::summary(vec![
        outcome(0, "lambda", None, stories(&trace)),
        outcome(0, "process", None, stories(&trace)),
        outcome(1, "lambda", Some(Problem::failed(fault)), stories(&trace)),
        outcome(1, "process", None, stories(&trace)),
        Outcome { advice: vec!["http.method is deprecated".into()], ..outcome(2, "lambda", None, stories(&trace)) },
        outcome(2, "process", Some(Problem::errored("unproven   no fence")), Vec::new()),
    ])
}

#[test]
fn a_reader_opens_it_sees_the_failure_first_filters_and_compares_deployments() {
    let Some((browser, _folder)) = opened(&small(), "the page's list and filters") else { return };
    assert_eq!(browser.count("[role=option]"), 3);
    assert!(browser.text(SELECTED).starts_with("Case 1 of"), "{}", browser.text(SELECTED));
    assert!(browser.text("#list .head").eq_ignore_ascii_case("failed"));
    let view = browser.text("#view");
    for part in ["SERVER \"GET /\" has no error", "concern-0.feature:17", "the fence came back", "✗ lambda"] {
        assert!(view.contains(part), "{part} is missing in\n{view}");
    }
    assert_eq!(browser.count("section"), 1, "the deployment that failed");
    browser.click(".pick button:nth-child(2)");
    assert_eq!(browser.count("section"), 2, "side by side");
    assert!(
        browser
            .eval("[...document.querySelectorAll('section')].every((s, i, all) => s.offsetTop === all[0].offsetTop)")
            .as_bool()
            .unwrap()
    );

    // Passed off: what failed or erred somewhere is left. Then lambda off: only what process erred on.
    browser.click("#verdicts .passed");
    assert_eq!(browser.count("[role=option]"), 2);
    browser.click("#deployments button:first-child");
    assert_eq!(browser.count("[role=option]"), 1);
    assert!(browser.text("[role=option]").starts_with("Case 2 of"));
    browser.click("#deployments button:first-child");
    browser.click("#verdicts .passed");
    assert_eq!(browser.count("[role=option]"), 3);

    browser.click("#search");
    browser.type_text("DEPRECATED method");
    assert!(browser.text("#found").contains("1 of 3"), "{}", browser.text("#found"));
    browser.click("[role=option]");
    assert!(browser.text("#view").contains("no fence"), "what is bad is shown first");
    browser.click(".pick button:first-child");
    assert!(browser.text(".advice").contains("http.method is deprecated"));
    browser.click("#search");
    browser.type_text(" nowhere");
    assert_eq!(browser.count("[role=option]"), 0);
    assert!(browser.text("#list").contains("Nothing fits"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_reader_expands_a_span_and_reads_its_attributes_and_the_records_on_it() {
    let Some((browser, _folder)) = opened(&small(), "the page's waterfall") else { return };
    assert_eq!(browser.count("[role=treeitem]"), 3);
    browser.click("[role=treeitem] .line");
    assert_eq!(browser.count("[role=treeitem][aria-expanded=true]"), 1);
    let body = browser.text(".body");
    for part in ["http.route", "\"/files/{path}\"", "serverless-axum", "INFO"] {
        assert!(body.contains(part), "{part} is missing in\n{body}");
    }
    browser.click(".body .log summary");
    assert!(browser.text(".body .log").contains("headers.traceparent"));
    browser.click("[role=treeitem] .line");
    assert_eq!(browser.count(".body"), 0);
    let bars = "[...document.querySelectorAll('.bar')].map(bar => bar.getBoundingClientRect()).every((box, i, all) => \
                box.width >= 2 && (i === 0 || box.left > all[i - 1].left))";
    assert!(browser.eval(bars).as_bool().unwrap(), "bars stand by their time");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn the_keyboard_is_enough() {
    let Some((browser, _folder)) = opened(&small(), "the page's keyboard") else { return };
    assert_eq!(browser.eval(FOCUSED), "listbox");
    browser.press("j");
    assert!(browser.text(SELECTED).starts_with("Case 2 of"), "{}", browser.text(SELECTED));
    browser.press("ArrowDown");
    browser.press("ArrowDown");
    assert!(browser.text(SELECTED).starts_with("Case 0 of"), "stays at the end");
    browser.press("k");
    browser.press("Home");
    assert!(browser.text(SELECTED).starts_with("Case 1 of"));
    let active = "document.getElementById(document.activeElement.getAttribute('aria-activedescendant')).innerText";
    assert!(browser.eval(active).as_str().unwrap().starts_with("Case 1 of"));
    browser.press("ArrowRight");
    assert!(browser.text("section h3").contains("process"));

    browser.press("Enter");
    assert_eq!(browser.eval(FOCUSED), "treeitem");
    let outline = "getComputedStyle(document.activeElement.firstChild).outlineStyle";
    assert_eq!(browser.eval(outline), "solid", "the focus is seen");
    browser.press("j");
    browser.press("Enter");
    assert_eq!(browser.eval("document.activeElement.getAttribute('aria-expanded')"), "true");
    assert_eq!(browser.eval("document.activeElement.getAttribute('aria-posinset')"), "2");
    browser.press("ArrowLeft");
    assert_eq!(browser.count(".body"), 0);
    browser.press("Escape");
    assert_eq!(browser.eval(FOCUSED), "listbox");

    browser.press("/");
    assert_eq!(browser.eval(FOCUSED), "search");
    browser.type_text("\"step 2\"");
    browser.press("Enter");
    browser.press("n");
    assert!(browser.eval("document.activeElement.innerText").as_str().unwrap().contains("step 2"));
    browser.press("/");
    browser.press("Escape");
    assert_eq!(browser.eval("document.getElementById('search').value"), "");
    browser.press("Escape");
    browser.press("?");
    assert!(browser.eval("document.getElementById('help').open").as_bool().unwrap());
    browser.press("Escape");
    assert!(!browser.eval("document.getElementById('help').open").as_bool().unwrap());
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// What would do something if any of it became markup.
const MARKUP: &str =
    "</script><script>window.pwned=1</script><img src=x onerror=\"window.pwned=1\">'\"`${window.pwned=1}";

#[test]
fn nothing_that_a_service_or_a_feature_wrote_becomes_markup_and_nothing_can_be_reached() {
    let mut stories: Vec<Story> = synthetic::trace(1).outcomes[0].stories.clone();
    let bad = || MARKUP.to_owned();
    let story = &mut stories[0];
    (story.title, story.trace) = (bad(), bad());
    let log = StoryLog { origin: bad(), level: bad(), message: bad(), fields: vec![(bad(), bad())] };
    let span = &mut story.spans[0];
    (span.name, span.kind, span.status, span.service, span.id) = (bad(), bad(), bad(), bad(), bad());
    span.attributes.push((bad(), bad()));
    span.events.push((bad(), vec![(bad(), bad())]));
    span.logs = vec![log.clone()];
    story.loose = vec![log];
    let mut outcome = outcome(0, MARKUP, Some(Problem::failed(bad())), stories);
    (outcome.feature, outcome.scenario, outcome.file) = (bad(), bad(), MARKUP.into());
    (outcome.proofs, outcome.advice, outcome.evidence) = (vec![bad()], vec![bad()], Some(MARKUP.into()));
    let summary =
        Summary { unavailable: vec![(bad(), bad())], unclaimed: vec![bad()], ..synthetic::summary(vec![outcome]) };
    let Some((browser, _folder)) = opened(&summary, "what a service wrote in the page") else { return };
    browser.press("Enter");
    browser.press("Enter");
    for at in 0..browser.count(".log summary") {
        browser.eval(&format!("document.querySelectorAll('.log summary')[{at}].click()"));
    }
    let shown = browser.text("#view");
    assert!(shown.matches("<img src=x onerror=").count() >= 15, "{shown}");
    assert_eq!(browser.count("img"), 0);
    assert_eq!(browser.eval("typeof window.pwned"), "undefined");
    assert_eq!(browser.complaints(), Vec::<String>::new());

    // The policy stops what nobody has thought of.
    let fetched = "fetch('http://127.0.0.1:9/').then(() => 'reached', () => 'refused')";
    assert_eq!(browser.eval(fetched), "refused");
    browser.eval(
        "document.body.append(Object.assign(document.createElement('script'), { textContent: 'window.pwned=1' }))",
    );
    browser.eval("document.body.append(Object.assign(document.createElement('img'), { src: 'x' }))");
    browser.eval("document.body.setAttribute('onclick', 'window.pwned=1'); document.body.click()");
    assert_eq!(browser.eval("typeof window.pwned"), "undefined");
    let complaints = browser.complaints().join("\n");
    assert!(complaints.contains("Content Security Policy"), "{complaints}");
}

#[test]
fn a_thousand_scenarios_and_five_thousand_spans_are_made_only_where_they_are_looked_at() {
    let mut summary = synthetic::run(1000, &["lambda", "process"]);
    summary.outcomes.retain(|outcome| outcome.problem().is_none());
    summary.outcomes.push(Outcome {
        stories: synthetic::trace(5000).outcomes[0].stories.clone(),
        ..outcome(1000, "process", Some(Problem::failed("slow")), Vec::new())
    });
    let Some((browser, _folder)) = opened(&summary, "the page of a large run") else { return };
    assert!(browser.count("[role=option]") < 400, "{}", browser.count("[role=option]"));
    assert!(browser.count("[role=treeitem]") < 400, "{}", browser.count("[role=treeitem]"));
    browser.press("Enter");
    browser.press("End");
    assert!(browser.eval("document.activeElement.innerText").as_str().unwrap().contains("step 4999"));
    let seen = "(() => { const box = document.activeElement.getBoundingClientRect(); const view = \
                document.getElementById('view').getBoundingClientRect(); return box.top >= view.top && box.bottom <= view.bottom + 1; })()";
    assert!(browser.eval(seen).as_bool().unwrap(), "the last span is in sight");
    browser.press("Enter");
    assert!(browser.text(".body").contains("http.route"));
    browser.press("/");
    browser.type_text("\"step 2345\"");
    browser.press("Enter");
    browser.press("n");
    assert!(browser.eval("document.activeElement.innerText").as_str().unwrap().contains("step 2345"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn what_the_search_finds_is_marked_in_rows_that_are_made_later_too() {
    let Some((browser, _folder)) = opened(&synthetic::trace(300), "the page's search") else { return };
    browser.click("#search");
    browser.type_text("\"step 298\"");
    assert_eq!(browser.count("[role=treeitem].hit"), 0, "it is not made yet");
    browser.press("Enter");
    browser.press("Enter");
    browser.press("End");
    assert_eq!(browser.count("[role=treeitem].hit"), 1);
    assert!(browser.text("[role=treeitem].hit").contains("step 298"));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn it_is_read_on_a_narrow_screen_and_in_the_dark() {
    let Some((browser, _folder)) = opened(&small(), "the page on other screens") else { return };
    let background = "getComputedStyle(document.body).backgroundColor";
    browser.scheme("light");
    let light = browser.eval(background);
    browser.scheme("dark");
    assert_ne!(browser.eval(background), light);
    browser.size(400, 800);
    let wide = "document.documentElement.scrollWidth";
    assert!(browser.eval(wide).as_u64().unwrap() <= 400, "the page is wider than the screen");
    browser.click("[role=option]:last-child");
    assert!(browser.text("#view").contains("Case "));
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// What the schema by which Jenkins takes and refuses reports says against one; `None` where nobody can tell.
fn complaints(xml: &str) -> Option<String> {
    let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/junit-10.xsd");
    let mut lint = Command::new("xmllint");
    lint.args(["--noout", "--nonet", "--schema", schema, "-"]);
    let lint = lint.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut lint = match lint {
        Ok(lint) => lint,
        Err(error) => {
            let why = format!("there is no xmllint (on Debian: libxml2-utils): {error}");
            required::missing("xmllint", "the schema of JUnit reports", &why);
            return None;
        }
    };
    lint.stdin.take().unwrap().write_all(xml.as_bytes()).unwrap();
    let done = lint.wait_with_output().unwrap();
    Some(if done.status.success() { String::new() } else { String::from_utf8_lossy(&done.stderr).into_owned() })
}

#[test]
fn a_junit_report_is_what_its_schema_says() {
    let mut summary = small();
    summary.unavailable = vec![("container".into(), "no engine".into())];
    summary.outcomes[0].scenario = "a <b> & \u{1b}[31mred\u{1b}[0m ]]> \u{0}\u{ffff}".into();
    summary.outcomes[2].verdict = outcome(0, "x", Some(Problem::failed("]]> \u{1} <x>")), Vec::new()).verdict;
    let xml = junit(&summary).unwrap();
    let Some(said) = complaints(&xml) else { return };
    assert_eq!(said, "", "{xml}");
    assert!(
        complaints(&xml.replace("testcase name", "testcase nom")).unwrap().contains("nom"),
        "the schema is looked at"
    );
}
