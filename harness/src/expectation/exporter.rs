//! What a sound exporter does while its collector misbehaves: users do not notice, nothing is lost that could be kept,
//! nothing arrives twice, and what was refused for good is not sent again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    time::Duration,
};

use super::mismatch::{TOLD, counted, none_of};
use crate::{
    capture::{
        Capture, LogRow,
        sink::behaviour::{Incident, Item},
    },
    correlation::RequestEvidence,
    telemetry::LogOrigin,
};

/// An answer may take so many times as long as the median of the calm ones …
const TIMES: u32 = 10;

/// … and this much more, which a busy machine takes without any fault of the service. An exporter that makes users wait
/// waits for longer: for a retry, a timeout, an answer that does not come.
const FLOOR: Duration = Duration::from_millis(500);

/// The same of a single answer for most of which the machine held up what ran on it: what it counts is not all of it.
const FLOOR_BUSY: Duration = Duration::from_secs(1);

/// Of the time for which the machine held up what ran on it so many eighths are not counted: of a single answer, which may
/// have had bad luck with several processes one after the other, and of the one in the middle, which has not. On a machine that
/// always holds up, they may take eight times and twice as long; whoever waits for the collector does so in every answer.
const HELD_UP_ONE: u32 = 7;
const HELD_UP_MIDDLE: u32 = 4;

/// Fewer calm answers say nothing about what is usual.
pub const LEAST_CALM: usize = 3;

/// One answer of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Method and target.
    pub request: String,
    /// Status.
    pub status: u16,
    /// From sending to the end of the answer.
    pub took: Duration,
    /// For how long of it this machine held up what ran on it.
    pub held_up: Duration,
}

/// Whether the answers while the collector misbehaved are like the calm ones, of which there must be
/// [`LEAST_CALM`]: the same statuses, and none slower than ten times their median and half a second. What the machine
/// held up counts in part, so that whoever waits for the collector is found on the busiest machine too: an eighth of it, and
/// half where half of the answers are slow.
pub fn answers_as_before(calm: &[Answer], under: &[Answer]) -> Result<(), String> {
    let mut times: Vec<Duration> = calm.iter().map(|answer| answer.took).collect();
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let too_slow = |answer: &Answer, eighths: u32| {
        let Answer { request, status, took, held_up } = answer;
        let busy = *held_up * eighths / 8;
        let mostly_busy = eighths == HELD_UP_ONE && *held_up > *took / 2;
        let limit = median * TIMES + if mostly_busy { FLOOR_BUSY } else { FLOOR } + busy;
        let because = if busy.is_zero() { String::new() } else { format!(", {busy:?} of it for a busy machine") };
        (*took > limit)
            .then(|| format!("slow       {request} answered {status} in {took:?}, expected at most {limit:?}{because}"))
    };
    let mut by_time: Vec<&Answer> = under.iter().collect();
    by_time.sort_unstable_by_key(|answer| answer.took);
    let middle = by_time.get(by_time.len().saturating_sub(1) / 2);
    let middle = middle.and_then(|answer| too_slow(answer, HELD_UP_MIDDLE));
    let middle = middle.map(|text| format!("{text}; half of the {} answers took as long", under.len()));
    let slow = middle.into_iter().chain(under.iter().filter_map(|answer| too_slow(answer, HELD_UP_ONE)));
    let other = under.iter().filter_map(|answer| {
        let same = calm.iter().filter(|calm| calm.request == answer.request);
        let statuses: BTreeSet<u16> = same.map(|calm| calm.status).collect();
        (!statuses.is_empty() && !statuses.contains(&answer.status))
            .then(|| format!("status     {} answered {}, before it was {statuses:?}", answer.request, answer.status))
    });
    let wrong: Vec<String> = slow.chain(other).take(TOLD).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("{}\nbefore     {} answers, median {median:?}", wrong.join("\n"), calm.len()))
}

/// What a request leaves behind, by kind and name, without what differs from one request to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Telemetry(BTreeMap<String, usize>);

impl Telemetry {
    /// Spans, and log records that were exported.
    pub fn of(evidence: &RequestEvidence) -> Self {
        let spans = evidence.trace.spans().map(|span| format!("{} {:?}", span.kind, span.name));
        let logs = evidence.logs.iter().filter(|record| record.origin == LogOrigin::Otlp);
        let logs = logs.map(|record| format!("log record of {:?}", record.logger));
        Self(counted(spans.chain(logs)))
    }

