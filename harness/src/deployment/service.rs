//! A service that serves HTTP: its start, its readiness, and requests to it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{Launch, Sandbox, Site, SiteError, fence::Fences};
use crate::{
    capture::{Mark, Store},
    config::{self, Ready},
    stimulus::{Caller, ContextForm, HttpRequest, HttpResponse, http},
    telemetry::{Arrival, LogOrigin},
};

/// Lines of output that an error shows.
const LAST_LINES: usize = 20;

/// How often a service that does not answer yet is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// How long the exit of a service that closed a connection is waited for, to name it in the error.
const CRASHES: Duration = Duration::from_millis(500);

/// How long the exit of what was started and has no address is waited for.
const ENDS: Duration = Duration::from_secs(5);

/// A running service that serves HTTP.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) sandbox: Box<dyn Sandbox>,
    pub(super) address: SocketAddr,
    pub(super) fences: Fences,
}

impl Service {
    /// Starts it and waits until it is ready.
    pub(super) async fn start(
        spec: &config::Deployment,
        launch: Launch,
        site: &dyn Site,
        store: &Arc<Store>,
    ) -> Result<Self, SiteError> {
        let sandbox = site.launch(launch, store.clone()).await?;
        // A busy engine may take half a minute to create a container; that is no time that the service had.
        let deadline = Instant::now() + spec.start_timeout;
        let Some(address) = sandbox.address() else {
            // An engine publishes no port of a container that has exited; its status is known once its output is here.
            let known_by = deadline.min(Instant::now() + ENDS);
            let what = match tokio::time::timeout_at(known_by, sandbox.exited()).await {
                Ok(status) => format!("ended before it was ready: {status}\n{}", last_output(store)),
                Err(_) => "has no address that can be reached".into(),
            };
            return Err(SiteError::new(format!("deployment {} ({}) {what}", spec.name, sandbox.what())));
        };
        let service = Self { sandbox, address, fences: Fences::default() };
        service.become_ready(spec, store, deadline).await?;
        // A service that could not bind its port exits; then the answer came from whoever holds the port.
        if let Some(status) = service.sandbox.has_exited() {
            return Err(SiteError::new(format!(
                "deployment {} ({}) ended during its start ({status}); if something answers on {address}, it is another \
                 process that holds the port\n{}",
                spec.name,
                service.sandbox.what(),
                last_output(store)
            )));
        }
        store.mark(Mark::Ready);
        Ok(service)
    }

    async fn become_ready(
        &self,
        spec: &config::Deployment,
        store: &Arc<Store>,
        deadline: Instant,
    ) -> Result<(), SiteError> {
        let mut state = String::from("nothing happened");
        let ready = async {
            match spec.ready.as_ref() {
                None => {}
                Some(Ready::Log(text)) => {
                    state = format!("no line contains {text:?}");
                    let far = deadline + Duration::from_secs(1);
                    let seen = store.until(far, |capture| {
                        capture
                            .logs()
                            .iter()
                            .any(|record| record.origin != LogOrigin::Otlp && record.raw.contains(text))
                            .then_some(())
                    });
                    if seen.await.is_none() {
                        // The deadline outside of this wait is the earlier one and names the reason.
                        std::future::pending::<()>().await;
                    }
                }
                Some(Ready::Http(target)) => {
                    let mut again = tokio::time::interval(ASK_AGAIN);
                    loop {
                        again.tick().await;
                        let request = probe(target);
                        let mark = next_mark("tracegate-ready");
                        let after = store.mark(Mark::ReadyAsked).seq;
                        self.fences.own(&request.caller);
                        match http::send(self.address, &request, &mark, spec.request_timeout).await {
                            Ok(response) if response.status < 500 => {
                                if target == spec.fence_target() {
                                    self.fences.note(&request.caller, &mark, after);
                                }
                                return;
                            }
                            Ok(response) => state = format!("GET {target} is answered with {}", response.status),
                            Err(error) => {
                                if matches!(error, http::HttpError::NoConnection { .. }) {
                                    store.mark(Mark::ReadyUnheard);
                                }
                                state = error.to_string();
                            }
                        }
                    }
                }
            }
        };
        let ended = tokio::select! {
            biased;
            status = self.sandbox.exited() => Some(status),
            outcome = tokio::time::timeout_at(deadline, ready) => match outcome {
                Ok(()) => return Ok(()),
                Err(_) => None,
            },
        };
        let what = match ended {
            Some(status) => format!("ended before it was ready: {status}"),
            None => {
                let hint = if spec.kind.is_container() || !state.contains("no connection") {
                    ""
                } else {
                    "; is it told its port? `{port}` in `command`, `args` or `env` stands for it"
                };
                format!("was not ready within {:?}: {state}{hint}", spec.start_timeout)
            }
        };
        Err(SiteError::new(format!(
            "deployment {} ({}) {what}\n{}",
            spec.name,
            self.sandbox.what(),
            last_output(store)
        )))
    }

