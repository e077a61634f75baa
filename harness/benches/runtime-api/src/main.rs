//! Round trips of the Runtime API: Tracegate's beside lambda-simulator's, in one run and with the same runtime.
//!
//! ```text
//! cargo run --release --manifest-path harness/benches/runtime-api/Cargo.toml
//! ```
//!
//! A round trip is an event handed to a runtime in a process of its own, and its response back with whoever invoked. The
//! runtime is this program again: a loop of `next` and `response` over one connection, so that what is measured is the
//! emulator. Rounds alternate between the two, each on a fresh emulator and in the other order than the one before, so that
//! what else the machine does hits both; the ratio is the median of the rounds' ratios. All of it is made twice: with caller
//! and emulator on one thread, as in a `#[tokio::test]`, and on several, as in `tracegate run`.
//!
//! Every response is checked for the request that it answers. One of Tracegate's that is lost, doubled or does not come
//! within ten seconds ends the run with exit code 1; a peer that hangs is started again, and each time is told.
//!
//! Arguments: rounds (9), invocations of a round (2,000), then, of Tracegate alone, invocations in one environment with
//! freezing off (100,000), and on (2,000). `tracegate` or `simulator` as the first argument runs that one's rounds only, for a
//! profiler.

use std::{
    collections::{BTreeMap, HashSet},
    error::Error,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use lambda_simulator::Simulator;
use serde_json::json;
use tokio::runtime::Builder;
use tracegate::{
    capture::{Mark, Store},
    config::Config,
    deployment::{Deployment, process::ProcessSite},
};

type Failure = Box<dyn Error + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> Result<(), Failure> {
    if let Ok(api) = std::env::var("AWS_LAMBDA_RUNTIME_API") {
        return runtime(&api);
    }
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let only = arguments.first().filter(|first| first.parse::<usize>().is_err()).cloned();
    arguments.drain(..usize::from(only.is_some()));
    let counts = arguments.iter().map(|count| count.parse::<usize>()).collect::<Result<Vec<_>, _>>()?;
    let count = |index: usize, default| counts.get(index).copied().unwrap_or(default);
    let (rounds, each) = (count(0, 9), count(1, 2_000));
    let (mut one, mut several) = (Builder::new_current_thread(), Builder::new_multi_thread());
    let (one, several) = (one.enable_all().build()?, several.enable_all().build()?);
    match only.as_deref() {
        Some("tracegate") => {
            for _ in 0..rounds {
                println!("{:.0} a second", several.block_on(tracegate(each, false))?);
            }
        }
        Some("simulator") => {
            for _ in 0..rounds {
                println!("{:.0} a second", several.block_on(simulator(each))?.rate);
            }
        }
        Some(other) => return Err(format!("{other:?} is neither `tracegate` nor `simulator`").into()),
        None => {
            for (threads, runtime) in [("one thread", &one), ("several threads", &several)] {
                println!("on {threads}:");
                runtime.block_on(compare(rounds, each))?;
            }
            for (freeze, count) in [(false, count(2, 100_000)), (true, count(3, 2_000))] {
                let (word, rate) = (if freeze { "on" } else { "off" }, several.block_on(tracegate(count, freeze))?);
                println!("tracegate, freeze {word}: {count} invocations in one environment, {rate:.0} a second");
            }
        }
    }
    Ok(())
}

async fn compare(rounds: usize, each: usize) -> Result<(), Failure> {
    let (mut ours, mut theirs, mut ratios, mut hung) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for round in 0..rounds {
        let (own, peer);
        if round % 2 == 0 {
            own = tracegate(each, false).await?;
            peer = simulator(each).await?;
        } else {
            peer = simulator(each).await?;
            own = tracegate(each, false).await?;
        }
        hung += peer.hung;
        let told =
            if peer.hung > 0 { format!(" (hung {} times and was started again)", peer.hung) } else { String::new() };
        println!(
            "round {}: tracegate {own:.0}, lambda-simulator {:.0} a second{told}: {:.2}",
            round + 1,
            peer.rate,
            own / peer.rate
        );
        ours.push(own);
        theirs.push(peer.rate);
        ratios.push(own / peer.rate);
    }
    println!("median of {rounds} rounds of {each} invocations, freeze off:");
    println!("tracegate:               {:.0} a second", median(&mut ours));
    println!("lambda-simulator 0.2:    {:.0} a second, hung {hung} times", median(&mut theirs));
    println!("tracegate is {:.2} times as fast", median(&mut ratios));
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

async fn tracegate(count: usize, freeze: bool) -> Result<f64, Failure> {
    let text = format!(
        "[deployments.f]\nkind = \"lambda-process\"\ncommand = [\"x\"]\nfunction = {{ freeze = {freeze}, timeout = \"10s\" }}"
    );
    let config = Config::parse(&text, Path::new("/"), Path::new("tracegate.toml"))?;
    let this = std::env::current_exe()?.display().to_string();
    let store = Arc::new(Store::default());
    let sink = ([127, 0, 0, 1], 4318).into();
    let site = Arc::new(ProcessSite);
    let spec = &config.deployments["f"];
    let deployment = Deployment::start(spec, vec![this], site, store.clone(), sink, &BTreeMap::new()).await?;
    let event = json!({ "path": "/", "httpMethod": "GET", "headers": {} });
    let mut ids = HashSet::with_capacity(count);
    let began = Instant::now();
    for number in 0..count {
        let delivery = tokio::time::timeout(PATIENCE, deployment.deliver(event.clone()))
            .await
            .map_err(|_| format!("invocation {number} hung"))??;
        let invocation = delivery.invocation.ok_or("nothing was invoked")?;
        let answered = delivery.response.header("x-request-id");
        if answered != Some(&invocation.request_id) {
            return Err(format!("invocation {number}, {}, was answered for {answered:?}", invocation.request_id).into());
        }
        if !ids.insert(invocation.request_id) {
            return Err(format!("invocation {number} has an id that another had").into());
        }
    }
    let took = began.elapsed();
    let of = |wanted: fn(&Mark) -> bool| {
        store.look(|capture| capture.lifecycle().iter().filter(|entry| wanted(&entry.mark)).count())
    };
    let handed_out = of(|mark| matches!(mark, Mark::Dispatched { .. }));
    let answered = of(|mark| matches!(mark, Mark::Responded { .. }));
    if (handed_out, answered) != (count, count) {
        return Err(format!("{count} invocations: {handed_out} handed out, {answered} answered").into());
    }
    Ok(count as f64 / took.as_secs_f64())
}

/// A round of lambda-simulator.
struct Peer {
    /// Invocations a second, without the time in which it hung.
    rate: f64,
    hung: usize,
}

async fn simulator(count: usize) -> Result<Peer, Failure> {
    let event = json!({ "path": "/", "httpMethod": "GET", "headers": {} });
    let (mut done, mut hung, mut took) = (0, 0, Duration::ZERO);
    while done < count {
        let simulator = Simulator::builder().build().await?;
        let mut runtime = tokio::process::Command::new(std::env::current_exe()?)
            .env("AWS_LAMBDA_RUNTIME_API", simulator.addr().to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        // Tracegate's environment is ready when the clock starts.
        simulator.wait_for(|| simulator.is_initialized(), PATIENCE).await?;
        let before = done;
        let began = Instant::now();
        let mut last = began;
        while done < count {
            let id = simulator.enqueue_payload(event.clone()).await;
            let Ok(state) = simulator.wait_for_invocation_complete(&id, PATIENCE).await else {
                hung += 1;
                break;
            };
            let response = state.response.ok_or("an invocation without a response")?;
            if response.payload["headers"]["x-request-id"] != state.invocation.aws_request_id.as_str() {
                return Err(format!("invocation {id} was answered with {}", response.payload).into());
            }
            done += 1;
            last = Instant::now();
        }
        took += last - began;
        runtime.kill().await?;
        if done == before {
            return Err("lambda-simulator hung at the first invocation of an environment".into());
        }
    }
    Ok(Peer { rate: count as f64 / took.as_secs_f64(), hung })
}

/// A runtime of nothing but its protocol: one connection, one event after the other.
fn runtime(api: &str) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(api)?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let next = format!("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: {api}\r\n\r\n");
    loop {
        stream.write_all(next.as_bytes())?;
        let Some(id) = answer(&mut reader)? else { return Err("an event without an id".into()) };
        let body = format!(r#"{{"statusCode":200,"headers":{{"x-request-id":"{id}"}}}}"#);
        let head = format!("POST /2018-06-01/runtime/invocation/{id}/response HTTP/1.1\r\nHost: {api}\r\n");
        let request = format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(request.as_bytes())?;
        answer(&mut reader)?;
    }
}

/// Reads one answer to its end; the request id in it, if there is one.
fn answer(reader: &mut impl BufRead) -> Result<Option<String>, Failure> {
    let (mut id, mut length, mut line) = (None, 0, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err("the Runtime API closed the connection".into());
        }
        let Some((name, value)) = line.split_once(':') else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "lambda-runtime-aws-request-id" => id = Some(value.trim().to_owned()),
            "content-length" => length = value.trim().parse()?,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(id)
}
