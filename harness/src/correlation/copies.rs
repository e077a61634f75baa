//! Whether the copies of a record, a line and an OTLP log record, name the same ids.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use super::background::without_numbers;
use crate::{
    capture::Capture,
    telemetry::{LogOrigin, LogRecord, SpanId, TraceId, embedded_json},
};

/// What came of comparing lines with OTLP log records.
#[derive(Debug, Clone, Default)]
pub struct Copies {
    /// How many records came both ways with the same ids.
    pub agreeing: usize,
    /// Records that came both ways with different ids.
    pub disagreeing: Vec<Disagreement>,
    /// Records that came both ways with the same ids, an error one way and none the other.
    pub contradicting: Vec<Contradiction>,
    /// Structured lines without an OTLP copy, then OTLP log records without a line.
    pub one_way: Vec<OneWay>,
}

impl Copies {
    /// Whether an OTLP copy of one of the lines is still to come: the like of it, apart from words with digits, was exported before.
    pub fn is_expected(&self, capture: &Capture) -> bool {
        let waiting: HashSet<String> = self
            .one_way
            .iter()
            .filter(|one| one.written > one.exported && one.record.origin != LogOrigin::Otlp)
            .map(|one| without_numbers(&words(&one.record)))
            .collect();
        let exported = |record: &LogRecord| record.origin == LogOrigin::Otlp;
        !waiting.is_empty()
            && capture
                .logs()
                .iter()
                .any(|record| exported(record) && waiting.contains(&without_numbers(&words(record))))
    }
}

/// A record that came one way, and not as often the other.
#[derive(Debug, Clone)]
pub struct OneWay {
    /// The record.
    pub record: Arc<LogRecord>,
    /// How many lines the request has with this message.
    pub written: usize,
    /// How many OTLP log records.
    pub exported: usize,
}

impl fmt::Display for OneWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { record, written, exported } = self;
        match (written, exported) {
            (_, 0) => write!(f, "{:?} has no OTLP copy", record.message),
            (0, _) => write!(f, "{:?} came over OTLP and not as a line", record.message),
            _ => {
                let many = |count: &usize| if *count == 1 { "once".to_owned() } else { format!("{count} times") };
                write!(f, "{:?} was written {} and exported {}", record.message, many(written), many(exported))
            }
        }
    }
}

/// A record that came both ways with different ids.
#[derive(Debug, Clone)]
pub struct Disagreement {
    /// The line.
    pub line: Arc<LogRecord>,
    /// The OTLP log record.
    pub otlp: Arc<LogRecord>,
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, otlp } = self;
        write!(
            f,
            "{:?}: the line names trace {} span {}, its OTLP copy trace {} span {}",
            line.message, line.trace_id, line.span_id, otlp.trace_id, otlp.span_id
        )
    }
}

/// A record that is an error one way and none the other.
#[derive(Debug, Clone)]
pub struct Contradiction {
    /// The line.
    pub line: Arc<LogRecord>,
    /// The OTLP log record.
    pub otlp: Arc<LogRecord>,
}

impl Contradiction {
    fn between(line: &LogRecord, otlp: &LogRecord) -> bool {
        let number = |record: &LogRecord| record.severity.as_ref().map_or(0, |severity| severity.number);
        // Logs data model, SeverityNumber: up to 12 is INFO, from 17 on ERROR, 0 says nothing.
        let (is_info, is_error) = (|number: u8| (1..=12).contains(&number), |number: u8| number >= 17);
        let (line, otlp) = (number(line), number(otlp));
        (is_info(line) && is_error(otlp)) || (is_error(line) && is_info(otlp))
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |record: &LogRecord| {
            let severity = record.severity.as_ref();
            severity.map_or_else(String::new, |severity| match severity.text.as_str() {
                "" => severity.number.to_string(),
                text => text.to_owned(),
            })
        };
        let (line, otlp) = (text(&self.line), text(&self.otlp));
        write!(f, "{:?}: the severity of the line is {line}, that of its OTLP copy {otlp}", self.line.message)
    }
}

