//! Verdicts that can be trusted, and given again from their evidence alone: a service of this file's own that crashes, exports late and
//! leaves things out is judged, and what was recorded of it is judged again.
//!
//! The service is a test of this file too: a deployment starts this test binary again with its name.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{Router, extract::Request};
use serde_json::{Value, json};
use tracegate::{
    config::Config,
    deployment::assembly::Workshop,
    evidence,
    gherkin::{self, Plan, Replayed},
    report::{Event, Outcome, Problem, ProblemKind, Reporter, Verdict},
};

/// Serves on `SERVE`, exports a span and a log record a request as OTLP/JSON.
#[tokio::test]
async fn service() {
    let Ok(port) = std::env::var("SERVE") else { return };
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await.unwrap();
    let late: Arc<Mutex<Vec<(&'static str, Value)>>> = Arc::default();
    let app = Router::new().fallback(move |request: Request| answer(request, late.clone()));
    axum::serve(listener, app).await.unwrap();
}

async fn answer(request: Request, late: Arc<Mutex<Vec<(&'static str, Value)>>>) -> String {
    let began = nanos();
    let path = request.uri().path().to_owned();
    let parent = request.headers().get("traceparent").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let ids: Vec<&str> = parent.split('-').collect();
    let [_, trace, parent, _] = ids.as_slice() else { return "no traceparent".into() };
    // Where what makes the server span is gone, and what would be below it is left.
    let begins_anew = std::env::var("ANEW").is_ok_and(|paths| paths.split(',').any(|anew| anew == path));
    let own = format!("{:032x}", u128::from(began));
    let trace = if begins_anew { &own } else { *trace };
    let (parent, kind) = if begins_anew { ("", 1) } else { (*parent, 2) };
    let span_id = format!("{:016x}", began | 1);
    if path == "/crash" {
        println!("about to divide by zero");
        std::process::exit(4);
    }
    let child = json!({"traceId": trace, "spanId": format!("{:016x}", began ^ 0xffff), "parentSpanId": "00000000000000aa",
        "name": "orphan", "kind": 1, "startTimeUnixNano": began.to_string(), "endTimeUnixNano": nanos().to_string()});
    let span = json!({"traceId": trace, "spanId": span_id, "parentSpanId": parent, "name": format!("GET {path}"), "kind": kind,
        "startTimeUnixNano": began.to_string(), "endTimeUnixNano": nanos().to_string(), "attributes": [
            {"key": "http.route", "value": {"stringValue": path}},
            {"key": "db.sytem", "value": {"stringValue": "none"}},
            {"key": "http.response.status_code", "value": {"intValue": "200"}}]});
    let record = json!({"timeUnixNano": nanos().to_string(), "severityText": "INFO", "severityNumber": 9, "traceId": trace,
        "spanId": span_id, "body": {"stringValue": format!("served {path}")}});
    if path == "/silent" {
        return "left nothing".into();
    }
    println!(
        "{}",
        json!({"message": format!("served {path}"), "level": "INFO", "trace_id": trace, "span_id": span_id})
    );
    let resource = json!({"attributes": [{"key": "service.name", "value": {"stringValue": "fixture"}}]});
    let spans =
        |spans: Vec<Value>| json!({"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]});
    let logs = json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]});
    match path.as_str() {
        // What is logged and never exported.
        "/lost" => {}
        // Work that has lost its context.
        "/detached" => {
            let work = json!({"traceId": own, "spanId": format!("{:016x}", began ^ 0xff00), "name": "work", "kind": 1,
                "startTimeUnixNano": (began + 1).to_string(), "endTimeUnixNano": (began + 2).to_string()});
            export("traces", &spans(vec![span, work])).await;
        }
        // Work that begins when the request is over, and names nobody.
        "/behind" => {
            export("traces", &spans(vec![span])).await;
            let began = nanos();
            let work = json!({"traceId": own, "spanId": format!("{:016x}", began ^ 0xff00), "name": "settle", "kind": 1,
                "startTimeUnixNano": began.to_string(), "endTimeUnixNano": (began + 2).to_string()});
            export("traces", &spans(vec![work])).await;
        }
        "/garbage" => export("traces", &json!({"resourceSpans": "none"})).await,
        // What comes only with the next request, and is broken.
        "/late" => late.lock().unwrap().extend([("traces", spans(vec![span, child])), ("logs", logs)]),
        "/crash-later" => {
            export("traces", &spans(vec![span])).await;
            tokio::spawn(async {
                tokio::task::yield_now().await;
                println!("about to give up");
                std::process::exit(5);
            });
        }
        _ => {
            let due = if path == "/" { Vec::new() } else { std::mem::take(&mut *late.lock().unwrap()) };
            for (signal, request) in due {
                export(signal, &request).await;
            }
            export("traces", &spans(vec![span])).await;
            export("logs", &logs).await;
        }
    }
    format!("served {path}")
}

async fn export(signal: &str, request: &Value) {
    let endpoint = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap();
    let sent =
        reqwest::Client::new().post(format!("{endpoint}/v1/{signal}")).header("content-type", "application/json");
    sent.body(request.to_string()).send().await.unwrap();
}

fn nanos() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

struct Quiet;

impl Reporter for Quiet {
    fn tell(&mut self, _: &Event) {}
}

/// A folder with a feature file, in which the fixture is judged.
struct Bench {
    folder: tempfile::TempDir,
    /// More of the deployment's settings.
    settings: &'static str,
}

impl Bench {
    fn new(scenarios: &str) -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap(), settings: "" };
        bench.says(scenarios);
        bench
    }

    fn feature(&self) -> PathBuf {
        self.folder.path().join("fixture.feature")
    }

    fn output(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join("target/tracegate")
    }

    fn says(&self, scenarios: &str) {
        std::fs::write(self.feature(), format!("Feature: Fixture\n{scenarios}")).unwrap();
    }

    /// Judges the scenarios one after the other.
    async fn run(&self) -> Vec<Outcome> {
        let executable = std::env::current_exe().unwrap().display().to_string();
        let text = format!(
            "[deployments.fixture]\nkind = \"process\"\ncommand = [{executable:?}, \"service\", \"--exact\", \"--nocapture\"]\n\
             ready = {{ http = \"/\" }}\npatience = \"5s\"\nenv.SERVE = \"{{port}}\"\n{}\n",
            self.settings
        );
        let root = self.folder.path().canonicalize().unwrap();
        let config = Config::parse(&text, &root, Path::new("tracegate.toml")).unwrap();
        let deployments = config.deployments.values().cloned().collect();
        let workshop =
            Workshop { config: Arc::new(config), tracegate: env!("CARGO_BIN_EXE_tracegate").into(), tamper: None };
        let selection = gherkin::select(&[self.feature().canonicalize().unwrap()], None).unwrap();
        let plan = Plan { workshop, selection, deployments, unavailable: Vec::new(), jobs: 1 };
        gherkin::run(plan, &mut Quiet).await.outcomes
    }

    async fn again(&self) -> Vec<Replayed> {
        gherkin::replay(&evidence::find(&self.output()).unwrap(), None).await.unwrap()
    }

    /// Runs, judges again, and demands that both say the same.
    async fn run_and_again(&self) -> Vec<Outcome> {
        let outcomes = self.run().await;
        let again = self.again().await;
        assert_eq!(again.len(), outcomes.len());
        for one in &again {
            assert!(one.same, "was {:?}\nis  {:?}", one.recorded, one.outcome.verdict);
        }
        outcomes
    }
}

