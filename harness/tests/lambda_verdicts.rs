//! What a user reads when a function goes wrong: `tracegate run` on functions that are killed, hang, answer too late, end in
//! Init, and on extensions that do not ask for events. Each verdict names what happened, with the last lines of output.
//!
//! Function and extension are tests of this file too: the deployment starts this test binary again with their names.

use std::{net::SocketAddr, path::Path, process::Command, time::Duration};

use nix::sys::signal::{Signal, raise};
use serde_json::Value;
use tracegate::stimulus::{Caller, ContextForm, HttpRequest, HttpResponse, http};

const FOREVER: Duration = Duration::from_secs(3600);

fn runtime_api() -> Option<SocketAddr> {
    std::env::var("AWS_LAMBDA_RUNTIME_API").ok()?.parse().ok()
}

async fn call(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> HttpResponse {
    let request = HttpRequest {
        method: method.into(),
        target: target.into(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.to_owned().into(),
        caller: Caller::fresh(1, true),
        form: ContextForm::Absent,
    };
    http::send(runtime_api().unwrap(), &request, "runtime", FOREVER).await.unwrap()
}

/// Its path says how it behaves.
#[tokio::test]
async fn function() {
    if runtime_api().is_none() {
        return;
    }
    if std::env::var("INIT").is_ok() {
        eprintln!("no such table");
        std::process::exit(1);
    }
    loop {
        let event = call("GET", "/2018-06-01/runtime/invocation/next", &[], "").await;
        let id = event.header("lambda-runtime-aws-request-id").unwrap().to_owned();
        let seen: Value = serde_json::from_slice(&event.body).unwrap();
        println!("handling {}", seen["path"].as_str().unwrap());
        match seen["path"].as_str().unwrap() {
            "/killed" => raise(Signal::SIGKILL).unwrap(),
            "/exits" => std::process::exit(3),
            "/hangs" => std::future::pending().await,
            "/late" => {
                drop(tokio::time::timeout(Duration::from_millis(900), std::future::pending::<()>()).await);
            }
            "/reports" => {
                let report = r#"{"errorType":"OutOfStock","errorMessage":"no more of it"}"#;
                call("POST", &format!("/2018-06-01/runtime/invocation/{id}/error"), &[], report).await;
                continue;
            }
            _ => {}
        }
        let response = format!("/2018-06-01/runtime/invocation/{id}/response");
        let answer = call("POST", &response, &[], r#"{"statusCode":200}"#).await;
        println!("told {}", answer.status);
    }
}

/// `NEVER` says what it never does.
#[tokio::test]
async fn extension() {
    if runtime_api().is_none() {
        return;
    }
    let never = std::env::var("NEVER").unwrap_or_default();
    println!("the extension starts");
    let events = r#"{"events":["INVOKE"]}"#;
    let registered =
        call("POST", "/2020-01-01/extension/register", &[("Lambda-Extension-Name", "extension")], events).await;
    let id = registered.header("lambda-extension-identifier").unwrap().to_owned();
    if never != "polls" {
        call("GET", "/2020-01-01/extension/event/next", &[("Lambda-Extension-Identifier", &id)], "").await;
    }
    println!("the extension goes to sleep");
    std::future::pending().await
}

fn program(test: &str) -> String {
    format!("[{:?}, {test:?}, \"--exact\", \"--nocapture\"]", std::env::current_exe().unwrap())
}

/// The exit code of `tracegate run` on one scenario, and all that it says.
fn run(folder: &Path, settings: &str, scenario: &str) -> (Option<i32>, String) {
    let config = format!("[deployments.f]\nkind = \"lambda-process\"\ncommand = {}\n{settings}\n", program("function"));
    std::fs::write(folder.join("tracegate.toml"), config).unwrap();
    std::fs::create_dir_all(folder.join("features")).unwrap();
    let feature = format!("Feature: A function\n\n{scenario}\n");
    std::fs::write(folder.join("features/function.feature"), feature).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tracegate")).arg("run").current_dir(folder).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn asking(path: &str) -> String {
    format!("  Scenario: It answers\n    When a client sends GET {path}\n    Then the response status is 200")
}

fn with_extension(never: &str) -> String {
    let extension = "[[deployments.f.extensions]]\nname = \"extension\"\ncommand = ";
    format!("{extension}{}\nenv = {{ NEVER = {never:?} }}\n", program("extension"))
}

#[test]
fn a_function_that_goes_wrong_is_a_verdict_that_names_what_happened_with_the_last_lines_of_output() {
    let short = "function = { timeout = \"500ms\" }\n";
    for (case, settings, path, code, naming) in [
        ("killed", String::new(), "/killed", 1, &["Runtime.ExitError", "signal: 9 (SIGKILL)", "handling /killed"][..]),
        ("exits", String::new(), "/exits", 1, &["Runtime.ExitError", "exit status: 3", "stdout | handling /exits"]),
        (
            "hangs",
            short.into(),
            "/hangs",
            1,
            &["Sandbox.Timedout", "Task timed out after 0.50 seconds", "stdout | handling /hangs"],
        ),
        (
            "answers too late",
            short.into(),
            "/late",
            1,
            &["Sandbox.Timedout", "Task timed out after 0.50 seconds", "stdout | handling /late"],
        ),
        (
            "answers too late on a managed instance",
            "function = { timeout = \"500ms\", concurrency = 1 }".into(),
            "/late",
            1,
            &["Sandbox.Timedout", "Task timed out after 0.50 seconds", "stdout | handling /late"],
        ),
        (
            "never asks again",
            format!("{short}{}", with_extension("polls again")),
            "/sound",
            1,
            &[
                "invocation-ends: Sandbox.Timedout",
                "Task timed out after 0.50 seconds: the extension extension did not ask for the next event",
                "stdout | the extension goes to sleep",
            ],
        ),
        (
            "never asks, with Init within the invocation",
            format!("function = {{ timeout = \"500ms\", init-timeout = \"500ms\" }}\n{}", with_extension("polls")),
            "/sound",
            1,
            &[
                "Sandbox.Timedout",
                "timed out in Init: the extension extension registered and did not ask for an event within 500ms",
                "stdout | the extension goes to sleep",
            ],
        ),
        (
            "never asks, at the start",
            format!("start-timeout = \"1s\"\n{}", with_extension("polls")),
            "/sound",
            3,
            &[
                "timed out in Init: the extension extension registered and did not ask for an event within 1s",
                "stdout | the extension goes to sleep",
            ],
        ),
        (
            "ends in Init",
            "env = { INIT = \"exits\" }".into(),
            "/sound",
            3,
            &["ended in Init", "exit status: 1", "stderr | no such table"],
        ),
        ("reports an error", String::new(), "/reports", 1, &["OutOfStock: no more of it"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (status, said) = run(folder.path(), &settings, &asking(path));
        assert_eq!(status, Some(code), "{case}: {said}");
        for part in naming {
            assert!(said.contains(part), "{case}: nothing says {part:?}:\n{said}");
        }
    }
}

#[test]
fn a_sound_function_passes_and_so_does_a_crash_that_the_scenario_excepts() {
    let excepted = "  @except:invocation-ends\n  Scenario: It may end\n    The crash is what is looked at.\n\n    \
                    When a client sends GET /exits\n    Then the response status is 502\n    When a client sends GET /sound\n    \
                    Then it was a cold start";
    let crash = "  Scenario: It may end\n    When a client sends GET /exits\n    Then the response status is 502";
    for (case, scenario, code) in
        [("sound", asking("/sound"), 0), ("excepted", excepted.to_owned(), 0), ("not excepted", crash.to_owned(), 1)]
    {
        let folder = tempfile::tempdir().unwrap();
        let (status, said) = run(folder.path(), "", &scenario);
        assert_eq!(status, Some(code), "{case}: {said}");
        assert_eq!(said.contains("invocation-ends"), code == 1, "{case}: {said}");
    }
}
