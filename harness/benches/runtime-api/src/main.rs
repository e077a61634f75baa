//! Round trips of the Runtime API: Tracegate's beside lambda-simulator's, in one run and with the same runtime.
//!
//! ```text
//! cargo run --release --manifest-path harness/benches/runtime-api/Cargo.toml
//! ```
//!
//! A round trip is an event handed to a runtime in a process of its own, and its response back with whoever invoked. The
//! runtime is this program again: a loop of `next` and `response` over one connection, so that what is measured is the
//! emulator. Every response is checked for the request that it answers; one that is lost, doubled or does not come within
//! ten seconds ends the run with exit code 1.
//!
//! Arguments: invocations with freezing off (100,000), and on (2,000).

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
use tracegate::{
    capture::{Mark, Store},
    config::Config,
    deployment::{Deployment, process::ProcessSite},
};

type Failure = Box<dyn Error + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(10);

/// How many invocations lambda-simulator is given: enough for a rate, and few enough that a hang costs little.
const PEER: usize = 10_000;

fn main() -> Result<(), Failure> {
    if let Ok(api) = std::env::var("AWS_LAMBDA_RUNTIME_API") {
        return runtime(&api);
    }
    tokio::runtime::Runtime::new()?.block_on(compare())
}

async fn compare() -> Result<(), Failure> {
    let mut counts = std::env::args().skip(1).map(|count| count.parse::<usize>());
    let (off, on) = (counts.next().transpose()?.unwrap_or(100_000), counts.next().transpose()?.unwrap_or(2_000));
    let own = tracegate(off, false).await?;
    println!("tracegate, freeze off:   {off} invocations, {own:.0} a second");
    println!("tracegate, freeze on:    {on} invocations, {:.0} a second", tracegate(on, true).await?);
    let (done, peer) = simulator(PEER).await?;
    let hung = if done < PEER { format!(", then it hung at number {}", done + 1) } else { String::new() };
    println!("lambda-simulator 0.2:    {done} invocations, {peer:.0} a second{hung}");
    println!("tracegate, freeze off, is {:.1} times as fast", own / peer);
    Ok(())
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

async fn simulator(count: usize) -> Result<(usize, f64), Failure> {
    let simulator = Simulator::builder().build().await?;
    let mut runtime = tokio::process::Command::new(std::env::current_exe()?)
        .env("AWS_LAMBDA_RUNTIME_API", simulator.addr().to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let event = json!({ "path": "/", "httpMethod": "GET", "headers": {} });
    let began = Instant::now();
    let mut last = began;
    let mut done = 0;
    for _ in 0..count {
        let id = simulator.enqueue_payload(event.clone()).await;
        if simulator.wait_for_invocation_complete(&id, PATIENCE).await.is_err() {
            break;
        }
        done += 1;
        last = Instant::now();
    }
    runtime.kill().await?;
    Ok((done, done as f64 / (last - began).as_secs_f64()))
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
