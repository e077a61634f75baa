//! What proves that a delivery's telemetry is complete, against a service whose exporters are known exactly.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use axum::{Router, extract::State, http::HeaderMap};
use nix::sys::signal::Signal as UnixSignal;
use tokio::{sync::watch, time::Instant};
use tracegate::{
    capture::{Capture, Decoded, Encoding, ExportRequest, Lifecycle, Mark, Signal, Store, Transport},
    config::Config,
    deployment::{Deployment, Exit, Incomplete, Launch, LogFence, Proof, Sandbox, Site, SiteError},
    stimulus::{Caller, ContextForm, Delivery, HttpRequest},
    telemetry::{
        Arrival, IdClaim, LineFormat, LogOrigin, LogRecord, Resource, Scope, Span, SpanId, SpanKind, Status, TraceId,
        Value,
    },
};

/// A service that answers with its workers in turn, and what its instrumentation does.
#[derive(Debug, Clone)]
struct Behaviour {
    workers: usize,
    /// Workers from the first that export anything.
    instrumented: usize,
    /// How much later each span is exported a second time, if it is.
    twice: Option<Duration>,
    /// A path that its instrumentation leaves out.
    excluded: &'static str,
    /// Whether it reads `traceparent`.
    propagates: bool,
    /// Whether it names its instances.
    named: bool,
    /// Processes that requests go to in turn, where they are not its workers: without end where every request has its own.
    processes: Option<usize>,
    /// A path whose requests it answers with the help of another process, with an exporter of its own.
    calls_on: &'static str,
    /// The target of fences.
    fence: &'static str,
    /// Time between that other process's exports, where it is not that of the others.
    behind: Option<Duration>,
    /// Whether the spans that hang on the caller are exported.
    entries: bool,
    /// Paths whose requests write an OTLP log record.
    logs: &'static [&'static str],
    /// Time between exports of spans and of log records.
    delay: [Duration; 2],
}

impl Default for Behaviour {
    fn default() -> Self {
        let delay = [Duration::from_millis(40), Duration::from_millis(120)];
        Self {
            workers: 1,
            instrumented: 1,
            twice: None,
            excluded: "",
            propagates: true,
            named: true,
            processes: None,
            calls_on: "",
            fence: "/healthcheck",
            behind: None,
            entries: true,
            logs: &[],
            delay,
        }
    }
}

#[derive(Debug)]
struct Service {
    behaviour: Behaviour,
    next: AtomicUsize,
    /// Ended spans and written records of each worker, in order.
    queues: Mutex<Vec<(Vec<Span>, Vec<LogRecord>)>>,
    store: Arc<Store>,
}

fn export(signal: Signal) -> ExportRequest {
    ExportRequest {
        signal,
        transport: Transport::Http,
        encoding: Encoding::Protobuf,
        user_agent: String::new(),
        body: bytes::Bytes::new(),
        arrival: Arrival::default(),
    }
}

