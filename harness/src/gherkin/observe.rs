//! Looking at what came of a stimulus: waking on arrival for what must be there, and only on a proof of completeness for
//! what must not.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    context::context,
    registry::StepResult,
    world::{Scene, Sent},
};
use crate::{
    capture::{Capture, Mark, Signal},
    correlation::{RequestEvidence, after_the_freeze},
    invariant::{self, Subject},
    report::Problem,
    stimulus::{Client, Delivery},
};

/// How much longer an expectation waits than the proof of completeness beside it, so that the proof can say why there is
/// none.
const LAST_WORD: Duration = Duration::from_millis(200);

/// One request with what came of it.
pub(super) struct Seen<'a> {
    pub evidence: RequestEvidence,
    pub delivery: &'a Delivery,
    pub capture: &'a Capture,
    /// How far clocks may be apart.
    pub skew: Duration,
}

impl Seen<'_> {
    /// Whether any span is in the trace that the service was told. One that only the time says is the request's is not.
    fn carries_on(&self) -> bool {
        let told = &self.evidence.told_traces;
        self.evidence.trace.spans().any(|span| told.contains(&span.trace_id))
    }

    /// What is wrong by these invariants, a line each; for steps that ask for what they say.
    pub fn broken(&self, rules: &[&str]) -> Vec<String> {
        let Self { evidence, delivery, capture, skew } = self;
        let subject = Subject {
            evidence,
            delivery,
            capture,
            complete: true,
            skew: *skew,
            canaries: &[],
            suspects: None,
            lacking: &[],
            first: true,
        };
        let findings = invariant::check_only(&subject, rules);
        findings.iter().map(|finding| format!("broken     {finding}")).collect()
    }
}

/// Twice the longest time that a span or a log record has taken to arrive, and a second for what is under way.
pub(super) fn slowest_export(capture: &Capture) -> Duration {
    Duration::from_nanos(capture.slowest_export()).saturating_mul(2).saturating_add(Duration::from_secs(1))
}

