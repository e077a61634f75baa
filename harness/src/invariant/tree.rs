//! Rules about ids, parents, and the tree of a request.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    Grade::{Advice, Rule as Always},
    Rule, Subject,
};
use crate::{
    capture::{Mark, sink::behaviour::Item},
    correlation::{Orphan, Stranger, detached::SpanShape, xray::XrayHeader},
    stimulus::{ContextForm, Delivery},
    telemetry::{LogOrigin, LogRecord, Span, SpanId, SpanKind},
};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "valid-ids",
        grade: Always,
        about: "nothing that is exported is malformed: no zero or short ids, no body that does not decode",
        limits: "",
        source: "W3C Trace Context 3.2.2; opentelemetry-proto",
        check: |subject| {
            let during = |seq: u64| (subject.delivery.sent.seq..=subject.capture.last_seq()).contains(&seq);
            let faults = subject.capture.faults().iter().filter(|fault| during(fault.arrival.seq));
            faults.map(|fault| format!("{}: {}", fault.signal, fault.reason)).collect()
        },
    },
    Rule {
        name: "exports-arrive",
        grade: Always,
        about: "no export request goes to a path at which no signal is taken",
        limits: "Judged as a rule where it can only be meant for a collector: posted as protobuf or JSON to `/`, to a path that ends \
                 like one of OTLP's, or by an OTLP exporter. A signal whose exporter is off, or that another endpoint gets, sends \
                 nothing here.",
        source: "OTLP specification 1.3, OTLP/HTTP Request; OpenTelemetry specification, OTLP exporter, Endpoint URLs for OTLP/HTTP",
        check: |subject| {
            if !subject.first {
                return Vec::new();
            }
            let marks = subject.capture.lifecycle().iter().map(|entry| &entry.mark);
            marks.filter_map(|mark| if let Mark::Astray { what } = mark { Some(what.clone()) } else { None }).collect()
        },
    },
    Rule {
        name: "remote-parent",
        grade: Always,
        about: "the entry span hangs on a parent that the request names: the client's, on Lambda also that of the runtime's \
                header or of the event's",
        limits: "An entry span without a parent is right where a header names a trace and no parent, and where the service \
                 starts a trace of its own (see `carries-on`). Where the request names no parent, nothing is judged, nor below a \
                 span that the collector refused for good, because the scenario said so. A proxy whose spans go elsewhere is a reason \
                 for `@except:remote-parent`.",
        source: "W3C Trace Context 3.2.2.4, parent-id; OpenTelemetry specification, Context, Propagators API",
        check: remote_parent,
    },
    Rule {
        name: "one-entry",
        grade: Always,
        about: "the request enters a process once: neither two server spans, one inside the other, nor a span of its inner work, \
                inside of it or behind its answer, hang on the client's span",
        limits: "Spans of several processes are not judged, nor spans one after the other: what passes a request on unchanged \
                 may ask several services, and again.",
        source: "OpenTelemetry specification, Trace API, SpanKind: a SERVER span covers the handling of one remote request",
        check: one_entry,
    },
    Rule {
        name: "no-orphan",
        grade: Always,
        about: "the parent of every span below the entry span is received too",
        limits: "Judged once it is proven that nothing more will come. What the collector refused for good, because the scenario \
                 said so, is not missed.",
        source: "instrumentation-score SPA-002",
        check: |subject| {
            if !subject.complete {
                return Vec::new();
            }
            let entries: Vec<_> = subject.evidence.entries.iter().map(|entry| entry.span_id).collect();
            let refused =
                |orphan: &Orphan| subject.evidence.refused.contains(&(orphan.span.trace_id, orphan.missing_parent));
            let orphans = subject.evidence.trace.orphans.iter().filter(|orphan| !refused(orphan));
            orphans.filter(|orphan| !entries.contains(&orphan.span.span_id)).map(ToString::to_string).collect()
        },
    },
    Rule {
        name: "no-duplicate",
        grade: Always,
        about: "no span and no log record is exported twice, and no two spans share an id",
        limits: "An export that the sink has taken is acknowledged at once. One that is sent again nevertheless comes from an \
                 exporter that does not wait for its answer, or from two exporters. Log records are the same when all of them \
                 is, the time included; where a clock tells only milliseconds apart (in one export microseconds), two alike \
                 may be two, unless every record of the request came again.",
        source: "OpenTelemetry specification, Trace SDK, span processors: OnEnd is called once",
        check: |subject| {
            let spans = subject.evidence.trace.duplicates.iter().map(ToString::to_string);
            spans.chain(records_twice(&subject.evidence.logs)).collect()
        },
    },
    Rule {
        name: "no-cycle",
        grade: Always,
        about: "no span is its own ancestor",
        limits: "",
        source: "OpenTelemetry specification, overview: a trace is a tree",
        check: |subject| {
            let cycles = subject.evidence.trace.cycles.iter();
            cycles.map(|cycle| format!("the spans {cycle:?} hang on each other")).collect()
        },
    },
    Rule {
        name: "one-trace",
        grade: Always,
        about: "all spans of a request are in one trace",
        limits: "Spans with a link to the request say whose they are, and may be elsewhere. Root spans that only the time \
                 attributes, and spans under an earlier request that was over, are judged where nothing else was asked of the \
                 service, and not when their like also begins by itself. Root spans of other \
                 processes or behind the answer, and spans in the trace of another request, are the request's where they begin \
                 again each time it is repeated, which is tried with a GET request only. What an earlier request deferred is its own: it counts \
                 only where that one had such a span while it was under way, and this one has none. A SERVER span under a CLIENT \
                 span of an earlier request counts where that one was over and has another such, and a CLIENT span of this one \
                 was open and has none.",
        source: "OpenTelemetry specification, overview: a trace is a transaction",
        check: |subject| {
            let split = |stranger: &&Stranger| match stranger {
                Stranger::OtherTrace { .. } | Stranger::Detached { .. } | Stranger::Repeated { .. } => true,
                // This request's own such span may still be on its way.
                Stranger::Stale { .. } | Stranger::StaleCall { .. } => subject.complete,
                Stranger::SameTrace { .. } | Stranger::Record { .. } => false,
            };
            alike_once(subject.evidence.strangers.iter().filter(split))
        },
    },
    Rule {
        name: "carries-on",
        grade: Advice,
        about: "the service carries on the trace of the client that calls it",
        limits: "Advice, because a service at the edge may start a new trace on purpose, and one may not know the headers. \
                 A new trace with a link to the client's span is not mentioned.",
        source: "W3C Trace Context 3.3 and 4.3, where restarting a trace is for front gates",
        check: carries_on,
    },
];

