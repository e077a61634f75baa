use serde_json::json;

use super::{super::samples, *};
use crate::stimulus::ContextForm;

fn api() -> HttpApi {
    HttpApi {
        api_id: "aaaaaaaaaa".into(),
        stage: DEFAULT.into(),
        route: None,
        region: "us-west-2".into(),
        account: "123456789012".into(),
        source_ip: "1.2.3.4".into(),
        timeout: TIMEOUT,
    }
}

fn receipt() -> Receipt {
    Receipt {
        extended_request_id: "LV7fzho-PHcEJPw=".into(),
        ..samples::receipt(1_587_481_701_067, "5e9f0c651de4d666d4dd26aced652b6c")
    }
}

fn event(api: &HttpApi, request: &HttpRequest) -> Value {
    api.event(request, "mark/1", &receipt()).unwrap()
}

/// "example-apigw-v2-request-no-authorizer" of aws_lambda_events, without the client certificate of mutual TLS.
#[test]
fn curls_request_becomes_the_recorded_event() {
    let recorded = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/",
        "rawQueryString": "",
        "headers": {
            "accept": "*/*",
            "content-length": "0",
            "host": "aaaaaaaaaa.execute-api.us-west-2.amazonaws.com",
            "user-agent": "curl/7.58.0",
            "x-amzn-trace-id": "Root=1-5e9f0c65-1de4d666d4dd26aced652b6c",
            "x-forwarded-for": "1.2.3.4",
            "x-forwarded-port": "443",
            "x-forwarded-proto": "https"
        },
        "requestContext": {
            "accountId": "123456789012",
            "apiId": "aaaaaaaaaa",
            "domainName": "aaaaaaaaaa.execute-api.us-west-2.amazonaws.com",
            "domainPrefix": "aaaaaaaaaa",
            "http": {
                "method": "GET",
                "path": "/",
                "protocol": "HTTP/1.1",
                "sourceIp": "1.2.3.4",
                "userAgent": "curl/7.58.0"
            },
            "requestId": "LV7fzho-PHcEJPw=",
            "routeKey": "$default",
            "stage": "$default",
            "time": "21/Apr/2020:15:08:21 +0000",
            "timeEpoch": 1_587_481_701_067_u64
        },
        "isBase64Encoded": false
    });
    let built = event(&api(), &samples::request("GET", "/", &[("User-Agent", "curl/7.58.0"), ("Accept", "*/*")], b""));
    // As text, so that the order of the keys is compared too.
    assert_eq!(serde_json::to_string_pretty(&built).unwrap(), serde_json::to_string_pretty(&recorded).unwrap());
}

#[test]
fn repeated_headers_and_parameters_are_joined_by_commas_and_the_raw_query_stays_as_it_was() {
    let headers =
        [("Header2", "value1"), ("header2", "value2"), ("Connection", "close"), ("X-Forwarded-For", "10.0.0.1")];
    let target = "/my/path?parameter1=value%201&parameter1=value2&parameter2=%C3%A9";
    let event = event(&api(), &samples::request("GET", target, &headers, b""));
    assert_eq!(event["headers"]["header2"], "value1,value2");
    assert_eq!(event["headers"].get("connection"), None);
    assert_eq!(event["headers"]["x-forwarded-for"], "10.0.0.1, 1.2.3.4");
    assert_eq!(event["rawQueryString"], "parameter1=value%201&parameter1=value2&parameter2=%C3%A9");
    assert_eq!(event["queryStringParameters"], json!({ "parameter1": "value 1,value2", "parameter2": "é" }));
}

#[test]
fn cookies_have_a_list_of_their_own_and_are_no_header() {
    let headers = [("Cookie", "cookie1=value1; cookie2=value2"), ("cookie", "cookie3=value3")];
    let with = event(&api(), &samples::request("GET", "/", &headers, b""));
    assert_eq!(with["cookies"], json!(["cookie1=value1", "cookie2=value2", "cookie3=value3"]));
    assert_eq!(with["headers"].get("cookie"), None);
}

#[test]
fn what_has_no_value_is_absent_and_not_null() {
    let event = event(&api(), &samples::request("GET", "/", &[], b""));
    for member in ["cookies", "queryStringParameters", "pathParameters", "stageVariables", "body"] {
        assert_eq!(event.get(member), None, "{member}");
    }
}

#[test]
fn the_stage_is_in_the_raw_path_unless_it_is_the_default_one() {
    let staged = event(&HttpApi { stage: "Prod".into(), ..api() }, &samples::request("GET", "/my/path", &[], b""));
    assert_eq!((&staged["rawPath"], &staged["requestContext"]["stage"]), (&json!("/Prod/my/path"), &json!("Prod")));
    assert_eq!(staged["requestContext"]["http"]["path"], "/Prod/my/path");
    assert_eq!(event(&api(), &samples::request("GET", "/my/path", &[], b""))["rawPath"], "/my/path");
}

