//! `X-Amzn-Trace-Id`, the trace header of AWS X-Ray, as an OpenTelemetry propagator.
//!
//! The crates.io propagator wants a complete header. API Gateway hands over headers that name
//! only a `Root`, as in the documented event, and those must not cost the caller its trace.

use std::sync::LazyLock;

use opentelemetry::{
    Context,
    propagation::{Extractor, Injector, TextMapPropagator, text_map_propagator::FieldIter},
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};

use super::RuntimeTraceHeader;
use crate::telemetry::ids::{DeferredSampling, RootTrace, xray_trace_id};

/// Name of the header, in the lower case that HTTP header maps use.
pub const HEADER: &str = "x-amzn-trace-id";

static FIELDS: LazyLock<[String; 1]> = LazyLock::new(|| [HEADER.to_owned()]);

/// One parsed header: `Root=1-<8 hex>-<24 hex>;Parent=<16 hex>;Sampled=0|1|?`.
///
/// Fields may come in any order; others (`Self`, `Lineage`) are passed over.
/// Source: AWS X-Ray developer guide, "Tracing header".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XrayHeader {
    /// The trace that `Root` names.
    pub trace_id: TraceId,
    /// The span that `Parent` names; absent in the headers that API Gateway creates.
    pub parent: Option<SpanId>,
    /// The caller's decision; `None` for `Sampled=?` or no such field: the decision is ours.
    pub sampled: Option<bool>,
}

impl XrayHeader {
    /// Reads a header; `None` when it has no usable `Root` or a `Parent` that is no span id.
    pub fn parse(header: &str) -> Option<Self> {
        let (mut root, mut parent, mut sampled) = (None, None, None);
        for field in header.split(';') {
            let Some((key, value)) = field.trim().split_once('=') else {
                continue;
            };
            let value = value.trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "root" => root = Some(parse_root(value)?),
                "parent" => parent = Some(parse_span_id(value)?),
                "sampled" => {
                    sampled = match value {
                        "0" => Some(false),
                        "1" => Some(true),
                        _ => None,
                    }
                }
                _ => {}
            }
        }
        root.map(|trace_id| Self { trace_id, parent, sampled })
    }

    /// Puts the header's trace into `context`.
    ///
    /// A header without `Parent` starts a root span with the given trace id; it never displaces
    /// a context that has a parent, because that would cut the trace off from its caller.
    fn apply(self, context: &Context) -> Context {
        match self.parent {
            Some(parent) => {
                let flags = if self.sampled == Some(true) { TraceFlags::SAMPLED } else { TraceFlags::default() };
                let remote = SpanContext::new(self.trace_id, parent, flags, true, TraceState::default());
                let context = context.with_remote_span_context(remote);
                match self.sampled {
                    Some(_) => context,
                    None => context.with_value(DeferredSampling(parent)),
                }
            }
            None if context.span().span_context().is_valid() => context.clone(),
            None => context.with_value(RootTrace { trace_id: self.trace_id, sampled: self.sampled }),
        }
    }
}

/// Whether `text` is all lower- or upper-case hexadecimal digits, `length` of them.
fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn parse_root(value: &str) -> Option<TraceId> {
    let (time, random) = value.strip_prefix("1-")?.split_once('-')?;
    if !is_hex(time, 8) || !is_hex(random, 24) {
        return None;
    }
    let trace_id = TraceId::from_hex(&format!("{time}{random}")).ok()?;
    (trace_id != TraceId::INVALID).then_some(trace_id)
}

fn parse_span_id(value: &str) -> Option<SpanId> {
    if !is_hex(value, 16) {
        return None;
    }
    let span_id = SpanId::from_hex(value).ok()?;
    (span_id != SpanId::INVALID).then_some(span_id)
}

/// The `xray` propagator.
///
/// On Lambda the invocation's header stands for the event's: it is the same header one hop
/// later, and without it every invocation would be a trace of its own.
#[derive(Debug, Default)]
pub struct XrayPropagator;

