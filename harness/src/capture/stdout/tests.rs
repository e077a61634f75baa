use std::fmt::Write as _;

use serde_json::json;

use super::*;

const TRACE: &str = "63dd96301f7ec6c948e660f220ef3c92";
const SPAN: &str = "c901394ba22b334a";
const REQUEST: &str = "16598e96-b00c-4a75-9fcb-bdde8d62e40b";

fn parse(line: &str) -> Vec<LogRecord> {
    parse_line(line, LogOrigin::Stdout, Arrival { seq: 7, unix_nano: 1 })
}

fn one(line: &str) -> LogRecord {
    let mut records = parse(line);
    assert_eq!(records.len(), 1, "{line}");
    records.remove(0)
}

fn assert_has_ids(record: &LogRecord) {
    assert_eq!(record.trace_id.valid(), TRACE.parse().ok(), "{}", record.raw);
    assert_eq!(record.span_id.valid(), SPAN.parse().ok(), "{}", record.raw);
}

#[test]
fn the_bracket_form_has_ids_level_logger_and_the_fields_of_its_message() {
    let record = one(&format!(
        "2026-11-23 13:07:17,524 INFO [index] [index.py:33] [trace_id={TRACE} span_id={SPAN} \
         resource.service.name=serverless-fastapi trace_sampled=True] - Request details: \
         {{\"method\": \"GET\", \"headers\": {{\"accept\": \"*/*\"}}, \"trace_id\": \"0\", \"files\": [\"a\"]}}"
    ));
    assert_has_ids(&record);
    assert_eq!(record.format, LineFormat::Bracketed);
    assert_eq!((record.logger.as_str(), record.message.as_str()), ("index", "Request details"));
    assert_eq!(record.severity, Some(Severity { number: 9, text: "INFO".into() }));
    assert_eq!(record.time_unix_nano, None, "a local time without offset is no moment");
    assert_eq!(record.fields.str("headers.accept"), Some("*/*"));
    assert_eq!(record.fields.str("files.0"), Some("a"));
    assert_eq!(record.fields.str("resource.service.name"), Some("serverless-fastapi"));
    assert_eq!(record.fields.str("trace_id"), Some(TRACE), "a quoted field does not override the record's");
}

#[test]
fn the_bracket_form_without_a_span_claims_zero() {
    let record =
        one("2026-11-23 12:57:57,198 ERROR [m] [main.py:28] [trace_id=0 span_id=0 resource.service.name=s] - Go");
    assert_eq!((record.trace_id, record.span_id), (IdClaim::Zero, IdClaim::Zero));
}

#[test]
fn both_tab_forms_have_the_request_id_and_the_fields_of_their_message() {
    let python =
        one(&format!("[INFO]\t2026-11-23T13:20:33.150Z\t{REQUEST}\tRequest details: {{\"path\": \"/files/\"}}"));
    let node = one(&format!("2026-11-23T13:20:33.150Z\t{REQUEST}\tINFO\tRequest details: {{\"path\": \"/files/\"}}"));
    for record in [python, node] {
        assert_eq!(record.format, LineFormat::LambdaTab);
        assert_eq!(record.request_id.as_deref(), Some(REQUEST));
        assert_eq!(record.time_unix_nano, Some(1_795_440_033_150_000_000));
        assert_eq!(record.message, "Request details");
        assert_eq!(record.fields.str("path"), Some("/files/"));
        assert_eq!(record.trace_id, IdClaim::Absent);
    }
}

#[test]
fn the_tab_form_at_init_has_no_request_id() {
    assert_eq!(one("[ERROR]\t2026-11-23T13:20:33.138Z\t\tInitializing").request_id, None);
    assert_eq!(one("2026-11-23T13:20:33.138Z\tundefined\tINFO\tInitializing").request_id, None);
}

#[test]
fn a_tab_line_whose_message_is_a_json_record_has_the_ids_of_that_record() {
    let json = json!({"level": "WARN", "message": "x", "trace_id": TRACE, "span_id": SPAN, "aws_request_id": "other"});
    let record = one(&format!("2026-11-23T13:20:33.150Z\t{REQUEST}\tINFO\t{json}"));
    assert_has_ids(&record);
    assert_eq!(record.request_id.as_deref(), Some(REQUEST));
    assert_eq!(record.message, "x");
    assert_eq!(record.severity.unwrap().number, 13);
}

