//! What a scenario talks to: a running deployment, or the record of one.
//!
//! Steps do not know which. A running deployment notes what it is asked and what comes of it on a [`Tape`]; a recorded one is
//! asked the same and answers from the tape. Everything else is judged over a [`Capture`] as ever. A recorded deployment never
//! waits: whoever judges again puts back as much of the capture as the step looked at, and then nothing more will come.

mod live;
mod recorded;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use cucumber::gherkin::Step;
use nix::sys::signal::Signal;
use tokio::time::Instant;

pub(super) use self::{live::Live, recorded::Recorded};
use crate::{
    capture::{
        Capture, Mark, Store,
        sink::behaviour::{Behaviour, Incident, Rule},
    },
    deployment::{Exit, Memory},
    evidence::{ActRecord, Settled, StepRecord},
    report::Problem,
    stimulus::{Client, Delivery, HttpRequest, Identity},
    telemetry::digest,
};

/// What the end of a scenario is called among its steps, where the rules are judged that always hold.
pub(super) const INVARIANTS: &str = "Invariants";

/// And where a scenario that ended early waits for what is still on its way.
pub(super) const REST: &str = "Rest";

/// What was played so far.
#[derive(Debug, Default)]
pub(super) struct Tape {
    pub steps: Vec<StepRecord>,
    pub acts: Vec<ActRecord>,
    /// Misbehaviour of the collector that met no request by the end of the last step.
    pub unmet: Vec<String>,
    pub incidents: Vec<Incident>,
}

/// A running deployment, or the record of one.
#[derive(Debug)]
pub(super) enum Counterpart {
    Live(Live),
    Recorded(Recorded),
}

/// How a wait for telemetry ended that a proof of completeness ends early.
pub(super) struct Waited {
    pub accepted: bool,
    /// Why there was no proof, when that was found out meanwhile.
    pub unproven: Option<Problem>,
}

/// What the collector did on purpose.
pub(super) enum Incidents {
    Live(Arc<Behaviour>),
    Recorded(Vec<Incident>),
}

impl Incidents {
    /// So far.
    pub fn so_far(&self) -> Vec<Incident> {
        match self {
            Self::Live(behaviour) => behaviour.incidents(),
            Self::Recorded(incidents) => incidents.clone(),
        }
    }
}

/// Read access to what was captured.
#[derive(Debug, Clone, Copy)]
pub(super) enum View<'a> {
    Live(&'a Live),
    Recorded(&'a Store),
}

impl View<'_> {
    /// Looks at what is there now.
    pub fn look<T>(self, look: impl FnOnce(&Capture) -> T) -> T {
        match self {
            Self::Live(live) => live.look(look),
            Self::Recorded(store) => store.look(look),
        }
    }

    /// Waits until `look` finds something; a record has it or never will.
    pub async fn until<T>(self, deadline: Instant, mut look: impl FnMut(&Capture) -> Option<T>) -> Option<T> {
        match self {
            Self::Live(live) => live.until(deadline, look).await,
            Self::Recorded(store) => store.look(&mut look),
        }
    }
}

/// The same question to either.
macro_rules! ask {
    ($self:ident, $counterpart:ident => $answer:expr) => {
        match $self {
            Counterpart::Live($counterpart) => $answer,
            Counterpart::Recorded($counterpart) => $answer,
        }
    };
}

impl Counterpart {
    /// A step begins.
    pub fn begin(&self, step: &str, digest: String) {
        ask!(self, counterpart => counterpart.begin(step, digest));
    }

    /// The step is over.
    pub fn end(&self) {
        if let Self::Live(live) = self {
            live.end();
        }
    }

    /// Whether a proof of completeness was waited for in vain.
    pub fn is_unproven(&self) -> bool {
        match self {
            Self::Live(live) => live.tape().steps.iter().any(|step| step.unproven.is_some()),
            Self::Recorded(_) => false,
        }
    }

