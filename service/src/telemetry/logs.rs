//! Structured log lines and OTLP log records, from one record each.
//!
//! A record is built once, with the ids of the context that is current then, and goes out twice:
//! as one JSON object a line on stdout and as an OTLP log record. So the two cannot disagree.

use std::{
    fs::File,
    io::Write,
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use jiff::Timestamp;
use opentelemetry::{
    Context, Key,
    logs::{AnyValue, LogRecord as _, Logger as _, Severity},
    trace::{SpanContext, TraceContextExt},
};
use opentelemetry_sdk::logs::SdkLogger;
use serde_json::{Map, Value};
use tracing::Level;

use super::ids::xray_trace_id;

/// Request id of the Lambda invocation that a context belongs to.
#[derive(Clone, Debug)]
pub struct AwsRequestId(pub String);

/// Key-values of a record; nested values stay nested.
pub type Fields = Map<String, Value>;

/// Where lines go.
#[derive(Debug)]
enum Lines {
    Stdout(File),
    Memory(Vec<String>),
}

/// Writes log records; cheap to clone.
#[derive(Clone, Debug)]
pub struct Logger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    lines: Mutex<Lines>,
    otlp: Option<SdkLogger>,
    service_name: String,
    level: Level,
}

/// Names that a line gives to itself; a field of such a name is written as `field.<name>`.
const RESERVED: [&str; 10] = [
    "timestamp",
    "level",
    "target",
    "message",
    "service.name",
    "trace_id",
    "span_id",
    "trace_flags",
    "xray_trace_id",
    "aws_request_id",
];

impl Logger {
    /// A logger to stdout.
    ///
    /// # Errors
    /// When the process has no stdout.
    pub fn stdout(service_name: &str, level: Level, otlp: Option<SdkLogger>) -> std::io::Result<Self> {
        let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::new(Lines::Stdout(stdout.into()), service_name, level, otlp))
    }

    /// A logger that keeps its lines, see [`Logger::lines`].
    pub fn memory(service_name: &str, level: Level, otlp: Option<SdkLogger>) -> Self {
        Self::new(Lines::Memory(Vec::new()), service_name, level, otlp)
    }

    fn new(lines: Lines, service_name: &str, level: Level, otlp: Option<SdkLogger>) -> Self {
        Self {
            shared: Arc::new(Shared { lines: Mutex::new(lines), otlp, service_name: service_name.to_owned(), level }),
        }
    }

    /// The lines kept so far; none for a logger to stdout.
    pub fn lines(&self) -> Vec<String> {
        match &*self.shared.lines.lock().unwrap_or_else(PoisonError::into_inner) {
            Lines::Stdout(_) => Vec::new(),
            Lines::Memory(lines) => lines.clone(),
        }
    }

    /// Writes a record at level INFO.
    pub fn info(&self, target: &'static str, message: impl Into<String>, fields: Fields) {
        self.emit(Level::INFO, target, message.into(), fields);
    }

    /// Writes a record at level WARN.
    pub fn warn(&self, target: &'static str, message: impl Into<String>, fields: Fields) {
        self.emit(Level::WARN, target, message.into(), fields);
    }

    /// Writes a record at level ERROR.
    pub fn error(&self, target: &'static str, message: impl Into<String>, fields: Fields) {
        self.emit(Level::ERROR, target, message.into(), fields);
    }

    /// Writes a record with the ids of the current context; drops it when `LOG_LEVEL` says so.
    pub fn emit(&self, level: Level, target: &'static str, message: String, fields: Fields) {
        if level > self.shared.level {
            return;
        }
        let record = Record::now(level, target, message, fields);
        self.shared.write(&record.to_line(&self.shared.service_name));
        // Export failures are reported by the exporters' own crates: sending those records the
        // same way would feed on itself.
        if let Some(otlp) = &self.shared.otlp
            && !target.starts_with("opentelemetry")
        {
            record.send(otlp);
        }
    }
}

