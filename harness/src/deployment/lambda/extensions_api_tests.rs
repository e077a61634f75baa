use std::{net::SocketAddr, time::Duration};

use tokio::net::TcpListener;

use super::{
    super::runtime_api::{About, RuntimeApi},
    *,
};
use crate::{
    capture::Store,
    stimulus::{Caller, ContextForm, HttpRequest, HttpResponse, http},
};

const PATIENCE: Duration = Duration::from_secs(20);

async fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> HttpResponse {
    let request = HttpRequest {
        method: method.into(),
        target: path.into(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: body.into(),
        caller: Caller::fresh(1, true),
        form: ContextForm::Absent,
    };
    http::send(address, &request, "extension", PATIENCE).await.unwrap()
}

async fn api() -> (SocketAddr, RuntimeApi) {
    serve(crate::config::Function::default()).await
}

async fn serve(function: crate::config::Function) -> (SocketAddr, RuntimeApi) {
    serve_as(About { function, ..About::default() }).await
}

async fn serve_as(about: About) -> (SocketAddr, RuntimeApi) {
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    let about = About { external: vec!["outside".into(), "second".into()], ..about };
    (address, RuntimeApi::start(listener, about, Arc::new(Store::default())))
}

const BOTH: &str = r#"{"events":["INVOKE","SHUTDOWN"]}"#;

async fn register(address: SocketAddr, name: &str, body: &'static str) -> HttpResponse {
    call(address, "POST", "/2020-01-01/extension/register", &[("Lambda-Extension-Name", name)], body).await
}

fn body(response: &HttpResponse) -> Value {
    serde_json::from_slice(&response.body).unwrap()
}

fn refused(response: &HttpResponse) -> (u16, String) {
    (response.status, body(response)["errorType"].as_str().unwrap().to_owned())
}

fn id(response: &HttpResponse) -> String {
    response.header("lambda-extension-identifier").unwrap().to_owned()
}

#[tokio::test]
async fn telemetry_that_cannot_be_sent_into_a_container_is_not_promised() {
    for (in_container, status) in [(false, 200), (true, 202)] {
        let (address, api) = serve_as(About { in_container, ..About::default() }).await;
        let headers = [("Lambda-Extension-Identifier", &*id(&register(address, "outside", BOTH).await))];
        let body = r#"{"schemaVersion":"2022-07-01","types":["platform"],
            "destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:9003"}}"#;
        let answer = call(address, "PUT", "/2022-07-01/telemetry", &headers, body).await;
        assert_eq!((answer.status, api.has_subscribers()), (status, !in_container));
    }
}

#[tokio::test]
async fn who_registers_is_told_the_function_and_the_account_only_when_it_accepts_that_feature() {
    let (address, mut api) = api().await;
    let plain = register(address, "outside", BOTH).await;
    assert_eq!(plain.status, 200);
    assert_eq!(
        body(&plain),
        json!({ "functionName": "function", "functionVersion": "$LATEST", "handler": "bootstrap" })
    );
    assert!(matches!(api.did.recv().await, Some(Did::Registered(name)) if name == "outside"));
    let headers = [("Lambda-Extension-Name", "second"), ("Lambda-Extension-Accept-Feature", "other, accountId")];
    let curious = call(address, "POST", "/2020-01-01/extension/register", &headers, BOTH).await;
    assert_eq!(body(&curious)["accountId"], "123456789012");
    let registered = |name: &str| Registered { name: name.into(), external: true, invoke: true, shutdown: true };
    assert_eq!(api.extensions(), [registered("outside"), registered("second")]);
}

