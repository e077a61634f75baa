//! Round trips of the Runtime API: Tracegate's beside lambda-simulator's, in one run and with the same runtime.
//!
//! ```text
//! cargo run --release --manifest-path harness/benches/runtime-api/Cargo.toml
//! ```
//!
//! A round trip is an event handed to a runtime in a process of its own, and its response back with whoever invoked. The
//! runtime is this program again: a loop of `next` and `response` over one connection, so that what is measured is the
//! emulator. Rounds alternate between the two, each on a fresh emulator and in the other order than the one before, so that
//! what else the machine does hits both; the ratio is the median of the rounds' ratios. Three ways of calling are measured:
//!
//! | callers | runtimes | threads of caller and emulator |
//! | --- | --- | --- |
//! | one, which invokes again when it has its response | one | one, as in a `#[tokio::test]` |
//! | the same | one | several, as in `tracegate run` |
//! | sixteen at once, each of which does that | one | several |
//!
//! Beside the first two, in the same rounds, runs the floor: a loop on a thread of its own that reads requests from the same
//! runtime and writes constant answers, with neither states nor callers. It is what is left when an emulator does nothing.
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
    net::{TcpListener, TcpStream},
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use lambda_simulator::Simulator;
use serde_json::json;
use tokio::{runtime::Builder, task::JoinSet};
use tracegate::{
    capture::{Mark, Store},
    config::Config,
    deployment::{Deployment, process::ProcessSite},
};

type Failure = Box<dyn Error + Send + Sync>;

const PATIENCE: Duration = Duration::from_secs(10);

/// Callers that invoke at once, where there are several.
const CALLERS: usize = 16;

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
                println!("{:.0} a second", several.block_on(tracegate(each, 1, false))?);
            }
        }
        Some("simulator") => {
            for _ in 0..rounds {
                println!("{:.0} a second", several.block_on(simulator(each, 1))?.rate);
            }
        }
        Some(other) => return Err(format!("{other:?} is neither `tracegate` nor `simulator`").into()),
        None => {
            for (way, runtime, callers) in [
                ("one caller, on one thread", &one, 1),
                ("one caller, on several threads", &several, 1),
                ("sixteen callers at once, on several threads", &several, CALLERS),
            ] {
                println!("{way}:");
                runtime.block_on(compare(rounds, each, callers))?;
            }
            for (freeze, count) in [(false, count(2, 100_000)), (true, count(3, 2_000))] {
                let (word, rate) = (if freeze { "on" } else { "off" }, several.block_on(tracegate(count, 1, freeze))?);
                println!("tracegate, freeze {word}: {count} invocations in one environment, {rate:.0} a second");
            }
        }
    }
    Ok(())
}

