//! Verdicts on the spans of a request, all that is wrong at once.

use super::super::observe::Seen;
use crate::{
    capture::Capture,
    correlation::{RequestEvidence, calls::Call, detached::entry_above, xray},
    expectation::SpanMatcher,
    stimulus::Delivery,
    telemetry::{Span, SpanId, TraceId},
};

/// Spans whose links a message tells.
const LINKS_TOLD: usize = 3;

pub(super) fn both(first: Result<(), String>, second: Result<(), String>) -> Result<(), String> {
    match (first, second) {
        (Err(first), Err(second)) => Err(format!("{first}\n{second}")),
        (first, second) => first.and(second),
    }
}

pub(super) fn hanging(span: &Span) -> String {
    let parent = span.parent_span_id.map_or_else(|| "nothing: it is a root".to_owned(), |parent| parent.to_string());
    format!("{} {:?} hangs on {parent}", span.kind, span.name)
}

pub(super) fn trace_is(seen: &Seen<'_>, expected: TraceId, whose: &str) -> Result<(), String> {
    match seen.evidence.trace_id() {
        Some(found) if found == expected => Ok(()),
        Some(found) => Err(format!("expected   {whose} {expected}\nfound      trace {found}")),
        None => Err(format!("expected   spans in {whose} {expected}\nreceived   none")),
    }
}

/// The same, and whose span that is.
fn hanging_on_whose(delivery: &Delivery, span: &Span) -> String {
    let Some(parent) = span.parent_span_id else { return hanging(span) };
    let invocation = delivery.invocation.as_ref();
    let in_event = event_header(delivery).ok().and_then(|header| header.parent);
    let in_runtime = invocation.and_then(|invocation| invocation.runtime_parent);
    let told = delivery.remote_parents();
    let whose = if in_event == Some(parent) {
        "the parent in the event's X-Amzn-Trace-Id header"
    } else if in_runtime == Some(parent) {
        "the parent in the runtime's trace header (Lambda-Runtime-Trace-Id)"
    } else if told.contains(&parent) {
        "the caller's span"
    } else {
        "which no header names"
    };
    format!("{}, {whose}", hanging(span))
}

/// Whether the request's spans are a trace that no header named.
pub(super) fn started_its_own(seen: &Seen<'_>) -> Result<(), String> {
    let entry = match seen.evidence.entries.as_slice() {
        [entry] if entry.parent_span_id.is_none() => entry,
        [entry] => return Err(format!("expected   a root span without a parent\nclosest    {}", hanging(entry))),
        entries => return Err(format!("expected   one root span\nreceived   {}", entries.len())),
    };
    let in_event = event_header(seen.delivery).ok().map(|header| header.root);
    let mut told = seen.evidence.told_traces.iter().copied().chain(in_event);
    if told.any(|told| told == entry.trace_id) {
        let (kind, name, trace_id) = (entry.kind, &entry.name, entry.trace_id);
        return Err(format!(
            "expected   a trace that no header names\nclosest    {kind} {name:?} in the trace {trace_id}"
        ));
    }
    Ok(())
}

pub(super) fn hangs_on(seen: &Seen<'_>, expected: SpanId, what: &str) -> Result<(), String> {
    match seen.evidence.entries.as_slice() {
        [] => Err(format!("expected   an entry span that hangs on {what}, {expected}\nreceived   no entry span")),
        entries => match entries.iter().find(|entry| entry.parent_span_id != Some(expected)) {
            None => Ok(()),
            Some(entry) => {
                let closest = hanging_on_whose(seen.delivery, entry);
                Err(format!("expected   it hangs on {what}, {expected}\nclosest    {closest}"))
            }
        },
    }
}

/// The `X-Amzn-Trace-Id` header of the event that a function was invoked with.
pub(super) fn event_header(delivery: &Delivery) -> Result<xray::XrayHeader, String> {
    let invocation = delivery
        .invocation
        .as_ref()
        .ok_or("no event was delivered: this deployment is no function, or was not invoked")?;
    let header = invocation.event_trace_header.as_deref().ok_or("the event has no X-Amzn-Trace-Id header")?;
    header.parse().map_err(|error| format!("the event's X-Amzn-Trace-Id header names no trace: {error}"))
}

