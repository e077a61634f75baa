//! What is kept of a run, so that every verdict can be looked into and judged again without any service.
//!
//! ```text
//! target/tracegate/
//!   run.json                       which run this is
//!   deployments/NAME/              what scenarios that share a deployment looked at, once
//!   SCENARIO/DEPLOYMENT/
//!     scenario.json                what was judged when, on which proof, and the verdict
//!     acts.jsonl                   what was done to the deployment and what came back, in order
//!     capture/                     what a deployment of the scenario's own sent
//!     trace.txt, verdict.txt       to be read
//! ```
//!
//! A capture is a folder of lines: `traces.jsonl`, `logs.jsonl` and `metrics.jsonl` are OTLP/JSON as the Collector's file
//! exporter writes it, `stdout.jsonl` has the lines of stdout and stderr, `lifecycle.jsonl` the marks and the faults, and
//! `arrivals.jsonl` says of each export request when and how it came. Every line that has no place for it in its own format has
//! `seq`, the position in the order of arrival, because verdicts depend on that order.
//!
//! Texts that a scenario calls secrets stand in these files only where the service put them: in what was sent they are replaced
//! by `[secret N]`, and whoever judges again has them from the feature file. A digest tells whether they are still the same.

mod capture;
mod folder;
mod record;
mod secrets;

pub use capture::{CaptureFiles, Recording};
pub(crate) use folder::{CAPTURE, DEPLOYMENTS};
pub use folder::{Claim, Found, RunRecord, begin_run, claim, find};
pub use record::{
    ActRecord, CaptureKind, ScenarioRecord, Settings, Settled, StepRecord, Undertaking, read_scenario, write_scenario,
};
pub use secrets::{mask, mask_text, unmask};

/// The version of the format; a reader refuses others.
pub const VERSION: u32 = 1;

/// Why evidence cannot be written or read.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum EvidenceError {
    /// The file system said no.
    #[error("cannot {what} {}", .path.display())]
    Io {
        /// `read`, `write`.
        what: &'static str,
        /// What.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{}: {reason}", .path.display())]
    #[diagnostic(help("was it written by `tracegate run`, and by this version?"))]
    Malformed {
        /// Which file, with the line where there is one.
        path: std::path::PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Another run writes there.
    #[error("another run is writing to {}", .path.display())]
    #[diagnostic(help("wait until it is over, or give this one a folder of its own with --output"))]
    Taken {
        /// The output folder.
        path: std::path::PathBuf,
    },
    /// A folder without evidence.
    #[error("there is no evidence in {}", .path.display())]
    #[diagnostic(help(
        "name the folder of one scenario on one deployment, of one scenario, or the whole output folder of `tracegate run`, \
         by default target/tracegate"
    ))]
    Nothing {
        /// As given.
        path: std::path::PathBuf,
    },
}

impl EvidenceError {
    fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    fn malformed(path: &std::path::Path, reason: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.into() }
    }
}
