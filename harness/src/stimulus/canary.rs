//! Canaries: values planted in a request that no telemetry may hold. Each is unique to its request, so that a leak is
//! attributed to it, and follows from the request's mark, so that whoever knows the mark can look for them.

use bytes::Bytes;

use super::HttpRequest;
use crate::{config::Canaries, telemetry::digest};

/// The cookie that is planted.
const COOKIE: &str = "tracegate_canary";

/// How every planted value begins.
pub const BEGINNING: &str = "canary";

/// Letters of a canary. Without digits and with few of the hexadecimal ones, it is taken neither for an id nor for a number.
const LETTERS: &[u8; 16] = b"ghjkmnpqrstuvwxz";

/// A value that must not come out, and what it is called in a finding.
pub type Named = (String, String);

/// Letters of each half of a canary, behind its beginning.
const HALF: usize = 12;

/// Every planted value in a text, of whichever request.
pub fn planted_in(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices(BEGINNING).filter_map(|(at, _)| {
        let letters = at + BEGINNING.len()..at + BEGINNING.len() + 2 * HALF;
        let planted = text.get(letters.clone())?.bytes().all(|letter| LETTERS.contains(&letter));
        planted.then(|| &text[at..letters.end])
    })
}

fn value(mark: &str, place: &str) -> String {
    let mut value = String::from(BEGINNING);
    for half in ["first", "second"] {
        let hash = digest(&[mark, place, half]);
        value.extend((0..HALF).map(|at| char::from(LETTERS[(hash >> (4 * at)) as usize & 15])));
    }
    value
}

/// Every canary that [`plant`] may put into the request with this mark.
pub fn planted(canaries: &Canaries, mark: &str) -> Vec<Named> {
    let headers = canaries.headers.iter().map(|header| format!("header {header}"));
    let query = canaries.query.iter().map(|name| format!("query parameter {name}"));
    let body = canaries.body.iter().map(|name| format!("body member {name}"));
    let cookie = canaries.cookie.then(|| format!("cookie {COOKIE}"));
    let places = cookie.into_iter().chain(headers).chain(query).chain(body);
    places.map(|place| (format!("the canary in the {place}"), value(mark, &place))).collect()
}

/// The request with its canaries. What the scenario sends itself is left as it is: a header that it has, a body that is no
/// JSON object, a member or a parameter of the same name.
pub fn plant(mut request: HttpRequest, canaries: &Canaries, mark: &str) -> HttpRequest {
    if canaries.cookie {
        let cookie = format!("{COOKIE}={}", value(mark, &format!("cookie {COOKIE}")));
        match request.headers.iter_mut().rev().find(|(name, _)| name.eq_ignore_ascii_case("cookie")) {
            Some((_, own)) if own.trim().is_empty() => *own = cookie,
            Some((_, own)) => {
                let end = own.trim_end_matches([';', ' ']).len();
                own.truncate(end);
                own.push_str("; ");
                own.push_str(&cookie);
            }
            None => request.headers.push(("Cookie".into(), cookie)),
        }
    }
    for header in &canaries.headers {
        if request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(header)) {
            continue;
        }
        let value = value(mark, &format!("header {header}"));
        // A server may refuse credentials without a scheme before anything else is done with the request.
        let bearer = header.to_ascii_lowercase().ends_with("authorization");
        request.headers.push((header.clone(), if bearer { format!("Bearer {value}") } else { value }));
    }
    if let Some(name) = &canaries.query {
        let own = request.target.split_once('?').map_or("", |(_, query)| query);
        if !own.split('&').any(|pair| pair.split('=').next() == Some(name)) {
            let mark = value(mark, &format!("query parameter {name}"));
            let joint = match request.target.split_once('?') {
                None => "?",
                Some((_, "")) => "",
                Some(_) => "&",
            };
            request.target = format!("{}{joint}{name}={mark}", request.target);
        }
    }
    if let Some(name) = &canaries.body
        && let Some(body) = with_member(&request.body, name, &value(mark, &format!("body member {name}")))
    {
        request.body = body;
    }
    request
}

/// A body that is a JSON object with one more member at its end; every other byte stays.
fn with_member(body: &Bytes, name: &str, value: &str) -> Option<Bytes> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    if object.contains_key(name) {
        return None;
    }
    let end = body.iter().rposition(|&byte| byte == b'}')?;
    let joint = if object.is_empty() { "" } else { "," };
    let member = format!("{joint}{}:{}", serde_json::Value::from(name), serde_json::Value::from(value));
    Some([&body[..end], member.as_bytes(), &body[end..]].concat().into())
}

