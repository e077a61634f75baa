//! What a scenario on a process deployment costs beyond the service's own answer and export.
//!
//! ```text
//! cargo bench -p tracegate --bench scenario_cost [-- SCENARIOS]
//! ```
//!
//! The service is this program again. It answers a request only after it has written a log line and its exports of the
//! span and of a log record have been acknowledged, so that nothing is waited for behind the answer, and it notes how long each request
//! took from its first byte to its answer. A scenario (one request, five assertions, the invariants, the evidence on disk) is
//! measured from verdict to verdict, one at a time; from that the service's own time is taken off, that of its fences
//! included. What is left is the harness's: the client, the sink, correlation, judging, evidence, the runner.

use std::{
    error::Error,
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::Parser;
use tracegate::{
    cli::RunArguments,
    report::{Event, Reporter},
};

type Failure = Box<dyn Error + Send + Sync>;

const SCENARIO: &str = r#"
  Scenario: Number NUMBER
    When a client sends GET /orders/NUMBER
    Then the response status is 200
    And the trace has a SERVER span "GET /orders/{id}"
    And the trace hangs on the caller's span
    And the request is correlated
    And the trace is whole
"#;

#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    run: RunArguments,
}

fn main() -> Result<(), Failure> {
    if let Ok(notes) = std::env::var("COST_NOTES") {
        return serve(&notes);
    }
    let arguments = std::env::args().skip(1).find(|argument| argument != "--bench");
    let scenarios = arguments.map_or(Ok(300), |count| count.parse::<usize>())?;
    let folder = tempfile::tempdir()?;
    let (notes, executable) = (folder.path().join("notes"), std::env::current_exe()?);
    let configuration = format!(
        "features = \"cost.feature\"\noutput = \"out\"\n[deployments.process]\nkind = \"process\"\ncommand = [{executable:?}]\nready = {{ http = \
         \"/healthz\" }}\nenv = {{ PORT = \"{{port}}\", COST_NOTES = {notes:?} }}\n"
    );
    fs::write(folder.path().join("tracegate.toml"), configuration)?;
    let mut feature = String::from("Feature: Cost\n");
    (0..scenarios).for_each(|number| feature.push_str(&SCENARIO.replace("NUMBER", &number.to_string())));
    fs::write(folder.path().join("cost.feature"), feature)?;

    let path = folder.path().join("tracegate.toml");
    let arguments = ["run", "--jobs", "1", "--config"].map(str::to_owned).into_iter();
    let arguments = Arguments::parse_from(arguments.chain([path.display().to_string()])).run;
    let mut verdicts = Verdicts::default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(arguments.run_with(executable, None, &mut verdicts));
    let summary = ended.map_err(|(_, report)| format!("{report:?}"))?;
    if summary.passed() != scenarios {
        return Err(format!("{summary}: {:?}", summary.outcomes.iter().find_map(|outcome| outcome.problem())).into());
    }
    let mut served: Vec<(u128, u128)> = Vec::new();
    for line in fs::read_to_string(&notes)?.lines() {
        let (at, took) = line.split_once(' ').ok_or("a note without a time")?;
        served.push((at.parse()?, took.parse()?));
    }
    // The first scenario waits for the service's start.
    let spans = verdicts.0.windows(2).map(|pair| (pair[0], pair[1]));
    let (mut walls, mut own, mut requests) = (Vec::new(), Vec::new(), 0);
    for (from, to) in spans {
        let within: Vec<u128> =
            served.iter().filter(|(at, _)| (from..to).contains(at)).map(|(_, took)| *took).collect();
        requests += within.len();
        walls.push(to - from);
        own.push((to - from).saturating_sub(within.iter().sum()));
    }
    let cpu = cpu_time()? / u32::try_from(walls.len())?;
    let third = own.len() / 3;
    let (early, late) = (own[..third].to_vec(), own[own.len() - third..].to_vec());
    println!("{} scenarios, {:.2} requests each with the fences", walls.len(), requests as f64 / walls.len() as f64);
    let rows = [
        ("from verdict to verdict", walls),
        ("of it the harness's own", own),
        ("  in the first third", early),
        ("  in the last third", late),
    ];
    for (what, mut times) in rows {
        times.sort_unstable();
        let at = |share: usize| times[(times.len() - 1) * share / 100] as f64 / 1e6;
        println!("{what:<26} median {:>6.2} ms, 90th {:>6.2} ms, 99th {:>6.2} ms", at(50), at(90), at(99));
    }
    println!("processor time of the harness, start included: {:.2} ms a scenario", cpu.as_secs_f64() * 1e3);
    Ok(())
}

