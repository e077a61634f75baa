//! One running deployment with everything that belongs to it: the sink, the site, the stand-ins, the service.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Deployment, Site, SiteError,
    artifact::{self, Linking},
    process::ProcessSite,
    upstream::UpstreamServer,
};
use crate::{
    capture::{Capture, Mark, Store, Tamper, sink::Sink},
    config::{self, Config},
};

/// What starting needs besides the configuration.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// The whole configuration.
    pub config: Arc<Config>,
    /// The `tracegate` executable, which containers use as their neighbour.
    pub tracegate: PathBuf,
    /// Applied to everything that is received.
    pub tamper: Option<Arc<dyn Tamper>>,
}

/// A running deployment. Dropping it ends all that belongs to it.
#[derive(Debug)]
pub struct Instance {
    // Dropped in this order: the service first, so that it never sees its collector go away.
    deployment: Deployment,
    _upstreams: Vec<UpstreamServer>,
    _sink: Sink,
    /// How long it took from nothing to ready, builds not counted.
    pub took: Duration,
}

impl Instance {
    /// Builds what is to run, starts sink and stand-ins, and then the service.
    ///
    /// # Errors
    /// With the cause and the service's last output, when anything of it does not start.
    pub async fn start(workshop: &Workshop, spec: &config::Deployment) -> Result<Self, SiteError> {
        let config = &workshop.config;
        let program = artifact::program(config, spec, Linking::for_kind(spec.kind)).await?;
        let started = Instant::now();
        let store = Arc::new(Store::new(workshop.tamper.clone()));
        let sink = Sink::start(store.clone())
            .await
            .map_err(|error| SiteError::because("the OTLP sink cannot listen on loopback", error))?;
        let site: Arc<dyn Site> = if spec.kind.is_container() {
            return Err(SiteError::new("containers: later"))
        } else {
            Arc::new(ProcessSite::default())
        };
        let mut upstreams = Vec::new();
        let mut placeholders = BTreeMap::new();
        for (name, upstream) in &config.upstreams {
            let server = UpstreamServer::start(name, upstream, store.clone()).await?;
            let reached = site.expose(server.address()).await?;
            placeholders.insert(format!("upstream.{name}"), format!("http://{reached}"));
            upstreams.push(server);
        }
        let deployment = Deployment::start(spec, program, site, store, sink.address(), &placeholders).await?;
        Ok(Self { deployment, _upstreams: upstreams, _sink: sink, took: started.elapsed() })
    }
}

impl Instance {
    /// What runs, as its first start named it: `pid 4711`, `container 3f2a…`.
    pub fn what(&self) -> String {
        let started = |capture: &Capture| {
            capture.lifecycle().iter().find_map(|entry| match &entry.mark {
                Mark::Started { what } => Some(what.clone()),
                _ => None,
            })
        };
        self.store().look(started).unwrap_or_default()
    }
}

impl std::ops::Deref for Instance {
    type Target = Deployment;
    fn deref(&self) -> &Deployment {
        &self.deployment
    }
}
