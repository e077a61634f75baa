//! Whose a line without ids is: what speaks of a request, and what a service writes by itself.
//!
//! A line without ids that came while a request was under way may be the request's, and wrong, or that of a background
//! thread, and sound. Time alone cannot tell. What tells is the same line, apart from its numbers, at a time when nothing
//! was asked of the service.

use std::{collections::HashSet, time::Duration};

use percent_encoding::percent_decode_str;

use super::detached::idle;
use crate::{
    capture::{Capture, LogRow, Mark},
    telemetry::{LineFormat, LogOrigin, LogRecord},
};

/// How long after an answer a line may still be that request's: an access log is written behind the answer, and a busy
/// machine is late with it.
pub const GRACE: Duration = Duration::from_millis(500);

/// How much older than its request a line's own time may be, to be believed: time zones are off by more, and clocks by less.
const BELIEVED: Duration = Duration::from_secs(60);

/// Names under which records quote a request's method.
const METHOD: [&str; 7] =
    ["method", "http.method", "http.request.method", "request.method", "req.method", "httpMethod", "verb"];
/// Names under which records quote a request's path or URL.
const PATH: [&str; 12] = [
    "path",
    "url",
    "uri",
    "url.path",
    "http.target",
    "http.url",
    "http.path",
    "request.path",
    "request.url",
    "req.url",
    "requestUri",
    "target",
];

/// What a line is apart from its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    origin: LogOrigin,
    format: LineFormat,
    severity: Option<u8>,
    logger: String,
    message: String,
    fields: Vec<String>,
}

impl Shape {
    /// The shape of a record.
    pub fn of(record: &LogRecord) -> Self {
        let mut fields: Vec<String> = record.fields.iter().map(|(key, _)| key.to_owned()).collect();
        fields.sort_unstable();
        Self {
            origin: record.origin,
            format: record.format,
            severity: record.severity.as_ref().map(|severity| severity.number),
            logger: record.logger.clone(),
            message: without_numbers(&record.message),
            fields,
        }
    }
}

/// Words that hold a digit become `#`: ids, counts, times, addresses.
pub(crate) fn without_numbers(text: &str) -> String {
    let word =
        |word: &str| if word.bytes().any(|byte| byte.is_ascii_digit()) { "#".to_owned() } else { word.to_owned() };
    text.split_whitespace().map(word).collect::<Vec<_>>().join(" ")
}

/// The shapes of structured lines and exported records without ids that came while nothing was asked of the service: no request
/// was under way, the harness's own included, and none had been for [`GRACE`]. A record is exported later than it is written, so
/// its own time counts.
pub fn background(capture: &Capture) -> HashSet<Shape> {
    let idle = idle(capture);
    let written_idle = |record: &LogRecord| {
        let time = record.time_unix_nano;
        time.is_some_and(|time| idle.iter().any(|(from, to)| (*from..*to).contains(&time)))
    };
    let exported = capture.logs().only(LogRow::is_exported);
    let exported = exported.filter(|record| record.trace_id.valid().is_none() && written_idle(record));
    let mut shapes = lines_while_idle(capture);
    shapes.extend(exported.map(|record| Shape::of(record)));
    shapes
}

fn lines_while_idle(capture: &Capture) -> HashSet<Shape> {
    let mut marks = capture.lifecycle().iter().peekable();
    let mut under_way: usize = 0;
    // `None` until it is ready: a start asks for nothing, but its lines say nothing of what is repeated either.
    let mut idle_since: Option<u64> = None;
    let grace = u64::try_from(GRACE.as_nanos()).unwrap_or(u64::MAX);
    let mut shapes = HashSet::new();
    for record in capture.lines() {
        while let Some(entry) = marks.next_if(|entry| entry.arrival.seq < record.arrival.seq) {
            match &entry.mark {
                mark if mark.begins_request() => under_way += 1,
                mark if mark.ends_request() => under_way = under_way.saturating_sub(1),
                Mark::Ready => {}
                Mark::StopRequested { .. } | Mark::Exited { .. } => return shapes,
                _ => continue,
            }
            idle_since = Some(entry.arrival.unix_nano);
        }
        let idle =
            under_way == 0 && idle_since.is_some_and(|since| record.arrival.unix_nano > since.saturating_add(grace));
        if idle && record.format.is_structured() && record.trace_id.valid().is_none() {
            shapes.insert(Shape::of(record));
        }
    }
    shapes
}

/// Whether a record quotes this request: `GET /files/` in its text, or a field with the method and one with the path.
pub fn speaks_of(record: &LogRecord, method: &str, target: &str) -> bool {
    let path = decoded(target);
    let mut rest = record.raw.as_str();
    let start = format!("{method} /");
    while let Some(at) = rest.find(&start) {
        rest = &rest[at + start.len() - 1..];
        let end = rest.find(|c: char| {
            c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '\\' | ',' | ')' | ']' | '}')
        });
        if decoded(&rest[..end.unwrap_or(rest.len())]) == path {
            return true;
        }
    }
    let field = |names: &[&str], fits: &dyn Fn(&str) -> bool| {
        record.fields.iter().any(|(key, value)| {
            let key = key.strip_prefix("fields.").unwrap_or(key);
            names.iter().any(|name| key.eq_ignore_ascii_case(name)) && value.as_str().is_some_and(fits)
        })
    };
    field(&METHOD, &|said| said.eq_ignore_ascii_case(method))
        && field(&PATH, &|said| {
            let said = said.split_once("://").map_or(said, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
            decoded(said) == path
        })
}

fn decoded(target: &str) -> String {
    percent_decode_str(target.split('?').next().unwrap_or_default()).decode_utf8_lossy().into_owned()
}

/// Whether a record says that it was written before the request was sent, as what a start writes late does.
pub fn written_before(record: &LogRecord, sent_unix_nano: u64) -> bool {
    let Some(time) = record.time_unix_nano else { return false };
    // Whole seconds are cut off, not rounded.
    let exact = if time % 1_000_000_000 == 0 { Duration::from_secs(1) } else { Duration::from_millis(5) };
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    (sent_unix_nano.saturating_sub(nanos(BELIEVED))..sent_unix_nano.saturating_sub(nanos(exact))).contains(&time)
}

#[cfg(test)]
#[path = "background_tests.rs"]
mod tests;
