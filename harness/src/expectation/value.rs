//! One value of an attribute or a field, with its type.

use std::fmt;

use regex::Regex;

use crate::telemetry::Value;

/// Why a cell of a scenario is no matcher.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MatcherError {
    /// A `/…/` that is no regular expression.
    #[error("/{pattern}/ is no regular expression: {reason}")]
    Regex {
        /// What stands between the slashes.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A type name with a value that is none of that type.
    #[error("{text:?} is no {type_name}")]
    NotOfType {
        /// `int`, `double` or `bool`.
        type_name: &'static str,
        /// The value.
        text: String,
    },
}

/// What a value must be. A scenario writes it so:
///
/// | written | matches |
/// | --- | --- |
/// | `200`, `int 200` | the integer 200, not the string "200" |
/// | `0.5`, `double 0.5` | the floating point number 0.5 |
/// | `true`, `bool true` | the boolean |
/// | `"200"`, `string 200` | the string 200 |
/// | `application/json` | a string; any text that is none of the other forms |
/// | `/^GET/` | any value whose text the regular expression finds something in |
/// | `*`, `any` | any value at all |
/// | `["a","b"]` | an array or map that is shown so |
#[derive(Debug, Clone)]
pub enum ValueMatcher {
    /// Any value.
    Any,
    /// A string.
    String(String),
    /// An integer.
    Int(i64),
    /// A floating point number.
    Double(f64),
    /// A boolean.
    Bool(bool),
    /// A regular expression over the value's text.
    Regex(Regex),
}

impl ValueMatcher {
    /// Reads a scenario's cell; see [`ValueMatcher`] for the forms.
    ///
    /// # Errors
    /// A `/…/` that is no regular expression; `int`, `double` or `bool` before something else.
    pub fn parse(cell: &str) -> Result<Self, MatcherError> {
        let cell = cell.trim();
        if cell == "*" || cell == "any" {
            return Ok(Self::Any);
        }
        if let Some(pattern) = between_slashes(cell) {
            return regex(pattern).map(Self::Regex);
        }
        if let Some(text) = quoted(cell) {
            return Ok(Self::String(text));
        }
        let not = |type_name, text: &str| MatcherError::NotOfType { type_name, text: text.to_owned() };
        if let Some((type_name, rest)) = cell.split_once(' ') {
            let rest = rest.trim();
            match type_name {
                "string" => return Ok(Self::String(quoted(rest).unwrap_or_else(|| rest.to_owned()))),
                "int" => return rest.parse().map(Self::Int).map_err(|_| not("int", rest)),
                "double" => return rest.parse().map(Self::Double).map_err(|_| not("double", rest)),
                "bool" => return rest.parse().map(Self::Bool).map_err(|_| not("bool", rest)),
                _ => {}
            }
        }
        if let Ok(value) = cell.parse() {
            return Ok(Self::Bool(value));
        }
        if let Ok(number) = cell.parse() {
            return Ok(Self::Int(number));
        }
        // `inf`, `nan` and `1e5` parse as numbers too, and are more likely words: a number has a digit on both sides.
        let decimal = cell.trim_start_matches('-').split_once('.').is_some_and(|(whole, fraction)| {
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            digits(whole) && digits(fraction)
        });
        match cell.parse() {
            Ok(number) if decimal => Ok(Self::Double(number)),
            _ => Ok(Self::String(cell.to_owned())),
        }
    }

    /// Whether `value` is what is expected.
    pub fn matches(&self, value: &Value) -> bool {
        match (self, value) {
            (Self::Any, _) => true,
            (Self::String(expected), Value::String(text)) => expected == text,
            (Self::String(expected), Value::Array(_) | Value::Map(_)) => *expected == value.to_string(),
            (Self::Int(expected), Value::Int(number)) => expected == number,
            (Self::Double(expected), Value::Double(number)) => expected == number,
            (Self::Bool(expected), Value::Bool(flag)) => expected == flag,
            (Self::Regex(regex), value) => regex.is_match(&value.to_string()),
            _ => false,
        }
    }
}

impl PartialEq for ValueMatcher {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// `int 200`, `string "200"`, `/^GET/`, `any value`.
impl fmt::Display for ValueMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any value"),
            Self::String(text) => write!(f, "string {text:?}"),
            Self::Int(number) => write!(f, "int {number}"),
            Self::Double(number) => write!(f, "double {number}"),
            Self::Bool(flag) => write!(f, "bool {flag}"),
            Self::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

/// A value with its type, as differences show it: `string "200"`, `int 200`.
pub fn typed(value: &Value) -> String {
    match value {
        Value::String(text) => format!("string {text:?}"),
        Value::Empty => "empty".to_owned(),
        other => format!("{} {other}", other.type_name()),
    }
}

/// What a name or a message must be.
#[derive(Debug, Clone)]
pub enum TextMatcher {
    /// Exactly this.
    Exact(String),
    /// This somewhere in it.
    Contains(String),
    /// Something that this finds.
    Regex(Regex),
}

impl TextMatcher {
    /// `/…/` is a regular expression, `"…"` and everything else is the exact text.
    ///
    /// # Errors
    /// A `/…/` that is no regular expression. A path that ends in `/` (`/files/`) is the exact text when it stands in
    /// quotes.
    pub fn parse(text: &str) -> Result<Self, MatcherError> {
        if let Some(pattern) = between_slashes(text.trim()) {
            return regex(pattern).map(Self::Regex);
        }
        Ok(Self::Exact(quoted(text.trim()).unwrap_or_else(|| text.to_owned())))
    }

