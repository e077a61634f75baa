//! Stand-ins for what the service calls: HTTP servers with fixed answers, which note every call with its headers, so
//! that a scenario can see whether the trace was carried on.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use http_body_util::BodyExt as _;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    capture::{Mark, Store},
    config::{Answer, Upstream},
    deployment::SiteError,
};

/// A running stand-in; ends when dropped.
#[derive(Debug)]
pub struct UpstreamServer {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Role {
    name: String,
    upstream: Upstream,
    store: Arc<Store>,
}

impl UpstreamServer {
    /// Starts one on a free loopback port. Calls are noted in `store` as [`Mark::UpstreamCalled`].
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(name: &str, upstream: &Upstream, store: Arc<Store>) -> Result<Self, SiteError> {
        let failed = |error| SiteError::because(format!("the stand-in [upstreams.{name}] cannot listen"), error);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let role = Arc::new(Role { name: name.to_owned(), upstream: upstream.clone(), store });
        let router = Router::new().fallback(answer).with_state(role);
        let serving = tokio::spawn(async move {
            // Accept errors end the server; the service then sees a refused connection, which is what it is.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, serving })
    }

    /// Where it listens on this machine.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for UpstreamServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn answer(State(role): State<Arc<Role>>, request: Request) -> Response {
    let (parts, mut body) = request.into_parts();
    let found = role.upstream.answers.iter().find(|answer| fits(answer, parts.method.as_str(), parts.uri.path()));
    let status = found.map_or(404, |answer| answer.status);
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    role.store.mark(Mark::UpstreamCalled {
        upstream: role.name.clone(),
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
        headers: parts.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
        status,
    });
    // An answer before the end of the body closes the connection under a client that is still sending.
    while let Some(Ok(_)) = body.frame().await {}
    let mut response = Response::builder().status(status);
    for (name, value) in found.iter().flat_map(|answer| &answer.headers) {
        response = response.header(name, value);
    }
    let body = found.map(|answer| answer.body.clone()).unwrap_or_default();
    response.body(Body::from(body)).unwrap_or_else(|error| {
        let mut response = Response::new(Body::from(format!("the configured answer is malformed: {error}")));
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    })
}

fn fits(answer: &Answer, method: &str, path: &str) -> bool {
    let method_fits = answer.method.as_deref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(method));
    let path_fits = match answer.path.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => answer.path == path,
    };
    method_fits && path_fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream() -> Upstream {
        toml::from_str(
            "[[answers]]\nmethod = 'GET'\npath = '/bucket/*'\nbody = 'found'\nheaders = { etag = 'x' }\n\
             [[answers]]\npath = '/down'\nstatus = 503\n",
        )
        .unwrap()
    }

    #[tokio::test]
    async fn the_first_answer_that_fits_is_given_and_the_call_is_noted_with_its_headers() {
        let store = Arc::new(Store::default());
        let server = UpstreamServer::start("s3", &upstream(), store.clone()).await.unwrap();
        let url = format!("http://{}/bucket/a?x=1", server.address());
        let response = reqwest::Client::new().get(url).header("traceparent", "t").send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (200, "found"));
        store.look(|capture| match &capture.lifecycle()[0].mark {
            Mark::UpstreamCalled { upstream, target, headers, .. } => {
                assert_eq!((upstream.as_str(), target.as_str()), ("s3", "/bucket/a?x=1"));
                assert!(headers.contains(&("traceparent".into(), "t".into())));
            }
            other => panic!("{other:?}"),
        });
    }

    #[tokio::test]
    async fn a_body_is_read_to_its_end_before_the_answer() {
        let server = UpstreamServer::start("s3", &upstream(), Arc::new(Store::default())).await.unwrap();
        let client = reqwest::Client::new();
        for _ in 0..3 {
            // More than a socket holds: who answers earlier closes the connection under it.
            let sent = client.put(format!("http://{}/down", server.address())).body(vec![0; 8 << 20]).send().await;
            assert_eq!(sent.unwrap().status().as_u16(), 503);
        }
    }

    #[tokio::test]
    async fn a_request_that_no_answer_fits_is_answered_with_404() {
        let server = UpstreamServer::start("s3", &upstream(), Arc::new(Store::default())).await.unwrap();
        let url = format!("http://{}/other", server.address());
        assert_eq!(reqwest::get(url).await.unwrap().status().as_u16(), 404);
        let url = format!("http://{}/down", server.address());
        assert_eq!(reqwest::get(url).await.unwrap().status().as_u16(), 503);
    }
}
