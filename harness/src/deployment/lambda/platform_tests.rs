use super::*;
use crate::capture::stdout::parse_line;
use crate::telemetry::LineFormat;

const HEADER: &str = "Root=1-63dd9630-1f7ec6c948e660f220ef3c92;Parent=53995c3f42cd8ad8;Sampled=1";
const ID: &str = "8f507cfc-xmpl-4697-b07a-ac58fc914c95";

fn platform(json: bool) -> (Platform, Arc<Store>) {
    let store = Arc::new(Store::default());
    (Platform::new(store.clone(), config::Function::default(), json), store)
}

fn events(platform: &Platform) -> Vec<Value> {
    platform.since(0).0.iter().map(|event| serde_json::from_str(&event.json).unwrap()).collect()
}

fn lines(store: &Store) -> Vec<String> {
    store.look(|capture| capture.logs().iter().map(|record| record.raw.clone()).collect())
}

fn invoke(platform: &Platform, end: End) {
    platform.start(ID, Some(HEADER));
    platform.responded(ID, 17);
    platform.runtime_done(ID, end);
    platform.report(ID, 38);
}

#[test]
fn the_events_of_a_cold_and_a_warm_invocation_are_those_of_the_telemetry_api() {
    let (platform, _store) = platform(false);
    platform.init_start(InitPhase::Init);
    platform.init_done(InitPhase::Init, &End::Success);
    invoke(&platform, End::Success);
    invoke(&platform, End::Success);
    let events = events(&platform);
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let invocation = ["platform.start", "platform.runtimeDone", "platform.report"];
    assert_eq!(kinds[..3], ["platform.initStart", "platform.initRuntimeDone", "platform.initReport"]);
    assert_eq!((&kinds[3..6], &kinds[6..]), (&invocation[..], &invocation[..]));
    let [cold, warm] = [5, 8].map(|at: usize| &events[at]["record"]["metrics"]);
    assert!(cold["initDurationMs"].is_f64() && warm.get("initDurationMs").is_none());
    for name in ["durationMs", "billedDurationMs", "memorySizeMB", "maxMemoryUsedMB"] {
        assert!(cold[name].is_number() && warm[name].is_number(), "{name}");
    }
    let tracing = json!({ "spanId": "53995c3f42cd8ad8", "type": "X-Amzn-Trace-Id", "value": HEADER });
    for event in &events[3..9] {
        assert_eq!(event["record"]["tracing"], tracing);
        assert_eq!(event["record"]["requestId"], ID);
    }
    assert_eq!(events[4]["record"]["metrics"]["producedBytes"], 17);
    assert_eq!(cold["maxMemoryUsedMB"], 38);
    assert_eq!(events[4]["record"]["spans"][0]["name"], "responseLatency");
}

#[test]
fn the_lines_around_an_invocation_are_the_platforms_and_make_no_claim() {
    let (platform, store) = platform(false);
    platform.init_start(InitPhase::Init);
    platform.init_done(InitPhase::Init, &End::Success);
    invoke(&platform, End::Success);
    let found = lines(&store);
    assert_eq!(found[0], format!("START RequestId: {ID} Version: $LATEST"));
    assert_eq!(found[1], format!("END RequestId: {ID}"));
    assert!(found[2].starts_with(&format!("REPORT RequestId: {ID}\tDuration: ")), "{}", found[2]);
    assert!(
        found[2].contains("\tMemory Size: 512 MB\t") && found[2].contains("\tMax Memory Used: 38 MB\tInit Duration: "),
        "{}",
        found[2]
    );
    assert_eq!(
        found[3],
        "XRAY TraceId: 1-63dd9630-1f7ec6c948e660f220ef3c92\tSegmentId: 53995c3f42cd8ad8\tSampled: true"
    );
    store.look(|capture| {
        assert!(capture.logs().iter().all(|record| {
            record.logger == PLATFORM_LOGGER && record.format == LineFormat::Text && record.trace_id.valid().is_none()
        }));
    });
    invoke(&platform, End::Success);
    assert!(!lines(&store)[6].contains("Init Duration"), "a warm start has none");
}

#[test]
fn what_went_wrong_is_in_the_report_and_in_the_events() {
    for (end, status, kind, line) in [
        (End::Timeout, "timeout", None, "Status: timeout"),
        (End::Error("Runtime.Unknown".into()), "error", Some("Runtime.Unknown"), "Error Type: Runtime.Unknown"),
        (End::Failure("Extension.Crash".into()), "failure", Some("Extension.Crash"), "Status: failure"),
    ] {
        let (platform, store) = platform(false);
        invoke(&platform, end.clone());
        for at in [1, 2] {
            let record = &events(&platform)[at]["record"];
            assert_eq!(record["status"], status);
            assert_eq!(record.get("errorType").and_then(Value::as_str), kind);
        }
        let found = lines(&store);
        assert!(found.iter().any(|found| found.contains(line)), "{found:?}");
        assert_eq!(found.iter().any(|found| found.contains("Task timed out")), end == End::Timeout);
    }
}

#[test]
fn in_the_json_format_the_lines_are_events_and_a_success_says_no_more_than_start_and_report() {
    let (platform, store) = platform(true);
    platform.init_start(InitPhase::Init);
    platform.init_done(InitPhase::Init, &End::Success);
    invoke(&platform, End::Success);
    let kinds: Vec<String> = lines(&store)
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["platform.initStart", "platform.start", "platform.report"]);
}

#[test]
fn lines_of_function_and_extension_are_events_in_their_place() {
    let (platform, store) = platform(true);
    platform.start(ID, None);
    store.add_line(r#"{"message":"m"}"#.into(), |line, arrival| parse_line(line, LogOrigin::Stdout, arrival));
    store.add_line("text".into(), |line, arrival| {
        crate::capture::stdout::plain_line(line, LogOrigin::Stderr, arrival, "extension e")
    });
    platform.runtime_done(ID, End::Success);
    let events = events(&platform);
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["platform.start", "function", "extension", "platform.runtimeDone"]);
    assert_eq!((&events[1]["record"], &events[2]["record"]), (&json!({ "message": "m" }), &json!("text")));
    assert_eq!(events[0]["record"].get("tracing"), None);
}

#[test]
fn without_an_audience_nothing_is_kept() {
    let (platform, store) = platform(false);
    platform.init_start(InitPhase::Init);
    platform.settle_audience(false);
    invoke(&platform, End::Success);
    assert!(events(&platform).is_empty());
    assert_eq!(lines(&store).len(), 4, "the lines are there");
}
