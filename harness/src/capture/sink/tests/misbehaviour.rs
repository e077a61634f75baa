//! What the sink does wrong on purpose, as an exporter sees it, and what is noted of it.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use reqwest::StatusCode;
use tonic_types::StatusExt;

use super::*;
use crate::capture::sink::behaviour::{Lasting, Rule};

fn refuse(status: u16, retry: Option<u64>) -> Act {
    let status = ::http::StatusCode::from_u16(status).unwrap();
    Act::Refuse { status, retry: retry.map(Duration::from_secs) }
}

impl Fixture {
    fn once(&self, act: Act) {
        self.sink.behaviour().add(Rule { signal: Some(Signal::Traces), act, lasting: Lasting::Requests(1) });
    }

    async fn post_a_span(&self) -> reqwest::Response {
        self.post("/v1/traces", &[("content-type", PROTOBUF)], one_span().encode_to_vec()).await
    }
}

#[tokio::test]
async fn a_refusal_that_may_be_retried_says_when_over_both_transports_and_stores_nothing() {
    let fixture = Fixture::new().await;
    fixture.once(refuse(503, Some(2)));
    let response = fixture.post_a_span().await;
    assert_eq!(
        (response.status(), &response.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"2".parse().unwrap())
    );

    fixture.once(refuse(429, Some(2)));
    let status = TraceServiceClient::new(fixture.channel().await).export(one_span()).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(Duration::from_secs(2)));
    assert_eq!(fixture.span_names(), Vec::<String>::new());
    let notes = fixture.notes();
    assert!(notes[0].starts_with("a traces request of an exporter without a name at 127.0.0.1:"), "{notes:?}");
    assert!(notes[0].ends_with("over HTTP was refused with 503 (Unavailable), retry after 2s"), "{notes:?}");
    assert!(notes[1].contains("tonic") && notes[1].contains("429 (ResourceExhausted)"), "{notes:?}");

    assert_eq!(fixture.post_a_span().await.status(), StatusCode::OK);
    assert_eq!(fixture.span_names(), ["GET /"]);
}

