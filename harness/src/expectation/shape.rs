//! The whole tree of a request, written as text.

use std::{collections::HashSet, fmt, sync::Arc};

use super::{Difference, MatcherError, SpanMatcher, TextMatcher, ValueMatcher, span::shown};
use crate::{
    correlation::Trace,
    telemetry::{Span, SpanKind, StatusCode},
};

mod align;

/// The tree that a trace must be.
///
/// ```text
/// SERVER   GET /{proxy+}      faas.trigger=http
///   SERVER GET /openapi.json  http.response.status_code=200  status=Unset
///     ...
/// ```
///
/// A line is a span: its kind (or `*` for any), its name up to two blanks, then `key=value` pairs, whose values are
/// written as [`ValueMatcher`] says (in quotes when they hold blanks); `status=Error` is the status. A name in slashes
/// is a regular expression, a `*` any name. What stands deeper than the line above hangs on it. `...` allows any
/// further spans, with whatever is below them, at its depth; without it every span of the trace must be written.
/// Siblings may come in any order, since they may run at the same time.
#[derive(Debug, Clone)]
pub struct Shape {
    nodes: Vec<ShapeNode>,
    roots: Vec<usize>,
    open: bool,
}

#[derive(Debug, Clone)]
struct ShapeNode {
    matcher: SpanMatcher,
    text: String,
    parent: Option<usize>,
    children: Vec<usize>,
    open: bool,
}

/// Why some text is no shape.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("line {line} of the shape: {reason}")]
pub struct ShapeError {
    /// Line in the text, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// One thing in which a trace is not the shape.
#[derive(Debug, Clone)]
pub enum ShapeMismatch {
    /// A line for which there is no span.
    Missing {
        /// The line.
        expected: String,
        /// The line above it; `None` at the top.
        under: Option<String>,
    },
    /// A span for which there is no line.
    Unexpected {
        /// The span.
        span: Arc<Span>,
        /// The span above it; `None` at the top.
        under: Option<Arc<Span>>,
    },
    /// A span at the right place that is not as its line says.
    Differs {
        /// The span.
        span: Arc<Span>,
        /// All that differs.
        differences: Vec<Difference>,
    },
    /// A span that is as its line says and hangs on another span.
    Reparented {
        /// The span.
        span: Arc<Span>,
        /// The line that it should hang on; `None` for the top.
        expected: Option<String>,
        /// The span that it hangs on; `None` for the top.
        found: Option<Arc<Span>>,
    },
}

impl fmt::Display for ShapeMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |line: &Option<String>| line.clone().map_or("the top".to_owned(), |line| format!("`{line}`"));
        let above = |span: &Option<Arc<Span>>| span.as_ref().map_or("the top".to_owned(), |span| shown(span));
        match self {
            Self::Missing { expected, under } => write!(f, "missing    `{expected}` under {}", line(under)),
            Self::Unexpected { span, under } => write!(f, "unexpected {} under {}", shown(span), above(under)),
            Self::Differs { span, differences } => {
                let all: Vec<String> = differences.iter().map(ToString::to_string).collect();
                write!(f, "differs    {}: {}", shown(span), all.join(", "))
            }
            Self::Reparented { span, expected, found } => {
                write!(f, "reparented {} is under {} (expected {})", shown(span), above(found), line(expected))?;
                match span.parent_span_id {
                    Some(parent) if found.is_none() => write!(f, "; it names the parent {parent}"),
                    _ => Ok(()),
                }
            }
        }
    }
}

impl Shape {
    /// Reads a shape; see [`Shape`] for the form.
    ///
    /// # Errors
    /// The first line that is none, with its number: an unknown kind, no name, a pair without `=`, an indentation
    /// that belongs to no line above, a tab, a value that is no matcher; or a text without any line.
    pub fn parse(text: &str) -> Result<Self, ShapeError> {
        let mut shape = Self { nodes: Vec::new(), roots: Vec::new(), open: false };
        // The lines that the next one may hang on or stand beside: indentation and node.
        let mut above: Vec<(usize, usize)> = Vec::new();
        let mut top = None;
        for (i, raw) in text.lines().enumerate() {
            let error = |reason: String| ShapeError { line: i + 1, reason };
            let content = raw.trim();
            if content.is_empty() {
                continue;
            }
            let lead = &raw[..raw.len() - raw.trim_start().len()];
            if lead.contains('\t') {
                return Err(error("indented with a tab; use blanks".to_owned()));
            }
            let indent = lead.len();
            let top = *top.get_or_insert(indent);
            let mut left = None;
            while above.last().is_some_and(|(column, _)| *column >= indent) {
                left = above.pop().map(|(column, _)| column);
            }
            // Less than the sibling before and more than its parent is neither one's place.
            if indent < top || left.is_some_and(|column| column != indent) || (above.is_empty() && indent != top) {
                return Err(error(format!("indented by {indent} blanks, which no line above it is")));
            }
            let parent = above.last().map(|(_, node)| *node);
            if content == "..." || content == "…" {
                match parent {
                    Some(parent) => shape.nodes[parent].open = true,
                    None => shape.open = true,
                }
                continue;
            }
            let matcher = line(content).map_err(error)?;
            let node = shape.nodes.len();
            let text =
                content.split("  ").map(str::trim).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ");
            shape.nodes.push(ShapeNode { matcher, text, parent, children: Vec::new(), open: false });
            match parent {
                Some(parent) => shape.nodes[parent].children.push(node),
                None => shape.roots.push(node),
            }
            above.push((indent, node));
        }
        if shape.nodes.is_empty() && !shape.open {
            return Err(ShapeError { line: 1, reason: "there is no span in it".to_owned() });
        }
        Ok(shape)
    }

