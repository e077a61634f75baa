use super::{super::samples, *};
use crate::stimulus::ContextForm;

const DOCUMENTED: &str = include_str!("../../../../features/documented-event.json");

fn documented_api() -> RestApi {
    RestApi {
        api_id: "n8484inss8".into(),
        resource_id: "rpy2e8".into(),
        stage: "prod".into(),
        resource: "/{proxy+}".into(),
        region: "us-west-2".into(),
        account: "643884464387".into(),
        source_ip: "172.59.153.63".into(),
        edge_ip: "64.252.130.90".into(),
        viewer_asn: "21928".into(),
        viewer_country: "US".into(),
        binary_media_types: Vec::new(),
        timeout: TIMEOUT,
    }
}

fn receipt() -> Receipt {
    samples::receipt(1_675_466_288_419, "63dd96301f7ec6c948e660f220ef3c92")
}

fn request(target: &str, form: ContextForm) -> HttpRequest {
    HttpRequest { form, ..samples::request("GET", target, &[], b"") }
}

fn event(request: &HttpRequest) -> Value {
    documented_api().event(request, "mark/1", &receipt()).unwrap()
}

#[test]
fn a_browsers_request_becomes_the_documented_event() {
    let documented: Value = serde_json::from_str(DOCUMENTED).unwrap();
    let added_on_the_way = ["cloudfront-", "host", "via", "x-amz", "x-forwarded-"];
    let headers = documented["headers"].as_object().unwrap().iter();
    let sent = headers
        .filter(|(name, _)| !added_on_the_way.iter().any(|start| name.to_ascii_lowercase().starts_with(start)))
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .rev()
        .collect();
    let built = event(&HttpRequest { headers: sent, ..request("/openapi.json", ContextForm::Absent) });
    // As text, so that the order of the keys is compared too.
    assert_eq!(serde_json::to_string_pretty(&built).unwrap(), serde_json::to_string_pretty(&documented).unwrap());
}

#[test]
fn a_query_is_decoded_with_the_last_value_in_one_map_and_all_values_in_the_other() {
    let event = event(&request("/files/a%20b.txt?content=1&content=%C3%A9+x&empty", ContextForm::Absent));
    assert_eq!(event["path"], "/files/a%20b.txt");
    assert_eq!(event["pathParameters"]["proxy"], "files/a%20b.txt");
    assert_eq!(event["requestContext"]["path"], "/prod/files/a%20b.txt");
    assert_eq!(event["queryStringParameters"], json!({ "content": "é x", "empty": "" }));
    assert_eq!(event["multiValueQueryStringParameters"], json!({ "content": ["1", "é x"], "empty": [""] }));
}

#[test]
fn a_body_is_null_text_or_for_binary_media_types_base64() {
    let with = |types: &[&str], body: &'static [u8]| {
        let binary_media_types = types.iter().map(|&binary| binary.to_owned()).collect();
        let api = RestApi { binary_media_types, ..documented_api() };
        let request = samples::request("POST", "/files/a", &[("content-type", "image/png; x=y")], body);
        let event = api.event(&request, "mark/1", &receipt()).unwrap();
        (event["body"].clone(), event["isBase64Encoded"].clone())
    };
    assert_eq!(with(&["*/*"], b""), (Value::Null, json!(false)));
    assert_eq!(with(&[], "é".as_bytes()), (json!("é"), json!(false)));
    assert_eq!(with(&[], b"\x89PNG"), (json!("\u{fffd}PNG"), json!(false)));
    assert_eq!(with(&["image/gif"], b"text"), (json!("text"), json!(false)));
    for types in ["*/*", "image/png"] {
        assert_eq!(with(&[types], b"\x89PNG"), (json!("iVBORw=="), json!(true)));
    }
}

#[test]
fn a_base64_response_is_decoded_only_for_a_client_whose_first_media_type_is_binary() {
    let response = br#"{"statusCode": 200, "body": "iVBORw==", "isBase64Encoded": true}"#;
    let body = |types: &[&str], accept: &str| {
        let binary_media_types = types.iter().map(|&binary| binary.to_owned()).collect();
        RestApi { binary_media_types, ..documented_api() }.response(response, accept).unwrap().body
    };
    assert_eq!(&body(&["image/png"], "image/png;q=1, text/html")[..], b"\x89PNG");
    assert_eq!(&body(&["*/*"], "")[..], b"\x89PNG");
    assert_eq!(&body(&["image/png"], "text/html, image/png")[..], b"iVBORw==");
    assert_eq!(&body(&[], "image/png")[..], b"iVBORw==");
}

