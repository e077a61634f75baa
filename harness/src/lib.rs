//! Tracegate, a regression gate for telemetry: it starts a service the way it is deployed, sends it requests and
//! API Gateway events, captures every span, log record, metric and line that comes out, and checks in Gherkin
//! scenarios that they are correlated.
//!
//! ```text
//! feature file ─► stimulus ─► deployment ─► (service) ─► capture ─► correlation ─► expectation ─► report
//!                 HTTP call    process                    OTLP sink   one trace      matchers       terminal, JUnit
//!                 API GW event container                  stdout tap  per stimulus   with nearest
//!                              lambda (either)            lifecycle                  candidates
//! ```
//!
//! Data goes one way. Each stage is a module; a stage knows only values of the stage before it. [`telemetry`],
//! [`correlation`], [`expectation`] and [`invariant`] are pure: no I/O, no clock.

pub mod capture;
pub mod cli;
pub mod config;
pub mod correlation;
pub mod deployment;
pub mod evidence;
pub mod expectation;
pub mod gherkin;
pub mod invariant;
pub mod report;
pub mod stimulus;
pub mod telemetry;
