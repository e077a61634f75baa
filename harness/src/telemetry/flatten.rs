//! Fields of structured data by dotted paths, as CloudWatch Logs discovers them.

use super::Value;

/// How many fields CloudWatch Logs extracts from one JSON log event.
pub const MAX_FIELDS: usize = 200;

/// Every scalar in `value` by its path, in the order written: `{"headers":{"accept":"*/*"},"files":["a"]}` has the
/// fields `headers.accept` and `files.0`. Paths begin with `prefix` unless it is empty; a scalar without a prefix has
/// no name and gives nothing, and so does an empty object or array.
///
/// At most [`MAX_FIELDS`] are given. Source: "Supported logs and discovered fields" in the CloudWatch Logs user guide
/// (dot notation, array indices, a maximum of 200 fields from a JSON log).
///
/// ```
/// use tracegate::telemetry::{flatten, Value};
/// let value = Value::from(serde_json::json!({"headers": {"accept": "*/*"}, "files": ["a.txt"]}));
/// assert_eq!(flatten("", &value), [("headers.accept".into(), "*/*".into()), ("files.0".into(), "a.txt".into())]);
/// ```
pub fn flatten(prefix: &str, value: &Value) -> Vec<(String, Value)> {
    flatten_up_to(prefix, value, MAX_FIELDS)
}

/// [`flatten`] with another limit: ids are looked for in all fields, since encoders like to write them last.
pub(crate) fn flatten_up_to(prefix: &str, value: &Value, limit: usize) -> Vec<(String, Value)> {
    let mut fields = Vec::new();
    // A stack of our own: the depth of what a foreign encoder sends must not become the depth of this thread's stack.
    let mut pending = vec![(prefix.to_owned(), value)];
    while let Some((path, value)) = pending.pop() {
        if fields.len() >= limit {
            break;
        }
        let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        match value {
            Value::Map(entries) => pending.extend(entries.iter().rev().map(|(key, value)| (below(key), value))),
            Value::Array(values) => {
                pending.extend(values.iter().enumerate().rev().map(|(i, value)| (below(&i.to_string()), value)));
            }
            scalar if !path.is_empty() => fields.push((path, scalar.clone())),
            _ => {}
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(value: serde_json::Value) -> Vec<String> {
        flatten("", &Value::from(value)).into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn nested_objects_and_arrays_become_dotted_paths_in_the_order_written() {
        assert_eq!(
            paths(json!({"z": 1, "headers": {"b": 1, "a": {"c": true}}, "files": ["x", {"size": 2}]})),
            ["z", "headers.b", "headers.a.c", "files.0", "files.1.size"]
        );
    }

    #[test]
    fn a_prefix_stands_before_every_path_and_names_a_bare_scalar() {
        assert_eq!(flatten("body", &Value::from(json!({"a": 1}))), [("body.a".to_owned(), Value::Int(1))]);
        assert_eq!(flatten("body", &Value::Int(1)), [("body".to_owned(), Value::Int(1))]);
        assert_eq!(flatten("", &Value::Int(1)), []);
    }

    #[test]
    fn empty_containers_give_no_field_and_null_gives_an_empty_one() {
        assert_eq!(flatten("", &Value::from(json!({"a": {}, "b": [], "c": null}))), [("c".into(), Value::Empty)]);
    }

    #[test]
    fn the_two_hundred_and_first_field_is_left_out() {
        let all: Vec<_> = (0..250).collect();
        let fields = paths(json!({ "n": all }));
        assert_eq!(fields.len(), 200);
        assert_eq!(fields[199], "n.199");
    }
}
