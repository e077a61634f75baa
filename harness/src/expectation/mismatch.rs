//! What differs, as a person reads it.

use std::{collections::BTreeMap, fmt};

use crate::telemetry::{Attributes, Value};

use super::{ValueMatcher, value::typed};

/// How many candidates a failure shows.
const SHOWN: usize = 3;

/// One thing in which a candidate is not what was expected.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// Something is there and is another: `status Unset (expected Error)`.
    Differs {
        /// `kind`, `name`, `status`, `message`, `level`, an attribute's or a field's name.
        what: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// An attribute or a field is not there.
    Missing {
        /// Its name.
        key: String,
        /// What it should be.
        expected: String,
        /// A name that is there and is much like it.
        near: Option<String>,
    },
    /// An attribute or a field is there and should not be.
    Present {
        /// Its name.
        key: String,
        /// Its value with its type.
        found: String,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs { what, found, expected } => write!(f, "{what} {found} (expected {expected})"),
            Self::Missing { key, expected, near: None } => write!(f, "no {key} (expected {expected})"),
            Self::Missing { key, expected, near: Some(near) } => {
                write!(f, "no {key} (expected {expected}; there is {near:?})")
            }
            Self::Present { key, found } => write!(f, "{key} is {found} (expected none)"),
        }
    }
}

/// Something that was received and is not what was expected.
#[derive(Debug, Clone)]
pub struct Candidate<T> {
    /// What was received.
    pub item: T,
    /// How it is shown: `SERVER "GET /files/{path}"`.
    pub shown: String,
    /// All that differs.
    pub differences: Vec<Difference>,
    /// How far it is from what was expected; 0 for a match.
    pub(super) distance: f64,
}

impl<T> fmt::Display for Candidate<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.shown)?;
        for (i, difference) in self.differences.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            difference.fmt(f)?;
        }
        Ok(())
    }
}

/// Nothing that was received is what was expected.
#[derive(Debug, Clone)]
pub struct NoMatch<T> {
    /// What was expected, in one line.
    pub expected: String,
    /// What came nearest, nearest first; empty when nothing was received.
    pub closest: Vec<Candidate<T>>,
    /// Among how many it was looked for.
    pub received: usize,
    /// What was counted: `spans`, `log records`, `metrics`.
    pub unit: &'static str,
}

impl<T> NoMatch<T> {
    pub(super) fn new(expected: String, mut candidates: Vec<Candidate<T>>, unit: &'static str) -> Self {
        let received = candidates.len();
        candidates.sort_by(|a, b| a.distance.total_cmp(&b.distance));
        candidates.truncate(SHOWN);
        Self { expected, closest: candidates, received, unit }
    }
}

/// The block of a failure, without what was expected, which the step itself says:
///
/// ```text
/// closest    SERVER "GET /files/{path}": status Unset (expected Error)
/// received   3 spans
/// ```
impl<T> fmt::Display for NoMatch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, candidate) in self.closest.iter().enumerate() {
            writeln!(f, "{:<10} {candidate}", if i == 0 { "closest" } else { "" })?;
        }
        write!(f, "{:<10} {} {}", "received", self.received, self.unit)
    }
}

/// What is different in attributes or fields: of `expected` all must match, of `absent` none may be there.
pub(super) fn compare_attributes(
    attributes: &Attributes,
    expected: &[(String, ValueMatcher)],
    absent: &[String],
) -> Vec<Difference> {
    let mut differences = Vec::new();
    for (key, matcher) in expected {
        let mut values = attributes.iter().filter(|(name, _)| name == key).map(|(_, value)| value).peekable();
        let Some(first) = values.peek().copied() else {
            let near = nearest(key, attributes.iter().map(|(name, _)| name));
            differences.push(Difference::Missing { key: key.clone(), expected: matcher.to_string(), near });
            continue;
        };
        // A key that was sent twice must be right twice: a backend may keep either value.
        let wrong = values.find(|value| !matcher.matches(value));
        if let Some(wrong) = wrong {
            let found = typed(if matcher.matches(first) { wrong } else { first });
            differences.push(Difference::Differs { what: key.clone(), found, expected: matcher.to_string() });
        }
    }
    let there = |key: &&String| attributes.get(key).is_some();
    differences.extend(absent.iter().filter(there).map(|key| Difference::Present {
        key: key.clone(),
        found: typed(attributes.get(key).unwrap_or(&Value::Empty)),
    }));
    differences
}

