//! One running deployment with everything that belongs to it: the sink, the site, the stand-ins, the service.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
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
    telemetry::{Span, SpanId, SpanKind},
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
        built.directory = Some(config.directory(spec));
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
        let mut callers = HashSet::new();
        let mut rounds = tokio::time::interval(SPACING);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut trouble = None;
        loop {
            let seen = self.store().look(|capture| answering(capture, &callers));
            // Before anything was asked nothing hangs on what was asked.
            let known = spec.workers == 1 || !callers.is_empty();
            if (known && seen.len() >= spec.workers) || spec.kind.is_lambda() {
                return Ok(seen);
            }
            if Instant::now() >= deadline {
                return trouble.map_or(Ok(seen), Err);
            }
            rounds.tick().await;
            let request = HttpRequest::get(spec.fence_target(), Caller::now(true));
            let trace_id = request.caller.trace_id;
            callers.insert(request.caller.span_id);
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

/// The processes that take requests from outside: those with a span that hangs on one of `callers`. Where none does, those with a
/// SERVER span that hangs on nothing that came, and where no server shows itself, those that begin a trace. What a worker calls or
/// hands work to is a process too, and is none of them.
pub fn answering(capture: &Capture, callers: &HashSet<SpanId>) -> BTreeSet<String> {
    let hangs = |span: &Span| span.parent_span_id.is_some_and(|parent| callers.contains(&parent));
    let is_server = |span: &Span| span.kind == SpanKind::Server;
    let is_called = |span: &Span| span.parent_span_id.is_some_and(|id| capture.span(span.trace_id, id).is_some());
    let all = |answers: &dyn Fn(&Span) -> bool| -> BTreeSet<String> {
        capture.spans().iter().filter(|span| answers(span)).filter_map(|span| span.resource.instance()).collect()
    };
    let asked = all(&hangs);
    if !asked.is_empty() {
        asked
    } else if capture.spans().iter().any(|span| is_server(span)) {
        all(&|span| is_server(span) && !is_called(span))
    } else {
        all(&|span| span.parent_span_id.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{correlation::samples, telemetry::Resource};

    fn of(process: &str, span: Span) -> Span {
        let attributes = [("service.instance.id".to_owned(), process.into())].into_iter().collect();
        Span { resource: Arc::new(Resource { attributes, schema_url: String::new() }), ..span }
    }

    fn seen(spans: Vec<Span>) -> Vec<String> {
        let callers = HashSet::from([samples::span_id(99)]);
        samples::store(spans, Vec::new()).look(|capture| answering(capture, &callers)).into_iter().collect()
    }

    #[test]
    fn what_a_worker_hands_work_to_is_no_worker() {
        let server = || of("a", samples::with(samples::span(1, Some(99), "GET /"), SpanKind::Server, &[]));
        let job = || of("b", samples::span(2, Some(1), "job"));
        assert_eq!(seen(vec![server(), job()]), ["a"]);
        assert!(seen(vec![job()]).is_empty(), "the worker itself exports nothing");
    }

    #[test]
    fn a_service_behind_the_workers_is_no_worker() {
        let server = |process: &str, id, parent| {
            of(process, samples::with(samples::span(id, parent, "GET /"), SpanKind::Server, &[]))
        };
        let behind = || server("stock", 2, Some(1));
        assert_eq!(
            seen(vec![server("a", 1, Some(99)), server("b", 3, Some(98)), behind()]),
            ["a"],
            "b was asked by somebody else"
        );
        assert_eq!(seen(vec![server("a", 1, Some(97)), behind()]), ["a"], "traces are carried on, and of others");
    }

    #[test]
    fn a_process_without_server_spans_answers_where_its_span_hangs_on_the_caller_or_on_nothing() {
        let internal = |process: &str, parent| of(process, samples::span(1, parent, "handle"));
        assert_eq!(seen(vec![internal("a", Some(99)), internal("b", None)]), ["a"]);
        assert_eq!(seen(vec![internal("b", None), internal("c", Some(98))]), ["b"], "it carries nothing on");
    }
}
