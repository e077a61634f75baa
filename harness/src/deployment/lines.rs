//! The one place where a line of output becomes a log record.

use crate::telemetry::{Arrival, Attributes, IdClaim, LineFormat, LogOrigin, LogRecord, Value};

/// The records of one line.
pub(super) fn parse_line(line: &str, origin: LogOrigin, arrival: Arrival) -> Vec<LogRecord> {
    vec![LogRecord {
        origin,
        format: LineFormat::Text,
        arrival,
        time_unix_nano: None,
        severity: None,
        logger: String::new(),
        message: line.to_owned(),
        fields: Attributes::default(),
        trace_id: IdClaim::Absent,
        span_id: IdClaim::Absent,
        request_id: None,
        raw: line.to_owned(),
        body: Value::Empty,
        resource: None,
        scope: None,
    }]
}