    /// Sends a request as `user_agent`, over a connection that is kept, if any, and marks its answer with `answered`.
    pub(super) async fn send(
        &self,
        spec: &config::Deployment,
        store: &Arc<Store>,
        (request, kept): (&HttpRequest, Option<&http::Connection>),
        user_agent: &str,
        answered: Mark,
    ) -> Result<(HttpResponse, Arrival), SiteError> {
        let ended = |status: String| {
            SiteError::new(format!(
                "deployment {} ({}) has ended: {status}\n{}",
                spec.name,
                self.sandbox.what(),
                last_output(store)
            ))
        };
        if let Some(status) = self.sandbox.has_exited() {
            return Err(ended(status));
        }
        let marking = store.clone();
        let mark = move || marking.mark(answered);
        match http::send_noting(kept, self.address, request, user_agent, spec.request_timeout, mark).await {
            Ok(answered) => Ok(answered),
            Err(error) => {
                // A crash closes the connection a moment before the exit is known.
                let patience = if matches!(error, http::HttpError::TimedOut { .. }) { Duration::ZERO } else { CRASHES };
                let state = match tokio::time::timeout(patience, self.sandbox.exited()).await {
                    Ok(status) => format!("has ended: {status}"),
                    Err(_) => "is running".into(),
                };
                Err(SiteError::because(
                    format!(
                        "deployment {} ({}) gave no answer and {state}: {error}\n{}",
                        spec.name,
                        self.sandbox.what(),
                        last_output(store)
                    ),
                    error,
                ))
            }
        }
    }
}

/// A request of the harness's own, with a fresh sampled trace.
pub(super) fn probe(target: &str) -> HttpRequest {
    HttpRequest {
        method: "GET".into(),
        target: target.into(),
        headers: vec![("Accept".into(), "*/*".into())],
        body: Bytes::new(),
        caller: Caller::fresh(epoch_seconds(), true),
        form: ContextForm::Both,
    }
}

pub(super) fn epoch_seconds() -> u32 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

/// A `User-Agent` that nobody else in this run has, and hardly anybody in another. None is the beginning of another one:
/// a line that quotes the 62nd must not be found in one that quotes the 622nd.
pub(super) fn next_mark(product: &str) -> String {
    static RUN: std::sync::LazyLock<u32> = std::sync::LazyLock::new(rand::random);
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{product}/{:08x}-{:08}", *RUN, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The last lines of stdout and stderr, for an error.
pub(super) fn last_output(store: &Store) -> String {
    let lines: Vec<String> = store.look(|capture| {
        let lines = capture.logs().iter().rev().filter(|record| record.origin != LogOrigin::Otlp);
        lines.take(LAST_LINES).map(|record| format!("  {} | {}", record.origin, record.raw)).collect()
    });
    if lines.is_empty() {
        return "it wrote nothing to stdout or stderr".into();
    }
    format!("its last output:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mark_is_the_beginning_of_another_one() {
        let marks: Vec<String> = (0..200).map(|_| next_mark("x")).collect();
        let is_within = |one: &String| marks.iter().filter(|other| other.contains(one.as_str())).count();
        assert!(marks.iter().all(|mark| is_within(mark) == 1));
    }
}
