//! Names with one or several values: headers and query parameters.

use serde_json::Value;

use super::super::HttpRequest;

/// Names in order of first appearance, each with its values in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fields(Vec<(String, Vec<String>)>);

impl Fields {
    /// The client's headers and its trace context, without those in `dropped` (lower case). The spelling of a name's
    /// first appearance stays.
    pub(super) fn headers(request: &HttpRequest, dropped: &[&str]) -> Self {
        let mut fields = Self::default();
        for (name, value) in &request.headers {
            if !dropped.contains(&name.to_ascii_lowercase().as_str()) {
                fields.add_header(name, value.clone());
            }
        }
        for (name, value) in request.caller.headers(request.form) {
            fields.add_header(name, value);
        }
        fields
    }

    /// A query's parameters, decoded.
    pub(super) fn decoded_query(query: &str) -> Self {
        let mut fields = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            fields.add(&name, value.into_owned());
        }
        fields
    }

    /// A query's parameters as they were written.
    pub(super) fn raw_query(query: &str) -> Self {
        let mut fields = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            fields.add(name, value.to_owned());
        }
        fields
    }

    fn add(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name.to_owned(), vec![value])),
        }
    }

    fn add_header(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, values)) => values.push(value),
            None => self.0.push((name.to_owned(), vec![value])),
        }
    }

    /// The values of a header, in any case.
    pub(super) fn values(&self, name: &str) -> Option<&[String]> {
        self.0.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, values)| values.as_slice())
    }

    /// Last value of a header.
    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.values(name)?.last().map(String::as_str)
    }

    /// Adds a header that the client did not send.
    pub(super) fn default_to(&mut self, name: &str, value: impl Into<String>) {
        if self.values(name).is_none() {
            self.0.push((name.to_owned(), vec![value.into()]));
        }
    }

    /// Sets a header of which the client is not believed.
    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.0.push((name.to_owned(), vec![value.into()]));
    }

    /// Adds a hop to a header to which each hop adds itself.
    pub(super) fn append_hop(&mut self, name: &str, value: &str) {
        match self.0.iter_mut().find(|(known, _)| known.eq_ignore_ascii_case(name)) {
            Some((_, values)) => *values = vec![format!("{}, {value}", values.join(", "))],
            None => self.0.push((name.to_owned(), vec![value.to_owned()])),
        }
    }

    /// Takes a header out.
    pub(super) fn remove(&mut self, name: &str) -> Option<Vec<String>> {
        let at = self.0.iter().position(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(self.0.remove(at).1)
    }

    /// Sorted without regard to case, as gateways send headers.
    pub(super) fn sorted(mut self) -> Self {
        self.0.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        self
    }

    /// Names in lower case.
    pub(super) fn lower_case(mut self) -> Self {
        self.0.iter_mut().for_each(|(name, _)| name.make_ascii_lowercase());
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `{"name": "last value"}`.
    pub(super) fn last_values(&self) -> Value {
        self.object(|values| values.last().cloned().unwrap_or_default().into())
    }

    /// `{"name": ["first", …, "last"]}`.
    pub(super) fn all_values(&self) -> Value {
        self.object(|values| values.to_vec().into())
    }

    /// `{"name": "first,…,last"}`.
    pub(super) fn joined_values(&self) -> Value {
        self.object(|values| values.join(",").into())
    }

    fn object(&self, of: impl Fn(&[String]) -> Value) -> Value {
        Value::Object(self.0.iter().map(|(name, values)| (name.clone(), of(values))).collect())
    }
}
