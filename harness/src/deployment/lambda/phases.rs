//! Where a runtime is in its cycle of asking and answering.
//!
//! A function has one cycle for its environment: it asks for an event, answers it, and asks again. On a Lambda Managed
//! Instance an environment has several invocations at the same time, and each has states of its own: the runtime's workers
//! ask and answer independently ("Understanding the Lambda Managed Instances execution environment" in the Lambda Developer
//! Guide; refusals as in AWS's runtime interface emulator, `internal/lambda-managed-instances/invoke`).

use std::{collections::HashMap, sync::Weak};

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::runtime_api::refusal;

/// The states of one environment's runtime.
#[derive(Debug)]
pub(super) enum Cycle {
    /// One invocation at a time.
    One(Phase),
    /// Several at a time.
    Many(Many),
}

/// Where a runtime with one invocation at a time is.
#[derive(Debug)]
pub(super) enum Phase {
    /// Has not asked for an event yet.
    Init,
    /// Waits for an event, as long as its request lives.
    Waiting(Weak<()>),
    /// Has the event of this request id, under this invocation id.
    Invoking(String, String),
    /// Has answered, and may do what it likes before it asks again.
    Answered(String),
    /// Has reported that it cannot start.
    Failed,
}

/// The states of a runtime with several invocations at a time.
#[derive(Debug)]
pub(super) struct Many {
    /// Requests for an event that may be open at the same time.
    limit: usize,
    /// Those that are, as long as they live.
    waiting: Vec<Weak<()>>,
    /// Whether it has asked for an event at all.
    asked: bool,
    failed: bool,
    /// Every invocation that it was given, by request id, with its invocation id.
    invocations: HashMap<String, (String, Attempt)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    UnderWay,
    Answered,
    TimedOut,
}

impl Cycle {
    /// The states before the runtime has asked for anything; `concurrency` is the number of invocations at a time where
    /// there may be several.
    pub(super) fn new(concurrency: Option<usize>) -> Self {
        match concurrency {
            None => Self::One(Phase::Init),
            Some(limit) => Self::Many(Many {
                limit,
                waiting: Vec::new(),
                asked: false,
                failed: false,
                invocations: HashMap::new(),
            }),
        }
    }

    /// The runtime asks for an event, with a request that is open while `alive` lives. The error is the answer to a
    /// request that cannot be made now.
    pub(super) fn ask(&mut self, alive: Weak<()>) -> Result<(), Box<Response>> {
        match self {
            Self::One(phase) => {
                match phase {
                    Phase::Init | Phase::Answered(_) => {}
                    // A request that the runtime has given up may be made again.
                    Phase::Waiting(other) if other.strong_count() == 0 => {}
                    Phase::Waiting(_) => return Err(invalid_state("the runtime waits for an event already")),
                    Phase::Invoking(id, _) => {
                        return Err(invalid_state(&format!("the runtime has not answered invocation {id} yet")));
                    }
                    Phase::Failed => return Err(invalid_state("the runtime has reported that it cannot start")),
                }
                *phase = Phase::Waiting(alive);
            }
            Self::Many(many) => {
                if many.failed {
                    return Err(invalid_state("the runtime has reported that it cannot start"));
                }
                many.waiting.retain(|other| other.strong_count() > 0);
                if many.waiting.len() >= many.limit {
                    let message = format!("{} requests for the next event are open already", many.limit);
                    return Err(Box::new(refusal(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "Runtime.TooManyIdleRuntimes",
                        message,
                    )));
                }
                many.waiting.push(alive);
                many.asked = true;
            }
        }
        Ok(())
    }

    /// The runtime gets the event of this request id, under this invocation id.
    pub(super) fn hand_out(&mut self, request_id: String, invocation_id: String) {
        match self {
            Self::One(phase) => *phase = Phase::Invoking(request_id, invocation_id),
            Self::Many(many) => {
                many.invocations.insert(request_id, (invocation_id, Attempt::UnderWay));
            }
        }
    }

    /// Whether the runtime has this invocation, and, where its headers say which attempt it answers, this attempt.
    pub(super) fn check(&self, id: &str, headers: &HeaderMap) -> Result<(), Box<Response>> {
        let said = headers.get("lambda-runtime-invocation-id").map(|value| value.as_bytes());
        let answered = || Err(invalid_state(&format!("invocation {id} is answered already")));
        let attempt = match self {
            Self::One(Phase::Invoking(current, attempt)) if current == id => attempt,
            Self::One(Phase::Answered(current)) if current == id => return answered(),
            Self::One(_) => return Err(invalid_id(format!("Invalid request ID {id}"))),
            Self::Many(many) => match many.invocations.get(id) {
                Some((attempt, Attempt::UnderWay)) => attempt,
                Some((_, Attempt::Answered)) => return answered(),
                Some((_, Attempt::TimedOut)) => {
                    return Err(Box::new(refusal(StatusCode::GONE, "InvokeTimeout", "Invoke timeout".into())));
                }
                None => return Err(invalid_id(format!("Invalid request ID {id}"))),
            },
        };
        match said {
            Some(said) if said != attempt.as_bytes() => {
                Err(invalid_id(format!("invocation {id} is not under way as {}", String::from_utf8_lossy(said))))
            }
            _ => Ok(()),
        }
    }

