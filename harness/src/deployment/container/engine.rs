//! The container engine: whether it answers, and taking back what was made there.

use std::time::Duration;

use testcontainers::{bollard::query_parameters::RemoveContainerOptionsBuilder, core::client::docker_client_instance};
use tokio::time::timeout;

use super::SiteError;

/// Label of every container, network and image that is made here; its value is the deployment's name.
pub const LABEL: &str = "dev.tracegate";

/// How long an engine may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long taking back one thing may take.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(30);

const WAY_OUT: &str = "start Docker, or point DOCKER_HOST to an engine";

/// Whether a container engine answers, within 5 s.
///
/// # Errors
/// With the reason when none does.
pub async fn engine_available() -> Result<(), SiteError> {
    let asked = timeout(PATIENCE, async {
        let docker = docker_client_instance()
            .await
            .map_err(|error| SiteError::because(format!("no container engine is configured; {WAY_OUT}"), error))?;
        docker
            .ping()
            .await
            .map_err(|error| SiteError::because(format!("no container engine answers; {WAY_OUT}"), error))
    });
    match asked.await {
        Ok(answer) => answer.map(drop),
        Err(_) => {
            let seconds = PATIENCE.as_secs();
            Err(SiteError::new(format!("the container engine has not answered for {seconds} s; {WAY_OUT}")))
        }
    }
}

/// What can be left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A container in any state.
    Container,
    /// A network; the containers in it have to go first.
    Network,
}

/// Removes something when it is dropped, and waits until it is gone: in any thread, inside and outside of a runtime,
/// while unwinding, and also when the thing was never made.
#[derive(Debug)]
pub(super) struct Removal {
    kind: Kind,
    name: String,
}

impl Removal {
    pub(super) fn of(kind: Kind, name: String) -> Self {
        Self { kind, name }
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        let (kind, name) = (self.kind, std::mem::take(&mut self.name));
        // A thread and a runtime of its own: the caller's may be about to end, or have one thread only, which this
        // destructor holds.
        let removing = std::thread::Builder::new().name("container removal".into()).spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            if let Err(error) = runtime.block_on(remove(kind, &name)) {
                tracing::warn!("{name} could not be removed: {error}");
            }
        });
        if let Ok(removing) = removing {
            drop(removing.join());
        }
    }
}

async fn remove(kind: Kind, name: &str) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    timeout(REMOVAL_PATIENCE, async {
        let docker = docker_client_instance().await?;
        let removed = match kind {
            Kind::Container => {
                let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
                docker.remove_container(name, Some(options)).await
            }
            Kind::Network => docker.remove_network(name).await,
        };
        match removed {
            Err(error) if !is_absent(&error) => Err(error.into()),
            _ => Ok(()),
        }
    })
    .await?
}

/// Whether an error says that the thing is not there.
fn is_absent(error: &testcontainers::bollard::errors::Error) -> bool {
    use testcontainers::bollard::errors::Error;
    matches!(error, Error::DockerResponseServerError { status_code: 404, .. })
}
