//! The segments that AWS itself would put into an invocation's trace, derived from what the emulator knows.
//!
//! With active tracing the Lambda service reports a segment of its own, `AWS::Lambda`, and one for the function,
//! `AWS::Lambda::Function`, whose id is the `Parent` in the runtime's trace header. Below the function's stand
//! `Initialization`, for the first invocation of an environment only, `Invocation`, in which the handler ran, and
//! `Overhead`, in which the runtime makes ready for the next event ("Visualize Lambda function invocations using AWS X-Ray"
//! in the Lambda Developer Guide). What the function reports names the function's segment as its parent, and is drawn
//! within the invocation.
//!
//! They are for showing only: no span, never in the store, never what a step looks at.

use std::{
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use super::{Row, Trace, xray};
use crate::{
    capture::{Capture, Lifecycle, Mark},
    stimulus::{ContextForm, Delivery},
    telemetry::{SpanId, TraceId},
};

/// Which of its segments AWS calls so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// From the request until its answer leaves the Lambda service.
    Service,
    /// From the event until the environment is frozen or gone.
    Function,
    /// The Init phase; of the first invocation only.
    Initialization,
    /// From the event until the response.
    Invocation,
    /// From the response until the runtime and all extensions are ready for the next event.
    Overhead,
}

impl fmt::Display for SegmentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Service => "AWS::Lambda",
            Self::Function => "AWS::Lambda::Function",
            Self::Initialization => "Initialization",
            Self::Invocation => "Invocation",
            Self::Overhead => "Overhead",
        })
    }
}

/// One segment or subsegment that was derived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Which.
    pub kind: SegmentKind,
    /// The root in the runtime's trace header.
    pub trace_id: TraceId,
    /// The function's is the parent in the runtime's trace header; the others' are made up, the same for one invocation.
    pub id: SpanId,
    /// What it hangs on: for the service's the parent in the event's own header, if there is one.
    pub parent: Option<SpanId>,
    /// Nanoseconds since the Unix epoch.
    pub start_unix_nano: u64,
    /// Nanoseconds since the Unix epoch, not before the start.
    pub end_unix_nano: u64,
    /// For an Init that was over before the request was sent, how long before. The emulator starts an environment ahead
    /// of the first request, as Lambda does with provisioned concurrency.
    pub ahead: Option<Duration>,
}

impl Segment {
    /// Time between start and end.
    pub fn duration(&self) -> Duration {
        Duration::from_nanos(self.end_unix_nano.saturating_sub(self.start_unix_nano))
    }
}

/// `AWS::Lambda  5.20 ms  derived`.
impl fmt::Display for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}  {:.2} ms  derived", self.kind, self.duration().as_secs_f64() * 1e3)?;
        match self.ahead {
            Some(ahead) => write!(f, ", over {:.2} ms before the request was sent", ahead.as_secs_f64() * 1e3),
            None => Ok(()),
        }
    }
}

/// The segments of a delivery's invocation, parents before their children and siblings in the order of their starts.
/// None without an invocation, and none for one that is not sampled: with active tracing off the runtime is told so.
pub fn segments(capture: &Capture, delivery: &Delivery) -> Vec<Segment> {
    let derived = || {
        let invocation = delivery.invocation.as_ref()?;
        let header: xray::XrayHeader = invocation.runtime_trace_header.as_ref()?.parse().ok()?;
        let function = header.parent.filter(|_| header.sampled == xray::Sampled::Yes)?;
        let phases = Phases::of(capture.lifecycle(), delivery, &invocation.request_id, invocation.cold_start)?;
        // What the event's own X-Ray header names; one that has a root only, or was made up by the gateway, names none.
        let told = matches!(delivery.form, ContextForm::Both | ContextForm::Xray);
        let caller = delivery.caller.filter(|caller| told && caller.trace_id == header.root);
        let id = |kind: SegmentKind| match kind {
            SegmentKind::Function => function,
            _ => made_up(function, kind),
        };
        let one = |kind, parent, (start, end): (u64, u64)| Segment {
            kind,
            trace_id: header.root,
            id: id(kind),
            parent,
            start_unix_nano: start,
            end_unix_nano: end.max(start),
            ahead: None,
        };
        let sent = delivery.sent.unix_nano;
        let mut all = vec![
            one(SegmentKind::Service, caller.map(|caller| caller.span_id), (sent, phases.answered)),
            one(SegmentKind::Function, Some(id(SegmentKind::Service)), phases.function),
        ];
        all.extend(phases.init.map(|(start, end)| {
            let ahead = (end < sent).then(|| Duration::from_nanos(sent - end));
            Segment { ahead, ..one(SegmentKind::Initialization, Some(function), (start, end)) }
        }));
        all.extend(phases.invocation.map(|phase| one(SegmentKind::Invocation, Some(function), phase)));
        all.extend(phases.overhead.map(|phase| one(SegmentKind::Overhead, Some(function), phase)));
        Some(all)
    };
    derived().unwrap_or_default()
}

