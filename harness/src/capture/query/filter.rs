//! What is asked for, and what of an export request it is.

use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
        trace::v1::ExportTraceServiceRequest,
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    metrics::v1::Metric,
    resource::v1::Resource,
    trace::v1::Span,
};

use crate::telemetry::{SpanId, TraceId};

/// What is asked for: everything that is said holds at once.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this trace.
    pub trace: Option<TraceId>,
    /// This span, or what was logged in it.
    pub span: Option<SpanId>,
    /// Of this name: spans and metrics.
    pub name: Option<String>,
    /// Of this `service.name`.
    pub service: Option<String>,
    /// Of this kind, by OTLP's number: spans.
    pub kind: Option<i32>,
    /// With this status, by OTLP's number: spans.
    pub status: Option<i32>,
    /// With these attributes, their own or their resource's; values in their text form.
    pub attributes: Vec<(String, String)>,
    /// At least as severe, by OTLP's number: log records.
    pub severity: Option<i32>,
    /// With this text in their body: log records.
    pub text: Option<String>,
    /// Begun (spans) or written (log records) no earlier, in nanoseconds since 1970.
    pub since: Option<u64>,
    /// Begun or written no later.
    pub until: Option<u64>,
}

impl Filter {
    fn resource(&self, resource: Option<&Resource>) -> bool {
        let Some(service) = &self.service else { return true };
        resource.is_some_and(|resource| has(&resource.attributes, "service.name", service))
    }

    fn attributes(&self, own: &[KeyValue], resource: Option<&Resource>) -> bool {
        let resource = resource.map_or(&[][..], |resource| &resource.attributes);
        self.attributes.iter().all(|(key, value)| has(own, key, value) || has(resource, key, value))
    }

    fn within(&self, time: u64) -> bool {
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }

    fn ids(&self, trace: &[u8], span: &[u8]) -> bool {
        self.trace.is_none_or(|wanted| TraceId::from_bytes(trace) == Ok(wanted))
            && self.span.is_none_or(|wanted| SpanId::from_bytes(span) == Ok(wanted))
    }

    fn span(&self, span: &Span, resource: Option<&Resource>) -> bool {
        self.ids(&span.trace_id, &span.span_id)
            && self.name.as_ref().is_none_or(|name| *name == span.name)
            && self.kind.is_none_or(|kind| kind == span.kind)
            && self.status.is_none_or(|code| code == span.status.as_ref().map_or(0, |status| status.code))
            && self.within(span.start_time_unix_nano)
            && self.attributes(&span.attributes, resource)
    }

    fn record(&self, record: &LogRecord, resource: Option<&Resource>) -> bool {
        let time = if record.time_unix_nano == 0 { record.observed_time_unix_nano } else { record.time_unix_nano };
        self.ids(&record.trace_id, &record.span_id)
            && self.severity.is_none_or(|severity| record.severity_number >= severity)
            && self.text.as_ref().is_none_or(|text| {
                record.body.as_ref().and_then(shown).is_some_and(|body| body.contains(text.as_str()))
            })
            && self.within(time)
            && self.attributes(&record.attributes, resource)
    }

    fn metric(&self, metric: &Metric, resource: Option<&Resource>) -> bool {
        self.name.as_ref().is_none_or(|name| *name == metric.name) && self.attributes(&metric.metadata, resource)
    }
}

fn has(attributes: &[KeyValue], key: &str, value: &str) -> bool {
    attributes.iter().any(|entry| entry.key == key && entry.value.as_ref().and_then(shown).as_deref() == Some(value))
}

/// The text form of a value that has one; lists and bytes have none.
fn shown(value: &AnyValue) -> Option<String> {
    match value.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::BoolValue(value) => Some(value.to_string()),
        Value::IntValue(value) => Some(value.to_string()),
        Value::DoubleValue(value) => Some(value.to_string()),
        _ => None,
    }
}

/// An export request that can be cut down to what is asked for.
pub(super) trait Cut: prost::Message + Default {
    /// Leaves at most `most` items that the filter lets through, the last ones, and says how many.
    fn cut(&mut self, filter: &Filter, most: usize) -> usize;

    /// Puts what an earlier request holds before what this one does.
    fn prepend(&mut self, earlier: Self);
}

/// One of the three requests, whose nesting is the same with other names.
macro_rules! cut {
    ($request:ty, $resources:ident, $scopes:ident, $items:ident, $lets:ident) => {
        impl Cut for $request {
            fn cut(&mut self, filter: &Filter, most: usize) -> usize {
                let mut left = most;
                for group in self.$resources.iter_mut().rev() {
                    let resource = group.resource.as_ref();
                    if !filter.resource(resource) {
                        group.$scopes.clear();
                    }
                    for scope in group.$scopes.iter_mut().rev() {
                        // From the last one backwards.
                        scope.$items.reverse();
                        scope.$items.retain(|item| {
                            let kept = left > 0 && filter.$lets(item, resource);
                            left -= usize::from(kept);
                            kept
                        });
                        scope.$items.reverse();
                    }
                    group.$scopes.retain(|scope| !scope.$items.is_empty());
                }
                self.$resources.retain(|group| !group.$scopes.is_empty());
                most - left
            }

            fn prepend(&mut self, earlier: Self) {
                self.$resources.splice(0..0, earlier.$resources);
            }
        }
    };
}

cut!(ExportTraceServiceRequest, resource_spans, scope_spans, spans, span);
cut!(ExportLogsServiceRequest, resource_logs, scope_logs, log_records, record);
cut!(ExportMetricsServiceRequest, resource_metrics, scope_metrics, metrics, metric);
