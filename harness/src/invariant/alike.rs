//! Rules about many requests that are alike.

use super::{Grade::Advice, Rule, Subject};

pub(super) const RULES: &[Rule] = &[Rule {
    name: "all-alike",
    grade: Advice,
    about: "of a soak, and of requests that were sent at the same time, each leaves the spans and records that such a request leaves when it \
            is alone",
    limits: "Told where fewer than half of them lack something, and where up to three quarters lack what the one that was alone has: what \
             nearly all lack, a cache has spared them. Advice, because a cache that forgets, a sampler in the service or a limit on log \
             lines makes some differ too. What exporters drop under load looks just so, and one of two workers that exports nothing.",
    source: "OpenTelemetry specification, Trace SDK, Batching processor: what comes in while the queue is full is dropped",
    check: |subject: &Subject<'_>| subject.lacking.to_vec(),
}];

#[cfg(test)]
mod tests {
    use super::super::{
        Subject, check,
        tests::{entry, subject},
    };
    use crate::correlation::{Options, request, samples};

    fn judged(lacking: &[String], except: &[&str]) -> Vec<String> {
        let delivery = samples::delivery();
        samples::store(vec![entry()], Vec::new()).look(|capture| {
            let evidence = request(capture, &delivery, Options::default());
            let subject = Subject { lacking, ..subject(&evidence, &delivery, capture) };
            check(&subject, except).iter().map(ToString::to_string).collect()
        })
    }

    #[test]
    fn what_a_few_requests_lack_is_advice_and_nothing_is_none() {
        assert_eq!(judged(&["a: 1 of 9".to_owned()], &[]), ["all-alike: a: 1 of 9"]);
        assert_eq!(judged(&["a: 1 of 9".to_owned()], &["all-alike"]), Vec::<String>::new());
        assert_eq!(judged(&[], &[]), Vec::<String>::new());
    }
}