fn problem(outcome: &Outcome) -> &Problem {
    outcome.problem().unwrap_or_else(|| panic!("{} passed", outcome.scenario))
}

fn scenario(name: &str, steps: &[&str]) -> String {
    format!("  Scenario: {name}\n    {}\n", steps.join("\n    "))
}

#[tokio::test]
async fn passes_failures_and_errors_are_judged_again_to_the_word() {
    let bench = Bench::new(
        &[
            scenario(
                "sound",
                &["When a client sends GET /a", "Then the trace is whole", "And the request is correlated"],
            ),
            scenario("wrong", &["When a client sends GET /b", "Then the trace has a SERVER span \"GET /c\""]),
            scenario(
                "a near miss",
                &[
                    "When a client sends GET /b",
                    "Then the trace has a SERVER span \"GET /b\" with the attributes",
                    "  | attribute | value |",
                    "  | db.system | none  |",
                ],
            ),
            scenario(
                "not to be judged",
                &["When API Gateway delivers the event \"none.json\"", "Then the trace is whole"],
            ),
        ]
        .concat(),
    );
    let outcomes = bench.run_and_again().await;
    let by_name = |name: &str| outcomes.iter().find(|outcome| outcome.scenario == name).unwrap();
    assert!(by_name("sound").problem().is_none(), "{:?}", by_name("sound").verdict);
    let wrong = &problem(by_name("wrong")).message;
    for said in
        ["closest    SERVER \"GET /b\"", "complete: fence came through", "arrived    spans", "wrote      stdout INFO"]
    {
        assert!(wrong.contains(said), "{said}: {wrong}");
    }
    let near = &problem(by_name("a near miss")).message;
    assert!(near.contains("no db.system") && near.contains("db.sytem"), "{near}");
    assert_eq!(problem(by_name("not to be judged")).kind, ProblemKind::Errored);
}

