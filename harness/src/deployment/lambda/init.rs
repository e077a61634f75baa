//! The Init phase: extensions first, then the runtime, until all of them have asked for an event ("Init phase" in
//! "Understanding the Lambda execution environment lifecycle" of the Lambda Developer Guide).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    environment::{Environment, Environments, catch_up},
    extensions_api::Idle,
    platform::{End, InitPhase},
    processes::{Processes, Who},
    runtime_api::{About, Did, Failure, RuntimeApi},
    variables,
};
use crate::{
    capture::Mark,
    deployment::{Site, SiteError, service::last_output},
};

/// An environment that did not come to be.
#[derive(Debug)]
pub(super) struct NoInit {
    /// Its name, that of its log stream.
    pub(super) environment: String,
    pub(super) why: Why,
}

/// Why there is no environment.
#[derive(Debug)]
pub(super) enum Why {
    /// Nothing could be started.
    Site(SiteError),
    /// It took longer than its limit; the message says who had not done what.
    TimedOut(Failure),
    /// It went wrong by itself.
    Failed(Failure),
}

impl From<SiteError> for Why {
    fn from(error: SiteError) -> Self {
        Self::Site(error)
    }
}

impl Environments {
    /// Where the environment's processes are started: together, when there are several.
    async fn place(&self) -> Result<Arc<dyn Site>, SiteError> {
        let place = match self.extensions.as_slice() {
            [] => None,
            extensions => {
                let together = [extensions, std::slice::from_ref(&self.launch)].concat();
                self.site.enclose(&together, &self.store).await?
            }
        };
        Ok(place.unwrap_or_else(|| self.site.clone()))
    }

    /// Starts an environment and waits until its runtime and all extensions have asked for their first event; it is
    /// frozen then. With it comes the moment until which it might have taken, `limit` behind the start of its processes.
    pub(super) async fn init(&self, limit: Duration, phase: InitPhase) -> Result<(Environment, Instant), NoInit> {
        let environment = variables::log_stream(&self.spec.function);
        self.init_as(&environment, limit, phase).await.map_err(|why| NoInit { environment, why })
    }

