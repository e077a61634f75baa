use std::time::Duration;

use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::Value;

use super::{super::posted::LARGEST_RESPONSE, *};
use crate::stimulus::{Caller, ContextForm, HttpRequest, HttpResponse, http};

const PATIENCE: Duration = Duration::from_secs(20);

async fn call(address: SocketAddr, method: &str, path: &str, body: impl Into<Bytes>) -> HttpResponse {
    let request = HttpRequest {
        method: method.into(),
        target: format!("/2018-06-01/runtime/{path}"),
        headers: vec![("Lambda-Runtime-Function-Error-Type".into(), "Runtime.Header".into())],
        body: body.into(),
        caller: Caller::fresh(1, true),
        form: ContextForm::Absent,
    };
    http::send(address, &request, "runtime", PATIENCE).await.unwrap()
}

fn dispatch(id: &str, trace_header: Option<&str>) -> Box<Dispatch> {
    Box::new(Dispatch {
        request_id: id.into(),
        invocation_id: format!("attempt of {id}"),
        deadline_ms: 1_675_466_288_419,
        function_arn: "arn:aws:lambda:us-west-2:123456789012:function:f".into(),
        trace_header: trace_header.map(str::to_owned),
        identity: Identity::default(),
        event: Bytes::from_static(b"{}"),
    })
}

async fn asked(api: &mut Api) -> oneshot::Sender<Box<Dispatch>> {
    match api.did.recv().await {
        Some(Did::Asked(waiting)) => waiting,
        other => panic!("{other:?}"),
    }
}

/// A server with its address.
struct Api {
    address: SocketAddr,
    api: RuntimeApi,
}

impl std::ops::Deref for Api {
    type Target = RuntimeApi;
    fn deref(&self) -> &RuntimeApi {
        &self.api
    }
}

impl std::ops::DerefMut for Api {
    fn deref_mut(&mut self) -> &mut RuntimeApi {
        &mut self.api
    }
}

async fn api() -> (Api, Arc<Store>) {
    serve(About { environment: "environment".into(), ..About::default() }).await
}

