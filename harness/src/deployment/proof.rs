//! What makes sure that nothing more will come for a delivery.

use std::{fmt, time::Duration};

/// Why nothing more will come for a delivery: what a negative expectation, an exact count, an invariant or a baseline
/// rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The process or container is gone.
    Exited {
        /// `exit status: 0`, `signal: 9 (SIGKILL)`.
        status: String,
    },
    /// The execution environment froze after this invocation: what it holds back now was lost at the freeze.
    Froze {
        /// Lambda's request id.
        request_id: String,
    },
    /// Later requests, each with a trace of its own, came through. Batch processors hand on in the order in which spans
    /// end and records are written, so what was before the fence is there; each process by itself, each signal by
    /// itself.
    Fence {
        /// Fence requests that were sent.
        sent: usize,
        /// Instances that showed one, as their resources name them.
        instances: Vec<String>,
        /// What the fence says about OTLP log records.
        logs: LogFence,
    },
    /// Each process exported metrics that it had collected later.
    Metrics {
        /// How many processes.
        processes: usize,
    },
    /// The gateway answered by itself, so nothing was invoked that could send anything.
    NotInvoked,
    /// Nothing came for this long. The weakest: it proves nothing about a slower exporter.
    Quiet(Duration),
}

/// What a fence says about OTLP log records. Lines of stdout need none: they are read when the fence is through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFence {
    /// The fence's own records arrived, so the delivery's are there.
    CameBack,
    /// No OTLP log record was received from this deployment so far.
    NeverExported,
    /// The deployment exports log records but writes none for the fence's target: the fence proves spans only.
    NotWritten,
}

impl Proof {
    /// Whether all that could send anything had ended or stood still. A fence speaks for the processes that it went through.
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Exited { .. } | Self::Froze { .. } | Self::NotInvoked)
    }

    /// Whether it speaks for OTLP log records too.
    pub const fn covers_logs(&self) -> bool {
        self.is_final() || matches!(self, Self::Fence { logs: LogFence::CameBack, .. })
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { status } => write!(f, "complete: process exited ({status})"),
            Self::Froze { .. } => write!(f, "complete: environment froze"),
            Self::Fence { sent: _, instances, logs } => {
                write!(f, "complete: fence came through")?;
                if instances.len() > 1 {
                    write!(f, " {} instances", instances.len())?;
                }
                match logs {
                    LogFence::CameBack => Ok(()),
                    LogFence::NeverExported => write!(f, " (spans; no OTLP log record was ever received)"),
                    LogFence::NotWritten => write!(f, " (spans only: its target writes no OTLP log records)"),
                }
            }
            Self::Metrics { processes: 1 } => f.write_str("complete: metrics were collected again"),
            Self::Metrics { processes } => write!(f, "complete: metrics were collected again by {processes} processes"),
            Self::NotInvoked => write!(f, "complete: the gateway invoked nothing"),
            Self::Quiet(window) => write!(f, "nothing for {window:?} (no proof)"),
        }
    }
}

/// Nothing proves that all telemetry of a delivery is there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("incomplete after {waited:.1?}: {reason}")]
pub struct Incomplete {
    /// What did not come, and what did.
    pub reason: String,
    /// How long was waited.
    pub waited: Duration,
}

/// Names that a message tells; of the others it tells how many.
const TOLD: usize = 5;

/// The first of these names, and how many more there are.
pub(crate) fn some_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.get(TOLD..) {
        Some(rest) if !rest.is_empty() => format!("{} and {} more", names[..TOLD].join(", "), rest.len()),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_names_are_told_and_the_others_counted() {
        assert_eq!(some_of(["a", "b", "c", "d", "e"]), "a, b, c, d, e");
        assert_eq!(some_of(["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }
}
