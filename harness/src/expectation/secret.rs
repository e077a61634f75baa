//! Planted values that must be nowhere in the telemetry.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose};
use memchr::{memchr_iter, memmem};
use percent_encoding::{percent_decode, percent_decode_str};

use crate::telemetry::{Attributes, LogRecord, Metric, Span, Value};

/// A value that was sent and must not come out. Its `Debug` and every finding hide it.
#[derive(Clone, PartialEq, Eq)]
pub struct Canary {
    /// What it is: `authorization`, `cookie`, `query parameter token`.
    pub name: String,
    value: String,
    escaped: String,
    base64: Vec<String>,
    hex: String,
    /// Where a value was cut off, so much of its beginning is a leak too.
    cut: Option<String>,
}

impl Canary {
    /// A canary; `None` for a value so short that it would be found by chance (fewer than 6 bytes).
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Option<Self> {
        let value = value.into();
        if value.len() < 6 {
            return None;
        }
        // A line is JSON, where a quote and a backslash are written with a backslash.
        let quoted = serde_json::Value::from(value.as_str()).to_string();
        let escaped = quoted[1..quoted.len() - 1].to_owned();
        let (base64, hex) = (base64_forms(&value), hex::encode(&value));
        Some(Self { name: name.into(), base64, hex, escaped, value, cut: None })
    }

    /// One whose every letter is this harness's own choice, so that half of it is nowhere by chance: who cuts a secret off after
    /// twenty characters has written it down all the same. The beginning of a credential may be that of many.
    pub fn planted(name: impl Into<String>, value: impl Into<String>) -> Option<Self> {
        let canary = Self::new(name, value)?;
        let half = canary.value.get(..canary.value.len() / 2).map(str::to_owned);
        Some(Self { cut: half, ..canary })
    }

    /// The form in which `text` holds this canary, if it does.
    pub fn found_in(&self, text: &str) -> Option<SecretForm> {
        // No form is shorter than the value, and most attributes are.
        if text.len() < self.value.len() {
            return self.is_cut_off_in(text);
        }
        if text.contains(&self.value) || text.contains(&self.escaped) {
            return Some(SecretForm::Plain);
        }
        if text.contains(['%', '+']) {
            let holds = |text: &str| percent_decode_str(text).decode_utf8_lossy().contains(&self.value);
            if holds(text) || holds(&text.replace('+', " ")) {
                return Some(SecretForm::PercentEncoded);
            }
        }
        if self.base64.iter().any(|form| text.contains(form)) {
            return Some(SecretForm::Base64);
        }
        let long = text.len() >= self.hex.len();
        if long && text.to_ascii_lowercase().contains(&self.hex) {
            return Some(SecretForm::Hexadecimal);
        }
        self.is_cut_off_in(text)
    }

    fn is_cut_off_in(&self, text: &str) -> Option<SecretForm> {
        self.cut.as_ref().is_some_and(|cut| text.contains(cut)).then_some(SecretForm::CutOff)
    }

    fn is_plain_or_encoded_in(&self, bytes: &[u8]) -> bool {
        let finds = |form: &str| memmem::find(bytes, form.as_bytes()).is_some();
        finds(&self.value) || finds(&self.escaped) || self.base64.iter().chain(&self.cut).any(|form| finds(form))
    }

    /// The text without the value, where it holds it plain, or cut off.
    pub fn hide(&self, text: &str) -> String {
        let hidden = "[a secret]";
        let mut text = text.replace(&self.value, hidden).replace(&self.escaped, hidden);
        while let Some(at) = self.cut.as_ref().and_then(|cut| text.find(cut)) {
            let same = text[at..].bytes().zip(self.value.bytes()).take_while(|(one, other)| one == other).count();
            text.replace_range(at..at + same, hidden);
        }
        text
    }
}

