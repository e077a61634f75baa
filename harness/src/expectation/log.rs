//! Log records by message, level, fields and origin.

use std::{fmt, sync::Arc};

use super::{
    Candidate, Difference, NoMatch, TextMatcher, ValueMatcher,
    mismatch::{compare_attributes, weight},
};
use crate::telemetry::{Attributes, LogOrigin, LogRecord, embedded_json};

/// What a log record must be; what is left out may be anything.
#[derive(Debug, Clone, Default)]
pub struct LogMatcher {
    /// Message, without the structured data behind it.
    pub message: Option<TextMatcher>,
    /// Level by name, in any case; `warn` and `WARNING` are the same.
    pub level: Option<String>,
    /// Name of the logger.
    pub logger: Option<TextMatcher>,
    /// Which way it came.
    pub origin: Option<LogOrigin>,
    /// Fields that must be there, by dotted path.
    pub fields: Vec<(String, ValueMatcher)>,
    /// Fields that must not be there.
    pub absent: Vec<String>,
}

impl LogMatcher {
    /// All in which `record` is not what is expected; empty for a match.
    pub fn differences(&self, record: &LogRecord) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut differs = |what: &str, found: String, expected: String| {
            differences.push(Difference::Differs { what: what.to_owned(), found, expected });
        };
        if let Some(message) = self.message.as_ref().filter(|message| !says(message, record)) {
            differs("message", format!("{:?}", record.message), message.to_string());
        }
        if let Some(level) = self.level.as_ref().filter(|level| !is_level(record, level)) {
            let found = record.severity.as_ref().map_or("none", |severity| severity.text.as_str());
            differs("level", found.to_owned(), level.clone());
        }
        if let Some(logger) = self.logger.as_ref().filter(|logger| !logger.matches(&record.logger)) {
            differs("logger", format!("{:?}", record.logger), logger.to_string());
        }
        if let Some(origin) = self.origin.filter(|origin| *origin != record.origin) {
            differs("origin", record.origin.to_string(), origin.to_string());
        }
        differences.extend(compare_attributes(&fields(record), &self.fields, &self.absent));
        differences
    }

    /// Every record that matches, in order.
    ///
    /// # Errors
    /// None does: those that came nearest, with all that differs.
    pub fn find<'a>(
        &self,
        records: impl IntoIterator<Item = &'a Arc<LogRecord>>,
    ) -> Result<Vec<Arc<LogRecord>>, NoMatch<Arc<LogRecord>>> {
        let mut found = Vec::new();
        let mut candidates = Vec::new();
        for record in records {
            let differences = self.differences(record);
            if differences.is_empty() {
                found.push(record.clone());
            }
            let message =
                self.message.as_ref().map_or(0.0, |message| 5.0 * (1.0 - message.similarity(&record.message)));
            let distance = weight(&differences) + message;
            candidates.push(Candidate { item: record.clone(), shown: shown(record), differences, distance });
        }
        if found.is_empty() { Err(NoMatch::new(self.to_string(), candidates, "log records")) } else { Ok(found) }
    }
}

/// The fields of a record; those inside the message of an OTLP record too, since a line has them already.
pub fn fields(record: &LogRecord) -> Attributes {
    let own = record.fields.iter().map(|(key, value)| (key.to_owned(), value.clone()));
    let embedded = match record.origin {
        LogOrigin::Otlp => embedded_json(&record.message).map(|found| found.fields).unwrap_or_default(),
        _ => Vec::new(),
    };
    let new = embedded.into_iter().filter(|(key, _)| record.fields.get(key).is_none());
    own.chain(new).collect()
}

fn says(message: &TextMatcher, record: &LogRecord) -> bool {
    message.matches(&record.message)
        || (record.origin == LogOrigin::Otlp
            && embedded_json(&record.message).is_some_and(|found| message.matches(&found.message)))
}

fn is_level(record: &LogRecord, level: &str) -> bool {
    let same_number = |number: u8| {
        let first = match level.to_ascii_uppercase().as_str() {
            "TRACE" => 1,
            "DEBUG" => 5,
            "INFO" | "INFORMATION" => 9,
            "WARN" | "WARNING" => 13,
            "ERROR" => 17,
            "FATAL" | "CRITICAL" => 21,
            _ => return false,
        };
        // Each name has four numbers (logs data model, "Severity Fields").
        (first..first + 4).contains(&number)
    };
    record
        .severity
        .as_ref()
        .is_some_and(|severity| severity.text.eq_ignore_ascii_case(level) || same_number(severity.number))
}