async fn serve(about: About) -> (Api, Arc<Store>) {
    let store = Arc::new(Store::default());
    let listener = Arc::new(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.local_addr().unwrap();
    (Api { address, api: RuntimeApi::start(listener, about, store.clone()) }, store)
}

/// A runtime that has the event `id`.
async fn invoking(api: &mut Api, id: &str) -> HttpResponse {
    let next = tokio::spawn({
        let address = api.address;
        async move { call(address, "GET", "invocation/next", "").await }
    });
    let waiting = asked(api).await;
    api.hand_out(waiting, dispatch(id, None)).unwrap();
    next.await.unwrap()
}

fn error_type(response: &HttpResponse) -> String {
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    body["errorType"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_event_comes_with_its_headers_and_a_trace_header_only_when_there_is_one() {
    let (mut api, _store) = api().await;
    let event = invoking(&mut api, "id-1").await;
    assert_eq!((event.status, &event.body[..]), (200, &b"{}"[..]));
    assert_eq!(event.header("lambda-runtime-aws-request-id"), Some("id-1"));
    assert_eq!(event.header("lambda-runtime-deadline-ms"), Some("1675466288419"));
    assert!(event.header("lambda-runtime-invoked-function-arn").unwrap().ends_with(":function:f"));
    assert_eq!(event.header("lambda-runtime-trace-id"), None);
    call(api.address, "POST", "invocation/id-1/response", "{}").await;
    assert!(matches!(api.did.recv().await, Some(Did::Answered { .. })));
    let address = api.address;
    let next = tokio::spawn(async move { call(address, "GET", "invocation/next", "").await });
    let waiting = asked(&mut api).await;
    api.hand_out(waiting, dispatch("id-2", Some("Root=1-2-3"))).unwrap();
    assert_eq!(next.await.unwrap().header("lambda-runtime-trace-id"), Some("Root=1-2-3"));
}

#[tokio::test]
async fn a_response_is_accepted_once_and_marked_before_the_runtime_knows() {
    let (mut api, store) = api().await;
    invoking(&mut api, "id").await;
    let response = call(api.address, "POST", "invocation/id/response", "anything").await;
    assert_eq!((response.status, &response.body[..]), (202, &br#"{"status":"OK"}"#[..]));
    store.look(|capture| {
        let marks: Vec<&Mark> = capture.lifecycle().iter().map(|made| &made.mark).collect();
        let id = || "id".to_owned();
        let environment = "environment".to_owned();
        let dispatched = Mark::Dispatched { request_id: id(), environment };
        assert_eq!(marks, [&dispatched, &Mark::Responded { request_id: id() }]);
    });
    match api.did.recv().await {
        Some(Did::Answered { answer, .. }) => assert_eq!(answer, Answer::Response(Bytes::from_static(b"anything"))),
        other => panic!("{other:?}"),
    }
    let again = call(api.address, "POST", "invocation/id/response", "{}").await;
    assert_eq!((again.status, error_type(&again)), (403, "InvalidStateTransition".into()));
    let error = call(api.address, "POST", "invocation/id/error", "{}").await;
    assert_eq!((error.status, error_type(&error)), (403, "InvalidStateTransition".into()));
}

#[tokio::test]
async fn an_id_that_the_runtime_does_not_have_is_refused() {
    let (mut api, _store) = api().await;
    for path in ["invocation/other/response", "invocation/other/error"] {
        let early = call(api.address, "POST", path, "{}").await;
        assert_eq!((early.status, error_type(&early)), (400, "InvalidRequestID".into()), "{path}");
    }
    invoking(&mut api, "id").await;
    let stale = call(api.address, "POST", "invocation/other/response", "{}").await;
    assert_eq!((stale.status, error_type(&stale)), (400, "InvalidRequestID".into()));
}

#[tokio::test]
async fn the_next_event_cannot_be_asked_for_before_this_one_is_answered() {
    let (mut api, _store) = api().await;
    invoking(&mut api, "id").await;
    let next = call(api.address, "GET", "invocation/next", "").await;
    assert_eq!((next.status, error_type(&next)), (403, "InvalidStateTransition".into()));
}

#[tokio::test]
async fn a_request_for_the_next_event_that_was_given_up_can_be_made_again_and_no_event_goes_to_the_first() {
    let (mut api, _store) = api().await;
    let address = api.address;
    let given_up = tokio::spawn(async move { call(address, "GET", "invocation/next", "").await });
    let first = asked(&mut api).await;
    let second = call(address, "GET", "invocation/next", "").await;
    assert_eq!(second.status, 403, "while the first waits");
    given_up.abort();
    // The server notices the closed connection some time later.
    let mut first = first;
    first.closed().await;
    assert!(api.hand_out(first, dispatch("id", None)).is_err());
    let next = tokio::spawn(async move { call(address, "GET", "invocation/next", "").await });
    let waiting = asked(&mut api).await;
    api.hand_out(waiting, dispatch("id", None)).unwrap();
    assert_eq!(next.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_response_of_six_mebibytes_and_a_hundred_bytes_is_taken_and_one_byte_more_is_not() {
    let (mut api, _store) = api().await;
    invoking(&mut api, "fits").await;
    let fits = call(api.address, "POST", "invocation/fits/response", vec![b'x'; LARGEST_RESPONSE]).await;
    assert_eq!(fits.status, 202);
    assert!(matches!(api.did.recv().await, Some(Did::Answered { answer: Answer::Response(_), .. })));
    invoking(&mut api, "over").await;
    let over = call(api.address, "POST", "invocation/over/response", vec![b'x'; LARGEST_RESPONSE + 1]).await;
    assert_eq!((over.status, error_type(&over)), (413, "RequestEntityTooLarge".into()));
    match api.did.recv().await {
        Some(Did::Answered { answer: Answer::Error(failure), .. }) => {
            assert_eq!(failure.error_type, "Function.ResponseSizeTooLarge");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_error_goes_to_the_caller_as_reported_and_to_the_platform_as_one_of_its_own_kinds() {
    let (mut api, _store) = api().await;
    invoking(&mut api, "id").await;
    let response = call(api.address, "POST", "invocation/id/error", r#"{"errorType":"E","errorMessage":"m"}"#).await;
    assert_eq!(response.status, 202);
    match api.did.recv().await {
        Some(Did::Answered { answer: Answer::Error(Failure { error_type, message, category }), .. }) => {
            assert_eq!([error_type, message, category], ["E", "m", "Runtime.Header"]);
        }
        other => panic!("{other:?}"),
    }
}

/// A request with headers of its own, and a body whose end the test decides.
async fn post(api: &Api, path: &str, headers: &[(&str, &str)], body: Body) -> (StatusCode, Value) {
    let stream = TcpStream::connect(api.address).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let mut request = axum::http::Request::post(format!("/2018-06-01/runtime/{path}")).header("host", "runtime");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(body).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

#[tokio::test]
async fn an_answer_to_another_attempt_is_refused_and_one_to_this_attempt_or_to_none_is_taken() {
    let (mut api, _store) = api().await;
    let event = invoking(&mut api, "id").await;
    let attempt = event.header("lambda-runtime-invocation-id").unwrap().to_owned();
    for end in ["response", "error"] {
        let path = format!("invocation/id/{end}");
        let stale = post(&api, &path, &[("Lambda-Runtime-Invocation-Id", "another")], Body::from("{}")).await;
        assert_eq!((stale.0, &stale.1["errorType"]), (StatusCode::BAD_REQUEST, &json!("InvalidRequestID")), "{end}");
    }
    let headers = [("Lambda-Runtime-Invocation-Id", attempt.as_str())];
    let current = post(&api, "invocation/id/response", &headers, Body::from("{}")).await;
    assert_eq!(current, (StatusCode::ACCEPTED, json!({ "status": "OK" })));
    api.did.recv().await;
    invoking(&mut api, "next").await;
    let silent = post(&api, "invocation/next/response", &[], Body::from("{}")).await;
    assert_eq!(silent.0, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn what_the_caller_says_of_itself_comes_as_raw_json_and_only_when_it_says_it() {
    let (mut api, _store) = api().await;
    let address = api.address;
    let next = tokio::spawn(async move { call(address, "GET", "invocation/next", "").await });
    let waiting = asked(&mut api).await;
    let identity = Identity {
        client_context: Some(r#"{"client":{"app_title":"t"}}"#.into()),
        cognito: Some(r#"{"cognitoIdentityId":"i","cognitoIdentityPoolId":"p"}"#.into()),
    };
    let event = Box::new(Dispatch { identity: identity.clone(), ..*dispatch("id", None) });
    api.hand_out(waiting, event).unwrap();
    let event = next.await.unwrap();
    assert_eq!(event.header("lambda-runtime-client-context"), identity.client_context.as_deref());
    assert_eq!(event.header("lambda-runtime-cognito-identity"), identity.cognito.as_deref());
    call(address, "POST", "invocation/id/response", "{}").await;
    api.did.recv().await;
    let anonymous = invoking(&mut api, "other").await;
    assert_eq!(anonymous.header("lambda-runtime-client-context"), None);
    assert_eq!(anonymous.header("lambda-runtime-cognito-identity"), None);
}

/// A body of one piece and trailers behind it.
fn with_trailers(trailers: axum::http::HeaderMap) -> Body {
    let frames = [Frame::data(Bytes::from_static(b"half")), Frame::trailers(trailers)];
    Body::new(StreamBody::new(futures::stream::iter(frames.map(Ok::<_, std::convert::Infallible>))))
}

#[tokio::test]
async fn a_streamed_response_with_an_error_in_its_trailers_is_a_failed_invocation_and_one_without_is_whole() {
    let (mut api, _store) = api().await;
    let streaming =
        [("Lambda-Runtime-Function-Response-Mode", "streaming"), ("Trailer", "Lambda-Runtime-Function-Error-Type")];
    for (id, trailers, failed) in [
        (
            "broken",
            axum::http::HeaderMap::from_iter([("lambda-runtime-function-error-type", "Runtime.StreamError")].map(
                |(name, value)| {
                    (axum::http::HeaderName::from_static(name), axum::http::HeaderValue::from_static(value))
                },
            )),
            true,
        ),
        ("whole", axum::http::HeaderMap::new(), false),
    ] {
        invoking(&mut api, id).await;
        let (status, _) = post(&api, &format!("invocation/{id}/response"), &streaming, with_trailers(trailers)).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{id}");
        match api.did.recv().await {
            Some(Did::Answered { answer: Answer::Error(failure), .. }) if failed => {
                assert_eq!(failure.category, "Runtime.StreamError");
            }
            Some(Did::Answered { answer: Answer::Response(body), .. }) if !failed => assert_eq!(body, "half"),
            other => panic!("{id}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_streamed_response_may_be_larger_than_a_buffered_one_and_no_larger_than_its_own_limit() {
    assert_eq!((Limits::default().buffered, Limits::default().streamed), (6 * 1024 * 1024 + 100, 200 * 1024 * 1024));
    let limits = Limits { buffered: 10, streamed: 20 };
    let (mut api, _store) = serve(About { limits, ..About::default() }).await;
    let streaming = [("Lambda-Runtime-Function-Response-Mode", "streaming")];
    for (headers, bytes, fits) in
        [(&[][..], 10, true), (&[][..], 11, false), (&streaming[..], 20, true), (&streaming[..], 21, false)]
    {
        let id = format!("{bytes}");
        invoking(&mut api, &id).await;
        let body = Body::from(vec![b'x'; bytes]);
        let (status, said) = post(&api, &format!("invocation/{id}/response"), headers, body).await;
        match api.did.recv().await {
            Some(Did::Answered { answer: Answer::Response(body), .. }) if fits => {
                assert_eq!((status, body.len()), (StatusCode::ACCEPTED, bytes));
            }
            Some(Did::Answered { answer: Answer::Error(failure), .. }) if !fits => {
                assert_eq!(failure.category, "Function.ResponseSizeTooLarge");
                assert_eq!(
                    (status, &said["errorType"]),
                    (StatusCode::PAYLOAD_TOO_LARGE, &json!("RequestEntityTooLarge"))
                );
            }
            other => panic!("{bytes}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn init_can_fail_once_and_only_before_the_first_event_is_asked_for() {
    let (mut failing, _store) = api().await;
    let response = call(failing.address, "POST", "init/error", r#"{"errorType":"E","errorMessage":"m"}"#).await;
    assert_eq!(response.status, 202);
    assert!(matches!(failing.did.recv().await, Some(Did::FailedInit { .. })));
    assert_eq!(call(failing.address, "GET", "invocation/next", "").await.status, 403);
    let (mut started, _store) = api().await;
    invoking(&mut started, "id").await;
    assert_eq!(call(started.address, "POST", "init/error", "{}").await.status, 403);
}
