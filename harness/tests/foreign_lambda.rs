//! A function that is none of ours in any part: `awslambdaric` as AWS publishes it, FastAPI behind Mangum, and the
//! OpenTelemetry SDK of Python, in `foreign/`. The features pass on the handler that is sound, and fail on those that
//! lose spans, let them come late, or do not look at the trace header.
//!
//! The packages go into a virtual environment in `target`, once. Where there is no Python or no package index these tests
//! say so and pass, unless `TRACEGATE_TEST_REQUIRE` names `python`.

#[path = "reports/required.rs"]
mod required;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

const REQUIREMENTS: &str = include_str!("foreign/requirements.txt");

/// The folder with `python` and all that the function needs, or why there is none.
static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
    let mut versions = DefaultHasher::new();
    REQUIREMENTS.hash(&mut versions);
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python-{:016x}", versions.finish()));
    let complete = environment.join("complete");
    if !complete.exists() {
        let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign/requirements.txt");
        // What was begun and not completed is begun again.
        succeeds(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&environment))
            .map_err(|error| format!("{error}\npython3 and its module venv are needed (on Debian: python3-venv)"))?;
        let mut install = Command::new(environment.join("bin/python"));
        install.args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--quiet"]);
        succeeds(install.args(["--timeout", "15", "--retries", "2", "--requirement"]).arg(requirements)).map_err(
            |error| format!("{error}\nPython 3.10 or newer and a package index (PyPI or a mirror) are needed"),
        )?;
        std::fs::write(&complete, "").map_err(|error| format!("{}: {error}", complete.display()))?;
    }
    Ok(environment.join("bin"))
});

fn succeeds(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?} cannot be started: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let last: Vec<&str> = said.lines().rev().take(5).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    Err(format!("{command:?} ended with {}:\n{}", output.status, last.join("\n")))
}

/// What `tracegate run` makes of one handler; `None` where there is no Python.
fn run(deployment: &str) -> Option<(Option<i32>, String)> {
    let python = match &*PYTHON {
        Ok(python) => python,
        Err(error) => {
            required::missing("python", &format!("the Python function {deployment:?}"), error);
            return None;
        }
    };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign"), folder.path());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(python.clone()).chain(std::env::split_paths(&path))).unwrap();
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_tracegate"))
        .args(["run", "--deployment", deployment])
        .current_dir(&folder)
        .env("PATH", path)
        // What is broken on purpose is not the job's failure.
        .env_remove("GITHUB_ACTIONS")
        .output()
        .unwrap();
    let said = [stdout, stderr].concat();
    Some((status.code(), String::from_utf8_lossy(&said).into_owned()))
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Fails unless all of the four scenarios but so many failed, none was an error, and the report has each of these.
fn fails(deployment: &str, passing: usize, naming: &[&str]) {
    let Some((status, said)) = run(deployment) else { return };
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&format!("\n{passing} passed, {} failed, 0 errored", 4 - passing)), "{said}");
    for part in naming {
        assert!(said.contains(part), "nothing says {part:?}:\n{said}");
    }
}

#[test]
fn a_sound_function_passes_with_spans_under_the_runtimes_header_and_logs_on_them_before_the_freeze() {
    let Some((status, said)) = run("sound") else { return };
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("4 passed, 0 failed, 0 errored"), "{said}");
}

#[test]
fn a_function_that_does_not_flush_fails_and_what_was_lost_is_named() {
    fails(
        "unflushed",
        0,
        &[
            "that \"order read: 8\" names never came: lost at the freeze",
            "no span of the invocation came before the freeze or after it: lost at the freeze",
        ],
    );
}

#[test]
fn a_function_that_flushes_in_the_next_invocation_fails_and_what_came_late_is_named() {
    fails(
        "tardy",
        0,
        &[
            "SERVER \"GET /orders/{number}\" came late by 1 invocation",
            "INTERNAL \"read order\" came late by 1 invocation",
            "otlp \"order read: 8\" came late by 1 invocation",
        ],
    );
}

#[test]
fn a_function_that_does_not_look_at_the_trace_header_fails_and_the_other_trace_is_named() {
    // What it exports leaves before the freeze all the same, and whether it carries the trace on is not asked there.
    fails(
        "deaf",
        1,
        &[
            "expected   the caller's trace ",
            "entry      is in the trace ",
            "carries-on: SERVER \"orders\" begins a new trace, and was told one to carry on",
        ],
    );
}
