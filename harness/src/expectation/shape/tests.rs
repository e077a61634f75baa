use super::*;
use crate::{
    correlation::samples::{span, with},
    telemetry::Value,
};

const TEXT: &str = "
    SERVER   GET /{proxy+}      faas.trigger=http
      SERVER GET /openapi.json  http.response.status_code=200 status=Unset
        CLIENT S3.GetObject
        INTERNAL render page
";

fn proxy() -> Span {
    with(span(1, None, "GET /{proxy+}"), SpanKind::Server, &[("faas.trigger", "http".into())])
}

fn route(parent: u64) -> Span {
    let attributes = [("http.response.status_code", Value::Int(200))];
    with(span(2, Some(parent), "GET /openapi.json"), SpanKind::Server, &attributes)
}

fn storage(parent: u64) -> Span {
    with(span(3, Some(parent), "S3.GetObject"), SpanKind::Client, &[])
}

fn compare(text: &str, spans: Vec<Span>) -> Vec<String> {
    let trace = Trace::new(spans.into_iter().map(Arc::new), &[]);
    match Shape::parse(text).unwrap().compare(&trace) {
        Ok(()) => Vec::new(),
        Err(mismatches) => mismatches.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_trace_of_this_shape_matches_with_its_siblings_in_any_order() {
    let mut late = storage(2);
    late.start_unix_nano = 99;
    let spans = vec![proxy(), route(1), late, span(4, Some(2), "render page")];
    assert_eq!(compare(TEXT, spans), [""; 0]);
}

#[test]
fn a_dropped_leaf_is_missing_and_an_extra_span_is_unexpected() {
    let found = compare(TEXT, vec![proxy(), route(1), storage(2), span(5, Some(1), "something else entirely")]);
    assert_eq!(
        found,
        [
            "missing    `INTERNAL render page` under `SERVER GET /openapi.json  http.response.status_code=200 status=Unset`",
            "unexpected INTERNAL \"something else entirely\" under SERVER \"GET /{proxy+}\"",
        ]
    );
}

#[test]
fn a_span_at_its_place_that_differs_is_named_with_all_differences() {
    let mut wrong =
        with(span(2, Some(1), "GET /openapi.json"), SpanKind::Internal, &[("http.response.status_code", "200".into())]);
    wrong.status.code = StatusCode::Error;
    let found = compare(TEXT, vec![proxy(), wrong, storage(2), span(4, Some(2), "render page")]);
    assert_eq!(
        found,
        ["differs    INTERNAL \"GET /openapi.json\": kind INTERNAL (expected SERVER), status Error (expected Unset), \
          http.response.status_code string \"200\" (expected int 200)"]
    );
}

#[test]
fn a_span_that_hangs_on_another_parent_is_reparented_and_not_missing() {
    let found = compare(TEXT, vec![proxy(), route(1), storage(1), span(4, Some(2), "render page")]);
    assert_eq!(
        found,
        ["reparented CLIENT \"S3.GetObject\" is under SERVER \"GET /{proxy+}\" (expected `SERVER GET /openapi.json  \
          http.response.status_code=200 status=Unset`)"]
    );
}

#[test]
fn what_hung_on_a_dropped_span_is_reparented_and_only_the_dropped_one_is_missing() {
    let found = compare(TEXT, vec![proxy(), storage(2), span(4, Some(2), "render page")]);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found.iter().any(|line| line.starts_with("missing    `SERVER GET /openapi.json")));
    assert!(found.iter().any(|line| line.starts_with("reparented CLIENT \"S3.GetObject\" is under the top")
        && line.ends_with("it names the parent 0000000000000002")));
}

#[test]
fn a_subtree_that_moved_is_reparented_once() {
    let text = "SERVER a\n  INTERNAL b\n    INTERNAL c\n  INTERNAL d";
    let spans = |parent| {
        vec![
            with(span(1, None, "a"), SpanKind::Server, &[]),
            span(2, Some(parent), "b"),
            span(3, Some(2), "c"),
            span(4, Some(1), "d"),
        ]
    };
    assert_eq!(compare(text, spans(1)), [""; 0]);
    let found = compare(text, spans(4));
    assert_eq!(found, ["reparented INTERNAL \"b\" is under INTERNAL \"d\" (expected `SERVER a`)"]);
}

#[test]
fn three_dots_allow_further_spans_at_their_depth_and_nowhere_else() {
    let spans = || vec![proxy(), route(1), storage(2), span(6, Some(2), "x"), span(7, Some(6), "y")];
    assert_eq!(compare("* *\n  SERVER *\n    CLIENT *\n    ...", spans()), [""; 0]);
    assert_eq!(compare("* *\n  ...", spans()), [""; 0]);
    assert_eq!(compare("...", spans()), [""; 0]);
    let elsewhere = compare("* *\n  SERVER *\n    CLIENT *\n  ...", spans());
    assert_eq!(elsewhere.len(), 2, "{elsewhere:#?}");
    assert!(elsewhere[0].starts_with("unexpected INTERNAL \"x\""));
}

#[test]
fn a_better_pairing_is_not_missed_because_a_general_line_came_first() {
    let text = "SERVER a\n  INTERNAL *\n  INTERNAL b";
    let spans = vec![with(span(1, None, "a"), SpanKind::Server, &[]), span(2, Some(1), "b"), span(3, Some(1), "c")];
    assert_eq!(compare(text, spans), [""; 0]);
}

#[test]
fn nothing_received_leaves_every_line_missing() {
    assert_eq!(compare(TEXT, Vec::new()).len(), 4);
}

#[test]
fn values_may_be_quoted_regular_and_paths() {
    let text = "CLIENT S3.PutObject  a=\"x y\" b=/x .*z/ c=/files/a.txt d=/files/ e=\"say \\\"x\\\"\"";
    let attributes = [
        ("a", Value::from("x y")),
        ("b", "x y z".into()),
        ("c", "/files/a.txt".into()),
        ("d", "/files/".into()),
        ("e", "say \"x\"".into()),
    ];
    assert_eq!(compare(text, vec![with(span(1, None, "S3.PutObject"), SpanKind::Client, &attributes)]), [""; 0]);
}

#[test]
fn every_line_that_is_none_is_refused_with_its_number() {
    let error = |text: &str| Shape::parse(text).unwrap_err().to_string();
    assert!(error("SERVER a\n  server b").starts_with("line 2 of the shape: \"server\" is no span kind"));
    assert!(error("SERVER").contains("there is no span name"));
    assert!(error("SERVER a  b").contains("\"b\" is not key=value"));
    assert!(error("SERVER a  b c=1").contains("\"b c\" is no attribute name"));
    assert!(error("SERVER a  status=Bad").contains("is no status"));
    assert!(error("SERVER a  b=\"c").contains("does not end"));
    assert!(error("SERVER a  b=/(/").contains("is no regular expression"));
    assert!(error("SERVER a\n\tINTERNAL b").contains("tab"));
    assert!(error("SERVER a\n    INTERNAL b\n  INTERNAL c").starts_with("line 3 of the shape: indented by 2 blanks"));
    assert!(error("  SERVER a\nINTERNAL b").contains("indented by 0"));
    assert!(error(" \n").contains("no span in it"));
}