/// What the value looks like inside base64, whichever of three positions it begins at (`Basic user:password`
/// puts any number of bytes before it); the digits that its neighbours share are left out.
fn base64_forms(value: &str) -> Vec<String> {
    let mut forms = Vec::new();
    for before in 0..3 {
        let mut bytes = vec![0; before];
        bytes.extend_from_slice(value.as_bytes());
        let first = (before * 8).div_ceil(6);
        let last = bytes.len() * 8 / 6;
        for engine in [&general_purpose::STANDARD_NO_PAD, &general_purpose::URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&bytes);
            if let Some(own) = encoded.get(first..last).filter(|own| !forms.iter().any(|form| form == own)) {
                forms.push(own.to_owned());
            }
        }
    }
    forms
}

impl fmt::Debug for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canary").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How a canary was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretForm {
    /// As it was sent.
    Plain,
    /// With `%` escapes.
    PercentEncoded,
    /// In base64, of either alphabet.
    Base64,
    /// In hexadecimal digits.
    Hexadecimal,
    /// Half of it or more, from its beginning.
    CutOff,
}

impl fmt::Display for SecretForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "as sent",
            Self::PercentEncoded => "percent-encoded",
            Self::Base64 => "in base64",
            Self::Hexadecimal => "in hexadecimal digits",
            Self::CutOff => "cut off, half of it or more",
        })
    }
}

/// A canary that came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leak {
    /// [`Canary::name`].
    pub canary: String,
    /// Where: `span SERVER 00f067aa0ba902b7, attribute url.query`. Never holds the value.
    pub place: String,
    /// How it was written there.
    pub form: SecretForm,
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is in {} ({})", self.canary, self.place, self.form)
    }
}

/// Whether bytes may hold one of the canaries in a form that [`find_secrets`] knows. A whole export request or line is looked
/// at once, so that only what may hold one is taken apart: nearly nothing does, and everything is searched for each request.
pub fn may_hold(canaries: &[Canary], bytes: &[u8]) -> bool {
    let holds = |bytes: &[u8]| canaries.iter().any(|canary| canary.is_plain_or_encoded_in(bytes));
    let is_escape =
        |at: usize| bytes.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    // A form's `+` stands for a space.
    let spaced = canaries.iter().any(|canary| canary.value.contains(' ')) && bytes.contains(&b'+');
    // Digits of either case, and of both, as the search itself takes them.
    let lower = bytes.to_ascii_lowercase();
    spaced
        || holds(bytes)
        || canaries.iter().any(|canary| memmem::find(&lower, canary.hex.as_bytes()).is_some())
        || (memchr_iter(b'%', bytes).any(is_escape) && holds(&percent_decode(bytes).collect::<Vec<_>>()))
}

/// Looks for every canary in names, attributes (keys and values), events, links and status of spans, in text and
/// fields of log records, in exported metrics' attributes, and in the resources and scopes of all of them. Each place
/// is named once a canary.
pub fn find_secrets<'a>(
    canaries: &[Canary],
    spans: impl IntoIterator<Item = &'a Arc<Span>>,
    logs: impl IntoIterator<Item = &'a Arc<LogRecord>>,
    metrics: impl IntoIterator<Item = &'a Arc<Metric>>,
) -> Vec<Leak> {
    let mut search = Search { canaries, leaks: Vec::new() };
    for span in spans {
        let at = format!("span {} {}", span.kind, span.span_id);
        search.text(&span.name, || format!("{at}, name"));
        search.text(&span.status.message, || format!("{at}, status message"));
        search.text(&span.trace_state, || format!("{at}, tracestate"));
        search.attributes(&span.attributes, || format!("{at}, attribute"));
        for (i, event) in span.events.iter().enumerate() {
            search.text(&event.name, || format!("{at}, name of event {i}"));
            search.attributes(&event.attributes, || format!("{at}, event {i}, attribute"));
        }
        for (i, link) in span.links.iter().enumerate() {
            search.attributes(&link.attributes, || format!("{at}, link {i}, attribute"));
        }
        search.attributes(&span.resource.attributes, || "the resource of spans, attribute".to_owned());
        search.attributes(&span.scope.attributes, || format!("scope of {at}, attribute"));
    }
    for record in logs {
        let at = format!("{} log record {}", record.origin, record.arrival.seq);
        let before = search.leaks.len();
        search.attributes(&record.fields, || format!("{at}, field"));
        search.value(&record.body, || format!("{at}, body"));
        if search.leaks.len() == before {
            // The fields are parts of the line: where one of them is named, the line says nothing more.
            search.text(&record.raw, || format!("{at}, text"));
            search.text(&record.message, || format!("{at}, message"));
        }
        if let Some(resource) = &record.resource {
            search.attributes(&resource.attributes, || "the resource of log records, attribute".to_owned());
        }
        if let Some(scope) = &record.scope {
            search.attributes(&scope.attributes, || format!("scope of {at}, attribute"));
        }
    }
    for metric in metrics {
        for point in &metric.points {
            search.attributes(&point.attributes, || format!("metric {}, attribute", metric.name));
        }
        search.attributes(&metric.resource.attributes, || "the resource of metrics, attribute".to_owned());
    }
    search.leaks
}