async fn compare(rounds: usize, each: usize, callers: usize) -> Result<(), Failure> {
    let (mut ours, mut theirs, mut floors, mut ratios, mut hung) = (vec![], vec![], vec![], vec![], 0);
    for round in 0..rounds {
        let (own, peer);
        if round % 2 == 0 {
            own = tracegate(each, callers, false).await?;
            peer = simulator(each, callers).await?;
        } else {
            peer = simulator(each, callers).await?;
            own = tracegate(each, callers, false).await?;
        }
        if callers == 1 {
            floors.push(tokio::task::spawn_blocking(move || floor(each)).await??);
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
    if callers == 1 {
        println!("floor:                   {:.0} a second", median(&mut floors));
    }
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

/// Lets so many callers invoke until `count` invocations are made or one hangs. How many were made, and until when.
async fn call<I, F>(count: usize, callers: usize, invoke: I) -> Result<(usize, Instant), Failure>
where
    I: Fn() -> F + Clone + Send + 'static,
    F: Future<Output = Result<bool, Failure>> + Send + 'static,
{
    let begun = Arc::new(AtomicUsize::new(0));
    let mut all = JoinSet::new();
    for _ in 0..callers {
        let (begun, invoke) = (begun.clone(), invoke.clone());
        all.spawn(async move {
            let (mut done, mut last) = (0, Instant::now());
            while begun.fetch_add(1, Ordering::Relaxed) < count {
                if !invoke().await? {
                    // The others need not go on.
                    begun.fetch_add(count, Ordering::Relaxed);
                    break;
                }
                (done, last) = (done + 1, Instant::now());
            }
            Ok::<_, Failure>((done, last))
        });
    }
    let (mut done, mut last) = (0, Instant::now());
    let mut first = true;
    while let Some(caller) = all.join_next().await {
        let (made, until) = caller??;
        done += made;
        last = if first { until } else { last.max(until) };
        first = false;
    }
    Ok((done, last))
}

async fn tracegate(count: usize, callers: usize, freeze: bool) -> Result<f64, Failure> {
    let text = format!(
        "[deployments.f]\nkind = \"lambda-process\"\ncommand = [\"x\"]\nfunction = {{ freeze = {freeze}, timeout = \"10s\" }}"
    );
    let config = Config::parse(&text, Path::new("/"), Path::new("tracegate.toml"))?;
    let this = std::env::current_exe()?.display().to_string();
    let store = Arc::new(Store::default());
    let sink = ([127, 0, 0, 1], 4318).into();
    let site = Arc::new(ProcessSite);
    let spec = &config.deployments["f"];
    let deployment = Arc::new(Deployment::start(spec, vec![this], site, store.clone(), sink, &BTreeMap::new()).await?);
    let event = json!({ "path": "/", "httpMethod": "GET", "headers": {} });
    let ids = Arc::new(Mutex::new(HashSet::with_capacity(count)));
    let began = Instant::now();
    let (done, last) = call(count, callers, move || {
        let (deployment, event, ids) = (deployment.clone(), event.clone(), ids.clone());
        async move {
            let delivery =
                tokio::time::timeout(PATIENCE, deployment.deliver(event)).await.map_err(|_| "an invocation hung")??;
            let invocation = delivery.invocation.ok_or("nothing was invoked")?;
            let answered = delivery.response.header("x-request-id");
            if answered != Some(&invocation.request_id) {
                return Err(format!("invocation {} was answered for {answered:?}", invocation.request_id).into());
            }
            if !ids.lock().unwrap().insert(invocation.request_id) {
                return Err("an invocation has an id that another had".into());
            }
            Ok(true)
        }
    })
    .await?;
    let of = |wanted: fn(&Mark) -> bool| {
        store.look(|capture| capture.lifecycle().iter().filter(|entry| wanted(&entry.mark)).count())
    };
    let handed_out = of(|mark| matches!(mark, Mark::Dispatched { .. }));
    let answered = of(|mark| matches!(mark, Mark::Responded { .. }));
    if (done, handed_out, answered) != (count, count, count) {
        return Err(
            format!("{count} invocations: {handed_out} handed out, {answered} answered, {done} came back").into()
        );
    }
    Ok(count as f64 / (last - began).as_secs_f64())
}

/// A round of lambda-simulator.
struct Peer {
    /// Invocations a second, without the time in which it hung.
    rate: f64,
    hung: usize,
}

async fn simulator(count: usize, callers: usize) -> Result<Peer, Failure> {
    let event = json!({ "path": "/", "httpMethod": "GET", "headers": {} });
    let (mut done, mut hung, mut took) = (0, 0, Duration::ZERO);
    while done < count {
        let simulator = Arc::new(Simulator::builder().build().await?);
        let mut runtime = tokio::process::Command::new(std::env::current_exe()?)
            .env("AWS_LAMBDA_RUNTIME_API", simulator.addr().to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        // Tracegate's environment is ready when the clock starts.
        simulator.wait_for(|| simulator.is_initialized(), PATIENCE).await?;
        let began = Instant::now();
        let event = event.clone();
        let (made, last) = call(count - done, callers, move || {
            let (simulator, event) = (simulator.clone(), event.clone());
            async move {
                let id = simulator.enqueue_payload(event).await;
                let Ok(state) = simulator.wait_for_invocation_complete(&id, PATIENCE).await else { return Ok(false) };
                let response = state.response.ok_or("an invocation without a response")?;
                if response.payload["headers"]["x-request-id"] != state.invocation.aws_request_id.as_str() {
                    return Err(format!("invocation {id} was answered with {}", response.payload).into());
                }
                Ok(true)
            }
        })
        .await?;
        took += last - began;
        runtime.kill().await?;
        if made == 0 {
            return Err("lambda-simulator hung at the first invocation of an environment".into());
        }
        done += made;
        hung += usize::from(done < count);
    }
    Ok(Peer { rate: count as f64 / took.as_secs_f64(), hung })
}

/// Round trips a second of a loop that does nothing but read and write.
fn floor(count: usize) -> Result<f64, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut runtime = std::process::Command::new(std::env::current_exe()?)
        .env("AWS_LAMBDA_RUNTIME_API", listener.local_addr()?.to_string())
        .stdin(Stdio::null())
        .spawn()?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let event = r#"{"path":"/","httpMethod":"GET","headers":{}}"#;
    answer(&mut reader)?;
    let began = Instant::now();
    for number in 0..count {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: ";
        let event = format!("{head}{number}\r\nContent-Length: {}\r\n\r\n{event}", event.len());
        stream.write_all(event.as_bytes())?;
        answer(&mut reader)?;
        stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 15\r\n\r\n{\"status\":\"OK\"}")?;
        answer(&mut reader)?;
    }
    let took = began.elapsed();
    runtime.kill()?;
    runtime.wait()?;
    Ok(count as f64 / took.as_secs_f64())
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

/// Reads one answer to its end (or, for the floor, one request); the request id in it, if there is one.
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
