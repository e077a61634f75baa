//! Steps about log records and lines.

use std::sync::Arc;

use super::super::{
    observe::Seen,
    registry::{Keyword, Need, StepDefinition},
};
use super::trace::{named, values};
use crate::{
    correlation::{RequestEvidence, Stranger, compare_copies, correlated},
    expectation::{LogMatcher, TextMatcher},
    report::Problem,
    telemetry::{LogOrigin, LogRecord},
};

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        keyword: Keyword::Then,
        expression: "every log line of the request carries the trace ID and the ID of a span in it",
        about: "The five conditions of “the request is correlated” for every structured line and every OTLP log record of \
                every request of the scenario; there must be at least one. A line without ids counts \
                as the request's when it quotes its method and path or its User-Agent, or when it came while nothing else was \
                asked of the service and no such line, apart from its numbers, comes when nothing is: what a background \
                thread repeats is not the request's. A line that came meanwhile and names a span of an earlier request, which had \
                ended before, fails too. What matches `ignore-lines` is left out.",
        example: "Then every log line of the request carries the trace ID and the ID of a span in it",
        need: Need::Alone,
        run: |world, _| Box::pin(async { world.scene()?.finally_each(every_record_is_correlated).await }),
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "there is a log line {text}",
        about: "A line of the request contains this text in its message (or fits `/…/`). A log line is a line of stdout or \
                stderr; where the service writes no structured one for the request, its OTLP log records are meant too. A line of text \
                without ids is the request's when it came while that was under way.",
        example: "Then there is a log line \"File not found\"",
        need: Need::Alone,
        run: |world, arguments| {
            Box::pin(async {
                let matcher = saying(arguments.text(0))?;
                world.scene()?.eventually(|seen| find(&matcher, seen).map(|_| ())).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "there is no log line {text}",
        about: "Judged once completeness is proven.",
        example: "Then there is no log line \"panicked\"",
        need: Need::Alone,
        run: |world, arguments| {
            Box::pin(async {
                let matcher = saying(arguments.text(0))?;
                world
                    .scene()?
                    .finally(|seen| match find(&matcher, seen) {
                        Ok(found) => Err(format!("found      {} line: {}", found[0].origin, found[0].raw)),
                        Err(_) => Ok(()),
                    })
                    .await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the log line {text} has the fields",
        about: "One line with this message has all these fields, by their dotted paths as CloudWatch Logs discovers them; JSON \
                inside the message counts.",
        example: "Then the log line \"Request details\" has the fields\n  | field          | value              |\n  | headers.accept \
                  | application/json,*/* |",
        need: Need::Alone,
        run: |world, arguments| {
            Box::pin(async {
                let fields = values(arguments.table(&["field", "value"])?)?;
                let matcher = LogMatcher { fields, ..saying(arguments.text(0))? };
                world.scene()?.eventually(|seen| find(&matcher, seen).map(|_| ())).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the log line {text} has the level {text}",
        about: "One line with this message has this level; `warn` and `WARNING` are the same.",
        example: "Then the log line \"File not found\" has the level \"ERROR\"",
        need: Need::Alone,
        run: |world, arguments| {
            Box::pin(async {
                let level = Some(arguments.text(1).to_owned());
                let matcher = LogMatcher { level, ..saying(arguments.text(0))? };
                world.scene()?.eventually(|seen| find(&matcher, seen).map(|_| ())).await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the log line {text} belongs to the span {text}",
        about: "One line with this message names a span of this name in the trace of the request.",
        example: "Then the log line \"Request details\" belongs to the span \"GET /files/\"",
        need: Need::Alone,
        run: |world, arguments| {
            Box::pin(async {
                let (line, span) = (saying(arguments.text(0))?, named(arguments.text(1))?);
                world
                    .scene()?
                    .eventually(|seen| {
                        let lines = find(&line, seen)?;
                        let spans = span.find(seen.evidence.trace.spans()).map_err(|no_match| no_match.to_string())?;
                        let belongs = |record: &Arc<LogRecord>| {
                            spans.iter().any(|span| {
                                record.span_id.valid() == Some(span.span_id)
                                    && record.trace_id.valid() == Some(span.trace_id)
                            })
                        };
                        if lines.iter().any(belongs) {
                            return Ok(());
                        }
                        let record = &lines[0];
                        let names = record.named();
                        let named = names.and_then(|(trace_id, span_id)| seen.capture.span(trace_id, span_id));
                        let named = named.map_or_else(
                            || match record.span_id.valid() {
                                None => "a line that names no span".to_owned(),
                                Some(span_id) => {
                                    format!("span {span_id} (trace {}), which was not received", record.trace_id)
                                }
                            },
                            |span| format!("span {} of {} {:?}", span.span_id, span.kind, span.name),
                        );
                        Err(format!("expected   span {} of {:?}\nfound      {named}", spans[0].span_id, spans[0].name))
                    })
                    .await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "the log lines and the exported log records agree",
        about: "Every structured line of the request has an OTLP log record with the same message and ids, and the other way \
                round; there is at least one pair.",
        example: "Then the log lines and the exported log records agree",
        need: Need::Alone,
        run: |world, _| {
            Box::pin(async {
                world
                    .scene()?
                    .finally(|seen| {
                        let copies = compare_copies(&seen.evidence.logs);
                        let mut wrong: Vec<String> =
                            copies.disagreeing.iter().map(|pair| format!("differs    {pair}")).collect();
                        let mut alone: Vec<String> =
                            copies.one_way.iter().map(|record| format!("alone      {record}")).collect();
                        // Each of several alike says the same.
                        alone.dedup();
                        wrong.extend(alone);
                        if wrong.is_empty() && copies.agreeing == 0 {
                            wrong.push("received   no line with an OTLP copy".into());
                        }
                        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
                    })
                    .await
            })
        },
    },
    StepDefinition {
        keyword: Keyword::Then,
        expression: "every log line is structured",
        about: "No line that came during the request is mere text, and at least one is structured.",
        example: "Then every log line is structured",
        need: Need::Alone,
        run: |world, _| {
            Box::pin(async {
                world
                    .scene()?
                    .finally_each(|seen| {
                        let text: Vec<String> =
                            seen.evidence.text.iter().map(|line| format!("text       {}", line.raw)).collect();
                        let lines = seen.evidence.logs.iter().any(|record| record.origin != LogOrigin::Otlp);
                        match (text.is_empty(), lines) {
                            (true, true) => Ok(()),
                            (true, false) => Err("received   no line at all".into()),
                            (false, _) => Err(text.join("\n")),
                        }
                    })
                    .await
            })
        },
    },
];

/// Records whose message contains the text, or fits the expression.
fn saying(text: &str) -> Result<LogMatcher, Problem> {
    let message = match TextMatcher::parse(text).map_err(|error| Problem::from_error(&error))? {
        TextMatcher::Exact(text) => TextMatcher::Contains(text),
        other => other,
    };
    Ok(LogMatcher { message: Some(message), ..LogMatcher::default() })
}

/// Among the lines of a request; among its OTLP log records and lines of text when it wrote no structured line.
fn find(matcher: &LogMatcher, seen: &Seen<'_>) -> Result<Vec<Arc<LogRecord>>, String> {
    let RequestEvidence { logs, text, .. } = &seen.evidence;
    let is_line = |record: &&Arc<LogRecord>| record.origin != LogOrigin::Otlp;
    let has_lines = logs.iter().any(|record| is_line(&record));
    let meant = logs.iter().chain(text).filter(|record| !has_lines || is_line(record));
    matcher.find(meant).map_err(|no_match| no_match.to_string())
}

/// The five conditions for every record of a request, all that is wrong at once.
pub(super) fn every_record_is_correlated(seen: &Seen<'_>) -> Result<(), String> {
    let evidence = &seen.evidence;
    if evidence.logs.is_empty() {
        return Err(nothing_structured(evidence));
    }
    let wrong: Vec<String> = evidence
        .logs
        .iter()
        .filter_map(|record| {
            let failures = correlated(record, evidence).err()?;
            let reasons: Vec<String> =
                failures.iter().map(|failure| format!("({}) {failure}", failure.condition())).collect();
            let among = |records: &[Arc<LogRecord>]| records.iter().any(|other| Arc::ptr_eq(other, record));
            let guessed = if among(&evidence.repeated) {
                "; it is taken for the request's because such a line came again each time the request was repeated, and not in the \
                 times between"
            } else if among(&evidence.guessed) {
                "; it is taken for the request's because nothing else was asked of the service when it came, and it did not \
                 come when nothing was"
            } else {
                ""
            };
            // An error that a Lambda runtime writes itself has no message.
            let said = if record.message.is_empty() { &record.raw } else { &record.message };
            Some(format!("line       {} {said:?}: {}{guessed}", record.origin, reasons.join("; ")))
        })
        .collect();
    let wrong: Vec<String> = wrong.into_iter().chain(left_behind(evidence)).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let no_ids = |record: &Arc<LogRecord>| {
        record.origin != LogOrigin::Otlp && record.trace_id.valid().is_none() && correlated(record, evidence).is_err()
    };
    let hint = if evidence.logs.iter().any(no_ids) {
        "\nhint       lines that rightly carry no ids (a server's access log outside of the span, background work) are left \
         out with a regular expression in `ignore-lines` of tracegate.toml"
    } else {
        ""
    };
    Err(wrong.join("\n") + hint)
}

/// Lines that came during the request with the ids of an earlier one.
fn left_behind(evidence: &RequestEvidence) -> impl Iterator<Item = String> {
    evidence.left_behind.iter().map(|(record, span)| {
        format!(
            "line       {} {:?}: (3) it came during this request and names the span {} of another one, {} {:?}, which had \
             ended before this one was sent",
            record.origin, record.message, span.span_id, span.kind, span.name
        )
    })
}

/// Why there is nothing to judge, with what came instead.
fn nothing_structured(evidence: &RequestEvidence) -> String {
    let mut message = "received   no log record and no structured line of the request".to_owned();
    if let Some(line) = evidence.text.first() {
        message += &format!(
            "\n           {} lines came that are mere text and make no claim, the first one {:?}; a line is structured when it \
             is JSON, logfmt, or has its ids as trace_id=… span_id=…",
            evidence.text.len(),
            line.raw
        );
    }
    let named: Vec<String> = evidence
        .strangers
        .iter()
        .filter(|stranger| matches!(stranger, Stranger::Record { .. }))
        .map(|stranger| format!("\nstranger   {stranger}"))
        .collect();
    message + &named.concat()
}
