//! What hostile senders cost `tracegate serve` in memory. Measures and judges no time, so it is run by hand:
//! `cargo test -p tracegate --test hostile_senders -- --ignored --nocapture`. The figures stand in `docs/sink.md`.
#![cfg(target_os = "linux")]

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::KeyValue,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;

const LIMIT: usize = 64 << 20;

struct Serve {
    child: Child,
    address: SocketAddr,
}

impl Serve {
    fn start() -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tracegate"));
        command.args(["serve", "--quiet", "--port", "0"]).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
        Self { child, address }
    }

    /// A figure of `/proc/PID/status` in MB.
    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024 / 1_000_000
    }

    async fn post(&self, client: &reqwest::Client, encoding: &str, body: Vec<u8>) -> u16 {
        let url = format!("http://{}/v1/traces", self.address);
        let request = client.post(url).header("content-type", "application/x-protobuf");
        request
            .header("content-encoding", encoding)
            .body(body)
            .send()
            .await
            .map_or(0, |answer| answer.status().as_u16())
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// One span with a million attributes.
fn attributes() -> Vec<u8> {
    let attributes = (0..1_000_000).map(|n| KeyValue { key: format!("key.{n}"), ..Default::default() }).collect();
    let span = Span { trace_id: vec![1; 16], span_id: vec![2; 8], attributes, ..Default::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// As many empty spans as a body can hold.
fn spans() -> Vec<u8> {
    let field = |tag: u8, inner: &[u8]| {
        let mut wire = vec![tag << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut wire);
        [&wire, inner].concat()
    };
    field(1, &field(2, &[18, 0].repeat(LIMIT / 2 - 16)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; its figures stand in docs/sink.md"]
async fn hostile_senders_cost_bounded_memory_and_a_sound_one_is_answered() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let before = Serve::start();
    println!("{:<42} {:>4} MB", "just started", before.memory("VmRSS:"));
    drop(before);
    let client = reqwest::Client::new();
    for (name, encoding, body, expected) in [
        ("32 gzip bombs of 1 GiB at once", "gzip", gzip(&vec![0; 1 << 30]), 413),
        ("32 zstd bombs of 1 GiB at once", "zstd", zstd::encode_all(&vec![0; 1 << 30][..], 19).unwrap(), 413),
        ("32 plain bodies of 64 MiB + 1 at once", "identity", vec![0; LIMIT + 1], 413),
        ("32 times 32 million spans of two bytes", "gzip", gzip(&spans()), 413),
        ("8 times a million attributes at once", "identity", attributes(), 200),
    ] {
        let serve = Serve::start();
        let times = if expected == 200 { 8 } else { 32 };
        let sending = (0..times).map(|_| serve.post(&client, encoding, body.clone()));
        let answers = futures::future::join_all(sending).await;
        // A client that is still sending when it is refused may see the connection end and not the answer.
        assert!(
            answers.iter().all(|&status| status == expected || (status == 0 && encoding == "identity")),
            "{answers:?}"
        );
        assert_eq!(serve.post(&client, "identity", Vec::new()).await, 200);
        println!("{name:<42} {:>4} MB at its peak, {} MB after", serve.memory("VmHWM:"), serve.memory("VmRSS:"));
    }
    // The child inherits the limit, and half of it are its connections.
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(32_000), hard).unwrap();
    let serve = Serve::start();
    let mut open = Vec::new();
    while open.len() < 10_000 {
        open.push(TcpStream::connect_timeout(&serve.address, Duration::from_secs(10)).unwrap());
    }
    assert_eq!(serve.post(&client, "identity", Vec::new()).await, 200);
    println!("{:<42} {:>4} MB", "10,000 connections that say nothing", serve.memory("VmRSS:"));
}
