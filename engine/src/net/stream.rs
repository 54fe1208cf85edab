//! A connection that a task reads and writes: owns plain and TLS alike behind one read and one write. Never a protocol.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_io::{AsyncRead, AsyncWrite};
use futures_rustls::client::TlsStream;
use futures_rustls::{TlsAcceptor, TlsConnector, server};
use futures_util::AsyncWriteExt;
use rustls_pki_types::ServerName;

use super::reactor::Reactor;
use super::socket::Socket;

/// A connection, plain or encrypted.
pub struct Stream(Inner);

enum Inner {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
    Accepted(Box<server::TlsStream<Socket>>),
}

impl Stream {
    /// Connects to the first of the addresses that answers, and encrypts where `tls` says how. The caller bounds the time.
    ///
    /// # Errors
    /// The last address's, or `NotFound` when there is none; `InvalidData` where the peer's certificate does not prove
    /// the name.
    pub(crate) async fn connect(
        reactor: &Rc<Reactor>,
        addresses: impl Iterator<Item = SocketAddr>,
        tls: Option<&(TlsConnector, ServerName<'static>)>,
    ) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        for address in addresses {
            let socket = match Socket::connect(reactor, address).await {
                Ok(socket) => socket,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            return Ok(Stream(match tls {
                None => Inner::Plain(socket),
                Some((connector, name)) => {
                    Inner::Tls(Box::new(connector.connect(name.clone(), socket).await?))
                }
            }));
        }
        Err(last)
    }

    /// A plain connection.
    pub(crate) fn from_socket(socket: Socket) -> Self {
        Stream(Inner::Plain(socket))
    }

    /// Encrypts a connection that was accepted. The caller bounds the time.
    ///
    /// # Errors
    /// The socket's, or `InvalidData` where the other side does not prove who it is.
    pub(crate) async fn accept(acceptor: &TlsAcceptor, socket: Socket) -> io::Result<Self> {
        Ok(Stream(Inner::Accepted(Box::new(acceptor.accept(socket).await?))))
    }

    /// The protocol that was agreed on in the handshake.
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        match &self.0 {
            Inner::Plain(_) => None,
            Inner::Tls(stream) => stream.get_ref().1.alpn_protocol(),
            Inner::Accepted(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// See [`Socket::probe_silent_peer`].
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn probe_silent_peer(&self) -> io::Result<()> {
        match &self.0 {
            Inner::Plain(socket) => socket.probe_silent_peer(),
            Inner::Tls(stream) => stream.get_ref().0.probe_silent_peer(),
            Inner::Accepted(stream) => stream.get_ref().0.probe_silent_peer(),
        }
    }

    /// Whether nothing arrived that belongs to nobody, and the peer is there: an idle connection of which this is not true
    /// is of no more use. What only TLS has a use for, a late session ticket, is taken in. Asks the system only where
    /// the driver has told of something.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.poll_read(&mut Context::from_waker(Waker::noop()), &mut [0]).is_pending()
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Inner::Plain(socket) => socket.poll_recv(cx, buf),
            Inner::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            Inner::Accepted(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.0 {
            Inner::Plain(socket) => socket.poll_send(cx, parts),
            Inner::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
            Inner::Accepted(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, parts),
        }
    }

    /// Sends head and body, in one system call where they fit.
    ///
    /// # Errors
    /// The socket's; what was sent is then unknown.
    pub(crate) async fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        self.send_noting(head, body, &mut false).await
    }

    /// As [`Stream::send`]; `is_begun` becomes true when a byte may have left.
    ///
    /// # Errors
    /// The socket's; nothing was sent where `is_begun` is still false.
    pub(crate) async fn send_noting(
        &mut self,
        head: &[u8],
        body: &[u8],
        is_begun: &mut bool,
    ) -> io::Result<()> {
        let (mut head, mut body) = (head, body);
        while !head.is_empty() || !body.is_empty() {
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let sent = poll_fn(|cx| self.poll_send(cx, &parts)).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            *is_begun = true;
            let of_head = sent.min(head.len());
            head = &head[of_head..];
            body = &body[sent - of_head..];
        }
        self.flush().await
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_send(cx, parts)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Inner::Plain(socket) => Pin::new(socket).poll_flush(cx),
            Inner::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            Inner::Accepted(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
        }
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            Inner::Plain(socket) => Pin::new(socket).poll_close(cx),
            Inner::Tls(stream) => Pin::new(stream.as_mut()).poll_close(cx),
            Inner::Accepted(stream) => Pin::new(stream.as_mut()).poll_close(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use futures_util::AsyncReadExt;

    use super::super::reactor::{DriverKind, drive, of_each_driver};
    use super::*;

    /// The driver may tell late of what was read already, and of a full buffer's worth nobody knows whether it was all.
    #[test]
    fn what_was_read_to_its_end_is_quiet_whatever_the_driver_said() {
        for reactor in of_each_driver() {
            let reactor = Rc::new(reactor);
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let mut stream =
                drive(&reactor, Stream::connect(&reactor, std::iter::once(address), None)).unwrap();
            let mut peer = listener.accept().unwrap().0;
            assert!(stream.is_quiet());
            let mut answer = [0; 6];
            peer.write_all(b"answer").unwrap();
            drive(&reactor, stream.read_exact(&mut answer)).unwrap();
            assert!(stream.is_quiet());
            peer.write_all(b"answer, and more").unwrap();
            drive(&reactor, stream.read_exact(&mut answer)).unwrap();
            assert!(!stream.is_quiet());
            drive(&reactor, stream.read_exact(&mut [0; 9])).unwrap();
            drop(peer);
            assert_eq!(drive(&reactor, stream.read(&mut answer)).unwrap(), 0);
            assert!(!stream.is_quiet());
        }
    }

    /// What decides whether a request may go again on another connection. The ring takes bytes first and tells of a failure
    /// afterwards, so there one always may have left.
    #[test]
    fn a_send_says_whether_a_byte_may_have_left() {
        let reactor = Rc::new(Reactor::new(DriverKind::Epoll).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || {
            let stream = drive(&reactor, Stream::connect(&reactor, std::iter::once(address), None)).unwrap();
            (stream, socket2::Socket::from(listener.accept().unwrap().0))
        };

        let (mut stream, peer) = connect();
        peer.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(peer);
        let mut is_begun = false;
        let sent = drive(&reactor, stream.send_noting(b"head", b"body", &mut is_begun));
        assert!(sent.is_err() && !is_begun);

        let (mut stream, peer) = connect();
        let body = vec![7; 64 << 20];
        let sending = std::thread::spawn(move || {
            // Some of it arrives, then the connection breaks.
            let mut first = [std::mem::MaybeUninit::uninit(); 1024];
            peer.recv(&mut first).unwrap();
            peer.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        });
        let sent = drive(&reactor, stream.send_noting(b"head", &body, &mut is_begun));
        assert!(sent.is_err() && is_begun);
        sending.join().unwrap();
    }
}