    /// What was captured.
    pub fn store(&self) -> View<'_> {
        match self {
            Self::Live(live) => View::Live(live),
            Self::Recorded(recorded) => View::Recorded(recorded.store()),
        }
    }

    /// Sends a request: over HTTP, or as the gateway's event to a function. `secrets` are what the scenario called so.
    pub async fn send(&self, request: HttpRequest, client: Client, secrets: &[String]) -> Result<Delivery, Problem> {
        match self {
            Self::Live(live) => live.send(request, client).await,
            Self::Recorded(recorded) => recorded.send(&request, &client, secrets),
        }
    }

    /// The same for one of very many requests: of the answer only the status is kept for a replay.
    pub async fn send_in_bulk(
        &self,
        request: HttpRequest,
        client: Client,
        secrets: &[String],
    ) -> Result<Delivery, Problem> {
        match self {
            Self::Live(live) => live.send_in_bulk(request, client).await,
            Self::Recorded(recorded) => recorded.send(&request, &client, secrets),
        }
    }

    /// Delivers an event to a function as it is.
    pub async fn deliver(
        &self,
        event: serde_json::Value,
        identity: Identity,
        secrets: &[String],
    ) -> Result<Delivery, Problem> {
        match self {
            Self::Live(live) => live.deliver(event, identity).await,
            Self::Recorded(recorded) => recorded.deliver(&event, &identity, secrets),
        }
    }

    /// Waits until `look` accepts, `deadline` is over, or it is proven that nothing more will come of `deliveries`.
    pub async fn until_proven(
        &self,
        deliveries: &[&Delivery],
        deadline: Instant,
        last_word: Duration,
        mut look: impl FnMut(&Capture) -> Option<()>,
    ) -> Waited {
        match self {
            Self::Live(live) => live.until_proven(deliveries, deadline, last_word, look).await,
            Self::Recorded(recorded) => Waited { accepted: recorded.store().look(&mut look).is_some(), unproven: None },
        }
    }

    /// Proves that nothing more will come of `deliveries`, and tells of each what is known then.
    pub async fn settle(&self, deliveries: &[&Delivery], deadline: Instant) -> Result<Vec<Settled>, Problem> {
        match self {
            Self::Live(live) => live.settle(deliveries, deadline).await,
            Self::Recorded(recorded) => deliveries.iter().map(|delivery| recorded.settled(&delivery.mark)).collect(),
        }
    }

    /// Says more of why nothing was proven. A record has it already.
    pub fn unproven_because(&self, problem: Problem, why: &str) -> Problem {
        match self {
            Self::Live(live) => live.unproven_because(problem, why),
            Self::Recorded(_) => problem,
        }
    }

    /// Proves that every measurement that `deliveries` caused was exported, and says why.
    pub async fn settle_metrics(&self, deliveries: &[&Delivery], deadline: Instant) -> Result<String, Problem> {
        let last = deliveries.last().map_or("", |delivery| delivery.mark.as_str());
        let name = format!("metrics of {last}");
        match self {
            Self::Live(live) => live.settle_metrics(name, deliveries, deadline).await,
            Self::Recorded(recorded) => recorded.settled(&name).map(|settled| settled.proof),
        }
    }

    /// Lets a proof come that what was asked meanwhile is there, for its own sake.
    pub async fn come_to_rest(&self, deliveries: &[&Delivery], deadline: Instant) {
        if let Self::Live(live) = self {
            let _ = live.prove(deliveries, deadline).await;
        }
    }

    /// Asks for a target a few times, and nothing in between, so that it can be seen what that sets off.
    pub async fn repeat(&self, target: &str, headers: &[(String, String)]) {
        if let Self::Live(live) = self {
            live.repeat(target, headers).await;
        }
    }

    /// Shuts a function's idle environments down. Returns how many there were.
    pub async fn recycle(&self) -> Result<usize, Problem> {
        match self {
            Self::Live(live) => Ok(live.recycle().await),
            Self::Recorded(recorded) => recorded.recycle(),
        }
    }

    /// Asks it to end with `signal`, and kills what is left after `grace`.
    pub async fn stop(&self, signal: Signal, grace: Duration) -> Result<Exit, Problem> {
        match self {
            Self::Live(live) => Ok(live.stop(signal, grace).await),
            Self::Recorded(recorded) => recorded.stop(signal),
        }
    }

    /// What it holds.
    pub fn memory(&self) -> Result<Memory, Problem> {
        ask!(self, counterpart => counterpart.memory())
    }

    /// The worker processes that show themselves by `deadline`.
    pub async fn workers(&self, deadline: Instant) -> Result<BTreeSet<String>, Problem> {
        match self {
            Self::Live(live) => live.workers(deadline).await,
            Self::Recorded(recorded) => recorded.workers(),
        }
    }

    /// Tells the collector to do something wrong from here on.
    pub fn misbehave(&self, what: &str, rule: Rule) -> Result<(), Problem> {
        match self {
            Self::Live(live) => {
                live.misbehave(what, rule);
                Ok(())
            }
            Self::Recorded(recorded) => recorded.collector(what),
        }
    }

    /// The collector goes away.
    pub async fn collector_goes_away(&self) -> Result<(), Problem> {
        match self {
            Self::Live(live) => live.collector_goes_away().await,
            Self::Recorded(recorded) => recorded.collector(GOES_AWAY),
        }
    }

    /// The collector is back.
    pub async fn collector_comes_back(&self) -> Result<(), Problem> {
        match self {
            Self::Live(live) => live.collector_comes_back().await,
            Self::Recorded(recorded) => recorded.collector(COMES_BACK),
        }
    }

    /// The misbehaviour that met no request by `deadline`.
    pub async fn unmet(&self, deadline: Instant) -> Vec<String> {
        match self {
            Self::Live(live) => live.unmet(deadline).await,
            Self::Recorded(recorded) => recorded.unmet(),
        }
    }

    /// What the collector had done on purpose by the end of a capture, for who is looking at it.
    pub fn incidents_in(&self, capture: &Capture) -> Vec<Incident> {
        match self {
            Self::Live(live) => live.behaviour().incidents(),
            Self::Recorded(recorded) => recorded.incidents_in(capture),
        }
    }

    /// What the collector did on purpose.
    pub fn incidents(&self) -> Incidents {
        match self {
            Self::Live(live) => Incidents::Live(live.behaviour().clone()),
            Self::Recorded(recorded) => Incidents::Recorded(recorded.incidents()),
        }
    }
}

