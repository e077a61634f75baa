//! What came behind the answer of a request and says of nobody that it is theirs.

use super::{Grade::Advice, Rule, Subject};

pub(super) const RULES: &[Rule] = &[Rule {
    name: "unattributed",
    grade: Advice,
    about: "work that begins behind the answer of a request that changes something hangs on it or names it in a link, and its lines have ids",
    limits: "Told of root spans and of lines without ids that come within 0.3 s, where nothing else is asked, and neither while nothing is asked \
             of the service nor with a fence alone. Advice, because a job that runs seldom may come just then: a `GET` is repeated to see \
             what it sets off, and what comes each time breaks `one-trace` and `log-ids`; any other request is not. Not on Lambda, where \
             nothing runs behind the answer.",
    source: "OpenTelemetry specification, Context: work that is handed on takes its context along; semantic conventions, Messaging spans: a \
             consumer's span has the producer's as its parent or in a link",
    check: unattributed,
}];

fn unattributed(subject: &Subject<'_>) -> Vec<String> {
    let Subject { evidence, delivery, complete, .. } = subject;
    if !complete || delivery.may_be_repeated() {
        return Vec::new();
    }
    let request = format!("{} {}", delivery.method, delivery.target);
    let roots = evidence.untried.roots.iter().map(|span| {
        format!("{} {:?} began beside or behind {request}, hangs on nothing and has no link", span.kind, span.name)
    });
    let lines = evidence.untried.lines.iter().map(|record| {
        format!("{} line {:?} came behind the answer of {request} and has no ids", record.origin, record.message)
    });
    roots.chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::{super::tests::entry, *};
    use crate::{
        correlation::{Options, repetition::Doubtful, request, samples},
        stimulus::Delivery,
    };

    fn judged(method: &str, complete: bool, untried: Doubtful) -> Vec<String> {
        let delivery = Delivery { method: method.into(), ..samples::delivery() };
        samples::store(vec![entry()], Vec::new()).look(|capture| {
            let mut evidence = request(capture, &delivery, Options::default());
            evidence.untried = untried;
            let (skew, first, lacking) = (Duration::ZERO, true, &[]);
            let (canaries, suspects) = (&[], None);
            let subject = Subject {
                evidence: &evidence,
                delivery: &delivery,
                capture,
                complete,
                skew,
                canaries,
                suspects,
                lacking,
                first,
            };
            unattributed(&subject)
        })
    }

    fn found() -> Doubtful {
        let (span, line) = (samples::span(2, None, "settle"), samples::record(None, None));
        Doubtful { roots: vec![Arc::new(span)], lines: vec![Arc::new(line)], ..Doubtful::default() }
    }

    #[test]
    fn what_comes_behind_a_request_that_is_not_repeated_and_names_nobody_is_told() {
        let told = judged("POST", true, found());
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].starts_with("INTERNAL \"settle\" began beside or behind POST /"), "{told:?}");
        assert!(told[1].contains("has no ids"), "{told:?}");
    }

    #[test]
    fn nothing_is_told_without_a_proof_of_what_can_be_repeated_and_where_nothing_came() {
        assert!(judged("POST", false, found()).is_empty());
        assert!(judged("GET", true, found()).is_empty());
        assert!(judged("POST", true, Doubtful::default()).is_empty());
    }
}
