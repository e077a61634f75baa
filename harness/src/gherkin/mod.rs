//! Scenarios: the vocabulary of steps, the features that are selected, and their run on one deployment.

mod evidence;
mod observe;
mod registry;
mod run;
mod select;
mod soak;
mod steps;
mod world;

pub use registry::{Keyword, Need, StepDefinition, definitions, reference};
pub use run::{Plan, run};
pub use select::{SelectError, Selected, Selection, select};
