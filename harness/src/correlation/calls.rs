//! The calls that stand-ins took, and what each of them says of a trace.

use std::ops::RangeInclusive;

use crate::{
    capture::{Capture, Lifecycle, Mark},
    telemetry::{
        SpanId, TraceId,
        xray::{Traceparent, XrayHeader},
    },
};

/// One call that a stand-in took.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// The stand-in's name.
    pub upstream: &'a str,
    /// Method and target.
    pub what: String,
    /// When it was taken, in nanoseconds since the Unix epoch.
    pub taken: u64,
    /// In order, names in lower case.
    pub headers: &'a [(String, String)],
}

impl<'a> Call<'a> {
    /// Those that were taken at these positions in the store's order.
    pub fn within(capture: &'a Capture, positions: RangeInclusive<u64>) -> impl Iterator<Item = Self> {
        let all = capture.lifecycle();
        let from = all.partition_point(|entry| entry.arrival.seq < *positions.start());
        let until = all.partition_point(|entry| entry.arrival.seq <= *positions.end());
        all.get(from..until).unwrap_or_default().iter().filter_map(Self::of)
    }

    fn of(entry: &'a Lifecycle) -> Option<Self> {
        let Mark::UpstreamCalled { upstream, method, target, headers, .. } = &entry.mark else { return None };
        Some(Self { upstream, what: format!("{method} {target}"), taken: entry.arrival.unix_nano, headers })
    }

    /// The values of a header.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let headers = self.headers.iter().filter(move |(other, _)| other == name);
        headers.map(|(_, value)| value.as_str())
    }

    /// What its `traceparent` and `X-Amzn-Trace-Id` headers name, `None` for one that is malformed. The latter may name no span.
    pub fn contexts(&self) -> Vec<Option<(TraceId, Option<SpanId>)>> {
        let w3c = self.all("traceparent").map(|value| {
            let context = value.parse::<Traceparent>().ok()?;
            Some((context.trace_id, Some(context.parent_id)))
        });
        let xray = self.all("x-amzn-trace-id").map(|value| {
            let context = value.parse::<XrayHeader>().ok()?;
            Some((context.root, context.parent))
        });
        w3c.chain(xray).collect()
    }
}