    /// Whether `text` is what is expected.
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(expected) => expected == text,
            Self::Contains(part) => text.contains(part),
            Self::Regex(regex) => regex.is_match(text),
        }
    }

    /// How like `text` is to what is expected, 0 to 1; 1 for a match.
    pub fn similarity(&self, text: &str) -> f64 {
        match self {
            _ if self.matches(text) => 1.0,
            Self::Exact(expected) => strsim::normalized_damerau_levenshtein(expected, text),
            Self::Contains(part) => 0.9 * strsim::normalized_damerau_levenshtein(part, text),
            Self::Regex(_) => 0.3,
        }
    }
}

impl fmt::Display for TextMatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "{text:?}"),
            Self::Contains(part) => write!(f, "containing {part:?}"),
            Self::Regex(regex) => write!(f, "/{regex}/"),
        }
    }
}

fn between_slashes(text: &str) -> Option<&str> {
    text.strip_prefix('/')?.strip_suffix('/').filter(|pattern| !pattern.is_empty())
}

fn regex(pattern: &str) -> Result<Regex, MatcherError> {
    Regex::new(pattern).map_err(|error| MatcherError::Regex { pattern: pattern.to_owned(), reason: error.to_string() })
}

/// The text between double quotes, `\"` and `\\` unescaped; `None` when it is not quoted from end to end.
fn quoted(text: &str) -> Option<String> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut plain = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(next) = chars.next() {
        match next {
            '\\' => match chars.next()? {
                escaped @ ('"' | '\\') => plain.push(escaped),
                other => plain.extend(['\\', other]),
            },
            '"' => return None,
            other => plain.push(other),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(cell: &str, value: impl Into<Value>) -> bool {
        ValueMatcher::parse(cell).unwrap().matches(&value.into())
    }

    #[test]
    fn a_number_is_a_number_and_quotes_make_it_a_string() {
        assert!(matches("200", Value::Int(200)) && !matches("200", "200"));
        assert!(matches("\"200\"", "200") && !matches("\"200\"", Value::Int(200)));
        assert!(matches("0.5", Value::Double(0.5)) && !matches("0.5", "0.5"));
        assert!(matches("true", Value::Bool(true)) && !matches("true", "true"));
        assert!(matches("-5", Value::Int(-5)));
    }

    #[test]
    fn a_type_before_the_value_says_the_type() {
        assert!(matches("string 200", "200") && matches("string \"200\"", "200"));
        assert!(matches("double 1", Value::Double(1.0)) && !matches("double 1", Value::Int(1)));
        assert!(matches("int 1", Value::Int(1)) && matches("bool false", Value::Bool(false)));
        assert!(matches!(ValueMatcher::parse("int x"), Err(MatcherError::NotOfType { type_name: "int", .. })));
    }

    #[test]
    fn anything_else_is_text() {
        for text in ["application/json,*/*", "inf", "1e5", "1.2.3", "say \"x\"", "string", "GET /files/", "int-like x"]
        {
            assert!(matches(text, text), "{text}");
        }
        assert!(matches("", "") && matches(r#"["a"]"#, Value::from(json!(["a"]))));
    }

    #[test]
    fn slashes_hold_a_regular_expression_and_a_star_is_anything() {
        assert!(matches("/^2/", Value::Int(200)) && !matches("/^3/", Value::Int(200)));
        assert!(matches("*", Value::Empty) && matches("any", "x"));
        assert!(matches!(ValueMatcher::parse("/(/"), Err(MatcherError::Regex { .. })));
        assert!(matches("/", "/"));
    }

    #[test]
    fn a_name_is_exact_unless_it_is_a_regular_expression() {
        assert!(TextMatcher::parse("GET /files/").unwrap().matches("GET /files/"));
        assert!(!TextMatcher::parse("GET").unwrap().matches("GET /files/"));
        assert!(TextMatcher::parse("/^GET/").unwrap().matches("GET /files/"));
        assert!(TextMatcher::parse("\"/files/\"").unwrap().matches("/files/"));
        assert!(TextMatcher::Contains("files".into()).matches("GET /files/"));
    }

    #[test]
    fn a_value_and_a_matcher_are_shown_with_their_types() {
        assert_eq!(typed(&"200".into()), "string \"200\"");
        assert_eq!(ValueMatcher::parse("200").unwrap().to_string(), "int 200");
    }
}