impl XrayPropagator {
    /// The carrier's own header, whatever the runtime says.
    fn extract_carrier(context: &Context, extractor: &dyn Extractor) -> Context {
        match extractor.get(HEADER).and_then(XrayHeader::parse) {
            Some(header) => header.apply(context),
            None => context.clone(),
        }
    }
}

impl TextMapPropagator for XrayPropagator {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        let span = context.span();
        let span = span.span_context();
        if span.is_valid() {
            injector.set(
                HEADER,
                format!(
                    "Root={};Parent={};Sampled={}",
                    xray_trace_id(span.trace_id()),
                    span.span_id(),
                    u8::from(span.is_sampled())
                ),
            );
        }
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        let carried = extractor.get(HEADER).and_then(XrayHeader::parse);
        let runtime = context.get::<RuntimeTraceHeader>().and_then(|header| XrayHeader::parse(&header.0));
        let chosen = match (runtime, carried) {
            (Some(runtime), Some(carried)) if runtime.parent.is_none() && carried.parent.is_some() => Some(carried),
            (runtime, carried) => runtime.or(carried),
        };
        chosen.map_or_else(|| context.clone(), |header| header.apply(context))
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(FIELDS.as_slice())
    }
}

/// The `xray-lambda` propagator: the invocation's header wins over the event's, and neither
/// displaces what a propagator earlier in the list found, except an `X-Amzn-Trace-Id` of the event.
///
/// Source: OpenTelemetry semantic conventions, "Instrumenting AWS Lambda", X-Ray propagator.
#[derive(Debug, Default)]
pub struct XrayLambdaPropagator;

impl TextMapPropagator for XrayLambdaPropagator {
    fn inject_context(&self, context: &Context, injector: &mut dyn Injector) {
        XrayPropagator.inject_context(context, injector);
    }

    fn extract_with_context(&self, context: &Context, extractor: &dyn Extractor) -> Context {
        let carried = XrayPropagator::extract_carrier(context, extractor);
        if context.span().span_context().is_valid() {
            return carried;
        }
        let runtime = context.get::<RuntimeTraceHeader>().and_then(|header| XrayHeader::parse(&header.0));
        runtime.map_or(carried.clone(), |header| header.apply(&carried))
    }

