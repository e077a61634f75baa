//! Rules about the names and types of attributes, by the table of the semantic conventions in `conventions.tsv`, which
//! `tests/conventions.rs` makes of the crate `opentelemetry-semantic-conventions`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::LazyLock,
};

use super::{
    Grade::{Advice, Rule as Always},
    Rule, Subject,
};
use crate::telemetry::{Attributes, Value};

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "attribute-types",
        grade: Always,
        about: "a stable attribute of the semantic conventions has the type that they give it",
        limits: "Judged in spans, their events and their resources, and in data points. Attributes in development may still \
                 change, and deprecated ones come from old instrumentations; neither is judged, nor are attributes whose names \
                 end in a key (`http.request.header.…`).",
        source: "semantic conventions, attribute registry",
        check: |subject| {
            each(subject, |place, key, value| match (TABLE.attributes.get(key)?, value.type_name()) {
                (Meaning::Stable(expected), found) if *expected != found => Some(format!(
                    "{place}, attribute {key} is {} {found}, not {} {expected}",
                    article(found),
                    article(expected)
                )),
                _ => None,
            })
        },
    },
    Rule {
        name: "deprecated-attributes",
        grade: Advice,
        about: "attributes and metrics have the names that the semantic conventions give them today",
        limits: "Advice, because instrumentations move to new names in their own time.",
        source: "semantic conventions, attribute registry, deprecated attributes",
        check: |subject| {
            let deprecated = |meaning: Option<&'static Meaning>| match meaning? {
                Meaning::Deprecated(then) => Some(then),
                Meaning::Stable(_) => None,
            };
            let mut found = each(subject, |_, key, _| {
                deprecated(TABLE.attributes.get(key)).map(|then| format!("attribute {key} is deprecated: {then}"))
            });
            let names: BTreeSet<&str> = subject.metrics_since().iter().map(|metric| metric.name.as_str()).collect();
            found.extend(names.into_iter().filter_map(|name| {
                deprecated(TABLE.metrics.get(name)).map(|then| format!("metric {name} is deprecated: {then}"))
            }));
            found
        },
    },
];

/// What the semantic conventions say of a name.
#[derive(Debug)]
enum Meaning {
    /// It is stable and of this type, as [`Value::type_name`] has it.
    Stable(&'static str),
    /// It is deprecated, and this stands instead.
    Deprecated(&'static str),
}

struct Table {
    attributes: HashMap<&'static str, Meaning>,
    metrics: HashMap<&'static str, Meaning>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table { attributes: HashMap::new(), metrics: HashMap::new() };
    for line in include_str!("conventions.tsv").lines() {
        let mut columns = line.split('\t');
        let (Some(what), Some(name), Some(stability), Some(rest)) =
            (columns.next(), columns.next(), columns.next(), columns.next())
        else {
            continue;
        };
        let meaning = if stability == "stable" { Meaning::Stable(rest) } else { Meaning::Deprecated(rest) };
        if what == "metric" {
            table.metrics.insert(name, meaning)
        } else {
            table.attributes.insert(name, meaning)
        };
    }
    table
});

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" }
}

/// What `check` says of the attributes of the request's spans, their events and resources, and of the data points since it
/// was sent, each thing once.
fn each(subject: &Subject<'_>, check: impl Fn(&str, &str, &Value) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    let mut all = |place: &dyn Fn() -> String, attributes: &Attributes| {
        for (key, value) in attributes.iter() {
            if TABLE.attributes.contains_key(key)
                && let Some(finding) = check(&place(), key, value)
                && !found.contains(&finding)
            {
                found.push(finding);
            }
        }
    };
    for span in subject.evidence.trace.spans() {
        let at = || format!("{} {:?}", span.kind, span.name);
        all(&at, &span.attributes);
        all(&|| "the resource of spans".to_owned(), &span.resource.attributes);
        for event in &span.events {
            all(&|| format!("{}, event {:?}", at(), event.name), &event.attributes);
        }
    }
    for metric in subject.metrics_since().filter(|_| subject.first) {
        for point in &metric.points {
            all(&|| format!("metric {}", metric.name), &point.attributes);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::tests::{broken, entry, told};
    use super::*;
    use crate::{
        correlation::samples,
        telemetry::{Span, SpanEvent},
    };

    fn judged(key: &str, value: impl Into<Value>) -> Vec<&'static str> {
        let attributes = [(key.to_owned(), value.into())].into_iter().collect();
        told(&samples::delivery(), vec![Span { attributes, ..entry() }], Vec::new())
    }

    #[test]
    fn a_stable_attribute_of_another_type_is_found_and_others_may_be_of_any() {
        assert_eq!(judged("http.response.status_code", "200"), ["attribute-types"]);
        assert!(judged("http.response.status_code", Value::Int(200)).is_empty());
        assert_eq!(judged("error.type", Value::Int(500)), ["attribute-types"]);
        assert!(judged("shop.order", Value::Int(500)).is_empty());
        assert!(judged("http.request.header.accept", "a").is_empty(), "names that end in a key");
    }

    #[test]
    fn deprecated_names_are_mentioned_with_what_stands_instead_and_their_types_are_not_judged() {
        assert_eq!(judged("http.method", "GET"), ["deprecated-attributes"]);
        assert_eq!(judged("http.status_code", "200"), ["deprecated-attributes"]);
        assert!(broken(&samples::delivery(), vec![with("http.method")], Vec::new(), true).is_empty());
        let Some(Meaning::Deprecated(then)) = TABLE.attributes.get("http.method") else { panic!("it is deprecated") };
        assert!(then.contains("`http.request.method`"), "{then}");
    }

    fn with(key: &str) -> Span {
        Span { attributes: [(key.to_owned(), "x".into())].into_iter().collect(), ..entry() }
    }

    #[test]
    fn an_sdk_that_writes_an_exceptions_escape_as_text_is_not_wrong() {
        let attributes = [("exception.escaped", "False".into()), ("exception.type", "E".into())].into_iter().collect();
        let event = SpanEvent { name: "exception".into(), time_unix_nano: 10, attributes };
        let span = Span { events: vec![event], ..entry() };
        assert!(broken(&samples::delivery(), vec![span], Vec::new(), true).is_empty());
    }
}
