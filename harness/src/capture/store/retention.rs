//! How much a store keeps, and what it had to drop.

use std::{fmt, time::Duration};

/// How much a store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Most bytes of export requests, their indexes and lines. What is decoded for a look is not counted.
    pub bytes: usize,
    /// How long at most; looked at with each arrival. `None` for as long as there is room.
    pub age: Option<Duration>,
}

impl Default for Retention {
    /// 2 GiB, for as long as the store lives: about four million spans.
    fn default() -> Self {
        Self { bytes: 2 << 30, age: None }
    }
}

/// What a store had to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Dropped {
    /// Export requests.
    pub requests: u64,
    /// Spans in them.
    pub spans: u64,
    /// Log records in them, and lines.
    pub logs: u64,
    /// Metrics in them.
    pub metrics: u64,
    /// Faults.
    pub faults: u64,
    /// The stamp of the latest thing that was dropped: everything that arrived after it is kept.
    pub until: u64,
}

impl Dropped {
    /// Whether nothing was.
    pub fn is_nothing(&self) -> bool {
        self.until == 0
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, spans, logs, metrics, faults, .. } = self;
        write!(
            f,
            "{requests} export requests, {spans} spans, {logs} log records and lines, {metrics} metrics, {faults} faults"
        )
    }
}