    /// How many spans it names.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether it names none, only `...`.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Compares the whole trace with the shape.
    ///
    /// # Errors
    /// Everything that differs, by the alignment of both trees that leaves the least: a span that was dropped in the
    /// middle is missing, and what hung on it is reparented.
    pub fn compare(&self, trace: &Trace) -> Result<(), Vec<ShapeMismatch>> {
        let alignment = align::align(self, trace);
        let mut mismatches = Vec::new();
        let span = |at: usize| trace.nodes()[at].span.clone();
        for &(node, at) in &alignment.pairs {
            let differences = self.nodes[node].matcher.differences(&trace.nodes()[at].span);
            if !differences.is_empty() {
                mismatches.push(ShapeMismatch::Differs { span: span(at), differences });
            }
        }
        let mut unexpected: Vec<usize> = alignment.unexpected.clone();
        let mut absorbed: HashSet<usize> = alignment.absorbed.iter().copied().collect();
        let mut moved: Vec<(usize, usize)> = Vec::new();
        for &node in &alignment.missing {
            let is = |at: &usize| self.nodes[node].matcher.differences(&trace.nodes()[*at].span).is_empty();
            let parent_moved = |at: usize| {
                moved.iter().any(|&(n, a)| self.nodes[node].parent == Some(n) && trace.nodes()[at].parent == Some(a))
            };
            // Of several spans that fit, the one that went along with its parent.
            let fits: Vec<usize> = unexpected.iter().chain(&absorbed).copied().filter(is).collect();
            let Some(at) = fits.iter().copied().find(|&at| parent_moved(at)).or(fits.first().copied()) else {
                let under = self.nodes[node].parent.map(|parent| self.nodes[parent].text.clone());
                mismatches.push(ShapeMismatch::Missing { expected: self.nodes[node].text.clone(), under });
                continue;
            };
            if !parent_moved(at) {
                let expected = self.nodes[node].parent.map(|parent| self.nodes[parent].text.clone());
                let found = trace.nodes()[at].parent.map(span);
                mismatches.push(ShapeMismatch::Reparented { span: span(at), expected, found });
            }
            moved.push((node, at));
            unexpected.retain(|&other| other != at);
            absorbed.remove(&at);
        }
        for at in unexpected {
            mismatches.push(ShapeMismatch::Unexpected { span: span(at), under: trace.nodes()[at].parent.map(span) });
        }
        if mismatches.is_empty() { Ok(()) } else { Err(mismatches) }
    }
}

/// Reads one line without its indentation.
fn line(content: &str) -> Result<SpanMatcher, String> {
    let (kind, rest) = content.split_once(' ').unwrap_or((content, ""));
    let mut matcher = SpanMatcher::default();
    if kind != "*" {
        let known = SpanKind::ALL.into_iter().find(|known| known.to_string() == kind);
        matcher.kind = Some(known.ok_or_else(|| {
            format!("{kind:?} is no span kind; write SERVER, CLIENT, INTERNAL, PRODUCER, CONSUMER or * for any")
        })?);
    }
    let rest = rest.trim_start();
    let (name, pairs) = rest.split_once("  ").unwrap_or((rest, ""));
    if name.is_empty() {
        return Err("there is no span name; write * for any".to_owned());
    }
    if name != "*" {
        matcher.name = Some(TextMatcher::parse(name).map_err(|error| error.to_string())?);
    }
    for (key, value) in split_pairs(pairs)? {
        if key == "status" {
            let known = [StatusCode::Unset, StatusCode::Ok, StatusCode::Error];
            let code = known.into_iter().find(|code| code.to_string().eq_ignore_ascii_case(&value));
            matcher.status = Some(code.ok_or_else(|| format!("{value:?} is no status; write Unset, Ok or Error"))?);
        } else {
            let value = ValueMatcher::parse(&value).map_err(|error: MatcherError| error.to_string())?;
            matcher.attributes.push((key, value));
        }
    }
    Ok(matcher)
}

/// Splits `key=value key="a b" key=/a b/`.
fn split_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut pairs = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (key, value) = rest.split_once('=').ok_or_else(|| format!("{rest:?} is not key=value"))?;
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(format!("{key:?} is no attribute name; two blanks stand only between the name and key=value"));
        }
        let end = match value.chars().next() {
            Some(quote @ ('"' | '/')) => {
                let mut escaped = false;
                let close = value.char_indices().skip(1).find(|&(at, c)| {
                    let ends = value[at + c.len_utf8()..].chars().next().is_none_or(char::is_whitespace);
                    let closes = c == quote && !escaped && ends;
                    escaped = c == '\\' && !escaped;
                    closes
                });
                // A path begins with a slash and does not end with one.
                let word = value.find(char::is_whitespace).unwrap_or(value.len());
                // A regular expression that holds `key=` after a blank is a path with the next pair behind it.
                let next_pair = |end: usize| value[..end].split_whitespace().skip(1).any(|part| part.contains('='));
                match close {
                    Some((at, c)) if quote == '"' || !next_pair(at) => at + c.len_utf8(),
                    Some(_) => word,
                    None if quote == '/' => word,
                    None => return Err(format!("the quote in {value:?} does not end")),
                }
            }
            _ => value.find(char::is_whitespace).unwrap_or(value.len()),
        };
        pairs.push((key.to_owned(), value[..end].to_owned()));
        rest = value[end..].trim_start();
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests;
