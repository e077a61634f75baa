//! Lambda: the Runtime API and the life of an execution environment.
use super::*;
use crate::{capture::Store, config, stimulus::*};
use std::{sync::Arc, time::Duration};
#[derive(Debug)]
pub(super) struct Function;
impl Function {
    pub(super) async fn start(
        _: &config::Deployment,
        _: Launch,
        _: Arc<dyn Site>,
        _: Arc<Store>,
    ) -> Result<Self, SiteError> {
        Err(SiteError::new("later"))
    }
    pub(super) async fn send(
        &self,
        _: &config::Deployment,
        _: &Store,
        _: HttpRequest,
        _: String,
    ) -> Result<Delivery, SiteError> {
        Err(SiteError::new("later"))
    }
    pub(super) async fn deliver(
        &self,
        _: &config::Deployment,
        _: &Store,
        _: serde_json::Value,
        _: String,
    ) -> Result<Delivery, SiteError> {
        Err(SiteError::new("later"))
    }
    pub(super) async fn stop(&self, _: nix::sys::signal::Signal, _: Duration) -> Exit {
        Exit { status: String::new(), orderly: true }
    }
    pub(super) async fn recycle(&self) {}
    pub(super) fn kill_now(&self) {}
}
pub(super) async fn settle(_: &Store, _: &Delivery, _: tokio::time::Instant) -> Result<Proof, Incomplete> {
    Err(Incomplete { reason: String::new(), waited: Duration::ZERO })
}
