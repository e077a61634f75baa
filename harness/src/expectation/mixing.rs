//! Whether requests that were under way at the same time kept apart what they left behind.
//!
//! A context that lives in a global variable makes well-formed trees of the wrong spans: each request by itself looks sound.
//! What tells is the sum. Together the requests left as many spans and lines as so many requests leave when they are
//! alone, and one has more than its own while another has less. A cache, a retry or a request that is merged with another
//! one changes the sum.

use std::collections::{BTreeMap, BTreeSet};

use super::mismatch::{counted, none_of};
use crate::{
    correlation::{RequestEvidence, background::without_numbers},
    telemetry::{LogRecord, Span},
};

/// What a request left behind, by kind and name, each with its number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left(BTreeMap<String, usize>);

impl Left {
    /// Its spans and its structured lines and records.
    pub fn of(evidence: &RequestEvidence) -> Self {
        let span = |span: &Span| format!("{} {:?}", span.kind, span.name);
        let record = |record: &LogRecord| format!("{} {:?}", record.origin, without_numbers(&record.message));
        let spans = evidence.trace.spans().map(|one| span(one));
        spans.chain(evidence.logs.iter().map(|one| record(one))).collect()
    }

    fn count(&self, item: &str) -> usize {
        self.0.get(item).copied().unwrap_or(0)
    }
}

impl FromIterator<String> for Left {
    fn from_iter<I: IntoIterator<Item = String>>(items: I) -> Self {
        Self(counted(items))
    }
}

/// Whether requests that were alike and under way at the same time, `together`, each have their own. `alone` are the same
/// requests when nothing else was under way; what they differ in themselves is not judged.
///
/// # Errors
/// With what is in the wrong request, and how often.
pub fn kept_apart(alone: &[Left], together: &[Left]) -> Result<(), String> {
    let items: BTreeSet<&String> = alone.iter().flat_map(|left| left.0.keys()).collect();
    let mut wrong = Vec::new();
    for item in items {
        let own = alone[0].count(item);
        if own == 0 || alone.iter().any(|left| left.count(item) != own) {
            continue;
        }
        let counts: Vec<usize> = together.iter().map(|left| left.count(item)).collect();
        if counts.iter().sum::<usize>() == own * together.len() && counts.iter().any(|&count| count != own) {
            let each = counts.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            wrong.push(format!(
                "mixed      {item}: {own} in a request that is alone; of {} at the same time each has: {each}",
                together.len()
            ));
        }
    }
    none_of(wrong, |more| format!("mixed      and {more} more"))
}

/// The same for very many requests, of which no more is kept than how far each item is off.
#[derive(Debug)]
pub struct Sums {
    alone: Left,
    requests: usize,
    /// How often an item came, and the requests that have another number than the one that was alone.
    items: BTreeMap<String, (usize, Vec<(usize, usize)>)>,
}

/// Requests that are told for an item.
const EXAMPLES: usize = 5;

impl Sums {
    /// Nothing yet, to be held against what a request left that was alone.
    pub fn beside(alone: Left) -> Self {
        let items = alone.0.keys().map(|item| (item.clone(), (0, Vec::new()))).collect();
        Self { alone, requests: 0, items }
    }

    /// What the request with this number left.
    pub fn add(&mut self, number: usize, left: &Left) {
        self.requests += 1;
        for (item, (sum, off)) in &mut self.items {
            let count = left.count(item);
            *sum += count;
            if count != self.alone.count(item) {
                off.push((number, count));
            }
        }
    }

