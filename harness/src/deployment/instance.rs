//! One running deployment: what scenarios send stimuli to.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::{
    Exit, Incomplete, Launch, Memory, Proof, Site, SiteError,
    lambda::Function,
    service::{Service, last_output, next_mark},
};
use crate::{
    capture::{Mark, Store},
    config,
    stimulus::{Client, ContextForm, Delivery, HttpRequest, Identity, Pressure, canary, standstills},
    telemetry::TraceId,
};

/// Answers that took less are not slow, however busy the machine was.
const NOT_SLOW: Duration = Duration::from_millis(100);

/// A running deployment. Dropping it kills everything that it started.
#[derive(Debug)]
pub struct Deployment {
    spec: config::Deployment,
    store: Arc<Store>,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Service(Service),
    Function(Function),
}

impl Deployment {
    /// Starts a deployment and waits until it is ready.
    ///
    /// `program` is what runs: a program with its first arguments, or, for a container, what the site needs to know;
    /// `spec.args` are added behind it. `spec.directory` must be absolute. `placeholders` maps names to what stands for
    /// `{name}` in `program`, `args` and `env`; `port`, `otlp` (the endpoint's URL) and `otlp.authority` (its `host:port`) are
    /// added to them. `sink` is where the OTLP receiver listens on
    /// this machine; the service is told as `OTEL_EXPORTER_OTLP_ENDPOINT`, unless its `env` has a value of its own, and
    /// nothing else is added (for a function: what Lambda sets).
    ///
    /// # Errors
    ///
    /// When it cannot be started, ends, or is not ready within `spec.start_timeout`; with its last lines of output.
    pub async fn start(
        spec: &config::Deployment,
        program: Vec<String>,
        site: Arc<dyn Site>,
        store: Arc<Store>,
        sink: SocketAddr,
        placeholders: &BTreeMap<String, String>,
    ) -> Result<Self, SiteError> {
        let port = match (spec.kind.is_lambda(), spec.kind.is_container()) {
            (true, _) => None,
            (false, true) => Some(spec.port),
            (false, false) => Some(site.free_port().await?),
        };
        let authority = site.expose(sink).await?;
        let endpoint = format!("http://{authority}");
        let mut ports = BTreeMap::new();
        for extension in &spec.extensions {
            ports.insert(format!("extension.{}.port", extension.name()), site.free_port().await?.to_string());
        }
        let fill = |text: &String| {
            let port = port.map(|port| ("port".to_owned(), port.to_string()));
            let otlp = [("otlp".to_owned(), endpoint.clone()), ("otlp.authority".to_owned(), authority.clone())];
            let all = placeholders.iter().map(|(name, value)| (name.clone(), value.clone())).chain(otlp).chain(port);
            let all = all.chain(ports.iter().map(|(name, value)| (name.clone(), value.clone())));
            all.fold(text.clone(), |text, (name, value)| text.replace(&format!("{{{name}}}"), &value))
        };
        let mut env: BTreeMap<String, String> =
            spec.env.iter().map(|(name, value)| (name.clone(), fill(value))).collect();
        env.entry("OTEL_EXPORTER_OTLP_ENDPOINT".into()).or_insert_with(|| endpoint.clone());
        let launch = Launch {
            command: program.iter().chain(&spec.args).map(fill).collect(),
            env,
            directory: spec.directory.clone(),
            port,
            signal_to: spec.signal_to.unwrap_or_default(),
            extension: None,
        };
        let running = if spec.kind.is_lambda() {
            let extension = |extension: &config::Extension| {
                let mut env = launch.env.clone();
                env.insert("OTEL_EXPORTER_OTLP_ENDPOINT".into(), endpoint.clone());
                env.extend(extension.env.iter().map(|(name, value)| (name.clone(), fill(value))));
                Launch {
                    command: extension.command.iter().map(fill).collect(),
                    env,
                    directory: spec.directory.clone(),
                    port: None,
                    signal_to: launch.signal_to,
                    extension: Some(extension.name().to_owned()),
                }
            };
            let extensions = spec.extensions.iter().map(extension).collect();
            Running::Function(Function::start(spec, launch, extensions, site, store.clone()).await?)
        } else {
            Running::Service(Service::start(spec, launch, &*site, &store).await?)
        };
        Ok(Self { spec: spec.clone(), store, running })
    }

