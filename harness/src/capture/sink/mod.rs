//! The sink: an OTLP receiver whose one port takes gRPC and HTTP, protobuf and JSON, plain, gzip and zstd.
//!
//! A request is answered only after its [`Receiver`] has it. "The exporter's call returned" therefore means "it is in
//! the store", and that is what every proof of completeness rests on.

mod answer;
mod body;
pub mod decode;
mod grpc;
mod http;
mod json;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    serve::ListenerExt,
};
use bytes::Bytes;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Decoded, Encoding, ExportRequest, Signal, Store, Transport, listen};
use crate::telemetry::Arrival;

pub use answer::RpcStatus;

/// Most bytes of a body, as sent and after decompression.
pub const BODY_LIMIT: usize = 64 << 20;

/// `GET` of this path answers 200 as soon as the sink takes requests.
pub const HEALTH: &str = "/tracegate/health";

/// Who gets what a sink takes in.
pub trait Receiver: fmt::Debug + Send + Sync + 'static {
    /// An export request that was decoded. The exporter is answered once this returns.
    fn export(&self, request: ExportRequest, decoded: Decoded, faults: Vec<String>);

    /// A request that could not be decoded at all.
    fn fault(&self, signal: Signal, reason: String);
}

impl Receiver for Store {
    fn export(&self, request: ExportRequest, decoded: Decoded, faults: Vec<String>) {
        self.add_export(request, decoded, faults);
    }

    fn fault(&self, signal: Signal, reason: String) {
        self.add_fault(signal, reason);
    }
}

/// A running OTLP receiver. Dropping it stops it: it takes no new connection, and what it is answering it finishes.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    stop: CancellationToken,
    served: Option<JoinHandle<()>>,
}

impl Sink {
    /// Starts on a free port of this machine's loopback.
    pub async fn start(store: Arc<Store>) -> io::Result<Self> {
        Self::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), store).await
    }

    /// Starts at `address`; port 0 takes a free one. The error is that of binding.
    pub async fn bind<R: Receiver>(address: SocketAddr, receiver: Arc<R>) -> io::Result<Self> {
        Self::serve(listen(address)?, receiver, BODY_LIMIT)
    }

    fn serve<R: Receiver>(listener: TcpListener, receiver: Arc<R>, limit: usize) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let router = Router::new().fallback(dispatch).with_state(Inbox { receiver, limit });
        // Without it, an answer in two segments waits for the exporter's delayed acknowledgement.
        let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
        let stopped = stop.clone().cancelled_owned();
        let served = tokio::spawn(async move {
            // `axum::serve` retries failed accepts by itself and never returns an error.
            drop(axum::serve(listener, router).with_graceful_shutdown(stopped).await);
        });
        Ok(Self { address, stop, served: Some(served) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it and waits until every request that it had begun is answered.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if let Some(served) = self.served.take() {
            drop(served.await);
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Where requests go, and how large they may be.
#[derive(Debug, Clone)]
struct Inbox {
    receiver: Arc<dyn Receiver>,
    limit: usize,
}

impl Inbox {
    /// Decodes and stores; the answer's body. The error says why the body cannot be read, and was recorded.
    fn take(
        &self,
        signal: Signal,
        transport: Transport,
        encoding: Encoding,
        user_agent: String,
        body: Bytes,
    ) -> Result<Bytes, String> {
        match decode::decode(signal, encoding, &body) {
            Ok(contents) => {
                let answer = answer::accepted(signal, encoding, &contents);
                let request =
                    ExportRequest { signal, transport, encoding, user_agent, body, arrival: Arrival::default() };
                self.receiver.export(request, contents.decoded, contents.faults);
                Ok(answer)
            }
            Err(reason) => {
                let kind = match encoding {
                    Encoding::Protobuf => "protobuf",
                    Encoding::Json => "JSON",
                };
                Err(self.refuse(signal, format!("the {signal} request does not decode as {kind}: {reason}")))
            }
        }
    }

    /// Records why a request was refused.
    fn refuse(&self, signal: Signal, reason: String) -> String {
        self.receiver.fault(signal, reason.clone());
        reason
    }
}

fn user_agent(headers: &::http::HeaderMap) -> String {
    headers
        .get(::http::header::USER_AGENT)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default()
}

async fn dispatch(State(inbox): State<Inbox>, request: Request) -> Response {
    let content_type = request.headers().get(::http::header::CONTENT_TYPE).map_or(&[][..], |value| value.as_bytes());
    if content_type.starts_with(b"application/grpc") {
        grpc::serve(&inbox, request).await
    } else if request.uri().path() == HEALTH {
        "ok\n".into_response()
    } else {
        http::serve(&inbox, request).await
    }
}