#[tokio::test]
async fn a_scenario_that_failed_is_not_played_again_whatever_its_tags() {
    let failing = scenario("wrong", &["When a client sends GET /b", "Then the response status is 500"]);
    let bench = Bench::new(&format!("  @retry @retry-logic @retry(3)\n{failing}"));
    let outcomes = bench.run_and_again().await;
    assert_eq!(outcomes.len(), 1);
    assert!(outcomes[0].problem().is_some());
}

#[tokio::test]
async fn what_is_judged_again_is_reported_in_every_form_that_is_asked_for() {
    let asks = |name: &str, status: u16| {
        scenario(name, &["When a client sends GET /a", &format!("Then the response status is {status}")])
    };
    let bench = Bench::new(&[asks("sound", 200), asks("wrong", 201)].concat());
    bench.run().await;
    let report = |name: &str| bench.folder.path().join(name);
    let replayed = std::process::Command::new(env!("CARGO_BIN_EXE_tracegate"))
        .arg("replay")
        .arg(bench.output())
        .args(["--junit".as_ref(), report("junit.xml").as_os_str()])
        .args(["--json".as_ref(), report("run.json").as_os_str()])
        .args(["--html".as_ref(), report("page.html").as_os_str()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&replayed.stdout);
    assert_eq!(replayed.status.code(), Some(1), "{said}{}", String::from_utf8_lossy(&replayed.stderr));
    assert!(said.contains("1 passed, 1 failed, 0 errored; 2 of 2 as recorded"), "{said}");
    let text = |name: &str| std::fs::read_to_string(report(name)).unwrap();
    assert!(text("junit.xml").contains("failures=\"1\""), "{}", text("junit.xml"));
    let run: serde_json::Value = serde_json::from_str(&text("run.json")).unwrap();
    let verdicts = run["outcomes"].as_array().unwrap().iter().map(|outcome| outcome["verdict"].as_str().unwrap());
    assert_eq!(verdicts.collect::<Vec<_>>(), ["passed", "failed"]);
    assert!(text("page.html").starts_with("<!doctype html>"));
}

#[tokio::test]
async fn one_scenario_is_judged_again_from_its_folder_alone_and_evidence_keeps_no_secret() {
    let bench = Bench::new(&scenario(
        "secretive",
        &[
            "Given the client sends the secret \"canary-5f2c\" in the header \"Authorization\"",
            "When a client sends GET /a?token=canary-5f2c",
            "Then no secret is found in the telemetry",
            "And the trace has a SERVER span \"GET /none\"",
        ],
    ));
    let outcomes = bench.run_and_again().await;
    let folder = outcomes[0].evidence.clone().unwrap();
    let found = evidence::find(&folder).unwrap();
    assert_eq!(found.scenarios.len(), 1);
    assert!(gherkin::replay(&found, None).await.unwrap()[0].same);
    let text = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let mut files = vec![folder];
    let mut read = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            read += 1;
            let text = text(path.clone());
            assert!(!text.contains("canary-5f2c"), "{}", path.display());
        }
    }
    assert!(read >= 4, "{read}");
    bench.says(&text(bench.feature()).replace("Feature: Fixture\n", "").replace("canary-5f2c", "canary-0000"));
    let other = bench.again().await;
    let said = problem(&other[0].outcome);
    assert!(said.message.contains("other secrets") || said.message.contains("unrecorded"), "{}", said.message);
}

