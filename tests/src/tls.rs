//! Owns TLS connections whose details matter: their source address, what the handshake came to, configurations for older
//! clients, and a server of its own for the gateway's upstream side.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
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

/// As [`connect`], from whatever address leads there: not only on the loopback.
///
/// # Errors
/// When it cannot be made.
pub fn connect_anywhere(addr: SocketAddr, config: &Arc<ClientConfig>) -> Result<TlsStream> {
    handshake(tcp_from(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr)?, config, addr.ip())
}

/// What has come on a stream until now, nothing of it waited for; `None` at its end or when it is broken.
pub fn read_at_once(stream: &mut TlsStream) -> Option<Vec<u8>> {
    stream.sock.set_nonblocking(true).ok()?;
    let mut come = Vec::new();
    let open = loop {
        let mut bytes = [0; 16 * 1024];
        match stream.read(&mut bytes) {
            Ok(0) => break false,
            Ok(read) => come.extend_from_slice(&bytes[..read]),
            Err(error) => break error.kind() == ErrorKind::WouldBlock,
        }
    };
    stream.sock.set_nonblocking(false).ok()?;
    (open || !come.is_empty()).then_some(come)
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

/// What a server asks of its clients, and whom it tells which name they asked for (SNI).
#[derive(Debug)]
pub struct Strict<'a> {
    /// The authority that clients' certificates must come from.
    pub clients_of: &'a TestCert,
    /// Hears the name of each handshake; what has no room is not told.
    pub names: SyncSender<Option<String>>,
}

/// As [`serve_https`] at 127.0.0.1, for clients that show a certificate.
///
/// # Panics
/// When no port is free or a certificate is unusable.
#[must_use]
pub fn serve_https_strict(
    cert: &TestCert,
    strict: Strict<'_>,
    respond: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static,
) -> SocketAddr {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(&strict.clients_of.ca_file).expect("the authority's file");
    roots.add(authority).expect("an authority");
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
    let (chain, key) = chain_and_key(&cert.cert_file, &cert.key_file);
    let config = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .expect("a certificate and its key");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let (respond, names) = (Arc::new(respond), strict.names);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (config, respond, names) = (config.clone(), respond.clone(), names.clone());
            std::thread::spawn(move || {
                // A client that breaks off is the test's own matter.
                let _ = serve_tls_and(stream, config, &*respond, |name| drop(names.try_send(name)));
            });
        }
    });
    addr
}

fn serve_tls(stream: TcpStream, config: Arc<ServerConfig>, respond: &dyn Fn(&[u8]) -> Vec<u8>) -> Result<()> {
    serve_tls_and(stream, config, respond, drop)
}

/// Serves a connection; `tell` hears the name that its client asked for.
fn serve_tls_and(
    mut socket: TcpStream,
    config: Arc<ServerConfig>,
    respond: &dyn Fn(&[u8]) -> Vec<u8>,
    tell: impl FnOnce(Option<String>),
) -> Result<()> {
    let mut connection = ServerConnection::new(config).map_err(Error::other)?;
    let handshake = connection.complete_io(&mut socket);
    // Told before the handshake is over, so known of one that fails, too.
    tell(connection.server_name().map(str::to_owned));
    handshake?;
    let mut stream = StreamOwned::new(connection, socket);
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
    let (chain, key) = chain_and_key(cert_file, key_file);
    ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate and its key")
}

fn chain_and_key(
    cert_file: &Path,
    key_file: &Path,
) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_file_iter(cert_file)
        .and_then(|certificates| certificates.collect::<std::result::Result<Vec<_>, _>>())
        .expect("a certificate file");
    (chain, PrivateKeyDer::from_pem_file(key_file).expect("a key file"))
}
