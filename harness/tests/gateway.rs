//! `tracegate gateway` in front of a function: any HTTP client can drive it, and nothing is left running behind it.
//!
//! The function is a test of this file too: the deployment starts this test binary again with its name.

use std::{
    io::{BufRead, BufReader, Lines},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use lambda_runtime::{LambdaEvent, service_fn};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use tracegate::stimulus::{Caller, ContextForm, HttpRequest, HttpResponse, http};

const PATIENCE: Duration = Duration::from_secs(60);

/// Answers with its event and the id of its process.
#[tokio::test]
async fn function() {
    if std::env::var("AWS_LAMBDA_RUNTIME_API").is_err() {
        return;
    }
    println!("ready as {}", std::process::id());
    let handler = |event: LambdaEvent<Value>| async move {
        let payload = event.payload;
        let path = payload["path"].as_str().or(payload["rawPath"].as_str()).unwrap_or_default().to_owned();
        match path.as_str() {
            "/hang" => {
                println!("hanging");
                std::future::pending().await
            }
            "/exit" => std::process::exit(5),
            _ => {
                let trace = event.context.xray_trace_id;
                let seen = json!({ "event": payload, "pid": std::process::id(), "trace": trace }).to_string();
                Ok::<_, String>(json!({
                    "statusCode": 201, "isBase64Encoded": false, "body": seen,
                    "headers": { "x-answer": "single", "content-length": "1" },
                    "multiValueHeaders": { "x-answer": ["first", "second"] },
                }))
            }
        }
    };
    lambda_runtime::run(service_fn(handler)).await.unwrap();
}

/// A running `tracegate gateway`, with its stdout behind the line that has the address.
struct Gateway {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let text = format!(
        "[deployments.f]\nkind = \"lambda-process\"\ncommand = [{program:?}, \"function\", \"--exact\", \"--nocapture\"]\n\
         [deployments.web]\nkind = \"process\"\ncommand = [\"x\"]\nready = {{ http = \"/\" }}\n"
    );
    let config = folder.join("tracegate.toml");
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracegate"));
    command.arg("gateway").arg("--config").arg(config).args(arguments);
    command
}

fn start(arguments: &[&str]) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [&["--deployment", "f", "--port", "0"], arguments].concat();
    let mut child = command(folder.path(), &arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let (_, address) = first.split_once("answers at http://").unwrap_or_else(|| panic!("{first}"));
    let address = address.parse().unwrap();
    Gateway { child, lines, address, _folder: folder }
}

impl Gateway {
    async fn send(&self, target: &str, headers: &[(&str, &str)], body: &'static [u8]) -> HttpResponse {
        let request = HttpRequest {
            method: "POST".into(),
            target: target.into(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: Bytes::from_static(body),
            caller: Caller::fresh(1, true),
            form: ContextForm::Absent,
        };
        http::send(self.address, &request, "curl/8", PATIENCE).await.unwrap()
    }

    async fn seen(&self, target: &str, headers: &[(&str, &str)], body: &'static [u8]) -> Value {
        serde_json::from_slice(&self.send(target, headers, body).await.body).unwrap()
    }

    /// Sends the signal and returns the exit code.
    fn stop(&mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

/// Whether the process ends, which it does a moment after it was killed. One that nobody has taken the status of is gone
/// too.
fn is_gone(pid: &Value) -> bool {
    let pid = Pid::from_raw(pid.as_i64().unwrap() as i32);
    let status = format!("/proc/{pid}/stat");
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        let zombie = std::fs::read_to_string(&status).is_ok_and(|stat| stat.contains(") Z "));
        if zombie || kill(pid, None) == Err(Errno::ESRCH) {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[tokio::test]
async fn a_plain_http_client_drives_a_function_through_each_kind_of_event() {
    for (kind, path, body) in [
        ("rest-api", "/event/path", "/event/body"),
        ("http-api", "/event/rawPath", "/event/body"),
        ("alb", "/event/path", "/event/body"),
        ("alb-multi-value", "/event/path", "/event/body"),
        ("function-url", "/event/rawPath", "/event/body"),
    ] {
        let gateway = start(&["--kind", kind, "--quiet"]);
        let seen = gateway.seen("/a/b?c=d", &[("Content-Type", "text/plain")], b"hello").await;
        assert_eq!(seen.pointer(path), Some(&json!("/a/b")), "{kind}: {seen}");
        assert_eq!(seen.pointer(body), Some(&json!("hello")), "{kind}: {seen}");
        let response = gateway.send("/a", &[], b"").await;
        assert_eq!(response.status, 201, "{kind}");
        let answers = response.headers.iter().filter(|(name, _)| name == "x-answer");
        let answers: Vec<&str> = answers.map(|(_, value)| value.as_str()).collect();
        let expected: &[&str] = match kind {
            "rest-api" => &["first", "second", "single"],
            "alb-multi-value" => &["first", "second"],
            _ => &["single"],
        };
        assert_eq!(answers, expected, "{kind}");
    }
}

#[tokio::test]
async fn a_clients_trace_header_is_carried_on_to_the_runtime() {
    let gateway = start(&["--quiet"]);
    let root = "Root=1-63dd9630-1f7ec6c948e660f220ef3c92";
    let header = format!("{root};Parent=53995c3f42cd8ad8;Sampled=0");
    let seen = gateway.seen("/", &[("X-Amzn-Trace-Id", &header)], b"").await;
    let trace = seen["trace"].as_str().unwrap();
    assert!(trace.starts_with(root) && trace.ends_with("Sampled=0"), "{trace}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_come_at_once_stand_in_line_for_the_one_environment() {
    let gateway = start(&["--quiet"]);
    let requests = (0..20).map(|_| gateway.seen("/", &[], b""));
    let seen = futures::future::join_all(requests).await;
    assert!(seen.iter().all(|answer| answer["pid"] == seen[0]["pid"]), "{seen:?}");
}

#[tokio::test]
async fn a_body_that_a_gateway_does_not_hand_on_is_a_413_and_reaches_no_function() {
    let gateway = start(&["--kind", "alb"]);
    let body: &'static [u8] = vec![b'a'; (1 << 20) + 1].leak();
    assert_eq!(gateway.send("/exit", &[("Content-Type", "text/plain")], body).await.status, 413);
    assert_eq!(gateway.send("/a", &[("Content-Type", "text/plain")], &body[..100_000]).await.status, 201);
}

#[tokio::test]
async fn a_function_that_ends_is_a_502_and_the_next_request_has_a_new_environment() {
    let gateway = start(&["--quiet"]);
    let first = gateway.seen("/", &[], b"").await["pid"].clone();
    assert_eq!(gateway.send("/exit", &[], b"").await.status, 502);
    assert_ne!(gateway.seen("/", &[], b"").await["pid"], first);
}

#[tokio::test]
async fn either_signal_ends_it_cleanly_and_the_frozen_function_with_it() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut gateway = start(&["--quiet"]);
        let pid = gateway.seen("/", &[], b"").await["pid"].clone();
        assert_eq!(gateway.stop(signal), Some(0), "{signal}");
        assert!(is_gone(&pid), "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_hangs_does_not_keep_it_from_ending() {
    let mut gateway = start(&[]);
    let pid = gateway.seen("/", &[], b"").await["pid"].clone();
    let address = gateway.address;
    let request = HttpRequest::get("/hang", Caller::fresh(1, true));
    let hanging = tokio::spawn(async move { http::send(address, &request, "curl/8", PATIENCE).await });
    let hangs = |line: &String| line.contains("hanging");
    assert!(tokio::task::block_in_place(|| gateway.lines.by_ref().map(Result::unwrap).any(|line| hangs(&line))));
    assert_eq!(tokio::task::block_in_place(|| gateway.stop(Signal::SIGTERM)), Some(0));
    assert!(hanging.await.unwrap().is_err());
    assert!(is_gone(&pid));
}

#[test]
fn what_the_function_writes_is_told_unless_it_is_to_be_quiet() {
    let mut gateway = start(&[]);
    assert!(
        gateway.lines.by_ref().map(Result::unwrap).any(|line| line.contains("stdout") && line.contains("ready as "))
    );
    let mut quiet = start(&["--quiet"]);
    assert_eq!(quiet.stop(Signal::SIGTERM), Some(0));
    assert_eq!(quiet.lines.by_ref().count(), 0);
}

#[test]
fn what_cannot_be_served_is_an_error_at_once_with_the_exit_code_that_fits() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, code, text) in [
        (&["--deployment", "g", "--port", "0"][..], 2, "functions are: f"),
        (&["--deployment", "web", "--port", "0"], 2, "speaks HTTP itself"),
        (&["--deployment", "f", "--kind", "lattice"], 2, "possible values: rest-api"),
        (&["--deployment", "f", "--port", &port], 3, "cannot listen on"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = command(folder.path(), arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(text), "{arguments:?}: {stderr}");
    }
}
