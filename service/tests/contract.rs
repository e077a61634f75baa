//! The original's recorded answers, asked for again.
//!
//! `fixtures/http-contract.ndjson` holds one request a line with the original's answer. Where this
//! service does the right thing instead, `DIFFERENCES` says what and why.

mod support;

use std::collections::BTreeMap;

use axum::body::Body;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::Request;
use serde_json::{Value, json};
use support::{Answer, Service};

const CONTRACT: &str = include_str!("fixtures/http-contract.ndjson");

/// What differs from the recorded answer.
enum Expect {
    /// Another `allow` header, nothing else.
    Allow(&'static str),
    /// Another body, nothing else but its length.
    Body(&'static str),
    /// Another status and body, and these headers besides those that every answer has.
    Answer(u16, &'static str, &'static [(&'static str, &'static str)]),
    /// A page of our own: only its title and what it loads are compared.
    Page,
    /// The document with the 404 of a file as the JSON that it is.
    OpenApi,
}

use Expect::{Allow, Answer as Other, Body as OtherBody, OpenApi, Page};

const JSON: (&str, &str) = ("content-type", "application/json");
const TEXT: (&str, &str) = ("content-type", "text/plain; charset=utf-8");
const NOT_FOUND: &str = r#"{"detail":"Not Found"}"#;

/// Case (or `*`), name of the request, what is different, why.
const DIFFERENCES: &[(&str, &str, Expect, &str)] = &[
    ("*", "openapi", OpenApi, "a missing file is documented as it is sent (bug 7)"),
    ("*", "prefixed_openapi", OpenApi, "a missing file is documented as it is sent (bug 7)"),
    ("*", "head_openapi", OpenApi, "a missing file is documented as it is sent (bug 7)"),
    ("*", "docs_root", Page, "the page loads nothing from other hosts"),
    ("*", "prefix_only_slash", Page, "the page loads nothing from other hosts"),
    ("*", "head_docs_root", Page, "the page loads nothing from other hosts"),
    ("*", "redoc", Page, "the page loads nothing from other hosts"),
    ("*", "head_redoc", Page, "the page loads nothing from other hosts"),
    ("*", "oauth2_redirect", Page, "the page is that of the newer Swagger UI"),
    ("*", "head_oauth2_redirect", Page, "the page is that of the newer Swagger UI"),
    ("*", "healthcheck_head", Other(200, "", &[JSON]), "HEAD works where GET does (bug 9)"),
    ("*", "get_head", Other(200, "", &[TEXT]), "HEAD works where GET does (bug 9)"),
    ("*", "head_list", Other(200, "", &[JSON]), "HEAD works where GET does (bug 9)"),
    ("*", "healthcheck_post", Allow("GET, HEAD"), "allow lists the true methods (bug 8)"),
    ("*", "put", Allow("GET, HEAD, POST, DELETE"), "allow lists the true methods (bug 8)"),
    ("*", "delete_root", Allow("GET, HEAD"), "allow lists the true methods (bug 8)"),
    ("*", "options_plain", Allow("GET, HEAD, POST, DELETE"), "allow lists the true methods (bug 8)"),
    ("*", "preflight_no_method", Allow("GET, HEAD"), "allow lists the true methods (bug 8)"),
    ("*", "delete_method_on_health", Allow("GET, HEAD"), "allow lists the true methods (bug 8)"),
    ("*", "patch_file", Allow("GET, HEAD, POST, DELETE"), "allow lists the true methods (bug 8)"),
    ("*", "post_list", Allow("GET, HEAD"), "allow lists the true methods (bug 8)"),
    ("*", "healthcheck_badutf8", Other(200, r#""200 OK""#, &[JSON]), "no route uses the body (bug 11)"),
    (
        "*",
        "cors_500",
        Other(
            200,
            r#""200 OK""#,
            &[
                JSON,
                ("access-control-allow-credentials", "true"),
                ("access-control-allow-origin", "http://localhost:3000"),
            ],
        ),
        "no route uses the body (bug 11)",
    ),
    ("*", "body_bad_utf8_post", Other(200, r#"{"path":"j.txt"}"#, &[JSON]), "no route uses the body (bug 11)"),
    ("*", "body_png", Other(200, r#"{"path":"j.txt"}"#, &[JSON]), "no route uses the body (bug 11)"),
    ("*", "body_bad_unknown_path", Other(404, NOT_FOUND, &[JSON]), "no route uses the body (bug 11)"),
    (
        "*",
        "list_many",
        OtherBody(r#"{"files":["a b.txt","a.txt","b.txt","c.txt","empty.txt","u.txt"]}"#),
        "items can be given back to GET (bug 1)",
    ),
    ("*", "list", OtherBody(r#"{"files":["a.txt"]}"#), "items can be given back to GET (bug 1)"),
    ("*", "list_dir", OtherBody(r#"{"files":[]}"#), "a directory is no string prefix (bug 4)"),
    ("*", "post_dot", Other(404, NOT_FOUND, &[JSON]), "the prefix cannot be left (bug 3)"),
    ("*", "post_dot1", Other(404, NOT_FOUND, &[JSON]), "the prefix cannot be left (bug 3)"),
    ("*", "post_encdotdot", Other(404, NOT_FOUND, &[JSON]), "the prefix cannot be left (bug 3)"),
    ("*", "get_dotdot", Other(404, NOT_FOUND, &[JSON]), "the prefix cannot be left (bug 3)"),
    ("*", "list_dotdot", OtherBody(r#"{"files":[]}"#), "the prefix cannot be left (bug 3)"),
    ("*", "list_empty_dir", OtherBody(r#"{"files":["a.txt"]}"#), "items can be given back to GET (bug 1)"),
    ("*", "list_after", OtherBody(r#"{"files":["a.txt"]}"#), "items can be given back to GET (bug 1)"),
    (
        "*",
        "list_unicode",
        OtherBody(r#"{"files":["a+b.txt","a.txt","j.txt","x.txt","é.txt"]}"#),
        "items can be given back to GET (bug 1)",
    ),
];

fn rows(case: &str) -> Vec<Value> {
    CONTRACT.lines().map(|line| serde_json::from_str(line).unwrap()).filter(|row: &Value| row["case"] == case).collect()
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    serde_json::from_value(value.clone()).unwrap()
}

fn request(row: &Value) -> Request<Body> {
    let mut request = Request::builder().method(row["method"].as_str().unwrap()).uri(row["path"].as_str().unwrap());
    let headers = pairs(&row["request_headers"]);
    if !headers.iter().any(|(name, _)| name == "Host") {
        request = request.header("host", "127.0.0.1:28000");
    }
    for (name, value) in &headers {
        request = request.header(name, value);
    }
    let body = match (row["request_body"].as_str(), row["request_body_base64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).unwrap(),
        (None, None) => Vec::new(),
    };
    request.body(Body::from(body)).unwrap()
}

/// Headers that are compared: all but the time, whose form is checked, and the length, which must
/// be that of the body.
fn headers(pairs: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    pairs.into_iter().filter(|(name, _)| !matches!(name.as_str(), "x-response-time" | "content-length")).collect()
}

fn compare(row: &Value, answer: &Answer, mismatches: &mut Vec<String>) {
    let name = row["name"].as_str().unwrap();
    let case = row["case"].as_str().unwrap();
    let head = row["method"] == "HEAD";
    let mut status = row["status"].as_u64().unwrap();
    let recorded = pairs(&row["response_headers"]);
    let preflight = recorded.iter().any(|(name, _)| name == "access-control-allow-methods");
    let mut expected = headers(recorded);
    let mut body = row["body"].as_str().map(str::to_owned);
    let difference = DIFFERENCES.iter().find(|(of, named, _, _)| (*of == "*" || *of == case) && *named == name);
    let mut page = false;
    let mut openapi = false;
    match difference.map(|(_, _, expect, _)| expect) {
        Some(Allow(methods)) => {
            expected.insert("allow".into(), (*methods).into());
        }
        Some(OtherBody(text)) => body = Some((*text).into()),
        Some(Other(code, text, others)) => {
            status = u64::from(*code);
            body = Some((*text).into());
            expected = headers(others.iter().map(|(name, value)| ((*name).into(), (*value).into())));
            expected.insert("vary".into(), "Origin".into());
        }
        Some(Page) => page = true,
        Some(OpenApi) => openapi = true,
        None => {}
    }
    let mut check = |what: &str, expected: &dyn std::fmt::Debug, got: &dyn std::fmt::Debug| {
        let (expected, got) = (format!("{expected:?}"), format!("{got:?}"));
        if expected != got {
            mismatches.push(format!("{case}/{name} {what}: expected {expected}, got {got}"));
        }
    };
    check("status", &status, &u64::from(answer.status()));
    let got = headers(
        answer
            .response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())),
    );
    check("headers", &expected, &got);
    let length: usize = answer.header("content-length").unwrap_or("-1").parse().unwrap_or(usize::MAX);
    if head {
        check("body", &"", &answer.text());
    } else {
        check("content-length", &answer.body.len(), &length);
        if openapi || page {
            // Compared in tests of their own.
        } else if let Some(body) = body {
            check("body", &body, &answer.text());
        }
    }
    match (preflight, answer.header("x-response-time")) {
        (true, None) => {}
        (false, Some(time)) if is_time(time) => {}
        (_, time) => check("x-response-time", &"<ms with 2 decimals> ms, or none for preflights", &time),
    }
}

fn is_time(text: &str) -> bool {
    text.strip_suffix(" ms")
        .and_then(|number| number.split_once('.'))
        .is_some_and(|(whole, decimals)| whole.parse::<u64>().is_ok() && decimals.len() == 2)
}

async fn replay(settings: &[(&str, &str)], rows: &[Value]) {
    let service = Service::start(settings);
    let mut mismatches = Vec::new();
    for row in rows {
        compare(row, &service.send(request(row)).await, &mut mismatches);
    }
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
}

const ROOT_PATH: [(&str, &str); 3] =
    [("ROOT_PATH", "/prod"), ("FRONTEND_CORS_URL", "https://frontend.example"), ("ENVIRONMENT", "production")];

#[tokio::test]
async fn without_settings_every_answer_is_the_originals() {
    let rows = rows("default");
    assert_eq!(rows.len(), 47);
    replay(&[], &rows).await;
}

#[tokio::test]
async fn a_root_path_changes_only_the_answers_that_it_changed_in_the_original() {
    let changed = rows("root-path");
    assert_eq!(changed.len(), 4);
    let merged: Vec<Value> = rows("default")
        .into_iter()
        .map(|row| {
            let other = changed.iter().find(|changed| changed["name"] == row["name"]);
            other.cloned().unwrap_or(row)
        })
        .collect();
    replay(&ROOT_PATH, &merged).await;
}

#[tokio::test]
async fn under_a_root_path_every_further_answer_is_the_originals() {
    let rows = rows("root-path-extra");
    assert_eq!(rows.len(), 58);
    replay(&ROOT_PATH, &rows).await;
}

#[test]
fn every_difference_names_a_recorded_request() {
    let names: Vec<Value> = CONTRACT.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (_, name, _, why) in DIFFERENCES {
        assert!(names.iter().any(|row| row["name"] == *name), "{name}");
        assert!(!why.is_empty());
    }
}

/// The recorded document, with the 404 of a file as it is sent.
fn documented(case: &str) -> Value {
    let row = rows(case).into_iter().find(|row| row["name"] == "openapi").unwrap();
    let mut document: Value = serde_json::from_str(row["body"].as_str().unwrap()).unwrap();
    let content = document
        .pointer_mut("/paths/~1files~1{path}/get/responses/404/content")
        .and_then(Value::as_object_mut)
        .unwrap();
    let examples = content.remove("text/plain").unwrap();
    content.insert("application/json".into(), examples);
    document
}

#[tokio::test]
async fn the_openapi_document_is_the_originals() {
    for (case, settings) in [("default", &[][..]), ("root-path", &ROOT_PATH[..])] {
        let answer = Service::start(settings).get("/openapi.json").await;
        let document: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(document, documented(case), "{case}");
    }
}

#[tokio::test]
async fn every_file_in_the_list_can_be_read_by_its_name() {
    let service = Service::start(&[]);
    for name in ["a%20b.txt", "%C3%A9.txt", "a%25b", "a%3Fb", "~%7B%7D"] {
        assert_eq!(service.call("POST", &format!("/files/{name}?content=x"), &[]).await.status(), 200);
    }
    let list: Value = serde_json::from_slice(&service.get("/files/").await.body).unwrap();
    let files = list["files"].as_array().unwrap();
    assert_eq!(files.len(), 5);
    for file in files {
        let name = percent_encoding::utf8_percent_encode(file.as_str().unwrap(), percent_encoding::NON_ALPHANUMERIC);
        assert_eq!(service.get(&format!("/files/{name}")).await.text(), "x", "{file}");
    }
}

#[tokio::test]
async fn the_pages_load_their_files_from_this_service_and_nothing_from_elsewhere() {
    for root in ["", "/prod"] {
        let service = Service::start(&[("ROOT_PATH", root)]);
        for (page, title, loads) in [
            (
                "/",
                "<title>Serverless FastAPI - Swagger UI</title>",
                &["/docs/swagger-ui.css", "/docs/swagger-ui-bundle.js", "/openapi.json", "/docs/oauth2-redirect"][..],
            ),
            (
                "/redoc",
                "<title>Serverless FastAPI - ReDoc</title>",
                &["/docs/redoc.standalone.js", "/openapi.json"][..],
            ),
        ] {
            let answer = service.get(page).await;
            assert!(answer.text().contains(title));
            assert!(!answer.text().contains("//"), "{page} refers to another host");
            for path in loads {
                let path = format!("{root}{path}");
                assert!(answer.text().contains(&path), "{page} does not load {path}");
                let loaded = service.get(&path).await;
                assert_eq!(loaded.status(), 200, "{path}");
                assert!(!loaded.body.is_empty());
            }
        }
        let redirect = service.get("/docs/oauth2-redirect").await;
        assert!(redirect.text().contains("src=\"oauth2-redirect.js\""));
        assert_eq!(service.get("/docs/oauth2-redirect.js").await.status(), 200);
    }
}

#[tokio::test]
async fn redoc_has_no_picture_from_another_host() {
    let redoc = Service::start(&[]).get("/docs/redoc.standalone.js").await;
    assert!(!redoc.text().contains("cdn.redoc.ly"));
}

#[tokio::test]
async fn a_gateway_that_speaks_https_gets_redirects_to_https() {
    let service = Service::start(&[]);
    let headers = [("host", "api.example"), ("x-forwarded-proto", "https")];
    let answer = service.call("GET", "/files", &headers).await;
    assert_eq!(answer.header("location"), Some("https://api.example/files/"));
}

#[tokio::test]
async fn a_file_survives_in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let settings = [("FILES_DIRECTORY", directory.path().to_str().unwrap())];
    let written = Service::start(&settings).call("POST", "/files/a%20b.txt?content=kept", &[]).await;
    assert_eq!(written.status(), 200);
    let service = Service::start(&settings);
    assert_eq!(service.get("/files/a%20b.txt").await.text(), "kept");
    assert_eq!(service.get("/files/").await.text(), r#"{"files":["a b.txt"]}"#);
    assert_eq!(service.get("/files/?directory_path=none").await.text(), r#"{"files":[]}"#);
    assert_eq!(service.call("DELETE", "/files/a%20b.txt", &[]).await.status(), 200);
    assert_eq!(service.call("DELETE", "/files/a%20b.txt", &[]).await.status(), 200);
    assert_eq!(service.get("/files/a%20b.txt").await.status(), 404);
}

#[tokio::test]
async fn a_directory_lists_its_own_files_only() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(directory.path().join("a/deeper")).unwrap();
    for file in ["a.txt", "a/b.txt", "a/deeper/c.txt"] {
        std::fs::write(directory.path().join(file), "x").unwrap();
    }
    let service = Service::start(&[("FILES_DIRECTORY", directory.path().to_str().unwrap())]);
    for (query, files) in [
        ("", json!(["a.txt"])),
        ("?directory_path=a", json!(["a/b.txt"])),
        ("?directory_path=/a/", json!(["a/b.txt"])),
        ("?directory_path=a/./deeper/..", json!(["a/b.txt"])),
        ("?directory_path=a/deeper", json!(["a/deeper/c.txt"])),
        ("?directory_path=..", json!([])),
        ("?directory_path=a/../..", json!([])),
    ] {
        let answer = service.get(&format!("/files/{query}")).await;
        let list: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(list["files"], files, "{query}");
    }
}
