//! What the gateway and its keeper say to each other: owns the layout, and the passing of descriptors. Never what is done
//! about it.
//!
//! Each shard has a SEQPACKET socket to the keeper. A message is one packet, little-endian:
//!
//! ```text
//! request   | kind: u8 | process: u64 | server: u16 |    kind 1: spawn, with the three standard streams; 2: end
//! reply     | kind: u8 | process: u64 | value: i32  |    kind 1: not started, errno; 2: ended, wait status
//! ```
//!
//! Before, the keeper's standard input, a stream socket, brings the servers' commands as JSON behind their length (u32), and
//! then the shards' sockets, one with each byte. Afterwards it brings commands of single servers, in the same form, before any
//! shard asks for them.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// Bytes of all servers' commands: 256 servers with as many words of 4 KiB would be more than anybody configures.
const MAX_SPECS_BYTES: usize = 64 << 20;
/// A process's standard streams.
const STREAMS: usize = 3;
const REQUEST_BYTES: usize = 11;
const REPLY_BYTES: usize = 13;

/// What the keeper must know of the configuration.
#[derive(Serialize, Deserialize)]
pub(super) struct Specs {
    pub(super) shards: usize,
    /// By the server's index; `None` for other transports.
    pub(super) servers: Vec<Option<Spec>>,
}

/// How a server's processes are started.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) command: Vec<String>,
    /// Names and values; those without a value are passed on where they are set.
    pub(super) env: Vec<(String, Option<String>)>,
    pub(super) cwd: Option<String>,
}

/// How one server's processes are started from now on.
#[derive(Serialize, Deserialize)]
pub(super) struct Update {
    pub(super) server: u16,
    pub(super) spec: Spec,
}

/// A shard's wish. Processes are numbered by their shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Start one, with the standard streams that come along.
    Spawn { process: u64, server: u16 },
    /// Its input has been closed; it is to go.
    End { process: u64 },
}

/// What became of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    NotStarted { process: u64, errno: i32 },
    Ended { process: u64, status: i32 },
}

impl Request {
    fn encode(self) -> [u8; REQUEST_BYTES] {
        let (kind, process, server) = match self {
            Request::Spawn { process, server } => (1, process, server),
            Request::End { process } => (2, process, 0),
        };
        let mut bytes = [kind; REQUEST_BYTES];
        bytes[1..9].copy_from_slice(&process.to_le_bytes());
        bytes[9..].copy_from_slice(&server.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; REQUEST_BYTES]) -> Option<Self> {
        let [kind, process @ .., s0, s1] = bytes;
        let (process, server) = (u64::from_le_bytes(process), u16::from_le_bytes([s0, s1]));
        match kind {
            1 => Some(Request::Spawn { process, server }),
            2 => Some(Request::End { process }),
            _ => None,
        }
    }
}

impl Reply {
    fn encode(self) -> [u8; REPLY_BYTES] {
        let (kind, process, value) = match self {
            Reply::NotStarted { process, errno } => (1, process, errno),
            Reply::Ended { process, status } => (2, process, status),
        };
        let mut bytes = [kind; REPLY_BYTES];
        bytes[1..9].copy_from_slice(&process.to_le_bytes());
        bytes[9..].copy_from_slice(&value.to_le_bytes());
        bytes
    }

    fn decode(bytes: [u8; REPLY_BYTES]) -> Option<Self> {
        let [kind, process @ .., v0, v1, v2, v3] = bytes;
        let (process, value) = (u64::from_le_bytes(process), i32::from_le_bytes([v0, v1, v2, v3]));
        match kind {
            1 => Some(Reply::NotStarted { process, errno: value }),
            2 => Some(Reply::Ended { process, status: value }),
            _ => None,
        }
    }
}

/// Sends a shard's wish without waiting.
///
/// # Errors
/// The system's; `WouldBlock` when the keeper has more to do than it can.
pub(crate) fn send_request(link: impl AsFd, request: Request, streams: &[BorrowedFd<'_>]) -> io::Result<()> {
    send(link, &request.encode(), streams)
}

/// The keeper's next reply; `None` when there is none now.
///
/// # Errors
/// `UnexpectedEof` when the keeper is gone; the system's.
pub(crate) fn receive_reply(link: impl AsFd) -> io::Result<Option<Reply>> {
    let mut bytes = [0; REPLY_BYTES];
    match receive(link, &mut bytes)? {
        Some(_) => Reply::decode(bytes).map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into()),
        None => Ok(None),
    }
}

