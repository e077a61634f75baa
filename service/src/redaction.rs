//! What must never be in logs or spans: credentials, and the content of files.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};
use url::form_urlencoded;

/// What stands in the place of a secret.
pub const REDACTED: &str = "REDACTED";

const HEADERS: [&str; 14] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "api-key",
    "apikey",
    "x-auth-token",
    "x-access-token",
    "x-amz-security-token",
    "x-amz-signature",
    "x-csrf-token",
    "x-forwarded-authorization",
    "x-vault-token",
];

/// Names without `-` and `_`, lower case: query parameters and keys of JSON bodies.
const NAMES: [&str; 33] = [
    "accesskey",
    "accesstoken",
    "apikey",
    "authorization",
    "authtoken",
    "awsaccesskeyid",
    "awssecretaccesskey",
    "awssessiontoken",
    "clientsecret",
    "cookie",
    "credential",
    "credentials",
    "idtoken",
    "jwt",
    "passwd",
    "password",
    "privatekey",
    "pwd",
    "refreshtoken",
    "secret",
    "secretaccesskey",
    "secretkey",
    "sessionid",
    "sessiontoken",
    "setcookie",
    "sig",
    "signature",
    "token",
    "xamzcredential",
    "xamzsecuritytoken",
    "xamzsignature",
    "xapikey",
    "xgoogsignature",
];

/// A file's content travels in this query parameter; it is the caller's data, not ours to log.
const CONTENT: &str = "content";

fn is_secret_name(name: &str) -> bool {
    let plain: String = name.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase).collect();
    NAMES.contains(&plain.as_str()) || plain == "xgoogcredential"
}

fn is_secret_parameter(name: &str) -> bool {
    name.eq_ignore_ascii_case(CONTENT) || is_secret_name(name)
}

fn is_secret_header(name: &HeaderName) -> bool {
    HEADERS.contains(&name.as_str())
}

/// The query with the values of secret parameters replaced; everything else byte for byte.
pub fn query(raw: &str) -> String {
    raw.split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret_parameter(&decoded(name)) => format!("{name}={REDACTED}").into(),
            _ => Cow::Borrowed(pair),
        })
        .collect::<Vec<_>>()
        .join("&")
}

