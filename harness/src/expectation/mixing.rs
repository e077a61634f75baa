//! Whether requests that were under way at the same time kept apart what they left behind.
//!
//! A context that lives in a global variable makes well-formed trees of the wrong spans: each request by itself looks sound.
//! What tells is the sum. Together the requests left as many spans and lines as so many requests leave when they are
//! alone, and one has more than its own while another has less. A cache, a retry or a request that is merged with another
//! one changes the sum.

use std::collections::BTreeMap;

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

/// Requests that were alike and under way at the same time, held against the same requests when they were alone. No more is
/// kept than how far each item is off, so that there may be very many.
#[derive(Debug)]
pub struct Beside {
    requests: usize,
    items: BTreeMap<String, Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    /// How often each request that was alone left it; nothing where these differ.
    own: usize,
    /// How often it came of the others together.
    sum: usize,
    /// The requests that left another number of it, with that.
    off: Vec<(usize, usize)>,
    /// How many requests left which number of it, none left out.
    numbers: BTreeMap<usize, usize>,
}

/// Items that are known beside those of the requests that were alone: names with ids in them have no end.
const ITEMS_AT_MOST: usize = 1000;

/// Requests that are told for an item.
const EXAMPLES: usize = 5;

impl Beside {
    /// Nothing yet, to be held against what requests left that were alone. What these differ in themselves is not judged.
    pub fn new(alone: &[Left]) -> Self {
        let steady = |(item, &own): (&String, &usize)| {
            let same = alone.iter().all(|left| left.count(item) == own);
            same.then(|| (item.clone(), Counted { own, ..Counted::default() }))
        };
        let items = alone.first().into_iter().flat_map(|left| left.0.iter().filter_map(steady)).collect();
        Self { requests: 0, items }
    }

    /// Whether those that were alone left nothing that could be mixed up.
    pub fn is_empty(&self) -> bool {
        self.items.values().all(|counted| counted.own == 0)
    }

    /// What the request with this number left.
    pub fn add(&mut self, number: usize, left: &Left) {
        for item in left.0.keys() {
            if self.items.len() < ITEMS_AT_MOST && !self.items.contains_key(item) {
                self.items.insert(
                    item.clone(),
                    Counted { numbers: BTreeMap::from([(0, self.requests)]), ..Counted::default() },
                );
            }
        }
        self.requests += 1;
        for (item, Counted { own, sum, off, numbers }) in &mut self.items {
            let count = left.count(item);
            *sum += count;
            *numbers.entry(count).or_default() += 1;
            if *own > 0 && count != *own {
                off.push((number, count));
            }
        }
    }

    /// Whether each has its own.
    ///
    /// # Errors
    /// With what is in the wrong request, and the first such requests.
    pub fn are_apart(&self) -> Result<(), String> {
        let mixed = self.items.iter().filter_map(|(item, Counted { own, sum, off, .. })| {
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

    /// What some requests left less of than most, or than the ones that were alone. What nearly all of them lack, a cache or one call
    /// for all has spared them.
    pub fn lacking(&self) -> impl Iterator<Item = String> {
        self.items.iter().filter_map(|(item, Counted { own, numbers, .. })| {
            let most = numbers.iter().find(|(_, requests)| **requests * 2 > self.requests).map(|(number, _)| *number);
            // One of two workers that is silent takes half of the requests, and by chance more.
            let as_alone: usize = numbers.range(own..).map(|(_, requests)| requests).sum();
            let as_alone = (as_alone >= 2 && as_alone * 4 >= self.requests).then_some(*own);
            let usual = most.max(as_alone)?;
            let lacking: usize = numbers.range(..usual).map(|(_, requests)| requests).sum();
            (lacking > 0)
                .then(|| format!("{item}: {lacking} of {} requests that are alike left less of it", self.requests))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beside(own: usize, counts: &[usize]) -> Beside {
        let mut beside = Beside::new(&[left(&[("SERVER", 1), ("line", own)])]);
        for (at, &count) in counts.iter().enumerate() {
            beside.add(at + 1, &left(&[("SERVER", 1), ("line", count)]));
        }
        beside
    }

    fn sums(own: usize, counts: &[usize]) -> Result<(), String> {
        beside(own, counts).are_apart()
    }

    fn kept_apart(alone: &[Left], together: &[Left]) -> Result<(), String> {
        let mut beside = Beside::new(alone);
        together.iter().zip(1..).for_each(|(left, number)| beside.add(number, left));
        beside.are_apart()
    }

    #[test]
    fn what_a_few_of_many_requests_lack_is_told() {
        let lacking = |own, counts| beside(own, counts).lacking().collect::<Vec<_>>();
        assert_eq!(lacking(1, &[1, 1, 0]), ["line: 1 of 3 requests that are alike left less of it"]);
        assert_eq!(
            lacking(0, &[1, 0, 1]),
            ["line: 1 of 3 requests that are alike left less of it"],
            "the one that was alone too"
        );
        assert_eq!(lacking(3, &[3, 2, 3, 0, 3]), ["line: 2 of 5 requests that are alike left less of it"]);
    }

    #[test]
    fn what_half_of_the_requests_or_more_lack_is_told_where_one_that_was_alone_has_it() {
        let lacking = |own, counts| beside(own, counts).lacking().collect::<Vec<_>>();
        assert_eq!(lacking(1, &[1, 0, 1, 0]), ["line: 2 of 4 requests that are alike left less of it"]);
        assert_eq!(lacking(2, &[2, 0, 0, 2, 0]), ["line: 3 of 5 requests that are alike left less of it"]);
    }

    #[test]
    fn what_most_requests_lack_or_a_few_have_more_of_is_not_told_as_lacking() {
        let lacking = |own, counts| beside(own, counts).lacking().count();
        assert_eq!(lacking(1, &[0, 0, 0]), 0, "a cache");
        assert_eq!(lacking(1, &[1, 0]), 0, "nobody knows which is usual");
        assert_eq!(lacking(1, &[1, 1, 0, 0, 0, 0, 0, 0, 0]), 0, "a cache that several found empty");
        assert_eq!(lacking(0, &[1, 1, 0, 0]), 0, "the one that was alone left none");
        assert_eq!(lacking(1, &[2, 1, 1]), 0, "a retry");
        assert_eq!(lacking(0, &[0, 1, 0]), 0);
        assert_eq!(lacking(1, &[1, 1, 1]), 0);
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
        assert!(Beside::new(&[left(&[])]).is_empty() && !Beside::new(&[left(&[("line", 1)])]).is_empty());
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
            "mixed      INTERNAL \"read\": 1 in the request that was alone; 2 of the 3 others have another number, and together \
             they have as many as they should: request 1 has 0, request 2 has 2"
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
