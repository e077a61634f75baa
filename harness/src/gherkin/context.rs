//! What a failure says besides the mismatch: which trace, on which deployment, what the verdict rests on, what came and when,
//! and what was written around it.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use super::observe::Seen;
use crate::{
    capture::Mark,
    config,
    correlation::{
        FoundBy, RequestEvidence,
        segments::{drawn, segments},
    },
    stimulus::{Delivery, Invocation},
    telemetry::{LogOrigin, LogRecord},
};

/// Lines of a trace that a message shows; the rest is in the evidence.
const TREE_AT_MOST: usize = 40;
/// Spans in other traces that a message names.
const ELSEWHERE_AT_MOST: usize = 5;
/// Log lines that a message shows.
const LINES_AT_MOST: usize = 6;
/// Characters of a log line that a message shows.
const LINE_AT_MOST: usize = 160;
/// Spans that never came and a message names.
const MISSING_AT_MOST: usize = 8;

/// What is to be said behind `mismatch` on `spec`; `complete` is the proof, or why there is none.
pub(super) fn context(seen: &Seen<'_>, spec: &config::Deployment, mismatch: &str, complete: &str) -> String {
    let Seen { evidence, delivery, .. } = seen;
    let mut text = String::new();
    let trace = match (evidence.trace_id(), evidence.caller) {
        (Some(id), _) => id.to_string(),
        (None, Some(caller)) => format!("{} (the caller's; no span of it)", caller.trace_id),
        (None, None) => "none".to_owned(),
    };
    let start = match &delivery.invocation {
        Some(invocation) if invocation.cold_start => ", cold start",
        Some(_) => ", warm",
        None => "",
    };
    let _ = write!(text, "trace      {trace} · {}{start}", spec.name);
    if !complete.is_empty() {
        let _ = write!(text, " · {}", complete.trim_start_matches("unproven   "));
    }
    let _ = write!(
        text,
        "\nreceived   {}, {}; {} {} answered {} in {} ms",
        counted(evidence.trace.len(), "span"),
        counted(evidence.logs.len(), "log record"),
        delivery.method,
        delivery.target,
        delivery.response.status,
        delivery.took().as_millis()
    );
    if let Some(trouble) = delivery.invocation.as_ref().and_then(Invocation::trouble) {
        let _ = write!(text, "\n{trouble}");
    }
    let segments = segments(seen.capture, delivery);
    let tree = drawn(&segments, &evidence.trace);
    for line in tree.iter().take(TREE_AT_MOST) {
        let _ = write!(text, "\n             {line}");
    }
    if tree.len() > TREE_AT_MOST {
        let _ = write!(text, "\n             and {} more lines in the evidence", tree.len() - TREE_AT_MOST);
    }
    if let Some(arrived) = arrived(evidence, delivery) {
        let _ = write!(text, "\narrived    {arrived}");
    }
    // Where nothing came at all, the reason may lie before the request.
    let since = if evidence.trace.is_empty() { 0 } else { delivery.sent.seq };
    for trouble in seen.capture.trouble_at_the_sink(since) {
        let _ = write!(text, "\nsink       {trouble}");
    }
    for standstill in stood_still(seen) {
        let _ = write!(text, "\nmachine    {standstill}");
    }
    if let Some(hint) = signalled(seen, spec) {
        let _ = write!(text, "\nstopped    {hint}");
    }
    for missing in never_came(evidence, mismatch) {
        let _ = write!(text, "\nmissing    {missing}");
    }
    let detached: Vec<String> = evidence
        .detached()
        .chain(&evidence.untried.roots)
        .take(ELSEWHERE_AT_MOST)
        .map(|span| format!("{} {:?}, a root in trace {}", span.kind, span.name, span.trace_id))
        .filter(|text| !mismatch.contains(text.as_str()))
        .collect();
    if !detached.is_empty() {
        let _ = write!(text, "\nelsewhere  {}", detached.join("; "));
    }
    if evidence.found_by == FoundBy::Nothing && !evidence.candidates.is_empty() {
        let nearest = evidence.candidates.iter().rev().take(ELSEWHERE_AT_MOST);
        let names: Vec<String> =
            nearest.map(|span| format!("{} {:?} in trace {}", span.kind, span.name, span.trace_id)).collect();
        let _ = write!(text, "\nelsewhere  {}", names.join("; "));
    }
    for line in lines(evidence, delivery) {
        let _ = write!(text, "\nwrote      {line}");
    }
    text
}

/// The times since the request was sent in which nothing ran on this machine.
fn stood_still(seen: &Seen<'_>) -> Vec<String> {
    let Seen { delivery, capture, .. } = seen;
    let lifecycle = capture.lifecycle().iter();
    let told = lifecycle.filter_map(|entry| match entry.mark {
        Mark::StoodStill { from, micros } => Some((from, Duration::from_micros(micros))),
        _ => None,
    });
    let ended = |from: u64, took: Duration| from.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    let told = told.filter(|&(from, took)| ended(from, took) >= delivery.sent.unix_nano);
    told.map(|(from, took)| {
        let when = by_the_answer(from, delivery);
        format!(
            "nothing ran on it for {:.1} s, from {when}: an exporter that gives up after seconds may have lost this for that",
            took.as_secs_f64()
        )
    })
    .collect()
}

