//! The sink: an OTLP receiver whose one port takes gRPC and HTTP, protobuf and JSON, plain, gzip and zstd.
//!
//! A request is answered only after its [`Receiver`] has it. "The exporter's call returned" therefore means "it is in
//! the store", and that is what every proof of completeness rests on. What it does to bad senders, and what it does wrong
//! when a scenario asks for it, is in `docs/sink.md`.

mod answer;
pub mod behaviour;
mod body;
mod connections;
mod grpc;
mod http;
pub(super) mod json;
pub(super) mod profiles;
pub mod settings;
pub(super) mod to_json;
pub(super) mod weight;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{Ipv4Addr, Shutdown, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, PoisonError},
};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::future::pending;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Mutex, Semaphore},
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use self::{
    answer::Refusal,
    behaviour::{Act, Behaviour, Incident, Item},
    body::{BodyError, Held, Share},
    connections::{Exchange, Line, Lines, Witness},
};
use super::{
    Encoding, ExportRequest, Mark, Signal, Store, Transport,
    index::{self, Contents, Index, Unreadable},
    listen,
};
use crate::telemetry::Arrival;

pub use settings::Settings;

/// Most bytes of a body, as sent and after decompression.
pub const BODY_LIMIT: usize = 64 << 20;

/// `GET` of this path answers 200 as soon as the sink takes requests.
pub const HEALTH: &str = "/tracegate/health";

/// Free ports that are tried, should others take them in the moment in which they are found.
const TRIED_AT_MOST: usize = 16;

/// Wrong paths that are told of.
const NOWHERE_AT_MOST: usize = 16;

/// Plain bodies up to this many bytes are walked over where they came in; larger and compressed ones do not hold up the
/// others.
const WALKED_AT_ONCE: usize = 256 << 10;

/// The same of JSON, which has to be decoded.
const DECODED_AT_ONCE: usize = 64 << 10;

/// Who gets what a sink takes in.
pub trait Receiver: fmt::Debug + Send + Sync + 'static {
    /// An export request with the index of what it holds; nothing of it is decoded yet. The exporter is answered once this
    /// returns.
    fn export(&self, request: ExportRequest, index: Index, faults: Vec<String>);

    /// A request that could not be decoded at all.
    fn fault(&self, signal: Signal, reason: String);

    /// What the sink did besides: to a request because a scenario said so, to a connection because it had to. Returns when
    /// that was, among everything that is captured.
    fn note(&self, what: String) -> Arrival;

    /// An exporter sent telemetry where none is taken.
    fn astray(&self, what: String) {
        self.note(what);
    }

    /// Something that is not captured has changed, and who waits may want to look again.
    fn wake(&self) {}
}

impl Receiver for Store {
    fn export(&self, request: ExportRequest, index: Index, faults: Vec<String>) {
        self.add_export(request, index, faults);
    }

    fn fault(&self, signal: Signal, reason: String) {
        self.add_fault(signal, reason);
    }

    fn note(&self, what: String) -> Arrival {
        self.mark(Mark::Sink { what })
    }

    fn astray(&self, what: String) {
        self.mark(Mark::Astray { what });
    }

    fn wake(&self) {
        Self::wake(self);
    }
}

/// A running OTLP receiver. Dropping it stops it: it takes no new connection, and what it is answering it finishes.
#[derive(Debug)]
pub struct Sink {
    address: SocketAddr,
    inbox: Inbox,
    /// Cancelled when the sink is dropped.
    stop: CancellationToken,
    door: Mutex<Door>,
}

#[derive(Debug)]
enum Door {
    Open {
        abort: CancellationToken,
        served: JoinHandle<()>,
        /// The listening socket once more, so that it outlives who listens.
        socket: Option<OwnedFd>,
    },
    /// Nobody listens; the port is kept from others.
    Shut(TcpSocket),
}

