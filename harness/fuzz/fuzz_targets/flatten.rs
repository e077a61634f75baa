//! The field flattener beside the obvious recursion.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tracegate::telemetry::{MAX_FIELDS, Value, flatten};

fuzz_target!(|text: &str| {
    let Ok(json) = serde_json::from_str::<serde_json::Value>(text) else { return };
    let value = Value::from(json);
    for prefix in ["", "body"] {
        let mut expected = Vec::new();
        walk(prefix, &value, &mut expected);
        expected.truncate(MAX_FIELDS);
        let found = flatten(prefix, &value);
        // As text: a double that is no number equals nothing.
        assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    }
});

fn walk(path: &str, value: &Value, fields: &mut Vec<(String, Value)>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Map(entries) => entries.iter().for_each(|(key, value)| walk(&below(key), value, fields)),
        Value::Array(values) => {
            values.iter().enumerate().for_each(|(index, value)| walk(&below(&index.to_string()), value, fields));
        }
        scalar if !path.is_empty() => fields.push((path.to_owned(), scalar.clone())),
        _ => {}
    }
}
