//! Servers that are processes: owns the sockets that are a process's standard streams, the lines on them, and what the shard
//! knows of its processes. Starting and ending them is the [`keeper`](crate::keeper)'s work. Never what a message means.
//!
//! A process ends in this order: its input is closed; if it is still there after a while, its group gets SIGTERM and then
//! SIGKILL. What it writes meanwhile is read and forgotten, so that no full pipe keeps it.

mod errors;
mod lines;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use mcp_config::Stdio;
use mcp_protocol::mcp::correlate::put_on_one_line;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::hub::Wire;
use super::{CallError, Closed, breathe, spawn};
use crate::keeper::{ProcessPermit, Reply, Request, receive_reply, send_request};
use crate::net::socket::Socket;
use crate::shard::clock::NEVER;
use crate::shard::{Elapsed, Shard};
use lines::Lines;

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// What a process wrote before it ended is here by then; longer, a descendant that left its group holds its output open.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Bytes of a line that is no message, in the log.
const SHOWN_BYTES: usize = 200;

/// A shard's processes.
#[derive(Default)]
pub(super) struct Processes {
    known: RefCell<HashMap<u64, Rc<Process>>>,
    next: Cell<u64>,
}

/// A process that the keeper was asked to start; it counts until the keeper says that it is gone.
struct Process {
    wire: Wire,
    ended: Cell<bool>,
    reader: RefCell<Option<Waker>>,
    _permit: ProcessPermit,
}

/// Has the keeper start a process and connects its standard streams with the wire.
///
/// # Errors
/// [`CallError::Processes`] where there are as many as may be, [`CallError::Connect`] when the system gives no sockets.
pub(super) fn open(shard: &Rc<Shard>, stdio: &Stdio, wire: &Wire) -> Result<(), CallError> {
    let keeper = shard.process.keeper.as_ref().ok_or_else(|| Closed::Connect.error())?;
    let permit = ProcessPermit::take(shard.upstream(wire.server().into()).server(), stdio)
        .ok_or(CallError::Processes)?;
    let processes = &shard.duplex.processes;
    let number = processes.next.get();
    processes.next.set(number + 1);
    let (input, output, errors) = (pair()?, pair()?, pair()?);
    let request = Request::Spawn { process: number, server: wire.server() };
    let streams = [input.1.as_fd(), output.1.as_fd(), errors.1.as_fd()];
    send_request(keeper.link(shard.index), request, &streams).map_err(CallError::Connect)?;
    let near = |near: OwnedFd| Socket::adopt(&shard.core.reactor, near).map_err(CallError::Connect);
    let (input, output, errors) = (near(input.0)?, near(output.0)?, near(errors.0)?);
    let process = Rc::new(Process {
        wire: wire.clone(),
        ended: Cell::new(false),
        reader: RefCell::default(),
        _permit: permit,
    });
    processes.known.borrow_mut().insert(number, process.clone());
    spawn(shard, |shard| write(shard, wire.clone(), input));
    let max_line = stdio.max_line_bytes;
    spawn(shard, |shard| read(shard, process, number, output, max_line));
    let name = shard.upstream(usize::from(wire.server())).name.clone();
    spawn(shard, |shard| errors::log(shard, name, number, errors));
    Ok(())
}

/// The keeper has something to say.
pub(crate) fn on_keeper(shard: &Rc<Shard>) {
    let Some(keeper) = &shard.process.keeper else { return };
    loop {
        let reply = match receive_reply(keeper.link(shard.index)) {
            Ok(Some(reply)) => reply,
            Ok(None) => return,
            Err(error) => crate::fatal::end(&format!("the keeper of stdio processes is gone: {error}")),
        };
        let (number, ended) = match reply {
            Reply::NotStarted { process, errno } => (process, Err(io::Error::from_raw_os_error(errno))),
            Reply::Ended { process, status } => (process, Ok(status)),
        };
        let Some(process) = shard.duplex.processes.known.borrow_mut().remove(&number) else { continue };
        let upstream = shard.upstream(usize::from(process.wire.server()));
        let server = &*upstream.name;
        match ended {
            Err(error) => {
                tracing::warn!(server, %error, "a server's process could not be started");
                process.wire.close(shard, Closed::Connect);
            }
            Ok(status) if process.wire.is_closed() => tracing::debug!(server, status, "a process ended"),
            Ok(status) => tracing::warn!(server, status, "a server's process ended by itself"),
        }
        process.ended.set(true);
        process.reader.take().into_iter().for_each(Waker::wake);
    }
}

