//! Owns TLS connections whose details matter: their source address, what the handshake came to, configurations for older
//! clients, and a server of its own for the gateway's upstream side.

use std::io::{Error, Read, Result, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    SupportedProtocolVersion,
};
use socket2::{Domain, Socket, Type};

use crate::{Connection, TestCert};

/// How long a read or a write may take before it is an error.
const IO_LIMIT: Duration = Duration::from_secs(30);

/// A TLS stream of a client.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A TCP connection from `source`, with time limits.
///
/// # Errors
/// When it cannot be made.
pub fn tcp_from(source: IpAddr, addr: SocketAddr) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    // Without it the system runs out of ports for one destination at 28,000 over all source addresses.
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    socket.connect_timeout(&addr.into(), IO_LIMIT)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(IO_LIMIT))?;
    stream.set_write_timeout(Some(IO_LIMIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A TLS session over `stream`, its handshake done; the certificate must be valid for `name`.
///
/// # Errors
/// When the handshake fails.
pub fn handshake(stream: TcpStream, config: &Arc<ClientConfig>, name: IpAddr) -> Result<TlsStream> {
    let session = ClientConnection::new(config.clone(), ServerName::from(name)).map_err(Error::other)?;
    let mut stream = StreamOwned::new(session, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// A TLS connection to `addr` with its handshake done.
///
/// # Errors
/// When it cannot be made.
pub fn connect(addr: SocketAddr, config: &Arc<ClientConfig>) -> Result<TlsStream> {
    handshake(tcp_from(addr.ip(), addr)?, config, addr.ip())
}

/// HTTP over a TLS stream that stands already.
#[must_use]
pub fn http_over(stream: TlsStream, addr: SocketAddr) -> Connection {
    Connection::over(Box::new(stream), addr)
}

/// A client configuration that trusts `cert`'s authority and speaks these versions only.
///
/// # Panics
/// When the authority's file cannot be read.
#[must_use]
pub fn client_of(cert: &TestCert, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(&cert.ca_file).expect("the authority's file");
    roots.add(authority).expect("an authority");
    ClientConfig::builder_with_protocol_versions(versions).with_root_certificates(roots).with_no_client_auth()
}

/// Answers every HTTP request to `ip` over TLS, until the process ends; returns where.
///
/// # Panics
/// When no port is free or the certificate is unusable.
#[must_use]
pub fn serve_https(
    cert: &TestCert,
    ip: IpAddr,
    respond: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
) -> SocketAddr {
    let config = server_of(cert);
    let listener = TcpListener::bind((ip, 0)).expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let respond = Arc::new(respond);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, respond) = (config.clone(), respond.clone());
            std::thread::spawn(move || answer_https(stream, &config, &*respond));
        }
    });
    addr
}

/// Answers every HTTP request that comes over this connection, after a handshake.
pub fn answer_https(stream: TcpStream, config: &Arc<ServerConfig>, respond: &dyn Fn(&[u8]) -> Vec<u8>) {
    // A client that breaks off is the test's own matter.
    let _ = serve_tls(stream, config.clone(), respond);
}

fn serve_tls(stream: TcpStream, config: Arc<ServerConfig>, respond: &dyn Fn(&[u8]) -> Vec<u8>) -> Result<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(config).map_err(Error::other)?, stream);
    let mut buffer = Vec::new();
    loop {
        let Some(end) = whole_request(&buffer) else {
            let mut bytes = [0; 16 * 1024];
            let read = stream.read(&mut bytes)?;
            if read == 0 {
                return Ok(());
            }
            buffer.extend_from_slice(&bytes[..read]);
            continue;
        };
        let request: Vec<u8> = buffer.drain(..end).collect();
        stream.write_all(&respond(&request))?;
        stream.flush()?;
    }
}

/// Where the first request in `buffer` ends, by its `Content-Length`.
fn whole_request(buffer: &[u8]) -> Option<usize> {
    let head_end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..head_end]).ok()?.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse::<usize>().ok()).unwrap_or(0);
    (buffer.len() >= head_end + length).then_some(head_end + length)
}

/// A server's configuration with this certificate.
///
/// # Panics
/// When its files cannot be read.
#[must_use]
pub fn server_of(cert: &TestCert) -> Arc<ServerConfig> {
    Arc::new(server_config(&cert.cert_file, &cert.key_file))
}

fn server_config(cert_file: &Path, key_file: &Path) -> ServerConfig {
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(|certificates| certificates.collect::<std::result::Result<Vec<_>, _>>())
        .expect("a certificate file");
    let key = PrivateKeyDer::from_pem_file(key_file).expect("a key file");
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate and its key")
}
