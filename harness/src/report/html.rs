//! One self-contained HTML file: every scenario with its verdict on each deployment, and a waterfall for every request.
//!
//! The page may load and reach nothing: its policy allows the one script and the one style that it carries. The data is
//! packed twice, because a run of a thousand scenarios says the same things a thousand times: each text stands once, in
//! [`Packed::strings`], and everything else is a number; then all of it is gzipped. Base64, so that nothing that a service
//! wrote can leave the element that it lies in; the script makes text nodes of it and nothing else.

use std::{collections::HashMap, io::Write};

use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, write::GzEncoder};
use serde::Serialize;

use super::{Outcome, ProblemKind, Story, StoryLog, StorySpan, Summary, Verdict, matrix::Matrix};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/page.css");
const SCRIPT: [&str; 4] = [
    include_str!("page/data.js"),
    include_str!("page/list.js"),
    include_str!("page/view.js"),
    include_str!("page/page.js"),
];

/// A text, as its place in [`Packed::strings`].
type Text = usize;
/// Name, value, name, value, …
type Pairs = Vec<Text>;
/// Origin, level, message, fields.
type Log = (Text, Text, Text, Pairs);
/// Name, attributes.
type Happening = (Text, Pairs);
/// Depth, kind, flags (1 derived, 2 orphan), name, service, status, start and duration in microseconds, id, attributes,
/// events, logs.
type Span = (usize, Text, u8, Text, Text, Text, u64, u64, Text, Pairs, Vec<Happening>, Vec<Log>);
/// Title, trace, spans, records on no span.
type Request = (Text, Text, Vec<Span>, Vec<Log>);
/// Verdict (0 passed, 1 failed, 2 errored), milliseconds, step, its line, message, proofs, advice, evidence, requests.
type Cell = (u8, u128, Text, usize, Text, Vec<Text>, Vec<Text>, Text, Vec<Request>);
/// File, line, feature, scenario, and a cell a deployment.
type Row = (Text, usize, Text, Text, Vec<Option<Cell>>);

#[derive(Serialize)]
struct Packed<'a> {
    took: f64,
    not_run: &'a [(String, String)],
    unclaimed: &'a [String],
    deployments: Vec<Text>,
    rows: Vec<Row>,
    strings: Vec<&'a str>,
}

/// The run as a page.
///
/// # Errors
/// When the data cannot be written as JSON, which no input is known to cause.
pub fn html(summary: &Summary) -> Result<String, serde_json::Error> {
    let (packing, owned) = (Strings::default(), Owned::of(summary));
    // As a whole: JSON is written in pieces of a few bytes, and gzip is slow on each.
    let data = serde_json::to_vec(&packing.pack(summary, &owned))?;
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&data).map_err(serde_json::Error::io)?;
    let packed = packed.finish().map_err(serde_json::Error::io)?;
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let page = PAGE.replace("/*NONCE*/", &nonce).replace("/*STYLE*/", STYLE);
    Ok(page.replace("/*SCRIPT*/", &SCRIPT.concat()).replacen("/*DATA*/", &BASE64_STANDARD.encode(packed), 1))
}

/// Texts that the summary has only in another form.
struct Owned {
    /// Files and evidence folders, by outcome.
    paths: Vec<(String, String)>,
}

impl Owned {
    fn of(summary: &Summary) -> Self {
        let evidence = |outcome: &Outcome| {
            let path = outcome.evidence.as_ref()?;
            // The page lies in the output folder.
            Some(path.strip_prefix(&summary.output).unwrap_or(path).display().to_string())
        };
        let paths = summary.outcomes.iter();
        let paths = paths.map(|outcome| (outcome.file.display().to_string(), evidence(outcome).unwrap_or_default()));
        Self { paths: paths.collect() }
    }
}

#[derive(Default)]
struct Strings<'a> {
    all: Vec<&'a str>,
    places: HashMap<&'a str, Text>,
}