/// A stream's near end, which does not block, and its far end, which does, as programs expect.
fn pair() -> Result<(OwnedFd, OwnedFd), CallError> {
    let pair = || -> rustix::io::Result<_> {
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&near, true)?;
        Ok((near, far))
    };
    pair().map_err(|error| CallError::Connect(error.into()))
}

/// Sends what the hub has, one message a line; in the end the process's input is closed.
async fn write(shard: Rc<Shard>, wire: Wire, input: Socket) {
    while let Some(mut message) = wire.outgoing().await {
        put_on_one_line(&mut message);
        message.push(b'\n');
        let mut rest = &message[..];
        while !rest.is_empty() {
            let sent = poll_fn(|cx| {
                // A process that reads nothing must not keep its own end from it.
                if wire.poll_is_closed(cx).is_ready() {
                    return Poll::Ready(Ok(0));
                }
                input.poll_send(cx, &[IoSlice::new(rest)])
            });
            match sent.await {
                Ok(0) => return,
                Ok(sent) => rest = &rest[sent..],
                // Its output says more, if only that it has ended.
                Err(error) => {
                    tracing::debug!(%error, server = wire.server(), "a process takes no input");
                    wire.close(&shard, Closed::Gone);
                    return;
                }
            }
        }
    }
}

/// Hands on what the process writes, line by line, until it ends.
async fn read(shard: Rc<Shard>, process: Rc<Process>, number: u64, output: Socket, max_line: usize) {
    let why = {
        let reading = pin!(read_lines(&shard, &process, &output, max_line));
        reading.await
    };
    process.wire.close(&shard, why);
    if process.ended.get() {
        return;
    }
    if let Some(keeper) = &shard.process.keeper
        && let Err(error) = send_request(keeper.link(shard.index), Request::End { process: number }, &[])
    {
        // It ends when the gateway does.
        tracing::warn!(%error, "the keeper did not hear that a process is to end");
    }
    // Until the process is gone, which the keeper sees to.
    loop {
        match poll_fn(|cx| poll_read(&shard, &process, &output, cx, &mut Vec::new())).await {
            Ok(0) | Err(_) => return,
            Ok(_) => breathe().await,
        }
    }
}

async fn read_lines(shard: &Rc<Shard>, process: &Process, output: &Socket, max_line: usize) -> Closed {
    let mut lines = Lines::new(max_line);
    let server = process.wire.server();
    loop {
        let ended = process.ended.get();
        let reading = poll_fn(|cx| {
            if process.ended.get() != ended {
                // From here on there is an end to waiting.
                return Poll::Ready(None);
            }
            if !ready!(process.wire.poll_may_read(cx)) {
                return Poll::Ready(Some(Ok(0)));
            }
            poll_read(shard, process, output, cx, lines.buffer()).map(Some)
        });
        let by = if ended { shard.core.clock.after(LAST_WORDS) } else { NEVER };
        match shard.deadline(by, pin!(reading)).await {
            Ok(Some(Ok(read))) if read > 0 => {}
            Ok(None) => continue,
            Ok(Some(_)) | Err(Elapsed) => return Closed::Gone,
        }
        let taken = lines.take(|line| {
            if process.wire.on_message(shard, line).is_err() {
                let upstream = shard.upstream(usize::from(server));
                let name = &*upstream.name;
                let shown = String::from_utf8_lossy(&line[..line.len().min(SHOWN_BYTES)]);
                tracing::warn!(server = name, line = &*shown, "a server wrote a line that is no message");
            }
        });
        if taken.is_err() {
            let upstream = shard.upstream(usize::from(server));
            let name = &*upstream.name;
            tracing::warn!(server = name, max_line, "a server wrote a line that is too long");
            return Closed::Malformed("a line that is too long");
        }
        breathe().await;
    }
}

/// Reads through the shard's scratch, so that an idle process has no buffer; 0 is the end.
fn poll_read(
    shard: &Shard,
    process: &Process,
    output: &Socket,
    cx: &mut Context<'_>,
    into: &mut Vec<u8>,
) -> Poll<io::Result<usize>> {
    *process.reader.borrow_mut() = Some(cx.waker().clone());
    let mut scratch = shard.receive_scratch.borrow_mut();
    let read = ready!(output.poll_recv(cx, &mut scratch[..READ_BYTES]));
    Poll::Ready(read.inspect(|&read| into.extend_from_slice(&scratch[..read])))
}
