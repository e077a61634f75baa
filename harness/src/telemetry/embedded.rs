//! JSON inside a message: `Request details: {"method":"GET"}`.

use super::{Value, flatten};

/// How many `{` are tried: enough for prose with braces, and a bound on the work for a line of nothing but braces.
const MAX_ATTEMPTS: usize = 32;

/// What a message holds besides its words.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// The words, without a fragment that stands at the end and without the `: ` before it.
    pub message: String,
    /// The fragment, flattened.
    pub fields: Vec<(String, Value)>,
    /// The fragment, when it is the whole message.
    pub whole: Option<Value>,
}

/// The first JSON object in a message that has any fields. CloudWatch Logs too takes the first embedded fragment only
/// ("Supported logs and discovered fields", Lambda logs).
pub fn embedded_json(message: &str) -> Option<Embedded> {
    for (start, _) in message.match_indices('{').take(MAX_ATTEMPTS) {
        let mut values = serde_json::Deserializer::from_str(&message[start..]).into_iter::<serde_json::Value>();
        let Some(Ok(json)) = values.next() else { continue };
        let behind = &message[start + values.byte_offset()..];
        let value = Value::from(json);
        let fields = flatten("", &value);
        if fields.is_empty() {
            continue;
        }
        let words = message[..start].trim_end().trim_end_matches([':', '=', '-']).trim_end();
        let at_end = behind.trim().is_empty();
        let whole = (at_end && message[..start].trim().is_empty()).then_some(value);
        let message = if at_end && !words.is_empty() { words } else { message };
        return Some(Embedded { message: message.to_owned(), fields, whole });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_at_the_end_gives_fields_and_leaves_the_words() {
        let found = embedded_json(r#"Request details: {"method": "GET", "headers": {"accept": "*/*"}}"#).unwrap();
        assert_eq!(found.message, "Request details");
        assert_eq!(found.fields, [("method".into(), "GET".into()), ("headers.accept".into(), "*/*".into())]);
    }

    #[test]
    fn an_object_in_the_middle_gives_fields_and_the_message_stays_whole() {
        let found = embedded_json(r#"got {"a":1} from b"#).unwrap();
        assert_eq!((found.message.as_str(), found.fields.len()), (r#"got {"a":1} from b"#, 1));
    }

    #[test]
    fn prose_with_braces_an_empty_object_and_a_python_dict_hold_no_fields() {
        for message in ["GET /files/{path}", "done {}", "{'a': 1}", "{", "{{{{{{{{", "{\"a\":"] {
            assert_eq!(embedded_json(message), None, "{message}");
        }
    }

    #[test]
    fn braces_before_the_object_do_not_hide_it() {
        assert_eq!(embedded_json(r#"GET /files/{path} {"a":1}"#).unwrap().message, "GET /files/{path}");
    }
}
