//! The stdout tap: lines become log records.
//!
//! [`parse_line`] knows the forms that loggers write without being asked: one JSON object a line (whatever its encoder
//! calls the fields), OpenTelemetry Python's bracket form, Lambda's tab form of Python and of Node.js, and logfmt.
//! Everything else is text: it makes no claim, so it is never wrong.
//!
//! | file | what it decides |
//! | --- | --- |
//! | `json` | what a JSON object says under which names |
//! | `text` | which form a line that is no JSON object has |
//! | `claim` | which of many fields are the ids of the record itself |

mod claim;
mod json;
mod severity;
mod text;
mod time;

pub(crate) use claim::names_an_invocation;

use crate::telemetry::{
    Arrival, Attributes, IdClaim, LineFormat, LogOrigin, LogRecord, MAX_FIELDS, Severity, SpanId, TraceId, Value,
    embedded_json,
};

/// The name that the records of Lambda's own lines (`START RequestId: …`) have as their logger.
pub const PLATFORM_LOGGER: &str = "platform";

/// What the logger of an extension's lines begins with; its name follows.
pub const EXTENSION_LOGGER: &str = "extension ";

/// The records of one line, without its line feed. Most lines are one record; a blank line is none, threads may have
/// written several JSON objects before their line feeds, and a traceback that Lambda's Python runtime wrote without a line
/// feed has the next record behind it.
///
/// Never fails: what is not recognised is one record of [`LineFormat::Text`].
pub fn parse_line(line: &str, origin: LogOrigin, arrival: Arrival) -> Vec<LogRecord> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.trim().is_empty() {
        return Vec::new();
    }
    // Some loggers colour a JSON object as a whole, into pipes too.
    let plain = text::without_colours(line);
    let parts = match json::parse(&plain) {
        Some(mut one) if one.len() == 1 => one.pop().map(|(_, parsed)| (line, parsed)).into_iter().collect(),
        Some(several) => several,
        None => text::split_glued(line).into_iter().map(|part| (part, text::parse(part))).collect(),
    };
    parts.into_iter().map(|(raw, parsed)| parsed.into_record(raw, origin, arrival)).collect()
}

/// A line of somebody who is not the service, as text of `logger`: it makes no claim of ids, whatever it says. A blank
/// line is no record.
pub fn plain_line(line: &str, origin: LogOrigin, arrival: Arrival, logger: &str) -> Vec<LogRecord> {
    let line = line.trim_end_matches(['\r', '\n']);
    if line.trim().is_empty() {
        return Vec::new();
    }
    let mut parsed = Parsed::new(LineFormat::Text, line);
    parsed.logger = logger.to_owned();
    vec![parsed.into_record(line, origin, arrival)]
}

/// What a form found in a line.
#[derive(Debug, Clone)]
struct Parsed {
    format: LineFormat,
    time_unix_nano: Option<u64>,
    severity: Option<Severity>,
    logger: String,
    message: String,
    fields: Vec<(String, Value)>,
    trace_id: IdClaim<TraceId>,
    span_id: IdClaim<SpanId>,
    request_id: Option<String>,
}

impl Parsed {
    fn new(format: LineFormat, message: &str) -> Self {
        Self {
            format,
            time_unix_nano: None,
            severity: None,
            logger: String::new(),
            message: message.to_owned(),
            fields: Vec::new(),
            trace_id: IdClaim::Absent,
            span_id: IdClaim::Absent,
            request_id: None,
        }
    }

    /// Takes the JSON out of the message. Fields of the record itself win over fields of the same name inside its
    /// message, and what the message quotes is never an id of the record.
    fn with_embedded(mut self) -> Self {
        if let Some(embedded) = embedded_json(&self.message) {
            for (key, value) in embedded.fields {
                if !self.fields.iter().any(|(known, _)| *known == key) {
                    self.fields.push((key, value));
                }
            }
            self.message = embedded.message;
        }
        self
    }

    fn into_record(self, raw: &str, origin: LogOrigin, arrival: Arrival) -> LogRecord {
        LogRecord {
            origin,
            format: self.format,
            arrival,
            time_unix_nano: self.time_unix_nano,
            severity: self.severity,
            logger: self.logger,
            message: self.message,
            fields: self.fields.into_iter().take(MAX_FIELDS).collect::<Attributes>(),
            trace_id: self.trace_id,
            span_id: self.span_id,
            request_id: self.request_id,
            raw: raw.to_owned(),
            body: Value::Empty,
            resource: None,
            scope: None,
        }
    }
}

#[cfg(test)]
mod tests;