/// The name that is most like `key`, if any is like it at all.
pub(super) fn nearest<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |name: &str| {
        let spelled = strsim::normalized_damerau_levenshtein(key, name);
        // A moved or renamed prefix: `fields.path` for `path`, `http.method` for `http.request.method`.
        let moved = last(key) == last(name)
            && (name.ends_with(&format!(".{key}")) || key.split('.').next() == name.split('.').next());
        if moved { spelled.max(0.75) } else { spelled }
    };
    let best = names.map(|name| (likeness(name), name)).max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= 0.7).then(|| best.1.to_owned())
}

/// How many wrong things of a kind are told.
pub(super) const TOLD: usize = 5;

/// Whether nothing is wrong; the error is a line for each of the first [`TOLD`], and `and_more` of how many are left.
pub(super) fn none_of(mut wrong: Vec<String>, and_more: impl Fn(usize) -> String) -> Result<(), String> {
    if wrong.is_empty() {
        return Ok(());
    }
    let more = wrong.len().saturating_sub(TOLD);
    wrong.truncate(TOLD);
    if more > 0 {
        wrong.push(and_more(more));
    }
    Err(wrong.join("\n"))
}

/// How often each item is there.
pub(super) fn counted(items: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    items.into_iter().for_each(|item| *counted.entry(item).or_insert(0) += 1);
    counted
}

/// How far apart, for the order of candidates.
pub(super) fn weight(differences: &[Difference]) -> f64 {
    differences
        .iter()
        .map(|difference| match difference {
            Difference::Differs { what, .. } if what == "kind" => 2.0,
            Difference::Missing { near: None, .. } => 1.5,
            _ => 1.0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(pairs: &[(&str, &str)]) -> Vec<(String, ValueMatcher)> {
        pairs.iter().map(|(key, cell)| ((*key).to_owned(), ValueMatcher::parse(cell).unwrap())).collect()
    }

    fn compare(attributes: &[(&str, Value)], pairs: &[(&str, &str)], absent: &[&str]) -> Vec<String> {
        let attributes = attributes.iter().map(|(key, value)| (*key, value.clone())).collect();
        let absent: Vec<String> = absent.iter().map(|key| (*key).to_owned()).collect();
        compare_attributes(&attributes, &expected(pairs), &absent).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_difference_is_named_with_both_sides() {
        let found = compare(
            &[("status_code", "200".into()), ("db.sytem", "s3".into()), ("secret", Value::Int(1))],
            &[("status_code", "200"), ("db.system", "s3"), ("unlike", "*")],
            &["secret"],
        );
        assert_eq!(
            found,
            [
                "status_code string \"200\" (expected int 200)",
                "no db.system (expected string \"s3\"; there is \"db.sytem\")",
                "no unlike (expected any value)",
                "secret is int 1 (expected none)",
            ]
        );
    }

    #[test]
    fn what_matches_and_what_is_rightly_absent_is_no_difference() {
        assert!(compare(&[("a", Value::Int(1))], &[("a", "1")], &["b"]).is_empty());
    }

    #[test]
    fn a_key_that_was_sent_twice_must_be_right_twice() {
        let found = compare(&[("a", Value::Int(1)), ("a", Value::Int(2))], &[("a", "1")], &[]);
        assert_eq!(found, ["a int 2 (expected int 1)"]);
    }

    #[test]
    fn a_renamed_attribute_is_a_near_name() {
        let near = |key, names: &[&str]| nearest(key, names.iter().copied());
        assert_eq!(near("http.request.method", &["http.method", "url.path"]).as_deref(), Some("http.method"));
        assert_eq!(near("headers.accept", &["fields.headers.accept"]).as_deref(), Some("fields.headers.accept"));
        assert_eq!(near("db.system", &["url.path"]), None);
    }
}
