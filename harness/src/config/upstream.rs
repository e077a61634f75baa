//! `[upstreams.NAME]`: what stands in for what the service calls.

use std::collections::BTreeMap;

use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;

/// An HTTP server that stands in for what the service calls, with fixed answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Upstream {
    /// Tried in order; the first that fits answers. A request that none fits is answered with 404.
    #[serde(default)]
    pub answers: Vec<Answer>,
}

/// One fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Answer {
    /// Method. Default: any.
    pub method: Option<String>,
    /// Path, without the query. A trailing `*` stands for any rest.
    pub path: String,
    /// Status, from 200 to 599. Default 200.
    #[serde(default = "default_status")]
    pub status: u16,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Body.
    #[serde(default)]
    pub body: String,
}

const fn default_status() -> u16 {
    200
}

impl Upstream {
    /// What could never be answered so; the service would be blamed for it.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for answer in &self.answers {
            let Answer { method, path, status, headers, .. } = answer;
            let of = format!("the answer for {path:?}");
            if !path.starts_with(['/', '*']) {
                problems.push(format!("{of} never fits: `path` begins with `/`, or is `*`"));
            }
            if path.contains('?') {
                problems.push(format!("{of} never fits: `path` is without the query"));
            }
            if !(200..=599).contains(status) {
                problems.push(format!("{of} has status {status}, which is not from 200 to 599"));
            }
            if let Some(method) = method.as_ref().filter(|method| Method::from_bytes(method.as_bytes()).is_err()) {
                problems.push(format!("{of} has the method {method:?}, which is none"));
            }
            for (name, value) in headers {
                if HeaderName::from_bytes(name.as_bytes()).is_err() {
                    problems.push(format!("{of} has the header {name:?}, which is no name of one"));
                }
                if HeaderValue::from_str(value).is_err() {
                    problems.push(format!("{of} has a header {name:?} whose value is none: {value:?}"));
                }
            }
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(answer: &str) -> Vec<String> {
        toml::from_str::<Upstream>(&format!("[[answers]]\n{answer}")).unwrap().problems()
    }

    #[test]
    fn an_answer_that_can_never_be_given_is_refused() {
        for (answer, what) in [
            ("path = 'charges'", "begins with `/`"),
            ("path = '/a?b=c'", "without the query"),
            ("path = '/a'\nstatus = 2000", "2000"),
            ("path = '/a'\nmethod = 'GET IT'", "GET IT"),
            ("path = '/a'\nheaders = { 'content type' = 'x' }", "content type"),
            ("path = '/a'\nheaders = { a = \"x\\ny\" }", "whose value"),
        ] {
            let found = problems(answer);
            assert!(found.len() == 1 && found[0].contains(what), "{answer}: {found:?}");
        }
    }

    #[test]
    fn any_path_and_what_http_allows_are_taken() {
        assert_eq!(problems("path = '*'"), Vec::<String>::new());
        let whole = "path = '/a/*'\nmethod = 'delete'\nstatus = 204\nheaders = { etag = '\"x\"' }\nbody = 'b'";
        assert_eq!(problems(whole), Vec::<String>::new());
    }
}
