//! Lines that are no JSON object: the bracket form, Lambda's tab forms, logfmt, and text.

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

use super::{
    PLATFORM_LOGGER, Parsed, claim, json,
    severity::{is_level, severity},
    time,
};
use crate::telemetry::{LineFormat, Value, embedded_json};

const EXPRESSION: &str = "a constant expression, checked by the tests of this module";

/// OpenTelemetry Python's `DEFAULT_LOGGING_FORMAT`: `%(asctime)s %(levelname)s [%(name)s] [%(filename)s:%(lineno)d]
/// [trace_id=%(otelTraceID)s span_id=… resource.service.name=… trace_sampled=…] - %(message)s`.
static BRACKETED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"(?s)^(?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d\S*) +(?P<level>[A-Za-z]+) +\[(?P<logger>[^\]]*)\] +",
        r"\[(?P<file>[^\]]*)\] +\[(?P<ids>trace_?id=[^\]]*)\](?: +-)? ?(?P<message>.*)$"
    ))
    .expect(EXPRESSION)
});

/// The head of a record of Lambda's Python runtime: `[INFO]\t2026-11-23T13:20:33.150Z\t<request id or nothing>\t`.
static PYTHON_TAB: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"\[(?P<level>[A-Z]+)\]\t(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)\t(?P<request>[0-9A-Za-z-]*)\t",
    )
    .expect(EXPRESSION)
});

/// The head of a record of Lambda's Node.js runtime: `2026-11-23T13:20:33.150Z\t<request id>\tINFO\t`.
static NODE_TAB: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(concat!(
        r"^(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z)\t(?P<request>[0-9a-fA-F-]{36}|undefined)\t",
        r"(?P<level>[A-Z]+)\t"
    ))
    .expect(EXPRESSION)
});

/// What the Lambda platform writes around invocations ("Viewing logs", Lambda developer guide).
static PLATFORM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:(?:START|END|REPORT|RESTORE_REPORT) RequestId: (?P<request>[0-9a-fA-F-]{36})|INIT_START |INIT_REPORT |EXTENSION\t|LOGS\t|XRAY TraceId: )")
        .expect(EXPRESSION)
});

/// `key=value` or `key="quoted value"`.
static PAIR: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?:^|[\s\[({,;|])(?P<key>[A-Za-z_@][A-Za-z0-9_.@-]*)=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s\])},;|"]*))"#)
        .expect(EXPRESSION)
});

/// Colours of a terminal, which some loggers write into pipes too.
static ANSI: LazyLock<Regex> = LazyLock::new(|| Regex::new("\u{1b}\\[[0-9;]*m").expect(EXPRESSION));

/// The line as a terminal shows it, without its colours.
pub(super) fn without_colours(line: &str) -> Cow<'_, str> {
    ANSI.replace_all(line, "")
}

/// Cuts a line before every head of Lambda's Python form: a record with a traceback has no line feed after it there,
/// so that the next one begins in the middle of a line.
pub(super) fn split_glued(line: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for head in PYTHON_TAB.find_iter(line).filter(|head| head.start() > 0) {
        if !line[start..head.start()].trim().is_empty() {
            parts.push(&line[start..head.start()]);
        }
        start = head.start();
    }
    parts.push(&line[start..]);
    parts
}

/// The record of a line that is no JSON object.
pub(super) fn parse(line: &str) -> Parsed {
    let plain = without_colours(line);
    lambda_tab(&plain)
        .or_else(|| platform(&plain))
        .or_else(|| bracketed(&plain))
        .or_else(|| logfmt(&plain))
        .unwrap_or_else(|| Parsed::new(LineFormat::Text, line))
}

