//! A running deployment, with what is asked of it noted.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::{COMES_BACK, GOES_AWAY, Tape, Waited, window_end};
use crate::{
    capture::{
        Capture, Mark, Store,
        sink::behaviour::{Behaviour, Rule},
    },
    correlation::repetition::{TRIALS, WITHIN},
    deployment::{Exit, Memory, Proof, SiteError},
    evidence::{ActRecord, Settled, StepRecord, Undertaking},
    gherkin::run::Running,
    report::Problem,
    stimulus::{Client, Delivery, HttpRequest, HttpResponse, Identity},
};

/// A running deployment as one scenario uses it.
#[derive(Debug)]
pub(in crate::gherkin) struct Live {
    pub running: Rc<Running>,
    tape: RefCell<Tape>,
    /// Whether a step is being played, which what is looked at is noted for.
    playing: Cell<bool>,
}

impl Live {
    pub fn new(running: Rc<Running>) -> Self {
        Self { running, tape: RefCell::default(), playing: Cell::new(false) }
    }

    /// What was noted so far.
    pub fn tape(&self) -> std::cell::Ref<'_, Tape> {
        self.tape.borrow()
    }

    fn store(&self) -> &Store {
        self.running.instance.store()
    }

    pub(super) fn begin(&self, step: &str, digest: String) {
        let looked_at = self.store().look(Capture::last_seq);
        let step = StepRecord { step: step.to_owned(), digest, looked_at, settled: Vec::new(), unproven: None };
        self.tape.borrow_mut().steps.push(step);
        self.playing.set(true);
    }

    pub(super) fn end(&self) {
        self.playing.set(false);
        let behaviour = self.behaviour();
        let mut tape = self.tape.borrow_mut();
        tape.unmet = behaviour.unmet().iter().map(ToString::to_string).collect();
        tape.incidents = behaviour.incidents();
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&Capture) -> T) -> T {
        self.store().look(|capture| {
            self.looks_at(capture);
            look(capture)
        })
    }

    pub(super) async fn until<T>(&self, deadline: Instant, mut look: impl FnMut(&Capture) -> Option<T>) -> Option<T> {
        let noted = |capture: &Capture| {
            self.looks_at(capture);
            look(capture)
        };
        self.store().until(deadline, noted).await
    }

    fn looks_at(&self, capture: &Capture) {
        self.step(|step| step.looked_at = capture.last_seq());
    }

    fn step(&self, change: impl FnOnce(&mut StepRecord)) {
        if self.playing.get()
            && let Some(step) = self.tape.borrow_mut().steps.last_mut()
        {
            change(step);
        }
    }

    /// Keeps the place of something that begins now, so that what is done at the same time stands in the order in which it
    /// was begun.
    fn begun(&self, undertaking: Undertaking, digest: String) -> usize {
        let acts = &mut self.tape.borrow_mut().acts;
        acts.push(ActRecord { undertaking, digest, problem: None });
        acts.len() - 1
    }

    fn done(&self, at: usize, problem: Option<&Problem>, change: impl FnOnce(&mut Undertaking)) {
        let act = &mut self.tape.borrow_mut().acts[at];
        act.problem = problem.cloned();
        change(&mut act.undertaking);
    }

    pub(super) async fn send(&self, request: HttpRequest, client: Client) -> Result<Delivery, Problem> {
        self.send_noting(request, client, Delivery::clone).await
    }

    pub(super) async fn send_in_bulk(&self, request: HttpRequest, client: Client) -> Result<Delivery, Problem> {
        let lean = |sent: &Delivery| {
            let response = HttpResponse { status: sent.response.status, headers: Vec::new(), body: Bytes::new() };
            Delivery { response, ..sent.clone() }
        };
        self.send_noting(request, client, lean).await
    }

    async fn send_noting(
        &self,
        request: HttpRequest,
        client: Client,
        noted: impl FnOnce(&Delivery) -> Delivery,
    ) -> Result<Delivery, Problem> {
        let digest = Undertaking::digest_of_request(&request, &client);
        let (method, target, headers) = (request.method.clone(), request.target.clone(), request.headers.clone());
        let at = self.begun(Undertaking::Sent { method, target, headers, form: request.form, delivery: None }, digest);
        let before = self.store().look(Capture::last_seq);
        let sent = self.running.instance.send_for(request, client).await;
        let sent = sent.map_err(|error| self.no_answer(&error, before));
        self.done(at, sent.as_ref().err(), |act| {
            if let (Undertaking::Sent { delivery, .. }, Ok(sent)) = (act, &sent) {
                *delivery = Some(Box::new(noted(sent)));
            }
        });
        sent
    }

    pub(super) async fn deliver(&self, event: serde_json::Value, identity: Identity) -> Result<Delivery, Problem> {
        let digest = Undertaking::digest_of_event(&event, &identity);
        let at = self.begun(Undertaking::Delivered { event: event.clone(), delivery: None }, digest);
        let sent = self.running.instance.deliver_for(event, identity).await.map_err(Problem::from);
        self.done(at, sent.as_ref().err(), |act| {
            if let (Undertaking::Delivered { delivery, .. }, Ok(sent)) = (act, &sent) {
                *delivery = Some(Box::new(sent.clone()));
            }
        });
        sent
    }

    /// A service that ends while it is asked something has done something wrong. Where it had ended before, or only gives no
    /// answer, nothing can be judged. A function that fails is answered for: without an answer it could not be run, and
    /// what ended then was ended by the emulator.
    fn no_answer(&self, error: &SiteError, before: u64) -> Problem {
        let problem = Problem::from_error(error);
        let ended = self.store().look(|capture| {
            let since = capture.lifecycle().iter().rev().take_while(|entry| entry.arrival.seq > before);
            since.into_iter().any(|entry| matches!(entry.mark, Mark::Exited { .. }))
        });
        // The message has the exit status and the last output.
        self.running.mourned.set(self.running.mourned.get() || self.running.instance.crashed().is_some());
        let of_its_own = ended && !self.running.instance.spec().kind.is_lambda();
        if of_its_own { Problem::failed(problem.message) } else { problem }
    }

    pub(super) async fn until_proven(
        &self,
        deliveries: &[&Delivery],
        deadline: Instant,
        last_word: Duration,
        look: impl FnMut(&Capture) -> Option<()>,
    ) -> Waited {
        let mut unproven = None;
        let accepted = tokio::select! {
            biased;
            found = self.until(deadline + last_word, look) => found.is_some(),
            // A proof ends the wait early; without one the wait goes on to its deadline.
            () = async {
                if let Err(problem) = self.prove(deliveries, deadline).await {
                    unproven = Some(problem);
                    std::future::pending().await
                }
            } => false,
        };
        if !accepted {
            self.step(|step| step.unproven.clone_from(&unproven));
        }
        Waited { accepted, unproven }
    }

    pub(super) async fn prove(&self, deliveries: &[&Delivery], deadline: Instant) -> Result<Proof, Problem> {
        let proven = self.running.instance.settle_all(deliveries, deadline).await;
        self.running.instance.note_standstills();
        proven.map_err(|incomplete| Problem::errored(format!("unproven   {incomplete}")))
    }

    pub(super) async fn settle(&self, deliveries: &[&Delivery], deadline: Instant) -> Result<Vec<Settled>, Problem> {
        let began = self.look(Capture::last_seq);
        let proof = match self.prove(deliveries, deadline).await {
            Ok(proof) => proof,
            Err(problem) => {
                self.step(|step| step.unproven = Some(problem.clone()));
                return Err(problem);
            }
        };
        let proven = self.look(|capture| {
            let settled = |delivery: &&Delivery| Settled {
                delivery: delivery.mark.clone(),
                proof: proof.to_string(),
                ended: proof.is_final(),
                logs: proof.covers_logs(),
                window_end: window_end(capture, delivery, began),
                proven_at: capture.last_seq(),
            };
            deliveries.iter().map(settled).collect::<Vec<_>>()
        });
        self.step(|step| {
            step.settled.retain(|before| proven.iter().all(|now| now.delivery != before.delivery));
            step.settled.extend(proven.iter().cloned());
        });
        Ok(proven)
    }

    pub(super) fn unproven_because(&self, problem: Problem, why: &str) -> Problem {
        let problem = Problem { message: format!("{}\n{why}", problem.message), ..problem };
        self.step(|step| step.unproven = Some(problem.clone()));
        problem
    }

    pub(super) async fn repeat(&self, target: &str, headers: &[(String, String)]) {
        for round in 1..=TRIALS {
            let began = Instant::now();
            self.trial(target, Some(headers), WITHIN).await;
            // As long as it was asked for at least, and each longer than the one before, so that what the service does every so
            // often is in a silence too.
            let silence = began.elapsed() * u32::try_from(round).unwrap_or(1);
            self.trial(target, None, silence.min(self.running.instance.spec().patience)).await;
        }
    }

    /// A time in which a target is asked for with these headers, or nothing is asked.
    async fn trial(&self, target: &str, asks: Option<&[(String, String)]>, watch: Duration) {
        self.store().mark(Mark::Trial { target: target.to_owned(), asks: asks.is_some() });
        let asked = match asks {
            Some(headers) => self.running.instance.ask(target, headers).await,
            None => None,
        };
        self.until(Instant::now() + watch, |_| None::<()>).await;
        let (trace_id, status) = asked.map_or((None, None), |(trace_id, status)| (Some(trace_id), status));
        self.store().mark(Mark::TrialOver { target: target.to_owned(), trace_id, status });
    }

    pub(super) async fn settle_metrics(
        &self,
        name: String,
        deliveries: &[&Delivery],
        deadline: Instant,
    ) -> Result<String, Problem> {
        let began = self.look(Capture::last_seq);
        let proven = self.running.instance.settle_metrics(deliveries, deadline).await;
        let proof = proven.map_err(|incomplete| Problem::errored(format!("unproven   {incomplete}")));
        let proven_at = self.look(Capture::last_seq);
        self.step(|step| match &proof {
            Ok(proof) => step.settled.push(Settled {
                delivery: name,
                proof: proof.to_string(),
                ended: proof.is_final(),
                logs: proof.covers_logs(),
                window_end: began,
                proven_at,
            }),
            Err(problem) => step.unproven = Some(problem.clone()),
        });
        proof.map(|proof| proof.to_string())
    }

    pub(super) async fn recycle(&self) -> usize {
        let at = self.begun(Undertaking::Recycled { environments: 0 }, String::new());
        let count = self.running.instance.recycle().await;
        self.done(at, None, |act| *act = Undertaking::Recycled { environments: count });
        count
    }

    pub(super) async fn stop(&self, signal: Signal, grace: Duration) -> Exit {
        self.running.mourned.set(true);
        self.store().mark(Mark::StopRequested { signal: signal.to_string() });
        let exit = self.running.instance.stop(signal, grace).await;
        self.begun(Undertaking::Stopped { signal: signal.to_string(), exit: exit.clone() }, String::new());
        exit
    }

    pub(super) fn memory(&self) -> Result<Memory, Problem> {
        let held = self.running.instance.memory().map_err(Problem::from);
        let at = self.begun(Undertaking::Memory { held: held.as_ref().ok().copied() }, String::new());
        self.done(at, held.as_ref().err(), |_| {});
        held
    }

    pub(super) async fn workers(&self, deadline: Instant) -> Result<BTreeSet<String>, Problem> {
        let seen = self.running.instance.wake_workers(deadline).await.map_err(Problem::from);
        let named = seen.as_ref().map(|seen| seen.iter().cloned().collect()).unwrap_or_default();
        let at = self.begun(Undertaking::Workers { seen: named }, String::new());
        self.done(at, seen.as_ref().err(), |_| {});
        seen
    }

    pub(super) fn misbehave(&self, what: &str, rule: Rule) {
        self.begun(Undertaking::Collector { what: what.to_owned() }, String::new());
        let said = format!("from here on, as the scenario says: {what}");
        self.store().mark(Mark::Sink { what: said });
        self.behaviour().add(rule);
    }

    pub(super) async fn collector_goes_away(&self) -> Result<(), Problem> {
        let gone = self.running.instance.sink().go_away().await;
        self.collector(GOES_AWAY, gone.map_err(|error| format!("the collector cannot go away: {error}")))
    }

    pub(super) async fn collector_comes_back(&self) -> Result<(), Problem> {
        let back = self.running.instance.sink().come_back().await;
        self.collector(COMES_BACK, back.map_err(|error| format!("the collector cannot come back: {error}")))
    }

    fn collector(&self, what: &str, done: Result<(), String>) -> Result<(), Problem> {
        let done = done.map_err(Problem::errored);
        let at = self.begun(Undertaking::Collector { what: what.to_owned() }, String::new());
        self.done(at, done.as_ref().err(), |_| {});
        done
    }

    pub(super) async fn unmet(&self, deadline: Instant) -> Vec<String> {
        let behaviour = self.behaviour();
        let all_met = |_: &Capture| behaviour.unmet().is_empty().then_some(());
        self.until(deadline, all_met).await;
        behaviour.unmet().iter().map(ToString::to_string).collect()
    }

    pub(super) fn behaviour(&self) -> &Arc<Behaviour> {
        self.running.instance.sink().behaviour()
    }
}
