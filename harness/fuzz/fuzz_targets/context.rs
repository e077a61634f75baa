//! Trace contexts: what is accepted is written back as the same, and a form of the caller's own is always accepted.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tracegate::{
    stimulus::Caller,
    telemetry::{
        SpanId, TraceId,
        xray::{Traceparent, XrayHeader, format_trace_id, parse_trace_id},
    },
};

fuzz_target!(|text: &str| {
    if let Ok(header) = text.parse::<XrayHeader>() {
        assert_eq!(header.to_string().parse(), Ok(header.clone()), "{header}");
        assert_eq!(parse_trace_id(&format_trace_id(header.root)), Ok(header.root));
        if let Some(span_id) = header.parent {
            carried_on(Caller { trace_id: header.root, span_id, sampled: true });
        }
    }
    if let Ok(parent) = text.parse::<Traceparent>() {
        let written: Traceparent = parent.to_string().parse().expect("what was written is read");
        assert_eq!(written, parent);
        carried_on(Caller { trace_id: parent.trace_id, span_id: parent.parent_id, sampled: parent.sampled() });
    }
    if let Ok(id) = TraceId::from_hex(text) {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(id) = SpanId::from_hex(text) {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
});

fn carried_on(caller: Caller) {
    let w3c: Traceparent = caller.traceparent().parse().expect("the caller's own form");
    assert_eq!((w3c.trace_id, w3c.parent_id, w3c.sampled()), (caller.trace_id, caller.span_id, caller.sampled));
    let xray: XrayHeader = caller.xray_header().parse().expect("the caller's own form");
    assert_eq!((xray.root, xray.parent), (caller.trace_id, Some(caller.span_id)));
}