struct Search<'a> {
    canaries: &'a [Canary],
    leaks: Vec<Leak>,
}

impl Search<'_> {
    fn text(&mut self, text: &str, place: impl Fn() -> String) {
        for canary in self.canaries {
            if let Some(form) = canary.found_in(text) {
                let place = place();
                // A place is made of names that the service chose, and a name may be the secret.
                let hidden = self.canaries.iter().any(|canary| canary.found_in(&place).is_some());
                let place = if hidden { "a place whose name holds it".to_owned() } else { place };
                let leak = Leak { canary: canary.name.clone(), place, form };
                if !self.leaks.contains(&leak) {
                    self.leaks.push(leak);
                }
            }
        }
    }

    fn value(&mut self, value: &Value, place: impl Fn() -> String) {
        match value {
            Value::Empty => {}
            Value::Bytes(bytes) => self.text(&String::from_utf8_lossy(bytes), &place),
            Value::String(text) => self.text(text, &place),
            other => self.text(&other.to_string(), &place),
        }
    }

    fn attributes(&mut self, attributes: &Attributes, place: impl Fn() -> String) {
        for (key, value) in attributes.iter() {
            self.text(key, || format!("{} key", place()));
            self.value(value, || format!("{} {key}", place()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        correlation::samples::{record, span},
        telemetry::{SpanEvent, SpanLink},
    };

    const SECRET: &str = "s3cr3t/with \"quotes\"";

    #[test]
    fn a_quick_look_sees_every_form_and_nothing_in_what_holds_none() {
        let escaped = serde_json::Value::from(SECRET).to_string();
        let percent: String = SECRET.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let base64 = general_purpose::STANDARD.encode(format!("user:{SECRET}"));
        let form = SECRET.replace(' ', "+");
        for form in [SECRET, &escaped, &percent, &base64, &hex::encode(SECRET), &hex::encode_upper(SECRET), &form] {
            assert!(may_hold(&canary(), format!("\u{0}\u{12}%% {form} \u{7f}").as_bytes()), "{form}");
        }
        let (lower, upper) = (hex::encode(SECRET), hex::encode_upper(SECRET));
        let mixed = format!("{}{}", &lower[..9], &upper[9..]);
        assert!(may_hold(&canary(), mixed.as_bytes()) && canary()[0].found_in(&mixed).is_some(), "{mixed}");
        assert!(!may_hold(&canary(), b"100 % of s3cr3t, %7e %zz \x00\xff"));
    }

    fn canary() -> [Canary; 1] {
        [Canary::new("authorization", SECRET).unwrap()]
    }

    fn attribute(key: &str, value: impl Into<Value>) -> Attributes {
        [(key.to_owned(), value.into())].into_iter().collect()
    }

    #[test]
    fn every_place_of_a_span_is_searched_and_named_without_the_value() {
        let mut leaky = span(1, None, &format!("GET {SECRET}"));
        leaky.status.message = SECRET.into();
        leaky.attributes = attribute("url.query", SECRET);
        leaky.events = vec![SpanEvent { name: "e".into(), time_unix_nano: 0, attributes: attribute("x", SECRET) }];
        leaky.links =
            vec![SpanLink { trace_id: String::new(), span_id: String::new(), attributes: attribute("y", SECRET) }];
        leaky.resource =
            Arc::new(crate::telemetry::Resource { attributes: attribute("z", SECRET), ..Default::default() });
        leaky.scope = Arc::new(crate::telemetry::Scope { attributes: attribute("s", SECRET), ..Default::default() });
        let leaks = find_secrets(&canary(), &[Arc::new(leaky)], &[], &[]);
        assert_eq!(leaks.len(), 7);
        assert!(leaks.iter().all(|leak| !leak.to_string().contains("s3cr3t")));
        assert_eq!(
            leaks[2].to_string(),
            "authorization is in span INTERNAL 0000000000000001, attribute url.query (as sent)"
        );
    }

    #[test]
    fn a_secret_in_a_key_is_found_and_the_key_is_not_printed() {
        let mut leaky = span(1, None, "a");
        leaky.attributes = attribute(SECRET, SECRET);
        let leaks = find_secrets(&canary(), &[Arc::new(leaky)], &[], &[]);
        assert!(!leaks.is_empty() && !format!("{leaks:?}").contains("s3cr3t"));
    }

    #[test]
    fn fields_of_records_are_named_and_text_is_searched_when_no_field_holds_it() {
        let mut with_field = record(None, None);
        with_field.fields = attribute("headers.authorization", SECRET);
        with_field.raw = format!("{{\"headers\":{{\"authorization\":{}}}}}", serde_json::Value::from(SECRET));
        let mut as_text = record(None, None);
        as_text.raw = format!("got {}", serde_json::Value::from(SECRET));
        let leaks = find_secrets(&canary(), &[], &[Arc::new(with_field), Arc::new(as_text)], &[]);
        let places: Vec<&str> = leaks.iter().map(|leak| leak.place.as_str()).collect();
        assert_eq!(places, ["stdout log record 3, field headers.authorization", "stdout log record 3, text"]);
    }

    #[test]
    fn encoded_forms_are_found_wherever_they_begin() {
        let canary = &canary()[0];
        assert_eq!(canary.found_in("q=s3cr3t%2Fwith%20%22quotes%22&x"), Some(SecretForm::PercentEncoded));
        assert_eq!(canary.found_in("q=s3cr3t%2fwith+%22quotes%22"), Some(SecretForm::PercentEncoded));
        for user in ["", "u", "us", "user"] {
            let basic = general_purpose::STANDARD.encode(format!("{user}:{SECRET}:more"));
            assert_eq!(canary.found_in(&format!("Basic {basic}")), Some(SecretForm::Base64), "{user}");
            let url = general_purpose::URL_SAFE_NO_PAD.encode(format!("{user}{SECRET}"));
            assert_eq!(canary.found_in(&url), Some(SecretForm::Base64), "{user}");
        }
    }

    #[test]
    fn half_of_a_planted_value_is_a_leak_and_less_or_a_part_of_another_secret_is_none() {
        let planted = Canary::planted("cookie", "canaryghjkmnpqrstuvwxzghjkmnpq").unwrap();
        assert_eq!(planted.found_in("canaryghjkmnpqr..."), Some(SecretForm::CutOff));
        assert_eq!(
            planted.found_in("a=canaryghjkmnpqrstuvw, and so much more that it is long"),
            Some(SecretForm::CutOff)
        );
        assert_eq!(planted.found_in("canaryghjkmn***"), None);
        assert_eq!(planted.found_in(&format!("{planted:?}")), None);
        assert_eq!(planted.hide("of canaryghjkmnpqrstuvw."), "of [a secret].");
        let own = Canary::new("token", "canaryghjkmnpqrstuvwxzghjkmnpq").unwrap();
        assert_eq!(own.found_in("canaryghjkmnpqrst"), None);
    }

    #[test]
    fn what_holds_no_canary_is_no_leak_and_a_short_value_is_no_canary() {
        assert_eq!(canary()[0].found_in("s3cr3t is only a part of it, 100% + [redacted]"), None);
        assert!(
            find_secrets(&canary(), &[Arc::new(span(1, None, "a"))], &[Arc::new(record(None, None))], &[]).is_empty()
        );
        assert_eq!(Canary::new("short", "12345"), None);
    }
}