/// Each stranger once of those that are alike but for their numbers, with how many there are: one fault cuts off many spans.
fn alike_once<'a>(strangers: impl Iterator<Item = &'a Stranger>) -> Vec<String> {
    let mut told: Vec<(_, &Stranger, usize)> = Vec::new();
    for stranger in strangers {
        let alike = (std::mem::discriminant(stranger), stranger.span().map(|span| SpanShape::of(span)));
        match told.iter_mut().find(|(other, ..)| *other == alike) {
            Some((.., count)) => *count += 1,
            None => told.push((alike, stranger, 1)),
        }
    }
    let with_count = |(_, stranger, count): (_, &Stranger, usize)| match count {
        1 => stranger.to_string(),
        _ => format!("{stranger}; {} more are like it", count - 1),
    };
    told.into_iter().map(with_count).collect()
}

/// The span ids that the entry span may hang on, and whether it may hang on nothing.
fn told(delivery: &Delivery) -> (Vec<SpanId>, bool) {
    let mut parents = delivery.remote_parents();
    let header = delivery.invocation.as_ref().and_then(|invocation| invocation.event_trace_header.as_deref());
    let header = header.and_then(|header| header.parse::<XrayHeader>().ok());
    let root_only = header.as_ref().is_some_and(|header| header.parent.is_none());
    parents.extend(header.and_then(|header| header.parent));
    let may_be_root = root_only || matches!(delivery.form, ContextForm::XrayRoot | ContextForm::Absent);
    (parents, may_be_root)
}

fn is_told(subject: &Subject<'_>, span: &Span) -> bool {
    subject.evidence.told_traces.contains(&span.trace_id)
}

