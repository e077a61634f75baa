//! Containers, by testcontainers: a private network, images without a registry, a neighbour that relays.
//!
//! ```text
//!   this machine                     private network of one deployment
//!   sink, stand-ins ◄══ tunnel ════ neighbour (`tracegate serve --relay`)  ◄──┐ OTLP, calls
//!   client ──── 127.0.0.1:published port ───────────────────────────────► service
//! ```
//!
//! A function with extensions is in one container with them ([`cell`]).
//!
//! Everything that is made carries the label [`LABEL`], so that what a killed run left behind can be found:
//! `docker ps --all --filter label=dev.tracegate`, and likewise for networks and images.

mod cell;
mod context;
mod engine;
mod image;
pub mod inside;
mod neighbour;
mod sandbox;

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicUsize, Ordering},
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
    cell::CellSite,
    engine::{Kind, Removal},
    image::{Environment, Source},
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
    /// The port that is given out next. A container has all ports for itself.
    next_port: AtomicU16,
    tracegate: PathBuf,
    routes: Routes,
    surroundings: OnceCell<Surroundings>,
    /// The image of a function with its extensions: every environment is made from it.
    environment: OnceCell<(GenericImage, Environment)>,
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
            next_port: AtomicU16::new(deployment.port),
            tracegate: tracegate.to_owned(),
            routes: Routes::default(),
            surroundings: OnceCell::new(),
            environment: OnceCell::new(),
            launched: AtomicUsize::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl Shared {
    /// Where the neighbour takes connections for a server of this process.
    fn expose(&self, server: SocketAddr) -> Result<String, SiteError> {
        match self.routes.assign(server, neighbour::PORTS) {
            Some(port) => Ok(format!("{}:{port}", Neighbour::host(&self.id))),
            None => {
                let count = neighbour::PORTS.count();
                Err(SiteError::new(format!("{server} cannot be exposed to containers: {count} servers are already")))
            }
        }
    }

    fn free_port(&self) -> u16 {
        self.next_port.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts a container on the private network.
    async fn start(
        &self,
        image: GenericImage,
        arguments: Vec<String>,
        env: BTreeMap<String, String>,
        port: Option<u16>,
    ) -> Result<Started, SiteError> {
        let surroundings = self.surroundings().await?;
        if let Some(lost) = surroundings.neighbour.lost() {
            return Err(SiteError::new(lost));
        }
        let name = format!("{}-{}", self.id, self.launched.fetch_add(1, Ordering::Relaxed));
        let image = match port {
            Some(port) => image.with_exposed_port(port.tcp()),
            None => image,
        };
        let mut request = image.with_network(&self.id).with_label(LABEL, &self.deployment).with_cmd(arguments);
        for (key, value) in env {
            request = request.with_env_var(key, value);
        }
        start(request, &name, port).await.map_err(|error| {
            SiteError::because(format!("deployment `{}`: cannot start its container", self.deployment), error)
        })
    }

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
        self.shared.expose(server)
    }

    async fn free_port(&self) -> Result<u16, SiteError> {
        Ok(self.shared.free_port())
    }

    async fn launch(&self, launch: Launch, store: Arc<Store>) -> Result<Box<dyn Sandbox>, SiteError> {
        let shared = &self.shared;
        let (image, arguments) = shared.source.image(&shared.deployment, launch.command).await?;
        let started = shared.start(image, arguments, launch.env, launch.port).await?;
        store.mark(Mark::Started { what: format!("container {}", &started.id[..12.min(started.id.len())]) });
        Ok(Box::new(ContainerSandbox::attach(started, store, shared.clone())))
    }

    async fn enclose(&self, launches: &[Launch], store: &Arc<Store>) -> Result<Option<Arc<dyn Site>>, SiteError> {
        let shared = &self.shared;
        let nothing = || {
            let what = "extensions need a function from `cargo` or `binary`, since one image is made of all of them";
            SiteError::new(format!("deployment `{}`: {what}", shared.deployment))
        };
        if !matches!(shared.source, Source::Executable) {
            return Err(nothing());
        }
        let program = |launch: &Launch| launch.command.first().map(PathBuf::from).ok_or_else(nothing);
        let function = launches.iter().find(|launch| launch.extension.is_none()).ok_or_else(nothing)?;
        let mut extensions = Vec::new();
        for launch in launches {
            if let Some(name) = &launch.extension {
                extensions.push((name.clone(), program(launch)?));
            }
        }
        let function = program(function)?;
        let made = || image::of_environment(&shared.tracegate, &function, &extensions);
        let (image, environment) = shared.environment.get_or_try_init(made).await?.clone();
        let started = shared.start(image, Vec::new(), BTreeMap::new(), None).await?;
        let container = ContainerSandbox::attach(started, store.clone(), shared.clone());
        Ok(Some(Arc::new(CellSite::new(container, environment, shared.clone()))))
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

/// Starts a container under this name, with `port` published to loopback only. A function asks for its events and has none.
async fn start(
    request: ContainerRequest<GenericImage>,
    name: &str,
    port: Option<u16>,
) -> Result<Started, Box<dyn std::error::Error + Send + Sync>> {
    // Made first: a container that was created and could not be started is left behind by testcontainers, and so is
    // one whose start is interrupted.
    let removal = Removal::of(Kind::Container, name.to_owned());
    let of_function = port.is_none();
    let request = request.with_container_name(name).with_host_config_modifier(move |host: &mut HostConfig| {
        host.publish_all_ports = Some(false);
        host.port_bindings = port.map(|port| {
            let binding = PortBinding { host_ip: Some(Ipv4Addr::LOCALHOST.to_string()), host_port: None };
            HashMap::from([(format!("{port}/tcp"), Some(vec![binding]))])
        });
        if of_function {
            // Lambda has both: storage of the environment's own (Developer Guide, "Configure ephemeral storage"), and a name
            // by which extensions listen to the platform ("Lambda Telemetry API").
            host.tmpfs = Some(HashMap::from([("/tmp".into(), "exec,mode=1777".into())]));
            host.extra_hosts = Some(["sandbox.localdomain", "sandbox"].map(|name| format!("{name}:127.0.0.1")).into());
        }
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