#[test]
fn a_record_glued_to_a_traceback_is_a_record_of_its_own() {
    let records = parse(&format!("FileNotFoundError: no key.[INFO]\t2026-11-23T13:20:44.615Z\t{REQUEST}\tResponse"));
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].format, records[0].raw.as_str()), (LineFormat::Text, "FileNotFoundError: no key."));
    assert_eq!((records[1].format, records[1].message.as_str()), (LineFormat::LambdaTab, "Response"));
}

#[test]
fn lines_of_the_platform_are_text_with_the_request_id() {
    let uuid = REQUEST;
    for line in
        [format!("START RequestId: {uuid} Version: $LATEST"), format!("REPORT RequestId: {uuid}\tDuration: 1 ms")]
    {
        let record = one(&line);
        assert_eq!((record.format, record.logger.as_str()), (LineFormat::Text, PLATFORM_LOGGER));
        assert_eq!(record.request_id.as_deref(), Some(uuid));
    }
    let json =
        one(&json!({"time": "2026-11-23T13:20:44Z", "type": "platform.start", "record": {"requestId": uuid}})
            .to_string());
    assert_eq!((json.format, json.request_id.as_deref()), (LineFormat::Text, Some(uuid)));
    assert_eq!(one("STARTING RequestId: x").logger, "");
}