/// An id for what AWS alone would know the id of.
fn made_up(function: SpanId, kind: SegmentKind) -> SpanId {
    let mut hasher = DefaultHasher::new();
    function.as_bytes().hash(&mut hasher);
    kind.hash(&mut hasher);
    SpanId::from_bytes(&hasher.finish().to_be_bytes()).unwrap_or(function)
}

/// When the phases of an invocation began and ended, in nanoseconds since the Unix epoch.
#[derive(Debug, PartialEq, Eq)]
struct Phases {
    answered: u64,
    function: (u64, u64),
    init: Option<(u64, u64)>,
    invocation: Option<(u64, u64)>,
    overhead: Option<(u64, u64)>,
}

impl Phases {
    fn of(lifecycle: &[Lifecycle], delivery: &Delivery, request_id: &str, cold_start: bool) -> Option<Self> {
        let dispatched = |mark: &Mark| matches!(mark, Mark::Dispatched { request_id: of, .. } if of == request_id);
        let Some(at) = lifecycle.iter().position(|made| dispatched(&made.mark)) else {
            return Self::without_event(lifecycle, delivery);
        };
        let (before, after) = lifecycle.split_at(at);
        let first = after.first()?;
        let Mark::Dispatched { environment, .. } = &first.mark else { return None };
        let dispatched = first.arrival.unix_nano;
        let mut responded = None;
        let mut ended = None;
        for made in &after[1..] {
            let when = made.arrival.unix_nano;
            match &made.mark {
                Mark::Responded { request_id: of } if of == request_id => responded = Some(when),
                Mark::Frozen { request_id: Some(of) } if of == request_id => {
                    ended = Some(when);
                    break;
                }
                Mark::EnvironmentEnded { environment: of, .. } if of == environment => {
                    ended = Some(when);
                    break;
                }
                Mark::Dispatched { environment: of, .. } if of == environment => break,
                _ => {}
            }
        }
        let init = if cold_start { Self::init(before, dispatched) } else { None };
        let answered = responded.or(ended).unwrap_or(delivery.answered.unix_nano);
        // An Init that was made because of this request is a part of its time.
        let began = init.map(|(start, _)| start).filter(|&start| start >= delivery.sent.unix_nano);
        Some(Self {
            answered,
            function: (began.unwrap_or(dispatched), ended.unwrap_or(answered)),
            init,
            invocation: Some((dispatched, responded.or(ended).unwrap_or(answered))),
            overhead: responded.zip(ended),
        })
    }

    /// The last Init before an event was handed out: from the first process that was started until all had asked for an
    /// event, which the freeze shows, or the deployment's readiness where nothing freezes.
    fn init(before: &[Lifecycle], dispatched: u64) -> Option<(u64, u64)> {
        let other = |mark: &Mark| matches!(mark, Mark::EnvironmentEnded { .. } | Mark::Dispatched { .. });
        let from = before.iter().rposition(|made| other(&made.mark)).map_or(0, |at| at + 1);
        let own = &before[from..];
        let start = own.iter().find(|made| matches!(made.mark, Mark::Started { .. }))?.arrival.unix_nano;
        let ready = |made: &&Lifecycle| matches!(made.mark, Mark::Frozen { .. } | Mark::Ready);
        let end = own.iter().find(ready).map_or(dispatched, |made| made.arrival.unix_nano);
        Some((start, end))
    }

