//! The tracing header of X-Ray, and the one that Lambda makes for the runtime.
//!
//! Sources: "Tracing header" in the X-Ray Developer Guide; `Lambda-Runtime-Trace-Id` in "Using the Lambda runtime API".

use crate::{
    deployment::service::epoch_seconds,
    stimulus::Caller,
    telemetry::{SpanId, TraceId, xray},
};

/// `Root=1-8 digits-24 digits;Parent=16 digits;Sampled=0|1`, fields in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XRayHeader {
    /// The trace.
    pub root: TraceId,
    /// The span that the next one hangs on; API Gateway names none.
    pub parent: Option<SpanId>,
    /// `Sampled=1` or `Sampled=0`; `None` for `Sampled=?` and when nothing is said, which leaves it to who comes next.
    pub sampled: Option<bool>,
}

impl XRayHeader {
    /// The header, or `None` when its root is none: garbage is no error of the platform. Other fields (`Self`, `Lineage`, …)
    /// are passed over, and so is a parent that is no span id. A test's own reading of a header is stricter
    /// ([`xray::XrayHeader`]).
    pub fn parse(text: &str) -> Option<Self> {
        let (mut root, mut parent, mut sampled) = (None, None, None);
        for field in text.split(';') {
            let Some((key, value)) = field.split_once('=') else { continue };
            let (key, value) = (key.trim(), value.trim());
            if key.eq_ignore_ascii_case("Root") {
                root = Some(xray::parse_trace_id(value).ok()?);
            } else if key.eq_ignore_ascii_case("Parent") {
                parent = SpanId::from_hex(value).ok();
            } else if key.eq_ignore_ascii_case("Sampled") {
                sampled = match value {
                    "1" => Some(true),
                    "0" => Some(false),
                    _ => None,
                }
            }
        }
        Some(Self { root: root?, parent, sampled })
    }
}

/// What Lambda tells the runtime of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuntimeTrace {
    /// The trace, Lambda's own segment as the parent, and whether it is sampled.
    pub segment: Caller,
}

impl RuntimeTrace {
    /// Lambda keeps the root of the incoming header and makes a parent of its own, its segment. Without a usable header
    /// it starts a trace. It follows the incoming decision, samples when there is none, and never samples while the
    /// function's active tracing is off.
    pub fn continuing(incoming: Option<XRayHeader>, tracing: bool) -> Self {
        let fresh = Caller::fresh(epoch_seconds(), true);
        let trace_id = incoming.map_or(fresh.trace_id, |incoming| incoming.root);
        let decision = incoming.and_then(|incoming| incoming.sampled).unwrap_or(true);
        Self { segment: Caller { trace_id, span_id: fresh.span_id, sampled: decision && tracing } }
    }

    /// `Lambda-Runtime-Trace-Id`.
    pub fn header(&self) -> String {
        self.segment.xray_header()
    }
}

/// The caller that a `traceparent` of version 00 names (W3C Trace Context, 3.2.2).
pub(super) fn parse_traceparent(text: &str) -> Option<Caller> {
    let mut parts = text.trim().split('-');
    let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    if version != "00" || flags.len() != 2 || parts.next().is_some() {
        return None;
    }
    let flags = u8::from_str_radix(flags, 16).ok()?;
    Some(Caller {
        trace_id: TraceId::from_hex(trace_id).ok()?,
        span_id: SpanId::from_hex(span_id).ok()?,
        sampled: flags & 1 == 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "1-63dd9630-1f7ec6c948e660f220ef3c92";

    fn trace_id() -> TraceId {
        "63dd96301f7ec6c948e660f220ef3c92".parse().unwrap()
    }

    #[test]
    fn fields_come_in_any_order_and_unknown_ones_are_passed_over() {
        let header = format!("Self=1-1-1;Sampled=0; Parent=53995c3f42cd8ad8 ;Lineage=a:0;Root={ROOT}");
        let parsed = XRayHeader::parse(&header).unwrap();
        assert_eq!(parsed.root, trace_id());
        assert_eq!(parsed.parent, Some("53995c3f42cd8ad8".parse().unwrap()));
        assert_eq!(parsed.sampled, Some(false));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let caller = Caller::fresh(0x63dd_9630, true);
        let parsed = XRayHeader::parse(&caller.xray_header()).unwrap();
        assert_eq!((parsed.root, parsed.parent, parsed.sampled), (caller.trace_id, Some(caller.span_id), Some(true)));
        assert_eq!(parse_traceparent(&caller.traceparent()), Some(caller));
    }

    #[test]
    fn a_header_without_a_usable_root_is_none() {
        for header in [
            "",
            "garbage",
            "Parent=53995c3f42cd8ad8",
            "Root=1-63dd9630",
            "Root=2-63dd9630-1f7ec6c948e660f220ef3c92",
            "Root=1-00000000-000000000000000000000000",
            "Root=1-63dd96301-f7ec6c948e660f220ef3c92",
        ] {
            assert_eq!(XRayHeader::parse(header), None, "{header}");
        }
        for traceparent in ["", "00-0-0-01", "01-63dd96301f7ec6c948e660f220ef3c92-53995c3f42cd8ad8-01"] {
            assert_eq!(parse_traceparent(traceparent), None, "{traceparent}");
        }
    }

    #[test]
    fn lambda_keeps_the_root_makes_a_new_parent_and_follows_the_decision() {
        let incoming = |text: &str| XRayHeader::parse(text);
        let full = incoming(&format!("Root={ROOT};Parent=53995c3f42cd8ad8;Sampled=0"));
        let runtime = RuntimeTrace::continuing(full, true).segment;
        assert_eq!((runtime.trace_id, runtime.sampled), (trace_id(), false));
        assert_ne!(Some(runtime.span_id), full.unwrap().parent);
        let root_only = RuntimeTrace::continuing(incoming(&format!("Root={ROOT}")), true);
        assert_eq!((root_only.segment.trace_id, root_only.segment.sampled), (trace_id(), true));
        assert!(root_only.header().starts_with(&format!("Root={ROOT};Parent=")));
        let asked = RuntimeTrace::continuing(incoming(&format!("Root={ROOT};Sampled=?")), true);
        assert!(asked.segment.sampled);
    }

    #[test]
    fn without_a_header_lambda_starts_a_trace_and_without_active_tracing_it_does_not_sample() {
        let (one, two) = (RuntimeTrace::continuing(None, true), RuntimeTrace::continuing(None, false));
        assert_ne!(one.segment.trace_id, two.segment.trace_id);
        assert!(one.segment.sampled && !two.segment.sampled);
    }
}