#[tokio::test]
async fn a_changed_step_is_judged_anew_and_a_request_that_was_not_recorded_is_an_error() {
    let asks = |then: &str| scenario("one", &["When a client sends GET /a", then]);
    let bench = Bench::new(&asks("Then the trace has a SERVER span \"GET /wrong\""));
    assert_eq!(problem(&bench.run().await[0]).kind, ProblemKind::Failed);

    bench.says(&asks("Then the trace has a SERVER span \"GET /a\""));
    let again = bench.again().await;
    assert_eq!(again[0].outcome.verdict, Verdict::Passed);
    assert!(!again[0].same);
    assert!(again[0].outcome.proofs.iter().any(|proof| proof.contains("fence came through")), "{:?}", again[0].outcome);

    bench.says(&asks("Then the response status is 404"));
    assert!(problem(&bench.again().await[0].outcome).message.contains("status 200"));

    bench.says(&asks("Then the trace is whole").replace("GET /a", "GET /b"));
    let again = bench.again().await;
    let said = problem(&again[0].outcome);
    assert_eq!(said.kind, ProblemKind::Errored);
    assert!(said.message.contains("asks for GET /b, and what was recorded next is GET /a"), "{}", said.message);

    bench.says(&scenario("another", &["When a client sends GET /a", "Then the trace is whole"]));
    let said = bench.again().await;
    assert!(problem(&said[0].outcome).message.contains("no scenario \"one\" any more"));
}

#[tokio::test]
async fn a_scenario_that_failed_at_its_first_step_can_be_judged_by_any_other() {
    let asks = |then: &str| scenario("one", &["When a client sends GET /a", then]);
    let bench = Bench::new(&asks("Then the response status is 500"));
    bench.run_and_again().await;
    bench.says(&asks("Then the trace is whole"));
    assert_eq!(bench.again().await[0].outcome.verdict, Verdict::Passed);
}

#[tokio::test]
async fn patience_is_spent_once_where_neither_a_request_nor_a_fence_leaves_anything() {
    let asks = |path: &str| {
        scenario(
            path,
            &[&format!("When a client sends GET {path}"), &format!("Then the trace has a SERVER span \"GET {path}\"")],
        )
    };
    let all = ["/a", "/a", "/b", "/a"].map(asks).concat();
    let bench = Bench { settings: "env.ANEW = \"/,/a\"", ..Bench::new(&all) };
    let outcomes = bench.run_and_again().await;
    let hurried = |at: usize| problem(&outcomes[at]).message.contains("waited     no 5s");
    assert!(!hurried(0), "{:?}", outcomes[0].verdict);
    assert!(hurried(1), "{:?}", outcomes[1].verdict);
    assert_eq!(outcomes[2].verdict, Verdict::Passed, "what comes is accepted");
    assert!(!hurried(3), "something came of a request: {:?}", outcomes[3].verdict);
}

#[tokio::test]
async fn work_that_may_have_lost_its_context_in_a_service_that_was_stopped_is_no_pass() {
    let sent = "When a client sends GET /detached";
    let stopped =
        [sent, "And the service is stopped with SIGTERM", "Then the trace has a SERVER span \"GET /detached\""];
    let all = [scenario("stopped", &stopped), scenario("goes on", &[sent, "Then the request is correlated"])].concat();
    let outcomes = Bench::new(&all).run_and_again().await;
    let stopped = problem(&outcomes[0]);
    assert_eq!(stopped.kind, ProblemKind::Errored, "{}", stopped.message);
    assert!(
        stopped.message.contains("undecided  one-trace: INTERNAL \"work\" began during this request"),
        "{}",
        stopped.message
    );
    let goes_on = problem(&outcomes[1]);
    assert_eq!(goes_on.kind, ProblemKind::Failed, "{}", goes_on.message);
    assert!(goes_on.message.contains("one-trace: INTERNAL \"work\""), "{}", goes_on.message);
}

