//! Bodies in events: as text, or in base64.

use base64::{Engine, engine::general_purpose::STANDARD};

/// The body as an event's string, and whether that is base64. `text` says whether the gateway takes the body's media type
/// for text; bytes that are no UTF-8 cannot stand in JSON and are encoded whatever it says.
pub(super) fn encode(body: &[u8], text: bool) -> (String, bool) {
    match std::str::from_utf8(body) {
        Ok(body) if text => (body.to_owned(), false),
        _ => (STANDARD.encode(body), true),
    }
}

/// `type/subtype` in lower case, without parameters.
pub(super) fn essence(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a load balancer sends a body of this type as it is: `text/*`, `application/json`, `application/javascript` and
/// `application/xml` ("Use Lambda functions as targets of an Application Load Balancer", respond and receive).
pub(super) fn is_text_for_alb(content_type: &str) -> bool {
    let essence = essence(content_type);
    essence.starts_with("text/")
        || matches!(essence.as_str(), "application/json" | "application/javascript" | "application/xml")
}

/// Whether payload format 2.0 has a body of this type as it is. AWS documents no list; these are the load balancer's, and
/// the structured suffixes. A form (`application/x-www-form-urlencoded`) comes in base64.
pub(super) fn is_text_for_format_2(content_type: &str) -> bool {
    let essence = essence(content_type);
    is_text_for_alb(content_type) || essence.ends_with("+json") || essence.ends_with("+xml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text_and_what_is_none_is_encoded_whatever_its_media_type_says() {
        assert_eq!(encode("é".as_bytes(), true), ("é".to_owned(), false));
        assert_eq!(encode(b"text", false), ("dGV4dA==".to_owned(), true));
        assert_eq!(encode(b"\x89PNG", true), ("iVBORw==".to_owned(), true));
    }

    #[test]
    fn the_documented_media_types_are_text_and_others_are_not() {
        for text in ["text/plain; charset=utf-8", "application/json", "Application/JavaScript", "application/xml"] {
            assert!(is_text_for_alb(text) && is_text_for_format_2(text), "{text}");
        }
        assert!(is_text_for_format_2("application/problem+json") && !is_text_for_alb("application/problem+json"));
        for binary in ["", "image/png", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx"]
        {
            assert!(!is_text_for_alb(binary) && !is_text_for_format_2(binary), "{binary}");
        }
    }
}
