use bytes::Bytes;
use serde_json::Value;

use super::{
    samples::{receipt, request},
    *,
};
use crate::stimulus::HttpRequest;

const ROOT: &str = "63dd96301f7ec6c948e660f220ef3c92";

fn gateway(kind: GatewayKind) -> Box<dyn Gateway> {
    let settings = config::Gateway { kind, ..config::Gateway::default() };
    of(&settings, &config::Function::default())
}

const ALL: [GatewayKind; 5] = [
    GatewayKind::RestApi,
    GatewayKind::HttpApi,
    GatewayKind::Alb,
    GatewayKind::AlbMultiValue,
    GatewayKind::FunctionUrl,
];

#[test]
fn every_kind_builds_the_event_that_its_name_says() {
    for (kind, member) in [
        (GatewayKind::RestApi, "/requestContext/identity"),
        (GatewayKind::HttpApi, "/rawPath"),
        (GatewayKind::Alb, "/requestContext/elb"),
        (GatewayKind::AlbMultiValue, "/multiValueHeaders/host"),
        (GatewayKind::FunctionUrl, "/rawPath"),
    ] {
        let bytes = event(&*gateway(kind), &request("GET", "/a", &[], b""), "mark/1", &receipt(0, ROOT)).unwrap();
        let event: Value = serde_json::from_slice(&bytes).unwrap();
        assert!(event.pointer(member).is_some(), "{kind}: {event}");
    }
}

#[test]
fn a_body_at_the_limit_is_handed_on_and_one_byte_more_is_a_413() {
    for kind in ALL {
        let gateway = gateway(kind);
        let send = |size: usize| {
            let headers = [("Content-Type", "text/plain")];
            let body = Bytes::from(vec![b'a'; size]);
            event(&*gateway, &HttpRequest { body, ..request("POST", "/a", &headers, b"") }, "mark/1", &receipt(0, ROOT))
        };
        // An event of 6 MB has less room for a body; what is larger is refused by Lambda.
        let fits = gateway.largest_body().min(LARGEST_EVENT - 8192);
        assert!(send(fits).is_ok(), "{kind}");
        for size in [gateway.largest_body() + 1, LARGEST_EVENT] {
            let refusal = send(size).unwrap_err();
            assert_eq!(refusal.response.status, 413, "{kind}: {refusal}");
            assert!(refusal.to_string().contains("the limit is"), "{refusal}");
        }
    }
}

#[test]
fn what_a_client_gets_when_the_function_fails_or_takes_too_long_differs_by_kind() {
    for (kind, failed, text, timed_out, limit) in [
        (GatewayKind::RestApi, 502, r#"{"message": "Internal server error"}"#, 504, Some(29)),
        (GatewayKind::HttpApi, 500, r#"{"message":"Internal Server Error"}"#, 503, Some(30)),
        (GatewayKind::Alb, 502, "<html>\r\n<head><title>502 Bad Gateway</title></head>", 504, None),
        (GatewayKind::AlbMultiValue, 502, "<html>", 504, None),
        (GatewayKind::FunctionUrl, 502, "Internal Server Error", 504, None),
    ] {
        let gateway = gateway(kind);
        let answer = gateway.failed();
        assert_eq!(answer.status, failed, "{kind}");
        assert!(answer.body.starts_with(text.as_bytes()), "{kind}: {answer:?}");
        assert_eq!(gateway.timed_out().status, timed_out, "{kind}");
        assert_eq!(gateway.timeout(), limit.map(Duration::from_secs), "{kind}");
    }
}

#[test]
fn a_timeout_of_the_configuration_wins_for_every_kind() {
    for kind in ALL {
        let settings = config::Gateway { kind, timeout: Some(Duration::from_secs(2)), ..config::Gateway::default() };
        assert_eq!(of(&settings, &config::Function::default()).timeout(), Some(Duration::from_secs(2)), "{kind}");
    }
}