fn decoded(name: &str) -> String {
    form_urlencoded::parse(name.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

/// The text with the query, the fragment and the user of every URL in it redacted.
///
/// A text that begins with `/` or `?` is taken for a URL too.
pub fn text(raw: &str) -> Cow<'_, str> {
    if !raw.contains("://") && !raw.starts_with(['/', '?']) {
        return Cow::Borrowed(raw);
    }
    let words = raw
        .split(' ')
        .map(|word| {
            let is_url = word.contains("://") || word.starts_with(['/', '?']);
            if is_url { Cow::Owned(url(word)) } else { Cow::Borrowed(word) }
        })
        .collect::<Vec<_>>();
    Cow::Owned(words.join(" "))
}

fn url(raw: &str) -> String {
    let (rest, fragment) = match raw.split_once('#') {
        Some((rest, fragment)) => (rest, Some(fragment)),
        None => (raw, None),
    };
    let (address, parameters) = match rest.split_once('?') {
        Some((address, parameters)) => (address, Some(parameters)),
        None => (rest, None),
    };
    let mut redacted = match address.split_once("://") {
        Some((scheme, after)) => {
            let authority_end = after.find('/').unwrap_or(after.len());
            let (authority, path) = after.split_at(authority_end);
            match authority.rsplit_once('@') {
                Some((_, host)) => format!("{scheme}://{REDACTED}@{host}{path}"),
                None => address.to_owned(),
            }
        }
        None => address.to_owned(),
    };
    for (mark, part) in [('?', parameters), ('#', fragment)] {
        if let Some(part) = part {
            redacted.push(mark);
            redacted.push_str(&query(part));
        }
    }
    redacted
}

/// Headers as a JSON object: names in lower case, the values of one name joined by `, `.
pub fn headers(headers: &HeaderMap) -> Value {
    let mut object = Map::new();
    for name in headers.keys() {
        let value = if is_secret_header(name) {
            REDACTED.to_owned()
        } else {
            headers
                .get_all(name)
                .iter()
                .map(|value| text(&String::from_utf8_lossy(value.as_bytes())).into_owned())
                .collect::<Vec<_>>()
                .join(", ")
        };
        object.insert(name.as_str().to_owned(), value.into());
    }
    Value::Object(object)
}

/// Query parameters as a JSON object, decoded; the last value of a name counts.
pub fn query_params(raw: &str) -> Value {
    let mut object = Map::new();
    for (name, value) in form_urlencoded::parse(raw.as_bytes()) {
        let value = if is_secret_parameter(&name) { REDACTED.into() } else { text(&value).into_owned() };
        object.insert(name.into_owned(), value.into());
    }
    Value::Object(object)
}

/// A JSON body with the values of secret keys replaced, at any depth.
pub fn body(value: Value) -> Value {
    match value {
        Value::Object(entries) => Value::Object(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let value = if is_secret_name(&key) { REDACTED.into() } else { body(value) };
                    (key, value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(body).collect()),
        Value::String(raw) => Value::String(text(&raw).into_owned()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use serde_json::json;

    #[test]
    fn secret_headers_lose_their_values_and_others_keep_them() {
        let mut map = HeaderMap::new();
        for name in HEADERS {
            map.append(HeaderName::from_static(name), HeaderValue::from_static("s3cret"));
            map.append(HeaderName::from_static(name), HeaderValue::from_static("s3cret"));
        }
        map.insert("accept", HeaderValue::from_static("application/json,*/*"));
        let logged = headers(&map);
        assert!(!logged.to_string().contains("s3cret"));
        assert_eq!(logged["accept"], "application/json,*/*");
        assert_eq!(logged["set-cookie"], REDACTED);
    }

    #[test]
    fn values_of_one_name_are_joined() {
        let mut map = HeaderMap::new();
        map.append("via", HeaderValue::from_static("a"));
        map.append("via", HeaderValue::from_static("b"));
        assert_eq!(headers(&map)["via"], "a, b");
    }

    #[test]
    fn credentials_in_a_query_are_replaced_in_any_case() {
        for name in [
            "AWSAccessKeyId",
            "Signature",
            "sig",
            "X-Goog-Signature",
            "X-Amz-Signature",
            "x-amz-credential",
            "X-Amz-Security-Token",
            "TOKEN",
            "access_token",
            "api_key",
            "password",
            "content",
            "%74oken",
        ] {
            let raw = format!("a=1&{name}=s3cret&b=%20");
            assert_eq!(query(&raw), format!("a=1&{name}=REDACTED&b=%20"));
        }
    }

    #[test]
    fn an_innocent_query_stays_byte_for_byte() {
        for raw in ["", "directory_path=a%2Fb&x", "tokens=3&contents=a+b&=&&"] {
            assert_eq!(query(raw), raw);
        }
    }

    #[test]
    fn a_url_in_a_header_is_redacted_inside() {
        let mut map = HeaderMap::new();
        let referer = "https://user:pw@host/path?a=1&token=s3cret#access_token=s3cret";
        map.insert("referer", HeaderValue::from_static(referer));
        map.insert("x-original-uri", HeaderValue::from_static("/files/?sig=s3cret"));
        let logged = headers(&map);
        assert_eq!(logged["referer"], "https://REDACTED@host/path?a=1&token=REDACTED#access_token=REDACTED");
        assert_eq!(logged["x-original-uri"], "/files/?sig=REDACTED");
    }

    #[test]
    fn a_user_agent_with_a_url_keeps_its_words() {
        let agent = "Bot/1.0 (+https://bot.example/about) text";
        assert_eq!(text(agent), agent);
    }

    #[test]
    fn query_parameters_are_decoded_and_the_last_value_counts() {
        assert_eq!(query_params("a=1&a=%C3%A9+b&content=hello"), json!({"a": "é b", "content": REDACTED}));
    }

    #[test]
    fn secret_keys_of_a_body_are_replaced_at_any_depth() {
        let logged = body(json!({
            "user": {"name": "n", "Pass-Word": "s3cret"},
            "list": [{"client_secret": {"deep": "s3cret"}}],
            "link": "https://h/?token=s3cret",
            "count": 1
        }));
        assert!(!logged.to_string().contains("s3cret"));
        assert_eq!(logged["user"]["name"], "n");
        assert_eq!(logged["count"], 1);
    }
}