impl Service {
    fn handle(&self, path: &str, headers: &HeaderMap) {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let worker = number % self.behaviour.workers;
        if worker >= self.behaviour.instrumented || path == self.behaviour.excluded {
            return;
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let parent = text("traceparent");
        let mut ids = parent.split('-').skip(1);
        let ids = ids.next().zip(ids.next()).filter(|_| self.behaviour.propagates);
        let trace_id: TraceId = ids.and_then(|(id, _)| id.parse().ok()).unwrap_or_else(TraceId::random);
        let span_id = SpanId::random();
        let name = match self.behaviour.processes {
            Some(processes) => format!("process-{:03}", number % processes),
            None => format!("worker-{worker}"),
        };
        let instance = self.behaviour.named.then(|| ("service.instance.id", Value::from(name.as_str())));
        let resource = Arc::new(Resource { attributes: instance.into_iter().collect(), schema_url: String::new() });
        let scope = Arc::new(Scope::default());
        let user_agent = Value::from(text("user-agent").as_str());
        let span = Span {
            trace_id,
            span_id,
            parent_span_id: ids.and_then(|(_, id)| id.parse().ok()),
            trace_state: String::new(),
            flags: 1,
            name: format!("GET {path}"),
            kind: SpanKind::Server,
            start_unix_nano: 1,
            end_unix_nano: 2,
            attributes: [("user_agent.original", user_agent)].into_iter().collect(),
            events: Vec::new(),
            links: Vec::new(),
            status: Status::default(),
            resource: resource.clone(),
            scope: scope.clone(),
            arrival: Arrival::default(),
        };
        let mut queues = self.queues.lock().unwrap();
        if path == self.behaviour.calls_on {
            let attributes = [("service.instance.id", "behind".into())].into_iter().collect();
            let resource = Arc::new(Resource { attributes, schema_url: String::new() });
            let called = Span { span_id: SpanId::random(), parent_span_id: Some(span_id), resource, ..span.clone() };
            queues[self.behaviour.workers].0.push(called);
        }
        if self.behaviour.entries {
            queues[worker].0.push(span);
        }
        if self.behaviour.logs.contains(&path) {
            queues[worker].1.push(LogRecord {
                origin: LogOrigin::Otlp,
                format: LineFormat::Otlp,
                arrival: Arrival::default(),
                time_unix_nano: None,
                severity: None,
                logger: String::new(),
                message: path.into(),
                fields: Default::default(),
                trace_id: IdClaim::Valid(trace_id),
                span_id: IdClaim::Valid(span_id),
                request_id: None,
                raw: path.into(),
                body: Value::Empty,
                resource: Some(resource),
                scope: Some(scope),
            });
        }
    }

    async fn export_forever(self: Arc<Self>, worker: usize, signal: Signal) {
        let index = usize::from(signal == Signal::Logs);
        let behind = self.behaviour.behind.filter(|_| worker == self.behaviour.workers);
        let mut due = tokio::time::interval(behind.unwrap_or(self.behaviour.delay[index]));
        loop {
            due.tick().await;
            let mut queues = self.queues.lock().unwrap();
            let decoded = match signal {
                Signal::Logs => Decoded::Logs(std::mem::take(&mut queues[worker].1)),
                _ => Decoded::Spans(std::mem::take(&mut queues[worker].0)),
            };
            if !matches!(&decoded, Decoded::Spans(spans) if spans.is_empty())
                && !matches!(&decoded, Decoded::Logs(records) if records.is_empty())
            {
                if let (Some(later), Signal::Traces) = (self.behaviour.twice, signal) {
                    let (store, copy) = (self.store.clone(), decoded.clone());
                    tokio::spawn(async move {
                        tokio::time::timeout(later, std::future::pending::<()>()).await.unwrap_err();
                        store.add_values(export(signal), copy, Vec::new());
                    });
                }
                self.store.add_values(export(signal), decoded, Vec::new());
            }
        }
    }
}

/// A site whose sandbox is a server in this process.
#[derive(Debug)]
struct Here(Behaviour);

#[derive(Debug)]
struct HereSandbox {
    address: SocketAddr,
    status: watch::Sender<Option<String>>,
}

#[async_trait]
impl Site for Here {
    async fn expose(&self, server: SocketAddr) -> Result<String, SiteError> {
        Ok(server.to_string())
    }

    async fn free_port(&self) -> Result<u16, SiteError> {
        Ok(0)
    }

