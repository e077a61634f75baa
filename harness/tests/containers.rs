//! Containers as a site, with a real engine. Where none answers these tests say so and pass, unless
//! `TRACEGATE_REQUIRE=container` is set.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use testcontainers::{
    bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptionsBuilder},
    core::client::docker_client_instance,
};
use tracegate::{
    capture::{Mark, Store, sink},
    config::Config,
    deployment::{
        Deployment, Launch, Sandbox, Site, SiteError,
        artifact::{self, Linking},
        container::{ContainerSite, LABEL, engine_available},
    },
    telemetry::LogOrigin,
};

const TRACEGATE: &str = env!("CARGO_BIN_EXE_tracegate");

/// A service with nothing in it but the standard library. Its first argument says what it does.
const SUBJECT: &str = r##"
use std::io::{Read, Write};
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments[0].as_str() {
        "say" => {
            println!("to stdout");
            eprintln!("to stderr");
            print!("without a line feed");
            std::io::stdout().flush().unwrap();
            std::process::exit(arguments[1].parse().unwrap());
        }
        "export" => {
            let body = r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"over the tunnel"}}]}]}]}"#;
            let endpoint = std::env::var("ENDPOINT").unwrap();
            let mut stream = std::net::TcpStream::connect(&endpoint).unwrap();
            write!(stream, "POST /v1/logs HTTP/1.1\r\nhost: sink\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            println!("{}", answer.lines().next().unwrap());
        }
        "tick" => {
            for i in 0.. {
                println!("tick {i}");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        other => panic!("cannot {other}"),
    }
}
"##;

async fn engine() -> bool {
    match engine_available().await {
        Ok(()) => true,
        Err(error) if std::env::var("TRACEGATE_REQUIRE").is_ok_and(|required| required.contains("container")) => {
            panic!("TRACEGATE_REQUIRE asks for containers: {error}")
        }
        Err(error) => {
            println!("not run: {error}");
            false
        }
    }
}

struct Fixture {
    config: Config,
    site: ContainerSite,
    store: Arc<Store>,
    program: Vec<String>,
}

impl Fixture {
    /// A site for the deployment with this name.
    async fn new(name: &str, source: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("container-subject");
        std::fs::create_dir_all(folder.join("src")).unwrap();
        write_if_other(&folder.join("src/main.rs"), SUBJECT);
        write_if_other(&folder.join("Cargo.toml"), "[package]\nname = 'subject'\nedition = '2024'\n[workspace]\n");
        let text = format!("[deployments.{name}]\nkind = 'container'\nready = {{ http = '/' }}\n{source}");
        let config = Config::parse(&text, &folder, Path::new("tracegate.toml")).unwrap();
        let deployment = &config.deployments[name];
        let program = artifact::program(&config, deployment, Linking::for_kind(deployment.kind)).await.unwrap();
        let site = ContainerSite::new(&config, deployment, Path::new(TRACEGATE)).await.unwrap();
        Self { config, site, store: Arc::new(Store::default()), program }
    }

    async fn subject(name: &str) -> Self {
        Self::new(name, "cargo = { package = 'subject' }").await
    }

    async fn launch(&self, arguments: &[&str], env: &[(&str, &str)], port: Option<u16>) -> Box<dyn Sandbox> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned());
        let launch = Launch {
            command: self.program.iter().cloned().chain(arguments).collect(),
            env: env.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>(),
            port,
            ..Launch::default()
        };
        self.site.launch(launch, self.store.clone()).await.unwrap()
    }

    /// Starts it as a run does, until it is ready.
    async fn deploy(self, name: &str, arguments: &[&str]) -> Result<Deployment, SiteError> {
        let program = self.program.iter().cloned().chain(arguments.iter().map(|&argument| argument.to_owned()));
        let sink = sink::Sink::start(self.store.clone()).await.unwrap();
        let (spec, site) = (&self.config.deployments[name], Arc::new(self.site));
        Deployment::start(spec, program.collect(), site, self.store, sink.address(), &BTreeMap::new()).await
    }

    fn lines(&self, origin: LogOrigin) -> Vec<String> {
        self.store.look(|capture| {
            capture.logs().iter().filter(|log| log.origin == origin).map(|log| log.raw.clone()).collect()
        })
    }

    /// Waits until `count` lines have arrived.
    async fn lines_arrive(&self, count: usize) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let arrived = self.store.until(deadline, |capture| (capture.logs().len() >= count).then_some(()));
        arrived.await.expect("the container writes");
    }
}

