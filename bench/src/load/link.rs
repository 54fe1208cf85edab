//! One connection's bytes: a non-blocking socket, with or without TLS. It never knows HTTP.
//!
//! Idle, it owns a descriptor and the TLS keys. Bytes are read and decrypted in the thread's [`Scratch`]; only a partial
//! record or unsent output moves here, and is given back when it is used up.

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind};
use socket2::{Domain, Protocol, Socket, Type};

use super::failure::{Failure, Kind};
use super::tls::Tls;
use crate::http::MAX_BODY_BYTES;
use crate::sys::{self, Epoll, Interest};

/// Ciphertext read in one go.
const READ_BYTES: usize = 64 * 1024;
/// A partial TLS record or handshake message that may wait for its rest; rustls refuses longer ones itself.
const MAX_HELD_BYTES: usize = 128 * 1024;

/// A thread's room for the bytes of the connection in hand.
#[derive(Debug)]
pub(super) struct Scratch {
    /// Ciphertext as received.
    received: Vec<u8>,
    /// Records to send.
    sealed: Vec<u8>,
    /// Plaintext received.
    pub(super) plain: Vec<u8>,
    /// Bytes sent and received on the wire by this thread.
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            received: vec![0; READ_BYTES + MAX_HELD_BYTES],
            sealed: Vec::new(),
            plain: Vec::new(),
            sent_bytes: 0,
            received_bytes: 0,
        }
    }
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// More may come.
    Drained,
    /// The peer sends no more.
    Closed,
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Handshaking,
    Open,
    /// Our last byte is sent or waits in `unsent`.
    Finishing,
}

/// A connection.
pub(super) struct Link {
    socket: Socket,
    state: State,
    tls: Option<Box<Tls>>,
    held: Vec<u8>,
    unsent: Vec<u8>,
}

