//! The side in the container network.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncWriteExt, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::{Mutex, mpsc},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{GREETING, halves, in_time, line};
use crate::capture::{listen, token::same};

/// How long an accepted connection waits for the test process to open another tunnel connection.
const IDLE_WAIT: Duration = Duration::from_secs(30);

/// Listens on relay ports and passes what it accepts on to whoever knows the token. Dropping it closes everything.
#[derive(Debug)]
pub struct Neighbour {
    control: SocketAddr,
    relays: Vec<SocketAddr>,
    stop: CancellationToken,
}

/// Tunnel connections that wait for something to carry.
type Idle = Mutex<mpsc::UnboundedReceiver<BufReader<TcpStream>>>;

impl Neighbour {
    /// Listens at `host`, on the control port and on every relay port; port 0 takes a free one. The error is that of
    /// binding and names the port.
    pub async fn bind(host: IpAddr, control: u16, relays: &[u16], token: &str) -> io::Result<Self> {
        let listen = |port: u16| {
            listen((host, port).into())
                .map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {host}:{port}: {error}")))
        };
        let control = listen(control)?;
        let listeners = relays.iter().map(|&port| listen(port)).collect::<io::Result<Vec<_>>>()?;
        let (ready, idle) = mpsc::unbounded_channel();
        let idle = Arc::new(Idle::new(idle));
        let stop = CancellationToken::new();
        let neighbour = Self {
            control: control.local_addr()?,
            relays: listeners.iter().map(TcpListener::local_addr).collect::<io::Result<_>>()?,
            stop: stop.clone(),
        };
        let token: Arc<str> = token.into();
        accept(control, stop.clone(), move |tunnel| admit(tunnel, token.clone(), ready.clone()));
        for listener in listeners {
            let port = listener.local_addr()?.port();
            let idle = idle.clone();
            accept(listener, stop.clone(), move |client| carry(client, port, idle.clone()));
        }
        Ok(neighbour)
    }

    /// Where tunnels are opened.
    pub fn control(&self) -> SocketAddr {
        self.control
    }

    /// Where it accepts what it passes on, in the order of the ports given.
    pub fn relays(&self) -> &[SocketAddr] {
        &self.relays
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Serves every connection in a task of its own until `stop`.
fn accept<F>(listener: TcpListener, stop: CancellationToken, serve: impl Fn(TcpStream) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, _)) => {
                    drop(stream.set_nodelay(true));
                    let stop = stop.clone();
                    let served = serve(stream);
                    tokio::spawn(async move { stop.run_until_cancelled(served).await });
                }
                // Out of file descriptors, or a peer that was gone before it was accepted: others may be served.
                Err(_) => drop(timeout(Duration::from_millis(100), stop.cancelled()).await),
            }
        }
    });
}

/// Takes a tunnel connection in if it knows the token.
async fn admit(tunnel: TcpStream, token: Arc<str>, ready: mpsc::UnboundedSender<BufReader<TcpStream>>) {
    let mut tunnel = BufReader::new(tunnel);
    let Ok(greeting) = in_time(line(&mut tunnel)).await else { return };
    let (theirs, ours) = halves(&token);
    let known = greeting.split_once(' ').is_some_and(|(word, given)| word == GREETING && same(given, theirs));
    let answer = if known { format!("ready {ours}\n") } else { "refused\n".to_owned() };
    if in_time(tunnel.get_mut().write_all(answer.as_bytes())).await.is_ok() && known {
        drop(ready.send(tunnel));
    }
}

/// Passes an accepted connection on. When no tunnel can take it, the client sees it closed.
async fn carry(mut client: TcpStream, port: u16, idle: Arc<Idle>) {
    let taken = timeout(IDLE_WAIT, async {
        loop {
            let mut tunnel = idle.lock().await.recv().await?;
            match open(&mut tunnel, port).await {
                Ok(true) => return Some(tunnel),
                Ok(false) => return None,
                // Lost before it carried anything; another one can.
                Err(_) => {}
            }
        }
    });
    if let Ok(Some(mut tunnel)) = taken.await {
        drop(copy_bidirectional(&mut client, &mut tunnel).await);
    }
}

/// Has the test process connect to the server behind `port`; false when that server takes no connection.
async fn open(tunnel: &mut BufReader<TcpStream>, port: u16) -> io::Result<bool> {
    in_time(tunnel.get_mut().write_all(format!("{port}\n").as_bytes())).await?;
    match in_time(line(tunnel)).await?.as_str() {
        "open" => Ok(true),
        "closed" => Ok(false),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("the tunnel said {other:?}"))),
    }
}