    /// The same for an environment whose log stream has this name.
    async fn init_as(&self, name: &str, limit: Duration, phase: InitPhase) -> Result<(Environment, Instant), Why> {
        let function = &self.spec.function;
        let site = self.place().await?;
        // An image may have to be made first, and an engine may take its time: neither is a part of Init.
        let mut deadline = Instant::now() + limit;
        let mut is_over = false;
        let external: Vec<String> = self.extensions.iter().filter_map(|launch| launch.extension.clone()).collect();
        let json_lines =
            self.launch.env.get("AWS_LAMBDA_LOG_FORMAT").is_some_and(|format| format.eq_ignore_ascii_case("json"));
        let about = About {
            function: function.clone(),
            environment: name.to_owned(),
            external: external.clone(),
            in_container: !site.is_local(),
            json_lines,
            ..About::default()
        };
        let mut api = RuntimeApi::start(self.listener.clone(), about, self.store.clone());
        let platform = api.platform().clone();
        platform.init_start(phase);
        let mut processes = Processes::new(function.freezes(), self.current.clone());
        for launch in &self.extensions {
            let mut launch = launch.clone();
            let extension = launch.extension.clone().unwrap_or_default();
            variables::set_for_extension(&mut launch.env, function, &self.runtime_api, name);
            let began = Instant::now();
            match site.launch(launch, self.store.clone()).await {
                Ok(sandbox) => processes.add_extension(extension, sandbox),
                Err(error) => {
                    processes.kill().await;
                    return Err(error.into());
                }
            }
            deadline += began.elapsed();
        }
        let mut unregistered: BTreeSet<String> = external.into_iter().collect();
        let mut waiting = Vec::new();
        let mut idle: BTreeMap<usize, Idle> = BTreeMap::new();
        let failed = loop {
            // Lambda starts the runtime once every external extension has registered.
            if unregistered.is_empty() && processes.runtime().is_none() {
                let mut launch = self.launch.clone();
                let here = launch.directory.as_ref().filter(|_| site.is_local()).map(|here| here.display().to_string());
                let task_root = here.as_deref().unwrap_or(variables::TASK_ROOT);
                variables::set(&mut launch.env, function, &self.runtime_api, name, task_root);
                let began = Instant::now();
                match site.launch(launch, self.store.clone()).await {
                    Ok(sandbox) => processes.add_runtime(sandbox),
                    Err(error) => {
                        processes.kill().await;
                        return Err(error.into());
                    }
                }
                deadline += began.elapsed();
            }
            if !waiting.is_empty() && idle.len() == api.extension_count() {
                break None;
            }
            tokio::select! {
                // What they did comes before their end.
                biased;
                did = api.did.recv() => match did {
                    Some(Did::Registered(name)) => drop(unregistered.remove(&name)),
                    Some(Did::Asked(asked)) => waiting.push(asked),
                    Some(Did::ExtensionAsked { index, waiting }) => drop(idle.insert(index, waiting)),
                    Some(Did::FailedInit(failure)) => {
                        let message = format!("failed in Init: {}: {}", failure.error_type, failure.message);
                        break Some(Why::Failed(Failure { message, ..failure }));
                    }
                    Some(Did::ExtensionFailed { name, during, error }) => {
                        let message = format!("failed in Init: the extension {name} reported an error: {error}");
                        let category = format!("Extension.{during}Error");
                        break Some(Why::Failed(Failure::of_platform(&category, message)));
                    }
                    Some(Did::Answered { .. }) | None => {
                        let message = "answered an invocation that it never had".into();
                        break Some(Why::Failed(Failure::of_platform("Runtime.Unknown", message)));
                    }
                },
                (who, status) = processes.exited() => break Some(Why::Failed(ended(who, &status))),
                () = tokio::time::sleep_until(deadline), if !is_over => {
                    is_over = true;
                    catch_up().await;
                }
                () = std::future::ready(()), if is_over => {
                    let registered = || {
                        let names: Vec<String> = api.extensions().into_iter().map(|extension| extension.name).collect();
                        if names.is_empty() { "none did".to_owned() } else { format!("there is {}", names.join(", ")) }
                    };
                    let (missing, hint) = match (unregistered.first(), waiting.is_empty()) {
                        (Some(name), _) => (
                            format!("the extension {name} did not register"),
                            format!("it registers with its own name in Lambda-Extension-Name ({})", registered()),
                        ),
                        (None, true) => (
                            "did not ask for an event".into(),
                            "does it speak the Lambda Runtime API (AWS_LAMBDA_RUNTIME_API)?".into(),
                        ),
                        (None, false) => {
                            let names = api.extensions();
                            let late = names.iter().enumerate().find(|(index, _)| !idle.contains_key(index));
                            let late = late.map(|(_, extension)| extension.name.clone()).unwrap_or_default();
                            (
                                format!("the extension {late} registered and did not ask for an event"),
                                "Init ends when every extension has called /2020-01-01/extension/event/next".into(),
                            )
                        }
                    };
                    let message = format!("timed out in Init: {missing} within {limit:?}; {hint}");
                    break Some(Why::TimedOut(Failure::of_platform("Sandbox.Timedout", message)));
                }
            }
        };
        if let Some(failed) = failed {
            processes.kill().await;
            let what = processes.what();
            let describe = |failure: Failure| Failure {
                message: format!(
                    "deployment {} ({what}) {}\n{}",
                    self.spec.name,
                    failure.message,
                    last_output(&self.store)
                ),
                ..failure
            };
            let end = match &failed {
                Why::TimedOut(_) => End::Timeout,
                Why::Failed(failure) => End::Error(failure.category.clone()),
                Why::Site(_) => End::Failure("Runtime.Unknown".into()),
            };
            platform.init_done(phase, &end);
            let why = match failed {
                Why::TimedOut(failure) => Why::TimedOut(describe(failure)),
                Why::Failed(failure) => Why::Failed(describe(failure)),
                Why::Site(error) => Why::Site(error),
            };
            self.store.mark(Mark::EnvironmentEnded { environment: name.to_owned(), status: "Init failed".into() });
            return Err(why);
        }
        for extension in api.extensions() {
            let events = [(extension.invoke, "INVOKE"), (extension.shutdown, "SHUTDOWN")];
            let events: Vec<&str> = events.iter().filter(|(asked, _)| *asked).map(|(_, event)| *event).collect();
            platform.extension(&extension.name, "Ready", &events);
        }
        platform.init_done(phase, &End::Success);
        platform.settle_audience(api.has_subscribers());
        match processes.freeze().await {
            Ok(true) => drop(self.store.mark(Mark::Frozen { request_id: None })),
            Ok(false) => {}
            Err(error) => {
                processes.kill().await;
                return Err(error.into());
            }
        }
        let environment = Environment { name: name.to_owned(), processes, api, waiting, idle, invocations: 0 };
        Ok((environment, deadline))
    }
}

/// A process of the environment ended by itself.
fn ended(who: Who, status: &str) -> Failure {
    match who {
        Who::Runtime => Failure::of_platform(
            "Runtime.ExitError",
            format!("ended in Init, before its runtime asked for an event: {status}"),
        ),
        Who::Extension(name) => {
            Failure::of_platform("Extension.Crash", format!("lost its extension {name}, which ended in Init: {status}"))
        }
    }
}
