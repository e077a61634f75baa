//! What is judged beyond the steps: how strict the invariants are, and which canaries are planted in requests.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use crate::invariant::{self, Grade};

/// `[invariants]`: what of the advice fails, and how far clocks may be apart.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Invariants {
    /// Advice that fails a scenario as a rule does, by name.
    pub deny: Vec<String>,
    /// How far the clocks of two spans, or of a span and a record, may be apart. Default 10 ms.
    #[serde(deserialize_with = "duration")]
    pub skew: Duration,
}

impl Default for Invariants {
    fn default() -> Self {
        Self { deny: Vec::new(), skew: Duration::from_millis(10) }
    }
}

impl Invariants {
    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        self.deny.iter().filter_map(|name| match invariant::rules().find(|rule| rule.name == name) {
            Some(rule) if rule.grade == Grade::Advice => None,
            Some(_) => Some(format!("[invariants] deny has {name:?}, which fails a scenario anyway; leave it out")),
            None => {
                let advice = invariant::rules().filter(|rule| rule.grade == Grade::Advice).map(|rule| rule.name);
                let near = advice.max_by(|a, b| {
                    let likeness = |other: &str| strsim::normalized_damerau_levenshtein(name, other);
                    likeness(a).total_cmp(&likeness(b))
                });
                let near = near.map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
                Some(format!("[invariants] deny has {name:?}, which is the name of no advice{near}"))
            }
        })
    }
}

/// `[canaries]`: values that are planted in every request and must not come out in telemetry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Canaries {
    /// A cookie `tracegate_canary` beside those of the scenario. Default true: a service ignores cookies that it does not
    /// know.
    pub cookie: bool,
    /// Headers that get a value unless the scenario sends them itself: `["Authorization", "X-Api-Key"]`. Default none,
    /// because credentials change what services answer.
    pub headers: Vec<String>,
    /// Name of a query parameter to add. Default none.
    pub query: Option<String>,
    /// Name of a member to add to bodies that are JSON objects. Default none.
    pub body: Option<String>,
}

impl Default for Canaries {
    fn default() -> Self {
        Self { cookie: true, headers: Vec::new(), query: None, body: None }
    }
}

impl Canaries {
    /// Nothing is planted.
    pub fn none() -> Self {
        Self { cookie: false, ..Self::default() }
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = String> {
        let wrong =
            |header: &&String| header.parse::<http::HeaderName>().is_err() || header.eq_ignore_ascii_case("cookie");
        let headers = self.headers.iter().filter(wrong);
        let headers = headers.map(|header| match header.eq_ignore_ascii_case("cookie") {
            true => "[canaries] headers has \"Cookie\"; say `cookie = true`".to_owned(),
            false => format!("[canaries] headers: {header:?} is no header name"),
        });
        let plain = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let query = self.query.iter().filter(move |name| !plain(name));
        headers.chain(
            query.map(|name| format!("[canaries] query: {name:?} is not a name of letters, digits, `-`, `_` and `.`")),
        )
    }
}