    /// Whether nothing was received.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn missing_from(&self, found: &Self) -> Self {
        let missing = self.0.iter().filter_map(|(item, &count)| {
            let less = count.saturating_sub(found.0.get(item).copied().unwrap_or(0));
            (less > 0).then(|| (item.clone(), less))
        });
        Self(missing.collect())
    }

    fn count(&self) -> usize {
        self.0.values().sum()
    }
}

impl fmt::Display for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (item, count)) in self.0.iter().enumerate() {
            write!(f, "{}{count} {item}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// Whether each request that was sent while the collector misbehaved left at least as much as a calm one with the same
/// name did. Both are requests by name (method and target).
pub fn nothing_is_lost(calm: &[(String, Telemetry)], under: &[(String, Telemetry)]) -> Result<(), String> {
    let mut wrong = Vec::new();
    for (at, (name, found)) in under.iter().enumerate() {
        let same = calm.iter().filter(|(of, telemetry)| of == name && !telemetry.is_empty());
        let missing = same.map(|(_, usual)| usual.missing_from(found)).min_by_key(Telemetry::count);
        match missing {
            None => {
                wrong.push(format!("unknown    no telemetry of {name} came before, so what is lost cannot be told"))
            }
            Some(missing) if missing.is_empty() => {}
            Some(missing) => {
                wrong.push(format!("lost       of {name}, request {} of {}: {missing}", at + 1, under.len()))
            }
        }
    }
    none_of(wrong, |more| format!("lost       and so of {more} more"))
}

/// Whether no span and no exported log record came more than once.
pub fn nothing_came_twice(capture: &Capture) -> Result<(), String> {
    let mut wrong = Vec::new();
    let mut spans = HashMap::new();
    for span in capture.spans() {
        if let Some(first) = spans.insert((span.trace_id, span.span_id), span.arrival) {
            wrong.push(format!(
                "twice      {} {:?} ({}), {}",
                span.kind,
                span.name,
                span.span_id,
                apart(first.unix_nano, span.arrival.unix_nano)
            ));
        }
    }
    let mut records = HashMap::new();
    for record in capture.logs().only(LogRow::is_exported) {
        let Some(item) = Item::of_log(record) else { continue };
        // Two alike in one request are what the service wrote, not what the exporter sent again.
        match records.insert(item, record.arrival) {
            Some(first) if first != record.arrival => wrong.push(format!(
                "twice      log record {:?} of span {}, {}",
                record.message,
                record.span_id,
                apart(first.unix_nano, record.arrival.unix_nano)
            )),
            _ => {}
        }
    }
    told(wrong)
}

/// Whether nothing came again that the collector had refused for good, or called partly rejected: neither in a request
/// that it took nor in one that it refused too.
pub fn nothing_refused_came_again(capture: &Capture, incidents: &[Incident]) -> Result<(), String> {
    let mut wrong = Vec::new();
    for (at, incident) in incidents.iter().enumerate().filter(|(_, incident)| incident.act.is_final()) {
        let after = incident.arrival.seq;
        let spans = capture
            .spans()
            .since(after + 1)
            .filter(|span| incident.items.contains(&Item::Span(span.trace_id, span.span_id)));
        let records = capture
            .logs()
            .since(after + 1)
            .only(LogRow::is_exported)
            .filter(|record| Item::of_log(record).is_some_and(|item| incident.items.contains(&item)));
        let again = spans.count() + records.count();
        let refused = incidents[at + 1..].iter().filter(|later| !later.items.is_disjoint(&incident.items)).count();
        if again > 0 || refused > 0 {
            wrong.push(format!(
                "again      of a {} request that was {}: {again} items that were taken, {refused} requests that were not",
                incident.signal, incident.act
            ));
        }
    }
    told(wrong)
}

fn told(wrong: Vec<String>) -> Result<(), String> {
    none_of(wrong, |more| format!("           and {more} more"))
}

fn apart(first: u64, second: u64) -> String {
    format!("{:?} apart", Duration::from_nanos(second.saturating_sub(first)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::{
        capture::{Signal, Store, sink::behaviour::Act},
        correlation::{Options, request, samples},
        telemetry::{Arrival, LogRecord, Span, SpanKind},
    };

    fn answer(request: &str, status: u16, millis: u64) -> Answer {
        Answer { request: request.into(), status, took: Duration::from_millis(millis), held_up: Duration::ZERO }
    }

    #[test]
    fn answers_within_ten_times_the_median_and_half_a_second_are_as_before() {
        let calm = [answer("GET /", 200, 2), answer("GET /", 200, 4), answer("GET /", 200, 900)];
        assert_eq!(answers_as_before(&calm, &[answer("GET /", 200, 540)]), Ok(()));
        let refused = answers_as_before(&calm, &[answer("GET /", 200, 541)]).unwrap_err();
        assert!(refused.starts_with("slow       GET / answered 200 in 541ms, expected at most 540ms"), "{refused}");
    }

    #[test]
    fn a_machine_without_a_free_processor_excuses_most_of_one_answer_and_half_of_the_one_in_the_middle() {
        let calm = [answer("GET /", 200, 4), answer("GET /", 200, 4), answer("GET /", 200, 4)];
        let busy = |took: u64| {
            let took = Duration::from_millis(took);
            Answer { took, held_up: took, ..answer("GET /", 200, 0) }
        };
        let quick = answer("GET /", 200, 4);
        assert_eq!(answers_as_before(&calm, &[quick.clone(), busy(8320), quick.clone()]), Ok(()));
        let half = Answer { held_up: Duration::from_millis(400), ..answer("GET /", 200, 891) };
        let refused = answers_as_before(&calm, &[quick.clone(), half, quick.clone()]).unwrap_err();
        assert!(refused.contains("expected at most 890ms, 350ms of it for a busy machine"), "{refused}");
        let refused = answers_as_before(&calm, &[quick.clone(), busy(16000), quick.clone()]).unwrap_err();
        let expected = "slow       GET / answered 200 in 16s, expected at most 15.04s, 14s of it for a busy machine";
        assert!(refused.starts_with(expected), "{refused}");
        assert_eq!(answers_as_before(&calm, &[quick.clone(), busy(1080), busy(1080)]), Ok(()));
        let refused = answers_as_before(&calm, &[quick, busy(1090), busy(1090)]).unwrap_err();
        let expected = "slow       GET / answered 200 in 1.09s, expected at most 1.085s, 545ms of it for a busy machine; half of \
                        the 3 answers took as long";
        assert!(refused.starts_with(expected), "{refused}");
    }

    #[test]
    fn an_answer_with_another_status_is_not_as_before() {
        let calm = [answer("GET /", 200, 1), answer("GET /", 404, 1), answer("GET /x", 500, 1)];
        assert_eq!(answers_as_before(&calm, &[answer("GET /", 404, 1), answer("GET /new", 201, 1)]), Ok(()));
        let refused = answers_as_before(&calm, &[answer("GET /", 500, 1)]).unwrap_err();
        assert!(refused.starts_with("status     GET / answered 500, before it was {200, 404}"), "{refused}");
    }

    fn telemetry(names: &[&str]) -> Telemetry {
        let spans = names.iter().zip(1..).map(|(name, id)| {
            let parent = if id == 1 { 99 } else { 1 };
            let kind = if id == 1 { SpanKind::Server } else { SpanKind::Internal };
            samples::with(samples::span(id, Some(parent), name), kind, &[])
        });
        let delivery = samples::delivery();
        samples::store(spans.collect(), Vec::new())
            .look(|capture| Telemetry::of(&request(capture, &delivery, Options::default())))
    }

    #[test]
    fn a_request_that_left_what_a_calm_one_left_has_lost_nothing() {
        let calm = [("GET /".to_owned(), telemetry(&["a", "b"])), ("GET /".to_owned(), telemetry(&["a", "b", "c"]))];
        let named = |names: &[&str]| vec![("GET /".to_owned(), telemetry(names))];
        assert_eq!(nothing_is_lost(&calm, &named(&["a", "b"])), Ok(()));
        assert_eq!(nothing_is_lost(&calm, &named(&["a", "b", "c", "d"])), Ok(()));
        let lost = nothing_is_lost(&calm, &named(&["a"])).unwrap_err();
        assert_eq!(lost, "lost       of GET /, request 1 of 1: 1 INTERNAL \"b\"");
        let lost = nothing_is_lost(&calm, &named(&[])).unwrap_err();
        assert!(lost.contains("1 INTERNAL \"b\", 1 SERVER \"a\""), "{lost}");
    }

    #[test]
    fn without_a_calm_request_of_the_same_name_nothing_can_be_called_complete() {
        let under = [("GET /".to_owned(), telemetry(&["a"]))];
        for calm in [Vec::new(), vec![("GET /x".to_owned(), telemetry(&["a"]))], vec![("GET /".into(), telemetry(&[]))]]
        {
            assert!(nothing_is_lost(&calm, &under).unwrap_err().starts_with("unknown"));
        }
    }

    fn otlp(time: u64) -> LogRecord {
        let record = samples::record(Some(1), Some(1));
        LogRecord { origin: LogOrigin::Otlp, time_unix_nano: Some(time), ..record }
    }

    fn exported(store: &Store, spans: Vec<Span>, records: Vec<LogRecord>) {
        use crate::capture::{Decoded, Encoding, ExportRequest, Transport};
        for (signal, decoded) in [(Signal::Traces, Decoded::Spans(spans)), (Signal::Logs, Decoded::Logs(records))] {
            let request = ExportRequest {
                signal,
                transport: Transport::Grpc,
                encoding: Encoding::Protobuf,
                user_agent: String::new(),
                body: bytes::Bytes::new(),
                arrival: Arrival::default(),
            };
            store.add_values(request, decoded, Vec::new());
        }
    }

    #[test]
    fn different_spans_and_records_came_once_and_the_same_in_two_exports_twice() {
        let store = Store::default();
        exported(&store, vec![samples::span(1, None, "a"), samples::span(2, None, "a")], vec![otlp(1), otlp(2)]);
        assert_eq!(store.look(nothing_came_twice), Ok(()));
        exported(&store, vec![samples::span(2, None, "a")], Vec::new());
        let twice = store.look(nothing_came_twice).unwrap_err();
        assert!(twice.starts_with("twice      INTERNAL \"a\" (0000000000000002), "), "{twice}");
        let store = Store::default();
        exported(&store, Vec::new(), vec![otlp(1)]);
        exported(&store, Vec::new(), vec![otlp(1)]);
        assert!(store.look(nothing_came_twice).unwrap_err().starts_with("twice      log record \"hello\" of span"));
    }

    #[test]
    fn records_alike_in_one_export_or_without_a_time_are_no_second_copies() {
        let store = Store::default();
        exported(&store, Vec::new(), vec![otlp(1), otlp(1)]);
        let timeless = LogRecord { time_unix_nano: None, ..otlp(1) };
        exported(&store, Vec::new(), vec![timeless.clone()]);
        exported(&store, Vec::new(), vec![timeless]);
        assert_eq!(store.look(nothing_came_twice), Ok(()));
    }

    fn incident(seq: u64, act: Act, items: &[Item]) -> Incident {
        let arrival = Arrival { seq, unix_nano: 0 };
        Incident { arrival, signal: Signal::Traces, act, items: items.iter().cloned().collect::<HashSet<_>>() }
    }

    #[test]
    fn what_was_refused_for_good_must_come_in_no_later_request() {
        let store = Store::default();
        exported(&store, vec![samples::span(1, None, "a")], Vec::new());
        let refuse = |status| Act::Refuse { status: http::StatusCode::from_u16(status).unwrap(), retry: None };
        let item = [Item::Span(samples::trace_id(1), samples::span_id(1))];
        let judged = |incidents: &[Incident]| store.look(|capture| nothing_refused_came_again(capture, incidents));
        // The span came with the arrival 1.
        assert_eq!(judged(&[incident(1, Act::Partial, &item)]), Ok(()));
        assert_eq!(judged(&[incident(0, refuse(503), &[])]), Ok(()));
        let again = judged(&[incident(0, refuse(400), &item)]).unwrap_err();
        assert!(again.contains("refused with 400 (InvalidArgument): 1 items that were taken, 0 requests"), "{again}");
        let again = judged(&[incident(5, refuse(400), &item), incident(6, refuse(400), &item)]).unwrap_err();
        assert!(again.contains("0 items that were taken, 1 requests that were not"), "{again}");
    }
}
