//! A rule about the life of an invocation.

use super::{Grade, Rule};
use crate::capture::Mark;

pub(super) const RULES: &[Rule] = &[Rule {
    name: "invocation-ends",
    grade: Grade::Rule,
    about: "an invocation ends when its runtime and extensions ask for the next event, not by a timeout or a crash of one of \
            them",
    limits: "",
    source: "Lambda developer guide, execution environment lifecycle",
    check: |subject| {
        let Some(invocation) = &subject.delivery.invocation else { return Vec::new() };
        let ended = |mark: &Mark| match mark {
            Mark::InvocationFailed { request_id, what } if *request_id == invocation.request_id => Some(what.clone()),
            _ => None,
        };
        subject.capture.lifecycle().iter().filter_map(|made| ended(&made.mark)).collect()
    },
}];

#[cfg(test)]
mod tests {
    use super::super::{Finding, tests};
    use super::*;
    use crate::{capture::Store, correlation::samples, stimulus::Delivery};

    fn findings(delivery: &Delivery, failed: &str) -> Vec<Finding> {
        let store = Store::default();
        let what = "Sandbox.Timedout: Task timed out after 3.00 seconds".into();
        store.mark(Mark::InvocationFailed { request_id: failed.into(), what });
        tests::findings(&store, delivery, true, &[], &[])
    }

    #[test]
    fn an_invocation_that_the_platform_ended_is_found_although_its_caller_has_an_answer() {
        let delivery = Delivery { invocation: Some(samples::invocation("own")), ..samples::delivery() };
        let found = findings(&delivery, "own");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].to_string(), "invocation-ends: Sandbox.Timedout: Task timed out after 3.00 seconds");
    }

    #[test]
    fn the_end_of_another_invocation_and_a_service_without_any_break_nothing() {
        let delivery = Delivery { invocation: Some(samples::invocation("own")), ..samples::delivery() };
        assert!(findings(&delivery, "other").is_empty());
        assert!(findings(&samples::delivery(), "own").is_empty());
    }
}