    /// The runtime answers an invocation.
    pub(super) fn conclude(&mut self, id: &str, headers: &HeaderMap) -> Result<(), Box<Response>> {
        self.check(id, headers)?;
        match self {
            Self::One(phase) => *phase = Phase::Answered(id.to_owned()),
            Self::Many(many) => many.set(id, Attempt::Answered),
        }
        Ok(())
    }

    /// Nobody waits for the answer to this invocation any more.
    pub(super) fn give_up(&mut self, id: &str) {
        if let Self::Many(many) = self {
            many.set(id, Attempt::TimedOut);
        }
    }

    /// The runtime reports that it cannot start.
    pub(super) fn fail_init(&mut self) -> Result<(), Box<Response>> {
        match self {
            Self::One(phase @ Phase::Init) => *phase = Phase::Failed,
            Self::Many(many) if !many.asked && !many.failed => many.failed = true,
            Self::One(_) | Self::Many(_) => return Err(invalid_state("Init is over")),
        }
        Ok(())
    }
}

impl Many {
    fn set(&mut self, id: &str, state: Attempt) {
        if let Some((_, attempt)) = self.invocations.get_mut(id) {
            *attempt = state;
        }
    }
}

fn invalid_state(message: &str) -> Box<Response> {
    Box::new(refusal(StatusCode::FORBIDDEN, "InvalidStateTransition", message.into()))
}

fn invalid_id(message: String) -> Box<Response> {
    Box::new(refusal(StatusCode::BAD_REQUEST, "InvalidRequestID", message))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn status(refused: Result<(), Box<Response>>) -> u16 {
        refused.map_or_else(|refused| refused.status().as_u16(), |()| 200)
    }

    fn many(limit: usize) -> Cycle {
        Cycle::new(Some(limit))
    }

    #[test]
    fn several_invocations_are_under_way_at_a_time_and_each_is_answered_once() {
        let none = HeaderMap::new();
        let mut cycle = many(2);
        let (first, second) = (Arc::new(()), Arc::new(()));
        assert_eq!(status(cycle.ask(Arc::downgrade(&first))), 200);
        assert_eq!(status(cycle.ask(Arc::downgrade(&second))), 200);
        cycle.hand_out("a".into(), "attempt a".into());
        cycle.hand_out("b".into(), "attempt b".into());
        assert_eq!(status(cycle.check("c", &none)), 400, "nobody was given this one");
        assert_eq!(status(cycle.conclude("b", &none)), 200);
        assert_eq!(status(cycle.conclude("b", &none)), 403);
        assert_eq!(status(cycle.conclude("a", &none)), 200);
    }

    #[test]
    fn an_answer_to_another_attempt_is_refused_for_each_invocation_by_itself() {
        let mut cycle = many(2);
        cycle.hand_out("a".into(), "attempt a".into());
        cycle.hand_out("b".into(), "attempt b".into());
        let said = |attempt: &'static str| {
            HeaderMap::from_iter([("lambda-runtime-invocation-id".parse().unwrap(), attempt.parse().unwrap())])
        };
        assert_eq!(status(cycle.conclude("a", &said("attempt b"))), 400);
        assert_eq!(status(cycle.conclude("a", &said("attempt a"))), 200);
    }

    #[test]
    fn an_answer_after_the_timeout_is_gone() {
        let mut cycle = many(2);
        cycle.hand_out("late".into(), "attempt".into());
        cycle.give_up("late");
        assert_eq!(status(cycle.conclude("late", &HeaderMap::new())), 410);
    }

    #[test]
    fn as_many_requests_are_open_as_invocations_may_run_and_one_that_was_given_up_makes_room() {
        let mut cycle = many(1);
        let open = Arc::new(());
        assert_eq!(status(cycle.ask(Arc::downgrade(&open))), 200);
        assert_eq!(status(cycle.ask(Arc::downgrade(&open))), 500);
        drop(open);
        assert_eq!(status(cycle.ask(Weak::new())), 200);
    }

    #[test]
    fn init_fails_before_the_first_worker_asks_and_not_afterwards() {
        assert_eq!(status(many(2).fail_init()), 200);
        let mut failed = many(2);
        drop(failed.fail_init());
        assert_eq!((status(failed.fail_init()), status(failed.ask(Weak::new()))), (403, 403));
        let mut asked = many(2);
        drop(asked.ask(Weak::new()));
        assert_eq!(status(asked.fail_init()), 403);
    }
}
