//! Runs that never were, of any size, with the variety that real ones have: ids, ports and times that never repeat, and
//! names and values that do.

use std::{path::PathBuf, time::Duration};

use tracegate::report::{Outcome, Problem, Story, StoryLog, StorySpan, Summary, Verdict};

/// A repeatable source of numbers (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn id(&mut self) -> String {
        format!("{:016x}", self.next())
    }
}

/// Every scenario on every deployment; about one in fifty fails, and one in two hundred is an error.
pub fn run(scenarios: usize, deployments: &[&str]) -> Summary {
    let mut numbers = Numbers(7);
    let mut outcomes = Vec::new();
    for scenario in 0..scenarios {
        for deployment in deployments {
            let problem = match numbers.below(200) {
                0 => Some(Problem::errored("unproven   the fence did not come back within 20s")),
                1..=3 => Some(Problem::failed(fault(&mut numbers, deployment))),
                _ => None,
            };
            let stories = (0..1 + usize::from(scenario % 4 == 0)).map(|_| request(&mut numbers)).collect();
            outcomes.push(outcome(scenario, deployment, problem, stories));
        }
    }
    summary(outcomes)
}

/// One scenario with one request of so many spans.
pub fn trace(spans: usize) -> Summary {
    let mut numbers = Numbers(11);
    let trace = numbers.id() + &numbers.id();
    let spans = (0..spans).map(|at| span(&mut numbers, &trace, at, at % 7, &format!("step {at}"))).collect();
    let story = Story { title: "GET /huge → 200".into(), trace, spans, loose: Vec::new() };
    summary(vec![outcome(0, "process", None, vec![story])])
}

/// A run of these outcomes.
pub fn summary(outcomes: Vec<Outcome>) -> Summary {
    Summary { outcomes, took: Duration::from_secs(61), output: PathBuf::from("target/tracegate"), ..Summary::default() }
}

/// An outcome of the numbered scenario.
pub fn outcome(scenario: usize, deployment: &str, problem: Option<Problem>, stories: Vec<Story>) -> Outcome {
    let (file, line) = (scenario / 12, 6 + scenario % 12 * 9);
    Outcome {
        deployment: deployment.into(),
        file: format!("features/area-{}/concern-{file}.feature", file % 9).into(),
        line,
        feature: format!("Concern {file}"),
        scenario: format!("Case {scenario} of what must hold for every request"),
        verdict: problem.map_or(Verdict::Passed, |problem| Verdict::NotPassed {
            step: "Then the trace has a SERVER span \"GET /files/{path}\" with status Error".into(),
            line: line + 2,
            problem,
        }),
        took: Duration::from_millis(20 + scenario as u64 % 31),
        proofs: vec!["complete: the fence came back".into()],
        advice: Vec::new(),
        evidence: Some(format!("target/tracegate/concern-{file}-{line}/{deployment}").into()),
        stories,
    }
}

fn fault(numbers: &mut Numbers, deployment: &str) -> String {
    format!(
        "closest    SERVER \"GET /files/{{path}}\": status Unset (expected Error)\ntrace      {}{} · {deployment} · complete: the \
         fence came back\nreceived   3 spans, 4 log records; GET /files/a.txt answered 200 in {} ms\n             SERVER GET \
         /files/{{path}}  0.82 ms  4 log records\n             └─ INTERNAL Memory.GetObject  0.06 ms",
        numbers.id(),
        numbers.id(),
        numbers.below(40)
    )
}

fn request(numbers: &mut Numbers) -> Story {
    let trace = numbers.id() + &numbers.id();
    let names = ["GET /files/{path}", "S3.GetObject", "GET"];
    let spans = names.iter().enumerate().map(|(depth, name)| span(numbers, &trace, depth, depth, name)).collect();
    Story {
        title: format!("GET /files/{}.txt → 200", numbers.below(900)),
        trace: trace.clone(),
        spans,
        loose: vec![log(numbers, &trace, "0000000000000000")],
    }
}

fn span(numbers: &mut Numbers, trace: &str, at: usize, depth: usize, name: &str) -> StorySpan {
    let id = numbers.id();
    let pair = |key: &str, value: String| (key.to_owned(), value);
    let attributes = vec![
        pair("http.request.method", "\"GET\"".into()),
        pair("http.route", "\"/files/{path}\"".into()),
        pair("url.path", format!("\"/files/{}.txt\"", numbers.below(900))),
        pair("url.scheme", "\"http\"".into()),
        pair("server.address", "\"127.0.0.1\"".into()),
        pair("server.port", (32_768 + numbers.below(28_000)).to_string()),
        pair("client.address", "\"127.0.0.1\"".into()),
        pair("network.peer.port", (32_768 + numbers.below(28_000)).to_string()),
        pair("network.protocol.version", "\"1.1\"".into()),
        pair("user_agent.original", "\"tracegate/0.1.0\"".into()),
        pair("http.response.status_code", "200".into()),
        pair("code.function.name", "\"serverless_axum::routes::files::read\"".into()),
    ];
    let logs = (0..if depth == 0 { 4 } else { 0 }).map(|_| log(numbers, trace, &id)).collect();
    StorySpan {
        depth,
        kind: ["SERVER", "INTERNAL", "CLIENT"][depth % 3].into(),
        derived: false,
        name: name.into(),
        service: "serverless-axum".into(),
        status: "Unset".into(),
        start: at as u64 * 40 + numbers.below(30),
        took: 60 + numbers.below(1500),
        orphan: false,
        id,
        attributes,
        events: Vec::new(),
        logs,
    }
}

/// A record as a service writes it that repeats its request's headers; ids are those of the request.
fn log(numbers: &mut Numbers, trace: &str, span: &str) -> StoryLog {
    let quoted = |key: &str, value: &str| (key.to_owned(), format!("{value:?}"));
    StoryLog {
        origin: ["stdout", "otlp"][numbers.below(2) as usize].into(),
        level: "INFO".into(),
        message: ["Request details", "Reading file", "Response sent", "Authorised"][numbers.below(4) as usize].into(),
        fields: vec![
            quoted("timestamp", &format!("2026-11-24T05:22:28.{:06}Z", numbers.below(1_000_000))),
            quoted("target", "serverless_axum::telemetry::request"),
            quoted("trace_id", trace),
            quoted("span_id", span),
            quoted("headers.accept", "*/*"),
            quoted("headers.host", &format!("127.0.0.1:{}", 32_768 + numbers.below(28_000))),
            quoted("headers.traceparent", &format!("00-{trace}-{span}-01")),
            quoted("request_id", &format!("{}-{}", &trace[8..24], &trace[..16])),
            quoted("path", "/files/a.txt"),
            ("duration_ms".to_owned(), format!("0.{:03}", numbers.below(1000))),
        ],
    }
}