#[test]
fn each_form_of_context_reaches_the_function_as_the_client_sent_it_and_always_with_a_root() {
    let headers = |form| event(&request("/files/", form))["headers"].clone();
    let full = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1";
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let both = headers(ContextForm::Both);
    assert_eq!((&both["X-Amzn-Trace-Id"], &both["traceparent"]), (&json!(full), &json!(traceparent)));
    assert_eq!(headers(ContextForm::Xray)["X-Amzn-Trace-Id"], full);
    assert_eq!(headers(ContextForm::XrayRoot)["X-Amzn-Trace-Id"], "Root=1-0af76519-16cd43dd8448eb211c80319c");
    let w3c = headers(ContextForm::W3c);
    assert_eq!(w3c["traceparent"], traceparent);
    assert_eq!(w3c["X-Amzn-Trace-Id"], "Root=1-63dd9630-1f7ec6c948e660f220ef3c92");
    let absent = headers(ContextForm::Absent);
    assert_eq!(absent["X-Amzn-Trace-Id"], "Root=1-63dd9630-1f7ec6c948e660f220ef3c92");
    assert_eq!(absent.get("traceparent"), None);
    assert_eq!(absent["User-Agent"], "mark/1");
}

#[test]
fn repeated_headers_keep_the_clients_spelling_hops_add_themselves_and_lies_are_replaced() {
    let headers = [
        ("X-Tag", "1"),
        ("x-tag", "2"),
        ("x-forwarded-for", "10.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        ("Connection", "keep-alive"),
        ("host", "api.example"),
    ];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let event = event(&HttpRequest { headers, ..request("/files/", ContextForm::Absent) });
    assert_eq!((&event["headers"]["X-Tag"], &event["multiValueHeaders"]["X-Tag"]), (&json!("2"), &json!(["1", "2"])));
    assert_eq!(event["headers"]["x-forwarded-for"], "10.0.0.1, 172.59.153.63, 64.252.130.90");
    assert_eq!(event["headers"]["X-Forwarded-Proto"], "https");
    assert_eq!(event["headers"]["host"], "api.example");
    assert_eq!(event["headers"].get("Connection"), None);
    assert_eq!(event["headers"].get("Host"), None);
}

#[test]
fn a_path_fits_its_resource_or_nothing_is_invoked() {
    let route = |resource: &str, path: &str| RestApi { resource: resource.into(), ..documented_api() }.route(path);
    assert_eq!(route("/{proxy+}", "/"), Some(("/".into(), Value::Null)));
    assert_eq!(route("/files/{path}", "/files/a.txt"), Some(("/files/{path}".into(), json!({ "path": "a.txt" }))));
    assert_eq!(route("/files/{path}", "/other/a"), None);
    let api = RestApi { resource: "/files/{path}".into(), ..documented_api() };
    let refusal = api.event(&request("/other/a", ContextForm::Absent), "mark/1", &receipt()).unwrap_err();
    assert_eq!(refusal.response.status, 403);
    assert!(refusal.to_string().contains("/other/a does not fit"), "{refusal}");
}

#[test]
fn a_proxy_response_is_taken_apart() {
    let answer = |body: Value| documented_api().response(body.to_string().as_bytes(), "").unwrap();
    let response = answer(json!({
        "statusCode": 201, "body": "hi",
        "headers": { "Content-Type": "text/plain", "X-One": 1, "Set-Cookie": "b" },
        "multiValueHeaders": { "set-cookie": ["a", "b"] },
    }));
    assert_eq!(response.status, 201);
    assert_eq!(&response.body[..], b"hi");
    let pairs: Vec<(&str, &str)> = response.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(pairs, [("set-cookie", "a"), ("set-cookie", "b"), ("content-type", "text/plain"), ("x-one", "1")]);
    let bare = answer(json!({ "statusCode": "200", "headers": null }));
    assert_eq!((bare.status, bare.header("content-type")), (200, Some("application/json")));
}

#[test]
fn a_malformed_response_is_refused_with_what_is_wrong_in_it() {
    for (body, reason) in [
        ("", "not JSON"),
        ("[]", "object"),
        ("{}", "no statusCode"),
        (r#"{"statusCode": 99}"#, "statusCode 99"),
        (r#"{"statusCode": "ok"}"#, "statusCode"),
        (r#"{"statusCode": 200, "headers": []}"#, "headers"),
        (r#"{"statusCode": 200, "headers": {"a": {}}}"#, "header a"),
        (r#"{"statusCode": 200, "multiValueHeaders": {"a": "b"}}"#, "no array"),
        (r#"{"statusCode": 200, "body": {"a": 1}}"#, "no string"),
        (r#"{"statusCode": 200, "isBase64Encoded": true, "body": "%"}"#, "base64"),
        (r#"{"statusCode": 200, "isBase64Encoded": "yes"}"#, "isBase64Encoded"),
    ] {
        let api = RestApi { binary_media_types: vec!["*/*".into()], ..documented_api() };
        let error = api.response(body.as_bytes(), "").unwrap_err();
        assert!(error.to_string().contains(reason), "{body}: {error}");
    }
}