/// What this process has computed, which a busy machine does not change.
fn cpu_time() -> Result<Duration, Failure> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let times = [usage.user_time(), usage.system_time()];
    let micros: i64 = times.iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum();
    Ok(Duration::from_micros(micros.unsigned_abs()))
}

/// When each verdict was told.
#[derive(Default)]
struct Verdicts(Vec<u128>);

impl Reporter for Verdicts {
    fn tell(&mut self, event: &Event) {
        if let Event::Judged(_) = event {
            self.0.push(now());
        }
    }
}

fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos()
}

/// A service with hand-made telemetry.
fn serve(notes: &str) -> Result<(), Failure> {
    let listener = TcpListener::bind(format!("127.0.0.1:{}", std::env::var("PORT")?))?;
    let endpoint = std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let sink = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut sink = BufReader::new(TcpStream::connect(&sink)?);
    sink.get_ref().set_nodelay(true)?;
    let mut notes = OpenOptions::new().create(true).append(true).open(notes)?;
    let mut next: u64 = 1;
    for connection in listener.incoming() {
        let mut connection = BufReader::new(connection?);
        let mut line = String::new();
        connection.read_line(&mut line)?;
        let (at, began) = (now(), Instant::now());
        let mut context = None;
        let target = line.split(' ').nth(1).unwrap_or("/").to_owned();
        loop {
            let mut header = String::new();
            if connection.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("traceparent")
            {
                context = Some(value.trim().to_owned());
            }
        }
        next += 1;
        let fresh = format!("00-{next:032x}-0000000000000000-01");
        let context = context.unwrap_or(fresh);
        let mut parts = context.split('-').skip(1);
        let (trace, parent) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let span = format!("{:016x}", next << 20);
        let route = if target.starts_with("/orders/") { "/orders/{id}" } else { target.as_str() };
        println!(
            "{{\"level\":\"INFO\",\"message\":\"order read\",\"path\":{target:?},\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"}}"
        );
        let resource = r#""resource":{"attributes":[{"key":"service.name","value":{"stringValue":"orders"}}]}"#;
        let end = now();
        let parent = if parent.bytes().all(|byte| byte == b'0') {
            String::new()
        } else {
            format!("\"parentSpanId\":\"{parent}\",")
        };
        let spans = format!(
            "{{\"resourceSpans\":[{{{resource},\"scopeSpans\":[{{\"scope\":{{\"name\":\"cost\"}},\"spans\":[{{\"traceId\":\"{trace}\",\
             \"spanId\":\"{span}\",{parent}\"name\":\"GET {route}\",\"kind\":2,\"startTimeUnixNano\":\"{at}\",\
             \"endTimeUnixNano\":\"{end}\",\"attributes\":[{{\"key\":\"http.request.method\",\"value\":{{\"stringValue\":\"GET\"}}}},\
             {{\"key\":\"http.route\",\"value\":{{\"stringValue\":{route:?}}}}},{{\"key\":\"url.path\",\"value\":{{\"stringValue\":{target:?}}}}},\
             {{\"key\":\"url.scheme\",\"value\":{{\"stringValue\":\"http\"}}}},\
             {{\"key\":\"http.response.status_code\",\"value\":{{\"intValue\":\"200\"}}}}]}}]}}]}}]}}"
        );
        let records = format!(
            "{{\"resourceLogs\":[{{{resource},\"scopeLogs\":[{{\"scope\":{{\"name\":\"cost\"}},\"logRecords\":[{{\"timeUnixNano\":\"{end}\",\
             \"severityNumber\":9,\"severityText\":\"INFO\",\"body\":{{\"stringValue\":\"order read\"}},\"traceId\":\"{trace}\",\
             \"spanId\":\"{span}\"}}]}}]}}]}}"
        );
        export(&mut sink, "/v1/traces", &spans)?;
        export(&mut sink, "/v1/logs", &records)?;
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
        connection.get_mut().write_all(answer.as_bytes())?;
        let mut note = String::new();
        writeln!(note, "{at} {}", began.elapsed().as_nanos())?;
        notes.write_all(note.as_bytes())?;
    }
    Ok(())
}

fn export(sink: &mut BufReader<TcpStream>, path: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: sink\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    sink.get_mut().write_all((head + body).as_bytes())?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        sink.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    io::copy(&mut sink.take(length), &mut io::sink())?;
    Ok(())
}
