//! A stream socket that a task reads and writes: owns the descriptor and its registration. Every error is returned, a
//! reset is never an end of file.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_io::{AsyncRead, AsyncWrite};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::reactor::Reactor;

pub(crate) struct Socket {
    descriptor: OwnedFd,
    reactor: Rc<Reactor>,
    index: usize,
}

impl Socket {
    /// Connects without blocking. The caller bounds the time.
    pub(crate) async fn connect(reactor: &Rc<Reactor>, address: SocketAddr) -> io::Result<Self> {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM.nonblocking().cloexec(),
            Some(socket2::Protocol::TCP),
        )?;
        socket.set_tcp_nodelay(true)?;
        let started = match socket.connect(&address.into()) {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => false,
            Err(error) => return Err(error),
        };
        let socket = Socket::register(reactor, OwnedFd::from(socket))?;
        if !started {
            poll_fn(|cx| socket.poll_writable(cx)).await?;
            if let Err(error) = rustix::net::sockopt::socket_error(&socket.descriptor)? {
                return Err(error.into());
            }
        }
        // From now on, so that the peer's leaving is noticed even before the first read.
        reactor.receive_for(socket.index, &mut reactor.sockets.borrow_mut()[socket.index])?;
        Ok(socket)
    }

    fn register(reactor: &Rc<Reactor>, descriptor: OwnedFd) -> io::Result<Self> {
        let index = reactor.register(&descriptor)?;
        Ok(Socket { descriptor, reactor: reactor.clone(), index })
    }

    /// Whether something arrived, or the peer went away, since the last read found nothing: an idle connection on which
    /// that happened is of no more use.
    pub(crate) fn has_news(&self) -> bool {
        let sockets = self.reactor.sockets.borrow();
        let known = &sockets[self.index];
        known.readable || known.hangup || known.ended.is_some() || !known.inbox.is_empty()
    }

    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.reactor.receives() {
            return self.poll_received(cx, buf);
        }
        {
            let mut sockets = self.reactor.sockets.borrow_mut();
            let known = &mut sockets[self.index];
            if !known.readable {
                known.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let room = buf.len();
        let answer = rustix::net::recv(&self.descriptor, buf, RecvFlags::empty());
        let mut sockets = self.reactor.sockets.borrow_mut();
        let known = &mut sockets[self.index];
        match answer {
            Ok((_, received)) => {
                // Edge triggered: a short read has emptied the socket, unless its end is already known to follow.
                known.readable = received == room || known.hangup;
                Poll::Ready(Ok(received))
            }
            Err(rustix::io::Errno::AGAIN) => {
                known.readable = false;
                known.reader = Some(cx.waker().clone());
                Poll::Pending
            }
            Err(rustix::io::Errno::INTR) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Under the ring: takes what was received.
    fn poll_received(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut sockets = self.reactor.sockets.borrow_mut();
        let known = &mut sockets[self.index];
        if !known.inbox.is_empty() {
            return Poll::Ready(Ok(known.inbox.read(buf)));
        }
        match known.ended {
            Some(None) => Poll::Ready(Ok(0)),
            Some(Some(errno)) => Poll::Ready(Err(errno.into())),
            None => {
                known.reader = Some(cx.waker().clone());
                self.reactor.receive_for(self.index, known)?;
                Poll::Pending
            }
        }
    }

    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let flags = SendFlags::NOSIGNAL;
        let answer =
            rustix::net::sendmsg(&self.descriptor, parts, &mut SendAncillaryBuffer::default(), flags);
        match answer {
            Ok(sent) => Poll::Ready(Ok(sent)),
            Err(rustix::io::Errno::AGAIN) => {
                let mut sockets = self.reactor.sockets.borrow_mut();
                let known = &mut sockets[self.index];
                known.writable = false;
                known.writer = Some(cx.waker().clone());
                self.reactor.poll_output_for(self.index, known)?;
                Poll::Pending
            }
            Err(rustix::io::Errno::INTR) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sockets = self.reactor.sockets.borrow_mut();
        let known = &mut sockets[self.index];
        if known.writable {
            return Poll::Ready(Ok(()));
        }
        known.writer = Some(cx.waker().clone());
        self.reactor.poll_output_for(self.index, known)?;
        Poll::Pending
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.reactor.forget(self.index);
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_recv(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_send(cx, parts)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(rustix::net::shutdown(self.descriptor.as_fd(), rustix::net::Shutdown::Write)?))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::task::Waker;

    use super::super::reactor::DriverKind;
    use super::*;

    /// Polls `future` and the reactor until it is done.
    fn drive<T>(reactor: &Reactor, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
                return value;
            }
            let mut events = Vec::new();
            reactor.wait(true, &mut events).unwrap();
            for event in events {
                reactor.on_event(event.token, event.what);
            }
            reactor.settle();
        }
    }

    fn pair(reactor: &Rc<Reactor>) -> (Socket, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = drive(reactor, Socket::connect(reactor, listener.local_addr().unwrap())).unwrap();
        (socket, listener.accept().unwrap().0)
    }

    async fn recv(socket: &Socket, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| socket.poll_recv(cx, buf)).await
    }

    #[test]
    fn a_reset_is_an_error_and_an_end_is_an_end() {
        let reactor = Rc::new(Reactor::new().unwrap());
        let mut buf = [0; 64];

        let (socket, mut peer) = pair(&reactor);
        peer.write_all(b"last words").unwrap();
        drop(peer);
        assert_eq!(drive(&reactor, recv(&socket, &mut buf)).unwrap(), 10);
        assert_eq!(drive(&reactor, recv(&socket, &mut buf)).unwrap(), 0);

        let (socket, peer) = pair(&reactor);
        let peer = socket2::Socket::from(peer);
        peer.set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(peer);
        let error = drive(&reactor, recv(&socket, &mut buf)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn an_idle_socket_tells_when_its_peer_left() {
        let reactor = Rc::new(Reactor::new().unwrap());
        let (socket, peer) = pair(&reactor);
        assert!(!socket.has_news());
        drop(peer);
        let mut buf = [0; 1];
        assert_eq!(drive(&reactor, recv(&socket, &mut buf)).unwrap(), 0);
        assert!(socket.has_news());
    }

    #[test]
    fn a_refused_connect_is_an_error() {
        let reactor = Rc::new(Reactor::new().unwrap());
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let answer = drive(&reactor, Socket::connect(&reactor, address));
        assert_eq!(answer.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    }
}
