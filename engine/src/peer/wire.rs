//! One connection between owners: owns its bytes, both ways at a time, from frames and to them. Never what a frame means.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use futures_io::{AsyncRead, AsyncWrite};
use mcp_protocol::mcpb::{FrameError, FrameHeader, FrameKind, HEADER_LEN, parse_header, write_frame};

use crate::net::stream::Stream;
use crate::shard::Shard;

/// Bytes read at a time.
const READ_BYTES: usize = 64 << 10;
/// Unsent bytes above which the pieces of answers wait: with what the socket holds, enough to keep it busy.
const MAX_UNSENT: usize = 256 << 10;
/// Reads per wake-up, after which the others have their turn.
const READS_PER_WAKE: usize = 8;

/// What waits to be sent, and who sends it.
#[derive(Default)]
pub(super) struct Wire {
    out: RefCell<Vec<u8>>,
    waker: RefCell<Option<Waker>>,
    /// Those whose pieces wait.
    waiting: RefCell<Vec<Waker>>,
    broken: Cell<bool>,
}

impl Wire {
    /// Has frames sent.
    ///
    /// # Errors
    /// [`FrameError::PayloadTooLarge`], and nothing of it is sent.
    pub(super) fn queue(&self, frames: &[(FrameKind, &[u8])]) -> Result<(), FrameError> {
        let mut out = self.out.borrow_mut();
        let before = out.len();
        for (kind, payload) in frames {
            if let Err(error) = write_frame(&mut out, *kind, payload) {
                out.truncate(before);
                return Err(error);
            }
        }
        drop(out);
        self.wake();
        Ok(())
    }

    /// Bytes that wait.
    pub(super) fn unsent(&self) -> usize {
        self.out.borrow().len()
    }

    /// Ready when a piece of an answer may be queued.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.unsent() < MAX_UNSENT {
            return Poll::Ready(());
        }
        self.waiting.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the connection, whose other side does not answer.
    pub(super) fn give_up(&self) {
        self.broken.set(true);
        self.wake();
    }

    fn wake(&self) {
        let waker = self.waker.borrow_mut().take();
        waker.into_iter().for_each(Waker::wake);
    }

    /// Carries frames both ways until the connection ends, which is always an error. What waited to be sent is forgotten then.
    pub(super) async fn drive(
        &self,
        shard: &Shard,
        stream: Stream,
        mut on_frame: impl FnMut(FrameKind, Vec<u8>) -> io::Result<()>,
    ) -> io::Error {
        let mut carrier =
            Carrier { stream, sending: Vec::new(), sent: 0, unflushed: false, input: Vec::new() };
        let error = poll_fn(|cx| match self.poll(shard, &mut carrier, &mut on_frame, cx) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        })
        .await;
        self.reset();
        error
    }

    /// Forgets what waited to be sent: it must not leave by a later connection.
    pub(super) fn reset(&self) {
        self.out.take();
        self.broken.set(false);
    }

    fn poll(
        &self,
        shard: &Shard,
        carrier: &mut Carrier,
        on_frame: &mut impl FnMut(FrameKind, Vec<u8>) -> io::Result<()>,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        if self.broken.get() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut reads = 0;
        loop {
            self.send(carrier, cx)?;
            match carrier.poll_read(shard, cx)? {
                Poll::Ready(()) => carrier.take_frames(on_frame)?,
                Poll::Pending => break,
            }
            reads += 1;
            if reads == READS_PER_WAKE {
                cx.waker().wake_by_ref();
                break;
            }
        }
        // What the frames brought forth leaves at once.
        self.send(carrier, cx)?;
        self.waker.replace(Some(cx.waker().clone()));
        Ok(())
    }

    fn send(&self, carrier: &mut Carrier, cx: &mut Context<'_>) -> io::Result<()> {
        loop {
            if carrier.sent == carrier.sending.len() {
                carrier.sending = self.out.take();
                carrier.sent = 0;
                self.waiting.take().into_iter().for_each(Waker::wake);
            }
            match carrier.poll_write(cx) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) | Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => return Err(error),
            }
        }
    }
}

struct Carrier {
    stream: Stream,
    sending: Vec<u8>,
    sent: usize,
    unflushed: bool,
    /// Bytes that do not make a whole frame yet.
    input: Vec<u8>,
}

impl Carrier {
    /// Sends what there is; says whether there may be more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.sent < self.sending.len() {
            let rest = &self.sending[self.sent..];
            match ready!(Pin::new(&mut self.stream).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
            self.unflushed = true;
        }
        let had_some = !self.sending.is_empty();
        self.sending = Vec::new();
        self.sent = 0;
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(had_some))
    }

    fn poll_read(&mut self, shard: &Shard, cx: &mut Context<'_>) -> io::Result<Poll<()>> {
        let mut scratch = shard.receive_scratch.borrow_mut();
        match Pin::new(&mut self.stream).poll_read(cx, &mut scratch[..READ_BYTES]) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Ok(read)) => {
                self.input.extend_from_slice(&scratch[..read]);
                Ok(Poll::Ready(()))
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    fn take_frames(
        &mut self,
        on_frame: &mut impl FnMut(FrameKind, Vec<u8>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut taken = 0;
        while let Some(FrameHeader { kind, len, .. }) =
            parse_header(&self.input[taken..]).map_err(io::Error::other)?
        {
            let end = taken + HEADER_LEN + len as usize;
            let Some(payload) = self.input.get(taken + HEADER_LEN..end) else { break };
            on_frame(kind, payload.to_vec())?;
            taken = end;
        }
        self.input.drain(..taken);
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Ok(())
    }
}
