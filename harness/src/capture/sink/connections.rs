//! Connections: accepted within a bound, cut when they say nothing, reset when a scenario says so.

use std::{
    collections::HashMap,
    fmt, io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use axum::{Router, body::Body, extract::Request};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{Duration, Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::settings::Tls;

/// How long accepting pauses when the system has no descriptor left and nobody can be cut.
const BREATH: Duration = Duration::from_millis(50);

/// One connection, as far as others have to do with it.
#[derive(Debug)]
pub struct Line {
    id: u64,
    /// Who is on it.
    pub peer: SocketAddr,
    /// When it was used last, counted in uses of all lines.
    used: AtomicU64,
    /// Requests under way on it.
    busy: AtomicUsize,
    /// Cancelled once the head of its first request is there, or HTTP/2 was agreed on: gRPC clients connect long before
    /// they call.
    asked: CancellationToken,
    /// Ends it, whatever is under way.
    cut: CancellationToken,
    reset: AtomicBool,
}

impl Line {
    /// Ends the connection with a reset (TCP RST) in the place of whatever was to be said.
    pub fn reset(&self) {
        self.reset.store(true, Ordering::SeqCst);
        self.cut.cancel();
    }
}

/// Who hears of connections that were cut.
pub trait Witness: fmt::Debug + Send + Sync {
    fn note(&self, what: String);
}

/// Every open connection.
#[derive(Debug)]
pub struct Lines {
    most: usize,
    clock: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Line>>>,
}

impl Lines {
    /// At most `most` connections at once.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, clock: AtomicU64::new(0), open: Mutex::default() })
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Line>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection. Where there is none, the connection that has asked for nothing for the longest time is
    /// cut for it, and returned; `None` in the first place when all are busy.
    fn admit(&self, peer: SocketAddr) -> (Option<Arc<Line>>, Option<Arc<Line>>) {
        let mut open = self.lock();
        let cut = if open.len() < self.most { None } else { Self::longest_idle(&open) };
        if let Some(idle) = &cut {
            open.remove(&idle.id);
            idle.reset();
        }
        if open.len() >= self.most {
            return (None, None);
        }
        let id = self.tick();
        let line = Arc::new(Line {
            id,
            peer,
            used: AtomicU64::new(id),
            busy: AtomicUsize::new(0),
            asked: CancellationToken::new(),
            cut: CancellationToken::new(),
            reset: AtomicBool::new(false),
        });
        open.insert(id, line.clone());
        (Some(line), cut)
    }

    fn longest_idle(open: &HashMap<u64, Arc<Line>>) -> Option<Arc<Line>> {
        let idle = open.values().filter(|line| line.busy.load(Ordering::Relaxed) == 0);
        idle.min_by_key(|line| line.used.load(Ordering::Relaxed)).cloned()
    }

    fn cut_one(&self) -> bool {
        let mut open = self.lock();
        let idle = Self::longest_idle(&open);
        if let Some(idle) = &idle {
            open.remove(&idle.id);
            idle.reset();
        }
        idle.is_some()
    }
}

/// What serves connections.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// Answers requests; finds the [`Line`] among a request's extensions.
    pub router: Router,
    /// Those that are open.
    pub lines: Arc<Lines>,
    /// Who hears of what went wrong.
    pub witness: Arc<dyn Witness>,
    /// How long a connection has to bring its first request, handshake included.
    pub first_request: Duration,
    /// Present when connections are encrypted.
    pub tls: Option<Tls>,
    /// No new connection, and what is under way is finished.
    pub stop: CancellationToken,
    /// Everything ends at once.
    pub abort: CancellationToken,
}

impl Exchange {
    /// Accepts until it is stopped, then waits for what is under way.
    pub async fn run(self, listener: TcpListener) {
        let mut tasks = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.abort.cancelled() => break,
                () = self.stop.cancelled() => break,
                accepted = listener.accept() => accepted,
            };
            while tasks.try_join_next().is_some() {}
            match accepted {
                Ok((stream, peer)) => {
                    let (line, cut) = self.lines.admit(peer);
                    if let Some(cut) = cut {
                        self.witness.note(format!(
                            "cut the connection of {}, the one that was idle for the longest time: {} are open",
                            cut.peer, self.lines.most
                        ));
                    }
                    match line {
                        Some(line) => drop(tasks.spawn(self.clone().serve(stream, line))),
                        None => self.witness.note(format!(
                            "closed a new connection of {peer}: {} are open and all of them busy",
                            self.lines.most
                        )),
                    }
                }
                Err(error) if is_the_peers(&error) => {}
                Err(error) => {
                    // Out of descriptors, mostly: one that says nothing has to go, or it has to wait.
                    if self.lines.cut_one() {
                        self.witness.note(format!("cut an idle connection: accepting failed with {error}"));
                    }
                    let _ = timeout(BREATH, self.abort.cancelled()).await;
                }
            }
        }
        drop(listener);
        while tasks.join_next().await.is_some() {}
    }

    async fn serve(self, stream: TcpStream, line: Arc<Line>) {
        let deadline = Instant::now() + self.first_request;
        // Without it, an answer in two segments waits for the exporter's delayed acknowledgement.
        drop(stream.set_nodelay(true));
        let wire = Wire { stream, line: line.clone() };
        match &self.tls {
            None => self.talk(wire, &line, deadline).await,
            Some(Tls(acceptor)) => {
                let shaken = tokio::select! {
                    () = line.cut.cancelled() => None,
                    () = self.abort.cancelled() => None,
                    shaken = timeout_at(deadline, acceptor.accept(wire)) => Some(shaken),
                };
                match shaken {
                    Some(Ok(Ok(wire))) => self.talk(wire, &line, deadline).await,
                    Some(Ok(Err(error))) => {
                        self.witness.note(format!("refused {}: its TLS handshake failed: {error}", line.peer));
                    }
                    Some(Err(_)) => self.too_slow(&line),
                    None => {}
                }
            }
        }
        self.lines.lock().remove(&line.id);
    }

    async fn talk<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        wire: I,
        line: &Arc<Line>,
        deadline: Instant,
    ) {
        let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            line.asked.cancel();
            line.busy.fetch_add(1, Ordering::Relaxed);
            let done = Done(line.clone(), self.lines.clone());
            let router = self.router.clone();
            let mut request: Request = request.map(Body::new);
            request.extensions_mut().insert(line.clone());
            async move {
                let response = router.oneshot(request).await;
                drop(done);
                response
            }
        });
        let builder = auto::Builder::new(TokioExecutor::new());
        let mut connection = pin!(builder.serve_connection(TokioIo::new(Greeting::new(wire, line.clone())), service));
        let mut asked = false;
        let mut stopping = false;
        loop {
            tokio::select! {
                biased;
                () = line.cut.cancelled() => return,
                () = self.abort.cancelled() => {
                    line.reset.store(true, Ordering::SeqCst);
                    return;
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                // How a connection ends is its exporter's business; what it was answered stands in the store. Before the
                // deadline, so that a machine that stalled reads what had come in time.
                _ = connection.as_mut() => return,
                first = timeout_at(deadline, line.asked.cancelled()), if !asked => match first {
                    Ok(()) => asked = true,
                    Err(_) => return self.too_slow(line),
                },
            }
        }
    }

    fn too_slow(&self, line: &Line) {
        self.witness.note(format!(
            "closed the connection of {}: it brought no request within {:?}",
            line.peer, self.first_request
        ));
    }
}

