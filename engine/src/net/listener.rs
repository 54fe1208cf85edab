//! Listeners: owns a shard's own `SO_REUSEPORT` socket for one door and its accept loop. It never reads from a
//! connection. The permit (connection limits) is the caller's, asked with the peer's address before a connection exists
//! for anybody else.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with};

/// Connections that may wait to be accepted, per shard; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Silence after which the kernel probes whether a peer is still there, and between its probes: a peer that vanished
/// without a word is noticed within minutes even on a stream that may be silent for hours.
const KEEPALIVE: std::time::Duration = std::time::Duration::from_secs(60);
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
