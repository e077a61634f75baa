//! Requests of a scenario that were under way at the same time, held against the same requests when they were alone.

use std::collections::BTreeMap;

use super::{
    registry::StepResult,
    world::{Scene, Sent},
};
use crate::{
    capture::Capture,
    expectation::mixing::{Beside, Left},
    report::Problem,
    stimulus::Delivery,
};

/// Whether two different requests of a scenario were under way at the same time.
pub(super) fn overlaps(one: &Delivery, other: &Delivery) -> bool {
    one.mark != other.mark && one.sent.seq < other.answered.seq && other.sent.seq < one.answered.seq
}

/// The same request with the same answer.
type Alike<'a> = (&'a str, &'a str, u16);

#[derive(Default)]
struct Group<'a> {
    alone: Vec<&'a Sent>,
    together: Vec<&'a Sent>,
}

/// Requests by what they are alike in, those left out that there are none of at the same time.
fn groups(sent: &[Sent]) -> BTreeMap<Alike<'_>, Group<'_>> {
    let mut groups: BTreeMap<Alike<'_>, Group<'_>> = BTreeMap::new();
    for one in sent.iter().filter(|one| one.delivery.caller.is_none_or(|caller| caller.sampled)) {
        let Delivery { method, target, response, .. } = &one.delivery;
        let group = groups.entry((method, target, response.status)).or_default();
        let together = sent.iter().any(|other| overlaps(&one.delivery, &other.delivery));
        if together { &mut group.together } else { &mut group.alone }.push(one);
    }
    groups.retain(|_, group| group.together.len() > 1);
    groups
}

impl Scene {
    /// Whether requests of the scenario that were under way at the same time, and are proven complete, each left behind
    /// what such a request leaves when it is alone. Those that none was alone of are not judged.
    pub(super) fn keeps_requests_apart(&self) -> StepResult {
        self.instance.store().look(|capture| {
            for ((method, target, status), group) in groups(&self.sent) {
                self.beside(capture, &group).are_apart().map_err(|wrong| {
                    let proof = group.together[0].settled.as_ref().map_or("", |settled| settled.proof.as_str());
                    let name = &self.stage.spec.name;
                    Problem::failed(format!(
                        "{wrong}\nof         {method} {target} -> {status}\non         {name} · {proof}"
                    ))
                })?;
            }
            Ok(())
        })
    }

    /// What the requests of a group left, beside those of it that were alone.
    fn beside(&self, capture: &Capture, group: &Group<'_>) -> Beside {
        let left = |sent: &&Sent| Left::of(&self.evidence(capture, sent));
        let mut beside = Beside::new(&group.alone.iter().map(left).collect::<Vec<_>>());
        group.together.iter().zip(1..).for_each(|(sent, number)| beside.add(number, &left(sent)));
        beside
    }

    /// What a few of many requests that were alike lack, of a soak and of those that were under way at the same time.
    pub(super) fn lacking(&self, capture: &Capture) -> Vec<String> {
        let groups = groups(&self.sent);
        let together = groups.values().flat_map(|group| self.beside(capture, group).lacking().collect::<Vec<_>>());
        self.lacking.iter().cloned().chain(together).collect()
    }

    /// Whether each group has something that could be mixed up. A service that leaves nothing mixes nothing, and is not what was
    /// asked for.
    pub(super) fn leaves_something(&self) -> StepResult {
        self.instance.store().look(|capture| {
            let groups = groups(&self.sent);
            let nothing = groups.iter().find(|(_, group)| self.beside(capture, group).is_empty());
            let Some(((method, target, status), group)) = nothing else { return Ok(()) };
            let proof = group.alone.first().and_then(|sent| sent.settled.as_ref()).map_or("", |settled| &settled.proof);
            Err(Problem::failed(format!(
                "expected   a span or a structured line of the request that was sent alone\nreceived   none\n\
                 of         {method} {target} -> {status}\non         {} · {proof}",
                self.stage.spec.name
            )))
        })
    }

    /// Refuses to judge whether requests at the same time mix where nothing says what one leaves behind when it is alone.
    pub(super) fn can_tell_requests_apart(&mut self) -> StepResult {
        let groups = groups(&self.sent);
        let overlap = |one: &Sent| self.sent.iter().any(|other| overlaps(&one.delivery, &other.delivery));
        if groups.is_empty()
            && self.sent.len() > 1
            && self.stage.spec.kind.is_lambda()
            && !self.sent.iter().any(overlap)
        {
            // A function with one environment takes one event after the other.
            self.proofs.insert("requests ran one after the other, so none could mix".into());
            return Ok(());
        }
        if groups.is_empty() {
            return Err(Problem::errored(
                "no two requests that are alike (method, target, status of the answer) and sampled were under way at the same time: \
                 send them as in `When 10 clients send GET /orders/7 at the same time`",
            ));
        }
        match groups.iter().find(|(_, group)| group.alone.is_empty()) {
            None => Ok(()),
            Some(((method, target, status), _)) => Err(Problem::errored(format!(
                "{method} {target}, answered {status}, was sent several times at the same time and never alone: send it alone \
                 before, as in `When a client sends {method} {target}`, so that it is known what one leaves behind"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{correlation::samples, telemetry::Arrival};

    fn sent(target: &str, mark: &str, from: u64, to: u64) -> Sent {
        let at = |seq| Arrival { seq, unix_nano: seq };
        let (target, mark) = (target.to_owned(), mark.to_owned());
        Sent::new(Delivery { target, mark, sent: at(from), answered: at(to), ..samples::delivery() })
    }

    #[test]
    fn requests_are_alone_or_together_by_their_times() {
        let all = [sent("/", "a", 1, 2), sent("/", "b", 3, 6), sent("/", "c", 4, 5), sent("/other", "d", 4, 7)];
        let groups = groups(&all);
        assert_eq!(groups.len(), 1, "there is one of the other");
        let group = groups.values().next().unwrap();
        let marks = |sent: &[&Sent]| sent.iter().map(|sent| sent.delivery.mark.clone()).collect::<Vec<_>>();
        assert_eq!((marks(&group.alone), marks(&group.together)), (vec!["a".to_owned()], vec!["b".into(), "c".into()]));
    }
}