#[tokio::test]
async fn a_permanent_refusal_is_bad_data_and_keeps_what_must_not_come_again() {
    let fixture = Fixture::new().await;
    fixture.once(refuse(400, None));
    assert_eq!(fixture.post_a_span().await.status(), StatusCode::BAD_REQUEST);
    fixture.once(refuse(400, None));
    let status = TraceServiceClient::new(fixture.channel().await).export(one_span()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(fixture.sink.behaviour().incidents().iter().all(|incident| incident.items.len() == 1));
}

#[tokio::test]
async fn a_rule_of_one_signal_leaves_the_others_alone() {
    let fixture = Fixture::new().await;
    fixture.once(refuse(503, None));
    let response = fixture.post("/v1/logs", &[("content-type", PROTOBUF)], "").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(fixture.notes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_partial_success_is_stored_and_says_that_one_item_was_rejected() {
    let fixture = Fixture::new().await;
    fixture.once(Act::Partial);
    let answer = TraceServiceClient::new(fixture.channel().await).export(one_span()).await.unwrap().into_inner();
    assert_eq!(answer.partial_success.unwrap().rejected_spans, 1);
    assert_eq!(fixture.span_names(), ["GET /"]);
    let incident = &fixture.sink.behaviour().incidents()[0];
    assert!(fixture.store.look(|capture| capture.spans()[0].arrival.seq) < incident.arrival.seq);
}

#[tokio::test]
async fn a_slow_answer_comes_after_its_time_and_then_it_is_stored() {
    let fixture = Fixture::new().await;
    fixture.once(Act::Slow(Duration::from_millis(80)));
    let began = Instant::now();
    assert_eq!(fixture.post_a_span().await.status(), StatusCode::OK);
    assert!(began.elapsed() >= Duration::from_millis(80));
    assert_eq!(fixture.span_names(), ["GET /"]);
}

#[tokio::test]
async fn a_request_that_hangs_for_a_time_is_taken_when_it_is_over() {
    let fixture = Fixture::new().await;
    let end = Instant::now() + Duration::from_millis(80);
    fixture.sink.behaviour().add(Rule { signal: None, act: Act::Hang, lasting: Lasting::Until(end) });
    assert_eq!(fixture.post_a_span().await.status(), StatusCode::OK);
    assert!(Instant::now() >= end);
    assert_eq!(fixture.span_names(), ["GET /"]);
}

#[tokio::test]
async fn a_request_that_hangs_for_good_is_not_stored_when_its_exporter_gives_up() {
    let fixture = Fixture::new().await;
    fixture.once(Act::Hang);
    let behaviour = fixture.sink.behaviour();
    let hangs = fixture
        .store
        .until(Instant::now() + Duration::from_secs(20), |_| (!behaviour.incidents().is_empty()).then_some(()));
    // Who gives up before the request is there leaves the misbehaviour to the next one.
    tokio::select! {
        _ = fixture.post_a_span() => panic!("it was answered"),
        hangs = hangs => assert!(hangs.is_some()),
    }
    assert_eq!(fixture.post_a_span().await.status(), StatusCode::OK);
    assert_eq!(fixture.span_names(), ["GET /"]);
}

#[tokio::test]
async fn a_reset_connection_is_no_answer_and_the_next_one_is_served() {
    let fixture = Fixture::new().await;
    fixture.once(Act::Reset);
    let request = reqwest::Client::new().post(fixture.url("/v1/traces")).header("content-type", PROTOBUF);
    let error = request.body(one_span().encode_to_vec()).send().await.unwrap_err();
    assert!(format!("{error:?}").contains("ConnectionReset"), "{error:?}");
    fixture.once(Act::Reset);
    let status = TraceServiceClient::new(fixture.channel().await).export(one_span()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unknown, "{status}");
    assert_eq!(fixture.span_names(), Vec::<String>::new());
    assert_eq!(fixture.post_a_span().await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_sink_that_went_away_refuses_connections_and_comes_back_at_the_same_address() {
    let fixture = Fixture::new().await;
    let mut kept = TraceServiceClient::new(fixture.channel().await);
    kept.export(one_span()).await.unwrap();
    fixture.sink.go_away().await.unwrap();
    let refused = tokio::net::TcpStream::connect(fixture.sink.address()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    assert!(kept.export(one_span()).await.is_err());
    fixture.sink.go_away().await.unwrap();
    fixture.sink.come_back().await.unwrap();
    fixture.sink.come_back().await.unwrap();
    kept.export(one_span()).await.unwrap();
    assert_eq!(fixture.span_names().len(), 2);
    assert_eq!(fixture.notes(), ["the collector went away", "the collector came back"]);
}

#[tokio::test]
async fn what_hung_when_the_sink_went_away_is_reset() {
    let fixture = Fixture::new().await;
    fixture.once(Act::Hang);
    let request = reqwest::Client::new().post(fixture.url("/v1/traces")).header("content-type", PROTOBUF);
    let hanging = tokio::spawn(request.body(one_span().encode_to_vec()).send());
    let deadline = Instant::now() + Duration::from_secs(10);
    fixture.store.until(deadline, |capture| (!capture.lifecycle().is_empty()).then_some(())).await.unwrap();
    fixture.sink.go_away().await.unwrap();
    assert!(hanging.await.unwrap().is_err());
    assert_eq!(fixture.span_names(), Vec::<String>::new());
}

#[tokio::test]
async fn a_child_that_still_has_the_socket_keeps_no_collector_from_going_away() {
    let fixture = Fixture::new().await;
    // What a child of this process has between its fork and its exec.
    let inherited = fixture.sink.listening_socket().await.unwrap();
    for _ in 0..3 {
        fixture.sink.go_away().await.unwrap();
        let refused = tokio::net::TcpStream::connect(fixture.sink.address()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        fixture.sink.come_back().await.unwrap();
        assert_eq!(fixture.post_a_span().await.status(), StatusCode::OK);
    }
    drop(inherited);
}

#[tokio::test]
async fn nobody_can_listen_in_the_place_of_a_collector_that_is_away() {
    let fixture = Fixture::new().await;
    fixture.sink.go_away().await.unwrap();
    let other = tokio::net::TcpSocket::new_v4().unwrap();
    other.set_reuseaddr(true).unwrap();
    assert!(other.bind(fixture.sink.address()).and_then(|()| other.listen(1)).is_err());
    fixture.sink.come_back().await.unwrap();
    tokio::net::TcpStream::connect(fixture.sink.address()).await.unwrap();
}