    /// Whether each has its own.
    ///
    /// # Errors
    /// With what is in the wrong request, and the first such requests.
    pub fn are_apart(&self) -> Result<(), String> {
        let mixed = self.items.iter().filter_map(|(item, (sum, off))| {
            let own = self.alone.count(item);
            if off.is_empty() || *sum != own * self.requests {
                return None;
            }
            let first: Vec<String> =
                off.iter().take(EXAMPLES).map(|(number, count)| format!("request {number} has {count}")).collect();
            let (off, others) = (off.len(), self.requests);
            let first = first.join(", ");
            Some(format!(
                "mixed      {item}: {own} in the request that was alone; {off} of the {others} others have another number, and \
                 together they have as many as they should: {first}"
            ))
        });
        none_of(mixed.collect(), |more| format!("mixed      and {more} more"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(own: usize, counts: &[usize]) -> Result<(), String> {
        let mut sums = Sums::beside(left(&[("SERVER", 1), ("line", own)]));
        for (at, &count) in counts.iter().enumerate() {
            sums.add(at + 1, &left(&[("SERVER", 1), ("line", count), ("other", at)]));
        }
        sums.are_apart()
    }

    #[test]
    fn of_many_requests_those_that_have_what_others_lack_are_told() {
        let wrong = sums(1, &[1, 2, 0, 1]).unwrap_err();
        assert!(wrong.contains("line: 1 in the request that was alone; 2 of the 4 others"), "{wrong}");
        assert!(wrong.ends_with("request 2 has 2, request 3 has 0") && !wrong.contains("SERVER"), "{wrong}");
    }

    #[test]
    fn of_many_requests_a_cache_a_retry_or_what_only_the_others_have_is_no_mixing() {
        assert_eq!(sums(1, &[1, 1, 1]), Ok(()));
        assert_eq!(sums(1, &[1, 0, 0]), Ok(()));
        assert_eq!(sums(1, &[1, 2, 1]), Ok(()));
        assert_eq!(sums(0, &[3, 0, 0]), Ok(()));
    }

    fn left(items: &[(&str, usize)]) -> Left {
        items.iter().flat_map(|&(item, count)| std::iter::repeat_n(item.to_owned(), count)).collect()
    }

    fn each(counts: &[usize]) -> Vec<Left> {
        counts.iter().map(|&count| left(&[("SERVER \"GET /\"", 1), ("INTERNAL \"read\"", count)])).collect()
    }

    #[test]
    fn what_one_request_has_too_much_and_another_too_little_is_mixed() {
        let alone = each(&[1]);
        let wrong = kept_apart(&alone, &each(&[0, 2, 1])).unwrap_err();
        assert_eq!(
            wrong,
            "mixed      INTERNAL \"read\": 1 in a request that is alone; of 3 at the same time each has: 0, 2, 1"
        );
        assert!(kept_apart(&alone, &each(&[0, 0, 3])).is_err());
        assert!(kept_apart(&each(&[2, 2]), &each(&[4, 0])).is_err());
    }

    #[test]
    fn what_each_request_has_as_when_it_is_alone_is_kept_apart() {
        assert_eq!(kept_apart(&each(&[1]), &each(&[1, 1, 1])), Ok(()));
    }

    #[test]
    fn a_cache_a_merged_call_and_a_retry_are_not_mixed() {
        assert_eq!(kept_apart(&each(&[2]), &each(&[2, 0, 0])), Ok(()), "a cache, or one call for all");
        assert_eq!(kept_apart(&each(&[1]), &each(&[1, 2, 1])), Ok(()), "a retry");
        assert_eq!(kept_apart(&each(&[0]), &each(&[2, 0])), Ok(()), "it was in the cache when it was alone");
        assert_eq!(kept_apart(&each(&[1, 0]), &each(&[2, 0])), Ok(()), "alone it is not always the same");
    }

    #[test]
    fn only_so_much_is_told() {
        let names: Vec<String> = (0..8).map(|n| format!("span {n}")).collect();
        let of = |count| left(&names.iter().map(|name| (name.as_str(), count)).collect::<Vec<_>>());
        let wrong = kept_apart(&[of(1)], &[of(2), of(0)]).unwrap_err();
        assert_eq!(wrong.lines().count(), 6);
        assert!(wrong.ends_with("mixed      and 3 more"));
    }
}
