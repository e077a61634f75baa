//! A soak: very many requests, each with its own trace, and the question whether every one of them left a complete one.
//!
//! Of a request only what it takes to find its trace is kept. A look at the store takes a part of them at a time, so that
//! what arrives meanwhile does not wait.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Write as _,
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use tokio::time::Instant;

use super::{
    registry::StepResult,
    world::{Scene, Sent},
};
use crate::{
    capture::Capture,
    correlation::soak::{Flaw, Kind, flaws, of_trace, quoting_without_ids},
    expectation::mixing::{Beside, Left},
    report::Problem,
    stimulus::{Caller, ContextForm, Delivery, HttpResponse, Invocation},
    telemetry::Arrival,
};

/// Requests that are judged in one look at the store.
const AT_ONCE: usize = 256;

/// Requests that a failure names.
const NAMED: usize = 5;

/// Requests without an answer after which the rest is not sent.
const HOPELESS: usize = 100;

/// Requests that were sent together, and when.
#[derive(Debug)]
pub(super) struct Soak {
    method: String,
    target: String,
    form: ContextForm,
    asked: Vec<Asked>,
    took: Duration,
}

/// What is kept of a request.
#[derive(Debug)]
struct Asked {
    mark: Box<str>,
    user_agent: Box<str>,
    caller: Option<Caller>,
    sent: Arrival,
    answered: Arrival,
    status: u16,
    invocation: Option<Box<Invocation>>,
}

impl Asked {
    fn new(delivery: &Delivery) -> Self {
        Self {
            mark: delivery.mark.as_str().into(),
            user_agent: delivery.user_agent.as_str().into(),
            caller: delivery.caller,
            sent: delivery.sent,
            answered: delivery.answered,
            status: delivery.response.status,
            invocation: delivery.invocation.clone().map(Box::new),
        }
    }
}

impl Soak {
    /// The request at a place, without its answer's headers and body.
    fn delivery(&self, at: usize) -> Delivery {
        let asked = &self.asked[at];
        Delivery {
            mark: asked.mark.to_string(),
            method: self.method.clone(),
            target: self.target.clone(),
            user_agent: asked.user_agent.to_string(),
            headers: Vec::new(),
            caller: asked.caller,
            form: self.form,
            sent: asked.sent,
            answered: asked.answered,
            response: HttpResponse { status: asked.status, headers: Vec::new(), body: Bytes::new() },
            invocation: asked.invocation.as_deref().cloned(),
        }
    }

    /// `request 17 of 500, trace 63dd… answered 200 in 3 ms`.
    fn named(&self, at: usize) -> String {
        let asked = &self.asked[at];
        let trace = asked.caller.map_or_else(|| "none".to_owned(), |caller| caller.trace_id.to_string());
        let took = asked.answered.unix_nano.saturating_sub(asked.sent.unix_nano) / 1_000_000;
        format!("request {} of {}, trace {trace}, answered {} in {took} ms", at + 1, self.asked.len(), asked.status)
    }
}

impl Scene {
    /// Sends `count` requests from `clients` clients, each client one after the other. The last request is sent when all
    /// others are answered, so that it is alone, and steps may speak of it.
    pub async fn soak(&mut self, clients: usize, count: usize, method: &str, target: &str) -> StepResult {
        if clients == 0 || count < 2 {
            return Err(Problem::errored("a soak has at least one client and two requests"));
        }
        if !self.draft.sampled || self.draft.form == ContextForm::Absent {
            let why = "each request of a soak needs a trace context that says sampled, by which its trace is found";
            return Err(Problem::errored(why));
        }
        let began = Instant::now();
        let left = Cell::new(count - 1);
        let unanswered = Cell::new(0);
        let scene = &*self;
        let client = || async {
            let (mut asked, mut problem) = (Vec::new(), None);
            let client = scene.draft.one_of_several();
            while left.get() > 0 && unanswered.get() < HOPELESS {
                left.set(left.get() - 1);
                let request = scene.draft.request(method, target, Bytes::new());
                match scene.instance.send_in_bulk(request, client.clone(), &scene.draft.secrets).await {
                    Ok(delivery) => asked.push(Asked::new(&delivery)),
                    Err(error) => {
                        unanswered.set(unanswered.get() + 1);
                        problem.get_or_insert(error);
                    }
                }
            }
            (asked, problem)
        };
        let (asked, problems): (Vec<_>, Vec<_>) = join_all((0..clients).map(|_| client())).await.into_iter().unzip();
        if let Some(problem) = problems.into_iter().flatten().next() {
            let sent = count - 1 - left.get();
            return Err(Problem::errored(format!(
                "{} of {sent} requests got no answer, the first:\n{}",
                unanswered.get(),
                problem.message
            )));
        }
        let mut asked: Vec<Asked> = asked.into_iter().flatten().collect();
        asked.sort_by_key(|asked| asked.sent.seq);
        let last = self.draft.request(method, target, Bytes::new());
        let last = self.instance.send(last, self.draft.client.clone(), &self.draft.secrets).await?;
        asked.push(Asked::new(&last));
        self.sent.push(Sent::new(last));
        let (method, target) = (method.to_owned(), target.to_owned());
        self.soak = Some(Soak { method, target, form: self.draft.form, asked, took: began.elapsed() });
        Ok(())
    }

