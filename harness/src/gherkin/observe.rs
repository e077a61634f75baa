//! Looking at what came of a stimulus: waking on arrival for what must be there, and only on a proof of completeness for
//! what must not.

use std::fmt::Write as _;

use tokio::time::Instant;

use super::{
    registry::StepResult,
    world::{Scene, Sent},
};
use crate::{
    capture::{Capture, Mark},
    correlation::{FoundBy, Options, RequestEvidence, request},
    report::Problem,
};

impl Scene {
    /// Waits until `judge` accepts what came of the last request. Refused as soon as it is proven that nothing more will
    /// come, or when `patience` is over; the message is that of the last look.
    pub async fn eventually(&mut self, judge: impl Fn(&RequestEvidence, &Capture) -> Result<(), String>) -> StepResult {
        let at = self.last_index()?;
        let deadline = Instant::now() + self.stage.spec.patience;
        let accepted = {
            let sent = &self.sent[at];
            let store = self.instance.store();
            let look = |capture: &Capture| judge(&self.evidence(capture, sent), capture).ok();
            tokio::select! {
                biased;
                found = store.until(deadline, look) => found.is_some(),
                // A proof ends the wait early; without one the wait goes on to its deadline.
                () = async { if self.prove(sent, deadline).await.is_err() { std::future::pending().await } } => false,
            }
        };
        if accepted {
            return Ok(());
        }
        let proven = self.settle(at, deadline).await;
        let sent = &self.sent[at];
        self.instance.store().look(|capture| {
            let evidence = self.evidence(capture, sent);
            let Err(message) = judge(&evidence, capture) else { return Ok(()) };
            let complete = match &proven {
                Ok(()) => sent.settled.as_ref().map_or_else(String::new, |(proof, _)| proof.clone()),
                Err(problem) => problem.message.clone(),
            };
            Err(Problem::failed(format!("{message}\n{}", self.context(&evidence, sent, &complete))))
        })
    }

    /// Judges the last request once it is proven that nothing more will come.
    pub async fn finally(&mut self, judge: impl Fn(&RequestEvidence, &Capture) -> Result<(), String>) -> StepResult {
        let at = self.last_index()?;
        self.judge_settled(&[at], judge).await
    }

    /// Judges every request of the scenario once it is proven that nothing more will come.
    pub async fn finally_each(&mut self, judge: impl Fn(&RequestEvidence, &Capture) -> Result<(), String>) -> StepResult {
        self.last_index()?;
        let all: Vec<usize> = (0..self.sent.len()).collect();
        self.judge_settled(&all, judge).await
    }

    async fn judge_settled(
        &mut self,
        which: &[usize],
        judge: impl Fn(&RequestEvidence, &Capture) -> Result<(), String>,
    ) -> StepResult {
        let deadline = Instant::now() + self.stage.spec.patience;
        for &at in which {
            if let Err(unproven) = self.settle(at, deadline).await {
                // What is wrong already stays wrong, whatever may still come, unless something is merely missing; so
                // nothing at all from the deployment is a failure of the service, and anything else an open question.
                let silent = self.instance.store().look(|capture| capture.requests().is_empty());
                return Err(if silent {
                    Problem::failed(format!("received   no export request at all from this deployment\n{}", unproven.message))
                } else {
                    unproven
                });
            }
        }
        let store = self.instance.store();
        for &at in which {
            let sent = &self.sent[at];
            store.look(|capture| {
                let evidence = self.evidence(capture, sent);
                judge(&evidence, capture).map_err(|message| {
                    let proof = sent.settled.as_ref().map_or("", |(proof, _)| proof);
                    Problem::failed(format!("{message}\n{}", self.context(&evidence, sent, proof)))
                })
            })?;
        }
        Ok(())
    }