impl Scene {
    /// Waits until `judge` accepts what came of the last request. Refused as soon as it is proven that nothing more will
    /// come, or when `patience` is over; the message is that of the last look.
    pub async fn eventually(&mut self, judge: impl Fn(&Seen<'_>) -> Result<(), String>) -> StepResult {
        let at = self.last_index()?;
        let patience = self.patience();
        let deadline = Instant::now() + patience;
        let waited = {
            let sent = &self.sent[at];
            let look = |capture: &Capture| judge(&self.seen(capture, sent)).ok();
            self.instance.until_proven(&[&sent.delivery], deadline, LAST_WORD, look).await
        };
        if waited.accepted {
            if self.stage.silent.get() {
                let store = self.instance.store();
                let carries_on = store.look(|capture| self.seen(capture, &self.sent[at]).carries_on());
                self.stage.silent.set(!carries_on);
            }
            return Ok(());
        }
        let proven = match waited.unproven {
            Some(problem) => Err(problem),
            None => self.settle(&[at], deadline).await,
        };
        let proven = proven.map_err(|problem| self.hurried(problem, patience));
        if proven.is_ok()
            && self.waits_on(&[at], |scene, capture| judge(&scene.seen(capture, &scene.sent[at])).is_ok()).await
        {
            return Ok(());
        }
        self.found_background(&[at]).await;
        let sent = &self.sent[at];
        self.instance.store().look(|capture| {
            let seen = self.seen(capture, sent);
            let Err(message) = judge(&seen) else { return Ok(()) };
            let complete = match &proven {
                Ok(()) => sent.settled.as_ref().map_or_else(String::new, |settled| settled.proof.clone()),
                Err(problem) => {
                    self.stage.silent.set(!seen.carries_on());
                    problem.message.clone()
                }
            };
            Err(Problem::failed(self.explained(&seen, &message, &complete)))
        })
    }

    /// How long a proof is waited for. Where a request and the fences behind it left nothing in all of `patience`, nobody waits for
    /// that long again, but for as long as the exports that were seen may take: a run against a service whose
    /// instrumentation is gone must end.
    pub(super) fn patience(&self) -> Duration {
        let patience = self.stage.spec.patience;
        if self.stage.silent.get() { self.instance.store().look(slowest_export).min(patience) } else { patience }
    }

    /// Why there is no proof, and why that was said before `patience` was over.
    fn hurried(&self, problem: Problem, waited: Duration) -> Problem {
        let patience = self.stage.spec.patience;
        if waited == patience {
            return problem;
        }
        let why =
            format!("waited     no {patience:?}: in that time nothing had come of an earlier request, nor of a fence");
        self.instance.unproven_because(problem, &why)
    }

    /// Waits until `judge` accepts what was captured at all, or `patience` is over: for what no fence can prove.
    pub async fn in_time(&self, judge: impl Fn(&Capture) -> Result<(), String>) -> StepResult {
        self.last()?;
        let patience = self.stage.spec.patience;
        let store = self.instance.store();
        let ended = |capture: &Capture| (!self.stage.spec.kind.is_lambda()).then(|| exit_status(capture)).flatten();
        // Nothing more comes of what has ended.
        let decided = |capture: &Capture| judge(capture).ok().or_else(|| ended(capture).map(drop));
        store.until(Instant::now() + patience, decided).await;
        store.look(|capture| {
            judge(capture).map_err(|message| {
                let (name, ended) = (&self.stage.spec.name, ended(capture));
                Problem::failed(match ended {
                    Some(status) => format!("{message}\non         {name} · complete: process exited ({status})"),
                    None => format!("{message}\nwaited     {patience:?} on {name}"),
                })
            })
        })
    }

    /// Judges the metrics of everything that was sent, once it is proven that every measurement was exported.
    pub async fn metrics_finally(&mut self, judge: impl Fn(&Capture) -> Result<(), String>) -> StepResult {
        self.last()?;
        let deliveries: Vec<&Delivery> = self.sent.iter().map(|sent| &sent.delivery).collect();
        let proven = self.instance.settle_metrics(&deliveries, Instant::now() + self.stage.spec.patience).await;
        let name = &self.stage.spec.name;
        self.instance.store().look(|capture| {
            match (judge(capture), &proven) {
                (judged, Ok(proof)) => {
                    judged.map_err(|message| Problem::failed(format!("{message}\non         {name} · {proof}")))
                }
                // What exports no metrics at all fails; what may still be on its way is an open question.
                (Err(message), Err(unproven)) if capture.metrics().is_empty() => {
                    Err(Problem::failed(format!("{message}\non         {name}\n{}", unproven.message)))
                }
                (Ok(()), Err(unproven)) => Err(unproven.clone()),
                (Err(message), Err(unproven)) => {
                    let message =
                        format!("{}\nso far     {}", unproven.message, message.replace('\n', "\n           "));
                    Err(Problem::errored(format!("{message}\non         {name}")))
                }
            }
        })?;
        self.proofs.extend(proven.ok());
        Ok(())
    }

    /// Judges the last request once it is proven that nothing more will come.
    pub async fn finally(&mut self, judge: impl Fn(&Seen<'_>) -> Result<(), String>) -> StepResult {
        let at = self.last_index()?;
        self.judge_settled(&[at], judge).await
    }

    /// Judges every request of the scenario once it is proven that nothing more will come.
    pub async fn finally_each(&mut self, judge: impl Fn(&Seen<'_>) -> Result<(), String>) -> StepResult {
        self.last_index()?;
        let all: Vec<usize> = (0..self.sent.len()).collect();
        self.judge_settled(&all, judge).await
    }

    async fn judge_settled(&mut self, which: &[usize], judge: impl Fn(&Seen<'_>) -> Result<(), String>) -> StepResult {
        let patience = self.patience();
        if let Err(unproven) = self.settle(which, Instant::now() + patience).await {
            // A deployment that has never exported a span is not instrumented, or exports to nowhere: that is the service's
            // failure. Where spans came and only the fence's did not, it is an open question.
            let silent = self.instance.store().look(|capture| capture.spans().is_empty());
            return Err(if silent {
                self.stage.silent.set(true);
                let unproven = self.hurried(unproven, patience);
                Problem::failed(format!("received   no span at all from this deployment\n{}", unproven.message))
            } else {
                unproven
            });
        }
        self.judge_at_last(which, |scene, capture| scene.judge_each(capture, which, &judge)).await
    }

    /// Judges what is proven complete. Before a refusal, whatever may speak for the service is given its time.
    pub(super) async fn judge_at_last(
        &mut self,
        which: &[usize],
        judge: impl Fn(&Self, &Capture) -> StepResult,
    ) -> StepResult {
        self.repeats(which).await;
        let now = |scene: &Self| scene.instance.store().look(|capture| judge(scene, capture));
        let mut judged = now(self);
        if judged.is_ok() && self.waited_for_named_traces(which).await {
            // Also when it waited in vain: what the verdict rests on is what there was at the last look.
            judged = now(self);
        }
        if judged.is_ok() && self.waited_for_copies(which).await {
            judged = now(self);
        }
        if judged.is_err() {
            if self.waits_on(which, |scene, capture| judge(scene, capture).is_ok()).await {
                // What came late shows processes that the proof did not cover.
                which.iter().for_each(|&at| self.sent[at].settled = None);
                self.settle(which, Instant::now() + self.stage.spec.patience).await?;
            }
            judged = now(self);
        }
        if judged.is_err() {
            self.found_background(which).await;
            // Also when nothing was found: what a refusal says is what there was at the last look.
            judged = now(self);
        }
        judged
    }

    /// A fence proves what the processes sent that it went through, and the signals that its own request makes them send.
    /// Where something speaks of more, and where nothing speaks for log records: waits until `accept` holds. The first time for as long as `patience`; after a wait in vain only
    /// for as long as this deployment's exporters were seen to take.
    pub(super) async fn waits_on(&self, which: &[usize], accept: impl Fn(&Self, &Capture) -> bool) -> bool {
        let store = self.instance.store();
        let open = |capture: &Capture| {
            let exports_logs = capture.received(Signal::Logs).items > 0;
            which.iter().map(|&at| &self.sent[at]).any(|sent| {
                let Some(settled) = sent.proven_and_running() else { return false };
                let evidence = self.evidence(capture, sent);
                evidence.may_go_on() || (!settled.logs && (exports_logs || evidence.logs.is_empty()))
            })
        };
        if !store.look(open) {
            return false;
        }
        let patience = self.stage.spec.patience;
        // A span is exported when it ends, and work behind the answer may take its time.
        let goes_on =
            |capture: &Capture| which.iter().any(|&at| self.evidence(capture, &self.sent[at]).goes_on_behind());
        let hurries = self.stage.waited_in_vain.get() && !store.look(goes_on);
        let wait = if hurries { store.look(slowest_export).min(patience) } else { patience };
        let accepted =
            store.until(Instant::now() + wait, |capture| accept(self, capture).then_some(())).await.is_some();
        if !accepted {
            self.stage.waited_in_vain.set(true);
        }
        accepted
    }

    fn judge_each(
        &self,
        capture: &Capture,
        which: &[usize],
        judge: impl Fn(&Seen<'_>) -> Result<(), String>,
    ) -> StepResult {
        for &at in which {
            let sent = &self.sent[at];
            let seen = self.seen(capture, sent);
            judge(&seen).map_err(|message| {
                let proof = sent.settled.as_ref().map_or("", |settled| settled.proof.as_str());
                Problem::failed(self.explained(&seen, &message, proof))
            })?;
        }
        Ok(())
    }

    /// Thaws a function once more and looks for what came only then.
    pub async fn nothing_after_the_freeze(&mut self) -> StepResult {
        let at = self.last_index()?;
        let patience = self.stage.spec.patience;
        if self.sent[at].delivery.invocation.is_none() {
            return Err(Problem::errored("this deployment is no function, so nothing freezes"));
        }
        self.settle(&[at], Instant::now() + patience).await?;
        let again = self.draft.request("GET", &self.sent[at].delivery.target, bytes::Bytes::new());
        let thawed = self.instance.send(again, Client::default(), &self.draft.secrets).await?;
        let home = |delivery: &Delivery| delivery.invocation.as_ref().map(|invocation| invocation.environment.clone());
        if home(&thawed) != home(&self.sent[at].delivery) {
            return Err(Problem::errored(
                "the request that was to thaw the environment went to another one: the first one was busy or has ended",
            ));
        }
        self.instance.settle(&[&thawed], Instant::now() + patience).await?;
        let sent = &self.sent[at];
        self.instance.store().look(|capture| {
            let seen = self.seen(capture, sent);
            let Some(found) = after_the_freeze(capture, &seen.evidence) else {
                let proof = sent.settled.as_ref().map_or("", |settled| settled.proof.as_str());
                return Err(Problem::errored(format!("the environment did not freeze after the invocation; {proof}")));
            };
            if found.is_empty() {
                return Ok(());
            }
            let lost: Vec<String> = found.iter().map(ToString::to_string).collect();
            let proof = sent.settled.as_ref().map_or("", |settled| settled.proof.as_str());
            Err(Problem::failed(self.explained(&seen, &lost.join("\n"), proof)))
        })
    }

    pub(super) fn seen<'a>(&self, capture: &'a Capture, sent: &'a Sent) -> Seen<'a> {
        let skew = self.stage.spec.invariants.skew;
        Seen { evidence: self.evidence(capture, sent), delivery: &sent.delivery, capture, skew }
    }

    fn last_index(&self) -> Result<usize, Problem> {
        self.last()?;
        Ok(self.sent.len() - 1)
    }

    /// Waits until the telemetry of what was sent so far is there, as far as that can be proven.
    pub async fn settle_so_far(&mut self) {
        let all: Vec<usize> = (0..self.sent.len()).collect();
        let deadline = Instant::now() + self.patience();
        // Without a proof the steps that need the telemetry say so themselves.
        let _ = self.settle(&all, deadline).await;
    }

    /// Proves completeness for stimuli that have no proof yet.
    pub(super) async fn settle(&mut self, which: &[usize], deadline: Instant) -> StepResult {
        let open: Vec<usize> = which.iter().copied().filter(|&at| self.sent[at].settled.is_none()).collect();
        if open.is_empty() {
            return Ok(());
        }
        let deliveries: Vec<&Delivery> = open.iter().map(|&at| &self.sent[at].delivery).collect();
        let settled = self.instance.settle(&deliveries, deadline).await?;
        self.stage.silent.set(false);
        for (at, settled) in open.into_iter().zip(settled) {
            self.proofs.insert(settled.proof.clone());
            self.sent[at].settled = Some(settled);
        }
        Ok(())
    }

    /// A mismatch with all that is known besides.
    pub(super) fn explained(&self, seen: &Seen<'_>, mismatch: &str, complete: &str) -> String {
        format!("{mismatch}\n{}", context(seen, &self.stage.spec, mismatch, complete))
    }
}

/// How the service ended, if it has.
fn exit_status(capture: &Capture) -> Option<String> {
    capture.lifecycle().iter().rev().find_map(|entry| match &entry.mark {
        Mark::Exited { status } => Some(status.clone()),
        _ => None,
    })
}
