//! The neighbour: `tracegate serve --relay` on the private network.

use std::{path::Path, time::Duration};

use testcontainers::{
    ImageExt,
    core::{IntoContainerPort, WaitFor},
};

use super::{LABEL, Started, image, start};
use crate::{
    capture::relay::{self, READY, Routes, TOKEN_VARIABLE, Tunnel},
    deployment::SiteError,
};

/// Control port of the neighbour, inside its container.
const CONTROL: u16 = 7070;

/// Ports at which servers of the harness are reached on the private network. The first is that of OTLP, because the
/// sink is what is exposed first and this is where a person would look for it. All are open from the start, because a
/// server may come later: each execution environment of a function has a Runtime API of its own.
pub(super) const PORTS: std::ops::RangeInclusive<u16> = 4318..=4445;

/// How long it may take until the neighbour listens.
const START: Duration = Duration::from_secs(30);

/// A running neighbour and the tunnel to it. The tunnel is closed first.
#[derive(Debug)]
pub(super) struct Neighbour {
    tunnel: Tunnel,
    _container: Started,
}

impl Neighbour {
    /// Name of the neighbour on the network with this name.
    pub(super) fn host(network: &str) -> String {
        format!("{network}-sink")
    }

    /// Starts it. `routes` are servers of this process by one of the [`PORTS`].
    pub(super) async fn start(network: &str, tracegate: &Path, routes: Routes) -> Result<Self, SiteError> {
        let cannot = |error: Box<dyn std::error::Error + Send + Sync>| {
            SiteError::because("cannot start the container that relays telemetry to this process", error)
        };
        let token = relay::random_token();
        let mut arguments =
            vec!["serve".to_owned(), "--host".into(), "0.0.0.0".into(), "--control".into(), CONTROL.to_string()];
        for port in PORTS {
            arguments.extend(["--relay".into(), port.to_string()]);
        }
        let request = image::of_executable(tracegate)
            .await?
            .with_exposed_port(CONTROL.tcp())
            .with_wait_for(WaitFor::message_on_stdout(READY))
            .with_network(network)
            .with_label(LABEL, "neighbour")
            .with_startup_timeout(START)
            .with_env_var(TOKEN_VARIABLE, &token)
            .with_cmd(arguments);
        let container = start(request, &Self::host(network), Some(CONTROL)).await.map_err(cannot)?;
        let control = container
            .address
            .ok_or_else(|| cannot(format!("its port {CONTROL} was not published on loopback").into()))?;
        let tunnel = Tunnel::open(control, &token, routes).await.map_err(|error| cannot(error.into()))?;
        Ok(Self { tunnel, _container: container })
    }

    /// Why it no longer relays, if so.
    pub(super) fn lost(&self) -> Option<String> {
        self.tunnel.lost()
    }
}
