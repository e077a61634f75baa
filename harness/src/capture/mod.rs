//! Everything that comes out of a deployment: export requests at the [`sink`], lines at the [`stdout`] tap, and the
//! marks of its lifecycle, in one order of arrival.

pub mod file;
pub mod index;
pub mod query;
pub mod relay;
pub mod sink;
pub mod stdout;

mod store;
mod token;

pub use index::{Decoded, Index, LogRow, SpanRow};
pub use store::{
    Capture, Dropped, Encoding, ExportRequest, Fault, Items, Lifecycle, Mark, Retention, Signal, Store, Tamper,
    Transport,
};
pub use token::Token;

/// Connections that may wait to be accepted. Beyond the queue's end Linux loses or resets them, and the usual 128 is
/// less than what the workers of one deployment open at once.
const BACKLOG: u32 = 4096;

/// Listens at `address`; port 0 takes a free one.
fn listen(address: std::net::SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    socket(address)?.listen(BACKLOG)
}

/// A socket that is bound to `address` and does not listen yet; nobody else can take the port.
fn socket(address: std::net::SocketAddr) -> std::io::Result<tokio::net::TcpSocket> {
    let socket = match address {
        std::net::SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        std::net::SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    // As `TcpListener::bind` does it: a port whose last connections still linger can be listened on again.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
