use serde_json::json;

use super::{super::samples, *};

fn url() -> FunctionUrl {
    FunctionUrl { url_id: "id".into(), region: "eu-west-2".into(), source_ip: "65.78.31.245".into(), timeout: None }
}

fn event(request: &HttpRequest) -> Value {
    let receipt = samples::receipt(1_673_437_534_837, "5eb33c07de25b420912dee103a5db434");
    url().event(request, "mark/1", &receipt).unwrap()
}

/// "lambda_function_url_request" of lambda_http, with what the documentation has beyond that record: the decoded
/// parameters, and `anonymous` as the account of a URL without authorization.
#[test]
fn curls_request_becomes_the_recorded_event() {
    let recorded = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/my/path",
        "rawQueryString": "parameter1=value1&parameter1=value2&parameter2=value",
        "cookies": ["test=hi"],
        "headers": {
            "x-amzn-tls-cipher-suite": "ECDHE-RSA-AES128-GCM-SHA256",
            "x-amzn-tls-version": "TLSv1.2",
            "x-amzn-trace-id": "Root=1-5eb33c07-de25b420912dee103a5db434",
            "cookie": "test=hi",
            "x-forwarded-proto": "https",
            "host": "id.lambda-url.eu-west-2.on.aws",
            "x-forwarded-port": "443",
            "x-forwarded-for": "65.78.31.245",
            "accept": "*/*",
            "user-agent": "curl/7.68.0"
        },
        "queryStringParameters": { "parameter1": "value1,value2", "parameter2": "value" },
        "requestContext": {
            "accountId": "anonymous",
            "apiId": "id",
            "domainName": "id.lambda-url.eu-west-2.on.aws",
            "domainPrefix": "id",
            "http": {
                "method": "GET",
                "path": "/my/path",
                "protocol": "HTTP/1.1",
                "sourceIp": "65.78.31.245",
                "userAgent": "curl/7.68.0"
            },
            "requestId": "2bfe1913-eea8-48de-b643-166b53428586",
            "routeKey": "$default",
            "stage": "$default",
            "time": "11/Jan/2023:11:45:34 +0000",
            "timeEpoch": 1_673_437_534_837_u64
        },
        "isBase64Encoded": false
    });
    let headers = [("User-Agent", "curl/7.68.0"), ("Accept", "*/*"), ("Cookie", "test=hi")];
    let target = "/my/path?parameter1=value1&parameter1=value2&parameter2=value";
    assert_eq!(event(&samples::request("GET", target, &headers, b"")), recorded);
}

#[test]
fn the_path_stays_as_the_client_wrote_it() {
    let event = event(&samples::request("GET", "/a%20b%3Fc/%2e%2e/d", &[], b""));
    assert_eq!(event["rawPath"], "/a%20b%3Fc/%2e%2e/d");
    assert_eq!(event["headers"]["user-agent"], "mark/1");
}

#[test]
fn a_response_is_read_as_that_of_an_http_api_and_a_malformed_one_is_refused() {
    let answer = url().response(br#"{"message": "hi"}"#, "").unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &br#"{"message":"hi"}"#[..]));
    assert_eq!(url().response(br#"{"statusCode": 404, "body": "no"}"#, "").unwrap().status, 404);
    assert!(url().response(br#"{"statusCode": {}}"#, "").is_err());
}
