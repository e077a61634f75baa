//! What the sink does wrong on purpose: refuse, hang, reset, for some requests or for some time. Deciding is pure; the
//! sink acts on the decision and notes what it did to whom.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tonic::Code;

use super::answer::Refusal;
use crate::{
    capture::{Decoded, Signal},
    telemetry::{Arrival, LogRecord, SpanId, TraceId, digest},
};

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// It is not taken, and the exporter is told so.
    Refuse {
        /// OTLP/HTTP's status; gRPC is told its equivalent.
        #[serde(with = "status")]
        status: StatusCode,
        /// When the exporter may try again.
        retry: Option<Duration>,
    },
    /// It is taken, and the answer says that one item of it was rejected.
    Partial,
    /// It is taken, and answered only after this time.
    Slow(Duration),
    /// It is held: as long as the behaviour lasts, and then taken; or for good, when the behaviour is counted in requests.
    Hang,
    /// The connection is reset in the place of an answer.
    Reset,
}

impl Act {
    /// Whether the protocol forbids the exporter to send the same data again.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Refuse { status, retry } => match status.as_u16() {
                // RESOURCE_EXHAUSTED is retryable only with RetryInfo; over HTTP 429 always is, so nothing is held
                // against an exporter that tries again.
                429 | 502..=504 => false,
                _ => retry.is_none(),
            },
            Self::Partial => true,
            Self::Slow(_) | Self::Hang | Self::Reset => false,
        }
    }

    /// The refusal that the exporter is told.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let Self::Refuse { status, retry } = *self else { return None };
        let code = equivalent(status);
        let message = format!("refused on purpose, as the scenario says: {} ({code:?})", status.as_u16());
        Some(Refusal { retry, ..Refusal::new(status, code, message) })
    }
}

/// The gRPC code that says what an HTTP status says.
const fn equivalent(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        429 => Code::ResourceExhausted,
        502 | 503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Internal,
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refuse { status, retry } => {
                write!(f, "refused with {} ({:?})", status.as_u16(), equivalent(*status))?;
                retry.map_or(Ok(()), |retry| write!(f, ", retry after {retry:?}"))
            }
            Self::Partial => f.write_str("taken, and one item of it called rejected"),
            Self::Slow(by) => write!(f, "taken after {by:?}"),
            Self::Hang => f.write_str("held without an answer"),
            Self::Reset => f.write_str("answered by a reset of its connection"),
        }
    }
}

/// How long a rule lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// For so many requests.
    Requests(u32),
    /// For so long from the first request that meets it: when an exporter sends is its own affair, and on a busy machine an
    /// outage would be over before it did.
    For(Duration),
    /// Until then.
    Until(Instant),
}

/// One behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whose requests; of every signal when it is `None`.
    pub signal: Option<Signal>,
    /// What is done to them.
    pub act: Act,
    /// How long.
    pub lasting: Lasting,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signal {
            Some(signal) => write!(f, "a {signal} request is {}", self.act),
            None => write!(f, "a request is {}", self.act),
        }
    }
}

/// What is to be done to a request, and until when at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// What.
    pub act: Act,
    /// When the rule ends, if it ends at a time.
    pub until: Option<Instant>,
}

/// Something that can be told apart from everything else that is exported: a span by its ids, a log record by all that it
/// says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Item {
    /// A span.
    Span(TraceId, SpanId),
    /// A log record with a time and ids: the digest of its ids, times, body and attributes.
    Log(u64),
}

impl Item {
    /// The identity of a record; a record without a time or without ids has none, because two of them may be alike.
    pub fn of_log(record: &LogRecord) -> Option<Self> {
        let ids = (record.trace_id.valid()?, record.span_id.valid()?);
        let time = record.time_unix_nano?;
        let mut parts =
            vec![ids.0.to_string(), ids.1.to_string(), time.to_string(), record.logger.clone(), record.raw.clone()];
        for (key, value) in record.fields.iter() {
            parts.extend([key.to_owned(), value.to_string()]);
        }
        Some(Self::Log(digest(&parts)))
    }

    /// Everything in a request that has an identity.
    pub fn all(decoded: &Decoded) -> HashSet<Self> {
        match decoded {
            Decoded::Spans(spans) => spans.iter().map(|span| Self::Span(span.trace_id, span.span_id)).collect(),
            Decoded::Logs(records) => records.iter().filter_map(Self::of_log).collect(),
            Decoded::Metrics(_) | Decoded::Profiles(_) => HashSet::new(),
        }
    }
}

/// One thing that was done to one request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Incident {
    /// When, among everything that was captured.
    pub arrival: Arrival,
    /// Whose.
    pub signal: Signal,
    /// What.
    pub act: Act,
    /// What the request held, if the exporter must not send it again.
    pub items: HashSet<Item>,
}

