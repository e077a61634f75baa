use super::*;

fn xray(text: &str) -> Option<XRayHeader> {
    XRayHeader::parse(text)
}

const ROOT: &str = "Root=1-63dd9630-1f7ec6c948e660f220ef3c92";

#[test]
fn a_literal_event_tells_what_its_headers_tell_and_otherwise_lambda_does() {
    let w3c = trace::parse_traceparent("00-63dd96301f7ec6c948e660f220ef3c92-53995c3f42cd8ad8-01");
    let foreign = trace::parse_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
    let full = xray(&format!("{ROOT};Parent=53995c3f42cd8ad8;Sampled=1"));
    for (xray, w3c, form, parent_is_lambdas) in [
        (full, None, ContextForm::Xray, false),
        (full, w3c, ContextForm::Both, false),
        (full, foreign, ContextForm::Xray, false),
        (xray(ROOT), None, ContextForm::XrayRoot, true),
        (xray(ROOT), w3c, ContextForm::W3c, false),
        (xray(ROOT), foreign, ContextForm::XrayRoot, true),
        (None, w3c, ContextForm::W3c, false),
        (None, None, ContextForm::Absent, true),
    ] {
        let incoming = xray.or(w3c.map(|w3c| XRayHeader { root: w3c.trace_id, parent: None, sampled: None }));
        let runtime = RuntimeTrace::continuing(incoming, true);
        let (caller, found) = told(xray, w3c, &runtime);
        assert_eq!(found, form);
        assert_eq!(caller.span_id == runtime.segment.span_id, parent_is_lambdas, "{form:?}");
        assert_eq!(caller.trace_id, runtime.segment.trace_id, "either propagator gives the same trace");
    }
}