    /// An invocation whose Init failed: no event was ever handed out.
    fn without_event(lifecycle: &[Lifecycle], delivery: &Delivery) -> Option<Self> {
        let during = |made: &&Lifecycle| (delivery.sent.seq..delivery.answered.seq).contains(&made.arrival.seq);
        let own: Vec<&Lifecycle> = lifecycle.iter().filter(during).collect();
        let end = own.iter().rposition(|made| matches!(made.mark, Mark::EnvironmentEnded { .. }))?;
        let other = |made: &&Lifecycle| matches!(made.mark, Mark::EnvironmentEnded { .. });
        let from = own[..end].iter().rposition(other).map_or(0, |at| at + 1);
        let start = own[from..end].iter().find(|made| matches!(made.mark, Mark::Started { .. }))?;
        let init = (start.arrival.unix_nano, own[end].arrival.unix_nano);
        Some(Self {
            answered: delivery.answered.unix_nano,
            function: init,
            init: Some(init),
            invocation: None,
            overhead: None,
        })
    }
}

/// One line of a drawn trace.
#[derive(Debug, Clone)]
pub enum Line<'a> {
    /// A segment that was derived.
    Segment {
        /// 0 at the top.
        depth: usize,
        /// The lines that lead to it: `│  └─ `.
        branch: String,
        /// The segment.
        segment: &'a Segment,
    },
    /// A span that was received.
    Span(Row<'a>),
}

/// The lines that lead to it, and what it says.
impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment { branch, segment, .. } => write!(f, "{branch}{segment}"),
            Self::Span(row) => write!(f, "{}{row}", row.branch),
        }
    }
}

/// A trace as X-Ray would show it: spans that hang on the function's segment below it, all others as they are.
pub fn drawn<'a>(segments: &'a [Segment], trace: &'a Trace) -> Vec<Line<'a>> {
    let mut lines = Vec::new();
    let function = segments.iter().find(|segment| segment.kind == SegmentKind::Function);
    let hangs_on_it = |&at: &usize| {
        let span = &trace.nodes()[at].span;
        function.is_some_and(|own| span.trace_id == own.trace_id && span.parent_span_id == Some(own.id))
    };
    let (below, beside): (Vec<usize>, Vec<usize>) = trace.roots().iter().partition(|at| hangs_on_it(at));
    let mut open = !below.is_empty();
    for segment in segments {
        let last = segments.last().is_some_and(|last| std::ptr::eq(last, segment));
        let (depth, branch) = match segment.kind {
            SegmentKind::Service => (0, ""),
            SegmentKind::Function => (1, "└─ "),
            SegmentKind::Initialization if last && below.is_empty() => (2, "   └─ "),
            SegmentKind::Initialization => (2, "   ├─ "),
            SegmentKind::Invocation if last => (2, "   └─ "),
            SegmentKind::Invocation => (2, "   ├─ "),
            SegmentKind::Overhead => (2, "   └─ "),
        };
        lines.push(Line::Segment { depth, branch: branch.to_owned(), segment });
        if segment.kind == SegmentKind::Invocation {
            let lead = if last { "      " } else { "   │  " };
            lines.extend(trace.rows_of(&below, 3, lead, true).into_iter().map(Line::Span));
            open = false;
        }
    }
    if open {
        lines.extend(trace.rows_of(&below, 2, "   ", true).into_iter().map(Line::Span));
    }
    lines.extend(trace.rows_of(&beside, 0, "", true).into_iter().map(Line::Span));
    lines
}

#[cfg(test)]
#[path = "segments_tests.rs"]
mod tests;