/// A status as its number.
mod status {
    use http::StatusCode;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u16(status.as_u16())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
        StatusCode::from_u16(u16::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// The rules of a sink, and what came of them.
#[derive(Debug, Default)]
pub struct Behaviour {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rules: VecDeque<Rule>,
    /// Every rule that was added, until a request meets it.
    unmet: Vec<Rule>,
    incidents: Vec<Incident>,
}

impl Behaviour {
    /// Adds a rule behind the others. The first that fits a request is acted on.
    pub fn add(&self, rule: Rule) {
        let mut state = self.lock();
        state.rules.push_back(rule);
        state.unmet.push(rule);
    }

    /// What is to be done to a request that came at `now`; `None` to take it.
    pub fn next(&self, signal: Signal, now: Instant) -> Option<Decision> {
        let State { rules, .. } = &mut *self.lock();
        rules.retain(|rule| match rule.lasting {
            Lasting::Requests(left) => left > 0,
            Lasting::For(_) => true,
            Lasting::Until(end) => now < end,
        });
        let rule = rules.iter_mut().find(|rule| rule.signal.is_none_or(|of| of == signal))?;
        if let Lasting::For(time) = rule.lasting {
            rule.lasting = Lasting::Until(now + time);
        }
        let until = match &mut rule.lasting {
            Lasting::Requests(left) => {
                *left -= 1;
                None
            }
            Lasting::Until(end) => Some(*end),
            Lasting::For(_) => None,
        };
        Some(Decision { act: rule.act, until })
    }

    /// Rules that no request has met so far.
    pub fn unmet(&self) -> Vec<Rule> {
        self.lock().unmet.clone()
    }

    /// Keeps what was done. Only now a rule is met: who waits for that looks at the incidents next.
    pub(super) fn happened(&self, incident: Incident) {
        let State { unmet, incidents, .. } = &mut *self.lock();
        let (signal, act) = (incident.signal, incident.act);
        let met = |rule: &Rule| rule.signal.is_none_or(|of| of == signal) && rule.act == act;
        if let Some(at) = unmet.iter().position(met) {
            unmet.remove(at);
        }
        incidents.push(incident);
    }

    /// What was done so far.
    pub fn incidents(&self) -> Vec<Incident> {
        self.lock().incidents.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(status: u16) -> Act {
        Act::Refuse { status: StatusCode::from_u16(status).unwrap(), retry: None }
    }

    fn rule(signal: Option<Signal>, act: Act, lasting: Lasting) -> Rule {
        Rule { signal, act, lasting }
    }

    #[test]
    fn a_rule_counted_in_requests_ends_after_so_many_of_its_signal() {
        let behaviour = Behaviour::default();
        behaviour.add(rule(Some(Signal::Traces), refuse(503), Lasting::Requests(2)));
        let now = Instant::now();
        let acts = |signal| behaviour.next(signal, now).map(|decision| decision.act);
        assert_eq!(acts(Signal::Logs), None);
        assert_eq!(acts(Signal::Traces), Some(refuse(503)));
        assert_eq!(acts(Signal::Traces), Some(refuse(503)));
        assert_eq!(acts(Signal::Traces), None);
    }

    #[test]
    fn a_rule_of_all_signals_ends_at_its_time() {
        let behaviour = Behaviour::default();
        let end = Instant::now() + Duration::from_secs(1);
        behaviour.add(rule(None, Act::Hang, Lasting::Until(end)));
        let before = behaviour.next(Signal::Metrics, end - Duration::from_millis(1));
        assert_eq!(before, Some(Decision { act: Act::Hang, until: Some(end) }));
        assert_eq!(behaviour.next(Signal::Metrics, end), None);
    }

    #[test]
    fn a_rule_for_a_time_waits_for_the_first_request_that_meets_it() {
        let behaviour = Behaviour::default();
        let time = Duration::from_secs(1);
        behaviour.add(rule(Some(Signal::Traces), Act::Hang, Lasting::For(time)));
        let late = Instant::now() + Duration::from_secs(60);
        assert_eq!(behaviour.next(Signal::Logs, late), None);
        let met = Some(Decision { act: Act::Hang, until: Some(late + time) });
        assert_eq!(behaviour.next(Signal::Traces, late), met);
        assert_eq!(behaviour.next(Signal::Traces, late + time / 2), met);
        assert_eq!(behaviour.next(Signal::Traces, late + time), None);
    }

    #[test]
    fn rules_are_acted_on_in_the_order_in_which_they_were_said() {
        let behaviour = Behaviour::default();
        behaviour.add(rule(None, refuse(503), Lasting::Requests(1)));
        behaviour.add(rule(None, Act::Reset, Lasting::Requests(1)));
        let now = Instant::now();
        let acts: Vec<_> = (0..3).map(|_| behaviour.next(Signal::Logs, now).map(|decision| decision.act)).collect();
        assert_eq!(acts, [Some(refuse(503)), Some(Act::Reset), None]);
    }

    #[test]
    fn a_rule_is_unmet_until_what_it_says_has_happened_to_a_request() {
        let behaviour = Behaviour::default();
        behaviour.add(rule(Some(Signal::Logs), Act::Reset, Lasting::Requests(2)));
        assert!(behaviour.next(Signal::Traces, Instant::now()).is_none());
        let decision = behaviour.next(Signal::Logs, Instant::now()).unwrap();
        assert_eq!((behaviour.unmet().len(), behaviour.incidents().len()), (1, 0), "who waits would find no incident");
        let (arrival, signal, items) = (Arrival::default(), Signal::Logs, HashSet::new());
        behaviour.happened(Incident { arrival, signal, act: decision.act, items });
        assert_eq!((behaviour.unmet().len(), behaviour.incidents().len()), (0, 1));
    }

    #[test]
    fn only_what_the_protocol_calls_permanent_is_final() {
        for (status, is_final) in [(400, true), (401, true), (500, true), (429, false), (502, false), (503, false)] {
            assert_eq!(refuse(status).is_final(), is_final, "{status}");
        }
        assert!(Act::Partial.is_final());
        assert!(!Act::Reset.is_final());
    }
}