/// What to know of a stop behind the request where nobody chose who is signalled.
fn signalled(seen: &Seen<'_>, spec: &config::Deployment) -> Option<&'static str> {
    let after = seen.delivery.sent.seq;
    let lifecycle = seen.capture.lifecycle().iter().filter(|entry| entry.arrival.seq > after);
    let stopped = lifecycle.map(|entry| &entry.mark).any(|mark| matches!(mark, Mark::StopRequested { .. }));
    (stopped && spec.kind == config::Kind::Process && spec.signal_to.is_none()).then_some(
        "every process of the group was signalled; `signal-to = \"leader\"` signals the first one alone, as `docker stop` does",
    )
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// When spans and exported records came, by the answer.
fn arrived(evidence: &RequestEvidence, delivery: &Delivery) -> Option<String> {
    let spans: Vec<u64> = evidence.trace.spans().map(|span| span.arrival.unix_nano).collect();
    let records = evidence.logs.iter().filter(|record| record.origin == LogOrigin::Otlp);
    let records: Vec<u64> = records.map(|record| record.arrival.unix_nano).collect();
    let spans = lapse(&spans, delivery, "spans");
    let all: Vec<String> = spans.into_iter().chain(lapse(&records, delivery, "exported log records")).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn lapse(moments: &[u64], delivery: &Delivery, what: &str) -> Option<String> {
    let (first, last) = (*moments.iter().min()?, *moments.iter().max()?);
    let (first, last) = (by_the_answer(first, delivery), by_the_answer(last, delivery));
    Some(if first == last { format!("{what} {last}") } else { format!("{what} {first} to {last}") })
}

fn by_the_answer(moment: u64, delivery: &Delivery) -> String {
    let answered = delivery.answered.unix_nano;
    let milliseconds = moment.abs_diff(answered) / 1_000_000;
    let side = if moment < answered { "before" } else { "behind" };
    format!("{milliseconds} ms {side} the answer")
}

/// Spans that the service wrote ids of and never exported, with who names them; those that `mismatch` tells of are left out.
fn never_came(evidence: &RequestEvidence, mismatch: &str) -> Vec<String> {
    if !evidence.sampled() {
        return Vec::new();
    }
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in evidence.not_received() {
        let (Some(trace_id), Some(span_id)) = (record.trace_id.valid(), record.span_id.valid()) else { continue };
        if mismatch.contains(&span_id.to_string()) {
            continue;
        }
        let by = format!("{} {:?}", record.origin, short(&record.message));
        let by_whom = named.entry(format!("span {span_id} of the trace {trace_id}")).or_default();
        if !by_whom.contains(&by) {
            by_whom.push(by);
        }
    }
    let rest = named.len().saturating_sub(MISSING_AT_MOST);
    let told = named.into_iter().take(MISSING_AT_MOST);
    let told = told.map(|(span, by)| format!("{span} was logged and never exported: {}", by.join(", ")));
    told.chain((rest > 0).then(|| format!("and {rest} more spans that were logged and never exported"))).collect()
}

/// The last lines of stdout and stderr that are the request's; where it wrote none, its exported records.
fn lines(evidence: &RequestEvidence, delivery: &Delivery) -> Vec<String> {
    let mut all: Vec<&Arc<LogRecord>> = evidence.logs.iter().chain(&evidence.text).collect();
    if all.iter().any(|record| record.origin != LogOrigin::Otlp) {
        all.retain(|record| record.origin != LogOrigin::Otlp);
    }
    all.sort_by_key(|record| record.arrival);
    let before = all.len().saturating_sub(LINES_AT_MOST);
    let shown = all.into_iter().skip(before).map(|record| {
        let level = record.severity.as_ref().map_or("", |severity| severity.text.as_str());
        let when = by_the_answer(record.arrival.unix_nano, delivery);
        format!("{} {level:<5} {} ({when})", record.origin, short(&record.message))
    });
    let cut = (before > 0).then(|| format!("{before} lines more, and then"));
    cut.into_iter().chain(shown).collect()
}

fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(LINE_AT_MOST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        capture::Store,
        correlation::{Options, request, samples},
        telemetry::Arrival,
    };

    const SECOND: u64 = 1_000_000_000;

    fn told(from: u64, micros: u64) -> Vec<String> {
        let store = Store::default();
        store.mark(Mark::StoodStill { from, micros });
        let at = |seconds: u64| Arrival { seq: seconds, unix_nano: seconds * SECOND };
        let delivery = Delivery { sent: at(10), answered: at(11), ..samples::delivery() };
        store.look(|capture| {
            let evidence = request(capture, &delivery, Options::default());
            stood_still(&Seen { evidence, delivery: &delivery, capture, skew: Duration::ZERO })
        })
    }

    #[test]
    fn a_standstill_of_the_machine_since_the_request_was_sent_is_named_and_an_earlier_one_is_not() {
        let standstill = told(12 * SECOND, 6_200_000);
        assert!(
            standstill[0].starts_with("nothing ran on it for 6.2 s, from 1000 ms behind the answer"),
            "{standstill:?}"
        );
        assert_eq!(told(9 * SECOND, 1_500_000).len(), 1, "it was not over when the request was sent");
        assert!(told(8 * SECOND, 1_500_000).is_empty());
    }
}