fn write_if_other(path: &Path, text: &str) {
    if std::fs::read_to_string(path).ok().as_deref() != Some(text) {
        std::fs::write(path, text).unwrap();
    }
}

/// How many containers and networks carry the label of this deployment, neighbours not counted.
async fn left_of(deployment: &str) -> usize {
    let docker = docker_client_instance().await.unwrap();
    let filters = HashMap::from([("label", vec![format!("{LABEL}={deployment}")])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let containers = docker.list_containers(Some(options)).await.unwrap().len();
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    containers + docker.list_networks(Some(options)).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_exports_and_writes_is_in_the_store_when_it_has_exited() {
    if !engine().await {
        return;
    }
    let fixture = Fixture::subject("export").await;
    let sink = sink::Sink::start(fixture.store.clone()).await.unwrap();
    let endpoint = fixture.site.expose(sink.address()).await.unwrap();
    let sandbox = fixture.launch(&["export"], &[("ENDPOINT", &endpoint)], None).await;
    assert_eq!(sandbox.exited().await, "exit status: 0");
    assert_eq!(fixture.lines(LogOrigin::Stdout), ["HTTP/1.1 200 OK"]);
    assert_eq!(fixture.lines(LogOrigin::Otlp), ["over the tunnel"]);
    // A second server, which was not there when the neighbour started.
    let later = sink::Sink::start(fixture.store.clone()).await.unwrap();
    let endpoint = fixture.site.expose(later.address()).await.unwrap();
    let sandbox = fixture.launch(&["export"], &[("ENDPOINT", &endpoint)], None).await;
    assert_eq!(sandbox.exited().await, "exit status: 0");
    assert_eq!(fixture.lines(LogOrigin::Otlp).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_streams_are_taken_to_their_last_byte_between_the_marks_of_start_and_exit() {
    if !engine().await {
        return;
    }
    let fixture = Fixture::subject("say").await;
    let sandbox = fixture.launch(&["say", "3"], &[], None).await;
    assert_eq!(sandbox.exited().await, "exit status: 3");
    assert_eq!(fixture.lines(LogOrigin::Stdout), ["to stdout", "without a line feed"]);
    assert_eq!(fixture.lines(LogOrigin::Stderr), ["to stderr"]);
    fixture.store.look(|capture| {
        let marks: Vec<_> = capture.lifecycle().iter().map(|entry| &entry.mark).collect();
        assert!(matches!(marks[..], [Mark::Started { .. }, Mark::Exited { .. }]), "{marks:?}");
        let (started, exited) = (capture.lifecycle()[0].arrival, capture.lifecycle()[1].arrival);
        assert!(capture.logs().iter().all(|log| started < log.arrival && log.arrival < exited));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_service_is_reached_on_loopback_and_stops_in_order_at_sigterm() {
    if !engine().await {
        return;
    }
    let fixture = Fixture::new("http", &format!("binary = {TRACEGATE:?}")).await;
    // The first start packs the neighbour's image; what a run pays for each deployment is the second.
    let began = Instant::now();
    let sandbox = fixture.launch(&["serve", "--host", "0.0.0.0", "--port", "8080"], &[], Some(8080)).await;
    let address = sandbox.address().unwrap();
    assert!(address.ip().is_loopback());
    fixture.lines_arrive(1).await;
    let answer = reqwest::get(format!("http://{address}{}", sink::HEALTH)).await.unwrap();
    assert_eq!(answer.status(), 200);
    println!("network, neighbour and service took {:?}", began.elapsed());
    let exit = sandbox.stop(Signal::SIGTERM, Duration::from_secs(20)).await;
    assert_eq!((exit.status.as_str(), exit.orderly), ("exit status: 0", true));
    assert_eq!(fixture.config.deployments["http"].port, fixture.site.free_port().await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_exits_at_once_is_an_error_with_its_status_and_its_last_output() {
    if !engine().await {
        return;
    }
    let error = Fixture::subject("exits").await.deploy("exits", &["say", "3"]).await.unwrap_err();
    for part in [
        "deployment exits (container ",
        "ended before it was ready: exit status: 3",
        "stdout | to stdout",
        "stdout | without a line feed",
        "stderr | to stderr",
    ] {
        assert!(error.what.contains(part), "{part} is missing in: {error}");
    }
    // One that goes on is no such case, whatever it lacks.
    let fixture = Fixture::new("stays", &format!("port = 8080\nbinary = {TRACEGATE:?}")).await;
    let deployment = fixture.deploy("stays", &["serve", "--host", "0.0.0.0", "--port", "8080"]).await.unwrap();
    assert_eq!(deployment.crashed(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_arrives_from_a_frozen_container_until_it_is_thawed() {
    if !engine().await {
        return;
    }
    let fixture = Fixture::subject("frozen").await;
    let sandbox = fixture.launch(&["tick"], &[], None).await;
    fixture.lines_arrive(20).await;
    sandbox.freeze().await.unwrap();
    sandbox.freeze().await.unwrap();
    let frozen = fixture.store.mark(Mark::Frozen { request_id: None });
    // What was on its way would come meanwhile.
    sandbox.drain().await;
    let thawed = fixture.store.mark(Mark::Thawed);
    sandbox.thaw().await.unwrap();
    sandbox.thaw().await.unwrap();
    let before = fixture.lines(LogOrigin::Stdout).len();
    fixture.lines_arrive(before + 20).await;
    sandbox.kill().await;
    fixture.store.look(|capture| {
        let between = capture.logs().iter().filter(|log| frozen < log.arrival && log.arrival < thawed).count();
        assert_eq!(between, 0);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_ignores_the_signal_is_killed_after_its_grace_even_when_frozen() {
    if !engine().await {
        return;
    }
    let fixture = Fixture::subject("stubborn").await;
    let sandbox = fixture.launch(&["tick"], &[], None).await;
    fixture.lines_arrive(1).await;
    sandbox.freeze().await.unwrap();
    // As process 1 without a handler it does not even notice SIGTERM.
    let exit = sandbox.stop(Signal::SIGTERM, Duration::from_millis(300)).await;
    assert_eq!((exit.status.as_str(), exit.orderly), ("signal: 9 (SIGKILL)", false));
    assert_eq!(sandbox.has_exited().as_deref(), Some("signal: 9 (SIGKILL)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_behind_by_dropping_wherever_that_happens() {
    if !engine().await {
        return;
    }
    let fixture = Fixture::subject("dropped").await;
    let sandbox = fixture.launch(&["tick"], &[], None).await;
    assert_eq!(left_of("dropped").await, 2);
    // Outside of any runtime, and while unwinding.
    let unwound = std::thread::spawn(move || {
        let _held = (sandbox, fixture);
        std::panic::resume_unwind(Box::new("meant"))
    });
    assert!(tokio::task::spawn_blocking(|| unwound.join()).await.unwrap().is_err());
    assert_eq!(left_of("dropped").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_interrupted_leaves_nothing_behind() {
    if !engine().await {
        return;
    }
    let fixture = Fixture::subject("interrupted").await;
    {
        let launch = fixture.launch(&["tick"], &[], None);
        tokio::pin!(launch);
        // Polled until its network is there, and dropped then.
        loop {
            tokio::select! {
                biased;
                _ = &mut launch => panic!("it started before it could be interrupted"),
                left = left_of("interrupted") => if left > 0 { break },
            }
        }
    }
    drop(fixture);
    assert_eq!(left_of("interrupted").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_not_there_is_an_error_that_names_the_deployment() {
    if !engine().await {
        return;
    }
    let fixture = Fixture::new("missing", "image = 'localhost:1/no/such:image'").await;
    let error = fixture.site.launch(Launch::default(), fixture.store.clone()).await.unwrap_err();
    assert!(error.to_string().contains("deployment `missing`: cannot start its container"), "{error}");
    drop(fixture);
    assert_eq!(left_of("missing").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_linux_executable_is_refused_before_anything_is_started() {
    if !engine().await {
        return;
    }
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(script.path(), "#!/bin/sh\n").unwrap();
    let fixture = Fixture::new("script", &format!("binary = {:?}", script.path())).await;
    let launch = Launch { command: fixture.program.clone(), ..Launch::default() };
    let error = fixture.site.launch(launch, fixture.store.clone()).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("not a 64-bit Linux executable"), "{error}: {cause}");
    assert_eq!(left_of("script").await, 0);
}