    async fn launch(&self, _: Launch, store: Arc<Store>) -> Result<Box<dyn Sandbox>, SiteError> {
        let workers = self.0.workers;
        let service = Arc::new(Service {
            behaviour: self.0.clone(),
            next: AtomicUsize::new(0),
            queues: Mutex::new(vec![Default::default(); workers + 1]),
            store,
        });
        for worker in 0..=workers {
            tokio::spawn(service.clone().export_forever(worker, Signal::Traces));
            tokio::spawn(service.clone().export_forever(worker, Signal::Logs));
        }
        let answer = |State(service): State<Arc<Service>>, uri: axum::http::Uri, headers: HeaderMap| async move {
            service.handle(uri.path(), &headers);
            "ok"
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(service);
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Ok(Box::new(HereSandbox { address, status: watch::Sender::new(None) }))
    }
}

#[async_trait]
impl Sandbox for HereSandbox {
    fn what(&self) -> String {
        "a server of the test".into()
    }
    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }
    async fn freeze(&self) -> Result<(), SiteError> {
        Ok(())
    }
    async fn thaw(&self) -> Result<(), SiteError> {
        Ok(())
    }
    async fn exited(&self) -> String {
        self.status.subscribe().wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }
    fn has_exited(&self) -> Option<String> {
        self.status.borrow().clone()
    }
    async fn stop(&self, _: UnixSignal, _: Duration) -> Exit {
        self.kill().await;
        Exit { status: "exit status: 0".into(), orderly: true }
    }
    async fn kill(&self) {
        self.status.send_replace(Some("exit status: 0".into()));
    }
}

async fn start(behaviour: Behaviour) -> Deployment {
    start_with(behaviour, "").await
}

async fn start_with(behaviour: Behaviour, more: &str) -> Deployment {
    let text = format!(
        "[deployments.here]\nkind = \"process\"\ncommand = [\"x\"]\nready = {{ http = \"/healthcheck\" }}\nworkers = {}\nfence = {:?}\n{more}",
        behaviour.workers, behaviour.fence
    );
    let config = Config::parse(&text, Path::new("/"), Path::new("tracegate.toml")).unwrap();
    let (site, sink) = (Arc::new(Here(behaviour)), SocketAddr::from(([127, 0, 0, 1], 4318)));
    let store = Arc::new(Store::default());
    Deployment::start(&config.deployments["here"], vec!["x".into()], site, store, sink, &BTreeMap::new()).await.unwrap()
}

async fn send(deployment: &Deployment, form: ContextForm) -> Delivery {
    let request = HttpRequest {
        method: "GET".into(),
        target: "/files/".into(),
        headers: Vec::new(),
        body: bytes::Bytes::new(),
        caller: Caller::fresh(1, true),
        form,
    };
    deployment.send(request).await.unwrap()
}

async fn settle(deployment: &Deployment, delivery: &Delivery, patience: Duration) -> Result<Proof, Incomplete> {
    deployment.settle(delivery, Instant::now() + patience).await
}

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_fence_is_through_when_what_was_before_it_is_there() {
    let deployment = start(Behaviour { logs: &["/files/", "/healthcheck"], ..Behaviour::default() }).await;
    for _ in 0..5 {
        let delivery = send(&deployment, ContextForm::Both).await;
        let proof = settle(&deployment, &delivery, PATIENCE).await.unwrap();
        let Proof::Fence { instances, logs, .. } = &proof else { panic!("{proof}") };
        assert_eq!((instances.as_slice(), *logs), (&["worker-0".to_owned()][..], LogFence::CameBack));
        assert_eq!(proof.to_string(), "complete: fence came through");
        let trace_id = delivery.trace_id().unwrap();
        deployment.store().look(|capture| {
            assert_eq!(capture.spans_of(trace_id).count(), 1);
            let own = |record: &&Arc<LogRecord>| record.trace_id == IdClaim::Valid(trace_id);
            assert_eq!(capture.logs().iter().filter(own).count(), 1, "log records are exported later than spans here");
        });
    }
}

#[tokio::test]
async fn the_fence_must_come_back_from_the_worker_that_answered() {
    let deployment = start(Behaviour { workers: 3, instrumented: 3, ..Behaviour::default() }).await;
    for _ in 0..4 {
        let delivery = send(&deployment, ContextForm::Both).await;
        let Proof::Fence { instances, .. } = settle(&deployment, &delivery, PATIENCE).await.unwrap() else { panic!() };
        let spans = deployment.store().look(|capture| {
            let spans = capture.spans_of(delivery.trace_id().unwrap());
            spans.map(|span| span.resource.instance().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(spans.len(), 1);
        assert!(instances.contains(&spans[0]), "{instances:?} {spans:?}");
    }
}

#[tokio::test]
async fn a_process_behind_the_one_that_answers_the_fence_is_reached_by_the_request_itself() {
    let deployment = start(Behaviour { calls_on: "/files/", ..Behaviour::default() }).await;
    let delivery = send(&deployment, ContextForm::Both).await;
    // What is behind exports later than what is in front, but the delivery's telemetry shows that it has a part.
    let both = |capture: &Capture| capture.spans_of(delivery.trace_id().unwrap()).count() == 2;
    deployment.store().until(Instant::now() + PATIENCE, |capture| both(capture).then_some(())).await.unwrap();
    let Proof::Fence { instances, .. } = settle(&deployment, &delivery, PATIENCE).await.unwrap() else { panic!() };
    assert_eq!(instances, ["behind", "worker-0"]);
}

/// Fences that another process exports sooner than the one that they come to.
fn uneven() -> Behaviour {
    let delay = [Duration::from_millis(400); 2];
    Behaviour {
        calls_on: "/files/",
        fence: "/files/",
        behind: Some(Duration::from_millis(10)),
        delay,
        ..Behaviour::default()
    }
}

#[tokio::test]
async fn a_fence_that_a_process_behind_exports_sooner_is_no_proof_before_the_one_in_front_has() {
    for workers in [1, 2] {
        let deployment = start(Behaviour { workers, instrumented: workers, ..uneven() }).await;
        for _ in 0..3 {
            let delivery = send(&deployment, ContextForm::Both).await;
            let proof = settle(&deployment, &delivery, PATIENCE).await.unwrap();
            let count = |capture: &Capture| capture.spans_of(delivery.trace_id().unwrap()).count();
            assert_eq!(deployment.store().look(count), 2, "{workers} {proof}");
        }
    }
}

#[tokio::test]
async fn a_service_that_never_shows_where_its_requests_come_in_is_learnt_once() {
    let deployment = start(Behaviour { entries: false, ..uneven() }).await;
    let delivery = send(&deployment, ContextForm::Both).await;
    let began = Instant::now();
    let patience = Duration::from_secs(3);
    settle(&deployment, &delivery, patience).await.unwrap();
    assert!(began.elapsed() >= patience / 2, "{:?}", began.elapsed());
    let fences = fences_sent(&deployment);
    let delivery = send(&deployment, ContextForm::Both).await;
    settle(&deployment, &delivery, patience).await.unwrap();
    assert!(fences_sent(&deployment) <= fences + 2, "{fences} {}", fences_sent(&deployment));
}

#[tokio::test]
async fn a_process_that_no_get_request_reaches_leaves_no_proof_and_the_reason_says_what_to_do() {
    let deployment = start(Behaviour { calls_on: "/files/", ..Behaviour::default() }).await;
    let delivery = Delivery { method: "POST".into(), ..send(&deployment, ContextForm::Both).await };
    let both = |capture: &Capture| capture.spans_of(delivery.trace_id().unwrap()).count() == 2;
    deployment.store().until(Instant::now() + PATIENCE, |capture| both(capture).then_some(())).await.unwrap();
    let incomplete = settle(&deployment, &delivery, Duration::from_millis(300)).await.unwrap_err();
    assert!(incomplete.reason.contains("from behind, worker-0; set `fence`"), "{incomplete}");
}

/// One that came, with its telemetry: then it is known which process answered it.
async fn send_and_see(deployment: &Deployment) -> Delivery {
    let delivery = send(deployment, ContextForm::Both).await;
    let came = |capture: &Capture| capture.spans_of(delivery.trace_id().unwrap()).next().map(drop);
    deployment.store().until(Instant::now() + PATIENCE, came).await.unwrap();
    delivery
}

#[tokio::test]
async fn where_every_request_has_a_process_of_its_own_the_wait_ends_early_and_the_reason_says_why() {
    let deployment = start(Behaviour { processes: Some(usize::MAX), ..Behaviour::default() }).await;
    let delivery = send_and_see(&deployment).await;
    let incomplete = settle(&deployment, &delivery, Duration::from_secs(300)).await.unwrap_err();
    for part in ["process-006 and 11 more", "each fence came back from a process of its own", "set `quiet`"] {
        assert!(incomplete.reason.contains(part), "{part} is missing in: {incomplete}");
    }
    assert!(incomplete.waited < Duration::from_secs(100), "{incomplete}");
}

#[tokio::test]
async fn where_every_request_has_a_process_of_its_own_a_declared_silence_is_enough() {
    let behaviour = Behaviour { processes: Some(usize::MAX), ..Behaviour::default() };
    let deployment = start_with(behaviour, "quiet = \"150ms\"").await;
    let mut sent = Vec::new();
    for _ in 0..2 {
        let delivery = send_and_see(&deployment).await;
        let before = fences_sent(&deployment);
        let proof = settle(&deployment, &delivery, PATIENCE).await.unwrap();
        assert_eq!(proof.to_string(), "nothing for 150ms (no proof)");
        sent.push(fences_sent(&deployment) - before);
    }
    assert!(sent[0] >= 16 && sent[1] == 0, "the second time it is known: {sent:?}");
}

fn fences_sent(deployment: &Deployment) -> usize {
    let is_fence = |entry: &&Lifecycle| matches!(entry.mark, Mark::FenceSent { .. });
    deployment.store().look(|capture| capture.lifecycle().iter().filter(is_fence).count())
}

#[tokio::test]
async fn a_few_processes_that_answer_in_turn_are_waited_for_and_so_are_declared_workers() {
    let deployment = start(Behaviour { processes: Some(10), ..Behaviour::default() }).await;
    let delivery = send_and_see(&deployment).await;
    assert!(matches!(settle(&deployment, &delivery, PATIENCE).await, Ok(Proof::Fence { .. })));
    assert!(fences_sent(&deployment) >= 10, "none but the tenth reaches the process again");
    let workers = Behaviour { workers: 2, instrumented: 2, processes: Some(usize::MAX), ..Behaviour::default() };
    let deployment = start(workers).await;
    let delivery = send_and_see(&deployment).await;
    let incomplete = settle(&deployment, &delivery, Duration::from_secs(1)).await.unwrap_err();
    assert!(!incomplete.reason.contains("of its own") && incomplete.reason.contains(" more; "), "{incomplete}");
    assert!(incomplete.waited >= Duration::from_secs(1), "{incomplete}");
}

#[tokio::test]
async fn a_worker_without_instrumentation_leaves_no_proof_and_the_reason_counts_the_workers() {
    let deployment = start(Behaviour { workers: 3, instrumented: 2, ..Behaviour::default() }).await;
    // The readiness request was the first worker's, these are the second's and the third's.
    let (seen, unseen) = (send(&deployment, ContextForm::Both).await, send(&deployment, ContextForm::Both).await);
    assert!(settle(&deployment, &seen, PATIENCE).await.is_ok());
    let incomplete = settle(&deployment, &unseen, Duration::from_millis(700)).await.unwrap_err();
    assert!(incomplete.reason.contains("instances worker-0, worker-1; 3 workers are configured"), "{incomplete}");
}

#[tokio::test]
async fn workers_that_do_not_name_themselves_cannot_be_told_apart_and_the_reason_says_so() {
    let deployment = start(Behaviour { workers: 2, instrumented: 0, named: false, ..Behaviour::default() }).await;
    let delivery = send(&deployment, ContextForm::Both).await;
    let incomplete = settle(&deployment, &delivery, Duration::from_millis(300)).await.unwrap_err();
    assert!(incomplete.reason.contains("no span of theirs arrived"), "{incomplete}");
    let deployment = start(Behaviour { workers: 2, instrumented: 1, named: false, ..Behaviour::default() }).await;
    let delivery = send(&deployment, ContextForm::Both).await;
    let incomplete = settle(&deployment, &delivery, Duration::from_millis(300)).await.unwrap_err();
    assert!(incomplete.reason.contains("service.instance.id"), "{incomplete}");
}

#[tokio::test]
async fn a_service_that_carries_no_trace_on_is_fenced_by_its_user_agent() {
    let deployment = start(Behaviour { propagates: false, ..Behaviour::default() }).await;
    for form in [ContextForm::Both, ContextForm::Absent] {
        let delivery = send(&deployment, form).await;
        assert_eq!(delivery.trace_id().is_none(), form == ContextForm::Absent);
        assert!(matches!(settle(&deployment, &delivery, PATIENCE).await, Ok(Proof::Fence { .. })));
        let own = Value::from(delivery.user_agent.as_str());
        let spans = deployment.store().look(|capture| {
            let spans = capture.spans().iter();
            spans.filter(|span| span.attributes.get("user_agent.original") == Some(&own)).count()
        });
        assert_eq!(spans, 1);
    }
}

#[tokio::test]
async fn a_fence_target_that_writes_no_log_records_is_learnt_once_and_the_proof_says_what_it_covers() {
    let deployment = start(Behaviour { logs: &["/files/"], ..Behaviour::default() }).await;
    let mut took = Vec::new();
    for _ in 0..2 {
        let delivery = send(&deployment, ContextForm::Both).await;
        let started = Instant::now();
        let proof = settle(&deployment, &delivery, PATIENCE).await.unwrap();
        took.push(started.elapsed());
        assert!(matches!(proof, Proof::Fence { logs: LogFence::NotWritten, .. }), "{proof}");
        assert!(proof.to_string().contains("spans only"));
    }
    assert!(took[1] < Duration::from_millis(1400), "{took:?}");
    let silent = start(Behaviour::default()).await;
    let delivery = send(&silent, ContextForm::Both).await;
    let proof = settle(&silent, &delivery, PATIENCE).await.unwrap();
    assert!(matches!(proof, Proof::Fence { logs: LogFence::NeverExported, .. }), "{proof}");
}

#[tokio::test]
async fn the_harness_knows_its_own_traces_from_those_of_scenarios() {
    let deployment = start(Behaviour::default()).await;
    let delivery = send(&deployment, ContextForm::Both).await;
    settle(&deployment, &delivery, PATIENCE).await.unwrap();
    let own = deployment.own_traces();
    let strangers = deployment.store().look(|capture| {
        let spans = capture.spans().iter().map(|span| span.trace_id);
        spans.filter(|trace_id| !own.contains(trace_id)).collect::<Vec<_>>()
    });
    assert_eq!(strangers, [delivery.trace_id().unwrap()]);
}

#[tokio::test]
async fn what_has_exited_needs_no_fence() {
    let deployment = start(Behaviour { instrumented: 0, ..Behaviour::default() }).await;
    let delivery = send(&deployment, ContextForm::Both).await;
    deployment.stop(UnixSignal::SIGTERM, PATIENCE).await;
    let proof = settle(&deployment, &delivery, PATIENCE).await.unwrap();
    assert_eq!(proof, Proof::Exited { status: "exit status: 0".into() });
    let request = HttpRequest {
        method: "GET".into(),
        target: "/".into(),
        headers: Vec::new(),
        body: bytes::Bytes::new(),
        caller: Caller::fresh(1, true),
        form: ContextForm::Both,
    };
    let error = deployment.send(request).await.unwrap_err();
    assert!(error.what.contains("has ended: exit status: 0"), "{error}");
}

#[tokio::test]
async fn a_fence_target_without_instrumentation_leaves_no_proof_and_the_reason_names_the_settings_that_help() {
    let deployment = start(Behaviour { excluded: "/healthcheck", ..Behaviour::default() }).await;
    let delivery = send(&deployment, ContextForm::Both).await;
    let incomplete = settle(&deployment, &delivery, Duration::from_millis(300)).await.unwrap_err();
    for part in ["1 spans were received", "`fence`", "`quiet`", "left out of the instrumentation"] {
        assert!(incomplete.reason.contains(part), "{part} is missing in: {incomplete}");
    }
    let silent = start(Behaviour { instrumented: 0, ..Behaviour::default() }).await;
    let delivery = send(&silent, ContextForm::Both).await;
    let incomplete = settle(&silent, &delivery, Duration::from_millis(300)).await.unwrap_err();
    assert!(incomplete.reason.contains("OTEL_EXPORTER_OTLP_ENDPOINT"), "{incomplete}");
}

#[tokio::test]
async fn another_fence_target_is_used_where_the_readiness_target_is_not_instrumented() {
    let behaviour = Behaviour { excluded: "/healthcheck", ..Behaviour::default() };
    let deployment = start(Behaviour { fence: "/files/", ..behaviour }).await;
    let delivery = send(&deployment, ContextForm::Both).await;
    assert!(matches!(settle(&deployment, &delivery, PATIENCE).await, Ok(Proof::Fence { .. })));
}

#[tokio::test]
async fn a_declared_silence_is_enough_where_no_fence_comes_back_and_the_proof_says_so() {
    let behaviour = Behaviour { excluded: "/healthcheck", ..Behaviour::default() };
    let deployment = start_with(behaviour, "quiet = \"150ms\"").await;
    for patience in [Duration::from_secs(2), PATIENCE] {
        let delivery = send(&deployment, ContextForm::Both).await;
        let started = Instant::now();
        let proof = settle(&deployment, &delivery, patience).await.unwrap();
        assert_eq!(proof.to_string(), "nothing for 150ms (no proof)");
        assert!(started.elapsed() < Duration::from_secs(3), "the second time no fence is waited for");
        let came = deployment.store().look(|capture| capture.spans_of(delivery.trace_id().unwrap()).count());
        assert_eq!(came, 1);
    }
}

#[tokio::test]
async fn a_fence_that_comes_back_is_a_proof_although_a_silence_is_declared() {
    let deployment = start_with(Behaviour::default(), "quiet = \"1ms\"").await;
    let delivery = send(&deployment, ContextForm::Both).await;
    assert!(matches!(settle(&deployment, &delivery, PATIENCE).await, Ok(Proof::Fence { .. })));
}

#[tokio::test]
async fn where_spans_are_exported_twice_a_fence_is_through_with_its_second_copy() {
    let behaviour = Behaviour { twice: Some(Duration::from_millis(60)), ..Behaviour::default() };
    let deployment = start(behaviour).await;
    for round in 0..4 {
        let delivery = send(&deployment, ContextForm::Both).await;
        settle(&deployment, &delivery, PATIENCE).await.unwrap();
        let came = deployment.store().look(|capture| capture.spans_of(delivery.trace_id().unwrap()).count());
        // The first one teaches.
        assert!(came == 2 || round == 0, "{came}");
    }
}