    /// Judges every request of the soak: as soon as all are complete whether anything is wrong once nothing more will
    /// come; and when they are not, after whatever may speak for the service had its time.
    pub async fn each_is_complete(&mut self) -> StepResult {
        let soak =
            self.soak.take().ok_or_else(|| Problem::errored("no soak was sent: its When step must come first"))?;
        let judged = self.judge_soak(&soak).await;
        self.soak = Some(soak);
        judged
    }

    async fn judge_soak(&mut self, soak: &Soak) -> StepResult {
        let began = Instant::now();
        let patience = self.stage.spec.patience;
        let all: Vec<usize> = (0..soak.asked.len()).collect();
        self.wait_for(soak, &all, began + patience).await;
        // A process is proven complete by its last request.
        let latest = self.latest_of_each_instance(soak, &all).await;
        let deliveries: Vec<Delivery> = latest.into_iter().map(|at| soak.delivery(at)).collect();
        let proof = self.instance.settle(&deliveries.iter().collect::<Vec<_>>(), Instant::now() + patience).await;
        let mut found = self.judge_all(soak, &all).await;
        let proof = match proof {
            Ok(settled) => settled,
            // The same as for a single request: who never exported a span has failed, anything else is an open question.
            Err(unproven) => {
                let silent = self.instance.store().look(|capture| capture.spans().is_empty());
                let text = format!("{}\n{}", told(soak, &found), unproven.message);
                return Err(if silent { Problem::failed(text) } else { Problem::errored(text) });
            }
        };
        // One proof is behind all of them.
        let ended = proof.iter().all(|settled| settled.ended);
        let proof = proof.first().map_or("", |settled| settled.proof.as_str());
        if !found.is_empty() && !ended {
            let open: Vec<usize> = found.keys().copied().collect();
            if self.wait_for(soak, &open, Instant::now() + patience).await {
                found = self.judge_all(soak, &all).await;
            }
        }
        if !found.is_empty() {
            return Err(Problem::failed(format!("{}\n{} · {proof}", told(soak, &found), self.stage.spec.name)));
        }
        let beside = self.beside_the_last(soak, &all).await;
        self.lacking = beside.lacking().collect();
        if let Err(mixed) = beside.are_apart() {
            let name = &self.stage.spec.name;
            return Err(Problem::failed(format!("{mixed}\n{name} · {proof}")));
        }
        self.proofs.insert(format!(
            "{} requests in {:.1} s, all complete {:.1} s later; {proof}",
            soak.asked.len(),
            soak.took.as_secs_f64(),
            began.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// What each left behind, beside the last one, which was alone: a context in a global variable makes well-formed traces of the
    /// wrong spans.
    async fn beside_the_last(&self, soak: &Soak, all: &[usize]) -> Beside {
        let Some((&last, others)) = all.split_last() else { return Beside::new(&[]) };
        let store = self.instance.store();
        let left = |capture: &Capture, at: usize| Left::of(&of_trace(capture, &soak.delivery(at), &self.stage.ignore));
        let mut beside = Beside::new(&[store.look(|capture| left(capture, last))]);
        let like: Vec<usize> =
            others.iter().copied().filter(|&at| soak.asked[at].status == soak.asked[last].status).collect();
        for part in like.chunks(AT_ONCE) {
            store.look(|capture| part.iter().for_each(|&at| beside.add(at + 1, &left(capture, at))));
            tokio::task::yield_now().await;
        }
        beside
    }

    fn flaws(&self, capture: &Capture, soak: &Soak, at: usize) -> Vec<Flaw> {
        flaws(capture, &soak.delivery(at), &self.stage.ignore)
    }

    /// Waits until these requests have no flaw, one behind the other: what came does not go away. Whether that was in time.
    async fn wait_for(&self, soak: &Soak, which: &[usize], deadline: Instant) -> bool {
        let store = self.instance.store();
        let mut open = which;
        while let Some((&first, _)) = open.split_first() {
            let whole = store.look(|capture| {
                open.iter().take(AT_ONCE).take_while(|&&at| self.flaws(capture, soak, at).is_empty()).count()
            });
            open = &open[whole..];
            let complete = |capture: &Capture| self.flaws(capture, soak, first).is_empty().then_some(());
            if whole == 0 && store.until(deadline, complete).await.is_none() {
                return false;
            }
            tokio::task::yield_now().await;
        }
        true
    }

    /// The last request of which each process has exported a span, and the last of all.
    async fn latest_of_each_instance(&self, soak: &Soak, all: &[usize]) -> Vec<usize> {
        let mut latest = HashMap::new();
        for part in all.chunks(AT_ONCE) {
            self.instance.store().look(|capture| {
                for &at in part {
                    let trace = soak.asked[at].caller.map(|caller| caller.trace_id);
                    for span in trace.into_iter().flat_map(|trace| capture.spans_of(trace)) {
                        latest.insert(span.resource.instance(), at);
                    }
                }
            });
            tokio::task::yield_now().await;
        }
        let mut latest: Vec<usize> = latest.into_values().chain(all.last().copied()).collect();
        latest.sort_unstable();
        latest.dedup();
        latest
    }

    /// What is wrong, by request.
    async fn judge_all(&self, soak: &Soak, all: &[usize]) -> BTreeMap<usize, Vec<Flaw>> {
        let store = self.instance.store();
        let mut found = BTreeMap::new();
        for part in all.chunks(AT_ONCE) {
            store.look(|capture| {
                let judged = part.iter().map(|&at| (at, self.flaws(capture, soak, at)));
                found.extend(judged.filter(|(_, flaws)| !flaws.is_empty()));
            });
            tokio::task::yield_now().await;
        }
        let places: HashMap<&str, usize> =
            soak.asked.iter().enumerate().map(|(at, asked)| (&*asked.mark, at)).collect();
        let agents: HashSet<&str> = places.keys().copied().collect();
        let since = soak.asked.iter().map(|asked| asked.sent.seq).min().unwrap_or(0);
        let without = store.look(|capture| quoting_without_ids(capture, since, &agents, &self.stage.ignore));
        for (agent, flaw) in without {
            found.entry(places[agent]).or_insert_with(Vec::new).push(flaw);
        }
        found
    }
}

/// What a failure says: how many requests, of what kinds, and the first ones.
fn told(soak: &Soak, found: &BTreeMap<usize, Vec<Flaw>>) -> String {
    let total = soak.asked.len();
    let mut text = format!("expected   each of {total} requests has a complete, correlated trace");
    if found.is_empty() {
        text.push_str("\nreceived   all of them, as far as can be told");
        return text;
    }
    let mut kinds: BTreeMap<Kind, usize> = BTreeMap::new();
    for flaws in found.values() {
        // However often it is so in a request.
        for kind in flaws.iter().map(|flaw| flaw.kind).collect::<BTreeSet<_>>() {
            *kinds.entry(kind).or_default() += 1;
        }
    }
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} × {kind}")).collect();
    let _ = write!(text, "\nfound      {} have not: {}", found.len(), kinds.join(", "));
    for (&at, flaws) in found.iter().take(NAMED) {
        let _ = write!(text, "\nbroken     {}", soak.named(at));
        for flaw in flaws.iter().take(NAMED) {
            let _ = write!(text, "\n             {}", flaw.what);
        }
    }
    if found.len() > NAMED {
        let _ = write!(text, "\n             … and {} more", found.len() - NAMED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlation::samples;

    #[test]
    fn a_failure_counts_by_kind_and_names_the_first_requests() {
        let asked = (0..20).map(|_| Asked::new(&samples::delivery())).collect();
        let soak =
            Soak { method: "GET".into(), target: "/".into(), form: ContextForm::Both, asked, took: Duration::ZERO };
        let flaw = |kind, what: &str| Flaw { kind, what: what.into() };
        let orphans = vec![flaw(Kind::Orphan, "a hangs on x"), flaw(Kind::Orphan, "b hangs on x")];
        let mut found: BTreeMap<usize, Vec<Flaw>> =
            (3..10).map(|at| (at, vec![flaw(Kind::NoTrace, "no span of its trace was received")])).collect();
        found.insert(0, orphans);
        let text = told(&soak, &found);
        for part in [
            "each of 20 requests has a complete, correlated trace",
            "8 have not: 7 × no span of the caller's trace, 1 × an orphan",
            "request 1 of 20, trace 01010101010101010101010101010101, answered 200 in 0 ms",
            "a hangs on x",
            "request 4 of 20",
            "… and 3 more",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert!(!text.contains("request 9 of 20"), "{text}");
    }
}