impl Sink {
    /// Starts on a free port of this machine's loopback.
    pub async fn start(store: Arc<Store>) -> io::Result<Self> {
        Self::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), store, Settings::default()).await
    }

    /// Starts at `address`; port 0 takes a free one. The error is that of binding.
    pub async fn bind<R: Receiver>(address: SocketAddr, receiver: Arc<R>, settings: Settings) -> io::Result<Self> {
        let listener = listen_for_good(address)?;
        let address = listener.local_addr()?;
        let inbox = Inbox {
            receiver,
            behaviour: Arc::default(),
            held: Held::new(settings.held_limit),
            openers: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(2, usize::from))),
            lines: Lines::new(settings.connections),
            settings: Arc::new(settings),
            nowhere: Arc::default(),
        };
        let stop = CancellationToken::new();
        let door = inbox.open(listener, &stop)?;
        Ok(Self { address, inbox, stop, door: Mutex::new(door) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does wrong on purpose.
    pub fn behaviour(&self) -> &Arc<Behaviour> {
        &self.inbox.behaviour
    }

    /// Goes away as a process that is killed does: connections are reset, and new ones refused. It keeps its port.
    /// Nothing happens when it is away already.
    pub async fn go_away(&self) -> io::Result<()> {
        let mut door = self.door.lock().await;
        let Door::Open { abort, served, socket } = &mut *door else { return Ok(()) };
        abort.cancel();
        drop(served.await);
        let kept = stop_listening(socket.take(), self.address)?;
        // From now on nobody can listen there: of two sockets that allow it either could, and container engines look for free
        // ports that way.
        kept.set_reuseaddr(false)?;
        *door = Door::Shut(kept);
        self.inbox.receiver.note("the collector went away".into());
        Ok(())
    }

    /// Listens again, at the same address. Nothing happens when it is there.
    pub async fn come_back(&self) -> io::Result<()> {
        let mut door = self.door.lock().await;
        if matches!(*door, Door::Open { .. }) {
            return Ok(());
        }
        // First of all, so that nothing can arrive before it.
        self.inbox.receiver.note("the collector came back".into());
        let listener = {
            let Door::Shut(kept) = std::mem::replace(&mut *door, Door::Shut(TcpSocket::new_v4()?)) else {
                return Ok(());
            };
            kept.set_reuseaddr(true)?;
            kept.listen(super::BACKLOG)?
        };
        *door = self.inbox.open(listener, &self.stop)?;
        Ok(())
    }

    #[cfg(test)]
    async fn listening_socket(&self) -> Option<OwnedFd> {
        match &*self.door.lock().await {
            Door::Open { socket, .. } => socket.as_ref()?.try_clone().ok(),
            Door::Shut(_) => None,
        }
    }

    /// Stops it and waits until every request that it had begun is answered.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Door::Open { served, socket, .. } = &mut *self.door.lock().await {
            drop(socket.take());
            drop(served.await);
        }
    }
}

/// Listens at `address`; port 0 takes a free one, which is then bound by its number: one that the system chose itself it gives
/// back when a socket stops listening (Linux, `tcp_set_state`).
fn listen_for_good(address: SocketAddr) -> io::Result<TcpListener> {
    if address.port() != 0 {
        return listen(address);
    }
    let mut tried = 0;
    loop {
        let free = super::socket(address)?.local_addr()?;
        match listen(free) {
            // Somebody else took it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tried < TRIED_AT_MOST => tried += 1,
            listening => return listening,
        }
    }
}