/// Whether the entry spans hang on what the event's header says.
pub(super) fn hangs_on_event(seen: &Seen<'_>, header: &xray::XrayHeader) -> Result<(), String> {
    if let Some(parent) = header.parent {
        hangs_on(seen, parent, "the parent in the event's X-Amzn-Trace-Id header")?;
    }
    let root = header.root;
    let what = "the trace of the event's X-Amzn-Trace-Id header";
    match seen.evidence.entries.as_slice() {
        [] => Err(format!("expected   a root span in {what}, {root}\nreceived   no entry span")),
        entries => match entries.iter().find(|entry| (entry.trace_id, entry.parent_span_id) != (root, header.parent)) {
            None => Ok(()),
            Some(entry) if entry.trace_id != root => {
                Err(format!("expected   {what}, {root}\nfound      trace {}", entry.trace_id))
            }
            Some(entry) => {
                let closest = hanging_on_whose(seen.delivery, entry);
                Err(format!("expected   a root span in {what}, {root}, which names no parent\nclosest    {closest}"))
            }
        },
    }
}

pub(super) fn no_spans(seen: &Seen<'_>) -> Result<(), String> {
    match seen.evidence.trace.spans().next() {
        None => Ok(()),
        Some(span) => Err(format!("expected   no span\nfound      {} {:?}", span.kind, span.name)),
    }
}

/// The invariants that make a trace whole.
const WHOLE: [&str; 7] =
    ["remote-parent", "one-entry", "no-orphan", "no-duplicate", "no-cycle", "end-after-start", "one-trace"];

