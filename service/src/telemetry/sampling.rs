//! `OTEL_TRACES_SAMPLER`, with the two things that an X-Ray header adds to a parent's decision.

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceContextExt, TraceId, TraceState},
};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use super::ids::{DeferredSampling, RootTrace};

/// The sampler of the service: `root` for traces that begin here and, if `parent_based`, the
/// caller's decision for all others.
#[derive(Clone, Debug)]
pub struct ServiceSampler {
    root: Sampler,
    parent_based: bool,
}

impl ServiceSampler {
    /// The sampler of that name, as in the specification of `OTEL_TRACES_SAMPLER`. `ratio` is used
    /// by the two ratio samplers only.
    ///
    /// `None` for a name that the specification does not have or this service does not offer.
    pub fn from_name(name: &str, ratio: f64) -> Option<Self> {
        let (root, parent_based) = match name {
            "always_on" => (Sampler::AlwaysOn, false),
            "always_off" => (Sampler::AlwaysOff, false),
            "traceidratio" => (Sampler::TraceIdRatioBased(ratio), false),
            "parentbased_always_on" => (Sampler::AlwaysOn, true),
            "parentbased_always_off" => (Sampler::AlwaysOff, true),
            "parentbased_traceidratio" => (Sampler::TraceIdRatioBased(ratio), true),
            _ => return None,
        };
        Some(Self { root, parent_based })
    }

    /// The caller's decision; `None` when it made none.
    fn callers_decision(&self, context: &Context) -> Option<bool> {
        let span = context.span();
        let parent = span.span_context();
        if !self.parent_based {
            return None;
        }
        if !parent.is_valid() {
            return context.get::<RootTrace>().and_then(|root| root.sampled);
        }
        let deferred =
            parent.is_remote() && context.get::<DeferredSampling>() == Some(&DeferredSampling(parent.span_id()));
        (!deferred).then(|| parent.is_sampled())
    }
}

impl Default for ServiceSampler {
    fn default() -> Self {
        Self { root: Sampler::AlwaysOn, parent_based: true }
    }
}

impl ShouldSample for ServiceSampler {
    fn should_sample(
        &self,
        parent_context: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        span_kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let decided = parent_context.and_then(|context| self.callers_decision(context));
        match decided {
            Some(sampled) => SamplingResult {
                decision: if sampled { SamplingDecision::RecordAndSample } else { SamplingDecision::Drop },
                attributes: Vec::new(),
                trace_state: parent_context
                    .map_or_else(TraceState::default, |context| context.span().span_context().trace_state().clone()),
            },
            None => self.root.should_sample(parent_context, trace_id, name, span_kind, attributes, links),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags};

    fn decide(sampler: &ServiceSampler, context: &Context) -> bool {
        let result = sampler.should_sample(Some(context), TraceId::from(1), "", &SpanKind::Server, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    fn root(sampled: Option<bool>) -> Context {
        Context::new().with_value(RootTrace { trace_id: TraceId::from(1), sampled })
    }

    fn remote(flags: TraceFlags) -> Context {
        Context::new().with_remote_span_context(SpanContext::new(
            TraceId::from(1),
            SpanId::from(2),
            flags,
            true,
            TraceState::default(),
        ))
    }

    #[test]
    fn a_parent_based_sampler_follows_the_caller() {
        let sampler = ServiceSampler::default();
        assert!(decide(&sampler, &remote(TraceFlags::SAMPLED)));
        assert!(!decide(&sampler, &remote(TraceFlags::default())));
        assert!(decide(&sampler, &root(Some(true))));
        assert!(!decide(&sampler, &root(Some(false))));
    }

    #[test]
    fn the_root_sampler_decides_when_the_caller_did_not() {
        let on = ServiceSampler::default();
        let off = ServiceSampler::from_name("parentbased_always_off", 1.0).unwrap();
        let deferred = remote(TraceFlags::default()).with_value(DeferredSampling(SpanId::from(2)));
        for context in [Context::new(), root(None), deferred] {
            assert!(decide(&on, &context));
            assert!(!decide(&off, &context));
        }
    }

    #[test]
    fn a_sampler_that_is_not_parent_based_asks_nobody() {
        let sampler = ServiceSampler::from_name("always_on", 1.0).unwrap();
        assert!(decide(&sampler, &remote(TraceFlags::default())));
        let sampler = ServiceSampler::from_name("always_off", 1.0).unwrap();
        assert!(!decide(&sampler, &remote(TraceFlags::SAMPLED)));
    }

    #[test]
    fn an_unknown_sampler_is_none() {
        assert!(ServiceSampler::from_name("sometimes", 1.0).is_none());
    }
}
