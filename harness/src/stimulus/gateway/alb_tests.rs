use super::{super::samples, *};
use crate::stimulus::ContextForm;

fn alb(multi_value: bool) -> Alb {
    Alb {
        target_group_arn:
            "arn:aws:elasticloadbalancing:region:123456789012:targetgroup/my-target-group/6d0ecf831eec9f09".into(),
        host: "lambda-846800462-us-east-2.elb.amazonaws.com".into(),
        source_ip: "72.21.198.66".into(),
        multi_value,
        timeout: None,
    }
}

fn receipt() -> Receipt {
    samples::receipt(0x6789_1234 * 1000, "5bdb40ca556d8b0c50dc66f0511bf520")
}

fn event(multi_value: bool, request: &HttpRequest) -> Value {
    alb(multi_value).event(request, "mark/1", &receipt()).unwrap()
}

const CLIENT: [(&str, &str); 5] = [
    ("Accept", "text/html,application/xhtml+xml"),
    ("Accept-Language", "en-US,en;q=0.8"),
    ("Content-Type", "text/plain"),
    ("Cookie", "cookies"),
    ("User-Agent", "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_6)"),
];

/// The example event of the Elastic Load Balancing guide.
#[test]
fn a_browsers_request_becomes_the_documented_event() {
    let documented = json!({
        "requestContext": {
            "elb": {
                "targetGroupArn":
                    "arn:aws:elasticloadbalancing:region:123456789012:targetgroup/my-target-group/6d0ecf831eec9f09"
            }
        },
        "httpMethod": "GET",
        "path": "/",
        "queryStringParameters": { "myKey": "val2" },
        "headers": {
            "accept": "text/html,application/xhtml+xml",
            "accept-language": "en-US,en;q=0.8",
            "content-type": "text/plain",
            "cookie": "cookies",
            "host": "lambda-846800462-us-east-2.elb.amazonaws.com",
            "user-agent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_11_6)",
            "x-amzn-trace-id": "Root=1-5bdb40ca-556d8b0c50dc66f0511bf520",
            "x-forwarded-for": "72.21.198.66",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https"
        },
        "isBase64Encoded": false,
        "body": "request_body"
    });
    let built = event(false, &samples::request("GET", "/?myKey=val2", &CLIENT, b"request_body"));
    assert_eq!(built, documented);
    let headers = built["headers"].as_object().unwrap().keys();
    assert!(headers.is_sorted(), "{built}");
}

#[test]
fn single_values_are_the_last_ones_and_multi_values_are_all_of_them() {
    let request = samples::request("GET", "/?myKey=val1&myKey=val2", &[("cookie", "a=1"), ("Cookie", "b=2")], b"");
    let (single, several) = (event(false, &request), event(true, &request));
    assert_eq!(
        (&single["queryStringParameters"]["myKey"], &single["headers"]["cookie"]),
        (&json!("val2"), &json!("b=2"))
    );
    assert_eq!(several["multiValueQueryStringParameters"], json!({ "myKey": ["val1", "val2"] }));
    assert_eq!(several["multiValueHeaders"]["cookie"], json!(["a=1", "b=2"]));
    for (event, absent) in [(&single, "multiValue"), (&several, "headers"), (&several, "queryStringParameters")] {
        assert!(event.as_object().unwrap().keys().all(|key| !key.starts_with(absent)), "{absent}: {event}");
    }
}

#[test]
fn path_and_query_are_not_decoded_and_a_query_without_parameters_is_empty() {
    let encoded = event(false, &samples::request("GET", "/a%20b?q=%3FshowAll%3Dtrue+x&empty", &[], b""));
    assert_eq!((&encoded["path"], &encoded["body"]), (&json!("/a%20b"), &json!("")));
    assert_eq!(encoded["queryStringParameters"], json!({ "q": "%3FshowAll%3Dtrue+x", "empty": "" }));
    assert_eq!(event(false, &samples::request("GET", "/", &[], b""))["queryStringParameters"], json!({}));
}

#[test]
fn a_body_is_text_by_its_media_type_and_in_base64_when_it_is_compressed() {
    let encoded = |headers: &[(&str, &str)]| {
        event(false, &samples::request("POST", "/", headers, b"{}"))["isBase64Encoded"].as_bool().unwrap()
    };
    assert!(!encoded(&[("Content-Type", "application/json; charset=utf-8")]));
    assert!(encoded(&[("Content-Type", "application/octet-stream")]));
    assert!(encoded(&[("Content-Type", "application/json"), ("Content-Encoding", "identity")]));
    assert!(encoded(&[]));
}