#[test]
fn objects_that_threads_wrote_on_one_line_are_records_of_their_own() {
    let line = r#"{"message":"a","trace_id":"00000000000000000000000000000001"}{"message":"b"} {"message":"c"}"#;
    let records = parse(line);
    let said: Vec<&str> = records.iter().map(|record| record.message.as_str()).collect();
    assert_eq!(said, ["a", "b", "c"]);
    assert_eq!(records[1].raw, r#"{"message":"b"}"#);
    assert!(records[0].trace_id.valid().is_some() && records[1].trace_id.valid().is_none());
    for other in [r#"{"message":"a"} 3 {"message":"b"}"#, r#"{"message":"a"}{"message":}"#] {
        assert_eq!(one(other).format, LineFormat::Text, "{other}");
    }
}

#[test]
fn json_encoders_of_every_kind_are_read() {
    let lines = [
        // Powertools for AWS Lambda
        json!({"level": "INFO", "location": "h:1", "message": "Hello", "timestamp": "2026-11-23 13:20:33,150+0000", "service": "s", "trace_id": TRACE, "span_id": SPAN, "function_request_id": REQUEST}),
        // zap
        json!({"level": "info", "ts": 1_795_440_033.15, "logger": "a", "msg": "Hello", "trace_id": TRACE, "span_id": SPAN}),
        // zerolog
        json!({"level": "info", "time": 1_795_440_033_i64, "message": "Hello", "traceId": TRACE, "spanId": SPAN}),
        // logrus
        json!({"level": "info", "msg": "Hello", "time": "2026-11-23T13:20:33.15Z", "trace_id": TRACE, "span_id": SPAN}),
        // pino
        json!({"level": 30, "time": 1_795_440_033_150_i64, "pid": 1, "hostname": "h", "msg": "Hello", "trace_id": TRACE, "span_id": SPAN, "trace_flags": "01"}),
        // serilog, compact, with Serilog.Enrichers.Span
        json!({"@t": "2026-11-23T13:20:33.15Z", "@m": "Hello", "TraceId": TRACE, "SpanId": SPAN}),
        // serilog, compact, as it writes the ids by itself
        json!({"@t": "2026-11-23T13:20:33.15Z", "@mt": "Hello", "@tr": TRACE, "@sp": SPAN, "RequestId": "0HN:01"}),
        // .NET's own console
        json!({"EventId": 0, "LogLevel": "Information", "Category": "App", "Message": "Hello", "Timestamp": "2026-11-23T13:20:33.15Z", "Scopes": [{"SpanId": SPAN, "TraceId": TRACE}]}),
        // Monolog
        json!({"message": "Hello", "level": 200, "level_name": "INFO", "channel": "app", "datetime": "2026-11-23T13:20:33.15Z", "extra": {"trace_id": TRACE, "span_id": SPAN}}),
        // loguru, serialized
        json!({"text": "2026 | INFO | Hello\n", "record": {"level": {"icon": "i", "name": "INFO", "no": 20}, "message": "Hello", "name": "app", "extra": {"trace_id": TRACE, "span_id": SPAN}, "time": {"repr": "2026-11-23 13:20:33.150000+00:00", "timestamp": 1_795_440_033.15}}}),
        // GELF
        json!({"version": "1.1", "short_message": "Hello", "level": 6, "timestamp": 1_795_440_033.15, "_trace_id": TRACE, "_span_id": SPAN}),
        // slog
        json!({"time": "2026-11-23T13:20:33.15Z", "level": "INFO", "msg": "Hello", "trace_id": TRACE, "span_id": SPAN}),
        // logback, LogstashEncoder
        json!({"@timestamp": "2026-11-23T13:20:33.15Z", "@version": "1", "message": "Hello", "logger_name": "a", "level": "INFO", "level_value": 20000, "trace_id": TRACE, "span_id": SPAN}),
        // ECS
        json!({"@timestamp": "2026-11-23T13:20:33.15Z", "log.level": "info", "message": "Hello", "trace.id": TRACE, "span.id": SPAN}),
        // tracing-subscriber, with the ids on the span
        json!({"timestamp": "2026-11-23T13:20:33.15Z", "level": "INFO", "fields": {"message": "Hello"}, "target": "a", "span": {"name": "request", "trace_id": TRACE, "span_id": SPAN}, "spans": [{"name": "outer", "span_id": "1111111111111111"}]}),
        // OTLP's names
        json!({"Timestamp": 1_795_440_033_150_000_000_i64, "SeverityText": "INFO", "body": "Hello", "TraceId": TRACE, "SpanId": SPAN}),
    ];
    for line in lines {
        let record = one(&line.to_string());
        assert_has_ids(&record);
        assert_eq!((record.format, record.message.as_str()), (LineFormat::Json, "Hello"), "{line}");
        assert_eq!(record.severity.as_ref().map(|severity| severity.number), Some(9), "{line}");
        assert_eq!(record.time_unix_nano.map(|nanos| nanos / 1_000_000_000), Some(1_795_440_033), "{line}");
    }
}

#[test]
fn json_inside_the_message_of_a_json_line_is_flattened_and_overrides_nothing() {
    let inner = json!({"method": "GET", "headers": {"accept": "*/*"}, "trace_id": "0", "span_id": "0"});
    let line = json!({"message": format!("Request details: {inner}"), "trace_id": TRACE, "span_id": SPAN});
    let record = one(&line.to_string());
    assert_has_ids(&record);
    assert_eq!(record.message, "Request details");
    assert_eq!(record.fields.str("headers.accept"), Some("*/*"));
    assert_eq!(record.fields.str("trace_id"), Some(TRACE));
    let without = one(&json!({ "message": format!("Request details: {inner}") }).to_string());
    assert_eq!((without.trace_id, without.span_id), (IdClaim::Absent, IdClaim::Absent));
}

#[test]
fn ids_behind_the_two_hundredth_field_are_found_and_the_fields_are_cut() {
    let mut line = serde_json::Map::new();
    for i in 0..250 {
        line.insert(format!("f{i}"), json!(i));
    }
    line.insert("trace_id".into(), json!(TRACE));
    line.insert("span_id".into(), json!(SPAN));
    let record = one(&serde_json::Value::Object(line).to_string());
    assert_has_ids(&record);
    assert_eq!(record.fields.len(), MAX_FIELDS);
}

#[test]
fn logfmt_is_structured_when_it_names_ids_or_level_and_message() {
    let ids = one(&format!("13:20 INFO handler trace_id={TRACE} span_id={SPAN} stored \"a.txt\""));
    assert_has_ids(&ids);
    assert_eq!((ids.format, ids.severity.unwrap().number), (LineFormat::Logfmt, 9));
    let logrus = one(r#"time="2026-11-23T13:20:33Z" level=warning msg="it is \"late\"" path=/files/"#);
    assert_eq!((logrus.format, logrus.message.as_str()), (LineFormat::Logfmt, r#"it is "late""#));
    assert_eq!(logrus.fields.str("path"), Some("/files/"));
    assert_eq!((logrus.trace_id, logrus.time_unix_nano), (IdClaim::Absent, Some(1_795_440_033_000_000_000)));
    assert_eq!(one("retries=3 timeout=5s").format, LineFormat::Text);
}

#[test]
fn colours_do_not_hide_a_pair() {
    assert_has_ids(&one(&format!(
        "\u{1b}[2mINFO\u{1b}[0m \u{1b}[3mtrace_id\u{1b}[0m\u{1b}[2m=\u{1b}[0m{TRACE} \u{1b}[3mspan_id\u{1b}[0m={SPAN}"
    )));
}

#[test]
fn anything_else_is_text_without_ids_and_fields() {
    for line in [
        "[2026-11-23 13:03:45 +0000] [2807] [INFO] Starting gunicorn 27.0.1",
        r#"Event {"resource": "/{proxy+}", "headers": {"X-Amzn-Trace-Id": "Root=1-63dd9630-1f7ec6c948e660f220ef3c92"}}"#,
        "  File \"/app/main.py\", line 3, in main",
        "{not json}",
        "[1, 2]",
        "GET /files/?content=hello 200",
    ] {
        let record = one(line);
        assert_eq!((record.format, record.message.as_str()), (LineFormat::Text, line));
        assert!(record.fields.is_empty() && record.trace_id == IdClaim::Absent && record.request_id.is_none());
    }
    assert_eq!(parse(" \r"), []);
}

#[test]
fn no_line_however_broken_makes_the_parser_panic() {
    let mut samples = vec![
        format!(
            "2026-11-23 13:07:17,524 INFO [i] [i.py:33] [trace_id={TRACE} span_id={SPAN} a=b] - Ünder: {{\"a\": [1]}}"
        ),
        format!(
            "[INFO]\t2026-11-23T13:20:33.150Z\t{REQUEST}\tx {{\"é\": \"\\u00e9\"}}[INFO]\t2026-11-23T13:20:33.150Z\t\ty"
        ),
        json!({"message": "a {\"b\": 1}", "trace_id": format!("00-{TRACE}-{SPAN}-01"), "ts": 1e300, "level": [1]})
            .to_string(),
        format!("level=info msg=\"é\\\" x\" xray_trace_id=1-é trace_id={TRACE}"),
        "{\"a\":".repeat(2_000),
        "{".repeat(10_000),
        "1-".into(),
    ];
    // A generator of its own, so that a failure repeats: xorshift64.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let alphabet: Vec<char> = "{}[]\"\\:=,\t 0a1-é\u{1b}\u{0}tracespan_idRoot=;INFO".chars().collect();
    for _ in 0..300 {
        let length = random() % 80;
        let mut line = String::new();
        for _ in 0..length {
            let pick = usize::try_from(random() % alphabet.len() as u64).unwrap_or(0);
            let _ = write!(line, "{}", alphabet[pick]);
        }
        samples.push(line);
    }
    for sample in samples {
        let short = sample.len() < 400;
        for (end, _) in sample.char_indices().filter(|(end, _)| short || end % 997 == 0) {
            parse(&sample[..end]);
            parse(&sample[end..]);
        }
        let bytes: Vec<u8> =
            sample.bytes().map(|byte| if random().is_multiple_of(9) { random() as u8 } else { byte }).collect();
        parse(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn colours_around_a_json_object_do_not_hide_it() {
    let line = format!("\u{1b}[32m{{\"msg\":\"hello\",\"trace_id\":\"{TRACE}\"}}\u{1b}[0m");
    let record = parse_line(&line, LogOrigin::Stdout, Arrival::default()).remove(0);
    assert_eq!((record.format, record.message.as_str()), (LineFormat::Json, "hello"));
    assert_eq!(record.trace_id.valid(), TRACE.parse().ok());
    assert_eq!(record.raw, line);
}
