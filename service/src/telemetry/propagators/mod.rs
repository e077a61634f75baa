//! How trace context comes in and goes out: the propagators of `OTEL_PROPAGATORS`, in its order.

pub mod xray;

use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};

use self::xray::{XrayLambdaPropagator, XrayPropagator};

/// The trace header that the Lambda runtime gave with the invocation (`Lambda-Runtime-Trace-Id`,
/// also in `_X_AMZN_TRACE_ID`), carried in the context that extraction starts from.
#[derive(Clone, Debug)]
pub struct RuntimeTraceHeader(pub String);

/// A name that `OTEL_PROPAGATORS` may hold, `none` aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagator {
    /// W3C `traceparent` and `tracestate`.
    TraceContext,
    /// W3C `baggage`.
    Baggage,
    /// `X-Amzn-Trace-Id`.
    Xray,
    /// `X-Amzn-Trace-Id` of the Lambda runtime before that of the event.
    XrayLambda,
}

impl Propagator {
    /// The propagator of that name, as the specification spells it.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "tracecontext" => Some(Self::TraceContext),
            "baggage" => Some(Self::Baggage),
            "xray" => Some(Self::Xray),
            "xray-lambda" => Some(Self::XrayLambda),
            _ => None,
        }
    }
}

/// All of `propagators` as one. A later one wins when it finds a valid context; one that finds
/// nothing leaves the context of those before it.
pub fn composite(propagators: &[Propagator]) -> TextMapCompositePropagator {
    TextMapCompositePropagator::new(
        propagators
            .iter()
            .map(|propagator| -> Box<dyn TextMapPropagator + Send + Sync> {
                match propagator {
                    Propagator::TraceContext => Box::new(TraceContextPropagator::new()),
                    Propagator::Baggage => Box::new(BaggagePropagator::new()),
                    Propagator::Xray => Box::new(XrayPropagator),
                    Propagator::XrayLambda => Box::new(XrayLambdaPropagator),
                }
            })
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::{Context, trace::TraceContextExt};
    use std::collections::HashMap;

    const W3C: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const XRAY: &str = "Root=1-63dd9630-1f7ec6c948e660f220ef3c92;Parent=53995c3f42cd8ad8;Sampled=1";

    fn trace_of(propagators: &[Propagator], headers: &[(&str, &str)]) -> String {
        let carrier: HashMap<String, String> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        composite(propagators)
            .extract_with_context(&Context::new(), &carrier)
            .span()
            .span_context()
            .trace_id()
            .to_string()
    }

    #[test]
    fn the_last_propagator_that_finds_something_wins() {
        use Propagator::{TraceContext, Xray};
        let both = [("traceparent", W3C), (xray::HEADER, XRAY)];
        assert!(trace_of(&[Xray, TraceContext], &both).starts_with("4bf9"));
        assert!(trace_of(&[TraceContext, Xray], &both).starts_with("63dd"));
    }

    #[test]
    fn a_propagator_that_finds_nothing_leaves_the_earlier_context() {
        use Propagator::{TraceContext, Xray};
        assert!(trace_of(&[TraceContext, Xray], &[("traceparent", W3C)]).starts_with("4bf9"));
        let broken = [(xray::HEADER, XRAY), ("traceparent", "00-zz")];
        assert!(trace_of(&[Xray, TraceContext], &broken).starts_with("63dd"));
    }

    #[test]
    fn no_propagator_finds_nothing() {
        assert!(trace_of(&[], &[("traceparent", W3C)]).starts_with("0000"));
    }
}