/// Credentials among the headers that a scenario sends itself: what stands behind the scheme of an `Authorization`, an
/// `X-Api-Key`, the values of cookies. Words that may be anywhere by chance are none: fewer than 8 bytes, of a cookie fewer
/// than 12 or without a digit.
pub fn credentials(headers: &[(String, String)]) -> Vec<Named> {
    let mut found = Vec::new();
    for (name, value) in headers {
        match name.to_ascii_lowercase().as_str() {
            "authorization" | "proxy-authorization" => {
                let value = value.trim();
                let value = value.split_once(' ').map_or(value, |(_, credentials)| credentials.trim());
                found.extend((value.len() >= 8).then(|| (format!("the value of the header {name}"), value.to_owned())));
            }
            "x-api-key" => {
                found.extend((value.len() >= 8).then(|| (format!("the value of the header {name}"), value.clone())));
            }
            "cookie" => {
                for pair in value.split(';') {
                    let Some((cookie, value)) = pair.split_once('=') else { continue };
                    let (cookie, value) = (cookie.trim(), value.trim());
                    if value.len() >= 12 && value.bytes().any(|byte| byte.is_ascii_digit()) {
                        found.push((format!("the value of the cookie {cookie}"), value.to_owned()));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stimulus::Caller;

    fn request(target: &str, headers: &[(&str, &str)], body: &'static str) -> HttpRequest {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        HttpRequest { headers, body: body.into(), ..HttpRequest::get(target, Caller::fresh(1, true)) }
    }

    fn all() -> Canaries {
        let headers = vec!["Authorization".into(), "X-Api-Key".into()];
        Canaries { cookie: true, headers, query: Some("token".into()), body: Some("password".into()) }
    }

    #[test]
    fn by_default_only_a_cookie_is_planted_beside_the_scenarios_own() {
        let plain = plant(request("/a", &[], "{}"), &Canaries::default(), "m/1");
        let [(_, planted_value)] = &planted(&Canaries::default(), "m/1")[..] else { panic!("one canary") };
        assert_eq!(plain.headers, [("Cookie".to_owned(), format!("tracegate_canary={planted_value}"))]);
        assert_eq!((plain.target.as_str(), &plain.body[..]), ("/a", &b"{}"[..]));
        let own = plant(request("/a", &[("cookie", "a=b; c=d;")], ""), &Canaries::default(), "m/1");
        assert_eq!(own.headers, [("cookie".to_owned(), format!("a=b; c=d; tracegate_canary={planted_value}"))]);
        let none = Canaries { cookie: false, ..Canaries::default() };
        assert!(plant(request("/a", &[], ""), &none, "m/1").headers.is_empty());
    }

    #[test]
    fn every_canary_that_is_asked_for_is_in_the_request_and_unique_to_it() {
        let sent = plant(request("/a?x=1", &[], "{\"a\": 1}\n"), &all(), "m/1");
        let text = format!("{sent:?}");
        let values = planted(&all(), "m/1");
        assert_eq!(values.len(), 5);
        assert!(values.iter().all(|(name, value)| text.contains(value) && !name.contains(value)), "{text}");
        assert!(sent.target.starts_with("/a?x=1&token=canary"), "{}", sent.target);
        assert!(sent.body.starts_with(b"{\"a\": 1,\"password\":\"canary") && sent.body.ends_with(b"\"}\n"));
        let other = planted(&all(), "m/2");
        assert!(values.iter().zip(&other).all(|((_, one), (_, other))| one != other));
    }

    #[test]
    fn what_the_scenario_sends_itself_is_left_as_it_is() {
        let own = request("/a?token=", &[("authorization", "Basic eA=="), ("X-API-KEY", "k")], "{\"password\":1}");
        let canaries = Canaries { cookie: false, ..all() };
        assert_eq!(plant(own.clone(), &canaries, "m/1"), own);
        let text = request("/a?", &[], "[1]");
        let sent = plant(text, &Canaries { headers: Vec::new(), ..canaries }, "m/1");
        assert_eq!(&sent.body[..], b"[1]");
        assert!(sent.target.starts_with("/a?token=canary"), "{}", sent.target);
        assert_eq!(with_member(&Bytes::from_static(b"{ }"), "a", "b").unwrap(), &b"{ \"a\":\"b\"}"[..]);
    }

    #[test]
    fn credentials_of_the_scenario_are_known_without_their_scheme_and_chance_words_are_none() {
        let headers: Vec<(String, String)> = [
            ("Authorization", "Bearer abcdefgh"),
            ("X-Api-Key", "short"),
            ("Cookie", "theme=midnight-blue; session=0123456789ab; x"),
            ("Accept", "text/html-and-more"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        let found = credentials(&headers);
        let values: Vec<&str> = found.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["abcdefgh", "0123456789ab"]);
    }
}
