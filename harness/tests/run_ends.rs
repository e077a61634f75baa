//! How `tracegate run` ends where it does not come to its end, where its reports cannot be written, and where nothing runs; and in
//! which folder it runs what it runs.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};

/// A run of two scenarios on a deployment whose program writes its folder into the FIFO `up` and is never ready. Returns with that
/// folder.
fn never_ready(folder: &Path, settings: &str, from: &Path, arguments: &[&str]) -> (Child, String) {
    let up = folder.join("up");
    mkfifo(&up, Mode::S_IRWXU).unwrap();
    project(folder, &format!("command = [\"sh\", \"-c\", \"pwd > {}; exec sleep 1000\"]\n{settings}", up.display()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracegate"));
    command.arg("run").arg("--config").arg(folder.join("tracegate.toml")).args(arguments).current_dir(from);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let here = fs::read_to_string(up).unwrap();
    (child, here.trim().to_owned())
}

fn project(folder: &Path, deployment: &str) {
    let ready = "kind = \"process\"\nready = { log = \"never\" }\nstart-timeout = \"60s\"";
    fs::write(folder.join("tracegate.toml"), format!("[deployments.d]\n{ready}\n{deployment}\n")).unwrap();
    fs::create_dir_all(folder.join("features")).unwrap();
    let scenario = |name: &str| {
        format!("  Scenario: {name}\n    When a client sends GET /{name}\n    Then the response status is 200\n")
    };
    let feature = format!("Feature: f\n{}{}", scenario("one"), scenario("two"));
    fs::write(folder.join("features/f.feature"), feature).unwrap();
}

fn terminated(child: Child) -> Output {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_run_that_is_interrupted_writes_its_reports_with_what_was_not_judged_as_errors() {
    let folder = tempfile::tempdir().unwrap();
    let junit = folder.path().join("junit.xml");
    let (child, _) = never_ready(folder.path(), "", folder.path(), &["--junit", junit.to_str().unwrap()]);
    let output = terminated(child);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let report = fs::read_to_string(junit).unwrap();
    assert!(report.contains("tests=\"2\" failures=\"0\" errors=\"2\""), "{report}");
    assert!(report.contains("interrupted by SIGTERM"), "{report}");
    assert!(folder.path().join("target/tracegate/report.html").exists());
}

#[test]
fn a_process_runs_in_the_folder_of_the_configuration_or_in_its_directory_wherever_the_run_is_started() {
    let elsewhere = tempfile::tempdir().unwrap();
    for (settings, expected) in [("", ""), ("directory = \"app\"", "app")] {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("app")).unwrap();
        let (child, here) = never_ready(folder.path(), settings, elsewhere.path(), &[]);
        terminated(child);
        assert_eq!(Path::new(&here), folder.path().canonicalize().unwrap().join(expected).components().as_path());
    }
}

#[test]
fn a_page_of_another_run_is_not_left_behind_by_one_that_errs_and_nothing_selected_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path(), "command = [\"true\"]");
    let page = folder.path().join("target/tracegate/report.html");
    fs::create_dir_all(page.parent().unwrap()).unwrap();
    fs::write(&page, "of another run").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracegate"));
        command.arg("run").args(arguments).current_dir(folder.path()).output().unwrap()
    };
    let nothing = run(&["--tags", "@none"]);
    let said = String::from_utf8_lossy(&nothing.stdout);
    assert_eq!(nothing.status.code(), Some(4), "{said}");
    assert!(said.contains("NOTHING") && !said.contains("waterfalls in"), "{said}");
    assert_eq!(fs::read_to_string(&page).unwrap(), "of another run");
    assert_eq!(run(&[]).status.code(), Some(3));
    assert!(fs::read_to_string(&page).unwrap().contains("<html"));
}
