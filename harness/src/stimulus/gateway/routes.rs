//! Paths of API Gateway's resources and routes: `/files/{path}`, `/v1/{proxy+}`.

use serde_json::{Map, Value};

/// The path parameters when `path` fits `template`, `null` when there are none. They are as the client wrote them.
pub(super) fn parameters(template: &str, path: &str) -> Option<Value> {
    let mut rest = path.strip_prefix('/')?;
    let template = template.strip_prefix('/').unwrap_or(template);
    let mut parameters = Map::new();
    let mut segments = template.split('/').peekable();
    while let Some(segment) = segments.next() {
        let name = segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}'));
        let greedy = name.and_then(|name| name.strip_suffix('+'));
        let (value, behind) = match (greedy, segments.peek()) {
            (Some(_), _) => (rest, ""),
            (None, Some(_)) => rest.split_once('/')?,
            (None, None) => (rest.strip_suffix('/').unwrap_or(rest), ""),
        };
        match greedy.or(name) {
            Some(_) if value.is_empty() || (greedy.is_none() && value.contains('/')) => return None,
            Some(name) => {
                parameters.insert(name.into(), value.into());
            }
            None if value != segment => return None,
            None => {}
        }
        rest = behind;
    }
    Some(if parameters.is_empty() { Value::Null } else { parameters.into() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_fits_its_template_or_not_at_all() {
        assert_eq!(parameters("/{proxy+}", "/a/b/"), Some(json!({ "proxy": "a/b/" })));
        assert_eq!(parameters("/files/{path}", "/files/a.txt"), Some(json!({ "path": "a.txt" })));
        assert_eq!(parameters("/v1/{proxy+}", "/v1/a/b"), Some(json!({ "proxy": "a/b" })));
        assert_eq!(parameters("/healthcheck", "/healthcheck"), Some(Value::Null));
        for (template, path) in [
            ("/files/{path}", "/files/a/b"),
            ("/files/{path}", "/files/"),
            ("/files/{path}", "/other/a"),
            ("/v1/{proxy+}", "/v1"),
            ("/{proxy+}", "/"),
            ("/{proxy+}", "relative"),
        ] {
            assert_eq!(parameters(template, path), None, "{template} {path}");
        }
    }
}
