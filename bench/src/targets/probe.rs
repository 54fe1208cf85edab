//! Waits until a target serves, and says which TLS it negotiates with a client that offers what the load driver offers.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde::Serialize;

/// Longest wait for a connection, and for each read and write on it.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// Bytes read of an answer's head.
const MAX_HEAD_BYTES: usize = 1024;

/// What a target negotiates: equal work needs equal lines here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TlsFacts {
    /// Protocol and cipher suite.
    pub suite: String,
    /// Key exchange.
    pub key_exchange: String,
}

/// One attempt: connects, shakes hands if there is TLS, and, with `ready_path`, asks for it and demands 200.
///
/// # Errors
/// Whatever is not ready yet, in the system's words.
pub(super) fn attempt(
    address: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    ready_path: Option<&str>,
) -> io::Result<Option<TlsFacts>> {
    let stream = TcpStream::connect_timeout(&address, ATTEMPT_LIMIT)?;
    stream.set_read_timeout(Some(ATTEMPT_LIMIT))?;
    stream.set_write_timeout(Some(ATTEMPT_LIMIT))?;
    let Some(config) = tls else { return Ok(None) };
    let name = ServerName::from(address.ip());
    let connection = ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    let suite = stream.conn.negotiated_cipher_suite().map(|s| format!("{:?}", s.suite()));
    let group = stream.conn.negotiated_key_exchange_group().map(|g| format!("{:?}", g.name()));
    if let Some(path) = ready_path {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut head = [0u8; MAX_HEAD_BYTES];
        let n = stream.read(&mut head)?;
        if !head[..n].starts_with(b"HTTP/1.1 200") {
            return Err(io::Error::other(String::from_utf8_lossy(&head[..n]).into_owned()));
        }
    }
    stream.conn.send_close_notify();
    // The target may have closed already; what was asked is known.
    let _ = stream.flush();
    let unknown = || "unknown".to_owned();
    Ok(Some(TlsFacts { suite: suite.unwrap_or_else(unknown), key_exchange: group.unwrap_or_else(unknown) }))
}
