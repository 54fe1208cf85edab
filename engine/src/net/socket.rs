//! A stream socket that a task reads and writes: owns the descriptor and its registration. Every error is returned, a
//! reset is never an end of file.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};

use super::reactor::{Known, Reactor};
use super::ring::Ring;

/// Bytes that one send takes at most under the ring, which copies them.
const SEND_BYTES: usize = 256 << 10;

/// Probes of a silent peer: the silence before the first, the pause between two, and how many go unanswered before the
/// connection counts as broken. Together 60 seconds.
const SILENT_FOR: Duration = Duration::from_secs(30);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 3;

pub(crate) struct Socket {
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
            let known = &reactor.sockets.borrow()[socket.index];
            if let Err(error) = rustix::net::sockopt::socket_error(&known.descriptor)? {
                return Err(error.into());
            }
        }
        Ok(socket)
    }

    /// Connects to a Unix socket of the abstract namespace, which is there or is not.
    ///
    /// # Errors
    /// The system's; also when as many wait to be accepted as may.
    pub(crate) fn connect_unix(reactor: &Rc<Reactor>, name: &str) -> io::Result<Self> {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        Socket::register(reactor, socket)
    }

    /// Takes a socket that was accepted; it must not block.
    ///
    /// # Errors
    /// The driver's.
    pub(crate) fn adopt(reactor: &Rc<Reactor>, descriptor: OwnedFd) -> io::Result<Self> {
        Socket::register(reactor, descriptor)
    }

    fn register(reactor: &Rc<Reactor>, descriptor: OwnedFd) -> io::Result<Self> {
        let index = reactor.register(descriptor)?;
        Ok(Socket { reactor: reactor.clone(), index })
    }

    /// Has the kernel notice, within about a minute, that the peer is gone without a word.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn probe_silent_peer(&self) -> io::Result<()> {
        let probes = socket2::TcpKeepalive::new()
            .with_time(SILENT_FOR)
            .with_interval(PROBE_EVERY)
            .with_retries(PROBES);
        let sockets = self.reactor.sockets.borrow();
        socket2::SockRef::from(&sockets[self.index].descriptor).set_tcp_keepalive(&probes)
    }

    pub(crate) fn poll_recv(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut sockets = self.reactor.sockets.borrow_mut();
        let known = &mut sockets[self.index];
        if let Some(errno) = known.failed
            && !known.readable
        {
            return Poll::Ready(Err(errno.into()));
        }
        if !known.readable {
            known.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let room = buf.len();
        match rustix::net::recv(&known.descriptor, buf, RecvFlags::empty()) {
            Ok((_, received)) => {
                // Edge triggered: a short read has emptied the socket, unless its end follows; an end stays one.
                known.readable = received == room || received == 0 || known.hangup;
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

    pub(crate) fn poll_send(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut sockets = self.reactor.sockets.borrow_mut();
        let known = &mut sockets[self.index];
        if let Some(ring) = self.reactor.ring() {
            return self.poll_hand_over(ring, known, cx, parts);
        }
        let flags = SendFlags::NOSIGNAL;
        match rustix::net::sendmsg(&known.descriptor, parts, &mut SendAncillaryBuffer::default(), flags) {
            Ok(sent) => Poll::Ready(Ok(sent)),
            Err(rustix::io::Errno::AGAIN) => {
                known.writable = false;
                known.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            Err(rustix::io::Errno::INTR) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Under the ring: hands over what fits one send, once the send before is through. An error shows with the next use.
    fn poll_hand_over(
        &self,
        ring: &Ring,
        known: &mut Known,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Some(errno) = known.failed {
            return Poll::Ready(Err(errno.into()));
        }
        if known.sending.is_some() {
            known.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut buffer = ring.take_spare();
        for part in parts {
            let room = SEND_BYTES - buffer.len();
            buffer.extend_from_slice(&part[..part.len().min(room)]);
        }
        let count = buffer.len();
        if count > 0 {
            let id = ring.send(known.descriptor.as_raw_fd(), known.token(self.index), buffer, 0)?;
            known.sending = Some(id);
        }
        Poll::Ready(Ok(count))
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

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut sockets = self.reactor.sockets.borrow_mut();
        let known = &mut sockets[self.index];
        if known.sending.is_some() {
            known.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(rustix::net::shutdown(&known.descriptor, rustix::net::Shutdown::Write)?))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::super::reactor::{drive, of_each_driver};
    use super::*;

    fn under_each_driver(check: impl Fn(&Rc<Reactor>)) {
        of_each_driver().for_each(|reactor| check(&Rc::new(reactor)));
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
        under_each_driver(|reactor| {
            let mut buf = [0; 64];
            let (socket, mut peer) = pair(reactor);
            peer.write_all(b"last words").unwrap();
            drop(peer);
            assert_eq!(drive(reactor, recv(&socket, &mut buf)).unwrap(), 10);
            assert_eq!(drive(reactor, recv(&socket, &mut buf)).unwrap(), 0);

            let (socket, peer) = pair(reactor);
            let peer = socket2::Socket::from(peer);
            peer.set_linger(Some(std::time::Duration::ZERO)).unwrap();
            drop(peer);
            let error = drive(reactor, recv(&socket, &mut buf)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        });
    }

    #[test]
    fn a_refused_connect_is_an_error() {
        under_each_driver(|reactor| {
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let answer = drive(reactor, Socket::connect(reactor, address));
            assert_eq!(answer.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    /// The peer reads nothing at first, so that sends are taken in parts and wait; every byte arrives, in order.
    #[test]
    fn a_slow_reader_gets_every_byte_in_order() {
        under_each_driver(|reactor| {
            let (socket, mut peer) = pair(reactor);
            let sent: Vec<u8> = (0..8 << 20).map(|i: u32| (i % 251) as u8).collect();
            let expected = sent.clone();
            let reader = std::thread::spawn(move || {
                let mut received = Vec::new();
                peer.read_to_end(&mut received).map(|_| received == expected)
            });
            drive(reactor, async {
                let mut rest = &sent[..];
                while !rest.is_empty() {
                    let count = poll_fn(|cx| socket.poll_send(cx, &[IoSlice::new(rest)])).await.unwrap();
                    rest = &rest[count..];
                }
                let mut socket = socket;
                poll_fn(|cx| Pin::new(&mut socket).poll_close(cx)).await.unwrap();
            });
            assert!(reader.join().unwrap().unwrap());
        });
    }

    /// A task that does not read takes nothing from others, and loses nothing itself.
    #[test]
    fn a_task_that_does_not_read_starves_nobody() {
        under_each_driver(|reactor| {
            let (idle, mut flood) = pair(reactor);
            let (socket, mut peer) = pair(reactor);
            let total = 16 << 20;
            let writer = std::thread::spawn(move || flood.write_all(&vec![7; total]));
            let mut buf = [0; 4096];
            for round in 0..200u32 {
                peer.write_all(&round.to_ne_bytes()).unwrap();
                assert_eq!(drive(reactor, recv(&socket, &mut buf)).unwrap(), 4);
                assert_eq!(buf[..4], round.to_ne_bytes());
            }
            let mut received = 0;
            while received < total {
                let count = drive(reactor, recv(&idle, &mut buf)).unwrap();
                assert!(count > 0 && buf[..count].iter().all(|&byte| byte == 7));
                received += count;
            }
            writer.join().unwrap().unwrap();
        });
    }

    /// What was asked for a closed socket never meets the next one under the same number.
    #[test]
    fn a_closed_sockets_requests_do_not_reach_its_successor() {
        under_each_driver(|reactor| {
            for _ in 0..50 {
                let (socket, mut peer) = pair(reactor);
                let sent = drive(reactor, poll_fn(|cx| socket.poll_send(cx, &[IoSlice::new(b"first")])));
                assert_eq!(sent.unwrap(), 5);
                drop(socket);
                let (next, mut next_peer) = pair(reactor);
                let sent = drive(reactor, poll_fn(|cx| next.poll_send(cx, &[IoSlice::new(b"second")])));
                assert_eq!(sent.unwrap(), 6);
                next_peer.write_all(b"answer").unwrap();
                let mut buf = [0; 64];
                assert_eq!(drive(reactor, recv(&next, &mut buf)).unwrap(), 6);
                let mut text = [0; 6];
                next_peer.read_exact(&mut text).unwrap();
                assert_eq!(&text, b"second");
                let mut all = Vec::new();
                peer.read_to_end(&mut all).unwrap();
                assert_eq!(all, b"first");
            }
        });
    }
}