fn remote_parent(subject: &Subject<'_>) -> Vec<String> {
    let (parents, may_be_root) = told(subject.delivery);
    if parents.is_empty() {
        return Vec::new();
    }
    // What the collector refused for good is above it, and nobody knows what that hung on.
    let refused = |span: &Span, parent| subject.evidence.refused.contains(&(span.trace_id, parent));
    let wrong = |span: &Span| match span.parent_span_id {
        Some(parent) if refused(span, parent) => None,
        // The parent of a span whose trace is another one may have been named by another request.
        Some(parent) if parents.contains(&parent) && is_told(subject, span) => None,
        Some(parent) if subject.complete => {
            let trace = if is_told(subject, span) { String::new() } else { format!(" in the trace {}", span.trace_id) };
            Some(format!(
                "{} {:?} hangs on {parent}{trace}, which no header of the request names",
                span.kind, span.name
            ))
        }
        Some(_) => None,
        None if is_told(subject, span) && !may_be_root => {
            let named = parents.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            Some(format!(
                "{} {:?} is in the client's trace and hangs on nothing; the request names the parent {named}",
                span.kind, span.name
            ))
        }
        None => None,
    };
    subject.evidence.entries.iter().filter_map(|entry| wrong(entry)).collect()
}

/// Log records that came in several export requests, or more than once in one.
fn records_twice(records: &[Arc<LogRecord>]) -> Vec<String> {
    /// A record with the export requests that brought it, once for each time.
    type Came<'a> = (&'a LogRecord, Vec<u64>);
    let mut came: HashMap<Item, Came<'_>> = HashMap::new();
    for record in records.iter().filter(|record| record.origin == LogOrigin::Otlp) {
        if let Some(item) = Item::of_log(record) {
            came.entry(item).or_insert_with(|| (record, Vec::new())).1.push(record.arrival.seq);
        }
    }
    let exports = |(_, came): &Came<'_>| came.iter().collect::<BTreeSet<_>>().len();
    let finer_than = |unit: u64, record: &LogRecord| record.time_unix_nano.is_some_and(|time| time % unit != 0);
    let all_again = came.len() > 1 && came.values().all(|record| exports(record) > 1);
    let all_twice = came.len() > 1 && came.values().all(|(_, came)| came.len() > 1);
    let again = |record: &&Came<'_>| exports(record) > 1 && (all_again || finer_than(1_000_000, record.0));
    // Two that are alike may be written in one microsecond, by two threads; hardly in less, and hardly all of them.
    let doubled = |(record, came): &&Came<'_>| {
        came.len() > 1 && (finer_than(1_000, record) || (all_twice && finer_than(1_000_000, record)))
    };
    let twice = came.values().filter(|record| again(record) || doubled(record));
    let mut told: Vec<String> = twice
        .map(|(record, came)| {
            format!("log record {:?} of span {} came {} times", record.message, record.span_id, came.len())
        })
        .collect();
    told.sort_unstable();
    told
}

fn one_entry(subject: &Subject<'_>) -> Vec<String> {
    let entries = &subject.evidence.entries;
    let mut found = Vec::new();
    for outer in entries.iter().filter(|outer| outer.kind.takes_calls()) {
        for inner in entries {
            let other = inner.span_id != outer.span_id && inner.trace_id == outer.trace_id;
            let here = inner.resource == outer.resource;
            let began_inside = outer.is_open_at(inner.start_unix_nano);
            let wrong = match inner.kind {
                // Of two that begin and end together the one with the greater id is named.
                SpanKind::Server => {
                    let size = |span: &Span| (span.end_unix_nano.saturating_sub(span.start_unix_nano), span.span_id);
                    outer.kind == SpanKind::Server
                        && began_inside
                        && inner.end_unix_nano <= outer.end_unix_nano
                        && size(inner) < size(outer)
                }
                SpanKind::Consumer => false,
                _ => began_inside,
            };
            if other && here && wrong {
                let parent = inner.parent_span_id.map_or("nothing".to_owned(), |parent| parent.to_string());
                found.push(format!(
                    "{} {:?} ({}) hangs on {parent}, outside of the request, as {} {:?} does, inside of which it began",
                    inner.kind, inner.name, inner.span_id, outer.kind, outer.name
                ));
            }
        }
    }
    found.extend(behind_the_entry(subject));
    found
}

