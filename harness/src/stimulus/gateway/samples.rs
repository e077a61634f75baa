//! Requests and receipts for the tests of every kind.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;

use super::{super::HttpRequest, Receipt};
use crate::stimulus::{Caller, ContextForm};

/// A caller with fixed ids.
pub(super) fn caller() -> Caller {
    Caller {
        trace_id: "0af7651916cd43dd8448eb211c80319c".parse().unwrap(),
        span_id: "b7ad6b7169203331".parse().unwrap(),
        sampled: true,
    }
}

/// A request without headers and body that tells no context.
pub(super) fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> HttpRequest {
    HttpRequest {
        method: method.into(),
        target: target.into(),
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: Bytes::copy_from_slice(body),
        caller: caller(),
        form: ContextForm::Absent,
    }
}

/// A receipt at a time in epoch milliseconds.
pub(super) fn receipt(time: u64, root: &str) -> Receipt {
    Receipt {
        request_id: "2bfe1913-eea8-48de-b643-166b53428586".into(),
        extended_request_id: "fyRnmEIvPHcFmIg=".into(),
        distribution: "ec99de6a8df96b4e008b942ab98e6594".into(),
        edge_request_id: "kQzO9p3DMD3ncxkO4iPqRzen6HhIk8Y-oAUMgnwL06XZ1MLQMkBMWA==".into(),
        time: UNIX_EPOCH + Duration::from_millis(time),
        root: root.parse().unwrap(),
        own: "12456789abcdef0123456789".into(),
    }
}