/// Counts a request as done, also when nobody waits for its answer any more.
struct Done(Arc<Line>, Arc<Lines>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.used.store(self.1.tick(), Ordering::Relaxed);
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Errors of `accept` that are about the connection and not about this machine.
fn is_the_peers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}

/// A connection's socket, which is closed by a reset when its line says so.
struct Wire {
    stream: TcpStream,
    line: Arc<Line>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.line.reset.load(Ordering::SeqCst) {
            drop(self.stream.set_zero_linger());
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

/// The first bytes of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Watches a connection's first bytes for those of HTTP/2.
struct Greeting<I> {
    wire: I,
    line: Arc<Line>,
    /// How much of [`PREFACE`] came; `None` once something else did, or all of it.
    greeted: Option<usize>,
}

impl<I> Greeting<I> {
    fn new(wire: I, line: Arc<Line>) -> Self {
        Self { wire, line, greeted: Some(0) }
    }

    fn read(&mut self, bytes: &[u8]) {
        let Some(greeted) = self.greeted else { return };
        let expected = &PREFACE[greeted..];
        let length = bytes.len().min(expected.len());
        self.greeted = (bytes[..length] == expected[..length]).then_some(greeted + length);
        if self.greeted == Some(PREFACE.len()) {
            self.greeted = None;
            self.line.asked.cancel();
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Greeting<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.wire).poll_read(cx, buf);
        self.read(&buf.filled()[before..]);
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Greeting<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }
}
