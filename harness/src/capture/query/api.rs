//! The query API: `GET` under [`PATH`], on the port of the sink. `docs/sink.md` has the whole of it.

use std::{io, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures::stream;
use http::{StatusCode, header::CONTENT_TYPE};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Filter, answer, counts, guard::guard, line, parameters::Question};
use crate::capture::{ExportRequest, Signal, Store, Token};

/// Where it is.
pub const PATH: &str = "/tracegate";

/// Requests that a tail takes out of the store at once.
const BATCH: usize = 64;

/// A tail waits for this long, and then waits again.
const LONG: Duration = Duration::from_secs(3600);

/// Answers queries about what a store holds.
#[derive(Debug, Clone)]
pub struct Api {
    /// What is asked about.
    pub store: Arc<Store>,
    /// Ends every tail.
    pub stop: CancellationToken,
}

type Parameters = Query<Vec<(String, String)>>;

impl Api {
    /// Its routes. Who does not know the token is answered 401, who is not near or calls by a foreign name 403.
    pub fn router(self, token: Token) -> Router {
        Router::new()
            .route("/tracegate/traces/{trace}", get(trace))
            .route("/tracegate/spans", get(spans))
            .route("/tracegate/logs", get(logs))
            .route("/tracegate/metrics", get(metrics))
            .route("/tracegate/counts", get(count))
            .route("/tracegate/tail", get(tail))
            .with_state(self)
            .route_layer(middleware::from_fn_with_state(Arc::new(token), guard))
    }

    /// Looks where it holds up nobody.
    async fn find(self, signal: Signal, filter: Filter, most: usize) -> Response {
        let found = tokio::task::spawn_blocking(move || answer(&self.store, signal, &filter, most)).await;
        match found.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(json) => ([(CONTENT_TYPE, "application/json")], json).into_response(),
            Err(reason) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{reason}\n")).into_response(),
        }
    }

    async fn ask(self, question: Question, signal: Signal, parameters: &[(String, String)]) -> Response {
        match question.read(parameters) {
            Ok((filter, most)) => self.find(signal, filter, most).await,
            Err(reason) => bad(reason),
        }
    }
}

fn bad(reason: String) -> Response {
    (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response()
}

/// All spans of a trace, however many there are; 404 when there is none.
async fn trace(State(api): State<Api>, Path(trace): Path<String>) -> Response {
    let asked = [("trace".to_owned(), trace)];
    let filter = match Question::Spans.read(&asked) {
        Ok((filter, _)) => filter,
        Err(reason) => return bad(reason),
    };
    let known = filter.trace.is_some_and(|trace| api.store.look(|capture| capture.spans_of(trace).next().is_some()));
    if !known {
        return (StatusCode::NOT_FOUND, format!("no span of {} is here\n", asked[0].1)).into_response();
    }
    api.find(Signal::Traces, filter, usize::MAX).await
}

async fn spans(State(api): State<Api>, Query(parameters): Parameters) -> Response {
    api.ask(Question::Spans, Signal::Traces, &parameters).await
}

async fn logs(State(api): State<Api>, Query(parameters): Parameters) -> Response {
    api.ask(Question::Logs, Signal::Logs, &parameters).await
}

async fn metrics(State(api): State<Api>, Query(parameters): Parameters) -> Response {
    api.ask(Question::Metrics, Signal::Metrics, &parameters).await
}

async fn count(State(api): State<Api>) -> Response {
    let counted = api.store.look(counts);
    ([(CONTENT_TYPE, "application/json")], counted.to_string()).into_response()
}

/// Everything that comes from now on, one export request a line, until the client goes or the sink stops.
async fn tail(State(api): State<Api>, Query(parameters): Parameters) -> Response {
    let filter = match Question::Tail.read(&parameters) {
        Ok((filter, _)) => (!parameters.is_empty()).then_some(filter),
        Err(reason) => return bad(reason),
    };
    let seen = api.store.look(|capture| capture.last_seq());
    let lines = stream::unfold((api, filter, seen), |(api, filter, mut seen)| async move {
        loop {
            let requests = match api.stop.run_until_cancelled(since(&api.store, seen)).await? {
                Some(requests) => requests,
                // Cut off in the middle, so that it is no end like any other.
                None => {
                    return Some((
                        Err(io::Error::other("the reader is slower than the exporters")),
                        (api, filter, seen),
                    ));
                }
            };
            seen = requests.last().map_or(seen, |last| last.arrival.seq);
            let mut text = String::new();
            for request in &requests {
                // What cannot be shown was refused by the sink, or is a profile of a version that is not known here.
                if let Ok(Some(line)) = line(request, filter.as_ref()) {
                    text.push_str(&line);
                    text.push('\n');
                }
            }
            if !text.is_empty() {
                return Some((Ok(Bytes::from(text)), (api, filter, seen)));
            }
        }
    });
    ([(CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// The requests that came behind a stamp, some at least and at most [`BATCH`]; `None` when something behind it had to be
/// dropped.
async fn since(store: &Store, seen: u64) -> Option<Vec<ExportRequest>> {
    loop {
        let news = store.until(Instant::now() + LONG, |capture| {
            if capture.dropped().until > seen {
                return Some(None);
            }
            let requests = capture.requests();
            let from = requests.partition_point(|request| request.arrival.seq <= seen);
            let news: Vec<_> = requests.iter().skip(from).take(BATCH).cloned().collect();
            (!news.is_empty()).then_some(Some(news))
        });
        if let Some(news) = news.await {
            return news;
        }
    }
}