impl<'a> Strings<'a> {
    fn pack(mut self, summary: &'a Summary, owned: &'a Owned) -> Packed<'a> {
        let matrix = Matrix::of(summary);
        let place: HashMap<*const Outcome, usize> =
            summary.outcomes.iter().enumerate().map(|(at, outcome)| (std::ptr::from_ref(outcome), at)).collect();
        let paths = |outcome: &'a Outcome| {
            let (file, evidence) = &owned.paths[place[&std::ptr::from_ref(outcome)]];
            (file.as_str(), evidence.as_str())
        };
        let deployments = matrix.deployments.iter().map(|name| self.text(name)).collect();
        let mut rows = Vec::new();
        for row in &matrix.rows {
            let Some(first) = row.cells.iter().flatten().next() else { continue };
            let (file, feature, scenario) =
                (self.text(paths(first).0), self.text(&first.feature), self.text(&first.scenario));
            let cells = row.cells.iter().map(|cell| cell.map(|outcome| self.cell(outcome, paths(outcome).1)));
            let cells = cells.collect();
            rows.push((file, row.line, feature, scenario, cells));
        }
        Packed {
            took: summary.took.as_secs_f64(),
            not_run: &summary.unavailable,
            unclaimed: &summary.unclaimed,
            deployments,
            rows,
            strings: self.all,
        }
    }

    fn text(&mut self, text: &'a str) -> Text {
        *self.places.entry(text).or_insert_with(|| {
            self.all.push(text);
            self.all.len() - 1
        })
    }

    fn texts(&mut self, texts: &'a [String]) -> Vec<Text> {
        texts.iter().map(|text| self.text(text)).collect()
    }

    fn pairs(&mut self, pairs: &'a [(String, String)]) -> Pairs {
        pairs.iter().flat_map(|(name, value)| [self.text(name), self.text(value)]).collect()
    }

    fn cell(&mut self, outcome: &'a Outcome, evidence: &'a str) -> Cell {
        let (verdict, step, line, message) = match &outcome.verdict {
            Verdict::Passed => (0, "", 0, ""),
            Verdict::NotPassed { step, line, problem } => {
                let verdict = if problem.kind == ProblemKind::Failed { 1 } else { 2 };
                (verdict, step.as_str(), *line, problem.message.as_str())
            }
        };
        let (step, message) = (self.text(step), self.text(message));
        let (proofs, advice) = (self.texts(&outcome.proofs), self.texts(&outcome.advice));
        let evidence = self.text(evidence);
        let requests = outcome.stories.iter().map(|story| self.request(story)).collect();
        (verdict, outcome.took.as_millis(), step, line, message, proofs, advice, evidence, requests)
    }

    fn request(&mut self, story: &'a Story) -> Request {
        let (title, trace) = (self.text(&story.title), self.text(&story.trace));
        let spans = story.spans.iter().map(|span| self.span(span)).collect();
        (title, trace, spans, self.logs(&story.loose))
    }

    fn span(&mut self, span: &'a StorySpan) -> Span {
        let flags = u8::from(span.derived) | (u8::from(span.orphan) << 1);
        let (kind, name, service) = (self.text(&span.kind), self.text(&span.name), self.text(&span.service));
        let (status, id, attributes) = (self.text(&span.status), self.text(&span.id), self.pairs(&span.attributes));
        let events = span.events.iter().map(|(name, attributes)| (self.text(name), self.pairs(attributes))).collect();
        let logs = self.logs(&span.logs);
        (span.depth, kind, flags, name, service, status, span.start, span.took, id, attributes, events, logs)
    }

    fn logs(&mut self, logs: &'a [StoryLog]) -> Vec<Log> {
        let log = |log: &'a StoryLog| {
            let (origin, level) = (self.text(&log.origin), self.text(&log.level));
            (origin, level, self.text(&log.message), self.pairs(&log.fields))
        };
        logs.iter().map(log).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::report::{Problem, samples};

    fn page(message: &str) -> String {
        let mut outcome = samples::outcome("process", "s", Some(Problem::failed(message)));
        outcome.stories = vec![samples::story()];
        let outcomes = vec![samples::outcome("lambda", "s", None), outcome];
        html(&Summary { outcomes, output: "target/tracegate".into(), ..Summary::default() }).unwrap()
    }

    fn unpacked(page: &str) -> Value {
        let (_, rest) = page.split_once("id=\"data\">").unwrap();
        let bytes = BASE64_STANDARD.decode(rest.split_once('<').unwrap().0).unwrap();
        serde_json::from_reader(flate2::read::GzDecoder::new(bytes.as_slice())).unwrap()
    }

    #[test]
    fn what_a_service_writes_arrives_once_and_cannot_leave_the_data() {
        let message = "</script><script>alert(1)</script>' + x + '/*DATA*/ /*SCRIPT*/";
        let page = page(message);
        assert_eq!(page.matches("</script>").count(), 2, "the data and the script");
        let data = unpacked(&page);
        let strings = data["strings"].as_array().unwrap();
        assert_eq!(strings.iter().filter(|text| *text == message).count(), 1);
        let [lambda, process] = data["rows"][0][4].as_array().unwrap().as_slice() else { panic!("{data}") };
        assert_eq!((&lambda[0], &process[0]), (&Value::from(0), &Value::from(1)));
        assert_eq!(strings[usize::try_from(process[4].as_u64().unwrap()).unwrap()], message);
        assert_eq!(strings[usize::try_from(process[7].as_u64().unwrap()).unwrap()], "files-12");
    }

    #[test]
    fn the_page_names_no_other_host_and_its_policy_allows_only_what_it_carries() {
        let page = page("x");
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="), "a reference");
        assert!(page.contains("default-src 'none'; script-src 'nonce-"), "no policy");
        for slot in ["/*NONCE*/", "/*STYLE*/", "/*SCRIPT*/", "/*DATA*/"] {
            assert!(!page.contains(slot), "{slot} is not filled");
        }
        assert!(!page.contains("innerHTML"), "markup from text");
    }

    #[test]
    fn a_text_that_stands_in_a_thousand_places_is_kept_once() {
        let size = |count: usize| {
            let mut outcome = samples::outcome("process", "s", None);
            outcome.stories = vec![samples::story(); count];
            html(&Summary { outcomes: vec![outcome], ..Summary::default() }).unwrap().len()
        };
        assert!(size(1000) < size(1) + 3000, "{} and {}", size(1000), size(1));
    }
}
