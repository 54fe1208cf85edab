//! Listeners: owns a shard's own `SO_REUSEPORT` socket for one door and its accept loop. It never reads from a
//! connection. The permit (connection limits) is the caller's, asked with the peer's address before a connection exists
//! for anybody else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{SockFilter, SockRef};

/// Connections that may wait to be accepted, per shard; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Silence after which the kernel probes whether a peer is still there, and between its probes: a peer that vanished
/// without a word is noticed within minutes even on a stream that may be silent for hours.
const KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(60);
/// Where a TCP header has its flags, and two of them (RFC 9293, 3.1).
const TCP_FLAGS_AT: u32 = 13;
const TCP_SYN: u32 = 0x02;
const TCP_ACK: u32 = 0x10;

/// Which protocol a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DoorKind {
    /// HTTPS on `gateway.server.https_port`.
    Https,
    /// MCPB: clients on `gateway.server.binary_port`, other gateways on `gateway.peers.listen`.
    Mcpb,
}

pub(crate) struct Listener {
    descriptor: OwnedFd,
    pub(crate) door: DoorKind,
}

/// How an accept loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// The queue is empty, or the batch is full: the next event goes on.
    Enough,
    /// The process or the system has no descriptor or memory for another connection: back off.
    Exhausted,
}

impl Listener {
    /// Binds and listens.
    ///
    /// # Errors
    /// The system's, with the address in the message.
    pub(crate) fn bind(address: SocketAddr, door: DoorKind) -> io::Result<Self> {
        let open = || -> io::Result<OwnedFd> {
            let socket = socket2::Socket::new(
                socket2::Domain::for_address(address),
                socket2::Type::STREAM.nonblocking().cloexec(),
                Some(socket2::Protocol::TCP),
            )?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            // Accepted connections inherit these: one system call each per listener instead of per connection.
            socket.set_tcp_nodelay(true)?;
            socket.set_keepalive(true)?;
            socket.set_tcp_keepalive(
                &socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE),
            )?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        let descriptor = open()
            .map_err(|error| io::Error::new(error.kind(), format!("listening on {address}: {error}")))?;
        Ok(Listener { descriptor, door })
    }

    pub(crate) fn descriptor(&self) -> impl AsFd {
        &self.descriptor
    }

    /// Has the kernel drop the first segment of every new connection, and nothing else: a client repeats it, to whoever
    /// listens by then. A listener that closes resets what is in its queue and in its handshakes, so both are to be empty.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn ignore_newcomers(&self) -> io::Result<()> {
        // A socket's filter sees a segment from its TCP header on; it says how many bytes of it to keep. What is accepted
        // inherits the filter, and never has use for such a segment.
        let filter = [
            SockFilter::new((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, TCP_FLAGS_AT),
            SockFilter::new((libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, 0, 0, TCP_SYN | TCP_ACK),
            SockFilter::new((libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, 0, 1, TCP_SYN),
            SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
            SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX),
        ];
        SockRef::from(&self.descriptor).attach_filter(&filter)
    }

    /// Accepts at most `most` connections; `take` gets each with its peer's address.
    pub(crate) fn accept(&self, most: usize, mut take: impl FnMut(OwnedFd, IpAddr)) -> Accepted {
        for _ in 0..most {
            match acceptfrom_with(&self.descriptor, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((descriptor, address)) => {
                    let peer = address.and_then(|address| SocketAddr::try_from(address).ok());
                    take(
                        descriptor,
                        peer.map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.ip().to_canonical()),
                    );
                }
                Err(Errno::AGAIN) => return Accepted::Enough,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    return Accepted::Exhausted;
                }
                // The peer is gone already, or the call was interrupted: there may be others.
                Err(_) => {}
            }
        }
        Accepted::Enough
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::*;

    const SHORT: Duration = Duration::from_millis(200);

    fn connect(address: SocketAddr) -> io::Result<socket2::Socket> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        socket.connect_timeout(&address.into(), SHORT)?;
        Ok(socket)
    }

    #[test]
    fn who_waits_already_is_accepted_and_a_newcomer_is_left_to_another_listener() {
        let leaving =
            Listener::bind("127.0.0.1:0".parse().expect("an address"), DoorKind::Https).expect("bound");
        let address = SockRef::from(&leaving.descriptor).local_addr().expect("an address");
        let address = address.as_socket().expect("of the internet");
        let waiting = connect(address).expect("a connection");
        leaving.ignore_newcomers().expect("a filter");
        let error = connect(address).expect_err("nobody answers");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let mut accepted = Vec::new();
        leaving.accept(8, |descriptor, _| accepted.push(descriptor));
        assert_eq!(accepted.len(), 1);
        // What has come with the filter works both ways.
        let served = SockRef::from(&accepted[0]);
        assert_eq!((waiting.send(b"a").expect("sent"), served.send(b"bc").expect("sent")), (1, 2));
        let mut bytes = [0; 8];
        // SAFETY: the buffer is as long as is said, and lives through the call.
        let read = unsafe { libc::recv(waiting.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        assert_eq!((read, &bytes[..2]), (2, b"bc".as_slice()));

        let staying = Listener::bind(address, DoorKind::Https).expect("bound beside it");
        drop(leaving);
        let _newcomer = connect(address).expect("the other one listens");
        let mut others = 0;
        staying.accept(8, |_, _| others += 1);
        assert_eq!(others, 1);
    }
}