/// Pairs structured lines of stdout and stderr with OTLP log records of the same message.
///
/// A message that was written many times is paired by its ids first, so that only what is left over disagrees. Lines
/// of Lambda's tab form carry no ids and are left out. Ids that are absent and ids that are zero say the same.
pub fn compare_copies<'a>(records: impl IntoIterator<Item = &'a Arc<LogRecord>>) -> Copies {
    type LinesAndOtlp = (Vec<Arc<LogRecord>>, Vec<Arc<LogRecord>>);
    let mut by_message: HashMap<String, LinesAndOtlp> = HashMap::new();
    let mut order = Vec::new();
    for record in records {
        let tab = record.format == crate::telemetry::LineFormat::LambdaTab && record.trace_id.valid().is_none();
        if !record.format.is_structured() || tab {
            continue;
        }
        let words = words(record);
        let (lines, otlp) = by_message.entry(words.clone()).or_insert_with(|| {
            order.push(words);
            Default::default()
        });
        if record.origin == LogOrigin::Otlp { otlp.push(record.clone()) } else { lines.push(record.clone()) }
    }
    let mut copies = Copies::default();
    let mut otlp_only = Vec::new();
    for (lines, mut otlp) in order.iter().filter_map(|words| by_message.remove(words)) {
        let (written, exported) = (lines.len(), otlp.len());
        let one_way = |record| OneWay { record, written, exported };
        let mut left = Vec::new();
        for line in lines {
            let same = |copy: &Arc<LogRecord>| ids(copy) == ids(&line);
            let fits = |copy: &Arc<LogRecord>| same(copy) && !Contradiction::between(&line, copy);
            match otlp.iter().position(fits).or_else(|| otlp.iter().position(same)) {
                Some(at) => {
                    let copy = otlp.remove(at);
                    copies.agreeing += 1;
                    if Contradiction::between(&line, &copy) {
                        copies.contradicting.push(Contradiction { line, otlp: copy });
                    }
                }
                None => left.push(line),
            }
        }
        let mut otlp = otlp.into_iter();
        for line in left {
            match otlp.next() {
                Some(otlp) => copies.disagreeing.push(Disagreement { line, otlp }),
                None => copies.one_way.push(one_way(line)),
            }
        }
        otlp_only.extend(otlp.map(one_way));
    }
    copies.one_way.extend(otlp_only);
    copies
}

fn ids(record: &LogRecord) -> (Option<TraceId>, Option<SpanId>) {
    (record.trace_id.valid(), record.span_id.valid())
}

