//! What of a request came only after its execution environment had been frozen, and what never came.

use std::{collections::HashSet, fmt};

use super::RequestEvidence;
use crate::{
    capture::{Capture, Mark},
    telemetry::{Arrival, LogOrigin, Span, Value},
};

/// Something of a request that had not arrived when its environment was frozen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterFreeze {
    /// It came after a thaw.
    Late {
        /// A span by kind and name, a record by origin and message.
        what: String,
        /// Invocations that had been handed to the same environment since the freeze when it came; 0 when the environment was thawed only to
        /// be shut down.
        invocations: usize,
        /// Whether it only began, or was written, behind the freeze.
        begun_behind: bool,
    },
    /// It never came.
    Lost {
        /// What names it.
        what: String,
    },
}

impl fmt::Display for AfterFreeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late { what, invocations, begun_behind } => {
                match invocations {
                    0 => write!(f, "late       {what} came only when the environment was shut down")?,
                    1 => write!(f, "late       {what} came late by 1 invocation")?,
                    _ => write!(f, "late       {what} came late by {invocations} invocations")?,
                }
                if *begun_behind {
                    f.write_str(
                        ": no flush would help, it began behind the freeze, with what it had kept of this invocation",
                    )?;
                }
                Ok(())
            }
            Self::Lost { what } => {
                write!(f, "lost       {what}: lost at the freeze, or never ended")
            }
        }
    }
}