    /// What was captured from it.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// How it was configured.
    pub fn spec(&self) -> &config::Deployment {
        &self.spec
    }

    /// Sends a request: over HTTP, or as the gateway's event to a function, with the canaries of the configuration planted.
    ///
    /// # Errors
    ///
    /// When there is no answer. An answer that says that something is wrong, a gateway's 502 among them, is an answer.
    pub async fn send(&self, request: HttpRequest) -> Result<Delivery, SiteError> {
        self.send_for(request, Client::default()).await
    }

    /// The same for a client that says who it is, which only a function hears of, or keeps its connection, which only a service
    /// has.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub async fn send_for(&self, request: HttpRequest, client: Client) -> Result<Delivery, SiteError> {
        let mark = next_mark("tracegate");
        // What a scenario says was sent is what it wrote: a planted query is in no message.
        let (target, headers) = (request.target.clone(), request.headers.clone());
        let request = canary::plant(request, &self.spec.canaries(), &mark);
        let pressure = Pressure::now();
        let delivery = match &self.running {
            Running::Function(function) => {
                let delivery = function.send(&self.spec, &self.store, request, client.identity, mark).await?;
                Delivery { target, headers, ..delivery }
            }
            Running::Service(service) => {
                let own = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("user-agent"));
                let user_agent = own.map_or_else(|| mark.clone(), |(_, value)| value.clone());
                let sent = self.store.mark(Mark::Sent { delivery: mark.clone() });
                let answered = Mark::Answered { delivery: mark.clone() };
                let sending = (&request, client.connection.as_ref());
                let answer = service.send(&self.spec, &self.store, sending, &mark, answered).await;
                let (response, answered) = answer.inspect_err(|_| {
                    // Nothing is under way any more.
                    self.store.mark(Mark::Unanswered { delivery: mark.clone() });
                })?;
                let told = request.form != ContextForm::Absent;
                Delivery {
                    mark,
                    method: request.method,
                    target,
                    headers,
                    user_agent,
                    caller: told.then_some(request.caller),
                    form: request.form,
                    sent,
                    answered,
                    response,
                    invocation: None,
                }
            }
        };
        if delivery.took() > NOT_SLOW {
            let held_up = pressure.since().min(delivery.took());
            let micros = u64::try_from(held_up.as_micros()).unwrap_or(u64::MAX);
            self.store.mark(Mark::HeldUp { delivery: delivery.mark.clone(), micros });
        }
        Ok(delivery)
    }

    /// Marks the standstills of this machine that are not marked yet, so that what is told of a loss names them: who gives up
    /// after seconds, an exporter among them, gave up for that.
    pub fn note_standstills(&self) {
        let since = self.store.look(|capture| {
            let lifecycle = capture.lifecycle();
            let last = lifecycle.iter().rev().find_map(|entry| match entry.mark {
                Mark::StoodStill { from, .. } => Some(from + 1),
                _ => None,
            });
            last.or_else(|| lifecycle.first().map(|entry| entry.arrival.unix_nano)).unwrap_or(u64::MAX)
        });
        for standstill in standstills(since) {
            self.store.mark(Mark::StoodStill { from: standstill.from, micros: standstill.micros });
        }
    }

    /// Delivers an event to a function as it is.
    ///
    /// # Errors
    ///
    /// When there is no function here, or it gives no answer.
    pub async fn deliver(&self, event: serde_json::Value) -> Result<Delivery, SiteError> {
        self.deliver_for(event, Identity::default()).await
    }

    /// The same for a caller that says who it is.
    ///
    /// # Errors
    ///
    /// As [`deliver`](Self::deliver).
    pub async fn deliver_for(&self, event: serde_json::Value, identity: Identity) -> Result<Delivery, SiteError> {
        match &self.running {
            Running::Function(function) => {
                function.deliver(&self.spec, &self.store, event, identity, next_mark("tracegate")).await
            }
            Running::Service(_) => Err(SiteError::new(format!(
                "deployment {} is a {} and takes no events; restrict the scenario to functions with @lambda",
                self.spec.name, self.spec.kind
            ))),
        }
    }

    /// Proves that everything that a delivery caused has arrived: the process exited, the environment froze, or a fence
    /// came through.
    ///
    /// # Errors
    ///
    /// When nothing proves it by `deadline`, with what came and what did not.
    pub async fn settle(&self, delivery: &Delivery, deadline: Instant) -> Result<Proof, Incomplete> {
        self.settle_all(&[delivery], deadline).await
    }

    /// The same for several deliveries at once: one fence is behind all of them.
    ///
    /// # Errors
    ///
    /// As [`settle`](Self::settle).
    pub async fn settle_all(&self, deliveries: &[&Delivery], deadline: Instant) -> Result<Proof, Incomplete> {
        match &self.running {
            Running::Service(service) => service.settle(&self.spec, &self.store, deliveries, deadline).await,
            Running::Function(_) => {
                let mut proof = Proof::NotInvoked;
                for delivery in deliveries {
                    proof = super::lambda::settle(&self.spec, &self.store, delivery, deadline).await?;
                }
                Ok(proof)
            }
        }
    }

    /// Asks a service for a target once, with these headers, for the harness's own sake, and says which trace it was told and what
    /// status it answered with, if it did. A function is not asked.
    pub async fn ask(&self, target: &str, headers: &[(String, String)]) -> Option<(TraceId, Option<u16>)> {
        match &self.running {
            Running::Service(service) => Some(service.ask(&self.spec, &self.store, target, headers).await),
            Running::Function(_) => None,
        }
    }

    /// Proves that every measurement that `deliveries` caused has arrived too.
    ///
    /// # Errors
    ///
    /// As [`settle`](Self::settle); and when a process does not export its metrics again by `deadline`.
    pub async fn settle_metrics(&self, deliveries: &[&Delivery], deadline: Instant) -> Result<Proof, Incomplete> {
        let started = Instant::now();
        let proof = self.settle_all(deliveries, deadline).await?;
        if proof.is_final() {
            return Ok(proof);
        }
        super::metrics_fence::settle(&self.store, deliveries, deadline, started.elapsed()).await
    }

    /// The traces of the harness's own requests so far (readiness, fences): what is in them belongs to no scenario. Their
    /// `User-Agent` begins with `tracegate-ready/` or `tracegate-fence/`.
    pub fn own_traces(&self) -> Vec<TraceId> {
        match &self.running {
            Running::Service(service) => service.fences.traces(),
            Running::Function(_) => Vec::new(),
        }
    }

    /// What to say of a service that has ended: how, and what it wrote last. `None` while it runs, and of a function, whose
    /// environments come and go.
    pub fn crashed(&self) -> Option<String> {
        let Running::Service(service) = &self.running else { return None };
        let status = service.sandbox.has_exited()?;
        let (name, what) = (&self.spec.name, service.sandbox.what());
        Some(format!("deployment {name} ({what}) ended by itself: {status}\n{}", last_output(&self.store)))
    }

    /// Asks it to end with `signal` and kills what is left after `grace`. What it exports meanwhile is still taken.
    pub async fn stop(&self, signal: Signal, grace: Duration) -> Exit {
        match &self.running {
            Running::Service(service) => service.sandbox.stop(signal, grace).await,
            Running::Function(function) => function.stop(signal, grace).await,
        }
    }

    /// What a service holds.
    ///
    /// # Errors
    /// When it runs in a container or is a function.
    pub fn memory(&self) -> Result<Memory, SiteError> {
        match &self.running {
            Running::Service(service) => service.sandbox.memory(),
            Running::Function(_) => Err(SiteError::new(
                "the memory of a function cannot be told; restrict the scenario to services with @process and @http",
            )),
        }
    }

    /// Shuts a function's execution environments down as Lambda does when nothing is asked of them, so that the next
    /// invocation is a cold start. Returns how many there were. A service goes on.
    pub async fn recycle(&self) -> usize {
        match &self.running {
            Running::Function(function) => function.recycle().await,
            Running::Service(_) => 0,
        }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // A function ends its own when it is dropped.
        if let Running::Service(service) = &self.running {
            service.sandbox.kill_now();
        }
    }
}