const GOES_AWAY: &str = "goes away";
const COMES_BACK: &str = "comes back";

/// By what a step is known again: its keyword, its text, and what stands below it.
pub(super) fn digest_of(step: &Step) -> String {
    let mut parts = vec![format!("{:?}", step.ty), step.value.clone(), step.docstring.clone().unwrap_or_default()];
    parts.extend(step.table.iter().flat_map(|table| table.rows.iter().map(|row| row.join("\u{1f}"))));
    format!("{:016x}", digest(&parts))
}

/// The last stamp that belongs to a request: where its environment froze, else where something else was sent, else what
/// was there when the proof began.
fn window_end(capture: &Capture, own: &Delivery, began: u64) -> u64 {
    let after = capture.lifecycle().iter().filter(|entry| entry.arrival.seq > own.answered.seq);
    let request_id = own.invocation.as_ref().map(|invocation| invocation.request_id.as_str());
    let home = own.invocation.as_ref().map(|invocation| invocation.environment.as_str());
    after
        .filter_map(|entry| match &entry.mark {
            Mark::Frozen { request_id: froze } if froze.as_deref() == request_id => Some(entry.arrival.seq),
            mark if request_id.is_none() && mark.begins_request() => Some(entry.arrival.seq),
            Mark::EnvironmentEnded { environment, .. } if Some(environment.as_str()) == home => Some(entry.arrival.seq),
            // Another environment of the function may end meanwhile.
            Mark::Exited { .. } if home.is_none() => Some(entry.arrival.seq),
            Mark::StopRequested { .. } => Some(entry.arrival.seq),
            _ => None,
        })
        .min()
        .unwrap_or(began)
}
