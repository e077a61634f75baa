//! What was captured for one request, and what came with it and is not its own.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

use crate::{
    correlation::{
        Node, Trace,
        repetition::{Doubtful, TRIALS},
    },
    stimulus::Caller,
    telemetry::{LogRecord, Span, SpanId, SpanKind, TraceId},
};

/// How the spans of a request were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundBy {
    /// The entry span hangs on the caller's span, in the caller's trace.
    RemoteParent,
    /// It is the only one that can be meant in the caller's trace.
    TraceId,
    /// By Lambda's request id in its attributes.
    RequestId,
    /// By the User-Agent in its attributes.
    UserAgent,
    /// By a link to the caller's span: the service begins a trace of its own, and says of whom.
    Link,
    /// It started between sending and answering.
    Window,
    /// There are none, and rightly: the caller did not sample.
    NotSampled,
    /// There are none.
    Nothing,
}

impl fmt::Display for FoundBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::RemoteParent => "the caller's span",
            Self::TraceId => "the caller's trace id",
            Self::RequestId => "the request id",
            Self::UserAgent => "the User-Agent",
            Self::Link => "a link to the caller's span",
            Self::Window => "the time between sending and answering",
            Self::NotSampled => "nothing, since the caller did not sample",
            Self::Nothing => "nothing",
        })
    }
}

/// Something that came with this request and does not belong to it.
#[derive(Debug, Clone)]
pub enum Stranger {
    /// A span of the same trace that stands under another request's entry span.
    SameTrace {
        /// The span.
        span: Arc<Span>,
        /// The entry span above it.
        entry: Arc<Span>,
    },
    /// An entry span that speaks of this request and is in another trace: the request was split.
    OtherTrace {
        /// The span.
        span: Arc<Span>,
    },
    /// A root span of another trace that began while this request was under way and nothing else was asked of the service:
    /// work of the request that lost its context.
    Detached {
        /// The span.
        span: Arc<Span>,
    },
    /// A span of another trace that came with the request, and again each time the request was repeated.
    Repeated {
        /// The span.
        span: Arc<Span>,
    },
    /// A span that began while nothing but this request was under way, below a span of an earlier request that was over: a
    /// context that was kept.
    Stale {
        /// The span.
        span: Arc<Span>,
        /// The entry span of the earlier request.
        entry: Arc<Span>,
    },
    /// A call that was taken while a CLIENT span of this request was open, below the CLIENT span of an earlier request that was
    /// over: propagation headers that were kept.
    StaleCall {
        /// The span of who took it.
        span: Arc<Span>,
        /// The CLIENT span of this request.
        client: Arc<Span>,
    },
    /// A line that came while nothing but this request ran, with the ids of another request.
    Record {
        /// The line.
        record: Arc<LogRecord>,
        /// The trace that it names.
        trace_id: TraceId,
    },
}

impl Stranger {
    /// The span, if it is one.
    pub fn span(&self) -> Option<&Arc<Span>> {
        match self {
            Self::SameTrace { span, .. }
            | Self::OtherTrace { span }
            | Self::Detached { span }
            | Self::Repeated { span }
            | Self::Stale { span, .. }
            | Self::StaleCall { span, .. } => Some(span),
            Self::Record { .. } => None,
        }
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameTrace { span, entry } => {
                write!(
                    f,
                    "{} {:?} stands under another entry span, {:?} ({})",
                    span.kind, span.name, entry.name, entry.span_id
                )
            }
            Self::OtherTrace { span } => {
                write!(f, "{} {:?} is of this request but in the trace {}", span.kind, span.name, span.trace_id)
            }
            Self::Detached { span } => {
                write!(
                    f,
                    "{} {:?} began during this request, in a trace of its own, {}, without a parent or a link; nothing else was \
                     asked of the service, and it began no such span when nothing was",
                    span.kind, span.name, span.trace_id
                )
            }
            Self::Repeated { span } => {
                let (kind, name, trace_id) = (span.kind, &span.name, span.trace_id);
                match span.parent_span_id {
                    None => write!(
                        f,
                        "{kind} {name:?} began a trace of its own, {trace_id}, with this request or right behind it, without a parent \
                         or a link; the request was repeated {TRIALS} times, and each time such a span began, and none in the \
                         times between"
                    ),
                    Some(_) => write!(
                        f,
                        "{kind} {name:?} began during this request, in the trace {trace_id} of another one; the request was repeated \
                         {TRIALS} times, and each time such a span began in another request's trace, none in its own, and none in \
                         the times between"
                    ),
                }
            }
            Self::Stale { span, entry } => {
                write!(
                    f,
                    "{} {:?} began during this request, under {} {:?} of an earlier one, in the trace {}, which was over when this \
                     one was sent; that one had such a span of its own, this one has not: the context of the earlier request \
                     was kept",
                    span.kind, span.name, entry.kind, entry.name, entry.trace_id
                )
            }
            Self::StaleCall { span, client } => {
                write!(
                    f,
                    "{} {:?} began during {} {:?} ({}) of this request, under a call of an earlier one that was over when this one \
                     was sent, in the trace {}, and nothing took this one's: the propagation headers of the earlier call were \
                     sent again",
                    span.kind, span.name, client.kind, client.name, client.span_id, span.trace_id
                )
            }
            Self::Record { record, trace_id } => {
                write!(f, "{} line {:?} names the trace {trace_id}", record.origin, record.message)
            }
        }
    }
}

