//! The parameters of a query, each named when it cannot be read.

use std::str::FromStr;

use super::Filter;
use crate::telemetry::{SpanId, TraceId};

/// Items that an answer has at most, when it does not say.
const USUAL: usize = 100;

/// Items that an answer has at most.
const MOST: usize = 10_000;

const SPANS: &[&str] = &["trace", "span", "name", "service", "kind", "status", "attribute", "since", "until", "limit"];
const LOGS: &[&str] = &["trace", "span", "service", "severity", "text", "attribute", "since", "until", "limit"];
const METRICS: &[&str] = &["name", "service", "limit"];
const TAIL: &[&str] = &["service", "trace"];

/// What is asked, and of what.
#[derive(Debug, Clone, Copy)]
pub enum Question {
    Spans,
    Logs,
    Metrics,
    Tail,
}

impl Question {
    const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Spans => SPANS,
            Self::Logs => LOGS,
            Self::Metrics => METRICS,
            Self::Tail => TAIL,
        }
    }

    /// Reads parameters as they stand in a URL, and how many items are wanted at most.
    pub fn read(self, parameters: &[(String, String)]) -> Result<(Filter, usize), String> {
        let mut filter = Filter::default();
        let mut most = USUAL;
        for (name, value) in parameters {
            if !self.parameters().contains(&name.as_str()) {
                return Err(format!("{name} is no parameter here; there are {}", self.parameters().join(", ")));
            }
            let wrong = |what: &str| format!("{name}={value}: {what}");
            match name.as_str() {
                "trace" => filter.trace = Some(TraceId::from_hex(value).map_err(|error| wrong(&error.to_string()))?),
                "span" => filter.span = Some(SpanId::from_hex(value).map_err(|error| wrong(&error.to_string()))?),
                "name" => filter.name = Some(value.clone()),
                "service" => filter.service = Some(value.clone()),
                "text" => filter.text = Some(value.clone()),
                "kind" => {
                    filter.kind = Some(
                        word(value, &["unspecified", "internal", "server", "client", "producer", "consumer"])
                            .map_err(|what| wrong(&what))?,
                    );
                }
                "status" => filter.status = Some(word(value, &["unset", "ok", "error"]).map_err(|what| wrong(&what))?),
                "severity" => {
                    // Each name stands for four numbers; the first is the least (logs data model, "SeverityNumber").
                    let of = ["trace", "debug", "info", "warn", "error", "fatal"];
                    filter.severity = Some(4 * word(value, &of).map_err(|what| wrong(&what))? + 1);
                }
                "attribute" => {
                    let (key, value) = value.split_once('=').ok_or_else(|| wrong("write it as KEY=VALUE"))?;
                    filter.attributes.push((key.to_owned(), value.to_owned()));
                }
                "since" => filter.since = Some(time(value).ok_or_else(|| wrong(TIME))?),
                "until" => filter.until = Some(time(value).ok_or_else(|| wrong(TIME))?),
                _ => {
                    let limit = usize::from_str(value).ok().filter(|limit| (1..=MOST).contains(limit));
                    most = limit.ok_or_else(|| wrong(&format!("a number from 1 to {MOST}")))?;
                }
            }
        }
        Ok((filter, most))
    }
}

const TIME: &str = "a time as in 2026-01-31T12:00:00Z, or in nanoseconds since 1970";

fn time(text: &str) -> Option<u64> {
    let stated = || u64::try_from(text.parse::<jiff::Timestamp>().ok()?.as_nanosecond()).ok();
    text.parse().ok().or_else(stated)
}

/// The place of a word in a list, in whatever case it is.
fn word(text: &str, words: &[&str]) -> Result<i32, String> {
    let place = words.iter().position(|word| word.eq_ignore_ascii_case(text));
    place.and_then(|place| i32::try_from(place).ok()).ok_or_else(|| format!("one of {}", words.join(", ")))
}
