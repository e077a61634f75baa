//! Both sides of a relay in one process.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, trace_service_client::TraceServiceClient},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::*;
use crate::capture::{Store, listen, sink::Sink};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

const LOOPBACK: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

async fn neighbour(relays: &[u16]) -> Neighbour {
    Neighbour::bind(LOOPBACK, 0, relays, TOKEN).await.unwrap()
}

async fn tunnel(neighbour: &Neighbour, servers: &[SocketAddr]) -> Tunnel {
    let ports = neighbour.relays().iter().map(SocketAddr::port);
    let routes: BTreeMap<_, _> = ports.zip(servers.iter().copied()).collect();
    Tunnel::open(neighbour.control(), TOKEN, routes).await.unwrap()
}

/// A server that answers with what it was sent, prefixed, once the client has ended its half.
async fn echo(prefix: &'static str) -> SocketAddr {
    let listener = listen((LOOPBACK, 0).into()).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut sent = Vec::new();
                stream.read_to_end(&mut sent).await.unwrap();
                stream.write_all(prefix.as_bytes()).await.unwrap();
                stream.write_all(&sent).await.unwrap();
            });
        }
    });
    address
}

async fn ask(address: SocketAddr, what: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(what).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn exports_over_grpc_and_over_http_reach_the_store_before_they_are_acknowledged() {
    let store = Arc::new(Store::default());
    let sink = Sink::start(store.clone()).await.unwrap();
    let neighbour = neighbour(&[0]).await;
    let _tunnel = tunnel(&neighbour, &[sink.address()]).await;
    let url = format!("http://{}", neighbour.relays()[0]);

    let span = Span { name: "GET /".into(), trace_id: vec![7; 16], span_id: vec![8; 8], ..Default::default() };
    let scope_spans = vec![ScopeSpans { spans: vec![span], ..Default::default() }];
    let resource_spans = vec![ResourceSpans { scope_spans, ..Default::default() }];
    let mut client = TraceServiceClient::connect(url.clone()).await.unwrap();
    client.export(ExportTraceServiceRequest { resource_spans }).await.unwrap();
    assert_eq!(store.look(|capture| capture.spans().len()), 1);

    let request = reqwest::Client::new().post(format!("{url}/v1/logs")).header("content-type", "application/json");
    let response = request.body(r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "{}");
    assert_eq!(store.look(|capture| capture.logs().len()), 1);
}

#[tokio::test]
async fn each_relay_port_leads_to_its_own_server_and_a_half_close_goes_through() {
    let neighbour = neighbour(&[0, 0]).await;
    let _tunnel = tunnel(&neighbour, &[echo("first ").await, echo("second ").await]).await;
    assert_eq!(ask(neighbour.relays()[0], b"x").await, b"first x");
    assert_eq!(ask(neighbour.relays()[1], b"y").await, b"second y");
}

#[tokio::test]
async fn hundreds_of_connections_at_once_are_all_carried() {
    let neighbour = neighbour(&[0]).await;
    let _tunnel = tunnel(&neighbour, &[echo("").await]).await;
    let relay = neighbour.relays()[0];
    let mut asked = JoinSet::new();
    for i in 0..300_u32 {
        asked.spawn(async move {
            let sent = i.to_string().repeat(5000);
            assert_eq!(ask(relay, sent.as_bytes()).await, sent.as_bytes());
        });
    }
    assert_eq!(asked.join_all().await.len(), 300);
}

#[tokio::test]
async fn a_client_that_connects_before_the_tunnel_is_carried_once_it_is_open() {
    let neighbour = neighbour(&[0]).await;
    let relay = neighbour.relays()[0];
    let early = tokio::spawn(async move { ask(relay, b"early").await });
    let _tunnel = tunnel(&neighbour, &[echo("").await]).await;
    assert_eq!(early.await.unwrap(), b"early");
}

#[tokio::test]
async fn a_client_that_resets_its_connection_harms_no_other() {
    let neighbour = neighbour(&[0]).await;
    let _tunnel = tunnel(&neighbour, &[echo("").await]).await;
    let relay = neighbour.relays()[0];
    for _ in 0..50 {
        let stream = TcpStream::connect(relay).await.unwrap();
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
    assert_eq!(ask(relay, b"still here").await, b"still here");
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_gets_nothing_that_is_relayed() {
    let neighbour = neighbour(&[0]).await;
    let routes = BTreeMap::from([(neighbour.relays()[0].port(), echo("stolen ").await)]);
    let error = Tunnel::open(neighbour.control(), "X123456789abcdef0123456789abcdef", routes).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("refused the token"), "{error}");

    let mut stranger = TcpStream::connect(neighbour.control()).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The neighbour hangs up with part of the request unread, which may reset the connection.
    drop(stranger.read_to_end(&mut answer).await);
    assert!(answer.is_empty() || answer == b"refused\n");

    let _tunnel = tunnel(&neighbour, &[echo("mine ").await]).await;
    assert_eq!(ask(neighbour.relays()[0], b"x").await, b"mine x");
}

#[tokio::test]
async fn what_listens_in_the_place_of_the_relay_and_does_not_know_the_token_reaches_no_server() {
    for answer in ["ready\n", "ready 0123456789abcdeX\n", "ready 0123456789abcdef0123456789abcdef\n", "hello\n"] {
        let listener = listen((LOOPBACK, 0).into()).unwrap();
        let control = listener.local_addr().unwrap();
        let impostor = tokio::spawn(async move {
            let (mut tunnel, _) = listener.accept().await.unwrap();
            tunnel.write_all(answer.as_bytes()).await.unwrap();
            // Asks for the server behind a port at once, as a neighbour does.
            drop(tunnel.write_all(b"9001\nGET / HTTP/1.1\r\n\r\n").await);
            let mut said = Vec::new();
            drop(tunnel.read_to_end(&mut said).await);
            String::from_utf8(said).unwrap()
        });
        let routes = BTreeMap::from([(9001, echo("stolen ").await)]);
        Tunnel::open(control, TOKEN, routes).await.unwrap_err();
        let said = impostor.await.unwrap();
        assert!(said.is_empty() || said == "tracegate-relay/2 0123456789abcdef\n", "{said}");
    }
}

#[tokio::test]
async fn a_half_of_the_token_is_not_the_token() {
    let neighbour = neighbour(&[0]).await;
    for half in ["tracegate-relay/2 \n", "tracegate-relay/2 0123456789abcde\n", "tracegate-relay/1 0123456789abcdef\n"]
    {
        let mut stranger = TcpStream::connect(neighbour.control()).await.unwrap();
        stranger.write_all(half.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stranger.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"refused\n");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_closes_the_connection_and_the_next_port_still_works() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let neighbour = neighbour(&[0, 0]).await;
    let tunnel = tunnel(&neighbour, &[gone, echo("").await]).await;
    let mut client = TcpStream::connect(neighbour.relays()[0]).await.unwrap();
    drop(client.write_all(b"x").await);
    let mut answer = Vec::new();
    drop(client.read_to_end(&mut answer).await);
    assert_eq!(answer, b"");
    assert_eq!(ask(neighbour.relays()[1], b"y").await, b"y");
    assert_eq!(tunnel.lost(), None);
}

#[tokio::test]
async fn a_neighbour_that_goes_away_is_reported() {
    let neighbour = neighbour(&[0]).await;
    let tunnel = tunnel(&neighbour, &[echo("").await]).await;
    drop(neighbour);
    tunnel.shared.stop.cancelled().await;
    assert!(tunnel.lost().unwrap().contains("is gone"));
}

#[tokio::test]
async fn a_dropped_tunnel_closes_what_it_carried() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let neighbour = neighbour(&[0]).await;
    let tunnel = tunnel(&neighbour, &[server.local_addr().unwrap()]).await;
    let mut client = TcpStream::connect(neighbour.relays()[0]).await.unwrap();
    let (_carried, _) = server.accept().await.unwrap();
    drop(tunnel);
    let mut rest = Vec::new();
    drop(client.read_to_end(&mut rest).await);
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Neighbour::bind(LOOPBACK, 0, &[port], TOKEN).await.unwrap_err();
    assert!(error.to_string().contains(&format!("cannot listen on 127.0.0.1:{port}")), "{error}");
}
