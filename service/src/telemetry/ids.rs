//! Trace and span ids: where new ones come from, and which trace id a root span has to take.

use std::{
    cell::Cell,
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator};

/// A trace id that the caller named without a parent span (an X-Ray header with only `Root`).
/// Carried in a context; the next root span started under it takes this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootTrace {
    /// The caller's trace id.
    pub trace_id: TraceId,
    /// The caller's sampling decision, if it made one.
    pub sampled: Option<bool>,
}

/// Says that the remote parent of this id left the sampling decision to us (`Sampled=?`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeferredSampling(pub SpanId);

/// Where the ids of new traces come from (`TRACE_ID_GENERATOR`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceIdKind {
    /// 128 random bits.
    #[default]
    Random,
    /// X-Ray: the first 32 bits are the epoch second, so that X-Ray accepts the id.
    Xray,
}

thread_local! {
    static GIVEN: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// Runs `start` so that a root span it starts takes `trace_id`.
///
/// The SDK asks its [`IdGenerator`] on the calling thread while it builds a span and has no other
/// way to give a root span an id.
pub fn with_trace_id<R>(trace_id: TraceId, start: impl FnOnce() -> R) -> R {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            GIVEN.set(None);
        }
    }
    GIVEN.set(Some(trace_id));
    let _reset = Reset;
    start()
}

/// The generator of the service: the given trace id when there is one, else a new one.
#[derive(Debug)]
pub struct Ids {
    kind: TraceIdKind,
    random: RandomIdGenerator,
}

impl Ids {
    /// A generator of ids of that kind.
    pub fn new(kind: TraceIdKind) -> Self {
        Self { kind, random: RandomIdGenerator::default() }
    }
}

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        if let Some(given) = GIVEN.get() {
            return given;
        }
        let random = self.random.new_trace_id();
        match self.kind {
            TraceIdKind::Random => random,
            TraceIdKind::Xray => {
                let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as u32);
                let mut bytes = random.to_bytes();
                bytes[..4].copy_from_slice(&second.to_be_bytes());
                TraceId::from_bytes(bytes)
            }
        }
    }

    fn new_span_id(&self) -> SpanId {
        self.random.new_span_id()
    }
}

/// The id as X-Ray writes it: `1-<8 hex>-<24 hex>`.
pub fn xray_trace_id(trace_id: TraceId) -> String {
    let hex = trace_id.to_string();
    format!("1-{}-{}", &hex[..8], &hex[8..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_xray_id_begins_with_the_epoch_second() {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let before = now();
        let id = Ids::new(TraceIdKind::Xray).new_trace_id().to_string();
        let second = u64::from_str_radix(&id[..8], 16).unwrap();
        assert!((before..=now()).contains(&second));
    }

    #[test]
    fn a_given_id_is_taken_inside_and_forgotten_after() {
        let ids = Ids::new(TraceIdKind::Random);
        let given = TraceId::from(42);
        assert_eq!(with_trace_id(given, || ids.new_trace_id()), given);
        assert_ne!(ids.new_trace_id(), given);
    }

    #[test]
    fn the_xray_form_cuts_after_eight_digits() {
        let id = TraceId::from_hex("63dd96301f7ec6c948e660f220ef3c92").unwrap();
        assert_eq!(xray_trace_id(id), "1-63dd9630-1f7ec6c948e660f220ef3c92");
    }
}