/// The cases of "Request tracing for your Application Load Balancer".
#[test]
fn a_trace_header_gets_a_self_when_it_has_a_root_and_a_root_when_it_has_none() {
    let sent = |header: &str| Alb::trace_header(Some(header), &receipt());
    let own = "Self=1-67891234-12456789abcdef0123456789";
    assert_eq!(Alb::trace_header(None, &receipt()), "Root=1-5bdb40ca-556d8b0c50dc66f0511bf520");
    let root = "Root=1-67891233-abcdef012345678912345678";
    assert_eq!(sent(root), format!("{own};{root}"));
    assert_eq!(sent(&format!("{root};CalledFrom=app")), format!("{own};{root};CalledFrom=app"));
    assert_eq!(sent(&format!("Self=1-1-1;{root}")), format!("{own};{root}"));
    assert_eq!(sent("CalledFrom=app"), "Root=1-5bdb40ca-556d8b0c50dc66f0511bf520;CalledFrom=app");
    let request = HttpRequest { form: ContextForm::Xray, ..samples::request("GET", "/", &[], b"") };
    let header = event(false, &request)["headers"]["x-amzn-trace-id"].clone();
    let parent = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1";
    assert_eq!(header, format!("{own};{parent}"));
}

#[test]
fn an_upgrade_is_refused_and_other_headers_of_the_connection_are_shown() {
    let upgrade = samples::request("GET", "/", &[("Upgrade", "websocket")], b"");
    assert_eq!(alb(false).event(&upgrade, "m", &receipt()).unwrap_err().response.status, 400);
    let event = event(false, &samples::request("GET", "/", &[("Connection", "keep-alive"), ("TE", "trailers")], b""));
    assert_eq!((&event["headers"]["connection"], event["headers"].get("te")), (&json!("keep-alive"), None));
}

#[test]
fn the_documented_response_is_taken_apart_by_the_setting_of_the_target_group() {
    let response = json!({
        "isBase64Encoded": false,
        "statusCode": 200,
        "statusDescription": "200 OK",
        "headers": { "Set-cookie": "cookies", "Content-Type": "application/json" },
        "multiValueHeaders": {
            "Set-cookie": ["cookie-name=cookie-value;Secure", "cookie-name=cookie-value;Expires=May 8, 2019"],
            "Content-Type": ["application/json"]
        },
        "body": "Hello from Lambda"
    })
    .to_string();
    let single = alb(false).response(response.as_bytes(), "").unwrap();
    assert_eq!((single.status, single.header("set-cookie")), (200, Some("cookies")));
    assert_eq!(&single.body[..], b"Hello from Lambda");
    let several = alb(true).response(response.as_bytes(), "").unwrap();
    assert_eq!(several.headers.iter().filter(|(name, _)| name == "set-cookie").count(), 2);
    let bytes =
        alb(false).response(br#"{"statusCode": 200, "headers": {}, "isBase64Encoded": true, "body": "iVBORw=="}"#, "");
    assert_eq!(&bytes.unwrap().body[..], b"\x89PNG");
}

#[test]
fn a_malformed_response_is_refused_with_what_is_wrong_in_it() {
    let large = json!({ "statusCode": 200, "headers": {}, "isBase64Encoded": false, "body": "a".repeat(LARGEST) });
    for (multi_value, body, reason) in [
        (false, "hello", "not JSON"),
        (false, r#""hello""#, "object"),
        (false, r#"{"headers": {}, "isBase64Encoded": false}"#, "no statusCode"),
        (false, r#"{"statusCode": "200", "headers": {}, "isBase64Encoded": false}"#, "statusCode"),
        (false, r#"{"statusCode": 200, "headers": null}"#, "headers is null"),
        (true, r#"{"statusCode": 200, "multiValueHeaders": null}"#, "multiValueHeaders is null"),
        (false, r#"{"statusCode": 200, "isBase64Encoded": null}"#, "isBase64Encoded is null"),
        (false, r#"{"statusCode": 200, "body": null}"#, "body is null"),
        (false, r#"{"statusCode": 200, "statusDescription": null}"#, "statusDescription is null"),
        (false, r#"{"statusCode": 200, "headers": {"content-length": 12}}"#, "content-length is 12"),
        (true, r#"{"statusCode": 200, "multiValueHeaders": {"a": ["b", true]}}"#, "a is true"),
        (
            false,
            r#"{"statusCode": 200, "statusDescription": "fine", "headers": {}, "isBase64Encoded": false}"#,
            "statusDescription",
        ),
        (false, &large.to_string(), "the limit is 1048576"),
    ] {
        let error = alb(multi_value).response(body.as_bytes(), "").unwrap_err();
        assert!(error.to_string().contains(reason), "{body:.100}: {error}");
    }
}

#[test]
fn what_is_absent_from_a_response_has_its_default_and_the_map_that_is_not_read_may_be_null() {
    let bare = alb(false).response(br#"{"statusCode": 204}"#, "").unwrap();
    assert_eq!((bare.status, bare.headers.len(), bare.body.len()), (204, 0, 0));
    let go = br#"{"statusCode": 200, "headers": {"a": "b"}, "multiValueHeaders": null, "body": "x"}"#;
    assert_eq!(alb(false).response(go, "").unwrap().header("a"), Some("b"));
    assert_eq!(alb(true).response(br#"{"statusCode": 200, "headers": {"a": "b"}}"#, "").unwrap().headers.len(), 0);
}