/// Attributes what was captured for an invocation to before and after the freeze behind it: late things in order of
/// arrival, then lost ones. `None` when the environment was not frozen behind it.
pub fn after_the_freeze(capture: &Capture, evidence: &RequestEvidence) -> Option<Vec<AfterFreeze>> {
    let request_id = evidence.request_id.as_deref()?;
    let home = capture.lifecycle().iter().find_map(|entry| match &entry.mark {
        Mark::Dispatched { request_id: id, environment } if id == request_id => Some(environment.as_str()),
        _ => None,
    });
    let behind = |mark: &Mark| matches!(mark, Mark::Frozen { request_id: Some(id) } if id == request_id);
    let Arrival { seq: froze, unix_nano: froze_at } =
        capture.lifecycle().iter().find(|entry| behind(&entry.mark))?.arrival;
    let late = |what: String, seq: u64, begun: Option<u64>| {
        let dispatched = |entry: &&crate::capture::Lifecycle| {
            (froze..seq).contains(&entry.arrival.seq)
                && matches!(&entry.mark, Mark::Dispatched { environment, .. } if Some(environment.as_str()) == home)
        };
        let invocations = capture.lifecycle().iter().filter(dispatched).count();
        let begun_behind = begun.is_some_and(|begun| begun > froze_at);
        (seq, AfterFreeze::Late { what, invocations, begun_behind })
    };
    // A runtime's own span around the handler says whose it is by its request id, whatever trace it is in.
    let names_it = |span: &Span| {
        let is_id = |value: &Value| matches!(value, Value::String(text) if text == request_id);
        span.attributes.iter().any(|(_, value)| is_id(value))
    };
    let own = evidence.trace.spans().filter(|span| span.arrival.seq > froze);
    let beside = capture
        .spans()
        .since(froze + 1)
        .filter(|span| evidence.trace.position(span.trace_id, span.span_id).is_none() && names_it(span));
    let spans = own.chain(beside);
    let spans =
        spans.map(|span| late(format!("{} {:?}", span.kind, span.name), span.arrival.seq, Some(span.start_unix_nano)));
    // What is frozen writes nothing: a line that comes before the thaw was written before the freeze, and an engine handed it on
    // late. Nobody hands on what is exported: that is late where it was still under way at the freeze.
    let ends_the_freeze = |mark: &Mark| match mark {
        Mark::Thawed => true,
        Mark::EnvironmentEnded { environment, .. } => Some(environment.as_str()) == home,
        _ => false,
    };
    let behind_the_freeze = capture.lifecycle().iter().skip_while(|entry| entry.arrival.seq <= froze);
    let thawed = behind_the_freeze.filter(|entry| ends_the_freeze(&entry.mark)).map(|entry| entry.arrival.seq).next();
    let written = thawed.unwrap_or(u64::MAX);
    let records = evidence
        .logs
        .iter()
        .filter(|record| record.arrival.seq > if record.origin == LogOrigin::Otlp { froze } else { written });
    let records = records.map(|record| {
        late(format!("{} {:?}", record.origin, record.message), record.arrival.seq, record.time_unix_nano)
    });
    let mut all: Vec<(u64, AfterFreeze)> = spans.chain(records).collect();
    all.sort_by_key(|(seq, _)| *seq);
    let mut found: Vec<AfterFreeze> = all.into_iter().map(|(_, late)| late).collect();
    if evidence.sampled() {
        let mut told = HashSet::new();
        let named = evidence.logs.iter().filter_map(|record| {
            let (trace, span) = record.named()?;
            if capture.span(trace, span).is_some() || !told.insert((trace, span)) {
                return None;
            }
            let what = format!("the span {span} that {:?} names never came", record.message);
            Some(AfterFreeze::Lost { what })
        });
        found.extend(named);
        if evidence.trace.is_empty() {
            let what = "no span of the invocation came before the freeze or after it".into();
            found.push(AfterFreeze::Lost { what });
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        capture::{Decoded, Encoding, ExportRequest, Signal, Store, Transport},
        correlation::{Options, request, samples::*},
        telemetry::{Arrival, LogRecord, Span, SpanKind},
    };

    fn export(store: &Store, span: Span) {
        let request = ExportRequest {
            signal: Signal::Traces,
            transport: Transport::Http,
            encoding: Encoding::Protobuf,
            user_agent: String::new(),
            body: bytes::Bytes::new(),
            arrival: Arrival::default(),
        };
        store.add_values(request, Decoded::Spans(vec![span]), Vec::new());
    }

    fn server() -> Span {
        with(span(1, Some(99), "GET /"), SpanKind::Server, &[])
    }

    fn line(store: &Store, record: LogRecord) {
        store.add_line(String::new(), |_, arrival| vec![LogRecord { arrival, ..record }]);
    }

    fn dispatched(store: &Store, id: &str) {
        store.mark(Mark::Dispatched { request_id: id.into(), environment: "environment".into() });
    }

    fn frozen(store: &Store, id: &str) {
        store.mark(Mark::Frozen { request_id: Some(id.into()) });
    }

    fn judge(store: &Store) -> Option<Vec<String>> {
        let mut delivery = delivery();
        delivery.invocation = Some(invocation("own"));
        let options = Options { window_end: Some(u64::MAX), exclusive: true, ..Options::default() };
        store.look(|capture| {
            let found = after_the_freeze(capture, &request(capture, &delivery, options))?;
            Some(found.iter().map(ToString::to_string).collect())
        })
    }

    #[test]
    fn what_came_before_the_freeze_is_neither_late_nor_lost() {
        let store = Store::default();
        dispatched(&store, "own");
        export(&store, server());
        line(&store, record(Some(1), Some(1)));
        frozen(&store, "own");
        assert_eq!(judge(&store).unwrap(), [""; 0]);
    }

    #[test]
    fn what_came_later_is_named_with_the_invocations_that_it_is_late_by() {
        let store = Store::default();
        dispatched(&store, "own");
        export(&store, server());
        frozen(&store, "own");
        store.mark(Mark::Thawed);
        dispatched(&store, "second");
        line(&store, record(Some(1), Some(1)));
        frozen(&store, "second");
        dispatched(&store, "third");
        export(&store, span(2, Some(1), "render"));
        frozen(&store, "third");
        let expected = [
            "late       stdout \"hello\" came late by 1 invocation",
            "late       INTERNAL \"render\" came late by 2 invocations",
        ];
        assert_eq!(judge(&store).unwrap(), expected);
    }

    #[test]
    fn a_line_that_an_engine_hands_on_while_the_environment_is_frozen_is_not_late_and_one_behind_the_thaw_is() {
        let store = Store::default();
        dispatched(&store, "own");
        export(&store, server());
        frozen(&store, "own");
        line(&store, record(Some(1), Some(1)));
        assert_eq!(judge(&store).unwrap(), [""; 0]);
        store.mark(Mark::Thawed);
        line(&store, LogRecord { message: "behind".into(), ..record(Some(1), Some(1)) });
        assert_eq!(
            judge(&store).unwrap(),
            ["late       stdout \"behind\" came only when the environment was shut down"]
        );
    }

    #[test]
    fn what_only_began_behind_the_freeze_with_the_context_of_the_invocation_is_told_from_what_was_not_flushed() {
        let store = Store::default();
        dispatched(&store, "own");
        export(&store, server());
        frozen(&store, "own");
        dispatched(&store, "second");
        export(&store, Span { start_unix_nano: u64::MAX - 1, ..span(2, Some(1), "render") });
        let late = judge(&store).unwrap();
        assert!(
            late[0].starts_with("late       INTERNAL \"render\" came late by 1 invocation: no flush would"),
            "{late:?}"
        );
    }

    #[test]
    fn a_span_in_another_trace_that_names_the_invocation_by_its_request_id_is_late_too() {
        let store = Store::default();
        dispatched(&store, "own");
        export(&store, server());
        frozen(&store, "own");
        dispatched(&store, "second");
        let around = |id: &str| {
            let around = Span { trace_id: trace_id(9), ..span(7, None, "invoke") };
            with(around, SpanKind::Internal, &[("requestId", id.into())])
        };
        export(&store, around("second"));
        assert_eq!(judge(&store).unwrap(), [""; 0]);
        export(&store, around("own"));
        assert_eq!(judge(&store).unwrap(), ["late       INTERNAL \"invoke\" came late by 1 invocation"]);
    }

    #[test]
    fn invocations_of_another_environment_make_nothing_late() {
        let store = Store::default();
        dispatched(&store, "own");
        frozen(&store, "own");
        store.mark(Mark::Dispatched { request_id: "other".into(), environment: "another".into() });
        dispatched(&store, "second");
        export(&store, server());
        assert_eq!(judge(&store).unwrap(), ["late       SERVER \"GET /\" came late by 1 invocation"]);
    }

    #[test]
    fn what_came_at_the_shutdown_is_late_by_no_invocation() {
        let store = Store::default();
        dispatched(&store, "own");
        frozen(&store, "own");
        export(&store, server());
        assert_eq!(
            judge(&store).unwrap(),
            ["late       SERVER \"GET /\" came only when the environment was shut down"]
        );
    }

    #[test]
    fn what_never_came_is_lost() {
        let store = Store::default();
        dispatched(&store, "own");
        line(&store, record(Some(1), Some(7)));
        frozen(&store, "own");
        let lost = judge(&store).unwrap();
        assert!(lost[0].contains("0000000000000007 that \"hello\" names never came: lost at the freeze"), "{lost:?}");
        assert!(lost[1].contains("no span of the invocation came"), "{lost:?}");
    }

    #[test]
    fn a_span_that_several_lines_name_is_lost_once() {
        let store = Store::default();
        dispatched(&store, "own");
        export(&store, server());
        line(&store, record(Some(1), Some(7)));
        line(&store, record(Some(1), Some(7)));
        frozen(&store, "own");
        assert_eq!(judge(&store).unwrap().len(), 1);
    }

    #[test]
    fn an_environment_that_did_not_freeze_says_nothing() {
        let store = Store::default();
        dispatched(&store, "own");
        export(&store, server());
        assert_eq!(judge(&store), None);
    }
}
