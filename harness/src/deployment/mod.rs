//! Starting a service the way it is deployed, and sending stimuli to it.
//!
//! A [`Site`] is where something runs: this machine ([`process`]) or a container engine ([`container`]). What runs there
//! is a [`Sandbox`]. An HTTP service is a sandbox with an address; a function is a sandbox that speaks the Runtime API
//! ([`lambda`]), on either site. A [`Deployment`] is one of the two, running, and what scenarios talk to.

pub mod artifact;
pub mod assembly;
pub mod container;
pub mod lambda;
mod metrics_fence;
pub mod process;
pub mod upstream;

mod fence;
mod instance;
mod proof;
mod service;
mod site;

pub use instance::Deployment;
pub(crate) use proof::some_of;
pub use proof::{Incomplete, LogFence, Proof};
use site::ExitStatus;
pub use site::{Exit, Launch, Memory, Sandbox, Site, SiteError};