#[tokio::test]
async fn work_behind_a_request_that_names_nobody_fails_what_is_repeated_and_is_advice_otherwise() {
    let asks = |method: &str, path: &str| {
        let sent = format!("When a client sends {method} {path}");
        scenario(&format!("{method} {path}"), &[&sent, "Then the trace is whole"])
    };
    let all = [asks("GET", "/behind"), asks("POST", "/behind"), asks("POST", "/a")].concat();
    let outcomes = Bench::new(&all).run_and_again().await;
    let by_name = |name: &str| outcomes.iter().find(|outcome| outcome.scenario == name).unwrap();
    let message = &problem(by_name("GET /behind")).message;
    assert!(
        message.contains("INTERNAL \"settle\"") && message.contains("the request was repeated 3 times"),
        "{message}"
    );
    let told = |name: &str| by_name(name).advice.iter().filter(|advice| advice.starts_with("unattributed")).count();
    assert_eq!(by_name("POST /behind").verdict, Verdict::Passed);
    assert_eq!((told("POST /behind"), told("POST /a")), (1, 0), "{:?}", by_name("POST /behind").advice);
}

#[tokio::test]
async fn what_cannot_be_asked_of_a_scenario_is_an_error_that_says_what_to_write() {
    let asks = |name: &str, steps: &[&str]| scenario(name, &[steps, &["And the response status is 200"]].concat());
    let sends = "When a client sends GET /a";
    let all = [
        asks("alone", &["When a client sends GET /a 3 times", "Then the requests at the same time do not mix"]),
        asks("context", &[sends, "Then the service started a trace of its own"]),
        asks(
            "no caller",
            &["Given the client sends no trace context", sends, "Then the trace hangs on the caller's span"],
        ),
        asks(
            "twice",
            &[
                "Given the client sends the header \"TraceParent\" with the value \"00-1-2-01\"",
                sends,
                "Then the trace is whole",
            ],
        ),
        asks("no function", &[sends, "Then the trace hangs on the span in the runtime's trace header"]),
    ];
    let outcomes = Bench::new(&all.concat()).run_and_again().await;
    for (name, said) in [
        ("alone", "no two requests that are alike"),
        ("context", "the client sent a trace context"),
        ("no caller", "so there is no caller"),
        ("twice", "Given the client sends no trace context"),
        ("no function", "this deployment is no function"),
    ] {
        let Problem { kind, message } = problem(outcomes.iter().find(|outcome| outcome.scenario == name).unwrap());
        assert_eq!(*kind, ProblemKind::Errored, "{name}: {message}");
        assert!(message.contains(said), "{name}: {message}");
    }
}

#[tokio::test]
async fn a_status_is_that_of_the_requests_right_above() {
    let sent = |path: &str| format!("When a client sends GET {path}");
    let steps =
        [&sent("/a"), "Then the response status is 200", &sent("/b"), "And 2 clients send GET /b at the same time"];
    let two = |status: u16| {
        let last = format!("Then the response status is {status}");
        scenario(&format!("{status}"), &[&steps[..], &[last.as_str()]].concat())
    };
    let outcomes = Bench::new(&[two(200), two(201)].concat()).run_and_again().await;
    assert_eq!(outcomes[0].verdict, Verdict::Passed);
    assert!(problem(&outcomes[1]).message.contains("expected   status 201"));
}

#[tokio::test]
async fn requests_that_leave_nothing_do_not_pass_for_kept_apart() {
    let asks = |path: &str| {
        let sent =
            [format!("When a client sends GET {path}"), format!("And 4 clients send GET {path} at the same time")];
        scenario(path, &[&sent[0], &sent[1], "Then the requests at the same time do not mix"])
    };
    let outcomes = Bench::new(&[asks("/silent"), asks("/a")].concat()).run_and_again().await;
    let message = &problem(&outcomes[0]).message;
    assert!(message.contains("expected   a span or a structured line of the request that was sent alone"), "{message}");
    assert_eq!(outcomes[1].verdict, Verdict::Passed);
}

#[tokio::test]
async fn what_the_sink_could_not_take_is_in_the_failure() {
    let asks = |path: &str| scenario(path, &[&format!("When a client sends GET {path}"), "Then the trace is whole"]);
    let garbage = Bench::new(&asks("/garbage")).run_and_again().await;
    let message = &problem(&garbage[0]).message;
    assert!(message.contains("sink       once in what was sent of traces: the traces request"), "{message}");
    let settings = "env.OTEL_EXPORTER_OTLP_ENDPOINT = \"{otlp}/v1\"";
    let elsewhere = Bench { settings, ..Bench::new(&asks("/a")) }.run_and_again().await;
    let message = &problem(&elsewhere[0]).message;
    assert!(message.contains("Nothing of what it sent could be taken: refused"), "{message}");
    assert!(message.contains("POST /v1/v1/traces is not a path of OTLP/HTTP"), "{message}");
    let sound = Bench::new(&scenario("b", &["When a client sends GET /b", "Then no span is exported for the request"]))
        .run_and_again()
        .await;
    assert!(!problem(&sound[0]).message.contains("sink  "), "{}", problem(&sound[0]).message);
}

