//! Looking at what came of a stimulus: waking on arrival for what must be there, and only on a proof of completeness for
//! what must not.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    context::context,
    registry::StepResult,
    together::overlaps,
    world::{Scene, Sent},
};
use crate::{
    capture::{Capture, Mark, Signal, sink::behaviour::Item},
    config::Ready,
    correlation::{
        Options, RequestEvidence, after_the_freeze,
        background::{GRACE, Shape, background},
        detached::{SpanShape, by_itself},
        repetition::was_repeated,
        request,
    },
    expectation::Canary,
    invariant::{self, Finding, Grade, Subject, Suspects},
    report::Problem,
    stimulus::{Delivery, Identity, canary},
    telemetry::{SpanId, TraceId},
};

/// How much longer an expectation waits than the proof of completeness beside it, so that the proof can say why there is
/// none.
const LAST_WORD: Duration = Duration::from_millis(200);

/// How long the service is watched while nothing is asked of it, at least, and as a multiple of its slowest answer: what
/// fell into that time by chance comes again in this one.
const LEAST_WATCH: Duration = Duration::from_secs(1);
const WATCH_FACTOR: u32 = 20;

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
fn slowest_export(capture: &Capture) -> Duration {
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
    fn patience(&self) -> Duration {
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
    async fn judge_at_last(&mut self, which: &[usize], judge: impl Fn(&Self, &Capture) -> StepResult) -> StepResult {
        self.repeats(which).await;
        let now = |scene: &Self| scene.instance.store().look(|capture| judge(scene, capture));
        let mut judged = now(self);
        if judged.is_ok() && self.found_named_traces(which).await {
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

    /// Where something came with a request that was alone and nothing says whose it is: repeats the request, once for all, to see
    /// whether it comes again.
    async fn repeats(&self, which: &[usize]) {
        let store = self.instance.store();
        let targets: BTreeSet<&str> = store.look(|capture| {
            let mine = which.iter().map(|&at| &self.sent[at]).filter(|sent| sent.delivery.method == "GET");
            // Nobody asks what has ended.
            let running = mine.filter(|sent| sent.proven_and_running().is_some());
            let open = running.filter(|sent| !was_repeated(capture, &sent.delivery.target));
            let open = open.filter(|sent| !self.evidence(capture, sent).untried.is_empty());
            open.map(|sent| sent.delivery.target.as_str()).collect()
        });
        if targets.is_empty() {
            return;
        }
        for target in targets {
            self.instance.repeat(target).await;
        }
        // Spans come when their exporter sends them.
        let deliveries: Vec<&Delivery> = which.iter().map(|&at| &self.sent[at].delivery).collect();
        self.instance.come_to_rest(&deliveries, Instant::now() + self.stage.spec.patience).await;
    }

    /// A line that was written during a request that was alone and names a trace of which nothing has come may be of a process
    /// that no proof speaks for, and that made a trace of its own of the request. Waits for what such lines name, until one such
    /// wait was in vain: a trace that is not sampled never comes. Whether anything came.
    async fn found_named_traces(&self, which: &[usize]) -> bool {
        let store = self.instance.store();
        let unknown = |capture: &Capture| -> HashSet<TraceId> {
            let open = which.iter().map(|&at| &self.sent[at]);
            let open = open.filter(|sent| sent.proven_and_running().is_some());
            let named = open.flat_map(|sent| self.evidence(capture, sent).traces_named_beside().collect::<Vec<_>>());
            // What the collector refused for good does not come.
            let refused: HashSet<TraceId> = self.refused(capture).into_iter().map(|(trace_id, _)| trace_id).collect();
            named
                .filter(|trace_id| !refused.contains(trace_id) && capture.spans_of(*trace_id).next().is_none())
                .collect()
        };
        let named = store.look(unknown);
        if named.is_empty() || self.stage.waited_for_traces.get() {
            return false;
        }
        let came =
            |capture: &Capture| named.iter().filter(|&&trace_id| capture.spans_of(trace_id).next().is_some()).count();
        let deadline = Instant::now() + self.stage.spec.patience;
        let all = store.until(deadline, |capture| (came(capture) == named.len()).then_some(())).await.is_some();
        self.stage.waited_for_traces.set(!all);
        all || store.look(came) > 0
    }

    /// A fence proves what the processes sent that it went through, and the signals that its own request makes them send.
    /// Where something speaks of more, and where nothing speaks for log records: waits until `accept` holds. The first time for as long as `patience`; after a wait in vain only
    /// for as long as this deployment's exporters were seen to take.
    async fn waits_on(&self, which: &[usize], accept: impl Fn(&Self, &Capture) -> bool) -> bool {
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
        let wait = if self.stage.waited_in_vain.get() { store.look(slowest_export).min(patience) } else { patience };
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

    /// What every request of the scenario breaks of the rules that always hold. Rules about what is missing need a proof
    /// of completeness; where there is none, they are left out, and the scenario's proofs say so.
    pub async fn invariants(&mut self, except: &[&str]) -> StepResult {
        let all: Vec<usize> = (0..self.sent.len()).collect();
        let deadline = Instant::now() + self.patience();
        let proven = self.sent.iter().all(|sent| sent.settled.is_some());
        let complete = proven || (!self.stage.unprovable.get() && self.settle(&all, deadline).await.is_ok());
        if !complete {
            self.stage.unprovable.set(true);
            self.proofs.insert("completeness not proven: rules about what is missing were not judged".into());
        }
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
    pub fn canaries(&self, delivery: &Delivery) -> Vec<Canary> {
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
    pub fn hidden(&self, message: String) -> String {
        let canaries = self.sent.iter().flat_map(|sent| self.canaries(&sent.delivery));
        canaries.fold(message, |message, canary| canary.hide(&message))
    }

    /// Where nothing but the time says that lines without ids or spans of other traces are of these requests: watches the
    /// service while nothing is asked of it. Whether it makes some of those then too, so that they are not the requests'.
    async fn found_background(&self, which: &[usize]) -> bool {
        let store = self.instance.store();
        let (lines, spans): (HashSet<Shape>, HashSet<SpanShape>) = store.look(|capture| {
            let evidence: Vec<_> = which.iter().map(|&at| self.evidence(capture, &self.sent[at])).collect();
            let lines =
                evidence.iter().flat_map(|evidence| &evidence.guessed).map(|record| Shape::of(record)).collect();
            let spans = evidence
                .iter()
                .flat_map(|evidence| evidence.detached().chain(evidence.stale()).chain(evidence.came_again()));
            (lines, spans.map(|span| SpanShape::of(span)).collect())
        });
        if (lines.is_empty() && spans.is_empty()) || !self.is_alone() {
            return false;
        }
        let took = which.iter().map(|&at| self.sent[at].delivery.took()).max().unwrap_or_default();
        let watch = (took * WATCH_FACTOR).clamp(LEAST_WATCH, self.stage.spec.patience.max(LEAST_WATCH));
        let deadline = Instant::now() + GRACE + watch;
        let all = |capture: &Capture| background(capture).is_superset(&lines) && by_itself(capture).is_superset(&spans);
        let found_all = store.until(deadline, |capture| all(capture).then_some(())).await.is_some();
        if !found_all && !spans.is_empty() {
            // Spans come when their exporter sends them. What began during the watch is here once another proof is.
            let deliveries: Vec<&Delivery> = which.iter().map(|&at| &self.sent[at].delivery).collect();
            self.instance.come_to_rest(&deliveries, Instant::now() + self.patience()).await;
        }
        store.look(|capture| !background(capture).is_disjoint(&lines) || !by_itself(capture).is_disjoint(&spans))
    }

    /// Everything that was captured for a stimulus.
    pub fn evidence(&self, capture: &Capture, sent: &Sent) -> RequestEvidence {
        let spec = &self.stage.spec;
        let ready = match &spec.ready {
            Some(Ready::Http(target)) if !spec.kind.is_lambda() => Some(target.as_str()),
            _ => None,
        };
        let own: Vec<&str> = ready.into_iter().chain((!spec.kind.is_lambda()).then(|| spec.fence_target())).collect();
        let exclusive = self.is_alone() && !self.sent.iter().any(|other| overlaps(&sent.delivery, &other.delivery));
        let usual = (self.is_alone() && !exclusive).then(|| self.usual(capture, sent)).flatten();
        let refused = self.refused(capture);
        let options = Options {
            usual: usual.as_ref(),
            refused: Some(&refused),
            since: Some(sent.delivery.sent.seq),
            window_end: sent.settled.as_ref().map(|settled| settled.window_end),
            // The harness's own requests to the same target write the same line.
            quoted_until: sent
                .settled
                .as_ref()
                .filter(|_| !own.contains(&sent.delivery.target.as_str()))
                .map(|settled| settled.proven_at),
            alone: self.is_alone(),
            own_targets: &own,
            exclusive,
            ignore: &self.stage.ignore,
        };
        request(capture, &sent.delivery, options)
    }

    /// The shapes of what came while a request like this one was alone, where there was one in the scenario.
    fn usual(&self, capture: &Capture, sent: &Sent) -> Option<HashSet<Shape>> {
        let like = |other: &&Sent| {
            let (one, other) = (&sent.delivery, &other.delivery);
            (&one.method, &one.target) == (&other.method, &other.target)
                && !self.sent.iter().any(|third| overlaps(other, &third.delivery))
        };
        let mut alone = self.sent.iter().filter(like).peekable();
        alone.peek()?;
        let came = alone.flat_map(|sent| {
            let proven = sent.settled.as_ref().map_or(sent.delivery.answered.seq, |settled| settled.proven_at);
            let others = self.sent.iter().map(|other| other.delivery.sent.seq);
            let next = others.filter(|&other| other > sent.delivery.sent.seq).min();
            let until = next.map_or(proven, |next| proven.min(next));
            let records = capture.logs().since(sent.delivery.sent.seq);
            records.take_while(move |record| record.arrival.seq <= until)
        });
        Some(came.map(|record| Shape::of(record)).collect())
    }

    /// The spans that the collector refused for good, because the scenario said so.
    fn refused(&self, capture: &Capture) -> HashSet<(TraceId, SpanId)> {
        if self.ordeal.is_none() {
            return HashSet::new();
        }
        let incidents = self.instance.incidents_in(capture).into_iter().filter(|incident| incident.act.is_final());
        let items = incidents.flat_map(|incident| incident.items);
        items
            .filter_map(|item| if let Item::Span(trace_id, span_id) = item { Some((trace_id, span_id)) } else { None })
            .collect()
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
        let thawed = self.instance.send(again, Identity::default(), &self.draft.secrets).await?;
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

    fn seen<'a>(&self, capture: &'a Capture, sent: &'a Sent) -> Seen<'a> {
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
    async fn settle(&mut self, which: &[usize], deadline: Instant) -> StepResult {
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
    fn explained(&self, seen: &Seen<'_>, mismatch: &str, complete: &str) -> String {
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
