//! What libraries say through `tracing`, as records of the service's own logger.

use std::fmt::{Debug, Write};

use serde_json::Value;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

use super::logs::{Fields, Logger};

/// A layer that hands every event to a [`Logger`], with its fields as key-values.
#[derive(Debug)]
pub struct LibraryEvents {
    logger: Logger,
}

impl LibraryEvents {
    /// A layer in front of `logger`.
    pub fn new(logger: Logger) -> Self {
        Self { logger }
    }

    /// Makes it the process's subscriber, for events that `RUST_LOG` lets through
    /// (default: warnings and errors). Does nothing when there is a subscriber already.
    pub fn install(self, filter: Option<&str>) {
        let filter =
            filter.and_then(|filter| EnvFilter::try_new(filter).ok()).unwrap_or_else(|| EnvFilter::new("warn"));
        let _ = tracing_subscriber::registry().with(self.with_filter(filter)).try_init();
    }
}

impl<S: Subscriber> Layer<S> for LibraryEvents {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata: &'static Metadata<'static> = event.metadata();
        let mut visitor = Visitor::default();
        event.record(&mut visitor);
        if visitor.message.is_empty() {
            // OpenTelemetry's crates name their events instead.
            let name = visitor.fields.get("name").and_then(Value::as_str);
            visitor.message = name.unwrap_or(metadata.name()).to_owned();
        }
        self.logger.emit(*metadata.level(), metadata.target(), visitor.message, visitor.fields);
    }
}

#[derive(Default)]
struct Visitor {
    message: String,
    fields: Fields,
}

impl Visitor {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.fields.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Visitor {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a string cannot fail.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.add(field, format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.add(field, value);
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn an_event_of_a_library_becomes_a_line_with_typed_fields() {
        let logger = Logger::memory("files", Level::INFO, None);
        let subscriber = tracing_subscriber::registry().with(LibraryEvents::new(logger.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(target: "some_library", retries = 3, ok = false, "Trying again");
        });
        let line: Value = serde_json::from_str(&logger.lines()[0]).unwrap();
        assert_eq!(line["message"], "Trying again");
        assert_eq!(line["target"], "some_library");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["retries"], 3);
        assert_eq!(line["ok"], false);
    }

    #[test]
    fn an_event_without_a_message_goes_by_its_name() {
        let logger = Logger::memory("files", Level::INFO, None);
        let subscriber = tracing_subscriber::registry().with(LibraryEvents::new(logger.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(name = "Export.Failed", reason = "closed", "");
        });
        let line: Value = serde_json::from_str(&logger.lines()[0]).unwrap();
        assert_eq!(line["message"], "Export.Failed");
    }
}
