//! The relay: servers of the test process, made reachable from a private container network.
//!
//! ```text
//!   service ──► neighbour, port 4318 ══ tunnel ══► test process ──► sink
//!   (container)  (container, `tracegate serve --relay`)
//! ```
//!
//! It is a reverse tunnel of plain TCP: the test process opens connections to the neighbour's control port and keeps
//! some idle; the neighbour pairs each connection that it accepts on a relay port with an idle one. Nothing is read or
//! answered on the way, so an exporter's request is acknowledged by the test process's own sink, once it is stored. A
//! neighbour that took requests by itself would acknowledge what the test process does not have yet, and no proof of
//! completeness would hold.
//!
//! Both sides have a token that was made for the run, and each says one half of it to the other before anything is
//! paired: who is not the test process gets nothing that is relayed, and who is not the neighbour reaches no server of the
//! test process. On a tunnel connection the test process says `tracegate-relay/2 HALF⏎` and the neighbour
//! `ready OTHER-HALF⏎` (or `refused⏎`, without its own half); later the neighbour says `PORT⏎`, the test process connects to the server behind that port and says `open⏎` (or `closed⏎`, when
//! there is none), and from then on bytes go both ways. A connection that is lost before `open` has carried nothing, and the neighbour takes another.

mod neighbour;
mod tunnel;

#[cfg(test)]
mod tests;

use std::{io, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    net::TcpStream,
    time::timeout,
};

pub use neighbour::Neighbour;
pub use tunnel::{Routes, Tunnel};

/// Environment variable that gives a neighbour its token.
pub const TOKEN_VARIABLE: &str = "TRACEGATE_RELAY_TOKEN";

/// First words of the line that a neighbour prints once all its ports are open.
pub const READY: &str = "tracegate relays";

/// First word of a tunnel connection.
const GREETING: &str = "tracegate-relay/2";

/// How long one side waits for a line that the other side writes at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// No line of the protocol is longer.
const LINE_AT_MOST: u64 = 512;

/// Characters that a token has at least: each half must be a secret by itself.
pub const SHORTEST_TOKEN: usize = 32;

/// A secret that two sides of a relay share, 256 random bits in hexadecimal digits.
pub fn random_token() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

/// What the test process says of a token, and what the neighbour answers.
fn halves(token: &str) -> (&str, &str) {
    let half = (token.len() / 2..).find(|&at| token.is_char_boundary(at)).unwrap_or(token.len());
    token.split_at(half)
}

/// Reads one line, without its line feed. What stands behind it stays in the reader.
async fn line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut text = String::new();
    reader.take(LINE_AT_MOST).read_line(&mut text).await?;
    match text.strip_suffix('\n') {
        Some(line) => Ok(line.to_owned()),
        None if text.is_empty() => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other side hung up")),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no line of the relay's protocol"))),
    }
}

async fn in_time<T>(what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, what).await.unwrap_or_else(|_| {
        let waited = format!("the other side said nothing for {} s", PATIENCE.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, waited))
    })
}