/// The first line of the message without the JSON behind it: a line of a log cannot hold more.
fn words(record: &LogRecord) -> String {
    let message = embedded_json(&record.message).map_or_else(|| record.message.clone(), |found| found.message);
    message.lines().next().unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        correlation::samples::record,
        telemetry::{IdClaim, LineFormat},
    };

    fn otlp(trace: Option<u8>, span: Option<u64>) -> Arc<LogRecord> {
        Arc::new(LogRecord { origin: LogOrigin::Otlp, format: LineFormat::Otlp, ..record(trace, span) })
    }

    #[test]
    fn copies_with_the_same_ids_agree_in_any_order() {
        let lines = [Arc::new(record(Some(1), Some(1))), Arc::new(record(Some(1), Some(2)))];
        let copies = compare_copies(lines.iter().chain(&[otlp(Some(1), Some(2)), otlp(Some(1), Some(1))]));
        assert_eq!((copies.agreeing, copies.disagreeing.len()), (2, 0));
        assert!(copies.one_way.is_empty());
    }

    #[test]
    fn a_copy_with_other_ids_disagrees_and_both_are_named() {
        let copies = compare_copies(&[Arc::new(record(Some(1), Some(1))), otlp(Some(1), Some(2))]);
        assert_eq!(copies.agreeing, 0);
        assert!(copies.disagreeing[0].to_string().contains("span 0000000000000001, its OTLP copy"));
    }

    #[test]
    fn an_error_one_way_that_is_none_the_other_contradicts_and_what_says_nothing_does_not() {
        let of = |record: &LogRecord, number: u8| {
            let severity = Some(crate::telemetry::Severity { number, text: String::new() });
            Arc::new(LogRecord { severity, ..record.clone() })
        };
        let (line, copy) = (record(Some(1), Some(1)), otlp(Some(1), Some(1)));
        let told = |lines: &[u8], copies: &[u8]| {
            let all =
                lines.iter().map(|&number| of(&line, number)).chain(copies.iter().map(|&number| of(&copy, number)));
            compare_copies(&all.collect::<Vec<_>>()).contradicting.len()
        };
        assert_eq!((told(&[17], &[9]), told(&[9], &[21])), (1, 1));
        assert_eq!((told(&[17], &[13]), told(&[17], &[0]), told(&[17], &[17])), (0, 0, 0));
        assert_eq!(told(&[17, 9], &[9, 17]), 0, "each has its copy");
    }

    #[test]
    fn a_copy_is_expected_where_the_like_of_a_line_was_exported_before_and_not_where_none_ever_was() {
        let said = |record: &LogRecord, message: &str| LogRecord { message: message.into(), ..record.clone() };
        let line = Arc::new(said(&record(Some(1), Some(1)), "order 7 stored"));
        let copy = said(&otlp(Some(2), Some(2)), "order 6 stored");
        let expected = |before: Vec<LogRecord>, of_request: &[Arc<LogRecord>]| {
            let store = crate::correlation::samples::store(Vec::new(), before);
            store.look(|capture| compare_copies(of_request).is_expected(capture))
        };
        assert!(expected(vec![copy.clone()], std::slice::from_ref(&line)));
        assert!(!expected(Vec::new(), std::slice::from_ref(&line)));
        assert!(!expected(vec![said(&copy, "access")], std::slice::from_ref(&line)));
        let came = Arc::new(said(&otlp(Some(1), Some(1)), "order 7 stored"));
        assert!(!expected(vec![copy], &[line, came]), "it is there");
    }

    fn one_way(records: &[Arc<LogRecord>]) -> Vec<String> {
        compare_copies(records).one_way.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_record_that_came_one_way_only_is_named() {
        assert_eq!(one_way(&[Arc::new(record(Some(1), Some(1)))]), ["\"hello\" has no OTLP copy"]);
        assert_eq!(one_way(&[otlp(Some(1), Some(1))]), ["\"hello\" came over OTLP and not as a line"]);
    }

    #[test]
    fn a_record_that_came_more_often_one_way_is_told_with_how_often_it_came() {
        let line = || Arc::new(record(Some(1), Some(1)));
        let told = one_way(&[line(), line(), otlp(Some(1), Some(1))]);
        assert_eq!(told, ["\"hello\" was written 2 times and exported once"]);
        let told = one_way(&[line(), otlp(Some(1), Some(1)), otlp(Some(1), Some(1)), otlp(Some(1), Some(1))]);
        assert_eq!(told, ["\"hello\" was written once and exported 3 times"; 2]);
    }

    #[test]
    fn zero_on_the_line_and_nothing_over_otlp_say_the_same_and_text_says_nothing() {
        let zero = LogRecord { trace_id: IdClaim::Zero, span_id: IdClaim::Zero, ..record(None, None) };
        let text = LogRecord { format: LineFormat::Text, ..record(None, None) };
        let copies = compare_copies(&[Arc::new(zero), otlp(None, None), Arc::new(text)]);
        assert_eq!((copies.agreeing, copies.one_way.len()), (1, 0));
    }
}
