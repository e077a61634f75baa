//! One running deployment with everything that belongs to it: the sink, the site, the stand-ins, the service.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Deployment, Site, SiteError,
    artifact::{self, Linking},
    container::ContainerSite,
    process::ProcessSite,
    upstream::UpstreamServer,
};
use crate::{
    capture::{Capture, Mark, Store, Tamper, sink::Sink},
    config::{self, Config},
    stimulus::{Caller, HttpRequest},
};

/// How long one request waits for its span while workers are woken.
const ROUND: Duration = Duration::from_millis(500);

/// Least time between two of those requests.
const SPACING: Duration = Duration::from_millis(50);

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
    sink: Sink,
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
        let mut program = spec.wrap.clone();
        program.extend(artifact::program(config, spec, Linking::for_kind(spec.kind)).await?);
        let mut built = spec.clone();
        for extension in &mut built.extensions {
            let command = artifact::extension(config, spec, extension).await?;
            *extension = config::Extension {
                name: Some(extension.name().to_owned()),
                command,
                cargo: None,
                env: extension.env.clone(),
            };
        }
        let started = std::time::Instant::now();
        let store = Arc::new(Store::bounded(workshop.tamper.clone(), config.sink.retention()));
        // The configuration was refused if a header of it is none.
        let settings = config.sink.settings().map_err(SiteError::new)?;
        let sink = Sink::bind((Ipv4Addr::LOCALHOST, 0).into(), store.clone(), settings)
            .await
            .map_err(|error| SiteError::because("the OTLP sink cannot listen on loopback", error))?;
        let site: Arc<dyn Site> = if spec.kind.is_container() {
            Arc::new(ContainerSite::new(config, spec, &workshop.tracegate).await?)
        } else {
            Arc::new(ProcessSite)
        };
        let mut upstreams = Vec::new();
        let mut placeholders = BTreeMap::new();
        for (name, upstream) in &config.upstreams {
            let server = UpstreamServer::start(name, upstream, store.clone()).await?;
            let reached = site.expose(server.address()).await?;
            placeholders.insert(format!("upstream.{name}"), format!("http://{reached}"));
            upstreams.push(server);
        }
        let deployment = Deployment::start(&built, program, site, store, sink.address(), &placeholders).await?;
        Ok(Self { deployment, _upstreams: upstreams, sink, took: started.elapsed() })
    }
}

impl Instance {
    /// What it exports to.
    pub fn sink(&self) -> &Sink {
        &self.sink
    }

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

impl Instance {
    /// Sends requests to the fence's target until as many worker processes as are configured have exported a span, or
    /// `deadline` is over. Returns the instances that were seen. A function has no worker processes.
    ///
    /// # Errors
    /// When no request was answered by then: what the fence's target needs may be up a moment later than what answers the
    /// readiness request.
    pub async fn wake_workers(&self, deadline: Instant) -> Result<BTreeSet<String>, SiteError> {
        let spec = self.spec();
        let instances = |capture: &Capture| -> BTreeSet<String> {
            capture.spans().iter().filter_map(|span| span.resource.instance()).collect()
        };
        let mut rounds = tokio::time::interval(SPACING);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trouble = None;
        loop {
            let seen = self.store().look(instances);
            if seen.len() >= spec.workers || spec.kind.is_lambda() {
                return Ok(seen);
            }
            if Instant::now() >= deadline {
                return trouble.map_or(Ok(seen), Err);
            }
            rounds.tick().await;
            let request = HttpRequest::get(spec.fence_target(), Caller::now(true));
            let trace_id = request.caller.trace_id;
            trouble = self.send(request).await.err();
            if trouble.is_some() {
                continue;
            }
            // A worker that is not instrumented leaves its request without spans, so do not wait long for one.
            let round = deadline.min(Instant::now() + ROUND);
            let _ = self.store().until(round, |capture| capture.spans_of(trace_id).next().map(drop)).await;
        }
    }
}

impl std::ops::Deref for Instance {
    type Target = Deployment;
    fn deref(&self) -> &Deployment {
        &self.deployment
    }
}