/// `INFO "Request details" on stdout`, long messages cut.
pub fn shown(record: &LogRecord) -> String {
    let level = record.severity.as_ref().map(|severity| format!("{} ", severity.text)).unwrap_or_default();
    let message = match record.message.char_indices().nth(80) {
        Some((at, _)) => format!("{}…", &record.message[..at]),
        None => record.message.clone(),
    };
    format!("{level}{message:?} on {}", record.origin)
}

impl fmt::Display for LogMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(level) = &self.level {
            write!(f, "{level} ")?;
        }
        f.write_str("log record")?;
        if let Some(message) = &self.message {
            write!(f, " {message}")?;
        }
        if let Some(logger) = &self.logger {
            write!(f, " of {logger}")?;
        }
        if let Some(origin) = self.origin {
            write!(f, " on {origin}")?;
        }
        let fields = self.fields.iter().map(|(key, value)| format!("{key} {value}"));
        let absent = self.absent.iter().map(|key| format!("no {key}"));
        for (i, part) in fields.chain(absent).enumerate() {
            write!(f, "{} {part}", if i == 0 { " with" } else { " and" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        correlation::samples::record,
        telemetry::{LineFormat, Value},
    };

    fn line(message: &str, fields: &[(&str, Value)]) -> Arc<LogRecord> {
        let fields = fields.iter().map(|(key, value)| (*key, value.clone())).collect();
        Arc::new(LogRecord { message: message.into(), fields, ..record(Some(1), Some(1)) })
    }

    fn matcher() -> LogMatcher {
        LogMatcher {
            message: Some(TextMatcher::Exact("Request details".into())),
            level: Some("info".into()),
            fields: vec![("headers.accept".into(), ValueMatcher::parse("*/*").unwrap())],
            absent: vec!["headers.cookie".into()],
            ..LogMatcher::default()
        }
    }

    #[test]
    fn a_record_with_message_level_and_fields_is_found() {
        let records = [line("other", &[]), line("Request details", &[("headers.accept", "*/*".into())])];
        assert_eq!(matcher().find(&records).unwrap().len(), 1);
    }

    #[test]
    fn the_nearest_record_is_named_with_its_differing_fields() {
        let near = line("Request details", &[("fields.headers.accept", "*/*".into()), ("headers.cookie", "c".into())]);
        let error = matcher().find(&[line("something else", &[]), near]).unwrap_err();
        assert_eq!(
            error.to_string().lines().next().unwrap(),
            "closest    INFO \"Request details\" on stdout: no headers.accept (expected string \"*/*\"; there is \
             \"fields.headers.accept\"), headers.cookie is string \"c\" (expected none)"
        );
        assert!(error.to_string().ends_with("received   2 log records"));
    }

    #[test]
    fn an_otlp_record_has_the_fields_inside_its_message() {
        let mut otlp = record(Some(1), Some(1));
        (otlp.origin, otlp.format) = (LogOrigin::Otlp, LineFormat::Otlp);
        otlp.message = "Request details: {\"headers\": {\"accept\": \"*/*\"}}".into();
        assert!(matcher().find(&[Arc::new(otlp)]).is_ok());
    }

    #[test]
    fn a_level_is_the_same_by_name_and_by_number_and_no_level_is_none() {
        let mut of = record(None, None);
        let level = |level: &str| LogMatcher { level: Some(level.into()), ..LogMatcher::default() };
        assert!(level("INFO").differences(&of).is_empty() && !level("WARN").differences(&of).is_empty());
        if let Some(severity) = &mut of.severity {
            (severity.number, severity.text) = (10, "odd".into());
        }
        assert!(level("INFO").differences(&of).is_empty());
        of.severity = None;
        assert_eq!(level("INFO").differences(&of)[0].to_string(), "level none (expected INFO)");
    }

    #[test]
    fn origin_and_logger_are_told_apart() {
        let here = LogMatcher { origin: Some(LogOrigin::Stdout), ..LogMatcher::default() };
        assert!(here.find(&[line("x", &[])]).is_ok());
        let there = LogMatcher {
            origin: Some(LogOrigin::Otlp),
            logger: Some(TextMatcher::Exact("db".into())),
            ..LogMatcher::default()
        };
        let error = there.find(&[line("x", &[])]).unwrap_err();
        assert!(error.to_string().contains("logger \"app\" (expected \"db\"), origin stdout (expected otlp)"));
    }
}