    fn fields(&self) -> FieldIter<'_> {
        FieldIter::new(FIELDS.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const TRACE: &str = "63dd96301f7ec6c948e660f220ef3c92";
    const ROOT: &str = "Root=1-63dd9630-1f7ec6c948e660f220ef3c92";

    fn trace(hex: &str) -> TraceId {
        TraceId::from_hex(hex).unwrap()
    }

    fn carrier(header: &str) -> HashMap<String, String> {
        HashMap::from([(HEADER.to_owned(), header.to_owned())])
    }

    fn remote(trace_id: &str) -> Context {
        Context::new().with_remote_span_context(SpanContext::new(
            trace(trace_id),
            SpanId::from(7),
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        ))
    }

    #[test]
    fn fields_are_read_in_any_order_and_others_are_passed_over() {
        let header = format!("Sampled=1;Self=1-1-1;Parent=53995c3f42cd8ad8;Lineage=1:a:0;{ROOT}");
        let parsed = XrayHeader::parse(&header).unwrap();
        assert_eq!(parsed.trace_id, trace(TRACE));
        assert_eq!(parsed.parent, SpanId::from_hex("53995c3f42cd8ad8").ok());
        assert_eq!(parsed.sampled, Some(true));
    }

    #[test]
    fn a_header_without_a_usable_root_is_no_header() {
        for garbage in [
            "",
            "Root",
            "Parent=53995c3f42cd8ad8;Sampled=1",
            "Root=2-63dd9630-1f7ec6c948e660f220ef3c92",
            "Root=1-63dd963-1f7ec6c948e660f220ef3c92",
            "Root=1-63dd9630-1f7ec6c948e660f220ef3c9",
            "Root=1-63dd963x-1f7ec6c948e660f220ef3c92",
            "Root=1-00000000-000000000000000000000000",
            "Root=1-63dd9630-1f7ec6c948e660f220ef3c92;Parent=short",
            "Root=1-63dd9630-1f7ec6c948e660f220ef3c92;Parent=0000000000000000",
        ] {
            assert_eq!(XrayHeader::parse(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn a_question_mark_and_a_missing_field_both_leave_the_decision_to_us() {
        for tail in ["", ";Sampled=?"] {
            let header = format!("{ROOT};Parent=53995c3f42cd8ad8{tail}");
            let context = XrayPropagator.extract_with_context(&Context::new(), &carrier(&header));
            assert!(context.get::<DeferredSampling>().is_some());
            assert_eq!(context.span().span_context().trace_id(), trace(TRACE));
        }
    }

    #[test]
    fn a_root_without_parent_names_the_trace_of_a_new_root_span() {
        let context = XrayPropagator.extract_with_context(&Context::new(), &carrier(ROOT));
        assert!(!context.span().span_context().is_valid());
        assert_eq!(context.get::<RootTrace>().unwrap().trace_id, trace(TRACE));
    }

    #[test]
    fn a_root_without_parent_leaves_an_earlier_parent_alone() {
        let earlier = remote("4bf92f3577b34da6a3ce929d0e0e4736");
        let context = XrayPropagator.extract_with_context(&earlier, &carrier(ROOT));
        assert_eq!(context.span().span_context().trace_id(), trace("4bf92f3577b34da6a3ce929d0e0e4736"));
    }

    #[test]
    fn garbage_leaves_the_earlier_context_alone() {
        let earlier = remote("4bf92f3577b34da6a3ce929d0e0e4736");
        let context = XrayPropagator.extract_with_context(&earlier, &carrier("Root=nonsense"));
        assert_eq!(context.span().span_context().trace_id(), trace("4bf92f3577b34da6a3ce929d0e0e4736"));
    }

    #[test]
    fn the_runtime_header_stands_for_the_events_with_both_propagators() {
        let runtime = "Root=1-63dd9631-aaaaaaaaaaaaaaaaaaaaaaaa;Parent=53995c3f42cd8ad8;Sampled=1";
        let context = Context::new().with_value(RuntimeTraceHeader(runtime.to_owned()));
        for propagator in [&XrayPropagator as &dyn TextMapPropagator, &XrayLambdaPropagator] {
            let extracted = propagator.extract_with_context(&context, &carrier(ROOT));
            assert_eq!(extracted.span().span_context().trace_id(), trace("63dd9631aaaaaaaaaaaaaaaaaaaaaaaa"));
        }
    }

    #[test]
    fn the_events_header_is_used_when_the_runtime_has_none() {
        let header = format!("{ROOT};Parent=53995c3f42cd8ad8;Sampled=1");
        let extracted = XrayLambdaPropagator.extract_with_context(&Context::new(), &carrier(&header));
        assert_eq!(extracted.span().span_context().trace_id(), trace(TRACE));
    }

    #[test]
    fn xray_lambda_leaves_what_an_earlier_propagator_found() {
        let runtime = "Root=1-63dd9631-aaaaaaaaaaaaaaaaaaaaaaaa;Parent=53995c3f42cd8ad8;Sampled=1";
        let context = remote("4bf92f3577b34da6a3ce929d0e0e4736").with_value(RuntimeTraceHeader(runtime.to_owned()));
        let extracted = XrayLambdaPropagator.extract_with_context(&context, &HashMap::new());
        assert_eq!(extracted.span().span_context().trace_id(), trace("4bf92f3577b34da6a3ce929d0e0e4736"));
    }

    #[test]
    fn what_is_injected_can_be_extracted() {
        let mut headers = HashMap::new();
        XrayPropagator.inject_context(&remote(TRACE), &mut headers);
        assert_eq!(headers[HEADER], format!("{ROOT};Parent=0000000000000007;Sampled=1"));
    }
}
