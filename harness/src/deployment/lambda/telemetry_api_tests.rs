use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt,
    sync::{mpsc, watch},
};

use super::*;
use crate::{
    capture::{Store, stdout::parse_line},
    config,
    telemetry::LogOrigin,
};

fn check_for(managed: bool, change: impl FnOnce(&mut Value)) -> Result<Subscriber, String> {
    let mut body = json!({
        "schemaVersion": "2022-07-01",
        "types": ["platform", "function"],
        "destination": { "protocol": "HTTP", "URI": "http://sandbox.localdomain:9003/in" },
    });
    change(&mut body);
    serde_json::from_value::<Subscription>(body).map_err(|error| error.to_string())?.check(managed)
}

fn check(change: impl FnOnce(&mut Value)) -> Result<Subscriber, String> {
    check_for(false, change)
}

#[test]
fn sandbox_localdomain_is_loopback_and_buffering_has_its_defaults() {
    let address = SocketAddr::from(([127, 0, 0, 1], 9003));
    assert_eq!(check(|_| {}).unwrap(), Subscriber::Http { address, path: "/in".into() });
    let nameless = json!({ "protocol": "HTTP", "URI": "http://:9003/in" });
    assert_eq!(
        check(|body| body["destination"] = nameless).unwrap(),
        Subscriber::Http { address, path: "/in".into() },
        "as a collector writes it that is told to run locally"
    );
    let limits = json!({ "maxItems": 1000, "maxBytes": 1_048_576, "timeoutMs": 25 });
    assert!(check(|body| body["buffering"] = limits).is_ok());
    let tcp = json!({ "protocol": "TCP", "port": 9003 });
    assert_eq!(check(|body| body["destination"] = tcp).unwrap(), Subscriber::Tcp { address });
}

#[test]
fn a_subscription_that_lambda_would_refuse_is_refused() {
    for (key, value, expected) in [
        ("schemaVersion", json!("2020-01-01"), "schemaVersion"),
        ("types", json!([]), "types is empty"),
        ("types", json!(["metrics"]), "\"metrics\""),
        ("buffering", json!({ "maxItems": 999 }), "maxItems 999 is not from 1000 to 10000"),
        ("buffering", json!({ "maxBytes": 1_048_577 }), "maxBytes"),
        ("buffering", json!({ "timeoutMs": 24 }), "timeoutMs 24 is not from 25 to 30000"),
        ("destination", json!({ "protocol": "UDP", "port": 9000 }), "none of HTTP, TCP"),
        ("destination", json!({ "protocol": "TCP" }), "destination.port"),
        ("destination", json!({ "protocol": "HTTP", "URI": "http://example.com:80" }), "sandbox.localdomain"),
        ("destination", json!({ "protocol": "HTTP", "URI": "nowhere" }), "destination.URI"),
    ] {
        let error = check(|body| body[key] = value.clone()).unwrap_err();
        assert!(error.contains(expected), "{key} {value}: {error}");
    }
}

#[test]
fn a_managed_instance_knows_only_the_last_schema() {
    let latest = |body: &mut Value| body["schemaVersion"] = json!("2025-01-29");
    assert!(check_for(true, |_| {}).unwrap_err().contains("2025-01-29"));
    assert!(check_for(true, latest).is_ok() && check_for(false, latest).is_ok());
}

/// A subscription to the function's lines and the platform's events, as the test plays the subscriber.
struct Heard {
    platform: Arc<Platform>,
    store: Arc<Store>,
    batches: mpsc::UnboundedReceiver<Vec<Value>>,
    /// Whether a batch that was sent has arrived.
    taken: watch::Sender<bool>,
    _delivery: tokio::task::JoinHandle<()>,
}

impl Heard {
    fn subscribe(limits: Buffering, types: &[&str], fails: usize) -> Self {
        let store = Arc::new(Store::default());
        let platform = Arc::new(Platform::new(store.clone(), config::Function::default(), false));
        let subscription = Subscription {
            schema_version: "2022-12-13".into(),
            types: types.iter().map(|&kind| kind.to_owned()).collect(),
            buffering: limits,
            destination: Destination { protocol: "HTTP".into(), uri: String::new(), port: 0 },
        };
        let (sender, batches) = mpsc::unbounded_channel();
        let taken = watch::Sender::new(true);
        let subscribed = taken.subscribe();
        let sent = AtomicUsize::new(0);
        let delivery = tokio::spawn({
            let platform = platform.clone();
            async move {
                let send = move |events: Vec<String>| {
                    let fails = sent.fetch_add(1, Ordering::SeqCst) < fails;
                    let events = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
                    let _ = sender.send(events);
                    let mut taken = subscribed.clone();
                    Box::pin(async move {
                        let _ = taken.wait_for(|taken| *taken).await;
                        if fails { Err("refused".to_owned()) } else { Ok(()) }
                    }) as Sending
                };
                deliver(&platform, &subscription, send).await;
            }
        });
        Self { platform, store, batches, taken, _delivery: delivery }
    }

