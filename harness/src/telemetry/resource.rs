//! Who sent something: the resource, and the instrumentation scope inside it.

use serde::{Deserialize, Serialize};

use super::Attributes;

/// The entity that produces telemetry: a worker process, a function's execution environment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Resource {
    /// `service.name`, `service.instance.id`, `process.pid`, `faas.*`, `cloud.*`, …
    pub attributes: Attributes,
    /// Schema URL of the resource; empty when none was sent.
    pub schema_url: String,
}

impl Resource {
    /// `service.name`, if it was sent as a string.
    pub fn service_name(&self) -> Option<&str> {
        self.attributes.str("service.name")
    }

    /// What tells one process of a deployment from another: `service.instance.id`, else `process.pid`, else
    /// `faas.instance`; `None` when the resource has none of them.
    pub fn instance(&self) -> Option<String> {
        ["service.instance.id", "process.pid", "faas.instance"]
            .iter()
            .find_map(|key| self.attributes.get(key))
            .map(ToString::to_string)
    }
    /// What tells one process from all others, as far as that is certain: `service.instance.id`, else `process.pid` beside
    /// the host or the container that counts it. A bare `process.pid` is 1 in every container.
    pub fn process(&self) -> Option<String> {
        let get = |key: &str| self.attributes.get(key).map(ToString::to_string);
        get("service.instance.id").or_else(|| {
            let place = ["container.id", "host.id", "host.name"].iter().find_map(|key| get(key))?;
            Some(format!("{} on {place}", get("process.pid")?))
        })
    }
}

/// The instrumentation library that produced a span, a log record or a metric.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Scope {
    /// Name of the library or of the logger.
    pub name: String,
    /// Its version; empty when none was sent.
    pub version: String,
    /// Attributes of the scope.
    pub attributes: Attributes,
    /// Schema URL of the scope's data; empty when none was sent.
    pub schema_url: String,
}