impl Shared {
    /// One write for the line and its end, so that processes with one stdout do not mix lines.
    fn write(&self, line: &str) {
        match &mut *self.lines.lock().unwrap_or_else(PoisonError::into_inner) {
            Lines::Stdout(stdout) => {
                // Nobody is left to tell when stdout is closed.
                let _ = stdout.write_all(format!("{line}\n").as_bytes());
            }
            Lines::Memory(lines) => lines.push(line.to_owned()),
        }
    }
}

struct Record {
    time: SystemTime,
    level: Level,
    target: &'static str,
    message: String,
    fields: Fields,
    span: Option<SpanContext>,
    aws_request_id: Option<String>,
}

impl Record {
    fn now(level: Level, target: &'static str, message: String, fields: Fields) -> Self {
        let context = Context::current();
        let span = context.span().span_context().clone();
        Self {
            time: SystemTime::now(),
            level,
            target,
            message,
            fields,
            span: span.is_valid().then_some(span),
            aws_request_id: context.get::<AwsRequestId>().map(|id| id.0.clone()),
        }
    }

    fn to_line(&self, service_name: &str) -> String {
        let timestamp = Timestamp::try_from(self.time).map(|time| format!("{time:.6}")).unwrap_or_default();
        let mut line = Map::new();
        line.insert("timestamp".into(), timestamp.into());
        line.insert("level".into(), self.level.as_str().into());
        line.insert("target".into(), self.target.into());
        line.insert("message".into(), self.message.as_str().into());
        line.insert("service.name".into(), service_name.into());
        if let Some(span) = &self.span {
            line.insert("trace_id".into(), span.trace_id().to_string().into());
            line.insert("span_id".into(), span.span_id().to_string().into());
            line.insert("trace_flags".into(), format!("{:02x}", span.trace_flags()).into());
            line.insert("xray_trace_id".into(), xray_trace_id(span.trace_id()).into());
        }
        if let Some(id) = &self.aws_request_id {
            line.insert("aws_request_id".into(), id.as_str().into());
        }
        for (name, value) in &self.fields {
            let name = if RESERVED.contains(&name.as_str()) { format!("field.{name}") } else { name.clone() };
            line.insert(name, value.clone());
        }
        Value::Object(line).to_string()
    }

    fn send(self, otlp: &SdkLogger) {
        let (severity, text) = severity(self.level);
        let mut record = otlp.create_log_record();
        record.set_timestamp(self.time);
        record.set_observed_timestamp(self.time);
        record.set_severity_number(severity);
        record.set_severity_text(text);
        record.set_target(self.target);
        record.set_body(self.message.into());
        if let Some(span) = &self.span {
            record.set_trace_context(span.trace_id(), span.span_id(), Some(span.trace_flags()));
        }
        if let Some(id) = self.aws_request_id {
            record.add_attribute("aws_request_id", id);
        }
        for (name, value) in self.fields {
            if let Some(value) = any_value(value) {
                record.add_attribute(name, value);
            }
        }
        otlp.emit(record);
    }
}

fn severity(level: Level) -> (Severity, &'static str) {
    match level {
        Level::ERROR => (Severity::Error, "ERROR"),
        Level::WARN => (Severity::Warn, "WARN"),
        Level::INFO => (Severity::Info, "INFO"),
        Level::DEBUG => (Severity::Debug, "DEBUG"),
        Level::TRACE => (Severity::Trace, "TRACE"),
    }
}

/// A JSON value as an OTLP one; OTLP says "null" by leaving the value out.
fn any_value(value: Value) -> Option<AnyValue> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => AnyValue::Boolean(value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => AnyValue::Int(integer),
            None => AnyValue::Double(number.as_f64()?),
        },
        Value::String(text) => AnyValue::String(text.into()),
        Value::Array(items) => AnyValue::ListAny(Box::new(items.into_iter().filter_map(any_value).collect())),
        Value::Object(entries) => AnyValue::Map(Box::new(
            entries.into_iter().filter_map(|(key, value)| Some((Key::from(key), any_value(value)?))).collect(),
        )),
    })
}

