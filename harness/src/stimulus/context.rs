//! The caller whose trace a stimulus carries on, and the headers that say so.

use crate::telemetry::{SpanId, TraceId};

/// The caller's side of a trace: what a service must continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Caller {
    /// The caller's trace. The first four bytes are the epoch second, so that it is a valid X-Ray trace id too.
    pub trace_id: TraceId,
    /// The caller's span, which the service's entry span must hang on.
    pub span_id: SpanId,
    /// Whether the caller records its trace.
    pub sampled: bool,
}

/// In which headers the caller's context is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub enum ContextForm {
    /// W3C `traceparent` and `X-Amzn-Trace-Id`, with the same ids.
    #[default]
    Both,
    /// `traceparent` only (W3C Trace Context, 3.2).
    W3c,
    /// `X-Amzn-Trace-Id: Root=…;Parent=…;Sampled=…` only.
    Xray,
    /// `X-Amzn-Trace-Id: Root=…` only, as API Gateway adds it.
    XrayRoot,
    /// No header at all: the service must start a trace.
    Absent,
}

impl Caller {
    /// A new caller; `epoch_seconds` makes the trace id one that X-Ray accepts.
    pub fn fresh(epoch_seconds: u32, sampled: bool) -> Self {
        let mut bytes = *TraceId::random().as_bytes();
        bytes[..4].copy_from_slice(&epoch_seconds.to_be_bytes());
        let trace_id = TraceId::from_bytes(&bytes).unwrap_or_else(|_| TraceId::random());
        Self { trace_id, span_id: SpanId::random(), sampled }
    }

    /// A new caller whose trace begins at this second.
    pub fn now(sampled: bool) -> Self {
        let seconds = jiff::Timestamp::now().as_second();
        Self::fresh(u32::try_from(seconds).unwrap_or(u32::MAX), sampled)
    }

    /// `traceparent`, version 00.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }

    /// `Root=1-8 digits-24 digits`.
    pub fn xray_root(&self) -> String {
        let hex = self.trace_id.to_string();
        format!("Root=1-{}-{}", &hex[..8], &hex[8..])
    }

    /// `Root=…;Parent=…;Sampled=0|1`.
    pub fn xray_header(&self) -> String {
        format!("{};Parent={};Sampled={}", self.xray_root(), self.span_id, u8::from(self.sampled))
    }

    /// The headers that carry this context in `form`.
    pub fn headers(&self, form: ContextForm) -> Vec<(&'static str, String)> {
        match form {
            ContextForm::Both => vec![("traceparent", self.traceparent()), ("X-Amzn-Trace-Id", self.xray_header())],
            ContextForm::W3c => vec![("traceparent", self.traceparent())],
            ContextForm::Xray => vec![("X-Amzn-Trace-Id", self.xray_header())],
            ContextForm::XrayRoot => vec![("X-Amzn-Trace-Id", self.xray_root())],
            ContextForm::Absent => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        Caller {
            trace_id: "63dd96301f7ec6c948e660f220ef3c92".parse().unwrap(),
            span_id: "53995c3f42cd8ad8".parse().unwrap(),
            sampled: true,
        }
    }

    #[test]
    fn headers_are_written_as_the_two_specifications_have_them() {
        assert_eq!(caller().traceparent(), "00-63dd96301f7ec6c948e660f220ef3c92-53995c3f42cd8ad8-01");
        assert_eq!(
            caller().xray_header(),
            "Root=1-63dd9630-1f7ec6c948e660f220ef3c92;Parent=53995c3f42cd8ad8;Sampled=1"
        );
    }

    #[test]
    fn an_absent_context_sends_no_header_and_root_only_names_no_parent() {
        assert!(caller().headers(ContextForm::Absent).is_empty());
        let headers = caller().headers(ContextForm::XrayRoot);
        assert_eq!(headers, [("X-Amzn-Trace-Id", "Root=1-63dd9630-1f7ec6c948e660f220ef3c92".to_owned())]);
    }

    #[test]
    fn a_fresh_trace_id_begins_with_the_epoch_second() {
        let caller = Caller::fresh(0x63dd_9630, true);
        assert!(caller.trace_id.to_string().starts_with("63dd9630"));
    }
}
