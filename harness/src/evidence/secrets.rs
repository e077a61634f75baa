//! Keeping what a scenario calls secret out of what is written about its requests.

use serde_json::Value;

/// Replaces every secret in every text of `value` by `[secret N]`, counted from 1.
pub fn mask(value: &mut Value, secrets: &[String]) {
    // The longest first, so that one that holds another is replaced as a whole.
    let mut order: Vec<(usize, &String)> =
        secrets.iter().enumerate().filter(|(_, secret)| !secret.is_empty()).collect();
    order.sort_by_key(|(_, secret)| std::cmp::Reverse(secret.len()));
    texts(value, &|text| {
        order.iter().fold(text, |text, (at, secret)| text.replace(secret.as_str(), &placeholder(*at)))
    });
}

/// The same for one text.
pub fn mask_text(text: String, secrets: &[String]) -> String {
    let mut value = Value::String(text);
    mask(&mut value, secrets);
    value.as_str().unwrap_or_default().to_owned()
}

/// Puts the secrets back.
pub fn unmask(value: &mut Value, secrets: &[String]) {
    texts(value, &|text| {
        secrets.iter().enumerate().fold(text, |text, (at, secret)| text.replace(&placeholder(at), secret))
    });
}

fn placeholder(at: usize) -> String {
    format!("[secret {}]", at + 1)
}

fn texts(value: &mut Value, change: &impl Fn(String) -> String) {
    match value {
        Value::String(text) => *text = change(std::mem::take(text)),
        Value::Array(values) => values.iter_mut().for_each(|value| texts(value, change)),
        Value::Object(entries) => entries.values_mut().for_each(|value| texts(value, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_replaced_wherever_a_text_holds_them_and_come_back_as_they_were() {
        let secrets = ["canary".to_owned(), "canary-of-two".to_owned(), String::new()];
        let sent =
            json!({"target": "/a?k=canary", "headers": [["Authorization", "Bearer canary-of-two"]], "status": 200});
        let mut masked = sent.clone();
        mask(&mut masked, &secrets);
        assert_eq!(
            masked,
            json!({"target": "/a?k=[secret 1]", "headers": [["Authorization", "Bearer [secret 2]"]], "status": 200})
        );
        unmask(&mut masked, &secrets);
        assert_eq!(masked, sent);
    }
}