    /// Everything that was captured for a stimulus.
    pub fn evidence(&self, capture: &Capture, sent: &Sent) -> RequestEvidence {
        let options = Options {
            window_end: sent.settled.as_ref().map(|(_, end)| *end),
            exclusive: self.is_alone() && self.sent.len() == 1,
            ignore: &self.stage.ignore,
        };
        request(capture, &sent.delivery, options)
    }

    fn last_index(&self) -> Result<usize, Problem> {
        self.last()?;
        Ok(self.sent.len() - 1)
    }

    /// Proves completeness for one stimulus, once.
    async fn settle(&mut self, at: usize, deadline: Instant) -> StepResult {
        if self.sent[at].settled.is_some() {
            return Ok(());
        }
        let end = self.instance.store().look(Capture::last_seq);
        let proof = self.prove(&self.sent[at], deadline).await?;
        self.proofs.insert(proof.clone());
        let end = self.instance.store().look(|capture| window_end(capture, &self.sent[at], end));
        self.sent[at].settled = Some((proof, end));
        Ok(())
    }

    async fn prove(&self, sent: &Sent, deadline: Instant) -> Result<String, Problem> {
        match self.instance.settle(&sent.delivery, deadline).await {
            Ok(proof) => Ok(proof.to_string()),
            Err(incomplete) => Err(Problem::errored(format!("unproven   {incomplete}"))),
        }
    }

    /// What a failure says besides the mismatch: which trace, which deployment, what the verdict rests on, what came.
    fn context(&self, evidence: &RequestEvidence, sent: &Sent, complete: &str) -> String {
        let spec = &self.stage.spec;
        let mut text = String::new();
        let trace = match (evidence.trace_id(), evidence.caller) {
            (Some(id), _) => id.to_string(),
            (None, Some(caller)) => format!("{} (the caller's; no span of it)", caller.trace_id),
            (None, None) => "none".to_owned(),
        };
        let start = match &sent.delivery.invocation {
            Some(invocation) if invocation.cold_start => ", cold start",
            Some(_) => ", warm",
            None => "",
        };
        let _ = write!(text, "trace      {trace} · {}{start}", spec.name);
        if !complete.is_empty() {
            let _ = write!(text, " · {}", complete.trim_start_matches("unproven   "));
        }
        let took = sent.delivery.answered.unix_nano.saturating_sub(sent.delivery.sent.unix_nano);
        let _ = write!(
            text,
            "\nreceived   {} spans, {} log records; {} {} answered {} in {} ms",
            evidence.trace.len(),
            evidence.logs.len(),
            sent.delivery.method,
            sent.delivery.target,
            sent.delivery.response.status,
            took / 1_000_000
        );
        if !evidence.trace.is_empty() {
            for line in evidence.trace.to_string().lines() {
                let _ = write!(text, "\n             {line}");
            }
        }
        if evidence.found_by == FoundBy::Nothing && !evidence.candidates.is_empty() {
            let names: Vec<String> = evidence
                .candidates
                .iter()
                .rev()
                .take(5)
                .map(|span| format!("{} {:?} in trace {}", span.kind, span.name, span.trace_id))
                .collect();
            let _ = write!(text, "\nelsewhere  {}", names.join("; "));
        }
        text
    }
}

/// The last stamp that belongs to a request: where its environment froze, else where something else was sent, else what
/// was there when the proof began.
fn window_end(capture: &Capture, sent: &Sent, began: u64) -> u64 {
    let own = &sent.delivery;
    let after = capture.lifecycle().iter().filter(|entry| entry.arrival.seq > own.answered.seq);
    let request_id = own.invocation.as_ref().map(|invocation| invocation.request_id.as_str());
    after
        .filter_map(|entry| match &entry.mark {
            Mark::Frozen { request_id: froze } if froze.as_deref() == request_id => Some(entry.arrival.seq),
            Mark::Sent { .. } if request_id.is_none() => Some(entry.arrival.seq),
            Mark::Exited { .. } => Some(entry.arrival.seq),
            _ => None,
        })
        .min()
        .unwrap_or(began)
}