/// Everything that makes a trace whole, all that is wrong at once: there is one entry span, and no invariant of the tree is
/// broken.
pub(super) fn whole(seen: &Seen<'_>) -> Result<(), String> {
    let mut wrong = Vec::new();
    match seen.evidence.entries.as_slice() {
        [] => wrong.push("received   no span of the request".to_owned()),
        [entry] => {
            let told = &seen.evidence.told_traces;
            if !told.is_empty() && !told.contains(&entry.trace_id) {
                wrong.push(format!("entry      is in the trace {}, the caller's is {}", entry.trace_id, told[0]));
            }
        }
        several => {
            let names: Vec<String> = several.iter().map(|entry| format!("{} {:?}", entry.kind, entry.name)).collect();
            wrong.push(format!("entry      expected one entry span, found {}: {}", several.len(), names.join(", ")));
        }
    }
    wrong.extend(seen.broken(&WHOLE));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Whether a call that an upstream took names a span of the request as its parent.
pub(super) fn carries_on(seen: &Seen<'_>, upstream: &str, matcher: &SpanMatcher) -> Result<(), String> {
    let spans = matcher.find(seen.evidence.trace.spans()).map_err(|no_match| no_match.to_string())?;
    let mut closest = Vec::new();
    let calls = Call::within(seen.capture, seen.delivery.sent.seq..=u64::MAX);
    for call in calls.filter(|call| call.upstream == upstream) {
        let what = &call.what;
        let contexts: Vec<&str> = call.all("traceparent").collect();
        if contexts.len() > 1 {
            closest.push(format!(
                "{upstream:<10} {what} came with {} traceparent headers, of which a receiver may take none: {}",
                contexts.len(),
                contexts.join(" and ")
            ));
            continue;
        }
        let header = |wanted: &str| call.all(wanted).next();
        let w3c = header("traceparent").and_then(|value| value.parse::<xray::Traceparent>().ok());
        let recorded = w3c.as_ref().is_none_or(xray::Traceparent::sampled);
        let w3c = w3c.map(|context| (context.trace_id, Some(context.parent_id)));
        let xray = header("x-amzn-trace-id").and_then(|value| value.parse::<xray::XrayHeader>().ok());
        let recorded = recorded && xray.as_ref().is_none_or(|context| context.sampled != xray::Sampled::No);
        let xray = xray.map(|context| (context.root, context.parent));
        let told: Vec<_> = w3c.into_iter().chain(xray).collect();
        let fits = |(trace_id, parent): &(TraceId, _)| {
            spans.iter().any(|span| span.trace_id == *trace_id && Some(span.span_id) == *parent)
        };
        if !told.is_empty() && told.iter().all(fits) {
            if recorded {
                return Ok(());
            }
            // The span was recorded, or it would not be here.
            closest.push(format!(
                "{upstream:<10} {what} came with the right ids and says that the trace is not sampled: who follows it \
                 records nothing"
            ));
            continue;
        }
        let said = if told.is_empty() {
            let sent = [("traceparent", header("traceparent")), ("X-Amzn-Trace-Id", header("x-amzn-trace-id"))];
            let sent =
                sent.into_iter().filter_map(|(name, value)| Some(format!("a {name} that is malformed: {:?}", value?)));
            let sent: Vec<String> = sent.collect();
            if sent.is_empty() { "no trace header".to_owned() } else { sent.join(" and ") }
        } else {
            let said = told.iter().map(|(trace, parent)| match parent {
                Some(parent) => format!("trace {trace} span {parent}"),
                None => format!("trace {trace} and no span"),
            });
            said.collect::<Vec<_>>().join(" and ")
        };
        closest.push(format!("{upstream:<10} {what} came with {said}"));
    }
    if closest.is_empty() {
        closest.push(no_call(upstream, "since the request was sent"));
    }
    let span = &spans[0];
    Err(format!("expected   a call with trace {} span {}\n{}", span.trace_id, span.span_id, closest.join("\n")))
}

/// Whether an upstream took a call while the request was under way, and each of them names a span of a request that was.
pub(super) fn all_carry_on(seen: &Seen<'_>, upstream: &str) -> Result<(), String> {
    // Behind the answer the harness asks for things of its own.
    let calls = Call::within(seen.capture, seen.delivery.sent.seq..=seen.delivery.answered.seq);
    let calls: Vec<Call<'_>> = calls.filter(|call| call.upstream == upstream).collect();
    // Of this request, or of one beside it: what was over when the call was taken made none.
    let came = |told: &Option<(TraceId, Option<SpanId>)>, taken: u64| {
        let span = told.and_then(|(trace_id, span_id)| seen.capture.span(trace_id, span_id?));
        span.is_some_and(|span| {
            let own = seen.evidence.trace.position(span.trace_id, span.span_id).is_some();
            own || entry_above(seen.capture, span).is_open_at(taken)
        })
    };
    let wrong = |call: &Call<'_>| {
        let told = call.contexts();
        if told.is_empty() {
            return Some(format!("{upstream:<10} {} came with no trace header", call.what));
        }
        let said: Vec<&str> = call.all("traceparent").chain(call.all("x-amzn-trace-id")).collect();
        let fits = told.iter().all(|told| came(told, call.taken)) && call.all("traceparent").count() <= 1;
        (!fits).then(|| {
            format!(
                "{upstream:<10} {} came with {}, which names no span of a request that was under way",
                call.what,
                said.join(" and ")
            )
        })
    };
    let mut wrong: Vec<String> = calls.iter().filter_map(wrong).collect();
    if calls.is_empty() {
        wrong.push(no_call(upstream, "while the request was under way"));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(format!("expected   each call with a span of a request under way\n{}", wrong.join("\n")))
    }
}

fn no_call(upstream: &str, when: &str) -> String {
    format!(
        "{upstream:<10} took no call {when}: is [upstreams.{upstream}] in tracegate.toml, and does the service call \
         {{upstream.{upstream}}}?"
    )
}

