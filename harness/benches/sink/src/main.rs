//! The sink's numbers: ingest, memory and looks, beside mock-collector's where it has the like, in one run.
//!
//! ```text
//! cargo run --release --manifest-path harness/benches/sink/Cargo.toml
//! ```
//!
//! Requests have 512 spans of about 430 bytes, in traces of four, whose ids are new in each request. Rounds alternate between
//! the two, each on a fresh server and in the other order than the one before, so that what else the machine does hits both;
//! the ratio is the median of the rounds' ratios. Load generator and server share the processors: the former sends bytes
//! that were made before over four connections, one request at a time each.
//!
//! Memory is counted by the allocator, in a process of its own for each of the two: what is allocated when all is stored and
//! nothing is under way, less what was before, by spans.
//!
//! Arguments: any of `http`, `grpc`, `memory`, `walk`, `traces`, `verdict` (all), and `rounds=9`, `requests=400`. `alone http`
//! and `alone grpc` run Tracegate's rounds only, for a profiler.

mod load;
mod looks;
mod memory;

use std::{
    error::Error,
    hint::black_box,
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use bytes::Bytes;
use mock_collector::{MockServer, Protocol, ServerHandle};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use tokio::runtime::Runtime;
use tracegate::capture::{Encoding, Signal, Store, index::index, sink::Sink};

use load::{Body, Grpc, Http, SPANS};

type Failure = Box<dyn Error + Send + Sync>;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

const CONNECTIONS: usize = 4;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Side {
    Tracegate,
    Peer,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Over {
    Http,
    Grpc,
}

enum Server {
    Tracegate(Sink, Arc<Store>),
    Peer(ServerHandle),
}

impl Server {
    fn start(runtime: &Runtime, side: Side, over: Over) -> Result<Self, Failure> {
        runtime.block_on(async {
            Ok(match side {
                Side::Tracegate => {
                    let store = Arc::new(Store::default());
                    Self::Tracegate(Sink::start(store.clone()).await?, store)
                }
                Side::Peer => {
                    let protocol = if over == Over::Http { Protocol::HttpBinary } else { Protocol::Grpc };
                    Self::Peer(MockServer::builder().protocol(protocol).start().await?)
                }
            })
        })
    }

    fn address(&self) -> SocketAddr {
        match self {
            Self::Tracegate(sink, _) => sink.address(),
            Self::Peer(handle) => handle.addr(),
        }
    }

    fn stop(self, runtime: &Runtime) -> usize {
        runtime.block_on(async {
            match self {
                Self::Tracegate(sink, store) => {
                    let spans = store.look(|capture| capture.spans().len());
                    sink.shutdown().await;
                    spans
                }
                Self::Peer(handle) => {
                    let spans = handle.with_collector(|collector| collector.span_count()).await;
                    drop(handle.shutdown().await);
                    spans
                }
            }
        })
    }
}

/// Sends so many requests over all connections; how long that took.
fn load(address: SocketAddr, over: Over, requests: u64) -> Result<f64, Failure> {
    let next = Arc::new(AtomicU64::new(0));
    let barrier = Arc::new(std::sync::Barrier::new(CONNECTIONS + 1));
    let senders: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (next, barrier) = (next.clone(), barrier.clone());
            thread::spawn(move || -> Result<(), Failure> {
                let mut http = if over == Over::Http { Some(Http::connect(address)?) } else { None };
                let mut grpc = if over == Over::Grpc { Some(Grpc::connect(address)?) } else { None };
                barrier.wait();
                loop {
                    let request = next.fetch_add(1, Ordering::Relaxed);
                    if request >= requests {
                        return Ok(());
                    }
                    match (&mut http, &mut grpc) {
                        (Some(http), _) => http.send(request)?,
                        (_, Some(grpc)) => grpc.send(request)?,
                        _ => {}
                    }
                }
            })
        })
        .collect();
    barrier.wait();
    let began = Instant::now();
    for sender in senders {
        sender.join().map_err(|_| "a sender broke down")??;
    }
    Ok(began.elapsed().as_secs_f64())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn quantile(of: &[f64], part: f64) -> f64 {
    let mut of = of.to_vec();
    of.sort_by(f64::total_cmp);
    of[((of.len() - 1) as f64 * part) as usize]
}

fn ingest(over: Over, rounds: usize, requests: u64) -> Result<(), Failure> {
    let runtime = Runtime::new()?;
    let mut rates = [Vec::new(), Vec::new()];
    let mut ratios = Vec::new();
    for round in 0..=rounds {
        let mut rate = [0.0; 2];
        let order = if round % 2 == 0 { [Side::Tracegate, Side::Peer] } else { [Side::Peer, Side::Tracegate] };
        for side in order {
            let server = Server::start(&runtime, side, over)?;
            let took = load(server.address(), over, requests)?;
            let stored = server.stop(&runtime);
            assert_eq!(stored, requests as usize * SPANS, "{side:?} has all of it");
            rate[side as usize] = (requests as usize * SPANS) as f64 / took;
        }
        // The first one warms up.
        if round > 0 {
            ratios.push(rate[0] / rate[1]);
            rates[0].push(rate[0]);
            rates[1].push(rate[1]);
        }
    }
    let spread = (quantile(&ratios, 0.0), quantile(&ratios, 1.0));
    println!(
        "ingest over {over:?}: {:.0} spans/s, mock-collector {:.0} spans/s, ratio {:.2} ({:.2} to {:.2}), {rounds} rounds of {requests} requests",
        median(rates[0].clone()),
        median(rates[1].clone()),
        median(ratios),
        spread.0,
        spread.1,
    );
    Ok(())
}

fn alone(over: Over, rounds: usize, requests: u64) -> Result<(), Failure> {
    let runtime = Runtime::new()?;
    for _ in 0..rounds {
        let server = Server::start(&runtime, Side::Tracegate, over)?;
        let took = load(server.address(), over, requests)?;
        server.stop(&runtime);
        println!("{:.0} spans/s", (requests as usize * SPANS) as f64 / took);
    }
    Ok(())
}

/// Prints the bytes of a stored span; in a process of its own.
fn memory_of(side: Side, over: Over, requests: u64) -> Result<(), Failure> {
    let runtime = Runtime::new()?;
    let server = Server::start(&runtime, side, over)?;
    load(server.address(), over, 8)?;
    memory::count();
    load(server.address(), over, requests)?;
    // Senders are gone; what was theirs is freed once the server has seen that.
    let mut held = memory::held();
    for _ in 0..50 {
        thread::park_timeout(std::time::Duration::from_millis(20));
        held = held.min(memory::held());
    }
    println!("{}", held as f64 / (requests as usize * SPANS) as f64);
    drop(server);
    Ok(())
}

fn memory(requests: u64) -> Result<(), Failure> {
    let wire = Body::new().bytes.len() as f64 / SPANS as f64;
    for over in ["http", "grpc"] {
        let of = |side: &str| -> Result<f64, Failure> {
            let output = Command::new(std::env::current_exe()?)
                .args(["memory-of", side, over, &format!("requests={requests}")])
                .output()?;
            Ok(String::from_utf8(output.stdout)?.trim().parse()?)
        };
        let (ours, peers) = (of("tracegate")?, of("peer")?);
        println!(
            "memory over {over}: {ours:.0} bytes a span, {:.3} of its {wire:.0} on the wire; mock-collector {peers:.0}; {} spans",
            ours / wire,
            requests as usize * SPANS,
        );
    }
    Ok(())
}

fn walk(rounds: usize) {
    let body = Bytes::from(Body::new().bytes);
    let times = 200;
    let (mut walked, mut decoded, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..=rounds {
        let began = Instant::now();
        for _ in 0..times {
            drop(black_box(index(Signal::Traces, Encoding::Protobuf, black_box(&body))));
        }
        let one = (times * SPANS) as f64 / began.elapsed().as_secs_f64();
        let began = Instant::now();
        for _ in 0..times {
            drop(black_box(ExportTraceServiceRequest::decode(black_box(&body[..]))));
        }
        let other = (times * SPANS) as f64 / began.elapsed().as_secs_f64();
        walked.push(one);
        decoded.push(other);
        ratios.push(one / other);
    }
    println!(
        "walk on one core: {:.0} spans/s, prost decodes {:.0} spans/s, ratio {:.2}",
        median(walked),
        median(decoded),
        median(ratios)
    );
}

fn traces(rounds: usize) {
    for (cold, caches) in [(true, "cold for both"), (false, "as filling the store left them")] {
        let (mut few, mut many, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds.min(5) {
            let read = |spans: usize| median(looks::read_traces(spans, 500, cold));
            let (one, other) = (read(1_000), read(1_000_000));
            few.push(one);
            many.push(other);
            ratios.push(other / one);
        }
        println!(
            "one trace of four spans, not decoded before, caches {caches}: out of 1,000 spans {:.1} us, out of 1,000,000 {:.1} us, ratio {:.2}",
            median(few) / 1e3,
            median(many) / 1e3,
            median(ratios)
        );
    }
}

fn verdict() -> Result<(), Failure> {
    let runtime = Runtime::new()?;
    for spans in [1_000, 1_000_000] {
        let (sending, arrival) = runtime.block_on(looks::verdicts(spans, 2_000))?;
        let show = |times: &[f64]| {
            format!("median {:.3} ms, p99 {:.3} ms", quantile(times, 0.5) / 1e6, quantile(times, 0.99) / 1e6)
        };
        println!(
            "verdict with {spans} spans stored: {} from its arrival in the store; {} from the beginning of its sending",
            show(&arrival),
            show(&sending)
        );
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let found = arguments.iter().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('=')?.parse().ok());
        found.unwrap_or(default)
    };
    let (rounds, requests) = (number("rounds", 9) as usize, number("requests", 400));
    if let [what, side, over, ..] = arguments.as_slice()
        && what == "memory-of"
    {
        let side = if side == "peer" { Side::Peer } else { Side::Tracegate };
        return memory_of(side, if over == "grpc" { Over::Grpc } else { Over::Http }, requests);
    }
    if let [what, over, ..] = arguments.as_slice()
        && what == "alone"
    {
        return alone(if over == "grpc" { Over::Grpc } else { Over::Http }, rounds, requests);
    }
    let wanted = |what: &str| {
        let named = arguments.iter().any(|argument| !argument.contains('='));
        !named || arguments.iter().any(|argument| argument == what)
    };
    println!("{} bytes a span on the wire", Body::new().bytes.len() / SPANS);
    if wanted("walk") {
        walk(rounds);
    }
    if wanted("http") {
        ingest(Over::Http, rounds, requests)?;
    }
    if wanted("grpc") {
        ingest(Over::Grpc, rounds, requests)?;
    }
    if wanted("memory") {
        memory(requests)?;
    }
    if wanted("traces") {
        traces(rounds);
    }
    if wanted("verdict") {
        verdict()?;
    }
    Ok(())
}