#[tokio::test]
async fn a_registration_without_events_or_with_null_for_them_is_one_for_none() {
    let (address, api) = api().await;
    for (name, body) in [("GoLangEnableSIGTERM", r#"{"events":null}"#), ("other", "{}")] {
        assert_eq!(register(address, name, body).await.status, 200, "{body}");
    }
    let asked: Vec<(bool, bool)> =
        api.extensions().iter().map(|extension| (extension.invoke, extension.shutdown)).collect();
    assert_eq!(asked, [(false, false), (false, false)]);
}

#[tokio::test]
async fn the_logs_api_is_answered_with_202_for_an_extension_and_sends_nothing() {
    let (address, _api) = api().await;
    let subscribe = async |id: &str| {
        call(address, "PUT", "/2020-08-15/logs", &[("Lambda-Extension-Identifier", id)], "{}").await.status
    };
    let known = id(&register(address, "outside", BOTH).await);
    assert_eq!(subscribe(&known).await, 202);
    assert_eq!(subscribe("nobody").await, 403);
}

#[tokio::test]
async fn a_registration_that_lambda_would_refuse_is_refused() {
    let (address, api) = api().await;
    for (name, asked, expected) in [
        ("", BOTH, (403, "Extension.InvalidExtensionName")),
        ("outside", "{", (400, "InvalidRequestFormat")),
        ("outside", r#"{"events":["PAUSE"]}"#, (403, "Extension.InvalidEventType")),
        ("inside", BOTH, (403, "ShutdownEventNotSupportedForInternalExtension")),
    ] {
        let (status, kind) = refused(&register(address, name, asked).await);
        assert_eq!((status, kind.as_str()), expected, "{name} {asked}");
    }
    assert_eq!(register(address, "inside", r#"{"events":["INVOKE"]}"#).await.status, 200);
    let again = refused(&register(address, "inside", "{}").await);
    assert_eq!(again, (403, "Extension.InvalidExtensionState".into()));
    for number in 1..MOST {
        assert_eq!(register(address, &format!("inside {number}"), "{}").await.status, 200);
    }
    assert_eq!(refused(&register(address, "one more", "{}").await), (403, "Extension.TooManyExtensions".into()));
    assert_eq!(api.extension_count(), MOST);
}

#[tokio::test]
async fn on_a_managed_instance_an_external_extension_registers_for_shutdown_and_an_internal_one_for_nothing() {
    let (address, _api) = serve(crate::config::Function { concurrency: Some(2), ..Default::default() }).await;
    let shutdown = r#"{"events":["SHUTDOWN"]}"#;
    for (name, asked) in [("outside", BOTH), ("inside", shutdown), ("inside", r#"{"events":["INVOKE"]}"#)] {
        let refused = refused(&register(address, name, asked).await);
        assert_eq!(refused, (403, "Extension.InvalidEventType".into()), "{name} {asked}");
    }
    assert_eq!(register(address, "outside", shutdown).await.status, 200);
    assert_eq!(register(address, "inside", "{}").await.status, 200);
}

#[tokio::test]
async fn registration_closes_when_the_runtime_asks_for_its_first_event() {
    let (address, mut api) = api().await;
    let runtime =
        tokio::spawn(async move { call(address, "GET", "/2018-06-01/runtime/invocation/next", &[], "").await });
    let Some(Did::Asked(_waiting)) = api.did.recv().await else { panic!("the runtime did not ask") };
    assert_eq!(refused(&register(address, "outside", BOTH).await), (403, "Extension.RegistrationClosed".into()));
    runtime.abort();
}

#[tokio::test]
async fn an_extension_is_known_by_its_identifier() {
    let (address, _api) = api().await;
    let unknown = uuid::Uuid::new_v4().to_string();
    for (headers, expected) in [
        (&[][..], "Extension.MissingExtensionIdentifier"),
        (&[("Lambda-Extension-Identifier", "x")][..], "Extension.InvalidExtensionIdentifier"),
        (&[("Lambda-Extension-Identifier", unknown.as_str())][..], "Extension.UnknownExtensionIdentifier"),
    ] {
        for (method, path) in [("GET", "event/next"), ("POST", "init/error"), ("POST", "exit/error")] {
            let answer = call(address, method, &format!("/2020-01-01/extension/{path}"), headers, "").await;
            assert_eq!(refused(&answer), (403, expected.into()), "{path}");
        }
    }
}

#[tokio::test]
async fn an_event_waits_for_the_extension_and_a_second_request_beside_the_first_is_refused() {
    let (address, mut api) = api().await;
    let id = id(&register(address, "outside", BOTH).await);
    api.did.recv().await;
    let headers = [("Lambda-Extension-Identifier", id.as_str())];
    let first = tokio::spawn({
        let id = id.clone();
        async move {
            let headers = [("Lambda-Extension-Identifier", id.as_str())];
            call(address, "GET", "/2020-01-01/extension/event/next", &headers, "").await
        }
    });
    let Some(Did::ExtensionAsked { index, waiting }) = api.did.recv().await else { panic!("it did not ask") };
    let second = call(address, "GET", "/2020-01-01/extension/event/next", &headers, "").await;
    assert_eq!(refused(&second), (403, "Extension.InvalidExtensionState".into()));
    let event = invoke_event("id", 1_675_466_288_419, "arn", Some("Root=1-2-3"));
    api.notify(index, waiting, event).unwrap();
    let event = first.await.unwrap();
    assert!(event.header("lambda-extension-event-identifier").is_some());
    assert_eq!(
        body(&event),
        json!({
            "eventType": "INVOKE",
            "deadlineMs": 1_675_466_288_419_u64,
            "requestId": "id",
            "invokedFunctionArn": "arn",
            "tracing": { "type": "X-Amzn-Trace-Id", "value": "Root=1-2-3" },
        })
    );
}

#[tokio::test]
async fn an_extension_that_gives_up_says_why_and_can_ask_for_nothing_more() {
    for (path, during) in [("init/error", "Init"), ("exit/error", "Exit")] {
        let (address, mut api) = api().await;
        let id = id(&register(address, "outside", BOTH).await);
        api.did.recv().await;
        let path = format!("/2020-01-01/extension/{path}");
        let silent = call(address, "POST", &path, &[("Lambda-Extension-Identifier", id.as_str())], "").await;
        assert_eq!(refused(&silent), (403, "Extension.MissingHeader".into()));
        let headers = [
            ("Lambda-Extension-Identifier", id.as_str()),
            ("Lambda-Extension-Function-Error-Type", "Extension.NoConfig"),
        ];
        let said = call(address, "POST", &path, &headers, r#"{"errorMessage":"no file"}"#).await;
        assert_eq!((said.status, body(&said)), (202, json!({ "status": "OK" })));
        match api.did.recv().await {
            Some(Did::ExtensionFailed { name, during: found, error }) => {
                assert_eq!((name.as_str(), found, error.as_str()), ("outside", during, "Extension.NoConfig no file"));
            }
            other => panic!("{other:?}"),
        }
        let next = call(address, "GET", "/2020-01-01/extension/event/next", &headers, "").await;
        assert_eq!(refused(&next), (403, "Extension.InvalidExtensionState".into()));
    }
}

#[test]
fn a_shutdown_says_why_and_until_when() {
    let event: Value = serde_json::from_slice(&shutdown_event("spindown", 7)).unwrap();
    assert_eq!(event, json!({ "eventType": "SHUTDOWN", "shutdownReason": "spindown", "deadlineMs": 7 }));
    let untraced: Value = serde_json::from_slice(&invoke_event("id", 7, "arn", None)).unwrap();
    assert_eq!(untraced.get("tracing"), None);
}