impl Link {
    /// Begins to connect, with TLS where there is a configuration for it, and has `epoll` tell of its events under `token`.
    pub(super) fn open(
        address: SocketAddr,
        source: Option<Ipv4Addr>,
        tls: Option<(&Arc<ClientConfig>, &ServerName<'static>)>,
        epoll: &Epoll,
        token: u64,
    ) -> Result<Self, Failure> {
        let tls = tls.map(|(config, name)| Tls::try_new(config.clone(), name.clone())).transpose();
        let link = Self::connect(address, source, tls.map_err(|e| Failure::new(Kind::Tls, e))?)?;
        epoll.add(link.fd(), Interest::Edge, token).map_err(|e| Failure::new(Kind::Connect, e))?;
        Ok(link)
    }

    /// Begins to connect; the socket's first event tells the result.
    pub(super) fn connect(
        address: SocketAddr,
        source: Option<Ipv4Addr>,
        tls: Option<Tls>,
    ) -> Result<Self, Failure> {
        let failed = |e: io::Error| Failure::new(Kind::Connect, e);
        let socket =
            Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))
                .map_err(failed)?;
        socket.set_tcp_nodelay(true).map_err(failed)?;
        if let Some(source) = source {
            // The port is chosen at connect, among those free towards this target.
            sys::defer_port(socket.as_fd()).map_err(failed)?;
            socket.bind(&SocketAddr::from((source, 0)).into()).map_err(failed)?;
        }
        match socket.connect(&address.into()) {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(e) => return Err(failed(e)),
        }
        let tls = tls.map(Box::new);
        Ok(Self { socket, state: State::Connecting, tls, held: Vec::new(), unsent: Vec::new() })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Plaintext can be sent.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether the TLS handshake was a full one; `None` without TLS.
    pub(super) fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.tls.as_ref().and_then(|tls| tls.handshake_kind())
    }

    /// Says that no more will be sent; the peer may still send. Of an open connection only.
    pub(super) fn finish(&mut self, scratch: &mut Scratch) -> Result<(), Failure> {
        scratch.sealed.clear();
        if let Some(tls) = &mut self.tls {
            tls.close(&mut self.held, &mut scratch.sealed).map_err(|e| Failure::new(Kind::Tls, e))?;
        }
        self.state = State::Finishing;
        self.write_out(scratch)?;
        if self.unsent.is_empty() { self.shut() } else { Ok(()) }
    }

    /// The socket can be written: ends connecting, and sends what is unsent.
    pub(super) fn handle_writable(&mut self, scratch: &mut Scratch) -> Result<(), Failure> {
        if self.state == State::Connecting {
            match self.socket.take_error() {
                Ok(None) => {}
                Ok(Some(e)) | Err(e) => return Err(Failure::new(Kind::Connect, e)),
            }
            self.state = if self.tls.is_some() { State::Handshaking } else { State::Open };
            scratch.sealed.clear();
            if let Some(tls) = &mut self.tls {
                let failed = |e| Failure::new(Kind::Tls, e);
                tls.handle_input(&mut [], &mut scratch.plain, &mut scratch.sealed).map_err(failed)?;
            }
            return self.write_out(scratch);
        }
        if !self.unsent.is_empty() {
            let sent = sys::write_some(self.socket.as_fd(), &self.unsent).map_err(reset)?;
            scratch.sent_bytes += sent as u64;
            self.unsent.drain(..sent);
            if self.unsent.is_empty() {
                self.unsent = Vec::new();
                if self.state == State::Finishing {
                    return self.shut();
                }
            }
        }
        Ok(())
    }

    /// Reads all there is and appends the plaintext to `scratch.plain`.
    pub(super) fn handle_readable(&mut self, scratch: &mut Scratch) -> Result<ReadEnd, Failure> {
        if self.state == State::Connecting {
            return Ok(ReadEnd::Drained);
        }
        loop {
            let held = self.held.len();
            if held > MAX_HELD_BYTES || scratch.plain.len() > 2 * MAX_BODY_BYTES {
                return Err(Failure::new(Kind::Malformed, "more bytes than an answer may have"));
            }
            let room = &mut scratch.received[..held + READ_BYTES];
            let n = match sys::read(self.socket.as_fd(), &mut room[held..]) {
                Ok(0) => return Ok(ReadEnd::Closed),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(ReadEnd::Drained),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(reset(e)),
            };
            scratch.received_bytes += n as u64;
            if self.tls.is_none() {
                scratch.plain.extend_from_slice(&scratch.received[..n]);
            } else if self.open_records(scratch, n)? == ReadEnd::Closed {
                return Ok(ReadEnd::Closed);
            }
            // A short read empties the socket; whatever comes next, an end of file too, raises another edge or is
            // part of the event in hand and read on the next call.
            if n < READ_BYTES {
                return Ok(ReadEnd::Drained);
            }
        }
    }

    /// Sends plaintext; what the socket does not take goes out when it can be written.
    pub(super) fn send(&mut self, plain: &[u8], scratch: &mut Scratch) -> Result<(), Failure> {
        scratch.sealed.clear();
        match &mut self.tls {
            Some(tls) => tls
                .seal(plain, &mut self.held, &mut scratch.sealed)
                .map_err(|e| Failure::new(Kind::Tls, e))?,
            None => scratch.sealed.extend_from_slice(plain),
        }
        self.write_out(scratch)
    }

    /// Decrypts the `n` bytes just read behind those held.
    fn open_records(&mut self, scratch: &mut Scratch, n: usize) -> Result<ReadEnd, Failure> {
        let Some(tls) = &mut self.tls else { return Ok(ReadEnd::Drained) };
        let held = self.held.len();
        scratch.received[..held].copy_from_slice(&self.held);
        let records = &mut scratch.received[..held + n];
        scratch.sealed.clear();
        let used = tls
            .handle_input(records, &mut scratch.plain, &mut scratch.sealed)
            .map_err(|e| Failure::new(Kind::Tls, e))?;
        if used == held + n {
            self.held = Vec::new();
        } else {
            self.held.clear();
            self.held.extend_from_slice(&records[used..]);
        }
        if tls.is_ready() && self.state == State::Handshaking {
            self.state = State::Open;
        }
        let closed = tls.is_peer_closed();
        self.write_out(scratch)?;
        Ok(if closed { ReadEnd::Closed } else { ReadEnd::Drained })
    }

    fn shut(&self) -> Result<(), Failure> {
        self.socket.shutdown(Shutdown::Write).map_err(reset)
    }

    fn write_out(&mut self, scratch: &mut Scratch) -> Result<(), Failure> {
        if scratch.sealed.is_empty() {
            return Ok(());
        }
        let mut sent = 0;
        if self.unsent.is_empty() {
            sent = sys::write_some(self.socket.as_fd(), &scratch.sealed).map_err(reset)?;
            scratch.sent_bytes += sent as u64;
        }
        self.unsent.extend_from_slice(&scratch.sealed[sent..]);
        Ok(())
    }
}

fn reset(e: io::Error) -> Failure {
    Failure::new(Kind::Reset, e)
}