/// The same socket, bound to its port still and deaf. Nobody can take the port meanwhile, as they could between a close and
/// a bind, nor does a child of this process that has not come to its `exec` keep it open.
fn stop_listening(listener: Option<OwnedFd>, address: SocketAddr) -> io::Result<TcpSocket> {
    let deaf = listener.map(std::net::TcpStream::from).filter(|listener| listener.shutdown(Shutdown::Both).is_ok());
    // Not everywhere can a listening socket be shut down.
    deaf.map_or_else(|| super::socket(address), |socket| Ok(TcpSocket::from_std_stream(socket)))
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Where requests go, and within what bounds.
#[derive(Debug, Clone)]
struct Inbox {
    receiver: Arc<dyn Receiver>,
    behaviour: Arc<Behaviour>,
    held: Arc<Held>,
    /// Bodies that are decompressed and decoded at the same time: as many as there are processors.
    openers: Arc<Semaphore>,
    lines: Arc<Lines>,
    settings: Arc<Settings>,
    /// What was told of requests to paths that are none of OTLP's, so that each is told once.
    nowhere: Arc<std::sync::Mutex<BTreeSet<String>>>,
}

impl Witness for Inbox {
    fn note(&self, what: String) {
        self.receiver.note(what);
    }
}

/// Everything about an export request but its body.
#[derive(Debug, Clone)]
struct Incoming {
    signal: Signal,
    transport: Transport,
    encoding: Encoding,
    /// `content-encoding` or, for a compressed message, `grpc-encoding`; empty for none.
    compression: String,
    user_agent: String,
    line: Option<Arc<Line>>,
}

impl Incoming {
    /// `the traces call` over gRPC, `the traces request` over HTTP.
    fn named(&self) -> String {
        match self.transport {
            Transport::Grpc => format!("the {} call", self.signal),
            Transport::Http | Transport::File => format!("the {} request", self.signal),
        }
    }

    /// Who sent it, for a note.
    fn sender(&self) -> String {
        let peer = self.line.as_ref().map_or_else(String::new, |line| format!(" at {}", line.peer));
        format!("{}{peer} over {}", exporter(&self.user_agent), self.transport)
    }
}

impl Inbox {
    fn open(&self, listener: TcpListener, stop: &CancellationToken) -> io::Result<Door> {
        let socket = Some(listener.as_fd().try_clone_to_owned()?);
        let abort = CancellationToken::new();
        let exchange = Exchange {
            router: self
                .settings
                .layered(Router::new().fallback(dispatch).with_state(self.clone()))
                .merge(self.settings.beside.clone()),
            lines: self.lines.clone(),
            witness: Arc::new(self.clone()),
            first_request: self.settings.first_request,
            tls: self.settings.tls.clone(),
            stop: stop.clone(),
            abort: abort.clone(),
        };
        Ok(Door::Open { abort, served: tokio::spawn(exchange.run(listener)), socket })
    }

    /// Checks a body and stores it; the answer's body. Why it is refused was recorded.
    async fn take(&self, incoming: Incoming, sent: Bytes, share: Share) -> Result<Bytes, Refusal> {
        let plain = matches!(incoming.compression.as_str(), "" | "identity");
        let at_once = match incoming.encoding {
            Encoding::Protobuf => WALKED_AT_ONCE,
            Encoding::Json => DECODED_AT_ONCE,
        };
        let opened = if plain && sent.len() <= at_once {
            unpack(&incoming, sent, self.settings.body_limit)
        } else {
            // Neither is ever closed: the semaphore lives as long as the inbox, and blocking tasks do not panic.
            let _permit = self.openers.acquire().await;
            let limit = self.settings.body_limit;
            let of = incoming.clone();
            let opened = tokio::task::spawn_blocking(move || unpack(&of, sent, limit)).await;
            opened.unwrap_or_else(|error| Err(Refusal::bad_data(format!("{}: {error}", incoming.named()))))
        };
        drop(share);
        let (body, contents) = opened.map_err(|refusal| self.recorded(incoming.signal, refusal))?;
        match self.behaviour.next(incoming.signal, Instant::now()) {
            None => Ok(self.store(&incoming, body, contents)),
            Some(decision) => self.misbehave(decision, incoming, body, contents).await,
        }
    }

    fn store(&self, incoming: &Incoming, body: Bytes, contents: Contents) -> Bytes {
        let &Incoming { signal, transport, encoding, .. } = incoming;
        let answer = answer::accepted(signal, encoding, &contents.faults, contents.rejected);
        let user_agent = incoming.user_agent.clone();
        let request = ExportRequest { signal, transport, encoding, user_agent, body, arrival: Arrival::default() };
        self.receiver.export(request, contents.index, contents.faults);
        answer
    }

    async fn misbehave(
        &self,
        decision: behaviour::Decision,
        incoming: Incoming,
        body: Bytes,
        contents: Contents,
    ) -> Result<Bytes, Refusal> {
        let act = decision.act;
        let items = if act.is_final() { Item::all(&contents.index.decode()) } else { Default::default() };
        let happened = || {
            let arrival =
                self.receiver.note(format!("a {} request of {} was {act}", incoming.signal, incoming.sender()));
            self.behaviour.happened(Incident { arrival, signal: incoming.signal, act, items });
            // The note woke who waits before there was an incident to see.
            self.receiver.wake();
        };
        match act {
            Act::Refuse { .. } => {
                happened();
                let unexpected = || Refusal::new(::http::StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "");
                Err(act.refusal().unwrap_or_else(unexpected))
            }
            Act::Partial => {
                let answer = answer::accepted(
                    incoming.signal,
                    incoming.encoding,
                    &["one item is called rejected on purpose, as the scenario says".to_owned()],
                    1,
                );
                self.store(&incoming, body, contents);
                // Behind it, so that what came with it is not what is sent again.
                happened();
                Ok(answer)
            }
            Act::Slow(by) => {
                happened();
                let _ = timeout(by, pending::<()>()).await;
                Ok(self.store(&incoming, body, contents))
            }
            Act::Hang => {
                happened();
                match decision.until {
                    Some(end) => drop(timeout_at(end, pending::<()>()).await),
                    None => pending().await,
                }
                Ok(self.store(&incoming, body, contents))
            }
            Act::Reset => {
                happened();
                if let Some(line) = &incoming.line {
                    line.reset();
                }
                pending().await
            }
        }
    }

    /// Notes a request to a path that is none of OTLP's, once: an endpoint with a path too many or too few is a frequent reason
    /// for telemetry that is not there. `is_export` where it can only have been meant for a collector.
    fn nowhere(&self, why: &str, user_agent: &str, is_export: bool) {
        let what = format!("refused {}: {why}", exporter(user_agent));
        let mut told = self.nowhere.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() < NOWHERE_AT_MOST && told.insert(what.clone()) {
            drop(told);
            if is_export {
                self.receiver.astray(what);
            } else {
                self.receiver.note(what);
            }
        }
    }

    /// Records why a request is refused.
    fn recorded(&self, signal: Signal, refusal: Refusal) -> Refusal {
        self.receiver.fault(signal, refusal.message.clone());
        refusal
    }

    /// Records why a body could not be read to its end. One that broke off is no fault: its exporter was ended or gave up, or
    /// this sink went away because a scenario said so. What is missing then is for others to say.
    fn unread(&self, incoming: &Incoming, error: &BodyError) -> Refusal {
        let refusal = Refusal::of_body(error, format!("{}: {error}", incoming.named()));
        if matches!(error, BodyError::Interrupted(_)) {
            self.receiver.note(refusal.message.clone());
            return refusal;
        }
        self.recorded(incoming.signal, refusal)
    }

    /// Which of the required headers a request lacks.
    fn missing_header(&self, headers: &::http::HeaderMap) -> Option<Refusal> {
        let missing = self.settings.required_headers.iter().find(|(name, value)| headers.get(name) != Some(value))?;
        let problem =
            if headers.contains_key(&missing.0) { "has another value than the required one" } else { "is required" };
        let message = format!("the header {} {problem}", missing.0);
        Some(Refusal::new(::http::StatusCode::UNAUTHORIZED, Code::Unauthenticated, message))
    }
}

/// What an exporter is called, by its `User-Agent`.
fn exporter(user_agent: &str) -> &str {
    if user_agent.is_empty() { "an exporter without a name" } else { user_agent }
}

/// Undoes compression and encoding.
fn unpack(incoming: &Incoming, sent: Bytes, limit: usize) -> Result<(Bytes, Contents), Refusal> {
    let named = incoming.named();
    let body = body::decompress(&incoming.compression, sent, limit)
        .map_err(|error: BodyError| Refusal::of_body(&error, format!("{named}: {error}")))?;
    let kind = match incoming.encoding {
        Encoding::Protobuf => "protobuf",
        Encoding::Json => "JSON",
    };
    let contents = index::index(incoming.signal, incoming.encoding, &body).map_err(|unreadable| match unreadable {
        Unreadable::Malformed(reason) => Refusal::bad_data(format!("{named} does not decode as {kind}: {reason}")),
        Unreadable::Heavy => {
            let message = format!("{named} would take more than {} bytes once it is decoded", index::HEAVIEST);
            Refusal::new(::http::StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, message)
        }
    })?;
    Ok((body, contents))
}

fn user_agent(headers: &::http::HeaderMap) -> String {
    header(headers, ::http::header::USER_AGENT.as_str())
}

/// A header as text, empty when it is missing.
fn header(headers: &::http::HeaderMap, name: &str) -> String {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

/// Who sent a request that came in at a sink.
pub(super) fn peer(request: &Request) -> Option<SocketAddr> {
    request.extensions().get::<Arc<Line>>().map(|line| line.peer)
}

async fn dispatch(State(inbox): State<Inbox>, request: Request) -> Response {
    let content_type = header(request.headers(), ::http::header::CONTENT_TYPE.as_str());
    if grpc::is_grpc(&content_type) {
        grpc::serve(&inbox, request).await
    } else if request.uri().path() == HEALTH {
        "ok\n".into_response()
    } else {
        http::serve(&inbox, request).await
    }
}