#[tokio::test]
async fn a_crash_fails_the_scenario_that_asked_for_it_and_those_behind_get_a_new_service() {
    let sound = ["When a client sends GET /a", "Then the trace is whole"];
    let bench = Bench::new(
        &[
            scenario("1 before", &sound),
            scenario("2 crash", &["When a client sends GET /crash", "Then the response status is 200"]),
            scenario("3 behind", &sound),
        ]
        .concat(),
    );
    let outcomes = bench.run_and_again().await;
    let [before, crash, behind] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    assert!(before.problem().is_none() && behind.problem().is_none(), "{:?}\n{:?}", before.verdict, behind.verdict);
    let Problem { kind, message } = problem(crash);
    assert_eq!(*kind, ProblemKind::Failed);
    assert!(message.contains("exit status: 4") && message.contains("about to divide by zero"), "{message}");
}

#[tokio::test]
async fn a_service_that_ends_behind_its_answer_passes_nothing_and_is_told_of_once() {
    let bench = Bench::new(
        &[
            scenario("1 crash", &["When a client sends GET /crash-later", "Then the response status is 200"]),
            scenario("2 behind", &["When a client sends GET /a", "Then the trace is whole"]),
        ]
        .concat(),
    );
    let outcomes = bench.run_and_again().await;
    let [crash, behind] = outcomes.as_slice() else { panic!("{outcomes:?}") };
    let Problem { kind, message } = problem(crash);
    assert_eq!(*kind, ProblemKind::Failed);
    assert!(message.contains("exit status: 5") && message.contains("about to give up"), "{message}");
    assert!(behind.problem().is_none(), "{:?}", behind.verdict);
}

#[tokio::test]
async fn late_telemetry_of_one_scenario_never_reaches_the_verdict_of_another() {
    let bench = Bench::new(
        &[
            scenario("1 late", &["When a client sends GET /late", "Then the response status is 200"]),
            scenario(
                "2 alone",
                &[
                    "When a client sends GET /a",
                    "Then the trace is whole",
                    "And the request is correlated",
                    "And the trace has the shape",
                    "  \"\"\"",
                    "  SERVER GET /a",
                    "  \"\"\"",
                ],
            )
            .replacen("  Scenario", "  @alone\n  Scenario", 1),
        ]
        .concat(),
    );
    let outcomes = bench.run_and_again().await;
    let alone = outcomes.iter().find(|outcome| outcome.scenario == "2 alone").unwrap();
    assert!(alone.problem().is_none(), "{:?}", alone.verdict);
    let traces = std::fs::read_to_string(bench.output().join("deployments/fixture/traces.jsonl")).unwrap();
    assert!(traces.contains("orphan"), "it did come");
}

#[tokio::test]
async fn what_was_logged_and_never_exported_is_named() {
    let bench = Bench::new(&scenario("lost", &["When a client sends GET /lost", "Then the trace is whole"]));
    let outcomes = bench.run_and_again().await;
    let Problem { message, .. } = problem(&outcomes[0]);
    assert!(message.contains("was logged and never exported: stdout \"served /lost\""), "{message}");
}

#[tokio::test]
async fn a_failure_behind_a_stop_says_who_was_signalled_unless_the_configuration_chose() {
    let stops = ["When a client sends GET /lost", "And the service is stopped with SIGTERM", "Then the trace is whole"];
    let goes_on = ["When a client sends GET /lost", "Then the trace is whole"];
    for (settings, steps, told) in [
        ("", &stops[..], true),
        ("signal-to = \"leader\"", &stops[..], false),
        ("signal-to = \"group\"", &stops[..], false),
        ("", &goes_on[..], false),
    ] {
        let bench = Bench { settings, ..Bench::new(&scenario("lost", steps)) };
        let outcomes = bench.run_and_again().await;
        let Problem { message, .. } = problem(&outcomes[0]);
        assert_eq!(
            message.contains("every process of the group was signalled; `signal-to"),
            told,
            "{settings}: {message}"
        );
    }
}
