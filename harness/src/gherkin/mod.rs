//! Scenarios: the vocabulary of steps, the features that are selected, and their run on one deployment.

mod always;
mod attribution;
mod context;
mod counterpart;
mod evidence;
mod notation;
mod observe;
mod registry;
mod replay;
mod roster;
mod run;
mod select;
mod soak;
mod steps;
mod together;
mod world;

pub use registry::{Keyword, Need, StepDefinition, definitions, reference};
pub use replay::{ReplayError, Replayed, replay};
pub(crate) use run::near;
pub use run::{Plan, run, run_until};
pub use select::{SelectError, Selected, Selection, select};