/// Everything that was captured for one request.
#[derive(Debug, Clone)]
pub struct RequestEvidence {
    /// How the entry spans were found.
    pub found_by: FoundBy,
    /// The spans at which the request came in: one, unless something is wrong.
    pub entries: Vec<Arc<Span>>,
    /// The spans of the request as a tree, with its records attached.
    pub trace: Trace,
    /// The structured records of the request, in order of arrival: lines and OTLP copies.
    pub logs: Vec<Arc<LogRecord>>,
    /// Text lines that came during the request or have its request id; they claim nothing.
    pub text: Vec<Arc<LogRecord>>,
    /// Those of `logs` that carry no ids and do not speak of the request either: only the time says that they are of it.
    pub guessed: Vec<Arc<LogRecord>>,
    /// Records that came again each time the request was repeated: those of `guessed` that came behind the answer, and those
    /// that name the trace of another request.
    pub repeated: Vec<Arc<LogRecord>>,
    /// What came with a request that was not repeated yet, or never is: nothing says whose it is.
    pub untried: Doubtful,
    /// Root spans of other traces that began inside of the request, of a service that had ended before anybody saw whether it
    /// begins such ones by itself: nobody can say any more whose they are.
    pub undecided: Vec<Arc<Span>>,
    /// Spans of the request's traces that the collector refused for good.
    pub refused: HashSet<(TraceId, SpanId)>,
    /// Lines that came while nothing but this request was under way, each with a span of another request that had ended
    /// before this one was sent: ids that were left behind.
    pub left_behind: Vec<(Arc<LogRecord>, Arc<Span>)>,
    /// What came with it and does not belong to it.
    pub strangers: Vec<Stranger>,
    /// When nothing was found: entry spans that came, each of which is somebody else's or nobody's.
    pub candidates: Vec<Arc<Span>>,
    /// The caller that the service was told of, if any.
    pub caller: Option<Caller>,
    /// Every trace that the service was told to carry on: the caller's, and on Lambda that of the runtime's header.
    pub told_traces: Vec<TraceId>,
    /// Lambda's request id.
    pub request_id: Option<String>,
    /// The request ids of all other invocations of the function so far, where a record has another request id than its own.
    pub invocations: HashSet<String>,
    pub(in crate::correlation) method: String,
    pub(in crate::correlation) target: String,
    pub(in crate::correlation) user_agent: String,
    /// Spans outside the tree that records of the request name, with the entry span above each.
    pub(in crate::correlation) outside: HashMap<(TraceId, SpanId), Arc<Span>>,
}

impl RequestEvidence {
    /// The trace that the service made or carried on for this request.
    pub fn trace_id(&self) -> Option<TraceId> {
        self.entries.first().map(|span| span.trace_id)
    }

    /// The spans among the strangers that only the time says are of the request.
    pub fn detached(&self) -> impl Iterator<Item = &Arc<Span>> {
        self.strangers.iter().filter_map(|stranger| match stranger {
            Stranger::Detached { span } => Some(span),
            _ => None,
        })
    }

    /// The topmost span above each that a record of `repeated` names.
    pub fn tops_of_repeated(&self) -> impl Iterator<Item = &Arc<Span>> {
        let named = self.repeated.iter().filter_map(|record| record.named());
        named.filter_map(|named| self.outside.get(&named))
    }

    /// The spans among the strangers that came again when the request was repeated.
    pub fn came_again(&self) -> impl Iterator<Item = &Arc<Span>> {
        self.strangers.iter().filter_map(|stranger| match stranger {
            Stranger::Repeated { span } => Some(span),
            _ => None,
        })
    }

    /// The spans among the strangers that hang on an earlier request.
    pub fn stale(&self) -> impl Iterator<Item = &Arc<Span>> {
        self.strangers.iter().filter_map(|stranger| match stranger {
            Stranger::Stale { span, .. } => Some(span),
            _ => None,
        })
    }

    /// Whether something here speaks of telemetry that may still be on its way from another process: a parent or a span
    /// that was not received, or a call out of which nothing hangs yet.
    pub fn may_go_on(&self) -> bool {
        let calls_out =
            |node: &Node| matches!(node.span.kind, SpanKind::Client | SpanKind::Producer) && node.children.is_empty();
        !self.trace.orphans.is_empty()
            || self.trace.nodes().iter().any(calls_out)
            || (self.sampled() && self.not_received().next().is_some())
    }

    /// Whether a span of the request began when its entry spans had ended.
    pub fn goes_on_behind(&self) -> bool {
        let end = self.entries.iter().map(|entry| entry.end_unix_nano).max();
        end.is_some_and(|end| self.trace.spans().any(|span| span.start_unix_nano > end))
    }

    /// The traces that lines name which came while nothing but this request was under way.
    pub fn traces_named_beside(&self) -> impl Iterator<Item = TraceId> {
        self.strangers.iter().filter_map(|stranger| match stranger {
            Stranger::Record { trace_id, .. } => Some(*trace_id),
            _ => None,
        })
    }

    /// The records that name a span that was not received.
    pub fn not_received(&self) -> impl Iterator<Item = &Arc<LogRecord>> {
        self.logs.iter().filter(|record| {
            let named = record.named();
            named.is_some_and(|(trace_id, span_id)| {
                self.trace.position(trace_id, span_id).is_none()
                    && !self.outside.contains_key(&(trace_id, span_id))
                    && !self.refused.contains(&(trace_id, span_id))
            })
        })
    }

    /// Whether the caller asked for spans; `true` when there was no caller.
    pub fn sampled(&self) -> bool {
        self.caller.is_none_or(|caller| caller.sampled)
    }
}
