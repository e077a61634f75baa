//! The record of a deployment, which answers what was answered.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashSet},
    rc::Rc,
    sync::Arc,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    capture::{Capture, Store, sink::behaviour::Incident},
    deployment::{Exit, Memory, assembly::answering},
    evidence::{ActRecord, ScenarioRecord, Settled, Undertaking, unmask},
    report::Problem,
    stimulus::{Client, Delivery, HttpRequest, Identity},
};

/// What one scenario did to its deployment, and what came of it.
#[derive(Debug)]
pub(in crate::gherkin) struct Recorded {
    record: Rc<ScenarioRecord>,
    store: Arc<Store>,
    /// What was done, in order; what was asked for again is gone.
    acts: RefCell<Vec<Option<Value>>>,
    /// All before this one are gone.
    first: Cell<usize>,
    /// Steps are found again in order: those before this one are over.
    next: Cell<usize>,
    /// The recorded step that is judged again; `None` for one that was not recorded.
    current: Cell<Option<usize>>,
}

/// What kind of thing is asked for: what was merely looked at does not stand in the way of what was done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Done,
    Memory,
    Workers,
}

impl Recorded {
    /// `acts` as they were read, secrets still masked.
    pub fn new(record: Rc<ScenarioRecord>, acts: Vec<Value>, store: Arc<Store>) -> Self {
        let acts = RefCell::new(acts.into_iter().map(Some).collect());
        Self { record, store, acts, first: Cell::new(0), next: Cell::new(0), current: Cell::new(None) }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Up to where a step looks at the capture: as far as it did, or, if it was not recorded, to the end of the scenario.
    pub fn looks_at(&self, digest: &str) -> u64 {
        self.find(digest).map_or(self.record.ends, |at| self.record.steps[at].looked_at)
    }

    fn find(&self, digest: &str) -> Option<usize> {
        let steps = self.record.steps.iter().enumerate().skip(self.next.get());
        steps.into_iter().find(|(_, step)| step.digest == digest).map(|(at, _)| at)
    }

    pub(super) fn begin(&self, _: &str, digest: String) {
        let found = self.find(&digest);
        self.current.set(found);
        if let Some(at) = found {
            self.next.set(at + 1);
        }
    }

    /// Takes the next act of a kind, if it is what is asked for now.
    fn take(
        &self,
        wanted: Wanted,
        what: &str,
        secrets: &[String],
        fits: impl FnOnce(&ActRecord) -> bool,
    ) -> Result<ActRecord, Problem> {
        let mut acts = self.acts.borrow_mut();
        let kind = |act: &Value| match act["did"].as_str() {
            Some("memory") => Wanted::Memory,
            Some("workers") => Wanted::Workers,
            _ => Wanted::Done,
        };
        while acts.get(self.first.get()).is_some_and(Option::is_none) {
            self.first.set(self.first.get() + 1);
        }
        let next =
            acts.iter_mut().skip(self.first.get()).find(|act| act.as_ref().is_some_and(|act| kind(act) == wanted));
        let not_recorded = |instead: &str| {
            Problem::errored(format!(
                "unrecorded the scenario asks for {what}, and {instead}; what was not recorded cannot be judged again: \
                 run the scenario"
            ))
        };
        let Some(next) = next else { return Err(not_recorded("nothing more was recorded")) };
        let mut value = next.clone().unwrap_or_default();
        unmask(&mut value, secrets);
        let act: ActRecord = serde_json::from_value(value)
            .map_err(|error| Problem::errored(format!("the evidence cannot be read, acts.jsonl: {error}")))?;
        if !fits(&act) {
            let recorded = act.undertaking.what();
            let same = if recorded == what { " with other headers, another body or other secrets" } else { "" };
            return Err(not_recorded(&format!("what was recorded next is {recorded}{same}")));
        }
        *next = None;
        Ok(act)
    }

    pub(super) fn send(&self, request: &HttpRequest, client: &Client, secrets: &[String]) -> Result<Delivery, Problem> {
        let digest = Undertaking::digest_of_request(request, client);
        let what = format!("{} {}", request.method, request.target);
        let act = self.take(Wanted::Done, &what, secrets, |act| act.digest == digest)?;
        answer(act)
    }

    pub(super) fn deliver(&self, event: &Value, identity: &Identity, secrets: &[String]) -> Result<Delivery, Problem> {
        let digest = Undertaking::digest_of_event(event, identity);
        let act = self.take(Wanted::Done, "a literal event", secrets, |act| act.digest == digest)?;
        answer(act)
    }

    /// The proof that was found for a delivery: by this step, or by another one if this one is new.
    pub(super) fn settled(&self, mark: &str) -> Result<Settled, Problem> {
        let steps = &self.record.steps;
        let of = |at: usize| steps[at].settled.iter().find(|settled| settled.delivery == mark).cloned();
        let current = self.current.get();
        if let Some(settled) = current.and_then(of) {
            return Ok(settled);
        }
        if let Some(unproven) = current.and_then(|at| steps[at].unproven.clone()) {
            return Err(unproven);
        }
        if let Some(settled) = (0..steps.len()).rev().find_map(of) {
            return Ok(settled);
        }
        let unproven = steps.iter().rev().find_map(|step| step.unproven.clone());
        Err(unproven.unwrap_or_else(|| {
            Problem::errored("unproven   no proof of completeness was recorded; run the scenario to have one")
        }))
    }

    pub(super) fn recycle(&self) -> Result<usize, Problem> {
        let fits = |act: &ActRecord| matches!(act.undertaking, Undertaking::Recycled { .. });
        let act = self.take(Wanted::Done, "the end of the execution environments", &[], fits)?;
        match act.undertaking {
            Undertaking::Recycled { environments } => Ok(environments),
            _ => Ok(0),
        }
    }

    pub(super) fn stop(&self, signal: Signal) -> Result<Exit, Problem> {
        let wanted = signal.to_string();
        let fits =
            |act: &ActRecord| matches!(&act.undertaking, Undertaking::Stopped { signal, .. } if *signal == wanted);
        let act = self.take(Wanted::Done, &format!("a stop with {wanted}"), &[], fits)?;
        match act.undertaking {
            Undertaking::Stopped { exit, .. } => Ok(exit),
            _ => Err(broken()),
        }
    }

    pub(super) fn memory(&self) -> Result<Memory, Problem> {
        let act = self.take(Wanted::Memory, "a look at the memory", &[], |_| true)?;
        match (act.undertaking, act.problem) {
            (_, Some(problem)) => Err(problem),
            (Undertaking::Memory { held: Some(held) }, None) => Ok(held),
            _ => Err(broken()),
        }
    }

    /// Those that were seen when somebody looked; without that, those that are seen now.
    pub(super) fn workers(&self) -> Result<BTreeSet<String>, Problem> {
        match self.take(Wanted::Workers, "a look for worker processes", &[], |_| true) {
            Ok(ActRecord { problem: Some(problem), .. }) => Err(problem),
            Ok(ActRecord { undertaking: Undertaking::Workers { seen }, .. }) => Ok(seen.into_iter().collect()),
            _ => Ok(self.store.look(|capture: &Capture| answering(capture, &HashSet::new()))),
        }
    }

    pub(super) fn collector(&self, wanted: &str) -> Result<(), Problem> {
        let fits = |act: &ActRecord| matches!(&act.undertaking, Undertaking::Collector { what } if what == wanted);
        let act = self.take(Wanted::Done, &format!("the collector: {wanted}"), &[], fits)?;
        act.problem.map_or(Ok(()), Err)
    }

    pub(super) fn unmet(&self) -> Vec<String> {
        self.record.unmet.clone()
    }

    pub(super) fn incidents(&self) -> Vec<Incident> {
        self.store.look(|capture| self.incidents_in(capture))
    }

    /// For who is looking already.
    pub(super) fn incidents_in(&self, capture: &Capture) -> Vec<Incident> {
        let now = capture.last_seq();
        self.record.incidents.iter().filter(|incident| incident.arrival.seq <= now).cloned().collect()
    }
}

fn answer(act: ActRecord) -> Result<Delivery, Problem> {
    match (act.undertaking, act.problem) {
        (_, Some(problem)) => Err(problem),
        (Undertaking::Sent { delivery: Some(delivery), .. }, None)
        | (Undertaking::Delivered { delivery: Some(delivery), .. }, None) => Ok(*delivery),
        _ => Err(broken()),
    }
}

fn broken() -> Problem {
    Problem::errored("the evidence cannot be read, acts.jsonl: an act without what came of it")
}