/// Inner work that hangs on the client's span and began when the entry was over: what took its context from the headers that came
/// in. Nobody else has that span, unless several requests were told of it.
fn behind_the_entry(subject: &Subject<'_>) -> Vec<String> {
    let evidence = subject.evidence;
    let Some(caller) = evidence.caller.filter(|_| subject.delivery.invocation.is_none()) else { return Vec::new() };
    let others = || {
        evidence.strangers.iter().filter_map(|stranger| match stranger {
            Stranger::SameTrace { span, entry } if Arc::ptr_eq(span, entry) => Some(span),
            _ => None,
        })
    };
    if others().any(|span| span.kind.takes_calls()) {
        return Vec::new();
    }
    let entry_of = |span: &Span| {
        let here =
            |entry: &&Arc<Span>| entry.resource == span.resource && entry.start_unix_nano <= span.start_unix_nano;
        evidence.entries.iter().filter(|entry| entry.kind.takes_calls()).find(here)
    };
    let wrong = others().filter(|span| (span.trace_id, span.parent_span_id) == (caller.trace_id, Some(caller.span_id)));
    let told = wrong.filter_map(|span| {
        let entry = entry_of(span)?;
        Some(format!(
            "{} {:?} ({}) hangs on {}, outside of the request, as {} {:?} does, behind which it began",
            span.kind, span.name, span.span_id, caller.span_id, entry.kind, entry.name
        ))
    });
    told.collect()
}

