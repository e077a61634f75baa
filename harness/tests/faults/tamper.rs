//! Rewriting what passes through the sink and the tap.

use std::{fmt, sync::Arc};

use tracegate::{
    capture::{Decoded, Tamper},
    telemetry::{Attributes, LogRecord, Resource, Span, Value},
};

struct Spans<F>(F);

impl<F> fmt::Debug for Spans<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spans")
    }
}

impl<F: Fn(Vec<Span>) -> Vec<Span> + Send + Sync> Tamper for Spans<F> {
    fn export(&self, decoded: Decoded) -> Decoded {
        match decoded {
            Decoded::Spans(spans) => Decoded::Spans((self.0)(spans)),
            other => other,
        }
    }
}

struct Exports<F>(F);

impl<F> fmt::Debug for Exports<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exports")
    }
}

impl<F: Fn(&mut Decoded) + Send + Sync> Tamper for Exports<F> {
    fn export(&self, mut decoded: Decoded) -> Decoded {
        (self.0)(&mut decoded);
        decoded
    }
}

struct Lines<F>(F);

impl<F> fmt::Debug for Lines<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lines")
    }
}

impl<F: Fn(String) -> Option<String> + Send + Sync> Tamper for Lines<F> {
    fn line(&self, line: String) -> Option<String> {
        (self.0)(line)
    }
}

/// Rewrites the spans of every export request.
pub fn spans(rewrite: impl Fn(Vec<Span>) -> Vec<Span> + Send + Sync + 'static) -> Option<Arc<dyn Tamper>> {
    Some(Arc::new(Spans(rewrite)))
}

/// Rewrites every span by itself.
pub fn each_span(rewrite: impl Fn(&mut Span) + Send + Sync + 'static) -> Option<Arc<dyn Tamper>> {
    spans(move |mut spans| {
        spans.iter_mut().for_each(&rewrite);
        spans
    })
}

/// Rewrites the contents of every export request, whichever signal it is of.
pub fn exports(rewrite: impl Fn(&mut Decoded) + Send + Sync + 'static) -> Option<Arc<dyn Tamper>> {
    Some(Arc::new(Exports(rewrite)))
}

/// Rewrites every log record that is exported.
pub fn each_record(rewrite: impl Fn(&mut LogRecord) + Send + Sync + 'static) -> Option<Arc<dyn Tamper>> {
    exports(move |decoded| {
        if let Decoded::Logs(records) = decoded {
            records.iter_mut().for_each(&rewrite);
        }
    })
}

/// A resource with one attribute set, or dropped.
pub fn resource(of: &Resource, key: &str, value: Option<&str>) -> Arc<Resource> {
    let others = of.attributes.iter().filter(|(other, _)| *other != key);
    let others = others.map(|(key, value)| (key.to_owned(), value.clone()));
    let own = value.map(|value| (key.to_owned(), Value::from(value)));
    Arc::new(Resource { attributes: others.chain(own).collect(), schema_url: of.schema_url.clone() })
}

/// Attributes with one set, or replaced.
pub fn with(all: &Attributes, key: &str, value: Value) -> Attributes {
    let others = all.iter().filter(|(other, _)| *other != key).map(|(key, value)| (key.to_owned(), value.clone()));
    others.chain([(key.to_owned(), value)]).collect()
}

/// Rewrites every line of stdout and stderr; `None` loses it.
pub fn lines(rewrite: impl Fn(String) -> Option<String> + Send + Sync + 'static) -> Option<Arc<dyn Tamper>> {
    Some(Arc::new(Lines(rewrite)))
}

/// Rewrites every line that is a JSON object.
pub fn json_lines(
    rewrite: impl Fn(&mut serde_json::Map<String, serde_json::Value>) + Send + Sync + 'static,
) -> Option<Arc<dyn Tamper>> {
    lines(move |line| match serde_json::from_str(&line) {
        Ok(serde_json::Value::Object(mut object)) => {
            rewrite(&mut object);
            Some(serde_json::Value::Object(object).to_string())
        }
        _ => Some(line),
    })
}

/// Attributes with each one rewritten; `None` drops it.
pub fn attributes(all: &Attributes, rewrite: impl Fn(&str, Value) -> Option<(String, Value)>) -> Attributes {
    all.iter().filter_map(|(key, value)| rewrite(key, value.clone())).collect()
}
