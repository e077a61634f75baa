//! The query API through real sockets.

use std::sync::Arc;

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest},
    trace::v1::span::SpanKind,
};
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::capture::{
    Token,
    sink::{Settings, Sink},
};

const TOKEN: &str = "0123456789abcdef";
const TRACE: &str = "5b8efff798038103d269b633813fc60c";
const OTHER: &str = "00000000000000000000000000000001";

struct Desk {
    sink: Sink,
    store: Arc<Store>,
    stop: CancellationToken,
}

impl Desk {
    async fn new() -> Self {
        let (store, stop) = (Arc::new(Store::default()), CancellationToken::new());
        let api = Api { store: store.clone(), stop: stop.clone() };
        let beside = api.router(Token::chosen(TOKEN).unwrap());
        // Exporters' pages may come from anywhere, which must not open the queries to them.
        let settings = Settings { beside, cors_origins: vec!["*".parse().unwrap()], ..Settings::default() };
        let sink = Sink::bind("127.0.0.1:0".parse().unwrap(), store.clone(), settings).await.unwrap();
        Self { sink, store, stop }
    }

    async fn send(&self, path: &str, json: Json) {
        let url = format!("http://{}{path}", self.sink.address());
        let request = reqwest::Client::new().post(url).header("content-type", "application/json");
        assert_eq!(request.body(json.to_string()).send().await.unwrap().status(), 200);
    }