/// Whether a span that came after `since` and fits `from` has a link to one of the request that fits `to`.
pub(super) fn links_to(
    capture: &Capture,
    evidence: &RequestEvidence,
    since: u64,
    from: &SpanMatcher,
    to: &SpanMatcher,
) -> Result<(), String> {
    let targets = to.find(evidence.trace.spans()).map_err(|no_match| no_match.to_string())?;
    let sources = from.find(capture.spans().since(since)).map_err(|no_match| no_match.to_string())?;
    let is_linked = |source: &Span| {
        source.links.iter().any(|link| {
            let named = link.trace_id.parse::<TraceId>().ok().zip(link.span_id.parse::<SpanId>().ok());
            targets.iter().any(|target| named == Some((target.trace_id, target.span_id)))
        })
    };
    if sources.iter().any(|source| is_linked(source)) {
        return Ok(());
    }
    let said = sources.iter().take(LINKS_TOLD).map(|source| {
        let links: Vec<String> =
            source.links.iter().map(|link| format!("trace {} span {}", link.trace_id, link.span_id)).collect();
        let links = if links.is_empty() { "has no link".to_owned() } else { format!("links to {}", links.join(", ")) };
        format!("closest    {} {:?} in trace {} {links}", source.kind, source.name, source.trace_id)
    });
    let target = &targets[0];
    let (name, trace_id, span_id) = (&target.name, target.trace_id, target.span_id);
    let said = said.collect::<Vec<_>>().join("\n");
    Err(format!("expected   a link to {name:?}, trace {trace_id} span {span_id}\n{said}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::capture::Mark;
    use crate::correlation::{Options, request, samples};
    use crate::stimulus::ContextForm;
    use crate::telemetry::{SpanKind, SpanLink};

    #[test]
    fn a_span_that_ends_before_it_starts_makes_a_trace_not_whole() {
        let entry = |end| Span {
            end_unix_nano: end,
            ..samples::with(samples::span(1, Some(99), "GET /"), SpanKind::Server, &[])
        };
        let judged = |span| {
            let delivery = samples::delivery();
            samples::store(vec![span], Vec::new()).look(|capture| {
                let evidence = request(capture, &delivery, Options::default());
                whole(&Seen { evidence, delivery: &delivery, capture, skew: Duration::ZERO })
            })
        };
        assert_eq!(judged(entry(11)), Ok(()));
        assert_eq!(judged(entry(10)), Ok(()), "a clock may not tell them apart");
        assert_eq!(
            judged(entry(7)),
            Err("broken     end-after-start: SERVER \"GET /\" ends 3 ns before it starts".to_owned())
        );
    }

    #[test]
    fn a_trace_of_the_services_own_is_none_that_a_header_names() {
        let own = |trace: u8, parent, form| {
            let entry = samples::with(samples::span(1, parent, "GET /"), SpanKind::Server, &[]);
            let agent = ("user_agent.original".to_owned(), "tracegate-mark-1".into());
            let entry = Span { trace_id: samples::trace_id(trace), attributes: [agent].into_iter().collect(), ..entry };
            let delivery = Delivery { form, ..samples::delivery() };
            samples::store(vec![entry], Vec::new()).look(|capture| {
                let evidence = request(capture, &delivery, Options::default());
                started_its_own(&Seen { evidence, delivery: &delivery, capture, skew: Duration::ZERO })
            })
        };
        assert_eq!(own(5, None, ContextForm::Absent), Ok(()));
        assert!(own(1, None, ContextForm::XrayRoot).unwrap_err().contains("a trace that no header names"));
        assert!(own(5, Some(7), ContextForm::Absent).unwrap_err().contains("a root span without a parent"));
    }

    const EVENT: u64 = 0xe0;
    const RUNTIME: u64 = 0xf0;

    /// What is said of an entry span on `parent`, when the event's header and the runtime's have parents of their own.
    fn judged(
        parent: Option<u64>,
        header: &str,
        judge: impl Fn(&Seen<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let entry = samples::with(samples::span(1, parent, "GET /"), SpanKind::Server, &[]);
        let invocation = crate::stimulus::Invocation {
            event_trace_header: Some(header.to_owned()),
            runtime_trace_header: Some(format!("{ROOT};Parent={};Sampled=1", samples::span_id(RUNTIME))),
            runtime_parent: Some(samples::span_id(RUNTIME)),
            ..samples::invocation("own")
        };
        let delivery = Delivery { invocation: Some(invocation), ..samples::delivery() };
        samples::store(vec![entry], Vec::new()).look(|capture| {
            let evidence = request(capture, &delivery, Options::default());
            judge(&Seen { evidence, delivery: &delivery, capture, skew: Duration::ZERO })
        })
    }

    /// That of the samples' trace.
    const ROOT: &str = "Root=1-01010101-010101010101010101010101";

    fn on_event(parent: Option<u64>, header: &str) -> Result<(), String> {
        judged(parent, header, |seen| hangs_on_event(seen, &event_header(seen.delivery)?))
    }

    #[test]
    fn a_span_must_hang_on_the_parent_in_the_events_header_and_the_failure_says_whose_it_hangs_on() {
        let header = format!("{ROOT};Parent={};Sampled=1", samples::span_id(EVENT));
        assert_eq!(on_event(Some(EVENT), &header), Ok(()));
        let wrong = on_event(Some(RUNTIME), &header).unwrap_err();
        assert!(
            wrong.contains("expected   it hangs on the parent in the event's X-Amzn-Trace-Id header, 00000000000000e0"),
            "{wrong}"
        );
        assert!(wrong.contains("hangs on 00000000000000f0, the parent in the runtime's trace header"), "{wrong}");
        assert!(on_event(Some(99), &header).unwrap_err().contains("hangs on 0000000000000063, the caller's span"));
        assert!(on_event(Some(7), &header).unwrap_err().contains("hangs on 0000000000000007, which no header names"));
        assert!(on_event(None, &header).unwrap_err().contains("hangs on nothing: it is a root"));
    }

    #[test]
    fn a_header_with_a_root_only_takes_a_root_span_of_that_trace_and_nothing_else() {
        assert_eq!(on_event(None, ROOT), Ok(()));
        let wrong = on_event(Some(RUNTIME), ROOT).unwrap_err();
        assert!(wrong.contains("which names no parent"), "{wrong}");
        assert!(wrong.contains("hangs on 00000000000000f0, the parent in the runtime's trace header"), "{wrong}");
        let wrong = on_event(None, "Root=1-02020202-020202020202020202020202").unwrap_err();
        assert!(wrong.contains("found      trace 01010101010101010101010101010101"), "{wrong}");
    }

    #[test]
    fn a_span_on_the_events_parent_does_not_hang_on_the_runtimes_and_the_failure_says_so() {
        let header = format!("{ROOT};Parent={}", samples::span_id(EVENT));
        let on_runtime = |parent| {
            let runtime = samples::span_id(RUNTIME);
            judged(Some(parent), &header, |seen| hangs_on(seen, runtime, "the span in the runtime's trace header"))
        };
        assert_eq!(on_runtime(RUNTIME), Ok(()));
        let wrong = on_runtime(EVENT).unwrap_err();
        assert!(
            wrong.contains("hangs on 00000000000000e0, the parent in the event's X-Amzn-Trace-Id header"),
            "{wrong}"
        );
    }

    #[test]
    fn a_call_out_with_the_right_ids_must_say_that_the_trace_is_sampled() {
        assert_eq!(called(|context| vec![format!("{context}-01")]), Ok(()));
        let unsampled = called(|context| vec![format!("{context}-00")]).unwrap_err();
        assert!(unsampled.contains("says that the trace is not sampled"), "{unsampled}");
    }

    #[test]
    fn a_context_that_came_twice_and_one_that_is_malformed_are_told_as_such() {
        let twice = called(|context| vec![format!("{context}-01"); 2]).unwrap_err();
        assert!(twice.contains("came with 2 traceparent headers, of which a receiver may take none"), "{twice}");
        let malformed = called(|context| vec![format!("{context}-01").to_uppercase()]).unwrap_err();
        assert!(malformed.contains("came with a traceparent that is malformed: \"00-0101"), "{malformed}");
        let absent = called(|_| Vec::new()).unwrap_err();
        assert!(absent.contains("came with no trace header"), "{absent}");
    }

    /// A call that "stock" took with these `traceparent` headers.
    fn call(contexts: impl IntoIterator<Item = String>) -> Mark {
        Mark::UpstreamCalled {
            upstream: "stock".into(),
            method: "GET".into(),
            target: "/".into(),
            status: 200,
            headers: contexts.into_iter().map(|value| ("traceparent".into(), value)).collect(),
        }
    }

    #[test]
    fn every_call_must_name_a_span_of_the_request_and_there_must_be_one() {
        let judged = |calls: &[Option<u64>]| {
            let entry = samples::with(samples::span(1, Some(99), "GET /"), SpanKind::Server, &[]);
            let trace_id = entry.trace_id;
            let store = samples::store(vec![entry], Vec::new());
            for span in calls {
                store.mark(call(span.map(|id| format!("00-{trace_id}-{}-01", samples::span_id(id)))));
            }
            let answered = store.mark(Mark::Answered { delivery: "d".into() });
            let delivery = Delivery { answered, ..samples::delivery() };
            store.look(|capture| {
                let evidence = request(capture, &delivery, Options::default());
                all_carry_on(&Seen { evidence, delivery: &delivery, capture, skew: Duration::ZERO }, "stock")
            })
        };
        assert_eq!(judged(&[Some(1), Some(1)]), Ok(()));
        assert!(judged(&[Some(1), None]).unwrap_err().contains("GET / came with no trace header"));
        assert!(judged(&[Some(1), Some(8)]).unwrap_err().contains("names no span of a request that was under way"));
        assert!(judged(&[]).unwrap_err().contains("took no call"));
    }

    /// What is said of a call with these `traceparent` headers, made of version, trace and span.
    fn called(headers: impl Fn(&str) -> Vec<String>) -> Result<(), String> {
        let span = Span { span_id: samples::span_id(0xab), ..samples::span(1, Some(99), "GET /") };
        let entry = samples::with(span, SpanKind::Server, &[]);
        let headers = headers(&format!("00-{}-{}", entry.trace_id, entry.span_id));
        let store = samples::store(vec![entry], Vec::new());
        store.mark(call(headers));
        let delivery = samples::delivery();
        store.look(|capture| {
            let evidence = request(capture, &delivery, Options::default());
            let seen = Seen { evidence, delivery: &delivery, capture, skew: Duration::ZERO };
            carries_on(&seen, "stock", &SpanMatcher::default())
        })
    }

    #[test]
    fn a_span_of_another_trace_must_link_to_the_span_that_is_asked_for() {
        let entry = samples::with(samples::span(1, Some(99), "send jobs"), SpanKind::Server, &[]);
        let link = |span_id: u64| SpanLink {
            trace_id: entry.trace_id.to_string(),
            span_id: samples::span_id(span_id).to_string(),
            attributes: Default::default(),
        };
        let judged = |links: Vec<SpanLink>| {
            let taken = samples::span(7, None, "process jobs");
            let taken = Span { trace_id: samples::trace_id(9), links, ..taken };
            let store = samples::store(vec![entry.clone(), taken], Vec::new());
            store.look(|capture| {
                let evidence = request(capture, &samples::delivery(), Options::default());
                let named = |name: &str| super::super::trace::named(name).unwrap();
                links_to(capture, &evidence, 0, &named("process jobs"), &named("send jobs"))
            })
        };
        assert_eq!(judged(vec![link(8), link(1)]), Ok(()));
        assert!(judged(vec![link(8)]).unwrap_err().contains("links to trace 0101"), "{:?}", judged(vec![link(8)]));
        assert!(
            judged(Vec::new()).unwrap_err().contains("INTERNAL \"process jobs\" in trace 0909"),
            "{:?}",
            judged(Vec::new())
        );
        assert!(judged(Vec::new()).unwrap_err().contains("has no link"));
    }

    #[test]
    fn an_event_without_a_usable_header_is_no_ground_for_a_verdict() {
        let said = |header: Option<&str>| {
            let header = header.map(str::to_owned);
            let invocation = crate::stimulus::Invocation { event_trace_header: header, ..samples::invocation("own") };
            event_header(&Delivery { invocation: Some(invocation), ..samples::delivery() }).unwrap_err()
        };
        assert_eq!(said(None), "the event has no X-Amzn-Trace-Id header");
        assert!(said(Some("garbage")).contains("names no trace"), "{}", said(Some("garbage")));
        assert!(event_header(&samples::delivery()).unwrap_err().contains("no function"));
    }
}
