//! The HTTP client: one connection for each request, unless a scenario says otherwise, and the target goes out as it was
//! written.
//!
//! Client libraries that work on URLs resolve `..` and `%2e`, follow redirects, obey proxy variables and reuse
//! connections that the service may have closed. A service must be tested with what a scenario says, so this speaks
//! HTTP/1.1 over a socket of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::Mutex};

use super::{HttpRequest, HttpResponse};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The request cannot be written as HTTP/1.1.
    #[error("{method} {target} cannot be sent: {reason}")]
    Malformed {
        /// Method as given.
        method: String,
        /// Target as given.
        target: String,
        /// Which part is wrong.
        reason: String,
    },
    /// Nobody listens at the address.
    #[error("{method} {target}: no connection to {address}: {source}")]
    NoConnection {
        /// Method.
        method: String,
        /// Target.
        target: String,
        /// Where the service should listen.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The connection ended before the answer did.
    #[error("{method} {target}: {address} closed the connection before the answer was complete: {source}")]
    Broken {
        /// Method.
        method: String,
        /// Target.
        target: String,
        /// Where the service listens.
        address: SocketAddr,
        /// What the client saw.
        source: hyper::Error,
    },
    /// No complete answer in time.
    #[error("{method} {target}: no complete answer from {address} within {limit:?}")]
    TimedOut {
        /// Method.
        method: String,
        /// Target.
        target: String,
        /// Where the service listens.
        address: SocketAddr,
        /// The deployment's `request-timeout`.
        limit: Duration,
    },
}

/// A connection that a client keeps between its requests, for as long as the service keeps it too; its requests wait for each other.
/// None is open before the first one.
#[derive(Debug, Clone, Default)]
pub struct Connection(Arc<Mutex<Option<Link>>>);

/// An open connection. It is closed when this is dropped.
#[derive(Debug)]
struct Link {
    sender: http1::SendRequest<Full<Bytes>>,
    /// The connection must be driven while an answer is read, and to see that it is closed.
    _driver: AbortOnDrop<()>,
}

/// Sends a request, with the caller's context and `user_agent` unless it has a `User-Agent` of its own, and reads the
/// answer to its end. `limit` is for all of it.
pub async fn send(
    address: SocketAddr,
    request: &HttpRequest,
    user_agent: &str,
    limit: Duration,
) -> Result<HttpResponse, HttpError> {
    send_over(None, address, request, user_agent, limit).await
}

async fn send_over(
    kept: Option<&Connection>,
    address: SocketAddr,
    request: &HttpRequest,
    user_agent: &str,
    limit: Duration,
) -> Result<HttpResponse, HttpError> {
    let (method, target) = (request.method.clone(), request.target.clone());
    match tokio::time::timeout(limit, exchange(kept, address, request, user_agent)).await {
        Ok(answered) => answered,
        Err(_) => Err(HttpError::TimedOut { method, target, address, limit }),
    }
}

/// The same over a connection that is kept, if any, with what `answered` makes of the moment in which the answer was complete. All
/// of it is a task of its own: who waits here may be kept from running by something else, and that is not the service's time.
pub async fn send_noting<T: Send + 'static>(
    kept: Option<&Connection>,
    address: SocketAddr,
    request: &HttpRequest,
    user_agent: &str,
    limit: Duration,
    answered: impl FnOnce() -> T + Send + 'static,
) -> Result<(HttpResponse, T), HttpError> {
    let (kept, request, user_agent) = (kept.cloned(), request.clone(), user_agent.to_owned());
    let mut task = AbortOnDrop(tokio::spawn(async move {
        let response = send_over(kept.as_ref(), address, &request, &user_agent, limit).await?;
        Ok((response, answered()))
    }));
    match (&mut task.0).await {
        Ok(sent) => sent,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only a runtime that shuts down ends a task that was not aborted, and it drops who waits here as well.
            Err(_) => std::future::pending().await,
        },
    }
}