    /// Two services with a trace together, and one with another.
    async fn filled() -> Self {
        let desk = Self::new().await;
        let span = |trace: &str, id: &str, name: &str, kind: SpanKind, at: u64| {
            json!({"traceId": trace, "spanId": id, "name": name, "kind": kind as i32, "startTimeUnixNano": at.to_string(),
                "droppedLinksCount": 7,
                "attributes": [{"key": "http.route", "value": {"stringValue": "/files/"}}, {"key": "n", "value": {"intValue": at.to_string()}}]})
        };
        let group = |service: &str, spans: &[Json]| {
            json!({"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]},
                "scopeSpans": [{"scope": {"name": "s"}, "spans": spans}]})
        };
        let a = span(TRACE, "0000000000000001", "GET /files/", SpanKind::Server, 10);
        let b = span(OTHER, "0000000000000002", "GET /", SpanKind::Server, 20);
        let mut c = span(TRACE, "0000000000000003", "query", SpanKind::Client, 30);
        c["status"] = json!({"code": 2});
        desk.send("/v1/traces", json!({"resourceSpans": [group("api", &[a, b])]})).await;
        desk.send("/v1/traces", json!({"resourceSpans": [group("db", &[c])]})).await;
        let record = |trace: &str, span: &str, severity: i32, text: &str| json!({"traceId": trace, "spanId": span, "severityNumber": severity, "timeUnixNano": "15", "body": {"stringValue": text}});
        let records = [
            record(TRACE, "0000000000000001", 9, "listed files"),
            record(TRACE, "0000000000000003", 17, "failed"),
            record(OTHER, "0000000000000002", 9, "root"),
        ];
        desk.send("/v1/logs", json!({"resourceLogs": [{"scopeLogs": [{"logRecords": records}]}]})).await;
        let metrics = ["requests", "errors"].map(|name| json!({"name": name}));
        desk.send("/v1/metrics", json!({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]})).await;
        desk
    }

    fn request(&self, query: &str) -> reqwest::RequestBuilder {
        reqwest::Client::new().get(format!("http://{}{PATH}/{query}", self.sink.address()))
    }

    async fn get(&self, query: &str) -> (u16, String) {
        let answer = self.request(query).bearer_auth(TOKEN).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn json(&self, query: &str) -> Json {
        let (status, text) = self.get(query).await;
        assert_eq!(status, 200, "{query}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn spans(&self, query: &str) -> Vec<String> {
        let answer: ExportTraceServiceRequest = serde_json::from_value(self.json(query).await).unwrap();
        let scopes = answer.resource_spans.into_iter().flat_map(|group| group.scope_spans);
        scopes.flat_map(|scope| scope.spans).map(|span| span.name).collect()
    }

    async fn logs(&self, query: &str) -> usize {
        let answer: ExportLogsServiceRequest = serde_json::from_value(self.json(query).await).unwrap();
        let scopes = answer.resource_logs.into_iter().flat_map(|group| group.scope_logs);
        scopes.map(|scope| scope.log_records.len()).sum()
    }
}

#[tokio::test]
async fn a_trace_is_answered_whole_with_everything_that_was_sent_and_nothing_else() {
    let desk = Desk::filled().await;
    assert_eq!(desk.spans(&format!("traces/{TRACE}")).await, ["GET /files/", "query"]);
    let answer = desk.json(&format!("traces/{TRACE}")).await;
    assert_eq!(answer["resourceSpans"][1]["resource"]["attributes"][0]["value"]["stringValue"], "db");
    assert_eq!(answer["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["droppedLinksCount"], 7);
    let (status, text) = desk.get("traces/00000000000000000000000000000009").await;
    assert_eq!((status, text.as_str()), (404, "no span of 00000000000000000000000000000009 is here\n"));
    let (status, text) = desk.get("traces/xyz").await;
    assert!(status == 400 && text.starts_with("trace=xyz: "), "{text}");
}

#[tokio::test]
async fn spans_are_found_by_each_of_their_properties() {
    let desk = Desk::filled().await;
    for (query, expected) in [
        ("spans", &["GET /files/", "GET /", "query"][..]),
        ("spans?name=query", &["query"]),
        ("spans?name=quer", &[]),
        ("spans?service=api", &["GET /files/", "GET /"]),
        ("spans?kind=CLIENT", &["query"]),
        ("spans?status=error", &["query"]),
        ("spans?status=unset", &["GET /files/", "GET /"]),
        ("spans?attribute=n=20", &["GET /"]),
        ("spans?attribute=http.route=/files/&attribute=n=10", &["GET /files/"]),
        ("spans?attribute=service.name=db", &["query"]),
        ("spans?since=20", &["GET /", "query"]),
        ("spans?until=1970-01-01T00:00:00.00000002Z", &["GET /files/", "GET /"]),
        ("spans?limit=2", &["GET /", "query"]),
        (&format!("spans?trace={TRACE}&span=0000000000000003"), &["query"]),
        (&format!("spans?trace={OTHER}&service=db"), &[]),
    ] {
        assert_eq!(desk.spans(query).await, expected, "{query}");
    }
    assert_eq!(desk.json("spans?name=nobody").await, json!({"resourceSpans": []}));
}

#[tokio::test]
async fn log_records_and_metrics_are_found_by_each_of_their_properties() {
    let desk = Desk::filled().await;
    for (query, expected) in [
        ("logs".to_owned(), 3),
        (format!("logs?trace={TRACE}"), 2),
        (format!("logs?trace={TRACE}&span=0000000000000003"), 1),
        ("logs?span=0000000000000002".into(), 1),
        ("logs?severity=warn".into(), 1),
        ("logs?severity=info".into(), 3),
        ("logs?text=files".into(), 1),
        ("logs?since=16".into(), 0),
        ("logs?service=api".into(), 0),
    ] {
        assert_eq!(desk.logs(&query).await, expected, "{query}");
    }
    let answer: ExportMetricsServiceRequest = serde_json::from_value(desk.json("metrics?name=errors").await).unwrap();
    assert_eq!(answer.resource_metrics[0].scope_metrics[0].metrics[0].name, "errors");
    let counts = desk.json("counts").await;
    assert_eq!(counts["traces"], json!({"requests": 2, "items": 3}));
    assert_eq!(counts["logs"], json!({"requests": 1, "items": 3}));
}

#[tokio::test]
async fn a_parameter_that_cannot_be_read_is_named_with_what_can() {
    let desk = Desk::new().await;
    for (query, expected) in [
        (
            "spans?colour=red",
            "colour is no parameter here; there are trace, span, name, service, kind, status, attribute, since, until, limit\n",
        ),
        ("metrics?trace=1", "trace is no parameter here; there are name, service, limit\n"),
        ("spans?kind=big", "kind=big: one of unspecified, internal, server, client, producer, consumer\n"),
        ("spans?attribute=x", "attribute=x: write it as KEY=VALUE\n"),
        ("spans?limit=0", "limit=0: a number from 1 to 10000\n"),
        ("logs?since=yesterday", "since=yesterday: a time as in 2026-01-31T12:00:00Z, or in nanoseconds since 1970\n"),
        ("tail?name=x", "name is no parameter here; there are service, trace\n"),
    ] {
        assert_eq!(desk.get(query).await, (400, expected.into()));
    }
}

#[tokio::test]
async fn without_the_token_nothing_is_told() {
    let desk = Desk::filled().await;
    for query in ["spans", "logs", "metrics", "counts", "tail", &format!("traces/{TRACE}")] {
        for request in [
            desk.request(query),
            desk.request(query).bearer_auth("0123456789abcdeF"),
            desk.request(query).header("authorization", TOKEN),
            desk.request(&format!("{query}?token={TOKEN}")),
        ] {
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), 401, "{query}");
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            assert!(!answer.text().await.unwrap().contains(TOKEN));
        }
    }
}

#[tokio::test]
async fn a_page_of_elsewhere_reads_nothing_whatever_name_it_has_for_this_machine() {
    let desk = Desk::filled().await;
    let rebound = desk.request("spans").bearer_auth(TOKEN).header("host", "evil.example:4318").send().await.unwrap();
    assert_eq!(rebound.status(), 403);
    // The exporters' permission is not that of queries.
    let page = desk.request("spans").bearer_auth(TOKEN).header("origin", "http://evil.example").send().await.unwrap();
    assert!(!page.headers().contains_key("access-control-allow-origin"));
    let ours = desk.request("spans").bearer_auth(TOKEN).header("host", "localhost:4318").send().await.unwrap();
    assert_eq!(ours.status(), 200);
}

#[tokio::test]
async fn nothing_of_the_host_can_be_read_by_a_path() {
    let desk = Desk::new().await;
    for path in ["traces/..%2f..%2fetc%2fpasswd", "../../etc/passwd", "traces//etc/passwd", "files/etc/passwd"] {
        let (status, text) = desk.get(path).await;
        assert!((status == 400 || status == 404) && !text.contains("root:"), "{path}: {status} {text}");
    }
}

#[tokio::test]
async fn a_tail_tells_what_comes_from_now_on_until_the_sink_stops() {
    let desk = Desk::filled().await;
    let mut everything = desk.request("tail").bearer_auth(TOKEN).send().await.unwrap();
    let mut one = desk.request(&format!("tail?trace={TRACE}&service=api")).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(everything.headers()["content-type"], "application/x-ndjson");
    let span = |trace: &str, name: &str| {
        json!({"resourceSpans": [{"resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "api"}}]},
            "scopeSpans": [{"spans": [{"traceId": trace, "spanId": "000000000000000a", "name": name}]}]}]})
    };
    desk.send("/v1/traces", span(OTHER, "other")).await;
    desk.send("/v1/traces", span(TRACE, "wanted")).await;
    let mut told = String::new();
    while told.lines().count() < 2 || !told.ends_with('\n') {
        told.push_str(std::str::from_utf8(&everything.chunk().await.unwrap().unwrap()).unwrap());
    }
    let lines: Vec<Json> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [span(OTHER, "other"), span(TRACE, "wanted")]);
    let filtered = one.chunk().await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Json>(&filtered).unwrap(), span(TRACE, "wanted"));
    desk.stop.cancel();
    assert_eq!(everything.chunk().await.unwrap(), None);
    assert_eq!(one.chunk().await.unwrap(), None);
    desk.sink.shutdown().await;
    assert_eq!(desk.store.look(|capture| capture.spans().iter().count()), 5);
}
