//! Containers, by testcontainers: a private network, images without a registry, a neighbour that relays.
//!
//! ```text
//!   this machine                     private network of one deployment
//!   sink, stand-ins ◄══ tunnel ════ neighbour (`tracegate serve --relay`)  ◄──┐ OTLP, calls
//!   client ──── 127.0.0.1:published port ───────────────────────────────► service
//! ```
//!
//! Everything that is made carries the label [`LABEL`], so that what a killed run left behind can be found:
//! `docker ps --all --filter label=dev.tracegate`, and likewise for networks and images.

mod engine;
mod image;
mod neighbour;
mod sandbox;

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use testcontainers::{
    ContainerRequest, GenericImage, ImageExt,
    bollard::models::{HostConfig, HostConfigLogConfig, NetworkCreateRequest, PortBinding},
    core::{IntoContainerPort, client::docker_client_instance},
    runners::AsyncRunner,
};
use tokio::sync::OnceCell;

pub use self::engine::{LABEL, engine_available};
use self::{
    engine::{Kind, Removal},
    image::Source,
    neighbour::Neighbour,
    sandbox::ContainerSandbox,
};
use super::{Launch, Sandbox, Site, SiteError};
use crate::{
    capture::{Mark, Store, relay::Routes},
    config::{self, Config},
};

/// A private network with a neighbour, for one deployment. Both are removed with the site, or with the last container
/// that was launched there.
#[derive(Debug)]
pub struct ContainerSite {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Names network and containers, so that runs beside each other do not meet.
    id: String,
    deployment: String,
    source: Source,
    port: u16,
    tracegate: PathBuf,
    routes: Routes,
    surroundings: OnceCell<Surroundings>,
    launched: AtomicUsize,
}

/// Dropped in this order: a network is removed only when nobody is in it.
#[derive(Debug)]
struct Surroundings {
    neighbour: Neighbour,
    _network: Removal,
}

impl ContainerSite {
    /// A site for this deployment. `tracegate` is the executable that the neighbour runs. Nothing is started yet.
    ///
    /// # Errors
    /// When no engine answers.
    pub async fn new(config: &Config, deployment: &config::Deployment, tracegate: &Path) -> Result<Self, SiteError> {
        engine_available().await?;
        let shared = Shared {
            id: format!("tracegate-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]),
            deployment: deployment.name.clone(),
            source: Source::of(config, deployment),
            port: deployment.port,
            tracegate: tracegate.to_owned(),
            routes: Routes::default(),
            surroundings: OnceCell::new(),
            launched: AtomicUsize::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Shared {
    /// Network and neighbour, started by the first launch.
    async fn surroundings(&self) -> Result<&Surroundings, SiteError> {
        self.surroundings
            .get_or_try_init(|| async {
                let network = Removal::of(Kind::Network, self.id.clone());
                let labels = HashMap::from([(LABEL.to_owned(), self.deployment.clone())]);
                let request =
                    NetworkCreateRequest { name: self.id.clone(), labels: Some(labels), ..Default::default() };
                let docker = docker_client_instance()
                    .await
                    .map_err(|error| SiteError::because("the Docker engine is out of reach", error))?;
                docker
                    .create_network(request)
                    .await
                    .map_err(|error| SiteError::because(format!("cannot create the network {}", self.id), error))?;
                let neighbour = Neighbour::start(&self.id, &self.tracegate, self.routes.clone()).await?;
                Ok(Surroundings { neighbour, _network: network })
            })
            .await
    }
}

#[async_trait]
impl Site for ContainerSite {
    async fn expose(&self, server: SocketAddr) -> Result<String, SiteError> {
        match self.shared.routes.assign(server, neighbour::PORTS) {
            Some(port) => Ok(format!("{}:{port}", Neighbour::host(&self.shared.id))),
            None => {
                let count = neighbour::PORTS.count();
                Err(SiteError::new(format!("{server} cannot be exposed to containers: {count} servers are already")))
            }
        }
    }

    async fn free_port(&self) -> Result<u16, SiteError> {
        // A container has all ports for itself.
        Ok(self.shared.port)
    }

    async fn launch(&self, launch: Launch, store: Arc<Store>) -> Result<Box<dyn Sandbox>, SiteError> {
        let shared = &self.shared;
        let (image, arguments) = shared.source.image(&shared.deployment, launch.command).await?;
        let surroundings = shared.surroundings().await?;
        if let Some(lost) = surroundings.neighbour.lost() {
            return Err(SiteError::new(lost));
        }
        let name = format!("{}-{}", shared.id, shared.launched.fetch_add(1, Ordering::Relaxed));
        let image = match launch.port {
            Some(port) => image.with_exposed_port(port.tcp()),
            None => image,
        };
        let mut request = image.with_network(&shared.id).with_label(LABEL, &shared.deployment).with_cmd(arguments);
        for (key, value) in launch.env {
            request = request.with_env_var(key, value);
        }
        let started = start(request, &name, launch.port).await.map_err(|error| {
            SiteError::because(format!("deployment `{}`: cannot start its container", shared.deployment), error)
        })?;
        store.mark(Mark::Started { what: format!("container {}", &started.id[..12.min(started.id.len())]) });
        Ok(Box::new(ContainerSandbox::attach(started, store, shared.clone())))
    }
}

/// A container that was started, and is removed when this is dropped.
#[derive(Debug)]
struct Started {
    id: String,
    /// Where its port is published; `None` when it has none, or has exited already.
    address: Option<SocketAddr>,
    _removal: Removal,
}

/// Starts a container under this name, with `port` published to loopback only.
async fn start(
    request: ContainerRequest<GenericImage>,
    name: &str,
    port: Option<u16>,
) -> Result<Started, Box<dyn std::error::Error + Send + Sync>> {
    // Made first: a container that was created and could not be started is left behind by testcontainers, and so is
    // one whose start is interrupted.
    let removal = Removal::of(Kind::Container, name.to_owned());
    let request = request.with_container_name(name).with_host_config_modifier(move |host: &mut HostConfig| {
        host.publish_all_ports = Some(false);
        host.port_bindings = port.map(|port| {
            let binding = PortBinding { host_ip: Some(Ipv4Addr::LOCALHOST.to_string()), host_port: None };
            HashMap::from([(format!("{port}/tcp"), Some(vec![binding]))])
        });
        // Whatever the engine's default is, output must be readable here.
        host.log_config = Some(HostConfigLogConfig { typ: Some("json-file".into()), config: None });
    });
    let container = request.start().await?;
    let id = container.id().to_owned();
    let docker = docker_client_instance().await?;
    // Its destructor panics outside of a runtime, where ours may well run; `removal` does the same work anywhere.
    std::mem::forget(container);
    let address = match port {
        None => None,
        Some(port) => {
            let inspected = docker.inspect_container(&id, None).await?;
            let ports = inspected.network_settings.and_then(|settings| settings.ports).unwrap_or_default();
            let bindings = ports.get(&format!("{port}/tcp")).cloned().flatten().unwrap_or_default();
            let published = bindings.iter().find_map(|binding| binding.host_port.as_ref()?.parse::<u16>().ok());
            published.map(|port| (Ipv4Addr::LOCALHOST, port).into())
        }
    };
    Ok(Started { id, address, _removal: removal })
}
