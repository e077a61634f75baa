//! The API over HTTP, until a signal says stop.

use std::{future::IntoFuture, io, net::SocketAddr, time::Duration};

use axum::Router;
use futures::future::{Either, select};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use crate::{
    fields,
    settings::Settings,
    telemetry::{Telemetry, logs::Fields},
};

const TARGET: &str = "serverless_axum::server";

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// Where it should listen.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// Binds the address of the settings.
///
/// # Errors
/// When the port is taken or the address is not this machine's.
pub fn bind(settings: &Settings) -> Result<std::net::TcpListener, BindError> {
    let address = SocketAddr::from((settings.host, settings.port));
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|source| BindError { address, source })
}

/// Serves until `stop` is ready; requests under way then get `patience` to finish.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: std::net::TcpListener,
    app: Router,
    telemetry: &Telemetry,
    patience: Duration,
    stop: impl Future<Output = &'static str>,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let (stopping, stopped) = oneshot::channel::<()>();
    let server =
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).with_graceful_shutdown(async {
            let _ = stopped.await;
        });
    telemetry.logger().info(
        TARGET,
        "Listening",
        fields! { "address": address.ip().to_string(), "port": address.port() },
    );
    let server = server.into_future();
    let stop = std::pin::pin!(stop);
    match select(server, stop).await {
        Either::Left((result, _)) => result,
        Either::Right((reason, server)) => {
            telemetry.logger().info(TARGET, "Stopping", fields! { "reason": reason });
            drop(stopping);
            match tokio::time::timeout(patience, server).await {
                Ok(result) => result,
                Err(_) => {
                    telemetry.logger().warn(
                        TARGET,
                        "Requests were still running at the end of SHUTDOWN_TIMEOUT",
                        Fields::new(),
                    );
                    Ok(())
                }
            }
        }
    }
}

/// Ready with the name of the signal at the first SIGTERM or SIGINT.
///
/// # Errors
/// When the process cannot listen for signals.
pub fn stop_signal() -> io::Result<impl Future<Output = &'static str>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        }
    })
}
