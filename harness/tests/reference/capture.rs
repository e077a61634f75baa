//! Loads a capture of the original application into a store, as if it had come from a deployment.

use std::{fs, path::PathBuf};

use bytes::Bytes;
use serde_json::Value as Json;
use tracegate::{
    capture::{Encoding, ExportRequest, Signal, Store, Transport, index::index, stdout::parse_line},
    stimulus::{Caller, ContextForm, Delivery, HttpResponse, Invocation},
    telemetry::{
        Arrival, LogOrigin, SpanId, TraceId,
        xray::{Sampled, Traceparent, XrayHeader},
    },
};

/// A capture: what came out, and what had been sent.
pub struct Reference {
    pub store: Store,
    pub requests: Vec<Request>,
}

/// A request with the answer key that stands beside it.
pub struct Request {
    pub name: String,
    pub delivery: Delivery,
    /// As they were sent.
    pub headers: Vec<(String, String)>,
    /// `None`: rightly no spans.
    pub observed: Option<Observed>,
}

pub struct Observed {
    pub trace_id: TraceId,
    pub entry: SpanId,
    pub parent: Option<SpanId>,
    pub spans: usize,
}

fn read(capture: &str, file: &str) -> String {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/reference/telemetry");
    let path: PathBuf = [fixtures, capture, file].iter().collect();
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub fn load(capture: &str) -> Reference {
    let store = Store::default();
    for (signal, file) in [(Signal::Traces, "traces"), (Signal::Logs, "logs"), (Signal::Metrics, "metrics")] {
        for line in read(capture, &format!("{file}.ndjson")).lines() {
            let contents =
                index(signal, Encoding::Json, &Bytes::copy_from_slice(line.as_bytes())).expect("an export request");
            assert_eq!(contents.faults, [""; 0], "{capture} {file}");
            let request = ExportRequest {
                signal,
                transport: Transport::Http,
                encoding: Encoding::Json,
                user_agent: String::new(),
                body: Bytes::copy_from_slice(line.as_bytes()),
                arrival: Arrival::default(),
            };
            store.add_export(request, contents.index, contents.faults);
        }
    }
    // The n-th "Request details" line is the first of the n-th request on gunicorn, where one request ran at a time:
    // where it stands is the nearest thing to the moment of sending that the files have.
    let mut starts = Vec::new();
    for (origin, file) in [(LogOrigin::Stdout, "stdout.log"), (LogOrigin::Stderr, "stderr.log")] {
        for line in read(capture, file).lines() {
            let details = origin == LogOrigin::Stderr && line.contains(" - Request details: ");
            let arrival = store.add_line(line.to_owned(), |line, arrival| parse_line(line, origin, arrival));
            starts.extend(arrival.filter(|_| details).map(|arrival| arrival.seq));
        }
    }
    let end = store.look(|capture| capture.last_seq());
    let text = read(capture, "requests.ndjson");
    let requests = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).enumerate().map(|(i, json)| {
        let window = (starts.get(i).copied().unwrap_or(end), starts.get(i + 1).map_or(end, |next| next - 1));
        request(&json, window)
    });
    Reference { requests: requests.collect(), store }
}

fn request(json: &Json, (sent, answered): (u64, u64)) -> Request {
    let text = |key: &str| json[key].as_str().map(str::to_owned);
    let observed = json["observed"].as_object().map(|observed| Observed {
        trace_id: observed["trace_id"].as_str().expect("an id").parse().expect("an id"),
        entry: observed["entry_span_id"].as_str().expect("an id").parse().expect("an id"),
        parent: observed["entry_parent_span_id"].as_str().map(|id| id.parse().expect("an id")),
        spans: observed["spans"].as_u64().expect("a number") as usize,
    });
    let time = |key: &str| json[key].as_u64().unwrap_or_default();
    let lambda = json["request_id"].is_string();
    let headers: Vec<(String, String)> = if lambda {
        let headers = json["event"]["headers"].as_object().into_iter().flatten();
        headers.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect()
    } else {
        serde_json::from_value(json["request_headers"].clone()).expect("headers")
    };
    let header =
        |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
    let runtime = text("runtime_trace_header");
    // gunicorn runs with `xray,tracecontext`, where the last wins; the functions take X-Ray from the runtime first,
    // then from the event, and no W3C context.
    let caller = if lambda {
        runtime
            .as_deref()
            .and_then(from_xray)
            .or_else(|| runtime.is_none().then(|| header("x-amzn-trace-id").and_then(from_xray))?)
    } else {
        header("traceparent").and_then(from_w3c).or_else(|| header("x-amzn-trace-id").and_then(from_xray))
    };
    let user_agent = header("user-agent").unwrap_or_default().to_owned();
    let status = json["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(200);
    let delivery = Delivery {
        mark: if lambda { text("request_id").unwrap_or_default() } else { user_agent.clone() },
        method: text("method").or_else(|| json["event"]["httpMethod"].as_str().map(str::to_owned)).unwrap_or_default(),
        target: text("path").or_else(|| json["event"]["path"].as_str().map(str::to_owned)).unwrap_or_default(),
        user_agent,
        headers: Vec::new(),
        caller,
        form: if caller.is_some() { ContextForm::Both } else { ContextForm::Absent },
        sent: Arrival { seq: sent, unix_nano: time(if lambda { "t_offered_ns" } else { "t_sent_ns" }) },
        answered: Arrival { seq: answered, unix_nano: time("t_answered_ns") },
        response: HttpResponse { status, headers: Vec::new(), body: Bytes::new() },
        invocation: text("request_id").map(|request_id| Invocation {
            request_id,
            environment: "environment".into(),
            cold_start: json["seq"] == 0,
            event_trace_header: header("x-amzn-trace-id").map(str::to_owned),
            runtime_parent: runtime.as_deref().and_then(|header| header.parse::<XrayHeader>().ok()?.parent),
            runtime_trace_header: runtime.filter(|header| from_xray(header).is_some()),
            error: None,
        }),
    };
    Request { name: format!("{} {}", json["seq"], text("name").unwrap_or_default()), delivery, headers, observed }
}

fn from_w3c(header: &str) -> Option<Caller> {
    let parsed: Traceparent = header.parse().ok()?;
    Some(Caller { trace_id: parsed.trace_id, span_id: parsed.parent_id, sampled: parsed.sampled() })
}

/// A header without `Parent` or `Sampled` is ignored by the original: it starts a trace of its own.
fn from_xray(header: &str) -> Option<Caller> {
    let parsed: XrayHeader = header.parse().ok()?;
    let sampled = match parsed.sampled {
        Sampled::Yes => true,
        Sampled::No => false,
        Sampled::Requested | Sampled::Deferred => return None,
    };
    Some(Caller { trace_id: parsed.root, span_id: parsed.parent?, sampled })
}
