//! Rules about times, kinds and status of the spans of a request.

use super::{
    Grade::{Advice, Rule as Always},
    Rule, Subject,
};
use crate::telemetry::{LogOrigin, Resource, Span, SpanKind, StatusCode};

/// Attributes that hold the status of an HTTP answer (semantic conventions, stable and old).
const STATUS: [&str; 2] = ["http.response.status_code", "http.status_code"];
/// Attributes that make a span one of HTTP.
const METHOD: [&str; 2] = ["http.request.method", "http.method"];

/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK` and `SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK` of opentelemetry-proto: whether a span
/// says if its parent is in another process, and what it says.
const SAYS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "end-after-start",
        grade: Always,
        about: "no span ends before it starts",
        limits: "",
        source: "OpenTelemetry specification, Trace API, Span: end timestamp",
        check: |subject| {
            each(subject, |span| {
                (span.end_unix_nano < span.start_unix_nano).then(|| {
                    let by = span.start_unix_nano - span.end_unix_nano;
                    format!("{} {:?} ends {by} ns before it starts", span.kind, span.name)
                })
            })
        },
    },
    Rule {
        name: "near-the-request",
        grade: Always,
        about: "the times of spans, their events and exported log records are within ten minutes of the request, and a span has \
                ended when it is received",
        limits: "No clock is off by that much: it is a time in another unit (milliseconds instead of nanoseconds), or local time. \
                 An end is held against its arrival, with a second to spare, where the entry span of the same process began during the \
                 request, so that the clocks are known to agree. Log records without a time are not judged, nor are lines of output, which may be in local time.",
        source: "opentelemetry-proto: start_time_unix_nano, end_time_unix_nano, time_unix_nano",
        check: near_the_request,
    },
    Rule {
        name: "child-in-parent",
        grade: Advice,
        about: "a span lies within the time of its parent",
        limits: "Advice, because work that nobody waits for outlives the span that began it, an answer may be streamed on, and \
                 a span for what was before (a cold start, a queue) may be made later. CONSUMER spans and children of PRODUCER \
                 spans are not judged: a message waits.",
        source: "OpenTelemetry specification, overview, Traces: causally related spans",
        check: child_in_parent,
    },
    Rule {
        name: "kinds-fit",
        grade: Advice,
        about: "a SERVER span stands where a call comes in, not below another span of its own process; what takes the \
                request is a SERVER span, and what takes a CLIENT span's call in another process no INTERNAL one; every span \
                has a kind",
        limits: "Advice, because frameworks nest server spans, and a process may call itself. A function's invocation span \
                 (`faas.…`) may have the server's below it. Whether a parent is in another \
                 process is known from the span's flags or from resources that name their process, and is else not judged.",
        source: "OpenTelemetry specification, Trace API, SpanKind; opentelemetry-proto, SpanKind",
        check: kinds_fit,
    },
    Rule {
        name: "sampled",
        grade: Always,
        about: "what the caller does not sample is not exported",
        limits: "A service at the edge that begins a trace of its own decides for itself.",
        source: "OpenTelemetry specification, Trace SDK, ParentBased; X-Ray developer guide, Sampled=0",
        check: |subject| {
            let evidence = subject.evidence;
            let carried_on = evidence.trace.spans().find(|span| evidence.told_traces.contains(&span.trace_id));
            match (evidence.sampled(), carried_on) {
                (false, Some(span)) => {
                    vec![format!("{} {:?} was exported for an unsampled caller", span.kind, span.name)]
                }
                _ => Vec::new(),
            }
        },
    },
    Rule {
        name: "server-status",
        grade: Always,
        about: "a SERVER span with an HTTP status of 5xx has status Error, one with 4xx has not",
        limits: "Status Ok is a decision of the application and stands. With 4xx, Error stands where the span says what else \
                 went wrong: by `error.type`, an exception, or a status message.",
        source: "semantic conventions, HTTP spans, Status; OpenTelemetry specification, Trace API, Set Status",
        check: |subject| each(subject, server_status),
    },
    Rule {
        name: "route-is-a-template",
        grade: Advice,
        about: "`http.route` of a SERVER span is a template and not the path that was asked for",
        limits: "Told where the route is the whole path and a part of it is a number, a UUID or at least 16 hexadecimal digits. Advice, \
                 because a route may really be called so.",
        source: "semantic conventions, HTTP spans: http.route must be low-cardinality, and must not be populated with the path",
        check: |subject| each(subject, |span| path_as_route(span, &subject.delivery.target)),
    },
    Rule {
        name: "answered-status",
        grade: Advice,
        about: "the HTTP status on the entry span is the one that the client got, and where that is 5xx the span says something of it",
        limits: "Advice, because what stands around the instrumentation may answer otherwise. Not judged behind a gateway, which \
                 makes an answer of its own.",
        source: "semantic conventions, HTTP spans: http.response.status_code",
        check: answered_status,
    },
    Rule {
        name: "client-status",
        grade: Always,
        about: "a CLIENT span of HTTP that was answered with 5xx has status Error",
        limits: "Status Ok is a decision of the application and stands. CLIENT spans that are not of HTTP themselves (of a \
                 database, an SDK) are not judged: what a status means is theirs to say.",
        source: "semantic conventions, HTTP spans, Status",
        check: |subject| each(subject, |span| client_status(span, 500)),
    },
    Rule {
        name: "client-error-status",
        grade: Advice,
        about: "a CLIENT span of HTTP that was answered with 4xx has status Error",
        limits: "Advice, because an instrumentation that knows more of the request may know that a 404 is no error.",
        source: "semantic conventions, HTTP spans, Status",
        check: |subject| each(subject, |span| client_status(span, 400)),
    },
];

fn each(subject: &Subject<'_>, check: impl Fn(&Span) -> Option<String>) -> Vec<String> {
    subject.evidence.trace.spans().filter_map(|span| check(span)).collect()
}

fn answered(span: &Span) -> Option<i64> {
    STATUS.iter().find_map(|key| span.attributes.get(key)?.as_int())
}

fn server_status(span: &Span) -> Option<String> {
    let code = answered(span).filter(|_| span.kind == SpanKind::Server)?;
    let unmarked = code >= 500 && span.status.code == StatusCode::Unset;
    let explained = span.attributes.str("error.type").is_some_and(|kind| kind != code.to_string())
        || span.events.iter().any(|event| event.name == "exception")
        || !span.status.message.is_empty();
    let marked = (400..500).contains(&code) && span.status.code == StatusCode::Error && !explained;
    (unmarked || marked)
        .then(|| format!("{} {:?} has HTTP status {code} and span status {}", span.kind, span.name, span.status.code))
}

/// A route that is the path with something in it that only one request has.
fn path_as_route(span: &Span, target: &str) -> Option<String> {
    let route = span.attributes.str("http.route").filter(|_| span.kind == SpanKind::Server)?;
    let path = target.split('?').next().unwrap_or_default();
    let is_id = |part: &str| {
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
        !part.is_empty()
            && (digits(part) || (part.len() >= 16 && hex(part)) || (part.len() == 36 && hex(&part.replace('-', ""))))
    };
    let part = route.split('/').find(|part| is_id(part)).filter(|_| route == path)?;
    Some(format!(
        "http.route of {} {:?} is the path {route:?}: {part:?} belongs into a parameter",
        span.kind, span.name
    ))
}

/// No clock of one machine is off by so much, and time zones are apart by fifteen minutes at least.
const NEAR: u64 = 600_000_000_000;

fn near_the_request(subject: &Subject<'_>) -> Vec<String> {
    let (sent, answered) = (subject.delivery.sent.unix_nano, subject.delivery.answered.unix_nano);
    let off = |time: u64| time.saturating_add(NEAR) <= sent || time >= answered.saturating_add(NEAR);
    let said = |time: u64| {
        let sent = i128::from(sent);
        let (apart, how) = if i128::from(time) < sent {
            (sent - i128::from(time), "before")
        } else {
            (i128::from(time) - sent, "after")
        };
        format!("{time} ns since 1970, {} minutes {how} the request", apart / 60_000_000_000)
    };
    let mut found = each(subject, |span| {
        let (kind, name) = (span.kind, &span.name);
        let of_event = span.events.iter().find(|event| event.time_unix_nano != 0 && off(event.time_unix_nano));
        if off(span.start_unix_nano) {
            Some(format!("{kind} {name:?} starts {}", said(span.start_unix_nano)))
        } else if off(span.end_unix_nano) {
            Some(format!("{kind} {name:?} ends {}", said(span.end_unix_nano)))
        } else {
            let event = of_event?;
            Some(format!("the event {:?} of {kind} {name:?} is of {}", event.name, said(event.time_unix_nano)))
        }
    });
    found.extend(each(subject, |span| {
        let tolerated = ARRIVED.saturating_add(subject.skew_nanos());
        let ahead = span.end_unix_nano.saturating_sub(span.arrival.unix_nano);
        (ahead > tolerated && !off(span.end_unix_nano) && is_timed_nearby(subject, span)).then(|| {
            let (kind, name, ahead) = (span.kind, &span.name, std::time::Duration::from_nanos(ahead));
            format!("{kind} {name:?} ends {ahead:.1?} after it was received")
        })
    }));
    let records = subject.evidence.logs.iter().filter(|record| record.origin == LogOrigin::Otlp);
    let times =
        records.filter_map(|record| Some((record, record.time_unix_nano.filter(|&time| time != 0 && off(time))?)));
    found.extend(times.map(|(record, time)| format!("log record {:?} is of {}", record.message, said(time))));
    found
}

/// By how much a span may end after it came: clocks of one machine agree better.
const ARRIVED: u64 = 1_000_000_000;

/// Whether the clock of a span's process is known to be near the harness's: the request began in it while it was under way.
fn is_timed_nearby(subject: &Subject<'_>, span: &Span) -> bool {
    let skew = subject.skew_nanos();
    let (sent, answered) = (subject.delivery.sent.unix_nano, subject.delivery.answered.unix_nano);
    let times = sent.saturating_sub(skew)..=answered.saturating_add(skew);
    let mut entries = subject.evidence.entries.iter();
    entries.any(|entry| entry.resource.process() == span.resource.process() && times.contains(&entry.start_unix_nano))
}

fn answered_status(subject: &Subject<'_>) -> Vec<String> {
    let [entry] = subject.evidence.entries.as_slice() else { return Vec::new() };
    let got = i64::from(subject.delivery.response.status);
    match answered(entry).filter(|_| entry.kind == SpanKind::Server && subject.delivery.invocation.is_none()) {
        Some(said) if said != got => {
            vec![format!("{} {:?} has HTTP status {said}, and the client got {got}", entry.kind, entry.name)]
        }
        None if got >= 500 && is_silent(entry) && subject.delivery.invocation.is_none() => {
            vec![format!("{} {:?} says nothing of an error, and the client got {got}", entry.kind, entry.name)]
        }
        _ => Vec::new(),
    }
}

/// Whether a SERVER span of HTTP has neither a status nor a sign that something went wrong.
fn is_silent(span: &Span) -> bool {
    span.kind == SpanKind::Server
        && METHOD.iter().any(|key| span.attributes.get(key).is_some())
        && STATUS.iter().all(|key| span.attributes.get(key).is_none())
        && span.status.code == StatusCode::Unset
        && span.attributes.get("error.type").is_none()
        && !span.events.iter().any(|event| event.name == "exception")
}

/// What is wrong with a CLIENT span whose HTTP status is in the hundred that begins at `from` (for 500: and above).
fn client_status(span: &Span, from: i64) -> Option<String> {
    let of_http = span.kind == SpanKind::Client && METHOD.iter().any(|key| span.attributes.get(key).is_some());
    let code = answered(span).filter(|_| of_http)?;
    let fits = code >= from && (from >= 500 || code < from + 100);
    (fits && span.status.code == StatusCode::Unset)
        .then(|| format!("CLIENT {:?} has HTTP status {code} and span status Unset", span.name))
}

/// Every span with its parent, where that was received.
fn pairs<'a>(subject: &Subject<'a>) -> impl Iterator<Item = (&'a Span, &'a Span)> {
    let nodes = subject.evidence.trace.nodes();
    nodes.iter().filter_map(|node| Some((&*node.span, &*nodes[node.parent?].span)))
}

fn child_in_parent(subject: &Subject<'_>) -> Vec<String> {
    let skew = subject.skew_nanos();
    let judged = |(child, parent): &(&Span, &Span)| {
        child.kind != SpanKind::Consumer
            && parent.kind != SpanKind::Producer
            // `end-after-start` has those.
            && child.end_unix_nano >= child.start_unix_nano
            && parent.end_unix_nano >= parent.start_unix_nano
    };
    let told = |(child, parent): (&Span, &Span)| {
        let how = if child.start_unix_nano.saturating_add(skew) < parent.start_unix_nano {
            "begins before"
        } else if child.end_unix_nano > parent.end_unix_nano.saturating_add(skew) {
            "ends after"
        } else {
            return None;
        };
        let (of_child, of_parent) = ((child.kind, &child.name), (parent.kind, &parent.name));
        Some(format!(
            "{} {:?} {how} its parent {} {:?}, by more than {:?}",
            of_child.0, of_child.1, of_parent.0, of_parent.1, subject.skew
        ))
    };
    pairs(subject).filter(judged).filter_map(told).collect()
}

/// Whether a span's parent is in another process; `None` where nothing says.
fn is_remote(child: &Span, parent: &Span) -> Option<bool> {
    if child.flags & SAYS_REMOTE != 0 {
        return Some(child.flags & IS_REMOTE != 0);
    }
    let names = |resource: &Resource| resource.process();
    names(&child.resource).zip(names(&parent.resource)).map(|(one, other)| one != other)
}

fn kinds_fit(subject: &Subject<'_>) -> Vec<String> {
    let mut found =
        each(subject, |span| (span.kind == SpanKind::Unspecified).then(|| format!("{:?} has no kind", span.name)));
    let told = subject.delivery.remote_parents();
    let on_the_caller = |span: &&std::sync::Arc<Span>| span.parent_span_id.is_some_and(|id| told.contains(&id));
    // Beside a span that takes the request others may speak of what was before it.
    let entries = &subject.evidence.entries;
    let others = entries.iter().filter(|_| !entries.iter().any(|span| span.kind.takes_calls()));
    let others = others.filter(|span| span.kind != SpanKind::Unspecified).filter(on_the_caller);
    found.extend(others.map(|span| format!("{} {:?} takes the request", span.kind, span.name)));
    found.extend(pairs(subject).filter_map(|(child, parent)| {
        let below =
            |how: &str| Some(format!("{} {:?} {how} {} {:?}", child.kind, child.name, parent.kind, parent.name));
        match (is_remote(child, parent)?, child.kind, parent.kind) {
            // An invocation's span and the server's inside the function are SERVER spans, both rightly.
            (false, SpanKind::Server, _) if parent.attributes.iter().any(|(key, _)| key.starts_with("faas.")) => None,
            (false, SpanKind::Server, _) => below("stands in one process with its parent"),
            (true, SpanKind::Internal, SpanKind::Client) => below("takes the call of another process,"),
            _ => None,
        }
    }));
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::{broken, entry, told, with_resource};
    use super::*;
    use crate::{
        correlation::samples,
        stimulus::{Caller, Delivery},
        telemetry::{SpanEvent, Status, Value},
    };

    fn of_request(change: impl FnOnce(&mut Span)) -> Vec<&'static str> {
        let mut span = entry();
        change(&mut span);
        broken(&samples::delivery(), vec![span], Vec::new(), true)
    }

    fn http(code: i64, status: StatusCode) -> impl Fn(&mut Span) {
        move |span| {
            let status_code = ("http.response.status_code".to_owned(), Value::Int(code));
            let method = ("http.request.method".to_owned(), Value::from("GET"));
            span.attributes = [status_code, method].into_iter().collect();
            span.status = Status { code: status, message: String::new() };
        }
    }

    #[test]
    fn a_route_that_is_the_path_with_an_id_in_it_is_told_and_a_template_or_a_plain_path_is_not() {
        let told_of = |route: &str, target: &str| {
            let mut span = entry();
            span.attributes = [("http.route".to_owned(), Value::from(route))].into_iter().collect();
            let delivery = Delivery { target: target.into(), ..samples::delivery() };
            told(&delivery, vec![span], Vec::new()).contains(&"route-is-a-template")
        };
        for id in ["7", "00f067aa0ba902b7", "0b5c3f3e-6a55-4c0c-9f0a-5a1f0f6d7c11"] {
            assert!(told_of(&format!("/orders/{id}"), &format!("/orders/{id}?a=b")), "{id}");
            assert!(!told_of("/orders/{id}", &format!("/orders/{id}")), "{id}");
        }
        assert!(!told_of("/v1/orders", "/v1/orders"));
        assert!(!told_of("/orders/7", "/orders/8"), "one is really called so");
    }

    #[test]
    fn a_span_that_says_nothing_of_an_answer_with_5xx_is_told_and_one_with_an_exception_is_not() {
        let told_of = |status: u16, change: &dyn Fn(&mut Span)| {
            let mut span = entry();
            span.attributes = [("http.request.method".to_owned(), Value::from("GET"))].into_iter().collect();
            change(&mut span);
            let mut delivery = samples::delivery();
            delivery.response.status = status;
            told(&delivery, vec![span], Vec::new()).contains(&"answered-status")
        };
        assert!(told_of(500, &|_| {}));
        assert!(!told_of(200, &|_| {}));
        let exception = |span: &mut Span| {
            span.events =
                vec![SpanEvent { name: "exception".into(), time_unix_nano: 0, attributes: Default::default() }];
        };
        assert!(!told_of(500, &exception));
        assert!(!told_of(500, &|span| span.status.code = StatusCode::Error));
        assert!(!told_of(500, &|span| span.attributes = Default::default()), "it is not of HTTP");
    }

    #[test]
    fn a_span_that_ends_after_it_came_is_found_where_the_clocks_agree() {
        let judged = |starts: u64, ends: u64| {
            let store = crate::capture::Store::default();
            let sent = store.mark(crate::capture::Mark::Sent { delivery: "d".into() });
            let answered = store.mark(crate::capture::Mark::Answered { delivery: "d".into() });
            let (start_unix_nano, end_unix_nano) = (sent.unix_nano + starts, sent.unix_nano + ends);
            samples::export(&store, vec![Span { start_unix_nano, end_unix_nano, ..entry() }]);
            let delivery = Delivery { sent, answered, ..samples::delivery() };
            super::super::tests::judge(&store, &delivery, true, &[])
        };
        let second = 1_000_000_000;
        assert_eq!(judged(0, 100 * second), ["near-the-request"]);
        assert_eq!(judged(0, second / 2), [""; 0]);
        assert_eq!(judged(100 * second, 200 * second), [""; 0], "the clock of another machine");
    }

    #[test]
    fn a_span_that_ends_before_it_starts_is_found() {
        assert_eq!(of_request(|span| span.end_unix_nano = span.start_unix_nano - 1), ["end-after-start"]);
        assert!(of_request(|span| span.end_unix_nano = span.start_unix_nano).is_empty());
    }

    #[test]
    fn times_in_another_unit_and_in_a_time_zone_are_found_and_a_clock_that_is_off_is_not() {
        let now = 1_700_000_000_000_000_000;
        let at = |seq, unix_nano| crate::telemetry::Arrival { seq, unix_nano };
        let delivery = Delivery { sent: at(0, now), answered: at(9, now + MILLI), ..samples::delivery() };
        let hour = 3_600_000 * MILLI;
        let of_span = |start_unix_nano| {
            let span = Span { start_unix_nano, end_unix_nano: start_unix_nano + 1, ..entry() };
            broken(&delivery, vec![span], Vec::new(), true)
        };
        assert_eq!(of_span(now / MILLI), ["near-the-request"]);
        assert_eq!(of_span(now - hour), ["near-the-request"]);
        assert_eq!(of_span(now + 2 * hour), ["near-the-request"]);
        assert!(of_span(now - hour / 12).is_empty());
        let sound = || Span { start_unix_nano: now, end_unix_nano: now + 1, ..entry() };
        let with_event = |time_unix_nano| {
            let event = SpanEvent { name: "exception".into(), time_unix_nano, attributes: <_>::default() };
            broken(&delivery, vec![Span { events: vec![event], ..sound() }], Vec::new(), true)
        };
        assert_eq!(with_event(now / MILLI), ["near-the-request"]);
        assert!(with_event(now).is_empty() && with_event(0).is_empty());
        let of_record = |time| {
            let (origin, resource) = (LogOrigin::Otlp, Some(entry().resource));
            let record = crate::telemetry::LogRecord {
                time_unix_nano: Some(time),
                origin,
                resource,
                ..samples::record(Some(1), Some(1))
            };
            broken(&delivery, vec![sound()], vec![record], true)
        };
        assert_eq!(of_record(now / MILLI), ["near-the-request"]);
        assert!(of_record(now).is_empty() && of_record(0).is_empty());
    }

    #[test]
    fn a_5xx_without_error_and_a_4xx_with_error_are_found_and_the_others_are_not() {
        assert_eq!(of_request(http(503, StatusCode::Unset)), ["server-status"]);
        assert_eq!(of_request(http(404, StatusCode::Error)), ["server-status"]);
        for (code, status) in [(503, StatusCode::Error), (404, StatusCode::Unset), (200, StatusCode::Ok)] {
            assert!(of_request(http(code, status)).is_empty(), "{code}");
        }
    }

    #[test]
    fn a_status_that_the_client_did_not_get_is_mentioned_and_behind_a_gateway_it_is_not() {
        let told_of = |code, delivery: &Delivery| {
            let mut span = entry();
            http(code, StatusCode::Unset)(&mut span);
            told(delivery, vec![span], Vec::new())
        };
        assert_eq!(told_of(404, &samples::delivery()), ["answered-status"]);
        assert!(told_of(200, &samples::delivery()).is_empty());
        let invoked = Delivery { invocation: Some(samples::invocation("r")), ..samples::delivery() };
        assert!(!told_of(404, &invoked).contains(&"answered-status"));
    }

    #[test]
    fn what_takes_the_request_and_is_no_server_span_is_mentioned() {
        let kind = |kind| told(&samples::delivery(), vec![Span { kind, ..entry() }], Vec::new());
        assert_eq!(kind(SpanKind::Internal), ["kinds-fit"]);
        assert_eq!(kind(SpanKind::Client), ["kinds-fit"]);
        assert!(kind(SpanKind::Server).is_empty() && kind(SpanKind::Consumer).is_empty());
    }

    #[test]
    fn what_an_application_says_itself_of_its_status_stands() {
        assert!(of_request(http(503, StatusCode::Ok)).is_empty());
        let cancelled = |say: fn(&mut Span)| {
            of_request(|span| {
                http(499, StatusCode::Error)(span);
                say(span);
            })
        };
        assert!(cancelled(|span| span.status.message = "the client went away".into()).is_empty());
        let exception = |span: &mut Span| {
            let (name, attributes) = ("exception".to_owned(), crate::telemetry::Attributes::default());
            span.events.push(SpanEvent { name, time_unix_nano: 1, attributes });
        };
        assert!(cancelled(exception).is_empty());
    }

    fn call(code: i64, status: StatusCode) -> Vec<&'static str> {
        let mut span = with_resource(samples::span(2, Some(1), "GET"));
        http(code, status)(&mut span);
        span.kind = SpanKind::Client;
        told(&samples::delivery(), vec![entry(), span], Vec::new())
    }

    #[test]
    fn a_call_that_was_answered_with_5xx_is_an_error_and_one_with_4xx_should_be() {
        assert_eq!(call(503, StatusCode::Unset), ["client-status"]);
        assert_eq!(call(404, StatusCode::Unset), ["client-error-status"]);
        for (code, status) in [(503, StatusCode::Error), (503, StatusCode::Ok), (404, StatusCode::Error)] {
            assert!(call(code, status).is_empty(), "{code}");
        }
        let mut of_sdk = with_resource(samples::span(2, Some(1), "S3.HeadObject"));
        http(503, StatusCode::Unset)(&mut of_sdk);
        of_sdk.kind = SpanKind::Client;
        of_sdk.attributes = [("http.status_code", Value::Int(503))].into_iter().collect();
        let rules = told(&samples::delivery(), vec![entry(), of_sdk], Vec::new());
        assert_eq!(rules, ["deprecated-attributes"], "what is not of HTTP itself");
    }

    #[test]
    fn a_span_for_an_unsampled_caller_is_found() {
        let delivery = samples::delivery();
        let unsampled = delivery.caller.map(|caller| Caller { sampled: false, ..caller });
        let delivery = Delivery { caller: unsampled, ..delivery };
        assert_eq!(broken(&delivery, vec![entry()], Vec::new(), true), ["sampled"]);
    }

    const MILLI: u64 = 1_000_000;

    fn timed(kind: SpanKind, from: u64, to: u64) -> Vec<&'static str> {
        let parent = Span { start_unix_nano: 100 * MILLI, end_unix_nano: 200 * MILLI, ..entry() };
        let child = with_resource(samples::with(samples::span(2, Some(1), "work"), kind, &[]));
        let child = Span { start_unix_nano: from * MILLI, end_unix_nano: to * MILLI, ..child };
        let sent = crate::telemetry::Arrival { seq: 0, unix_nano: 99 * MILLI };
        let answered = crate::telemetry::Arrival { seq: 9, unix_nano: 300 * MILLI };
        told(&Delivery { sent, answered, ..samples::delivery() }, vec![parent, child], Vec::new())
    }

    #[test]
    fn a_child_outside_of_its_parents_time_is_mentioned_and_one_within_the_skew_or_of_a_message_is_not() {
        assert_eq!(timed(SpanKind::Internal, 150, 211), ["child-in-parent"]);
        assert_eq!(timed(SpanKind::Internal, 89, 150), ["child-in-parent"]);
        assert!(timed(SpanKind::Internal, 91, 209).is_empty());
        assert!(timed(SpanKind::Consumer, 300, 400).is_empty());
    }

    #[test]
    fn a_server_span_below_its_own_process_and_work_that_takes_a_call_are_mentioned() {
        let below = |kind, flags| {
            let child = with_resource(samples::with(samples::span(2, Some(1), "x"), kind, &[]));
            told(&samples::delivery(), vec![entry(), Span { flags, ..child }], Vec::new())
        };
        assert_eq!(below(SpanKind::Server, SAYS_REMOTE), ["kinds-fit"]);
        assert!(below(SpanKind::Server, SAYS_REMOTE | IS_REMOTE).is_empty(), "it called itself");
        assert!(below(SpanKind::Server, 0).is_empty(), "several processes may have one resource");
        let invocation = samples::with(entry(), SpanKind::Server, &[("faas.invocation_id", "r".into())]);
        let inside = with_resource(samples::with(samples::span(2, Some(1), "x"), SpanKind::Server, &[]));
        let spans = vec![invocation, Span { flags: SAYS_REMOTE, ..inside }];
        assert!(told(&samples::delivery(), spans, Vec::new()).is_empty(), "a server inside a function");
        assert!(below(SpanKind::Internal, SAYS_REMOTE).is_empty());
        assert_eq!(below(SpanKind::Unspecified, SAYS_REMOTE), ["kinds-fit"]);
    }
}
