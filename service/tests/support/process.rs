//! The binary as a process: its lines as they come, its end.

#![allow(dead_code)]

use std::process::Stdio;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

pub struct Process {
    pub child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// Lines that were read.
    pub seen: Vec<Value>,
}

impl Process {
    /// Starts the binary with these variables and no others.
    pub fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_serverless-axum"))
            .args(arguments)
            .env_clear()
            .envs([("DEV_HOST", "127.0.0.1"), ("DEV_PORT", "0")])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, seen: Vec::new() }
    }

    /// The next line; `None` when every process that writes here is gone.
    pub async fn next(&mut self) -> Option<Value> {
        let line = self.lines.next_line().await.unwrap()?;
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        self.seen.push(line.clone());
        Some(line)
    }

    /// The next line with this message.
    pub async fn line(&mut self, message: &str) -> Value {
        while let Some(line) = self.next().await {
            if line["message"] == message {
                return line;
            }
        }
        panic!("no line {message:?} in {:#?}", self.seen)
    }

    /// Waits until it listens; gives its URL.
    pub async fn url(&mut self) -> String {
        let line = self.line("Listening").await;
        format!("http://{}:{}", line["address"].as_str().unwrap(), line["port"])
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().unwrap()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits for the end, reading all lines; gives the exit code and what was on stderr.
    pub async fn end(&mut self) -> (Option<i32>, String) {
        while self.next().await.is_some() {}
        let mut errors = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut errors).await.unwrap();
        (self.child.wait().await.unwrap().code(), errors)
    }
}
