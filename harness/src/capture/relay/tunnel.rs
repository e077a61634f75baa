//! The side of the test process.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncWriteExt, BufReader, copy_bidirectional},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use super::{GREETING, halves, in_time, line};
use crate::capture::token::same;

/// Connections that are kept ready; what comes beyond them waits for one round trip.
const IDLE: usize = 16;

/// Connections that fail one after the other before the neighbour is given up: one may be reset, or be late on a busy machine.
const FAILURES: usize = 2 * IDLE;

/// Which server of this process is behind which relay port. Clones are the same table, and it may grow while a tunnel
/// is open.
#[derive(Debug, Clone, Default)]
pub struct Routes(Arc<Mutex<BTreeMap<u16, SocketAddr>>>);

impl Routes {
    /// The port in `ports` that leads to `server`: the one that it has, or the first that is free; `None` when all are
    /// taken.
    pub fn assign(&self, server: SocketAddr, ports: impl IntoIterator<Item = u16>) -> Option<u16> {
        let mut routes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((&port, _)) = routes.iter().find(|(_, known)| **known == server) {
            return Some(port);
        }
        let port = ports.into_iter().find(|port| !routes.contains_key(port))?;
        routes.insert(port, server);
        Some(port)
    }

    fn get(&self, port: u16) -> Option<SocketAddr> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&port).copied()
    }
}

impl From<BTreeMap<u16, SocketAddr>> for Routes {
    fn from(routes: BTreeMap<u16, SocketAddr>) -> Self {
        Self(Arc::new(Mutex::new(routes)))
    }
}

/// The test process's end of a relay. Dropping it closes every connection.
#[derive(Debug)]
pub struct Tunnel {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    control: SocketAddr,
    token: String,
    routes: Routes,
    pub(super) stop: CancellationToken,
    lost: Mutex<Option<String>>,
    /// Connections that have failed since one was taken.
    failed: AtomicUsize,
}

impl Tunnel {
    /// Connects to a neighbour's control port. `routes` says which server is behind which relay port.
    ///
    /// Fails when the neighbour cannot be reached, does not answer within 10 s or does not know the token.
    pub async fn open(control: SocketAddr, token: &str, routes: impl Into<Routes>) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let (token, routes) = (token.to_owned(), routes.into());
        let (lost, failed) = (Mutex::default(), AtomicUsize::new(0));
        let shared = Arc::new(Shared { control, token, routes, stop, lost, failed });
        let first = shared.connect().await?;
        tokio::spawn(keep_ready(shared.clone(), first));
        Ok(Self { shared })
    }

    /// Why the neighbour is out of reach, if it is: what is exported there no longer arrives here.
    pub fn lost(&self) -> Option<String> {
        self.shared.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

impl Shared {
    /// A connection that waits for something to carry.
    async fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        in_time(async {
            let stream = TcpStream::connect(self.control).await?;
            stream.set_nodelay(true)?;
            let mut tunnel = BufReader::new(stream);
            let (ours, theirs) = halves(&self.token);
            tunnel.get_mut().write_all(format!("{GREETING} {ours}\n").as_bytes()).await?;
            match line(&mut tunnel).await?.as_str() {
                answer if answer.strip_prefix("ready ").is_some_and(|given| same(given, theirs)) => Ok(tunnel),
                answer if answer.starts_with("ready") => Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!(
                        "what listens at {} does not know the token: it is not the relay of this run",
                        self.control
                    ),
                )),
                "refused" => Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!("the relay at {} refused the token", self.control),
                )),
                other => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("{} is no relay: it answered {other:?}", self.control),
                )),
            }
        })
        .await
    }

    /// One connection has failed; gives up when there is no hope.
    fn failed(&self, error: &io::Error) {
        let before = self.failed.fetch_add(1, Ordering::Relaxed);
        let refused = matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidData);
        if refused || before + 1 >= FAILURES {
            self.give_up(error);
        }
    }

    fn give_up(&self, error: &io::Error) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.get_or_insert_with(|| format!("the relay at {} is gone: {error}", self.control));
        self.stop.cancel();
    }
}

/// Keeps [`IDLE`] connections open, and opens another whenever one is taken.
async fn keep_ready(shared: Arc<Shared>, first: BufReader<TcpStream>) {
    let places = Arc::new(Semaphore::new(IDLE));
    let mut first = Some(first);
    while let Some(Ok(place)) = shared.stop.run_until_cancelled(places.clone().acquire_owned()).await {
        let ready = first.take();
        let shared = shared.clone();
        tokio::spawn(async move {
            let stop = shared.stop.clone();
            stop.run_until_cancelled(async {
                let taken = async {
                    let mut tunnel = match ready {
                        Some(tunnel) => tunnel,
                        None => shared.connect().await?,
                    };
                    // Idle for as long as nobody connects: this wait has no bound by intent.
                    let port = line(&mut tunnel).await?;
                    // Not before: one that greets and hangs up would be tried for ever.
                    shared.failed.store(0, Ordering::Relaxed);
                    Ok((tunnel, port))
                };
                match taken.await {
                    Ok((tunnel, port)) => {
                        drop(place);
                        // A client or a server that hangs up ends this connection only.
                        drop(carry(&shared, tunnel, &port).await);
                    }
                    Err(error) => shared.failed(&error),
                }
            })
            .await;
        });
    }
}

async fn carry(shared: &Shared, mut tunnel: BufReader<TcpStream>, port: &str) -> io::Result<()> {
    let server = match port.parse().ok().and_then(|port| shared.routes.get(port)) {
        Some(server) => in_time(TcpStream::connect(server)).await,
        None => Err(io::ErrorKind::NotFound.into()),
    };
    // The neighbour then closes the client's connection, as the server's own machine would refuse it.
    let Ok(mut server) = server else { return tunnel.get_mut().write_all(b"closed\n").await };
    server.set_nodelay(true)?;
    tunnel.get_mut().write_all(b"open\n").await?;
    copy_bidirectional(&mut tunnel, &mut server).await?;
    Ok(())
}