    fn write(&self, lines: usize) {
        for line in 0..lines {
            self.store.add_line(format!("line {line}"), |line, arrival| parse_line(line, LogOrigin::Stdout, arrival));
        }
    }

    async fn batch(&mut self) -> Vec<Value> {
        self.batches.recv().await.unwrap()
    }
}

const LIMITS: Buffering = Buffering { max_items: 1_000, max_bytes: 262_144, timeout_ms: 1_000 };

#[tokio::test(start_paused = true)]
async fn a_batch_is_sent_when_it_has_its_items() {
    let began = Instant::now();
    let mut heard = Heard::subscribe(LIMITS, &["function"], 0);
    heard.write(1_000);
    assert_eq!(heard.batch().await.len(), 1_000);
    assert!(began.elapsed() < Duration::from_millis(1_000), "not by the time");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_sent_when_it_has_its_bytes() {
    let began = Instant::now();
    let limits = Buffering { max_bytes: 300, ..LIMITS };
    let mut heard = Heard::subscribe(limits, &["function"], 0);
    heard.write(6);
    let batch = heard.batch().await;
    let bytes: usize = batch.iter().map(|event| event.to_string().len()).sum();
    assert!((300..400).contains(&bytes), "{bytes}");
    assert!(began.elapsed() < Duration::from_millis(1_000), "not by the time");
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_sent_when_its_first_event_has_waited_long_enough() {
    let began = Instant::now();
    let mut heard = Heard::subscribe(LIMITS, &["function"], 0);
    heard.write(3);
    assert_eq!(heard.batch().await.len(), 3);
    assert_eq!(began.elapsed().as_millis() / 10, 100);
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_that_takes_no_batches_loses_the_full_ones_and_is_told() {
    let limits = Buffering { max_items: 4, ..LIMITS };
    let mut heard = Heard::subscribe(limits, &["platform", "function"], 0);
    heard.taken.send_replace(false);
    heard.write(4);
    assert_eq!(heard.batch().await.len(), 4);
    // The first one is still on its way.
    heard.write(4);
    let told = || heard.platform.since(0).0.iter().any(|event| event.json.contains("platform.logsDropped"));
    while !told() {
        tokio::task::yield_now().await;
    }
    heard.taken.send_replace(true);
    let batch = heard.batch().await;
    let dropped = batch.iter().find(|event| event["type"] == "platform.logsDropped").expect("it is told");
    assert_eq!(dropped["record"]["droppedRecords"], 4);
    assert!(dropped["record"]["droppedBytes"].as_u64().unwrap() > 100);
    assert!(dropped["record"]["reason"].as_str().unwrap().contains("slower than the logs production rate"));
    assert!(!batch.iter().any(|event| event["type"] == "function"), "{batch:?}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_subscriber_loses_nothing_as_long_as_the_next_batch_has_room() {
    let limits = Buffering { max_items: 4, ..LIMITS };
    let mut heard = Heard::subscribe(limits, &["platform", "function"], 0);
    heard.taken.send_replace(false);
    heard.write(4);
    assert_eq!(heard.batch().await.len(), 4);
    heard.write(3);
    tokio::time::advance(Duration::from_secs(60)).await;
    heard.taken.send_replace(true);
    let batch = heard.batch().await;
    assert!(batch.len() == 3 && batch.iter().all(|event| event["type"] == "function"), "{batch:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_could_not_be_sent_is_dropped_and_said_once() {
    let mut heard = Heard::subscribe(LIMITS, &["platform", "function"], 2);
    heard.write(2);
    assert_eq!(heard.batch().await.len(), 2);
    let told = heard.batch().await;
    assert_eq!((told.len(), &told[0]["type"]), (1, &json!("platform.logsDropped")));
    assert_eq!(told[0]["record"]["reason"], "could not send events: refused");
    // That one failed too, and nothing is said of it.
    heard.write(1);
    let next = heard.batch().await;
    assert_eq!((next.len(), &next[0]["type"]), (1, &json!("function")));
}

#[tokio::test]
async fn over_tcp_each_event_is_a_line_on_one_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let subscriber = Arc::new(Subscriber::Tcp { address: listener.local_addr().unwrap() });
    let connection = Arc::new(Mutex::new(None));
    for events in [vec!["{\"a\":1}".to_owned(), "{\"b\":2}".into()], vec!["{\"c\":3}".into()]] {
        subscriber.clone().send(connection.clone(), events).await.unwrap();
    }
    connection.lock().await.take();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut read = String::new();
    stream.read_to_string(&mut read).await.unwrap();
    assert_eq!(read, "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n");
    drop(listener);
    let refused = subscriber.send(connection, vec!["{}".into()]).await.unwrap_err();
    assert!(refused.contains("127.0.0.1"), "{refused}");
}