/// `fields! { "name": value, … }`: key-values of a record.
#[macro_export]
macro_rules! fields {
    ($($name:literal : $value:expr),* $(,)?) => {{
        #[allow(unused_mut)]
        let mut fields = $crate::telemetry::logs::Fields::new();
        $(fields.insert($name.to_owned(), serde_json::json!($value));)*
        fields
    }};
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};
    use serde_json::json;

    fn logger() -> Logger {
        Logger::memory("files", Level::INFO, None)
    }

    fn line(logger: &Logger) -> Value {
        serde_json::from_str(&logger.lines()[0]).unwrap()
    }

    fn span() -> Context {
        Context::new().with_remote_span_context(SpanContext::new(
            TraceId::from_hex("63dd96301f7ec6c948e660f220ef3c92").unwrap(),
            SpanId::from_hex("53995c3f42cd8ad8").unwrap(),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ))
    }

    #[test]
    fn a_line_inside_a_span_carries_all_forms_of_its_ids() {
        let logger = logger();
        let _in_span = span().with_value(AwsRequestId("r-1".into())).attach();
        logger.info("files", "Hello", fields! { "headers": json!({ "accept": "*/*" }) });
        let line = line(&logger);
        assert_eq!(line["trace_id"], "63dd96301f7ec6c948e660f220ef3c92");
        assert_eq!(line["span_id"], "53995c3f42cd8ad8");
        assert_eq!(line["xray_trace_id"], "1-63dd9630-1f7ec6c948e660f220ef3c92");
        assert_eq!(line["trace_flags"], "01");
        assert_eq!(line["aws_request_id"], "r-1");
        assert_eq!(line["headers"]["accept"], "*/*");
        assert_eq!(line["service.name"], "files");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn a_line_outside_any_span_carries_no_ids_at_all() {
        let logger = logger();
        logger.warn("files", "Starting", Fields::new());
        let line = line(&logger);
        for name in ["trace_id", "span_id", "trace_flags", "xray_trace_id", "aws_request_id"] {
            assert!(line.get(name).is_none(), "{name}");
        }
    }

    #[test]
    fn a_timestamp_has_microseconds_and_is_utc() {
        let logger = logger();
        logger.error("files", "Now", Fields::new());
        let timestamp = line(&logger)["timestamp"].as_str().unwrap().to_owned();
        assert_eq!(timestamp.len(), "2026-11-23T13:03:45.506123Z".len());
        assert!(timestamp.ends_with('Z') && timestamp.as_bytes()[19] == b'.');
    }

    #[test]
    fn a_field_cannot_overwrite_what_the_line_says_of_itself() {
        let logger = logger();
        logger.info("files", "true message", fields! { "message": "forged", "trace_id": "0" });
        let line = line(&logger);
        assert_eq!(line["message"], "true message");
        assert_eq!(line["field.message"], "forged");
        assert!(line.get("trace_id").is_none());
    }

    #[test]
    fn a_record_below_the_level_is_dropped_and_one_at_the_level_is_not() {
        let logger = logger();
        logger.emit(Level::DEBUG, "files", "no".into(), Fields::new());
        logger.emit(Level::INFO, "files", "yes".into(), Fields::new());
        assert_eq!(logger.lines().len(), 1);
    }

    #[test]
    fn a_newline_in_a_value_does_not_end_the_line() {
        let logger = logger();
        logger.info("files", "two\nlines", Fields::new());
        assert!(!logger.lines()[0].contains('\n'));
    }

    #[test]
    fn nested_json_stays_nested_in_an_otlp_value() {
        let Some(AnyValue::Map(map)) = any_value(json!({"a": [1, 1.5, true, null, "x"]})) else {
            panic!("no map");
        };
        let AnyValue::ListAny(list) = &map[&Key::from("a")] else {
            panic!("no list");
        };
        assert_eq!(**list, [AnyValue::Int(1), AnyValue::Double(1.5), true.into(), "x".into()]);
    }
}
