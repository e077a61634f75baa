//! S3 through a stand-in on the loopback interface: what is asked of it, and what its answers become.

mod support;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use opentelemetry::trace::{SpanKind, Status};
use support::{Service, attribute};
use tokio::net::TcpListener;

/// One bucket named `bucket`, in key order, with pages of two keys.
#[derive(Clone, Default)]
struct Bucket {
    files: Arc<Mutex<BTreeMap<String, Bytes>>>,
    seen: Arc<Mutex<Vec<(String, HeaderMap)>>>,
}

const PAGE: usize = 2;

fn error(status: StatusCode, code: &str) -> Response {
    let body = format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>");
    (status, [("x-amz-request-id", "R-404")], body).into_response()
}

async fn list(
    State(bucket): State<Bucket>,
    Path(name): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    bucket.seen.lock().unwrap().push(("LIST".into(), headers));
    if name != "bucket" {
        return error(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    let prefix = query.get("prefix").cloned().unwrap_or_default();
    let after = query.get("continuation-token").cloned().unwrap_or_default();
    let files = bucket.files.lock().unwrap();
    let mut matching = files
        .keys()
        .filter(|key| key.starts_with(&prefix) && !key[prefix.len()..].contains('/'))
        .filter(|key| **key > after);
    let page: Vec<_> = matching.by_ref().take(PAGE).collect();
    let truncated = matching.next().is_some();
    let contents: String = page
        .iter()
        .map(|key| {
            format!(
                "<Contents><Key>{key}</Key><Size>1</Size><ETag>\"e\"</ETag>\
                 <LastModified>2026-11-23T13:03:45.000Z</LastModified></Contents>"
            )
        })
        .collect();
    let token = match page.last() {
        Some(last) if truncated => {
            format!("<NextContinuationToken>{last}</NextContinuationToken>")
        }
        _ => String::new(),
    };
    let body = format!("<ListBucketResult>{contents}<IsTruncated>{truncated}</IsTruncated>{token}</ListBucketResult>");
    ([("x-amz-request-id", "R-list")], body).into_response()
}

async fn read(State(bucket): State<Bucket>, Path((name, key)): Path<(String, String)>, headers: HeaderMap) -> Response {
    bucket.seen.lock().unwrap().push((format!("GET {key}"), headers));
    if name != "bucket" {
        return error(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    match bucket.files.lock().unwrap().get(&key) {
        Some(content) => (
            [("etag", "\"e\""), ("last-modified", "Mon, 23 Nov 2026 13:03:45 GMT"), ("x-amz-request-id", "R-get")],
            content.clone(),
        )
            .into_response(),
        None => error(StatusCode::NOT_FOUND, "NoSuchKey"),
    }
}

async fn write(
    State(bucket): State<Bucket>,
    Path((name, key)): Path<(String, String)>,
    headers: HeaderMap,
    content: Bytes,
) -> Response {
    bucket.seen.lock().unwrap().push((format!("PUT {key}"), headers));
    if name != "bucket" {
        return error(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    bucket.files.lock().unwrap().insert(key, content);
    ([("etag", "\"e\""), ("x-amz-request-id", "R-put")], ()).into_response()
}

async fn delete(
    State(bucket): State<Bucket>,
    Path((name, key)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    bucket.seen.lock().unwrap().push((format!("DELETE {key}"), headers));
    if name != "bucket" {
        return error(StatusCode::NOT_FOUND, "NoSuchBucket");
    }
    bucket.files.lock().unwrap().remove(&key);
    (StatusCode::NO_CONTENT, [("x-amz-request-id", "R-delete")]).into_response()
}

impl Bucket {
    /// Serves the stand-in on a free port; gives its URL.
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/{bucket}", get(list))
            .route("/{bucket}/{*key}", get(read).put(write).delete(delete))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    fn keys(&self) -> Vec<String> {
        self.files.lock().unwrap().keys().cloned().collect()
    }

    fn headers_of(&self, request: &str) -> HeaderMap {
        let seen = self.seen.lock().unwrap();
        let found = seen.iter().find(|(seen, _)| seen == request);
        found.unwrap_or_else(|| panic!("no {request}")).1.clone()
    }
}

async fn service(bucket: &Bucket, more: &[(&str, &str)]) -> Service {
    let url = bucket.serve().await;
    let mut settings = vec![
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "us-west-2"),
        ("S3_BUCKET_NAME", "bucket"),
    ];
    settings.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
    settings.extend(more);
    Service::start(&settings)
}

#[tokio::test]
async fn a_file_is_written_read_listed_and_deleted_under_the_prefix() {
    let bucket = Bucket::default();
    let service = service(&bucket, &[("S3_OBJECT_PREFIX", "/data")]).await;
    for name in ["a%20b.txt", "%C3%A9.txt", "c.txt", "d.txt", "e.txt"] {
        let answer = service.call("POST", &format!("/files/{name}?content=x"), &[]).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    assert_eq!(bucket.keys(), ["data/a b.txt", "data/c.txt", "data/d.txt", "data/e.txt", "data/é.txt"]);
    assert_eq!(service.get("/files/%C3%A9.txt").await.text(), "x");
    assert_eq!(
        service.get("/files/").await.text(),
        r#"{"files":["a b.txt","c.txt","d.txt","e.txt","é.txt"]}"#,
        "all three pages"
    );
    assert_eq!(service.call("DELETE", "/files/c.txt", &[]).await.status(), 200);
    assert!(!bucket.keys().contains(&"data/c.txt".to_owned()));
}

#[tokio::test]
async fn the_prefix_is_cut_off_the_front_only() {
    let bucket = Bucket::default();
    let service = service(&bucket, &[("S3_OBJECT_PREFIX", "a")]).await;
    service.call("POST", "/files/a?content=x", &[]).await;
    service.call("POST", "/files/ba?content=x", &[]).await;
    assert_eq!(service.get("/files/").await.text(), r#"{"files":["a","ba"]}"#);
}

#[tokio::test]
async fn each_call_is_a_client_span_under_the_request() {
    let bucket = Bucket::default();
    let service = service(&bucket, &[]).await;
    service.call("POST", "/files/a.txt?content=x", &[]).await;
    service.get("/files/a.txt").await;
    service.get("/files/").await;
    service.call("DELETE", "/files/a.txt", &[]).await;
    for (name, method, server, status, id) in [
        ("S3.PutObject", "PutObject", "POST /files/{path}", "200", "R-put"),
        ("S3.GetObject", "GetObject", "GET /files/{path}", "200", "R-get"),
        ("S3.ListObjectsV2", "ListObjectsV2", "GET /files/", "200", "R-list"),
        ("S3.DeleteObject", "DeleteObject", "DELETE /files/{path}", "204", "R-delete"),
    ] {
        let span = service.span(name);
        assert_eq!(span.span_kind, SpanKind::Client);
        assert_eq!(span.status, Status::Unset);
        assert_eq!(span.parent_span_id, service.span(server).span_context.span_id());
        for (attribute_name, value) in [
            ("rpc.system", "aws-api"),
            ("rpc.service", "S3"),
            ("rpc.method", method),
            ("server.address", "127.0.0.1"),
            ("http.response.status_code", status),
            ("aws.request_id", id),
        ] {
            assert_eq!(attribute(&span, attribute_name), value, "{name} {attribute_name}");
        }
        assert!(attribute(&span, "server.port").parse::<u16>().is_ok());
    }
}

#[tokio::test]
async fn the_trace_goes_on_to_s3_in_the_forms_of_the_propagators() {
    let bucket = Bucket::default();
    let service = service(&bucket, &[("OTEL_PROPAGATORS", "xray,tracecontext")]).await;
    service.call("POST", "/files/a.txt?content=x", &[]).await;
    let span = service.span("S3.PutObject").span_context;
    let headers = bucket.headers_of("PUT a.txt");
    let (trace_id, span_id) = (span.trace_id().to_string(), span.span_id());
    assert_eq!(headers["traceparent"], format!("00-{trace_id}-{span_id}-01"));
    assert_eq!(
        headers["x-amzn-trace-id"],
        format!("Root=1-{}-{};Parent={span_id};Sampled=1", &trace_id[..8], &trace_id[8..])
    );
}

#[tokio::test]
async fn without_propagators_no_trace_header_goes_out() {
    let bucket = Bucket::default();
    let service = service(&bucket, &[("OTEL_PROPAGATORS", "none")]).await;
    service.call("POST", "/files/a.txt?content=x", &[]).await;
    let headers = bucket.headers_of("PUT a.txt");
    assert!(!headers.contains_key("traceparent") && !headers.contains_key("x-amzn-trace-id"));
}

#[tokio::test]
async fn a_missing_file_is_an_error_of_the_call_and_not_of_the_request() {
    let service = service(&Bucket::default(), &[]).await;
    let answer = service.get("/files/missing.txt").await;
    assert_eq!(answer.status(), 404);
    assert_eq!(answer.text(), r#"{"detail":"Could not find file: missing.txt"}"#);
    let call = service.span("S3.GetObject");
    assert!(matches!(&call.status, Status::Error { description } if !description.is_empty()));
    assert_eq!(attribute(&call, "http.response.status_code"), "404");
    let event = &call.events.events[0];
    assert_eq!(event.name, "exception");
    let keys: Vec<_> = event.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    assert_eq!(keys, ["exception.type", "exception.message"]);
    assert_eq!(service.span("GET /files/{path}").status, Status::Unset);
}

#[tokio::test]
async fn a_missing_bucket_is_a_500_on_every_route() {
    let service = service(&Bucket::default(), &[("S3_BUCKET_NAME", "another")]).await;
    for (method, path) in
        [("GET", "/files/a.txt"), ("GET", "/files/"), ("POST", "/files/a.txt?content=x"), ("DELETE", "/files/a.txt")]
    {
        let answer = service.call(method, path, &[("origin", "http://localhost:3000")]).await;
        assert_eq!(answer.status(), 500, "{method} {path}");
        assert_eq!(answer.text(), "Internal Server Error");
        assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
        assert!(answer.header("x-response-time").is_some());
    }
    let span = service.span("GET /files/{path}");
    assert!(matches!(span.status, Status::Error { .. }));
    assert_eq!(attribute(&span, "error.type"), "StorageError");
    assert_eq!(span.events.events[0].name, "exception");
    let line = service.line("Unhandled error");
    assert_eq!(line["level"], "ERROR");
    assert!(line["exception.message"].as_str().unwrap().contains("NoSuchBucket"));
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_is_a_500() {
    let service = service(&Bucket::default(), &[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")]).await;
    assert_eq!(service.get("/files/a.txt").await.status(), 500);
    let call = service.span("S3.GetObject");
    assert!(matches!(call.status, Status::Error { .. }));
    assert_eq!(attribute(&call, "http.response.status_code"), "", "there was no answer");
}
