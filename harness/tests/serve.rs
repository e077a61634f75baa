//! `tracegate serve` and `tracegate query` as somebody at a terminal has them.
#![cfg(unix)]

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const TOKEN: &str = "0123456789abcdef";
const SPAN: &str = r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","name":"GET /"}]}]}]}"#;

fn tracegate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracegate"));
    command.args(arguments).env_remove("TRACEGATE_TOKEN").env("NO_COLOR", "1");
    command
}

struct Serve {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// What it said before it said how it can be queried.
    said: Vec<String>,
    url: String,
}

impl Serve {
    fn start(arguments: &[&str]) -> Self {
        let mut command = tracegate(&["serve", "--port", "0"]);
        let mut child =
            command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("tracegate starts");
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut said = Vec::new();
        while said.last().is_none_or(|line: &String| !line.starts_with("and answers queries")) {
            let mut line = String::new();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "it ended after {said:?}");
            said.push(line.trim_end().to_owned());
        }
        let address = said.iter().find_map(|line| line.strip_prefix("tracegate takes OTLP over gRPC and HTTP at "));
        let url = format!("http://{}", address.unwrap());
        Self { child, stdout, said, url }
    }

    async fn send(&self) {
        let request = reqwest::Client::new().post(format!("{}/v1/traces", self.url));
        let answer = request.header("content-type", "application/json").body(SPAN).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    fn query(&self, token: &str, arguments: &[&str]) -> Output {
        let mut command = tracegate(&["query", "--at", &self.url, "--token", token]);
        command.args(arguments).output().unwrap()
    }

    /// Asks it to end; what it still said on stdout and stderr.
    fn stop(mut self) -> (String, String) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert!(self.child.wait().unwrap().success());
        (out, err)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test]
async fn what_was_written_when_it_was_answered_is_read_and_found_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("otlp.jsonl");
    let path = path.to_str().unwrap();
    let first = Serve::start(&["--write", path]);
    first.send().await;
    assert_eq!(std::fs::read_to_string(path).unwrap(), format!("{SPAN}\n"));
    drop(first);

    let second = Serve::start(&["--read", path, "--token", TOKEN]);
    assert_eq!(second.said[0], format!("tracegate has read 1 requests from {path}"));
    assert!(!second.said.join(" ").contains(TOKEN));
    let found = second.query(TOKEN, &["spans", "name=GET /", "limit=1"]);
    assert!(found.status.success(), "{}", text(&found.stderr));
    assert_eq!(text(&found.stdout), format!("{SPAN}\n"));
    let refused = second.query("0123456789abcdeX", &["spans"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(text(&refused.stderr).contains("401"), "{}", text(&refused.stderr));
}

#[tokio::test]
async fn the_token_is_another_one_at_each_start_and_opens_the_queries() {
    let token = |serve: &Serve| serve.said.last().unwrap().rsplit(' ').next().unwrap().to_owned();
    let (one, two) = (Serve::start(&[]), Serve::start(&[]));
    assert_ne!(token(&one), token(&two));
    assert!(one.query(&token(&one), &["counts"]).status.success());
    assert!(!one.query(&token(&two), &["counts"]).status.success());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_told_once_and_costs_no_exporter_its_answer() {
    let serve = Serve::start(&["--write", "/dev/full", "--token", TOKEN]);
    serve.send().await;
    serve.send().await;
    assert!(text(&serve.query(TOKEN, &["counts"]).stdout).contains(r#""traces":{"requests":2,"items":2}"#));
    let (_, told) = serve.stop();
    assert_eq!(told.matches("cannot write to /dev/full: No space left on device").count(), 1, "{told}");
}

#[tokio::test]
async fn it_ends_when_it_is_asked_to_while_somebody_listens_to_its_tail() {
    let serve = Serve::start(&["--token", TOKEN]);
    let mut tail = tracegate(&["query", "--at", &serve.url, "--token", TOKEN, "tail"]);
    let mut tail = tail.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(tail.stdout.take().unwrap());
    // It begins once it is connected, which only its first line tells.
    let told = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line
    });
    while !told.is_finished() {
        serve.send().await;
    }
    assert_eq!(told.await.unwrap(), format!("{SPAN}\n"));
    serve.stop();
    assert!(tail.wait().unwrap().success());
}

#[test]
fn a_file_that_cannot_be_read_is_told_with_its_line_before_anything_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.jsonl");
    std::fs::write(&path, format!("{SPAN}\n\n{{\"resourceSpans\":{{}}}}\n")).unwrap();
    let expected = "line 3: resourceSpans: expected an array, found {}";
    let told = |arguments: &[&str]| {
        let ended = tracegate(&["serve", "--port", "0"]).args(arguments).output().unwrap();
        assert_eq!(ended.status.code(), Some(3));
        // Without the folds and bars of the report.
        text(&ended.stderr).replace(['\n', '│'], " ").split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let said = told(&["--read", path.to_str().unwrap()]);
    assert!(said.contains(expected), "{said}");
    assert!(told(&["--read", "/nowhere/x"]).contains("cannot open /nowhere/x"));
    assert!(told(&["--write", "/nowhere/x"]).contains("cannot open /nowhere/x"));
    assert!(!Path::new("/nowhere").exists());
}

#[test]
fn a_token_that_could_be_guessed_is_no_token() {
    let ended = tracegate(&["serve", "--port", "0", "--token", "hunter2"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(2));
    let said = text(&ended.stderr);
    assert!(said.contains("a token has at least 16 characters"), "{said}");
}
