//! Spans by kind, name, status and attributes.

use std::{fmt, sync::Arc};

use super::{
    Candidate, Difference, NoMatch, TextMatcher, ValueMatcher,
    mismatch::{compare_attributes, weight},
};
use crate::telemetry::{Span, SpanKind, StatusCode};

/// What a span must be; what is left out may be anything.
#[derive(Debug, Clone, Default)]
pub struct SpanMatcher {
    /// Kind.
    pub kind: Option<SpanKind>,
    /// Name.
    pub name: Option<TextMatcher>,
    /// Status code.
    pub status: Option<StatusCode>,
    /// Attributes that must be there.
    pub attributes: Vec<(String, ValueMatcher)>,
    /// Attributes that must not be there.
    pub absent: Vec<String>,
}

impl SpanMatcher {
    /// All in which `span` is not what is expected; empty for a match.
    pub fn differences(&self, span: &Span) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut differs = |what: &str, found: String, expected: String| {
            differences.push(Difference::Differs { what: what.to_owned(), found, expected });
        };
        if let Some(kind) = self.kind.filter(|kind| *kind != span.kind) {
            differs("kind", span.kind.to_string(), kind.to_string());
        }
        if let Some(name) = self.name.as_ref().filter(|name| !name.matches(&span.name)) {
            differs("name", format!("{:?}", span.name), name.to_string());
        }
        if let Some(status) = self.status.filter(|status| *status != span.status.code) {
            differs("status", span.status.code.to_string(), status.to_string());
        }
        differences.extend(compare_attributes(&span.attributes, &self.attributes, &self.absent));
        differences
    }

    /// How far `span` is from what is expected; 0 for a match. A name counts by its likeness.
    pub fn distance(&self, span: &Span) -> f64 {
        let name = self.name.as_ref().map_or(0.0, |name| 5.0 * (1.0 - name.similarity(&span.name)));
        weight(&self.differences(span)) + name
    }

    /// Every span that matches, in order.
    ///
    /// # Errors
    /// None does: those that came nearest, with all that differs.
    pub fn find<'a>(
        &self,
        spans: impl IntoIterator<Item = &'a Arc<Span>>,
    ) -> Result<Vec<Arc<Span>>, NoMatch<Arc<Span>>> {
        let mut found = Vec::new();
        let mut candidates = Vec::new();
        for span in spans {
            let differences = self.differences(span);
            if differences.is_empty() {
                found.push(span.clone());
            }
            let distance = self.distance(span);
            candidates.push(Candidate { item: span.clone(), shown: shown(span), differences, distance });
        }
        if found.is_empty() { Err(NoMatch::new(self.to_string(), candidates, "spans")) } else { Ok(found) }
    }
}

/// `SERVER "GET /files/"`.
pub fn shown(span: &Span) -> String {
    format!("{} {:?}", span.kind, span.name)
}

/// `SERVER span "GET /files/" with status Error and http.route string "/files/"`.
impl fmt::Display for SpanMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kind) = self.kind {
            write!(f, "{kind} ")?;
        }
        f.write_str("span")?;
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        let status = self.status.map(|status| format!("status {status}"));
        let attributes = self.attributes.iter().map(|(key, value)| format!("{key} {value}"));
        let absent = self.absent.iter().map(|key| format!("no {key}"));
        for (i, part) in status.into_iter().chain(attributes).chain(absent).enumerate() {
            write!(f, "{} {part}", if i == 0 { " with" } else { " and" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        correlation::samples::{span, with},
        telemetry::Value,
    };

    fn matcher() -> SpanMatcher {
        SpanMatcher {
            kind: Some(SpanKind::Server),
            name: Some(TextMatcher::Exact("GET /files/{path}".into())),
            status: Some(StatusCode::Error),
            attributes: vec![("db.system".into(), ValueMatcher::parse("s3").unwrap())],
            absent: vec!["http.method".into()],
        }
    }

    #[test]
    fn a_span_that_is_all_that_is_expected_is_found() {
        let mut right = with(span(1, None, "GET /files/{path}"), SpanKind::Server, &[("db.system", "s3".into())]);
        right.status.code = StatusCode::Error;
        let other = span(2, Some(1), "other");
        let found = matcher().find(&[Arc::new(other), Arc::new(right)]).unwrap();
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn the_nearest_candidate_is_named_first_with_all_that_differs() {
        let near = [("db.sytem", Value::from("s3")), ("http.method", "GET".into())];
        let near = with(span(1, None, "GET /files/{path}"), SpanKind::Server, &near);
        let far = span(2, Some(1), "S3.GetObject");
        let error = matcher().find(&[Arc::new(far), Arc::new(near)]).unwrap_err();
        let text = error.to_string();
        let mut lines = text.lines();
        assert_eq!(
            lines.next().unwrap(),
            "closest    SERVER \"GET /files/{path}\": status Unset (expected Error), no db.system (expected string \
             \"s3\"; there is \"db.sytem\"), http.method is string \"GET\" (expected none)"
        );
        assert!(lines.next().unwrap().contains("INTERNAL \"S3.GetObject\": kind INTERNAL (expected SERVER), name"));
        assert_eq!(lines.next().unwrap(), "received   2 spans");
    }

    #[test]
    fn of_nothing_there_is_no_candidate() {
        let error = matcher().find(&[]).unwrap_err();
        assert_eq!(error.to_string(), "received   0 spans");
        assert_eq!(
            error.expected,
            "SERVER span \"GET /files/{path}\" with status Error and db.system string \"s3\" and no http.method"
        );
    }
}
