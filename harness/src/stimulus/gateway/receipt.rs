//! What a gateway makes up for each request.

use std::time::SystemTime;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::telemetry::TraceId;

/// What API Gateway, CloudFront and load balancers make up for each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// `requestContext.requestId` of a REST API and a function URL, a UUID.
    pub request_id: String,
    /// `requestContext.extendedRequestId` of a REST API, `requestId` of an HTTP API.
    pub extended_request_id: String,
    /// Host part of `Via`, without `.cloudfront.net`.
    pub distribution: String,
    /// `X-Amz-Cf-Id`.
    pub edge_request_id: String,
    /// When the request came in.
    pub time: SystemTime,
    /// Root of the `X-Amzn-Trace-Id` that is added when the client sent none.
    pub root: TraceId,
    /// The load balancer's own id in `Self` when the client's header has a root: 24 hexadecimal digits.
    pub own: String,
}

impl Receipt {
    /// New ids, now; `root` is for a request without `X-Amzn-Trace-Id`.
    pub fn fresh(root: TraceId) -> Self {
        let bytes = |count: usize| (0..count).map(|_| rand::random::<u8>()).collect::<Vec<_>>();
        Self {
            request_id: uuid::Uuid::new_v4().to_string(),
            extended_request_id: STANDARD.encode(bytes(11)),
            distribution: hex::encode(bytes(16)),
            edge_request_id: STANDARD.encode(bytes(40)),
            time: SystemTime::now(),
            root,
            own: hex::encode(bytes(12)),
        }
    }

    /// `Root=1-8 digits-24 digits`.
    pub(super) fn xray_root(&self) -> String {
        let root = self.root.to_string();
        format!("Root=1-{}-{}", &root[..8], &root[8..])
    }

    /// The time as API Gateway writes it, `04/Feb/2023:23:18:08 +0000`, and in epoch milliseconds.
    pub(super) fn request_time(&self) -> (String, i64) {
        let time = jiff::Timestamp::try_from(self.time).unwrap_or_default();
        (time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string(), time.as_millisecond())
    }
}