/// The next wish of a shard, with the streams that came along.
pub(super) fn receive_request(link: impl AsFd) -> io::Result<Option<(Request, Vec<OwnedFd>)>> {
    let mut bytes = [0; REQUEST_BYTES];
    let Some(streams) = receive(link, &mut bytes)? else { return Ok(None) };
    let request = Request::decode(bytes).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((request, streams)))
}

pub(super) fn send_reply(link: impl AsFd, reply: Reply) -> io::Result<()> {
    send(link, &reply.encode(), &[])
}

/// Gives a new keeper what it must know. Waits until it has read it.
pub(super) fn send_specs(mut control: impl Write + AsFd, specs: &Specs, links: &[OwnedFd]) -> io::Result<()> {
    control.write_all(&framed(specs)?)?;
    links.iter().try_for_each(|link| send(&control, &[0], &[link.as_fd()]))
}

/// Tells a keeper of a server. Waits until it has room for it.
pub(super) fn send_update(mut control: impl Write, update: &Update) -> io::Result<()> {
    control.write_all(&framed(update)?)
}

/// JSON behind its length.
fn framed(said: &impl Serialize) -> io::Result<Vec<u8>> {
    let text = serde_json::to_vec(said)?;
    let length = u32::try_from(text.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok([&length.to_le_bytes()[..], &text].concat())
}

/// Takes the first whole update out of what has come; `None` while there is none.
pub(super) fn take_update(come: &mut Vec<u8>) -> io::Result<Option<Update>> {
    let Some((length, rest)) = come.split_first_chunk() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if length > MAX_SPECS_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let Some(text) = rest.get(..length) else { return Ok(None) };
    let update = serde_json::from_slice(text)?;
    come.drain(..size_of::<u32>() + length);
    Ok(Some(update))
}

/// Reads what the gateway says first.
pub(super) fn receive_specs(mut control: impl Read + AsFd) -> io::Result<(Specs, Vec<OwnedFd>)> {
    let mut length = [0; 4];
    control.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_SPECS_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length];
    control.read_exact(&mut text)?;
    let specs: Specs = serde_json::from_slice(&text)?;
    let mut links = Vec::with_capacity(specs.shards);
    while links.len() < specs.shards {
        links.extend(receive(&control, &mut [0])?.ok_or(io::ErrorKind::WouldBlock)?);
    }
    Ok((specs, links))
}

fn send(link: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    loop {
        match sendmsg(&link, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Fills `bytes` with one packet; `None` when none is there now.
fn receive(link: impl AsFd, bytes: &mut [u8]) -> io::Result<Option<Vec<OwnedFd>>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(STREAMS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let wanted = bytes.len();
    let received = loop {
        match recvmsg(&link, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    match received.bytes {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count if count == wanted => Ok(Some(descriptors)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn updates_come_whole_whatever_the_pieces() {
        let update = |server, word: &str| Update {
            server,
            spec: Spec { command: vec![word.to_owned()], env: Vec::new(), cwd: None },
        };
        let mut sent = Vec::new();
        send_update(&mut sent, &update(1, "a")).unwrap();
        send_update(&mut sent, &update(513, "b")).unwrap();
        let (mut come, mut taken) = (Vec::new(), Vec::new());
        for byte in sent {
            come.push(byte);
            taken.extend(take_update(&mut come).unwrap().map(|update| (update.server, update.spec.command)));
        }
        assert_eq!(taken, [(1, vec!["a".to_owned()]), (513, vec!["b".to_owned()])]);
        assert!(take_update(&mut vec![0xff; 4]).is_err());
    }

    #[test]
    fn what_is_sent_is_received_with_its_descriptors() {
        let (near, far) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::NONBLOCK, None).unwrap();
        assert!(receive_request(&far).unwrap().is_none());
        let (mut kept, given) = UnixStream::pair().unwrap();
        let spawn = Request::Spawn { process: u64::MAX - 1, server: 513 };
        send_request(&near, spawn, &[given.as_fd(), given.as_fd(), given.as_fd()]).unwrap();
        send_request(&near, Request::End { process: 7 }, &[]).unwrap();
        drop(given);
        let (request, streams) = receive_request(&far).unwrap().unwrap();
        assert_eq!((request, streams.len()), (spawn, 3));
        UnixStream::from(streams.into_iter().next().unwrap()).write_all(b"x").unwrap();
        kept.read_exact(&mut [0]).unwrap();
        assert_eq!(receive_request(&far).unwrap().unwrap().0, Request::End { process: 7 });
        for reply in [Reply::NotStarted { process: 1, errno: 2 }, Reply::Ended { process: 2, status: -3 }] {
            send_reply(&far, reply).unwrap();
            assert_eq!(receive_reply(&near).unwrap(), Some(reply));
        }
        drop(near);
        assert_eq!(receive_request(&far).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