async fn exchange(
    kept: Option<&Connection>,
    address: SocketAddr,
    request: &HttpRequest,
    user_agent: &str,
) -> Result<HttpResponse, HttpError> {
    let (method, target) = (request.method.clone(), request.target.clone());
    let broken = |source| HttpError::Broken { method: method.clone(), target: target.clone(), address, source };
    let connect = async || {
        let stream = TcpStream::connect(address).await.map_err(|source| HttpError::NoConnection {
            method: method.clone(),
            target: target.clone(),
            address,
            source,
        })?;
        let (sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driver = AbortOnDrop(tokio::spawn(async move {
            let _ = connection.await;
        }));
        Ok(Link { sender, _driver: driver })
    };
    // A malformed request opens no connection.
    let message = message(address, request, user_agent, kept.is_none())?;
    let mut place = match kept {
        Some(Connection(place)) => Some(place.lock().await),
        None => None,
    };
    let mut open = place.as_mut().and_then(|place| place.take());
    if let Some(link) = &mut open
        && link.sender.ready().await.is_err()
    {
        // The service has closed it meanwhile, as is its right (RFC 9112, section 9.5).
        open = None;
    }
    let reused = open.is_some();
    let mut link = match open {
        Some(link) => link,
        None => connect().await?,
    };
    let answer = match link.sender.try_send_request(message).await {
        Ok(answer) => answer,
        Err(mut error) => match error.take_message() {
            // It closed in this moment, and nothing of the request went out.
            Some(unsent) if reused => {
                link = connect().await?;
                link.sender.send_request(unsent).await.map_err(broken)?
            }
            _ => return Err(broken(error.into_error())),
        },
    };
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(broken)?.to_bytes();
    if let Some(place) = &mut place {
        **place = Some(link);
    }
    let headers = head
        .headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    Ok(HttpResponse { status: head.status.as_u16(), headers, body })
}

#[derive(Debug)]
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn message(
    address: SocketAddr,
    request: &HttpRequest,
    user_agent: &str,
    last: bool,
) -> Result<http::Request<Full<Bytes>>, HttpError> {
    let malformed = |reason: String| HttpError::Malformed {
        method: request.method.clone(),
        target: request.target.clone(),
        reason,
    };
    if !request.target.starts_with('/') {
        return Err(malformed("a target begins with `/`".into()));
    }
    if request.target.contains('#') {
        return Err(malformed("a fragment is never sent; write `#` as %23".into()));
    }
    let uri: http::Uri = request.target.parse().map_err(|error| {
        malformed(format!("the target is no path and query ({error}); percent-encode what is not allowed in one"))
    })?;
    let method = http::Method::from_bytes(request.method.as_bytes())
        .map_err(|_| malformed("the method is not a token".into()))?;
    let mut builder = http::Request::builder().method(method).uri(uri);
    let given = |name: &str| request.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    if !given("host") {
        builder = builder.header("Host", address.to_string());
    }
    if !given("user-agent") {
        builder = builder.header("User-Agent", user_agent);
    }
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    for (name, value) in request.caller.headers(request.form) {
        builder = builder.header(name, value);
    }
    if last {
        builder = builder.header("Connection", "close");
    }
    builder.body(Full::new(request.body.clone())).map_err(|error| malformed(format!("a header is not one: {error}")))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::stimulus::{Caller, ContextForm};

    fn request(method: &str, target: &str) -> HttpRequest {
        HttpRequest {
            method: method.into(),
            target: target.into(),
            headers: vec![("Accept".into(), "*/*".into())],
            body: Bytes::new(),
            caller: Caller::fresh(1, true),
            form: ContextForm::Both,
        }
    }

    /// Answers one connection with `answer` and returns what it was sent.
    async fn serve(answer: &'static str) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut received = Vec::new();
            while !received.windows(4).any(|end| end == b"\r\n\r\n") {
                let mut buffer = [0; 1024];
                let count = stream.read(&mut buffer).await.unwrap();
                received.extend_from_slice(&buffer[..count]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(received).unwrap()
        });
        (address, served)
    }

    #[tokio::test]
    async fn the_target_goes_out_as_it_was_written_with_both_context_headers_and_the_mark() {
        let (address, served) = serve("HTTP/1.1 200 OK\r\nX-Answer: a\r\nContent-Length: 2\r\n\r\nok").await;
        let request = request("GET", "/a/../b/%2e%2e/%2Fc//?x=%20+&y=|");
        let response = send(address, &request, "mark/1", Duration::from_secs(20)).await.unwrap();
        let sent = served.await.unwrap();
        assert!(sent.starts_with("GET /a/../b/%2e%2e/%2Fc//?x=%20+&y=| HTTP/1.1\r\n"), "{sent}");
        assert!(sent.contains("user-agent: mark/1\r\n"), "{sent}");
        assert!(sent.contains(&format!("traceparent: {}\r\n", request.caller.traceparent())), "{sent}");
        assert!(sent.contains(&format!("x-amzn-trace-id: {}\r\n", request.caller.xray_header())), "{sent}");
        assert_eq!((response.status, response.header("X-ANSWER")), (200, Some("a")));
        assert_eq!(&response.body[..], b"ok");
    }

    /// Answers each connection with these answers, one for each request, and then closes it or leaves it open. Returns by whichever
    /// request came when: the connection that each came over, and its head.
    async fn serve_many(
        answers: usize,
        closes: bool,
    ) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<(usize, String)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = tokio::sync::mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut open = Vec::new();
            for number in 1.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                for _ in 0..answers {
                    let mut received = Vec::new();
                    while !received.ends_with(b"\r\n\r\n") {
                        let mut buffer = [0; 1024];
                        let count = stream.read(&mut buffer).await.unwrap();
                        received.extend_from_slice(&buffer[..count]);
                    }
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                    tell.send((number, String::from_utf8(received).unwrap())).unwrap();
                }
                if !closes {
                    open.push(stream);
                }
            }
        });
        (address, told)
    }

    async fn over(connection: Option<&Connection>, address: SocketAddr) -> HttpResponse {
        let limit = Duration::from_secs(20);
        send_noting(connection, address, &request("GET", "/"), "m", limit, || ()).await.unwrap().0
    }

    #[tokio::test]
    async fn requests_over_a_kept_connection_share_one_and_others_have_their_own() {
        let (address, mut told) = serve_many(2, false).await;
        let connection = Connection::default();
        for _ in 0..2 {
            assert_eq!(over(Some(&connection), address).await.status, 200);
            let (number, head) = told.recv().await.unwrap();
            assert_eq!(number, 1);
            assert!(!head.contains("connection: close"), "{head}");
        }
        assert_eq!(over(None, address).await.status, 200);
        let (number, head) = told.recv().await.unwrap();
        assert_eq!(number, 2);
        assert!(head.contains("connection: close"), "{head}");
    }

    #[tokio::test]
    async fn where_the_service_closes_a_kept_connection_the_next_request_opens_another() {
        let (address, mut told) = serve_many(1, true).await;
        let connection = Connection::default();
        for expected in 1..=3 {
            assert_eq!(over(Some(&connection), address).await.status, 200);
            assert_eq!(told.recv().await.unwrap().0, expected);
            // That it was closed may be known now, or only once the next request is sent.
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let (address, served) = serve("HTTP/1.1 307 T\r\nLocation: /files/\r\nContent-Length: 0\r\n\r\n").await;
        let response = send(address, &request("GET", "/files"), "m", Duration::from_secs(20)).await.unwrap();
        assert_eq!((response.status, response.header("location")), (307, Some("/files/")));
        served.await.unwrap();
    }

    #[tokio::test]
    async fn an_answer_that_does_not_come_in_time_says_how_long_was_waited_and_for_what() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let error = send(address, &request("GET", "/slow"), "m", Duration::from_millis(30)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("GET /slow: no complete answer from {address} within 30ms"));
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_and_a_port_without_a_listener_are_told_apart() {
        let (address, served) = serve("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
        let error = send(address, &request("GET", "/"), "m", Duration::from_secs(20)).await.unwrap_err();
        assert!(matches!(error, HttpError::Broken { .. }), "{error}");
        served.await.unwrap();
        let error = send(address, &request("GET", "/"), "m", Duration::from_secs(20)).await.unwrap_err();
        assert!(matches!(error, HttpError::NoConnection { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_cannot_be_written_as_a_request_is_refused_with_the_part_that_is_wrong() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        for (request, part) in [
            (request("GET", "files"), "begins with `/`"),
            (request("GET", "/a b"), "percent-encode"),
            (request("GET", "/a#b"), "%23"),
            (request("G T", "/"), "method"),
            (HttpRequest { headers: vec![("a b".into(), "c".into())], ..request("GET", "/") }, "header"),
        ] {
            let error = send(address, &request, "m", Duration::from_secs(20)).await.unwrap_err();
            assert!(matches!(error, HttpError::Malformed { .. }) && error.to_string().contains(part), "{error}");
        }
    }
}
