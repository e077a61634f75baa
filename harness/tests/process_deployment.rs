//! HTTP services in real processes: start, readiness, requests, and the ways in which a start fails.
//!
//! The service is a test of this file too: a deployment starts this test binary again with its name.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use nix::sys::signal::Signal;
use tracegate::{
    capture::{Mark, Store},
    config::Config,
    deployment::{Deployment, Exit, SiteError, process::ProcessSite},
    stimulus::{Caller, ContextForm, HttpRequest},
    telemetry::LogOrigin,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Serves on `SERVE`; `BEHAVIOUR` says what is wrong with it.
#[tokio::test]
async fn service() {
    let Ok(port) = std::env::var("SERVE") else { return };
    let behaviour = std::env::var("BEHAVIOUR").unwrap_or_default();
    println!("endpoint {}", std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").unwrap_or_default());
    if behaviour == "exits" {
        eprintln!("BUCKET is not set");
        std::process::exit(2);
    }
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await.unwrap();
    println!("listening on {port}");
    let app = Router::new().fallback(move |request: Request| {
        let behaviour = behaviour.clone();
        async move {
            match (behaviour.as_str(), request.uri().path()) {
                ("unready", _) => (axum::http::StatusCode::SERVICE_UNAVAILABLE, "no database".to_owned()),
                (_, "/crash") => std::process::exit(4),
                (_, "/hang") => std::future::pending().await,
                _ => (axum::http::StatusCode::OK, format!("{} {:?}", request.uri(), request.headers())),
            }
        }
    });
    tokio::select! {
        served = axum::serve(listener, app).into_future() => served.unwrap(),
        _ = tokio::signal::ctrl_c() => println!("interrupted"),
    }
}

async fn start(settings: &str) -> Result<Deployment, SiteError> {
    let text = format!("[deployments.api]\nkind = \"process\"\ncommand = [\"x\"]\n{settings}\n[upstreams.s3]\n");
    let config = Config::parse(&text, Path::new("/"), Path::new("tracegate.toml")).unwrap();
    let executable = std::env::current_exe().unwrap().display().to_string();
    let program = [&executable, "service", "--exact", "--nocapture"].map(str::to_owned).to_vec();
    let placeholders = BTreeMap::from([("upstream.s3".to_owned(), "http://127.0.0.1:9".to_owned())]);
    let (sink, store) = (SocketAddr::from(([127, 0, 0, 1], 4318)), Arc::new(Store::default()));
    Deployment::start(&config.deployments["api"], program, Arc::new(ProcessSite), store, sink, &placeholders).await
}

fn get(target: &str) -> HttpRequest {
    HttpRequest {
        method: "GET".into(),
        target: target.into(),
        headers: Vec::new(),
        body: bytes::Bytes::new(),
        caller: Caller::fresh(1, true),
        form: ContextForm::Both,
    }
}

fn lines(deployment: &Deployment) -> Vec<String> {
    deployment.store().look(|capture| {
        let lines = capture.logs().iter().filter(|record| record.origin == LogOrigin::Stdout);
        lines.map(|record| record.raw.clone()).collect()
    })
}

#[tokio::test]
async fn a_service_is_told_its_port_the_endpoint_and_what_placeholders_stand_for() {
    let deployment =
        start("ready = { http = \"/healthcheck?x={port}\" }\nenv = { SERVE = \"{port}\", S3 = \"{upstream.s3}\" }")
            .await;
    let deployment = deployment.unwrap();
    let lines = lines(&deployment);
    assert!(lines.contains(&"endpoint http://127.0.0.1:4318".to_owned()), "{lines:?}");
    let delivery = deployment.send(get("/a/%2e%2e/b?c=+")).await.unwrap();
    let body = String::from_utf8(delivery.response.body.to_vec()).unwrap();
    assert!(body.starts_with("/a/%2e%2e/b?c=+ "), "{body}");
    assert!(body.contains(&delivery.mark) && body.contains(&delivery.caller.unwrap().traceparent()), "{body}");
    assert!(delivery.sent < delivery.answered && delivery.invocation.is_none());
    deployment.store().look(|capture| {
        // How often it was asked whether it is ready depends on how soon it was.
        let marks = capture.lifecycle().iter().map(|made| &made.mark);
        let asked = |mark: &Mark| matches!(mark, Mark::ReadyAsked | Mark::ReadyUnheard);
        let marks: Vec<&Mark> = marks.filter(|mark| !asked(mark)).collect();
        let delivery = || delivery.mark.clone();
        assert!(matches!(marks[0], Mark::Started { .. }));
        assert_eq!(
            marks[1..],
            [&Mark::Ready, &Mark::Sent { delivery: delivery() }, &Mark::Answered { delivery: delivery() }]
        );
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_stamped_when_it_comes_while_the_thread_that_waits_for_it_is_kept_busy() {
    let deployment = start("ready = { http = \"/\" }\nenv = { SERVE = \"{port}\" }").await.unwrap();
    let answered = |capture: &tracegate::capture::Capture| {
        capture.lifecycle().iter().any(|made| matches!(made.mark, Mark::Answered { .. }))
    };
    // Both are polled by one thread, which this keeps until the answer was stamped.
    let busy = async {
        let began = std::time::Instant::now();
        while !deployment.store().look(answered) && began.elapsed() < PATIENCE {
            std::thread::yield_now();
        }
        began.elapsed() < PATIENCE
    };
    let (delivery, stamped) = tokio::join!(biased; deployment.send(get("/")), busy);
    assert!(stamped, "only once the thread was free");
    assert_eq!(delivery.unwrap().response.status, 200);
}

#[tokio::test]
async fn a_line_of_output_can_say_that_a_service_is_ready_and_an_interrupt_lets_it_end() {
    let deployment = start("ready = { log = \"listening on\" }\nenv = { SERVE = \"{port}\" }").await.unwrap();
    assert_eq!(deployment.send(get("/")).await.unwrap().response.status, 200);
    let exit = deployment.stop(Signal::SIGINT, PATIENCE).await;
    assert_eq!(exit, Exit { status: "exit status: 0".into(), orderly: true });
    assert!(lines(&deployment).contains(&"interrupted".to_owned()));
}

#[tokio::test]
async fn a_service_that_ends_during_its_start_is_an_error_at_once_with_its_last_output() {
    for ready in ["http = \"/\"", "log = \"listening\""] {
        let settings = format!("ready = {{ {ready} }}\nenv = {{ SERVE = \"{{port}}\", BEHAVIOUR = \"exits\" }}");
        let error = start(&settings).await.unwrap_err();
        assert!(error.what.contains("ended before it was ready: exit status: 2"), "{error}");
        assert!(error.what.contains("stderr | BUCKET is not set"), "{error}");
    }
}

#[tokio::test]
async fn a_service_that_does_not_become_ready_in_time_is_an_error_that_says_what_it_answers() {
    let env = "start-timeout = \"400ms\"\nenv = { SERVE = \"{port}\", BEHAVIOUR = \"unready\" }";
    let error = start(&format!("ready = {{ http = \"/healthcheck\" }}\n{env}")).await.unwrap_err();
    assert!(error.what.contains("not ready within 400ms: GET /healthcheck is answered with 503"), "{error}");
    assert!(error.what.contains("stdout | listening on"), "{error}");
    let error = start(&format!("ready = {{ log = \"accepting\" }}\n{env}")).await.unwrap_err();
    assert!(error.what.contains("no line contains \"accepting\""), "{error}");
}

/// Its worker ends at SIGUSR1, which the leader sends it, and says when it got SIGTERM itself. The leader waits for it.
const SUPERVISOR: &str = r#"
trap 'kill -USR1 $!; wait $!; exit 0' TERM
sh -c '
  trap "echo the worker was signalled" TERM
  trap "over=1" USR1
  echo the worker is up
  until [ "$over" ]; do sleep 0.01; done
  echo the worker flushed
' &
while :; do sleep 0.01; done
"#;

async fn supervised(setting: &str) -> Deployment {
    let text = format!(
        "[deployments.api]\nkind = \"process\"\ncommand = [\"sh\"]\nready = {{ log = \"the worker is up\" }}\n{setting}"
    );
    let config = Config::parse(&text, Path::new("/"), Path::new("tracegate.toml")).unwrap();
    let program = ["sh", "-c", SUPERVISOR].map(str::to_owned).to_vec();
    let (sink, store) = (SocketAddr::from(([127, 0, 0, 1], 4318)), Arc::new(Store::default()));
    let (spec, site) = (&config.deployments["api"], Arc::new(ProcessSite));
    Deployment::start(spec, program, site, store, sink, &BTreeMap::new()).await.unwrap()
}

#[tokio::test]
async fn a_stop_signals_every_process_of_the_group_or_its_leader_alone_as_the_setting_says() {
    for (setting, worker_signalled) in [("", true), ("signal-to = \"group\"", true), ("signal-to = \"leader\"", false)]
    {
        let deployment = supervised(setting).await;
        let exit = deployment.stop(Signal::SIGTERM, PATIENCE).await;
        assert_eq!(exit, Exit { status: "exit status: 0".into(), orderly: true }, "{setting}");
        let lines = lines(&deployment);
        assert!(lines.contains(&"the worker flushed".to_owned()), "{setting}: {lines:?}");
        assert_eq!(lines.contains(&"the worker was signalled".to_owned()), worker_signalled, "{setting}: {lines:?}");
    }
}

#[tokio::test]
async fn a_service_that_crashes_or_hangs_gives_an_error_that_tells_the_two_apart() {
    let deployment =
        start("ready = { http = \"/\" }\nrequest-timeout = \"300ms\"\nenv = { SERVE = \"{port}\" }").await.unwrap();
    let error = deployment.send(get("/hang")).await.unwrap_err();
    assert!(error.what.contains("is running") && error.what.contains("within 300ms"), "{error}");
    let error = deployment.send(get("/crash")).await.unwrap_err();
    assert!(error.what.contains("gave no answer and has ended: exit status: 4: GET /crash"), "{error}");
    let error = deployment.deliver(serde_json::json!({})).await.unwrap_err();
    assert!(error.what.contains("takes no events"), "{error}");
    assert_eq!(deployment.stop(Signal::SIGTERM, PATIENCE).await.status, "exit status: 4");
}
