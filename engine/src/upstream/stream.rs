//! A connection to an endpoint: owns plain and TLS alike behind one read and one write. Never HTTP.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use futures_rustls::client::TlsStream;
use futures_util::AsyncWriteExt;

use super::Endpoint;
use crate::net::reactor::Reactor;
use crate::net::socket::Socket;

pub(crate) enum Stream {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

impl Stream {
    /// Connects to the first of the endpoint's addresses that answers.
    ///
    /// # Errors
    /// The last address's, or `NotFound` when the name has none.
    pub(crate) async fn connect(reactor: &Rc<Reactor>, endpoint: &Endpoint) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
        for attempt in 0..endpoint.addresses.count() {
            let Some(address) = endpoint.addresses.get(attempt) else { break };
            let socket = match Socket::connect(reactor, address).await {
                Ok(socket) => socket,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            return match &endpoint.tls {
                None => Ok(Stream::Plain(socket)),
                Some((connector, name)) => {
                    Ok(Stream::Tls(Box::new(connector.connect(name.clone(), socket).await?)))
                }
            };
        }
        Err(last)
    }

    /// See [`Socket::has_news`].
    pub(crate) fn has_news(&self) -> bool {
        match self {
            Stream::Plain(socket) => socket.has_news(),
            Stream::Tls(stream) => stream.get_ref().0.has_news(),
        }
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(socket) => socket.poll_recv(cx, buf),
            Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }

    /// Sends head and body, in one system call where they fit.
    ///
    /// # Errors
    /// The socket's; what was sent is then unknown.
    pub(crate) async fn send(&mut self, head: &[u8], body: &[u8]) -> io::Result<()> {
        let (mut head, mut body) = (head, body);
        while !head.is_empty() || !body.is_empty() {
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let sent = poll_fn(|cx| match self {
                Stream::Plain(socket) => socket.poll_send(cx, &parts),
                Stream::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, &parts),
            })
            .await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let of_head = sent.min(head.len());
            head = &head[of_head..];
            body = &body[sent - of_head..];
        }
        if let Stream::Tls(stream) = self {
            stream.flush().await?;
        }
        Ok(())
    }
}
