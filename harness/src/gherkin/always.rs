//! The rules that always hold, for every request of a scenario, and what must not come out of any.

use std::{cell::RefCell, collections::BTreeSet};

use tokio::time::Instant;

use super::{observe::Seen, registry::StepResult, world::Scene};
use crate::{
    capture::Capture,
    expectation::Canary,
    invariant::{self, Finding, Grade, Subject, Suspects},
    report::Problem,
    stimulus::{Delivery, canary},
};

impl Scene {
    /// What every request of the scenario breaks of the rules that always hold. Rules about what is missing need a proof
    /// of completeness; where there is none, they are left out, and the scenario's proofs say so.
    pub(super) async fn invariants(&mut self, except: &[&str]) -> StepResult {
        let all: Vec<usize> = (0..self.sent.len()).collect();
        let deadline = Instant::now() + self.patience();
        let proven = self.sent.iter().all(|sent| sent.settled.is_some());
        let complete = proven || (!self.stage.unprovable.get() && self.settle(&all, deadline).await.is_ok());
        if !complete {
            self.stage.unprovable.set(true);
            self.proofs.insert("completeness not proven: rules about what is missing were not judged".into());
        }
        self.watches_what_is_not_repeated(&all).await;
        let advice = RefCell::default();
        let judged = self.judge_at_last(&all, |scene, capture| {
            let (told, judged) = scene.judge_invariants(capture, complete, except);
            advice.replace(told);
            judged
        });
        let judged = judged.await;
        self.advice = advice.into_inner();
        judged
    }

    /// The advice, up to the first request that breaks a rule, and whether none does.
    fn judge_invariants(&self, capture: &Capture, complete: bool, except: &[&str]) -> (BTreeSet<String>, StepResult) {
        let mut advice = BTreeSet::new();
        let (suspects, lacking) = (self.suspects(capture), self.lacking(capture));
        for (at, sent) in self.sent.iter().enumerate() {
            let seen = self.seen(capture, sent);
            let findings =
                self.findings(&seen, complete, except, &suspects, if at == 0 { Some(&lacking) } else { None });
            let (broken, told): (Vec<Finding>, Vec<Finding>) =
                findings.into_iter().partition(|finding| self.fails(finding));
            advice.extend(told.iter().map(ToString::to_string));
            let broken: Vec<String> = broken.iter().map(|finding| format!("broken     {finding}")).collect();
            if !broken.is_empty() {
                let proof = sent.settled.as_ref().map_or("", |settled| settled.proof.as_str());
                let problem = Problem::failed(self.explained(&seen, &broken.join("\n"), proof));
                return (advice, Err(problem));
            }
            if let (Some(span), false) = (seen.evidence.undecided.first(), except.contains(&"one-trace")) {
                let count = seen.evidence.undecided.len();
                let others = if count > 1 { format!(", and so did {} more", count - 1) } else { String::new() };
                return (
                    advice,
                    Err(Problem::errored(format!(
                        "undecided  one-trace: {} {:?} began during this request, in a trace of its own{others}; the service had ended \
                         before it was seen for a second while nothing was asked of it, so nobody can say whether it does that \
                         by itself. Send the same request in a scenario that does not stop it",
                        span.kind, span.name
                    ))),
                );
            }
        }
        (advice, Ok(()))
    }

    /// What a request breaks, advice included. No value of a canary is in it.
    fn findings(
        &self,
        seen: &Seen<'_>,
        complete: bool,
        except: &[&str],
        suspects: &Suspects,
        lacking: Option<&[String]>,
    ) -> Vec<Finding> {
        let Seen { evidence, delivery, capture, skew } = seen;
        let canaries = self.canaries(delivery);
        let subject = Subject {
            evidence,
            delivery,
            capture,
            complete,
            skew: *skew,
            canaries: &canaries,
            suspects: Some(suspects),
            lacking: lacking.unwrap_or_default(),
            first: lacking.is_some(),
        };
        let mut findings = invariant::check(&subject, except);
        for finding in &mut findings {
            finding.what = canaries.iter().fold(std::mem::take(&mut finding.what), |what, canary| canary.hide(&what));
        }
        findings
    }

    /// What may hold a canary of any of the scenario's requests.
    fn suspects(&self, capture: &Capture) -> Suspects {
        let Some(first) = self.sent.first() else { return Suspects::default() };
        // Whatever is planted begins alike, so that one look serves for all requests.
        let planted = [("planted".to_owned(), canary::BEGINNING.to_owned())];
        let own = planted.into_iter().chain(self.own_secrets());
        let canaries: Vec<Canary> = own.filter_map(|(name, value)| Canary::new(name, value)).collect();
        Suspects::of(capture, first.delivery.sent.seq, &canaries)
    }

    /// Whether a finding fails the scenario.
    fn fails(&self, finding: &Finding) -> bool {
        finding.grade == Grade::Rule || self.stage.spec.invariants.deny.iter().any(|name| name == finding.rule)
    }

    /// What must not come out of a request: what was planted in it, and what the scenario sends or names itself.
    pub(super) fn canaries(&self, delivery: &Delivery) -> Vec<Canary> {
        let planted = canary::planted(&self.stage.spec.canaries(), &delivery.mark).into_iter();
        let planted = planted.filter_map(|(name, value)| Canary::planted(name, value));
        planted.chain(self.own_secrets().filter_map(|(name, value)| Canary::new(name, value))).collect()
    }

    /// Credentials that the scenario sends, and what it calls a secret.
    fn own_secrets(&self) -> impl Iterator<Item = canary::Named> {
        let declared = self.draft.secrets.iter().enumerate();
        let declared = declared.map(|(at, value)| (format!("secret {} of the scenario", at + 1), value.clone()));
        canary::credentials(&self.draft.headers).into_iter().chain(declared)
    }

    /// A message without the values that were planted, or sent as credentials.
    pub(super) fn hidden(&self, message: String) -> String {
        let canaries = self.sent.iter().flat_map(|sent| self.canaries(&sent.delivery));
        canaries.fold(message, |message, canary| canary.hide(&message))
    }
}
