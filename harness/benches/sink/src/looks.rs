//! Looks at a store: one trace, and the verdict of a step that waits.

use std::{
    error::Error,
    hint::black_box,
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use tracegate::{
    capture::{Capture, Encoding, ExportRequest, Mark, Signal, Store, Transport, index::index, sink::Sink},
    correlation::{Options, correlated, request},
    stimulus::{Caller, ContextForm, Delivery, HttpResponse},
    telemetry::{Arrival, SpanId, TraceId},
};

use crate::load::{Body, IN_TRACE, SPANS, post};

/// A store with so many spans.
pub fn filled(spans: usize) -> Arc<Store> {
    let store = Arc::new(Store::default());
    let mut body = Body::new();
    for request in 0..spans.div_ceil(SPANS) as u64 {
        body.renew(request);
        let bytes = Bytes::copy_from_slice(&body.bytes);
        let contents = index(Signal::Traces, Encoding::Protobuf, &bytes).expect("sound");
        let request = ExportRequest {
            signal: Signal::Traces,
            transport: Transport::Http,
            encoding: Encoding::Protobuf,
            user_agent: "bench".into(),
            body: bytes,
            arrival: Arrival::default(),
        };
        store.add_export(request, contents.index, contents.faults);
    }
    store
}

fn id(request: u64, trace: u64) -> TraceId {
    let bytes = [(request + 1).to_be_bytes(), (trace + 1).to_be_bytes()].concat();
    TraceId::from_bytes(&bytes).expect("an id")
}

/// Times of reading one trace out of a request of which nothing was read before, in nanoseconds. With `cold`, no store is in
/// a cache of the processor when its reading begins; else a small one is, since it was just written.
pub fn read_traces(spans: usize, samples: usize, cold: bool) -> Vec<f64> {
    let mut times = Vec::new();
    let requests = spans.div_ceil(SPANS) as u64;
    while times.len() < samples {
        let store = filled(spans);
        // Spread over all of it, in no order that a cache could like.
        if cold {
            // Larger than any cache: what filling has left there says something of the processor, and nothing of the store.
            black_box(vec![1u8; 256 << 20]);
        }
        for sample in 0..requests.min((samples - times.len()) as u64) {
            let request = sample.wrapping_mul(7919) % requests;
            let trace = id(request, sample.wrapping_mul(31) % (SPANS / IN_TRACE) as u64);
            let began = Instant::now();
            let found = store.look(|capture| capture.spans_of(trace).map(|span| span.name.len()).sum::<usize>());
            times.push(began.elapsed().as_nanos() as f64);
            assert!(found > 0);
        }
    }
    times
}

/// Times from when the last export that a step needs begins to be sent to the step's verdict, and from when it is in the
/// store, in nanoseconds.
pub async fn verdicts(spans: usize, samples: usize) -> Result<(Vec<f64>, Vec<f64>), Box<dyn Error + Send + Sync>> {
    let store = filled(spans);
    let sink = Sink::start(store.clone()).await?;
    let address = sink.address();
    let mut connection = TcpStream::connect(address)?;
    connection.set_nodelay(true)?;
    let (mut from_sending, mut from_arrival) = (Vec::new(), Vec::new());
    for sample in 0..samples {
        let delivery = delivery(&store, sample);
        let (first, last) = exports(&delivery);
        post(&mut connection, "/v1/logs", &first)?;
        let waiting = tokio::spawn({
            let store = store.clone();
            async move {
                let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
                let found = store.until(deadline, |capture| judged(capture, &delivery)).await;
                (found, now(), Instant::now())
            }
        });
        tokio::task::yield_now().await;
        let (returned, sent) = tokio::task::spawn_blocking(move || {
            let sent = Instant::now();
            let done = post(&mut connection, "/v1/traces", &last);
            (done.map(|()| connection), sent)
        })
        .await?;
        connection = returned?;
        let (found, at, then) = waiting.await?;
        let arrived = found.ok_or("no verdict")?;
        from_arrival.push(at.saturating_sub(arrived) as f64);
        from_sending.push((then - sent).as_nanos() as f64);
    }
    Ok((from_sending, from_arrival))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// What a waiting step does: correlates the request and judges it; when the last of it came.
fn judged(capture: &Capture, delivery: &Delivery) -> Option<u64> {
    let options = Options { since: Some(delivery.sent.seq), alone: true, exclusive: true, ..Options::default() };
    let evidence = request(capture, delivery, options);
    let sound = evidence.trace.len() == IN_TRACE
        && evidence.logs.len() == 1
        && evidence.strangers.is_empty()
        && evidence.logs.iter().all(|record| correlated(record, &evidence).is_ok());
    sound.then(|| evidence.trace.spans().map(|span| span.arrival.unix_nano).max()).flatten()
}

fn delivery(store: &Store, sample: usize) -> Delivery {
    let caller = Caller { trace_id: TraceId::random(), span_id: SpanId::random(), sampled: true };
    let mark = format!("bench-{sample}");
    let sent = store.mark(Mark::Sent { delivery: mark.clone() });
    let answered = store.mark(Mark::Answered { delivery: mark.clone() });
    Delivery {
        user_agent: mark.clone(),
        headers: Vec::new(),
        mark,
        method: "GET".into(),
        target: "/files/a.txt".into(),
        caller: Some(caller),
        form: ContextForm::Both,
        sent,
        answered,
        response: HttpResponse { status: 200, headers: Vec::new(), body: Bytes::new() },
        invocation: None,
    }
}

/// A log record of the request, and its spans.
fn exports(delivery: &Delivery) -> (Vec<u8>, Vec<u8>) {
    let caller = delivery.caller.expect("one");
    let trace_id = caller.trace_id.as_bytes().to_vec();
    let span_id = |n: usize| vec![9, 9, 9, 9, 9, 9, 9, n as u8 + 1];
    let time = delivery.sent.unix_nano;
    let value = Some(AnyValue { value: Some(Value::StringValue(delivery.user_agent.clone())) });
    let spans = (0..IN_TRACE).map(|n| Span {
        trace_id: trace_id.clone(),
        span_id: span_id(n),
        parent_span_id: if n == 0 { caller.span_id.as_bytes().to_vec() } else { span_id(0) },
        name: "GET /files/{name}".into(),
        kind: if n == 0 { 2 } else { 1 },
        start_time_unix_nano: time,
        end_time_unix_nano: time + 1,
        attributes: vec![KeyValue { key: "user_agent.original".into(), value: value.clone(), ..Default::default() }],
        ..Default::default()
    });
    let scope_spans = vec![ScopeSpans { spans: spans.collect(), ..Default::default() }];
    let traces =
        ExportTraceServiceRequest { resource_spans: vec![ResourceSpans { scope_spans, ..Default::default() }] };
    let record = LogRecord { trace_id, span_id: span_id(0), time_unix_nano: time, ..Default::default() };
    let scope_logs = vec![ScopeLogs { log_records: vec![record], ..Default::default() }];
    let logs = ExportLogsServiceRequest { resource_logs: vec![ResourceLogs { scope_logs, ..Default::default() }] };
    (logs.encode_to_vec(), traces.encode_to_vec())
}
