//! A line of stdout, whatever it says, is read without a panic, and nothing of it is made up.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tracegate::{
    capture::stdout::{parse_line, plain_line},
    telemetry::{Arrival, IdClaim, LineFormat, LogOrigin, MAX_FIELDS},
};

fuzz_target!(|line: &str| {
    let arrival = Arrival::default();
    let records = parse_line(line, LogOrigin::Stdout, arrival);
    assert_eq!(records.is_empty(), line.trim().is_empty(), "a line is a record, and a blank one is none");
    for record in &records {
        assert!(line.contains(&record.raw), "what a record quotes stands in the line");
        assert!(record.fields.len() <= MAX_FIELDS, "{} fields", record.fields.len());
        if record.format == LineFormat::Text {
            assert_eq!(record.trace_id, IdClaim::Absent, "text makes no claim");
            assert_eq!(record.span_id, IdClaim::Absent, "text makes no claim");
        }
    }
    let again = parse_line(&format!("{line}\r\n"), LogOrigin::Stdout, arrival);
    assert_eq!(records, again, "the line feed is no part of it");
    for record in plain_line(line, LogOrigin::Stderr, arrival, "platform") {
        assert_eq!(record.trace_id, IdClaim::Absent, "a line of the platform makes no claim");
    }
});