fn carries_on(subject: &Subject<'_>) -> Vec<String> {
    let evidence = subject.evidence;
    if evidence.told_traces.is_empty() {
        return Vec::new();
    }
    let linked = |span: &Span| {
        span.links.iter().any(|link| evidence.told_traces.iter().any(|told| link.trace_id == told.to_string()))
    };
    let entries = evidence.entries.iter();
    let own = entries.filter(|span| !is_told(subject, span) && span.parent_span_id.is_none() && !linked(span));
    own.map(|span| format!("{} {:?} begins a new trace, and was told one to carry on", span.kind, span.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{broken, entry, subject, told as all, with_resource};

    use super::*;
    use crate::{
        correlation::{Options, request, samples},
        stimulus::Caller,
        telemetry::{Attributes, SpanLink},
    };

    fn judged(spans: Vec<Span>) -> Vec<&'static str> {
        broken(&samples::delivery(), spans, Vec::new(), true)
    }

    #[test]
    fn telemetry_that_went_to_no_signals_path_is_found_and_another_request_to_the_sink_is_not() {
        let store = samples::store(vec![entry()], Vec::new());
        let judged = || super::super::tests::judge(&store, &samples::delivery(), true, &[]);
        store.mark(Mark::Sink { what: "refused GET /".into() });
        assert_eq!(judged(), [""; 0]);
        store.mark(Mark::Astray { what: "refused POST /v1/v1/logs".into() });
        assert_eq!(judged(), ["exports-arrive"]);
    }

    #[test]
    fn an_orphan_is_found_once_completeness_is_proven_and_not_before() {
        let orphan = Span { kind: SpanKind::Internal, parent_span_id: Some(samples::span_id(77)), ..child(2) };
        let spans = vec![entry(), orphan];
        assert_eq!(judged(spans.clone()), ["no-orphan"]);
        assert!(broken(&samples::delivery(), spans, Vec::new(), false).is_empty());
    }

    #[test]
    fn a_call_that_another_service_took_during_the_request_is_an_orphan_without_its_client_span() {
        let service = |name: &str| super::super::tests::resource(&[("service.name", name)]);
        let named = |name, span: Span| Span { resource: service(name), ..span };
        let taken = |name| named(name, Span { span_id: samples::span_id(5), ..on(Some(77)) });
        assert_eq!(judged(vec![named("orders", entry()), taken("inventory")]), ["no-orphan"]);
        let agent = [("user_agent.original".to_owned(), "python-requests/2".into())].into_iter().collect();
        let by_a_client = Span { attributes: agent, ..taken("orders") };
        let spans = vec![named("orders", entry()), by_a_client];
        let ours = Delivery { user_agent: "tracegate-1".into(), ..samples::delivery() };
        assert_eq!(broken(&ours, spans, Vec::new(), true), ["no-orphan"]);
        let of_another_worker = judged(vec![named("orders", entry()), taken("orders")]);
        assert!(
            !of_another_worker.contains(&"no-orphan"),
            "a request of its own in the same trace: {of_another_worker:?}"
        );
    }

    #[test]
    fn a_span_that_came_twice_is_found() {
        assert_eq!(judged(vec![entry(), entry()]), ["no-duplicate"]);
    }

    #[test]
    fn a_log_record_that_came_twice_is_found_where_the_clock_tells_it_from_one_that_is_alike() {
        let record = |message: &str, time, seq| {
            Arc::new(LogRecord {
                origin: LogOrigin::Otlp,
                raw: message.into(),
                message: message.into(),
                time_unix_nano: Some(time),
                arrival: crate::telemetry::Arrival { seq, unix_nano: 0 },
                ..samples::record(Some(1), Some(1))
            })
        };
        let (exact, coarse) = (1_700_000_000_000_000_001, 1_700_000_000_005_000_000);
        let twice = |time| records_twice(&[record("a", time, 1), record("a", time, 2), record("b", time, 1)]).len();
        assert_eq!(twice(exact), 1);
        assert_eq!(twice(coarse), 0, "a clock of milliseconds does not tell two apart");
        let all: Vec<_> = [("a", 1), ("b", 1), ("a", 2), ("b", 2)].map(|(m, seq)| record(m, coarse, seq)).into();
        assert_eq!(records_twice(&all).len(), 2, "every one of them came again");
        assert_eq!(records_twice(&[record("a", exact, 1), record("a", exact, 1)]).len(), 1, "two handlers");
        let micros = 1_700_000_000_000_001_000;
        assert!(records_twice(&[record("a", micros, 1), record("a", micros, 1)]).is_empty(), "two threads");
        let all: Vec<_> = ["a", "b", "a", "b"].map(|message| record(message, micros, 1)).into();
        assert_eq!(records_twice(&all).len(), 2, "every one of them came twice");
        let all: Vec<_> = ["a", "b", "a", "b"].map(|message| record(message, coarse, 1)).into();
        assert!(records_twice(&all).is_empty(), "two calls in a millisecond");
        assert!(records_twice(&[record("a", exact, 1), record("a", exact + 1, 2)]).is_empty());
    }

    #[test]
    fn spans_that_hang_on_each_other_are_found() {
        let (a, b) = (Span { parent_span_id: Some(samples::span_id(3)), ..child(2) }, child(3));
        let b = Span { parent_span_id: Some(samples::span_id(2)), ..b };
        assert_eq!(judged(vec![entry(), a, b]), ["no-cycle"]);
    }

    fn child(id: u64) -> Span {
        with_resource(samples::span(id, Some(1), "work"))
    }

    fn on(parent: Option<u64>) -> Span {
        Span { parent_span_id: parent.map(samples::span_id), ..entry() }
    }

    #[test]
    fn an_entry_span_hangs_on_the_callers_span_and_neither_on_another_nor_on_nothing() {
        assert!(judged(vec![on(Some(99))]).is_empty());
        assert_eq!(judged(vec![on(Some(98))]), ["remote-parent"]);
        assert_eq!(judged(vec![on(None)]), ["remote-parent"]);
        assert!(broken(&samples::delivery(), vec![on(Some(98))], Vec::new(), false).is_empty(), "it may come yet");
    }

    #[test]
    fn below_a_span_that_the_collector_refused_nobody_knows_what_it_hung_on() {
        let judged = |refused: &[u64]| {
            let delivery = samples::delivery();
            let refused = refused.iter().map(|&id| (samples::trace_id(1), samples::span_id(id))).collect();
            samples::store(vec![on(Some(77))], Vec::new()).look(|capture| {
                let options = Options { refused: Some(&refused), ..Options::default() };
                remote_parent(&subject(&request(capture, &delivery, options), &delivery, capture))
            })
        };
        assert_eq!(judged(&[7]).len(), 1);
        assert!(judged(&[77]).is_empty());
    }

    #[test]
    fn where_no_header_names_a_parent_an_entry_span_may_hang_on_nothing() {
        let root_only = Delivery { form: ContextForm::XrayRoot, ..samples::delivery() };
        assert!(broken(&root_only, vec![on(None)], Vec::new(), true).is_empty());
        let header = format!("Root=1-01010101-{}", "01".repeat(12));
        let invocation = crate::stimulus::Invocation {
            event_trace_header: Some(header),
            runtime_parent: Some(samples::span_id(50)),
            ..samples::invocation("r")
        };
        let invoked = Delivery { invocation: Some(invocation), ..samples::delivery() };
        for parent in [None, Some(50), Some(99)] {
            assert!(broken(&invoked, vec![on(parent)], Vec::new(), true).is_empty(), "{parent:?}");
        }
        assert_eq!(broken(&invoked, vec![on(Some(51))], Vec::new(), true), ["remote-parent"]);
    }

    #[test]
    fn spans_that_one_fault_cuts_off_are_told_once_with_their_number() {
        let stranger = |id, name: &str| Stranger::Detached { span: Arc::new(samples::span(id, None, name)) };
        let strangers = [stranger(2, "mail 1"), stranger(3, "mail 2"), stranger(4, "bill"), stranger(5, "mail 3")];
        let told = alike_once(strangers.iter());
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("\"mail 1\"") && told[0].ends_with("; 2 more are like it"), "{told:?}");
        assert!(told[1].contains("\"bill\"") && !told[1].contains("more are"), "{told:?}");
    }

    fn elsewhere(parent: Option<u64>, links: Vec<SpanLink>) -> Vec<&'static str> {
        let mut span = Span { trace_id: samples::trace_id(8), links, ..on(parent) };
        let agent = ("user_agent.original".to_owned(), "tracegate-mark-1".into());
        span.attributes = [agent].into_iter().collect();
        all(&samples::delivery(), vec![span], Vec::new())
    }

    #[test]
    fn a_trace_of_its_own_is_advised_against_unless_it_links_to_the_caller_and_one_of_another_request_is_wrong() {
        assert_eq!(elsewhere(None, Vec::new()), ["carries-on"]);
        let trace_id = samples::trace_id(1).to_string();
        let link = SpanLink { trace_id, span_id: String::new(), attributes: Attributes::default() };
        assert!(elsewhere(None, vec![link]).is_empty());
        assert_eq!(elsewhere(Some(99), Vec::new()), ["remote-parent"]);
    }

    #[test]
    fn inner_work_and_a_second_server_span_on_the_callers_span_are_found() {
        let wide = || Span { end_unix_nano: 100, ..entry() };
        let inner =
            Span { parent_span_id: Some(samples::span_id(99)), start_unix_nano: 20, end_unix_nano: 30, ..child(2) };
        assert_eq!(judged(vec![wide(), inner]), ["one-entry"]);
        let twin = Span { span_id: samples::span_id(2), start_unix_nano: 20, end_unix_nano: 90, ..entry() };
        assert_eq!(judged(vec![wide(), twin.clone()]), ["one-entry"]);
        let equal = Span { span_id: samples::span_id(2), ..wide() };
        assert_eq!(judged(vec![wide(), equal]), ["one-entry"]);
        let again = Span { start_unix_nano: 101, end_unix_nano: 120, ..twin };
        assert!(judged(vec![wide(), again]).is_empty(), "a proxy that passes the headers on asked again");
    }

    #[test]
    fn inner_work_behind_the_answer_that_hangs_on_the_client_is_found_and_a_message_that_was_handed_on_is_not() {
        let behind = |kind| Span {
            kind,
            span_id: samples::span_id(2),
            start_unix_nano: 50_000_000,
            end_unix_nano: 60_000_000,
            ..entry()
        };
        assert_eq!(judged(vec![entry(), behind(SpanKind::Internal)]), ["one-entry"]);
        assert_eq!(judged(vec![entry(), behind(SpanKind::Consumer)]), [""; 0]);
        assert_eq!(judged(vec![entry(), behind(SpanKind::Server)]), [""; 0], "a proxy asked again");
        let below = Span { parent_span_id: Some(samples::span_id(1)), ..behind(SpanKind::Internal) };
        assert_eq!(judged(vec![entry(), below]), [""; 0]);
        let elsewhere =
            Span { resource: super::super::tests::resource(&[("service.name", "b")]), ..behind(SpanKind::Internal) };
        assert_eq!(judged(vec![entry(), elsewhere]), [""; 0], "another process");
    }

    #[test]
    fn a_caller_that_names_nobody_leaves_the_parent_unjudged() {
        let nobody = Delivery { caller: None, form: ContextForm::Absent, ..samples::delivery() };
        let spans = || vec![Span { trace_id: samples::trace_id(7), ..on(Some(5)) }];
        assert!(broken(&nobody, spans(), Vec::new(), true).is_empty());
        let known = Caller { span_id: samples::span_id(5), ..samples::delivery().caller.unwrap() };
        assert!(
            broken(&Delivery { caller: Some(known), ..samples::delivery() }, vec![on(Some(5))], Vec::new(), true)
                .is_empty()
        );
    }
}
