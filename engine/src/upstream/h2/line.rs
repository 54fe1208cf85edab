//! One connection of HTTP/2: owns the task that drives it, its pings, and how many exchanges it carries. Never an exchange.
//!
//! Invariant: the task ends when nobody begins exchanges on the connection any more and the last one is over, or when the
//! server does not answer a ping.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_io::{AsyncRead as _, AsyncWrite as _};
use h2::Ping;
use h2::client::{Builder, Connection, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::stream::Stream;
use crate::shard::clock::Millis;
use crate::shard::{Elapsed, Shard};

/// How often a connection with exchanges is asked for a sign of life, and how long that may take.
const PING_EVERY: Duration = Duration::from_secs(15);
/// What a server may send ahead of its clients' reading, per exchange. The connection's window is that of all its exchanges,
/// so that clients that read nothing never use it up for the others: 6.25 MiB at the very most.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * super::MAX_STREAMS as u32;
/// Bytes of an answer's header list, as over HTTP/1.1.
const MAX_HEADER_BYTES: u32 = 32 << 10;
/// Bytes that h2 holds for each exchange that the connection does not take yet.
const SEND_BUFFER_BYTES: usize = 64 << 10;

pub(super) struct Line {
    /// `None` once no more exchanges begin here.
    handle: RefCell<Option<SendRequest<Bytes>>>,
    streams: Cell<usize>,
    used: Cell<bool>,
    idle_since: Cell<Millis>,
}

/// Counts an exchange on a connection.
pub(super) struct InStream {
    shard: Rc<Shard>,
    line: Rc<Line>,
}

impl InStream {
    pub(super) fn enter(shard: &Rc<Shard>, line: &Rc<Line>) -> Self {
        line.streams.set(line.streams.get() + 1);
        line.used.set(true);
        InStream { shard: shard.clone(), line: line.clone() }
    }
}

impl Drop for InStream {
    fn drop(&mut self) {
        self.line.streams.set(self.line.streams.get() - 1);
        self.line.idle_since.set(self.shard.core.clock.now());
        self.shard.want_housekeeping();
    }
}

impl Line {
    /// What begins exchanges; `None` once none begin here.
    pub(super) fn handle(&self) -> Option<SendRequest<Bytes>> {
        self.handle.borrow().clone()
    }

    pub(super) fn is_open(&self) -> bool {
        self.handle.borrow().is_some()
    }

    /// Lets no more exchanges begin; those in flight go on, and the connection ends with the last.
    pub(super) fn retire(&self) {
        let handle = self.handle.take();
        drop(handle);
    }

    /// Exchanges in flight.
    pub(super) fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Exchanges that the server allows at a time.
    pub(super) fn allowed(&self) -> usize {
        self.handle.borrow().as_ref().map_or(0, SendRequest::current_max_send_streams)
    }

    /// Whether an exchange began here before.
    pub(super) fn was_used(&self) -> bool {
        self.used.get()
    }

    pub(super) fn idle_since(&self) -> Millis {
        self.idle_since.get()
    }
}

/// Begins HTTP/2 on a connection and starts the task that drives it.
///
/// # Errors
/// h2's: the connection broke.
pub(super) async fn open(shard: &Rc<Shard>, stream: Stream) -> Result<Rc<Line>, h2::Error> {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_send_buffer_size(SEND_BUFFER_BYTES);
    let (handle, connection) = builder.handshake(Io(stream)).await?;
    let line = Rc::new(Line {
        handle: RefCell::new(Some(handle)),
        streams: Cell::new(0),
        used: Cell::new(false),
        idle_since: Cell::new(shard.core.clock.now()),
    });
    let (weak, driving) = (Rc::downgrade(&line), shard.clone());
    shard.core.tasks.spawn(move || drive(driving, weak, connection));
    shard.want_housekeeping();
    Ok(line)
}

/// Drives a connection to its end.
async fn drive(shard: Rc<Shard>, line: Weak<Line>, mut connection: Connection<Io, Bytes>) {
    let mut pings = connection.ping_pong();
    let mut is_asked = false;
    loop {
        let step = poll_fn(|cx| {
            if shard.is_draining()
                && let Some(line) = line.upgrade()
            {
                line.retire();
            }
            if let Some(pings) = &mut pings
                && pings.poll_pong(cx).is_ready()
            {
                is_asked = false;
            }
            Pin::new(&mut connection).poll(cx)
        });
        match shard.deadline(shard.core.clock.after(PING_EVERY), pin!(step)).await {
            Ok(Ok(())) => break,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection of HTTP/2 to a server ended");
                break;
            }
            Err(Elapsed) if is_asked => {
                tracing::debug!("a server did not answer a ping of HTTP/2");
                break;
            }
            Err(Elapsed) => {
                // An idle connection costs nothing if it is dead: the first exchange on it finds out.
                let is_idle = line.upgrade().is_some_and(|line| line.streams() == 0);
                if !is_idle && let Some(pings) = &mut pings {
                    is_asked = pings.send_ping(Ping::opaque()).is_ok();
                }
            }
        }
    }
    if let Some(line) = line.upgrade() {
        line.retire();
    }
}

/// A connection under the IO traits that h2 is generic over.
struct Io(Stream);

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buf.initialize_unfilled();
        let read = std::task::ready!(Pin::new(&mut self.0).poll_read(cx, room))?;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}