#[test]
fn the_path_is_decoded_and_ends_where_a_question_mark_was_encoded() {
    let path = |target: &str| event(&api(), &samples::request("GET", target, &[], b""))["rawPath"].clone();
    assert_eq!(path("/a%20b/%C3%A9"), "/a b/é");
    assert_eq!(path("/a%3Fb"), "/a");
    assert_eq!(path("/a+b"), "/a+b");
}

#[test]
fn a_route_names_itself_and_its_parameters_or_nothing_is_invoked() {
    let api = HttpApi { route: Some("/files/{path}".into()), ..api() };
    let event = event(&api, &samples::request("GET", "/files/a.txt", &[], b""));
    assert_eq!(
        (&event["routeKey"], &event["pathParameters"]),
        (&json!("ANY /files/{path}"), &json!({ "path": "a.txt" }))
    );
    let refusal = api.event(&samples::request("GET", "/other", &[], b""), "m", &receipt()).unwrap_err();
    assert_eq!((refusal.response.status, &refusal.response.body[..]), (404, &br#"{"message":"Not Found"}"#[..]));
}

#[test]
fn text_stays_text_and_anything_else_is_in_base64() {
    let with = |content_type: &str, body: &[u8]| {
        let event = event(&api(), &samples::request("POST", "/", &[("Content-Type", content_type)], body));
        (event["body"].clone(), event["isBase64Encoded"].clone())
    };
    assert_eq!(with("application/json", b"{}"), (json!("{}"), json!(false)));
    assert_eq!(with("application/x-www-form-urlencoded", b"a=1"), (json!("YT0x"), json!(true)));
    assert_eq!(with("image/png", b"\x89PNG"), (json!("iVBORw=="), json!(true)));
}

#[test]
fn the_clients_trace_header_is_handed_on_and_without_one_there_is_a_root() {
    let header = |form| {
        let request = HttpRequest { form, ..samples::request("GET", "/", &[], b"") };
        event(&api(), &request)["headers"]["x-amzn-trace-id"].clone()
    };
    assert_eq!(header(ContextForm::Xray), "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1");
    assert_eq!(header(ContextForm::XrayRoot), "Root=1-0af76519-16cd43dd8448eb211c80319c");
    assert_eq!(header(ContextForm::Absent), "Root=1-5e9f0c65-1de4d666d4dd26aced652b6c");
}

#[test]
fn a_full_response_is_taken_apart_and_each_cookie_becomes_a_header() {
    let response = api().response(
        json!({
            "statusCode": 201, "headers": { "X-One": 1, "Content-Type": "text/plain" }, "cookies": ["a=1", "b=2; Secure"],
            "body": "iVBORw==", "isBase64Encoded": true
        })
        .to_string()
        .as_bytes(),
        "",
    );
    let response = response.unwrap();
    let pairs: Vec<(&str, &str)> = response.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(
        pairs,
        [("x-one", "1"), ("content-type", "text/plain"), ("set-cookie", "a=1"), ("set-cookie", "b=2; Secure")]
    );
    assert_eq!((response.status, &response.body[..]), (201, &b"\x89PNG"[..]));
}

#[test]
fn json_without_a_status_code_is_the_body_of_a_200() {
    for (returned, body) in [
        (r#"{"message": "hello"}"#, r#"{"message":"hello"}"#),
        (r#""Hello from Lambda!""#, "Hello from Lambda!"),
        ("[1]", "[1]"),
        ("null", "null"),
    ] {
        let response = api().response(returned.as_bytes(), "").unwrap();
        assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")), "{returned}");
        assert_eq!(&response.body[..], body.as_bytes());
    }
}

#[test]
fn a_malformed_response_is_refused_with_what_is_wrong_in_it() {
    for (body, reason) in [
        ("", "not JSON"),
        (r#"{"statusCode": "ok"}"#, "statusCode"),
        (r#"{"statusCode": 200, "headers": []}"#, "headers"),
        (r#"{"statusCode": 200, "cookies": "a=1"}"#, "cookies"),
        (r#"{"statusCode": 200, "cookies": [1]}"#, "cookies"),
        (r#"{"statusCode": 200, "body": {}}"#, "no string"),
        (r#"{"statusCode": 200, "isBase64Encoded": true, "body": "%"}"#, "base64"),
    ] {
        let error = api().response(body.as_bytes(), "").unwrap_err();
        assert!(error.to_string().contains(reason), "{body}: {error}");
    }
}
