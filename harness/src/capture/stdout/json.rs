//! Lines that are one JSON object, whichever encoder wrote them.

use super::{Parsed, claim, severity::severity, time};
use crate::telemetry::{LineFormat, Severity, Value, flatten_up_to};

/// Names of the message, most common first: slog, pino and zap (`msg`), structlog (`event`), serilog (`@m`, `@mt`),
/// tracing-subscriber (`fields.message`), GELF (`short_message`), .NET's own console (`Message`), the OTLP field names (`body`).
const MESSAGE: [&str; 13] = [
    "record.message",
    "message",
    "Message",
    "msg",
    "fields.message",
    "@m",
    "@mt",
    "RenderedMessage",
    "MessageTemplate",
    "event",
    "short_message",
    "body",
    "text",
];
/// Names of the level: ECS has `log.level`, serilog `@l`, logback and python-json-logger `levelname`, .NET's own console `LogLevel`.
/// Monolog has `level_name` beside a `level` whose numbers are its own, loguru's serialized form `record.level.name`.
const LEVEL: [&str; 15] = [
    "record.level.name",
    "level_name",
    "level",
    "LogLevel",
    "severity",
    "log.level",
    "levelname",
    "@l",
    "severityText",
    "severity_text",
    "SeverityText",
    "lvl",
    "logLevel",
    "log_level",
    "Level",
];
/// Names of the logger.
const LOGGER: [&str; 12] = [
    "logger",
    "target",
    "logger_name",
    "loggerName",
    "log.logger",
    "SourceContext",
    "Properties.SourceContext",
    "category",
    "scope.name",
    "name",
    "Category",
    "channel",
];
/// Names of the time.
const TIME: [&str; 12] = [
    "timestamp",
    "time",
    "ts",
    "@timestamp",
    "@t",
    "Timestamp",
    "asctime",
    "datetime",
    "date",
    "timeMillis",
    "t",
    "record.time.timestamp",
];

/// The records of a line that is JSON objects from its first to its last character, each with its text; `None` for any
/// other line. There are several where threads write an object and its line feed one after the other, as Python's `print`
/// does.
pub(super) fn parse(line: &str) -> Option<Vec<(&str, Parsed)>> {
    let trimmed = line.trim();
    if !trimmed.starts_with('{') || !trimmed.ends_with('}') {
        return None;
    }
    let mut objects = serde_json::Deserializer::from_str(trimmed).into_iter::<serde_json::Value>();
    let mut records = Vec::new();
    let mut from = 0;
    while let Some(object) = objects.next() {
        let value = Value::from(object.ok().filter(serde_json::Value::is_object)?);
        let text = trimmed[from..objects.byte_offset()].trim();
        from = objects.byte_offset();
        records.push((text, record(&value, LineFormat::Json)));
    }
    Some(records)
}

/// The record that an object says, as a line or as the whole message of another form.
pub(super) fn record(value: &Value, format: LineFormat) -> Parsed {
    let fields = flatten_up_to("", value, usize::MAX);
    let get = |names: &[&str]| {
        let found = names.iter().find_map(|name| fields.iter().find(|(path, _)| path == name));
        found.map(|(_, value)| value.clone())
    };
    let text = |names: &[&str]| {
        let of = |name: &&str| fields.iter().find(|(path, _)| path == *name).and_then(|(_, value)| value.as_str());
        names.iter().find_map(of).unwrap_or_default().to_owned()
    };
    // Telemetry of the Lambda platform in its JSON format: {"time":…,"type":"platform.start","record":{"requestId":…}}.
    if let Some(platform) = text_of(&fields, "type").filter(|kind| kind.starts_with("platform.")) {
        let mut parsed = Parsed::new(LineFormat::Text, platform);
        parsed.logger = super::PLATFORM_LOGGER.to_owned();
        parsed.time_unix_nano = get(&TIME).as_ref().and_then(time::unix_nano);
        parsed.request_id = text_of(&fields, "record.requestId").and_then(claim::request_id);
        return parsed;
    }
    let claims = claim::discover(fields.iter().map(|(path, value)| (path.as_str(), value)));
    let mut parsed = Parsed::new(format, &text(&MESSAGE));
    parsed.time_unix_nano = get(&TIME).as_ref().and_then(time::unix_nano);
    parsed.severity = get(&LEVEL).as_ref().and_then(severity);
    // GELF has the numbers of syslog (RFC 5424, 6.2.1).
    if text_of(&fields, "short_message").is_some()
        && let Some(Value::Int(level @ 0..=7)) = get(&["level"])
    {
        let number = [21, 21, 21, 17, 13, 9, 9, 5][usize::try_from(level).unwrap_or_default()];
        parsed.severity = Some(Severity { number, text: level.to_string() });
    }
    // Serilog's compact format leaves `@l` out for Information.
    if parsed.severity.is_none() && text_of(&fields, "@t").is_some() && get(&["@m", "@mt"]).is_some() {
        parsed.severity = Some(Severity { number: 9, text: "Information".to_owned() });
    }
    parsed.logger = text(&LOGGER);
    (parsed.trace_id, parsed.span_id, parsed.request_id) = (claims.trace_id, claims.span_id, claims.request_id);
    parsed.fields = fields;
    parsed.with_embedded()
}

fn text_of<'a>(fields: &'a [(String, Value)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(path, _)| path == name).and_then(|(_, value)| value.as_str())
}