fn lambda_tab(line: &str) -> Option<Parsed> {
    let python = PYTHON_TAB.captures(line).filter(|head| head.get(0).is_some_and(|all| all.start() == 0));
    let head = python.or_else(|| NODE_TAB.captures(line))?;
    let message = &line[head.get(0)?.end()..];
    // Node.js's console writes objects as JSON: a message that is nothing else is a record of its own.
    let mut parsed = match embedded_json(message).and_then(|found| found.whole) {
        Some(whole) => json::record(&whole, LineFormat::LambdaTab),
        None => Parsed::new(LineFormat::LambdaTab, message).with_embedded(),
    };
    parsed.time_unix_nano = time::unix_nano(&Value::from(&head["time"]));
    parsed.severity = parsed.severity.or_else(|| severity(&Value::from(&head["level"])));
    // The runtime's own request id is surer than what a message says.
    parsed.request_id = claim::request_id(&head["request"]).or(parsed.request_id);
    if parsed.message.is_empty() {
        parsed.message = message.to_owned();
    }
    Some(parsed)
}

fn platform(line: &str) -> Option<Parsed> {
    let head = PLATFORM.captures(line)?;
    let mut parsed = Parsed::new(LineFormat::Text, line);
    parsed.logger = PLATFORM_LOGGER.to_owned();
    parsed.request_id = head.name("request").map(|id| id.as_str().to_owned());
    Some(parsed)
}

fn bracketed(line: &str) -> Option<Parsed> {
    let head = BRACKETED.captures(line)?;
    let mut parsed = Parsed::new(LineFormat::Bracketed, &head["message"]);
    parsed.time_unix_nano = time::unix_nano(&Value::from(&head["time"]));
    parsed.severity = severity(&Value::from(&head["level"]));
    parsed.logger = head["logger"].to_owned();
    parsed.fields = pairs(&head["ids"]);
    let claims = claim::discover(parsed.fields.iter().map(|(key, value)| (key.as_str(), value)));
    (parsed.trace_id, parsed.span_id, parsed.request_id) = (claims.trace_id, claims.span_id, claims.request_id);
    Some(parsed.with_embedded())
}

/// logfmt: a line that names a trace or span id, or has a level and a message, as `key=value`.
fn logfmt(line: &str) -> Option<Parsed> {
    if !line.contains('=') {
        return None;
    }
    // What stands inside JSON is not a pair of this line.
    let embedded = embedded_json(line);
    let head = if embedded.is_some() { &line[..line.find('{').unwrap_or(line.len())] } else { line };
    let fields = pairs(head);
    let get = |names: &[&str]| {
        names.iter().find_map(|name| fields.iter().find(|(key, _)| key == name)).map(|(_, value)| value.clone())
    };
    let message = get(&["msg", "message"]);
    let level = get(&["level", "lvl", "severity"]);
    let names_ids = fields.iter().any(|(key, _)| claim::names_trace_or_span(key));
    if !names_ids && (message.is_none() || level.is_none()) {
        return None;
    }
    let mut parsed = Parsed::new(LineFormat::Logfmt, &message.map_or_else(|| line.to_owned(), |text| text.to_string()));
    parsed.time_unix_nano = get(&["time", "ts", "timestamp", "t"])
        .or_else(|| line.split_whitespace().next().map(Value::from))
        .as_ref()
        .and_then(time::unix_nano);
    let word = || line.split_whitespace().take(4).map(|word| word.trim_matches(['[', ']', ':'])).find(|w| is_level(w));
    parsed.severity = level.or_else(|| word().map(Value::from)).as_ref().and_then(severity);
    parsed.logger = get(&["logger", "target"]).map(|text| text.to_string()).unwrap_or_default();
    let claims = claim::discover(fields.iter().map(|(key, value)| (key.as_str(), value)));
    (parsed.trace_id, parsed.span_id, parsed.request_id) = (claims.trace_id, claims.span_id, claims.request_id);
    parsed.fields = fields;
    Some(parsed.with_embedded())
}

/// Every `key=value` of some text, values as strings: logfmt has no types.
fn pairs(text: &str) -> Vec<(String, Value)> {
    let value = |pair: &regex::Captures<'_>| match pair.name("quoted") {
        Some(quoted) => quoted.as_str().replace("\\\"", "\"").replace("\\\\", "\\"),
        None => pair.name("bare").map(|bare| bare.as_str().to_owned()).unwrap_or_default(),
    };
    PAIR.captures_iter(text).map(|pair| (pair["key"].to_owned(), Value::String(value(&pair)))).collect()
}
